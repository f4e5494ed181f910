//! Looking at contexts from outside: ids, counts, and an observer that hears of every context in the process.
//!
//! Where nobody observes, all it costs is one load of a word that never changes, at a derive, an end and a drop; a poll costs
//! nothing. An observer is called with no lock held, on whatever thread the thing happens, so it may call anything of ours.
//!
//! # How a snapshot of the live tree fits
//! Nothing here keeps a list of all contexts: that would be one more shared line in every derive. Two ways are open, both
//! without a cost when nobody looks. An observer hears of each context, with its parent, when it is derived, and of each end
//! and each drop, and keeps what it wants to show. And whoever has a context can have its subtree walked: every node is in its
//! parent's list, and `for_each` (see `dependents.rs`), which counts for [`Statistics`], walks such a list in batches, under its
//! lock, with a cursor that keeps the place meanwhile; a handle for each child, taken under that lock, leads further down.
//! Where an end has to be told of, the short way of a leaf's cancel is not taken: that is the word that is looked at.

use std::fmt;

use crate::Context;
use crate::clock::Tick;
use crate::error::Error;
use crate::leaked::Leaked;
use crate::timer::driver;
use crate::tree::Panics;
use crate::{leak, order};

/// A context's number: unique in the process, in the order of derivation.
///
/// ```
/// use purview::Context;
/// let (a, _guard) = Context::background().with_cancel();
/// let (b, _guard) = Context::background().with_cancel();
/// assert_ne!(a.id(), b.id());
/// assert_eq!(a.id(), a.clone().id()); // handles of one context
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(u64);

impl ContextId {
    pub(crate) const BACKGROUND: ContextId = ContextId(1);
    pub(crate) const TODO: ContextId = ContextId(2);

    /// Of a context that is derived now from the one with the number `parent`.
    #[inline]
    pub(crate) fn next(parent: ContextId) -> ContextId {
        ContextId(order::next(parent.0, None))
    }

    /// The same, where the system's clock may have been read a moment ago.
    #[inline]
    pub(crate) fn next_at(parent: ContextId, now: Option<Tick>) -> ContextId {
        ContextId(order::next(parent.0, now))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextId({})", self.0)
    }
}

/// What is registered at a context. Exact when nothing happens meanwhile.
///
/// ```
/// use purview::Context;
/// let (ctx, _guard) = Context::background().with_cancel();
/// let (_child, _guard) = ctx.with_cancel();
/// let _callback = ctx.on_done(|_| {});
/// assert_eq!(ctx.statistics().children(), 1);
/// assert_eq!(ctx.statistics().callbacks(), 1);
/// assert_eq!(ctx.statistics().waiters(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    pub(crate) counts: [usize; 3],
}

impl Statistics {
    /// Live contexts derived from this one (through value layers, if any), which its end will end. Zero at a root, which
    /// never ends and so keeps no list.
    #[must_use]
    pub fn children(&self) -> usize {
        self.counts[0]
    }

    /// Tasks and threads that wait for this context.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.counts[1]
    }

    /// Callbacks registered at this context that have not been called.
    #[must_use]
    pub fn callbacks(&self) -> usize {
        self.counts[2]
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics")
            .field("children", &self.children())
            .field("waiters", &self.waiters())
            .field("callbacks", &self.callbacks())
            .finish()
    }
}

/// How many deadlines and sleeps the system's timer has now, in the whole process: of contexts that somebody has
/// waited for and that have not ended, and of sleepers.
///
/// So a service at rest always has the same number, and one that grows says that something is held that nobody ends. Reading it
/// takes a few locks, however many deadlines there are.
///
/// ```
/// use purview::{Context, observe};
/// use std::time::Duration;
///
/// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(60));
/// let callback = ctx.on_done(|_| {}); // somebody waits for its end
/// assert!(observe::timers() >= 1);
/// drop(callback);
/// ```
#[must_use]
pub fn timers() -> usize {
    driver::entries()
}

/// Hears of every context in the process. Called with no lock held, on the thread where it happens.
///
/// A panic in an observer is a panic of the operation it observes.
///
/// ```
/// use purview::observe::{Observer, install};
/// use purview::{Context, ContextId, Error};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// static DERIVED: AtomicUsize = AtomicUsize::new(0);
///
/// struct Counter;
/// impl Observer for Counter {
///     fn derived(&self, _ctx: &Context, _parent: ContextId) {
///         DERIVED.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// assert!(install(Box::new(Counter)).is_ok(), "the first in this process");
/// let (_ctx, _guard) = Context::background().with_cancel();
/// assert_eq!(DERIVED.load(Ordering::Relaxed), 1);
/// ```
pub trait Observer: Send + Sync {
    /// `ctx` was derived from `parent`.
    fn derived(&self, ctx: &Context, parent: ContextId) {
        let _ = (ctx, parent);
    }

    /// `ctx` ended. Called when its subtree has been marked, before its waiters are woken. A context whose deadline passed
    /// while nobody watched is reported when somebody takes note: an ancestor's end, its guard, or its drop.
    fn done(&self, ctx: ContextId, error: &Error) {
        let _ = (ctx, error);
    }

    /// The last handle of `ctx` is gone.
    fn dropped(&self, ctx: ContextId) {
        let _ = ctx;
    }
}

/// Each is made without a lock, which a fork could leave taken in the child.
static OBSERVERS: Leaked<Observers> = Leaked::new();
static INSTALLED: Leaked<Box<dyn Observer>> = Leaked::new();

/// The process's observer, if it has one, and the checks for leaks.
struct Observers;

impl Observer for Observers {
    fn derived(&self, ctx: &Context, parent: ContextId) {
        leak::derived(ctx, parent);
        if let Some(observer) = INSTALLED.get() {
            observer.derived(ctx, parent);
        }
    }

    fn done(&self, ctx: ContextId, error: &Error) {
        let mut panics = Panics::new(); // of what a check drops or wakes: the observer learns of it all the same (C39)
        panics.catch(|| leak::ended(ctx, error));
        if let Some(observer) = INSTALLED.get() {
            panics.catch(|| observer.done(ctx, error));
        }
        panics.resume();
    }

    fn dropped(&self, ctx: ContextId) {
        let mut panics = Panics::new(); // as above
        panics.catch(|| leak::dropped(ctx));
        if let Some(observer) = INSTALLED.get() {
            panics.catch(|| observer.dropped(ctx));
        }
        panics.resume();
    }
}

/// From here on everything is told of, for good.
pub(crate) fn begin() {
    OBSERVERS.get_or_make(|| Observers);
}

/// Installs the process's observer, for good.
///
/// # Errors
/// Hands the observer back where there is one already.
pub fn install(observer: Box<dyn Observer>) -> Result<(), Box<dyn Observer>> {
    begin();
    INSTALLED.set(observer).map(|_| ()).map_err(|(_, observer)| observer)
}

/// Who observes, if somebody does.
#[inline]
pub(crate) fn observer() -> Option<&'static dyn Observer> {
    OBSERVERS.get().map(|observers| observers as _)
}
