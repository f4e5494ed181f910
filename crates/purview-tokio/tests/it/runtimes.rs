//! Runtimes that go while their tasks wait, and threads of theirs that are blocked: faults F17 and F18 of FAULTS.md.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use purview::time::ManualClock;
use purview::{Context, Semaphore};
use purview_tokio::{BoxError, TaskGroup, Tokio};
use tokio::runtime::{Builder, Runtime};

use crate::{LONG, a_semaphore_for_good, watched};

const HOUR: Duration = Duration::from_secs(3600);

fn runtimes() -> [Runtime; 2] {
    let one = Builder::new_current_thread().build();
    let two = Builder::new_multi_thread().worker_threads(2).build();
    [one, two].map(|runtime| runtime.expect("a runtime"))
}

fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it does not come to that");
        std::thread::yield_now();
    }
}

/// Starts tasks that wait for `ctx` in every way, each with a token.
fn fill(runtime: &Runtime, ctx: &Context, semaphore: &'static Semaphore, token: &Arc<()>) {
    for n in 0..20 {
        let (ctx, token) = (ctx.clone(), Arc::clone(token));
        runtime.spawn(async move {
            let _token = token;
            match n % 4 {
                0 => drop(ctx.done().await),
                1 => drop(ctx.sleep(HOUR).await),
                2 => drop(ctx.run(pending::<()>()).await),
                _ => drop(semaphore.acquire(&ctx, 1).await),
            }
        });
    }
    // Until all wait, where nobody else polls them.
    let waits = || ctx.statistics().waiters() == 20;
    runtime.block_on(async {
        while !waits() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn f17_a_runtime_that_is_shut_down_while_its_tasks_wait_leaves_nothing_and_spares_the_others() {
    watched(|| {
        for way in ["drop", "background", "timeout"] {
            for (gone, stays) in runtimes().into_iter().zip(runtimes()) {
                let semaphore = a_semaphore_for_good();
                let held = semaphore.try_acquire(1);
                let clock = ManualClock::new();
                let (ctx, guard) = clock.root().with_timeout(2 * HOUR);
                let (token, other) = (Arc::new(()), Arc::new(()));
                fill(&gone, &ctx, semaphore, &token);
                let (told, hear) = mpsc::channel();
                let (theirs, held_by_them) = (ctx.clone(), Arc::clone(&other));
                let lives = stays.spawn(async move {
                    let _held = held_by_them;
                    told.send(theirs.done().await.to_string()).expect("it is heard");
                });
                match way {
                    "drop" => drop(gone),
                    "background" => gone.shutdown_background(),
                    _ => gone.shutdown_timeout(LONG),
                }
                until(|| Arc::strong_count(&token) == 1);
                stays.block_on(tokio::task::yield_now());
                until(|| ctx.statistics().waiters() == 1);
                guard.cancel_with("afterwards");
                stays.block_on(lives).expect("it lives");
                assert_eq!(hear.recv().expect("it was told"), "context canceled: afterwards");
                drop(held);
                assert!(semaphore.try_acquire(1).is_some(), "{way}: nobody is in the queue");
                assert_eq!(Arc::strong_count(&other), 1);
            }
        }
    });
}

#[test]
fn f17_a_runtime_may_be_dropped_by_the_end_that_its_own_tasks_wait_for() {
    watched(|| {
        for by_deadline in [false, true] {
            for runtime in runtimes() {
                let semaphore = a_semaphore_for_good();
                let _held = semaphore.try_acquire(1);
                let clock = ManualClock::new();
                let (ctx, guard) = clock.root().with_timeout(HOUR / 2);
                let (token, place) = (Arc::new(()), Arc::new(Mutex::new(None)));
                let runtimes = Arc::clone(&place);
                // It is called first: the tasks are dropped while those that wait for the same end are being woken.
                let _first = ctx.on_done(move |_| drop(runtimes.lock().expect("no panic").take()));
                fill(&runtime, &ctx, semaphore, &token);
                let group: TaskGroup<BoxError> =
                    TaskGroup::builder(&ctx).build_on(Tokio::new(runtime.handle().clone()));
                let held = Arc::clone(&token);
                group.spawn(async move |_ctx| {
                    let _held = held;
                    pending().await
                });
                let called = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&called);
                let _last = ctx.on_done(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
                *place.lock().expect("no panic") = Some(runtime);
                if by_deadline {
                    clock.advance(HOUR);
                } else {
                    guard.cancel();
                }
                assert_eq!(called.load(Ordering::SeqCst), 1, "and the rest are served");
                until(|| Arc::strong_count(&token) == 1);
                assert_eq!(ctx.statistics().waiters(), 0);
                assert!(group.join_blocking().is_err(), "its task was lost, and it says so");
            }
        }
    });
}

#[test]
fn f18_a_task_that_blocks_its_thread_is_woken_by_a_cancel_and_by_a_deadline_all_the_same() {
    watched(|| {
        for runtime in runtimes() {
            // Whoever polls the only thread's tasks is blocked: nothing here is told by the runtime's own timer.
            let (ctx, guard) = Context::background().with_cancel();
            let waits = runtime.handle().clone();
            let (say, hear) = mpsc::channel();
            let blocked = std::thread::spawn(move || {
                waits.block_on(async {
                    let (short, _guard) = ctx.with_timeout(Duration::from_millis(1));
                    assert!(short.done().wait().is_deadline_exceeded());
                    assert!(ctx.sleep_blocking(Duration::from_millis(1)).is_ok());
                    assert!(Semaphore::new(1).acquire_blocking(&ctx, 1).is_ok());
                    // And what is async goes on beside what blocks.
                    ctx.sleep(Duration::from_millis(1)).await.expect("it is live");
                    say.send(()).expect("it is waited for");
                    ctx.done().wait().to_string()
                })
            });
            let canceled = guard.context().clone();
            hear.recv().expect("it comes to its last wait");
            until(|| canceled.statistics().waiters() == 1);
            guard.cancel_with("from outside");
            let told = blocked.join().expect("no panic");
            assert_eq!(told, "context canceled: from outside");
        }
    });
}
