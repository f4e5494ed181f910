//! A fork copies the hub's lock, held or not. It is taken around each fork, so that the child finds it free and the hub whole.
//!
//! The child notes that it is one (`unix.rs`). One that was made without `fork`, by `clone` for instance, has another process id.
#![expect(unsafe_code, reason = "pthread_atfork is the only way to hear of a fork")]

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::{MutexGuard, Once};

use crate::hub::{self, Hub};

thread_local! {
    /// Held by the forking thread, from before the fork until after it.
    static HELD: RefCell<Option<MutexGuard<'static, Hub>>> = const { RefCell::new(None) };
}

unsafe extern "C" {
    /// POSIX.1-2017.
    safe fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
}

/// Called before the first who listens is listed, without the lock. Where it fails, out of memory, a child does without.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = pthread_atfork(Some(take), Some(give_back), Some(begin));
    });
}

extern "C" fn take() {
    let hub = hub::lock();
    // A thread that is being torn down has no such place any more; its child then does without the care.
    let _ = HELD.try_with(|place| place.replace(Some(hub)));
}

extern "C" fn begin() {
    crate::sys::is_child_of_a_fork();
    give_back();
}

extern "C" fn give_back() {
    let _ = HELD.try_with(|place| place.take());
}
