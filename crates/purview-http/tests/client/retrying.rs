//! What failed is sent again: not too often, not too late, and not what must not be.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use purview::Context;
use purview::time::ManualClock;
use purview_http::BoxError;
use purview_http::client::{ContextLayer, Error, ErrorKind, HedgeLayer, RetryBudget, RetryLayer};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use tokio::net::TcpStream;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Plan, Planned, SECOND, get, hyper, request, run, serve, text};

const HOUR: Duration = Duration::from_secs(3600);

/// No wait but the server's word.
fn at_once() -> RetryLayer {
    RetryLayer::new().backoff(Duration::ZERO, Duration::ZERO)
}

/// Lets time pass whenever all else waits.
async fn ticking<F: Future>(clock: &ManualClock, step: Duration, work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            output = &mut work => return output,
            () = tokio::task::yield_now() => clock.advance(step),
        }
    }
}

#[test]
fn a_request_is_sent_whole_until_it_is_answered() {
    run(async {
        let (server, _told) = Planned::new([Plan::Status(503), Plan::Status(502)]);
        let url = serve(server.router()).await;
        let client = at_once().layer(ContextLayer::new().layer(hyper()));
        let ctx = Context::background();
        let answer = client.oneshot(request(Method::PUT, &url, &ctx)).await.expect("an answer");
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "3"));
        assert!(server.hits().iter().all(|hit| hit.body == "payload"));
        assert_eq!(server.count(), 3);
    });
}

#[test]
fn what_must_not_be_sent_twice_is_sent_once() {
    run(async {
        for method in [Method::POST, Method::PATCH] {
            let (server, _told) = Planned::new([Plan::Status(503)]);
            let url = serve(server.router()).await;
            let client = at_once().layer(ContextLayer::new().layer(hyper()));
            let sent = client.oneshot(request(method, &url, &Context::background()));
            assert_eq!(sent.await.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(server.count(), 1);
        }
    });
}

#[test]
fn who_is_not_reached_is_called_again_a_few_times() {
    run(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let connector = service_fn(move |_: Uri| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err::<TokioIo<TcpStream>, BoxError>("no route".into()) })
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let client = at_once().attempts(4).layer(ContextLayer::new().layer(client));
        let sent = client.oneshot(get("http://localhost/", &Context::background()));
        assert_eq!(sent.await.expect_err("nobody is there").kind(), ErrorKind::Service);
        assert_eq!(calls.load(Ordering::Relaxed), 4);
    });
}

#[test]
fn each_attempt_says_less_time() {
    run(async {
        let (server, _told) = Planned::new([Plan::RetryAfter("2"), Plan::RetryAfter("2")]);
        let url = serve(server.router()).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(HOUR);
        let headers = DeadlineHeaders::new([DeadlineHeader::relative()]);
        let layer = ContextLayer::new().deadlines(headers);
        let client = at_once().layer(layer.layer(hyper()));
        let answer = ticking(&clock, SECOND / 1000, client.oneshot(get(&url, &ctx))).await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        let said: Vec<f64> = server.hits().iter().filter_map(|hit| hit.seconds).collect();
        let [first, second, third] = said[..] else { panic!("{said:?}") };
        assert!(first <= 3600.0 && first - second >= 1.999 && second - third >= 1.999, "{said:?}");
        assert!(third >= ctx.remaining().expect("it has a deadline").as_secs_f64());
    });
}

#[test]
fn where_the_time_is_too_short_for_the_wait_the_failure_is_the_answer_at_once() {
    run(async {
        let (server, _told) = Planned::new([Plan::RetryAfter("3")]);
        let url = serve(server.router()).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND * 3);
        let client = at_once().layer(ContextLayer::new().layer(hyper()));
        let answer = client.oneshot(get(&url, &ctx)).await.expect("an answer");
        assert_eq!(answer.headers()["retry-after"], "3");
        assert_eq!((text(answer).await.as_str(), server.count()), ("1", 1));
        assert!(!ctx.is_done());
    });
}

#[test]
fn a_day_is_not_waited_for_where_there_is_no_deadline() {
    run(async {
        let (server, _told) = Planned::new([Plan::RetryAfter("86400")]);
        let url = serve(server.router()).await;
        let client = RetryLayer::new().layer(ContextLayer::new().layer(hyper()));
        let answer = client.oneshot(get(&url, &Context::background())).await.expect("an answer");
        assert_eq!((text(answer).await.as_str(), server.count()), ("1", 1));
    });
}

#[test]
fn which_answers_are_failures_can_be_said() {
    run(async {
        let (server, _told) = Planned::new([Plan::Status(429), Plan::Status(503)]);
        let url = serve(server.router()).await;
        let client = ContextLayer::new().layer(hyper());
        let client = at_once().statuses([StatusCode::TOO_MANY_REQUESTS]).layer(client);
        let answer = client.oneshot(get(&url, &Context::background())).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), server.count()), (503, 2));
    });
}

#[test]
fn clones_share_a_budget_and_where_it_is_spent_nothing_is_sent_again() {
    run(async {
        let (server, _told) = Planned::new([Plan::Status(503); 20]);
        let url = serve(server.router()).await;
        let layer = at_once().attempts(3).budget(RetryBudget::new(0.0, 3));
        let client = layer.layer(ContextLayer::new().layer(hyper()));
        let clock = ManualClock::new();
        let root = clock.root();
        for (client, hits) in [(client.clone(), 3), (client.clone(), 5), (client, 6)] {
            // The clock stands: what is out of budget does not even wait.
            let answer = client.oneshot(get(&url, &root)).await.expect("an answer");
            assert_eq!((answer.status().as_u16(), server.count()), (503, hits));
        }
    });
}

#[test]
fn a_request_pays_into_a_budget_once_however_many_layers_share_it() {
    run(async {
        let (server, _told) = Planned::new([Plan::Status(503); 4]);
        let url = serve(server.router()).await;
        let budget = RetryBudget::new(0.5, 2);
        assert!(budget.withdraw() && budget.withdraw());
        let client = ServiceBuilder::new()
            .layer(at_once().budget(budget.clone()))
            .layer(HedgeLayer::new(SECOND * 60).budget(budget.clone()))
            .layer(ContextLayer::new())
            .service(hyper());
        let ctx = Context::background();
        for hits in [1, 3] {
            // Two requests pay for one retry, which pays nothing in.
            let answer = client.clone().oneshot(get(&url, &ctx)).await.expect("an answer");
            assert_eq!((answer.status().as_u16(), server.count()), (503, hits));
        }
        assert!(!budget.withdraw());
    });
}

#[test]
fn what_is_refused_for_want_of_time_is_not_tried_again() {
    run(async {
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let budget = RetryBudget::new(0.0, 1);
        let client = ContextLayer::new().reserve(SECOND).layer(hyper());
        let client = at_once().budget(budget.clone()).layer(client);
        let err = client.oneshot(get("http://localhost/", &ctx)).await.expect_err("too late");
        assert_eq!(err.kind(), ErrorKind::NoTime);
        assert!(budget.withdraw(), "it was not spent");
    });
}

/// Answers once, and has no room after that.
#[derive(Clone)]
struct NoRoom(Arc<AtomicUsize>);

impl Service<Request<Full<Bytes>>> for NoRoom {
    type Response = Response<Full<Bytes>>;
    type Error = Error;
    type Future = std::future::Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Error>> {
        if self.0.load(Ordering::Relaxed) == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        ready(Ok(answer))
    }
}

#[test]
fn waiting_for_room_ends_with_the_context_and_the_failure_is_the_answer() {
    run(async {
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let client = at_once().layer(NoRoom(Arc::default()));
        let mut sent = pin!(client.oneshot(get("/", &ctx)));
        let waits = poll_fn(|task| Poll::Ready(sent.as_mut().poll(task).is_pending())).await;
        assert!(waits);
        clock.advance(SECOND);
        assert_eq!(sent.await.expect("an answer").status(), StatusCode::SERVICE_UNAVAILABLE);
    });
}

#[test]
fn a_wait_between_attempts_ends_with_the_context() {
    run(async {
        let (server, mut told) = Planned::new([Plan::RetryAfter("60"), Plan::Never]);
        let url = serve(server.router()).await;
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(HOUR);
        let client = at_once().layer(ContextLayer::new().layer(hyper()));
        let (answer, ()) = tokio::join!(client.oneshot(get(&url, &ctx)), async {
            told.recv().await;
            guard.cancel();
        });
        // The server had it; whether its answer was there before the end is a race, and either is told.
        match answer {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE),
            Err(err) => assert_eq!(err.kind(), ErrorKind::Ended),
        }
        assert_eq!(server.count(), 1);
    });
}
