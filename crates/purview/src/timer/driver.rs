//! The one thread that serves the system clock's deadlines.
//!
//! There are several wheels, so that threads that wait for deadlines don't meet: what a thread makes goes into its own. The
//! thread that serves them all starts with the first deadline that somebody waits for, sleeps until the earliest one, and
//! ends with the process. Where no thread can be started (the system is out of them), deadlines stay in their wheels and each
//! one that is added tries again. After a fork the child has no such thread; the next deadline that is waited for there
//! starts one.
#![cfg_attr(unix, expect(unsafe_code, reason = "pthread_atfork is the only way to hear of a fork"))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

use super::Due;
use super::bell::Bell;
use super::runner::Batch;
use super::signals::without_signals;
use super::wheel::Wheel;
use crate::clock::Tick;
use crate::sync::Backoff;
use crate::tree::{self, Panics, Wake};

/// A power of two.
pub(crate) const WHEELS: usize = if crate::sync::MODELED { 1 } else { 8 };

struct Driver {
    wheels: [Spoke; WHEELS],
    bell: Bell,
    has_thread: AtomicBool,
}

/// A wheel, in cache lines of its own.
#[repr(align(128))]
struct Spoke {
    wheel: Mutex<Wheel>,
    /// How many threads found it locked, and sleep until they get it.
    awaited: AtomicUsize,
}

impl Spoke {
    const fn new() -> Spoke {
        Spoke { wheel: Mutex::new(Wheel::new()), awaited: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Wheel> {
        match self.wheel.try_lock() {
            Ok(wheel) => return wheel,
            Err(TryLockError::Poisoned(wheel)) => return wheel.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
        self.awaited.fetch_add(1, Ordering::Relaxed);
        let wheel = self.wheel.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaited.fetch_sub(1, Ordering::Relaxed);
        wheel
    }

    /// For the timer's thread, which is going to lock it again at once: a thread that was woken for the lock would come too late
    /// each time. Waits until one has it, for about as long as it takes to wake up.
    fn let_one_in(&self) {
        const LONG: usize = 40;
        let awaited = self.awaited.load(Ordering::Relaxed);
        let mut backoff = Backoff::new();
        for _ in 0..LONG {
            if awaited == 0 || self.awaited.load(Ordering::Relaxed) < awaited {
                return;
            }
            backoff.snooze();
        }
    }
}

/// In a storm of deadlines, callbacks are handed over once in so many: some ten microseconds.
const BUSY: u32 = 32;

/// There from the beginning: a child that is forked while another thread makes something would wait for that thread for ever.
#[cfg(not(all(test, purview_loom)))]
static DRIVER: Driver = Driver {
    wheels: [const { Spoke::new() }; WHEELS],
    bell: Bell::new(),
    has_thread: AtomicBool::new(false),
};

#[cfg(all(test, purview_loom))]
static DRIVER: std::sync::LazyLock<Driver> = std::sync::LazyLock::new(|| Driver {
    wheels: [const { Spoke::new() }; WHEELS],
    bell: Bell::new(),
    has_thread: AtomicBool::new(false),
});

fn wheel(number: usize) -> MutexGuard<'static, Wheel> {
    DRIVER.wheels[number].lock()
}

/// Runs `change` on a wheel; then starts the thread, or wakes it, if something was put in that it would come too late for.
pub(crate) fn with_wheel<R>(number: usize, change: impl FnOnce(&mut Wheel) -> R) -> R {
    // Before the first lock: a fork would leave it taken in the child.
    #[cfg(unix)]
    fork::watch();
    let mut wheel = wheel(number);
    let result = change(&mut wheel);
    let put_in = wheel.take_sooner();
    drop(wheel);
    if put_in != Tick::NEVER {
        DRIVER.bell.ring_before(put_in);
        if !DRIVER.has_thread.load(Ordering::Relaxed) {
            start_thread();
        }
    }
    result
}

/// To be called before the first use of a lock that is held around forks and is not a wheel's.
pub(crate) fn watch_forks() {
    #[cfg(unix)]
    fork::watch();
}

/// How many entries all wheels have.
pub(crate) fn entries() -> usize {
    watch_forks(); // before the first lock
    (0..WHEELS).map(|number| wheel(number).len()).sum()
}

#[cold]
fn start_thread() {
    if DRIVER.has_thread.swap(true, Ordering::Relaxed) {
        return;
    }
    let thread = thread::Builder::new().name("purview-timer".into());
    if without_signals(|| thread.spawn(serve)).is_err() {
        DRIVER.has_thread.store(false, Ordering::Relaxed);
    }
}

fn serve() {
    let mut fired: u32 = 0;
    let mut order = Order::unknown();
    let mut batch = Batch::new();
    loop {
        let instant = Instant::now();
        let now = Tick::from_instant(instant);
        if let Some(due) = order.pop(now) {
            fired = fired.wrapping_add(1);
            if fired % BUSY == 0 {
                let _ = batch.hand_over(instant);
            }
            if let Some(due) = due {
                fire(due, &mut batch);
            }
            continue;
        }
        DRIVER.bell.look();
        let next = order.look(now);
        if next <= now {
            continue;
        }
        let until_look = batch.hand_over(instant);
        let until_next = (next != Tick::NEVER).then(|| next.since(now));
        DRIVER.bell.sleep(next, until_next.into_iter().chain(until_look).min());
        order = Order::unknown();
    }
}

/// The order of what the wheels hold: when each may have something to do. What is put in meanwhile is not known here.
struct Order([Tick; WHEELS]);

impl Order {
    fn unknown() -> Order {
        Order([Tick::from_nanos(i64::MIN); WHEELS])
    }

    /// Looks at all of them: when there is something to do next.
    fn look(&mut self, now: Tick) -> Tick {
        let mut next = Tick::NEVER;
        for (number, at) in self.0.iter_mut().enumerate() {
            let mut wheel = wheel(number);
            let _is_all = wheel.advance(now); // if not, the next is due at once
            *at = wheel.next().unwrap_or(Tick::NEVER);
            next = next.min(*at);
        }
        next
    }

    /// Takes out what is due first of all, if it is due at `now`; None inside, where there is nothing to be done for it.
    fn pop(&mut self, now: Tick) -> Option<Option<Due>> {
        loop {
            let mut first = 0;
            let mut second = Tick::NEVER;
            for number in 1..WHEELS {
                if self.0[number] < self.0[first] {
                    second = self.0[first];
                    first = number;
                } else {
                    second = second.min(self.0[number]);
                }
            }
            if self.0[first] > now {
                return None;
            }
            let mut wheel = wheel(first);
            let is_all = wheel.advance(now);
            self.0[first] = wheel.next().unwrap_or(Tick::NEVER);
            if self.0[first] > second.min(now) {
                continue;
            }
            let due = wheel.pop(now);
            self.0[first] = wheel.next().unwrap_or(Tick::NEVER);
            if due.is_some() {
                return due;
            }
            drop(wheel);
            if !is_all {
                DRIVER.wheels[first].let_one_in();
            }
        }
    }
}

/// Serves what is due. A panic of a waker has been reported by the panic hook; there is no caller to hand it to (C32).
fn fire(due: Due, batch: &mut Batch) {
    let mut panics = Panics::new();
    match due {
        Due::Deadline(context) => {
            tree::expire(&context, &mut Wake::FromTimer(batch), &mut panics);
            // Should this be the last handle, the values that go with it are the user's code.
            batch.release(context);
        }
        Due::Alarm(waker) => panics.catch(|| waker.wake()),
    }
    panics.forget();
}

/// A fork takes the thread away and copies the locks, held or not. All locks are taken around it, the one of leak checks among them, so that
/// the child has them free and the wheels whole; and the child notes that it has no threads, and leaves to the parent what was on its way to them.
///
/// Locks of contexts are not among them: there may be millions. If another thread was changing a context at that moment, its
/// deadline is in the child's wheels, and the child's thread would wait there when it comes (FAULTS.md, "After a fork").
#[cfg(unix)]
mod fork {
    use std::cell::RefCell;
    use std::sync::MutexGuard;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::runner;
    use super::{DRIVER, WHEELS, Wheel};
    use crate::{leak, on_done, park, sync};

    struct Held {
        _wheels: [MutexGuard<'static, Wheel>; WHEELS],
        _bell: sync::MutexGuard<'static, bool>,
        runner: MutexGuard<'static, runner::State>,
        _over: MutexGuard<'static, ()>,
        _ledger: leak::Held,
    }

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

    static WATCHED: AtomicBool = AtomicBool::new(false);

    /// Called before the first lock is taken and the first thread starts. Where it fails, out of memory, a child has no
    /// deadlines.
    #[inline]
    pub(super) fn watch() {
        if !WATCHED.load(Ordering::Acquire) {
            register();
        }
    }

    /// Two threads may both come here; neither waits for the other, which a fork would take away.
    #[cold]
    fn register() {
        let _ = pthread_atfork(Some(prepare), Some(parent), Some(child));
        WATCHED.store(true, Ordering::Release);
    }

    extern "C" fn prepare() {
        // A thread that is being torn down has no such place any more; its child then does without the care.
        let _ = HELD.try_with(|place| {
            let mut place = place.borrow_mut();
            // Watched twice, it is called twice.
            place.get_or_insert_with(|| Held {
                _wheels: std::array::from_fn(super::wheel),
                _bell: DRIVER.bell.hold(),
                runner: runner::state(),
                _over: on_done::hold(),
                _ledger: leak::hold(),
            });
        });
    }

    extern "C" fn parent() {
        let _ = HELD.try_with(|place| place.take());
    }

    extern "C" fn child() {
        let held = HELD.try_with(|place| place.take()).ok().flatten();
        if let Some(mut held) = held {
            DRIVER.has_thread.store(false, Ordering::Relaxed);
            DRIVER.bell.forget();
            for spoke in &DRIVER.wheels {
                spoke.awaited.store(0, Ordering::Relaxed); // those threads are the parent's
            }
            held.runner.forget();
            park::forget();
        }
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::Spoke;
    use std::sync::atomic::Ordering;
    use std::thread;

    #[test]
    fn a_thread_that_waits_for_a_wheel_is_let_in() {
        static SPOKE: Spoke = Spoke::new();
        let held = SPOKE.lock();
        SPOKE.let_one_in(); // there is none
        let waits = thread::spawn(|| drop(SPOKE.lock()));
        while SPOKE.awaited.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        drop(held);
        // As the timer's thread, which locks it again and again.
        while SPOKE.awaited.load(Ordering::Relaxed) != 0 {
            SPOKE.let_one_in();
            drop(SPOKE.lock());
        }
        waits.join().expect("no panic");
    }
}
