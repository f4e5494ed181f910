//! Who waits at a node: a task, a thread (whose waker unparks it), or a callback. One list for all, in order of arrival.
//!
//! # Invariants
//! - **W1** A waiter's `who` is touched only under the lock of the list that it is in, or by its owner before it is
//!   linked and after it is unlinked.
//! - **W2** A waiter does not move or go while it is linked: it lies in a pinned future, or in a callback whose count the
//!   list shares.
//! - **W3** `shard` goes back to [`UNLISTED`] as the last thing that unlinking does to the waiter, with Release. Who sees
//!   that with Acquire owns the waiter's memory again without taking the lock.
#![expect(unsafe_code, reason = "a waiter's fields are guarded by the lock of the list it is in")]

use std::marker::PhantomPinned;
use std::ptr::NonNull;
use std::task::Waker;

use crate::list::{Item, Link, Tag};
use crate::on_done::Callback;
use crate::sync::{AtomicU8, Ordering, UnsafeCell};

/// A place in a node's list of waiters.
#[repr(C)]
pub(crate) struct Waiter {
    link: Link,
    /// Which of the node's lists it is in.
    shard: AtomicU8,
    who: UnsafeCell<Who>,
    /// Its place in time among those of other shards.
    stamp: UnsafeCell<u64>,
    _pinned: PhantomPinned,
}

const UNLISTED: u8 = u8::MAX;

/// Who it is.
pub(crate) enum Who {
    Nobody,
    Task(Waker),
    /// A count of a callback.
    Callback(NonNull<Callback>),
}

impl Waiter {
    pub(crate) fn new() -> Self {
        Waiter {
            link: Link::new(),
            shard: AtomicU8::new(UNLISTED),
            who: UnsafeCell::new(Who::Nobody),
            stamp: UnsafeCell::new(0),
            _pinned: PhantomPinned,
        }
    }

    pub(crate) fn item(&self) -> Item {
        Item::new(std::ptr::from_ref(self).cast(), Tag::Waiter)
    }

    /// The waiter of an item that is one's.
    ///
    /// # Safety
    /// The item is listed, and its list's lock is held.
    pub(crate) unsafe fn of<'a>(item: Item) -> &'a Waiter {
        // SAFETY: by the contract; its link is what it begins with.
        unsafe { &*item.link().cast() }
    }

    /// # Safety
    /// As for [`of`](Self::of).
    pub(crate) unsafe fn is_callback(item: Item) -> bool {
        // SAFETY: by the contract.
        let waiter = unsafe { Waiter::of(item) };
        // SAFETY: as above (W1).
        unsafe { waiter.who(|who| matches!(who, Who::Callback(_))) }
    }

    /// The list it is in, if it is in one. To be asked again under that one's lock.
    #[inline]
    pub(crate) fn listed(&self) -> Option<usize> {
        let shard = self.shard.load(Ordering::Acquire);
        (shard != UNLISTED).then_some(usize::from(shard))
    }

    /// Under the list's lock, once it is in.
    #[inline]
    pub(crate) fn set_listed(&self, shard: u8, stamp: u64) {
        // SAFETY: its list's lock is held (W1).
        self.stamp.with_mut(|place| unsafe { *place = stamp });
        self.shard.store(shard, Ordering::Relaxed);
    }

    /// Under the list's lock, once it is out. The last touch (W3).
    #[inline]
    pub(crate) fn set_unlisted(&self) {
        self.shard.store(UNLISTED, Ordering::Release);
    }

    /// Under the list's lock.
    pub(crate) fn stamp(&self) -> u64 {
        // SAFETY: its list's lock is held (W1).
        self.stamp.with(|stamp| unsafe { *stamp })
    }

    /// Runs `access` on who it is.
    ///
    /// # Safety
    /// The caller holds its list's lock, or the waiter is its own and not linked (W1).
    #[inline]
    pub(crate) unsafe fn who<R>(&self, access: impl FnOnce(&mut Who) -> R) -> R {
        // SAFETY: by the contract above nobody else reads or writes it meanwhile.
        self.who.with_mut(|who| access(unsafe { &mut *who }))
    }
}
