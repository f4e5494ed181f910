//! F28, F31: a system that has no more threads, or no more memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{Context, Error, Key, TaskGroup};

use crate::child::{DONE, alone};
use crate::process::forked;
use crate::support::{HOUR, SECOND, Wakes, poll, sys, until};

const MILLI: Duration = Duration::from_millis(1);

/// The process gets no more address space than it has, and little for its heap: too little for any thread's stack.
pub(crate) fn no_more_memory() {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    set_limit(pages * 4096 + (1 << 20));
}

/// And now it gets what it wants.
pub(crate) fn as_before() {
    set_limit(u64::MAX);
}

fn set_limit(bytes: u64) {
    const ADDRESS_SPACE: i32 = 9;
    assert_eq!(sys::setrlimit(ADDRESS_SPACE, &sys::Limit(bytes, u64::MAX)), 0);
}

fn assert_no_threads() {
    let started = thread::Builder::new().spawn(|| {});
    assert!(started.is_err(), "the fault is not there");
}

/// There is a thread for time afterwards: it has woken somebody.
fn start_timer() {
    let root = Context::background();
    let (wakes, waker) = Wakes::new();
    while wakes.count() == 0 {
        let mut sleep = pin!(root.sleep(20 * MILLI));
        if poll(sleep.as_mut(), &waker).is_pending() {
            until(|| wakes.count() > 0);
        }
    }
}

#[test]
fn f28_where_no_thread_can_be_started_for_time_deadlines_wait_until_one_can() {
    alone(|| {
        no_more_memory();
        assert_no_threads();
        let called = Arc::new(AtomicUsize::new(0));
        let armed: Vec<_> = (0..10)
            .map(|n| {
                let after = if n == 0 { HOUR } else { MILLI };
                let (ctx, guard) = Context::background().with_timeout(after);
                let called = Arc::clone(&called);
                ctx.on_done(move |_| _ = called.fetch_add(1, Ordering::SeqCst)).detach();
                (ctx, guard)
            })
            .collect();
        // What nobody waits for is told by the clock, and a cancel needs no thread.
        let (unwatched, _guard) = Context::background().with_timeout(MILLI);
        until(|| unwatched.is_done());
        let before = called.load(Ordering::SeqCst);
        armed[0].1.cancel();
        assert!(armed[0].0.done().wait().is_canceled());
        assert_eq!(called.load(Ordering::SeqCst), before + 1);

        as_before();
        // The next that is waited for tries again, for all.
        start_timer();
        for (ctx, _) in &armed[1..] {
            assert!(ctx.done().wait().is_deadline_exceeded());
        }
        until(|| called.load(Ordering::SeqCst) == armed.len());
    });
}

#[test]
fn f28_where_no_thread_can_be_started_for_callbacks_they_wait_until_one_can() {
    alone(|| {
        start_timer();
        no_more_memory();
        assert_no_threads();
        let (called, by_this) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let this = thread::current().id();
        for _ in 0..10 {
            let (ctx, guard) = Context::background().with_timeout(20 * MILLI);
            let (called, by_this) = (Arc::clone(&called), Arc::clone(&by_this));
            // Where its time was up before, it is called here.
            let call = move |_err: &Error| {
                let count = if thread::current().id() == this { by_this } else { called };
                count.fetch_add(1, Ordering::SeqCst);
            };
            ctx.on_done(call).detach();
            assert!(ctx.done().wait().is_deadline_exceeded(), "who waits is woken");
            drop(guard);
        }
        assert_eq!(called.load(Ordering::SeqCst), 0);
        as_before();
        // Nobody has to do anything for it.
        until(|| called.load(Ordering::SeqCst) + by_this.load(Ordering::SeqCst) == 10);
    });
}

#[test]
fn f28_a_task_whose_thread_cannot_be_started_is_a_failure_and_nothing_hangs() {
    alone(|| {
        let group: TaskGroup<io::Error> = TaskGroup::new(&Context::background());
        no_more_memory();
        assert_no_threads();
        let token = Arc::new(());
        let held = Arc::clone(&token);
        group.spawn_thread(move |_ctx| {
            drop(held);
            Ok(())
        });
        assert_eq!(Arc::strong_count(&token), 1, "it is dropped");
        let err = group.join_blocking().expect_err("it was not started");
        let why = err.failures()[0].cause().downcast_ref::<io::Error>().expect("the system's");
        assert_eq!((err.failed(), why.kind()), (1, io::ErrorKind::WouldBlock));
        let scope = purview::thread::scope(&Context::background(), |s| {
            s.spawn(|_ctx| Ok::<(), Error>(()));
        });
        assert_eq!(scope.expect_err("it was not started").failed(), 1);
    });
}

/// The system's, until it fails on purpose.
struct Failing;

/// How many are given out before one is not; below zero, all are.
static LEFT: AtomicI64 = AtomicI64::new(-1);

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: it is the system's; and who is given a null pointer has been told that there is no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if LEFT.load(Ordering::Relaxed) >= 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

#[test]
fn f31_a_process_that_gets_no_memory_is_aborted_there_and_nothing_else_befalls_it() {
    static KEY: Key<String> = Key::new("key");
    fn work() {
        let clock = ManualClock::new();
        let (ctx, guard) = clock.root().with_timeout(SECOND);
        let (below, _guard) = ctx.derive().name("below").value(&KEY, String::new()).build();
        let (merged, _guard) = Context::any_of([&below, &ctx]);
        let registration = merged.on_done(|_| {});
        let (grace, _guard) = merged.with_grace(HOUR);
        assert!(poll(pin!(grace.done()), Waker::noop()).is_pending());
        assert!(poll(pin!(grace.sleep(SECOND)), Waker::noop()).is_pending());
        guard.cancel_with(format!("a cause {below:?}"));
        drop(registration);
        clock.advance(HOUR);
        assert!(grace.err().expect("ended").to_string().contains("a cause"));
    }
    alone(|| {
        let mut survived = 0;
        let mut aborted = 0;
        for n in 0..1_000 {
            let status = forked(|| {
                LEFT.store(n, Ordering::Relaxed);
                work();
                LEFT.store(-1, Ordering::Relaxed);
            });
            match status & 0x7f {
                0 => {
                    assert_eq!(status, DONE << 8, "the {n}th");
                    survived += 1;
                    break;
                }
                signal => assert_eq!(signal, sys::SIGABRT, "the {n}th"),
            }
            aborted += 1;
        }
        assert!(aborted > 10 && survived == 1, "{aborted}, {survived}");
    });
}
