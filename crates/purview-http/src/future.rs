//! The response's future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use purview::Done;

use crate::answer::Answer;
use crate::body::ResponseBody;
use crate::propagation::RequestId;
use crate::request::Running;

pin_project! {
    /// The future of a [`ContextService`](crate::ContextService)'s response.
    ///
    /// # Cancel safety
    /// Dropping it drops the handler, and ends the request's context: the client has gone.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<F> {
        Refused { answer: Option<(Answer, Option<RequestId>)> },
        // In the order in which they are dropped: the client's going is told first, so that it is the cause that the handler's own
        // contexts end with, and not a guard of the handler's.
        Running {
            running: Option<Running>,
            #[pin]
            handler: Option<F>,
            #[pin]
            done: Done<'static>,
            is_begun: bool,
        },
    }
}

impl<F> ResponseFuture<F> {
    /// The layer's answer to a request that does not reach its handler, and the id that it says.
    pub(crate) fn refused(answer: Answer, id: Option<RequestId>) -> Self {
        ResponseFuture { state: State::Refused { answer: Some((answer, id)) } }
    }

    pub(crate) fn new(handler: F, running: Running) -> Self {
        let done = running.dropped().clone().into_done();
        let (handler, running) = (Some(handler), Some(running));
        ResponseFuture { state: State::Running { handler, done, running, is_begun: false } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Refused { answer } => {
                let Some((answer, id)) = answer.take() else { return Poll::Pending };
                let mut response = answer.into_response();
                id.iter().for_each(|id| id.write(response.headers_mut()));
                Poll::Ready(Ok(response))
            }
            Projected::Running { mut handler, done, running, is_begun } => {
                let Some(mut handling) = handler.as_mut().as_pin_mut() else {
                    return Poll::Pending;
                };
                // A handler that has no time any more does not begin.
                if !std::mem::replace(is_begun, true) {
                    if let Some(ended) = running.as_ref().and_then(|it| it.request().err()) {
                        handler.set(None);
                        let Some(running) = running.take() else { return Poll::Pending };
                        return Poll::Ready(Ok(of_layer(&ended, running)));
                    }
                }
                // First, so that an answer that is there is not thrown away. If its context is done only after that, it is polled once
                // more: it may have an answer as soon as it sees the end.
                let polled = match handling.as_mut().poll(task) {
                    Poll::Ready(result) => Ok(result),
                    Poll::Pending => {
                        let ended = ready!(done.poll(task));
                        match handling.poll(task) {
                            Poll::Ready(result) => Ok(result),
                            Poll::Pending => Err(ended),
                        }
                    }
                };
                handler.set(None);
                let Some(mut running) = running.take() else { return Poll::Pending };
                Poll::Ready(match polled {
                    Ok(Ok(response)) => Ok(of_handler(response, running, task)),
                    Ok(Err(err)) => {
                        running.finish();
                        Err(err)
                    }
                    Err(ended) => Ok(of_layer(&ended, running)),
                })
            }
        }
    }
}

/// The handler's response, as long as there is something of it to be sent.
fn of_handler<R: Body<Data = Bytes>>(
    mut response: Response<R>,
    running: Running,
    task: &mut Task<'_>,
) -> Response<ResponseBody<R>> {
    let ended = running.ended();
    running.sign(response.headers_mut());
    let (parts, body) = response.into_parts();
    let body = match ended {
        None => ResponseBody::new(body, &parts.headers, running),
        Some(ended) => match ResponseBody::late(body, &parts.headers, running, task) {
            Ok(body) => body,
            Err(running) => return of_layer(&ended, running),
        },
    };
    Response::from_parts(parts, body)
}

/// The layer's answer to a request whose context is done.
fn of_layer<R: Body<Data = Bytes>>(
    ended: &purview::Error,
    mut running: Running,
) -> Response<ResponseBody<R>> {
    running.finish();
    let mut response = Answer::of_end(ended, running.form).into_response();
    running.sign(response.headers_mut());
    response
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
