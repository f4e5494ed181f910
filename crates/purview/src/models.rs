//! Races, model-checked: each test is run by loom under every interleaving (up to a number of preemptions) and every
//! order that the memory model allows.
//!
//! `cargo xtask loom` runs them. One fact a model, three threads at most, and no user-visible type that is not real: only
//! locks, atomics and cells are loom's.

mod cancel;
mod ends;
mod grace;
mod groups;
mod shards;
mod stages;
mod time;
mod waiting;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

use crate::{CancelGuard, Context};

const SECOND: Duration = Duration::from_secs(1);

/// A root of its own for each run of a model, with a node that can be canceled.
fn root() -> (Context, CancelGuard) {
    Context::background().with_cancel()
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: Pin<&mut F>, wakes: &Arc<Wakes>) -> bool {
    let waker = Waker::from(Arc::clone(wakes));
    matches!(future.poll(&mut Task::from_waker(&waker)), Poll::Ready(_))
}
