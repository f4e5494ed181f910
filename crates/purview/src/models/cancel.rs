//! What a `cancel` finds when it returns (C7), while another one is in flight at or above the context.

use loom::thread;

use super::root;
use crate::Context;
use crate::time::ManualClock;

#[test]
fn c7_a_cancel_above_waits_for_one_that_sweeps_below() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, middle_guard) = ctx.with_cancel();
        let (lower, _lower_guard) = middle.with_cancel();
        let (leaf, _leaf_guard) = lower.with_cancel();
        let other = thread::spawn(move || middle_guard.cancel());
        guard.cancel();
        assert!(middle.is_done() && lower.is_done() && leaf.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_cancel_below_waits_for_one_that_sweeps_from_above() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, middle_guard) = ctx.with_cancel();
        let (lower, _lower_guard) = middle.with_cancel();
        let (leaf, _leaf_guard) = lower.with_cancel();
        let other = thread::spawn(move || guard.cancel());
        middle_guard.cancel();
        assert!(middle.is_done() && lower.is_done() && leaf.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_leaf_that_a_sweep_ends_is_done_when_its_cancel_returns() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (leaf, leaf_guard) = ctx.with_cancel();
        let seen = leaf.clone();
        let other = thread::spawn(move || {
            leaf_guard.cancel();
            assert!(seen.is_done());
        });
        guard.cancel();
        assert!(leaf.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_leaf_with_two_cancelers_is_done_when_each_returns() {
    loom::model(|| {
        let (_ctx, _guard) = root();
        let (leaf, leaf_guard) = _ctx.with_cancel();
        let (handle, seen) = (leaf_guard.handle(), leaf.clone());
        let other = thread::spawn(move || {
            handle.cancel();
            assert!(seen.is_done());
        });
        leaf_guard.cancel();
        assert!(leaf.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_loser_waits_until_the_subtree_is_marked() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, _middle_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = middle.with_cancel();
        let (handle, seen) = (guard.handle(), leaf.clone());
        let other = thread::spawn(move || handle.cancel_with("second"));
        guard.cancel_with("first");
        assert!(middle.is_done() && seen.is_done());
        other.join().unwrap();
    });
}

#[test]
fn c7_a_canceled_child_stays_in_sight_until_its_subtree_is_marked() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (middle, middle_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = middle.with_cancel();
        let other = thread::spawn(move || middle_guard.cancel_with("below"));
        guard.cancel_with("above");
        assert!(middle.is_done() && leaf.is_done());
        other.join().unwrap();
    });
}

/// A grace that its own deadline has ended is a child like any other: the thread that ends it may still be marking below.
#[test]
fn c7_a_cancel_waits_for_a_grace_that_ended_before_it() {
    loom::model(|| {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_cancel();
        let second = std::time::Duration::from_secs(1);
        let (grace, _grace_guard) = ctx.derive().grace(9 * second).timeout(second).build();
        let (leaf, _leaf_guard) = grace.with_cancel();
        let (seen, below) = (grace.clone(), leaf.clone());
        let canceler = thread::spawn(move || {
            let had_ended = seen.is_done();
            guard.cancel();
            assert!(below.is_done() || !had_ended, "a context below an ended grace is live");
        });
        clock.advance(second);
        canceler.join().unwrap();
        assert!(leaf.is_done());
    });
}

#[test]
fn c8_a_child_derived_while_a_list_is_split_is_never_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (parent, _parent_guard) = ctx.with_cancel();
        let (first, first_guard) = parent.with_cancel();
        let theirs = parent.clone();
        let deriver = thread::spawn(move || theirs.with_cancel());
        let leaver = thread::spawn(move || drop((first, first_guard.disarm())));
        guard.cancel();
        let (child, _guard) = deriver.join().unwrap();
        leaver.join().unwrap();
        assert!(child.is_done());
    });
}

/// As above with two threads: the list is split by hand, under its lock, as a contended one is.
#[test]
fn c8_a_child_derived_into_a_new_shard_is_never_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (parent, _parent_guard) = ctx.with_cancel();
        let (_first, _first_guard) = parent.with_cancel();
        let theirs = parent.clone();
        let deriver = thread::spawn(move || {
            theirs.scope().split();
            theirs.with_cancel()
        });
        guard.cancel();
        let (child, _guard): (Context, _) = deriver.join().unwrap();
        assert!(child.is_done());
    });
}
