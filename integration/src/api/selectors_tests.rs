use serde_json::json;

use super::*;

fn matches(labels: &str, fields: &str) -> bool {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "empty": ""}},
        "spec": {"nodeName": "n1"},
    });
    Selection::parse(Kind::Pod, labels, fields)
        .unwrap()
        .matches(&pod)
}

#[test]
fn label_selectors() {
    for yes in [
        "",
        "app",
        "app=web",
        "app==web",
        "app = web",
        "app!=api",
        "none!=x",
        "!none",
        "empty=",
        "app in (api, web)",
        "app notin (api)",
        "none notin (x)",
        "app,empty,app in (web,api),!none",
    ] {
        assert!(matches(yes, ""), "{yes}");
    }
    for no in [
        "none",
        "app=api",
        "app!=web",
        "!app",
        "app in (api)",
        "app notin (web)",
        "none in (x)",
        "app,none",
        "app=",
    ] {
        assert!(!matches(no, ""), "{no}");
    }
    assert!(Selection::parse(Kind::Pod, "a of (b)", "").is_err());
    assert!(Selection::parse(Kind::Pod, "a b", "").is_err());
}

#[test]
fn field_selectors() {
    assert!(matches("", "spec.nodeName=n1"));
    assert!(matches("", "spec.nodeName!=n2,metadata.namespace==shop"));
    assert!(matches("", "status.phase="), "an absent field is empty");
    assert!(!matches("", "spec.nodeName=n1,metadata.name=api"));
    assert!(Selection::parse(Kind::Node, "", "spec.nodeName=n1").is_err());
    assert!(Selection::parse(Kind::Pod, "", "metadata.labels=n1").is_err());
    assert!(Selection::parse(Kind::Node, "", "metadata.namespace=x").is_err());
}
