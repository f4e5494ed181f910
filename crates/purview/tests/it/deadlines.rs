//! C15–C22: deadlines, on a manual clock; on the system's, only that they come, and never early.

use std::pin::pin;
use std::sync::mpsc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use purview::time::ManualClock;
use purview::{By, Context};

use crate::support::{CountingWaker, ends_by_deadline, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c15_the_deadline_is_the_earliest_of_its_own_and_its_ancestors_and_stays_when_done() {
    let clock = ManualClock::new();
    let start = clock.now();
    let (a, _guard) = clock.root().with_timeout(10 * SECOND);
    let (b, _guard) = a.with_timeout(5 * SECOND);
    let (c, guard) = b.with_timeout(20 * SECOND);
    let (d, _guard) = c.with_cancel();
    assert_eq!(a.deadline(), Some(start + 10 * SECOND));
    for ctx in [&b, &c, &d] {
        assert_eq!(ctx.deadline(), Some(start + 5 * SECOND));
        assert_eq!(ctx.remaining(), Some(5 * SECOND));
    }
    guard.cancel();
    assert_eq!(d.deadline(), Some(start + 5 * SECOND));
    clock.advance(7 * SECOND);
    assert_eq!(c.deadline(), Some(start + 5 * SECOND));
    assert_eq!(c.remaining(), Some(Duration::ZERO));
}

#[test]
fn c15_a_deadline_is_reported_exactly_as_given_be_it_years_past_or_to_come() {
    let now = Instant::now();
    let year = 365 * 24 * 3600 * SECOND;
    for years in [1, 10, 100, 250] {
        let at = now + years * year + Duration::from_nanos(123_456_789);
        let (ctx, _guard) = Context::background().with_deadline(at);
        assert_eq!(ctx.deadline(), Some(at));
        assert!(!ctx.is_done());
        if let Some(past) = now.checked_sub(years * year + Duration::from_nanos(987_654_321)) {
            let (ctx, _guard) = Context::background().with_deadline(past);
            assert_eq!(ctx.deadline(), Some(past));
            assert!(ctx.is_done());
        }
    }
}

#[test]
fn c15_below_graces_that_come_together_again_the_shortest_way_counts() {
    for turned in [false, true] {
        let clock = ManualClock::new();
        let start = clock.now();
        let (root, end) = clock.root().with_cancel();
        let (short, _guard) = root.with_grace(SECOND);
        let (long, _guard) = short.with_grace(2 * SECOND);
        let parents = if turned { [&short, &long] } else { [&long, &short] };
        let (merged, _guard) = Context::any_of(parents);
        let (below, _guard) = merged.with_grace(10 * SECOND);
        let (last, _guard) = below.with_grace(20 * SECOND);
        assert_eq!(last.deadline(), None);
        end.cancel();
        assert_eq!(merged.deadline(), Some(start + SECOND));
        assert_eq!(below.deadline(), Some(start + 11 * SECOND));
        assert_eq!(last.deadline(), Some(start + 31 * SECOND), "turned: {turned}");
    }
}

#[test]
fn c15_a_graces_deadline_is_its_parents_and_the_grace_and_exact_once_the_parent_is_done() {
    let clock = ManualClock::new();
    let start = clock.now();
    let (parent, cancel) = clock.root().with_timeout(10 * SECOND);
    let (grace, _guard) = parent.with_grace(3 * SECOND);
    let (child, _guard) = grace.with_cancel();
    let (capped, _guard) = grace.with_timeout(12 * SECOND);
    let (nested, _guard) = child.with_grace(2 * SECOND);
    let (merged, _guard) = Context::any_of([&child, &nested]);
    assert_eq!(grace.deadline(), Some(start + 13 * SECOND));
    assert_eq!(child.deadline(), Some(start + 13 * SECOND));
    assert_eq!(capped.deadline(), Some(start + 12 * SECOND));
    assert_eq!(nested.deadline(), Some(start + 15 * SECOND));
    assert_eq!(merged.deadline(), Some(start + 13 * SECOND));
    clock.advance(4 * SECOND);
    cancel.cancel();
    for ctx in [&grace, &child, &capped, &merged] {
        assert_eq!(ctx.deadline(), Some(start + 7 * SECOND), "{ctx:?}");
        assert_eq!(ctx.remaining(), Some(3 * SECOND));
    }
    assert_eq!(nested.deadline(), Some(start + 9 * SECOND));
    clock.advance(3 * SECOND);
    for ctx in [&grace, &child, &capped, &merged] {
        assert!(ctx.is_done());
    }
    assert!(!nested.is_done());
    clock.advance(2 * SECOND);
    assert!(nested.is_done());
}

#[test]
fn c16_zero_now_and_the_past_are_done_on_return() {
    let now = Instant::now();
    let root = Context::background();
    let (zero, _guard) = root.with_timeout(Duration::ZERO);
    let (present, _guard) = root.with_deadline(now);
    let (past, _guard) = root.with_deadline(now.checked_sub(SECOND).unwrap_or(now));
    let (derived, _guard) = root.derive().timeout(Duration::ZERO).build();
    for ctx in [zero, present, past, derived] {
        assert!(ctx.is_done());
        let err = ctx.err().expect("done on return");
        assert!(err.is_deadline_exceeded());
        assert_eq!(err.origin().by(), By::Deadline);
        assert_eq!(err.origin().context(), ctx.id());
        assert!(ctx.deadline().is_some());
    }
}

#[test]
fn c16_of_a_parent_that_was_done_already_it_is_the_parents_error() {
    let (parent, guard) = Context::background().with_cancel();
    guard.cancel_with("before");
    let (child, _guard) = parent.with_timeout(Duration::ZERO);
    assert_eq!(child.err().expect("done").to_string(), "context canceled: before");
    // Also where the parent's own deadline passed unwatched.
    let (parent, _guard) = Context::background().with_deadline(Instant::now());
    let (child, _guard) = parent.with_timeout(Duration::ZERO);
    assert_eq!(child.err().expect("done").origin().context(), parent.id());
}

#[test]
fn c17_a_deadline_is_never_early() {
    for millis in [0, 1, 2, 5] {
        let before = Instant::now();
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(millis));
        let err = ctx.done().wait();
        let waited = before.elapsed();
        assert!(waited >= Duration::from_millis(millis), "{waited:?} for {millis} ms");
        assert!(err.is_deadline_exceeded());
        assert!(Instant::now() >= ctx.deadline().expect("set"));
    }
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    clock.advance(SECOND - Duration::from_nanos(1));
    assert!(!ctx.is_done());
    clock.advance(Duration::from_nanos(1));
    assert!(ctx.is_done());
}

#[test]
fn c17_an_unwatched_deadline_is_exact_for_every_observer_and_every_descendant() {
    let at = Instant::now() + Duration::from_millis(3);
    let (ctx, _guard) = Context::background().with_deadline(at);
    let (child, _guard) = ctx.with_cancel();
    let (grandchild, _guard) = child.with_timeout(SECOND);
    let everyone = [&grandchild, &child, &ctx];
    loop {
        let before = Instant::now();
        let seen = everyone.map(|ctx| ctx.is_done());
        let after = Instant::now();
        if before >= at {
            assert_eq!(seen, [true; 3], "nobody watches, so the clock decides");
            break;
        }
        if after < at {
            assert_eq!(seen, [false; 3], "never early");
        }
    }
    for ctx in everyone {
        let err = ctx.err().expect("done");
        assert_eq!(err.origin().context(), everyone[2].id());
        assert_eq!(err.origin().at(), at);
    }
}

#[test]
fn c17_done_never_turns_into_live_again_while_a_deadline_is_being_armed() {
    // Polls look at the clock, a waiter arms the timer: whoever saw done must be right for ever.
    for _ in 0..300 {
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_micros(200));
        let (child, _guard) = ctx.with_cancel();
        thread::scope(|s| {
            s.spawn(|| {
                while Instant::now() + Duration::from_micros(5) < ctx.deadline().expect("set") {}
                let _ = child.done().wait();
            });
            for _ in 0..2 {
                s.spawn(|| {
                    let mut seen = false;
                    loop {
                        let (c, p) = (child.is_done(), ctx.is_done());
                        assert!(p || !c, "a child is done and its parent is not");
                        assert!(p || !seen, "done turned into live");
                        seen = p;
                        if seen && child.is_done() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn c18_on_a_manual_clock_a_deadline_that_was_reached_always_wins() {
    let clock = ManualClock::new();
    let (first, _guard) = clock.root().with_timeout(SECOND);
    let (second, second_guard) = clock.root().with_timeout(SECOND);
    let (below, below_guard) = second.with_cancel();
    // The callback of the first runs at the very instant at which the second's deadline is reached, too.
    let _registration = first.on_done(move |_| {
        below_guard.cancel_with("too late");
        second_guard.cancel_with("too late");
    });
    clock.advance(SECOND);
    for ctx in [&second, &below] {
        let err = ctx.err().expect("done");
        assert!(err.is_deadline_exceeded(), "{err}");
        assert_eq!(err.origin().context(), second.id());
    }
}

#[test]
fn c18_deadline_against_cancel_the_first_wins_and_all_observers_agree() {
    for micros in 0..200 {
        let (ctx, guard) = Context::background().with_timeout(Duration::from_micros(micros));
        let (child, _guard) = ctx.with_cancel();
        let errors: Vec<_> = thread::scope(|s| {
            let waits = [&ctx, &child].map(|ctx| s.spawn(|| ctx.done().wait()));
            let polls = [&child, &ctx].map(|ctx| {
                s.spawn(|| {
                    loop {
                        if let Some(err) = ctx.err() {
                            return err;
                        }
                    }
                })
            });
            while Instant::now() < ctx.deadline().expect("set") {}
            guard.cancel();
            waits.into_iter().chain(polls).map(|thread| thread.join().expect("no panic")).collect()
        });
        for err in &errors {
            assert_eq!(err.kind(), errors[0].kind());
            assert_eq!(err.origin().context(), ctx.id());
            assert_eq!(err.origin().at(), errors[0].origin().at());
        }
    }
}

#[test]
fn c19_a_deadlines_own_cause_is_used_only_if_it_ended_the_context() {
    let clock = ManualClock::new();
    let root = clock.root();
    let (outer, _guard) =
        root.derive().name("outer").timeout(2 * SECOND).deadline_cause("outer").build();
    let (later, _guard) = outer.derive().timeout(3 * SECOND).deadline_cause("never").build();
    let (equal, _guard) = outer.derive().timeout(2 * SECOND).deadline_cause("never").build();
    let (inner, _guard) =
        outer.derive().name("inner").timeout(SECOND).deadline_cause("inner").build();
    let (canceled, guard) = outer.derive().timeout(SECOND).deadline_cause("never").build();
    guard.cancel();
    clock.advance(10 * SECOND);
    let text = |ctx: &Context| ctx.err().expect("done").to_string();
    assert_eq!(text(&inner), "context deadline exceeded: inner");
    assert_eq!(inner.err().expect("done").origin().name(), Some("inner"));
    for ctx in [&outer, &later, &equal] {
        assert_eq!(text(ctx), "context deadline exceeded: outer");
        assert_eq!(ctx.err().expect("done").origin().context(), outer.id());
        assert_eq!(ctx.err().expect("done").origin().name(), Some("outer"));
    }
    assert_eq!(text(&canceled), "context canceled");
}

#[test]
fn c21_finishing_before_the_deadline_frees_the_timer_at_once() {
    // On a manual clock every deadline is in the timer; what is left in it would keep its context's waker.
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_cancel();
    for _ in 0..1000 {
        let (ctx, guard) = parent.with_timeout(3600 * SECOND);
        let mut done = pin!(ctx.done());
        assert!(poll_once(done.as_mut()).is_pending());
        guard.cancel();
        assert!(poll_once(done.as_mut()).is_ready());
    }
    let waker = CountingWaker::new();
    {
        let mut sleep = pin!(parent.sleep(SECOND));
        assert!(poll_with(sleep.as_mut(), &Waker::from(waker.clone())).is_pending());
    }
    clock.advance(7200 * SECOND);
    assert_eq!(waker.count(), 0, "a dropped sleep is in no timer");
    assert_eq!(parent.statistics().children(), 0);
}

#[test]
fn c22_a_callback_that_blocks_for_ever_delays_no_other_deadline_waker_or_callback() {
    let (said, heard) = mpsc::channel();
    let (_blocked, _guard) = ends_by_deadline(move || {
        said.send(()).expect("the test waits");
        let (never, silent) = mpsc::channel::<()>();
        std::mem::forget(never); // so that this really is for ever
        let _ = silent.recv();
    });
    heard.recv().expect("the callback has begun");
    // Others, on other contexts, each with a waker and a callback.
    let (said, heard) = mpsc::channel();
    let mut keep = Vec::new();
    for _ in 0..3 {
        let (ctx, guard) = Context::background().with_timeout(Duration::from_millis(1));
        let said = said.clone();
        ctx.on_done(move |_| said.send(()).expect("the test waits")).detach();
        assert!(ctx.done().wait().is_deadline_exceeded());
        keep.push(guard);
    }
    for _ in 0..3 {
        heard.recv().expect("called on another thread");
    }
}

#[test]
fn c18_an_unwatched_deadline_that_was_seen_to_pass_wins_over_a_cancel_at_any_depth() {
    for seen in [false, true] {
        let (top, _guard) = Context::background().with_timeout(Duration::from_nanos(1));
        let (a, _guard) = top.with_cancel();
        let (b, b_guard) = a.with_cancel();
        let (c, _guard) = b.with_cancel();
        while Instant::now() <= top.deadline().expect("set") {}
        assert!(!seen || top.is_done());
        b_guard.cancel_with("too late");
        for ctx in [&c, &b, &a, &top] {
            let err = ctx.err().expect("done");
            assert!(err.is_deadline_exceeded(), "{ctx:?}");
            assert_eq!(err.origin().context(), top.id());
        }
    }
}

#[test]
fn c18_an_unwatched_deadline_wins_over_a_cancel_of_a_leaf_that_comes_too_late() {
    let (top, _guard) = Context::background().with_cancel();
    let (own, own_guard) = top.with_timeout(Duration::from_nanos(1));
    let (above, _guard) = top.with_timeout(Duration::from_nanos(1));
    let (below, below_guard) = above.with_cancel();
    for (leaf, guard) in [(own, own_guard), (below, below_guard)] {
        while Instant::now() <= leaf.deadline().expect("set") {}
        guard.cancel();
        assert!(leaf.err().expect("done").is_deadline_exceeded(), "{leaf:?}");
    }
}

#[test]
fn c17_who_begins_to_wait_below_a_deadline_that_has_passed_unnoticed_does_not_make_it_late() {
    let (outer, _guard) = Context::background().with_timeout(SECOND / 500);
    let (between, _guard) = outer.with_grace(Duration::from_nanos(1));
    let (inner, _guard) = between.with_grace(3600 * SECOND);
    while Instant::now() <= between.deadline().expect("set") {}
    let _registration = inner.on_done(|_| ());
    assert!(between.is_done() && outer.is_done() && !inner.is_done());
    assert_eq!(between.err().expect("done").origin().by(), By::GraceOver);
}

#[test]
fn c17_who_waits_below_many_deadlines_is_woken_by_the_nearest_on_the_systems_clock() {
    for depth in [2, 9, 20] {
        let mut all = vec![Context::background().with_timeout(3600 * SECOND)];
        for n in (1..depth).rev() {
            let (last, _) = &all[all.len() - 1];
            all.push(last.with_timeout(if n == 1 { SECOND / 500 } else { n * 60 * SECOND }));
        }
        let (inner, _guard) = &all[all.len() - 1];
        let err = inner.done().wait();
        assert_eq!(err.origin().context(), inner.id());
        assert!(all[..all.len() - 1].iter().all(|(ctx, _)| !ctx.is_done()));
    }
}

#[test]
fn c18_an_unwatched_deadline_wins_over_a_cancel_above_that_comes_too_late() {
    let (parent, parents_guard) = Context::background().with_cancel();
    let (child, _guard) = parent.with_timeout(Duration::from_nanos(1));
    let (below, _guard) = child.with_cancel();
    while Instant::now() <= child.deadline().expect("set") {}
    parents_guard.cancel();
    assert!(parent.err().expect("done").is_canceled());
    for ctx in [&child, &below] {
        let err = ctx.err().expect("done");
        assert!(err.is_deadline_exceeded(), "{ctx:?}");
        assert_eq!(err.origin().context(), child.id());
    }
}

#[test]
fn c19_of_equal_deadlines_the_upper_one_counts_also_if_it_is_a_grace_that_became_earlier() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    let (grace, _guard) = parent.with_grace(5 * SECOND);
    let (equal, _guard) = grace.with_timeout(5 * SECOND);
    let (below, _guard) = equal.with_cancel();
    guard.cancel_with("parent");
    clock.advance(5 * SECOND);
    for ctx in [&grace, &equal, &below] {
        assert_eq!(ctx.err().expect("done").to_string(), "context canceled: parent");
    }
}

#[test]
fn c29_a_bounded_wait_on_the_thread_that_is_about_to_end_the_context_is_over_when_its_time_is() {
    let clock = ManualClock::new();
    let (first, _guard) = clock.root().with_timeout(SECOND);
    let (second, _guard) = clock.root().with_timeout(SECOND);
    let (below, _guard) = second.with_cancel();
    let (said, heard) = mpsc::channel();
    let _registration = first.on_done(move |_| {
        // The second one's deadline is reached, too, and this is the thread that will come to it.
        let slept = below.sleep_blocking(Duration::ZERO);
        let waited = below.done().wait_timeout(Duration::ZERO);
        said.send((slept, waited)).expect("the test waits");
    });
    clock.advance(SECOND);
    let (slept, waited) = heard.recv().expect("called");
    assert!(slept.is_err() && waited.is_some());
}

#[test]
fn c9_a_child_derived_when_its_deadline_and_one_above_have_passed_is_not_done_before_its_parent() {
    let clock = ManualClock::new();
    let (first, _guard) = clock.root().with_timeout(SECOND);
    let (second, _guard) = clock.root().with_timeout(SECOND);
    let (below, _guard) = second.with_cancel();
    let (said, heard) = mpsc::channel();
    let _registration = first.on_done(move |_| {
        let (child, _guard) = below.with_timeout(Duration::ZERO);
        said.send((child.is_done(), below.is_done(), second.is_done())).expect("the test waits");
    });
    clock.advance(SECOND);
    assert_eq!(heard.recv().expect("called"), (true, true, true));
}
