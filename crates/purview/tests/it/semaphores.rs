//! The semaphore: Go's `golang.org/x/sync/semaphore`, its tests retold (each named after the one it retells), and what is ours.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use purview::{Context, Semaphore};

use crate::support::{poll_once, poll_with, waker_of};

/// TestWeighted.
#[test]
fn many_threads_that_take_and_give_back_leave_all_permits_free() {
    const THREADS: usize = 8;
    let semaphore = Semaphore::new(THREADS);
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for permits in 1..=THREADS {
            let (semaphore, taken) = (&semaphore, &taken);
            scope.spawn(move || {
                for _ in 0..1_000 / permits {
                    let permit = semaphore.acquire_blocking(&Context::background(), permits);
                    let permit = permit.expect("nobody cancels");
                    let now = taken.fetch_add(permit.permits(), Ordering::SeqCst) + permits;
                    assert!(now <= THREADS, "{now}");
                    taken.fetch_sub(permits, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!((semaphore.free(), semaphore.size()), (THREADS, THREADS));
}

/// TestWeightedPanic: to give back more than was taken cannot be written.
#[test]
fn a_permit_is_given_back_once_by_its_drop() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.try_acquire(1);
    assert_eq!(semaphore.free(), 0);
    drop(permit);
    assert_eq!(semaphore.free(), 1);
}

/// TestWeightedTryAcquire.
#[test]
fn try_acquire_takes_what_is_free_and_no_more() {
    let semaphore = Semaphore::new(2);
    let first = semaphore.try_acquire(1).expect("two are free");
    let second = semaphore.try_acquire(1).expect("one is free");
    assert!(semaphore.try_acquire(1).is_none());
    drop((first, second));
    assert!(semaphore.try_acquire(2).is_some());
    assert!(semaphore.try_acquire(3).is_none());
}

/// TestWeightedAcquire.
#[test]
fn acquire_takes_what_is_free_and_waits_for_the_rest() {
    let ctx = Context::background();
    let semaphore = Semaphore::new(2);
    let _first = semaphore.acquire_blocking(&ctx, 1).expect("free");
    let second = semaphore.acquire_blocking(&ctx, 1).expect("free");
    let mut third = pin!(semaphore.acquire(&ctx, 1));
    assert!(poll_once(third.as_mut()).is_pending());
    drop(second);
    assert!(poll_once(third.as_mut()).is_ready());
}

/// TestWeightedDoesntBlockIfTooBig.
#[test]
fn who_asks_for_more_than_there_are_waits_for_the_contexts_end_and_stands_in_nobodys_way() {
    let (ctx, guard) = Context::background().with_cancel();
    let semaphore = Semaphore::new(2);
    let mut too_much = pin!(semaphore.acquire(&ctx, 3));
    assert!(poll_once(too_much.as_mut()).is_pending());
    for _ in 0..1_000 {
        drop(semaphore.acquire_blocking(&Context::background(), 2).expect("free"));
    }
    assert!(poll_once(too_much.as_mut()).is_pending());
    guard.cancel();
    assert!(poll_once(too_much.as_mut()).is_ready());
    assert_eq!(semaphore.free(), 2);
}

/// TestLargeAcquireDoesntStarve.
#[test]
fn a_large_request_is_not_starved_by_small_ones() {
    const SIZE: usize = 8;
    let ctx = Context::background();
    let semaphore = Semaphore::new(SIZE);
    let mut small: Vec<_> = (0..SIZE).map(|_| semaphore.try_acquire(1).expect("free")).collect();
    let mut large = pin!(semaphore.acquire(&ctx, SIZE));
    assert!(poll_once(large.as_mut()).is_pending());
    drop(small.pop());
    assert!(semaphore.try_acquire(1).is_none(), "somebody was first");
    let mut late = pin!(semaphore.acquire(&ctx, 1));
    assert!(poll_once(late.as_mut()).is_pending(), "somebody was first");
    drop(small);
    let std::task::Poll::Ready(Ok(all)) = poll_once(large.as_mut()) else { panic!("all are free") };
    assert!(poll_once(late.as_mut()).is_pending());
    drop(all);
    assert!(poll_once(late.as_mut()).is_ready());
}

/// TestAllocCancelDoesntStarve: golang/go#37852.
#[test]
fn who_gives_up_at_the_head_of_the_queue_lets_those_behind_him_in() {
    let semaphore = Semaphore::new(10);
    let _held = semaphore.try_acquire(1).expect("free");
    let (ctx, guard) = Context::background().with_cancel();
    let mut all = Box::pin(semaphore.acquire(&ctx, 10));
    assert!(poll_once(all.as_mut()).is_pending());
    let live = Context::background();
    let mut one = pin!(semaphore.acquire(&live, 1));
    assert!(poll_once(one.as_mut()).is_pending());
    guard.cancel();
    assert!(poll_once(all.as_mut()).is_ready(), "its context has ended");
    assert!(poll_once(one.as_mut()).is_ready());
}

/// The same, by a future that is dropped.
#[test]
fn who_is_dropped_at_the_head_of_the_queue_lets_those_behind_him_in() {
    let ctx = Context::background();
    let semaphore = Semaphore::new(10);
    let _held = semaphore.try_acquire(1).expect("free");
    let mut all = Box::pin(semaphore.acquire(&ctx, 10));
    assert!(poll_once(all.as_mut()).is_pending());
    let mut one = pin!(semaphore.acquire(&ctx, 1));
    assert!(poll_once(one.as_mut()).is_pending());
    drop(all);
    assert!(poll_once(one.as_mut()).is_ready());
}

/// TestWeightedAcquireCanceled: golang/go#63615.
#[test]
fn a_context_that_has_ended_beats_permits_that_are_free() {
    let (ctx, guard) = Context::background().with_cancel();
    let semaphore = Semaphore::new(2);
    guard.cancel_with("enough");
    let err = semaphore.acquire_blocking(&ctx, 1).expect_err("ended");
    assert_eq!(err.to_string(), "context canceled: enough");
    assert_eq!(semaphore.free(), 2);

    // Also where both come while it waits.
    let (ctx, guard) = Context::background().with_cancel();
    let held = semaphore.try_acquire(2).expect("free");
    let mut waiting = pin!(semaphore.acquire(&ctx, 2));
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(held);
    guard.cancel();
    let std::task::Poll::Ready(Err(_)) = poll_once(waiting.as_mut()) else {
        panic!("it has ended")
    };
    assert_eq!(semaphore.free(), 2, "given back");
}

#[test]
fn who_was_called_and_does_not_come_gives_back() {
    let ctx = Context::background();
    let semaphore = Semaphore::new(1);
    let held = semaphore.try_acquire(1).expect("free");
    let mut waiting = Box::pin(semaphore.acquire(&ctx, 1));
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(held);
    assert_eq!(semaphore.free(), 0, "it is his");
    drop(waiting);
    assert_eq!(semaphore.free(), 1);
}

#[test]
fn a_blocking_acquire_is_woken_by_a_deadline() {
    let semaphore = Semaphore::new(0);
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    assert!(semaphore.acquire_blocking(&ctx, 1).expect_err("none").is_deadline_exceeded());
}

#[test]
fn a_waker_that_panics_keeps_nobody_behind_it_from_being_called() {
    let ctx = Context::background();
    let semaphore = Semaphore::new(2);
    let held = semaphore.try_acquire(2).expect("free");
    let mut first = pin!(semaphore.acquire(&ctx, 1));
    assert!(poll_with(first.as_mut(), &waker_of(|| panic!("in a waker"))).is_pending());
    let mut second = pin!(semaphore.acquire(&ctx, 1));
    assert!(poll_once(second.as_mut()).is_pending());
    let give_back = std::panic::AssertUnwindSafe(|| drop(held));
    assert!(std::panic::catch_unwind(give_back).is_err(), "it goes on in who gave back");
    assert!(poll_once(second.as_mut()).is_ready());
    assert!(poll_once(first.as_mut()).is_ready());
}
