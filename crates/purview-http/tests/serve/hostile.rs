//! Clients that mean no good: what they send costs little, ends in time, and is answered clearly.

use axum::routing::post;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};

use super::*;

struct Service {
    clock: ManualClock,
    address: SocketAddr,
    /// That a handler has begun, and how its request ended.
    said: mpsc::UnboundedReceiver<String>,
    /// One for each piece of an endless body.
    pieces: mpsc::UnboundedReceiver<()>,
    // What ends when the test does.
    _stop: (CancelGuard, Shutdown),
}

/// A body without an end.
struct Endless(mpsc::UnboundedSender<()>);

const PIECE: usize = 64 << 10;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let _ = self.0.send(());
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; PIECE])))))
    }
}

async fn serve() -> Service {
    let clock = ManualClock::new();
    let (begin, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let server = Server::new(Phases::new(&mut shutdown, SECOND * 20));
    let (say, said) = mpsc::unbounded_channel();
    let (piece, pieces) = mpsc::unbounded_channel();
    let begun = move |ctx: Context| {
        let say = say.clone();
        tokio::spawn(async move {
            let _ = say.send("begun".to_string());
            let err = ctx.done().await;
            let _ = say.send(format!("{:?}", RequestEnded::of(&err)));
        });
    };
    let headers = [DeadlineHeader::relative(), DeadlineHeader::Grpc, DeadlineHeader::Envoy];
    let believed = |on_invalid| DeadlineHeaders::new(headers.clone()).on_invalid(on_invalid);
    let left = async |Ctx(ctx): Ctx| format!("{:?}", ctx.remaining());
    let layer = ContextLayer::new(server.context());
    let read = {
        let begun = begun.clone();
        async move |Ctx(ctx): Ctx, body: Body| {
            begun(ctx);
            let bytes = axum::body::to_bytes(body, 1 << 20).await;
            bytes.map_or_else(|err| err.to_string(), |bytes| bytes.len().to_string())
        }
    };
    let endless = async move |Ctx(ctx): Ctx| {
        begun(ctx);
        Response::new(Body::new(Endless(piece)))
    };
    let app = Router::new()
        .route("/ignoring", get(left))
        .layer(layer.clone().limit(SECOND * 7).believe(believed(OnInvalid::Ignore)))
        .merge(
            Router::new()
                .route("/refusing", get(left))
                .layer(layer.clone().believe(believed(OnInvalid::Refuse))),
        )
        .merge(Router::new().route("/read", post(read)).layer(layer.clone().limit(SECOND * 7)))
        .merge(Router::new().route("/endless", get(endless)).layer(layer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    Service { clock, address, said, pieces, _stop: (signal, shutdown) }
}

/// Sends all of it, and gives what is answered until the connection is closed.
async fn answered(address: SocketAddr, bytes: Vec<u8>) -> String {
    blocking(move || {
        let mut client = client(address);
        client.get_mut().write_all(&bytes).expect("it is not reset while it sends");
        client.get_mut().shutdown(std::net::Shutdown::Write).expect("it is not reset");
        rest(&mut client)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_a_megabyte_is_refused_with_a_clear_answer() {
    let service = serve().await;
    let much = "x".repeat(1 << 20);
    let many: String = (0..50_000).map(|i| format!("header-{i}: {i}\r\n")).collect();
    let heads = [
        (format!("GET /ignoring HTTP/1.1\r\nhost: test\r\nx: {much}\r\n\r\n"), "431"),
        (format!("GET /ignoring HTTP/1.1\r\nhost: test\r\n{much}: x\r\n\r\n"), "431"),
        (format!("GET /ignoring HTTP/1.1\r\nhost: test\r\n{many}\r\n"), "431"),
        (format!("GET /{much} HTTP/1.1\r\nhost: test\r\n\r\n"), "431"),
        (format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", &much[..100_000]), "414"),
        (format!("{much} / HTTP/1.1\r\nhost: test\r\n\r\n"), "431"),
        // More than the buffers of both systems take: who is reset while it sends may never see the answer.
        (much.repeat(32), "431"),
    ];
    for (i, (head, status)) in heads.into_iter().enumerate() {
        let answer = answered(service.address, head.into_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{i}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_contradict_themselves_are_refused() {
    let service = serve().await;
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length: \u{665}\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "x y: z\r\n",
        "x: \0\r\n",
    ] {
        let head = format!("POST /read HTTP/1.1\r\nhost: test\r\n{headers}\r\nhello");
        let answer = answered(service.address, head.clone().into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
    // Of both, the first that is a length of a body counts: the rest is no request. (RFC 9112, 6.3)
    let head = "POST /read HTTP/1.1\r\nhost: test\r\ncontent-length: 30\r\n\
        transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /ignoring HTTP/1.1\r\nhost: test\r\n\r\n";
    let answer = answered(service.address, head.into()).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

/// What is no time, or is none that can be meant.
fn nonsense() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for value in [
        "x-request-timeout: -1",
        "x-request-timeout: NaN",
        "x-request-timeout: inf",
        "x-request-timeout: 1e30",
        "x-request-timeout: \u{665}",
        "x-request-timeout: ",
        "x-request-timeout: 1 2",
        "grpc-timeout: 1",
        "grpc-timeout: 123456789S",
        "grpc-timeout: -1S",
        "x-envoy-expected-rq-timeout-ms: 1.5",
        "x-envoy-expected-rq-timeout-ms: 0x10",
    ] {
        all.push(value.into());
    }
    all.push(format!("x-request-timeout: {}", "9".repeat(100_000)).into_bytes());
    all.push(b"x-request-timeout: \xff\xfe".to_vec());
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_that_make_no_sense_are_ignored_or_refused_as_the_policy_says() {
    let service = serve().await;
    let mut texts = nonsense();
    let large: Vec<u8> = format!("x-request-timeout: 1{}", "0".repeat(30)).into();
    texts.push(large.clone());
    let doubled = b"x-request-timeout: 1\r\nx-request-timeout: 2x".to_vec();
    texts.push(doubled.clone());
    for text in texts {
        for (path, status) in [("ignoring", "200"), ("refusing", "400")] {
            let mut head = format!("GET /{path} HTTP/1.1\r\nhost: test\r\n").into_bytes();
            head.extend(&text);
            head.extend(b"\r\nconnection: close\r\n\r\n");
            let answer = answered(service.address, head).await;
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
            // A time that is too long to be counted is a time, and no nonsense.
            let status = if text == large { "200" } else { status };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
            if status == "200" && path == "ignoring" {
                let left = if text == doubled { "Some(1s)" } else { "Some(7s)" };
                assert!(answer.ends_with(left), "{shown}: {answer}");
            }
            assert!(
                answer.len() < 400,
                "{shown}: it does not send back what it was sent: {answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_by_drops_is_not_waited_for() {
    let service = serve().await;
    let address = service.address;
    let mut slow = blocking(move || {
        let mut slow = client(address);
        for part in ["GET /ignoring HT", "TP/1.1\r\n"] {
            slow.get_mut().write_all(part.as_bytes()).expect("it reads");
        }
        slow
    })
    .await;
    let closed = tokio::spawn(blocking(move || rest(&mut slow)));
    while !closed.is_finished() {
        service.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    assert!(!closed.await.expect("no panic").contains("200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_by_drops_has_the_time_of_its_request() {
    let mut service = serve().await;
    let address = service.address;
    let head = "POST /read HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n";
    let mut slow = blocking(move || {
        let mut slow = client(address);
        slow.get_mut().write_all(head.as_bytes()).expect("it reads");
        slow
    })
    .await;
    assert_eq!(service.said.recv().await.as_deref(), Some("begun"));
    for _ in 0..7 {
        slow.get_mut().write_all(b"x").expect("it reads");
        service.clock.advance(SECOND);
    }
    assert_eq!(service.said.recv().await.as_deref(), Some("Some(TimedOut)"));
    let answer = blocking(move || rest(&mut slow)).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_is_not_waited_for() {
    let mut service = serve().await;
    let address = service.address;
    let _deaf = blocking(move || {
        let mut deaf = client(address);
        send(&mut deaf, "/endless", "");
        deaf
    })
    .await;
    assert_eq!(service.said.recv().await.as_deref(), Some("begun"));
    // Whenever the system's buffers are full: a minute later it is over.
    while service.said.try_recv().is_err() {
        service.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_is_served() {
    let mut service = serve().await;
    let address = service.address;
    let mut slow = blocking(move || {
        let mut slow = client(address);
        send(&mut slow, "/endless", "");
        head(&mut slow);
        slow
    })
    .await;
    assert_eq!(service.said.recv().await.as_deref(), Some("begun"));
    for _ in 0..10 {
        slow = blocking(move || {
            slow.read_exact(&mut vec![0; 16 * PIECE]).expect("it is sent more");
            slow
        })
        .await;
        // So much was read that there is room for more, and more has come.
        while service.pieces.try_recv().is_ok() {}
        slow = blocking(move || {
            slow.read_exact(&mut vec![0; 256 * PIECE]).expect("it is sent more");
            slow
        })
        .await;
        assert!(service.pieces.recv().await.is_some());
        service.clock.advance(SECOND * 59);
    }
    assert!(service.said.try_recv().is_err(), "it goes on");
    drop(slow);
    assert_eq!(service.said.recv().await.as_deref(), Some("Some(ClientGone)"));
}
