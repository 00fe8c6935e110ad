use serde_json::json;

use super::*;
use crate::source::decode::decode;

fn state() -> State {
    let observer = Observer::new();
    let reporter = Reporter::start(Connection::to("http://127.0.0.1:9"), observer.clone());
    State::new(reporter, observer)
}

fn entry(kind: ObjectKind, name: &str, spec: &serde_json::Value) -> Box<Entry> {
    let object = json!({"metadata": {"name": name, "namespace": "shop", "uid": "u"}, "spec": spec});
    Box::new(Entry {
        result: decode(kind, &object),
        uid: "u".to_owned(),
        version: "1".to_owned(),
    })
}

fn applied(kind: ObjectKind, name: &str) -> (ObjectKind, News) {
    (kind, News::Applied(entry(kind, name, &json!({}))))
}

fn listed(kind: ObjectKind, names: &[&str]) -> (ObjectKind, News) {
    let entries = names.iter().map(|name| entry(kind, name, &json!({})));
    let keys = entries.filter_map(|entry| entry.key()).collect();
    let unreadable = BTreeSet::new();
    (kind, News::Listed { keys, unreadable })
}

fn all_listed(state: &mut State) {
    for kind in ObjectKind::ALL {
        state.take(vec![listed(kind, &[])]);
    }
}

fn lost(kind: ObjectKind, reason: &str) -> (ObjectKind, News) {
    let reason = reason.to_owned();
    (kind, News::Lost(ApiError::Unreachable { reason }))
}

fn lines(update: Option<Update>) -> Vec<String> {
    let problems = update.and_then(|update| update.problems);
    let problems = problems.expect("nothing was said of problems");
    problems.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn all_kinds_must_have_been_listed_once() {
    let mut state = state();
    let update = state.take(vec![
        applied(ObjectKind::Pod, "a"),
        listed(ObjectKind::Pod, &["a"]),
    ]);
    let update = update.unwrap();
    assert!(!update.synced);
    assert!(matches!(&update.events[0], Event::Apply(_)));
    for kind in [ObjectKind::Namespace, ObjectKind::Node] {
        assert!(!state.take(vec![listed(kind, &[])]).unwrap().synced);
    }
    let last = state.take(vec![listed(ObjectKind::NetworkPolicy, &[])]);
    assert!(last.unwrap().synced);
}

#[tokio::test]
async fn a_list_says_what_is_gone() {
    // Of the first one, too, as a list before it may have broken off.
    let mut state = state();
    state.take(vec![applied(ObjectKind::Pod, "a")]);
    let update = state.take(vec![listed(ObjectKind::Pod, &["b"])]).unwrap();
    let key = ObjectKey::Pod("shop".into(), "b".into());
    let (kind, keys) = (ObjectKind::Pod, BTreeSet::from([key]));
    assert_eq!(update.events, [Event::Retain { kind, keys }]);
}

#[tokio::test]
async fn an_outage_is_one_line_for_all_kinds() {
    let mut state = state();
    all_listed(&mut state);
    let kinds = [ObjectKind::Pod, ObjectKind::Node];
    let update = state.take(kinds.map(|kind| lost(kind, "connection refused")).into());
    let expected = "the API server can't be read: connection refused; what is known stays in force";
    assert_eq!(lines(update), [expected]);
    let one = state.take(vec![(ObjectKind::Pod, News::Found)]);
    assert_eq!(lines(one).len(), 1);
    let all = state.take(vec![(ObjectKind::Node, News::Found)]);
    assert!(lines(all).is_empty());
}

#[tokio::test]
async fn without_policies_or_namespaces_it_is_behind() {
    let mut state = state();
    all_listed(&mut state);
    let mut behind = |news| state.take(vec![news]).unwrap().behind;
    assert_eq!(behind(lost(ObjectKind::Pod, "reset")), None);
    for kind in [ObjectKind::NetworkPolicy, ObjectKind::Namespace] {
        for end in [(kind, News::Caught), listed(kind, &[])] {
            let reason = behind(lost(kind, "forbidden"));
            assert_eq!(reason.as_deref(), Some("forbidden"));
            // What was missed comes after that.
            assert!(behind((kind, News::Found)).is_some());
            assert_eq!(behind(end), None);
        }
    }
}

#[tokio::test]
async fn problems_go_with_their_objects() {
    let bad = json!({"podSelector": {}, "ingress": [{"from": [{}]}]});
    let kind = ObjectKind::NetworkPolicy;
    let one = |name| (kind, News::Applied(entry(kind, name, &bad)));
    let mut state = state();
    all_listed(&mut state);
    let both = lines(state.take(vec![one("a"), one("b")]));
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].starts_with("NetworkPolicy shop/a: spec.ingress[0].from[0]"),
        "{both:?}"
    );
    let again = state.take(vec![one("a")]).unwrap();
    assert!(again.problems.is_none(), "nothing new");
    let mended = state.take(vec![(
        kind,
        News::Applied(entry(kind, "a", &json!({"podSelector": {}}))),
    )]);
    assert_eq!(lines(mended).len(), 1);
    let gone = state.take(vec![listed(kind, &["a"])]);
    assert!(lines(gone).is_empty());
}

#[tokio::test]
async fn a_deletion_names_the_pod_s_uid() {
    let mut state = state();
    let gone = News::Deleted(entry(ObjectKind::Pod, "a", &json!({})));
    let update = state.take(vec![(ObjectKind::Pod, gone)]).unwrap();
    let key = ObjectKey::Pod("shop".into(), "a".into());
    assert_eq!(
        update.events,
        [Event::Delete {
            key,
            uid: Some("u".into())
        }]
    );
}
