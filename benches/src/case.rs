//! What a workload is: a row and a case of it, done by a peer.
//!
//! Most are *loops*: an operation that is repeated. A loop is written once and serves three ends: it is timed, its
//! allocations are counted, its instructions are. The others are *wholes*: something large that is done once, with figures
//! of its own.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

pub(crate) struct Case {
    /// The row of BENCHMARKS.md: "P1".
    pub(crate) row: &'static str,
    pub(crate) name: String,
    pub(crate) peer: Peer,
    pub(crate) work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Purview,
    TokioUtil,
    /// No peer: what the machine asks for a bare load in the same place.
    Floor,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Purview => "purview",
            Peer::TokioUtil => "tokio-util",
            Peer::Floor => "floor",
        }
    }
}

pub(crate) enum Work {
    Loop { threads: usize, home: Home, make: Box<dyn Fn() -> Loop> },
    Whole { alone: bool, run: Box<dyn Fn(&Scale) -> Outcome> },
}

/// Where a loop runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// On plain threads.
    Threads,
    /// In tasks of a tokio runtime, in which an earlier timer is pending, as there is in any server.
    Runtime,
}

impl Case {
    /// A loop on one thread.
    pub(crate) fn one(
        row: &'static str,
        name: impl Into<String>,
        peer: Peer,
        make: impl Fn() -> Loop + 'static,
    ) -> Case {
        let work = Work::Loop { threads: 1, home: Home::Threads, make: Box::new(make) };
        Case { row, name: name.into(), peer, work }
    }

    /// A loop on two threads at once, which share what it works on.
    pub(crate) fn two(
        row: &'static str,
        name: impl Into<String>,
        peer: Peer,
        make: impl Fn() -> Loop + 'static,
    ) -> Case {
        let work = Work::Loop { threads: 2, home: Home::Threads, make: Box::new(make) };
        Case { row, name: name.into(), peer, work }
    }

    pub(crate) fn whole(
        row: &'static str,
        name: impl Into<String>,
        peer: Peer,
        run: impl Fn(&Scale) -> Outcome + 'static,
    ) -> Case {
        Case {
            row,
            name: name.into(),
            peer,
            work: Work::Whole { alone: false, run: Box::new(run) },
        }
    }

    /// The loop, in a tokio runtime.
    pub(crate) fn in_runtime(mut self) -> Case {
        if let Work::Loop { home, .. } = &mut self.work {
            *home = Home::Runtime;
        }
        self
    }

    /// The whole, in a process of its own.
    pub(crate) fn in_a_process(mut self) -> Case {
        if let Work::Whole { alone, .. } = &mut self.work {
            *alone = true;
        }
        self
    }
}

/// Does the operation so many times. Made on the thread that it runs on, and stays there.
pub(crate) type Batch = Box<dyn FnMut(u64)>;

/// An operation to be repeated: what it works on, and a batch for each thread that takes part.
pub(crate) struct Loop(Arc<dyn Fn() -> Batch + Send + Sync>);

impl Loop {
    /// `operation` on what all threads share.
    pub(crate) fn of<S: Send + Sync + 'static>(
        shared: S,
        operation: impl Fn(&S) + Copy + Send + Sync + 'static,
    ) -> Loop {
        Loop::each(shared, move |shared| {
            Box::new(move |times| {
                for _ in 0..times {
                    operation(black_box(&shared));
                }
            })
        })
    }

    /// The same, with a waker to poll with, one a thread.
    pub(crate) fn polling<S: Send + Sync + 'static>(
        shared: S,
        operation: impl Fn(&S, &mut Task<'_>) + Copy + Send + Sync + 'static,
    ) -> Loop {
        Loop::each(shared, move |shared| {
            let waker = counted_waker();
            Box::new(move |times| {
                let mut task = Task::from_waker(&waker);
                for _ in 0..times {
                    operation(black_box(&shared), &mut task);
                }
            })
        })
    }

    /// Batches made by each thread for itself.
    pub(crate) fn each<S: Send + Sync + 'static>(
        shared: S,
        batch: impl Fn(Arc<S>) -> Batch + Send + Sync + 'static,
    ) -> Loop {
        let shared = Arc::new(shared);
        Loop(Arc::new(move || batch(Arc::clone(&shared))))
    }

    /// The calling thread's.
    pub(crate) fn batch(&self) -> Batch {
        (self.0)()
    }
}

impl Clone for Loop {
    fn clone(&self) -> Self {
        Loop(Arc::clone(&self.0))
    }
}

/// How much of everything.
pub(crate) struct Scale {
    /// Samples of a loop in a round, and how long each takes, on one thread and on two.
    pub(crate) samples: usize,
    pub(crate) one: Duration,
    pub(crate) two: Duration,
    /// Samples of a whole in a round.
    pub(crate) wholes: usize,
    /// Contexts in a large tree, or in memory.
    pub(crate) nodes: usize,
    pub(crate) tasks: usize,
    pub(crate) wakes: usize,
    /// Deadlines that fire, and the time over which they do.
    pub(crate) firings: usize,
    pub(crate) spread: Duration,
}

impl Scale {
    pub(crate) const FULL: Scale = Scale {
        samples: 5,
        one: Duration::from_millis(15),
        two: Duration::from_millis(4),
        wholes: 3,
        nodes: 1_000_000,
        tasks: 100_000,
        wakes: 1_000,
        firings: 100_000,
        spread: Duration::from_secs(1),
    };
    pub(crate) const QUICK: Scale = Scale {
        samples: 3,
        one: Duration::from_millis(3),
        two: Duration::from_millis(2),
        wholes: 1,
        nodes: 100_000,
        tasks: 20_000,
        wakes: 200,
        firings: 20_000,
        spread: Duration::from_millis(200),
    };
    /// To see that a workload runs.
    #[cfg(test)]
    pub(crate) const SMOKE: Scale = Scale {
        samples: 1,
        one: Duration::ZERO,
        two: Duration::ZERO,
        wholes: 1,
        nodes: 100,
        tasks: 50,
        wakes: 3,
        firings: 50,
        spread: Duration::from_millis(10),
    };
}

/// What a whole found, once.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Metrics, such as "ns" or "p50 us".
    pub(crate) figures: Vec<(&'static str, f64)>,
    /// The part of the time for which its threads were kept from running.
    pub(crate) disturbed: f64,
}

impl Outcome {
    pub(crate) fn of<const N: usize>(figures: [(&'static str, f64); N]) -> Outcome {
        Outcome { figures: figures.to_vec(), disturbed: 0.0 }
    }
}

/// A waker as a task's is: to clone or drop it is one read-modify-write.
pub(crate) fn counted_waker() -> Waker {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    Waker::from(Arc::new(Nobody))
}

/// Polls once, as the first turn of a `select!` does. True if it was not ready.
pub(crate) fn poll_once(future: Pin<&mut impl Future>, task: &mut Task<'_>) -> bool {
    matches!(black_box(future.poll(task)), Poll::Pending)
}
