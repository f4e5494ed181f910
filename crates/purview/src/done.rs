//! The end of a context as a future, for tasks and for threads.
#![expect(unsafe_code, reason = "the future is pinned and listed at its context's node by pointer")]

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context as Task, Poll, RawWakerVTable};
use std::time::{Duration, Instant};

use crate::Context;
use crate::clock::Tick;
use crate::error::Error;
use crate::park::block_on;
use crate::sleep::Alarm;
use crate::tree::Node;
use crate::waiter::{Waiter, Who};

/// The future of a context's end, made by [`Context::done`] and [`Context::into_done`].
///
/// Its output is the context's [`Error`]. It works on any executor, and [on a plain thread](Done::wait). Polling it again
/// after that gives the same error again.
///
/// Waiting allocates nothing: the future itself is listed at its context, so it has to be pinned, as `.await`, `select!` and
/// `pin!` do.
///
/// # Cancel safety
/// Dropping it leaves nothing behind, in O(1).
///
/// ```
/// use purview::Context;
/// use std::thread;
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// thread::scope(|s| {
///     s.spawn(|| cancel.cancel_with("enough"));
///     assert_eq!(ctx.done().wait().to_string(), "context canceled: enough");
/// });
/// ```
#[must_use = "a future does nothing unless it is polled or waited for"]
pub struct Done<'a> {
    context: Handle<'a>,
    waiter: Waiter,
    /// The task that is listed, as its waker's two words, so that a poll by the same task need not look under the lock. The
    /// waker itself lies in the waiter, so its words are nobody else's while it is listed.
    task: Option<(*const (), &'static RawWakerVTable)>,
}

/// Owned and borrowed futures are one type.
enum Handle<'a> {
    Borrowed(&'a Context),
    Owned(Context),
}

impl Handle<'_> {
    fn context(&self) -> &Context {
        match self {
            Handle::Borrowed(context) => context,
            Handle::Owned(context) => context,
        }
    }
}

impl<'a> Done<'a> {
    pub(crate) fn borrowed(context: &'a Context) -> Self {
        Done { context: Handle::Borrowed(context), waiter: Waiter::new(), task: None }
    }

    /// Blocks the thread until the context ends.
    ///
    /// # Blocking
    /// For ever, if the context never ends. Not for use inside async code.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    /// assert!(ctx.done().wait().is_deadline_exceeded());
    /// ```
    pub fn wait(self) -> Error {
        block_on(pin!(self))
    }

    /// Blocks the thread until the context ends, or for `timeout` on the context's clock: then None.
    ///
    /// # Blocking
    /// At most for `timeout`, and what it takes to be woken.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_cancel();
    /// assert!(ctx.done().wait_timeout(Duration::from_millis(1)).is_none());
    /// ```
    #[must_use]
    pub fn wait_timeout(self, timeout: Duration) -> Option<Error> {
        let at = self.context().clock().now().after(timeout);
        self.wait_until(at)
    }

    /// Blocks the thread until the context ends, or until `at` on the context's clock: then None.
    ///
    /// # Blocking
    /// Until `at`, and what it takes to be woken.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Instant;
    /// let (ctx, _guard) = Context::background().with_cancel();
    /// assert!(ctx.done().wait_deadline(Instant::now()).is_none());
    /// ```
    #[must_use]
    pub fn wait_deadline(self, at: Instant) -> Option<Error> {
        self.wait_until(Tick::from_instant(at))
    }

    fn wait_until(self, at: Tick) -> Option<Error> {
        let alarm = Alarm::new(self.context().clock(), at);
        block_on(pin!(Either { alarm, done: self })).err()
    }

    /// Whether the context has ended, so that a poll would be ready.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let done = ctx.done();
    /// assert!(!done.is_terminated());
    /// cancel.cancel();
    /// assert!(done.is_terminated());
    /// ```
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.context().is_done()
    }

    /// Waits no longer; a poll would begin anew.
    pub(crate) fn stop(self: Pin<&mut Self>) {
        // SAFETY: nothing is moved out.
        unsafe { self.get_unchecked_mut() }.leave();
    }

    pub(crate) fn context(&self) -> &Context {
        self.context.context()
    }

    fn node(&self) -> &Node {
        self.context().scope()
    }

    /// Takes the waiter out of its list.
    fn leave(&mut self) {
        if self.task.take().is_some() {
            // SAFETY: it was only ever listed at this node.
            drop(unsafe { self.node().leave(&self.waiter) });
        }
    }
}

impl Done<'static> {
    pub(crate) fn owned(context: Context) -> Self {
        Done { context: Handle::Owned(context), waiter: Waiter::new(), task: None }
    }
}

impl Future for Done<'_> {
    type Output = Error;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Error> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        if let Some(ending) = this.node().ending() {
            this.leave();
            return Poll::Ready(Error::new(ending));
        }
        if !this.node().can_be_done() {
            return Poll::Pending;
        }
        if this.task.is_some_and(|(data, vtable)| {
            data == task.waker().data() && std::ptr::eq(vtable, task.waker().vtable())
        }) && this.waiter.listed().is_some()
        {
            return Poll::Pending;
        }
        let waker = task.waker().clone();
        let words = (waker.data(), waker.vtable());
        let mut who = Who::Task(waker);
        if this.task.is_some() {
            // SAFETY: it waits at this node or at none.
            match unsafe { this.node().change(&this.waiter, who) } {
                Ok(old) => {
                    this.task = Some(words);
                    drop(old); // nothing is locked
                    return Poll::Pending;
                }
                Err(back) => who = back,
            }
        }
        // SAFETY: the waiter is in no list, is pinned with this future, and leaves when the future is dropped.
        match unsafe { this.node().enroll(&this.waiter, who) } {
            Ok(()) => {
                this.task = Some(words);
                this.node().watch();
            }
            Err(who) => drop(who),
        }
        // The deadline may have passed while it was being armed, in which case nobody comes to wake us; and the end may
        // have come while we were on our way, in which case we were not listed.
        match this.node().ending() {
            Some(ending) => {
                this.leave();
                Poll::Ready(Error::new(ending))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

// SAFETY: the waiter is guarded by its node's lock, wakers are `Send + Sync`, and so are contexts.
unsafe impl Send for Done<'_> {}
// SAFETY: as above; a shared reference gives no access to the waiter.
unsafe impl Sync for Done<'_> {}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").field("context", self.context()).finish()
    }
}

/// The end, or an alarm before it: what a sleep and a wait with a limit wait for.
pub(crate) struct Either<'a> {
    /// Dropped first: it leaves a clock that the other may be the last to keep.
    pub(crate) alarm: Alarm,
    pub(crate) done: Done<'a>,
}

impl Future for Either<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        // SAFETY: both fields are pinned with the whole, and neither is moved.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let done = unsafe { Pin::new_unchecked(&mut this.done) };
        if let Poll::Ready(err) = done.poll(task) {
            return Poll::Ready(Err(err));
        }
        // SAFETY: as above.
        let alarm = unsafe { Pin::new_unchecked(&mut this.alarm) }.poll(task);
        let node = this.done.node();
        if alarm.is_ready() && node.deadline() <= this.alarm.at() {
            // Both come at once, and the end wins. Nobody may be about to note it: this may be the timer's own thread.
            if let Some(ending) = node.note_deadline() {
                return Poll::Ready(Err(Error::new(ending)));
            }
        }
        alarm.map(Ok)
    }
}
