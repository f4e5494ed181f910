//! The small lock: one byte, taken with one read-modify-write and let go with a plain store, which is half of what a mutex
//! costs that has to find out, when it is let go, whether anybody sleeps on it.
//!
//! What it guards takes some ten nanoseconds, so a thread that finds it taken spins for a moment; then lets other threads run, for
//! its holder may be among them; then naps, for its holder may be one that yielding does not let run (a lower real-time
//! priority). So no thread spins without end, and none has to be woken. No user code runs under one.
//!
//! It is not fair: a thread that releases it and takes it again at once is faster than any that waits. A walk over a long list, which
//! takes it once a batch, therefore [stays away](ByteLock::stay_away) between two batches while another thread waits.
//!
//! In the models of the tree loom's own mutex stands in for it, which explores who comes next without spinning; the byte has
//! a model of its own.

use crate::sync::{AtomicU8, Backoff, MODELED, Ordering};

pub(crate) struct ByteLock(AtomicU8);

const FREE: u8 = 0;
/// Free, and its last holder stays away until another thread has taken it.
const OFFERED: u8 = 1;
const TAKEN: u8 = 2;
/// Taken, and another thread has tried to take it since.
const AWAITED: u8 = 3;

/// How often a thread that stays away looks whether another one has come: a millisecond or two, for a waiter that does not run.
const PATIENCE: u32 = if MODELED { 3 } else { 48 };

#[must_use]
pub(crate) struct Locked<'a>(&'a ByteLock);

impl ByteLock {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Self {
        ByteLock(AtomicU8::new(FREE))
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Self {
        ByteLock(AtomicU8::new(FREE))
    }

    /// Acquire; pairs with the Release of whoever let it go last.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        if self.0.swap(TAKEN, Ordering::Acquire) >= TAKEN {
            self.wait();
        }
        Locked(self)
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        (self.0.swap(TAKEN, Ordering::Acquire) < TAKEN).then(|| Locked(self))
    }

    #[cold]
    fn wait(&self) {
        let mut backoff = Backoff::new();
        while self.0.swap(AWAITED, Ordering::Acquire) >= TAKEN {
            backoff.snooze();
        }
        // Others that wait say so again with their next try.
        self.0.store(TAKEN, Ordering::Relaxed);
    }

    /// For a thread that has just released it while [another one waited](Locked::is_awaited), and is about to take it again: waits
    /// until another thread has had it. False, where none has come in time, or it was taken before this began.
    pub(crate) fn stay_away(&self) -> bool {
        if self.0.compare_exchange(FREE, OFFERED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let mut backoff = Backoff::new();
        for _ in 0..PATIENCE {
            backoff.snooze();
            if self.0.load(Ordering::Relaxed) != OFFERED {
                return true;
            }
        }
        false
    }
}

impl Locked<'_> {
    /// Whether another thread waits for it, as far as can be told.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) == AWAITED
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.store(FREE, Ordering::Release);
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{ByteLock, Locked};

    #[test]
    fn a_holder_can_tell_that_another_thread_waits() {
        let lock = ByteLock::new();
        let held = lock.lock();
        assert!(!held.is_awaited() && lock.try_lock().is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| drop(lock.lock()));
            while !held.is_awaited() {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert!(lock.try_lock().is_some_and(|held| !held.is_awaited()));
    }

    #[test]
    fn a_walk_that_stays_away_lets_a_waiter_in() {
        let lock = ByteLock::new();
        let entered = AtomicBool::new(false);
        let held = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _held = lock.lock();
                entered.store(true, Ordering::Release);
            });
            let mut held = Some(held);
            loop {
                let awaited = held.as_ref().is_some_and(Locked::is_awaited);
                drop(held.take());
                if awaited && lock.stay_away() {
                    drop(lock.lock()); // the waiter has had it, and has released it
                    break assert!(entered.load(Ordering::Acquire));
                }
                if entered.load(Ordering::Acquire) {
                    break; // it was faster than this thread's offer
                }
                held = Some(lock.lock());
                std::thread::yield_now();
            }
        });
        assert!(lock.try_lock().is_some(), "what was offered is free");
    }
}
