//! Other policy engines, and what they leave behind: known by the names that they give their things.

use selvedge_nft::{Survey, SurveyedTable};

use super::Finding;

const CHECK: &str = "other engines";

/// How an engine's things are called. A name that ends in `*` stands for all that begin so.
struct Engine {
    name: &'static str,
    /// Tables that are all its own, by their names in any family.
    tables: &'static [&'static str],
    /// Chains in tables that it shares with others: iptables' own.
    chains: &'static [&'static str],
    /// Sets of nftables, and ipsets.
    sets: &'static [&'static str],
    /// Interfaces.
    links: &'static [&'static str],
    /// eBPF programs and maps that it keeps in bpffs.
    pins: &'static [&'static str],
    /// How to be rid of it.
    advice: &'static str,
}

/// The names are those in the engines' own sources: kube-router's pkg/controllers/netpol, Calico's felix/rules and
/// felix/nftables, Cilium's pkg/datapath/iptables, kube-network-policies' pkg/dataplane, Antrea's pkg/agent/route,
/// Weave Net's npc.
const ENGINES: [Engine; 6] = [
    Engine {
        name: "kube-router",
        tables: &["kube-router-filter-*"],
        chains: &["KUBE-ROUTER-*", "KUBE-NWPLCY-*", "KUBE-POD-FW-*"],
        sets: &[
            "KUBE-SRC-*",
            "KUBE-DST-*",
            "inet6:KUBE-SRC-*",
            "inet6:KUBE-DST-*",
            "kube-router-*",
            "inet6:kube-router-*",
        ],
        links: &["kube-bridge"],
        pins: &[],
        advice: "remove its DaemonSet and run `kube-router --cleanup-config`; on k3s start the server with --disable-network-policy and run `k3s-killall.sh`, or reboot",
    },
    Engine {
        name: "Calico",
        tables: &["calico", "calico-*"],
        chains: &["cali-*"],
        sets: &["cali40*", "cali60*"],
        links: &["cali*", "vxlan.calico"],
        pins: &["cali_*"],
        advice: "remove calico-node (of Canal: keep Flannel alone) and reboot the node, or delete its chains and tables",
    },
    Engine {
        name: "Cilium",
        tables: &[],
        chains: &["CILIUM_*", "OLD_CILIUM_*"],
        sets: &["cilium_*"],
        links: &["cilium_*", "lxc_health"],
        pins: &["cilium*"],
        advice: "uninstall it, run `cilium-dbg post-uninstall-cleanup -f` on the node and reboot: its programs on the interfaces decide before nftables",
    },
    Engine {
        name: "kube-network-policies",
        tables: &["kube-network-policies", "kindnet-network-policies"],
        chains: &[],
        sets: &[],
        links: &[],
        pins: &[],
        advice: "remove its DaemonSet, then its table: `nft delete table inet kube-network-policies`",
    },
    Engine {
        name: "Antrea",
        tables: &["antrea"],
        chains: &["ANTREA-*"],
        sets: &["ANTREA-*", "CLUSTER-NODE-IP*"],
        links: &["antrea-*"],
        pins: &[],
        advice: "remove its DaemonSet and reboot the node: its Open vSwitch flows decide before nftables",
    },
    Engine {
        name: "Weave Net",
        tables: &[],
        chains: &["WEAVE-NPC*"],
        sets: &["weave-*"],
        links: &["weave", "vethwe-*"],
        pins: &[],
        advice: "remove its DaemonSet, run `weave reset` on the node or reboot it",
    },
];

/// What is looked through.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// nftables, and iptables-legacy's tables in the same form.
    pub survey: &'a Survey,
    /// The names of ipsets.
    pub ipsets: &'a [String],
    /// The names of interfaces.
    pub links: &'a [String],
    /// The names of what is kept in bpffs.
    pub pins: &'a [String],
    /// Whether a program takes packets from a queue of netfilter's.
    pub queues: bool,
}

/// What of an engine is there.
#[derive(Debug, Default)]
struct Traces {
    /// Things by kind: `chain` and how many, with the first one's name.
    counts: Vec<(&'static str, usize, String)>,
    /// A chain that packets get to and that drops or decides, with its table.
    deciding: Option<String>,
}

impl Traces {
    fn add(&mut self, kind: &'static str, name: impl FnOnce() -> String) {
        match self.counts.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, count, _)) => *count += 1,
            None => self.counts.push((kind, 1, name())),
        }
    }
}

/// One finding for each engine that has left something, or a single good one.
pub fn judge(place: Place<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ENGINES
        .iter()
        .filter_map(|engine| {
            let traces = traces(engine, place);
            let all: Vec<String> = traces
                .counts
                .iter()
                .map(|(kind, count, first)| match count {
                    1 => format!("{kind} {first}"),
                    count => format!("{count} {kind}s ({first} …)"),
                })
                .collect();
            let all = all.join(", ");
            match traces.deciding {
                Some(chain) => Some(Finding::fail(
                    CHECK,
                    format!("{}'s {chain} still drops packets: {all}", engine.name),
                    engine.advice,
                )),
                None if all.is_empty() => None,
                None => Some(Finding::warn(
                    CHECK,
                    format!("{} has left {all}", engine.name),
                    engine.advice,
                )),
            }
        })
        .collect();
    if findings.is_empty() {
        let names = ENGINES.map(|engine| engine.name).join(", ");
        findings.push(Finding::ok(CHECK, format!("nothing of {names}")));
    }
    findings
}

fn traces(engine: &Engine, place: Place<'_>) -> Traces {
    let mut traces = Traces::default();
    for table in &place.survey.tables {
        let own = matches(engine.tables, &table.name);
        let named = || format!("{} {}", table.family, table.name);
        if own {
            traces.add("table", named);
        }
        for chain in table
            .chains
            .iter()
            .filter(|chain| !own && matches(engine.chains, &chain.name))
        {
            traces.add("chain", || format!("{} in {}", chain.name, named()));
        }
        for set in table
            .sets
            .iter()
            .filter(|set| !own && matches(engine.sets, set))
        {
            traces.add("set", || set.clone());
        }
        if traces.deciding.is_none() {
            traces.deciding = deciding(engine, table, own, place.queues);
        }
    }
    for ipset in place.ipsets.iter().filter(|set| matches(engine.sets, set)) {
        traces.add("ipset", || ipset.clone());
    }
    for link in place
        .links
        .iter()
        .filter(|link| matches(engine.links, link))
    {
        traces.add("interface", || link.clone());
    }
    for pin in place.pins.iter().filter(|pin| matches(engine.pins, pin)) {
        traces.add("eBPF map", || pin.clone());
    }
    traces
}

/// A chain of the engine's that packets get to, and that may end them there.
fn deciding(engine: &Engine, table: &SurveyedTable, own: bool, queues: bool) -> Option<String> {
    let called = table.called();
    let mut chains = table.chains.iter();
    let chain = chains.find(|chain| {
        let policy = chain.base.as_ref().is_some_and(|base| base.drops);
        let ends = chain.drops > 0 || policy || (queues && chain.queues > 0);
        ends && (own || matches(engine.chains, &chain.name)) && called.contains(chain.name.as_str())
    })?;
    Some(format!(
        "chain {} in table {} {}",
        chain.name, table.family, table.name
    ))
}

fn matches(patterns: &[&str], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        })
}

#[cfg(test)]
#[path = "engines_tests.rs"]
mod tests;
