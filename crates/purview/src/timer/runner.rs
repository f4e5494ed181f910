//! Where callbacks of deadlines run: on a thread kept for them, never on the timer's (C33).
//!
//! One thread is kept, and runs what it is given in order. A callback may block for ever, and must not hold up those of
//! other contexts (C22): while there is something to do, the timer looks every 10 ms whether anything was begun since, and
//! if not starts another thread. That thread leaves once there is nothing to do and another one is waiting for it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::signals::without_signals;
use crate::error::Error;
use crate::on_done::Counted;
use crate::tree::{Dead, Panics, Ref};

/// A callback that takes longer than this, while others wait, is left alone on its thread. Long beside a thread start
/// (some 50 µs), short beside what a person notices.
const PATIENCE: Duration = Duration::from_millis(10);

/// Something of the user's to run.
enum Job {
    Callback(Counted, Error),
    /// The last handle went on the timer's thread: values are to be dropped.
    Reclaim(Dead),
}

pub(super) struct State {
    jobs: VecDeque<Job>,
    /// Threads there are, and of these the ones that wait for a job.
    threads: usize,
    idle: usize,
    /// When a job was last begun, or the queue last got its first.
    begun: Option<Instant>,
}

impl State {
    /// In a forked child: its threads are gone, and what waits for them is the parent's to run. Dropping it here would run
    /// the user's code in both, too.
    #[cfg(unix)]
    pub(super) fn forget(&mut self) {
        self.threads = 0;
        self.idle = 0;
        std::mem::forget(std::mem::take(&mut self.jobs));
    }
}

struct Runner {
    state: Mutex<State>,
    work: Condvar,
}

static RUNNER: Runner = Runner {
    state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0, begun: None }),
    work: Condvar::new(),
};

pub(super) fn state() -> MutexGuard<'static, State> {
    RUNNER.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the timer has for the thread that runs callbacks, and hands over in one go: so the two meet, and the one is woken, once
/// for all that is due at a time.
pub(crate) struct Batch(Vec<Job>);

impl Batch {
    pub(super) const fn new() -> Batch {
        Batch(Vec::new())
    }

    /// Has `callback` called with `error`.
    pub(crate) fn call(&mut self, callback: Counted, error: Error) {
        self.0.push(Job::Callback(callback, error));
    }

    /// Drops a handle; if it was the last, what the context owns is dropped there and not on this thread.
    pub(crate) fn release(&mut self, context: Ref) {
        self.0.extend(context.release().map(Job::Reclaim));
    }

    /// Before the timer sleeps, and now and then: hands over what there is, and starts another thread where jobs wait behind
    /// one that takes too long. Returns when to look again.
    pub(super) fn hand_over(&mut self, now: Instant) -> Option<Duration> {
        let mut state = state();
        if state.jobs.is_empty() {
            state.begun = Some(now);
        }
        state.jobs.extend(self.0.drain(..));
        if state.jobs.is_empty() {
            return None;
        }
        let waited = state.begun.map_or(PATIENCE, |begun| now.saturating_duration_since(begun));
        if state.idle > 0 {
            drop(state);
            RUNNER.work.notify_one();
        } else if state.threads == 0 || waited >= PATIENCE {
            state.begun = Some(now);
            state.threads += 1;
            drop(state);
            start_thread();
        } else {
            return Some(PATIENCE - waited);
        }
        Some(PATIENCE)
    }
}

/// Where no thread can be started, the timer tries again: jobs that wait keep it looking.
fn start_thread() {
    let thread = thread::Builder::new().name("purview-callbacks".into());
    if without_signals(|| thread.spawn(serve)).is_err() {
        state().threads -= 1;
    }
}

fn serve() {
    let mut state = state();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            state.begun = Some(Instant::now());
            drop(state);
            run(job);
            state = self::state();
            continue;
        }
        if state.idle > 0 {
            state.threads -= 1;
            return;
        }
        state.idle += 1;
        state = RUNNER.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.idle = state.idle.saturating_sub(1);
    }
}

/// A panic has been reported by the panic hook; there is no caller to hand it to (C32).
fn run(job: Job) {
    let mut panics = Panics::new();
    match job {
        Job::Callback(callback, error) => {
            panics.catch(|| callback.call(&error));
            // The user's too: what the callback has captured, if it was not called, and the cause, if nothing else keeps it.
            panics.catch(|| drop(callback));
            panics.catch(|| drop(error));
        }
        Job::Reclaim(dead) => dead.reclaim(&mut panics),
    }
    panics.forget();
}
