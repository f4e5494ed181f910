//! F21: a process that is forked while its threads are in the middle of everything. The child has one thread; what it makes
//! itself works, deadlines and all.
//!
//! What it inherits from the middle of another thread's work is taken for good, whoever's it is: a context's lock, if the
//! deadline of that context then comes in the child, and the lock that std takes where a thread begins or ends. So neither
//! is done here while it is forked.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use purview::leak::Check;
use purview::{Context, OnDone, Semaphore};

use crate::child::{DONE, alone};
use crate::process::forked;
use crate::support::{HOUR, poll, until};

const MICRO: Duration = Duration::from_micros(1);

/// Waits, is called back and waits for that, by cancels and by deadlines.
fn everything() {
    let (root, _root_guard) = Context::background().with_timeout(HOUR);
    let (ctx, _guard) = root.with_timeout(50 * MICRO);
    let (say, hear) = mpsc::channel();
    ctx.on_done(move |_| _ = say.send(())).detach();
    assert!(ctx.done().wait().is_deadline_exceeded());
    assert!(hear.recv().is_ok(), "it is called");
    assert!(root.sleep_blocking(20 * MICRO).is_ok());
    // A callback that runs on the thread kept for them, while somebody waits for it to be over.
    let (ctx, _guard) = root.with_timeout(20 * MICRO);
    let (say, hear) = mpsc::channel();
    let registration = ctx.on_done(move |_| {
        assert!(say.send(()).is_ok());
        thread::yield_now();
    });
    assert!(hear.recv().is_ok(), "it is called");
    drop(registration);
    let (ctx, guard) = root.with_cancel();
    let (merged, _merged_guard) = Context::any_of([&ctx, &root]);
    guard.cancel();
    assert!(merged.done().wait().is_canceled());
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire(1);
    assert!(semaphore.acquire_blocking(&ctx, 1).is_err());
    drop(permit);
}

/// Arms and disarms, cancels, calls back, and waits for each other's callbacks, until it is over.
fn storm(over: &AtomicBool, passed: &Mutex<Option<OnDone>>) {
    let (root, _guard) = Context::background().with_timeout(HOUR);
    while !over.load(Ordering::Relaxed) {
        let (ctx, guard) = root.with_timeout(HOUR / 2);
        let registration = ctx.on_done(|_| thread::yield_now());
        assert!(poll(pin!(ctx.sleep(HOUR)), Waker::noop()).is_pending());
        let another = passed.lock().expect("no panic").replace(registration);
        guard.cancel();
        drop(another);
    }
}

#[test]
fn f21_a_child_forked_in_the_middle_of_everything_has_deadlines_and_callbacks_of_its_own() {
    alone(|| {
        everything();
        let (over, passed) = (AtomicBool::new(false), Mutex::new(None));
        let (old, old_guard) = Context::background().with_timeout(HOUR);
        let (armed, _guard) = Context::background().with_timeout(1_000 * MICRO);
        let registration = armed.on_done(|_| {});
        let begun = Barrier::new(4);
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    begun.wait();
                    storm(&over, &passed);
                });
            }
            begun.wait();
            for round in 0..100 {
                let status = forked(|| {
                    (0..3).for_each(|_| everything());
                    assert!(!old.is_done());
                    old_guard.handle().cancel();
                    assert!(old.is_done(), "the child's copy");
                    assert!(armed.done().wait().is_deadline_exceeded(), "from before the fork");
                });
                assert_eq!(status, DONE << 8, "round {round}");
            }
            over.store(true, Ordering::Relaxed);
        });
        drop(registration);
        assert!(!old.is_done(), "not the parent's");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn f21_a_child_forked_while_another_thread_reads_the_clock_for_the_first_time_has_deadlines() {
    use crate::limits;

    alone(|| {
        // Each time in a process that has nothing yet, and in which one thread is about to make it.
        for round in 0..100_u32 {
            let status = forked(|| {
                let (go, gone) = (Barrier::new(2), Barrier::new(2));
                thread::scope(|s| {
                    s.spawn(|| {
                        go.wait();
                        let (ctx, _guard) = Context::background().with_timeout(HOUR);
                        let _ = poll(pin!(ctx.sleep(HOUR)), Waker::noop());
                        let _registration = ctx.on_done(|_| {});
                        gone.wait();
                    });
                    // So that it starts none.
                    limits::no_more_memory();
                    go.wait();
                    (0..round % 10 * 300).for_each(|_| std::hint::spin_loop());
                    let status = forked(|| {
                        limits::as_before();
                        everything();
                    });
                    gone.wait();
                    limits::as_before();
                    assert_eq!(status, DONE << 8, "round {round}");
                });
            });
            assert_eq!(status, DONE << 8, "round {round}");
        }
    });
}

#[test]
fn f21_a_child_forked_while_contexts_are_listed_for_a_leak_check_has_checks_of_its_own() {
    alone(|| {
        let check = Check::new();
        let (handle, over) = (check.handle(), AtomicBool::new(false));
        let begun = Barrier::new(4);
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let _entered = handle.enter();
                    begun.wait();
                    while !over.load(Ordering::Relaxed) {
                        let (ctx, guard) = Context::background().with_cancel();
                        guard.cancel();
                        drop(ctx);
                    }
                });
            }
            begun.wait();
            let fork = |_: &u32| {
                forked(|| {
                    let own = Check::new();
                    let held = Context::background().with_cancel();
                    assert_eq!(own.leaks().contexts().len(), 1);
                    drop(held);
                    own.assert_none(Duration::ZERO);
                })
            };
            let failed = (0..100).find(|round| fork(round) != DONE << 8);
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, None, "the round");
        });
        check.assert_none(HOUR);
    });
}

/// The first of two callbacks forks: the second is on its way to the same thread, and is for the parent to call.
#[test]
fn f21_callbacks_that_wait_for_their_thread_run_in_the_parent_alone() {
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    alone(|| {
        let (say, hear) = mpsc::channel();
        let (ctx, _guard) = Context::background().with_timeout(1_000 * MICRO);
        ctx.on_done(move |_| {
            let status = forked(|| {
                // On a busy machine the parent may have called it before the fork.
                let called = CALLED.load(Ordering::SeqCst);
                // All that is on its way to the child's thread comes before what this waits for.
                (0..3).for_each(|_| everything());
                assert_eq!(CALLED.load(Ordering::SeqCst), called, "in the child");
            });
            assert!(say.send(status).is_ok());
        })
        .detach();
        ctx.on_done(|_| _ = CALLED.fetch_add(1, Ordering::SeqCst)).detach();
        assert_eq!(hear.recv().expect("it is called"), DONE << 8);
        until(|| CALLED.load(Ordering::SeqCst) > 0);
        assert_eq!(CALLED.load(Ordering::SeqCst), 1);
        everything();
    });
}

#[test]
fn f21_a_callback_may_fork_on_its_own_thread_and_both_go_on() {
    alone(|| {
        for _ in 0..20 {
            let (say, hear) = mpsc::channel();
            let (ctx, _guard) = Context::background().with_timeout(20 * MICRO);
            ctx.on_done(move |_| {
                let status = forked(|| (0..3).for_each(|_| everything()));
                assert!(say.send(status).is_ok());
            })
            .detach();
            assert_eq!(hear.recv().expect("it is called"), DONE << 8);
            everything();
        }
    });
}
