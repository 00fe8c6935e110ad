//! Where health and metrics are served: the value of `--http`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// The port that is taken where none is named.
pub const PORT: u16 = 20464;

/// Where health and metrics are served, as `--http` says it: `ADDRESS:PORT`, `ADDRESS` for the usual port, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nowhere.
    Off,
    /// Here. Port 0 is any that is free.
    At(SocketAddr),
}

impl Default for HttpAddress {
    /// This host alone, and a port that neighbours leave free: those up to 9999 are other exporters', from 10,248 on
    /// Kubernetes' own, from 30,000 on NodePorts.
    fn default() -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT))
    }
}

/// What was given for an address is none; in one line, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: write {instead}, or off")]
pub struct HttpAddressError {
    /// What is wrong.
    pub reason: &'static str,
    /// What may have been meant.
    pub instead: String,
}

impl FromStr for HttpAddress {
    type Err = HttpAddressError;

    fn from_str(text: &str) -> Result<Self, HttpAddressError> {
        let wrong = |reason, instead| Err(HttpAddressError { reason, instead });
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        if let Ok(port) = text.parse::<u16>() {
            let instead = format!("127.0.0.1:{port} for this host alone, 0.0.0.0:{port} for all");
            return wrong("this is a port without an address", instead);
        }
        // The downward API knows a node's address, but not whether it needs brackets.
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse() {
            return Ok(Self::At(SocketAddr::new(address, PORT)));
        }
        let example = || Self::default().to_string();
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("this is no address with a port", example());
        };
        let Ok(port) = port.parse::<u16>() else {
            return wrong("the port is not a number up to 65535", example());
        };
        let instead = match host {
            "" | "*" => {
                format!("127.0.0.1:{port} for this host alone, 0.0.0.0:{port} for all")
            }
            _ => format!("127.0.0.1:{port}"),
        };
        match host.parse::<IpAddr>() {
            // Without brackets nobody knows where an IPv6 address ends.
            Ok(address) => wrong(
                "an IPv6 address goes in brackets",
                SocketAddr::new(address, port).to_string(),
            ),
            Err(_) => wrong("this needs an IP address, names are not looked up", instead),
        }
    }
}

impl fmt::Display for HttpAddress {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "off",
            "127.0.0.1:20464",
            "0.0.0.0:0",
            "[::1]:20464",
            "[::]:1",
        ] {
            let address: HttpAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for (text, whole) in [
            ("10.0.0.1", "10.0.0.1:20464"),
            ("::1", "[::1]:20464"),
            ("[::1]", "[::1]:20464"),
        ] {
            let address: HttpAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), whole);
        }
        assert_eq!("OFF".parse(), Ok(HttpAddress::Off));
        assert_eq!(HttpAddress::default().to_string(), "127.0.0.1:20464");
    }

    #[test]
    fn what_is_no_address_gets_a_hint() {
        for (text, hint) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "0.0.0.0:8080"),
            ("*:8080", "0.0.0.0:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("fe80:1:2:3:4:5:6:7:8080", "[fe80:1:2:3:4:5:6:7]:8080"),
            ("127.0.0.1:99999", "65535"),
            ("127.0.0.1:", "65535"),
            ("99999", "127.0.0.1:20464"),
            ("on", "127.0.0.1:20464"),
            ("", "127.0.0.1:20464"),
            ("http://127.0.0.1:20464", "127.0.0.1:20464"),
            ("127.0.0.1:20464/metrics", "127.0.0.1:20464"),
        ] {
            let error = text.parse::<HttpAddress>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text:?}: {error}");
            assert!(error.ends_with("or off"), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
