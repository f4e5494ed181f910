//! Locks, atomics and cells: the only file that says loom.
//!
//! The crate's own tests swap these for loom's under `--cfg purview_loom`; everybody else gets std's. The cfg is private
//! (not the global `cfg(loom)`, which flips other crates too), and loom is a dev-dependency, so no user ever sees it.

#[cfg(all(test, purview_loom))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, fence,
    };
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

#[cfg(not(all(test, purview_loom)))]
mod imp {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, fence,
    };
    pub(crate) use std::sync::{Mutex, MutexGuard};

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

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering;

/// Locks, whatever happened to an earlier holder. No user code runs under a lock of ours, so a poisoned one can only mean
/// a bug of ours that has been reported by its own panic; the data behind it is consistent at every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
