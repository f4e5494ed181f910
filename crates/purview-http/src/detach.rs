//! Handlers that run on for a while when nobody waits for them any more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use purview::shutdown::Phase;
use purview::{Context, Key, OnFailure, TaskInfo};
use purview_tokio::TaskGroup;
use tokio::sync::oneshot;
use tower_layer::Layer;
use tower_service::Service;

use crate::answer::{Answer, Form, Style};
use crate::body::ResponseBody;
use crate::extract::RequestExt;

/// Lets handlers run on when their request has ended, as tasks that were told to stop, for a grace; then they are dropped.
///
/// Servers drop the handler when its client goes away, wherever it is. What it was in the middle of stays half done. With this
/// layer, inside a [`ContextLayer`](crate::ContextLayer), a handler is a task of a group: it sees its context end, and comes to an end of its
/// own. The client of a request whose time is up does not wait for that.
///
/// A shutdown waits for handlers within its phases, and its report names those that are left: the drain of a
/// `serve::Server`, if this layer is below that server's context, or the [phase](Self::phase) that it is given.
///
/// It needs a tokio runtime, in which the service is called.
///
/// ```
/// use purview::Context;
/// use purview_http::{ContextLayer, DetachLayer};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
///
/// let (server, _stop) = Context::background().with_cancel();
/// let service = ServiceBuilder::new()
///     .layer(ContextLayer::new(&server).limit(Duration::from_secs(30)))
///     .layer(DetachLayer::new(&server, Duration::from_secs(5)))
///     .service(service_fn(async |_request: http::Request<()>| {
///         Ok::<_, std::io::Error>(http::Response::new(String::new())) // after some work
///     }));
/// # drop(service);
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing before it is put around a service"]
pub struct DetachLayer {
    shared: Arc<Shared>,
}

struct Shared {
    server: Context,
    grace: Duration,
    /// What waits for them.
    phase: Option<Phase>,
    /// Made in the first call, for it has to be made in the runtime.
    group: OnceLock<TaskGroup<purview::Error>>,
}

/// In the context of a server: the phase that waits for its requests.
pub(crate) static DRAIN: Key<Phase> = Key::new("drain");

impl DetachLayer {
    /// Handlers get `grace` after their request's end. No more of them are begun when `server` has ended.
    pub fn new(server: &Context, grace: Duration) -> DetachLayer {
        DetachLayer::of(server.clone(), grace, server.value(&DRAIN).cloned())
    }

    fn of(server: Context, grace: Duration, phase: Option<Phase>) -> DetachLayer {
        DetachLayer { shared: Arc::new(Shared { server, grace, phase, group: OnceLock::new() }) }
    }

    /// Has a phase of a shutdown wait for handlers that run, and no drain of a `serve::Server`.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// use purview_http::DetachLayer;
    /// use std::time::Duration;
    ///
    /// let (signal, _stop) = Context::background().with_cancel();
    /// let mut shutdown = Shutdown::new(&signal);
    /// let drain = shutdown.phase("drain", Duration::from_secs(20));
    /// let cancel = shutdown.phase("cancel", Duration::from_secs(5));
    /// let layer = DetachLayer::new(cancel.context(), Duration::from_secs(5)).phase(&drain);
    /// ```
    pub fn phase(self, phase: &Phase) -> DetachLayer {
        DetachLayer::of(self.shared.server.clone(), self.shared.grace, Some(phase.clone()))
    }

    /// The handlers that run, and have come to a first await, the oldest first.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.shared.group.get().map(TaskGroup::tasks).unwrap_or_default()
    }
}

impl Shared {
    fn group(&self) -> &TaskGroup<purview::Error> {
        self.group.get_or_init(|| {
            TaskGroup::builder(&self.server)
                .name("detached handlers")
                .on_failure(OnFailure::Isolate)
                .grace(self.grace)
                .build()
        })
    }
}

impl fmt::Debug for DetachLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachLayer")
            .field("grace", &self.shared.grace)
            .field("tasks", &self.tasks())
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for DetachLayer {
    type Service = DetachService<S>;

    fn layer(&self, inner: S) -> DetachService<S> {
        DetachService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// A service whose handlers are tasks. Made by [`DetachLayer`].
#[derive(Clone)]
pub struct DetachService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for DetachService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = DetachedFuture<R, S::Error>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(ctx) = request.context().cloned() else {
            return DetachedFuture::broken(
                "a DetachLayer is for inside a ContextLayer",
                Form::Plain,
            );
        };
        let form = Style::default().form(request.headers());
        let handler = self.inner.call(request);
        let (send, receive) = oneshot::channel();
        let grace = self.shared.grace;
        let request = ctx.clone();
        let hold = self.shared.phase.as_ref().map(|phase| phase.hold("detached handler"));
        let begun = self.shared.group().try_spawn(async move |_group| {
            let _hold = hold;
            ctx.check()?; // a handler that has no time any more does not begin
            let (grace_over, _guard) = ctx.with_grace(grace);
            let result = grace_over.run(handler).await?;
            let _ = send.send(result); // to whoever still waits
            Ok(())
        });
        match begun {
            Ok(()) => DetachedFuture { request: Some((request, receive)), form, answer: None },
            Err(_closed) => DetachedFuture::ended(self.shared.server.err(), form),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for DetachService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

type Receiver<R, E> = oneshot::Receiver<Result<Response<R>, E>>;

/// The future of a [`DetachService`]'s response.
///
/// # Cancel safety
/// Dropping it lets the handler run on, for as long as its grace after its context's end.
pub struct DetachedFuture<R, E> {
    request: Option<(Context, Receiver<R, E>)>,
    form: Form,
    answer: Option<Answer>,
}

impl<R, E> DetachedFuture<R, E> {
    fn broken(sentence: &str, form: Form) -> Self {
        DetachedFuture { request: None, form, answer: Some(Answer::broken(sentence, form)) }
    }

    /// Of a server that takes no more requests.
    fn ended(ended: Option<purview::Error>, form: Form) -> Self {
        let answer = match ended {
            Some(ended) => Answer::of_end(&ended, form),
            None => Answer::shutdown(form),
        };
        DetachedFuture { request: None, form, answer: Some(answer) }
    }
}

impl<R: Body<Data = Bytes>, E> Future for DetachedFuture<R, E> {
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        if let Some((_, receive)) = &mut self.request {
            let received = ready!(Pin::new(receive).poll(task));
            let ended = self.request.take().and_then(|(ctx, _)| ctx.err());
            match (received, ended) {
                (Ok(result), _) => {
                    return Poll::Ready(result.map(|response| response.map(ResponseBody::passed)));
                }
                (Err(_gone), Some(ended)) => self.answer = Some(Answer::of_end(&ended, self.form)),
                (Err(_gone), None) => {
                    let sentence = "the handler did not come to its end";
                    self.answer = Some(Answer::broken(sentence, self.form));
                }
            }
        }
        match self.answer.take() {
            Some(answer) => Poll::Ready(Ok(answer.into_response())),
            None => Poll::Pending,
        }
    }
}

impl<R, E> fmt::Debug for DetachedFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedFuture").finish_non_exhaustive()
    }
}
