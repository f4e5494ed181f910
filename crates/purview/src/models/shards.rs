//! A node that is in demand, whose dependents lie in shards.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Wake, Waker};

use loom::thread;

use super::{Wakes, poll, root};
use crate::{CancelGuard, Context};

/// A root whose dependents lie in shards: threads that add to it don't meet.
fn in_demand() -> (Context, CancelGuard) {
    let (ctx, guard) = root();
    ctx.scope().split();
    (ctx, guard)
}

#[test]
fn c8_children_derived_by_two_threads_during_a_cancel_are_never_lost() {
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let parent = ctx.clone();
        let other = thread::spawn(move || parent.with_cancel());
        let (canceled, _handle) = (ctx.clone(), guard.handle());
        let canceler = thread::spawn(move || guard.cancel());
        let (child, _guard) = ctx.with_cancel();
        let (other, _other_guard) = other.join().unwrap();
        canceler.join().unwrap();
        assert!(child.is_done() && other.is_done());
        assert_eq!(canceled.statistics().children(), 0);
    });
}

#[test]
fn c29_a_wake_up_is_not_lost_among_shards() {
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let waiting = ctx.clone();
        let other = thread::spawn(move || {
            let wakes = Arc::new(Wakes::default());
            let mut done = Box::pin(waiting.into_done());
            let ready = poll(done.as_mut(), &wakes);
            (ready, wakes, done)
        });
        let wakes = Arc::new(Wakes::default());
        let mut done = Box::pin(ctx.done());
        let ready = poll(done.as_mut(), &wakes);
        guard.cancel();
        assert!(!ready && wakes.count() == 1);
        let (ready, wakes, mut done) = other.join().unwrap();
        assert!(ready || wakes.count() == 1);
        assert!(poll(done.as_mut(), &wakes));
    });
}

#[test]
fn c8_a_list_that_is_split_while_it_is_added_to_loses_nobody() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (first, first_guard) = ctx.with_cancel();
        let parent = ctx.clone();
        let other = thread::spawn(move || parent.with_cancel());
        let leaver = thread::spawn(move || drop((first, first_guard)));
        let (child, _guard) = ctx.with_cancel();
        let (other, _other_guard) = other.join().unwrap();
        leaver.join().unwrap();
        assert_eq!(ctx.statistics().children(), 2);
        guard.cancel();
        assert!(child.is_done() && other.is_done());
    });
}

#[test]
fn c13_a_parent_that_only_its_shards_keep_goes_with_the_last_child() {
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let (other, parent) = (ctx.clone(), guard.disarm());
        let theirs = thread::spawn(move || drop((other.with_cancel(), other)));
        let mine = ctx.with_cancel();
        drop((ctx, parent)); // loom tells of what is not freed
        assert!(!mine.0.is_done());
        drop(mine);
        theirs.join().unwrap();
    });
}

#[test]
fn c9_over_shards_too_waiters_are_woken_as_they_came_and_children_as_they_were_derived() {
    type Log = Arc<std::sync::Mutex<Vec<&'static str>>>;
    struct Says(&'static str, Log);
    impl Wake for Says {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    fn wait(ctx: &Context, name: &'static str, log: &Log) -> Pin<Box<crate::Done<'static>>> {
        let mut done = Box::pin(ctx.clone().into_done());
        let waker = Waker::from(Arc::new(Says(name, Arc::clone(log))));
        assert!(done.as_mut().poll(&mut Task::from_waker(&waker)).is_pending());
        done
    }
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let log = Log::default();
        let derive = |child, waiter| {
            let (ctx, log) = (ctx.clone(), Arc::clone(&log));
            move || {
                let (below, guard) = ctx.with_cancel();
                (wait(&below, child, &log), wait(&ctx, waiter, &log), guard)
            }
        };
        // The first by a thread whose shard is looked at after this one's.
        let first = thread::spawn(derive("child 1", "waiter 1")).join().unwrap();
        let second = derive("child 2", "waiter 2")();
        guard.cancel();
        assert_eq!(*log.lock().unwrap(), ["waiter 1", "waiter 2", "child 1", "child 2"]);
        drop((first, second));
    });
}

#[test]
fn c13_a_context_that_only_a_shards_registration_keeps_goes_with_that() {
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let registration = ctx.on_done(|_| {});
        let handle = guard.disarm();
        let last = thread::spawn(move || drop((ctx, handle)));
        assert!(registration.stop()); // loom tells of what is not freed
        last.join().unwrap();
    });
}

#[test]
fn c33_a_callback_in_a_shard_is_stopped_or_called_and_its_context_goes() {
    loom::model(|| {
        let (ctx, guard) = in_demand();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let registration = ctx.on_done(move |_| _ = counted.fetch_add(1, Ordering::SeqCst));
        drop(ctx);
        let canceler = thread::spawn(move || guard.cancel());
        let stopped = registration.stop();
        canceler.join().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), usize::from(!stopped));
    });
}
