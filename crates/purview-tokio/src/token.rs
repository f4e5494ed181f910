//! tokio-util's `CancellationToken`, to a context and back. One waiter each, and no task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Wake, Waker};

use purview::{CancelHandle, Context};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Derives a context that ends when `token` is canceled, or when `parent` ends.
///
/// ```
/// use purview::Context;
/// use tokio_util::sync::CancellationToken;
///
/// let token = CancellationToken::new();
/// let (ctx, _bridge) = purview_tokio::from_token(&Context::background(), &token);
/// assert!(!ctx.is_done());
/// token.cancel();
/// assert_eq!(ctx.err().unwrap().to_string(), "context canceled: cancellation token canceled");
/// ```
pub fn from_token(parent: &Context, token: &CancellationToken) -> (Context, Bridge) {
    let (ctx, guard) = parent.with_cancel();
    let cancel = guard.disarm();
    let wait = Box::pin(token.clone().cancelled_owned());
    let bridge = Arc::new(Crossing { wait: Mutex::new(Some(wait)), cancel });
    bridge.look();
    (ctx, Bridge(bridge))
}

/// What carries a token's end over to a context. Dropping it leaves the token alone, and cancels nothing.
#[must_use = "dropping it takes the bridge down"]
pub struct Bridge(Arc<Crossing>);

impl Drop for Bridge {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bridge").field(self.0.cancel.context()).finish()
    }
}

/// A waiter at the token that is its own waker.
struct Crossing {
    wait: Mutex<Option<Pin<Box<WaitForCancellationFutureOwned>>>>,
    cancel: CancelHandle,
}

impl Crossing {
    /// Waits on, or hands the end over.
    fn look(self: &Arc<Self>) {
        // Taken out, so that nothing is locked while the token's code runs.
        let Some(mut wait) = self.take() else { return };
        let waker = Waker::from(Arc::clone(self));
        if wait.as_mut().poll(&mut Task::from_waker(&waker)).is_ready() {
            self.cancel.cancel_with("cancellation token canceled");
            return;
        }
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
    }

    fn take(&self) -> Option<Pin<Box<WaitForCancellationFutureOwned>>> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Wake for Crossing {
    fn wake(self: Arc<Self>) {
        self.cancel.cancel_with("cancellation token canceled");
        drop(self.take());
    }
}

/// Makes a token that is canceled when `ctx` ends.
///
/// The token is one for who knows no contexts: what is canceled through it does not come back.
///
/// ```
/// use purview::Context;
///
/// let (ctx, guard) = Context::background().with_cancel();
/// let token = purview_tokio::to_token(&ctx);
/// guard.cancel();
/// assert!(token.is_cancelled());
/// ```
#[must_use]
pub fn to_token(ctx: &Context) -> CancellationToken {
    let token = CancellationToken::new();
    let ended = token.clone();
    ctx.on_done(move |_| ended.cancel()).detach();
    token
}
