use super::*;

fn parts(path: &str) -> Option<(Kind, String, String, String)> {
    let target = Target::parse(path)?;
    assert_eq!(target.path(), path);
    let text = |part: Option<String>| part.unwrap_or_default();
    Some((
        target.kind,
        text(target.namespace),
        text(target.name),
        text(target.subresource),
    ))
}

#[test]
fn paths_are_read_as_the_api_writes_them() {
    for (path, kind, wanted) in [
        ("/api/v1/pods", Kind::Pod, ["", "", ""]),
        ("/api/v1/namespaces", Kind::Namespace, ["", "", ""]),
        ("/api/v1/namespaces/shop", Kind::Namespace, ["", "shop", ""]),
        (
            "/api/v1/namespaces/shop/status",
            Kind::Namespace,
            ["", "shop", "status"],
        ),
        ("/api/v1/namespaces/shop/pods", Kind::Pod, ["shop", "", ""]),
        (
            "/api/v1/namespaces/shop/pods/web/status",
            Kind::Pod,
            ["shop", "web", "status"],
        ),
        // a namespace by that name
        ("/api/v1/namespaces/pods", Kind::Namespace, ["", "pods", ""]),
        ("/api/v1/nodes/n1", Kind::Node, ["", "n1", ""]),
        (
            "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/deny",
            Kind::NetworkPolicy,
            ["shop", "deny", ""],
        ),
        (
            "/apis/networking.k8s.io/v1/networkpolicies",
            Kind::NetworkPolicy,
            ["", "", ""],
        ),
    ] {
        let [namespace, name, subresource] = wanted.map(str::to_owned);
        assert_eq!(
            parts(path),
            Some((kind, namespace, name, subresource)),
            "{path}"
        );
    }
}

#[test]
fn other_paths_are_none() {
    for path in [
        "/",
        "/version",
        "/api/v1",
        "/api/v1/",
        "/api/v1/secrets",
        "/api/v1/networkpolicies",
        "/api/v1/pods/web",
        "/api/v1/namespaces//pods",
        "/api/v1/namespaces/shop/nodes/n1/status",
        "/api/v1/namespaces/shop/pods/web/status/more",
        "/apis/networking.k8s.io/v1/pods",
        "/apis/networking.k8s.io/v1/namespaces",
        "/apis/networking.k8s.io/v1/namespaces/shop",
    ] {
        assert_eq!(Target::parse(path), None, "{path}");
    }
}

#[test]
fn verbs_are_those_of_rbac() {
    let verb_of =
        |method: Method, path: &str, watch| verb(&method, &Target::parse(path).unwrap(), watch);
    assert_eq!(verb_of(Method::GET, "/api/v1/pods", false), "list");
    assert_eq!(verb_of(Method::GET, "/api/v1/pods", true), "watch");
    assert_eq!(verb_of(Method::GET, "/api/v1/nodes/n1", false), "get");
    assert_eq!(verb_of(Method::DELETE, "/api/v1/nodes/n1", false), "delete");
    assert_eq!(
        verb_of(Method::DELETE, "/api/v1/nodes", false),
        "deletecollection"
    );
    let asks = |text: &str| is_watch(&query(&text.parse().unwrap()));
    assert!(asks("/api/v1/pods?watch=true") && asks("/api/v1/pods?watch=1&x=y"));
    assert!(!asks("/api/v1/pods?watch=false") && !asks("/api/v1/pods"));
}
