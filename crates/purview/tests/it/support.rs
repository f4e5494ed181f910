//! What several topics need.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};

/// Polls once with a waker that does nothing.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Polls once with `waker`.
pub(crate) fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(waker))
}

/// A waker that counts its wake-ups.
#[derive(Default)]
pub(crate) struct CountingWaker(pub(crate) AtomicUsize);

impl CountingWaker {
    pub(crate) fn new() -> Arc<CountingWaker> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that runs code.
pub(crate) fn waker_of(code: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Run<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for Run<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Waker::from(Arc::new(Run(code)))
}

/// What happened, in order, from whichever thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("no panic while logging").push(line.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic while logging"))
    }
}

/// Runs on a stack of 64 KiB.
pub(crate) fn on_a_small_stack(code: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(code)
        .expect("a thread")
        .join()
        .expect("no overflow, no panic");
}
