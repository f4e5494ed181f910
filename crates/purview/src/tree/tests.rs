//! What a test outside cannot bring about or look at: a node that has been in demand, whose dependents lie in shards, as
//! otherwise only after a storm; what lies in a clock's timers; who keeps a clock.

use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use super::dependents::SHARDS;
use super::derive::manual_root;
use crate::clock::Manual;
use crate::time::ManualClock;
use crate::{CancelGuard, Context, Key};

/// More than are walked in one go.
const MANY: usize = 40 * SHARDS;
const SECOND: Duration = Duration::from_secs(1);

fn in_demand((ctx, guard): (Context, CancelGuard)) -> (Context, CancelGuard) {
    let node = ctx.as_ref().scope();
    node.split();
    assert_eq!(node.lists(), SHARDS);
    (ctx, guard)
}

/// What that many threads make, one after another: each adds to another shard than the one before.
fn by_threads<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let make = &make;
    let one = |n| thread::scope(|scope| scope.spawn(move || make(n)).join().expect("no panic"));
    (0..count).map(one).collect()
}

#[derive(Default)]
struct Log(Mutex<Vec<usize>>);

impl Log {
    fn add(&self, n: usize) {
        self.0.lock().expect("no panic").push(n);
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

struct Says(Arc<Log>, usize);

impl Wake for Says {
    fn wake(self: Arc<Self>) {
        self.0.add(self.1);
    }
}

#[test]
fn c9_over_all_shards_who_waits_is_told_as_he_came_and_children_as_they_were_derived() {
    let (ctx, guard) = in_demand(Context::background().with_cancel());
    let log = Arc::new(Log::default());
    let _all = by_threads(MANY, |n| {
        let (child, guard) = ctx.with_cancel();
        let (here, below) = (Arc::clone(&log), Arc::clone(&log));
        child.on_done(move |_| below.add(MANY + n)).detach();
        if n % 2 == 0 {
            ctx.on_done(move |_| here.add(n)).detach();
            return (None, child, guard);
        }
        let mut done = Box::pin(ctx.clone().into_done());
        let waker = Waker::from(Arc::new(Says(here, n)));
        assert_eq!(done.as_mut().poll(&mut Task::from_waker(&waker)).map(drop), Poll::Pending);
        (Some(done), child, guard)
    });
    assert_eq!(ctx.statistics().children(), MANY);
    guard.cancel();
    assert_eq!(log.take(), (0..2 * MANY).collect::<Vec<_>>());
}

#[test]
fn c12_who_leaves_a_shard_is_unlisted_and_the_last_child_takes_the_parent_along() {
    static TOKEN: Key<Arc<()>> = Key::new("token");
    let token = Arc::new(());
    let root = Context::background().derive().value(&TOKEN, Arc::clone(&token)).build();
    let (ctx, guard) = in_demand(root);
    let before = ctx.with_cancel();
    let mut children = by_threads(MANY, |_| ctx.with_cancel());
    children.push(before);
    while children.len() > 2 * SHARDS {
        drop(children.swap_remove(children.len() / 3));
        assert_eq!(ctx.statistics().children(), children.len());
    }
    drop((ctx, guard.disarm()));
    while let Some((child, guard)) = children.pop() {
        drop(guard);
        assert_eq!(child.value(&TOKEN).map(Arc::strong_count), Some(2), "the child keeps it");
    }
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn c27_a_grace_that_begins_is_the_deadline_of_the_children_in_all_its_shards() {
    let (parent, guard) = ManualClock::new().root().with_cancel();
    let (grace, _guard) = in_demand(parent.with_grace(5 * SECOND));
    let children = by_threads(MANY, |n| match n % 3 {
        0 => grace.with_cancel(),
        1 => grace.with_timeout(9 * SECOND),
        _ => grace.with_timeout(SECOND),
    });
    guard.cancel();
    for (n, (child, _guard)) in children.iter().enumerate() {
        let left = if n % 3 == 2 { SECOND } else { 5 * SECOND };
        assert_eq!(child.remaining(), Some(left));
    }
}

#[test]
fn c21_a_grace_whose_parent_has_no_deadline_lies_in_no_timer_until_it_begins() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    let (grace, _guard) = parent.with_grace(SECOND);
    let _callback = grace.on_done(|_| {});
    assert_eq!(clock.timers(), 0, "it is watched, but would come never");
    guard.cancel();
    assert_eq!(clock.timers(), 1);
    clock.advance(SECOND);
    assert!(grace.is_done());
    assert_eq!(clock.timers(), 0);
}

#[test]
fn c40_a_clock_is_there_as_long_as_its_tree() {
    let clock = Manual::new(true);
    let root = manual_root(&clock, Location::caller());
    assert_eq!(Arc::strong_count(&clock), 2);
    let child = Context::from_ref(root).with_cancel();
    assert_eq!(Arc::strong_count(&clock), 2, "the root's is enough: it is kept by all below");
    drop(child);
    assert_eq!(Arc::strong_count(&clock), 1);
}
