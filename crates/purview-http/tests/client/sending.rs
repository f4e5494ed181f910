//! A request says how much time is left, and ends with its context, wherever it is.

use std::error::Error as _;
use std::future::{Future, pending, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Received;
use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use purview::leak::Check;
use purview::time::ManualClock;
use purview::{Context, Error};
use purview_http::client::{ContextLayer, ErrorKind};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::{BoxError, RequestEnded, RequestExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Plan, Planned, SECOND, accept, get, gone, hyper, listen, run, serve, text};

fn relative() -> DeadlineHeaders {
    DeadlineHeaders::new([DeadlineHeader::relative()])
}

#[test]
fn the_time_on_the_wire_shrinks_with_what_is_left() {
    run(async {
        let (server, _told) = Planned::new([]);
        let url = serve(server.router()).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND * 10);
        let layer = ContextLayer::new().deadlines(relative()).reserve(SECOND / 2);
        let client = layer.layer(hyper());
        for _ in 0..3 {
            text(client.clone().oneshot(get(&url, &ctx)).await.expect("an answer")).await;
            clock.advance(SECOND * 3 / 2);
        }
        let seconds: Vec<_> = server.hits().iter().map(|hit| hit.seconds).collect();
        assert_eq!(seconds, [Some(9.5), Some(8.0), Some(6.5)]);
    });
}

#[test]
fn each_service_behind_another_is_given_no_more_than_that_one_has() {
    run(async {
        let (last, _told) = Planned::new([]);
        let last_url = serve(last.router()).await;
        let client = ContextLayer::new().deadlines(relative()).layer(hyper());
        let behind = client.clone();
        let between = Router::new().fallback(move |request: Received| {
            let (client, url) = (behind.clone(), last_url.clone());
            async move {
                let ctx = request.context().expect("the layer gives it one");
                text(client.oneshot(get(&url, ctx)).await.expect("an answer")).await;
                request.headers()["x-request-timeout"].to_str().expect("a number").to_owned()
            }
        });
        let (root, _stop) = Context::background().with_cancel();
        let layer = purview_http::ContextLayer::new(&root).believe(relative());
        let url = serve(between.layer(layer)).await;

        let (ctx, _guard) = Context::background().with_timeout(SECOND * 60);
        let left = ctx.remaining().expect("it has a deadline").as_secs_f64();
        let answer = text(client.oneshot(get(&url, &ctx)).await.expect("an answer")).await;
        let first: f64 = answer.parse().expect("a number");
        let second = last.hits()[0].seconds.expect("it is told");
        assert!(left >= first && first >= second && second > 0.0, "{left}, {first}, {second}");
    });
}

#[test]
fn who_has_no_time_left_makes_no_connection() {
    run(async {
        let (listener, url) = listen().await;
        let client = ContextLayer::new().reserve(SECOND).layer(hyper());
        let clock = ManualClock::new();
        let (late, _guard) = clock.root().with_timeout(SECOND);
        let (ended, _guard) = clock.root().with_timeout(Duration::ZERO);
        for (ctx, kind) in [(late, ErrorKind::NoTime), (ended, ErrorKind::Ended)] {
            let err = client.clone().oneshot(get(&url, &ctx)).await.expect_err("too late");
            assert_eq!(err.kind(), kind);
        }
        // On the loopback a connection is there as soon as it was asked for.
        let listener = listener.into_std().expect("a listener");
        let nobody = listener.accept().expect_err("nobody came");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn an_error_tells_a_time_that_is_up_from_a_cancel() {
    run(async {
        let (_listener, url) = listen().await;
        let client = ContextLayer::new().layer(hyper());
        let (late, _guard) = Context::background().with_timeout(Duration::ZERO);
        let (canceled, guard) = Context::background().with_cancel();
        guard.cancel();
        for (ctx, is_canceled) in [(late, false), (canceled, true)] {
            let err = client.clone().oneshot(get(&url, &ctx)).await.expect_err("it has ended");
            let ended = Error::find(&err).expect("it is the reason");
            assert_eq!(ended.is_canceled(), is_canceled);
            assert_eq!(ended.is_deadline_exceeded(), !is_canceled);
        }
    });
}

#[test]
fn connecting_ends_with_the_context() {
    run(async {
        let (connecting, held) = (Arc::new(Notify::new()), Arc::new(()));
        let (says, its) = (Arc::clone(&connecting), Arc::clone(&held));
        let connector = service_fn(move |_: Uri| {
            let its = Arc::clone(&its);
            says.notify_one();
            Box::pin(async move {
                let _its = its;
                pending::<io::Result<TokioIo<TcpStream>>>().await
            })
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let (ctx, guard) = Context::background().with_cancel();
        let url = "http://localhost/";
        let mut answer = pin!(ContextLayer::new().layer(client).oneshot(get(url, &ctx)));
        tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            () = connecting.notified() => guard.cancel_with("no longer needed"),
        }
        let err = answer.await.expect_err("it ends");
        assert_eq!(err.kind(), ErrorKind::Ended);
        let why = Error::find(&err).expect("it is the reason");
        assert_eq!(why.to_string(), "context canceled: no longer needed");
        assert_eq!(Arc::strong_count(&held), 1, "what was connecting is gone");
    });
}

#[test]
fn what_fails_to_connect_says_so_and_an_end_in_there_is_found() {
    run(async {
        let (listener, url) = listen().await;
        drop(listener);
        let ctx = Context::background();
        let client = ContextLayer::new().layer(hyper());
        let err = client.oneshot(get(&url, &ctx)).await.expect_err("nobody listens");
        assert_eq!(err.kind(), ErrorKind::Service);
        assert!(Error::find(&err).is_none());
        let mut link: Option<&(dyn std::error::Error + 'static)> = err.source();
        let refused = std::iter::from_fn(|| {
            let this = link?;
            link = this.source();
            Some(this)
        })
        .filter_map(|err| err.downcast_ref::<io::Error>())
        .any(|err| err.kind() == io::ErrorKind::ConnectionRefused);
        assert!(refused, "{err:?}");

        // A connector with a context of its own.
        let connector = service_fn(|_: Uri| {
            Box::pin(async {
                let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
                ctx.run(pending::<TokioIo<TcpStream>>()).await
            })
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let client = ContextLayer::new().layer(client);
        let err = client.oneshot(get(&url, &ctx)).await.expect_err("it ends");
        assert_eq!((err.kind(), err.ended().is_none()), (ErrorKind::Service, true));
        assert!(Error::find(&err).is_some_and(Error::is_deadline_exceeded));

        // And a service whose error is that of a context.
        let (ended, guard) = ctx.with_cancel();
        guard.cancel();
        let service = service_fn(|_: Request<Full<Bytes>>| {
            let err = ended.err().expect("it has ended");
            ready(Err::<Response<Full<Bytes>>, _>(err))
        });
        let err = ContextLayer::new().layer(service).oneshot(get(&url, &ctx)).await;
        assert!(Error::find(&err.expect_err("it ends")).is_some_and(Error::is_canceled));
    });
}

#[test]
fn waiting_for_an_answer_ends_with_the_deadline_and_the_server_notices() {
    run(async {
        let (listener, url) = listen().await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let mut answer = pin!(ContextLayer::new().layer(hyper()).oneshot(get(&url, &ctx)));
        let stream = tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            stream = accept(&listener) => stream,
        };
        clock.advance(SECOND);
        let err = answer.await.expect_err("it ends");
        assert_eq!(err.kind(), ErrorKind::Ended);
        assert!(Error::find(&err).is_some_and(Error::is_deadline_exceeded));
        gone(stream).await;
    });
}

#[test]
fn reading_an_answer_that_stalls_ends_with_the_deadline_and_the_server_notices() {
    run(async {
        let (listener, url) = listen().await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        let (answer, stream) =
            tokio::join!(ContextLayer::new().layer(hyper()).oneshot(get(&url, &ctx)), async {
                let mut stream = accept(&listener).await;
                stream.write_all(head).await.expect("it listens");
                stream
            });
        let mut body = answer.expect("it has begun").into_body();
        let first = body.frame().await.expect("a part").expect("of it").into_data();
        assert_eq!(first.expect("data"), "half");
        let (end, ()) = tokio::join!(body.frame(), async { clock.advance(SECOND) });
        let err = end.expect("no end of the answer").expect_err("it ends");
        assert!(Error::find(&*err).is_some_and(Error::is_deadline_exceeded));
        assert!(body.frame().await.is_none() && body.is_end_stream());
        gone(stream).await;
    });
}

#[test]
fn reading_an_answer_that_never_stops_ends_with_the_context_and_the_server_notices() {
    run(async {
        let (listener, url) = listen().await;
        let (ctx, guard) = Context::background().with_cancel();
        let server = tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let answer = ContextLayer::new().layer(hyper()).oneshot(get(&url, &ctx)).await;
        let mut body = answer.expect("it has begun").into_body();
        for _ in 0..10 {
            body.frame().await.expect("there is more").expect("nothing is wrong");
        }
        guard.cancel_with("enough");
        let err = body.frame().await.expect("there is more").expect_err("it ends");
        assert_eq!(err.to_string(), "context canceled: enough");
        server.await.expect("its client has hung up");
    });
}

#[test]
fn a_server_with_contexts_hears_that_its_client_went() {
    run(async {
        let (server, mut told) = Planned::new([Plan::Never]);
        let (root, _stop) = Context::background().with_cancel();
        let layer = purview_http::ContextLayer::new(&root).believe(relative());
        let url = serve(server.router().layer(layer)).await;
        let (ctx, guard) = Context::background().with_cancel();
        let mut answer = pin!(ContextLayer::new().layer(hyper()).oneshot(get(&url, &ctx)));
        tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            _ = told.recv() => guard.cancel(),
        }
        assert!(answer.await.is_err());
        let served = server.hits()[0].ctx.clone().expect("the layer gives it one");
        assert_eq!(RequestEnded::of(&served.done().await), Some(RequestEnded::ClientGone));
    });
}

#[test]
fn of_the_requests_on_a_connection_of_http_2_only_that_of_the_context_ends() {
    run(async {
        let (server, mut told) = Planned::new([Plan::Never]);
        let (root, _stop) = Context::background().with_cancel();
        let url = serve(server.router().layer(purview_http::ContextLayer::new(&root))).await;
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let count = move |url: Uri| {
            counted.fetch_add(1, Ordering::Relaxed);
            url
        };
        let connector = ServiceBuilder::new().map_request(count).service(HttpConnector::new());
        let http2 = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        let client = ContextLayer::new().layer(http2);
        let (ctx, guard) = Context::background().with_cancel();
        let mut answer = pin!(client.clone().oneshot(get(&url, &ctx)));
        tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            _ = told.recv() => {}
        }
        // While the first one waits, and after it has ended.
        let other = Context::background();
        for number in ["2", "3"] {
            let response = client.clone().oneshot(get(&url, &other)).await.expect("an answer");
            assert_eq!(response.version(), Version::HTTP_2);
            assert_eq!(text(response).await, number);
            guard.cancel();
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        assert!(answer.await.is_err_and(|err| err.ended().is_some()));
        let served = server.hits()[0].ctx.clone().expect("the layer gives it one");
        assert_eq!(RequestEnded::of(&served.done().await), Some(RequestEnded::ClientGone));
    });
}

/// A body that never has to wait.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
    }
}

#[test]
fn a_body_that_never_waits_ends_all_the_same_and_what_was_read_to_the_end_is_whole() {
    run(async {
        let (ctx, guard) = Context::background().with_cancel();
        let polls = Arc::new(AtomicUsize::new(0));
        let its = Arc::clone(&polls);
        let endless = service_fn(move |_: Request<Full<Bytes>>| {
            ready(Ok::<_, BoxError>(Response::new(Endless(Arc::clone(&its)))))
        });
        let whole = service_fn(|_: Request<Full<Bytes>>| {
            ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("all"))))
        });
        let mut answer = ContextLayer::new().layer(endless).oneshot(get("/", &ctx)).await.unwrap();
        let mut all = ContextLayer::new().layer(whole).oneshot(get("/", &ctx)).await.unwrap();
        assert!(answer.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(all.frame().await.is_some_and(|frame| frame.is_ok()));
        guard.cancel();
        let err = answer.frame().await.expect("there is more").expect_err("it ends");
        assert!(Error::find(&*err).is_some_and(Error::is_canceled));
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        assert!(all.frame().await.is_none());
    });
}

#[test]
fn a_connection_that_is_kept_keeps_no_context() {
    run(async {
        let (server, _told) = Planned::new([]);
        let url = serve(server.router()).await;
        let client = ContextLayer::new().layer(hyper());
        let check = Check::new();
        for _ in 0..10 {
            let (ctx, _guard) = Context::background().with_timeout(SECOND * 60);
            text(client.clone().oneshot(get(&url, &ctx)).await.expect("an answer")).await;
        }
        check.wait(SECOND * 30).await.expect("nothing is left");
        assert_eq!(server.hits().len(), 10);
    });
}

#[test]
fn the_futures_and_bodies_go_wherever_the_services_do() {
    fn goes<T: Send + Sync>(_: &T) {}
    let mut client = ContextLayer::new().layer(service_fn(|_: Request<Full<Bytes>>| {
        ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("all"))))
    }));
    let answer = client.call(get("/", &Context::background()));
    goes(&client);
    goes(&answer);
    fn output<F: Future<Output = Result<T, E>>, T: Send + Sync, E: Send + Sync>(_: F) {}
    output(answer);
}
