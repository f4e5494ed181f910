//! Whether the client is still there, while nobody reads from it.
//!
//! hyper notices that a client is gone when it reads, and it does not always: not while a part of the request's body lies unread, nor when
//! bytes of a next request lie behind this one. The system knows without a read, and tells.
//!
//! ```text
//! RST   the client is gone
//! FIN   it sends no more. It is gone, or it only has no more to say, and reads
//! ```
//! After a FIN the two look the same until the client is sent something: who is gone answers with RST, who reads, reads. So it is sent
//! something: the first letter of the answer that it waits for, which is the same for all of them; when that has begun, and comes in
//! chunks, a zero before the next one's size (line.rs). Of an answer whose length was said, the next piece does the same; where
//! there is none for long, TCP's own keepalive, as soon as the client's system has forgotten the connection: on Linux, after a
//! minute.
//!
//! It is tempting to take every FIN for a client that is gone, as hyper does unless it is told otherwise; but `shutdown(SHUT_WR)` is
//! legal, and `nc` does it. Where the system does not tell of a FIN without a read (not on Linux), hyper's way is all there is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::line::{Awaited, Line};

/// Whether the system tells of a client's end without a read.
pub(super) const IS_TOLD: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Ready when the client of `line` is gone for certain.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) async fn gone(line: &Line, half_closed: HalfClosed) {
    use std::future::poll_fn;
    use std::pin::pin;
    use tokio::io::Interest;

    // tokio reports the end of what can be read under this interest, too, and not what can be read.
    match line.socket.ready(Interest::PRIORITY | Interest::ERROR).await {
        Ok(ready) if ready.is_error() => return,
        Ok(ready) if !ready.is_read_closed() => return std::future::pending().await,
        Ok(_fin) if half_closed == HalfClosed::Gone => return,
        Ok(_fin) => {}
        Err(_the_runtime_ends) => return,
    }
    let mut reset = pin!(line.socket.ready(Interest::ERROR));
    // Polled after hyper, by the same task: whatever has become of the request, it is seen here.
    poll_fn(|task| match line.poll_send_ahead(task) {
        Poll::Ready(Err(_gone)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => reset.as_mut().poll(task).map(drop),
    })
    .await;
}

/// Never ready: hyper finds out.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) async fn gone(_line: &Line, _half_closed: HalfClosed) {
    std::future::pending().await
}

/// What a client is that sends no more, and has not got the whole answer. See [`Server::half_closed`](super::Server::half_closed).
///
/// ```
/// use purview_http::serve::HalfClosed;
/// assert_eq!(HalfClosed::default(), HalfClosed::Served);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum HalfClosed {
    /// It may still read: it is served, until it is certain that it does not.
    #[default]
    Served,
    /// It is gone, whether it reads or not.
    Gone,
}

/// Notes on the line what a request waits for.
pub(super) struct Watched<S> {
    service: S,
    line: Arc<Line>,
}

impl<S> Watched<S> {
    pub(super) fn new(service: S, line: Arc<Line>) -> Watched<S> {
        Watched { service, line }
    }
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<WatchedBody<B>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // In HTTP/2 all is read at all times, and the protocol tells of ends.
        let is_watched = request.version() < Version::HTTP_2;
        let waiting = is_watched.then(|| Waiting::new(Arc::clone(&self.line)));
        let takes_chunks =
            request.version() == Version::HTTP_11 && request.method() != Method::HEAD;
        Answering { answering: self.service.call(request), waiting, takes_chunks }
    }
}

pin_project! {
    /// Until the answer begins.
    pub(super) struct Answering<F> {
        #[pin]
        answering: F,
        waiting: Option<Waiting>,
        takes_chunks: bool,
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<WatchedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answering.poll(task))?;
        let mut waiting = this.waiting.take();
        if *this.takes_chunks && is_chunked(&response) {
            waiting.iter().for_each(|waiting| waiting.0.awaits(Awaited::Chunk));
        } else {
            waiting = None;
        }
        Poll::Ready(Ok(response.map(|body| WatchedBody { body, waiting })))
    }
}

/// Whether hyper sends it in chunks, for certain. An answer that was had from elsewhere, and is passed on, may say so itself, and may have
/// come by HTTP/2: hyper makes HTTP/1.1 of it.
fn is_chunked<B: Body>(response: &Response<B>) -> bool {
    let says = |name| response.headers().contains_key(name);
    let status = response.status();
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    matches!(response.version(), Version::HTTP_11 | Version::HTTP_2)
        && !(has_none || says(header::CONTENT_LENGTH))
        && !response.body().is_end_stream()
        && response.body().size_hint().exact().is_none()
}

pin_project! {
    /// Until all of the answer has been handed over.
    pub(super) struct WatchedBody<B> {
        #[pin]
        body: B,
        waiting: Option<Waiting>,
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.body.as_mut().poll_frame(task));
        let goes_on = matches!(&polled, Some(Ok(frame)) if frame.is_data());
        if !goes_on || this.body.is_end_stream() {
            *this.waiting = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection of HTTP/1 has one at a time.
struct Waiting(Arc<Line>);

impl Waiting {
    fn new(line: Arc<Line>) -> Waiting {
        line.awaits(Awaited::Answer);
        Waiting(line)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.awaits(Awaited::Nothing);
    }
}
