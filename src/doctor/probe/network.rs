//! The probe's namespaces: a node with a bridge, and two pods at veth pairs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, new_connection};
use tokio::runtime::Runtime;

use super::super::namespace::Namespace;
use super::ProbeError;
use super::cluster::{BRIDGE, CLIENT, CLIENT_PORT, SERVER, SERVER_PORT};
use crate::enforce::host::{BRIDGE_SWITCHES, BRIDGE_SYSCTLS};

/// A pod's own interface.
pub(super) const POD_LINK: &str = "eth0";

/// The namespaces. They are gone when this is, and the sockets in them.
#[derive(Debug)]
pub(super) struct Network {
    pub node: Namespace,
    pub client: Namespace,
    pub server: Namespace,
    /// Whether the pods have IPv6 addresses.
    pub ipv6: bool,
}

impl Network {
    /// Makes it. `bridged` is what the node's switches are set to; what this system does without goes to `untried`.
    pub(super) fn build(bridged: bool, untried: &mut Vec<String>) -> Result<Self, ProbeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("starting a runtime"))?;
        let server = Namespace::create()?;
        let client = Namespace::create()?;
        let node = Namespace::create()?;
        switch(Path::new(BRIDGE_SYSCTLS), bridged)?;
        within(&runtime, async |handle| {
            let bridge = LinkBridge::new(BRIDGE).build();
            let made = handle.link().add(bridge).execute().await;
            made.map_err(links("making a bridge"))?;
            let bridge = index(handle, BRIDGE).await?;
            for (port, pod) in [(CLIENT_PORT, &client), (SERVER_PORT, &server)] {
                add_port(handle, bridge, port, pod).await?;
            }
            Ok(())
        })?;
        let mut ipv6 = true;
        for (pod, (v4, v6)) in [(&client, CLIENT), (&server, SERVER)] {
            pod.enter()?;
            ipv6 &= within(&runtime, async |handle| {
                configure(handle, v4, v6, untried).await
            })?;
        }
        Ok(Self {
            node,
            client,
            server,
            ipv6,
        })
    }
}

pub(super) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ProbeError {
    let doing = doing.into();
    move |source| ProbeError::System { doing, source }
}

fn links(doing: &'static str) -> impl Fn(rtnetlink::Error) -> ProbeError {
    move |source| ProbeError::Links { doing, source }
}

/// Switches bridged packets' way through netfilter on or off, in the namespace of the calling thread.
fn switch(directory: &Path, on: bool) -> Result<(), ProbeError> {
    let wanted = if on { "1" } else { "0" };
    for switch in BRIDGE_SWITCHES {
        let path = directory.join(switch);
        let now = fs::read_to_string(&path).map_err(|source| ProbeError::System {
            doing: format!("reading net.bridge.{switch} (is br_netfilter loaded?)"),
            source,
        })?;
        // A new namespace has them on: /proc/sys may be read-only.
        if now.trim() != wanted {
            fs::write(&path, wanted).map_err(system(format!("setting net.bridge.{switch}")))?;
        }
    }
    Ok(())
}

/// Does something over rtnetlink in the namespace of the calling thread.
fn within<T>(
    runtime: &Runtime,
    work: impl AsyncFnOnce(&Handle) -> Result<T, ProbeError>,
) -> Result<T, ProbeError> {
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().map_err(system("rtnetlink"))?;
        let connection = tokio::spawn(connection);
        let done = work(&handle).await;
        connection.abort();
        done
    })
}

async fn index(handle: &Handle, name: &str) -> Result<u32, ProbeError> {
    let request = handle.link().get().match_name(name.to_owned());
    let found = request.execute().try_next().await;
    let found = found.map_err(links("looking for an interface"))?;
    let found = found.ok_or_else(|| ProbeError::Cluster(format!("{name} is not there")))?;
    Ok(found.header.index)
}

/// A veth pair from the bridge to a pod's namespace.
async fn add_port(
    handle: &Handle,
    bridge: u32,
    port: &str,
    pod: &Namespace,
) -> Result<(), ProbeError> {
    let peer = LinkUnspec::new_with_name(POD_LINK)
        .setns_by_fd(pod.as_fd().as_raw_fd())
        .build();
    let pair = LinkVeth::new(port, POD_LINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .up()
        .build();
    let made = handle.link().add(pair).execute().await;
    made.map_err(links("making a veth pair"))
}

/// A pod's addresses; whether it has one of IPv6.
async fn configure(
    handle: &Handle,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    untried: &mut Vec<String>,
) -> Result<bool, ProbeError> {
    let link = index(handle, POD_LINK).await?;
    let up = LinkUnspec::new_with_index(link).up().build();
    let set = handle.link().set(up).execute().await;
    set.map_err(links("setting an interface up"))?;
    let added = handle.address().add(link, IpAddr::V4(v4), 24);
    let added = added.execute().await;
    added.map_err(links("adding an IPv4 address"))?;
    let mut add = handle.address().add(link, IpAddr::V6(v6), 64);
    // Nobody else can have it, so nobody need be asked first.
    let flags = AddressAttribute::Flags(AddressFlags::Nodad);
    add.message_mut().attributes.push(flags);
    match add.execute().await {
        Ok(()) => Ok(true),
        Err(error) => {
            let reason = format!("IPv6 ({error})");
            if !untried.contains(&reason) {
                untried.push(reason);
            }
            Ok(false)
        }
    }
}
