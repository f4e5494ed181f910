//! F12–F15: futures that are forgotten, moved, polled too often, or dropped every time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use purview::thread::block_on;
use purview::time::ManualClock;
use purview::{Context, Done, Error, Semaphore, TaskGroup};

use crate::support::{SECOND, Wakes, poll, watched};

#[test]
fn f12_what_is_forgotten_is_leaked_and_keeps_nothing_from_ending() {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().with_cancel();
    let (wakes, waker) = Wakes::new();
    let called = Arc::new(AtomicUsize::new(0));
    // Each is listed somewhere when it is forgotten, so it is listed for good.
    let mut done = Box::pin(ctx.clone().into_done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    std::mem::forget(done);
    let lasting: &'static Context = Box::leak(Box::new(ctx.clone()));
    let mut sleep = Box::pin(lasting.sleep(SECOND));
    assert!(poll(sleep.as_mut(), &waker).is_pending());
    std::mem::forget(sleep);
    let mut run = Box::pin(lasting.run(std::future::pending::<()>()));
    assert!(poll(run.as_mut(), &waker).is_pending());
    std::mem::forget(run);
    let count = Arc::clone(&called);
    std::mem::forget(ctx.on_done(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let (child, child_guard) = ctx.with_timeout(SECOND);
    std::mem::forget((child.clone(), child_guard));
    let (merged, merged_guard) = Context::any_of([&ctx, &child]);
    std::mem::forget((merged.clone(), merged_guard));

    clock.advance(SECOND);
    assert!(child.is_done() && merged.is_done() && !ctx.is_done());
    assert_eq!(wakes.count(), 1, "the sleep's time is up, and it is told");
    guard.cancel();
    assert_eq!(wakes.count(), 4);
    assert_eq!(called.load(Ordering::SeqCst), 1, "a registration that is forgotten is detached");
    assert_eq!(Arc::strong_count(&called), 1);
    assert_eq!((ctx.statistics().waiters(), ctx.statistics().callbacks()), (0, 0));
}

#[test]
fn f12_a_permit_that_is_forgotten_is_gone_and_a_group_that_is_forgotten_goes_on() {
    let semaphore = Semaphore::new(3);
    std::mem::forget(semaphore.try_acquire(1));
    assert_eq!(semaphore.free(), 2);
    let (hasty, hasty_guard) = Context::background().with_cancel();
    thread::scope(|s| {
        let waits = s.spawn(|| semaphore.acquire_blocking(&hasty, 3).map(drop));
        hasty_guard.cancel();
        assert!(waits.join().expect("no panic").is_err(), "it waits for what does not come");
    });
    drop(semaphore.try_acquire(2).expect("the others are there"));

    let (ctx, guard) = Context::background().with_cancel();
    let group: TaskGroup<Error> = TaskGroup::new(&ctx);
    let watch = group.watch();
    group.spawn_thread(|ctx| Err(ctx.done().wait()));
    std::mem::forget(group);
    assert_eq!(watch.tasks().len(), 1);
    guard.cancel();
    crate::support::until(|| watch.tasks().is_empty());
}

#[test]
fn f13_a_wait_may_be_polled_by_one_thread_and_the_next_and_ends_on_the_last() {
    watched(|| {
        for threads in [2, 3, 9] {
            let (ctx, guard) = Context::background().with_cancel();
            let mut moved: (Pin<Box<Done<'static>>>, Vec<_>) =
                (Box::pin(ctx.clone().into_done()), Vec::new());
            for _ in 0..threads {
                let mut it = moved;
                let polls = thread::spawn(move || {
                    let (wakes, waker) = Wakes::new();
                    assert!(poll(it.0.as_mut(), &waker).is_pending());
                    it.1.push(wakes);
                    it
                });
                moved = polls.join().expect("no panic");
                assert_eq!(ctx.statistics().waiters(), 1, "it is one, wherever it is");
            }
            // It waits on a thread; who polled it before is not told.
            let (future, wakes) = moved;
            let waits = thread::spawn(move || block_on(future));
            guard.cancel_with("moved");
            assert_eq!(waits.join().expect("no panic").to_string(), "context canceled: moved");
            let told: usize = wakes.iter().map(|wakes| wakes.count()).sum();
            let last = wakes.last().expect("some").count();
            assert_eq!(told, last, "nobody but whose it was when the end came");
        }
    });
}

#[test]
fn f13_two_executors_that_poll_by_turns_while_the_end_comes_both_see_it() {
    watched(|| {
        for _ in 0..300 {
            let (ctx, guard) = Context::background().with_cancel();
            let shared = std::sync::Mutex::new(Box::pin(ctx.done()));
            thread::scope(|s| {
                for _ in 0..2 {
                    s.spawn(|| {
                        block_on(poll_fn(|task| {
                            let polled = shared.lock().expect("no panic").as_mut().poll(task);
                            // Whose waker was taken out by the other one's polls himself.
                            task.waker().wake_by_ref();
                            polled
                        }))
                    });
                }
                s.spawn(|| guard.cancel());
            });
            let mut done = shared.into_inner().expect("no panic");
            for _ in 0..3 {
                assert!(poll(done.as_mut(), Waker::noop()).is_ready(), "and again");
            }
        }
    });
}

#[test]
fn f14_a_million_wake_ups_for_nothing_list_it_once_and_lose_nothing() {
    watched(|| {
        const TIMES: usize = 1_000_000;
        let (ctx, guard) = Context::background().with_cancel();
        let (wakes, waker) = Wakes::new();
        let (mut times, mut done) = (0, pin!(ctx.done()));
        let mut sleep = pin!(ctx.sleep(Duration::from_secs(3600)));
        while times < TIMES {
            times += 1;
            assert!(poll(done.as_mut(), &waker).is_pending());
            if times % 16 == 0 {
                assert!(poll(sleep.as_mut(), &waker).is_pending());
            }
        }
        assert_eq!(ctx.statistics().waiters(), 2);
        assert!(Arc::strong_count(&wakes) <= 5, "a wait keeps one waker, a sleep two");
        guard.cancel();
        assert_eq!(wakes.count(), 2);

        // A thread that is woken without end, by others and by itself, sleeps again each time; and is there when it counts.
        let (ctx, guard) = Context::background().with_cancel();
        let over = AtomicBool::new(false);
        thread::scope(|s| {
            let (say, hear) = std::sync::mpsc::channel::<Waker>();
            let waits = s.spawn(|| {
                let (say, mut done, mut polls) = (say, pin!(ctx.done()), 0_u32);
                block_on(poll_fn(|task| {
                    polls += 1;
                    if polls == 1 {
                        say.send(task.waker().clone()).expect("it is waited for");
                    }
                    done.as_mut().poll(task)
                }))
            });
            let waker = hear.recv().expect("it says so");
            let (others, over) = (waker.clone(), &over);
            s.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    others.wake_by_ref();
                }
            });
            (0..100_000).for_each(|_| waker.wake_by_ref());
            assert!(!waits.is_finished());
            guard.cancel();
            assert!(waits.join().expect("no panic").is_canceled());
            over.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn f15_a_select_that_makes_its_waits_anew_with_every_poll_leaves_nothing_and_misses_nothing() {
    watched(|| {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).expect("it is free");
        for _ in 0..20 {
            let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(3600));
            let polls = AtomicUsize::new(0);
            thread::scope(|s| {
                let selects = s.spawn(|| {
                    block_on(poll_fn(|task| {
                        polls.fetch_add(1, Ordering::SeqCst);
                        let others = [
                            pin!(ctx.sleep(SECOND)).poll(task).is_ready(),
                            pin!(semaphore.acquire(&ctx, 1)).poll(task).is_ready(),
                            pin!(ctx.run(std::future::pending::<()>())).poll(task).is_ready(),
                        ];
                        task.waker().wake_by_ref();
                        match pin!(ctx.done()).poll(task) {
                            Poll::Ready(err) => Poll::Ready(Ok(err)),
                            Poll::Pending if others != [false; 3] => Poll::Ready(Err(others)),
                            Poll::Pending => Poll::Pending,
                        }
                    }))
                });
                crate::support::until(|| polls.load(Ordering::SeqCst) > 1_000);
                guard.cancel();
                // The end may come between two of them; then the first of those tells.
                match selects.join().expect("no panic") {
                    Ok(err) => assert!(err.is_canceled()),
                    Err(_) => assert!(ctx.is_done()),
                }
            });
            assert_eq!(ctx.statistics().waiters(), 0);
        }
        drop(held);
        assert!(semaphore.try_acquire(1).is_some(), "nobody is in the queue");
    });
}
