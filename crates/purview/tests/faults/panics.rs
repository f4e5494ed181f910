//! F1, F4, F9: callbacks, values and causes that panic, when they are called or dropped.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{CancelGuard, Context};

use crate::support::{HOUR, poll, waker_of, watched};

/// It panics; quietly, and with something that panics when it is dropped.
pub(crate) fn explode() -> ! {
    resume_unwind(Box::new(Bomb))
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            explode();
        }
    }
}

/// Whether `code` panics.
pub(crate) fn explodes(code: impl FnOnce()) -> bool {
    let result = catch_unwind(AssertUnwindSafe(code));
    result.map_err(std::mem::forget).is_err()
}

/// The ways in which a context can end where somebody waits for that.
const ENDS: [&str; 3] = ["cancel", "drop", "deadline"];

fn end(how: &str, guard: CancelGuard, clock: &ManualClock) {
    match how {
        "cancel" => guard.cancel(),
        "drop" => drop(guard),
        _ => clock.advance(HOUR),
    }
}

// ── F1 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn f1_a_callback_that_panics_first_last_or_in_between_keeps_no_other_from_being_called() {
    const ALL: usize = 5;
    for how in ENDS {
        for panicking in [&[0][..], &[2], &[4], &[0, 4], &[0, 1, 2, 3, 4], &[]] {
            let clock = ManualClock::new();
            let (ctx, guard) = clock.root().with_timeout(HOUR);
            let (below, _guard) = ctx.with_cancel();
            let called = Arc::new(AtomicUsize::new(0));
            let at: Vec<_> = (0..ALL).map(|n| if n % 2 == 0 { &ctx } else { &below }).collect();
            for (n, ctx) in at.into_iter().enumerate() {
                let (called, panics) = (Arc::clone(&called), panicking.contains(&n));
                let call = move |_err: &purview::Error| {
                    called.fetch_add(1, Ordering::SeqCst);
                    if panics {
                        explode();
                    }
                };
                ctx.on_done(call).detach();
            }
            assert_eq!(explodes(|| end(how, guard, &clock)), !panicking.is_empty(), "{how}");
            assert_eq!(called.load(Ordering::SeqCst), ALL, "{how}, {panicking:?}");
            // And it is a context like any other that has ended.
            assert!(below.is_done() && ctx.with_cancel().0.is_done());
            assert_eq!((ctx.statistics().children(), ctx.statistics().callbacks()), (0, 0));
            assert_eq!(Arc::strong_count(&called), 1, "and nothing is left of them");
        }
    }
}

#[test]
fn f1_the_thread_that_is_kept_for_callbacks_survives_what_they_throw() {
    watched(|| {
        for _ in 0..20 {
            let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
            let (say, hear) = mpsc::channel();
            for n in 0..10 {
                let say = say.clone();
                let call = move |_err: &purview::Error| {
                    say.send(n).expect("it is waited for");
                    explode();
                };
                // Where its time was up before, it is called here.
                let _ = explodes(|| ctx.on_done(call).detach());
            }
            drop(say);
            // One that is slow is overtaken by those behind it.
            let mut called: Vec<_> = hear.iter().collect();
            called.sort_unstable();
            assert_eq!(called, (0..10).collect::<Vec<_>>());
        }
    });
}

// ── F4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn f4_what_a_callback_holds_may_panic_when_it_is_dropped_called_or_not() {
    for way in ["stopped", "dropped", "called", "never"] {
        let (ctx, guard) = Context::background().with_cancel();
        let called = Arc::new(AtomicUsize::new(0));
        let (bomb, count) = (Bomb, Arc::clone(&called));
        let registration = ctx.on_done(move |_| {
            let _bomb = bomb;
            count.fetch_add(1, Ordering::SeqCst);
        });
        let (other, count) = (Arc::new(()), Arc::clone(&called));
        let held = Arc::clone(&other);
        ctx.on_done(move |_| {
            let _held = held;
            count.fetch_add(1, Ordering::SeqCst);
        })
        .detach();
        assert!(explodes(|| match way {
            "stopped" => assert!(registration.stop()),
            "dropped" => drop(registration),
            "called" => guard.cancel(),
            _ => drop(Context::background().on_done(move |_| drop((Bomb, registration)))),
        }));
        guard.cancel();
        assert_eq!(called.load(Ordering::SeqCst), 1 + usize::from(way == "called"), "{way}");
        assert_eq!((Arc::strong_count(&other), ctx.statistics().callbacks()), (1, 0), "{way}");
    }
}

#[derive(Debug)]
struct Cause(Bomb);

impl fmt::Debug for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bomb")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Cause {}

#[test]
fn f4_a_cause_that_comes_too_late_and_panics_when_it_is_dropped_changes_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("first");
    assert!(explodes(|| guard.cancel_with(Cause(Bomb))));
    assert_eq!(ctx.err().expect("ended").to_string(), "context canceled: first");
    assert!(!explodes(|| guard.cancel()));
    let plan = ctx.derive().timeout(HOUR).deadline_cause(Cause(Bomb));
    assert!(explodes(|| drop(plan.build())), "of a context that is done already");
    assert!(
        explodes(|| drop(ctx.derive().deadline_cause(Cause(Bomb)))),
        "of one that is not built"
    );
}

/// A context that only its callback keeps is freed when that has run, and then the callback's error is the last of its cause.
#[test]
fn f4_a_cause_that_panics_with_its_last_error_leaves_no_other_unserved() {
    for how in ["cancel", "drop"] {
        let clock = ManualClock::new();
        let (parent, parent_guard) = clock.root().with_cancel();
        let called = Arc::new(AtomicUsize::new(0));
        for n in 0..3 {
            let plan = parent.derive().grace(Duration::ZERO).timeout(HOUR);
            let plan = if n == 1 { plan.deadline_cause(Cause(Bomb)) } else { plan };
            let (ctx, guard) = plan.build();
            let count = Arc::clone(&called);
            ctx.on_done(move |_| _ = count.fetch_add(1, Ordering::SeqCst)).detach();
            let _ = guard.disarm();
        }
        assert!(explodes(|| end(how, parent_guard, &clock)), "{how}: the caller hears of it");
        assert_eq!(called.load(Ordering::SeqCst), 3, "{how}");
        assert_eq!(parent.statistics().children(), 0, "{how}");
    }
}

/// How many threads of this process are kept for callbacks.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn callback_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("purview-callbac")).count()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn f4_causes_that_panic_when_dropped_leave_one_callback_thread() {
    use crate::child::alone;
    use crate::jumps;
    use crate::support::until;

    alone(|| {
        // So that the deadline does not pass before there is a callback, which would run, and explode, on this thread.
        jumps::stand_still();
        let ends_in_an_explosion = |n: u32| {
            let root = Context::background();
            let plan = root.derive().timeout(Duration::from_millis(1)).deadline_cause(Cause(Bomb));
            let (ctx, guard) = plan.build();
            let (say, hear) = mpsc::channel();
            let (go_on, wait) = mpsc::channel();
            let call = move |err: &purview::Error| {
                say.send(err.to_string()).expect("it is waited for");
                wait.recv().expect("it is told to go on");
            };
            ctx.on_done(call).detach();
            jumps::leap_while_it_sleeps(2_000_000);
            let said = hear.recv().expect("it is called");
            // The context goes while the callback runs, so that the error that the callback got is the last to keep the cause.
            let _ = guard.disarm();
            drop(ctx);
            go_on.send(()).expect("the callback waits");
            assert_eq!(said, "context deadline exceeded: Bomb", "{n}");
        };
        ends_in_an_explosion(0);
        let ids = || {
            let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
            let mut ids: Vec<_> = tasks.map(|task| task.expect("readable").file_name()).collect();
            ids.sort();
            ids
        };
        until(|| callback_threads() == 1);
        let before = ids();
        (1..50).for_each(ends_in_an_explosion);
        assert_eq!(ids(), before, "the same threads, none gone and none more");
    });
}

// ── F9 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn f9_a_cancel_in_a_drop_while_its_thread_unwinds_serves_all_and_adds_no_second_panic() {
    struct Cancels(CancelGuard);
    impl Drop for Cancels {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.0.handle().cancel_with("while it unwinds");
        }
    }
    let (ctx, guard) = Context::background().with_cancel();
    let called = Arc::new(AtomicUsize::new(0));
    let mut wait = Box::pin(ctx.done());
    assert!(poll(wait.as_mut(), &waker_of(|| explode())).is_pending());
    for _ in 0..3 {
        let called = Arc::clone(&called);
        let call = move |err: &purview::Error| {
            assert_eq!(err.to_string(), "context canceled: while it unwinds");
            called.fetch_add(1, Ordering::SeqCst);
            explode();
        };
        ctx.on_done(call).detach();
    }
    let cancels = Cancels(guard);
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _cancels = cancels;
        resume_unwind(Box::new("the first"));
    }));
    assert_eq!(unwound.expect_err("it panicked").downcast_ref(), Some(&"the first"));
    assert_eq!(called.load(Ordering::SeqCst), 3);
    assert!(ctx.is_done());
}
