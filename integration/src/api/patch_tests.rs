use serde_json::json;

use super::*;

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json; charset=utf-8";
const JSON: &str = "application/json-patch+json";

fn patched(content_type: &str, object: Value, patch: Value) -> Value {
    let mut object = object;
    apply(content_type, &mut object, &patch).unwrap();
    object
}

#[test]
fn a_merge_patch_takes_nulls_away_and_replaces_lists() {
    let object = json!({"a": {"b": 1, "c": 2}, "list": [1, 2], "text": "x"});
    let patch =
        json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "list": [3], "text": {"now": 1}});
    let wanted = json!({"a": {"c": 2, "d": {"f": 3}}, "list": [3], "text": {"now": 1}});
    assert_eq!(patched(MERGE, object, patch), wanted);
}

#[test]
fn a_strategic_patch_merges_lists_by_their_key() {
    let object = json!({"containers": [{"name": "a", "image": "1", "ports": [1]}, {"name": "b"}], "ingress": [1]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
        "containers": [{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b", "$patch": "delete"}],
        "ingress": [2],
    });
    let containers = json!([{"name": "a", "image": "2", "ports": [1]}, {"name": "c"}]);
    let wanted = json!({"containers": containers, "ingress": [2]});
    assert_eq!(patched(STRATEGIC, object, patch), wanted);
}

#[test]
fn a_json_patch_is_done_step_by_step() {
    let object = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 3]});
    let patch = json!([
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "remove", "path": "/metadata/labels/a~1b"},
        {"op": "add", "path": "/metadata/labels/c", "value": "2"},
        {"op": "add", "path": "/list/1", "value": 2},
        {"op": "add", "path": "/list/-", "value": 4},
        {"op": "replace", "path": "/list/0", "value": 0},
    ]);
    let wanted = json!({"metadata": {"labels": {"c": "2"}}, "list": [0, 2, 3, 4]});
    assert_eq!(patched(JSON, object, patch), wanted);
    let wrong = json!([{"op": "test", "path": "/a", "value": 1}]);
    assert_eq!(
        apply(JSON, &mut json!({"a": 2}), &wrong)
            .unwrap_err()
            .code(),
        422
    );
}

#[test]
fn other_patches_are_refused() {
    let apply_patch = apply("application/apply-patch+yaml", &mut json!({}), &json!({}));
    assert_eq!(apply_patch.unwrap_err().code(), 415);
    assert_eq!(
        apply(JSON, &mut json!({}), &json!({})).unwrap_err().code(),
        400
    );
}
