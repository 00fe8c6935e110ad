//! An HTTP client that sees how a stream really ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use selvedge_lab::Error;
use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A GET request's answer, as it comes.
pub struct Answer {
    stream: TcpStream,
    /// What has come, headers too.
    raw: Vec<u8>,
    end: Option<End>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the last chunk or the promised length.
    Proper,
    /// Before that.
    Broken,
}

fn io(source: std::io::Error) -> Error {
    Error::Io {
        what: "talk HTTP".to_owned(),
        source,
    }
}

/// Sends a GET request.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer, Error> {
    get_with(address, path, "")
}

/// Sends a GET request with these header lines.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> Result<Answer, Error> {
    let mut stream = TcpStream::connect(address).map_err(io)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;
    Ok(Answer {
        stream,
        raw: Vec::new(),
        end: None,
    })
}

impl Answer {
    /// Reads what comes within this time; true if anything did.
    fn read(&mut self, time: Duration) -> bool {
        let mut buffer = [0; 1 << 16];
        let _ = self
            .stream
            .set_read_timeout(Some(time.max(Duration::from_millis(1))));
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.end = Some(if self.is_complete() {
                    End::Proper
                } else {
                    End::Broken
                });
            }
            Ok(length) => {
                self.raw.extend_from_slice(&buffer[..length]);
                return true;
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.end = Some(End::Broken),
        }
        false
    }

    fn split(&self) -> Option<(String, &[u8])> {
        let at = self.raw.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.raw[..at]).to_lowercase();
        Some((head, &self.raw[at + 4..]))
    }

    fn is_complete(&self) -> bool {
        let Some((head, rest)) = self.split() else {
            return false;
        };
        match head.split("content-length: ").nth(1) {
            Some(length) => {
                length
                    .split("\r\n")
                    .next()
                    .and_then(|l| l.trim().parse().ok())
                    == Some(rest.len())
            }
            None => rest.ends_with(b"0\r\n\r\n"),
        }
    }

    /// The HTTP status and the head; waits for it.
    pub fn head(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.split().is_none() && self.end.is_none() && Instant::now() < deadline {
            self.read(Duration::from_millis(100));
        }
        let (head, _) = self.split().expect("an answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status"), head)
    }

    /// The body so far, out of its chunks.
    pub fn body(&self) -> Vec<u8> {
        let Some((head, mut rest)) = self.split() else {
            return Vec::new();
        };
        if !head.contains("transfer-encoding: chunked") {
            return rest.to_vec();
        }
        let mut body = Vec::new();
        while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
            let length = String::from_utf8_lossy(&rest[..at]).into_owned();
            let length = usize::from_str_radix(&length, 16).expect("a chunk's length");
            rest = &rest[at + 2..];
            body.extend_from_slice(&rest[..length.min(rest.len())]);
            match rest.get(length + 2..) {
                Some(next) if length > 0 => rest = next,
                _ => break,
            }
        }
        body
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    /// The body so far as JSON values, a line each; what is no whole line is left out.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        let lines = whole.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Waits until the lines so far satisfy `enough`.
    pub fn until(&mut self, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            if enough(&lines) {
                return lines;
            }
            let text = self.text();
            assert!(self.end.is_none(), "it ended ({:?}) with {text}", self.end);
            assert!(Instant::now() < deadline, "waited for more than {text}");
            self.read(Duration::from_millis(100));
        }
    }

    /// Waits for the end.
    pub fn end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.end {
                return end;
            }
            assert!(
                Instant::now() < deadline,
                "waited for the end of {}",
                self.text()
            );
            self.read(Duration::from_millis(100));
        }
    }

    /// Whether nothing at all comes within this time, not even an end.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        !self.read(time) && self.end.is_none()
    }
}

/// What kind of events these are, in order.
pub fn types(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["type"].as_str().unwrap_or_default())
        .collect()
}
