//! A thread is just another waker: blocking is a loop over `poll`.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context as Task, Poll, Wake, Waker};

/// What a thread sleeps on. Not `thread::park`: its one token may be somebody else's, and taking it would be their lost
/// wake-up.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    fn park(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *woken) {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

thread_local! {
    /// Made once a thread, so that waiting allocates nothing. A wake-up that comes late, from an earlier wait, makes
    /// the next one look once too often. It is taken while it is waited on: a wait inside a wait has one of its own, or it
    /// would take the outer one's wake-ups.
    static PARKER: Cell<Option<(Arc<Parker>, Waker)>> = const { Cell::new(None) };
}

/// In a forked child: a wake-up that came late may have been in the middle of it, and its lock is taken for good.
#[cfg(unix)]
pub(crate) fn forget() {
    let _ = PARKER.try_with(|kept| std::mem::forget(kept.take()));
}

/// Runs `future` on this thread, which sleeps while it is pending.
pub(crate) fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    // A thread that is being torn down has no thread-locals any more.
    let kept = PARKER.try_with(Cell::take).ok().flatten();
    let (parker, waker) = kept.unwrap_or_else(|| {
        let parker = Arc::new(Parker::default());
        (Arc::clone(&parker), Waker::from(parker))
    });
    let mut task = Task::from_waker(&waker);
    let output = loop {
        match future.as_mut().poll(&mut task) {
            Poll::Ready(output) => break output,
            Poll::Pending => parker.park(),
        }
    };
    let _ = PARKER.try_with(|kept| kept.set(Some((parker, waker))));
    output
}
