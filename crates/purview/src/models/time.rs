//! Deadlines, graces and clocks, beside ends and beside who looks.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{SECOND, Wakes, poll};
use crate::Context;
use crate::clock::Tick;
use crate::time::ManualClock;

#[test]
fn c18_deadline_against_cancel_has_one_winner_and_frees_the_timer() {
    loom::model(|| {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(SECOND);
        let (child, _guard) = ctx.with_cancel();
        let advancing = clock.clone();
        let timer = thread::spawn(move || advancing.advance(SECOND));
        guard.cancel();
        timer.join().unwrap();
        let (own, inherited) = (ctx.err().unwrap(), child.err().unwrap());
        assert_eq!(own.kind(), inherited.kind());
        assert_eq!(own.origin().at(), inherited.origin().at());
        drop((ctx, child, guard));
    });
}

#[test]
fn c13_a_context_may_be_dropped_while_its_deadline_comes() {
    loom::model(|| {
        let clock = ManualClock::new();
        let (parent, _guard) = clock.root().with_cancel();
        let (ctx, guard) = parent.with_timeout(SECOND);
        let advancing = clock.clone();
        let timer = thread::spawn(move || advancing.advance(SECOND));
        drop((ctx, guard.disarm()));
        timer.join().unwrap();
        assert_eq!((clock.timers(), parent.statistics().children()), (0, 0));
    });
}

#[test]
fn c21_what_is_armed_while_it_is_canceled_does_not_stay_in_the_timer() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, guard) = clock.root().with_timeout(SECOND);
        let waiting = ctx.clone();
        let waiter = thread::spawn(move || {
            let wakes = Arc::new(Wakes::default());
            _ = poll(Box::pin(waiting.into_done()).as_mut(), &wakes);
        });
        guard.cancel();
        waiter.join().unwrap();
        assert!(ctx.is_done());
        assert_eq!(clock.timers(), 0);
    });
}

#[test]
fn c21_a_deadline_that_two_begin_to_wait_for_at_once_is_taken_out_of_the_timer() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, guard) = clock.root().with_timeout(SECOND);
        let wait = |ctx: Context| {
            let wakes = Arc::new(Wakes::default());
            _ = poll(Box::pin(ctx.into_done()).as_mut(), &wakes);
        };
        let waiting = ctx.clone();
        let waiter = thread::spawn(move || wait(waiting));
        wait(ctx.clone());
        waiter.join().unwrap();
        assert_eq!(clock.timers(), 1);
        guard.cancel();
        assert_eq!(clock.timers(), 0);
    });
}

#[test]
fn c40_a_deadline_derived_while_the_clock_is_advanced_past_it_is_not_left_behind() {
    loom::model(|| {
        let clock = ManualClock::new();
        let advancing = clock.clone();
        let at = clock.now() + SECOND;
        let timer = thread::spawn(move || advancing.advance(SECOND));
        let (ctx, _guard) = clock.root().with_deadline(at);
        timer.join().unwrap();
        assert!(ctx.is_done());
    });
}

#[test]
fn c40_a_sleep_begun_while_the_clock_is_advanced_is_woken() {
    loom::model(|| {
        let clock = ManualClock::new();
        let root = clock.root();
        let advancing = clock.clone();
        let mut sleep = Box::pin(root.sleep(SECOND));
        let timer = thread::spawn(move || advancing.advance(SECOND));
        let wakes = Arc::new(Wakes::default());
        let ready = poll(sleep.as_mut(), &wakes);
        timer.join().unwrap();
        assert!(ready || wakes.count() == 1);
    });
}

#[test]
fn c15_a_child_derived_below_a_grace_while_that_begins_has_its_deadline() {
    loom::model(|| {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_cancel();
        let (grace, _guard) = ctx.with_grace(SECOND);
        let at = clock.now() + SECOND;
        let canceler = thread::spawn(move || guard.cancel());
        let (child, _guard) = grace.with_timeout(9 * SECOND);
        canceler.join().unwrap();
        assert_eq!(child.deadline(), Some(at));
        clock.advance(SECOND);
        assert!(grace.is_done() && child.is_done());
    });
}

#[test]
fn c27_a_grace_derived_while_its_parent_is_canceled_begins() {
    loom::model(|| {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_cancel();
        let canceler = thread::spawn(move || guard.cancel());
        let (grace, _guard) = ctx.with_grace(SECOND);
        canceler.join().unwrap();
        assert!(!grace.is_done());
        clock.advance(SECOND);
        assert!(grace.is_done());
    });
}

/// What a poll says of the parent and then of the child must stay true.
fn look(ctx: &Context, child: &Context) {
    let child_was = child.is_done();
    let was = ctx.is_done();
    assert!(was || !child_was, "a child is done and its parent is not");
    let child_is = child.is_done();
    assert!(child_is || !child_was, "done turned into live");
    assert!(ctx.is_done() || !was, "done turned into live");
}

#[test]
fn c17_done_stays_done_while_a_deadline_that_passes_is_being_armed() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let (child, _child_guard) = ctx.with_cancel();
        let advancing = clock.clone();
        let timer = thread::spawn(move || advancing.advance(SECOND));
        let waiting = child.clone();
        let waiter = thread::spawn(move || {
            let wakes = Arc::new(Wakes::default());
            let mut done = Box::pin(waiting.done());
            (poll(done.as_mut(), &wakes), wakes, waiting.clone())
        });
        look(&ctx, &child);
        timer.join().unwrap();
        let _ = waiter.join().unwrap();
        look(&ctx, &child);
    });
}

#[test]
fn c17_who_begins_to_wait_while_the_deadline_passes_is_woken() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (outer, _guard) = clock.root().with_timeout(2 * SECOND);
        let (ctx, _guard) = outer.with_timeout(SECOND);
        let (child, _guard) = ctx.with_cancel();
        let advancing = clock.clone();
        let polled = child.clone();
        let timer = thread::spawn(move || {
            advancing.advance(SECOND);
            let _ = polled.is_done(); // by the clock, if nobody has armed it yet
        });
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(child.done());
        let ready = poll(done.as_mut(), &wakes);
        timer.join().unwrap();
        clock.advance(Duration::ZERO); // the system's timer looks again whenever something is entered
        assert!(ready || wakes.count() == 1);
        assert_eq!(child.err().expect("done").origin().context(), ctx.id());
    });
}

#[test]
fn c2_what_a_poll_finds_out_about_time_and_a_cancel_above_agree() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, _guard) = clock.root().with_timeout(SECOND);
        let (middle, middle_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = middle.with_cancel();
        let advancing = clock.clone();
        let seen = leaf.clone();
        let poller = thread::spawn(move || {
            advancing.advance(SECOND);
            let _ = seen.is_done();
        });
        middle_guard.cancel();
        poller.join().unwrap();
        let of = |ctx: &Context| ctx.err().expect("done").origin().context();
        assert_eq!(of(&leaf), of(&middle), "a child inherits its parent's error");
    });
}

#[test]
fn c18_an_unwatched_deadline_and_a_cancel_have_one_winner() {
    loom::model(|| {
        let clock = ManualClock::like_the_systems();
        let (ctx, guard) = clock.root().with_timeout(SECOND);
        let (child, _guard) = ctx.with_cancel();
        let advancing = clock.clone();
        let seen = child.clone();
        let timer = thread::spawn(move || {
            advancing.advance(SECOND);
            seen.err()
        });
        guard.cancel();
        let own = ctx.err().expect("done");
        let inherited = timer.join().unwrap().expect("done by time, if by nothing else");
        assert_eq!(own.kind(), inherited.kind());
        assert_eq!(inherited.kind(), child.err().expect("done").kind());
        drop(guard);
    });
}

#[test]
fn c22_what_is_put_in_while_the_timers_thread_looks_is_not_slept_past() {
    const FAR: i64 = 100;
    const SOON: i64 = 5;
    loom::model(|| {
        let shared = Arc::new((crate::timer::bell::Bell::new(), crate::sync::Mutex::new(FAR)));
        let served = Arc::clone(&shared);
        let server = thread::spawn(move || {
            let (bell, earliest) = &*served;
            loop {
                bell.look();
                let at = *crate::sync::lock(earliest);
                if at == SOON {
                    break;
                }
                bell.sleep(Tick::from_nanos(at), None); // for ever, if nobody rings
            }
        });
        let (bell, earliest) = &*shared;
        *crate::sync::lock(earliest) = SOON;
        bell.ring_before(Tick::from_nanos(SOON));
        server.join().unwrap();
    });
}
