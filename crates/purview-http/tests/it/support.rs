//! What several topics need.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use purview::Context;
use purview_http::BoxError;

/// Polls once.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(Waker::noop()))
}

/// Of what does not wait.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match poll_once(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// The data of a body's next frame.
pub(crate) fn next<B: Body<Data = Bytes>>(
    body: Pin<&mut B>,
) -> Poll<Option<Result<Bytes, B::Error>>> {
    let frame = body.poll_frame(&mut Task::from_waker(Waker::noop()));
    frame.map_ok(|frame: Frame<Bytes>| frame.into_data().unwrap_or_default())
}

/// All of a body that does not wait.
pub(crate) fn text<B: Body<Data = Bytes>>(body: B) -> String {
    let mut body = pin!(body);
    let mut all = Vec::new();
    while let Poll::Ready(Some(Ok(data))) = next(body.as_mut()) {
        all.extend(data);
    }
    String::from_utf8(all).expect("text")
}

/// The status, the headers and the whole body.
pub(crate) async fn read<B>(response: Response<B>) -> (StatusCode, HeaderMap, String)
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
}

/// A body of which the test says when a part comes, and when it ends.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<Mutex<(VecDeque<&'static str>, bool)>>);

impl Parts {
    pub(crate) fn send(&self, part: &'static str) {
        self.0.lock().expect("no panic").0.push_back(part);
    }

    pub(crate) fn end(&self) {
        self.0.lock().expect("no panic").1 = true;
    }

    /// As many as hold it, the test's own aside.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut parts = self.0.lock().expect("no panic");
        match parts.0.pop_front() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part.as_bytes()))))),
            None if parts.1 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Where a handler leaves its context for the test.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<Context>>>);

impl Seen {
    pub(crate) fn put(&self, ctx: &Context) {
        *self.0.lock().expect("no panic") = Some(ctx.clone());
    }

    pub(crate) fn ctx(&self) -> Context {
        self.0.lock().expect("no panic").clone().expect("a handler has begun")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().expect("no panic").is_none()
    }
}
