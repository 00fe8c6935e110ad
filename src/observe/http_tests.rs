use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::*;
use crate::observe::Condition;
use crate::observe::checker::{Format, check};

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn server() -> (Server, Arc<Observer>) {
    let observer = Observer::new();
    let server = Server::start(any_port(), observer.clone()).unwrap();
    (server, observer)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until the server has ended a connection, properly or by a reset.
fn ended(stream: &mut TcpStream) {
    let end = stream.read_to_end(&mut Vec::new());
    let waited = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
    assert!(
        !end.as_ref().is_err_and(waited),
        "it is open still: {end:?}"
    );
}

/// What comes until the server ends the connection: status, head and body.
fn answer(mut stream: TcpStream) -> (u16, String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn ask(server: &Server, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = connect(server);
    // Without "Connection: close": that the server ends it is part of what is asked.
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
    )
    .unwrap();
    answer(stream)
}

fn get(server: &Server, path: &str) -> (u16, String) {
    let (status, _, body) = ask(server, "GET", path, "");
    (status, body)
}

fn ok() -> (u16, String) {
    (200, "ok\n".to_owned())
}

#[test]
fn it_answers_by_what_it_is_told() {
    let (server, observer) = server();
    assert_eq!(get(&server, "/livez"), ok());
    let (status, body) = get(&server, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("commit: the first commit has not been made\n"));
    observer.in_force();
    observer.health.set(Condition::KubeProxy, []);
    observer.health.set(Condition::NewPods, []);
    let off = "br_netfilter is not loaded".to_owned();
    observer.health.set(Condition::BridgeNetfilter, [off]);
    let reason = "bridge-netfilter: br_netfilter is not loaded\n".to_owned();
    assert_eq!(get(&server, "/readyz"), (503, reason));
    observer.health.set(Condition::BridgeNetfilter, []);
    assert_eq!(get(&server, "/readyz"), ok());
    for query in ["verbose", "verbose=1", "x=1&verbose"] {
        let (status, body) = get(&server, &format!("/readyz?{query}"));
        assert_eq!(status, 200);
        assert!(body.contains("[!]source: ") && body.contains("[+]commit ok\n"));
    }
    assert_eq!(get(&server, "/readyz?verbos"), ok());
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let (server, _observer) = server();
    let (status, head, body) = ask(&server, "GET", "/metrics", "");
    assert_eq!(status, 200);
    let content_type = format!("content-type: {}\r\n", exposition::CLASSIC);
    assert!(head.contains(&content_type), "{head}");
    check(&body, Format::Classic).unwrap();
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n";
    let (_, head, body) = ask(&server, "GET", "/metrics", accept);
    let content_type = format!("content-type: {}\r\n", exposition::OPEN_METRICS);
    assert!(head.contains(&content_type), "{head}");
    check(&body, Format::OpenMetrics).unwrap();
}

#[test]
fn it_only_reads() {
    let (server, _observer) = server();
    let (status, body) = get(&server, "/");
    assert_eq!(status, 200);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(body.contains(path));
        let (status, head, _) = ask(&server, "POST", path, "Content-Length: 0\r\n");
        assert_eq!(status, 405, "{path}");
        assert!(head.contains("allow: get,head"), "{head}");
        assert_eq!(ask(&server, "DELETE", path, "").0, 405, "{path}");
        let (status, _, body) = ask(&server, "HEAD", path, "");
        assert_eq!((status == 405, body.as_str()), (false, ""), "{path}");
    }
    for path in ["/healthz", "/metrics/", "/../etc/passwd", "/livez/x"] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
}

#[test]
fn every_answer_ends_its_connection_and_is_not_kept() {
    let (server, _observer) = server();
    for (method, path) in [("GET", "/livez"), ("POST", "/livez"), ("GET", "/no")] {
        let (_, head, _) = ask(&server, method, path, "");
        assert!(head.contains("connection: close"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
    }
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let (server, observer) = server();
    let error = Server::start(server.address(), observer.clone()).unwrap_err();
    assert!(matches!(error, HttpError::Listen { address, .. } if address == server.address()));
    let text = error.to_string();
    assert!(text.contains(&server.address().to_string()), "{text}");
    assert!(
        text.contains("in use") && text.contains("--http off"),
        "{text}"
    );
    // It is free again once the server is gone, and a child that another test is just starting, which has a copy of the
    // listener, has come to its exec.
    let address = server.address();
    drop(server);
    let deadline = Instant::now() + PATIENCE;
    let again = loop {
        match Server::start(address, observer.clone()) {
            Ok(server) => break server,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::yield_now();
    };
    assert_eq!(get(&again, "/livez"), ok());
}

#[test]
fn an_address_that_is_not_ours_is_an_error() {
    // TEST-NET-1 is nobody's.
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = Server::start(address, Observer::new()).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
}

#[test]
fn a_server_ends_though_clients_are_silent() {
    let (server, _observer) = server();
    let mut silent = connect(&server);
    assert_eq!(get(&server, "/livez"), ok());
    drop(server);
    ended(&mut silent);
}

#[test]
fn silent_and_slow_clients_neither_hold_it_nor_stay() {
    let limits = Limits {
        connections: 4,
        lifetime: Duration::from_secs(5),
        ..Limits::default()
    };
    let server = Server::start_with(any_port(), Observer::new(), limits).unwrap();
    let silent: Vec<TcpStream> = (0..20)
        .map(|n| {
            let mut stream = connect(&server);
            if n % 2 == 0 {
                stream.write_all(b"GET /livez HTT").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(get(&server, "/livez"), ok());
    for mut stream in silent {
        ended(&mut stream);
    }
    assert_eq!(get(&server, "/livez"), ok());
}

#[test]
fn the_newest_is_served_whatever_the_older_ones_do() {
    let limits = Limits {
        connections: 2,
        lifetime: PATIENCE * 2,
        ..Limits::default()
    };
    let server = Server::start_with(any_port(), Observer::new(), limits).unwrap();
    let mut first = connect(&server);
    let _others = [connect(&server), connect(&server)];
    assert_eq!(get(&server, "/livez"), ok());
    // The first was cut long before its time.
    ended(&mut first);
}

#[test]
fn a_request_without_end_is_cut() {
    let limits = Limits {
        lifetime: PATIENCE * 2,
        ..Limits::default()
    };
    let server = Server::start_with(any_port(), Observer::new(), limits).unwrap();
    let mut stream = connect(&server);
    stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    // More than it takes, and less than would be refused for its size alone.
    let line = format!("X: {}\r\n", "y".repeat(1000));
    for _ in 0..2 * limits.bytes / line.len() {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    ended(&mut stream);
    assert_eq!(get(&server, "/livez"), ok());
}

#[test]
fn what_is_no_request_is_no_harm() {
    let (server, _observer) = server();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"",
    ] {
        let mut stream = connect(&server);
        stream.write_all(garbage).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{garbage:?}");
    }
    assert_eq!(get(&server, "/livez"), ok());
}
