//! The one thread that serves the system clock's deadlines.
//!
//! It starts with the first deadline that somebody waits for, sleeps until the earliest one, and ends with the process.
//! Where no thread can be started (the system is out of them), deadlines stay in the heap and each one that is added
//! tries again. After a fork the child has no such thread; the next deadline that is waited for there starts one.
#![cfg_attr(unix, expect(unsafe_code, reason = "pthread_atfork is the only way to hear of a fork"))]

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::heap::Heap;
use super::{Due, runner};
use crate::clock::Tick;
use crate::tree::{self, Panics, Wake};

struct Driver {
    state: Mutex<State>,
    /// The earliest deadline changed.
    changed: Condvar,
}

struct State {
    heap: Heap,
    has_thread: bool,
}

/// In a storm of deadlines, the callbacks are looked after once in so many: some hundred microseconds.
const BUSY: u32 = 64;

static DRIVER: Driver = Driver {
    state: Mutex::new(State { heap: Heap::new(), has_thread: false }),
    changed: Condvar::new(),
};

fn state() -> MutexGuard<'static, State> {
    DRIVER.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `change` on the heap, and wakes or starts the thread if it made the earliest deadline earlier.
pub(crate) fn with_heap<R>(change: impl FnOnce(&mut Heap) -> R) -> R {
    let (result, start) = {
        let mut state = state();
        let before = state.heap.earliest().unwrap_or(Tick::NEVER);
        let result = change(&mut state.heap);
        let sooner = state.heap.earliest().is_some_and(|at| at < before);
        // An entry that no thread serves, because none could be started, is a reason to try again.
        let start = !state.has_thread && !state.heap.is_empty();
        state.has_thread |= start;
        drop(state);
        if sooner && !start {
            DRIVER.changed.notify_one();
        }
        (result, start)
    };
    if start {
        start_thread();
    }
    result
}

fn start_thread() {
    #[cfg(unix)]
    fork::watch();
    if thread::Builder::new().name("purview-timer".into()).spawn(serve).is_err() {
        state().has_thread = false;
    }
}

fn serve() {
    let mut state = state();
    let mut fired: u32 = 0;
    loop {
        let now = Instant::now();
        let at = state.heap.earliest();
        if at.is_some_and(|at| at <= Tick::from_instant(now)) {
            let due = state.heap.pop();
            drop(state);
            fired = fired.wrapping_add(1);
            if fired % BUSY == 0 {
                runner::relieve(now);
            }
            if let Some(due) = due {
                fire(due);
            }
            state = self::state();
            continue;
        }
        let until_deadline = at.map(|at| at.since(Tick::from_instant(now)));
        let until_look = runner::relieve(now);
        let wait = until_deadline.into_iter().chain(until_look).min();
        state = match wait {
            None => DRIVER.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                let woken = DRIVER.changed.wait_timeout(state, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// Serves what is due. A panic of a waker has been reported by the panic hook; there is no caller to hand it to (C32).
fn fire(due: Due) {
    let mut panics = Panics::new();
    match due {
        Due::Deadline(context) => {
            tree::expire(&context, Wake::FromTimer, &mut panics);
            // Should this be the last handle, the values that go with it are the user's code.
            runner::release(context);
        }
        Due::Alarm(waker) => panics.catch(|| waker.wake()),
    }
    panics.forget();
}

/// A fork takes the thread away and copies the locks, held or not. Both locks are taken around it, so that the child has
/// them free and the heap whole; and the child notes that it has no threads.
#[cfg(unix)]
mod fork {
    use std::cell::RefCell;
    use std::sync::{MutexGuard, Once};

    use super::{State, runner};

    type Held = (MutexGuard<'static, State>, MutexGuard<'static, runner::State>);

    thread_local! {
        /// Held by the forking thread, from before the fork until after it.
        static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    }

    unsafe extern "C" {
        /// POSIX.1-2017.
        safe fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> std::ffi::c_int;
    }

    /// Called once, before the first thread starts. Where it fails, out of memory, a child has no deadlines.
    pub(super) fn watch() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let _ = pthread_atfork(Some(prepare), Some(parent), Some(child));
        });
    }

    extern "C" fn prepare() {
        let held = (super::state(), runner::state());
        // A thread that is being torn down has no such place any more; its child then does without the care.
        let _ = HELD.try_with(|place| place.replace(Some(held)));
    }

    extern "C" fn parent() {
        let _ = HELD.try_with(|place| place.take());
    }

    extern "C" fn child() {
        let held = HELD.try_with(|place| place.take()).ok().flatten();
        if let Some((mut driver, mut runner)) = held {
            driver.has_thread = false;
            runner.forget_threads();
        }
    }
}
