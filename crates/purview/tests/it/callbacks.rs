//! C32–C35: callbacks, panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use purview::Context;
use purview::time::ManualClock;

use crate::support::{CountingWaker, Log, ends_by_deadline, poll_with, waker_of};

#[test]
fn c32_a_panic_is_caught_the_rest_are_served_and_the_first_is_resumed_in_the_canceler() {
    let (ctx, guard) = Context::background().with_cancel();
    let (child, _child_guard) = ctx.with_cancel();
    let waker = CountingWaker::new();
    let log = Log::default();
    let panicking = waker_of(|| panic!("first"));
    let mut first = Box::pin(ctx.done());
    let mut second = Box::pin(ctx.done());
    assert!(poll_with(first.as_mut(), &panicking).is_pending());
    assert!(poll_with(second.as_mut(), &Waker::from(waker.clone())).is_pending());
    let _a = ctx.on_done(|_| panic!("second"));
    let line = log.clone();
    let _b = child.on_done(move |_| line.add("served"));
    let _c = child.on_done(|_| std::panic::panic_any(PanicsOnDrop));
    let payload = catch_unwind(AssertUnwindSafe(|| guard.cancel())).expect_err("resumed");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"first"));
    assert_eq!(waker.count(), 1);
    assert_eq!(log.take(), ["served"]);
    // Nothing is poisoned.
    assert!(ctx.is_done() && child.is_done());
    guard.cancel();
    let (again, again_guard) = child.with_cancel();
    assert!(again.is_done());
    drop(again_guard);
    assert_eq!((ctx.statistics().waiters(), ctx.statistics().callbacks()), (0, 0));
}

struct PanicsOnDrop;
impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("dropped");
        }
    }
}

#[test]
fn c32_a_guard_that_is_dropped_by_a_panic_lets_that_panic_go_on() {
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let (ctx, _guard) = Context::background().with_cancel();
        ctx.on_done(|_| panic!("in the callback")).detach();
        ctx.on_done(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .detach();
        panic!("in the work");
    }))
    .expect_err("panicked");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"in the work"));
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

#[test]
fn c32_on_the_timers_side_a_panic_is_reported_and_dropped_and_time_goes_on() {
    let (ctx, _guard) = ends_by_deadline(|| panic!("reported by the hook"));
    let panicking = waker_of(|| panic!("reported by the hook"));
    let mut done = Box::pin(ctx.clone().into_done());
    let _ = poll_with(done.as_mut(), &panicking);
    let (said, heard) = mpsc::channel();
    let said_too = said.clone();
    ctx.on_done(move |_| said.send(()).expect("the test waits")).detach();
    heard.recv().expect("the rest are served");
    let (next, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    next.on_done(move |_| said_too.send(()).expect("the test waits")).detach();
    assert!(next.done().wait().is_deadline_exceeded());
    heard.recv().expect("and the next");

    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(1));
    let (later, _guard) = clock.root().with_timeout(Duration::from_secs(2));
    ctx.on_done(|_| panic!("while advancing")).detach();
    let advance = AssertUnwindSafe(|| clock.advance(Duration::from_secs(3)));
    let payload = catch_unwind(advance).expect_err("resumed in the caller of advance");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"while advancing"));
    assert!(later.is_done(), "after all were served");
}

#[test]
fn c33_a_callback_runs_exactly_once_with_the_error_on_the_thread_that_ended_the_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = seen.clone();
    let registration = ctx.on_done(move |err| {
        list.lock().expect("no panic").push((err.to_string(), thread::current().id()))
    });
    assert!(seen.lock().expect("no panic").is_empty());
    let canceler = thread::spawn(move || {
        guard.cancel_with("now");
        guard.cancel_with("again");
        thread::current().id()
    });
    let canceler = canceler.join().expect("no panic");
    assert_eq!(*seen.lock().expect("no panic"), [("context canceled: now".to_string(), canceler)]);
    assert!(!registration.stop());
}

#[test]
fn c33_on_a_done_context_it_runs_before_on_done_returns() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let (watched, _guard) = Context::background().with_timeout(Duration::ZERO);
    for ctx in [&ctx, &watched] {
        let log = Log::default();
        let line = log.clone();
        let registration = ctx.on_done(move |_| line.add("ran"));
        assert_eq!(log.take(), ["ran"]);
        assert!(!registration.stop());
    }
}

#[test]
fn c33_for_a_deadline_it_runs_on_a_thread_kept_for_callbacks() {
    let (said, heard) = mpsc::channel();
    let (_ctx, _guard) = ends_by_deadline(move || {
        said.send(thread::current().name().map(String::from)).expect("the test waits");
    });
    assert_eq!(heard.recv().expect("called").as_deref(), Some("purview-callbacks"));
}

#[test]
fn c33_stop_and_end_decide_for_exactly_one_of_them() {
    for _ in 0..2000 {
        let (ctx, guard) = Context::background().with_cancel();
        let ran = Arc::new(AtomicUsize::new(0));
        let count = ran.clone();
        let registration = ctx.on_done(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let start = Barrier::new(2);
        let stopped = thread::scope(|s| {
            s.spawn(|| {
                start.wait();
                guard.cancel();
            });
            start.wait();
            registration.stop()
        });
        assert_eq!(ran.load(Ordering::SeqCst), usize::from(!stopped));
    }
}

#[test]
fn c34_dropping_the_registration_waits_for_a_running_callback() {
    for _ in 0..20 {
        let (ctx, guard) = Context::background().with_cancel();
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let returned = Arc::new(AtomicUsize::new(0));
        let seen = returned.clone();
        let registration = ctx.on_done(move |_| {
            begun.send(()).expect("the test waits");
            may_go.recv().expect("the dropper says so");
            // The drop is on its way. It gets every chance to return too early.
            for _ in 0..5_000 {
                assert_eq!(
                    seen.load(Ordering::SeqCst),
                    0,
                    "the drop returned while the callback runs"
                );
                thread::yield_now();
            }
        });
        thread::scope(|s| {
            let canceler = s.spawn(|| guard.cancel());
            has_begun.recv().expect("begun");
            go.send(()).expect("the callback waits");
            drop(registration);
            returned.store(1, Ordering::SeqCst);
            canceler.join().expect("the callback did not see the drop return");
        });
    }
}

#[test]
fn c34_dropped_inside_its_own_callback_it_returns_at_once_and_stop_never_waits() {
    let (ctx, guard) = Context::background().with_cancel();
    let slot = Arc::new(Mutex::new(None));
    let inner = slot.clone();
    let registration = ctx.on_done(move |_| drop(inner.lock().expect("no panic").take()));
    *slot.lock().expect("no panic") = Some(registration);
    guard.cancel();
    assert!(slot.lock().expect("no panic").is_none());

    let (ctx, guard) = Context::background().with_cancel();
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let registration = ctx.on_done(move |_| {
        begun.send(()).expect("the test waits");
        may_go.recv().expect("the test says so");
    });
    thread::scope(|s| {
        s.spawn(|| guard.cancel());
        has_begun.recv().expect("begun");
        assert!(!registration.stop(), "returns while the callback runs");
        go.send(()).expect("the callback waits");
    });
}

#[test]
fn c34_a_callback_may_unregister_a_later_one() {
    let (ctx, guard) = Context::background().with_cancel();
    let later = Arc::new(Mutex::new(None));
    let inner = later.clone();
    let _first = ctx.on_done(move |_| drop(inner.lock().expect("no panic").take()));
    *later.lock().expect("no panic") =
        Some(ctx.on_done(|_| panic!("unregistered before its turn")));
    guard.cancel();
}

#[test]
fn c35_where_nothing_can_end_it_stop_is_true_and_detach_drops_the_callback_at_once() {
    for ctx in [
        Context::background(),
        Context::todo(),
        Context::background().with_cancel().0.without_cancel(),
    ] {
        assert!(!ctx.can_be_done());
        let kept = Arc::new(());
        let held = kept.clone();
        let registration = ctx.on_done(move |_| drop(held));
        assert_eq!(Arc::strong_count(&kept), 2);
        assert!(registration.stop());
        let held = kept.clone();
        ctx.on_done(move |_| drop(held)).detach();
        assert_eq!(Arc::strong_count(&kept), 1);
    }
    let (ctx, guard) = Context::background().with_cancel();
    assert!(ctx.can_be_done());
    guard.cancel();
    assert!(ctx.can_be_done(), "also of a done one");
    let (grace, guard) = Context::background().with_grace(Duration::MAX);
    assert!(grace.can_be_done(), "its guard can end it");
    drop(guard);
}

#[test]
fn a_detached_callback_runs_even_if_nobody_keeps_the_context() {
    let log = Log::default();
    let (parent, guard) = Context::background().with_cancel();
    let line = log.clone();
    let (ctx, ctx_guard) = parent.with_cancel();
    ctx.on_done(move |err| line.add(err.to_string())).detach();
    drop((ctx, ctx_guard.disarm()));
    assert_eq!(parent.statistics().children(), 1, "it keeps its context");
    guard.cancel_with("from above");
    assert_eq!(log.take(), ["context canceled: from above"]);
    assert_eq!(parent.statistics().children(), 0);
}
