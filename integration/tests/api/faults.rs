//! Each way in which the proxy makes an API server fail, as clients see it.

use std::time::{Duration, Instant};

use selvedge_lab::api::{Chaos, Cluster, Cut, Endpoint, Fault, Gone, Kind, Reply, Target, Which};
use selvedge_lab::{Error, Netns, wait_until};
use serde_json::{Value, json};

use super::http_client::{Answer, End, PATIENCE, get, get_with, types};

const PODS: &str = "/api/v1/pods";
/// On a real cluster, too, this one is there and says no more.
const WATCH: &str = "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Ddefault";

fn stage() -> Result<(Cluster, Endpoint), Error> {
    let cluster = Cluster::for_tests()?;
    let endpoint = cluster.proxy()?.listen_here()?;
    Ok((cluster, endpoint))
}

fn code(endpoint: &Endpoint, path: &str) -> Result<u16, Error> {
    Ok(get(endpoint.address(), path)?.head().0)
}

/// A watch that has said something.
fn running(endpoint: &Endpoint) -> Result<Answer, Error> {
    let mut watch = get(endpoint.address(), WATCH)?;
    watch.until(|lines| !lines.is_empty());
    Ok(watch)
}

#[test]
fn what_is_asked_is_passed_on_and_counted() -> Result<(), Error> {
    let (cluster, endpoint) = stage()?;
    let ns = cluster.namespace("counted", &[])?;
    assert_eq!(code(&endpoint, "/version")?, 200);
    assert_eq!(code(&endpoint, PODS)?, 200);
    assert_eq!(code(&endpoint, &format!("/api/v1/namespaces/{ns}"))?, 200);
    assert_eq!(code(&endpoint, "/api/v1/namespaces/there-is-none")?, 404);
    assert_eq!(code(&endpoint, "/api/v1/namespaces?limit=1")?, 200);
    assert_eq!(
        code(&endpoint, "/api/v1/namespaces?limit=1&continue=rubbish")?,
        400
    );
    drop(running(&endpoint)?);
    assert_eq!(endpoint.count("list", Kind::Pod), 1);
    assert_eq!(endpoint.count("get", Kind::Namespace), 2);
    assert_eq!(endpoint.count("list", Kind::Namespace), 1);
    assert_eq!(endpoint.count("watch", Kind::Namespace), 1);
    assert_eq!(endpoint.count("watch", Kind::Pod), 0);
    let seen = endpoint.seen();
    assert_eq!((seen[0].verb, seen[0].path.as_str()), ("other", "/version"));
    assert_eq!(seen.iter().filter(|seen| seen.is_next_page()).count(), 1);
    endpoint.forget();
    assert!(endpoint.seen().is_empty());
    cluster.finish()
}

#[test]
fn a_real_client_reads_the_kubeconfig() -> Result<(), Error> {
    let (cluster, endpoint) = stage()?;
    endpoint.require_token(Some("second"));
    let through = Cluster::real(&endpoint.kubeconfig());
    let list = |through: &Cluster| through.list(&Target::collection(Kind::Namespace, None));
    let refused = list(&through?);
    assert!(
        matches!(refused, Err(Error::Api { code: 401, .. })),
        "{refused:?}"
    );
    endpoint.write_token("second")?;
    assert!(list(&Cluster::real(&endpoint.kubeconfig())?)?.len() >= 4);
    cluster.finish()
}

#[test]
fn the_next_requests_are_answered_as_planned() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    endpoint.answer_next(2, Which::any(), Reply::Status(429, Some(7)));
    let mut answer = get(endpoint.address(), PODS)?;
    let (number, head) = answer.head();
    assert_eq!(number, 429);
    assert!(head.contains("retry-after: 7"), "{head}");
    answer.end();
    let status: Value = serde_json::from_slice(&answer.body()).unwrap();
    assert_eq!(
        (&status["kind"], &status["reason"]),
        (&json!("Status"), &json!("TooManyRequests"))
    );
    assert_eq!(code(&endpoint, PODS)?, 429);
    assert_eq!(code(&endpoint, PODS)?, 200);
    for number in [401, 403, 500, 502, 503, 504] {
        endpoint.answer_next(1, Which::any(), Reply::Status(number, None));
        assert_eq!(code(&endpoint, PODS)?, number);
    }
    // Only those that it is for.
    endpoint.answer_next(
        1,
        Which::verb("watch").of(Kind::Namespace),
        Reply::gone(Gone::Http),
    );
    endpoint.answer_next(
        1,
        Which::verb("list").of(Kind::Node),
        Reply::Status(500, None),
    );
    assert_eq!(code(&endpoint, PODS)?, 200);
    assert_eq!(code(&endpoint, "/api/v1/pods?watch=true")?, 200);
    assert_eq!(endpoint.planned(), 2);
    assert_eq!(code(&endpoint, WATCH)?, 410);
    assert_eq!(code(&endpoint, "/api/v1/nodes")?, 500);
    assert_eq!(endpoint.planned(), 0);
    endpoint.answer_next(1, Which::verb("watch"), Reply::gone(Gone::Event));
    let mut watch = get(endpoint.address(), WATCH)?;
    assert_eq!(watch.end(), End::Proper);
    assert_eq!(types(&watch.lines()), ["ERROR"]);
    assert_eq!(watch.lines()[0]["object"]["code"], 410);
    Ok(())
}

#[test]
fn rubbish_is_sent_as_asked() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    let ask = |reply| -> Result<Answer, Error> {
        endpoint.answer_next(1, Which::any(), reply);
        let mut answer = get(endpoint.address(), WATCH)?;
        assert_eq!(answer.end(), End::Proper);
        Ok(answer)
    };
    let mut html = ask(Reply::Html(200))?;
    assert!(html.head().1.contains("content-type: text/html"));
    assert!(html.text().contains("</html>"));
    let half = ask(Reply::HalfLine)?.text();
    assert!(
        half.starts_with('{')
            && !half.ends_with('\n')
            && serde_json::from_str::<Value>(&half).is_err()
    );
    let long = ask(Reply::EnormousLine(5_000_000))?.text();
    assert!(long.len() > 5_000_000 && long.lines().count() == 1);
    assert_eq!(ask(Reply::Empty)?.text(), "");
    endpoint.answer_next(1, Which::any(), Reply::Silence);
    let mut silent = get(endpoint.address(), PODS)?;
    assert!(silent.is_silent(Duration::from_millis(300)));
    endpoint.hang_up();
    assert_eq!(silent.end(), End::Broken);
    Ok(())
}

#[test]
fn streams_are_cut_in_each_way() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    for (how, end) in [
        (Cut::Clean, End::Proper),
        (Cut::Abrupt, End::Broken),
        (Cut::MidLine, End::Broken),
    ] {
        let [mut one, mut two] = [running(&endpoint)?, running(&endpoint)?];
        endpoint.cut(how);
        for watch in [&mut one, &mut two] {
            assert_eq!(watch.end(), end, "{how:?}");
            assert_eq!(watch.text().ends_with('\n'), how != Cut::MidLine, "{how:?}");
        }
        // Those that come later are not cut.
        let mut later = running(&endpoint)?;
        assert!(later.is_silent(Duration::from_millis(100)));
    }
    Ok(())
}

#[test]
fn while_stalled_nothing_passes_and_nothing_ends() -> Result<(), Error> {
    let (cluster, endpoint) = stage()?;
    let ns = cluster.namespace("stalled", &[])?;
    let policies = Target::collection(Kind::NetworkPolicy, Some(&ns)).path();
    let mut watch = get(endpoint.address(), &format!("{policies}?watch=true"))?;
    assert_eq!(watch.head().0, 200);
    endpoint.stall(true);
    cluster.policy(&ns, "late", &json!({"podSelector": {}}))?;
    let mut new = get(endpoint.address(), PODS)?;
    assert!(watch.is_silent(Duration::from_millis(300)));
    assert!(new.is_silent(Duration::from_millis(300)));
    endpoint.stall(false);
    assert_eq!(new.head().0, 200);
    assert_eq!(types(&watch.until(|lines| !lines.is_empty())), ["ADDED"]);
    // Stalled streams can be cut, too.
    endpoint.stall(true);
    endpoint.cut(Cut::Abrupt);
    assert_eq!(watch.end(), End::Broken);
    cluster.finish()
}

#[test]
fn down_means_refused_and_up_is_the_same_address() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    for _ in 0..5 {
        let mut watch = running(&endpoint)?;
        endpoint.down()?;
        assert_eq!(watch.end(), End::Broken);
        let refused = std::net::TcpStream::connect(endpoint.address()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        endpoint.down()?;
        endpoint.up()?;
        endpoint.up()?;
        assert_eq!(code(&endpoint, PODS)?, 200);
    }
    Ok(())
}

#[test]
fn delays_and_dribbles_lose_nothing() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    let whole = running(&endpoint)?.lines();
    endpoint.dribble(true);
    let mut watch = get(endpoint.address(), WATCH)?;
    let dribbled = watch.until(|lines| lines.len() >= whole.len());
    assert_eq!(dribbled, whole);
    endpoint.calm()?;
    endpoint.delay(Duration::from_millis(200));
    let start = Instant::now();
    assert_eq!(code(&endpoint, PODS)?, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    Ok(())
}

#[test]
fn only_the_right_token_passes() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    endpoint.require_token(Some("secret"));
    let with = |header: &str| -> Result<u16, Error> {
        Ok(get_with(endpoint.address(), PODS, header)?.head().0)
    };
    assert_eq!(with("")?, 401);
    assert_eq!(with("Authorization: Bearer wrong\r\n")?, 401);
    assert_eq!(with("Authorization: Bearer secret\r\n")?, 200);
    endpoint.require_token(None);
    assert_eq!(with("")?, 200);
    Ok(())
}

#[test]
fn each_namespace_has_an_endpoint_of_its_own() -> Result<(), Error> {
    let cluster = Cluster::for_tests()?;
    let proxy = cluster.proxy()?;
    let [one, two, outside] = [
        Netns::new("one")?,
        Netns::new("two")?,
        Netns::new("outside")?,
    ];
    for netns in [&one, &two, &outside] {
        netns.ip_batch("link set lo up\n")?;
    }
    let [first, second] = [proxy.listen(&one)?, proxy.listen(&two)?];
    // Endpoints live on without the proxy's handle.
    drop(proxy);
    assert_eq!(one.run(|| code(&first, PODS))??, 200);
    assert_eq!(two.run(|| code(&second, PODS))??, 200);
    // Each is in its namespace only, and fails alone. The machine's own namespace has the other tests' endpoints.
    let reached = outside.run(|| std::net::TcpStream::connect(first.address()))?;
    assert!(reached.is_err());
    first.down()?;
    assert!(one.run(|| code(&first, PODS))?.is_err());
    assert_eq!(two.run(|| code(&second, PODS))??, 200);
    first.up()?;
    assert_eq!(one.run(|| code(&first, PODS))??, 200);
    assert_eq!(first.count("list", Kind::Pod), 2);
    let kubeconfig = std::fs::read_to_string(second.kubeconfig()).unwrap();
    assert!(kubeconfig.contains(&second.url()), "{kubeconfig}");
    cluster.finish()
}

#[test]
fn chaos_is_the_same_for_the_same_seed_and_ends_in_calm() -> Result<(), Error> {
    let (_cluster, endpoint) = stage()?;
    let faults = |seed| {
        let mut chaos = Chaos::new(seed);
        (0..100).map(|_| chaos.fault()).collect::<Vec<_>>()
    };
    assert_eq!(faults(1), faults(1));
    assert_ne!(faults(1), faults(2));
    for fault in faults(3) {
        // The long ones are tried elsewhere.
        let short = match fault {
            Fault::Stall(_) => Fault::Stall(Duration::from_millis(1)),
            Fault::Down(_) => Fault::Down(Duration::from_millis(1)),
            other => other,
        };
        let watch = get(endpoint.address(), WATCH);
        short.strike(&endpoint)?;
        drop(watch);
    }
    endpoint.calm()?;
    assert_eq!(code(&endpoint, PODS)?, 200);
    running(&endpoint).map(drop)
}

#[test]
fn an_upstream_that_is_gone_is_a_bad_gateway() -> Result<(), Error> {
    let cluster = Cluster::stand_in()?;
    let between = cluster.proxy()?.listen_here()?;
    let beyond = Cluster::real(&between.kubeconfig())?;
    let endpoint = beyond.proxy()?.listen_here()?;
    assert_eq!(code(&endpoint, PODS)?, 200);
    let mut watch = running(&endpoint)?;
    between.down()?;
    assert_eq!(watch.end(), End::Broken);
    assert_eq!(code(&endpoint, PODS)?, 502);
    between.up()?;
    wait_until("the way through", PATIENCE, || {
        Ok(code(&endpoint, PODS)? == 200)
    })
}
