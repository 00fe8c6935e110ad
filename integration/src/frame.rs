//! Whole Ethernet frames, sent from a host and seen (or not) at another.
//!
//! Build frames with [`etherparse::PacketBuilder`], which this crate re-exports, or byte by byte.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto,
    setsockopt, socket, sockopt,
};

use crate::error::{During, Error};
use crate::netns::Netns;

/// Sends Ethernet frames from one interface.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
    interface: LinkAddr,
}

impl FrameSocket {
    pub(crate) fn open(netns: &Netns, interface: &str) -> Result<Self, Error> {
        // Protocol 0: it receives nothing.
        let (fd, interface) = open(netns, interface, None)?;
        Ok(Self { fd, interface })
    }

    /// The interface's own link address.
    pub fn mac(&self) -> [u8; 6] {
        self.interface.addr().unwrap_or_default()
    }

    /// Sends a frame, from its destination address to the end of its payload (no checksum at its end).
    pub fn send(&self, frame: &[u8]) -> Result<(), Error> {
        sendto(
            self.fd.as_raw_fd(),
            frame,
            &self.interface,
            MsgFlags::empty(),
        )
        .during("send a frame")
        .map(drop)
    }
}

/// Records what arrives at one interface, from its making on.
///
/// The kernel takes the outermost VLAN tag off before it shows a frame here.
#[derive(Debug)]
pub struct Capture {
    fd: OwnedFd,
    name: String,
}

impl Capture {
    pub(crate) fn open(netns: &Netns, interface: &str) -> Result<Self, Error> {
        let (fd, address) = open(netns, interface, Some(SockProtocol::EthAll))?;
        let name = format!("{interface} of {}", netns.name());
        bind(fd.as_raw_fd(), &address).during(&format!("capture at {name}"))?;
        // What came before the bind may be another interface's.
        let mut buffer = [0; 2048];
        while recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer).is_ok() {}
        Ok(Self { fd, name })
    }

    /// Waits up to `window` for a frame that `wanted` accepts, and returns it. Earlier frames are given up.
    pub fn wait_for(
        &self,
        window: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let deadline = Instant::now() + window;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let outgoing = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                    let frame = buffer.get(..length).unwrap_or_default();
                    if !outgoing && wanted(frame) {
                        return Ok(Some(frame.to_vec()));
                    }
                    continue;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error).during(&format!("capture at {}", self.name)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            let timeout =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut fds, timeout);
        }
    }

    /// Whether a frame that contains `needle` arrives within `window`.
    pub fn sees(&self, needle: &[u8], window: Duration) -> Result<bool, Error> {
        let found = self.wait_for(window, |frame| {
            needle.is_empty() || frame.windows(needle.len()).any(|part| part == needle)
        })?;
        Ok(found.is_some())
    }
}

fn open(
    netns: &Netns,
    interface: &str,
    protocol: Option<SockProtocol>,
) -> Result<(OwnedFd, LinkAddr), Error> {
    netns.run(|| {
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            protocol,
        )
        .during("open a packet socket")?;
        // Without it (a kernel's limit) a burst may be lost, but nothing else changes.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &(4 << 20));
        Ok((fd, link_address(interface)?))
    })?
}

/// The interface's packet socket address, which carries its index.
fn link_address(interface: &str) -> Result<LinkAddr, Error> {
    getifaddrs()
        .during("list interfaces")?
        .filter(|one| one.interface_name == interface)
        .find_map(|one| one.address?.as_link_addr().copied())
        .ok_or_else(|| Error::invalid(format!("no interface {interface}")))
}

/// The link-local IPv6 address of an interface in the calling thread's namespace, once the kernel has given it one.
pub(crate) fn link_local_of(interface: &str) -> Result<Option<Ipv6Addr>, Error> {
    let found = getifaddrs()
        .during("list interfaces")?
        .filter(|one| one.interface_name == interface)
        .filter_map(|one| one.address?.as_sockaddr_in6().map(|address| address.ip()))
        .find(Ipv6Addr::is_unicast_link_local);
    Ok(found)
}
