//! Work that ends with its context.
#![expect(unsafe_code, reason = "projects a pin to the work it wraps")]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use crate::Context;
use crate::done::Done;
use crate::error::Error;

/// Work under a context, made by [`Context::run`].
///
/// On a context that is done already, the work is never polled. Later it is polled first, so that a result that is ready is
/// not thrown away; if it is pending and the context has ended, it is dropped and the output is the context's error.
///
/// Polled again after that, it gives the context's error if that has ended, and otherwise stays pending.
///
/// # Cancel safety
/// Dropping it drops the work, and leaves nothing behind.
#[must_use = "a future does nothing unless it is polled"]
pub struct Run<'a, F> {
    done: Done<'a>,
    /// None once it is over.
    work: Option<F>,
    started: bool,
}

impl<'a, F> Run<'a, F> {
    pub(crate) fn new(context: &'a Context, work: F) -> Self {
        Run { done: Done::borrowed(context), work: Some(work), started: false }
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output, Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        // SAFETY: both fields are pinned with the whole; `work` is only ever dropped in place.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let done = unsafe { Pin::new_unchecked(&mut this.done) };
        // SAFETY: as above.
        let mut work = unsafe { Pin::new_unchecked(&mut this.work) };
        let skip = !std::mem::replace(&mut this.started, true) && done.is_terminated();
        if let Some(running) = work.as_mut().as_pin_mut().filter(|_| !skip) {
            if let Poll::Ready(output) = running.poll(task) {
                work.set(None);
                done.stop();
                return Poll::Ready(Ok(output));
            }
        }
        match done.poll(task) {
            Poll::Ready(err) => {
                work.set(None);
                Poll::Ready(Err(err))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for Run<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("context", self.done.context())
            .field("finished", &self.work.is_none())
            .finish_non_exhaustive()
    }
}
