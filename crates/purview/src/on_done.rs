//! Callbacks at the end of a context.
//!
//! A callback is one allocation: what all callbacks have, and the code. It has two owners, its registration and the list it
//! waits in. Who takes it out of the list decides whether it is called; where a sweep has taken it out and a stop comes
//! before the call, the phase decides, one word: a stop and a call compete for it.
#![expect(unsafe_code, reason = "a callback is listed at its context's node by pointer")]

use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
#[cfg(unix)]
use std::sync::MutexGuard;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::Context;
use crate::error::Error;
use crate::sync::{AtomicU8, AtomicU32, Ordering, UnsafeCell, is_last, thread_local};
use crate::tree::{Job, Kept, Panics};
use crate::waiter::{Waiter, Who};

/// A callback's registration, made by [`Context::on_done`].
///
/// Dropping it unregisters the callback, and returns only when the callback is not running (unless it is dropped inside the
/// callback itself): what the callback uses may go after that. It keeps the context.
///
/// # Blocking
/// Dropping it waits for a running callback. Two callbacks that each drop the other's registration wait for ever.
#[must_use = "dropping the registration unregisters the callback: keep it, or detach it"]
pub struct OnDone {
    context: Kept,
    /// None once it is stopped or detached.
    callback: Option<Counted>,
}

impl OnDone {
    pub(crate) fn new<F: FnOnce(&Error) + Send + 'static>(context: &Context, f: F) -> OnDone {
        let node = context.scope();
        let (callback, listed) = Callback::allocate(f);
        let mut kept = None;
        let mut mine = node.ending().is_some(); // to be called here
        if !mine && node.can_be_done() {
            let listed = Who::Callback(listed.into_list());
            // SAFETY: the list has a count of the callback, which keeps the waiter until it has left.
            match unsafe { node.enroll_kept(context.as_ref(), &callback.get().waiter, listed) } {
                Ok(context) => {
                    kept = Some(context);
                    node.watch();
                    // If it has ended meanwhile, whoever takes the callback out calls it.
                    mine = node.ending().is_some() && callback.get().take_out(node);
                }
                Err(_) => {
                    callback.get().owners.store(1, Ordering::Relaxed); // the list did not take its own
                    mine = true;
                }
            }
        } else {
            drop(listed);
        }
        let called = node.ending().filter(|_| mine).map(|ending| (callback.clone(), ending));
        let context = kept.unwrap_or_else(|| Kept::by_count(context.as_ref()));
        let registration = OnDone { context, callback: Some(callback) };
        if let Some((callback, ending)) = called {
            callback.call(&Error::new(ending));
        }
        registration
    }

    fn context(&self) -> Context {
        Context::from_ref(self.context.context().clone())
    }

    /// Unregisters the callback. True if and only if this call kept it from running. Does not wait for one that runs.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let registration = ctx.on_done(|_| unreachable!());
    /// assert!(registration.stop());
    /// cancel.cancel();
    /// ```
    #[must_use]
    pub fn stop(mut self) -> bool {
        self.callback.take().is_some_and(|callback| self.prevent(callback).is_ok())
    }

    /// Leaves the callback registered for good: it runs when the context ends. Until then it keeps the context, so a callback
    /// that captures a handle or context of its own subtree keeps itself until the end comes.
    ///
    /// On a context that [can never end](Context::can_be_done) the callback is dropped at once.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let (sender, receiver) = mpsc::channel();
    /// ctx.on_done(move |err| sender.send(err.to_string()).unwrap()).detach();
    /// cancel.cancel();
    /// assert_eq!(receiver.recv().unwrap(), "context canceled");
    /// ```
    pub fn detach(mut self) {
        let Some(callback) = self.callback.take() else { return };
        if self.context.context().scope().can_be_done() {
            callback.get().keep(self.context());
        }
    }

    /// Takes the callback out before it is called, and drops it; gives it back where it is too late.
    fn prevent(&self, callback: Counted) -> Result<(), Counted> {
        // Who takes it out of the list is the only one who can call it.
        let unlisted = callback.get().take_out(self.context.context().scope());
        if unlisted {
            callback.get().phase.store(OVER, Ordering::Relaxed);
        }
        if !unlisted && callback.get().advance(WAITING, OVER).is_err() {
            return Err(callback);
        }
        Uncalled(callback).discard(); // the user's, nothing being locked
        Ok(())
    }
}

impl Drop for OnDone {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            if let Err(callback) = self.prevent(callback) {
                callback.get().wait_until_over();
            }
        }
    }
}

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDone").field("context", &self.context()).finish_non_exhaustive()
    }
}

// SAFETY: the callback is guarded as its fields say; the code is `Send`, and is run or dropped once.
unsafe impl Send for OnDone {}
// SAFETY: as above; a shared reference gives no access to the code.
unsafe impl Sync for OnDone {}
impl std::panic::UnwindSafe for OnDone {}
impl std::panic::RefUnwindSafe for OnDone {}

/// A callback, wherever it is: what all have, before the code of one.
#[repr(C)]
pub(crate) struct Callback {
    waiter: Waiter,
    /// Its registration, its list, and who calls it.
    owners: AtomicU32,
    /// Which of call and stop came first.
    phase: AtomicU8,
    /// A detached callback keeps its context until it has run. Written by its registration before the phase says so.
    kept: UnsafeCell<Option<Context>>,
    /// Moves the code out and calls it; without an error drops it.
    run: unsafe fn(NonNull<Callback>, Option<&Error>),
    free: unsafe fn(NonNull<Callback>),
}

#[repr(C)]
struct Coded<F> {
    callback: Callback,
    code: std::cell::UnsafeCell<ManuallyDrop<F>>,
}

/// It may be called, or stopped.
const WAITING: u8 = 0;
/// The same; and it keeps its context.
const DETACHED: u8 = 1;
const RUNNING: u8 = 2;
/// The same, and somebody sleeps until it is over.
const AWAITED: u8 = 3;
/// It has run, or has been kept from running.
const OVER: u8 = 4;

/// Where threads sleep that wait for callbacks to be over. One for all: it is rare, and who finds it is not his sleeps on.
static SOMETHING_OVER: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// Keeps them where they are while the process is forked.
#[cfg(unix)]
pub(crate) fn hold() -> MutexGuard<'static, ()> {
    SOMETHING_OVER.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Callback {
    /// With two counts: its registration's, and the one for its list.
    fn allocate<F: FnOnce(&Error) + Send + 'static>(code: F) -> (Counted, Counted) {
        unsafe fn run<F: FnOnce(&Error)>(callback: NonNull<Callback>, error: Option<&Error>) {
            // SAFETY: made for this type.
            let coded = unsafe { callback.cast::<Coded<F>>().as_ref() };
            // SAFETY: the caller is the only one to run it, once.
            let code = unsafe { &mut *coded.code.get() };
            // SAFETY: as above.
            let code = unsafe { ManuallyDrop::take(code) };
            if let Some(error) = error {
                code(error);
            }
        }
        unsafe fn free<F>(callback: NonNull<Callback>) {
            // SAFETY: made for this type; the last count is gone.
            drop(unsafe { Box::from_raw(callback.cast::<Coded<F>>().as_ptr()) });
        }
        let callback = Callback {
            waiter: Waiter::new(),
            owners: AtomicU32::new(2),
            phase: AtomicU8::new(WAITING),
            kept: UnsafeCell::new(None),
            run: run::<F>,
            free: free::<F>,
        };
        let code = std::cell::UnsafeCell::new(ManuallyDrop::new(code));
        let callback = NonNull::from(Box::leak(Box::new(Coded { callback, code }))).cast();
        (Counted(callback), Counted(callback))
    }

    /// The count that a list had.
    ///
    /// # Safety
    /// It was made by [`Counted::into_list`], and is used once.
    pub(crate) unsafe fn from_list(listed: NonNull<Callback>) -> Counted {
        Counted(listed)
    }

    fn advance(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    /// For its registration, takes it out of its node's list; true if it was in.
    fn take_out(&self, node: &crate::tree::Node) -> bool {
        // SAFETY: it was only ever listed at this node.
        match unsafe { node.leave(&self.waiter) } {
            Who::Callback(_) => {
                // The list's count and the registration's are all there are: who calls it would have taken it out.
                self.owners.store(1, Ordering::Relaxed);
                true
            }
            Who::Task(_) | Who::Nobody => false,
        }
    }

    fn keep(&self, context: Context) {
        // SAFETY: only its registration writes here, and nobody reads before the phase says so.
        self.kept.with_mut(|kept| unsafe { *kept = Some(context) });
        if self.advance(WAITING, DETACHED).is_err() {
            // SAFETY: as above.
            drop(self.kept.with_mut(|kept| unsafe { (*kept).take() }));
        }
    }

    fn wait_until_over(&self) {
        if Frame::is_running_here(self) {
            return;
        }
        let (lock, over) = &SOMETHING_OVER;
        let mut held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.phase.load(Ordering::Acquire) {
                OVER => return,
                RUNNING => _ = self.advance(RUNNING, AWAITED),
                _ => held = over.wait(held).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// A counted pointer to a callback.
pub(crate) struct Counted(NonNull<Callback>);

// SAFETY: as for `OnDone`.
unsafe impl Send for Counted {}

impl Counted {
    fn get(&self) -> &Callback {
        // SAFETY: this count keeps it.
        unsafe { self.0.as_ref() }
    }

    fn clone(&self) -> Counted {
        self.get().owners.fetch_add(1, Ordering::Relaxed); // three at the most
        Counted(self.0)
    }

    /// The count as a list holds it.
    fn into_list(self) -> NonNull<Callback> {
        ManuallyDrop::new(self).0
    }

    /// Calls it, unless it was stopped. Its panic is the caller's.
    pub(crate) fn call(&self, error: &Error) {
        /// Says that it is over, however that came, and lets the context go.
        struct Over<'a>(&'a Callback, bool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                let detached = self.1;
                // SAFETY: the phase said so, and it is this call's to take.
                let kept = detached.then(|| self.0.kept.with_mut(|kept| unsafe { (*kept).take() }));
                if self.0.phase.swap(OVER, Ordering::AcqRel) == AWAITED {
                    let (lock, over) = &SOMETHING_OVER;
                    drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
                    over.notify_all();
                }
                drop(kept);
            }
        }

        let callback = self.get();
        let mut was = WAITING;
        while let Err(now) = callback.advance(was, RUNNING) {
            if now != DETACHED {
                return;
            }
            was = now;
        }
        let _over = Over(callback, was == DETACHED);
        // SAFETY: the phase has gone to running by this call, so it alone runs it.
        Frame::around(callback, || unsafe { (callback.run)(self.0, Some(error)) });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !is_last(&self.get().owners) {
            return;
        }
        let callback = self.get();
        if matches!(callback.phase.load(Ordering::Relaxed), WAITING | DETACHED) {
            // It was not called, and cannot be any more: the last count goes with its code.
            callback.phase.store(OVER, Ordering::Relaxed);
            callback.owners.store(1, Ordering::Relaxed);
            return Uncalled(Counted(self.0)).discard();
        }
        // SAFETY: the last count.
        unsafe { (callback.free)(self.0) };
    }
}

/// A callback that was not called, and will not be. Its code is still to be dropped.
pub(crate) struct Uncalled(Counted);

impl Uncalled {
    fn discard(self) {
        let mut panics = Panics::new();
        Job::Callback(self).run(&mut panics);
        panics.resume();
    }

    /// Drops what it captured. The user's code.
    pub(crate) fn drop_code(self) {
        // SAFETY: it does not run, never will, and its code is dropped here only.
        unsafe { (self.0.get().run)(self.0.0, None) };
    }
}

thread_local! {
    /// The callbacks that run on this thread, the innermost first.
    static RUNNING_HERE: Cell<*const Frame> = const { Cell::new(std::ptr::null()) };
}

/// One of them, on the stack of its call.
struct Frame {
    callback: *const Callback,
    outer: *const Frame,
}

impl Frame {
    fn around(callback: &Callback, code: impl FnOnce()) {
        /// Steps back out, also by a panic.
        struct Leave(*const Frame);
        impl Drop for Leave {
            fn drop(&mut self) {
                let _ = RUNNING_HERE.try_with(|running| running.set(self.0));
            }
        }
        // A thread that is being torn down has no such place any more; then a drop inside the callback is not told apart.
        let outer = RUNNING_HERE.try_with(Cell::get).unwrap_or(std::ptr::null());
        let frame = Frame { callback, outer };
        let _ = RUNNING_HERE.try_with(|running| running.set(&raw const frame));
        let _leave = Leave(outer);
        code();
    }

    fn is_running_here(callback: *const Callback) -> bool {
        let mut at = RUNNING_HERE.try_with(Cell::get).unwrap_or(std::ptr::null());
        // SAFETY: frames of calls that this thread is inside of.
        while let Some(frame) = unsafe { at.as_ref() } {
            if frame.callback == callback {
                return true;
            }
            at = frame.outer;
        }
        false
    }
}
