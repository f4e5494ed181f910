//! The right to cancel, and the duty.

use std::fmt;
use std::panic::Location;

use crate::Context;
use crate::error::{By, Cause};
use crate::tree;

/// The duty to cancel: dropping it cancels. Go's `defer cancel()`, which nobody can forget.
///
/// ```
/// use purview::{By, Context};
/// let (ctx, guard) = Context::background().with_cancel();
/// {
///     let _guard = guard;
///     assert!(!ctx.is_done());
/// }
/// assert_eq!(ctx.err().unwrap().origin().by(), By::GuardDropped);
/// ```
///
/// # Panics
/// Canceling, by a call or by the drop, resumes the first panic of a callback or waker that it called, after all have been
/// called. Not so while the thread is unwinding: then that panic goes on, and the other one was reported by the hook.
#[must_use = "dropping the guard cancels the context at once; keep it as long as the work may go on"]
pub struct CancelGuard {
    handle: CancelHandle,
    armed: bool,
}

impl CancelGuard {
    /// A new context's two handles: its own, and the one that its guard has.
    #[inline]
    pub(crate) fn of([context, guarded]: [Context; 2]) -> (Context, CancelGuard) {
        (context, CancelGuard { handle: CancelHandle { context: guarded }, armed: true })
    }

    /// Cancels the context, unless it has ended. When this returns, it and everything below it is done.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// guard.cancel();
    /// guard.cancel(); // changes nothing
    /// assert_eq!(ctx.err().unwrap().to_string(), "context canceled");
    /// ```
    #[track_caller]
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Cancels the context and says why, unless it has ended: the first cause stays.
    ///
    /// The cause lives as long as the context and its errors do. One that holds a handle of that context keeps it for ever.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// guard.cancel_with("disk full");
    /// guard.cancel_with("too late");
    /// assert_eq!(ctx.err().unwrap().cause().unwrap().to_string(), "disk full");
    /// ```
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.handle.cancel_with(cause);
    }

    /// The right without the duty, to be shared.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// let handle = guard.handle();
    /// std::thread::spawn(move || handle.cancel()).join().unwrap();
    /// assert!(ctx.is_done());
    /// ```
    #[must_use]
    pub fn handle(&self) -> CancelHandle {
        self.handle.clone()
    }

    /// Ends the duty: nothing is canceled by a drop any more.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// let handle = guard.disarm();
    /// drop(handle);
    /// assert!(!ctx.is_done());
    /// ```
    #[must_use = "the handle is what is left to cancel with; drop it to leave that to the parent"]
    pub fn disarm(mut self) -> CancelHandle {
        self.armed = false;
        self.handle.clone()
    }

    /// The context that it cancels.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// assert_eq!(guard.context(), &ctx);
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        self.handle.context()
    }
}

impl Drop for CancelGuard {
    #[inline]
    fn drop(&mut self) {
        if self.armed {
            let context = self.handle.context.as_ref();
            tree::cancel(context, By::GuardDropped, None, context.head().place);
        }
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelGuard").field(self.context()).finish()
    }
}

/// The right to cancel, without the duty: dropping it does nothing. Made by [`CancelGuard::handle`].
///
/// ```
/// let (ctx, guard) = purview::Context::background().with_cancel();
/// let handle = guard.handle();
/// handle.clone().cancel_with("said the handle");
/// assert_eq!(ctx.err().unwrap().to_string(), "context canceled: said the handle");
/// ```
///
/// # Panics
/// As for [`CancelGuard`].
#[derive(Clone)]
pub struct CancelHandle {
    context: Context,
}

impl CancelHandle {
    /// Cancels the context, unless it has ended. When this returns, it and everything below it is done.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// guard.handle().cancel();
    /// assert!(ctx.is_done());
    /// ```
    #[track_caller]
    pub fn cancel(&self) {
        tree::cancel(self.context.as_ref(), By::Call, None, Location::caller());
    }

    /// Cancels the context and says why, unless it has ended: the first cause stays.
    ///
    /// The cause lives as long as the context and its errors do. One that holds a handle of that context keeps it for ever.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// guard.handle().cancel_with(std::io::Error::other("disk full"));
    /// assert!(ctx.err().unwrap().cause().is_some());
    /// ```
    #[track_caller]
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        tree::cancel(self.context.as_ref(), By::Call, Some(cause.into()), Location::caller());
    }

    /// The context that it cancels.
    ///
    /// ```
    /// let (ctx, guard) = purview::Context::background().with_cancel();
    /// assert_eq!(guard.handle().context(), &ctx);
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelHandle").field(&self.context).finish()
    }
}
