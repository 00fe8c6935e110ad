//! Addresses and CIDRs as clusters have stored them.

use ipnetwork::IpNetwork;

/// Reads a CIDR; host bits are cleared.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, String> {
    let net: IpNetwork = text.parse().map_err(|_| format!("{text:?} is no CIDR"))?;
    IpNetwork::new(net.network(), net.prefix()).map_err(|_| format!("{text:?} is no CIDR"))
}
