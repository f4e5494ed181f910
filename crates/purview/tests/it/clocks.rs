//! C40: a tree uses one clock, and a manual one does everything when it is advanced, in order.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use purview::Context;
use purview::time::ManualClock;

use crate::support::{CountingWaker, Log, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c40_nothing_happens_until_the_clock_is_advanced() {
    let clock = ManualClock::new();
    let waker = CountingWaker::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_nanos(1));
    let mut done = pin!(ctx.done());
    assert!(poll_with(done.as_mut(), &Waker::from(waker.clone())).is_pending());
    // However much real time passes; the shortest there is to be sure of is a thread's start and end.
    thread::spawn(|| {}).join().expect("no panic");
    assert!(!ctx.is_done());
    assert_eq!(waker.count(), 0);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(waker.count(), 1);
    assert!(poll_once(done).is_ready());
}

#[test]
fn c40_advance_fires_in_order_of_deadline_then_derivation_each_at_its_own_time() {
    let clock = ManualClock::new();
    let start = clock.now();
    let log = Log::default();
    let mut keep = Vec::new();
    for (name, seconds) in [("c", 3), ("a1", 1), ("b", 2), ("a2", 1), ("d", 9)] {
        let (ctx, guard) = clock.root().with_timeout(seconds * SECOND);
        let (log, clock) = (log.clone(), clock.clone());
        let registration =
            ctx.on_done(move |_| log.add(format!("{name} at {:?}", clock.now() - start)));
        keep.push((ctx, guard, registration));
    }
    clock.advance(5 * SECOND);
    assert_eq!(log.take(), ["a1 at 1s", "a2 at 1s", "b at 2s", "c at 3s"]);
    assert_eq!(clock.now() - start, 5 * SECOND);
    clock.set(start + 9 * SECOND);
    assert_eq!(log.take(), ["d at 9s"]);
}

#[test]
fn c40_a_whole_tree_uses_its_roots_clock() {
    static KEY: purview::Key<u8> = purview::Key::new("key");
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_cancel();
    let below = [
        parent.with_value(&KEY, 1),
        parent.without_cancel(),
        parent.with_grace(SECOND).0.clone(),
        Context::any_of([&Context::background(), &parent]).1.disarm().context().clone(),
    ];
    for ctx in &below {
        let (timed, _guard) = ctx.with_timeout(SECOND);
        if ctx.is_done() {
            continue;
        }
        assert_eq!(timed.remaining(), Some(SECOND));
        clock.advance(SECOND / 2);
        assert_eq!(timed.remaining(), Some(SECOND / 2));
        clock.advance(SECOND / 2);
        assert!(timed.is_done());
    }
}

#[test]
fn c40_a_callback_may_advance_the_clock_and_derive() {
    let clock = ManualClock::new();
    let log = Log::default();
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (inner_clock, inner_log, inner_kept) = (clock.clone(), log.clone(), kept.clone());
    let _registration = ctx.on_done(move |_| {
        let (next, guard) = inner_clock.root().with_timeout(SECOND);
        let log = inner_log.clone();
        next.on_done(move |_| log.add("inner")).detach();
        inner_kept.lock().expect("no panic").push(guard);
        inner_clock.advance(SECOND);
        inner_log.add("outer");
    });
    let before = clock.now();
    clock.advance(SECOND);
    assert_eq!(log.take(), ["inner", "outer"]);
    assert_eq!(clock.now() - before, 2 * SECOND);
}

#[test]
fn c40_sleeps_and_bounded_waits_are_on_the_trees_clock() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_cancel();
    let mut sleep = pin!(ctx.sleep(SECOND));
    assert!(poll_once(sleep.as_mut()).is_pending());
    clock.advance(SECOND);
    assert!(matches!(poll_once(sleep), Poll::Ready(Ok(()))));

    thread::scope(|s| {
        let sleeper = s.spawn(|| ctx.sleep_blocking(SECOND));
        let waiter = s.spawn(|| ctx.done().wait_timeout(SECOND));
        // Advance until both have come home: whenever they begin, a second later they are done.
        while !(sleeper.is_finished() && waiter.is_finished()) {
            clock.advance(SECOND);
            thread::yield_now();
        }
        assert!(sleeper.join().expect("no panic").is_ok());
        assert!(waiter.join().expect("no panic").is_none());
    });
}

#[test]
fn c40_time_does_not_go_back_and_does_not_overflow() {
    let clock = ManualClock::new();
    let start = clock.now();
    clock.set(start - Duration::from_nanos(1));
    assert_eq!(clock.now(), start);
    let (ctx, _guard) = clock.root().with_timeout(Duration::MAX);
    clock.advance(Duration::MAX);
    clock.advance(Duration::MAX);
    assert!(clock.now() >= start);
    assert!(!ctx.is_done(), "no deadline is no deadline");
    let (ctx, _guard) = clock.root().with_timeout(Duration::ZERO);
    assert!(ctx.is_done());
}

#[test]
fn c40_several_threads_may_advance_one_clock() {
    let clock = ManualClock::new();
    let start = clock.now();
    let guards: Vec<_> =
        (0..100).map(|n| clock.root().with_timeout(n * Duration::from_millis(10))).collect();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..25).for_each(|_| clock.advance(Duration::from_millis(10))));
        }
    });
    assert_eq!(clock.now() - start, SECOND);
    assert!(guards.iter().all(|(ctx, _)| ctx.is_done()));
}
