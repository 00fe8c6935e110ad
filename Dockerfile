# The image that `make image` writes, built by an engine: docker build --build-arg VERSION=0.1.0 .
FROM rust:1.90-bookworm AS build
WORKDIR /selvedge
COPY . .
RUN .ci/install && cargo build --release --locked -p selvedge --bin selvedge
RUN .ci/image-root target/release/selvedge "$(.ci/plugin --release)" /image

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title="selvedge" \
      org.opencontainers.image.description="NetworkPolicy for Flannel clusters, with nftables" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.source="https://github.com/selvedge/selvedge" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
ENTRYPOINT ["/selvedge"]
