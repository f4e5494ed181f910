//! What takes long is sent once more, and who comes second is told so.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use purview::Context;
use purview::time::ManualClock;
use purview_http::client::{ContextLayer, HedgeLayer, LostRace, RetryBudget};
use purview_http::{BoxError, RequestEnded, RequestExt};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::{Plan, Planned, SECOND, get, hyper, request, run, serve, text};

/// The contexts of all attempts, in order.
type Attempts = Arc<Mutex<Vec<Context>>>;

/// A service, around which a test sees what goes in.
fn watched<S, B>(
    attempts: &Attempts,
    service: S,
) -> impl Service<Request<B>, Response = S::Response, Error = S::Error, Future = S::Future>
+ Clone
+ use<S, B>
where
    S: Service<Request<B>> + Clone,
{
    let attempts = Arc::clone(attempts);
    ServiceBuilder::new()
        .map_request(move |request: Request<B>| {
            attempts.lock().expect("no panic").extend(request.context().cloned());
            request
        })
        .service(service)
}

#[test]
fn the_second_of_two_attempts_wins_and_the_first_ends_here_and_at_the_server() {
    run(async {
        let (server, mut told) = Planned::new([Plan::Never]);
        let (root, _stop) = Context::background().with_cancel();
        let layer = purview_http::ContextLayer::new(&root);
        let url = serve(server.router().layer(layer)).await;
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND * 60);
        let attempts = Attempts::default();
        let client = watched(&attempts, ContextLayer::new().layer(hyper()));
        let client = HedgeLayer::new(SECOND).layer(client);
        let (answer, ()) = tokio::join!(client.oneshot(get(&url, &ctx)), async {
            assert_eq!(told.recv().await, Some(1));
            clock.advance(SECOND);
        });
        let answer = answer.expect("an answer");
        let attempts = attempts.lock().expect("no panic").clone();
        let [first, second] = &attempts[..] else { panic!("{}", attempts.len()) };
        let lost = first.err().expect("it lost");
        assert!(lost.cause().is_some_and(|cause| cause.downcast_ref::<LostRace>().is_some()));
        assert!(!second.is_done() && !ctx.is_done());
        assert_eq!(text(answer).await, "2");
        let served = server.hits()[0].ctx.clone().expect("the layer gives it one");
        assert_eq!(RequestEnded::of(&served.done().await), Some(RequestEnded::ClientGone));
    });
}

#[test]
fn an_answer_that_won_still_ends_with_the_context_while_it_is_read() {
    run(async {
        let (server, _told) = Planned::new([]);
        let url = serve(server.router()).await;
        let (ctx, guard) = Context::background().with_cancel();
        let client = HedgeLayer::new(SECOND * 60).layer(ContextLayer::new().layer(hyper()));
        let answer = client.oneshot(get(&url, &ctx)).await.expect("an answer");
        guard.cancel_with("enough");
        let err = answer.into_body().collect().await.expect_err("it ends");
        assert_eq!(err.to_string(), "context canceled: enough");
    });
}

#[test]
fn what_is_answered_in_time_is_sent_once() {
    run(async {
        let (server, _told) = Planned::new([]);
        let url = serve(server.router()).await;
        let client = HedgeLayer::new(SECOND).layer(ContextLayer::new().layer(hyper()));
        let clock = ManualClock::new();
        for hits in 1..=5 {
            let answer = client.clone().oneshot(get(&url, &clock.root())).await;
            assert_eq!(text(answer.expect("an answer")).await, hits.to_string());
        }
        assert_eq!(server.count(), 5);
    });
}

#[test]
fn no_second_attempt_for_what_must_not_be_sent_twice_or_without_budget() {
    run(async {
        for (method, budget) in
            [(Method::POST, RetryBudget::default()), (Method::GET, RetryBudget::new(0.0, 0))]
        {
            let (server, mut told) = Planned::new([Plan::Never]);
            let url = serve(server.router()).await;
            let clock = ManualClock::new();
            let (ctx, _guard) = clock.root().with_timeout(SECOND * 2);
            let client = HedgeLayer::new(SECOND).budget(budget);
            let client = client.layer(ContextLayer::new().layer(hyper()));
            let sent = client.oneshot(request(method, &url, &ctx));
            let (answer, ()) = tokio::join!(sent, async {
                told.recv().await;
                clock.advance(SECOND);
                tokio::task::yield_now().await;
                clock.advance(SECOND);
            });
            assert!(answer.is_err_and(|err| err.ended().is_some()));
            assert_eq!(server.count(), 1);
        }
    });
}

#[test]
fn no_more_attempts_than_that_and_all_end_with_the_context() {
    run(async {
        let (server, mut told) = Planned::new([Plan::Never; 10]);
        let (root, _stop) = Context::background().with_cancel();
        let url = serve(server.router().layer(purview_http::ContextLayer::new(&root))).await;
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_cancel();
        let attempts = Attempts::default();
        let client = watched(&attempts, ContextLayer::new().layer(hyper()));
        let client = HedgeLayer::new(SECOND).attempts(3).layer(client);
        let (answer, ()) = tokio::join!(client.oneshot(get(&url, &ctx)), async {
            for number in 1..=3 {
                assert_eq!(told.recv().await, Some(number));
                clock.advance(SECOND);
            }
            tokio::task::yield_now().await;
            guard.cancel_with("enough");
        });
        assert!(answer.is_err_and(|err| err.ended().is_some()));
        let attempts = attempts.lock().expect("no panic").clone();
        assert_eq!(attempts.len(), 3);
        for attempt in attempts {
            assert_eq!(attempt.err().expect("it ends").to_string(), "context canceled: enough");
        }
        for hit in server.hits() {
            let ended = hit.ctx.expect("the layer gives it one").done().await;
            assert_eq!(RequestEnded::of(&ended), Some(RequestEnded::ClientGone));
        }
    });
}

#[test]
fn whoever_drops_a_race_hangs_up_on_all() {
    run(async {
        let (server, mut told) = Planned::new([Plan::Never; 2]);
        let (root, _stop) = Context::background().with_cancel();
        let url = serve(server.router().layer(purview_http::ContextLayer::new(&root))).await;
        let clock = ManualClock::new();
        let client = HedgeLayer::new(SECOND).layer(ContextLayer::new().layer(hyper()));
        let mut race = Box::pin(client.oneshot(get(&url, &clock.root())));
        tokio::select! {
            _ = &mut race => panic!("nobody answers"),
            () = async {
                told.recv().await;
                clock.advance(SECOND);
                told.recv().await;
            } => {}
        }
        drop(race);
        for hit in server.hits() {
            let ended = hit.ctx.expect("the layer gives it one").done().await;
            assert_eq!(RequestEnded::of(&ended), Some(RequestEnded::ClientGone));
        }
    });
}

/// Has room for one request, which is never answered.
#[derive(Default)]
struct OneRoom {
    is_taken: Arc<Mutex<bool>>,
}

impl Clone for OneRoom {
    fn clone(&self) -> Self {
        OneRoom { is_taken: Arc::clone(&self.is_taken) }
    }
}

impl Service<Request<Full<Bytes>>> for OneRoom {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), BoxError>> {
        if *self.is_taken.lock().expect("no panic") { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        *self.is_taken.lock().expect("no panic") = true;
        Box::pin(pending())
    }
}

#[test]
fn a_race_ends_with_the_context_though_an_attempt_waits_for_room() {
    run(async {
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(SECOND * 2);
        let client = HedgeLayer::new(SECOND).layer(ContextLayer::new().layer(OneRoom::default()));
        let mut race = pin!(client.oneshot(get("/", &ctx)));
        for _ in 0..2 {
            let waits = poll_fn(|task| Poll::Ready(race.as_mut().poll(task).is_pending())).await;
            assert!(waits);
            clock.advance(SECOND);
        }
        let err = race.await.expect_err("it ends");
        assert!(err.ended().is_some_and(purview::Error::is_deadline_exceeded));
    });
}
