//! Connections that can be dropped from outside.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::weather::{Weather, wait};

/// Accepts connections that feel the weather.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) weather: watch::Receiver<Weather>,
}

impl Listener for Port {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without it, small events would wait for acknowledgements; not every kernel refuses, none must.
        let _ = stream.set_nodelay(true);
        let mut weather = self.weather.clone();
        let hangups = weather.borrow().hangups;
        let hung_up = Box::pin(async move {
            wait(&mut weather, |weather| weather.hangups > hangups).await;
        });
        (Wire { stream, hung_up }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends as soon as all are dropped.
pub(crate) struct Wire {
    stream: TcpStream,
    hung_up: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Wire {
    fn poll<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        then: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let wire = self.get_mut();
        if wire.hung_up.as_mut().poll(cx).is_ready() {
            // Not to be polled again after its end.
            wire.hung_up = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        then(Pin::new(&mut wire.stream), cx)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
