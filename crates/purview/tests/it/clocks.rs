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

#[test]
fn c40_contexts_merged_from_two_clocks_never_compare_their_times() {
    let clock = ManualClock::new();
    let (manual, _guard) = clock.root().with_cancel();
    let (system, _guard) = Context::background().with_timeout(3600 * SECOND);
    clock.advance(7200 * SECOND);
    let (merged, merged_guard) = Context::any_of([&manual, &system]);
    assert_eq!(merged.deadline(), None, "the other clock's says nothing here");
    let (child, _guard) = merged.with_timeout(10 * SECOND);
    let (grace, _guard) = merged.with_grace(10 * SECOND);
    let mut sleep = pin!(merged.sleep(10 * SECOND));
    assert!(poll_once(sleep.as_mut()).is_pending());
    clock.advance(10 * SECOND);
    assert!(matches!(poll_once(sleep), Poll::Ready(Ok(()))));
    assert!(child.err().expect("done").is_deadline_exceeded());
    merged_guard.cancel();
    assert!(merged.is_done() && !grace.is_done());
    assert!(!system.is_done() && !manual.is_done(), "a parent is ended by nothing below");
    clock.advance(10 * SECOND);
    assert!(grace.is_done());

    // And the other way round: the system's time does not move a manual clock.
    let (system, system_guard) = Context::background().with_cancel();
    let (manual, _guard) = clock.root().with_timeout(Duration::from_nanos(1));
    let (merged, _guard) = Context::any_of([&system, &manual]);
    let (zero, _guard) = merged.with_timeout(Duration::ZERO);
    assert!(zero.is_done() && !manual.is_done() && !merged.is_done());
    clock.advance(SECOND);
    assert!(merged.err().expect("done").is_deadline_exceeded());
    system_guard.cancel();
}

#[test]
fn c40_a_value_that_panics_when_it_is_dropped_does_not_cut_an_advance_short() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    static PANICS: purview::Key<Panics> = purview::Key::new("panics");
    let clock = ManualClock::new();
    let start = clock.now();
    let (ctx, guard) = clock.root().derive().timeout(SECOND).value(&PANICS, Panics).build();
    let (later, _guard) = clock.root().with_timeout(2 * SECOND);
    let last = Mutex::new(Some((ctx.clone(), guard.disarm())));
    ctx.on_done(move |_| drop(last.lock().expect("no panic").take())).detach();
    drop(ctx);
    let advance = std::panic::AssertUnwindSafe(|| clock.advance(10 * SECOND));
    assert!(std::panic::catch_unwind(advance).is_err(), "resumed when all is served");
    assert!(later.is_done());
    assert_eq!(clock.now() - start, 10 * SECOND);
}
