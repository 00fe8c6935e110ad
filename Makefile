# Everything here works on a fresh Debian 12 machine with Rust: what is missing is installed first (.ci/install).
# The lab's namespaces need root: where you are not, what is built as you runs through sudo.

ROOT := $(if $(filter 0,$(shell id -u)),,$(if $(shell command -v sudo),sudo -E env PATH=$(PATH)))
ifneq ($(ROOT),)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(ROOT)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := $(ROOT)
endif

.PHONY: help setup build image demo test soak fuzz bench lint bless

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup:
	@.ci/install

build: setup ## the daemon, at target/release/selvedge, and the CNI plugin beside it
	cargo build --release -p selvedge --bin selvedge
	cp "$$(.ci/plugin --release)" $(or $(CARGO_TARGET_DIR),target)/release/selvedge-cni

image: build ## a container image, at target/selvedge-image.tar, for `ctr images import` or `docker load`
	@.ci/image target/release/selvedge target/release/selvedge-cni target/selvedge-image.tar

demo: setup ## a two-node lab, a shop, and its policies, with real packets
	cargo build --release -p selvedge -p selvedge-lab --bin selvedge --bin demo
	@$(ROOT) target/release/demo target/release/selvedge examples

# The tests that run the daemon take the one that this very command builds.
test: setup ## all tests
	@.ci/plugin >/dev/null
	SELVEDGE_BINARY=$(abspath $(or $(CARGO_TARGET_DIR),target))/debug/selvedge cargo test --workspace

soak: export SELVEDGE_SOAK = 1
soak: export SELVEDGE_BINARY = $(abspath $(or $(CARGO_TARGET_DIR),target))/release/selvedge
soak: build ## the random tests, many times as many: a million events, 10,000 sequences of them, 200 kills
	cargo test --release -p selvedge --test day -- --nocapture
	cargo test --release -p selvedge --test incremental
	cargo test --release -p selvedge --test verdict_agrees
	cargo test --release -p selvedge-lab --test agree
	cargo test --release -p selvedge-lab --test crash -- --nocapture --test-threads 1
	cargo test --release -p selvedge-lab --test drift -- --nocapture --test-threads 1
	cargo test --release -p selvedge-lab --test cni -- --nocapture

FUZZ_SECONDS ?= 60

fuzz: setup ## each fuzz target for FUZZ_SECONDS (60), on the stable compiler; FUZZ="stream netlink" for some of them
	.ci/fuzz $(FUZZ_SECONDS) $(FUZZ)

bench: setup ## the benchmarks: what policy costs, as ratios of measurements in turns, beside the targets
	cargo bench -p selvedge-lab --bench '*'

lint: setup ## format, lints, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: licences and advisories not checked"; fi

bless: setup ## rewrite the golden rulesets and the manifests' one file after a change of their sources; read the diff
	BLESS=1 cargo test --test golden --test manifests
