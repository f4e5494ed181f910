//! The client's side: a request is sent with the time that its context leaves, and ends with it.
//!
//! Three layers, for any tower service that sends requests, from the outside in:
//!
//! ```text
//! RetryLayer ──► HedgeLayer ──► ContextLayer ──► hyper's client, say
//! again, if      again, if it   with the time
//! it failed      takes long     that is left
//! ```
//! Each attempt says the time that is left when it begins; so services behind services are given less and less of it, and none works
//! on when nobody waits.

mod body;
mod budget;
mod error;
mod future;
mod hedge;
mod retry;

use std::fmt;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use purview::Context;
use tower_layer::Layer;
use tower_service::Service;

pub use body::ResponseBody;
pub use budget::RetryBudget;
pub use error::{Error, ErrorKind};
pub use future::ResponseFuture;
pub use hedge::{HedgeLayer, HedgeService, LostRace};
pub use retry::{RetryLayer, RetryService};

use crate::BoxError;
use crate::deadline::DeadlineHeaders;
use crate::extract::RequestExt;
use crate::propagation::Propagation;

/// Sends requests under their contexts.
///
/// - The time that is left is said in the [headers](Self::deadlines) that the other side reads, less the [reserve](Self::reserve). A shorter
///   one that the caller wrote there stays; of a request whose context has no deadline, those headers are removed.
/// - Where none is left, less than these headers can say (1 ms, of `grpc-timeout` 1 ns), or the context has ended, nothing is sent.
/// - When the context ends, the request does, in every phase: connecting, waiting for the answer, reading its body.
///
/// What the service does before it is called, it does for nobody's request: a wait for room in it ([`Service::poll_ready`]) ends with the
/// context only within [`Context::run`].
///
/// A request is given its context by [`WithContext`]. One that has none is refused: a request that nobody ends should be said to be
/// one, with [`Context::background`].
///
/// ```
/// use http::{Request, Response};
/// use purview::Context;
/// use purview_http::client::{ContextLayer, WithContext};
/// use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ServiceBuilder::new()
///     .layer(ContextLayer::new().deadlines(DeadlineHeaders::new([DeadlineHeader::Grpc])))
///     .service(service_fn(async |request: Request<String>| {
///         assert!(request.headers().contains_key("grpc-timeout"));
///         Ok::<_, std::io::Error>(Response::new(String::new())) // a real one, of the network
///     }));
/// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(2));
/// let request = Request::get("http://localhost/").body(String::new())?.with_context(&ctx);
/// assert!(client.oneshot(request).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing before it is put around a service"]
pub struct ContextLayer {
    config: Arc<Config>,
}

#[derive(Clone, Debug, Default)]
struct Config {
    deadlines: DeadlineHeaders,
    reserve: Duration,
    propagation: Propagation,
}

impl ContextLayer {
    /// One that sends no headers of its own.
    pub fn new() -> ContextLayer {
        ContextLayer::default()
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> ContextLayer {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Says in these headers how much time is left.
    pub fn deadlines(self, headers: DeadlineHeaders) -> ContextLayer {
        self.with(|config| config.deadlines = headers)
    }

    /// Keeps so much of the time for the way there and back.
    pub fn reserve(self, reserve: Duration) -> ContextLayer {
        self.with(|config| config.reserve = reserve)
    }

    /// Has values of the context travel.
    pub fn propagate(self, propagation: Propagation) -> ContextLayer {
        self.with(|config| config.propagation = propagation)
    }
}

impl Config {
    /// Writes what the other side is to know. Not where there is no time left.
    fn prepare(&self, ctx: &Context, headers: &mut http::HeaderMap) -> Result<(), ErrorKind> {
        let left = ctx.remaining().map(|left| left.saturating_sub(self.reserve));
        let is_time = left != Some(Duration::ZERO) && self.deadlines.write_shorter(left, headers);
        if !is_time {
            return Err(ErrorKind::NoTime);
        }
        self.propagation.inject(ctx, headers);
        Ok(())
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService { inner, config: Arc::clone(&self.config) }
    }
}

/// A client whose requests end with their contexts. Made by [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(task).map_err(Error::service)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(ctx) = request.context().cloned() else {
            return ResponseFuture::refused(ErrorKind::NoContext, None);
        };
        if let Some(ended) = ctx.err() {
            return ResponseFuture::refused(ErrorKind::Ended, Some(ended));
        }
        match self.config.prepare(&ctx, request.headers_mut()) {
            Ok(()) => ResponseFuture::new(self.inner.call(request), ctx),
            Err(kind) => ResponseFuture::refused(kind, deadline_of(&ctx)),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextService")
            .field("inner", &self.inner)
            .field("config", &self.config)
            .finish()
    }
}

/// Gives a request its context.
///
/// ```
/// use purview::Context;
/// use purview_http::{RequestExt, client::WithContext};
/// # fn main() -> Result<(), http::Error> {
/// let (ctx, _guard) = Context::background().with_cancel();
/// let request = http::Request::get("http://localhost/").with_context(&ctx).body(())?;
/// assert_eq!(request.context(), Some(&ctx));
/// let request = http::Request::new(()).with_context(&ctx); // or afterwards
/// assert_eq!(request.context(), Some(&ctx));
/// # Ok(())
/// # }
/// ```
pub trait WithContext {
    /// The same request, under `ctx`.
    #[must_use]
    fn with_context(self, ctx: &Context) -> Self;
}

impl WithContext for http::request::Builder {
    fn with_context(self, ctx: &Context) -> Self {
        self.extension(ctx.clone())
    }
}

impl<B> WithContext for Request<B> {
    fn with_context(mut self, ctx: &Context) -> Self {
        self.extensions_mut().insert(ctx.clone());
        self
    }
}

/// The error of a context whose deadline leaves no time, as if it had passed.
fn deadline_of(ctx: &Context) -> Option<purview::Error> {
    let (passed, _guard) = ctx.derive().location(ctx.location()).timeout(Duration::ZERO).build();
    passed.err()
}

/// Whether a request may be sent again (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}
