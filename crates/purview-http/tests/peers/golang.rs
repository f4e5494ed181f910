//! Go's net/http, at either end.

use std::error::Error as _;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use purview::time::ManualClock;
use purview::{Context, Error};
use purview_http::client::{ContextLayer as Sending, ErrorKind, WithContext};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use tower::{Layer, ServiceExt};

use super::peer::{Peer, go, run};
use super::service::{SECOND, Service};

const PROTOCOLS: [(&str, &str); 2] = [("h1", "HTTP/1"), ("h2", "HTTP/2")];

fn relative() -> DeadlineHeaders {
    DeadlineHeaders::new([DeadlineHeader::relative()])
}

// ── Go asks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn gos_client_that_gives_up_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            for path in ["work", "stream"] {
                client.tell(&format!("get {path} {}/{path} 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                if path == "stream" {
                    assert!(client.heard().await.starts_with("stream status 200"));
                    assert_eq!(client.heard().await, "stream body half");
                }
                client.tell(&format!("cancel {path}")).await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
                assert!(client.heard().await.ends_with("canceled"));
            }
            // Its own clock; here nobody knows of it.
            client.tell(&format!("get late {}/work 50ms", service.url)).await;
            assert_eq!(service.heard().await, "begun");
            assert_eq!(service.heard().await, "ClientGone", "{protocol}");
            assert_eq!(client.heard().await, "late error deadline exceeded");
        }
    });
}

#[test]
fn gos_client_that_dies_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            for path in ["work", "stream"] {
                let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
                let mut client = Peer::start(go, &["ask", protocol]);
                client.tell(&format!("get 1 {}/{path} 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                client.kill().await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
            }
        }
    });
}

#[test]
fn gos_client_gets_the_504_and_does_not_take_half_a_stream_for_a_whole_one() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let clock = ManualClock::new();
            let mut service =
                Service::start(&clock, |layer| layer.limit(SECOND * 9).believe(relative())).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            let url = &service.url;
            client.tell(&format!("get 1 {url}/work 0s x-request-timeout 2.5")).await;
            assert_eq!(service.heard().await, "begun 2.5s");
            clock.advance(SECOND * 5 / 2);
            assert_eq!(service.heard().await, "TimedOut");
            assert_eq!(client.heard().await, format!("1 status 504 {version}"));
            assert_eq!(client.heard().await, "1 body the request's time was up");
            assert_eq!(client.heard().await, "1 whole");

            client.tell(&format!("get 2 {}/stream 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun 9s");
            assert_eq!(client.heard().await, format!("2 status 200 {version}"));
            assert_eq!(client.heard().await, "2 body half");
            clock.advance(SECOND * 9);
            assert_eq!(service.heard().await, "TimedOut");
            let end = client.heard().await;
            assert!(end.starts_with("2 broken "), "{end}");
        }
    });
}

#[test]
fn gos_client_is_answered_while_we_go_down_and_then_refused() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            client.tell(&format!("get 1 {}/work 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun");
            service.signal.cancel_with("SIGTERM");
            service.go_on();
            assert_eq!(service.heard().await, "Finished");
            let report = service.shutdown.run().await;
            assert!(report.is_clean(), "{report}");
            assert_eq!(client.heard().await, format!("1 status 200 {version}"));
            assert_eq!(client.heard().await, "1 body done");
            assert_eq!(client.heard().await, "1 whole");
            client.tell(&format!("get 2 {}/hello 0s", service.url)).await;
            let refused = client.heard().await;
            assert!(refused.starts_with("2 error "), "{refused}");
        }
    });
}

// ── Go answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Hyper = Client<hyper_util::client::legacy::connect::HttpConnector, Empty<Bytes>>;

fn hyper(protocol: &str) -> Hyper {
    Client::builder(TokioExecutor::new()).http2_only(protocol == "h2").build_http()
}

fn get(address: &str, path: &str, ctx: &Context) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{address}{path}")).with_context(ctx);
    request.body(Empty::new()).expect("a request")
}

#[test]
fn gos_server_is_told_how_much_time_is_left_and_keeps_to_it() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = Sending::new().deadlines(relative()).reserve(SECOND * 2);
            let client = client.layer(hyper(protocol));
            // Of our clock no time passes; of Go's, the tenth of a second that it was given.
            let (ctx, _guard) = ManualClock::new().root().with_timeout(SECOND * 21 / 10);
            let response = client.clone().oneshot(get(&address, "/obey", &ctx)).await;
            assert_eq!(response.expect("an answer").status(), 504);
            assert_eq!(server.heard().await, "begun /obey 0.100");
            let ended = server.heard().await;
            assert!(ended.starts_with("ended context deadline exceeded"), "{ended}");
            // Of which nothing is left is not sent.
            let (ctx, _guard) = ManualClock::new().root().with_timeout(SECOND * 2);
            let refused = client.oneshot(get(&address, "/obey", &ctx)).await;
            assert_eq!(refused.expect_err("no time").kind(), ErrorKind::NoTime);
            assert_eq!(server.rest().await, "");
        }
    });
}

#[test]
fn a_request_that_ends_here_ends_gos_and_the_error_says_why() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = Sending::new().layer(hyper(protocol));
            let (ctx, guard) = Context::background().with_cancel();
            let answer = tokio::spawn(client.clone().oneshot(get(&address, "/wait", &ctx)));
            assert_eq!(server.heard().await, "begun /wait ");
            guard.cancel_with("user pressed stop");
            let err = answer.await.expect("no panic").expect_err("it has ended");
            // Go's client gives the cause in place of the error: it is canceled no more. Here it is both.
            let ended = Error::find(&err).expect("its end is in the chain");
            assert!(ended.is_canceled());
            assert_eq!(ended.cause().expect("one").to_string(), "user pressed stop");
            assert!(err.source().is_some());
            // A Go server is not told why; and has no other word for it.
            assert_eq!(server.heard().await, "ended context canceled, because: context canceled");

            let (ctx, guard) = Context::background().with_cancel();
            let response = client.oneshot(get(&address, "/stream", &ctx)).await;
            let mut body = response.expect("an answer").into_body();
            let half = body.frame().await.expect("half").expect("of it").into_data();
            assert_eq!(half.ok().as_deref(), Some(&b"half"[..]));
            assert_eq!(server.heard().await, "begun /stream ");
            guard.cancel_with("user pressed stop");
            let err = body.frame().await.expect("an end").expect_err("no good one");
            assert!(Error::find(&*err).is_some_and(Error::is_canceled));
            assert_eq!(server.heard().await, "ended context canceled, because: context canceled");
        }
    });
}

#[test]
fn an_answer_from_go_that_was_read_to_its_end_is_whole() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let (ctx, guard) = Context::background().with_cancel();
            let client = Sending::new().layer(hyper(protocol));
            let response = client.oneshot(get(&address, "/hello", &ctx)).await.expect("an answer");
            let body = response.into_body().collect().await.expect("all of it").to_bytes();
            guard.cancel();
            assert_eq!(body, "hello");
            assert_eq!(server.heard().await, "begun /hello ");
        }
    });
}
