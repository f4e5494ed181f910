//! Threads under a context.

use std::future::Future;
use std::pin::pin;

pub use crate::group::{Scope, scope};
use crate::park;

/// Runs `future` on this thread, which sleeps while it is pending.
///
/// ```
/// use purview::{Context, thread::block_on};
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel();
/// assert!(block_on(ctx.done()).is_canceled());
/// ```
///
/// # Blocking
/// Until the future is ready. Not for use inside async code.
pub fn block_on<F: Future>(future: F) -> F::Output {
    park::block_on(pin!(future))
}
