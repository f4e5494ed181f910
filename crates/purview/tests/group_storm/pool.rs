//! A small runtime: a few threads that poll tasks. It may drop a task instead of running it on, as a runtime that goes does.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context as Task, Wake, Waker};

use purview::Spawn;

use crate::Random;

/// The storm's threads, as one group sees them.
#[derive(Clone)]
pub(crate) struct Pool {
    /// One task in `drops` is dropped; none, if it is 0.
    drops: u64,
    random: Arc<AtomicU64>,
    /// How many were dropped before their end.
    pub(crate) dropped: Arc<AtomicUsize>,
}

struct Job {
    /// None once it is over.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// The number of polls after which it is dropped.
    polls: AtomicU64,
    dropped: Arc<AtomicUsize>,
}

struct Queue {
    jobs: Mutex<VecDeque<Arc<Job>>>,
    came: Condvar,
}

const THREADS: usize = 3;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<&'static Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let queue: &Queue =
            Box::leak(Box::new(Queue { jobs: Mutex::default(), came: Condvar::new() }));
        for _ in 0..THREADS {
            std::thread::Builder::new().name("pool".into()).spawn(|| run(queue)).expect("a thread");
        }
        queue
    })
}

fn run(queue: &Queue) {
    loop {
        let mut jobs = lock(&queue.jobs);
        let job = loop {
            match jobs.pop_front() {
                Some(job) => break job,
                None => jobs = queue.came.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        job.poll();
    }
}

impl Job {
    fn poll(self: Arc<Self>) {
        let mut place = lock(&self.future);
        let Some(future) = place.as_mut() else { return };
        if self.polls.fetch_sub(1, Ordering::Relaxed) == 0 {
            let future = place.take();
            drop(place);
            self.dropped.fetch_add(1, Ordering::SeqCst); // before its group hears of it
            drop(future);
            return;
        }
        let waker = Waker::from(Arc::clone(&self));
        if future.as_mut().poll(&mut Task::from_waker(&waker)).is_ready() {
            let over = place.take();
            drop(place);
            drop(over);
        }
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        let queue = queue();
        lock(&queue.jobs).push_back(self);
        queue.came.notify_one();
    }
}

impl Pool {
    pub(crate) fn new(drops: u64, seed: u64) -> Pool {
        Pool { drops, random: Arc::new(AtomicU64::new(seed)), dropped: Arc::default() }
    }
}

impl Spawn for Pool {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let mut random = Random(self.random.fetch_add(1, Ordering::Relaxed));
        let is_to_go = self.drops > 0 && random.one_in(self.drops);
        let polls = if is_to_go { random.below(3) } else { u64::MAX };
        let job = Job {
            future: Mutex::new(Some(Box::pin(task))),
            polls: AtomicU64::new(polls),
            dropped: Arc::clone(&self.dropped),
        };
        Arc::new(job).wake();
    }
}
