//! What several topics need.

use std::thread;
use std::time::{Duration, Instant};

use purview::Spawn;
use purview::thread::block_on;

/// Nothing here takes so long; it is for a machine that is busy.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A runtime: each task has a thread of its own.
#[derive(Default)]
pub(crate) struct Threads;

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        thread::spawn(move || block_on(task));
    }
}

/// Waits for what is going to be.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it does not come");
        thread::yield_now();
    }
}
