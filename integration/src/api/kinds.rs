//! The kinds that the stand-in serves.

/// A kind of object that the API serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` pods
    Pod,
    /// `v1` namespaces
    Namespace,
    /// `v1` nodes
    Node,
    /// `v1` events
    Event,
    /// `networking.k8s.io/v1` networkpolicies
    NetworkPolicy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [
        Kind::Pod,
        Kind::Namespace,
        Kind::Node,
        Kind::Event,
        Kind::NetworkPolicy,
    ];

    /// The name in paths: `pods`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pod => "pods",
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Event => "events",
            Kind::NetworkPolicy => "networkpolicies",
        }
    }

    /// The `kind` field: `Pod`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pod => "Pod",
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Event => "Event",
            Kind::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// The `apiVersion` field.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::NetworkPolicy => "networking.k8s.io/v1",
            _ => "v1",
        }
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        match self {
            Kind::NetworkPolicy => "networking.k8s.io",
            _ => "",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Namespace | Kind::Node)
    }

    /// Whether it has a `/status` subresource.
    pub fn has_status(self) -> bool {
        matches!(self, Kind::Pod | Kind::Namespace | Kind::Node)
    }

    /// Whether the server counts changes of its `spec` in `metadata.generation`.
    pub(crate) fn has_generation(self) -> bool {
        matches!(self, Kind::Pod | Kind::NetworkPolicy)
    }

    /// As error texts call it: `networkpolicies.networking.k8s.io`.
    pub(crate) fn qualified(self) -> String {
        match self.group() {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        }
    }

    /// What kubectl may call it for short.
    pub(crate) fn short_names(self) -> &'static [&'static str] {
        match self {
            Kind::Pod => &["po"],
            Kind::Namespace => &["ns"],
            Kind::Node => &["no"],
            Kind::Event => &["ev"],
            Kind::NetworkPolicy => &["netpol"],
        }
    }

    /// Where the group's paths start: `/api/v1`.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Kind::NetworkPolicy => "/apis/networking.k8s.io/v1",
            _ => "/api/v1",
        }
    }
}
