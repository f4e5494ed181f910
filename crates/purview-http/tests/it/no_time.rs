//! Requests that come with no time left: they are answered, and no handler begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use purview::Context;
use purview::time::ManualClock;
use purview_http::client::{ContextLayer as Sending, ErrorKind, WithContext};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::{BoxError, ContextLayer, DetachLayer, ResponseBody};
use tower::{Layer, Service};

use crate::support::{now, read};

const SECOND: Duration = Duration::from_secs(1);

/// What was done for requests: calls, polls of their futures, and tasks that those spawned.
#[derive(Clone, Default)]
struct Work {
    calls: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    tasks: Arc<AtomicUsize>,
}

impl Work {
    fn done(&self) -> [usize; 3] {
        [&self.calls, &self.begun, &self.tasks].map(|count| count.load(Ordering::Relaxed))
    }
}

type Answer =
    std::pin::Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send>>;

/// Spawns before its first await, where there is a runtime.
impl Service<Request<()>> for Work {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<()>) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let work = self.clone();
        Box::pin(async move {
            work.begun.fetch_add(1, Ordering::Relaxed);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { work.tasks.fetch_add(1, Ordering::Relaxed) });
                tokio::task::yield_now().await;
            }
            Ok(Response::new(Full::from("ready at once")))
        })
    }
}

fn request(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::get("/");
    if let Some(timeout) = timeout {
        request = request.header("x-request-timeout", timeout);
    }
    request.body(()).expect("a request")
}

fn relative() -> DeadlineHeaders {
    DeadlineHeaders::new([DeadlineHeader::relative()])
}

/// The status and the whole body.
async fn told<B>(response: Response<ResponseBody<B>>) -> (StatusCode, String)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (status, _, body) = read(response).await;
    (status, body)
}

fn timed_out() -> (StatusCode, String) {
    (StatusCode::GATEWAY_TIMEOUT, "the request's time was up\n".to_string())
}

#[tokio::test]
async fn a_request_without_time_is_answered_and_no_handler_begins() {
    for root in [ManualClock::new().root(), Context::background()] {
        for (timeout, reserve) in [
            ("0", Duration::ZERO),
            ("1ns", Duration::ZERO),
            ("999us", Duration::ZERO),
            ("20ms", SECOND / 20),
            ("20ms", SECOND / 50),
            ("20.9ms", SECOND / 50),
        ] {
            let (server, _stop) = root.with_cancel();
            let work = Work::default();
            let layer = ContextLayer::new(&server).believe(relative()).reserve(reserve);
            // Also with a grace, which is for handlers that have begun.
            for layer in [layer.clone(), layer.grace(SECOND)] {
                let response = layer.layer(work.clone()).call(request(Some(timeout))).await;
                assert_eq!(told(response.expect("an answer")).await, timed_out(), "{timeout}");
                tokio::task::yield_now().await;
                assert_eq!(work.done(), [0, 0, 0], "{timeout}");
                assert_eq!(server.statistics().children(), 0);
            }
        }
    }
}

#[tokio::test]
async fn a_request_with_a_millisecond_begins() {
    let (server, _stop) = ManualClock::new().root().with_cancel();
    let work = Work::default();
    let mut service = ContextLayer::new(&server).believe(relative()).layer(work.clone());
    let response = service.call(request(Some("1ms"))).await.expect("an answer");
    assert_eq!(told(response).await, (StatusCode::OK, "ready at once".to_string()));
    assert_eq!(work.done(), [1, 1, 1]);
}

#[tokio::test]
async fn below_a_server_that_is_done_no_handler_begins() {
    let (server, stop) = Context::background().with_cancel();
    stop.cancel();
    let (expired, _guard) = Context::background().with_timeout(Duration::ZERO);
    for (server, status) in
        [(&server, StatusCode::SERVICE_UNAVAILABLE), (&expired, StatusCode::GATEWAY_TIMEOUT)]
    {
        let work = Work::default();
        let mut service = ContextLayer::new(server).layer(work.clone());
        let response = service.call(request(None)).await.expect("an answer");
        assert_eq!(response.status(), status);
        assert!(!told(response).await.1.is_empty());
        assert_eq!(work.done(), [0, 0, 0]);
    }
}

#[test]
fn a_limit_of_nothing_begins_nothing() {
    let (server, _stop) = Context::background().with_cancel();
    let work = Work::default();
    let mut service = ContextLayer::new(&server).limit(Duration::ZERO).layer(work.clone());
    let response = now(service.call(request(None))).expect("an answer");
    assert_eq!(now(told(response)), timed_out());
    assert_eq!(work.done(), [0, 0, 0]);
}

/// A response's future may wait for long until it is first polled.
#[test]
fn a_handler_that_was_not_polled_in_time_does_not_begin() {
    for by_shutdown in [false, true] {
        let clock = ManualClock::new();
        let (server, stop) = clock.root().with_cancel();
        let work = Work::default();
        let mut service = ContextLayer::new(&server).limit(SECOND).layer(work.clone());
        let answer = service.call(request(None));
        if by_shutdown {
            stop.cancel();
        } else {
            clock.advance(SECOND);
        }
        let response = now(answer).expect("an answer");
        let status = if by_shutdown { 503 } else { 504 };
        assert_eq!(response.status(), status);
        assert!(!now(told(response)).1.is_empty());
        assert_eq!(work.done(), [1, 0, 0], "the service made a future, and it was not polled");
    }
}

#[tokio::test]
async fn a_handler_that_is_a_task_does_not_begin_either() {
    let clock = ManualClock::new();
    let (server, _stop) = clock.root().with_cancel();
    let work = Work::default();
    let detach = DetachLayer::new(&server, SECOND);
    let mut service = ContextLayer::new(&server)
        .limit(SECOND)
        .believe(relative())
        .layer(detach.layer(work.clone()));
    let response = service.call(request(Some("0"))).await.expect("an answer");
    assert_eq!(told(response).await, timed_out());
    assert_eq!(work.done(), [0, 0, 0]);

    // Its task is spawned in time, and comes to run too late.
    let answer = service.call(request(None));
    clock.advance(SECOND);
    assert_eq!(told(answer.await.expect("an answer")).await, timed_out());
    while !detach.tasks().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(work.done(), [1, 0, 0], "the service made a future, and it was not polled");
}

#[test]
fn a_client_whose_future_was_not_polled_in_time_sends_nothing() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    let work = Work::default();
    let answer = Sending::new().layer(work.clone()).call(request(None).with_context(&ctx));
    clock.advance(SECOND);
    let err = now(answer).expect_err("it has ended");
    assert_eq!(err.kind(), ErrorKind::Ended);
    assert!(purview::Error::find(&err).is_some_and(purview::Error::is_deadline_exceeded));
    assert_eq!(work.done(), [1, 0, 0], "the service made a future, and it was not polled");
}
