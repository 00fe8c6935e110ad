//! The longest names that Kubernetes allows work like others, and stay recognisable in the ruleset.

use std::collections::BTreeSet;

use selvedge_lab::stage::{self, Manifests, PodManifest, node, policy};
use selvedge_lab::{Error, Netns, Protocol};

/// A name of 253 bytes, as pods and policies may have: parts of 63 between dots.
fn longest(start: &str) -> String {
    let parts = [63, 63, 63, 61].map(|length| "x".repeat(length));
    let name = parts.join(".");
    format!("{start}{}", name.get(start.len()..).unwrap_or_default())
}

#[test]
fn the_longest_names_are_enforced_and_recognisable() -> Result<(), Error> {
    let namespace = format!("team-{}", "n".repeat(58));
    let (first, second) = (longest("api-first-"), longest("api-second-"));
    // Two that differ in the last byte only.
    let twin = format!("{}y", first.get(..252).unwrap_or_default());
    let allow = longest("allow-web-");
    assert_eq!((namespace.len(), first.len(), twin.len()), (63, 253, 253));
    assert_eq!((second.len(), allow.len()), (253, 253));

    let manifests = Manifests::new()?;
    let long = |name: &str| format!("{namespace}/{name}");
    let mut text = node(1) + &node(2);
    for (name, node, host, labels) in [
        (long(&first), 1, 3, "app: api"),
        (long(&second), 1, 4, "app: api"),
        (long(&twin), 1, 5, "app: twin"),
        ("shop/web".to_owned(), 1, 2, "app: web"),
        ("shop/other".to_owned(), 2, 2, "app: other"),
    ] {
        text += &PodManifest::new(&name, node, host, labels).to_string();
    }
    let web = "{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: web}}}]}";
    text += &policy(
        &long(&allow),
        &format!(
            "{{podSelector: {{matchLabels: {{app: api}}}}, policyTypes: [Ingress, Egress], ingress: [{web}]}}"
        ),
    );
    text += &policy(&long("twin"), "{podSelector: {matchLabels: {app: twin}}}");
    manifests.put("cluster.yaml", text)?;
    let lab = manifests.lab()?.build()?;
    let node = lab.node("node-1")?;
    let _daemon = stage::daemon(&node, manifests.path())?;

    let [web, other] = lab.pods_named(["shop/web", "shop/other"])?;
    let [first_pod, second_pod, twin_pod] =
        lab.pods_named([&*long(&first), &*long(&second), &*long(&twin)])?;
    for pod in [&first_pod, &second_pod, &twin_pod] {
        pod.listen(Protocol::Tcp, 80)?;
    }
    other.listen(Protocol::Tcp, 80)?;
    for pod in [&first_pod, &second_pod] {
        assert!(web.reaches(pod, Protocol::Tcp, 80)?);
        assert!(!other.reaches(pod, Protocol::Tcp, 80)?);
        assert!(!pod.reaches(&other, Protocol::Tcp, 80)?);
    }
    assert!(!web.reaches(&twin_pod, Protocol::Tcp, 80)?);
    assert!(twin_pod.reaches(&other, Protocol::Tcp, 80)?);

    let listing = node.nft_table("inet", "selvedge")?;
    let chains: BTreeSet<&str> = listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("chain "))
        .filter_map(|line| line.strip_suffix(" {"))
        .collect();
    assert!(chains.iter().all(|name| name.len() <= 255), "{chains:?}");
    let of = |start: String| {
        chains
            .iter()
            .filter(|name| name.starts_with(&start))
            .count()
    };
    for direction in ["ingress", "egress"] {
        assert_eq!(of(format!("{direction}/{namespace}/api-second-")), 1);
    }
    // The twin has no egress policy.
    assert_eq!(of(format!("egress/{namespace}/api-first-")), 1);
    assert_eq!(of(format!("ingress/{namespace}/api-first-")), 2);
    assert_eq!(of(format!("policy/{namespace}/allow-web-")), 2);
    // What render prints, nft loads: elsewhere, as these tables are the daemon's.
    let text = stage::selvedge(&node)?
        .args(["render", "--node", "node-1"])
        .arg(manifests.path())
        .run()?;
    let check = Netns::new("elsewhere")?
        .command("nft")
        .args(["-c", "-f", "-"]);
    check.input(text).run().map(drop)
}
