//! Callbacks at the end of a context.
//!
//! A callback has two owners: its registration, and the list it waits in. Which of call and stop came first is decided by
//! one small lock of its own, so that the list may be late: who is taken out of it after a stop finds nothing to call.
#![expect(unsafe_code, reason = "a callback is listed at its context's node by pointer")]

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::Context;
use crate::error::Error;
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
    context: Context,
    /// None once it is stopped or detached.
    callback: Option<Arc<Callback>>,
}

impl OnDone {
    pub(crate) fn new(context: &Context, f: impl FnOnce(&Error) + Send + 'static) -> OnDone {
        let node = context.scope();
        let callback = Arc::new(Callback::new(Box::new(f)));
        let registration =
            OnDone { context: context.clone(), callback: Some(Arc::clone(&callback)) };
        if let Some(ending) = node.ending() {
            callback.call(&Error::new(ending));
        } else if node.can_be_done() {
            let who = Who::Callback(Arc::into_raw(Arc::clone(&callback)));
            // SAFETY: the list has a count of the callback, which keeps the waiter until it has left.
            let mine = match unsafe { node.enroll(&callback.waiter, who) } {
                Ok(_nobody) => {
                    node.watch();
                    // If it has ended meanwhile, whoever takes the callback out calls it.
                    node.ending().is_some() && take_out(node, &callback)
                }
                Err(_) => {
                    // SAFETY: the count that the list did not take.
                    drop(unsafe { Arc::from_raw(Arc::as_ptr(&callback)) });
                    true
                }
            };
            if let Some(ending) = node.ending().filter(|_| mine) {
                callback.call(&Error::new(ending));
            }
        }
        registration
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
        self.callback.take().is_some_and(|callback| self.prevent(&callback))
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
        if self.context.can_be_done() {
            callback.keep(&self.context);
        }
    }

    /// Takes the callback out before it is called; false where it is too late.
    fn prevent(&self, callback: &Arc<Callback>) -> bool {
        let code = {
            let mut call = callback.call_state();
            match std::mem::replace(&mut call.phase, Phase::Over) {
                Phase::Waiting(code) => Some(code),
                other => {
                    call.phase = other;
                    None
                }
            }
        };
        take_out(self.context.scope(), callback);
        code.is_some() // the user's code is dropped here, nothing being locked
    }
}

/// Takes a callback out of its node's list; true if it was in.
fn take_out(node: &crate::tree::Node, callback: &Arc<Callback>) -> bool {
    // SAFETY: it was only ever listed at this node.
    match unsafe { node.leave(&callback.waiter) } {
        Who::Callback(listed) => {
            // SAFETY: the count that the list had.
            drop(unsafe { Arc::from_raw(listed) });
            true
        }
        Who::Task(_) | Who::Nobody => false,
    }
}

impl Drop for OnDone {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            if !self.prevent(&callback) {
                callback.wait_until_over();
            }
        }
    }
}

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDone").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A callback, wherever it is.
pub(crate) struct Callback {
    waiter: Waiter,
    call: Mutex<Call>,
    over: Condvar,
}

struct Call {
    phase: Phase,
    /// A detached callback keeps its context until it has run.
    kept: Option<Context>,
}

enum Phase {
    Waiting(Box<dyn FnOnce(&Error) + Send>),
    Running(ThreadId),
    /// It has run, or has been kept from running.
    Over,
}

// SAFETY: the waiter is guarded by its node's lock, everything else by this one's; the code is `Send` and runs once.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Callback {
    fn new(code: Box<dyn FnOnce(&Error) + Send>) -> Self {
        let call = Mutex::new(Call { phase: Phase::Waiting(code), kept: None });
        Callback { waiter: Waiter::new(), call, over: Condvar::new() }
    }

    fn call_state(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls it, unless it was stopped. Its panic is the caller's.
    pub(crate) fn call(&self, error: &Error) {
        /// Says that it is over, however that came, and lets the context go.
        struct Over<'a>(&'a Callback);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                let kept = {
                    let mut call = self.0.call_state();
                    call.phase = Phase::Over;
                    call.kept.take()
                };
                self.0.over.notify_all();
                drop(kept);
            }
        }

        let code = {
            let mut call = self.call_state();
            match std::mem::replace(&mut call.phase, Phase::Running(thread::current().id())) {
                Phase::Waiting(code) => code,
                other => {
                    call.phase = other;
                    return;
                }
            }
        };
        let _over = Over(self);
        code(error);
    }

    fn keep(&self, context: &Context) {
        let context = context.clone(); // dropped again, where it is too late, after unlocking
        let mut call = self.call_state();
        if matches!(call.phase, Phase::Waiting(_)) {
            call.kept = Some(context);
        }
    }

    fn wait_until_over(&self) {
        let me = thread::current().id();
        let mut call = self.call_state();
        loop {
            match call.phase {
                Phase::Over => return,
                Phase::Running(thread) if thread == me => return,
                Phase::Running(_) | Phase::Waiting(_) => {
                    call = self.over.wait(call).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
