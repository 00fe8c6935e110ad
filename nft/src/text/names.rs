//! The words of nft's language for numbers, and the words that no object can be named.

use crate::ruleset::{Family, Hook};

/// Whether nft 1.0.6 can't read `name` as the name of an object in every place where one may stand.
///
/// The kernel takes such names and this crate programs them, but no text can express them: nft's own listing of them
/// can't be loaded either. Only the whole word is reserved: `drop` is, `drop/web` and `egress` are not.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.binary_search(&name).is_ok()
}

/// Found by trying all keywords of the scanner as the name of each kind of object; sorted.
pub(super) const RESERVED: &[&str] = &[
    "accept",
    "add",
    "ah",
    "all",
    "and",
    "arp",
    "auto-merge",
    "bridge",
    "bytes",
    "cgroup",
    "chain",
    "comment",
    "comp",
    "constant",
    "continue",
    "counter",
    "cpu",
    "create",
    "ct",
    "day",
    "dccp",
    "define",
    "delete",
    "describe",
    "device",
    "devices",
    "dnat",
    "drop",
    "dst",
    "dup",
    "dynamic",
    "ecn",
    "element",
    "elements",
    "eq",
    "esp",
    "ether",
    "exists",
    "expires",
    "export",
    "exthdr",
    "fib",
    "flags",
    "flow",
    "flowtable",
    "flush",
    "frag",
    "fwd",
    "gc-interval",
    "ge",
    "get",
    "goto",
    "gt",
    "handle",
    "hbh",
    "hook",
    "hour",
    "ibriport",
    "ibrname",
    "icmp",
    "icmpv6",
    "igmp",
    "iif",
    "iifgroup",
    "iifname",
    "iiftype",
    "import",
    "include",
    "index",
    "inet",
    "insert",
    "interval",
    "ip",
    "ip6",
    "ipsec",
    "jhash",
    "jump",
    "le",
    "limit",
    "list",
    "ll",
    "log",
    "lshift",
    "lt",
    "map",
    "mark",
    "masquerade",
    "meta",
    "meter",
    "mh",
    "missing",
    "monitor",
    "name",
    "ne",
    "netdev",
    "nftrace",
    "nh",
    "not",
    "notrack",
    "numgen",
    "obriport",
    "obrname",
    "offload",
    "oif",
    "oifgroup",
    "oifname",
    "oiftype",
    "or",
    "osf",
    "packets",
    "pkttype",
    "policy",
    "position",
    "priority",
    "queue",
    "quota",
    "random",
    "redefine",
    "redirect",
    "reject",
    "rename",
    "replace",
    "reset",
    "return",
    "rshift",
    "rt",
    "rt0",
    "rt2",
    "rtclassid",
    "rule",
    "ruleset",
    "sctp",
    "secmark",
    "set",
    "size",
    "skgid",
    "skuid",
    "snat",
    "socket",
    "srh",
    "symhash",
    "synproxy",
    "table",
    "tcp",
    "th",
    "time",
    "timeout",
    "tproxy",
    "type",
    "typeof",
    "udp",
    "udplite",
    "undefine",
    "update",
    "vlan",
    "vmap",
    "xor",
    "xt",
];

/// `/etc/protocols` of Debian 12 (netbase 6.4), which nft reads when it lists; sorted.
const PROTOCOLS: &[(u8, &str)] = &[
    (0, "ip"),
    (1, "icmp"),
    (2, "igmp"),
    (3, "ggp"),
    (4, "ipencap"),
    (5, "st"),
    (6, "tcp"),
    (8, "egp"),
    (9, "igp"),
    (12, "pup"),
    (17, "udp"),
    (20, "hmp"),
    (22, "xns-idp"),
    (27, "rdp"),
    (29, "iso-tp4"),
    (33, "dccp"),
    (36, "xtp"),
    (37, "ddp"),
    (38, "idpr-cmtp"),
    (41, "ipv6"),
    (43, "ipv6-route"),
    (44, "ipv6-frag"),
    (45, "idrp"),
    (46, "rsvp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (57, "skip"),
    (58, "ipv6-icmp"),
    (59, "ipv6-nonxt"),
    (60, "ipv6-opts"),
    (73, "rspf"),
    (81, "vmtp"),
    (88, "eigrp"),
    (89, "ospf"),
    (93, "ax.25"),
    (94, "ipip"),
    (97, "etherip"),
    (98, "encap"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (115, "l2tp"),
    (124, "isis"),
    (132, "sctp"),
    (133, "fc"),
    (135, "mobility-header"),
    (136, "udplite"),
    (137, "mpls-in-ip"),
    (138, "manet"),
    (139, "hip"),
    (140, "shim6"),
    (141, "wesp"),
    (142, "rohc"),
    (143, "ethernet"),
];

/// The protocol's name in nft's listing.
pub(super) fn protocol(number: u8) -> Option<&'static str> {
    find(PROTOCOLS, number)
}

/// The protocol's keyword in nft's own grammar, which needs no `/etc/protocols`.
pub(super) fn protocol_keyword(number: u8) -> Option<&'static str> {
    find(
        &[
            (1, "icmp"),
            (2, "igmp"),
            (6, "tcp"),
            (17, "udp"),
            (33, "dccp"),
            (50, "esp"),
            (51, "ah"),
            (58, "icmpv6"),
            (108, "comp"),
            (132, "sctp"),
            (136, "udplite"),
        ],
        number,
    )
}

pub(super) fn icmp_type(number: u8) -> Option<&'static str> {
    find(
        &[
            (0, "echo-reply"),
            (3, "destination-unreachable"),
            (4, "source-quench"),
            (5, "redirect"),
            (8, "echo-request"),
            (9, "router-advertisement"),
            (10, "router-solicitation"),
            (11, "time-exceeded"),
            (12, "parameter-problem"),
            (13, "timestamp-request"),
            (14, "timestamp-reply"),
            (15, "info-request"),
            (16, "info-reply"),
            (17, "address-mask-request"),
            (18, "address-mask-reply"),
        ],
        number,
    )
}

pub(super) fn icmpv6_type(number: u8) -> Option<&'static str> {
    find(
        &[
            (1, "destination-unreachable"),
            (2, "packet-too-big"),
            (3, "time-exceeded"),
            (4, "parameter-problem"),
            (128, "echo-request"),
            (129, "echo-reply"),
            (130, "mld-listener-query"),
            (131, "mld-listener-report"),
            (132, "mld-listener-done"),
            (133, "nd-router-solicit"),
            (134, "nd-router-advert"),
            (135, "nd-neighbor-solicit"),
            (136, "nd-neighbor-advert"),
            (137, "nd-redirect"),
            (138, "router-renumbering"),
            (141, "ind-neighbor-solicit"),
            (142, "ind-neighbor-advert"),
            (143, "mld2-listener-report"),
        ],
        number,
    )
}

pub(super) fn ether_type(number: u16) -> Option<&'static str> {
    find(
        &[
            (0x0800, "ip"),
            (0x0806, "arp"),
            (0x8100, "8021q"),
            (0x86dd, "ip6"),
            (0x88a8, "8021ad"),
        ],
        number,
    )
}

/// A base chain's priority, as nft prints it: by the name of a usual one where it is at most 10 away from that.
pub(super) fn priority(family: Family, hook: Hook, priority: i32) -> String {
    let usual: &[(i32, &str, Option<Hook>)] = match family {
        Family::Inet => &[
            (-300, "raw", None),
            (-150, "mangle", None),
            (-100, "dstnat", Some(Hook::Prerouting)),
            (0, "filter", None),
            (50, "security", None),
            (100, "srcnat", Some(Hook::Postrouting)),
        ],
        Family::Bridge => &[
            (-300, "dstnat", Some(Hook::Prerouting)),
            (-200, "filter", None),
            (100, "out", Some(Hook::Output)),
            (300, "srcnat", Some(Hook::Postrouting)),
        ],
    };
    for (value, name, only) in usual {
        if only.is_some_and(|only| only != hook) {
            continue;
        }
        match i64::from(priority) - i64::from(*value) {
            0 => return (*name).to_owned(),
            offset @ 1..=10 => return format!("{name} + {offset}"),
            offset @ -10..=-1 => return format!("{name} - {}", -offset),
            _ => {}
        }
    }
    priority.to_string()
}

fn find<N: Ord + Copy>(names: &[(N, &'static str)], number: N) -> Option<&'static str> {
    let at = names.binary_search_by_key(&number, |(n, _)| *n).ok()?;
    names.get(at).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(RESERVED.is_sorted());
        assert!(PROTOCOLS.is_sorted());
        assert_eq!(protocol(6), Some("tcp"));
        assert_eq!(protocol(255), None);
        assert_eq!(icmpv6_type(143), Some("mld2-listener-report"));
        assert_eq!(ether_type(0x86dd), Some("ip6"));
    }

    #[test]
    fn only_whole_words_are_reserved() {
        assert!(is_reserved("drop") && is_reserved("policy") && is_reserved("bytes"));
        assert!(!is_reserved("policy/shop/web") && !is_reserved("egress") && !is_reserved("ip.x"));
    }

    #[test]
    fn priorities_are_named_within_ten() {
        let inet = |p| priority(Family::Inet, Hook::Forward, p);
        assert_eq!(inet(-6), "filter - 6");
        assert_eq!(inet(0), "filter");
        assert_eq!(inet(-100), "-100", "dstnat is for prerouting only");
        assert_eq!(priority(Family::Bridge, Hook::Prerouting, -300), "dstnat");
        assert_eq!(inet(i32::MIN), i32::MIN.to_string());
    }
}
