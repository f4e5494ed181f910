//! Requests that failed, sent again.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use tower_layer::Layer;
use tower_service::Service;

use super::budget::RetryBudget;
use super::error::{Error, ErrorKind};
use super::is_idempotent;
use crate::extract::RequestExt;

/// Sends a request again that failed: with an error of the service, or with 502, 503 or 504 (or [others](Self::statuses)).
///
/// Not more than a few [times](Self::attempts), not without the [budget](Self::budget), and not when what is left of the context's time
/// is too short for the wait before; then the last failure is the answer. Only requests that may be sent twice are: `GET`, `HEAD`,
/// `PUT`, `DELETE`, `OPTIONS`, `TRACE` (RFC 9110, 9.2.2). Their bodies are cloned.
///
/// The wait is random, up to twice as long each time ("full jitter": M. Brooker, *Exponential Backoff And Jitter*, 2015), and no
/// shorter than a `Retry-After` in seconds says. Where the context has no deadline, a `Retry-After` above the longest wait is not
/// waited for.
///
/// ```
/// use http::{Request, Response};
/// use purview::Context;
/// use purview_http::client::{RetryLayer, WithContext};
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// static SENT: AtomicU32 = AtomicU32::new(0);
/// let client = RetryLayer::new().layer(service_fn(async |_request: Request<()>| {
///     match SENT.fetch_add(1, Ordering::Relaxed) {
///         0 => Err("connection refused"),
///         _ => Ok(Response::new(())),
///     }
/// }));
/// let request = Request::new(()).with_context(&Context::background());
/// assert!(client.oneshot(request).await.is_ok());
/// assert_eq!(SENT.load(Ordering::Relaxed), 2);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing before it is put around a service"]
pub struct RetryLayer {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
struct Config {
    attempts: u32,
    first: Duration,
    longest: Duration,
    statuses: Vec<StatusCode>,
    budget: RetryBudget,
}

impl RetryLayer {
    /// Three attempts, with waits of up to 50 ms and then more, and a budget of its own.
    pub fn new() -> RetryLayer {
        let config = Config {
            attempts: 3,
            first: Duration::from_millis(50),
            longest: Duration::from_secs(2),
            statuses: vec![
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            budget: RetryBudget::default(),
        };
        RetryLayer { config: Arc::new(config) }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> RetryLayer {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Sends a request no more often than that.
    pub fn attempts(self, attempts: u32) -> RetryLayer {
        self.with(|config| config.attempts = attempts)
    }

    /// Waits up to `first` before the first retry, twice that before the next, and never longer than `longest`.
    pub fn backoff(self, first: Duration, longest: Duration) -> RetryLayer {
        self.with(|config| (config.first, config.longest) = (first, longest))
    }

    /// Which answers are failures, instead of 502, 503 and 504. With none, only errors are.
    pub fn statuses(self, statuses: impl IntoIterator<Item = StatusCode>) -> RetryLayer {
        self.with(|config| config.statuses = statuses.into_iter().collect())
    }

    /// Shares a budget with others.
    pub fn budget(self, budget: RetryBudget) -> RetryLayer {
        self.with(|config| config.budget = budget)
    }
}

impl Default for RetryLayer {
    fn default() -> Self {
        RetryLayer::new()
    }
}

impl Config {
    /// How long to wait after so many attempts.
    fn wait(&self, attempts: u32, at_least: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let most = self.first.saturating_mul(doubled).min(self.longest);
        // A new state has new keys.
        let random = RandomState::new().build_hasher().finish() >> 11;
        let part = random as f64 / (1_u64 << 53) as f64;
        most.mul_f64(part).max(at_least.unwrap_or_default())
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService { inner, config: Arc::clone(&self.config) }
    }
}

/// A client that sends again what failed. Made by [`RetryLayer`].
#[derive(Clone)]
pub struct RetryService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Clone + Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was found ready is the one that is called.
        let spare = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, spare);
        Box::pin(send(inner, request, Arc::clone(&self.config)))
    }
}

async fn send<S, B, R>(
    mut inner: S,
    mut request: Request<B>,
    config: Arc<Config>,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: 'static,
    B: Clone,
{
    config.budget.deposit_for(&mut request);
    let Some(ctx) = request.context().cloned().filter(|_| is_idempotent(request.method())) else {
        return inner.call(request).await;
    };
    let mut attempts = 1;
    loop {
        let result = inner.call(request.clone()).await;
        let after = match &result {
            Ok(response) if !config.statuses.contains(&response.status()) => return result,
            Ok(response) => retry_after(response),
            Err(err) if was_refused(err) => return result,
            Err(_) => None,
        };
        let wait = config.wait(attempts, after);
        let in_time = ctx.remaining().map_or(wait <= config.longest, |left| left > wait);
        if attempts >= config.attempts || !in_time || !config.budget.withdraw() {
            return result;
        }
        // Until the next attempt begins, this one's result is what there is.
        if ctx.sleep(wait).await.is_err() {
            return result;
        }
        match ctx.run(poll_fn(|task| inner.poll_ready(task))).await {
            Ok(ready) => ready?,
            Err(_ended) => return result,
        }
        drop(result); // and with it what its connection still has to say
        attempts += 1;
    }
}

/// Whether it is a [`ContextLayer`](super::ContextLayer) that says no, and would again.
fn was_refused(err: &dyn Any) -> bool {
    err.downcast_ref::<Error>().is_some_and(|err| err.kind() != ErrorKind::Service)
}

/// In seconds; a date would need clocks that agree.
fn retry_after<R>(response: &Response<R>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

impl<S: fmt::Debug> fmt::Debug for RetryService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService")
            .field("inner", &self.inner)
            .field("config", &self.config)
            .finish()
    }
}
