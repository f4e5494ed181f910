//! reqwest under contexts, on real connections to servers on the loopback. Where time counts, it is a manual clock's.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Received;
use axum::http::StatusCode;
use bytes::Bytes;
use purview::time::ManualClock;
use purview::{Context, Error};
use purview_http::client::{
    ContextLayer, ErrorKind, HedgeLayer, RetryBudget, RetryLayer, WithContext,
};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_reqwest::{ClientService, RequestBuilderExt};
use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a test that hangs for no longer than a minute.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all() // reqwest's own timeouts are tokio's
        .build()
        .expect("a runtime on this thread");
    let (watchdog, _guard) = Context::background().with_timeout(SECOND * 60);
    runtime.block_on(watchdog.run(test)).expect("it hangs");
}

fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    (listener, url)
}

async fn serve(app: Router) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// A connection whose request has come.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _peer) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.expect("a request"), 0, "half a request");
    }
    stream
}

/// Until the other side has hung up.
async fn gone(mut stream: TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

#[test]
fn a_request_is_sent_as_it_was_made_and_its_answer_is_whole() {
    run(async {
        let echo = Router::new().fallback(async |request: Received| {
            assert!(!request.headers().contains_key("x-request-timeout"), "nobody asked for it");
            let head = format!("{} {} ", request.method(), request.uri());
            let mark = request.headers()["x-mark"].to_str().expect("text").to_owned();
            let body = axum::body::to_bytes(request.into_body(), 100).await.expect("a body");
            (StatusCode::CREATED, head + &mark + " " + std::str::from_utf8(&body).expect("text"))
        });
        let url = serve(echo).await + "a?b=c";
        let (ctx, _guard) = Context::background().with_timeout(SECOND * 60);
        let request = client().put(&url).header("x-mark", "marked").body("payload");
        let response = request.send_with(&ctx).await.expect("an answer");
        assert_eq!((response.status(), response.url().as_str()), (StatusCode::CREATED, &*url));
        assert!(response.remote_addr().is_some() && response.content_length().is_some());
        assert_eq!(response.text().await.expect("text"), "PUT /a?b=c marked payload");
    });
}

#[test]
fn the_time_that_is_left_is_sent_and_shrinks() {
    run(async {
        let echo = Router::new().fallback(async |request: Received| {
            request.headers()["x-request-timeout"].to_str().expect("text").to_owned()
        });
        let url = serve(echo).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND * 10);
        let headers = DeadlineHeaders::new([DeadlineHeader::relative()]);
        let layer = ContextLayer::new().deadlines(headers).reserve(SECOND);
        let client = client();
        for left in ["9", "7.500", "6"] {
            let response = client.get(&url).send_through(&layer, &ctx).await.expect("an answer");
            assert_eq!(response.text().await.expect("text"), left);
            clock.advance(SECOND * 3 / 2);
        }
        clock.advance(SECOND * 9 / 2);
        let err = client.get(&url).send_through(&layer, &ctx).await.expect_err("too late");
        assert_eq!(err.kind(), ErrorKind::NoTime);
    });
}

#[test]
fn who_has_ended_makes_no_connection() {
    run(async {
        let (listener, url) = listen().await;
        let (ctx, guard) = Context::background().with_cancel();
        guard.cancel_with("no longer needed");
        let err = client().get(&url).send_with(&ctx).await.expect_err("it has ended");
        assert_eq!(err.kind(), ErrorKind::Ended);
        assert!(Error::find(&err).is_some_and(Error::is_canceled));
        let nobody = listener.into_std().expect("a listener").accept().expect_err("nobody came");
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn what_reqwest_says_is_the_source() {
    run(async {
        let (listener, url) = listen().await;
        drop(listener);
        let ctx = Context::background();
        for (url, is_connect) in [(&*url, true), ("no url", false)] {
            let err = client().get(url).send_with(&ctx).await.expect_err("nobody is there");
            assert_eq!(err.kind(), ErrorKind::Service);
            assert!(Error::find(&err).is_none());
            let said = err.into_service().expect("reqwest's").downcast::<reqwest::Error>();
            let said = said.expect("reqwest's");
            assert_eq!((said.is_connect(), said.is_builder()), (is_connect, !is_connect));
        }
    });
}

#[test]
fn the_clients_own_timeout_still_counts() {
    run(async {
        let (_listener, url) = listen().await;
        let (ctx, _guard) = Context::background().with_cancel();
        let request = client().get(&url).timeout(Duration::from_millis(1));
        let err = request.send_with(&ctx).await.expect_err("nobody answers");
        let said = err.into_service().expect("reqwest's").downcast::<reqwest::Error>();
        assert!(said.is_ok_and(|said| said.is_timeout()));
    });
}

#[test]
fn waiting_for_an_answer_ends_with_the_deadline_and_the_server_notices() {
    run(async {
        let (listener, url) = listen().await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let mut answer = pin!(client().get(&url).send_with(&ctx));
        let stream = tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            stream = accept(&listener) => stream,
        };
        clock.advance(SECOND);
        let err = answer.await.expect_err("it ends");
        assert!(Error::find(&err).is_some_and(Error::is_deadline_exceeded));
        gone(stream).await;
    });
}

#[test]
fn where_a_redirect_leads_ends_with_the_context_too() {
    run(async {
        let (listener, url) = listen().await;
        let (ctx, guard) = Context::background().with_cancel();
        let mut answer = pin!(client().get(&url).send_with(&ctx));
        let stream = tokio::select! {
            _ = &mut answer => panic!("nobody answers"),
            stream = async {
                let mut first = accept(&listener).await;
                let head = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /there\r\n\
                    content-length: 0\r\nconnection: close\r\n\r\n";
                first.write_all(head).await.expect("it listens");
                drop(first);
                accept(&listener).await
            } => stream,
        };
        guard.cancel_with("no longer needed");
        let err = answer.await.expect_err("it ends");
        assert!(Error::find(&err).is_some_and(Error::is_canceled));
        gone(stream).await;
    });
}

/// An answer of which there is a half, the context that ends it, and the server's side.
async fn half_an_answer() -> (Response, purview::CancelGuard, TcpStream) {
    let (listener, url) = listen().await;
    let (ctx, guard) = Context::background().with_cancel();
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let (response, stream) = tokio::join!(client().get(&url).send_with(&ctx), async {
        let mut stream = accept(&listener).await;
        stream.write_all(head).await.expect("it listens");
        stream
    });
    (response.expect("it has begun"), guard, stream)
}

#[test]
fn reading_ends_with_the_context_in_each_of_the_ways_to_read() {
    run(async {
        let (mut response, guard, stream) = half_an_answer().await;
        assert_eq!(response.chunk().await.expect("a part").expect("of it"), "half");
        let (chunk, ()) = tokio::join!(response.chunk(), async { guard.cancel_with("enough") });
        let chunk = chunk.expect_err("it ends");
        drop(response);
        gone(stream).await;

        let (response, guard, stream) = half_an_answer().await;
        let (text, ()) = tokio::join!(response.text(), async { guard.cancel_with("enough") });
        gone(stream).await;

        let (response, guard, stream) = half_an_answer().await;
        let (bytes, ()) = tokio::join!(response.bytes(), async { guard.cancel_with("enough") });
        gone(stream).await;

        for err in [chunk, text.expect_err("it ends"), bytes.expect_err("it ends")] {
            let why = Error::find(&err).expect("it is the reason");
            assert_eq!(why.to_string(), "context canceled: enough");
        }
    });
}

#[test]
fn the_layers_that_send_again_fit_around_a_client() {
    run(async {
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        let app = Router::new().fallback(move |body: Bytes| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert_eq!(body, "payload");
                match number {
                    0 => StatusCode::SERVICE_UNAVAILABLE,
                    1 => pending().await,
                    _ => StatusCode::OK,
                }
            }
        });
        let url = serve(app).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_cancel();
        let budget = RetryBudget::default();
        let retries = RetryLayer::new().backoff(Duration::ZERO, Duration::ZERO);
        let client = ServiceBuilder::new()
            .layer(retries.budget(budget.clone()))
            .layer(HedgeLayer::new(SECOND).budget(budget))
            .layer(ContextLayer::new())
            .service(ClientService::new(client()));
        let request = http::Request::put(&url).with_context(&ctx).body(Bytes::from("payload"));
        let mut answer = pin!(client.oneshot(request.expect("a request")));
        // Time passes when the second attempt has come; the third is the hedge.
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                () = tokio::task::yield_now() => {
                    if hits.load(Ordering::SeqCst) == 2 {
                        clock.advance(SECOND);
                    }
                }
            }
        };
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        assert_eq!(hits.load(Ordering::SeqCst), 3);
    });
}
