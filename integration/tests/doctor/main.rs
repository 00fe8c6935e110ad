//! `selvedge doctor` on real nodes: well ones, and each with one thing wrong.

mod api;
mod leftovers;

use std::process::Output;

use selvedge_lab::stage::{self, Manifests, PodManifest, node, policy};
use selvedge_lab::{Error, Lab, Node, NsCommand};

use leftovers::LEFTOVERS;

/// kube-proxy's own chains, in its nftables mode.
const KUBE_PROXY: &str = "table ip kube-proxy { chain services { }; }";

fn lab() -> Result<Lab, Error> {
    let lab = Lab::builder()
        .node("node-1")
        .pod("shop/web", "node-1")
        .pod("shop/db", "node-1")
        .build()?;
    lab.node("node-1")?.netns().nft(KUBE_PROXY)?;
    Ok(lab)
}

/// `selvedge doctor` on a node. The machine's own Flannel, if it has one, is not the lab's.
fn doctor(node: &Node, arguments: &[&str]) -> Result<NsCommand, Error> {
    let command = stage::selvedge(node)?.args(["doctor", "--subnet-env", "/nowhere/subnet.env"]);
    Ok(command.args(arguments))
}

/// Its exit code and lines.
fn examine(node: &Node, arguments: &[&str]) -> Result<(i32, Vec<String>), Error> {
    Ok(lines(&doctor(node, arguments)?.output()?))
}

fn lines(output: &Output) -> (i32, Vec<String>) {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(str::to_owned).collect();
    (output.status.code().unwrap_or(-1), lines)
}

/// The lines of this status.
fn of<'a>(lines: &'a [String], status: &str) -> Vec<&'a str> {
    let with = lines.iter().map(String::as_str);
    with.filter(|line| line.split_whitespace().next() == Some(status))
        .collect()
}

#[test]
fn a_well_node_has_nothing_that_fails() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    let before = node.nft_ruleset()?;
    let (code, said) = examine(&node, &["--probe"])?;
    assert_eq!(code, 0, "{said:#?}");
    assert_eq!(of(&said, "warn"), [""; 0], "{said:#?}");
    assert_eq!(said.last().map(String::as_str), Some("all is well"));
    assert!(
        said.iter()
            .any(|line| line.contains("cni0 is up, with 2 ports"))
    );
    assert_eq!(node.nft_ruleset()?, before);
    Ok(())
}

#[test]
fn the_answer_for_programs_says_the_same() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    node.netns()
        .set_sysctls(&[("net/bridge/bridge-nf-call-ip6tables", "0")])?;
    let output = doctor(&node, &["-o", "json"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Invalid {
            what: error.to_string(),
        })?;
    assert_eq!(answer["status"], "fail");
    let findings = answer["findings"].as_array().cloned().unwrap_or_default();
    let failed: Vec<_> = findings
        .iter()
        .filter(|finding| finding["status"] == "fail")
        .collect();
    assert_eq!(failed.len(), 1, "{answer:#}");
    assert_eq!(failed[0]["check"], "br_netfilter");
    assert_eq!(failed[0]["advice"], "run `selvedge node-setup`");
    Ok(())
}

#[test]
fn what_is_switched_off_fails() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    for (switch, words) in [
        (
            "net/bridge/bridge-nf-call-iptables",
            "bridge-nf-call-iptables is 0",
        ),
        (
            "net/bridge/bridge-nf-call-ip6tables",
            "bridge-nf-call-ip6tables is 0",
        ),
        ("net/ipv4/ip_forward", "ip_forward is 0"),
        ("net/ipv6/conf/all/forwarding", "forwarding is 0"),
    ] {
        node.netns().set_sysctls(&[(switch, "0")])?;
        let (code, said) = examine(&node, &[])?;
        let failed = of(&said, "fail");
        assert_eq!((code, failed.len()), (1, 1), "{said:#?}");
        assert!(failed[0].contains(words), "{failed:?}");
        node.netns().set_sysctls(&[(switch, "1")])?;
    }
    Ok(())
}

#[test]
fn bridges_are_found_and_missed() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    let (code, said) = examine(&node, &["--bridge", "br9"])?;
    assert_eq!(code, 1, "{said:#?}");
    assert!(of(&said, "fail")[0].contains("there is no bridge br9"));
    node.netns().ip_batch("link set cni0 down\n")?;
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 1, "{said:#?}");
    assert!(of(&said, "fail")[0].contains("cni0 is down"), "{said:#?}");
    node.netns().ip_batch("link delete cni0\n")?;
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 0, "{said:#?}");
    assert!(of(&said, "warn")[0].contains("no cni0"), "{said:#?}");
    Ok(())
}

#[test]
fn kube_proxys_mode_is_told() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    // It is a dummy interface on a real node; its name is what tells.
    node.netns().ip_batch("link add kube-ipvs0 type bridge\n")?;
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 1, "{said:#?}");
    let failed = of(&said, "fail");
    assert!(
        failed[0].contains("kube-proxy") && failed[0].contains("IPVS"),
        "{failed:?}"
    );
    node.netns().ip_batch("link delete kube-ipvs0\n")?;
    node.netns().nft("delete table ip kube-proxy")?;
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 0, "{said:#?}");
    assert!(of(&said, "warn")[0].contains("kube-proxy"), "{said:#?}");
    node.netns()
        .nft("table ip mangle { chain KUBE-PROXY-CANARY { }; }")?;
    let (_, said) = examine(&node, &[])?;
    assert!(
        said.iter().any(|line| line.contains("iptables mode")),
        "{said:#?}"
    );
    Ok(())
}

#[test]
fn each_engines_leftovers_are_told_with_what_to_do() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    for leftover in LEFTOVERS {
        node.netns().nft("flush ruleset")?;
        node.netns().nft(KUBE_PROXY)?;
        node.netns().nft(leftover.script)?;
        let (code, said) = examine(&node, &[])?;
        let engine = leftover.engine;
        assert_eq!(
            code,
            i32::from(leftover.status == "fail"),
            "{engine}: {said:#?}"
        );
        let found = [of(&said, "fail"), of(&said, "warn")].concat();
        assert_eq!(found.len(), 1, "{engine}: {said:#?}");
        assert!(found[0].starts_with(leftover.status), "{engine}: {found:?}");
        for word in leftover.words {
            assert!(
                found[0].contains(word),
                "{engine}: no {word:?} in {found:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn selvedge_itself_is_seen() -> Result<(), Error> {
    let manifests = Manifests::new()?;
    let mut text = node(1);
    text += &PodManifest::new("shop/web", 1, 2, "app: web").to_string();
    text += &policy("shop/deny", "{podSelector: {}}");
    manifests.put("cluster.yaml", text)?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-1")?;
    node.netns().nft(KUBE_PROXY)?;
    let daemon = stage::daemon(&node, manifests.path())?;
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 0, "{said:#?}");
    let holder = format!("runs (process {} of user 0); tables: 2", daemon.pid());
    assert!(said.iter().any(|line| line.contains(&holder)), "{said:#?}");
    drop(daemon);
    let (code, said) = examine(&node, &[])?;
    assert_eq!(code, 0, "{said:#?}");
    assert!(
        of(&said, "warn")[0].contains("selvedge cleanup"),
        "{said:#?}"
    );
    Ok(())
}

#[test]
fn without_permissions_it_says_which() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    let arguments = ["doctor", "--probe", "--subnet-env", "/nowhere/subnet.env"];
    let without = |capability: &str| -> Result<(Output, i32, Vec<String>), Error> {
        let bounding = format!("--bounding-set=-{capability}");
        let inherited = format!("--inh-caps=-{capability}");
        let drop = [bounding.as_str(), inherited.as_str(), "--"];
        let command = node.netns().command("setpriv").args(drop);
        let output = command.arg(stage::binary()?).args(arguments).output()?;
        let (code, said) = lines(&output);
        Ok((output, code, said))
    };
    let (output, code, said) = without("net_admin")?;
    assert_eq!(code, 3, "{said:#?}");
    let failed = of(&said, "fail");
    assert!(failed[0].contains("NET_ADMIN is needed"), "{failed:?}");
    // What needs no permission was looked at all the same.
    assert!(
        said.iter().any(|line| line.contains("cni0 is up")),
        "{said:#?}"
    );
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(complaint.lines().count(), 1, "{complaint}");

    let (_, code, said) = without("sys_admin")?;
    assert_eq!(code, 1, "{said:#?}");
    assert!(of(&said, "warn")[0].contains("not tried"), "{said:#?}");
    let failed = of(&said, "fail");
    assert_eq!(failed.len(), 1, "{said:#?}");
    assert!(
        failed[0].contains("nothing is proven") && failed[0].contains("SYS_ADMIN"),
        "{failed:?}"
    );

    let kernel_without = node.netns().command(env!("CARGO_BIN_EXE_deny-netlink"));
    let output = kernel_without
        .arg(stage::binary()?)
        .arg("doctor")
        .output()?;
    let (code, said) = lines(&output);
    assert_eq!(code, 3, "{said:#?}");
    assert!(of(&said, "fail")[0].contains("no nfnetlink"), "{said:#?}");
    Ok(())
}

#[test]
fn the_probe_fails_where_bridged_packets_pass_netfilter_by() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    for proof in ["--probe", "--only-probe"] {
        let (code, said) = examine(&node, &[proof, "--probe-unbridged"])?;
        assert_eq!(code, 1, "{said:#?}");
        let failed = of(&said, "fail");
        assert_eq!(failed.len(), 2, "{said:#?}");
        for line in failed {
            assert!(
                line.contains("ARRIVES") && line.contains("IPv4") && line.contains("IPv6"),
                "{line}"
            );
        }
        // The port guard does without br_netfilter.
        let guard = said
            .iter()
            .find(|line| line.contains("with the port guard"));
        assert!(
            guard.is_some_and(|line| line.starts_with("ok")),
            "{said:#?}"
        );
    }
    Ok(())
}

#[test]
fn it_is_readable_in_80_columns() -> Result<(), Error> {
    let lab = lab()?;
    let node = lab.node("node-1")?;
    node.netns().nft(LEFTOVERS[0].script)?;
    let output = doctor(&node, &["--probe"])?.env("COLUMNS", "80").output()?;
    let (_, said) = lines(&output);
    for line in &said {
        assert!(line.chars().count() <= 80, "{line}");
    }
    Ok(())
}
