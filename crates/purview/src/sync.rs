//! Locks, atomics, cells, and the memory of nodes: the only file that says loom, or shuttle.
//!
//! The crate's own tests swap these for loom's under `--cfg purview_loom`, and for shuttle's under `--cfg purview_shuttle`;
//! everybody else gets std's. The cfgs are private (not the global `cfg(loom)`, which flips other crates too), and both are
//! dev-dependencies, so no user ever sees them.

#[cfg(all(test, purview_loom))]
mod imp {
    /// A node that is not freed fails its model.
    pub(crate) use loom::alloc::{alloc, dealloc};
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread_local;

    /// In models a lock is loom's own: it explores who gets it next without spinning.
    pub(crate) struct Lock(Mutex<()>);

    #[must_use]
    pub(crate) struct Locked<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

    impl Locked<'_> {
        pub(crate) fn is_awaited(&self) -> bool {
            false
        }
    }

    impl Lock {
        pub(crate) fn new() -> Self {
            Lock(Mutex::new(()))
        }

        pub(crate) fn lock(&self) -> Locked<'_> {
            Locked(super::lock(&self.0))
        }

        pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
            self.0.try_lock().ok().map(Locked)
        }

        pub(crate) fn stay_away(&self) -> bool {
            false
        }
    }

    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Self {
            Backoff
        }

        pub(crate) fn snooze(&mut self) {
            loom::thread::yield_now();
        }
    }
}

/// The crate's own lock, on shuttle's atomics: each use of one is a place where another thread may go on. Its threads are one thread of
/// the system's, so waiting is letting others go on, and thread-locals are shuttle's.
#[cfg(all(test, purview_shuttle))]
mod imp {
    pub(crate) use std::alloc::{alloc, dealloc};

    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread_local;

    pub(crate) use super::cell::UnsafeCell;
    pub(crate) use crate::lock::{ByteLock as Lock, Locked};

    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Self {
            Backoff
        }

        pub(crate) fn snooze(&mut self) {
            shuttle::thread::yield_now();
        }
    }
}

#[cfg(not(all(test, purview_loom)))]
mod cell {
    /// std's cell with the access methods of loom's, so that a model sees every access.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
            access(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            access(self.0.get())
        }
    }
}

#[cfg(not(any(all(test, purview_loom), all(test, purview_shuttle))))]
mod imp {
    pub(crate) use std::alloc::{alloc, dealloc};
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread_local;
    use std::time::Duration;

    pub(crate) use super::cell::UnsafeCell;
    pub(crate) use crate::lock::{ByteLock as Lock, Locked};

    /// Waiting for another thread that is about to be done: spins, then yields, then naps.
    pub(crate) struct Backoff(u32);

    impl Backoff {
        const SPINS: u32 = 6;
        const YIELDS: u32 = 32;
        const NAP: Duration = Duration::from_micros(50);

        pub(crate) fn new() -> Self {
            Backoff(0)
        }

        pub(crate) fn snooze(&mut self) {
            self.0 = self.0.saturating_add(1);
            if self.0 <= Self::SPINS {
                (0..1_u32 << self.0).for_each(|_| std::hint::spin_loop());
            } else if self.0 <= Self::YIELDS {
                std::thread::yield_now();
            } else {
                nap(Self::NAP);
            }
        }
    }

    /// Not a parked thread: its one token may be somebody else's.
    fn nap(time: Duration) {
        let nobody = Mutex::new(());
        let _ = Condvar::new().wait_timeout(super::lock(&nobody), time);
    }
}

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering;

/// Where threads are played through: there, what is long or wide elsewhere is as short as it can be.
pub(crate) const MODELED: bool = cfg!(any(all(test, purview_loom), all(test, purview_shuttle)));

/// Locks, whatever happened to an earlier holder. No user code runs under a lock of ours, so a poisoned one can only mean
/// a bug of ours that has been reported by its own panic; the data behind it is consistent at every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Gives back one of a count. True for the last, who sees all that the others have done. As for an `Arc` that is unique: whoever has
/// the one there is has it for himself.
#[inline]
pub(crate) fn is_last(count: &AtomicU32) -> bool {
    if count.load(Ordering::Acquire) == 1 {
        return true;
    }
    let is_last = count.fetch_sub(1, Ordering::Release) == 1;
    if is_last {
        acquire(count);
    }
    is_last
}

#[inline]
fn acquire(_count: &AtomicU32) {
    // ThreadSanitizer does not know fences.
    #[cfg(purview_sanitize)]
    let _ = _count.load(Ordering::Acquire);
    #[cfg(not(purview_sanitize))]
    fence(Ordering::Acquire);
}

/// Waits to be notified, for `time` at the most; where threads are played through, for ever.
pub(crate) fn wait<'a, T>(
    condvar: &Condvar,
    held: MutexGuard<'a, T>,
    time: Option<std::time::Duration>,
) -> MutexGuard<'a, T> {
    match time.filter(|_| !MODELED) {
        None => condvar.wait(held).unwrap_or_else(std::sync::PoisonError::into_inner),
        Some(time) => {
            let woken = condvar.wait_timeout(held, time);
            woken.unwrap_or_else(std::sync::PoisonError::into_inner).0
        }
    }
}
