//! What the plugins before this one have done: the `prevResult`, of which this needs the host's interfaces and the
//! container's addresses. The forms of 0.3.0 to 1.1.0 have these alike.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

/// As much of a CNI result as is looked at.
#[derive(Debug, Default, Deserialize)]
struct Seen {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    /// The container's network namespace; empty for an interface of the host.
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Ip {
    /// With its network's length: `10.244.1.7/24`.
    address: String,
    /// The index of its interface.
    interface: Option<usize>,
}

/// The interfaces and addresses of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// The host's interfaces.
    pub host: Vec<String>,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
}

/// Reads a result.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn links(result: &str) -> Result<Links, String> {
    let seen: Seen = serde_json::from_str(result).map_err(|error| error.to_string())?;
    let host = seen.interfaces.iter().filter(|one| one.sandbox.is_empty());
    let host = host.map(|one| one.name.clone());
    let of_container = |ip: &&Ip| match ip.interface {
        Some(index) => match seen.interfaces.get(index) {
            Some(interface) => !interface.sandbox.is_empty(),
            None => true,
        },
        None => true,
    };
    let addresses = seen.ips.iter().filter(of_container).map(|ip| {
        let text = ip.address.split('/').next().unwrap_or_default();
        let wrong = |_| format!("{:?} is no address", ip.address);
        text.parse().map_err(wrong)
    });
    Ok(Links {
        host: host.filter(|name| !name.is_empty()).collect(),
        addresses: addresses.collect::<Result<_, String>>()?,
    })
}

/// The result to be passed on: the one that came, to the byte, with the version that it must say where it doesn't.
pub fn passed_on(result: &str, version: &str) -> String {
    match serde_json::from_str::<Value>(result) {
        Ok(Value::Object(mut fields)) if !fields.contains_key("cniVersion") => {
            fields.insert("cniVersion".to_owned(), version.into());
            Value::Object(fields).to_string()
        }
        _ => result.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Flannel's bridge plugin leaves, in the forms of 0.3.1 and 1.0.0.
    const RESULT: &str = r#"{"cniVersion": "0.3.1",
        "interfaces": [{"name": "cni0", "mac": "9a:00:00:00:00:01"}, {"name": "veth5a2c", "mac": "1a:00:00:00:00:02"},
            {"name": "eth0", "mac": "0a:58:0a:f4:01:07", "sandbox": "/var/run/netns/cni-1"}],
        "ips": [{"version": "4", "interface": 2, "address": "10.244.1.7/24", "gateway": "10.244.1.1"},
            {"version": "6", "interface": 2, "address": "fd00:10:244:1::7/64"}],
        "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.1.1"}], "dns": {}}"#;

    #[test]
    fn the_host_s_interfaces_and_the_container_s_addresses_are_found() {
        let found = links(RESULT).unwrap();
        assert_eq!(found.host, ["cni0", "veth5a2c"]);
        let addresses: [IpAddr; 2] = [[10, 244, 1, 7].into(), "fd00:10:244:1::7".parse().unwrap()];
        assert_eq!(found.addresses, addresses);
        // An address of the host's own interface is not the container's.
        let other = RESULT.replacen("\"interface\": 2", "\"interface\": 0", 1);
        assert_eq!(links(&other).unwrap().addresses, addresses[1..]);
        // Some plugins say no interfaces at all.
        let bare = links(r#"{"ips": [{"address": "10.0.0.9/24"}]}"#).unwrap();
        assert_eq!(bare.addresses, [IpAddr::from([10, 0, 0, 9])]);
        assert!(bare.host.is_empty());
    }

    #[test]
    fn nonsense_is_an_error() {
        for nonsense in [
            "",
            "7",
            r#"{"ips": [{"address": "10.0.0.256/24"}]}"#,
            r#"{"ips": [{"address": ""}]}"#,
            r#"{"ips": {}}"#,
            r#"{"interfaces": [7]}"#,
            r#"{"ips": [{"address": "10.0.0.1/24", "interface": -1}]}"#,
        ] {
            let error = links(nonsense).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_result_is_passed_on_as_it_came() {
        assert_eq!(passed_on(RESULT, "0.3.1"), RESULT);
        let with = passed_on(r#"{"ips": []}"#, "1.0.0");
        let with: Value = serde_json::from_str(&with).unwrap();
        assert_eq!(with, serde_json::json!({"cniVersion": "1.0.0", "ips": []}));
    }
}
