//! Connections that no client can hold: each has its time and its size, and the oldest makes room for the newest.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many there are at once.
    pub connections: usize,
    /// How long each lasts, whatever it does.
    pub lifetime: Duration,
    /// How many bytes a client may send on one.
    pub bytes: usize,
}

impl Default for Limits {
    /// Far more than probes and scrapes need.
    fn default() -> Self {
        Self {
            connections: 64,
            lifetime: Duration::from_secs(10),
            bytes: 16 * 1024,
        }
    }
}

/// Accepts connections within limits. Clients that say nothing can fill it, but not keep others out: the newest is
/// always accepted, and the oldest cut for it.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    limits: Limits,
    /// The oldest first; a connection is cut by dropping its end.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Bounded {
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self {
            listener,
            limits,
            open: VecDeque::new(),
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        while self.open.len() >= self.limits.connections.max(1) {
            self.open.pop_front();
        }
        let (open, cut) = oneshot::channel();
        self.open.push_back(open);
        let connection = Connection {
            stream,
            cut,
            lifetime: Box::pin(sleep(self.limits.lifetime)),
            over: false,
            bytes: self.limits.bytes,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over, or its room is needed.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    cut: oneshot::Receiver<()>,
    lifetime: Pin<Box<Sleep>>,
    over: bool,
    /// How many bytes may still come.
    bytes: usize,
}

impl Connection {
    /// An error once it is over; the task is woken when it comes to be.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over
            || self.lifetime.as_mut().poll(cx).is_ready()
            || Pin::new(&mut self.cut).poll(cx).is_ready();
        match self.over {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let came = buffer.filled().len().saturating_sub(before);
        this.over = came > this.bytes;
        this.bytes = this.bytes.saturating_sub(came);
        Poll::Ready(this.check(cx))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
