//! C29, C30: waiting, in tasks and on threads.

use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use purview::Context;
use purview::time::ManualClock;

use crate::support::{CountingWaker, poll_once, poll_with};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c29_the_end_wakes_every_waiter_task_or_thread() {
    let (ctx, guard) = Context::background().with_cancel();
    let wakers: Vec<_> = (0..100).map(|_| CountingWaker::new()).collect();
    let mut futures: Vec<_> = wakers.iter().map(|_| Box::pin(ctx.done())).collect();
    for (future, waker) in futures.iter_mut().zip(&wakers) {
        assert!(poll_with(future.as_mut(), &Waker::from(waker.clone())).is_pending());
    }
    thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(|| ctx.done().wait())).collect();
        while ctx.statistics().waiters() != 104 {
            thread::yield_now();
        }
        guard.cancel_with("all");
        for thread in threads {
            assert_eq!(thread.join().expect("no panic").to_string(), "context canceled: all");
        }
    });
    assert!(wakers.iter().all(|waker| waker.count() == 1), "each exactly once");
    assert!(futures.iter_mut().all(|future| poll_once(future.as_mut()).is_ready()));
}

#[test]
fn c29_a_wake_up_is_never_lost_between_looking_and_registering() {
    for round in 0..2000 {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _guard) = ctx.with_cancel();
        let ctx = if round % 2 == 0 { ctx } else { child };
        thread::scope(|s| {
            let waiter = s.spawn(|| ctx.done().wait()); // a lost one hangs here
            guard.cancel();
            assert!(waiter.join().expect("no panic").is_canceled());
        });
    }
}

#[test]
fn c29_dropping_a_waiter_unregisters_it_and_its_neighbours_stay() {
    let (ctx, guard) = Context::background().with_cancel();
    let wakers: Vec<_> = (0..9).map(|_| CountingWaker::new()).collect();
    let mut futures: Vec<_> = wakers.iter().map(|_| Some(Box::pin(ctx.done()))).collect();
    for (future, waker) in futures.iter_mut().flatten().zip(&wakers) {
        assert!(poll_with(future.as_mut(), &Waker::from(waker.clone())).is_pending());
    }
    for i in [0, 4, 8, 5, 3] {
        futures[i] = None;
    }
    assert_eq!(ctx.statistics().waiters(), 4);
    guard.cancel();
    let counts: Vec<_> = wakers.iter().map(|waker| waker.count()).collect();
    assert_eq!(counts, [0, 1, 1, 0, 0, 0, 1, 1, 0]);
    assert!(wakers.iter().all(|waker| Arc::strong_count(waker) == 1), "no waker is kept");
}

#[test]
fn c29_a_poll_from_another_task_moves_the_wake_up() {
    let (ctx, guard) = Context::background().with_cancel();
    let (first, second) = (CountingWaker::new(), CountingWaker::new());
    let mut done = pin!(ctx.done());
    assert!(poll_with(done.as_mut(), &Waker::from(first.clone())).is_pending());
    assert!(poll_with(done.as_mut(), &Waker::from(second.clone())).is_pending());
    assert_eq!(Arc::strong_count(&first), 1, "the old waker is let go");
    assert_eq!(ctx.statistics().waiters(), 1);
    guard.cancel();
    assert_eq!((first.count(), second.count()), (0, 1));
}

#[test]
fn c29_polling_after_ready_stays_ready() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut done = pin!(ctx.done());
    assert!(poll_once(done.as_mut()).is_pending());
    guard.cancel_with("why");
    for _ in 0..3 {
        match poll_once(done.as_mut()) {
            Poll::Ready(err) => assert_eq!(err.to_string(), "context canceled: why"),
            Poll::Pending => panic!("ready once, pending later"),
        }
    }
}

/// Counts its polls and its drops.
struct Work<'a> {
    polls: &'a Cell<usize>,
    drops: &'a Cell<usize>,
}

impl Future for Work<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        Poll::Pending
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

#[test]
fn c29_run_never_polls_the_work_of_a_done_context_and_drops_it_when_the_context_ends() {
    let (polls, drops) = (Cell::new(0), Cell::new(0));
    let (ctx, guard) = Context::background().with_cancel();
    let mut run = pin!(ctx.run(Work { polls: &polls, drops: &drops }));
    assert!(poll_once(run.as_mut()).is_pending());
    assert!(poll_once(run.as_mut()).is_pending());
    guard.cancel();
    assert_eq!((polls.get(), drops.get()), (2, 0));
    assert!(matches!(poll_once(run.as_mut()), Poll::Ready(Err(_))));
    assert_eq!(drops.get(), 1, "dropped when the context ends, not when the future goes");
    assert!(matches!(poll_once(run), Poll::Ready(Err(_))), "and no panic after that");

    let mut run = pin!(ctx.run(Work { polls: &polls, drops: &drops }));
    assert!(matches!(poll_once(run.as_mut()), Poll::Ready(Err(_))));
    assert_eq!((polls.get(), drops.get()), (3, 2));
}

#[test]
fn c29_run_prefers_a_result_that_is_ready_over_the_end() {
    let (ctx, guard) = Context::background().with_cancel();
    let go = Cell::new(false);
    let mut run = pin!(ctx.run(std::future::poll_fn(|_| if go.get() {
        Poll::Ready(42)
    } else {
        Poll::Pending
    })));
    assert!(poll_once(run.as_mut()).is_pending());
    go.set(true);
    guard.cancel();
    assert!(matches!(poll_once(run), Poll::Ready(Ok(42))));
    assert!(matches!(poll_once(pin!(Context::background().run(ready(1)))), Poll::Ready(Ok(1))));
    assert!(poll_once(pin!(Context::background().run(pending::<()>()))).is_pending());
}

#[test]
fn c29_sleep_of_zero_is_ok_on_a_live_context_and_an_error_on_a_done_one() {
    let (ctx, guard) = Context::background().with_cancel();
    assert!(matches!(poll_once(pin!(ctx.sleep(Duration::ZERO))), Poll::Ready(Ok(()))));
    assert!(ctx.sleep_blocking(Duration::ZERO).is_ok());
    guard.cancel();
    assert!(matches!(poll_once(pin!(ctx.sleep(Duration::ZERO))), Poll::Ready(Err(_))));
    assert!(ctx.sleep_blocking(Duration::ZERO).is_err());
    assert!(ctx.sleep_blocking(Duration::MAX).is_err());
}

#[test]
fn c29_a_sleep_ends_with_the_context_and_the_end_wins_a_tie() {
    let clock = ManualClock::new();
    let waker = CountingWaker::new();
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    let mut longer = pin!(ctx.sleep(2 * SECOND));
    let mut tie = pin!(ctx.sleep(SECOND));
    let mut shorter = pin!(ctx.sleep(SECOND / 2));
    for sleep in [longer.as_mut(), tie.as_mut(), shorter.as_mut()] {
        assert!(poll_with(sleep, &Waker::from(waker.clone())).is_pending());
    }
    clock.advance(SECOND / 2);
    assert!(matches!(poll_once(shorter), Poll::Ready(Ok(()))));
    assert!(poll_once(tie.as_mut()).is_pending());
    clock.advance(SECOND / 2);
    assert!(matches!(poll_once(tie), Poll::Ready(Err(_))));
    assert!(matches!(poll_once(longer), Poll::Ready(Err(_))));
    assert_eq!(waker.count(), 2, "the longer and the shorter; the tie was polled by another task");
}

#[test]
fn c30_a_thread_waits_for_a_time_on_the_systems_clock_and_never_less() {
    let (ctx, guard) = Context::background().with_cancel();
    let begin = Instant::now();
    assert!(ctx.done().wait_timeout(Duration::from_millis(2)).is_none());
    assert!(begin.elapsed() >= Duration::from_millis(2));
    let at = Instant::now() + Duration::from_millis(2);
    assert!(ctx.done().wait_deadline(at).is_none());
    assert!(Instant::now() >= at);
    let begin = Instant::now();
    assert!(ctx.sleep_blocking(Duration::from_millis(2)).is_ok());
    assert!(begin.elapsed() >= Duration::from_millis(2));
    assert!(ctx.done().wait_timeout(Duration::ZERO).is_none());
    guard.cancel();
    assert!(ctx.done().wait_timeout(Duration::MAX).is_some());
    assert!(ctx.done().wait_deadline(at).is_some(), "the end is told even after the time");
}

#[test]
fn c30_a_wait_takes_no_unpark_that_is_meant_for_its_thread() {
    let (ctx, _guard) = Context::background().with_cancel();
    thread::current().unpark();
    assert!(ctx.done().wait_timeout(Duration::from_millis(1)).is_none());
    thread::park(); // hangs if the token is gone
}

#[test]
fn c30_a_wait_in_a_thread_locals_destructor_works() {
    struct WaitsAtTheEnd(Context);
    impl Drop for WaitsAtTheEnd {
        fn drop(&mut self) {
            ENDS.fetch_add(usize::from(self.0.done().wait().is_canceled()), Ordering::SeqCst);
            assert!(self.0.done().wait_timeout(SECOND).is_some());
            let (child, guard) = self.0.without_cancel().with_cancel();
            let registration = child.on_done(|_| {});
            guard.cancel();
            drop(registration);
        }
    }
    static ENDS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static LAST: Cell<Option<WaitsAtTheEnd>> = const { Cell::new(None) });
    let (ctx, guard) = Context::background().with_cancel();
    let thread = thread::spawn(move || {
        LAST.set(Some(WaitsAtTheEnd(ctx.clone())));
        let _ = ctx.done().wait_timeout(Duration::ZERO);
    });
    guard.cancel();
    thread.join().expect("no panic");
    assert_eq!(ENDS.load(Ordering::SeqCst), 1);
}

#[test]
fn a_future_that_is_leaked_after_it_was_polled_keeps_nobody_from_ending_the_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut leaked = Box::pin(ctx.clone().into_done());
    assert!(poll_once(leaked.as_mut()).is_pending());
    std::mem::forget(leaked);
    guard.cancel();
    assert!(ctx.is_done());
}

#[test]
fn a_run_that_has_its_result_waits_no_longer() {
    let (ctx, _guard) = Context::background().with_cancel();
    let mut polls = 0;
    let mut run = pin!(ctx.run(std::future::poll_fn(|_| {
        polls += 1;
        if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
    })));
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(ctx.statistics().waiters(), 1);
    assert!(matches!(poll_once(run.as_mut()), Poll::Ready(Ok(()))));
    assert_eq!(ctx.statistics().waiters(), 0);
}
