//! The one thread that serves the system clock's deadlines.
//!
//! It starts with the first deadline that somebody waits for, sleeps until the earliest one, and ends with the process.
//! Where no thread can be started (the system is out of them), deadlines stay in the wheel and each one that is added
//! tries again. After a fork the child has no such thread; the next deadline that is waited for there starts one.
#![cfg_attr(unix, expect(unsafe_code, reason = "pthread_atfork is the only way to hear of a fork"))]

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::wheel::Wheel;
use super::{Due, runner};
use crate::clock::Tick;
use crate::tree::{self, Panics, Wake};

struct Driver {
    state: Mutex<State>,
    /// There is something sooner than the thread sleeps.
    changed: Condvar,
}

struct State {
    wheel: Wheel,
    has_thread: bool,
    /// Until when the thread sleeps; the beginning of time, while it does not.
    sleeps_until: Tick,
}

const AWAKE: Tick = Tick::from_nanos(i64::MIN);

/// In a storm of deadlines, the callbacks are looked after once in so many: some hundred microseconds.
const BUSY: u32 = 64;

static DRIVER: Driver = Driver {
    state: Mutex::new(State { wheel: Wheel::new(), has_thread: false, sleeps_until: AWAKE }),
    changed: Condvar::new(),
};

fn state() -> MutexGuard<'static, State> {
    DRIVER.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `change` on the wheel, and starts the thread, or wakes it if it sleeps past what was put in. What is taken out wakes
/// nobody: the thread comes by once for nothing, and most deadlines are far away and taken out.
pub(crate) fn with_wheel<R>(change: impl FnOnce(&mut Wheel) -> R) -> R {
    let (result, start) = {
        let mut state = state();
        let result = change(&mut state.wheel);
        let sooner = state.wheel.take_sooner() < state.sleeps_until;
        // An entry that no thread serves, because none could be started, is a reason to try again.
        let start = !state.has_thread && !state.wheel.is_empty();
        state.has_thread |= start;
        if sooner {
            state.sleeps_until = AWAKE; // it is told once
        }
        drop(state);
        if sooner {
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
        let instant = Instant::now();
        let now = Tick::from_instant(instant);
        state.wheel.advance(now);
        if let Some(due) = state.wheel.pop(now) {
            drop(state);
            fired = fired.wrapping_add(1);
            if fired % BUSY == 0 {
                runner::relieve(instant);
            }
            if let Some(due) = due {
                fire(due);
            }
            state = self::state();
            continue;
        }
        let next = state.wheel.next();
        let until_look = runner::relieve(instant);
        let wait = next.map(|at| at.since(now)).into_iter().chain(until_look).min();
        state.sleeps_until = next.unwrap_or(Tick::NEVER);
        state = match wait {
            None => DRIVER.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                let woken = DRIVER.changed.wait_timeout(state, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleeps_until = AWAKE;
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
/// them free and the wheel whole; and the child notes that it has no threads.
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
            driver.sleeps_until = super::AWAKE;
            runner.forget_threads();
        }
    }
}
