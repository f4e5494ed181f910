//! F2–F4: wakers that panic, when they are woken, cloned or dropped.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::thread;

use purview::time::ManualClock;
use purview::{Context, Semaphore, Spawn, TaskGroup};

use crate::panics::{explode, explodes};
use crate::support::{HOUR, SECOND, Wakes, poll};

/// What a waker does that is not to be done. It is leaked: so that there is nothing of it to go wrong but what is meant.
#[derive(Default)]
struct Faulty {
    in_clone: AtomicBool,
    in_wake: AtomicBool,
    in_drop: AtomicBool,
    /// Wakers there are.
    there: AtomicUsize,
    wakes: AtomicUsize,
}

impl Faulty {
    fn new() -> (&'static Faulty, Waker) {
        let faulty: &Faulty = Box::leak(Box::default());
        (faulty, faulty.waker())
    }

    #[expect(unsafe_code, reason = "a waker with a vtable of its own")]
    fn waker(&'static self) -> Waker {
        fn of(data: *const ()) -> &'static Faulty {
            // SAFETY: the data of these wakers is that, and it is leaked.
            unsafe { &*data.cast() }
        }
        fn drops(data: *const ()) {
            of(data).there.fetch_sub(1, Ordering::SeqCst);
            // Of two that a wait has, the second is dropped while its thread unwinds already: nobody may panic there.
            if of(data).in_drop.load(Ordering::SeqCst) && !thread::panicking() {
                explode();
            }
        }
        fn wakes(data: *const ()) {
            of(data).wakes.fetch_add(1, Ordering::SeqCst);
            if of(data).in_wake.load(Ordering::SeqCst) {
                explode();
            }
        }
        static VTABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                if of(data).in_clone.load(Ordering::SeqCst) {
                    explode();
                }
                of(data).there.fetch_add(1, Ordering::SeqCst);
                RawWaker::new(data, &VTABLE)
            },
            |data| {
                // The wake first: if it panics, the waker goes all the same.
                struct Goes(*const ());
                impl Drop for Goes {
                    fn drop(&mut self) {
                        drops(self.0);
                    }
                }
                let _goes = Goes(data);
                wakes(data);
            },
            wakes,
            drops,
        );
        self.there.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the functions do nothing but count what is leaked, and panic.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(self).cast(), &VTABLE)) }
    }
}

/// A runtime that keeps what it gets, and runs none of it.
struct Stuck(std::sync::Mutex<Vec<Box<dyn Send>>>);

impl Spawn for Stuck {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.0.lock().expect("no panic").push(Box::new(task));
    }
}

type Wait<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Everything that waits for the end of `ctx`, with a name: each of them would wait for ever by itself.
fn waits<'a>(ctx: &'a Context, semaphore: &'a Semaphore) -> Vec<(&'static str, Wait<'a>)> {
    let group = || {
        let stuck = Stuck(std::sync::Mutex::default());
        let group: TaskGroup<io::Error, Stuck> = TaskGroup::builder(ctx).limit(1).build_on(stuck);
        group.spawn(async |_ctx| pending().await);
        group
    };
    let (joined, full) = (group(), group());
    vec![
        ("done", Box::pin(async { drop(ctx.done().await) })),
        ("into_done", Box::pin(async { drop(ctx.clone().into_done().await) })),
        ("sleep", Box::pin(async { drop(ctx.sleep(2 * HOUR).await) })),
        ("run", Box::pin(async { drop(ctx.run(pending::<()>()).await) })),
        ("semaphore", Box::pin(async { drop(semaphore.acquire(ctx, 1).await) })),
        ("more than there are", Box::pin(async { drop(semaphore.acquire(ctx, 9).await) })),
        ("join", Box::pin(async { drop(joined.join().await) })),
        ("room", Box::pin(async move { drop(full.spawn_ready(async |_ctx| Ok(())).await) })),
    ]
}

/// Runs `code` on each sort of wait by itself, which a full semaphore and a clock belong to; then nothing is left of it.
fn on_each_wait(code: impl Fn(&str, Wait<'_>, &dyn Fn() -> bool)) {
    let semaphore = Semaphore::new(1);
    let names: Vec<_> = waits(&Context::background(), &semaphore).iter().map(|it| it.0).collect();
    for (n, name) in names.into_iter().enumerate() {
        let held = semaphore.try_acquire(1).expect("it is free");
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(HOUR);
        let (before, after) = (Wakes::new(), Wakes::new());
        let (mut first, last) = (Box::pin(ctx.done()), RefCell::new(Box::pin(ctx.done())));
        assert!(poll(first.as_mut(), &before.1).is_pending());
        let registers = || assert!(poll(last.borrow_mut().as_mut(), &after.1).is_pending());
        let wait = waits(&ctx, &semaphore).swap_remove(n).1;
        let end = || {
            registers();
            explodes(|| clock.advance(HOUR))
        };
        code(name, wait, &end);
        if !ctx.is_done() {
            registers();
        }
        let others = if ctx.is_done() { 0 } else { 2 };
        assert_eq!(ctx.statistics().waiters(), others, "{name}: who is gone is not listed");
        guard.cancel();
        assert_eq!((before.0.count(), after.0.count()), (1, 1), "{name}: its neighbours");
        drop(held);
        assert!(semaphore.try_acquire(1).is_some(), "{name}: nobody is in the queue");
    }
}

#[test]
fn f2_a_waker_that_panics_when_it_wakes_keeps_nobody_else_asleep() {
    on_each_wait(|name, mut wait, end| {
        let (faulty, waker) = Faulty::new();
        assert!(poll(wait.as_mut(), &waker).is_pending());
        faulty.in_wake.store(true, Ordering::SeqCst);
        // A join waits for its tasks, which are stuck, and so it is not woken.
        assert_eq!(end(), name != "join", "{name}: and it is told who ended it");
        assert_eq!(faulty.wakes.load(Ordering::SeqCst), usize::from(name != "join"), "{name}");
        drop((wait, waker));
        assert_eq!(faulty.there.load(Ordering::SeqCst), 0, "{name}");
    });
}

#[test]
fn f3_a_waker_that_panics_when_it_is_cloned_is_not_listed_and_nothing_is_broken() {
    on_each_wait(|name, mut wait, _end| {
        let (faulty, waker) = Faulty::new();
        faulty.in_clone.store(true, Ordering::SeqCst);
        assert!(
            explodes(|| assert!(poll(wait.as_mut(), &waker).is_pending())),
            "{name}: it is cloned"
        );
        drop((wait, waker));
        assert_eq!(faulty.there.load(Ordering::SeqCst), 0, "{name}");
    });
}

#[test]
fn f3_a_wait_whose_waker_could_not_be_cloned_goes_on_with_the_next() {
    for first_is_good in [false, true] {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_cancel();
        let mut done = Box::pin(ctx.done());
        let mut sleep = Box::pin(ctx.sleep(SECOND));
        let (wakes, good) = Wakes::new();
        if first_is_good {
            assert!(poll(done.as_mut(), &good).is_pending());
            assert!(poll(sleep.as_mut(), &good).is_pending());
        }
        let (faulty, bad) = Faulty::new();
        faulty.in_clone.store(true, Ordering::SeqCst);
        assert!(explodes(|| drop(poll(done.as_mut(), &bad))));
        assert!(explodes(|| drop(poll(sleep.as_mut(), &bad))));
        assert!(poll(done.as_mut(), &good).is_pending());
        assert!(poll(sleep.as_mut(), &good).is_pending());
        assert_eq!(ctx.statistics().waiters(), 2);
        clock.advance(SECOND);
        assert_eq!(wakes.count(), 1, "the sleep's");
        guard.cancel();
        assert!(poll(done.as_mut(), &good).is_ready());
        assert!(wakes.count() >= 2, "the end's");
    }
}

#[test]
fn f4_a_waker_that_panics_when_it_is_dropped_is_gone_all_the_same() {
    on_each_wait(|name, mut wait, _end| {
        let (faulty, waker) = Faulty::new();
        assert!(poll(wait.as_mut(), &waker).is_pending());
        assert_ne!(faulty.there.load(Ordering::SeqCst), 1, "{name}: there is one listed");
        faulty.in_drop.store(true, Ordering::SeqCst);
        assert!(explodes(|| drop(wait)), "{name}: who drops the future hears of it");
        assert_eq!(faulty.there.load(Ordering::SeqCst), 1, "{name}: this test's");
        assert!(explodes(|| drop(waker)));
    });
}

#[test]
fn f4_a_waker_that_panics_when_another_takes_its_place_leaves_that_one_in_it() {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().with_cancel();
    let (mut done, mut sleep) = (Box::pin(ctx.done()), Box::pin(ctx.sleep(SECOND)));
    let (faulty, bad) = Faulty::new();
    assert!(poll(done.as_mut(), &bad).is_pending());
    assert!(poll(sleep.as_mut(), &bad).is_pending());
    faulty.in_drop.store(true, Ordering::SeqCst);
    let (wakes, good) = Wakes::new();
    assert!(explodes(|| drop(poll(done.as_mut(), &good))));
    // A sleep has two: the end's goes first, the clock's with the next poll.
    assert!(explodes(|| drop(poll(sleep.as_mut(), &good))));
    assert!(explodes(|| drop(poll(sleep.as_mut(), &good))));
    assert_eq!(faulty.there.load(Ordering::SeqCst), 1, "this test's");
    clock.advance(SECOND);
    assert_eq!(wakes.count(), 1);
    guard.cancel();
    assert_eq!(wakes.count(), 3);
    assert!(explodes(|| drop(bad)));
}
