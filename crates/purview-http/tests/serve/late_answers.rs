//! Answers that are given when the request's context is done, on sockets: by both servers, over both protocols, for both ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Version;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::*;

#[derive(Clone, Copy, Debug)]
enum End {
    Deadline,
    Shutdown,
}

/// A service, and how the contexts of its requests come to be done.
struct Late {
    end: End,
    clock: ManualClock,
    stop: CancelGuard,
    phases: Option<Phases>,
    address: SocketAddr,
    begun: mpsc::UnboundedReceiver<()>,
    count: Arc<AtomicUsize>,
}

const LONG: usize = 200_000;

impl Late {
    async fn start(by: By, end: End) -> Late {
        let clock = ManualClock::new();
        let (root, stop) = clock.root().with_cancel();
        let (say, begun) = mpsc::unbounded_channel();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let begin = move |ctx: &Context| {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = say.send(());
            ctx.clone()
        };
        // Each waits for the end of its context, and then has an answer, or has none.
        let own = |begin: Begin| {
            async move |Ctx(ctx): Ctx| {
                let err = begin(&ctx).done().await;
                (StatusCode::IM_A_TEAPOT, format!("handler: {err}; {}", "x".repeat(LONG)))
            }
        };
        let then = |begin: Begin, parts: &'static [&'static str]| {
            async move |Ctx(ctx): Ctx| {
                begin(&ctx).done().await;
                Response::new(Body::new(Frames { parts, ends: !parts.is_empty() }))
            }
        };
        let half = |begin: Begin| {
            async move |Ctx(ctx): Ctx| {
                begin(&ctx).done().await;
                Response::new(Body::new(Stream(Some("half"))))
            }
        };
        let silent = |begin: Begin| {
            async move |Ctx(ctx): Ctx| {
                begin(&ctx);
                std::future::pending::<&str>().await
            }
        };
        let stream = |begin: Begin| {
            async move |Ctx(ctx): Ctx| {
                begin(&ctx);
                Response::new(Body::new(Stream(Some("half"))))
            }
        };
        let begin: Begin = Arc::new(begin);
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/own", get(own(begin.clone())))
            .route("/frames", get(then(begin.clone(), &["one, ", "two, ", "three"])))
            .route("/waits", get(then(begin.clone(), &[])))
            .route("/half", get(half(begin.clone())))
            .route("/silent", get(silent(begin.clone())))
            .route("/stream", get(stream(begin)));
        let mut shutdown = Shutdown::new(&root);
        let phases = Phases::new(&mut shutdown, SECOND);
        let server = Server::new(phases.clone());
        // By axum's, a shutdown is the end of the context that requests are below.
        let (requests, phases) = match by {
            By::Axum => (root, None),
            By::Ours => (server.context().clone(), Some(phases)),
        };
        let app = app.layer(ContextLayer::new(&requests).limit(SECOND * 10));
        let address = by.serve(server, app).await;
        tokio::spawn(shutdown.run());
        Late { end, clock, stop, phases, address, begun, count }
    }

    /// Waits until a handler has begun, and ends its context.
    async fn end(&mut self) {
        tokio::time::timeout(PATIENCE, self.begun.recv()).await.expect("a handler begins");
        match (self.end, &self.phases) {
            (End::Deadline, _) => self.clock.advance(SECOND * 10),
            (End::Shutdown, None) => self.stop.cancel_with(RequestEnded::ServerShutdown),
            (End::Shutdown, Some(phases)) => {
                self.stop.cancel_with("SIGTERM");
                phases.drain.context().done().await;
                self.clock.advance(SECOND);
            }
        }
    }

    fn own(&self) -> (StatusCode, String) {
        let status = match self.end {
            End::Deadline => StatusCode::GATEWAY_TIMEOUT,
            End::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        };
        let sentence = match self.end {
            End::Deadline => "the request's time was up\n",
            End::Shutdown => "the server is shutting down\n",
        };
        (status, sentence.to_string())
    }

    fn handlers(&self) -> (StatusCode, String) {
        let end = match self.end {
            End::Deadline => "context deadline exceeded: the request's time was up",
            End::Shutdown => "context canceled: the server is shutting down",
        };
        (StatusCode::IM_A_TEAPOT, format!("handler: {end}; {}", "x".repeat(LONG)))
    }
}

type Begin = Arc<dyn Fn(&Context) -> Context + Send + Sync>;

/// Frames of which nothing says how long they are together.
struct Frames {
    parts: &'static [&'static str],
    ends: bool,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.parts.split_first() {
            Some((part, rest)) => {
                self.parts = rest;
                Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes())))))
            }
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// What a client has of an answer: its status, and all of its body, or what came before it broke off.
#[derive(PartialEq, Debug)]
enum Answer {
    Whole(StatusCode, String),
    Broken(StatusCode, String),
    None(String),
}

async fn ask(address: SocketAddr, version: Version, path: &str) -> Answer {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .http2_only(version == Version::HTTP_2)
        .build_http();
    let uri = format!("http://{address}{path}").parse().expect("a URI");
    let response = match client.get(uri).await {
        Ok(response) => response,
        Err(err) => return Answer::None(format!("{err:?}")),
    };
    let status = response.status();
    let (mut body, mut all) = (response.into_body(), Vec::new());
    loop {
        let text = || String::from_utf8_lossy(&all).into_owned();
        match body.frame().await {
            None => return Answer::Whole(status, text()),
            Some(Err(_)) => return Answer::Broken(status, text()),
            Some(Ok(frame)) => all.extend(frame.into_data().expect("no trailers")),
        }
    }
}

/// By each server, over each protocol, for each end.
async fn each(path: &'static str, expected: impl Fn(&Late) -> Answer) {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        each_over(version, path, |late, answer| assert_eq!(answer, expected(late))).await;
    }
}

async fn each_over(version: Version, path: &'static str, check: impl Fn(&Late, Answer)) {
    for by in BOTH {
        for end in [End::Deadline, End::Shutdown] {
            let mut late = Late::start(by, end).await;
            let asked = tokio::spawn(ask(late.address, version, path));
            late.end().await;
            let answer = tokio::time::timeout(PATIENCE, asked).await.expect("it does not hang");
            eprintln!("{path} by {by:?}, {version:?}, {end:?}");
            check(&late, answer.expect("no panic"));
            assert_eq!(late.count.load(Ordering::Relaxed), 1);
        }
    }
}

fn whole((status, text): (StatusCode, String)) -> Answer {
    Answer::Whole(status, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handlers_own_late_answer_arrives_whole() {
    each("/own", |late| whole(late.handlers())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_of_several_frames_arrives_whole() {
    each("/frames", |_| whole((StatusCode::OK, "one, two, three".to_string()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_handler_has_nothing_the_layers_answer_arrives() {
    each("/silent", |late| whole(late.own())).await;
    each("/waits", |late| whole(late.own())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_stream_that_waits_breaks_off_behind_what_there_was() {
    let half = Answer::Broken(StatusCode::OK, "half".to_string());
    each_over(Version::HTTP_11, "/half", |_, answer| assert_eq!(answer, half)).await;
    // Of HTTP/2, a reset may overtake what was sent before it.
    each_over(Version::HTTP_2, "/half", |_, answer| match answer {
        Answer::Whole(..) => panic!("it is taken for whole: {answer:?}"),
        Answer::Broken(status, part) => assert!(status == 200 && "half".starts_with(&part)),
        Answer::None(err) => assert!(err.contains("Reset(StreamId(1), INTERNAL_ERROR"), "{err}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_under_way_breaks_off() {
    for by in BOTH {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for end in [End::Deadline, End::Shutdown] {
                let mut late = Late::start(by, end).await;
                let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new())
                    .http2_only(version == Version::HTTP_2)
                    .build_http();
                let uri = format!("http://{}/stream", late.address).parse().expect("a URI");
                let response = client.get(uri).await.expect("an answer");
                let mut body = response.into_body();
                let first = body.frame().await.expect("a frame").expect("it is under way");
                assert_eq!(first.into_data().expect("no trailers"), "half");
                late.end().await;
                let rest = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it ends");
                assert!(matches!(rest, Some(Err(_))), "{by:?}, {version:?}, {end:?}: {rest:?}");
            }
        }
    }
}

/// Byte for byte, and what becomes of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_as_good_after_a_late_answer_as_before() {
    for by in BOTH {
        for end in [End::Deadline, End::Shutdown] {
            let mut late = Late::start(by, end).await;
            let address = late.address;
            let asked = tokio::spawn(blocking(move || {
                let mut client = client(address);
                // Reused: a client that has no answer on such a connection asks once more.
                for path in ["/", "/own"] {
                    send(&mut client, path, "");
                    if path == "/" {
                        let (head, body) = answer(&mut client);
                        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body == "hello");
                    }
                }
                let (head, body) = answer(&mut client);
                (client, head, body)
            }));
            late.end().await;
            let (mut client, head, body) = asked.await.expect("no panic");
            assert!(head.starts_with("HTTP/1.1 418 "), "{by:?}, {end:?}: {head}");
            assert_eq!(body, late.handlers().1, "{by:?}, {end:?}");
            assert_eq!(late.count.load(Ordering::Relaxed), 1, "{by:?}, {end:?}");
            match (by, end) {
                (By::Ours, End::Shutdown) => {
                    assert_eq!(blocking(move || rest(&mut client)).await, "")
                }
                (By::Axum, End::Shutdown) => {
                    send(&mut client, "/", "connection: close\r\n");
                    let answer = blocking(move || rest(&mut client)).await;
                    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
                    assert!(answer.ends_with("\r\n\r\nthe server is shutting down\n"), "{answer}");
                }
                (_, End::Deadline) => {
                    send(&mut client, "/", "connection: close\r\n");
                    let answer = blocking(move || rest(&mut client)).await;
                    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"));
                }
            }
        }
    }
}

/// The example of the crate's README, three hundred times on one connection: its handler answers when its time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_example_never_has_an_empty_reply() {
    const TIMES: usize = 300;
    for by in BOTH {
        let (root, _stop) = Context::background().with_cancel();
        let mut shutdown = Shutdown::new(&root);
        let server = Server::new(Phases::new(&mut shutdown, SECOND));
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let report = async move |Ctx(ctx): Ctx| {
            counted.fetch_add(1, Ordering::Relaxed);
            let work = tokio::task::spawn_blocking(move || ctx.sleep_blocking(SECOND * 60));
            format!("{:?}", work.await)
        };
        let app = Router::new()
            .route("/report", get(report))
            .layer(ContextLayer::new(server.context()).limit(SECOND / 200));
        let address = by.serve(server, app).await;
        let answers = blocking(move || {
            let mut client = client(address);
            let report = |_| {
                send(&mut client, "/report", "");
                let (head, body) = answer(&mut client);
                (head.split(' ').nth(1).expect("a status").to_string(), body)
            };
            (0..TIMES).map(report).collect::<Vec<_>>()
        })
        .await;
        for (status, body) in answers {
            let is_handlers =
                status == "200" && body.starts_with("Ok(Err(Error { kind: DeadlineExceeded, ");
            let is_layers = status == "504" && body == "the request's time was up\n";
            assert!(is_handlers || is_layers, "{by:?}: {status} {body}");
        }
        // On the connection's first request the time may be up before its handler begins.
        assert!(count.load(Ordering::Relaxed) <= TIMES, "{by:?}: asked once more");
    }
}
