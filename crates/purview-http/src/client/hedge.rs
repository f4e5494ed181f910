//! Requests that take long, sent a second time meanwhile.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::{Request, Response};
use purview::{CancelGuard, Context, Sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::budget::RetryBudget;
use super::{WithContext, is_idempotent};
use crate::extract::RequestExt;

/// Sends a request once more when it has no answer after a while, and takes whichever answer comes first: a cure for the few that
/// take much longer than the others (J. Dean and L. A. Barroso, *The Tail at Scale*, 2013).
///
/// Each attempt has a context of its own. That of the one which came second ends, with [`LostRace`] as the cause; so the other side
/// hears of it, and stops. A server's error (5xx) wins only if no other attempt is under way.
///
/// Only requests that may be sent twice are, and only from the [budget](Self::budget). Their bodies are cloned.
///
/// ```
/// use purview_http::client::HedgeLayer;
/// use std::time::Duration;
/// // What 95 in 100 requests take, as was measured.
/// let layer = HedgeLayer::new(Duration::from_millis(80));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing before it is put around a service"]
pub struct HedgeLayer {
    after: Duration,
    attempts: usize,
    budget: RetryBudget,
}

impl HedgeLayer {
    /// Sends a request again `after` so long, once.
    pub fn new(after: Duration) -> HedgeLayer {
        HedgeLayer { after, attempts: 2, budget: RetryBudget::default() }
    }

    /// Has no more attempts than that under way, each so long after the one before.
    pub fn attempts(mut self, attempts: usize) -> HedgeLayer {
        self.attempts = attempts;
        self
    }

    /// Shares a budget with others.
    pub fn budget(mut self, budget: RetryBudget) -> HedgeLayer {
        self.budget = budget;
        self
    }
}

impl<S> Layer<S> for HedgeLayer {
    type Service = HedgeService<S>;

    fn layer(&self, inner: S) -> HedgeService<S> {
        HedgeService { inner, layer: self.clone() }
    }
}

/// The cause of an attempt's end: another one had its answer first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct LostRace;

impl fmt::Display for LostRace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another attempt had its answer first")
    }
}

impl std::error::Error for LostRace {}

/// A client that sends again what takes long. Made by [`HedgeLayer`].
#[derive(Clone)]
pub struct HedgeService<S> {
    inner: S,
    layer: HedgeLayer,
}

impl<S, B, R> Service<Request<B>> for HedgeService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Clone + Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that was found ready is the one that is called.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare.clone());
        self.layer.budget.deposit_for(&mut request);
        let ctx = request.context().cloned().filter(|_| is_idempotent(request.method()));
        let Some(ctx) = ctx else { return Box::pin(inner.call(request)) };
        let mut race = Race { ctx, attempts: Vec::new() };
        race.enter(&request, |request| Box::pin(inner.call(request)));
        Box::pin(race.run(spare, request, self.layer.clone()))
    }
}

/// The attempts that are under way.
struct Race<R, E> {
    ctx: Context,
    attempts: Vec<Attempt<R, E>>,
}

struct Attempt<R, E> {
    guard: CancelGuard,
    answer: Answer<R, E>,
}

type Answer<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

/// What happens next.
enum Next<R, E> {
    Answer(CancelGuard, Result<Response<R>, E>),
    /// It has taken long.
    Late,
}

impl<R, E> Race<R, E> {
    fn enter<B: Clone>(
        &mut self,
        request: &Request<B>,
        send: impl FnOnce(Request<B>) -> Answer<R, E>,
    ) {
        let (ctx, guard) = self.ctx.with_cancel();
        let answer = send(request.clone().with_context(&ctx));
        self.attempts.push(Attempt { guard, answer });
    }

    async fn run<S, B>(
        mut self,
        spare: S,
        request: Request<B>,
        layer: HedgeLayer,
    ) -> Result<Response<R>, E>
    where
        S: Service<Request<B>, Response = Response<R>, Error = E> + Clone + Send + 'static,
        S::Future: Send,
        B: Clone + Send + 'static,
    {
        let ctx = self.ctx.clone();
        let mut sent = 1;
        let mut late = Box::pin(ctx.sleep(layer.after));
        loop {
            match self.next(late.as_mut(), sent < layer.attempts).await {
                Next::Answer(guard, result) => {
                    let is_good =
                        result.as_ref().is_ok_and(|answer| !answer.status().is_server_error());
                    // The others may wait for something that does not end with the context, such as room.
                    if is_good || self.attempts.is_empty() || ctx.is_done() {
                        let _ = guard.disarm(); // its body is yet to be read
                        let losers = self.attempts.iter();
                        losers.for_each(|loser| loser.guard.cancel_with(LostRace));
                        return result;
                    }
                }
                Next::Late if ctx.is_done() || !layer.budget.withdraw() => sent = layer.attempts,
                Next::Late => {
                    let mut service = spare.clone();
                    self.enter(&request, |request| {
                        Box::pin(async move {
                            poll_fn(|task| service.poll_ready(task)).await?;
                            service.call(request).await
                        })
                    });
                    sent += 1;
                    late = Box::pin(ctx.sleep(layer.after));
                }
            }
        }
    }

    /// The next answer; or the end of `late`, if that is waited for.
    fn next(
        &mut self,
        mut late: Pin<&mut Sleep<'_>>,
        waits: bool,
    ) -> impl Future<Output = Next<R, E>> {
        poll_fn(move |task| {
            for i in 0..self.attempts.len() {
                if let Poll::Ready(result) = self.attempts[i].answer.as_mut().poll(task) {
                    let Attempt { guard, .. } = self.attempts.swap_remove(i);
                    return Poll::Ready(Next::Answer(guard, result));
                }
            }
            if waits && late.as_mut().poll(task).is_ready() {
                return Poll::Ready(Next::Late);
            }
            Poll::Pending
        })
    }
}

impl<S: fmt::Debug> fmt::Debug for HedgeService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}
