//! The response's body: the request lasts until its last byte.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use purview::Done;

use crate::BoxError;
use crate::request::Running;

pin_project! {
    /// A response's body under its request's context.
    ///
    /// When the context ends before the body does, the body breaks off: with the context's [`Error`](purview::Error), so that no client
    /// takes half an answer for a whole one. Dropped before its end, it ends the context: the client has gone.
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = Projected]
    enum Kind<B> {
        // In the order in which they are dropped: as in the response's future.
        Served {
            running: Option<Running>,
            #[pin]
            body: Watched<B>,
            #[pin]
            done: Done<'static>,
            left: Option<u64>,
        },
        Passed { #[pin] body: B },
        Text { text: Option<Bytes> },
    }
}

pin_project! {
    struct Watched<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// The body of an answer with these headers.
    pub(crate) fn new(body: B, headers: &HeaderMap, mut running: Running) -> Self {
        let done = running.dropped().clone().into_done();
        // Nobody asks such a body for anything.
        if running.is_head || body.is_end_stream() {
            running.finish();
        }
        // A server need not ask for more than it has said that there is.
        let said =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let left = said.or(body.size_hint().exact());
        let body = Watched { body: Some(body) };
        ResponseBody { kind: Kind::Served { body, done, left, running: Some(running) } }
    }

    /// With nothing to watch over.
    pub(crate) fn passed(body: B) -> Self {
        ResponseBody { kind: Kind::Passed { body } }
    }

    pub(crate) fn text(text: Bytes) -> Self {
        ResponseBody { kind: Kind::Text { text: Some(text) } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            Projected::Passed { body } => body.poll_frame(task).map_err(Into::into),
            Projected::Text { text } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Projected::Served { body, done, left, running } => {
                let mut body = body.project().body;
                let Some(serving) = body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
                // The end is asked for first: a body that always has more would never wait for it.
                let is_ended = running.as_ref().is_some_and(Running::is_ended);
                let polled = if is_ended && !serving.is_end_stream() {
                    Poll::Pending
                } else {
                    serving.poll_frame(task)
                };
                let is_over = match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let (Some(left), Some(data)) = (left.as_mut(), frame.data_ref()) {
                            *left = left.saturating_sub(data.len() as u64);
                        }
                        if let Some(running) = running.as_mut().filter(|_| *left == Some(0)) {
                            running.note_whole();
                        }
                        body.as_ref().as_pin_ref().is_none_or(|body| body.is_end_stream())
                    }
                    Poll::Ready(_) => true,
                    Poll::Pending => {
                        let ended = ready!(done.poll(task));
                        let was_answered = running.as_ref().is_some_and(Running::is_over);
                        body.set(None);
                        *running = None;
                        let error = (!was_answered).then(|| Err(BoxError::from(ended)));
                        return Poll::Ready(error);
                    }
                };
                if is_over {
                    if let Some(running) = running {
                        running.finish();
                    }
                }
                polled.map_err(Into::into)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Text { text } => text.is_none(),
            Kind::Served { body, .. } => body.body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Text { text } => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Served { body, .. } => {
                body.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
            }
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
