//! C26–C28: without_cancel, with_grace, any_of.

use std::pin::pin;
use std::sync::Barrier;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use purview::time::ManualClock;
use purview::{By, Context, Key};

use crate::support::{CountingWaker, Log, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);
static USER: Key<u64> = Key::new("user");
static TRACE: Key<&str> = Key::new("trace");

#[test]
fn c26_without_cancel_is_never_done_keeps_values_and_roots_a_new_tree() {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().with_value(&USER, 1).with_timeout(SECOND);
    let detached = ctx.without_cancel();
    guard.cancel_with("over");
    let after = ctx.without_cancel();
    for detached in [&detached, &after] {
        assert!(!detached.is_done() && !detached.can_be_done());
        assert_eq!(detached.deadline(), None);
        assert_eq!(detached.value(&USER), Some(&1));
        let (below, guard) = detached.with_cancel();
        assert!(!below.is_done());
        guard.cancel_with("its own");
        assert_eq!(below.err().expect("done").to_string(), "context canceled: its own");
        let (timed, _guard) = detached.with_timeout(SECOND);
        clock.advance(SECOND);
        assert!(timed.err().expect("done").is_deadline_exceeded());
    }
}

#[test]
fn c27_a_grace_ends_that_long_after_its_parent_with_the_parents_error() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().derive().name("request").build();
    let (grace, _guard) = parent.with_grace(5 * SECOND);
    let (child, _guard) = grace.with_cancel();
    let waker = CountingWaker::new();
    let mut done = pin!(child.done());
    assert!(poll_with(done.as_mut(), &Waker::from(waker.clone())).is_pending());
    clock.advance(100 * SECOND);
    assert!(!grace.is_done(), "a parent that never ends never ends it");
    let ended_at = clock.now();
    guard.cancel_with("shutting down");
    clock.advance(5 * SECOND - Duration::from_nanos(1));
    assert!(parent.is_done() && !grace.is_done() && !child.is_done());
    assert_eq!(waker.count(), 0);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(waker.count(), 1);
    for ctx in [&grace, &child] {
        let err = ctx.err().expect("done");
        assert_eq!(err.to_string(), "context canceled: shutting down");
        assert_eq!(err.origin().context(), parent.id());
        assert_eq!(err.origin().name(), Some("request"));
        assert_eq!(err.origin().by(), By::GraceOver);
        assert_eq!(err.origin().at(), ended_at + 5 * SECOND);
        assert_eq!(err.origin().location(), parent.err().expect("done").origin().location());
    }
}

#[test]
fn c27_of_a_parent_that_is_done_already_it_has_its_grace_from_now() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    guard.cancel();
    clock.advance(100 * SECOND);
    let (grace, _guard) = parent.with_grace(SECOND);
    assert!(!grace.is_done());
    assert_eq!(grace.remaining(), Some(SECOND));
    clock.advance(SECOND);
    assert!(grace.err().expect("done").is_canceled());
}

#[test]
fn c27_a_grace_after_a_deadline_begins_at_the_deadline_watched_or_not() {
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_timeout(SECOND);
    let (grace, _guard) = parent.with_grace(SECOND);
    clock.advance(3 * SECOND / 2);
    assert!(parent.is_done() && !grace.is_done());
    assert_eq!(grace.remaining(), Some(SECOND / 2));
    clock.advance(SECOND / 2);
    assert!(grace.err().expect("done").is_deadline_exceeded());

    // On the system's clock, with nobody watching: told by the clock alone, through two graces.
    let (parent, _guard) = Context::background().with_deadline(Instant::now());
    let (grace, _guard) = parent.with_grace(Duration::from_millis(1));
    let (nested, _guard) = grace.with_grace(Duration::from_millis(1));
    while !nested.is_done() {
        assert!(Instant::now() < nested.deadline().expect("known") + 60 * SECOND);
    }
    let err = nested.err().expect("done");
    assert!(err.is_deadline_exceeded() && grace.is_done());
    assert_eq!(err.origin().context(), parent.id());
    assert_eq!(err.origin().by(), By::GraceOver);
}

#[test]
fn c27_on_the_systems_clock_a_grace_begins_at_the_deadline_however_late_that_is_seen() {
    for canceled in [false, true] {
        let mut time = Duration::from_micros(50);
        let (parent, guard, grace, _graces_guard) = loop {
            let (parent, guard) = Context::background().with_timeout(time);
            let (grace, graces_guard) = parent.with_grace(3600 * SECOND);
            if Instant::now() < parent.deadline().expect("set") {
                break (parent, guard, grace, graces_guard);
            }
            time *= 2; // it was over before there was a grace
        };
        let (below, _guard) = grace.with_cancel();
        let due = parent.deadline().expect("set");
        while Instant::now() <= due + Duration::from_micros(50) {}
        if canceled {
            guard.cancel();
        }
        assert!(parent.is_done());
        for ctx in [&below, &grace] {
            assert_eq!(ctx.deadline(), Some(due + 3600 * SECOND));
        }
    }
}

#[test]
fn c27_a_grace_of_a_grace_tells_where_it_all_began_whether_the_first_was_noted_or_not() {
    for noted in [false, true] {
        let clock = ManualClock::new();
        let (parent, _guard) = clock.root().derive().name("parent").timeout(SECOND).build();
        let (grace, _guard) = parent.with_grace(SECOND);
        let (nested, _guard) = grace.with_grace(SECOND);
        clock.advance(if noted { 2 * SECOND } else { 3 * SECOND });
        assert!(grace.is_done());
        clock.advance(SECOND);
        for ctx in [&grace, &nested] {
            let err = ctx.err().expect("done");
            assert!(err.is_deadline_exceeded(), "{ctx:?}");
            assert_eq!(err.origin().by(), By::GraceOver);
            assert_eq!(err.origin().name(), Some("parent"));
        }
        let at = nested.err().expect("done").origin().at();
        assert_eq!(Some(at), parent.deadline().map(|deadline| deadline + 2 * SECOND));
    }
}

#[test]
fn c27_a_grace_of_a_grace_that_ended_by_a_deadline_of_its_own_tells_of_that() {
    let millisecond = Duration::from_millis(1);
    let (parent, _guard) = Context::background().with_cancel();
    let (grace, _guard) =
        parent.derive().grace(3600 * SECOND).timeout(millisecond).deadline_cause("own").build();
    let (nested, _guard) = grace.with_grace(millisecond);
    while !nested.is_done() {
        assert!(Instant::now() < nested.deadline().expect("known") + 60 * SECOND);
    }
    let err = nested.err().expect("done");
    assert_eq!(err.origin().context(), grace.id());
    assert_eq!(err.origin().by(), By::GraceOver);
    assert_eq!(err.cause().map(ToString::to_string).as_deref(), Some("own"));
    assert_eq!(grace.err().expect("done").origin().by(), By::Deadline);
}

#[test]
fn c27_a_waiter_below_a_grace_is_woken_when_it_runs_out_on_the_systems_clock() {
    let (parent, guard) = Context::background().with_cancel();
    let (grace, _guard) = parent.with_grace(Duration::from_millis(2));
    let (child, _guard) = grace.with_timeout(3600 * SECOND);
    thread::scope(|s| {
        let waiter = s.spawn(|| child.done().wait());
        while child.statistics().waiters() == 0 {
            thread::yield_now();
        }
        guard.cancel_with("enough");
        let err = waiter.join().expect("no panic");
        assert_eq!(err.to_string(), "context canceled: enough");
    });
}

#[test]
fn c27_every_shield_has_a_bound_and_its_own_guard() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    let (zero, _zero_guard) = parent.with_grace(Duration::ZERO);
    let (short, short_guard) = parent.with_grace(SECOND);
    short_guard.cancel_with("cleanup finished");
    assert!(short.is_done() && !parent.is_done());
    guard.cancel();
    assert!(zero.is_done(), "no grace is no time");
    let (late_zero, _guard) = parent.with_grace(Duration::ZERO);
    assert!(late_zero.is_done());
    let (both, _guard) = parent.derive().grace(5 * SECOND).timeout(SECOND).build();
    assert!(!both.is_done());
    clock.advance(SECOND);
    assert!(both.err().expect("done").is_deadline_exceeded(), "a grace with a deadline: both bind");
}

#[test]
fn c28_a_merged_context_ends_with_the_first_of_its_parents_and_leaves_the_others_clean() {
    let clock = ManualClock::new();
    let root = clock.root();
    for first in 0..3 {
        let parents: Vec<_> = (0..3).map(|_| root.with_cancel()).collect();
        let (merged, _guard) = Context::any_of(parents.iter().map(|(ctx, _)| ctx));
        let (child, _guard) = merged.with_cancel();
        assert!(parents.iter().all(|(ctx, _)| ctx.statistics().children() == 1));
        parents[first].1.cancel_with(format!("parent {first}"));
        for ctx in [&merged, &child] {
            assert_eq!(
                ctx.err().expect("done").to_string(),
                format!("context canceled: parent {first}")
            );
            assert_eq!(ctx.err().expect("done").origin().context(), parents[first].0.id());
        }
        assert!(parents.iter().all(|(ctx, _)| ctx.statistics().children() == 0));
        parents.iter().for_each(|(_, guard)| guard.cancel_with("later"));
        assert_eq!(
            merged.err().expect("done").to_string(),
            format!("context canceled: parent {first}")
        );
    }
}

#[test]
fn c28_of_several_that_were_done_the_first_in_the_list_counts() {
    let parents: Vec<_> = (0..3).map(|_| Context::background().with_cancel()).collect();
    parents[2].1.cancel_with("two");
    parents[1].1.cancel_with("one");
    let (merged, _guard) = Context::any_of(parents.iter().map(|(ctx, _)| ctx));
    assert_eq!(merged.err().expect("done").to_string(), "context canceled: one");
    assert_eq!(parents[0].0.statistics().children(), 0);
}

#[test]
fn c28_of_parents_whose_deadlines_have_passed_unnoticed_it_is_done_on_return() {
    let live = Context::background().with_cancel();
    let [one, two] =
        [1, 2].map(|millis| Context::background().with_timeout(Duration::from_millis(millis)));
    while Instant::now() <= one.0.deadline().max(two.0.deadline()).expect("set") {}
    let (merged, _guard) = Context::any_of([&live.0, &two.0, &one.0]);
    assert_eq!(merged.err().expect("done").origin().context(), two.0.id());
    assert_eq!(live.0.statistics().children(), 0);
}

#[test]
fn c28_it_has_the_earliest_deadline_and_the_values_of_the_first_parent_that_has_the_key() {
    let clock = ManualClock::new();
    let (a, _guard) = clock.root().with_value(&USER, 1).with_timeout(3 * SECOND);
    let (b, _guard) =
        clock.root().with_value(&USER, 2).with_value(&TRACE, "b").with_timeout(2 * SECOND);
    let (merged, _guard) = Context::any_of([&a, &b]);
    assert_eq!(merged.remaining(), Some(2 * SECOND));
    assert_eq!(merged.value(&USER), Some(&1));
    assert_eq!(merged.value(&TRACE), Some(&"b"));
    let child = merged.with_value(&USER, 3);
    assert_eq!((child.value(&USER), child.value(&TRACE)), (Some(&3), Some(&"b")));
    clock.advance(2 * SECOND);
    assert_eq!(child.err().expect("done").origin().context(), b.id());
    assert_eq!(a.statistics().children(), 0);
}

#[test]
fn c28_its_drop_unlinks_it_from_all_parents_and_doubles_count_once() {
    let (a, a_guard) = Context::background().with_cancel();
    let (b, _guard) = Context::background().with_cancel();
    let layer = a.with_value(&USER, 1);
    let (merged, guard) = Context::any_of([&a, &b, &a, &layer, &Context::background(), &b]);
    assert_eq!((a.statistics().children(), b.statistics().children()), (1, 1));
    drop(guard.disarm());
    drop(merged);
    assert_eq!((a.statistics().children(), b.statistics().children()), (0, 0));
    let (merged, _guard) = Context::any_of([&a, &a]);
    a_guard.cancel();
    assert!(merged.is_done());
}

#[test]
fn c28_of_no_parents_or_roots_only_it_is_background_with_a_guard() {
    let none: [&Context; 0] = [];
    let (empty, guard) = Context::any_of(none);
    assert!(!empty.is_done() && empty.deadline().is_none());
    guard.cancel();
    assert!(empty.is_done());
    let (roots, guard) = Context::any_of([&Context::background(), &Context::todo()]);
    assert!(!roots.is_done() && poll_once(pin!(roots.done())).is_pending());
    guard.cancel_with("its own");
    assert_eq!(roots.err().expect("done").to_string(), "context canceled: its own");
}

#[test]
fn c28_a_merge_made_while_its_parents_are_canceled_is_never_lost() {
    for _ in 0..300 {
        let (a, a_guard) = Context::background().with_cancel();
        let (b, b_guard) = a.with_cancel();
        let (c, c_guard) = Context::background().with_cancel();
        let start = Barrier::new(3);
        thread::scope(|s| {
            for guard in [&a_guard, &c_guard] {
                let start = &start;
                s.spawn(move || {
                    start.wait();
                    guard.cancel();
                });
            }
            start.wait();
            let (merged, _guard) = Context::any_of([&c, &b, &a]);
            let _ = merged.done().wait();
        });
        drop(b_guard);
        assert_eq!(a.statistics().children() + c.statistics().children(), 0);
    }
}

#[test]
fn c28_nested_merges_of_merges_take_no_exponential_time() {
    let (root, guard) = Context::background().with_value(&USER, 1).with_cancel();
    let (grace, _guard) = root.with_grace(3600 * SECOND);
    let log = Log::default();
    let mut keep = Vec::new();
    let mut top = grace.clone();
    for _ in 0..60 {
        let (left, left_guard) = top.with_cancel();
        let (right, right_guard) = top.with_cancel();
        let right = right.with_value(&TRACE, "right");
        let (merged, merged_guard) = Context::any_of([&left, &right]);
        top = merged;
        keep.push((left_guard, right_guard, merged_guard));
    }
    let line = log.clone();
    let _registration = top.on_done(move |err| line.add(err.to_string()));
    assert_eq!(top.value(&USER), Some(&1));
    guard.cancel_with("and now the grace");
    assert!(top.remaining() <= Some(3600 * SECOND));
    assert!(top.remaining().is_some());
    drop(_guard);
    assert!(top.is_done());
    assert_eq!(log.take(), ["context canceled"]);
}
