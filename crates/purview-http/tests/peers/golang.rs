//! Go's net/http, at either end.

use std::error::Error as _;
use std::pin::pin;

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
use super::service::{SECOND, Service, Stream, half};

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
        }
    });
}

#[test]
fn gos_client_whose_time_is_up_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            // On its own clock, of which nobody here knows. On a busy machine it may give up before we hear of it.
            let mut millis = 50;
            loop {
                client.tell(&format!("get late {}/work {millis}ms", service.url)).await;
                let mut end = pin!(client.heard());
                if service.begins(&mut end).await {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    assert_eq!(end.await, "late error deadline exceeded");
                    break;
                }
                millis *= 2;
            }
        }
    });
}

#[test]
fn gos_client_that_breaks_an_upload_off_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            for id in ["finish", "cancel"] {
                client.tell(&format!("post {id} {}/upload 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                assert_eq!(service.heard().await, "a part");
                client.tell(&format!("{id} {id}")).await;
                if id == "finish" {
                    assert_eq!(service.heard().await, "whole");
                    assert_eq!(service.heard().await, "Finished");
                    assert_eq!(client.heard().await, format!("finish status 200 {version}"));
                    assert_eq!(client.heard().await, "finish body done");
                    assert_eq!(client.heard().await, "finish whole");
                } else {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    // Of HTTP/1, Go's client gives no error before the body that it sends has come to its end.
                    client.tell("finish cancel").await;
                    assert_eq!(client.heard().await, "cancel error canceled");
                }
            }
        }
    });
}

#[test]
fn of_gos_requests_on_one_connection_only_that_which_it_cancels_ends() {
    let Some(go) = go() else { return };
    run(async {
        let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
        let mut client = Peer::start(go, &["ask", "h2"]);
        for id in ["1", "2"] {
            client.tell(&format!("get {id} {}/work 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun");
        }
        assert_eq!(service.connections(), 1);
        client.tell("cancel 1").await;
        assert_eq!(service.heard().await, "ClientGone");
        assert_eq!(client.heard().await, "1 error canceled");
        service.go_on();
        assert_eq!(service.heard().await, "Finished");
        assert_eq!(client.heard().await, "2 status 200 HTTP/2");
        assert_eq!(client.heard().await, "2 body done");
        assert_eq!(client.heard().await, "2 whole");
        assert_eq!(service.connections(), 1);
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
            let is_broken = match protocol {
                "h1" => end == "2 broken unexpected EOF",
                _ => end.starts_with("2 broken stream error"),
            };
            assert!(is_broken, "{end}");
        }
    });
}

#[test]
fn gos_client_is_answered_while_we_go_down_and_others_are_refused() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            client.tell(&format!("get 1 {}/work 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun");
            let report = service.drain().await;
            // What an HTTP/2 client sends before it has read that we go away is answered, too.
            loop {
                client.tell(&format!("get 2 {}/hello 0s", service.url)).await;
                let said = client.heard().await;
                if said != "2 status 200 HTTP/2" {
                    assert!(said.starts_with("2 error "), "{said}");
                    break;
                }
                assert_eq!(client.heard().await, "2 body hello");
                assert_eq!(client.heard().await, "2 whole");
            }
            service.go_on();
            assert_eq!(service.heard().await, "Finished");
            assert_eq!(client.heard().await, format!("1 status 200 {version}"));
            assert_eq!(client.heard().await, "1 body done");
            assert_eq!(client.heard().await, "1 whole");
            let report = report.await.expect("no panic");
            assert!(report.is_clean(), "{report}");
        }
    });
}

// ── Go answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

type Hyper<B> = Client<hyper_util::client::legacy::connect::HttpConnector, B>;

fn hyper<B>(protocol: &str) -> Hyper<B>
where
    B: http_body::Body<Data = Bytes> + Send,
{
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
fn go_does_not_take_half_an_upload_for_a_whole_one() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = Sending::new().layer(hyper::<Stream>(protocol));
            let (ctx, guard) = Context::background().with_cancel();
            let request = Request::post(format!("http://{address}/upload")).with_context(&ctx);
            let answer = tokio::spawn(client.oneshot(request.body(half()).expect("a request")));
            assert_eq!(server.heard().await, "begun /upload ");
            assert_eq!(server.heard().await, "a part");
            guard.cancel_with("user pressed stop");
            let err = answer.await.expect("no panic").expect_err("it has ended");
            assert!(err.ended().is_some_and(Error::is_canceled));
            let end = server.heard().await;
            assert!(end.starts_with("broken "), "{protocol} {end}");
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
