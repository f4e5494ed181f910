//! A grace that begins while contexts below it are waited for, polled and derived.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{SECOND, Wakes, poll, root};
use crate::Context;
use crate::clock::{Tick, modeled};
use crate::time::ManualClock;

fn seconds(count: i64) -> Tick {
    Tick::from_nanos(count * 1_000_000_000)
}

/// On the system's clock a deadline is armed by the first wait below it; here that wait races with the end of the grace's parent.
#[test]
fn c29_a_wait_below_a_grace_that_begins_and_ends_is_woken() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, guard) = clock.root().with_cancel();
        let (grace, _grace_guard) = ctx.with_grace(Duration::ZERO);
        let (child, _guard) = grace.with_timeout(9 * SECOND);
        let canceler = thread::spawn(move || guard.cancel());
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(child.done());
        let ready = poll(done.as_mut(), &wakes);
        canceler.join().unwrap();
        clock.advance(Duration::ZERO); // the system's timer looks again whenever something is entered
        assert!(ready || wakes.count() == 1, "the grace is over, and the wait was not woken");
        assert_eq!(child.err().expect("done").origin().context(), ctx.id());
    });
}

/// On the system's clock, where a node has no more than its own deadline.
#[test]
fn c15_a_deadline_below_a_grace_that_begins_is_never_none() {
    loom::model(|| {
        modeled::set(0);
        let (ctx, guard) = Context::background().with_timeout(3 * SECOND);
        let (grace, _grace_guard) = ctx.with_grace(SECOND);
        let (query, _query_guard) = grace.with_timeout(9 * SECOND);
        let (child, _guard) = query.with_cancel();
        let asked = child.clone();
        let asker = thread::spawn(move || {
            let seen = asked.deadline().map(Tick::from_instant);
            assert!([Some(seconds(1)), Some(seconds(4))].contains(&seen), "{seen:?}");
        });
        guard.cancel();
        assert_eq!(child.deadline().map(Tick::from_instant), Some(seconds(1)));
        asker.join().unwrap();
    });
}

/// The canceler reads the clock before the deadline below has passed, and hands its grace down afterwards.
#[test]
fn c2_an_error_says_the_same_after_a_grace_above_has_begun() {
    loom::model(|| {
        modeled::set(0);
        let (ctx, guard) = root();
        let (grace, grace_guard) = ctx.with_grace(SECOND);
        let (query, query_guard) = grace.with_timeout(5 * SECOND);
        let polled = query.clone();
        let poller = thread::spawn(move || {
            modeled::set(seconds(5).nanos());
            let err = polled.err().expect("its deadline has passed");
            let said = (err.origin().tick(), err.origin().context());
            (err, said)
        });
        guard.cancel();
        let (err, said) = poller.join().unwrap();
        assert_eq!((err.origin().tick(), err.origin().context()), said);
        assert!(said.1 != query.id() || said.0 == seconds(5));
        drop((ctx, grace, grace_guard, query, query_guard));
        assert_eq!(err.origin().tick(), said.0, "an error keeps what it says");
    });
}

#[test]
fn c27_a_child_derived_and_awaited_while_its_grace_begins_is_woken() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, guard) = clock.root().with_cancel();
        let (grace, _grace_guard) = ctx.with_grace(SECOND);
        let start = clock.now();
        let canceler = thread::spawn(move || guard.cancel());
        let (child, _guard) = grace.with_timeout(9 * SECOND);
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(child.done());
        assert!(!poll(done.as_mut(), &wakes));
        canceler.join().unwrap();
        assert_eq!(child.deadline(), Some(start + SECOND));
        clock.advance(SECOND);
        assert_eq!(wakes.count(), 1);
        assert_eq!(child.err().expect("done").origin().context(), ctx.id());
    });
}

/// The deadline above is armed and has passed, and its timer has not come yet.
#[test]
fn c27_a_grace_has_the_end_of_its_parent() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (request, _guard) = clock.root().with_timeout(SECOND);
        let (step, step_guard) = request.with_cancel();
        let (grace, _grace_guard) = step.with_grace(Duration::ZERO);
        let mut done = Box::pin(step.done());
        assert!(!poll(done.as_mut(), &Arc::default()));
        clock.pass(SECOND);
        let polled = grace.clone();
        let poller = thread::spawn(move || polled.is_done());
        step_guard.cancel();
        poller.join().unwrap();
        clock.advance(Duration::ZERO);
        let of = |ctx: &Context| ctx.err().expect("done").origin().context();
        assert_eq!(of(&grace), of(&step));
    });
}

/// The canceler reads the clock before the deadline above passes, which is not armed, and a poll finds the grace over meanwhile.
#[test]
fn c27_a_grace_has_the_end_of_its_parent_that_is_canceled_late() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (request, _guard) = clock.root().with_timeout(SECOND);
        let (step, step_guard) = request.with_cancel();
        let (grace, _grace_guard) = step.with_grace(Duration::ZERO);
        let (polled, passing) = (grace.clone(), clock.clone());
        let poller = thread::spawn(move || {
            passing.pass(SECOND);
            polled.is_done()
        });
        step_guard.cancel();
        poller.join().unwrap();
        let of = |ctx: &Context| ctx.err().expect("done").origin().context();
        assert_eq!(of(&grace), of(&step));
    });
}

/// The canceler has read the clock, and the grace has passed by the time that was estimated before: its error keeps the instant.
#[test]
fn c2_the_end_of_a_grace_is_at_one_instant() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (request, _guard) = clock.root().with_timeout(SECOND);
        let (step, step_guard) = request.with_cancel();
        let (grace, _grace_guard) = step.with_grace(SECOND);
        let (polled, passing) = (grace.clone(), clock.clone());
        let poller = thread::spawn(move || {
            passing.pass(2 * SECOND);
            let err = polled.err().expect("both times are up");
            (err.origin().at(), err)
        });
        step_guard.cancel();
        let (at, err) = poller.join().unwrap();
        assert_eq!((err.origin().at(), grace.err().expect("done").origin().at()), (at, at));
    });
}
