//! What other policy engines leave, as nft loads it. The names and rules are those that the engines make; matches that
//! nft can't write (iptables' own) are left out.

/// An engine's name, what it leaves, how doctor says it, and words of the line.
pub struct Leftover {
    pub engine: &'static str,
    pub script: &'static str,
    pub status: &'static str,
    pub words: &'static [&'static str],
}

pub const LEFTOVERS: [Leftover; 12] = [
    Leftover {
        engine: "kube-router in iptables (k3s)",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy accept; counter jump KUBE-ROUTER-FORWARD; }
  chain KUBE-ROUTER-FORWARD { ip daddr 10.42.0.38 counter jump KUBE-POD-FW-XIOATVM5TOINSO4V; }
  chain KUBE-POD-FW-XIOATVM5TOINSO4V {
    ct state related,established counter accept
    counter jump KUBE-NWPLCY-DEFAULT
    meta mark & 0x00010000 != 0x00010000 counter reject with icmp type port-unreachable
  }
  chain KUBE-NWPLCY-DEFAULT { counter meta mark set mark or 0x10000; }
}"#,
        status: "fail",
        words: &[
            "kube-router",
            "KUBE-POD-FW-XIOATVM5TOINSO4V",
            "--cleanup-config",
        ],
    },
    Leftover {
        engine: "kube-router's chains that nothing calls",
        script: r#"
table ip filter {
  set KUBE-SRC-2FAIIK2E4RIPMTGF { type ipv4_addr; }
  chain KUBE-POD-FW-XIOATVM5TOINSO4V { counter drop; }
}"#,
        status: "warn",
        words: &[
            "kube-router has left",
            "KUBE-POD-FW-XIOATVM5TOINSO4V",
            "set KUBE-SRC-2FAIIK2E4RIPMTGF",
        ],
    },
    Leftover {
        engine: "kube-router in nftables",
        script: r#"
table ip kube-router-filter-ipv4 {
  chain KUBE-ROUTER-FORWARD { type filter hook forward priority filter; ip daddr 10.42.0.38 jump KUBE-POD-FW-A; }
  chain KUBE-POD-FW-A { counter jump KUBE-NWPLCY-COMMON; counter reject; }
  chain KUBE-NWPLCY-COMMON { ct state invalid counter drop; }
}"#,
        status: "fail",
        words: &["kube-router", "table ip kube-router-filter-ipv4"],
    },
    Leftover {
        engine: "Calico in iptables",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; counter jump cali-FORWARD; }
  chain cali-FORWARD { iifname "cali*" counter jump cali-from-wl-dispatch; }
  chain cali-from-wl-dispatch { iifname "cali84b7d149337" counter goto cali-fw-cali84b7d149337; counter drop comment "Unknown interface"; }
  chain cali-fw-cali84b7d149337 { ct state invalid counter drop; }
}"#,
        status: "fail",
        words: &["Calico", "cali-", "calico-node"],
    },
    Leftover {
        engine: "Calico in nftables",
        script: r#"
table ip calico {
  map filter-cali-from-wl-dispatch { type ifname : verdict; elements = { "cali84b7d149337" : goto filter-cali-fw-cali84b7d149337 }; }
  chain filter-FORWARD { type filter hook forward priority filter + 10; jump filter-cali-FORWARD; }
  chain filter-cali-FORWARD { iifname vmap @filter-cali-from-wl-dispatch; }
  chain filter-cali-fw-cali84b7d149337 { counter drop; }
}"#,
        status: "fail",
        words: &["Calico", "filter-cali-fw-cali84b7d149337"],
    },
    Leftover {
        engine: "Cilium",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; counter jump CILIUM_FORWARD; }
  chain CILIUM_FORWARD { oifname "cilium_host" counter accept comment "cilium: any->cluster on cilium_host forward accept"; }
}"#,
        status: "warn",
        words: &[
            "Cilium has left",
            "CILIUM_FORWARD",
            "post-uninstall-cleanup",
        ],
    },
    Leftover {
        engine: "kube-network-policies",
        script: r#"
table inet kube-network-policies {
  set podips-v4 { type ipv4_addr; elements = { 10.0.0.1 }; }
  chain postrouting { type filter hook postrouting priority srcnat - 5; ct state established,related accept; }
}"#,
        status: "warn",
        words: &[
            "kube-network-policies has left",
            "nft delete table inet kube-network-policies",
        ],
    },
    Leftover {
        engine: "Antrea",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; counter jump ANTREA-FORWARD; }
  chain ANTREA-FORWARD { iifname "antrea-gw0" counter accept; oifname "antrea-gw0" counter accept; }
}"#,
        status: "warn",
        words: &["Antrea has left", "ANTREA-FORWARD"],
    },
    Leftover {
        engine: "Weave Net",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; iifname "weave" counter jump WEAVE-NPC-EGRESS; }
  chain WEAVE-NPC-EGRESS { ct state related,established counter accept; meta mark & 0x00040000 != 0x00040000 counter drop; }
}"#,
        status: "fail",
        words: &["Weave Net", "WEAVE-NPC-EGRESS", "weave reset"],
    },
    Leftover {
        engine: "docker",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop; counter jump DOCKER-USER; }
  chain DOCKER-USER { counter return; }
}"#,
        status: "warn",
        words: &["chain FORWARD in table ip filter (docker)"],
    },
    Leftover {
        engine: "firewalld",
        script: r#"
table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state established,related accept; reject with icmpx type admin-prohibited; }
}"#,
        status: "warn",
        words: &[
            "chain filter_FORWARD in table inet firewalld (firewalld)",
            "trusted",
        ],
    },
    Leftover {
        engine: "ufw",
        script: r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop; counter jump ufw-before-forward; }
  chain ufw-before-forward { ct state related,established counter accept; }
}"#,
        status: "warn",
        words: &[
            "chain FORWARD in table ip filter (ufw)",
            "ufw default allow routed",
        ],
    },
];
