//! Answers that are given when the request's context is done: they arrive whole, and streams that are under way do not go on.

use std::future::{pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error};
use purview_http::{BoxError, ContextLayer, RequestEnded, RequestExt, ResponseBody};
use tower::{Layer, Service, service_fn};

use crate::support::{Parts, next, now, poll_once};

const SECOND: Duration = Duration::from_secs(1);
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How a request's context comes to be done.
#[derive(Clone, Copy, Debug)]
enum End {
    Deadline,
    Shutdown,
}

const ENDS: [End; 2] = [End::Deadline, End::Shutdown];

impl End {
    fn status(self) -> StatusCode {
        match self {
            End::Deadline => StatusCode::GATEWAY_TIMEOUT,
            End::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            End::Deadline => "the request's time was up\n",
            End::Shutdown => "the server is shutting down\n",
        }
    }
}

struct Server {
    clock: ManualClock,
    root: Context,
    stop: CancelGuard,
}

impl Server {
    fn new() -> Server {
        let clock = ManualClock::new();
        let (root, stop) = clock.root().with_cancel();
        Server { clock, root, stop }
    }

    fn layer(&self) -> ContextLayer {
        ContextLayer::new(&self.root).limit(SECOND * 10)
    }

    fn end(&self, how: End) {
        match how {
            End::Deadline => self.clock.advance(SECOND * 10),
            End::Shutdown => self.stop.cancel_with(RequestEnded::ServerShutdown),
        }
    }

    /// The answer of a handler that waits for the end of its context, and then gives `answer`.
    fn late<R>(
        &self,
        how: End,
        answer: impl Fn() -> R + Clone + 'static,
    ) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes> + 'static,
        R::Error: Into<BoxError>,
    {
        let mut service = self.layer().layer(service_fn(move |request: Request<()>| {
            let ctx = request.context().expect("the layer is there").clone();
            let answer = answer.clone();
            async move {
                ctx.done().await;
                Ok::<_, BoxError>(Response::new(answer()))
            }
        }));
        let mut answer = pin!(service.call(Request::new(())));
        assert!(poll_once(answer.as_mut()).is_pending());
        self.end(how);
        now(answer).expect("an answer")
    }

    /// The answer of a handler that gives it at once.
    fn early<R>(&self, body: R) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes> + Clone + 'static,
        R::Error: Into<BoxError>,
    {
        let mut service = self.layer().layer(service_fn(move |_request: Request<()>| {
            ready(Ok::<_, BoxError>(Response::new(body.clone())))
        }));
        now(service.call(Request::new(()))).expect("an answer")
    }
}

/// All of a body, however often it is to be polled; or the error with which it breaks off, and what came before.
fn collect(body: impl Body<Data = Bytes, Error = BoxError>) -> Result<String, (String, BoxError)> {
    let (mut body, mut all) = (pin!(body), Vec::new());
    for _ in 0..100_000 {
        match next(body.as_mut()) {
            Poll::Ready(Some(Ok(data))) => all.extend(data),
            Poll::Ready(Some(Err(err))) => return Err((String::from_utf8_lossy(&all).into(), err)),
            Poll::Ready(None) => return Ok(String::from_utf8(all).expect("text")),
            Poll::Pending => {}
        }
    }
    panic!("it does not end")
}

/// Several parts, of which nothing says how long they are together.
fn parts(list: &[&'static str]) -> Parts {
    let parts = Parts::default();
    list.iter().for_each(|part| parts.send(part));
    parts.end();
    parts
}

#[test]
fn an_answer_given_at_the_end_of_its_context_arrives_whole() {
    for how in ENDS {
        let body = "x".repeat(100_000);
        let given = body.clone();
        let server = Server::new();
        let answer = server.late(how, move || Full::from(given.clone()));
        assert_eq!(answer.status(), StatusCode::OK, "{how:?}");
        assert_eq!(collect(answer.into_body()).expect("all of it"), body, "{how:?}");
        assert_eq!(server.root.statistics().children(), 0);

        // By the ways in which others read it.
        let answer = Server::new().late(how, || Full::from("its own"));
        let collected = now(answer.into_body().collect()).expect("all of it");
        assert_eq!(collected.to_bytes(), "its own");
    }
}

#[test]
fn an_answer_of_several_frames_that_are_there_arrives_whole() {
    for how in ENDS {
        let answer = Server::new().late(how, || parts(&["one, ", "two, ", "three"]));
        assert_eq!(answer.status(), StatusCode::OK, "{how:?}");
        assert_eq!(collect(answer.into_body()).expect("all of it"), "one, two, three");
        let answer = Server::new().late(how, || parts(&[]));
        assert_eq!(
            (answer.status(), collect(answer.into_body()).expect("all of it")),
            (StatusCode::OK, String::new())
        );
    }
}

/// A body without any data, which must not be polled after its end, like many streams.
#[derive(Default)]
struct Empty {
    is_over: bool,
}

impl Body for Empty {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!std::mem::replace(&mut self.is_over, true), "polled after its end");
        Poll::Ready(None)
    }
}

#[test]
fn a_late_body_that_turns_out_empty_is_polled_once() {
    for how in ENDS {
        let server = Server::new();
        let answer = server.late(how, Empty::default);
        assert_eq!(answer.status(), StatusCode::OK, "{how:?}");
        assert_eq!(collect(answer.into_body()).expect("all of it"), "", "{how:?}");
        assert_eq!(server.root.statistics().children(), 0);
    }
}

#[test]
fn an_answer_that_was_there_before_and_is_read_afterwards_arrives_whole() {
    for how in ENDS {
        let server = Server::new();
        let full = server.early(Full::from("all of it"));
        let frames = server.early(parts(&["one, ", "two"]));
        server.end(how);
        assert_eq!(collect(full.into_body()).expect("all of it"), "all of it", "{how:?}");
        assert_eq!(collect(frames.into_body()).expect("all of it"), "one, two", "{how:?}");
    }
}

/// Data, and then trailers, as a call of gRPC is answered.
struct Unary(Vec<Frame<Bytes>>);

impl Body for Unary {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }
}

/// A server reads frames one after the other, and time passes meanwhile.
#[test]
fn an_answer_is_whole_if_its_context_ends_between_two_frames() {
    for how in ENDS {
        let server = Server::new();
        let mut body = pin!(server.early(parts(&["one, ", "two, ", "three"])).into_body());
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "one, "));
        server.end(how);
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "two, "));
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "three"));
        assert!(body.is_end_stream());
        assert!(matches!(next(body.as_mut()), Poll::Ready(None)));

        let server = Server::new();
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
        let frames =
            || Unary(vec![Frame::trailers(trailers.clone()), Frame::data("answer".into())]);
        let mut service = server.layer().layer(service_fn(move |_request: Request<()>| {
            ready(Ok::<_, BoxError>(Response::new(frames())))
        }));
        let answer = now(service.call(Request::new(()))).expect("an answer");
        let mut body = pin!(answer.into_body());
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "answer"));
        server.end(how);
        let rest = now(body.as_mut().collect()).expect("all of it");
        assert_eq!(rest.trailers().expect("they are there")[GRPC_STATUS], "0");
    }
}

#[test]
fn an_answer_given_at_the_end_of_the_grace_arrives_whole() {
    for how in ENDS {
        let server = Server::new();
        let mut service = server.layer().grace(SECOND).layer(service_fn(|request: Request<()>| {
            let (late, guard) = request.context().expect("the layer is there").with_grace(SECOND);
            let _ = guard.disarm();
            async move {
                late.done().await;
                Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("its own")))
            }
        }));
        let mut answer = pin!(service.call(Request::new(())));
        assert!(poll_once(answer.as_mut()).is_pending());
        server.end(how);
        assert!(poll_once(answer.as_mut()).is_pending());
        server.clock.advance(SECOND);
        let answer = now(answer).expect("an answer");
        assert_eq!(collect(answer.into_body()).expect("all of it"), "its own");
    }
}

/// A handler looks at its context, and that is done before the layer looks.
#[test]
fn a_handler_sees_the_end_of_its_context_before_it_is_dropped() {
    for how in ENDS {
        let server = Server::new();
        let mut service = server.layer().layer(service_fn(|request: Request<()>| {
            let ctx = request.context().expect("the layer is there").clone();
            let (server, mut polls) = (&server, 0);
            poll_fn(move |_| {
                let is_done = ctx.is_done();
                polls += 1;
                if polls == 2 {
                    server.end(how);
                }
                let answer = || Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("its own")));
                if is_done { Poll::Ready(answer()) } else { Poll::Pending }
            })
        }));
        let mut answer = pin!(service.call(Request::new(())));
        assert!(poll_once(answer.as_mut()).is_pending());
        let answer = now(answer).expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{how:?}");
        assert_eq!(collect(answer.into_body()).expect("all of it"), "its own");
    }
}

/// A body that fails with its first frame.
struct Failing;

impl Body for Failing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err("the upstream is gone".into())))
    }
}

#[test]
fn a_late_answer_without_a_body_that_is_there_is_the_layers_own() {
    for how in ENDS {
        let answer = Server::new().late(how, Parts::default);
        assert_eq!(answer.status(), how.status());
        assert_eq!(collect(answer.into_body()).expect("all of it"), how.sentence());
        let answer = Server::new().late(how, || Failing);
        assert_eq!(answer.status(), how.status());
        assert_eq!(collect(answer.into_body()).expect("all of it"), how.sentence());
    }
}

#[test]
fn where_the_handler_gives_nothing_the_layers_answer_is_whole() {
    for how in ENDS {
        let server = Server::new();
        let mut service = server.layer().layer(service_fn(|_request: Request<()>| {
            pending::<Result<Response<Full<Bytes>>, BoxError>>()
        }));
        let mut answer = pin!(service.call(Request::new(())));
        assert!(poll_once(answer.as_mut()).is_pending());
        server.end(how);
        let answer = now(answer).expect("an answer");
        assert_eq!(answer.status(), how.status());
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.body().size_hint().exact(), Some(how.sentence().len() as u64));
        assert_eq!(collect(answer.into_body()).expect("all of it"), how.sentence());
    }
}

#[test]
fn a_late_stream_begins_and_breaks_off_when_it_waits() {
    for how in ENDS {
        let held = Parts::default();
        let its = held.clone();
        held.send("half");
        let answer = Server::new().late(how, move || its.clone());
        assert_eq!(answer.status(), StatusCode::OK);
        let (came, err) = collect(answer.into_body()).expect_err("it breaks off");
        assert_eq!(came, "half");
        assert!(Error::find(&*err).is_some(), "{err}");
        assert_eq!(held.holders(), 0, "the stream itself is gone");
    }
}

/// A server sends what it has when a body waits, and forgets it when the body fails.
#[test]
fn what_was_handed_over_can_be_sent_before_a_stream_breaks_off() {
    for how in ENDS {
        let server = Server::new();
        let parts = Parts::default();
        parts.send("half");
        parts.send("never sent");
        let mut body = pin!(server.early(parts.clone()).into_body());
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(data))) if data == "half"));
        server.end(how);
        assert!(next(body.as_mut()).is_pending());
        assert_eq!(parts.holders(), 0, "the stream itself is gone");
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Err(_)))));
        assert!(matches!(next(body.as_mut()), Poll::Ready(None)));

        // Also of an answer of which there is only the head.
        let server = Server::new();
        let mut body = pin!(server.early(Parts::default()).into_body());
        server.end(how);
        assert!(next(body.as_mut()).is_pending());
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Err(_)))));
    }
}

/// Always has more, and says how often it was polled.
#[derive(Clone)]
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
    }
}

#[test]
fn a_late_stream_that_always_has_more_ends_some_seconds_later() {
    for how in ENDS {
        let server = Server::new();
        let answer = server.late(how, || Endless);
        let mut body = pin!(answer.into_body());
        for _ in 0..1000 {
            assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
        }
        server.clock.advance(SECOND * 5);
        let broken = (0..2).any(|_| matches!(next(body.as_mut()), Poll::Ready(Some(Err(_)))));
        assert!(broken, "{how:?}");
        assert_eq!(server.root.statistics().children(), 0);
    }
}

#[test]
fn a_stream_under_way_that_always_has_more_breaks_off_at_once() {
    for how in ENDS {
        let server = Server::new();
        let mut body = pin!(server.early(Endless).into_body());
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Ok(_)))));
        server.end(how);
        assert!(next(body.as_mut()).is_pending(), "what there was can be sent");
        assert!(matches!(next(body.as_mut()), Poll::Ready(Some(Err(_)))));
        assert!(matches!(next(body.as_mut()), Poll::Ready(None)));
    }
}

#[test]
fn a_body_that_is_broken_off_wakes_its_reader() {
    let server = Server::new();
    let mut body = pin!(server.early(Parts::default()).into_body());
    server.end(End::Deadline);
    let (woken, waker) = counting();
    assert!(body.as_mut().poll_frame(&mut Task::from_waker(&waker)).is_pending());
    assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// A waker that counts.
fn counting() -> (std::sync::Arc<std::sync::atomic::AtomicUsize>, Waker) {
    struct Count(std::sync::Arc<std::sync::atomic::AtomicUsize>);
    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let woken = std::sync::Arc::default();
    (std::sync::Arc::clone(&woken), Waker::from(std::sync::Arc::new(Count(woken))))
}
