//! What several topics need.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

use purview::{CancelGuard, Context};

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

/// A context with a deadline of the system's clock that has come while `call` was registered with it. Where the machine was so
/// busy that it came before, `call` would have been called on this thread; another one is made then, with more time.
pub(crate) fn ends_by_deadline<F: FnOnce() + Clone + Send + 'static>(
    call: F,
) -> (Context, CancelGuard) {
    let mut timeout = Duration::from_millis(1);
    loop {
        let (ctx, guard) = Context::background().with_timeout(timeout);
        let too_late = Arc::new(AtomicBool::new(false));
        let (call, is_too_late, here) =
            (call.clone(), too_late.clone(), std::thread::current().id());
        ctx.on_done(move |_| match std::thread::current().id() == here {
            true => is_too_late.store(true, Ordering::SeqCst),
            false => call(),
        })
        .detach();
        if !too_late.load(Ordering::SeqCst) {
            return (ctx, guard);
        }
        timeout *= 2;
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
