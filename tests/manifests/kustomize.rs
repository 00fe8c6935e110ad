//! As much of kustomize as the manifests use: resources, components, and JSON patches (RFC 6902). Whatever else a
//! kustomization.yaml may say is refused, so that nothing is built here otherwise than kubectl builds it.

use std::fs;
use std::path::Path;

use selvedge::source::document;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
    target: Target,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: String,
    path: String,
    value: Option<Value>,
}

/// The documents of a YAML file.
pub fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let documents = document::yaml(&text).into_iter();
    documents
        .map(|document| match document {
            Ok(document) => document.value,
            Err(error) => panic!("{}: {error}", file.display()),
        })
        .collect()
}

/// The only document of a YAML file.
fn only<T: for<'a> Deserialize<'a>>(file: &Path) -> T {
    let mut all = documents(file);
    assert_eq!(all.len(), 1, "{}", file.display());
    serde_json::from_value(all.remove(0)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The objects that `kubectl apply -k` makes of a directory, in the order they are written.
pub fn build(directory: &Path) -> Vec<Value> {
    let mut objects = Vec::new();
    accumulate(directory, ("v1beta1", "Kustomization"), &mut objects);
    objects
}

/// Adds what a directory of that version and kind has to the objects that there are, and changes them as it says.
fn accumulate(directory: &Path, (version, kind): (&str, &str), objects: &mut Vec<Value>) {
    let directory = directory.canonicalize().unwrap();
    let kustomization: Kustomization = only(&directory.join("kustomization.yaml"));
    let version = format!("kustomize.config.k8s.io/{version}");
    assert_eq!(kustomization.api_version, version);
    assert_eq!(kustomization.kind, kind);
    for resource in &kustomization.resources {
        let path = directory.join(resource).canonicalize().unwrap();
        if path.is_dir() {
            assert!(
                !directory.starts_with(&path),
                "kustomize takes no base above its overlay: {resource}"
            );
            objects.extend(build(&path));
        } else {
            assert!(
                path.starts_with(&directory),
                "kustomize takes no file from elsewhere: {resource}"
            );
            objects.extend(documents(&path));
        }
    }
    for component in &kustomization.components {
        accumulate(
            &directory.join(component),
            ("v1alpha1", "Component"),
            objects,
        );
    }
    for patch in kustomization.patches {
        let operations: Vec<Operation> = only(&directory.join(&patch.path));
        let targets = objects.iter_mut().filter(|object| {
            object["kind"] == patch.target.kind && object["metadata"]["name"] == patch.target.name
        });
        let mut patched = 0;
        for target in targets {
            for operation in &operations {
                apply(target, operation);
            }
            patched += 1;
        }
        assert_eq!(patched, 1, "{} is for one object", patch.path);
    }
}

/// Applies an operation of a JSON patch.
fn apply(object: &mut Value, operation: &Operation) {
    let Operation { op, path, value } = operation;
    if op == "test" {
        assert_eq!(object.pointer(path), value.as_ref(), "{path}");
        return;
    }
    let (parent, key) = path.rsplit_once('/').unwrap();
    assert!(!key.contains('~'), "escapes are not understood: {path}");
    let parent = object.pointer_mut(parent);
    let parent = parent.unwrap_or_else(|| panic!("{path} has no parent"));
    match (op.as_str(), parent, value) {
        ("add", Value::Object(map), Some(value)) => {
            map.insert(key.to_owned(), value.clone());
        }
        ("add", Value::Array(list), Some(value)) if key == "-" => list.push(value.clone()),
        ("remove", Value::Object(map), None) => {
            assert!(map.remove(key).is_some(), "{path} is not there");
        }
        _ => panic!("not understood: {op} {path}"),
    }
}
