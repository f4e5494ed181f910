//! Panics of user code, which must not keep the rest from being served (C32).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use super::Ref;

/// The panics of one operation: the first of them, and how to serve on.
pub(crate) struct Panics {
    first: Option<Box<dyn Any + Send>>,
}

impl Panics {
    #[inline]
    pub(crate) fn new() -> Self {
        Panics { first: None }
    }

    /// Runs user code. Its panic, if it is the first, is kept for [`resume`](Self::resume).
    pub(crate) fn catch(&mut self, code: impl FnOnce()) {
        // Unwind safety: what a panic leaves broken in the user's state is seen by who gets the panic.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
            match self.first {
                None => self.first = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }

    /// Drops a handle, which may be the last and drop values.
    pub(crate) fn release(&mut self, context: Ref) {
        if let Some(dead) = context.release() {
            dead.reclaim(self);
        }
    }

    /// Goes on with the first panic, if there was one. A thread that is unwinding already keeps to its own.
    #[inline]
    pub(crate) fn resume(self) {
        if self.first.is_some() {
            self.resume_it();
        }
    }

    #[cold]
    fn resume_it(self) {
        match self.first {
            Some(payload) if !thread::panicking() => resume_unwind(payload),
            Some(payload) => discard(payload),
            None => {}
        }
    }

    /// Where there is no caller: the panic hook has reported them.
    pub(crate) fn forget(self) {
        if let Some(payload) = self.first {
            discard(payload);
        }
    }
}

/// What was thrown may throw when it is dropped.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}
