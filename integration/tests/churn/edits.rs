//! A cluster of two nodes, and edits without end: each changes something else, and none whom web may reach.

use selvedge_lab::Error;
use selvedge_lab::stage::{Manifests, PodManifest, namespace, node, policy};

/// The servers, by a label that two nodes' pods have: each edit concerns both nodes.
const SERVERS: &str = "podSelector: {matchLabels: {role: server}}";

/// What stays: everyone in shop is isolated, web and the servers are who they are.
pub fn fixed() -> String {
    let deny = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
    let tiers = ["a", "b"].map(|tier| {
        let spec = "{podSelector: {matchLabels: {tier: TIER}}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}";
        policy(&format!("shop/tier-{tier}"), &spec.replace("TIER", tier))
    });
    node(1)
        + &node(2)
        + &namespace("shop", "team: shop")
        + &namespace("dev", "team: dev")
        + &policy("shop/deny", deny)
        + &tiers.concat()
        + &PodManifest::new("shop/web", 1, 2, "app: web").to_string()
        + &PodManifest::new("dev/stranger", 1, 4, "app: web").to_string()
        + &PodManifest::new("dev/sink", 1, 5, "role: server").to_string()
        + &PodManifest::new("dev/other", 2, 3, "app: web").to_string()
}

/// The servers, whose tier changes which policies they have.
fn servers(edit: usize) -> String {
    let tier = if edit.is_multiple_of(2) { "a" } else { "b" };
    let pod = |name, node, host, app| {
        let labels = format!("role: server, app: {app}, tier: {tier}");
        PodManifest::new(name, node, host, &labels)
            .ports("{name: http, containerPort: 80}, {name: http-udp, containerPort: 80, protocol: UDP}")
            .to_string()
    };
    pod("shop/api", 1, 3, "api") + &pod("shop/db", 2, 2, "db")
}

/// Pods that come and go beside them, as peers and as subjects.
fn fleet(edit: usize) -> String {
    let pods = (0..12).map(|n| {
        let labels = if n % 3 == 0 {
            "app: web"
        } else {
            "role: server, tier: a"
        };
        // Another address at each edit, and so another pod.
        let host = 100 + (edit + n * 13) % 100;
        let node = if n % 2 == 0 { 1 } else { 2 };
        let name = format!("shop/fleet-{host}-{node}");
        let host = u8::try_from(host).unwrap_or(u8::MAX);
        PodManifest::new(&name, node, host, labels).to_string()
    });
    pods.collect()
}

/// Policies that let web in to the servers, always, and each time by other rules, sets, chains or policies.
fn ingress(edit: usize) -> String {
    let noise = format!(
        "{{from: [{{ipBlock: {{cidr: 203.0.113.{}/32}}}}], ports: [{{port: {}}}]}}",
        edit % 250,
        1000 + edit
    );
    let web = "from: [{podSelector: {matchLabels: {app: web}}}]";
    let both = "ports: [{port: 80}, {port: 80, protocol: UDP}]";
    let rule = match (edit / 5) % 6 {
        0 => format!("{{{web}}}"),
        1 => format!(
            "{{{web}, ports: [{{port: 80}}, {{port: 80, protocol: UDP}}, {{port: {}}}]}}",
            2000 + edit
        ),
        2 => format!(
            "{{{web}, ports: [{{port: 70, endPort: 90}}, {{port: 75, endPort: 85, protocol: UDP}}]}}"
        ),
        3 => format!("{{{web}, ports: [{{port: http}}, {{port: http-udp, protocol: UDP}}]}}"),
        4 => format!(
            "{{from: [{{ipBlock: {{cidr: 10.244.1.2/32}}}}, {{ipBlock: {{cidr: 'fd00:10:244:1::2/128'}}}}], {both}}}"
        ),
        _ => format!(
            "{{from: [{{namespaceSelector: {{matchLabels: {{team: shop}}}}, podSelector: {{matchExpressions: [{{key: app, operator: In, values: [web, x{edit}]}}]}}}}], {both}}}"
        ),
    };
    match (edit / 30) % 3 {
        0 => policy(
            "shop/allow",
            &format!("{{{SERVERS}, ingress: [{rule}, {noise}]}}"),
        ),
        1 => {
            policy("shop/allow", &format!("{{{SERVERS}, ingress: [{noise}]}}"))
                + &policy(
                    "shop/also",
                    &format!("{{{SERVERS}, ingress: [{noise}, {rule}]}}"),
                )
        }
        // By another policy altogether, about other pods that are the same.
        _ => policy(
            &format!("shop/other-{edit}"),
            &format!(
                "{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [api, db]}}, {{key: role, operator: Exists}}]}}, ingress: [{noise}, {rule}]}}"
            ),
        ),
    }
}

/// What lets web, and servers too, send to the servers, in as many ways.
fn egress(edit: usize) -> String {
    let noise = format!(
        "{{to: [{{ipBlock: {{cidr: 198.51.{}.0/24}}}}]}}",
        edit % 250
    );
    let rule = match (edit / 5) % 4 {
        0 => format!("{{to: [{{{SERVERS}}}]}}"),
        1 => format!("{{to: [{{{SERVERS}}}], ports: [{{port: 80}}, {{port: 80, protocol: UDP}}]}}"),
        2 => "{to: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.5/32]}}, {ipBlock: {cidr: 'fd00:10:244::/47', except: ['fd00:10:244:1::5/128']}}]}".to_owned(),
        _ => format!("{{to: [{{{SERVERS}}}], ports: [{{port: http}}, {{port: http-udp, protocol: UDP}}]}}"),
    };
    policy(
        "shop/send",
        &format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{noise}, {rule}]}}"),
    )
}

/// Whole policies that come and go.
fn extra(edit: usize) -> String {
    let policies = (0..3).map(|n| {
        let spec = format!(
            "{{{SERVERS}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: nobody-{n}}}}}}}], ports: [{{port: {}}}]}}]}}",
            3000 + edit
        );
        policy(&format!("shop/extra-{n}-{edit}"), &spec)
    });
    policies.collect()
}

/// The edit of this number: which of the files changes is in turn.
pub fn edit(manifests: &Manifests, edit: usize) -> Result<(), Error> {
    match edit % 5 {
        0 => manifests.put("ingress.yaml", ingress(edit)),
        1 => manifests.put("fleet.yaml", fleet(edit)),
        2 => manifests.put("egress.yaml", egress(edit)),
        3 => manifests.put("extra.yaml", extra(edit)),
        _ => manifests.put("servers.yaml", servers(edit)),
    }
}
