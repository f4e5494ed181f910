//! The small lock: one byte, taken with one read-modify-write and let go with a plain store, which is half of what a mutex
//! costs that has to find out, when it is let go, whether anybody sleeps on it.
//!
//! What it guards takes some ten nanoseconds, so who finds it taken spins for a moment; then lets other threads run, for its
//! holder may be among them; then naps, for its holder may be one that yielding does not let run (a lower real-time
//! priority). So nobody spins for ever, and nobody has to be woken. No user code runs under one.
//!
//! In the models of the tree loom's own mutex stands in for it, which explores who comes next without spinning; the byte has
//! a model of its own.

use crate::sync::{AtomicU8, Backoff, Ordering};

pub(crate) struct ByteLock(AtomicU8);

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// Taken, and somebody tried since, or the holder had to wait for it.
const AWAITED: u8 = 2;

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
        if self.0.swap(TAKEN, Ordering::Acquire) != FREE {
            self.wait();
        }
        Locked(self)
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        (self.0.swap(TAKEN, Ordering::Acquire) == FREE).then(|| Locked(self))
    }

    #[cold]
    fn wait(&self) {
        let mut backoff = Backoff::new();
        while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
            backoff.snooze();
        }
    }
}

impl Locked<'_> {
    /// Whether somebody waits for it, as far as can be told. Who lets it go to take it again at once lets that one in between.
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
    use super::ByteLock;

    #[test]
    fn who_has_it_can_tell_that_somebody_waits() {
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
}
