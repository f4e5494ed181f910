//! A request on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use purview::{Context, Done};

use super::body::ResponseBody;
use super::error::{Error, ErrorKind};
use crate::BoxError;

pin_project! {
    /// The future of a [`ContextService`](super::ContextService)'s response.
    ///
    /// # Cancel safety
    /// Dropping it drops the request.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<F> {
        Refused { why: Option<(ErrorKind, Option<purview::Error>)> },
        Sent {
            #[pin]
            sent: Option<F>,
            #[pin]
            done: Done<'static>,
            ctx: Context,
            is_begun: bool,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn refused(kind: ErrorKind, ended: Option<purview::Error>) -> Self {
        ResponseFuture { state: State::Refused { why: Some((kind, ended)) } }
    }

    pub(super) fn new(sent: F, ctx: Context) -> Self {
        let done = ctx.clone().into_done();
        ResponseFuture { state: State::Sent { sent: Some(sent), done, ctx, is_begun: false } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<R>>, Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Refused { why } => match why.take() {
                Some((kind, ended)) => Poll::Ready(Err(Error::new(kind, ended))),
                None => Poll::Pending,
            },
            Projected::Sent { mut sent, done, ctx, is_begun } => {
                let Some(sending) = sent.as_mut().as_pin_mut() else { return Poll::Pending };
                // Nothing is sent for a context that is done.
                if !std::mem::replace(is_begun, true) {
                    if let Some(ended) = ctx.err() {
                        sent.set(None);
                        return Poll::Ready(Err(Error::new(ErrorKind::Ended, Some(ended))));
                    }
                }
                // First, so that an answer that is there is not thrown away.
                if let Poll::Ready(result) = sending.poll(task) {
                    sent.set(None);
                    let under = |response: Response<R>| {
                        response.map(|body| ResponseBody::new(body, ctx.clone()))
                    };
                    return Poll::Ready(result.map(under).map_err(Error::service));
                }
                let ended = ready!(done.poll(task));
                sent.set(None);
                Poll::Ready(Err(Error::new(ErrorKind::Ended, Some(ended))))
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
