//! The stages of an end, as the table in tree.rs has them: what each stage promises to threads that see it.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::root;
use crate::Context;
use crate::error::By;
use crate::state::{Ended, Ending};
use crate::tree::{Panics, Wake, sweep};

fn is_listed(context: &Context) -> bool {
    context.as_ref().scope().is_listed()
}

#[test]
fn recorded_a_thread_that_sees_it_done_sees_the_record() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let (_leaf, _leaf_guard) = child.with_cancel();
        let seen = child.clone();
        let other = thread::spawn(move || {
            let Some(error) = seen.err() else { return };
            assert_eq!(error.to_string(), "context canceled: why");
            assert_eq!(error.origin().context(), seen.id());
        });
        child_guard.cancel_with("why");
        other.join().unwrap();
        drop(guard);
    });
}

#[test]
fn claimed_by_one_of_those_that_end_it() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        child.on_done(move |_| _ = count.fetch_add(1, Ordering::SeqCst)).detach();
        let other = thread::spawn(move || guard.cancel());
        child_guard.cancel();
        other.join().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn marked_before_the_thread_that_lost_returns() {
    loom::model(|| {
        let (ctx, _guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let (leaf, _leaf_guard) = child.with_cancel();
        let (handle, seen) = (child_guard.handle(), leaf.clone());
        let other = thread::spawn(move || {
            handle.cancel();
            assert!(seen.is_done());
        });
        child_guard.cancel();
        assert!(leaf.is_done());
        other.join().unwrap();
    });
}

/// While a part of its subtree is another thread's to mark, a context stays listed: a cancel from above has to find it. This thread
/// is that other one: it has claimed `lower`, and not yet marked what is below.
#[test]
fn joined_before_it_is_unlinked() {
    loom::model(|| {
        let (_ctx, _guard) = root();
        let (middle, middle_guard) = _ctx.with_cancel();
        let (lower, _lower_guard) = middle.with_cancel();
        let (leaf, _leaf_guard) = lower.with_cancel();
        let node = lower.as_ref().scope();
        let ending = Ending::new(NonNull::from(node), By::Deadline);
        assert!(matches!(node.head().state.end(ending, true), Ended::Won));
        let canceler = thread::spawn(move || middle_guard.cancel());
        assert!(is_listed(&middle));
        sweep(lower.as_ref(), &mut Wake::Here, &mut Panics::new());
        canceler.join().unwrap();
        assert!(leaf.is_done() && !is_listed(&middle));
    });
}

#[test]
fn unlinked_before_it_is_complete() {
    loom::model(|| {
        let (ctx, _guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let (_leaf, _leaf_guard) = child.with_cancel();
        let (handle, seen) = (child_guard.handle(), child.clone());
        let other = thread::spawn(move || {
            handle.cancel();
            assert!(!is_listed(&seen));
        });
        child_guard.cancel();
        assert!(!is_listed(&child));
        other.join().unwrap();
    });
}

/// A callback finds the whole subtree done, even what another thread marks, and its context out of the list and complete: a
/// cancel of it returns at once.
#[test]
fn notified_after_it_is_complete() {
    loom::model(|| {
        let (ctx, _guard) = root();
        let (middle, middle_guard) = ctx.with_cancel();
        let (lower, lower_guard) = middle.with_cancel();
        let (leaf, _leaf_guard) = lower.with_cancel();
        let (handle, seen) = (middle_guard.handle(), middle.clone());
        let call = move |_: &crate::Error| {
            assert!(leaf.is_done() && !is_listed(&seen));
            handle.cancel();
        };
        middle.on_done(call).detach();
        let other = thread::spawn(move || lower_guard.cancel());
        middle_guard.cancel();
        other.join().unwrap();
    });
}
