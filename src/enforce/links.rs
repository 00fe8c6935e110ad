//! The network interfaces of this network namespace, from rtnetlink.
//!
//! News only say that it is time to look again: after each burst all interfaces are read anew, so that no order or
//! loss of messages can leave a wrong picture.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, MulticastGroup, new_connection,
    new_multicast_connection,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::host::{Filtered, Link};
use super::standing::Standing;

/// How long after the first of a burst of news the interfaces are read.
const BURST: Duration = Duration::from_millis(5);

/// How often they are read without news: a socket whose buffer overflows loses messages.
const RESYNC: Duration = Duration::from_secs(30);

/// How long to wait after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Why the interfaces are not known.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// There is no rtnetlink socket.
    #[error("rtnetlink can't be reached: {source}")]
    Unreachable {
        /// The system's answer.
        source: io::Error,
    },
    /// The interfaces or their addresses can't be listed.
    #[error("the network interfaces can't be listed: {source}")]
    Unlisted {
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A bridge's switches can't be set.
    #[error("{bridge} can't be told to send what it bridges through netfilter: {source}")]
    Unfiltered {
        /// The bridge.
        bridge: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The socket is closed.
    #[error("rtnetlink's socket was closed")]
    Closed,
}

/// Hands `send` the interfaces whenever they have changed, first of all as they are, and errors as they come; goes
/// on until `send` says false.
pub async fn watch(mut send: impl FnMut(Result<Vec<Link>, LinksError>) -> bool) {
    let mut last = None;
    loop {
        let Err(error) = follow(&mut last, &mut send).await else {
            return;
        };
        last = None;
        if !send(Err(error)) {
            return;
        }
        sleep(RETRY).await;
    }
}

/// The interfaces as they are now.
///
/// # Errors
/// When they can't be listed.
pub async fn read() -> Result<Vec<Link>, LinksError> {
    let (connection, handle, _) =
        new_connection().map_err(|source| LinksError::Unreachable { source })?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    list(&handle).await
}

/// Has each bridge that is named send what it bridges through netfilter, whatever net.bridge says: who writes that
/// anew, as `sysctl --system` may, opens nothing then. It takes br_netfilter all the same.
pub async fn filter(mut bridges: UnboundedReceiver<String>) {
    let mut problems = Standing::default();
    while let Some(bridge) = bridges.recv().await {
        match filter_one(&bridge).await {
            Ok(()) => {
                problems.update([]);
                debug!(%bridge, "what it bridges meets netfilter, whatever net.bridge says");
            }
            Err(error) => problems.update([error.to_string()]),
        }
    }
}

async fn filter_one(bridge: &str) -> Result<(), LinksError> {
    let (connection, handle, _) =
        new_connection().map_err(|source| LinksError::Unreachable { source })?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let message = LinkMessageBuilder::<LinkBridge>::new(bridge)
        .append_info_data(InfoBridge::NfCallIpTables(true))
        .append_info_data(InfoBridge::NfCallIp6Tables(true));
    let changed = handle.link().change(message.build()).execute().await;
    changed.map_err(|source| LinksError::Unfiltered {
        bridge: bridge.to_owned(),
        source,
    })
}

async fn follow(
    last: &mut Option<Vec<Link>>,
    send: &mut impl FnMut(Result<Vec<Link>, LinksError>) -> bool,
) -> Result<(), LinksError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, mut news) =
        new_multicast_connection(&groups).map_err(|source| LinksError::Unreachable { source })?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    loop {
        let links = list(&handle).await?;
        if last.as_ref() != Some(&links) {
            *last = Some(links.clone());
            if !send(Ok(links)) {
                return Ok(());
            }
        }
        match timeout(RESYNC, news.next()).await {
            // Time to look again in any case.
            Err(_) => {}
            Ok(None) => return Err(LinksError::Closed),
            Ok(Some(_)) => {
                sleep(BURST).await;
                while let Ok(Some(_)) = timeout(Duration::ZERO, news.next()).await {}
            }
        }
        if connection.0.is_finished() {
            return Err(LinksError::Closed);
        }
    }
}

/// The task that works a netlink socket goes with those who use it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn list(handle: &Handle) -> Result<Vec<Link>, LinksError> {
    let mut links = BTreeMap::new();
    for message in all(handle.link().get().execute()).await? {
        let link = link(&message);
        links.insert(link.index, link);
    }
    for message in all(handle.address().get().execute()).await? {
        let Some(link) = links.get_mut(&message.header.index) else {
            continue;
        };
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
        let any = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
        link.addresses.extend(local.or(any));
    }
    Ok(links.into_values().collect())
}

async fn all<T>(
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, LinksError> {
    let mut messages = std::pin::pin!(messages);
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        all.push(message.map_err(|source| LinksError::Unlisted { source })?);
    }
    Ok(all)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        bridge: false,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        addresses: Vec::new(),
        filtered: Filtered::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos
                    .iter()
                    .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
                let data = infos.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Bridge(data)) => Some(data),
                    _ => None,
                });
                for switch in data.flatten() {
                    match switch {
                        InfoBridge::NfCallIpTables(on) => link.filtered.ipv4 = *on,
                        InfoBridge::NfCallIp6Tables(on) => link.filtered.ipv6 = *on,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn ip(arguments: &str) {
        let arguments = arguments.split_whitespace();
        let status = Command::new("ip").args(arguments).status();
        assert!(status.unwrap().success());
    }

    /// The first picture of the interfaces in which `wanted` holds.
    async fn until(
        pictures: &mut UnboundedReceiver<Vec<Link>>,
        wanted: impl Fn(&[Link]) -> bool,
    ) -> Vec<Link> {
        loop {
            let picture = timeout(Duration::from_secs(20), pictures.recv()).await;
            let picture = picture.unwrap().unwrap();
            if wanted(&picture) {
                return picture;
            }
        }
    }

    fn named<'a>(links: &'a [Link], name: &str) -> Option<&'a Link> {
        links.iter().find(|link| link.name == name)
    }

    #[test]
    fn bridges_ports_and_addresses_are_followed() {
        let test = async {
            let (sender, mut pictures) = unbounded_channel();
            tokio::spawn(watch(move |links| sender.send(links.unwrap()).is_ok()));
            until(&mut pictures, |links| named(links, "lo").is_some()).await;
            ip("link add br0 type bridge");
            ip("address add 10.244.1.1/24 dev br0");
            ip("link add v0 type veth peer name v1");
            ip("link set v0 master br0");
            let links = until(&mut pictures, |links| {
                named(links, "v0").is_some_and(|v0| v0.master.is_some())
            })
            .await;
            let bridge = named(&links, "br0").unwrap();
            assert!(bridge.bridge && bridge.filtered == Filtered::default());
            assert_eq!(bridge.addresses, [std::net::IpAddr::from([10, 244, 1, 1])]);
            assert_eq!(named(&links, "v0").unwrap().master, Some(bridge.index));
            assert!(!named(&links, "v0").unwrap().bridge);
            assert_eq!(named(&links, "v1").unwrap().master, None);
            // Of one that is down the kernel tells no such thing.
            ip("link set br0 up");
            let (filter, bridges) = unbounded_channel();
            tokio::spawn(super::filter(bridges));
            filter.send("br0".to_owned()).unwrap();
            until(&mut pictures, |links| {
                named(links, "br0").is_some_and(|br0| br0.filtered == Filtered::WHOLLY)
            })
            .await;
            ip("link delete v0");
            until(&mut pictures, |links| named(links, "v0").is_none()).await;
            ip("address delete 10.244.1.1/24 dev br0");
            until(&mut pictures, |links| {
                named(links, "br0").is_some_and(|br0| br0.addresses.is_empty())
            })
            .await;
        };
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(test);
        })
        .join()
        .unwrap();
    }
}
