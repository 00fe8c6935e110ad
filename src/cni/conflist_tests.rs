use serde_json::json;

use super::*;

/// As kube-flannel.yml has it, with things that nobody here knows.
const FLANNELS: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "zz": [1, {"é": "\u00e9", "a": 1.50}],
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"#;

/// As k3s has it.
const K3S: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true}},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}"#;

fn entry() -> Entry {
    Entry::new(
        PathBuf::from("/run/selvedge/cni.sock"),
        10,
        OnUnreachable::Fail,
    )
}

fn types(text: &str) -> Vec<String> {
    places(text)
        .unwrap()
        .into_iter()
        .map(|place| place.kind)
        .collect()
}

#[test]
fn it_comes_after_flannel_and_nothing_else_changes() {
    for text in [FLANNELS, K3S] {
        let with = insert(text, &entry()).unwrap().unwrap();
        assert_eq!(types(&with)[..3], ["flannel", PLUGIN, "portmap"]);
        let ours = serde_json::from_str::<Value>(&with).unwrap()["plugins"][1].clone();
        assert_eq!(
            ours,
            json!({"type": PLUGIN, "socket": "/run/selvedge/cni.sock", "timeout": 10, "onUnreachable": "fail"})
        );
        assert_eq!(insert(&with, &entry()).unwrap(), None, "once is enough");
        assert!(has_plugin(&with).unwrap() && !has_plugin(text).unwrap());
        assert_eq!(remove(&with).unwrap().unwrap(), text);
        assert_eq!(remove(text).unwrap(), None);
    }
    let with = insert(FLANNELS, &entry()).unwrap().unwrap();
    let added = with
        .lines()
        .filter(|line| !FLANNELS.lines().any(|own| own == *line));
    assert_eq!(
        added.collect::<Vec<_>>(),
        [
            r#"    {"type":"selvedge-cni","socket":"/run/selvedge/cni.sock","timeout":10,"onUnreachable":"fail"},"#
        ]
    );
}

#[test]
fn other_options_and_other_places_are_put_right() {
    let with = insert(FLANNELS, &entry()).unwrap().unwrap();
    let other = Entry::new(PathBuf::from("/run/b.sock"), 3, OnUnreachable::Pass);
    let changed = insert(&with, &other).unwrap().unwrap();
    assert_eq!(types(&changed), ["flannel", PLUGIN, "portmap"]);
    assert!(changed.contains("/run/b.sock") && !changed.contains("/run/selvedge"));
    assert_eq!(insert(&changed, &entry()).unwrap().unwrap(), with);

    let ours = serde_json::to_string(&entry()).unwrap();
    for (plugins, result) in [
        // Before Flannel there is no address yet.
        (format!("{ours}, {{\"type\": \"flannel\"}}"), 2),
        (format!("{{\"type\": \"flannel\"}}, {ours}, {ours}"), 2),
        ("{\"type\": \"flannel\"}".to_owned(), 2),
    ] {
        let text = format!("{{\"plugins\": [{plugins}]}}");
        let with = insert(&text, &entry()).unwrap().unwrap();
        assert_eq!(types(&with).len(), result, "{with}");
        assert_eq!(types(&with), ["flannel", PLUGIN]);
    }
    // Where somebody has moved it further back it does as well.
    let last =
        format!("{{\"plugins\": [{{\"type\": \"flannel\"}}, {{\"type\": \"portmap\"}}, {ours}]}}");
    assert_eq!(insert(&last, &entry()).unwrap(), None);
    // Alone it can't work, but it can go.
    let alone = format!("{{\"plugins\": [ {ours} ]}}");
    assert!(matches!(
        insert(&alone, &entry()),
        Err(ConflistError::NotFlannel)
    ));
    assert_eq!(remove(&alone).unwrap().unwrap(), "{\"plugins\": [  ]}");
}

#[test]
fn what_is_no_list_of_flannel_s_is_left_alone() {
    for (text, list) in [
        ("", false),
        ("{", false),
        ("[]x", false),
        ("{\"plugins\": {}}", false),
        ("{\"plugins\": [7]}", false),
        ("{\"plugins\": [{\"type\": 7}]}", false),
        ("{\"plugins\": [], \"plugins\": []}", false),
        ("{}", true),
        ("{\"type\": \"flannel\"}", true),
        ("{\"plugins\": [{\"type\": \"bridge\"}]}", true),
    ] {
        assert!(insert(text, &entry()).is_err(), "{text}");
        assert_eq!(is_flannel(text).is_ok(), list, "{text}");
        assert!(!is_flannel(text).unwrap_or_default(), "{text}");
    }
}
