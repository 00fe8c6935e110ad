use selvedge_nft::SurveyedChain;

use super::super::Status;
use super::super::fixtures::{base, chain, survey, table};
use super::*;

fn examine(survey: &Survey) -> Vec<Finding> {
    judge(Place {
        survey,
        ipsets: &[],
        links: &[],
        pins: &[],
        queues: false,
    })
}

/// The only finding, which names the engine.
fn only(survey: &Survey, status: Status, engine: &str) -> Finding {
    let findings = examine(survey);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].status, status, "{findings:?}");
    assert!(findings[0].found.contains(engine), "{findings:?}");
    findings[0].clone()
}

/// What kube-router makes in iptables, and what k3s leaves when its network policy is switched off.
fn kube_router() -> Survey {
    let chains = [
        base(
            "FORWARD",
            "forward",
            false,
            &["KUBE-ROUTER-FORWARD", "FLANNEL-FWD"],
        ),
        chain("KUBE-ROUTER-FORWARD", 0, &["KUBE-POD-FW-XIOATVM5TOINSO4V"]),
        chain("KUBE-POD-FW-XIOATVM5TOINSO4V", 2, &["KUBE-NWPLCY-DEFAULT"]),
        chain("KUBE-NWPLCY-DEFAULT", 0, &[]),
        chain("FLANNEL-FWD", 0, &[]),
    ];
    survey([table("ip filter", chains)])
}

#[test]
fn a_node_of_flannel_and_kube_proxy_is_clean() {
    let chains = [
        base("FORWARD", "forward", true, &["KUBE-FORWARD", "FLANNEL-FWD"]),
        chain("KUBE-FORWARD", 1, &[]),
        chain("KUBE-FIREWALL", 1, &[]),
        chain("FLANNEL-FWD", 0, &[]),
    ];
    let findings = examine(&survey([
        table("ip filter", chains),
        table(
            "ip kube-proxy",
            [base("filter-forward", "forward", false, &[])],
        ),
        table("inet selvedge", [base("ingress", "forward", false, &[])]),
    ]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].status, Status::Ok);
    assert!(findings[0].found.contains("Calico"), "{findings:?}");
}

#[test]
fn kube_routers_pod_firewall_still_drops() {
    let finding = only(&kube_router(), Status::Fail, "kube-router");
    let chain = "chain KUBE-POD-FW-XIOATVM5TOINSO4V in table ip filter still drops";
    assert!(finding.found.contains(chain), "{finding:?}");
    assert!(finding.found.contains("3 chains"), "{finding:?}");
    assert!(finding.advice.unwrap().contains("--cleanup-config"));
}

#[test]
fn chains_that_nothing_calls_are_mere_leftovers() {
    let mut survey = kube_router();
    survey.tables[0].chains[0].jumps.clear();
    only(&survey, Status::Warn, "kube-router has left 3 chains");
}

#[test]
fn kube_routers_own_tables_are_known() {
    let chains = [
        base("KUBE-ROUTER-FORWARD", "forward", false, &["KUBE-POD-FW-A"]),
        chain("KUBE-POD-FW-A", 1, &[]),
    ];
    let survey = survey([table("ip kube-router-filter-ipv4", chains)]);
    only(&survey, Status::Fail, "kube-router");
}

#[test]
fn calico_is_known_in_iptables_and_in_nftables() {
    let chains = || {
        [
            base("FORWARD", "forward", false, &["cali-FORWARD"]),
            chain("cali-FORWARD", 0, &["cali-from-wl-dispatch"]),
            chain("cali-from-wl-dispatch", 1, &["cali-fw-cali84b7d149337"]),
            chain("cali-fw-cali84b7d149337", 2, &[]),
        ]
    };
    only(
        &survey([table("ip filter", chains())]),
        Status::Fail,
        "Calico",
    );
    let mut dispatch = base("filter-FORWARD", "forward", false, &[]);
    dispatch.maps = true;
    let own = [dispatch, chain("filter-cali-tw-x", 1, &[])];
    let both = survey([table("ip calico", own), table("arp calico-arp", [])]);
    let finding = only(&both, Status::Fail, "filter-cali-tw-x");
    assert!(finding.found.contains("2 tables"), "{finding:?}");
    only(&survey([table("ip6 calico", [])]), Status::Warn, "Calico");
}

#[test]
fn antreas_and_ciliums_chains_only_accept() {
    for (name, engine) in [("ANTREA-FORWARD", "Antrea"), ("CILIUM_FORWARD", "Cilium")] {
        let chains = [
            base("FORWARD", "forward", false, &[name]),
            chain(name, 0, &[]),
        ];
        only(&survey([table("ip filter", chains)]), Status::Warn, engine);
    }
}

#[test]
fn weaves_controller_still_drops() {
    let chains = [
        base("FORWARD", "forward", false, &["WEAVE-NPC-EGRESS"]),
        chain("WEAVE-NPC-EGRESS", 1, &["WEAVE-NPC-EGRESS-DEFAULT"]),
        chain("WEAVE-NPC-EGRESS-DEFAULT", 0, &[]),
    ];
    only(&survey([table("ip filter", chains)]), Status::Fail, "Weave");
}

#[test]
fn a_queue_decides_while_a_program_listens() {
    let queue = SurveyedChain {
        queues: 4,
        ..base("postrouting", "postrouting", false, &[])
    };
    let survey = survey([table("inet kube-network-policies", [queue])]);
    let with = |queues| {
        judge(Place {
            survey: &survey,
            ipsets: &[],
            links: &[],
            pins: &[],
            queues,
        })
    };
    assert_eq!(with(true)[0].status, Status::Fail);
    assert_eq!(with(false)[0].status, Status::Warn);
}

#[test]
fn sets_and_interfaces_are_leftovers_too() {
    let ipsets = ["KUBE-SRC-ABC", "KUBE-DST-ABC", "mine"].map(str::to_owned);
    let links = ["cni0", "cilium_host", "cilium_net"].map(str::to_owned);
    let findings = judge(Place {
        survey: &Survey::default(),
        ipsets: &ipsets,
        links: &links,
        pins: &["cilium".to_owned(), "ip".to_owned()],
        queues: false,
    });
    assert_eq!(findings.len(), 2, "{findings:?}");
    let found = "kube-router has left 2 ipsets (KUBE-SRC-ABC …)";
    assert_eq!(findings[0].found, found);
    let found = "Cilium has left 2 interfaces (cilium_host …), eBPF map cilium";
    assert_eq!(findings[1].found, found);
    assert!(
        findings
            .iter()
            .all(|finding| finding.status == Status::Warn)
    );
}
