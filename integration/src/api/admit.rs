//! What the server makes of a body before it stores it: it refuses what the kind's type can't hold, leaves out what is
//! empty, and fills in defaults.

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::status::Failure;

/// Checks and completes an object that is about to be stored.
pub(crate) fn admit(kind: Kind, name: &str, object: &mut Value) -> Result<(), Failure> {
    drop_nulls(object);
    decode(kind, object)?;
    let valid_name = match kind {
        Kind::Namespace => !name.contains('.'),
        _ => true,
    };
    if !valid_name || !is_dns_name(name) {
        let why = format!(
            "Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
             characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        return Err(Failure::invalid(kind, name, "metadata.name", &why));
    }
    let refuse = |field: &str, why: &str| Failure::invalid(kind, name, field, why);
    match kind {
        Kind::Pod => pod(object, &refuse),
        Kind::NetworkPolicy => network_policy(object, &refuse),
        Kind::Namespace => {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
            Ok(())
        }
        Kind::Node | Kind::Event => Ok(()),
    }
}

type Refuse<'a> = dyn Fn(&str, &str) -> Failure + 'a;

/// The kind's own type must be able to hold it.
fn decode(kind: Kind, object: &Value) -> Result<(), Failure> {
    fn fits<T: DeserializeOwned>(object: &Value) -> Result<(), serde_json::Error> {
        T::deserialize(object).map(drop)
    }
    let fit = match kind {
        Kind::Pod => fits::<core::Pod>(object),
        Kind::Namespace => fits::<core::Namespace>(object),
        Kind::Node => fits::<core::Node>(object),
        Kind::Event => fits::<core::Event>(object),
        Kind::NetworkPolicy => fits::<networking::NetworkPolicy>(object),
    };
    fit.map_err(|why| {
        let (name, version) = (kind.name(), kind.api_version());
        Failure::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {name}: {why}"
        ))
    })
}

/// An absent field and a null are the same to the server.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn is_dns_name(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn pod(object: &mut Value, refuse: &Refuse<'_>) -> Result<(), Failure> {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(refuse("spec.containers", "Required value"));
    };
    if spec
        .get("containers")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        return Err(refuse("spec.containers", "Required value"));
    }
    for (field, default) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("serviceAccountName", json!("default")),
    ] {
        spec.entry(field).or_insert(default);
    }
    let host = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for field in ["name", "image"] {
                if container[field].as_str().is_none_or(str::is_empty) {
                    return Err(refuse(&format!("spec.{list}[0].{field}"), "Required value"));
                }
            }
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                port.entry("protocol").or_insert(json!("TCP"));
                if let (true, Some(number)) = (host, port.get("containerPort").cloned()) {
                    port.entry("hostPort").or_insert(number);
                }
            }
        }
    }
    Ok(())
}

fn network_policy(object: &mut Value, refuse: &Refuse<'_>) -> Result<(), Failure> {
    if object.get("spec").is_none() {
        object["spec"] = json!({});
    }
    let Some(spec) = object["spec"].as_object_mut() else {
        return Err(refuse("spec", "Invalid value"));
    };
    spec.entry("podSelector").or_insert(json!({}));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        // Lists without elements are not kept.
        spec.retain(|field, value| field != direction || *value != json!([]));
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            let field = format!("spec.{direction}[{at}]");
            let Some(rule) = rule.as_object_mut() else {
                continue;
            };
            rule.retain(|_, value| *value != json!([]));
            for (at, port) in list(rule.get_mut("ports")).enumerate() {
                check_port(port, &format!("{field}.ports[{at}]"), refuse)?;
            }
            for (at, peer) in list(rule.get_mut(peers)).enumerate() {
                check_peer(peer, &format!("{field}.{peers}[{at}]"), refuse)?;
            }
        }
    }
    if spec
        .get("policyTypes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        let mut types = vec![json!("Ingress")];
        types.extend(spec.contains_key("egress").then(|| json!("Egress")));
        spec.insert("policyTypes".to_owned(), types.into());
    }
    let types = spec.get("policyTypes").and_then(Value::as_array);
    let known = |one: &Value| *one == json!("Ingress") || *one == json!("Egress");
    match types.into_iter().flatten().all(known) {
        true => Ok(()),
        false => Err(refuse(
            "spec.policyTypes",
            "Unsupported value: supported values: \"Egress\", \"Ingress\"",
        )),
    }
}

fn list(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

fn check_port(port: &mut Value, field: &str, refuse: &Refuse<'_>) -> Result<(), Failure> {
    if port["protocol"].is_null() {
        port["protocol"] = json!("TCP");
    }
    if !["TCP", "UDP", "SCTP"]
        .iter()
        .any(|known| port["protocol"] == *known)
    {
        let why = "Unsupported value: supported values: \"SCTP\", \"TCP\", \"UDP\"";
        return Err(refuse(&format!("{field}.protocol"), why));
    }
    drop_nulls(port);
    let number = port.get("port").and_then(Value::as_i64);
    if number.is_some_and(|number| !(1..=65535).contains(&number)) {
        let why = "Invalid value: must be between 1 and 65535, inclusive";
        return Err(refuse(&format!("{field}.port"), why));
    }
    match (port.get("endPort").and_then(Value::as_i64), number) {
        (None, _) => Ok(()),
        (Some(end), Some(start)) if (start..=65535).contains(&end) => Ok(()),
        (Some(_), Some(_)) => {
            let why = "Invalid value: must be greater than or equal to `port`";
            Err(refuse(&format!("{field}.endPort"), why))
        }
        (Some(_), None) => {
            let why =
                "Invalid value: may not be specified when `port` is not specified, or non-numeric";
            Err(refuse(&format!("{field}.endPort"), why))
        }
    }
}

fn check_peer(peer: &mut Value, field: &str, refuse: &Refuse<'_>) -> Result<(), Failure> {
    let selectors = peer.get("podSelector").is_some() || peer.get("namespaceSelector").is_some();
    let Some(block) = peer.get("ipBlock") else {
        return match selectors {
            true => Ok(()),
            false => Err(refuse(field, "Required value: must specify a peer")),
        };
    };
    if selectors {
        let why = "Forbidden: may not specify both ipBlock and another peer";
        return Err(refuse(field, why));
    }
    let cidr = |value: &Value| value.as_str().and_then(|text| text.parse::<IpNet>().ok());
    let Some(whole) = cidr(&block["cidr"]) else {
        let why = "Invalid value: must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return Err(refuse(&format!("{field}.ipBlock.cidr"), why));
    };
    for (at, except) in block["except"].as_array().into_iter().flatten().enumerate() {
        if !cidr(except).is_some_and(|except| whole.trunc().contains(&except) && except != whole) {
            let why = "Invalid value: must be a strict subset of `cidr`";
            return Err(refuse(&format!("{field}.ipBlock.except[{at}]"), why));
        }
    }
    Ok(())
}
