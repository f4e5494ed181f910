//! Who waits for an end: tasks, and callbacks; and the lock that they wait under.
#![expect(unsafe_code, reason = "a model guards a cell by what is modelled")]

use std::sync::Arc;
use std::task::Wake;

use loom::thread;

use super::{Wakes, poll, root};

#[test]
fn c29_a_wake_up_is_never_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, _guard) = ctx.with_cancel();
        let canceler = thread::spawn(move || guard.cancel());
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(child.done());
        let ready = poll(done.as_mut(), &wakes);
        canceler.join().unwrap();
        assert!(ready || wakes.count() == 1, "pending, and nobody came");
        assert!(poll(done.as_mut(), &wakes));
    });
}

#[test]
fn c29_a_wake_up_that_is_being_moved_to_another_task_is_not_lost() {
    loom::model(|| {
        let (ctx, guard) = root();
        let mut done = Box::pin(ctx.done());
        assert!(!poll(done.as_mut(), &Arc::default()));
        let canceler = thread::spawn(move || guard.cancel());
        let wakes = Arc::new(Wakes::default());
        let ready = poll(done.as_mut(), &wakes);
        canceler.join().unwrap();
        assert!(ready || wakes.count() == 1, "the task that polled last is not woken");
    });
}

#[test]
fn c29_a_waiter_may_go_while_it_and_its_neighbour_are_woken() {
    loom::model(|| {
        let (ctx, guard) = root();
        let wakes = Arc::new(Wakes::default());
        let mut stays = Box::pin(ctx.done());
        assert!(!poll(stays.as_mut(), &wakes));
        let mut goes = Box::pin(ctx.clone().into_done());
        assert!(!poll(goes.as_mut(), &Arc::default()));
        let canceler = thread::spawn(move || guard.cancel());
        drop(goes);
        canceler.join().unwrap();
        assert_eq!(wakes.count(), 1);
    });
}

#[test]
fn c33_stop_and_end_decide_for_exactly_one_of_them() {
    loom::model(|| {
        let (ctx, guard) = root();
        let ran = Arc::new(Wakes::default());
        let count = Arc::clone(&ran);
        let registration = ctx.on_done(move |_| count.wake());
        let canceler = thread::spawn(move || guard.cancel());
        let stopped = registration.stop();
        canceler.join().unwrap();
        assert_eq!(ran.count(), usize::from(!stopped));
        assert_eq!(ctx.statistics().callbacks(), 0);
    });
}

#[test]
fn c33_a_callback_registered_during_a_cancel_runs_once() {
    loom::model(|| {
        let (ctx, guard) = root();
        let canceler = thread::spawn(move || guard.cancel());
        let ran = Arc::new(Wakes::default());
        let count = Arc::clone(&ran);
        ctx.on_done(move |_| count.wake()).detach();
        canceler.join().unwrap();
        assert_eq!(ran.count(), 1);
    });
}

/// Without the waiting, which is nothing but trying again: loom follows every try.
#[test]
fn c5_the_byte_lock_lets_one_in_at_a_time() {
    struct Guarded(crate::lock::ByteLock, crate::sync::UnsafeCell<i32>);
    // SAFETY: the cell is guarded by the lock, which is what is being shown.
    unsafe impl Send for Guarded {}
    // SAFETY: as above.
    unsafe impl Sync for Guarded {}
    fn enter(guarded: &Guarded) -> i32 {
        let Some(_locked) = guarded.0.try_lock() else { return 0 };
        // SAFETY: the lock is held; loom's cell panics at an access beside another one, or one that is not ordered.
        guarded.1.with_mut(|it| unsafe { *it += 1 });
        1
    }
    loom::model(|| {
        let guarded =
            Arc::new(Guarded(crate::lock::ByteLock::new(), crate::sync::UnsafeCell::new(0)));
        let shared = Arc::clone(&guarded);
        let other = thread::spawn(move || enter(&shared) + enter(&shared));
        let mine = enter(&guarded) + enter(&guarded);
        let others = other.join().unwrap();
        // SAFETY: nobody else is left.
        let all = guarded.1.with(|it| unsafe { *it });
        assert_eq!(mine + others, all);
        assert!(mine > 0 || others > 0);
    });
}
