use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body as Answered, Bytes};
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use futures_util::stream;

use super::*;

/// Far longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a stream may be silent where that is what a test is about: longer than a busy machine takes to say the next word.
const SILENCE: Duration = Duration::from_secs(1);

/// How a stream ends.
#[derive(Clone, Copy)]
enum Ending {
    Clean,
    Cut,
    Never,
}

struct Answer {
    code: u16,
    retry_after: Option<u32>,
    lines: Vec<String>,
    ending: Ending,
}

fn stream_of<S: AsRef<str>>(lines: &[S], ending: Ending) -> Answer {
    let lines = lines.iter().map(|line| format!("{}\n", line.as_ref()));
    let lines = lines.collect();
    Answer {
        code: 200,
        retry_after: None,
        lines,
        ending,
    }
}

fn says(code: u16, body: &str) -> Answer {
    let lines = vec![body.to_owned()];
    Answer {
        code,
        retry_after: None,
        lines,
        ending: Ending::Clean,
    }
}

fn added(name: &str, version: u32) -> String {
    format!(
        r#"{{"type":"ADDED","object":{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#
    )
}

fn listed(version: u32) -> String {
    format!(
        r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}}}}}}"#
    )
}

const GONE: &str =
    r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}"#;

/// A server that gives these answers in their order, then a silent stream for ever, and keeps what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

async fn answer(Shared(script): Shared<Script>, request: Request) -> Response {
    let asked = (Instant::now(), request.uri().to_string());
    script.asked.lock().unwrap().push(asked);
    let next = script.answers.lock().unwrap().pop_front();
    let next = next.unwrap_or_else(|| stream_of::<&str>(&[], Ending::Never));
    let mut response = Response::builder().status(next.code);
    if let Some(seconds) = next.retry_after {
        response = response.header("Retry-After", seconds);
    }
    let lines = next.lines.into_iter().map(|line| Ok(Bytes::from(line)));
    let body = match next.ending {
        Ending::Clean => Answered::from_stream(stream::iter(lines)),
        Ending::Cut => {
            let cut = Err(io::Error::other("cut"));
            // Apart, so that what was said before gets out.
            let cut = stream::once(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                cut
            });
            Answered::from_stream(stream::iter(lines).chain(cut))
        }
        Ending::Never => Answered::from_stream(stream::iter(lines).chain(stream::pending())),
    };
    response.body(body).unwrap()
}

/// Where a server with this script is.
async fn served(script: Script) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(script);
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

/// A follower that is not at work yet.
fn follower(url: &str) -> (Follower, mpsc::Receiver<(ObjectKind, News)>) {
    let (sender, news) = mpsc::channel(64);
    let follower = Follower {
        connection: Connection::to(url),
        kind: ObjectKind::Namespace,
        only: None,
        silence: PATIENCE,
        back: Arc::default(),
        sender,
    };
    (follower, news)
}

struct Followed {
    script: Script,
    news: mpsc::Receiver<(ObjectKind, News)>,
}

impl Followed {
    async fn new(answers: Vec<Answer>) -> Self {
        Self::with_silence(answers, PATIENCE).await
    }

    async fn with_silence(answers: Vec<Answer>, silence: Duration) -> Self {
        let script = Script {
            answers: Arc::new(Mutex::new(answers.into())),
            ..Script::default()
        };
        let (mut follower, news) = follower(&served(script.clone()).await);
        follower.silence = silence;
        tokio::spawn(follower.follow());
        Self { script, news }
    }

    /// The next so many news, in short.
    async fn hear(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let news = tokio::time::timeout(PATIENCE, self.news.recv()).await;
            heard.push(match news.unwrap().unwrap().1 {
                News::Applied(entry) => format!("+{}", entry.name()),
                News::Deleted(entry) => format!("-{}", entry.name()),
                News::Listed { keys, unreadable } => {
                    format!("listed {} {}", keys.len(), unreadable.len())
                }
                News::Lost(error) => format!("lost: {error}"),
                News::Found => "found".to_owned(),
                News::Caught => "caught".to_owned(),
                News::Restarted | News::Heard => continue,
            });
        }
        heard
    }

    /// What was asked, once there were so many requests; the parts that are always the same are left out.
    async fn asked(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        while self.script.asked.lock().unwrap().len() < count {
            assert!(
                Instant::now() < deadline,
                "only {:?}",
                self.script.asked.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked = self.script.asked.lock().unwrap();
        let short = asked.iter().take(count).map(|(_, uri)| {
            let (path, query) = uri.split_once('?').unwrap();
            assert_eq!(path, "/api/v1/namespaces");
            let constant = ["watch=true", "allowWatchBookmarks=true"];
            let kept = query
                .split('&')
                .filter(|part| !constant.contains(part) && !part.starts_with("timeoutSeconds="));
            kept.collect::<Vec<_>>().join("&")
        });
        short.collect()
    }
}

const STREAMED: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

#[tokio::test]
async fn a_streaming_list_goes_over_into_the_watch() {
    let first = [added("a", 3), added("b", 5), listed(7), added("c", 9)];
    let mut followed = Followed::new(vec![stream_of(&first, Ending::Clean)]).await;
    let heard = followed.hear(4).await;
    assert_eq!(
        heard,
        ["+Namespace a", "+Namespace b", "listed 2 0", "+Namespace c"]
    );
    assert_eq!(followed.asked(2).await, [STREAMED, "resourceVersion=9"]);
}

#[tokio::test]
async fn where_there_are_no_streaming_lists_pages_are_read() {
    let refusal = r#"{"kind":"Status","code":422,"reason":"Invalid","message":"sendInitialEvents is forbidden"}"#;
    let one = r#"{"metadata":{"resourceVersion":"7","continue":"a+b"},"items":[{"metadata":{"name":"a"}}]}"#;
    let two = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"b"}}]}"#;
    let answers = vec![says(422, refusal), says(200, one), says(200, two)];
    let mut followed = Followed::new(answers).await;
    let heard = followed.hear(3).await;
    assert_eq!(heard, ["+Namespace a", "+Namespace b", "listed 2 0"]);
    let expected = [
        STREAMED,
        "limit=250",
        "limit=250&continue=a%2Bb",
        "resourceVersion=7",
    ];
    assert_eq!(followed.asked(4).await, expected);
}

#[tokio::test]
async fn a_version_that_is_gone_leads_to_a_new_list() {
    let whole = [added("a", 3), listed(7)];
    let event = format!(r#"{{"type":"ERROR","object":{GONE}}}"#);
    for gone in [says(410, GONE), stream_of(&[&event], Ending::Clean)] {
        let answers = vec![
            stream_of(&whole, Ending::Clean),
            gone,
            stream_of(&whole, Ending::Never),
        ];
        let mut followed = Followed::new(answers).await;
        let heard = followed.hear(4).await;
        assert_eq!(
            heard,
            ["+Namespace a", "listed 1 0", "+Namespace a", "listed 1 0"]
        );
        assert_eq!(
            followed.asked(3).await,
            [STREAMED, "resourceVersion=7", STREAMED]
        );
    }
}

#[tokio::test]
async fn a_cut_stream_goes_on_where_it_was_and_is_no_news() {
    let first = [added("a", 3), listed(7), added("b", 8)];
    let more = added("c", 9);
    let answers = vec![
        stream_of(&first, Ending::Cut),
        says(200, &empty_page(8)),
        stream_of(&[&more], Ending::Cut),
    ];
    let mut followed = Followed::new(answers).await;
    let heard = followed.hear(4).await;
    assert_eq!(
        heard,
        ["+Namespace a", "listed 1 0", "+Namespace b", "+Namespace c"]
    );
    let expected = [STREAMED, "limit=1", "resourceVersion=8", "limit=1"];
    assert_eq!(followed.asked(4).await, expected);
}

#[tokio::test]
async fn a_list_that_breaks_off_is_begun_anew() {
    let part = added("a", 3);
    let whole = [added("b", 3), listed(7)];
    for ending in [Ending::Clean, Ending::Cut, Ending::Never] {
        let answers = vec![
            stream_of(&[&part], ending),
            stream_of(&whole, Ending::Never),
        ];
        let mut followed = Followed::with_silence(answers, SILENCE).await;
        let heard = followed.hear(3).await;
        assert_eq!(heard, ["+Namespace a", "+Namespace b", "listed 1 0"]);
        assert_eq!(followed.asked(2).await, [STREAMED, STREAMED]);
    }
}

#[tokio::test]
async fn a_loss_is_told_once_and_so_is_its_end() {
    let whole = [added("a", 3), listed(7)];
    let answers = vec![
        says(503, "no"),
        says(503, "no"),
        says(500, "no"),
        stream_of(&whole, Ending::Never),
    ];
    let mut followed = Followed::new(answers).await;
    let heard = followed.hear(4).await;
    let expected = [
        "lost: it answers 503 Service Unavailable",
        "found",
        "+Namespace a",
        "listed 1 0",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is() {
    let mut busy = says(429, "too many requests");
    busy.retry_after = Some(1);
    let followed = Followed::new(vec![busy]).await;
    followed.asked(2).await;
    let asked = followed.script.asked.lock().unwrap();
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_made_anew() {
    let whole = [added("a", 3), listed(7)];
    let silent = || stream_of::<&str>(&[], Ending::Never);
    let answers = vec![
        stream_of(&whole, Ending::Never),
        silent(),
        says(200, &empty_page(7)),
        silent(),
        says(200, &empty_page(6)),
    ];
    let followed = Followed::with_silence(answers, SILENCE).await;
    // The version may be one of the server's future: then not even that helps.
    let (old, look) = ("resourceVersion=7", "limit=1");
    assert_eq!(
        followed.asked(6).await,
        [STREAMED, old, look, old, look, STREAMED]
    );
}

fn empty_page(version: u32) -> String {
    format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[]}}"#)
}

#[tokio::test]
async fn a_server_that_was_away_and_is_restored_is_listed_anew() {
    for (newest, expected) in [(6, None), (7, Some("7")), (700, Some("7"))] {
        let script = Script {
            answers: Arc::new(Mutex::new([says(200, &empty_page(newest))].into())),
            ..Script::default()
        };
        let (follower, _news) = follower(&served(script).await);
        let mut state = State {
            version: Some("7".to_owned()),
            ..State::default()
        };
        let nobody = ApiError::Unreachable {
            reason: "nobody is there".to_owned(),
        };
        follower.answered(&mut state, &Err::<(), _>(nobody));
        assert!(follower.compare(&mut state).await.is_ok());
        assert_eq!(state.version.as_deref(), expected, "{newest}");
        assert!(!state.doubtful);
    }
}

#[tokio::test]
async fn how_long_a_server_was_away_has_no_say_once_it_answers() {
    let (follower, _news) = follower("http://127.0.0.1:1");
    let mut state = State {
        failures: 12,
        away: true,
        ..State::default()
    };
    let told = follower.back.notified();
    let busy = ApiError::Refused {
        code: 429,
        reason: "TooManyRequests".to_owned(),
        message: "storage is (re)initializing".to_owned(),
        retry_after: Some(Duration::from_secs(1)),
    };
    follower.answered(&mut state, &Err::<(), _>(busy.clone()));
    told.await;
    assert!(state.back);
    assert!(follower.judge(&mut state, &busy, true).await <= Duration::from_millis(1250));
    // The same again is waited for longer and longer.
    state.failures = 12;
    assert!(follower.judge(&mut state, &busy, false).await > 10 * SOON);
}

#[tokio::test]
async fn a_page_that_is_refused_for_a_moment_is_asked_for_again() {
    let refusal = r#"{"kind":"Status","code":422,"reason":"Invalid","message":"sendInitialEvents is forbidden"}"#;
    let one = r#"{"metadata":{"resourceVersion":"7","continue":"ab"},"items":[{"metadata":{"name":"a"}}]}"#;
    let two = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"b"}}]}"#;
    let busy = || Answer {
        retry_after: Some(0),
        ..says(429, "too many requests")
    };
    let mut answers = vec![says(422, refusal), says(200, one)];
    answers.extend((0..PAGE_TRIES).map(|_| busy()));
    answers.push(says(200, two));
    let mut followed = Followed::new(answers).await;
    let heard = followed.hear(3).await;
    assert_eq!(heard, ["+Namespace a", "+Namespace b", "listed 2 0"]);
    let asked = followed.asked(3 + PAGE_TRIES as usize).await;
    assert_eq!(
        asked[2..],
        ["limit=250&continue=ab"; 1 + PAGE_TRIES as usize]
    );
}

#[tokio::test]
async fn bookmarks_keep_a_silent_stream_alive() {
    let whole = [added("a", 3), listed(7)];
    let bookmark = |version: u32| {
        format!(
            r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{version}"}}}}}}"#
        )
    };
    let bookmarks = [8, 9, 10, 11].map(bookmark);
    let mut answers = vec![stream_of(&whole, Ending::Never)];
    answers.extend(
        bookmarks
            .each_ref()
            .map(|one| stream_of(&[one], Ending::Never)),
    );
    let followed = Followed::with_silence(answers, SILENCE).await;
    let versions = [7, 8, 9, 10, 11].map(|version| format!("resourceVersion={version}"));
    assert_eq!(followed.asked(6).await[1..], versions);
}

#[tokio::test]
async fn a_server_that_is_busy_or_lets_nobody_in_is_not_asked_for_a_new_list() {
    let whole = [added("a", 3), listed(7)];
    let mut answers = vec![stream_of(&whole, Ending::Clean)];
    answers.extend([503, 502, 403, 401, 500, 429].map(|code| says(code, "no")));
    answers.push(stream_of(&[&added("b", 8)], Ending::Never));
    let mut followed = Followed::new(answers).await;
    assert_eq!(followed.hear(2).await, ["+Namespace a", "listed 1 0"]);
    let asked = followed.asked(8).await;
    assert_eq!(asked[1..], ["resourceVersion=7"; 7]);
    let back = followed.hear(4).await;
    assert_eq!(back[1..], ["found", "+Namespace b", "caught"]);
}

#[tokio::test]
async fn streaming_lists_that_are_never_finished_give_way_to_pages() {
    let part = added("a", 3);
    let page = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"b"}}]}"#;
    let part = || stream_of(&[&part], Ending::Never);
    let answers = vec![part(), part(), part(), says(200, page)];
    let followed = Followed::with_silence(answers, SILENCE).await;
    let expected = [
        STREAMED,
        STREAMED,
        STREAMED,
        "limit=250",
        "resourceVersion=7",
    ];
    assert_eq!(followed.asked(5).await, expected);
}

#[tokio::test]
async fn nonsense_leads_to_a_new_list_in_the_end() {
    let whole = [added("a", 3), listed(7)];
    let mut answers = vec![stream_of(&whole, Ending::Clean)];
    answers.extend((0..3).map(|_| stream_of(&["<html>"], Ending::Clean)));
    answers.push(stream_of(&whole, Ending::Never));
    let followed = Followed::new(answers).await;
    let old = "resourceVersion=7";
    assert_eq!(followed.asked(5).await, [STREAMED, old, old, old, STREAMED]);
}

#[tokio::test]
async fn what_cannot_be_read_is_listed_by_its_name() {
    let lines = [added("NO NAME", 3), listed(7)];
    let mut followed = Followed::new(vec![stream_of(&lines, Ending::Never)]).await;
    assert_eq!(followed.hear(2).await, ["+Namespace NO NAME", "listed 0 1"]);
}

#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_in_parts() {
    let refusal = r#"{"kind":"Status","code":422,"reason":"Invalid","message":"sendInitialEvents is forbidden"}"#;
    let huge = Answer {
        code: 200,
        retry_after: None,
        lines: vec!["x".repeat(1 << 20); (limits::PAGE >> 20) + 1],
        ending: Ending::Never,
    };
    let page = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
    let mut followed = Followed::new(vec![says(422, refusal), huge, says(200, page)]).await;
    assert_eq!(followed.hear(2).await, ["+Namespace a", "listed 1 0"]);
    let asked = followed.asked(3).await;
    assert_eq!(asked, [STREAMED, "limit=250", "limit=62"]);
}

#[tokio::test]
async fn a_line_without_an_end_is_nonsense() {
    let mut body = "x".repeat(limits::LINE);
    body.push('\n');
    let longest = lines(Body::from(body.clone().into_bytes())).next().await;
    assert_eq!(longest.unwrap().unwrap().len(), limits::LINE);
    body.insert(0, 'x');
    let error = lines(Body::from(body.into_bytes())).next().await;
    assert_eq!(
        error.unwrap().unwrap_err().to_string(),
        "its answer makes no sense: a line of more than 16 MiB"
    );
}

#[test]
fn a_list_that_never_ends_is_nonsense() {
    let entry = match answer::line(ObjectKind::Namespace, added("a", 1).as_bytes()) {
        Ok(Line::Applied(entry)) => entry,
        other => panic!("it reads as {other:?}"),
    };
    let mut listing = Listing {
        told: limits::OBJECTS - 1,
        ..Listing::default()
    };
    assert_eq!(listing.note(&entry), Ok(()));
    assert!(matches!(
        listing.note(&entry),
        Err(ApiError::Nonsense { .. })
    ));
}

#[tokio::test]
async fn a_server_that_is_back_and_has_forgotten_is_asked_for_a_list_soon() {
    let (follower, _news) = follower("http://127.0.0.1:1");
    // After a long outage the waits are long.
    let mut state = State {
        version: Some("7".to_owned()),
        failures: 12,
        ..State::default()
    };
    let gone = ApiError::Refused {
        code: 410,
        reason: "Expired".to_owned(),
        message: "too old resource version: 7 (99)".to_owned(),
        retry_after: None,
    };
    assert!(follower.judge(&mut state, &gone, false).await <= SOON);
    assert_eq!(state.version, None);
    // A server that has forgotten each list before it is at its end is left alone as one that fails otherwise.
    assert!(follower.judge(&mut state, &gone, false).await > 10 * SOON);
}
