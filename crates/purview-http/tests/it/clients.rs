//! The client's side. The network is a service of the test's, and time is a manual clock's.

use std::collections::VecDeque;
use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error, Key};
use purview_http::client::{
    ContextLayer, ErrorKind, HedgeLayer, LostRace, RetryBudget, RetryLayer, WithContext,
};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::propagation::Propagation;
use purview_http::{BoxError, RequestExt};
use tower::{Layer, Service, service_fn};

use crate::support::{Parts, next, now, poll_once};

const SECOND: Duration = Duration::from_secs(1);

static TENANT: Key<u64> = Key::new("tenant");

/// A network that answers each request as the test has planned, and keeps what it was sent.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    plan: VecDeque<Plan>,
    headers: Vec<HeaderMap>,
    contexts: Vec<Context>,
}

#[derive(Clone, Copy)]
enum Plan {
    Status(u16),
    RetryAfter(&'static str),
    Refused,
    Never,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send>>;

impl Network {
    fn new(plan: impl IntoIterator<Item = Plan>) -> Network {
        let network = Network::default();
        network.0.lock().expect("no panic").plan = plan.into_iter().collect();
        network
    }

    fn send(&self, request: &Request<String>) -> Answer {
        let mut sent = self.0.lock().expect("no panic");
        sent.headers.push(request.headers().clone());
        sent.contexts.extend(request.context().cloned());
        let answer = |status: u16| {
            let mut response = Response::new(Full::from("answer"));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        };
        match sent.plan.pop_front() {
            Some(Plan::Status(status)) => Box::pin(ready(Ok(answer(status)))),
            Some(Plan::RetryAfter(value)) => {
                let mut response = answer(503);
                response.headers_mut().insert("retry-after", value.parse().expect("a value"));
                Box::pin(ready(Ok(response)))
            }
            Some(Plan::Refused) => Box::pin(ready(Err("connection refused".into()))),
            Some(Plan::Never) | None => Box::pin(pending()),
        }
    }

    fn service(
        &self,
    ) -> impl Service<
        Request<String>,
        Response = Response<Full<Bytes>>,
        Error = BoxError,
        Future = Answer,
    > + Clone
    + Send
    + use<> {
        let network = self.clone();
        service_fn(move |request| network.send(&request))
    }

    fn count(&self) -> usize {
        self.0.lock().expect("no panic").headers.len()
    }

    fn headers(&self, attempt: usize) -> HeaderMap {
        self.0.lock().expect("no panic").headers[attempt].clone()
    }

    fn ctx(&self, attempt: usize) -> Context {
        self.0.lock().expect("no panic").contexts[attempt].clone()
    }
}

fn request(method: Method, ctx: &Context) -> Request<String> {
    let mut request = Request::new(String::new()).with_context(ctx);
    *request.method_mut() = method;
    request
}

fn two_seconds() -> (ManualClock, Context, CancelGuard) {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().with_timeout(SECOND * 2);
    (clock, ctx, guard)
}

// ── the context ────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_time_that_is_left_is_sent_and_shrinks() {
    let (clock, ctx, _guard) = two_seconds();
    let ctx = ctx.with_value(&TENANT, 7);
    let network = Network::new([Plan::Status(200); 3]);
    let headers = DeadlineHeaders::new([DeadlineHeader::relative(), DeadlineHeader::Grpc]);
    let layer = ContextLayer::new()
        .deadlines(headers)
        .reserve(SECOND / 4)
        .propagate(Propagation::new().carry("tenant", &TENANT));
    let mut client = layer.layer(network.service());
    for _ in 0..2 {
        assert!(now(client.call(request(Method::GET, &ctx))).is_ok());
        clock.advance(SECOND);
    }
    assert_eq!(network.headers(0)["x-request-timeout"], "1.750");
    assert_eq!(network.headers(0)["grpc-timeout"], "1750000u");
    assert_eq!(network.headers(1)["x-request-timeout"], "0.750");
    assert_eq!(network.headers(1)["baggage"], "tenant=7");
    // What the caller wrote is not what counts.
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    let mut with_header = request(Method::GET, &ctx);
    with_header.headers_mut().insert("x-request-timeout", "3600".parse().expect("a value"));
    assert!(now(client.call(with_header)).is_ok());
    assert_eq!(network.headers(2)["x-request-timeout"], "0.750");
}

#[test]
fn nothing_is_sent_when_no_time_is_left_or_the_context_has_ended_or_there_is_none() {
    let (clock, ctx, guard) = two_seconds();
    let network = Network::default();
    let mut client = ContextLayer::new().reserve(SECOND).layer(network.service());
    clock.advance(SECOND * 3 / 2);
    let err = now(client.call(request(Method::GET, &ctx))).expect_err("too late");
    assert_eq!(err.kind(), ErrorKind::NoTime);
    assert_eq!(err.to_string(), "no time is left to send the request");
    // The deadline is found, and the context is not done.
    let deadline = Error::find(&err).expect("it is the reason");
    assert!(deadline.is_deadline_exceeded() && !deadline.is_canceled());
    assert_eq!(deadline.origin().location(), ctx.location());
    assert!(err.ended().is_some_and(Error::is_deadline_exceeded) && !ctx.is_done());
    let boxed: BoxError = Box::new(err);
    assert!(Error::find(&*boxed).is_some_and(Error::is_deadline_exceeded));
    assert_eq!(ctx.statistics().children(), 0);
    guard.cancel_with("no longer needed");
    let err = now(client.call(request(Method::GET, &ctx))).expect_err("it has ended");
    assert_eq!(err.kind(), ErrorKind::Ended);
    assert!(Error::find(&err).is_some_and(Error::is_canceled));
    assert_eq!(err.to_string(), "the request's context is done");
    let source = std::error::Error::source(&err).expect("it says why");
    assert_eq!(source.to_string(), "context canceled: no longer needed");
    let err = now(client.call(Request::new(String::new()))).expect_err("it has none");
    assert_eq!(err.to_string(), "the request was given no context");
    assert_eq!(network.count(), 0);
}

#[test]
fn a_request_ends_with_its_context_while_it_waits_and_while_its_answer_is_read() {
    let (clock, ctx, guard) = two_seconds();
    let held = Arc::new(());
    let its = Arc::clone(&held);
    let mut client = ContextLayer::new().layer(service_fn(move |_request: Request<String>| {
        let its = Arc::clone(&its);
        async move {
            let _its = its;
            pending::<Result<Response<Parts>, BoxError>>().await
        }
    }));
    let mut answer = pin!(client.call(request(Method::GET, &ctx)));
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND * 2);
    let Poll::Ready(Err(err)) = poll_once(answer.as_mut()) else { panic!("it ends") };
    assert!(err.ended().is_some_and(Error::is_deadline_exceeded));
    assert_eq!(Arc::strong_count(&held), 2, "what was under way is gone");
    drop(guard);

    let (ctx, guard) = Context::background().with_cancel();
    let parts = Parts::default();
    let body = parts.clone();
    let mut client = ContextLayer::new().layer(service_fn(move |_request: Request<String>| {
        ready(Ok::<_, BoxError>(Response::new(body.clone())))
    }));
    let response = now(client.call(request(Method::GET, &ctx))).expect("an answer");
    let mut body = pin!(response.into_body());
    parts.send("half");
    assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "half"));
    assert!(next(body.as_mut()).is_pending());
    guard.cancel_with("enough");
    let Poll::Ready(Some(Err(err))) = next(body.as_mut()) else { panic!("it ends") };
    assert!(Error::find(&*err).is_some_and(Error::is_canceled));
    assert!(matches!(next(body.as_mut()), Poll::Ready(None)));
}

fn timeouts() -> [DeadlineHeader; 4] {
    let [grpc, envoy, connect] =
        [DeadlineHeader::Grpc, DeadlineHeader::Envoy, DeadlineHeader::Connect];
    [grpc, envoy, connect, DeadlineHeader::relative()]
}

#[test]
fn less_than_a_millisecond_is_sent_where_it_can_be_said_and_never_as_zero() {
    let reserve = Duration::from_micros(99_500);
    for header in timeouts() {
        let layer = ContextLayer::new().reserve(reserve);
        let layer = layer.deadlines(DeadlineHeaders::new([header.clone()]));
        for (left, is_sent) in [
            (500, header == DeadlineHeader::Grpc),
            (999, header == DeadlineHeader::Grpc),
            (1000, true),
        ] {
            let clock = ManualClock::new();
            let time = reserve + Duration::from_micros(left);
            let (ctx, _guard) = clock.root().with_timeout(time);
            let network = Network::new([Plan::Status(200)]);
            let sent = now(layer.layer(network.service()).call(request(Method::GET, &ctx)));
            assert_eq!(
                (sent.is_ok(), network.count()),
                (is_sent, usize::from(is_sent)),
                "{header:?} {left}"
            );
            match sent {
                Ok(_) => assert_ne!(network.headers(0)[header.name()], "0", "{header:?} {left}"),
                Err(err) => assert_eq!(err.kind(), ErrorKind::NoTime, "{header:?} {left}"),
            }
        }
    }
    // Where no header says it, it is sent.
    let (ctx, _guard) = ManualClock::new().root().with_timeout(Duration::from_nanos(1));
    let network = Network::new([Plan::Status(200)]);
    assert!(
        now(ContextLayer::new().layer(network.service()).call(request(Method::GET, &ctx))).is_ok()
    );
}

/// A request with headers that its caller wrote, or copied from a request that came.
fn with(ctx: &Context, headers: &[(&'static str, &'static str)]) -> Request<String> {
    let mut request = request(Method::GET, ctx);
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a value"));
    }
    request
}

#[test]
fn a_deadline_that_the_caller_wrote_goes_out_only_if_it_is_the_earlier() {
    let clock = ManualClock::new();
    let (minute, _guard) = clock.root().with_timeout(SECOND * 60);
    let both = [DeadlineHeader::relative(), DeadlineHeader::Grpc];
    let layer = ContextLayer::new().deadlines(DeadlineHeaders::new(both));
    let reserving = layer.clone().reserve(SECOND);
    let root = clock.root();
    type Headers = &'static [(&'static str, &'static str)];
    type Said = Option<&'static str>;
    let cases: [(&ContextLayer, &Context, Headers, [Said; 2]); 10] = [
        (&layer, &root, &[("x-request-timeout", "3600")], [None, None]),
        (&layer, &root, &[("x-request-timeout", "3600"), ("grpc-timeout", "1S")], [None, None]),
        (&layer, &root, &[("x-request-timeout", "soon")], [None, None]),
        (&layer, &minute, &[], [Some("60"), Some("60000000u")]),
        (&layer, &minute, &[("x-request-timeout", "3600")], [Some("60"), Some("60000000u")]),
        (&layer, &minute, &[("x-request-timeout", "0.5")], [Some("0.5"), Some("500000u")]),
        (&layer, &minute, &[("grpc-timeout", "500m")], [Some("0.500"), Some("500m")]),
        (&layer, &minute, &[("x-request-timeout", "soon")], [Some("60"), Some("60000000u")]),
        (
            &layer,
            &minute,
            &[("x-request-timeout", "9"), ("x-request-timeout", "3")],
            [Some("3"), Some("3000000u")],
        ),
        (&reserving, &minute, &[("x-request-timeout", "59.5")], [Some("59"), Some("59000000u")]),
    ];
    for (layer, ctx, headers, said) in cases {
        let network = Network::new([Plan::Status(200)]);
        assert!(now(layer.layer(network.service()).call(with(ctx, headers))).is_ok());
        let sent = network.headers(0);
        let names = ["x-request-timeout", "grpc-timeout"];
        let values = names.map(|name| sent.get(name).map(|value| value.to_str().expect("text")));
        assert_eq!(values, said, "{headers:?}");
        assert!(names.iter().all(|name| sent.get_all(*name).iter().count() <= 1), "{headers:?}");
    }
    // No time is left by what the caller says.
    let network = Network::new([Plan::Status(200)]);
    let none = with(&minute, &[("x-request-timeout", "0")]);
    let err = now(layer.layer(network.service()).call(none)).expect_err("no time");
    assert_eq!((err.kind(), network.count()), (ErrorKind::NoTime, 0));
    // What the layer was not told to say is not its own.
    let network = Network::new([Plan::Status(200)]);
    let other = with(&root, &[("x-request-timeout", "3600"), ("x-request-id", "theirs")]);
    assert!(now(ContextLayer::new().layer(network.service()).call(other)).is_ok());
    assert_eq!(network.headers(0)["x-request-timeout"], "3600");
    assert_eq!(network.headers(0)["x-request-id"], "theirs");
}

#[test]
fn what_travels_is_the_contexts_and_nothing_that_was_there_before() {
    let foreign = [
        ("x-request-id", "theirs"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "theirs=1"),
        ("tracestate", "theirs=2"),
        ("baggage", "tenant=8,other=1"),
        ("x-other", "kept"),
    ];
    let all = Propagation::new().request_id().trace().baggage().carry("tenant", &TENANT);
    let sent = |propagation: Propagation, ctx: &Context| {
        let network = Network::new([Plan::Status(200)]);
        let layer = ContextLayer::new().propagate(propagation);
        assert!(now(layer.layer(network.service()).call(with(ctx, &foreign))).is_ok());
        let headers = network.headers(0);
        let mut list: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        list.sort();
        list
    };
    let root = Context::background();
    assert_eq!(sent(all.clone(), &root), ["x-other: kept"]);
    let tenant = root.with_value(&TENANT, 7);
    assert_eq!(sent(all.clone(), &tenant), ["baggage: tenant=7", "x-other: kept"]);
    let carry = Propagation::new().carry("tenant", &TENANT);
    let mut without_baggage: Vec<String> = foreign
        .iter()
        .filter(|(name, _)| *name != "baggage")
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    without_baggage.sort();
    assert_eq!(sent(carry, &root), without_baggage);
    let (own, _guard) = all.extract(&HeaderMap::new(), root.derive()).build();
    let id = own.value(&purview_http::propagation::REQUEST_ID).expect("a new one");
    assert_eq!(sent(all, &own), ["x-other: kept".to_string(), format!("x-request-id: {id}")]);
}

// ── retries ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_failed_is_sent_again_after_a_wait_until_it_is_answered() {
    let (clock, ctx, _guard) = two_seconds();
    let network = Network::new([Plan::Refused, Plan::Status(503), Plan::Status(200)]);
    let layer = RetryLayer::new().backoff(SECOND / 4, SECOND);
    let mut client = layer.layer(network.service());
    let mut answer = client.call(request(Method::GET, &ctx));
    assert!(poll_once(answer.as_mut()).is_pending());
    assert_eq!(network.count(), 1);
    clock.advance(SECOND / 4);
    assert!(poll_once(answer.as_mut()).is_pending());
    assert_eq!(network.count(), 2);
    clock.advance(SECOND / 2); // twice as long
    let response = now(answer).expect("an answer");
    assert_eq!((response.status(), network.count()), (StatusCode::OK, 3));
}

#[test]
fn who_may_not_be_sent_twice_or_says_something_else_is_not_sent_again() {
    let (_clock, ctx, _guard) = two_seconds();
    for (method, plan) in [
        (Method::POST, Plan::Status(503)),
        (Method::PATCH, Plan::Refused),
        (Method::GET, Plan::Status(500)),
        (Method::GET, Plan::Status(404)),
        (Method::GET, Plan::Status(429)),
    ] {
        let network = Network::new([plan, Plan::Status(200)]);
        let mut client = RetryLayer::new().layer(network.service());
        let _ = now(client.call(request(method, &ctx)));
        assert_eq!(network.count(), 1);
    }
    let network = Network::new([Plan::Refused, Plan::Status(200)]);
    let without_context = Request::new(String::new());
    let _ = now(RetryLayer::new().layer(network.service()).call(without_context));
    assert_eq!(network.count(), 1);
}

#[test]
fn attempts_are_counted_and_the_last_failure_is_the_answer() {
    let clock = ManualClock::new();
    let network = Network::new([Plan::Status(502), Plan::Status(503), Plan::Status(504)]);
    let mut client = RetryLayer::new().layer(network.service());
    let mut answer = client.call(request(Method::PUT, &clock.root()));
    let response = loop {
        match poll_once(answer.as_mut()) {
            Poll::Ready(response) => break response.expect("an answer"),
            Poll::Pending => clock.advance(SECOND),
        }
    };
    assert_eq!((response.status(), network.count()), (StatusCode::GATEWAY_TIMEOUT, 3));
}

#[test]
fn a_wait_that_leaves_no_time_is_not_begun_and_the_servers_word_on_it_is_kept() {
    let (clock, ctx, _guard) = two_seconds();
    let layer = RetryLayer::new().backoff(Duration::ZERO, Duration::ZERO);
    let network = Network::new([Plan::RetryAfter("1"), Plan::RetryAfter("1"), Plan::Status(200)]);
    let mut client = layer.layer(network.service());
    let mut answer = client.call(request(Method::GET, &ctx));
    clock.advance(SECOND / 2);
    assert!(poll_once(answer.as_mut()).is_pending(), "it waits for a second");
    clock.advance(SECOND - Duration::from_nanos(1));
    assert!(poll_once(answer.as_mut()).is_pending());
    assert_eq!(network.count(), 1);
    clock.advance(Duration::from_nanos(1));
    // Half a second is left, and it should wait for one.
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(network.count(), 2);

    // A date is not understood; an end meanwhile is an end.
    let (_clock, ctx, guard) = two_seconds();
    let date = Plan::RetryAfter("Fri, 31 Dec 1999 23:59:59 GMT");
    let network = Network::new([date, Plan::RetryAfter("1")]);
    let mut client = layer.layer(network.service());
    let mut answer = client.call(request(Method::GET, &ctx));
    assert!(poll_once(answer.as_mut()).is_pending());
    assert_eq!(network.count(), 2);
    guard.cancel();
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn where_most_fail_the_budget_ends_the_retries() {
    let clock = ManualClock::new();
    let budget = RetryBudget::new(0.1, 2);
    let layer = RetryLayer::new()
        .backoff(Duration::ZERO, Duration::ZERO)
        .budget(budget.clone())
        .attempts(u32::MAX);
    let network = Network::new(std::iter::repeat_n(Plan::Refused, 1000));
    let mut client = layer.layer(network.service());
    for _ in 0..100 {
        assert!(now(client.call(request(Method::GET, &clock.root()))).is_err());
    }
    // A hundred requests, a tenth of that in retries, and those that there were to begin with.
    assert!((110..=112).contains(&network.count()), "{}", network.count());
    assert!(RetryBudget::new(f64::NAN, 0).withdraw() == RetryBudget::new(-1.0, 0).withdraw());
}

// ── hedges ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_takes_long_is_sent_a_second_time_and_who_comes_second_is_told_why() {
    let (clock, ctx, _guard) = two_seconds();
    let network = Network::new([Plan::Never, Plan::Status(200)]);
    let mut client = HedgeLayer::new(SECOND / 4).layer(network.service());
    let mut answer = client.call(request(Method::GET, &ctx));
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND / 4);
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::OK);
    let err = network.ctx(0).err().expect("it lost");
    assert!(err.cause().expect("it is told").downcast_ref::<LostRace>().is_some());
    assert!(network.ctx(1).err().is_none(), "its answer is yet to be read");
}

#[test]
fn an_answer_in_time_needs_no_second_attempt_and_a_failure_is_not_the_winner_while_another_runs() {
    let (clock, ctx, _guard) = two_seconds();
    let network = Network::new([Plan::Status(200)]);
    let layer = HedgeLayer::new(SECOND / 4).attempts(3);
    assert!(now(layer.layer(network.service()).call(request(Method::GET, &ctx))).is_ok());
    assert_eq!(network.count(), 1);

    let network = Network::new([Plan::Never, Plan::Status(500), Plan::Status(200)]);
    let mut answer = layer.layer(network.service()).call(request(Method::GET, &ctx));
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND / 4);
    assert!(poll_once(answer.as_mut()).is_pending(), "the first may still be good");
    clock.advance(SECOND / 4);
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::OK);
    assert_eq!(network.count(), 3);

    // Where all have failed, that is the answer; and there is nothing to wait for.
    let network = Network::new([Plan::Status(500)]);
    let answer = layer.layer(network.service()).call(request(Method::GET, &ctx));
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn hedges_are_for_what_may_be_sent_twice_and_from_the_budget() {
    for (method, budget) in
        [(Method::POST, RetryBudget::default()), (Method::GET, RetryBudget::new(0.0, 0))]
    {
        let (clock, ctx, guard) = two_seconds();
        let network = Network::new([Plan::Never, Plan::Status(200)]);
        let mut client = HedgeLayer::new(SECOND / 4).budget(budget).layer(network.service());
        let mut answer = client.call(request(method, &ctx));
        assert!(poll_once(answer.as_mut()).is_pending());
        clock.advance(SECOND / 4);
        assert!(poll_once(answer.as_mut()).is_pending());
        assert_eq!(network.count(), 1);
        guard.cancel();
        assert!(poll_once(answer.as_mut()).is_pending(), "its end is for the layer within");
    }
}

#[test]
fn the_three_layers_one_in_the_other() {
    let (clock, ctx, _guard) = two_seconds();
    let network = Network::new([Plan::Status(503), Plan::Never, Plan::Status(200)]);
    let deadlines = DeadlineHeaders::new([DeadlineHeader::relative()]);
    let mut client = RetryLayer::new().backoff(Duration::ZERO, Duration::ZERO).layer(
        HedgeLayer::new(SECOND / 2)
            .layer(ContextLayer::new().deadlines(deadlines).layer(network.service())),
    );
    let mut answer = client.call(request(Method::GET, &ctx));
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(SECOND / 2);
    assert_eq!(now(answer).expect("an answer").status(), StatusCode::OK);
    let said: Vec<_> = (0..3).map(|n| network.headers(n)["x-request-timeout"].clone()).collect();
    assert_eq!(said, ["2", "2", "1.500"], "each says what was left when it began");
}

// ── no limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_time_without_a_limit_is_none_and_nothing_panics() {
    let clock = ManualClock::new();
    let root = clock.root();
    let year = SECOND * 366 * 24 * 3600;
    // Never sent a second time.
    let network = Network::new([Plan::Never]);
    let mut answer = HedgeLayer::new(Duration::MAX).layer(network.service());
    let mut answer = answer.call(request(Method::GET, &root));
    assert!(poll_once(answer.as_mut()).is_pending());
    clock.advance(year);
    assert!(poll_once(answer.as_mut()).is_pending());
    assert_eq!(network.count(), 1);
    // Sent again, whenever that is.
    for _ in 0..100 {
        let network = Network::new([Plan::Refused; 3]);
        let layer = RetryLayer::new().backoff(Duration::MAX, Duration::MAX).attempts(u32::MAX);
        let mut client = layer.layer(network.service());
        let mut answer = client.call(request(Method::GET, &root));
        assert!(poll_once(answer.as_mut()).is_pending());
    }
    let network = Network::new([Plan::RetryAfter("18446744073709551615")]);
    let mut client = RetryLayer::new().backoff(SECOND, Duration::MAX).layer(network.service());
    let mut answer = client.call(request(Method::GET, &root));
    assert!(poll_once(answer.as_mut()).is_pending());
    // All of the time is kept back; where there is no deadline, there is nothing to keep.
    let network = Network::new([Plan::Status(200)]);
    let mut client = ContextLayer::new().reserve(Duration::MAX).layer(network.service());
    let (ctx, _guard) = root.with_timeout(year);
    let err = now(client.call(request(Method::GET, &ctx))).expect_err("no time is left");
    assert_eq!(err.kind(), ErrorKind::NoTime);
    assert!(now(client.call(request(Method::GET, &root))).is_ok());
    // A context that has no deadline, though it was given one.
    let (ctx, _guard) = root.with_timeout(Duration::MAX);
    let network = Network::new([Plan::Status(200)]);
    let layer = ContextLayer::new().deadlines(DeadlineHeaders::new([DeadlineHeader::relative()]));
    assert!(now(layer.layer(network.service()).call(request(Method::GET, &ctx))).is_ok());
    assert!(network.headers(0).is_empty());
}
