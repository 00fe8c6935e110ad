//! The things compared: a node each, in network namespaces of its own, with the same two pods and the same Service.

use std::net::{Ipv4Addr, SocketAddrV4};

use selvedge::cluster::Text;
use selvedge::compile;
use selvedge_lab::Protocol::Tcp;
use selvedge_lab::{Error, Families, Lab, Netns, Outcome, Pod, PodSpec, Probe, Service, stage};
use selvedge_nft::{IfName, Ruleset};

use crate::load::{ALLOWED_PORT, CLIENT, DENIED_PORT, Load, NODE, SERVER};

/// The Service in front of the server.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const SERVICE_PORT: u16 = 80;

/// A node with the pair of pods.
#[derive(Debug)]
pub struct Stand {
    lab: Lab,
    client: Pod,
    server: Pod,
}

impl Stand {
    /// A node without a policy engine: br_netfilter is on, kube-proxy's rules and with them connection tracking are there.
    pub fn new() -> Result<Self, Error> {
        let mut lab = Lab::builder().families(Families::Ipv4).node(NODE);
        for (name, address) in [CLIENT, SERVER] {
            let name = format!("shop/{name}");
            lab = lab.pod_spec(PodSpec::new(&name, NODE).addresses([address.into()]));
        }
        let lab = lab.build()?;
        let service = Service::new("shop/server", CLUSTER_IP);
        lab.add_service(
            service
                .port(Tcp, SERVICE_PORT, ALLOWED_PORT)
                .backends([SERVER.1]),
        )?;
        // Ended connections of one measurement are forgotten before the next, alike everywhere.
        let node = lab.node(NODE)?;
        let forget = ("net/netfilter/nf_conntrack_tcp_timeout_close", "1");
        node.netns().set_sysctls(&[forget])?;
        let [client, server] = lab.pods_named(["shop/client", "shop/server"])?;
        Ok(Self {
            lab,
            client,
            server,
        })
    }

    /// The client's namespace.
    pub fn client(&self) -> &Netns {
        self.client.netns()
    }

    /// The server's namespace.
    pub fn server(&self) -> &Netns {
        self.server.netns()
    }

    /// Where the server is reached: at its own address.
    pub fn server_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(SERVER.1, ALLOWED_PORT)
    }

    /// Where it is reached by the Service.
    pub fn service_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(CLUSTER_IP, SERVICE_PORT)
    }

    /// Has the daemon's own pipeline program a load's policies; they replace those of the load before.
    pub fn enforce(&self, load: &Load) -> Result<Ruleset, Error> {
        self.program(load, false)
    }

    /// The same where it is known whose the pods' ports are, and as many more as the load has pods: false addresses are
    /// dropped.
    pub fn enforce_attached(&self, load: &Load) -> Result<Ruleset, Error> {
        self.program(load, true)
    }

    fn program(&self, load: &Load, attached: bool) -> Result<Ruleset, Error> {
        let node = self.lab.node(NODE)?;
        let mut host = stage::host_of(&self.lab, &node)?;
        if attached {
            let ports = [&self.client, &self.server].map(|pod| pod.veth().to_owned());
            let others = (0..).map(|n| format!("veth-other-{n}"));
            for (port, (_, address)) in ports.into_iter().chain(others).zip(load.local()) {
                let port = IfName::new(&port).map_err(|error| Error::Invalid {
                    what: error.to_string(),
                })?;
                host.attached.insert(port, [address.into()].into());
            }
        }
        let ruleset = compile::compile(&load.index(), &Text::from(NODE), &host);
        stage::program(&node, &ruleset)?;
        Ok(ruleset)
    }

    /// Loads an nft script in place of what it made before: the tables that it names as `replaced`.
    pub fn load(&self, replaced: &[&str], script: &str) -> Result<(), Error> {
        let mut text = String::new();
        for table in replaced {
            text.push_str(&format!("table {table} {{}}\ndelete table {table}\n"));
        }
        self.lab.node(NODE)?.netns().nft(&(text + script))
    }

    /// Makes sure that the pair is allowed what the policies allow, and denied the rest exactly where they are enforced.
    pub fn check(&self, enforced: bool) -> Result<(), Error> {
        self.server.listen(Tcp, ALLOWED_PORT)?;
        self.server.listen(Tcp, DENIED_PORT)?;
        let ports = [ALLOWED_PORT, DENIED_PORT];
        let outcomes = ports.map(|port| self.client.probe(Probe::tcp(SERVER.1, port)));
        self.server.close(Tcp, ALLOWED_PORT)?;
        self.server.close(Tcp, DENIED_PORT)?;
        let [allowed, denied] = outcomes;
        let (allowed, denied) = (allowed?, denied?);
        // kube-router rejects, and a server listens on both: whatever is no connection is a denial.
        let connected = |outcome: &Outcome| matches!(outcome, Outcome::Connected { .. });
        if connected(&allowed) && connected(&denied) != enforced {
            return Ok(());
        }
        Err(Error::Invalid {
            what: format!(
                "port {ALLOWED_PORT}, which the policies allow: {allowed}; port {DENIED_PORT}, which they deny: \
                 {denied}; policies are{} in force here",
                if enforced { "" } else { " not" }
            ),
        })
    }
}
