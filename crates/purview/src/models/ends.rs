//! Ends and what becomes of them: cancel beside cancel, derive and drop.
#![expect(unsafe_code, reason = "a model guards a cell by what is modelled")]

use std::sync::Arc;

use loom::thread;

use super::{Wakes, poll, root};
use crate::{CancelGuard, Context};

#[test]
fn c8_a_child_derived_during_a_cancel_is_never_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, _guard) = ctx.with_cancel();
        let canceler = thread::spawn(move || guard.cancel_with("cause"));
        let (child, _guard) = middle.with_cancel();
        canceler.join().unwrap();
        let err = child.err().expect("done");
        assert_eq!(err.origin().context(), ctx.id());
        assert_eq!(err.to_string(), "context canceled: cause");
    });
}

#[test]
fn c8_a_child_derived_during_a_cancel_above_from_one_that_is_waited_for_is_never_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, _guard) = ctx.with_cancel();
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(child.clone().into_done());
        assert!(!poll(done.as_mut(), &wakes));
        let canceler = thread::spawn(move || guard.cancel());
        let (below, _guard) = child.with_cancel();
        canceler.join().unwrap();
        assert!(below.is_done() && wakes.count() == 1);
    });
}

#[test]
fn c13_a_child_may_be_dropped_while_its_parent_is_canceled() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let (below, below_guard) = child.with_cancel();
        let dropper = thread::spawn(move || {
            drop((child, child_guard.disarm()));
            drop((below, below_guard.disarm()));
        });
        guard.cancel();
        dropper.join().unwrap();
        assert_eq!(ctx.statistics().children(), 0);
    });
}

#[test]
fn c7_both_of_two_cancelers_return_to_a_tree_that_is_done() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (_middle, _middle_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = _middle.with_cancel();
        let (second, seen) = (guard.handle(), leaf.clone());
        let other = thread::spawn(move || {
            second.cancel();
            assert!(seen.is_done());
        });
        guard.cancel();
        assert!(leaf.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_cancel_of_the_child_and_one_of_the_parent_leave_nothing_live() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, middle_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = middle.with_cancel();
        let seen = leaf.clone();
        let other = thread::spawn(move || {
            middle_guard.cancel();
            assert!(seen.is_done());
            drop(middle_guard);
        });
        guard.cancel();
        assert!(middle.is_done() && leaf.is_done());
        other.join().unwrap();
        // One error for both, whichever canceler it came from.
        let origin = |ctx: &Context| ctx.err().unwrap().origin().context();
        assert_eq!(origin(&middle), origin(&leaf));
        assert_eq!(middle.statistics().children() + ctx.statistics().children(), 0);
    });
}

// Who looks is a thread of its own, and who ends it is the first: loom remembers of a load only the latest, so that those of the one
// who then stores would hide those of the one who looks, and nothing would be tried.

#[test]
fn c2_who_cancels_a_child_after_its_parents_end_changes_nothing() {
    child_canceled_after_its_parent(|guard| guard.cancel_with("second"));
}

#[test]
fn c2_who_cancels_a_leaf_the_quick_way_after_its_parents_end_changes_nothing() {
    child_canceled_after_its_parent(CancelGuard::cancel);
}

fn child_canceled_after_its_parent(cancel: fn(&CancelGuard)) {
    loom::model(move || {
        let (ctx, guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let parent = ctx.clone();
        let looks = thread::spawn(move || {
            let was_done = parent.is_done();
            cancel(&child_guard);
            was_done
        });
        guard.cancel_with("first");
        let was_done = looks.join().unwrap();
        let err = child.err().expect("done");
        assert!(!was_done || err.origin().context() == ctx.id());
    });
}

#[test]
fn c9_whoever_sees_a_child_done_sees_its_parent_done() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, _guard) = ctx.with_cancel();
        let looks = thread::spawn(move || {
            if child.is_done() {
                assert!(ctx.is_done() && ctx.err().is_some() && child.err().is_some());
            }
        });
        guard.cancel();
        looks.join().unwrap();
    });
}

#[test]
fn c4_who_sees_the_end_sees_why_and_what_was_written_before() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, _guard) = ctx.with_cancel();
        let written = Arc::new(loom::cell::UnsafeCell::new(0));
        let theirs = Arc::clone(&written);
        let looks = thread::spawn(move || {
            for ctx in [&child, &ctx] {
                if ctx.is_done() {
                    // SAFETY: it was written before the end, which has been seen.
                    assert_eq!(theirs.with(|it| unsafe { *it }), 7);
                    let err = ctx.err().expect("done");
                    assert_eq!(err.cause().expect("there is one").to_string(), "why");
                }
            }
        });
        // SAFETY: nobody reads it before the end.
        written.with_mut(|it| unsafe { *it = 7 });
        guard.cancel_with("why");
        looks.join().unwrap();
    });
}

#[test]
fn c28_a_merge_made_while_its_last_parent_is_canceled_is_never_lost_and_leaves_nothing() {
    merge_while_canceled(false);
}

#[test]
fn c28_a_merge_made_while_its_first_parent_is_canceled_is_never_lost_and_leaves_nothing() {
    merge_while_canceled(true);
}

fn merge_while_canceled(a_first: bool) {
    loom::model(move || {
        let (a, a_guard) = root();
        let (b, _b_guard) = root();
        let canceler = thread::spawn(move || a_guard.cancel());
        let (merged, merged_guard) = Context::any_of(if a_first { [&a, &b] } else { [&b, &a] });
        canceler.join().unwrap();
        assert_eq!(merged.err().expect("done").origin().context(), a.id());
        assert_eq!(b.statistics().children() + a.statistics().children(), 0);
        drop(merged_guard);
    });
}

#[test]
fn c28_two_parents_that_end_at_once_end_it_once() {
    loom::model(|| {
        let (a, a_guard) = root();
        let (b, b_guard) = root();
        let (merged, merged_guard) = Context::any_of([&a, &b]);
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(merged.clone().into_done());
        assert!(!poll(done.as_mut(), &wakes));
        let merged_guard = merged_guard.disarm();
        let canceler = thread::spawn(move || a_guard.cancel());
        b_guard.cancel();
        canceler.join().unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(b.statistics().children() + a.statistics().children(), 0);
        drop((done, merged, merged_guard));
    });
}

#[test]
fn c28_a_merge_may_be_dropped_while_a_parent_is_canceled() {
    loom::model(|| {
        let ((a, a_guard), (b, _b_guard)) = (root(), root());
        let (both, guard) = Context::any_of([&a, &b]);
        let dropper = thread::spawn(move || drop((both, guard.disarm())));
        a_guard.cancel();
        dropper.join().unwrap();
        assert_eq!((a.statistics().children(), b.statistics().children()), (0, 0));
    });
}

#[test]
fn c7_two_sweeps_that_share_merged_nodes_do_not_wait_for_each_other() {
    loom::model(|| {
        let (a, a_guard) = root();
        let (b, b_guard) = root();
        let (one, _one_guard) = Context::any_of([&a, &b]);
        let (two, _two_guard) = Context::any_of([&b, &a]);
        let (below_one, _guard) = one.with_cancel();
        let (below_two, _guard) = two.with_cancel();
        let (seen_one, seen_two) = (below_one.clone(), below_two.clone());
        let canceler = thread::spawn(move || {
            a_guard.cancel();
            assert!(seen_one.is_done() && seen_two.is_done());
        });
        b_guard.cancel();
        assert!(below_one.is_done() && below_two.is_done());
        canceler.join().unwrap();
    });
}

#[test]
fn c13_the_last_two_handles_may_go_at_once() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, _) = ctx.with_cancel();
        drop((ctx, guard.disarm()));
        let other = child.clone();
        let one = thread::spawn(move || drop(child));
        drop(other); // loom tells of what is not freed
        one.join().unwrap();
    });
}

#[test]
fn c13_an_error_and_the_last_handle_of_where_it_began_may_go_at_once() {
    loom::model(|| {
        let (ctx, guard) = root();
        guard.cancel();
        let err = ctx.err().unwrap();
        let one = thread::spawn(move || drop(err));
        drop((ctx, guard));
        one.join().unwrap();
    });
}

#[test]
fn c15_a_merge_made_while_a_parent_ends_has_the_deadlines_of_all() {
    loom::model(|| {
        let clock = crate::time::ManualClock::new();
        let (a, a_guard) = clock.root().with_cancel();
        let (b, _b_guard) = clock.root().with_timeout(super::SECOND);
        let at = b.deadline();
        let canceler = thread::spawn(move || a_guard.cancel());
        let (merged, _guard) = Context::any_of([&a, &b]);
        assert_eq!(merged.deadline(), at);
        canceler.join().unwrap();
        assert_eq!(merged.deadline(), at);
    });
}

/// A wait that finds the deadline above a merge passed records that ahead of the timer, while a cancel comes in between.
#[test]
fn c28_a_merge_has_the_end_of_a_parent_when_a_timer_is_late() {
    loom::model(|| {
        let clock = crate::time::ManualClock::like_the_systems();
        let (request, _guard) = clock.root().with_timeout(super::SECOND);
        let (step, step_guard) = request.with_cancel();
        let (other, _other_guard) = clock.root().with_cancel();
        let (merged, _guard) = Context::any_of([&other, &step]);
        let (polled, passing) = (merged.clone(), clock.clone());
        let poller = thread::spawn(move || {
            let mut sleep = Box::pin(polled.sleep(super::SECOND));
            passing.pass(super::SECOND);
            poll(sleep.as_mut(), &Arc::default())
        });
        step_guard.cancel();
        assert!(poller.join().unwrap());
        let of = |ctx: &Context| ctx.err().expect("done").origin().context();
        assert_eq!(of(&merged), of(&step));
    });
}
