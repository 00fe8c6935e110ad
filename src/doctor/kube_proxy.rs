//! kube-proxy's mode: in IPVS mode, Services' traffic to a node's own pods goes past hook forward.

use selvedge_nft::Survey;

use super::Finding;

const CHECK: &str = "kube-proxy";

/// The interface that holds Services' addresses in IPVS mode.
const IPVS_LINK: &str = "kube-ipvs0";

/// Chains that kube-proxy makes in iptables mode; kubelet makes some of the others that begin with KUBE-.
const CHAINS: [&str; 3] = ["KUBE-PROXY-CANARY", "KUBE-SERVICES", "KUBE-NODEPORTS"];

/// Which mode it is in. `links` are the interfaces' names; `unread` says that iptables-legacy has tables that could not
/// be read.
pub fn judge(survey: &Survey, links: &[String], unread: bool) -> Finding {
    if links.iter().any(|link| link == IPVS_LINK) {
        return Finding::fail(
            CHECK,
            format!(
                "IPVS mode ({IPVS_LINK} is there): Services' traffic to pods of this node passes by the policies"
            ),
            format!(
                "use its mode iptables or nftables, and delete what is left: `ip link delete {IPVS_LINK}`"
            ),
        );
    }
    let is_ip = |family: &str| family == "ip" || family == "ip6";
    let tables = || survey.tables.iter().filter(|table| is_ip(&table.family));
    if tables().any(|table| table.name == "kube-proxy") {
        return Finding::ok(CHECK, "nftables mode (table kube-proxy)");
    }
    let known = tables()
        .flat_map(|table| &table.chains)
        .find(|chain| CHAINS.contains(&chain.name.as_str()));
    if let Some(chain) = known {
        return Finding::ok(CHECK, format!("iptables mode (chain {})", chain.name));
    }
    match unread {
        true => Finding::warn(
            CHECK,
            "not found in nftables; iptables-legacy has tables that can't be read from here",
            "see its mode with `iptables-legacy-save` on the node: any but IPVS will do",
        ),
        false => Finding::warn(
            CHECK,
            "not found",
            "Services need it, or something in its place that rewrites addresses before hook forward; eBPF programs and IPVS don't",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::fixtures::{base, chain, survey, table};
    use super::*;

    #[test]
    fn each_mode_is_told_apart() {
        let nftables = survey([table(
            "ip kube-proxy",
            [base("services", "forward", false, &[])],
        )]);
        let canary = [
            chain("KUBE-KUBELET-CANARY", 0, &[]),
            chain("KUBE-PROXY-CANARY", 0, &[]),
        ];
        let iptables = survey([table("ip mangle", canary)]);
        let kubelet = survey([table("ip mangle", [chain("KUBE-KUBELET-CANARY", 0, &[])])]);
        let plain = ["cni0".to_owned()];
        let ipvs = ["cni0".to_owned(), IPVS_LINK.to_owned()];
        let said = |survey, links: &[String]| {
            let finding = judge(survey, links, false);
            (finding.status, finding.found)
        };
        let (status, found) = said(&nftables, &plain);
        assert_eq!(
            (status, found.contains("nftables mode")),
            (Status::Ok, true)
        );
        let (status, found) = said(&iptables, &plain);
        assert_eq!(
            (status, found.contains("iptables mode")),
            (Status::Ok, true)
        );
        let (status, found) = said(&iptables, &ipvs);
        assert_eq!((status, found.contains("IPVS")), (Status::Fail, true));
        assert_eq!(
            said(&kubelet, &plain),
            (Status::Warn, "not found".to_owned())
        );
        let finding = judge(&kubelet, &plain, true);
        assert!(finding.found.contains("iptables-legacy"), "{finding:?}");
    }
}
