//! Values that travel: baggage and traces.

use std::future::{pending, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use purview::time::ManualClock;
use purview::{Context, Key};
use purview_http::propagation::{
    BAGGAGE, Baggage, Propagation, REQUEST_ID, TRACE_CONTEXT, TraceContext,
};
use purview_http::{BoxError, ContextLayer};
use tower::{Layer, Service, service_fn};

use crate::support::{now, read};

static TENANT: Key<u64> = Key::new("tenant");
static NAME: Key<String> = Key::new("name");

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    headers
}

fn received(propagation: &Propagation, headers: &HeaderMap) -> Context {
    let (ctx, guard) = propagation.extract(headers, Context::background().derive()).build();
    let _ = guard.disarm();
    ctx
}

fn sent(propagation: &Propagation, ctx: &Context) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    propagation.inject(ctx, &mut headers);
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

#[test]
fn nothing_travels_that_was_not_asked_for() {
    let headers = headers(&[("baggage", "tenant=7"), ("traceparent", PARENT)]);
    let none = Propagation::new();
    let ctx = received(&none, &headers);
    assert!(ctx.value(&TENANT).is_none() && ctx.value(&BAGGAGE).is_none());
    assert!(ctx.value(&TRACE_CONTEXT).is_none());
    let all = Propagation::new().trace().baggage().carry("tenant", &TENANT);
    let ctx = received(&all, &headers);
    assert_eq!(sent(&none, &ctx), []);
    assert_eq!(
        sent(&Propagation::new().carry("tenant", &TENANT), &ctx),
        [("baggage".to_string(), "tenant=7".to_string())]
    );
}

#[test]
fn members_that_nobody_here_knows_are_passed_on_unharmed() {
    let propagation = Propagation::new().baggage().carry("tenant", &TENANT);
    let headers = headers(&[
        ("baggage", "a=1;ttl=5;private , tenant=7,b=%20%C3%A9%zz"),
        ("baggage", "\tc = x=y ,,nonsense, =1,bad name=2,d=\"quoted\",e="),
    ]);
    let ctx = received(&propagation, &headers);
    assert_eq!(ctx.value(&TENANT), Some(&7));
    let baggage = ctx.value(&BAGGAGE).expect("it has members");
    assert_eq!(baggage.to_string(), "a=1;ttl=5;private,b=%20%C3%A9%zz,c=x=y,e=");
    assert_eq!(baggage.get("b").as_deref(), Some(" é%zz"));
    assert_eq!(baggage.get("a").as_deref(), Some("1"));
    assert_eq!(baggage.get("e").as_deref(), Some(""));
    assert_eq!(baggage.get("f"), None);
    let (_, value) = &sent(&propagation, &ctx)[0];
    assert_eq!(value, "a=1;ttl=5;private,b=%20%C3%A9%zz,c=x=y,e=,tenant=7");
}

#[test]
fn a_value_comes_back_as_it_went_whatever_is_in_it() {
    let propagation = Propagation::new().carry("name", &NAME);
    for name in ["", "Amélie", "a,b;c=d\"e\\f%20g h", "日本\u{0}\n\u{7f}", "100%", "%41"] {
        let ctx = Context::background().with_value(&NAME, name.to_string());
        let mut headers = HeaderMap::new();
        propagation.inject(&ctx, &mut headers);
        let ctx = received(&propagation, &headers);
        assert_eq!(ctx.value(&NAME).map(String::as_str), Some(name));
    }
}

#[test]
fn a_member_that_is_not_a_value_of_its_key_is_passed_on_like_others() {
    let propagation = Propagation::new().baggage().carry("tenant", &TENANT);
    let ctx = received(&propagation, &headers(&[("baggage", "tenant=seven")]));
    assert!(ctx.value(&TENANT).is_none());
    assert_eq!(sent(&propagation, &ctx), [("baggage".to_string(), "tenant=seven".to_string())]);
    let ctx = ctx.with_value(&TENANT, 7);
    assert_eq!(sent(&propagation, &ctx), [("baggage".to_string(), "tenant=7".to_string())]);
}

#[test]
fn the_limits_are_kept_and_what_came_from_others_comes_first() {
    let many: Vec<String> = (0..100).map(|n| format!("k{n}={n}")).collect();
    let baggage = Baggage::read(&headers(&[("baggage", &many.join(","))]));
    assert_eq!((baggage.len(), baggage.get("k63").as_deref()), (64, Some("63")));

    let long = format!("a={},b=2", "x".repeat(8192 - 2));
    let baggage = Baggage::read(&headers(&[("baggage", &long)]));
    assert_eq!((baggage.len(), baggage.to_string().len()), (1, 8192));
    let baggage = Baggage::read(&headers(&[("baggage", &format!("a={}", "x".repeat(8191)))]));
    assert!(baggage.is_empty());

    let propagation = Propagation::new().baggage().carry("tenant", &TENANT);
    let ctx = received(&propagation, &headers(&[("baggage", &many.join(","))]));
    let ctx = ctx.with_value(&TENANT, 7);
    assert_eq!(sent(&propagation, &ctx)[0].1, many[..64].join(","));
}

#[test]
fn a_trace_is_passed_on_as_it_came_and_what_is_none_is_not() {
    let propagation = Propagation::new().trace();
    let ctx = received(
        &propagation,
        &headers(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]),
    );
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    assert_eq!(
        sent(&propagation, &ctx),
        [pair("traceparent", PARENT), pair("tracestate", "a=1"), pair("tracestate", "b=2")]
    );
    assert_eq!(
        ctx.value(&TRACE_CONTEXT).map(TraceContext::trace_id),
        Some("0af7651916cd43dd8448eb211c80319c")
    );
    let id = "0af7651916cd43dd8448eb211c80319c";
    for (parent, is_one) in [
        (format!("01-{id}-b7ad6b7169203331-01"), true),
        (format!("01-{id}-b7ad6b7169203331-01-more"), true),
        (format!("01-{id}-b7ad6b7169203331-01more"), false),
        (format!("00-{id}-b7ad6b7169203331-01-more"), false),
        (format!("ff-{id}-b7ad6b7169203331-01"), false),
        (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), false),
        (format!("00-{id}-0000000000000000-01"), false),
        (format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()), false),
        (format!("00_{id}_b7ad6b7169203331_01"), false),
        (format!("00-{id}-b7ad6b7169203331-0"), false),
        (String::new(), false),
        ("é".repeat(55), false),
    ] {
        let trace = TraceContext::read(&headers(&[("traceparent", &parent)]));
        assert_eq!(trace.is_some(), is_one, "{parent}");
    }
    assert!(
        TraceContext::read(&headers(&[("traceparent", PARENT), ("traceparent", PARENT)])).is_none()
    );
    assert!(TraceContext::read(&headers(&[("tracestate", "a=1")])).is_none());
}

#[test]
fn a_request_keeps_its_id_and_is_given_one_where_it_has_none_that_can_be_shown() {
    let propagation = Propagation::new().request_id();
    let id = |values: &[&str]| {
        let headers: Vec<_> = values.iter().map(|value| ("x-request-id", *value)).collect();
        let ctx = received(&propagation, &self::headers(&headers));
        let id = ctx.value(&REQUEST_ID).expect("each has one").to_string();
        assert_eq!(sent(&propagation, &ctx), [("x-request-id".to_string(), id.clone())]);
        assert_eq!(sent(&Propagation::new(), &ctx), []);
        id
    };
    let longest = "x".repeat(128);
    for kept in ["7", "550e8400-e29b-41d4-a716-446655440000", "a/b;c=\"d\"", &longest] {
        assert_eq!(id(&[kept]), kept);
    }
    let (long, longer) = ("x".repeat(129), "x".repeat(100_000));
    let none: [&[&str]; 7] =
        [&[], &[""], &["two words"], &["é"], &["7", "8"], &[long.as_str()], &[longer.as_str()]];
    let mut made: Vec<String> = none.into_iter().map(id).collect();
    for id in &made {
        assert_eq!(id.len(), 36, "{id}");
        assert!(id.bytes().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        }));
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 7, "no two are the same");
    assert!(received(&Propagation::new(), &headers(&[])).value(&REQUEST_ID).is_none());
}

#[test]
fn an_answer_says_its_requests_id_whoever_answers() {
    let clock = ManualClock::new();
    let layer = ContextLayer::new(&clock.root())
        .limit(Duration::from_secs(1))
        .propagate(Propagation::new().request_id());
    let request = || Request::get("/").header("x-request-id", "7").body(()).expect("a request");
    let answer = |answer: Response<Full<Bytes>>| {
        layer.layer(service_fn(move |_: Request<()>| ready(Ok::<_, BoxError>(answer.clone()))))
    };
    let response = now(answer(Response::default()).call(request())).expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "7");
    let own = Response::builder().header("x-request-id", "8").body(Full::default());
    let response = now(answer(own.expect("an answer")).call(request())).expect("an answer");
    assert_eq!(response.headers().get_all("x-request-id").iter().collect::<Vec<_>>(), ["8"]);
    let mut never = layer
        .layer(service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, BoxError>>()));
    let never = never.call(request());
    clock.advance(Duration::from_secs(1));
    let response = now(never).expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-request-id"]),
        (504, &"7".parse().expect("a value"))
    );
}

#[tokio::test]
async fn each_answer_of_the_layers_says_the_requests_id() {
    use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};

    let clock = ManualClock::new();
    let (server, stop) = clock.root().with_cancel();
    let believed = DeadlineHeaders::new([DeadlineHeader::relative()]).on_invalid(OnInvalid::Refuse);
    let layer = ContextLayer::new(&server)
        .limit(Duration::from_secs(1))
        .believe(believed)
        .propagate(Propagation::new().request_id());
    let never =
        || service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, BoxError>>());
    let request = |timeout: Option<&str>, id: Option<&str>| {
        let mut request = Request::get("/");
        for (name, value) in [("x-request-timeout", timeout), ("x-request-id", id)] {
            request = value.into_iter().fold(request, |request, value| request.header(name, value));
        }
        request.body(()).expect("a request")
    };
    let is_random = |id: &str| id.len() == 36 && id.as_bytes()[14] == b'4';
    let check = |id: Option<&str>, headers: &HeaderMap| {
        assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
        let said = headers["x-request-id"].to_str().expect("text");
        match id {
            Some(id) if id.len() < 100 => assert_eq!(said, id),
            _ => assert!(is_random(said), "{said}"),
        }
    };
    let too_long = "x".repeat(200);
    let ids = [None, Some("7f3a-12"), Some(too_long.as_str())];
    for id in ids {
        // A deadline that is refused, and one that is none.
        for (timeout, status, text) in [
            ("soon", 400, "x-request-timeout: not a time\n"),
            ("0", 504, "the request's time was up\n"),
        ] {
            let response = layer.layer(never()).call(request(Some(timeout), id)).await;
            let (its, headers, body) = read(response.expect("an answer")).await;
            assert_eq!((its.as_u16(), body.as_str()), (status, text));
            check(id, &headers);
            assert!(!headers.contains_key("connection"));
        }
        // A time that was up.
        let mut answer = std::pin::pin!(layer.layer(never()).call(request(None, id)));
        assert!(crate::support::poll_once(answer.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1));
        let (status, headers, _) = read(answer.await.expect("an answer")).await;
        assert_eq!(status, 504);
        check(id, &headers);
    }
    // A shutdown, of requests under way and of new ones; also where a handler cannot be made a task any more.
    let mut under_way = std::pin::pin!(layer.layer(never()).call(request(None, Some("7f3a-12"))));
    assert!(crate::support::poll_once(under_way.as_mut()).is_pending());
    let (tasks, no_tasks) = clock.root().with_cancel();
    no_tasks.cancel_with("SIGTERM");
    let detach = purview_http::DetachLayer::new(&tasks, Duration::from_secs(1));
    let response = ContextLayer::new(&clock.root())
        .propagate(Propagation::new().request_id())
        .layer(detach.layer(service_fn(|_: Request<()>| {
            ready(Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("not reached"))))
        })))
        .call(request(None, Some("7f3a-12")));
    let (status, headers, body) = read(response.await.expect("an answer")).await;
    assert_eq!((status.as_u16(), body.as_str()), (503, "the server is shutting down\n"));
    assert_eq!(
        (&headers["connection"], &headers["x-request-id"]),
        (&"close".parse().unwrap(), &"7f3a-12".parse().unwrap())
    );
    stop.cancel_with("SIGTERM");
    let (status, headers, body) = read(under_way.await.expect("an answer")).await;
    assert_eq!((status.as_u16(), body.as_str()), (503, "the server is shutting down\n"));
    assert_eq!(headers["connection"], "close");
    check(Some("7f3a-12"), &headers);
    for id in ids {
        let response = layer.layer(never()).call(request(None, id)).await.expect("an answer");
        let (status, headers, body) = read(response).await;
        assert_eq!((status.as_u16(), body.as_str()), (503, "the server is shutting down\n"));
        assert_eq!(headers["connection"], "close");
        check(id, &headers);
    }
    // Where ids do not travel, none is said.
    let plain =
        ContextLayer::new(&server).layer(never()).call(request(None, Some("7f3a-12"))).await;
    assert!(!read(plain.expect("an answer")).await.1.contains_key("x-request-id"));
}
