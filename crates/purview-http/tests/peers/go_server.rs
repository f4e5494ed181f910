//! Go's server answers us.

use std::error::Error as _;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use purview::time::ManualClock;
use purview::{Context, Error};
use purview_http::client::{ContextLayer, ErrorKind, WithContext};
use tower::{Layer, ServiceExt};

use super::peer::{Peer, go, run};
use super::service::{SECOND, Stream, half, hyper, relative};

const PROTOCOLS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

fn get(address: &str, path: &str, ctx: &Context) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{address}{path}")).with_context(ctx);
    request.body(Empty::new()).expect("a request")
}

#[test]
fn gos_server_is_told_how_much_time_is_left_and_keeps_to_it() {
    let Some(go) = go() else { return };
    run(async {
        for protocol in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = ContextLayer::new().deadlines(relative()).reserve(SECOND * 2);
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
        for protocol in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = ContextLayer::new().layer(hyper(protocol));
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
        for protocol in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let client = ContextLayer::new().layer(hyper::<Stream>(protocol));
            let (ctx, guard) = Context::background().with_cancel();
            let request = Request::post(format!("http://{address}/upload")).with_context(&ctx);
            let answer = tokio::spawn(client.oneshot(request.body(half()).expect("a request")));
            assert_eq!(server.heard().await, "begun /upload ");
            assert_eq!(server.heard().await, "a part");
            guard.cancel_with("user pressed stop");
            let err = answer.await.expect("no panic").expect_err("it has ended");
            assert!(err.ended().is_some_and(Error::is_canceled));
            let end = server.heard().await;
            assert!(end.starts_with("broken "), "{protocol:?} {end}");
        }
    });
}

#[test]
fn an_answer_from_go_that_was_read_to_its_end_is_whole() {
    let Some(go) = go() else { return };
    run(async {
        for protocol in PROTOCOLS {
            let mut server = Peer::start(go, &["serve"]);
            let address = server.heard().await;
            let (ctx, guard) = Context::background().with_cancel();
            let client = ContextLayer::new().layer(hyper(protocol));
            let response = client.oneshot(get(&address, "/hello", &ctx)).await.expect("an answer");
            let body = response.into_body().collect().await.expect("all of it").to_bytes();
            guard.cancel();
            assert_eq!(body, "hello");
            assert_eq!(server.heard().await, "begun /hello ");
        }
    });
}
