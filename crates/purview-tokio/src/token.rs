//! tokio-util's `CancellationToken`, to a context and back. One waiter each, and no task.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as Task, Wake, Waker};

use purview::{CancelHandle, Context, ContextId};
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

/// Makes a token that is canceled when `ctx` ends; of a context that is done, one that is canceled.
///
/// The token is for code that knows no contexts: canceling it cancels neither the context nor another token of it.
///
/// All tokens of a context are children of one, which is canceled by one callback at the context: dropping a token leaves nothing
/// behind, however many there were. The callback stays until the context ends, and keeps it until then, as a
/// [detached](purview::OnDone::detach) one does: a token outlives the handles of its context. Value layers share the callback of the
/// context that they lie on.
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
    if !ctx.can_be_done() {
        return CancellationToken::new();
    }
    let ctx = ctx.base();
    let source = Source::of(ctx.id()).unwrap_or_else(|| Source::at(&ctx));
    let token = source.token.child_token();
    // It may be made when the context is done and the callback is yet to be called, such as behind one that runs now.
    if ctx.is_done() {
        token.cancel();
    }
    token
}

/// The token of a context, whose children are all that [`to_token`] makes. It is kept by the context's callback, and so goes when
/// that was called or dropped: what is in the table is neither done nor freed.
struct Source {
    ctx: ContextId,
    token: CancellationToken,
}

static SOURCES: Mutex<BTreeMap<ContextId, Weak<Source>>> = Mutex::new(BTreeMap::new());

/// No user code runs under this lock: a source that is dropped takes it, and so is never dropped under it.
fn sources() -> MutexGuard<'static, BTreeMap<ContextId, Weak<Source>>> {
    SOURCES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// Makes the one of `ctx`, with its callback there.
    fn at(ctx: &Context) -> Arc<Source> {
        let source = Arc::new(Source { ctx: ctx.id(), token: CancellationToken::new() });
        let at_end = Arc::clone(&source);
        let registration = ctx.on_done(move |_| at_end.token.cancel()); // at once, if it has ended
        let first = source.enter();
        if Arc::ptr_eq(&first, &source) {
            registration.detach();
        }
        first
    }

    fn of(ctx: ContextId) -> Option<Arc<Source>> {
        sources().get(&ctx).and_then(Weak::upgrade)
    }

    /// Enters it into the table. Returns the one that is there: another thread's, where that came first.
    fn enter(self: &Arc<Self>) -> Arc<Source> {
        let mut sources = sources();
        if let Some(first) = sources.get(&self.ctx).and_then(Weak::upgrade) {
            return first;
        }
        sources.insert(self.ctx, Arc::downgrade(self));
        Arc::clone(self)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut sources = sources();
        // It may be another thread's that came first, or later.
        let is_this = sources.get(&self.ctx).is_some_and(|it| std::ptr::eq(it.as_ptr(), self));
        if is_this {
            sources.remove(&self.ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use purview::Context;

    use super::{sources, to_token};

    #[test]
    fn the_table_has_no_context_that_is_done_or_freed() {
        let (ctx, guard) = Context::background().with_cancel();
        let tokens = [to_token(&ctx), to_token(&ctx)];
        assert!(sources().contains_key(&ctx.id()));
        guard.cancel();
        assert!(!sources().contains_key(&ctx.id()));
        let late = to_token(&ctx);
        assert!(late.is_cancelled() && tokens[0].is_cancelled());
        assert!(!sources().contains_key(&ctx.id()));

        let (parent, guard) = Context::background().with_cancel();
        let (ctx, _) = parent.with_cancel();
        let id = ctx.id();
        drop((to_token(&ctx), ctx));
        drop(guard);
        assert!(!sources().contains_key(&id));
    }
}
