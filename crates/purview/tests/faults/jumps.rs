//! F25: the system's clock leaps, goes back, or stands still.
//!
//! In this program, `clock_gettime` and `syscall` are ours: std calls them to read the clock, and to sleep until an instant of
//! it. They are the system's, with an offset, which is zero but in children that set one. So a whole process, timer and all, is
//! older than it is.
#![expect(unsafe_code, reason = "the system's side of the clock")]

use std::arch::asm;
use std::ffi::{c_int, c_long};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use purview::Context;

use crate::child::{alone, alone_under};
use crate::support::{HOUR, SECOND, Wakes, poll, until};

const MILLI: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is added to the clocks, in nanoseconds: to the one that only goes on, and to the wall's.
static STEADY: AtomicI64 = AtomicI64::new(0);
static WALL: AtomicI64 = AtomicI64::new(0);
/// The clock stands still, at the offset from 0.
static STANDS: AtomicBool = AtomicBool::new(false);
/// Leaps that the timer's thread is to make, in nanoseconds: right after it has looked at the clock, or in its sleep.
static AS_IT_LOOKS: AtomicI64 = AtomicI64::new(0);
static AS_IT_SLEEPS: AtomicI64 = AtomicI64::new(0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Time {
    seconds: i64,
    nanos: i64,
}

impl Time {
    fn add(&mut self, nanos: i64) {
        let all = self.nanos + nanos % 1_000_000_000;
        self.seconds += nanos / 1_000_000_000 + all.div_euclid(1_000_000_000);
        self.nanos = all.rem_euclid(1_000_000_000);
    }

    fn is_before(self, other: Time) -> bool {
        (self.seconds, self.nanos) < (other.seconds, other.nanos)
    }
}

const CLOCK_GETTIME: c_long = 228;
const FUTEX: c_long = 202;
const PRCTL: c_long = 157;
const GET_NAME: c_long = 16;
const REALTIME: c_int = 0;
const MONOTONIC: c_int = 1;

/// The system's answer: below zero, what went wrong.
fn system(number: c_long, args: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: a system call of Linux, with what its caller gives.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// As the C library gives it.
fn answer(result: c_long) -> c_long {
    unsafe extern "C" {
        safe fn __errno_location() -> *mut c_int;
    }
    if !(-4095..0).contains(&result) {
        return result;
    }
    // SAFETY: this thread's.
    unsafe { *__errno_location() = c_int::try_from(-result).unwrap_or(c_int::MAX) };
    -1
}

/// Makes the leap that it is there for, if this is the timer's thread.
fn leap_if_timer(by: &AtomicI64) {
    if by.load(Ordering::SeqCst) == 0 {
        return;
    }
    let mut name = [0_u8; 16];
    system(PRCTL, [GET_NAME, name.as_mut_ptr().expose_provenance() as c_long, 0, 0, 0, 0]);
    if name.starts_with(b"purview-timer\0") {
        STEADY.fetch_add(by.load(Ordering::SeqCst), Ordering::SeqCst);
        by.store(0, Ordering::SeqCst);
    }
}

fn steady() -> Time {
    let mut time = Time { seconds: 0, nanos: 0 };
    if !STANDS.load(Ordering::SeqCst) {
        let place = (&raw mut time).expose_provenance() as c_long;
        system(CLOCK_GETTIME, [c_long::from(MONOTONIC), place, 0, 0, 0, 0]);
    }
    time.add(STEADY.load(Ordering::SeqCst));
    time
}

// SAFETY: the C library's own name, and its contract: std is to find this one.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: c_int, time: &mut Time) -> c_int {
    if clock == MONOTONIC {
        *time = steady();
        leap_if_timer(&AS_IT_LOOKS);
        return 0;
    }
    let place = std::ptr::from_mut(time).expose_provenance() as c_long;
    let result = answer(system(CLOCK_GETTIME, [c_long::from(clock), place, 0, 0, 0, 0]));
    if clock == REALTIME {
        time.add(WALL.load(Ordering::SeqCst));
    }
    c_int::try_from(result).unwrap_or(-1)
}

// SAFETY: as above. Arguments that its caller does not give are not looked at.
#[unsafe(no_mangle)]
extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    const WAIT_UNTIL: c_long = 9;
    const TIMED_OUT: c_long = -110;
    const SLICE: i64 = 1_000_000;
    let is_changed = STEADY.load(Ordering::SeqCst) != 0 || STANDS.load(Ordering::SeqCst);
    if number != FUTEX || b & 0x7f != WAIT_UNTIL || d == 0 || !is_changed {
        return answer(system(number, [a, b, c, d, e, f]));
    }
    // SAFETY: until when, as the caller gives it.
    let until = unsafe { *std::ptr::with_exposed_provenance::<Time>(d as usize) };
    // In slices, since the clock may leap meanwhile: the system's own sleepers would be woken.
    loop {
        leap_if_timer(&AS_IT_SLEEPS);
        if !steady().is_before(until) {
            return answer(TIMED_OUT);
        }
        let mut slice = Time { seconds: 0, nanos: 0 };
        let place = (&raw mut slice).expose_provenance() as c_long;
        system(CLOCK_GETTIME, [c_long::from(MONOTONIC), place, 0, 0, 0, 0]);
        slice.add(SLICE);
        let result = system(FUTEX, [a, b, c, place, e, f]);
        if result != TIMED_OUT {
            return answer(result);
        }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).expect("less than that")
}

fn leap(by: Duration) {
    STEADY.fetch_add(nanos(by), Ordering::SeqCst);
}

/// The clock goes on by leaps only.
pub(crate) fn stand_still() {
    STEADY.store(nanos(DAY), Ordering::SeqCst);
    STANDS.store(true, Ordering::SeqCst);
}

/// Leaps by so many nanoseconds. Not between the timer's look at the clock and what it does then: it would sleep too long, or, if
/// the clock goes back, not long enough. It has to have something to sleep until.
pub(crate) fn leap_while_it_sleeps(by: i64) {
    AS_IT_SLEEPS.store(by, Ordering::SeqCst);
    until_made(&AS_IT_SLEEPS);
}

/// Not `until`, which looks at the clock.
fn until_made(leap: &AtomicI64) {
    while leap.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
}

/// Deadlines, sleeps and callbacks come, in order and never early.
fn time_is_in_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (say, hear) = mpsc::channel();
    let mut keep = Vec::new();
    for n in (0..20_u32).rev() {
        let begun = Instant::now();
        let after = 20 * MILLI + n * MILLI;
        let (ctx, guard) = Context::background().with_timeout(after);
        let (order, say) = (Arc::clone(&order), say.clone());
        let call = move |_err: &purview::Error| {
            assert!(Instant::now().saturating_duration_since(begun) >= after, "never early");
            order.lock().expect("no panic").push(n);
            assert!(say.send(()).is_ok());
        };
        keep.push((ctx.on_done(call), guard));
    }
    let begun = Instant::now();
    assert!(Context::background().sleep_blocking(2 * MILLI).is_ok());
    assert!(begun.elapsed() >= 2 * MILLI);
    (0..20).for_each(|_| hear.recv().expect("it is called"));
    assert_eq!(order.lock().expect("no panic").len(), 20);
}

#[test]
fn f25_the_clock_may_leap_by_weeks_years_and_centuries_and_all_that_is_due_comes() {
    alone(|| {
        let began = Instant::now();
        leap(Duration::from_nanos(1)); // from here on, sleeps are in slices
        time_is_in_order();
        // By 13 days one counter of ticks is full, by 200 years the last wheel but one has turned.
        for by in [HOUR, 13 * DAY, 25 * DAY, 3653 * DAY, 70_000 * DAY] {
            let (due, _guard) = Context::background().with_timeout(by / 2);
            let (not_due, _other) = Context::background().with_timeout(by + HOUR);
            let (wakes, waker) = Wakes::new();
            let mut waits = [Box::pin(due.done()), Box::pin(not_due.done())];
            waits.iter_mut().for_each(|it| assert!(poll(it.as_mut(), &waker).is_pending()));
            let root = Context::background();
            let mut sleep = pin!(root.sleep(by));
            assert!(poll(sleep.as_mut(), &waker).is_pending());
            leap_while_it_sleeps(nanos(by));
            assert!(due.done().wait().is_deadline_exceeded());
            until(|| wakes.count() == 2);
            assert!(!not_due.is_done());
            time_is_in_order();
        }
        assert!(began.elapsed() > 70_000 * DAY);
    });
}

#[test]
fn f25_a_leap_just_before_the_timer_sleeps_makes_it_late_by_a_minute_at_most() {
    alone(|| {
        leap(Duration::from_nanos(1));
        let (wakes, waker) = Wakes::new();
        let (far, _guard) = Context::background().with_timeout(DAY);
        let (due, _other) = Context::background().with_timeout(HOUR);
        let mut waits = [Box::pin(far.done()), Box::pin(due.done())];
        assert!(poll(waits[0].as_mut(), &waker).is_pending());
        // The first time, it may have been rung for and have yet to hear it; the second time, it sleeps.
        leap_while_it_sleeps(1);
        leap_while_it_sleeps(1);
        AS_IT_LOOKS.store(nanos(HOUR), Ordering::SeqCst);
        assert!(poll(waits[1].as_mut(), &waker).is_pending());
        until_made(&AS_IT_LOOKS);
        leap_while_it_sleeps(nanos(60 * SECOND));
        until(|| wakes.count() == 1);
        assert!(due.is_done() && !far.is_done());
    });
}

#[test]
fn f25_a_clock_that_goes_back_makes_deadlines_later_and_breaks_nothing() {
    alone(|| {
        leap(2 * HOUR);
        time_is_in_order();
        let (far, _other) = Context::background().with_timeout(DAY);
        let _kept_by_the_timer = far.on_done(|_| {});
        let at = Instant::now() + HOUR / 2;
        let (ctx, _guard) = Context::background().with_deadline(at);
        let registration = ctx.on_done(|_| {});
        leap_while_it_sleeps(-nanos(HOUR));
        time_is_in_order();
        assert!(!ctx.is_done() && ctx.remaining() > Some(HOUR));
        leap_while_it_sleeps(nanos(2 * HOUR));
        assert!(ctx.done().wait().is_deadline_exceeded());
        assert!(Instant::now() >= at);
        drop(registration);
        // To before there was anything.
        leap_while_it_sleeps(-nanos(HOUR * 5 / 2));
        time_is_in_order();
    });
}

#[test]
fn f25_a_clock_that_stands_still_ends_nothing_and_keeps_nothing_else_from_ending() {
    alone(|| {
        stand_still();
        let (timed, _guard) = Context::background().with_timeout(MILLI);
        let registration = timed.on_done(|_| {});
        let (far, _other) = Context::background().with_timeout(HOUR);
        let _kept_by_the_timer = far.on_done(|_| {});
        let mut keep = Vec::new();
        let ids: Vec<_> = (0..1_000)
            .map(|_| {
                let (ctx, guard) = timed.with_cancel();
                keep.push(guard);
                ctx.id()
            })
            .collect();
        assert!(ids.iter().enumerate().all(|(n, id)| !ids[..n].contains(id)), "each its own");
        let (ctx, guard) = Context::background().with_cancel();
        std::thread::scope(|s| {
            let waits = s.spawn(|| ctx.done().wait_timeout(SECOND));
            until(|| ctx.statistics().waiters() == 1);
            guard.cancel();
            assert!(waits.join().expect("no panic").is_some());
        });
        assert!(!timed.is_done());
        leap(MILLI);
        assert!(timed.done().wait().is_deadline_exceeded());
        drop(registration);
        STANDS.store(false, Ordering::SeqCst);
        leap_while_it_sleeps(1);
        time_is_in_order();
    });
}

#[test]
fn f25_the_walls_clock_may_say_what_it_likes() {
    alone(|| {
        let ten_years = 315_360_000_000_000_000;
        let (ctx, guard) = Context::background().with_timeout(HOUR);
        for offset in [ten_years, -ten_years, 0] {
            let before = SystemTime::now();
            let was = WALL.swap(offset, Ordering::SeqCst);
            assert_eq!(SystemTime::now() < before, offset < was, "the fault is there");
            time_is_in_order();
            assert!(!ctx.is_done() && ctx.remaining() > Some(HOUR / 2));
        }
        guard.cancel();
    });
}

#[test]
fn f25_in_a_system_that_has_been_up_for_weeks_or_years_time_is_in_order() {
    for seconds in ["1100000", "315360000"] {
        let uptime = ["unshare", "--time", "--monotonic", seconds, "--fork"];
        if !alone_under(&uptime, || {
            assert!(steady().seconds > 1_000_000, "the fault is there");
            time_is_in_order();
        }) {
            return;
        }
    }
}
