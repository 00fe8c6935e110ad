//! What the policies say about a connection: asked of the evaluator, which knows nothing of nftables.

use std::net::IpAddr;

use selvedge::index::Index;
use selvedge::verdict::{Connection, Transport, evaluate};
use selvedge_lab::{Host, Protocol};

use crate::connections::Question;

/// Whether they allow it, whichever pod answers.
pub fn allow(index: &Index, question: &Question) -> bool {
    let from = address_like(&question.from, question.address);
    question.to.iter().all(|host| {
        let (Some(from), Some(to)) = (from, address_like(host, question.address)) else {
            return false;
        };
        let connection = Connection::new(from, to, transport(question));
        connection.is_ok_and(|connection| evaluate(index, &connection).allowed())
    })
}

/// A host's own address of the same family.
fn address_like(host: &Host, other: IpAddr) -> Option<IpAddr> {
    let mut addresses = host.addresses().iter().copied();
    addresses.find(|address| address.is_ipv4() == other.is_ipv4())
}

fn transport(question: &Question) -> Transport {
    match question.protocol {
        Protocol::Tcp => Transport::Tcp(question.port),
        Protocol::Udp => Transport::Udp(question.port),
        Protocol::Sctp => Transport::Sctp(question.port),
        Protocol::Icmp => Transport::Icmp,
    }
}
