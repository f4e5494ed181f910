//! F5, F7, F8: wakers and callbacks that come back to what calls them.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use purview::{Context, Done};

use crate::support::{poll, waker_of};

#[test]
fn f5_who_registers_anew_in_its_own_wake_up_finds_the_end_and_is_woken_once() {
    // More than any batch that a list of wakers could be cut into.
    for waiters in [1, 2, 31, 32, 33, 65, 300] {
        let (ctx, guard) = Context::background().with_cancel();
        let ready = Arc::new(AtomicUsize::new(0));
        let futures: Vec<Arc<Mutex<Pin<Box<Done<'static>>>>>> =
            (0..waiters).map(|_| Arc::new(Mutex::new(Box::pin(ctx.clone().into_done())))).collect();
        for future in &futures {
            let (again, ctx) = (Arc::downgrade(future), ctx.clone());
            let ready = Arc::clone(&ready);
            let waker = waker_of(move || {
                let again = again.upgrade().expect("it is there");
                let noop = std::task::Waker::noop();
                let all = [
                    poll(again.lock().expect("no panic").as_mut(), noop).is_ready(),
                    poll(std::pin::pin!(ctx.done()), noop).is_ready(),
                ];
                assert_eq!(all, [true; 2], "the same future, and a new one");
                ready.fetch_add(1, Ordering::SeqCst);
            });
            assert!(poll(future.lock().expect("no panic").as_mut(), &waker).is_pending());
        }
        guard.cancel();
        assert_eq!((ready.load(Ordering::SeqCst), ctx.statistics().waiters()), (waiters, 0));
    }
}

#[test]
fn f7_a_callback_may_unregister_all_others_and_itself_and_none_of_those_is_called() {
    for first in [0, 5, 9] {
        let (ctx, guard) = Context::background().with_cancel();
        let (below, _guard) = ctx.with_cancel();
        let all = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::new(Mutex::new(Vec::new()));
        for n in 0..10 {
            let (others, called) = (Arc::clone(&all), Arc::clone(&called));
            let at = if n % 2 == 0 { &ctx } else { &below };
            let registration = at.on_done(move |_| {
                called.lock().expect("no panic").push(n);
                if n == first {
                    // Its own is among them.
                    let others = std::mem::take(&mut *others.lock().expect("no panic"));
                    drop::<Vec<purview::OnDone>>(others);
                }
            });
            all.lock().expect("no panic").push(registration);
        }
        guard.cancel();
        // The upper one's come first, each in the order of their registration.
        let order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
        let until = order.iter().position(|n| *n == first).expect("it is one");
        assert_eq!(*called.lock().expect("no panic"), order[..=until]);
        assert_eq!((ctx.statistics().callbacks(), below.statistics().callbacks()), (0, 0));
    }
}

#[cfg(unix)]
#[test]
fn f8_two_callbacks_that_wait_for_each_other_do_so_for_ever_and_hold_up_nobody_else() {
    use crate::support::{SECOND, until};
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    crate::child::alone(|| {
        // As the documentation of a registration says; so it is done where it can be left behind.
        let meet = Arc::new(Barrier::new(2));
        let waiting = Arc::new(AtomicUsize::new(0));
        let pairs: [_; 2] = std::array::from_fn(|_| Context::background().with_cancel());
        let slots: [Arc<Mutex<Option<purview::OnDone>>>; 2] = Default::default();
        for n in 0..2 {
            let (other, meet) = (Arc::clone(&slots[1 - n]), Arc::clone(&meet));
            let waiting = Arc::clone(&waiting);
            let registration = pairs[n].0.on_done(move |_| {
                let other = other.lock().expect("no panic").take();
                meet.wait();
                waiting.fetch_add(1, Ordering::SeqCst);
                drop(other);
                waiting.fetch_sub(1, Ordering::SeqCst);
            });
            *slots[n].lock().expect("no panic") = Some(registration);
        }
        let ended: Vec<_> = pairs.iter().map(|(ctx, _guard)| ctx.clone()).collect();
        for (_ctx, guard) in pairs {
            thread::spawn(move || guard.cancel());
        }
        until(|| waiting.load(Ordering::SeqCst) == 2);
        // Everybody else goes on: also who waits for a callback that runs, and on the very contexts.
        for ctx in &ended {
            assert!(ctx.is_done() && ctx.with_cancel().0.is_done());
            assert!(ctx.done().wait_timeout(SECOND).is_some());
            assert!(!ctx.on_done(|_| {}).stop(), "it is called at once");
        }
        for _ in 0..100 {
            let (ctx, guard) = Context::background().with_cancel();
            let begun = Arc::new(Barrier::new(2));
            let begins = Arc::clone(&begun);
            let registration = ctx.on_done(move |_| {
                begins.wait();
            });
            let canceler = thread::spawn(move || guard.cancel());
            begun.wait();
            drop(registration);
            canceler.join().expect("no panic");
        }
        let (timed, _guard) = Context::background().with_timeout(Duration::from_millis(1));
        assert!(timed.done().wait().is_deadline_exceeded());
        assert_eq!(waiting.load(Ordering::SeqCst), 2, "and they wait still");
    });
}
