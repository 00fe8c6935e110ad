//! What the policies of examples/shop say, read by a person.

use selvedge_lab::{Host, Protocol};

use crate::connections::Question;

/// Whether the policies allow a connection to every pod that may answer it.
pub fn allowed(question: &Question) -> bool {
    let (from, port) = (question.from.name(), question.port);
    let app = |name: &str| {
        name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit())
            .to_owned()
    };
    let to = question.to.first().map(Host::name).unwrap_or_default();
    match (
        app(from).as_str(),
        app(to).as_str(),
        question.protocol,
        port,
    ) {
        // default-deny and allow-metrics
        ("monitoring/prometheus", "shop/web" | "shop/api" | "shop/db", Protocol::Tcp, 9090) => true,
        // allow-dns, and nobody isolates the DNS server
        (_, "kube-system/coredns", Protocol::Udp, 53) => true,
        // web: from outside the cluster; to the api
        ("outside", "shop/web", Protocol::Tcp, 80) => true,
        ("shop/web", "shop/api", Protocol::Tcp, 8080) => true,
        // api and db
        ("shop/api", "shop/db", Protocol::Tcp, 5432) => true,
        // nothing isolates the pods of other namespaces, nor what is outside
        (from, "outside", ..) => !from.starts_with("shop/"),
        _ => false,
    }
}
