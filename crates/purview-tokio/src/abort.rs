//! A context's end, for tasks that know no context.

use std::fmt;

use purview::{Context, OnDone};
use tokio::task::AbortHandle;

/// Aborts `task` when `ctx` ends: at once, if it has ended. For tasks that somebody else spawned, and that take no context.
///
/// It is one callback at the context, and no task. The abort is tokio's: the task is dropped at its next await, and who joins it
/// gets an error that says so. It has no time to clean up, and a blocking task that has begun runs on. Tasks of your own are
/// better spawned in a [`TaskGroup`](crate::TaskGroup), which tells them first, and waits for them.
///
/// ```
/// use purview::Context;
/// use purview_tokio::abort_on_done;
///
/// # #[tokio::main]
/// # async fn main() {
/// let (ctx, guard) = Context::background().with_cancel();
/// let task = tokio::spawn(std::future::pending::<()>()); // some library's
/// let _abort = abort_on_done(&ctx, task.abort_handle());
/// guard.cancel();
/// assert!(task.await.unwrap_err().is_cancelled());
/// # }
/// ```
///
/// It holds for the tasks of a [`JoinSet`](tokio::task::JoinSet), too, whose `spawn` gives an [`AbortHandle`].
pub fn abort_on_done(ctx: &Context, task: AbortHandle) -> AbortOnDone {
    AbortOnDone(ctx.on_done(move |_| task.abort()))
}

/// The tie of a task to a context, made by [`abort_on_done`].
///
/// Dropping it lets the task be, whatever becomes of the context: so it is kept beside the task's handle. When its drop has
/// returned, the task is not being aborted any more: it was, or never will be, by this.
///
/// While it is there, the memory that tokio has for the task stays, though not what was in it, also when the task has ended.
///
/// ```
/// use purview::Context;
/// use purview_tokio::abort_on_done;
///
/// # #[tokio::main]
/// # async fn main() {
/// let (ctx, guard) = Context::background().with_cancel();
/// let task = tokio::spawn(async { 42 });
/// let abort = abort_on_done(&ctx, task.abort_handle());
/// drop(abort);
/// guard.cancel(); // does not reach it
/// assert_eq!(task.await.unwrap(), 42);
/// # }
/// ```
#[must_use = "dropping it lets the task be: keep it, or detach it"]
pub struct AbortOnDone(OnDone);

impl AbortOnDone {
    /// Ties the task to the context for good.
    ///
    /// The task's memory then stays until the context ends, also when the task has ended long before. Under a context that lives
    /// long, many short tasks are better tied by a value that is dropped.
    ///
    /// ```
    /// use purview::Context;
    /// use purview_tokio::abort_on_done;
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let (ctx, guard) = Context::background().with_cancel();
    /// let task = tokio::spawn(std::future::pending::<()>());
    /// abort_on_done(&ctx, task.abort_handle()).detach();
    /// guard.cancel();
    /// assert!(task.await.unwrap_err().is_cancelled());
    /// # }
    /// ```
    pub fn detach(self) {
        self.0.detach();
    }
}

impl fmt::Debug for AbortOnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AbortOnDone").field(&self.0).finish()
    }
}
