//! A request from its call to the last byte of its answer, and what ends it before.

use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Empty, Full};
use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error, Key};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};
use purview_http::{BoxError, ContextLayer, RequestEnded, RequestExt, ResponseBody, Style};
use tower::{Layer, Service, service_fn};

use crate::support::{Parts, Seen, next, now, poll_once, text};

const SECOND: Duration = Duration::from_secs(1);

struct Server {
    clock: ManualClock,
    root: Context,
    stop: CancelGuard,
}

fn server() -> Server {
    let clock = ManualClock::new();
    let (root, stop) = clock.root().derive().name("server").build();
    Server { clock, root, stop }
}

fn get(headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

type Answer<R> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<R>>, BoxError>>>>;

/// Calls a handler behind `layer`, which leaves its context in `seen` and gives what `answer` does.
fn call<R, Fut>(
    layer: &ContextLayer,
    request: Request<()>,
    seen: &Seen,
    answer: impl Fn() -> Fut + Clone + 'static,
) -> Answer<R>
where
    R: Body<Data = Bytes> + 'static,
    Fut: Future<Output = Response<R>> + 'static,
{
    let seen = seen.clone();
    let mut service = layer.layer(service_fn(move |request: Request<()>| {
        seen.put(request.context().expect("the layer is there"));
        let answer = answer();
        async move { Ok::<_, BoxError>(answer.await) }
    }));
    Box::pin(service.call(request))
}

fn ended(seen: &Seen) -> Option<RequestEnded> {
    RequestEnded::of(&seen.ctx().err()?)
}

fn full(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::from(text))
}

#[test]
fn a_request_is_below_the_servers_context_and_sees_its_values() {
    static BASE: Key<&str> = Key::new("base");
    let (root, _stop) = Context::background().derive().value(&BASE, "base").build();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    drop(now(call(&layer, get(&[]), &seen, || ready(full("hello")))));
    let ctx = seen.ctx();
    assert_eq!(ctx.value(&BASE), Some(&"base"));
    assert!(!root.is_done() && ctx.is_done());
}

// ── deadlines ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_deadline_is_the_earlier_of_the_servers_and_the_clients_less_the_reserve() {
    let Server { root, stop: _stop, .. } = server();
    let plain = ContextLayer::new(&root);
    let limited = plain.clone().limit(SECOND * 30);
    let believing = |layer: &ContextLayer| {
        layer.clone().believe(DeadlineHeaders::new([DeadlineHeader::relative()]))
    };
    let timeout = |seconds: &'static str| get(&[("x-request-timeout", seconds)]);
    for (layer, request, left) in [
        (plain.clone(), timeout("2"), None),
        (limited.clone(), timeout("2"), Some(SECOND * 30)), // not believed
        (believing(&plain), timeout("2"), Some(SECOND * 2)),
        (believing(&limited), timeout("2"), Some(SECOND * 2)),
        (believing(&limited), timeout("3600"), Some(SECOND * 30)),
        (believing(&limited), get(&[]), Some(SECOND * 30)),
        (believing(&limited), timeout("soon"), Some(SECOND * 30)), // ignored
        (believing(&limited).reserve(SECOND / 2), timeout("2"), Some(SECOND * 3 / 2)),
        (believing(&limited).reserve(SECOND / 2), get(&[]), Some(SECOND * 30)), // its own is no way back
    ] {
        let seen = Seen::default();
        let _answer = call(&layer, request, &seen, pending::<Response<Parts>>);
        assert_eq!(seen.ctx().remaining(), left, "{layer:?}");
    }
}

#[test]
fn the_time_begins_with_the_request_and_not_with_the_layer() {
    let Server { clock, root, stop: _stop } = server();
    let layer = ContextLayer::new(&root).limit(SECOND);
    clock.advance(SECOND * 5);
    let seen = Seen::default();
    let _answer = call(&layer, get(&[]), &seen, pending::<Response<Parts>>);
    assert_eq!(seen.ctx().remaining(), Some(SECOND));
}

#[test]
fn a_client_with_no_time_left_is_told_at_once_and_a_deadline_that_is_refused_is_400() {
    let Server { root, stop: _stop, .. } = server();
    let headers = DeadlineHeaders::new([DeadlineHeader::relative()]);
    let layer = ContextLayer::new(&root).believe(headers.clone().on_invalid(OnInvalid::Refuse));
    let seen = Seen::default();
    let answer =
        call(&layer, get(&[("x-request-timeout", "0")]), &seen, pending::<Response<Parts>>);
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::GATEWAY_TIMEOUT);

    let seen = Seen::default();
    let request = get(&[("x-request-timeout", "soon")]);
    let answer = now(call(&layer, request, &seen, pending::<Response<Parts>>)).expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(text(answer.into_body()), "x-request-timeout: not a time\n");
    assert!(seen.is_empty(), "the handler has not heard of it");
}

#[test]
fn when_its_time_is_up_the_handler_is_dropped_and_the_answer_is_504() {
    let Server { clock, root, stop: _stop } = server();
    let place = line!() + 1;
    let layer = ContextLayer::new(&root).limit(SECOND);
    let (seen, handler) = (Seen::default(), Parts::default());
    let held = handler.clone();
    let mut answer = call(&layer, get(&[]), &seen, move || {
        let held = held.clone();
        async move {
            let _held = held;
            pending::<Response<Parts>>().await
        }
    });
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND);
    let response = now(answer).expect("an answer");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(text(response.into_body()), "the request's time was up\n");
    assert_eq!(handler.holders(), 0, "what the handler held is gone");
    let err = seen.ctx().err().expect("it ended");
    assert_eq!(RequestEnded::of(&err), Some(RequestEnded::TimedOut));
    assert!(err.is_deadline_exceeded());
    assert_eq!(err.origin().location().line(), place, "where the layer was made");
}

#[test]
fn an_answer_that_is_there_is_not_thrown_away_because_the_time_is_up() {
    let Server { clock, root, stop: _stop } = server();
    let seen = Seen::default();
    let layer = ContextLayer::new(&root).limit(SECOND);
    let mut answer = call(&layer, get(&[]), &seen, move || {
        let mut turns = 0;
        std::future::poll_fn(move |_| {
            turns += 1;
            if turns == 1 { Poll::Pending } else { Poll::Ready(full("in time")) }
        })
    });
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND);
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::OK);
}

#[test]
fn a_handler_may_be_given_a_grace_for_an_answer_of_its_own() {
    let Server { clock, root, stop: _stop } = server();
    let layer = ContextLayer::new(&root).limit(SECOND).grace(SECOND);
    for says_something in [true, false] {
        let seen = Seen::default();
        let ctx = seen.clone();
        let mut answer = call(&layer, get(&[]), &seen, move || {
            let ctx = ctx.ctx();
            async move {
                ctx.done().await;
                if !says_something {
                    pending::<()>().await;
                }
                full("what there was in time")
            }
        });
        assert!(poll_once(answer.as_mut()).is_pending());
        clock.advance(SECOND);
        assert_eq!(ended(&seen), Some(RequestEnded::TimedOut));
        if says_something {
            assert_eq!(now(answer).expect("an answer").status(), StatusCode::OK);
        } else {
            assert!(poll_once(answer.as_mut()).is_pending());
            clock.advance(SECOND);
            let response = now(answer).expect("an answer");
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        }
    }
}

// ── the client ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_client_that_goes_before_or_in_the_middle_of_the_answer_is_the_cause() {
    let Server { root, stop: _stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    let mut answer = call(&layer, get(&[]), &seen, pending::<Response<Parts>>);
    assert!(poll_once(answer.as_mut()).is_pending() && ended(&seen).is_none());
    drop(answer);
    assert_eq!(ended(&seen), Some(RequestEnded::ClientGone));

    let (seen, parts) = (Seen::default(), Parts::default());
    let body = parts.clone();
    let response = now(call(&layer, get(&[]), &seen, move || ready(Response::new(body.clone()))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    assert!(ended(&seen).is_none(), "the answer has not been read");
    parts.send("half");
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "half"));
    assert!(next(body.as_mut()).is_pending());
    drop(body);
    assert_eq!(ended(&seen), Some(RequestEnded::ClientGone));
    assert_eq!(root.statistics().children(), 0);
}

#[test]
fn the_handlers_own_contexts_end_because_the_client_went_and_not_because_a_guard_was_dropped() {
    let Server { root, stop: _stop, .. } = server();
    let inner = Seen::default();
    let put = inner.clone();
    let mut service = ContextLayer::new(&root).layer(service_fn(move |request: Request<()>| {
        let put = put.clone();
        async move {
            let (ctx, _guard) = request.context().expect("the layer is there").with_cancel();
            put.put(&ctx);
            pending::<Result<Response<Full<Bytes>>, BoxError>>().await
        }
    }));
    let mut answer = Box::pin(service.call(get(&[])));
    assert!(poll_once(answer.as_mut()).is_pending());
    drop(answer);
    assert_eq!(ended(&inner), Some(RequestEnded::ClientGone));
}

#[test]
fn an_answer_that_was_handed_over_is_the_cause_too() {
    let Server { root, stop: _stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let (seen, parts) = (Seen::default(), Parts::default());
    let body = parts.clone();
    let response = now(call(&layer, get(&[]), &seen, move || ready(Response::new(body.clone()))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    parts.send("all");
    parts.end();
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
    assert!(ended(&seen).is_none(), "there may be more");
    assert!(matches!(next(body.as_mut()), Poll::Ready(None)));
    assert_eq!(ended(&seen), Some(RequestEnded::Finished));

    // A body that says that it is at its end is not asked again; one that never had anything is not asked at all; and nobody
    // reads the body of a HEAD.
    let seen = Seen::default();
    let response = now(call(&layer, get(&[]), &seen, || ready(full("all"))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    assert_eq!(body.size_hint().exact(), Some(3));
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(ended(&seen), Some(RequestEnded::Finished));
    let seen = Seen::default();
    drop(now(call(&layer, get(&[]), &seen, || ready(Response::new(Empty::<Bytes>::new())))));
    assert_eq!(ended(&seen), Some(RequestEnded::Finished));
    let seen = Seen::default();
    let head = Request::head("/").body(()).expect("a request");
    drop(now(call(&layer, head, &seen, || ready(full("never sent")))));
    assert_eq!(ended(&seen), Some(RequestEnded::Finished));
}

#[test]
fn a_handler_that_panics_is_the_cause() {
    let Server { root, stop: _stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    let panics = || async {
        tokio::task::yield_now().await;
        panic!("a test's")
    };
    let mut answer: Answer<Parts> = call(&layer, get(&[]), &seen, panics);
    assert!(poll_once(answer.as_mut()).is_pending());
    // As a server's task is dropped, by the panic itself.
    let unwound = catch_unwind(AssertUnwindSafe(move || poll_once(answer.as_mut()).is_ready()));
    assert!(unwound.is_err());
    assert_eq!(ended(&seen), Some(RequestEnded::Panicked));
}

#[test]
fn what_was_spawned_for_a_request_hears_of_its_end() {
    let Server { root, stop: _stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    let answer = call(&layer, get(&[]), &seen, pending::<Response<Parts>>);
    let ctx = seen.ctx();
    let thread = std::thread::spawn(move || RequestEnded::of(&ctx.done().wait()));
    drop(answer);
    assert_eq!(thread.join().expect("no panic"), Some(RequestEnded::ClientGone));
}

// ── streams ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_stream_whose_time_is_up_breaks_off_with_an_error_and_is_not_taken_for_whole() {
    let Server { clock, root, stop: _stop } = server();
    let layer = ContextLayer::new(&root).limit(SECOND);
    let (seen, parts) = (Seen::default(), Parts::default());
    let body = parts.clone();
    let response = now(call(&layer, get(&[]), &seen, move || ready(Response::new(body.clone()))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    parts.send("half");
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
    assert!(next(body.as_mut()).is_pending());
    clock.advance(SECOND);
    let Poll::Ready(Some(Err(err))) = next(body.as_mut()) else { panic!("it breaks off") };
    assert!(Error::find(&*err).is_some_and(Error::is_deadline_exceeded));
    assert_eq!(parts.holders(), 0, "the stream itself is gone");
    assert!(matches!(next(body.as_mut()), Poll::Ready(None)));
    assert_eq!(ended(&seen), Some(RequestEnded::TimedOut));
}

#[test]
fn a_stream_that_always_has_more_ends_with_its_context() {
    let Server { root, stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let (seen, parts) = (Seen::default(), Parts::default());
    let body = parts.clone();
    let response = now(call(&layer, get(&[]), &seen, move || ready(Response::new(body.clone()))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    parts.send("more");
    parts.send("and more");
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
    stop.cancel_with("deploy");
    assert!(next(body.as_mut()).is_pending(), "what there was can be sent");
    let Poll::Ready(Some(Err(err))) = next(body.as_mut()) else { panic!("it breaks off") };
    assert!(Error::find(&*err).is_some_and(Error::is_canceled));
    assert_eq!(parts.holders(), 0, "the stream itself is gone");
}

#[test]
fn a_stream_has_the_grace_for_its_last_words() {
    let Server { root, stop, .. } = server();
    let layer = ContextLayer::new(&root).grace(SECOND);
    let (seen, parts) = (Seen::default(), Parts::default());
    let body = parts.clone();
    let response = now(call(&layer, get(&[]), &seen, move || ready(Response::new(body.clone()))));
    let mut body = Box::pin(response.expect("an answer").into_body());
    parts.send("goodbye");
    stop.cancel_with("deploy");
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "goodbye"));
    parts.end();
    assert!(matches!(next(body.as_mut()), Poll::Ready(None)), "that it is whole is told, too");
}

#[test]
fn a_body_of_which_nothing_is_left_is_whole_whatever_ends() {
    let Server { root, stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    let answer = || ready(Response::new(Full::new(Bytes::from_static(b"all of it"))));
    let response = now(call(&layer, get(&[]), &seen, answer));
    let mut last = Box::pin(response.expect("an answer").into_body());
    assert!(matches!(next(last.as_mut()), Poll::Ready(Some(Ok(data))) if data == "all of it"));
    stop.cancel_with("deploy");
    assert!(matches!(next(last.as_mut()), Poll::Ready(None)), "nothing of it was left");
}

// ── the server ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn when_the_server_goes_down_requests_under_way_and_new_ones_are_503() {
    let Server { root, stop, .. } = server();
    let layer = ContextLayer::new(&root);
    let seen = Seen::default();
    let mut answer = call(&layer, get(&[]), &seen, pending::<Response<Parts>>);
    assert!(poll_once(answer.as_mut()).is_pending());
    stop.cancel_with("SIGTERM");
    let response = now(answer).expect("an answer");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::CONNECTION], "close");
    assert_eq!(text(response.into_body()), "the server is shutting down\n");
    let err = seen.ctx().err().expect("it ended");
    assert_eq!(err.cause().expect("the server's").to_string(), "SIGTERM");

    let seen = Seen::default();
    let response = now(call(&layer, get(&[]), &seen, || ready(full("too late"))));
    assert_eq!(response.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(seen.is_empty());
}

#[test]
fn the_layers_own_answers_are_json_for_who_asks_for_it() {
    let Server { root, stop, .. } = server();
    stop.cancel();
    let answer = |layer: &ContextLayer, accept: &str| {
        let request = get(&[("accept", accept)]);
        let response = now(call(layer, request, &Seen::default(), || ready(full(""))));
        let response = response.expect("an answer");
        let kind = response.headers().get(header::CONTENT_TYPE);
        (kind.map(|kind| kind.to_str().expect("text").to_string()), text(response.into_body()))
    };
    let json = (
        Some("application/json".to_string()),
        "{\"error\":\"the server is shutting down\"}\n".to_string(),
    );
    let plain = (
        Some("text/plain; charset=utf-8".to_string()),
        "the server is shutting down\n".to_string(),
    );
    let layer = ContextLayer::new(&root);
    for accept in
        ["application/json", "text/html, Application/JSON;q=0.5", "application/problem+json"]
    {
        assert_eq!(answer(&layer, accept), json, "{accept}");
    }
    for accept in
        ["", "*/*", "text/plain", "application/json;q=0", "application/json; Q=0.0", ";;,,"]
    {
        assert_eq!(answer(&layer, accept), plain, "{accept}");
    }
    assert_eq!(answer(&layer.clone().style(Style::Json), "text/plain"), json);
    assert_eq!(answer(&layer.clone().style(Style::Plain), "application/json"), plain);
    assert_eq!(answer(&layer.style(Style::Empty), "application/json"), (None, String::new()));
}

#[test]
fn contexts_have_the_names_of_their_routes() {
    let Server { root, stop: _stop, .. } = server();
    let layer = ContextLayer::new(&root).name(|parts| {
        let is_user = parts.uri.path().starts_with("/users/");
        is_user.then_some("/users/{id}")
    });
    let seen = Seen::default();
    let request = Request::get("/users/17").body(()).expect("a request");
    let _answer = call(&layer, request, &seen, pending::<Response<Parts>>);
    assert_eq!(seen.ctx().name(), Some("GET /users/{id}"));
    let seen = Seen::default();
    let _answer = call(&layer, get(&[]), &seen, pending::<Response<Parts>>);
    assert_eq!(seen.ctx().name(), None);
}

#[test]
fn an_error_of_the_service_is_passed_on_and_the_request_is_over() {
    let Server { root, stop: _stop, .. } = server();
    let seen = Seen::default();
    let put = seen.clone();
    let mut service = ContextLayer::new(&root).layer(service_fn(move |request: Request<()>| {
        put.put(request.context().expect("the layer is there"));
        ready(Err::<Response<Full<Bytes>>, &str>("broken"))
    }));
    let mut answer = pin!(service.call(get(&[])));
    assert!(matches!(poll_once(answer.as_mut()), Poll::Ready(Err("broken"))));
    assert_eq!(ended(&seen), Some(RequestEnded::Finished));
}
