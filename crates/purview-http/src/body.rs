//! The response's body: the request lasts until its last byte.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use purview::{CancelGuard, Context, Done};

use crate::BoxError;
use crate::request::Running;

pin_project! {
    /// A response's body under its request's context.
    ///
    /// When the context is done before the body is, the body breaks off with the context's [`Error`](purview::Error), so that no client
    /// takes half a response for a whole one. A response whose rest is at hand by then is sent whole, if that is no more than 16 frames. One
    /// of which nothing was read by then is not under way: what its body has at hand is read to its end, for up to 5 seconds, and it
    /// breaks off where it would wait.
    ///
    /// Dropped before its end, it ends the context: the client has gone.
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
            reading: Reading,
        },
        Passed { #[pin] body: B },
        Text { text: Option<Bytes> },
    }
}

pin_project! {
    #[project = ProjectedWatched]
    enum Watched<B> {
        Here { #[pin] body: B },
        // It was polled before the response was handed over, and must not move any more.
        Boxed { body: Pin<Box<B>> },
        Gone,
    }
}

impl<B> Watched<B> {
    fn as_pin_mut(self: Pin<&mut Self>) -> Option<Pin<&mut B>> {
        match self.project() {
            ProjectedWatched::Here { body } => Some(body),
            ProjectedWatched::Boxed { body } => Some(body.as_mut()),
            ProjectedWatched::Gone => None,
        }
    }

    fn get(&self) -> Option<&B> {
        match self {
            Watched::Here { body } => Some(body),
            Watched::Boxed { body } => Some(body),
            Watched::Gone => None,
        }
    }
}

/// How far the server has read a body.
#[derive(Default)]
struct Reading {
    /// It had a part of it before the context was done.
    is_under_way: bool,
    /// The last poll was pending, so the server has sent all that it had.
    has_waited: bool,
    /// Few bodies are still there when their context is done.
    late: Option<Box<Late>>,
}

/// What is needed of a body whose context is done.
#[derive(Default)]
struct Late {
    /// What was read ahead: the first frame, to know that there is one; or all that was left.
    frames: VecDeque<Frame<Bytes>>,
    /// Ends when the rest has to be there.
    last_call: Option<(Context, CancelGuard)>,
    /// Why it has broken off. The server is yet to hear it.
    broken: Option<BoxError>,
}

/// How long a response that was at hand when its context was done may take to be read.
const LAST_CALL: Duration = Duration::from_secs(5);

/// The most frames that are read ahead. A response that is made as a whole has fewer, and a stream may have more without an end.
const MOST_AHEAD: usize = 16;

/// All that is left of a body, if it is at hand: then a response that is under way is whole without a wait.
fn rest<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    task: &mut Task<'_>,
) -> Option<VecDeque<Frame<Bytes>>> {
    let mut frames = VecDeque::new();
    while !body.is_end_stream() {
        match body.as_mut().poll_frame(task) {
            Poll::Ready(Some(Ok(frame))) if frames.len() < MOST_AHEAD => frames.push_back(frame),
            Poll::Ready(None) => break,
            Poll::Ready(Some(_)) | Poll::Pending => return None,
        }
    }
    Some(frames)
}

impl Reading {
    fn late(&mut self) -> &mut Late {
        self.late.get_or_insert_default()
    }

    /// Whether the server has all that is kept here.
    fn is_read(&self) -> bool {
        self.late.as_ref().is_none_or(|late| late.frames.is_empty() && late.broken.is_none())
    }

    /// Whether a body whose context is done may be read on.
    fn goes_on(&self) -> bool {
        let is_over = |(last_call, _): &(Context, CancelGuard)| last_call.is_done();
        let last_call = self.late.as_ref().and_then(|late| late.last_call.as_ref());
        !self.is_under_way && !last_call.is_some_and(is_over)
    }

    /// The body is read on after `ended`, but not without an end.
    fn call_last(&mut self, ended: &Context) {
        self.late().last_call.get_or_insert_with(|| ended.with_grace(LAST_CALL));
    }

    /// Hands an error over, but not before the server has sent what it has. A server forgets what is in its buffers when a body fails,
    /// the head of the response included; it sends them when a body waits.
    fn break_off(&mut self, error: BoxError, task: &Task<'_>) -> Poll<BoxError> {
        if std::mem::replace(&mut self.has_waited, true) {
            return Poll::Ready(error);
        }
        let late = self.late();
        (late.last_call, late.broken) = (None, Some(error));
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<B: Body> ResponseBody<B> {
    /// The body of an answer with these headers.
    pub(crate) fn new(body: B, headers: &HeaderMap, mut running: Running) -> Self {
        // Nobody asks such a body for anything.
        if running.is_head || body.is_end_stream() {
            running.finish();
        }
        let left = said(headers).or(body.size_hint().exact());
        Self::served(Watched::Here { body }, left, running, Reading::default())
    }

    fn served(body: Watched<B>, left: Option<u64>, running: Running, reading: Reading) -> Self {
        let done = running.dropped().clone().into_done();
        ResponseBody { kind: Kind::Served { body, done, left, running: Some(running), reading } }
    }

    /// With nothing to watch over.
    pub(crate) fn passed(body: B) -> Self {
        ResponseBody { kind: Kind::Passed { body } }
    }

    pub(crate) fn text(text: Bytes) -> Self {
        ResponseBody { kind: Kind::Text { text: Some(text) } }
    }
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    /// The body of an answer whose context is done, of which the first frame is read here. Where it has none at hand, there is nothing to
    /// be sent: the duty is handed back, for an answer that is there.
    pub(crate) fn late(
        body: B,
        headers: &HeaderMap,
        mut running: Running,
        task: &mut Task<'_>,
    ) -> Result<Self, Running> {
        if running.is_head || body.is_end_stream() {
            return Ok(Self::new(body, headers, running));
        }
        let left = said(headers).or(body.size_hint().exact());
        let mut body = Box::pin(body);
        let first = match body.as_mut().poll_frame(task) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(None) => {
                // It is whole. A body need not bear another poll after its end.
                running.finish();
                return Ok(Self::served(Watched::Gone, left, running, Reading::default()));
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => return Err(running),
        };
        let mut reading = Reading::default();
        reading.late().frames.push_back(first);
        Ok(Self::served(Watched::Boxed { body }, left, running, reading))
    }
}

/// The length that headers give. A server need not ask for more than that.
fn said(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
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
            Projected::Served { mut body, done, left, running, reading } => {
                if let Some(error) = reading.late.as_mut().and_then(|late| late.broken.take()) {
                    return Poll::Ready(Some(Err(error)));
                }
                // Whether the context is done comes first: a body that always has more would never wait for it.
                let is_ended = running.as_ref().is_some_and(Running::is_ended);
                let ahead = reading.late.as_mut().and_then(|late| late.frames.pop_front());
                let polled = match body.as_mut().as_pin_mut() {
                    _ if ahead.is_some() => Poll::Ready(ahead.map(Ok)),
                    None => return Poll::Ready(None),
                    Some(serving) if is_ended && reading.is_under_way => {
                        match rest(serving, task) {
                            Some(mut frames) => {
                                body.set(Watched::Gone);
                                running.iter_mut().for_each(Running::finish);
                                let first = frames.pop_front();
                                reading.late().frames = frames;
                                Poll::Ready(first.map(Ok))
                            }
                            None => Poll::Pending,
                        }
                    }
                    Some(serving) if is_ended && !serving.is_end_stream() && !reading.goes_on() => {
                        Poll::Pending
                    }
                    Some(serving) => serving.poll_frame(task).map_err(Into::into),
                };
                let is_over = match polled {
                    Poll::Ready(Some(Ok(ref frame))) => {
                        reading.has_waited = false;
                        if let (Some(left), Some(data)) = (left.as_mut(), frame.data_ref()) {
                            *left = left.saturating_sub(data.len() as u64);
                        }
                        if let Some(running) = running.as_mut().filter(|_| *left == Some(0)) {
                            running.note_whole();
                        }
                        reading.is_read() && body.get().is_none_or(Body::is_end_stream)
                    }
                    Poll::Ready(Some(Err(error))) if is_ended => {
                        body.set(Watched::Gone);
                        *running = None;
                        return reading.break_off(error, task).map(|error| Some(Err(error)));
                    }
                    Poll::Ready(_) => true,
                    Poll::Pending => {
                        let Poll::Ready(ended) = done.poll(task) else {
                            reading.has_waited = true;
                            return Poll::Pending;
                        };
                        let was_answered = running.as_ref().is_some_and(Running::is_over);
                        body.set(Watched::Gone);
                        *running = None;
                        if was_answered {
                            return Poll::Ready(None);
                        }
                        return reading.break_off(ended.into(), task).map(|error| Some(Err(error)));
                    }
                };
                match running {
                    Some(running) if is_over => running.finish(),
                    Some(running) if is_ended && !running.is_over() => {
                        reading.call_last(running.dropped());
                    }
                    _ => reading.is_under_way = true,
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Text { text } => text.is_none(),
            Kind::Served { body, reading, .. } => {
                reading.is_read() && body.get().is_none_or(Body::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Text { text } => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Served { body, reading, .. } => {
                let rest = body.get().map(Body::size_hint);
                let frames = reading.late.iter().flat_map(|late| &late.frames);
                let ahead = frames.filter_map(|frame| Some(frame.data_ref()?.len() as u64));
                behind(ahead.sum(), rest)
            }
        }
    }
}

/// The size of `ahead` bytes and what comes after them.
fn behind(ahead: u64, rest: Option<SizeHint>) -> SizeHint {
    let rest = rest.unwrap_or_else(|| SizeHint::with_exact(0));
    let mut size = SizeHint::new();
    size.set_lower(rest.lower().saturating_add(ahead));
    if let Some(upper) = rest.upper() {
        size.set_upper(upper.saturating_add(ahead));
    }
    size
}

/// An empty body, for layers around this one that make responses of their own.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        ResponseBody { kind: Kind::Text { text: None } }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
