//! Deadlines in order: entries that lie in what waits for them, a heap that orders them, and the thread that serves the
//! system clock's. A manual clock has a heap of its own and is its own driver.
//!
//! # Invariants
//! - **T1** An entry's `place` and `waker` are touched only under the lock of its clock's heap.
//! - **T2** An entry that is in a heap stays where it is in memory, and is removed before it goes: a context's when it
//!   ends or is reclaimed, an alarm's when its future is dropped. So a pointer in a heap is valid under the heap's lock.
//! - **T3** Nothing of the user's runs under a heap's lock: what is due is taken out, and served after unlocking.
//!
//! # Why a heap
//! A binary heap with each entry's place noted in the entry takes O(log n) to insert and to remove, allocates nothing once
//! it has grown, and is exact to the nanosecond; 1 ms slots, as tokio's wheel has, cost 1 ms of lateness.
//! Whether a hierarchical wheel pays at a million deadlines is a matter for the benchmarks.
#![expect(
    unsafe_code,
    reason = "an entry's fields are guarded by the lock of the heap that it is in"
)]

pub(crate) mod driver;
pub(crate) mod heap;
pub(crate) mod runner;

use std::marker::PhantomPinned;
use std::ptr::NonNull;
use std::task::Waker;

use crate::sync::UnsafeCell;
use crate::tree::{Node, Ref};

/// What a heap orders.
pub(crate) struct Entry {
    fields: UnsafeCell<Fields>,
    /// A heap writes to it by pointer while its owner has it by `&mut`: that must not claim to be alone with it.
    _pinned: PhantomPinned,
}

pub(crate) struct Fields {
    /// Where in the heap; [`OUT`] where it is in none.
    pub(crate) place: usize,
    pub(crate) target: Target,
}

/// What to do when it is due.
pub(crate) enum Target {
    /// End this context.
    Deadline(NonNull<Node>),
    /// Wake whoever sleeps.
    Alarm(Option<Waker>),
    /// Nothing: not in use yet.
    Nothing,
}

/// What was due, taken out of the heap.
pub(crate) enum Due {
    Deadline(Ref),
    Alarm(Waker),
}

/// The place of an entry that is in no heap.
pub(crate) const OUT: usize = usize::MAX;

impl Entry {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Self {
        Entry {
            fields: UnsafeCell::new(Fields { place: OUT, target: Target::Nothing }),
            _pinned: PhantomPinned,
        }
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Self {
        Entry {
            fields: UnsafeCell::new(Fields { place: OUT, target: Target::Nothing }),
            _pinned: PhantomPinned,
        }
    }

    /// Runs `access` on the fields.
    ///
    /// # Safety
    /// The caller holds the lock of the heap that the entry belongs to (T1).
    pub(crate) unsafe fn fields<R>(&self, access: impl FnOnce(&mut Fields) -> R) -> R {
        // SAFETY: by the contract above nobody else reads or writes them meanwhile.
        self.fields.with_mut(|fields| access(unsafe { &mut *fields }))
    }
}
