//! Objects as the API has them, made of the fuzzer's bytes: few names, labels, ports and addresses, so that selectors
//! match, ports overlap and addresses are used twice.

use selvedge::cluster::parse::parse_cidr;
use serde_json::{Map, Value, json};

/// The nodes' names.
pub const NODES: [&str; 2] = ["node-1", "node-2"];
/// The ports that rules and pods are about.
pub const PORTS: [u16; 4] = [80, 8080, 8081, 9000];
const NAMESPACES: [&str; 2] = ["red", "green"];
const KEYS: [&str; 3] = ["app", "tier", "env"];
const VALUES: [&str; 3] = ["web", "db", ""];

/// Bytes as choices; when there are no more, the first of everything.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    /// One of `count` numbers.
    pub fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % count.max(1)
    }

    /// One of these.
    pub fn of<'b, T>(&mut self, all: &'b [T]) -> &'b T {
        &all[self.below(all.len())]
    }

    /// Whether there is nothing left to choose by.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// The nodes, which are always there.
pub fn nodes() -> Vec<Value> {
    let node = |(n, name): (usize, &&str)| {
        let n = n + 1;
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [format!("10.244.{n}.0/24"), format!("fd00:10:244:{n}::/64")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.50.1{n}")}]},
        })
    };
    NODES.iter().enumerate().map(node).collect()
}

/// A namespace, a pod or a policy.
pub fn object(choices: &mut Choices<'_>) -> Value {
    match choices.below(8) {
        0 => namespace(choices),
        1..=4 => pod(choices),
        _ => policy(choices),
    }
}

fn namespace(choices: &mut Choices<'_>) -> Value {
    let name = choices.of(&NAMESPACES);
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(choices)}})
}

/// A pod; its address is its own, sometimes another's.
pub fn pod(choices: &mut Choices<'_>) -> Value {
    let (n, node) = (choices.below(5), choices.below(2) + 1);
    let host = if choices.below(10) == 0 { 2 } else { n + 2 };
    let mut addresses = vec![
        json!({"ip": format!("10.244.{node}.{host}")}),
        json!({"ip": format!("fd00:10:244:{node}::{host}")}),
    ];
    match choices.below(6) {
        0 => drop(addresses.pop()),
        1 => drop(addresses.remove(0)),
        2 => addresses.clear(),
        _ => {}
    }
    let ports: Vec<Value> = (0..choices.below(3))
        .map(|_| {
            json!({
                "name": choices.of(&["http", "metrics"]),
                "protocol": choices.of(&["TCP", "UDP", "SCTP"]),
                "containerPort": choices.of(&PORTS),
            })
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": choices.of(&NAMESPACES), "name": format!("pod-{n}"), "uid": format!("uid-{n}"),
            "labels": labels(choices),
        },
        "spec": {
            "nodeName": NODES[node - 1], "hostNetwork": choices.below(10) == 9,
            "containers": [{"name": "c", "ports": ports}],
        },
        "status": {"phase": choices.of(&["Running", "Running", "Pending", "Succeeded"]), "podIPs": addresses},
    })
}

fn labels(choices: &mut Choices<'_>) -> Value {
    let pairs = (0..choices.below(3)).map(|_| {
        let (key, value) = (choices.of(&KEYS), choices.of(&VALUES));
        ((*key).to_owned(), json!(value))
    });
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// A valid policy.
pub fn policy(choices: &mut Choices<'_>) -> Value {
    let name = format!("policy-{}", choices.below(4));
    let namespace = choices.of(&NAMESPACES);
    let mut spec = json!({"podSelector": selector(choices)});
    if let Some(types) = choices.of(&[
        None,
        Some(json!(["Ingress"])),
        Some(json!(["Egress"])),
        Some(json!(["Ingress", "Egress"])),
    ]) {
        spec["policyTypes"] = types.clone();
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        if choices.below(4) < 3 {
            let rules = (0..choices.below(3)).map(|_| rule(choices, peers));
            spec[direction] = rules.collect();
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

fn rule(choices: &mut Choices<'_>, field: &str) -> Value {
    let mut rule = json!({});
    if choices.below(5) > 0 {
        let peers = (0..=choices.below(3)).map(|_| peer(choices));
        rule[field] = peers.collect();
    }
    if choices.below(3) > 0 {
        let ports = (0..=choices.below(3)).map(|_| port(choices));
        rule["ports"] = ports.collect();
    }
    rule
}

fn peer(choices: &mut Choices<'_>) -> Value {
    match choices.below(5) {
        0 => json!({"podSelector": selector(choices)}),
        1 => json!({"namespaceSelector": selector(choices)}),
        2 => json!({"podSelector": selector(choices), "namespaceSelector": selector(choices)}),
        3 => {
            let blocks = [
                "0.0.0.0/0",
                "10.244.0.0/16",
                "10.244.1.77/24",
                "192.168.050.0/24",
            ];
            let except = [
                "10.244.1.0/29",
                "10.244.2.0/24",
                "192.168.50.200/32",
                "0.0.0.0/0",
            ];
            block(choices, &blocks, &except)
        }
        _ => {
            let blocks = ["::/0", "fd00:10:244::/48", "fd00:10:244:2::2/127"];
            let except = ["fd00:10:244:1::/125", "fd00:10:244:2::/64", "10.244.1.0/24"];
            block(choices, &blocks, &except)
        }
    }
}

fn block(choices: &mut Choices<'_>, blocks: &[&str], all: &[&str]) -> Value {
    let cidr = choices.of(blocks);
    let mut block = json!({"cidr": cidr});
    let net = |text: &str| parse_cidr(text).unwrap();
    // The API takes no others.
    let within = |part: &&str| {
        net(part).prefix() > net(cidr).prefix() && net(cidr).contains(net(part).network())
    };
    let except: Vec<&str> = (0..choices.below(3)).map(|_| *choices.of(all)).collect();
    let except: Vec<Value> = except.into_iter().filter(within).map(Value::from).collect();
    if !except.is_empty() {
        block["except"] = except.into();
    }
    json!({"ipBlock": block})
}

fn port(choices: &mut Choices<'_>) -> Value {
    let mut port = json!({});
    if let Some(protocol) = choices.of(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]) {
        port["protocol"] = json!(protocol);
    }
    match choices.below(8) {
        0 => {}
        1..=3 => port["port"] = json!(choices.of(&PORTS)),
        4 | 5 => port["port"] = json!(choices.of(&["http", "metrics"])),
        _ => {
            let first = *choices.of(&PORTS);
            port["port"] = json!(first);
            port["endPort"] = json!(first + choices.of(&[0, 1, 20, 1000]));
        }
    }
    port
}

fn selector(choices: &mut Choices<'_>) -> Value {
    let mut selector = json!({});
    if choices.below(2) == 1 {
        selector["matchLabels"] = labels(choices);
    }
    if choices.below(3) == 2 {
        let expressions = (0..choices.below(3)).map(|_| {
            let key = choices.of(&KEYS);
            match choices.below(4) {
                0 => json!({"key": key, "operator": "Exists"}),
                1 => json!({"key": key, "operator": "DoesNotExist"}),
                n => {
                    let operator = if n == 2 { "In" } else { "NotIn" };
                    let values: Vec<_> = (0..=choices.below(2))
                        .map(|_| choices.of(&VALUES))
                        .collect();
                    json!({"key": key, "operator": operator, "values": values})
                }
            }
        });
        selector["matchExpressions"] = expressions.collect();
    }
    selector
}

/// What stands in a value's place, and is nowhere in a policy what it should be, or is nothing.
fn junk(choices: &mut Choices<'_>) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(70_000),
        json!(1.5),
        json!(""),
        json!("Junk"),
        json!("80"),
        json!("10.0.0.0/99"),
        json!([]),
        json!([[]]),
        json!([7]),
        json!({}),
        json!({"junk": {}}),
    ];
    choices.of(&all).clone()
}

/// Spoils one part of a value: a field comes, goes or is misspelt, or junk stands somewhere.
pub fn spoil(value: &mut Value, choices: &mut Choices<'_>) {
    let place = (choices.below(256) << 8 | choices.below(256)) % count(value);
    let Some(part) = part(value, &mut { place }) else {
        return;
    };
    match (choices.below(5), part) {
        (0, Value::Object(map)) => {
            map.insert("junk".to_owned(), junk(choices));
        }
        (how @ (1 | 2), Value::Object(map)) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = keys.get(choices.below(keys.len()));
            if let Some((key, value)) = key.and_then(|key| map.remove_entry(key))
                && how == 2
            {
                map.insert(format!("{key}x"), value);
            }
        }
        (0 | 1, Value::Array(items)) => items.push(junk(choices)),
        (_, part) => *part = junk(choices),
    }
}

/// How many parts a value has, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The part of this number.
fn part<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| part(item, number)),
        Value::Object(map) => map.values_mut().find_map(|item| part(item, number)),
        _ => None,
    }
}
