//! The layer that gives each request its context.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use purview::{Cause, Context};
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{Answer, Style};
use crate::body::ResponseBody;
use crate::deadline::DeadlineHeaders;
use crate::ended::RequestEnded;
use crate::future::ResponseFuture;
use crate::names::intern;
use crate::propagation::Propagation;
use crate::request::Running;

/// Gives each request a context below the server's: with a deadline, a name, and an end whose cause says what happened. The
/// context is in the request's extensions, and lasts until the last byte of the answer.
///
/// - The deadline is the earlier of the server's [limit](Self::limit) and what the client asks for in the
///   [headers that are believed](Self::believe), less the [reserve](Self::reserve). When it passes, the handler is dropped, and the
///   answer is 504, unless the handler has an answer by then: a response whose body is at hand is sent whole. A stream that is under way
///   breaks off with an error.
/// - Where no time is left, or less than a millisecond of what the client gives, the answer is 504 and the service is not called.
/// - When the client goes away, the handler or the body is dropped, and the context ends with that as the cause; so do all tasks
///   and threads that were given it.
/// - When the server's own context ends, requests are answered with 503, and new ones do not reach the service.
///
/// ```
/// use purview::Context;
/// use purview_http::{ContextLayer, RequestExt, deadline::{DeadlineHeader, DeadlineHeaders}};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (server, _stop) = Context::background().with_cancel();
/// let service = ServiceBuilder::new()
///     .layer(
///         ContextLayer::new(&server)
///             .limit(Duration::from_secs(30))
///             .believe(DeadlineHeaders::new([DeadlineHeader::relative()])),
///     )
///     .service(service_fn(async |request: http::Request<()>| {
///         let ctx = request.context().expect("the layer is there");
///         assert!(ctx.remaining() <= Some(Duration::from_millis(10)));
///         std::future::pending::<()>().await;
///         Ok::<_, std::io::Error>(http::Response::new(String::new()))
///     }));
/// let request = http::Request::get("/").header("x-request-timeout", "10ms").body(())?;
/// assert_eq!(service.oneshot(request).await?.status(), 504);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing before it is put around a service"]
pub struct ContextLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(crate) struct Config {
    server: Context,
    /// Where a deadline is said to come from.
    location: &'static Location<'static>,
    limit: Option<Duration>,
    reserve: Duration,
    grace: Duration,
    believed: DeadlineHeaders,
    propagation: Propagation,
    name: Option<fn(&Parts) -> Option<&str>>,
    style: Style,
    causes: Causes,
}

/// Less than that is no time for a handler to do anything in.
const LEAST: Duration = Duration::from_millis(1);

/// Made once: to be counted is all that a request does with them.
#[derive(Clone)]
pub(crate) struct Causes {
    pub(crate) client_gone: Cause,
    pub(crate) timed_out: Cause,
    pub(crate) panicked: Cause,
    pub(crate) finished: Cause,
}

impl ContextLayer {
    /// Requests' contexts are below `server`.
    #[track_caller]
    pub fn new(server: &Context) -> ContextLayer {
        let config = Config {
            server: server.clone(),
            location: Location::caller(),
            limit: None,
            reserve: Duration::ZERO,
            grace: Duration::ZERO,
            believed: DeadlineHeaders::default(),
            propagation: Propagation::new(),
            name: None,
            style: Style::default(),
            causes: Causes {
                client_gone: Cause::from(RequestEnded::ClientGone),
                timed_out: Cause::from(RequestEnded::TimedOut),
                panicked: Cause::from(RequestEnded::Panicked),
                finished: Cause::from(RequestEnded::Finished),
            },
        };
        ContextLayer { config: Arc::new(config) }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> ContextLayer {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// No request takes longer, whatever its client asks for.
    pub fn limit(self, limit: Duration) -> ContextLayer {
        self.with(|config| config.limit = Some(limit))
    }

    /// Keeps so much of the time that a client gives for the way back, so that the 504 comes before it has stopped waiting.
    pub fn reserve(self, reserve: Duration) -> ContextLayer {
        self.with(|config| config.reserve = reserve)
    }

    /// Gives a handler, or a stream, so long after the end of its context for an answer of its own, or for what it still has to say;
    /// then it is dropped. Without it, it is dropped at once. The [reserve](Self::reserve) should be no less.
    pub fn grace(self, grace: Duration) -> ContextLayer {
        self.with(|config| config.grace = grace)
    }

    /// Believes what these headers say. Without this, no header is: at the edge, anybody can write anything into them.
    pub fn believe(self, headers: DeadlineHeaders) -> ContextLayer {
        self.with(|config| config.believed = headers)
    }

    /// Gives contexts the values that travel, and each request an id where they say so. Without this, none do.
    pub fn propagate(self, propagation: Propagation) -> ContextLayer {
        self.with(|config| config.propagation = propagation)
    }

    /// Names contexts after the route, which `route` finds: in axum, `MatchedPath`. The name is the method and the route,
    /// `GET /users/{id}`; for a method that no standard knows, the route alone.
    ///
    /// Names are kept for the life of the process: those of the first thousand routes, of up to 256 bytes. Paths of requests are no
    /// routes.
    pub fn name(self, route: fn(&Parts) -> Option<&str>) -> ContextLayer {
        self.with(|config| config.name = Some(route))
    }

    /// Answers with a body of this style where there is no answer of the handler's. The default goes by the request's `Accept`.
    pub fn style(self, style: Style) -> ContextLayer {
        self.with(|config| config.style = style)
    }
}

impl fmt::Debug for ContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextLayer")
            .field("server", &self.config.server)
            .field("limit", &self.config.limit)
            .field("reserve", &self.config.reserve)
            .field("believed", &self.config.believed)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService { inner, config: Arc::clone(&self.config) }
    }
}

/// A service whose requests have contexts. Made by [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let config = &self.config;
        let form = config.style.form(&parts.headers);
        let refuse = |answer, headers| {
            ResponseFuture::refused(answer, config.propagation.request_id_without_context(headers))
        };
        if let Some(ended) = config.server.err() {
            return refuse(Answer::of_end(&ended, form), &parts.headers);
        }
        let left = match config.believed.read(&parts.headers) {
            Ok(left) => left,
            Err(invalid) => return refuse(Answer::refusal(&invalid, form), &parts.headers),
        };
        let (ctx, guard) = config.derive(&parts, left);
        if let Some(ended) = ctx.err() {
            let id = config.propagation.request_id_of(&ctx).cloned();
            return ResponseFuture::refused(Answer::of_end(&ended, form), id);
        }
        parts.extensions.insert(ctx.clone());
        let dropped = if config.grace.is_zero() {
            ctx
        } else {
            let (late, guard) = ctx.with_grace(config.grace);
            let _ = guard.disarm();
            late
        };
        let is_head = parts.method == Method::HEAD;
        let running = Running::new(guard, dropped, Arc::clone(config), form, is_head);
        let inner = self.inner.call(Request::from_parts(parts, body));
        ResponseFuture::new(inner, running)
    }
}

impl Config {
    pub(crate) fn causes(&self) -> &Causes {
        &self.causes
    }

    pub(crate) fn propagation(&self) -> &Propagation {
        &self.propagation
    }

    fn derive(&self, parts: &Parts, left: Option<Duration>) -> (Context, purview::CancelGuard) {
        let mut context = self.server.derive().location(self.location);
        let theirs = left.map(|left| left.saturating_sub(self.reserve));
        let theirs = theirs.map(|left| if left < LEAST { Duration::ZERO } else { left });
        if let Some(time) = self.limit.into_iter().chain(theirs).min() {
            context = context.timeout(time).deadline_cause(self.causes.timed_out.clone());
        }
        let route = self.name.and_then(|route| route(parts));
        if let Some(name) = route.and_then(|route| intern(&parts.method, route)) {
            context = context.name(name);
        }
        if !self.propagation.is_none() {
            context = self.propagation.extract(&parts.headers, context);
        }
        context.build()
    }
}

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
