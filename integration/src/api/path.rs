//! What a request is about, from its method, path and query: as the API server's own RequestInfo says it.

use std::collections::BTreeMap;

use http::{Method, Uri};

use super::kinds::Kind;

/// A collection or an object that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The namespace in the path; none for a cluster's kinds, and for a list over all namespaces.
    pub namespace: Option<String>,
    /// The object's name; none for the collection.
    pub name: Option<String>,
    /// `status`, if that is asked for.
    pub subresource: Option<String>,
}

impl Target {
    /// A collection: of one namespace, or of all (or of a kind that has none).
    pub fn collection(kind: Kind, namespace: Option<&str>) -> Self {
        Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: None,
            subresource: None,
        }
    }

    /// An object.
    pub fn object(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::collection(kind, namespace)
        }
    }

    /// The object's `/status`.
    pub fn status(self) -> Self {
        Self {
            subresource: Some("status".to_owned()),
            ..self
        }
    }

    /// Reads a path such as `/api/v1/namespaces/shop/pods/web/status`.
    pub fn parse(path: &str) -> Option<Self> {
        let (core, rest) = match path.strip_prefix("/apis/networking.k8s.io/v1/") {
            Some(rest) => (false, rest),
            None => (true, path.strip_prefix("/api/v1/")?),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let known = |plural: &str, namespaced: bool| {
            Kind::ALL.into_iter().find(|kind| {
                kind.plural() == plural
                    && kind.group().is_empty() == core
                    && (!namespaced || kind.is_namespaced())
            })
        };
        let of = |kind, namespace: Option<&str>, rest: &[&str]| {
            let (name, subresource) = match rest {
                [] => (None, None),
                [name] => (Some(*name), None),
                [name, subresource] => (Some(*name), Some(*subresource)),
                _ => return None,
            };
            Some(Self {
                kind,
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                subresource: subresource.map(str::to_owned),
            })
        };
        match parts.as_slice() {
            // `namespaces/shop/status` is of the namespace itself
            ["namespaces", namespace, plural, rest @ ..] if known(plural, true).is_some() => {
                of(known(plural, true)?, Some(namespace), rest)
            }
            ["namespaces", ..] if !core => None,
            [plural, rest @ ..] => {
                let kind = known(plural, false)?;
                // an object of a namespace has no path without it
                (!kind.is_namespaced() || rest.is_empty()).then_some(())?;
                of(kind, None, rest)
            }
            [] => None,
        }
    }

    /// The path.
    pub fn path(&self) -> String {
        let mut path = self.kind.root().to_owned();
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        let rest = [
            Some(self.kind.plural()),
            self.name.as_deref(),
            self.subresource.as_deref(),
        ];
        for part in rest.into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// The query's parameters. What can't be read is left out, as the API server does with what it doesn't know.
pub(crate) fn query(uri: &Uri) -> BTreeMap<String, String> {
    axum::extract::Query::try_from_uri(uri).map_or_else(|_| BTreeMap::new(), |query| query.0)
}

/// Whether the query asks for a watch.
pub(crate) fn is_watch(query: &BTreeMap<String, String>) -> bool {
    matches!(
        query.get("watch").map(String::as_str),
        Some("true" | "1" | "")
    )
}

/// The verb, as RBAC names it.
pub(crate) fn verb(method: &Method, target: &Target, watch: bool) -> &'static str {
    let one = target.name.is_some();
    match *method {
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
