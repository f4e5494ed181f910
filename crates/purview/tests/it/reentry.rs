//! C31: user code runs under no lock. A waker's clone, wake and drop, a callback, a value's drop and a cause's drop each
//! call everything there is, on the very context that calls them, including dropping its last handle. A lock that was held
//! would hang the test.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use purview::time::ManualClock;
use purview::{CancelGuard, Context, Key};

use crate::support::{poll_once, poll_with, waker_of};

static KEY: Key<u64> = Key::new("key");

/// Calls every method of a context, and of what it gives.
fn everything(ctx: &Context, guard: &CancelGuard) {
    let _ =
        (ctx.is_done(), ctx.err(), ctx.check(), ctx.deadline(), ctx.remaining(), ctx.value(&KEY));
    let _ =
        (ctx.can_be_done(), ctx.id(), ctx.name(), ctx.statistics(), format!("{ctx:?} {guard:?}"));
    let (a, _guard) = ctx.with_cancel();
    let (b, _guard) = ctx.with_timeout(Duration::from_secs(3600));
    let (c, _guard) = ctx.with_deadline(std::time::Instant::now());
    let (d, _guard) = ctx.with_grace(Duration::from_secs(1));
    let (e, _guard) = Context::any_of([ctx, &a, &b]);
    let (f, f_guard) =
        ctx.derive().name("f").value(&KEY, 1).reserve(Duration::from_secs(1)).build();
    let g = ctx.with_value(&KEY, 2).without_cancel();
    for ctx in [ctx, &a, &b, &c, &d, &e, &f, &g] {
        let _ = (ctx.is_done(), ctx.clone() == a);
        assert!(ctx.on_done(|_| {}).stop() || ctx.is_done());
        ctx.on_done(|_| {}).detach();
        let _ = poll_once(pin!(ctx.done()));
        let _ = poll_once(pin!(ctx.clone().into_done()));
        let _ = poll_once(pin!(ctx.sleep(Duration::from_secs(3600))));
        let _ = poll_once(pin!(ctx.run(std::future::pending::<()>())));
        let _ = ctx.done().wait_timeout(Duration::ZERO);
        let _ = ctx.sleep_blocking(Duration::ZERO);
    }
    f_guard.handle().cancel_with("re-entered");
    guard.handle().cancel_with("re-entered");
    guard.cancel();
}

/// The last handle of a context, to be used up by user code that the context calls.
#[derive(Clone)]
struct Last(Arc<Mutex<Option<(Context, CancelGuard)>>>);

impl Last {
    fn new(ctx: &Context, guard: CancelGuard) -> Last {
        Last(Arc::new(Mutex::new(Some((ctx.clone(), guard)))))
    }

    fn use_up(&self) {
        let last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some((ctx, guard)) = last {
            everything(&ctx, &guard);
            drop((ctx, guard));
        }
    }
}

#[test]
fn c31_a_wakers_wake_may_call_everything_and_drop_the_last_handle() {
    let (ctx, guard) = Context::background().with_cancel();
    let (child, child_guard) = ctx.with_cancel();
    let (lasts, handle) = ([Last::new(&ctx, guard), Last::new(&child, child_guard)], ctx.clone());
    let waker = waker_of(move || lasts.iter().for_each(Last::use_up));
    let mut done = Box::pin(child.into_done());
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    let (again, again_guard) = handle.with_cancel();
    drop((handle, ctx));
    again_guard.cancel();
    drop(again);
    waker.wake();
}

#[test]
fn c31_a_callback_may_call_everything_and_drop_the_last_handle() {
    for by_deadline in [false, true] {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(Duration::from_secs(1));
        let (child, child_guard) = ctx.with_cancel();
        let canceler = guard.handle();
        let lasts = [Last::new(&ctx, guard), Last::new(&child, child_guard)];
        child.on_done(move |_| lasts.iter().for_each(Last::use_up)).detach();
        drop((ctx, child));
        if by_deadline {
            drop(canceler);
            clock.advance(Duration::from_secs(1));
        } else {
            canceler.cancel();
        }
    }
}

#[test]
fn c31_a_callback_that_is_dropped_unrun_may_call_everything() {
    struct OnDrop(Last);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.use_up();
        }
    }
    for way in 0..3 {
        let (ctx, guard) = Context::background().with_cancel();
        let captured = OnDrop(Last::new(&ctx, guard));
        let registration = ctx.on_done(move |_| drop(captured));
        drop(ctx);
        match way {
            0 => assert!(registration.stop()),
            1 => drop(registration),
            _ => {
                let (other, other_guard) = Context::background().with_cancel();
                other.on_done(move |_| drop(registration)).detach();
                other_guard.cancel();
            }
        }
    }
}

struct DropsValue(Last);
impl Drop for DropsValue {
    fn drop(&mut self) {
        self.0.use_up();
    }
}
static DROPS: Key<DropsValue> = Key::new("drops");

#[test]
fn c31_a_values_drop_may_call_everything() {
    for derived in [false, true] {
        let (other, other_guard) = Context::background().with_cancel();
        let value = DropsValue(Last::new(&other, other_guard));
        // The value uses its own parent: the last handle of it is in the value.
        let ctx = if derived {
            other.derive().value(&DROPS, value).build().1.disarm().context().clone()
        } else {
            other.with_value(&DROPS, value)
        };
        let (below, below_guard) = ctx.with_cancel();
        drop((other, ctx));
        drop(below);
        drop(below_guard);
    }
}

#[test]
fn c31_a_values_drop_runs_when_a_sweep_lets_the_last_handle_go() {
    let (root, guard) = Context::background().with_cancel();
    let (ctx, ctx_guard) = root.with_cancel();
    let value = DropsValue(Last::new(&root, guard));
    let canceler = value.0.clone();
    let layer = ctx.with_value(&DROPS, value);
    let (leaf, leaf_guard) = layer.with_cancel();
    let slot = Arc::new(Mutex::new(Some((ctx, ctx_guard, layer, leaf.clone(), leaf_guard))));
    // In the middle of the sweep, all other handles go.
    leaf.on_done(move |_| drop(slot.lock().expect("no panic").take())).detach();
    drop((root, leaf));
    canceler.use_up();
}

#[derive(Debug)]
struct DropsCause(Last);
impl fmt::Debug for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Last")
    }
}
impl fmt::Display for DropsCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.use_up(); // also to be written is user code
        f.write_str("cause")
    }
}
impl std::error::Error for DropsCause {}
impl Drop for DropsCause {
    fn drop(&mut self) {
        self.0.use_up();
    }
}

#[test]
fn c31_a_causes_drop_and_display_may_call_everything() {
    for way in 0..3 {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _child_guard) = ctx.with_cancel();
        let handle = guard.handle();
        let last = Last::new(&ctx, guard);
        let cause = DropsCause(last.clone());
        match way {
            0 => handle.cancel_with(cause),
            1 => {
                handle.cancel(); // and then the cause is dropped unused
                handle.cancel_with(cause);
            }
            _ => {
                handle.cancel_with(cause);
                assert_eq!(child.err().expect("done").to_string(), "context canceled: cause");
                assert!(format!("{child:?}").contains("cause"));
            }
        }
        drop((ctx, handle));
        drop(child);
        last.use_up(); // a cause that holds its own context is a cycle, until somebody breaks it
    }
}

/// A waker whose clone, wake and drop all run code.
struct Loud(Box<dyn Fn() + Send + Sync>);

impl Loud {
    /// The waker's data, counted.
    fn raw(this: Arc<Loud>) -> RawWaker {
        static VTABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                let this = Loud::borrow(data);
                (this.0)();
                Loud::raw(Arc::clone(&this))
            },
            |data| (Loud::take(data).0)(),
            |data| (Loud::borrow(data).0)(),
            |data| (Loud::take(data).0)(),
        );
        RawWaker::new(Arc::into_raw(this).cast(), &VTABLE)
    }

    fn borrow(data: *const ()) -> std::mem::ManuallyDrop<Arc<Loud>> {
        std::mem::ManuallyDrop::new(Loud::take(data))
    }

    #[expect(unsafe_code, reason = "a waker with a vtable of its own")]
    fn take(data: *const ()) -> Arc<Loud> {
        // SAFETY: the pointer is that of an `Arc<Loud>`; who takes it twice does not drop it twice.
        unsafe { Arc::from_raw(data.cast()) }
    }
}

#[expect(unsafe_code, reason = "as above")]
fn loud(code: impl Fn() + Send + Sync + 'static) -> Waker {
    // SAFETY: the vtable keeps the contract: clone counts up, wake and drop count down.
    unsafe { Waker::from_raw(Loud::raw(Arc::new(Loud(Box::new(code))))) }
}

#[test]
fn c31_a_wakers_clone_and_drop_may_call_everything() {
    let calls = Arc::new(AtomicUsize::new(0));
    for way in 0..4 {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(Duration::from_secs(7200));
        let guard = Arc::new(guard);
        let (used, canceler, count) = (ctx.clone(), guard.clone(), calls.clone());
        let waker = loud(move || {
            count.fetch_add(1, Ordering::SeqCst);
            if way != 3 && !used.is_done() {
                let (child, guard) = used.with_cancel();
                everything(&child, &guard);
            } else {
                everything(&used, &canceler);
            }
        });
        let mut done = Box::pin(ctx.done());
        let mut sleep = Box::pin(ctx.sleep(Duration::from_secs(3600)));
        let _ = poll_with(done.as_mut(), &waker);
        let _ = poll_with(sleep.as_mut(), &waker);
        match way {
            0 => drop((done, sleep)),
            1 => guard.cancel(),
            2 => {
                // Another waker takes the place of the loud one, which is dropped.
                let _ = poll_once(done.as_mut());
                let _ = poll_once(sleep.as_mut());
            }
            _ => clock.advance(Duration::from_secs(7200)),
        }
    }
    assert!(calls.load(Ordering::SeqCst) >= 12);
}

#[test]
fn c31_a_callback_may_cancel_another_grace_of_the_same_parent() {
    // On a thread of its own: a cancel that waits for its own caller would never return.
    let (report, reported) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let clock = ManualClock::new();
        let (parent, parent_guard) = clock.root().with_cancel();
        let (first, first_guard) = parent.with_grace(Duration::ZERO);
        let (second, second_guard) = parent.with_grace(Duration::ZERO);
        let (below, _below_guard) = second.with_cancel();
        let (handle, seen) = (second_guard.handle(), below.clone());
        let done_at_return = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done_at_return);
        first
            .on_done(move |_| {
                handle.cancel();
                count.fetch_add(usize::from(seen.is_done()), Ordering::SeqCst);
            })
            .detach();
        let other = first_guard.handle();
        second.on_done(move |_| other.cancel()).detach();
        parent_guard.cancel();
        let done = [&first, &second, &below].map(Context::is_done);
        let _ = report.send((done, done_at_return.load(Ordering::SeqCst)));
    });
    let outcome = reported.recv_timeout(Duration::from_secs(60));
    assert_eq!(outcome, Ok(([true; 3], 1)), "the cancel hangs, or returned too early");
}
