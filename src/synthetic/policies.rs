//! The policies of a synthetic cluster, one function a kind.

use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::names::{self, ENVS, FIXED_NAMESPACES, INFRASTRUCTURE, SHOPS, TIERS};
use super::{Cluster, text};
use crate::cluster::cidr::IpBlock;
use crate::cluster::object::NAMESPACE_NAME_LABEL;
use crate::cluster::port::Protocol;
use crate::cluster::selector::{LabelSelector, Operator, PodSelector, Requirement, Scope};
use crate::policy::{
    Action, Dialect, Peer, Peers, Policy, PolicyKey, Port, PortMatch, Ports, Rule, Tier,
};

/// What a policy is made from.
#[derive(Debug, Clone)]
pub(super) struct PolicyState {
    owner: Owner,
    kind: u8,
    /// Of several policies of one kind and owner.
    round: u16,
    /// What edits change.
    pub variant: u16,
    pub exists: bool,
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    Namespace(usize),
    Deployment(usize),
}

/// Of a namespace: default-deny, DNS, monitoring.
const NAMESPACE_KINDS: u8 = 3;
/// Of a Deployment.
const DEPLOYMENT_KINDS: u8 = 7;

impl PolicyState {
    fn of_namespace(namespace: usize, kind: u8) -> Self {
        Self {
            owner: Owner::Namespace(namespace),
            kind,
            round: 0,
            variant: 0,
            exists: true,
        }
    }

    pub(super) fn of_deployment(deployment: usize, kind: u8, round: u16) -> Self {
        Self {
            owner: Owner::Deployment(deployment),
            kind,
            round,
            variant: 0,
            exists: true,
        }
    }
}

/// The policies of a cluster: those of the local pods, then others until there are as many as wanted.
pub(super) fn plan(cluster: &Cluster, wanted: usize) -> Vec<PolicyState> {
    let namespace = |n| (0..NAMESPACE_KINDS).map(move |kind| PolicyState::of_namespace(n, kind));
    let shops = INFRASTRUCTURE.len()..INFRASTRUCTURE.len() + SHOPS;
    let mut policies: Vec<PolicyState> = shops.clone().flat_map(namespace).collect();
    let mut fleet = Vec::new();
    for (n, deployment) in cluster.deployments.iter().enumerate() {
        match deployment.namespace as usize {
            namespace if shops.contains(&namespace) => {
                let kinds = 0..DEPLOYMENT_KINDS;
                policies.extend(kinds.map(|kind| PolicyState::of_deployment(n, kind, 0)));
            }
            namespace if namespace >= FIXED_NAMESPACES => fleet.push(n),
            _ => {}
        }
    }
    let namespaces = FIXED_NAMESPACES..cluster.namespaces.len();
    let others = namespaces.flat_map(namespace);
    let rounds = (0..u16::MAX).flat_map(|round| {
        fleet.iter().map(move |n| {
            let kind = (*n + usize::from(round)) % usize::from(DEPLOYMENT_KINDS);
            PolicyState::of_deployment(*n, kind as u8, round / u16::from(DEPLOYMENT_KINDS))
        })
    });
    let rounds = rounds.take(if fleet.is_empty() { 0 } else { wanted });
    let missing = wanted.saturating_sub(policies.len());
    policies.extend(others.chain(rounds).take(missing));
    policies
}

impl Cluster {
    pub(super) fn policy(&self, state: &PolicyState) -> Policy {
        match state.owner {
            Owner::Namespace(n) => namespace_policy(n, state),
            Owner::Deployment(n) => self.deployment_policy(n, state),
        }
    }

    fn deployment_policy(&self, n: usize, state: &PolicyState) -> Policy {
        let deployment = &self.deployments[n];
        let namespace = names::namespace_name(deployment.namespace as usize);
        let own = Scope::Namespace(text(&namespace));
        let app = names::app(deployment.namespace, deployment.number);
        // Another Deployment of the namespace, whether or not there is one of that number.
        let other = |by: u32| {
            let number = (deployment.number + by + u32::from(state.round)) % 16;
            with("app", [names::app(deployment.namespace, number)])
        };
        let edited = 1000 * (state.variant % 8) + state.round;
        let tier = TIERS[usize::from(deployment.tier)];
        let tiers = with("tier", [tier]);
        let env = ENVS[(n + usize::from(state.round)) % ENVS.len()];
        let everywhere = Scope::Namespaces(LabelSelector::default());
        let (ingress, peers, ports) = match state.kind {
            0 => (true, pods(own.clone(), other(1)), number(8080 + edited)),
            1 => {
                let scope = Scope::Namespaces(with("env", [env]));
                (true, pods(scope, tiers), named("http"))
            }
            2 => {
                let scope = Scope::Namespaces(with("role", ["ingress"]));
                let ports = [80, 443, 8443 + edited].map(|port| (port, port));
                (true, pods(scope, LabelSelector::default()), ranges(ports))
            }
            3 => (false, pods(own.clone(), other(2)), number(5432 + edited)),
            4 => (false, outside(state.round), number(443 + edited)),
            5 => (
                true,
                pods(everywhere, tiers),
                ranges([(9000 + edited, 9100 + edited)]),
            ),
            _ => {
                let team = match deployment.namespace as usize {
                    namespace if namespace < FIXED_NAMESPACES => n % FIXED_NAMESPACES,
                    namespace => namespace,
                };
                let team = names::namespace_name(team);
                let scope = Scope::Namespaces(with("team", [team]));
                let apps = with("app", [app.clone(), format!("{app}-canary")]);
                (true, pods(scope, apps), named("metrics"))
            }
        };
        let name = format!("{app}-{}-{}", state.kind, state.round);
        let rules = vec![accept(peers, ports)];
        let (ingress, egress) = match ingress {
            true => (Some(rules), None),
            false => (None, Some(rules)),
        };
        let subject = with("app", [app]);
        policy(
            &namespace,
            &name,
            pod_selector(own, subject),
            ingress,
            egress,
        )
    }
}

fn namespace_policy(n: usize, state: &PolicyState) -> Policy {
    let namespace = names::namespace_name(n);
    let all = pod_selector(Scope::Namespace(text(&namespace)), LabelSelector::default());
    let in_namespace = |name| Scope::Namespaces(with(NAMESPACE_NAME_LABEL, [name]));
    match state.kind {
        0 => policy(&namespace, "default-deny", all, Some(vec![]), Some(vec![])),
        1 => {
            let dns = pods(in_namespace("kube-system"), with("app", ["coredns"]));
            let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| Port {
                protocol,
                port: PortMatch::Range(53, 53),
            });
            let rule = accept(dns, Ports::Of(ports.into()));
            policy(&namespace, "allow-dns", all, None, Some(vec![rule]))
        }
        _ => {
            let peers = pods(in_namespace("monitoring"), with("app", ["prometheus"]));
            let rule = accept(peers, named("metrics"));
            policy(&namespace, "allow-monitoring", all, Some(vec![rule]), None)
        }
    }
}

/// Makes every rule with a port ask for this one.
pub(super) fn set_port(policy: &mut Policy, port: u16) {
    for rule in policy.ingress.iter_mut().flatten() {
        rule.ports = number(port);
    }
}

fn policy(
    namespace: &str,
    name: &str,
    subject: PodSelector,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    Policy {
        key: PolicyKey {
            dialect: Dialect::NetworkPolicy,
            namespace: text(namespace),
            name: text(name),
        },
        tier: Tier::NetworkPolicy,
        subject,
        ingress,
        egress,
        problems: Vec::new(),
    }
}

fn accept(peer: Peer, ports: Ports) -> Rule {
    Rule {
        action: Action::Accept,
        peers: Peers::Of(vec![peer]),
        ports,
    }
}

fn with<S: AsRef<str>>(key: &str, values: impl IntoIterator<Item = S>) -> LabelSelector {
    LabelSelector::new([Requirement {
        key: text(key),
        operator: Operator::In(values.into_iter().map(text).collect()),
    }])
}

fn pod_selector(scope: Scope, pods: LabelSelector) -> PodSelector {
    PodSelector { scope, pods }
}

fn pods(scope: Scope, selector: LabelSelector) -> Peer {
    Peer::Pods(pod_selector(scope, selector))
}

/// The world but for private networks, or a network outside.
fn outside(round: u16) -> Peer {
    let net = |a, b, prefix| Ipv4Network::new(Ipv4Addr::new(a, b, 0, 0), prefix).map(IpNetwork::V4);
    let except = match round % 2 {
        0 => vec![net(10, 0, 8), net(172, 16, 12), net(192, 168, 16)],
        _ => Vec::new(),
    };
    let outside = match round % 2 {
        0 => net(0, 0, 0),
        _ => net(198, 18, 15),
    };
    match outside {
        Ok(net) => Peer::Block(IpBlock {
            net,
            except: except.into_iter().flatten().collect(),
        }),
        Err(error) => unreachable!("{error}"),
    }
}

fn number(port: u16) -> Ports {
    ranges([(port, port)])
}

fn ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Ports {
    let ports = ranges.into_iter().map(|(first, last)| Port {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(first, last),
    });
    Ports::Of(ports.collect())
}

fn named(name: &str) -> Ports {
    Ports::Of(vec![Port {
        protocol: Protocol::Tcp,
        port: PortMatch::Named(text(name)),
    }])
}
