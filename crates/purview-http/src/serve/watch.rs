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
//! something: the first letter of the answer that it waits for, which is the same for all of them (line.rs). When the answer has
//! begun, its next piece does the same; where there is none for long, TCP's own keepalive, as soon as the client's system has
//! forgotten the connection: on Linux, after a minute.
//!
//! It is tempting to take every FIN for a client that is gone, as hyper does unless it is told otherwise; but `shutdown(SHUT_WR)` is
//! legal, and `nc` does it. Where the system does not tell of a FIN without a read (not on Linux), hyper's way is all there is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Task, Poll};

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::line::Line;

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

/// Notes on the line that a request waits for its answer.
pub(super) struct Watched<S> {
    service: S,
    line: Arc<Line>,
}

impl<S> Watched<S> {
    pub(super) fn new(service: S, line: Arc<Line>) -> Watched<S> {
        Watched { service, line }
    }
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // In HTTP/2 all is read at all times, and the protocol tells of ends.
        let is_watched = request.version() < Version::HTTP_2;
        let awaited = is_watched.then(|| Awaited::new(Arc::clone(&self.line)));
        Answering { answering: self.service.call(request), awaited }
    }
}

pin_project! {
    /// Until the answer begins.
    pub(super) struct Answering<F> {
        #[pin]
        answering: F,
        awaited: Option<Awaited>,
    }
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.answering.poll(task);
        if polled.is_ready() {
            *this.awaited = None;
        }
        polled
    }
}

/// A connection of HTTP/1 has one at a time.
struct Awaited(Arc<Line>);

impl Awaited {
    fn new(line: Arc<Line>) -> Awaited {
        line.is_awaited.store(true, Ordering::Relaxed);
        Awaited(line)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.is_awaited.store(false, Ordering::Relaxed);
    }
}
