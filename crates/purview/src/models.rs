//! Races, model-checked: each test is run by loom under every interleaving (up to a number of preemptions) and every
//! order that the memory model allows.
//!
//! `cargo xtask loom` runs them. One fact a model, three threads at most, and no user-visible type that is not real: only
//! locks, atomics and cells are loom's.
#![expect(unsafe_code, reason = "a model guards a cell by the lock that is modelled")]

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Duration;

use loom::thread;

use crate::clock::Tick;

use crate::time::ManualClock;
use crate::{CancelGuard, Context, Semaphore, Spawn, TaskGroup};

const SECOND: Duration = Duration::from_secs(1);

/// A root of its own for each run of a model, with a node that can be canceled.
fn root() -> (Context, CancelGuard) {
    Context::background().with_cancel()
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: Pin<&mut F>, wakes: &Arc<Wakes>) -> bool {
    let waker = Waker::from(Arc::clone(wakes));
    matches!(future.poll(&mut Task::from_waker(&waker)), Poll::Ready(_))
}

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

#[test]
fn c2_who_cancels_a_child_after_its_parents_end_changes_nothing() {
    loom::model(|| {
        let (ctx, guard) = root();
        let (child, child_guard) = ctx.with_cancel();
        let parent = ctx.clone();
        let canceler = thread::spawn(move || guard.cancel_with("first"));
        let was_done = parent.is_done();
        child_guard.cancel_with("second");
        canceler.join().unwrap();
        let err = child.err().expect("done");
        assert!(!was_done || err.origin().context() == parent.id());
    });
}

// Who looks is a thread of its own, and who ends it is the first: loom remembers of a load only the latest, so that those of the one
// who then stores would hide those of the one who looks, and nothing would be tried.

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

// ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Runs each task on a thread. What is in the models is ready when it is polled, or never.
#[derive(Clone, Default)]
struct Threads(Arc<std::sync::Mutex<Vec<thread::JoinHandle<()>>>>);

impl Threads {
    /// Waits for all, and for those that they have begun.
    fn join(&self) {
        loop {
            let one = self.0.lock().unwrap().pop();
            let Some(one) = one else { break };
            one.join().unwrap();
        }
    }
}

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let one = thread::spawn(move || {
            let _ = poll(pin!(task), &Arc::default());
        });
        self.0.lock().unwrap().push(one);
    }
}

type Group = TaskGroup<Box<dyn std::error::Error + Send + Sync>, Threads>;

/// A join that was begun, to the end: who waits is woken.
fn finish<F: Future>(mut join: Pin<&mut F>, threads: &Threads) -> F::Output {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut poll = || join.as_mut().poll(&mut Task::from_waker(&waker));
    if let Poll::Ready(result) = poll() {
        threads.join();
        return result;
    }
    threads.join();
    assert!(wakes.count() > 0, "the last task wakes who waits for it");
    match poll() {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("all have ended"),
    }
}

#[test]
fn a_join_returns_when_its_tasks_have_ended_and_not_before() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).build_on(threads.clone());
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        group.spawn(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut join = pin!(async {
            group.join().await.unwrap();
            assert_eq!(ran.load(Ordering::SeqCst), 1);
        });
        finish(join.as_mut(), &threads);
    });
}

#[test]
fn a_task_that_is_spawned_while_the_group_is_canceled_has_run_or_is_told_of() {
    loom::model(|| {
        let (ctx, guard) = root();
        let threads = Threads::default();
        let group = Group::builder(&ctx).build_on(threads.clone());
        let canceler = thread::spawn(move || guard.cancel());
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        group.spawn(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let mut join = pin!(group.join());
        let result = finish(join.as_mut(), &threads);
        canceler.join().unwrap();
        assert!(result.is_err() || ran.load(Ordering::SeqCst) == 1);
        assert!(ctx.is_done());
    });
}

#[test]
fn of_two_tasks_that_fail_at_once_the_first_is_the_cause() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).build_on(threads.clone());
        let ctx = group.context().clone();
        for name in ["one", "other"] {
            group.spawn(move |_| async move { Err(name.into()) });
        }
        let mut join = pin!(group.join());
        let failed = finish(join.as_mut(), &threads).unwrap_err();
        let cause = ctx.err().and_then(|err| err.cause().cloned());
        assert_eq!(
            cause.map(|it| it.to_string()),
            failed.failures().first().map(|it| it.cause().to_string())
        );
    });
}

#[test]
fn who_waits_for_room_begins_when_the_task_before_it_ends() {
    loom::model(|| {
        let threads = Threads::default();
        let group = Group::builder(&Context::background()).limit(1).build_on(threads.clone());
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let counted = Arc::clone(&ran);
            group.spawn(move |_| async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        let mut join = pin!(group.join());
        finish(join.as_mut(), &threads).unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_permit_that_is_given_back_while_somebody_asks_for_it_is_not_lost() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let one = Arc::clone(&semaphore);
        let holder = thread::spawn(move || drop(one.try_acquire(1)));
        let ctx = Context::background();
        let wakes = Arc::new(Wakes::default());
        let mut asked = pin!(semaphore.acquire(&ctx, 1));
        let has_it = poll(asked.as_mut(), &wakes);
        holder.join().unwrap();
        assert!(has_it || wakes.count() == 1 && poll(asked.as_mut(), &wakes));
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
