//! Who waits at a node: a task, a thread (whose waker unparks it), or a callback. One list for all, in order of arrival.
//!
//! # Invariants
//! - **W1** A waiter's `who` is touched only under the lock of the node that it waits at, or by its owner before it is
//!   linked and after it is unlinked.
//! - **W2** A waiter does not move or go while it is linked: it lies in a pinned future, or in a callback whose count the
//!   list shares.
#![expect(
    unsafe_code,
    reason = "a waiter's fields are guarded by the lock of the node it waits at"
)]

use std::marker::PhantomPinned;
use std::task::Waker;

use crate::list::Link;
use crate::on_done::Callback;
use crate::sync::UnsafeCell;

/// A place in a node's list of waiters.
pub(crate) struct Waiter {
    pub(crate) link: Link<Waiter>,
    who: UnsafeCell<Who>,
    _pinned: PhantomPinned,
}

/// Who it is.
pub(crate) enum Who {
    Nobody,
    Task(Waker),
    /// A count of an `Arc<Callback>`, as a pointer.
    Callback(*const Callback),
}

impl Waiter {
    pub(crate) fn new() -> Self {
        Waiter { link: Link::new(), who: UnsafeCell::new(Who::Nobody), _pinned: PhantomPinned }
    }

    /// Runs `access` on who it is.
    ///
    /// # Safety
    /// The caller holds the node's lock, or the waiter is its own and not linked (W1).
    pub(crate) unsafe fn who<R>(&self, access: impl FnOnce(&mut Who) -> R) -> R {
        // SAFETY: by the contract above nobody else reads or writes it meanwhile.
        self.who.with_mut(|who| access(unsafe { &mut *who }))
    }
}
