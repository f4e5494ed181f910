//! The answer's body, while it is read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use purview::{Context, Done};

use crate::BoxError;

pin_project! {
    /// An answer's body under its request's context: when that ends, reading ends with its [`Error`](purview::Error), also where there is
    /// more to read. What was read to the end is whole.
    ///
    /// `Unpin` where the service's body is, so that it can be read in a loop. That costs one allocation, for those that have to wait.
    pub struct ResponseBody<B> {
        #[pin]
        body: Option<B>,
        ctx: Context,
        done: Option<Pin<Box<Done<'static>>>>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, ctx: Context) -> Self {
        ResponseBody { body: Some(body), ctx, done: None }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // The end is asked for first: a body that always has more would never wait for it.
        if !this.ctx.is_done() || body.is_end_stream() {
            if let Poll::Ready(frame) = body.poll_frame(task) {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
        }
        let done = this.done.get_or_insert_with(|| Box::pin(this.ctx.clone().into_done()));
        let ended = ready!(done.as_mut().poll(task));
        this.body.set(None); // the connection is not kept for the rest of it
        Poll::Ready(Some(Err(ended.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An empty body, for layers around this one that make responses of their own.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        ResponseBody { body: None, ctx: Context::background(), done: None }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
