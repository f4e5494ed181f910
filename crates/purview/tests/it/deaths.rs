//! A thread dies by a panic while it waits, at each of the places where it can wait: nothing hangs, nothing is left, and what is
//! told is true. (Futures, and the other ways in which those die: `purview-tokio`.)
//!
//! Nobody can kill a thread from outside, so its children here end when they are told, except those that a shutdown waits for.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use purview::thread::{self, block_on};
use purview::time::ManualClock;
use purview::{
    CancelGuard, Context, Error, GroupError, Panicked, Permit, Semaphore, Spawn, TaskGroup,
};

/// Nothing here takes so long; it is for a machine that is busy.
const LONG: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);

/// Where a thread waits.
const STOPS: [&str; 10] = [
    "end",
    "end, with a callback",
    "sleep",
    "run",
    "semaphore",
    "join of threads",
    "join of futures",
    "room",
    "shutdown",
    "scope",
];

/// A runtime: each task has a thread.
#[derive(Default)]
struct Threads;

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        std::thread::spawn(move || block_on(task));
    }
}

/// A thread's surroundings.
struct Stand {
    /// Where it stays.
    at: &'static str,
    /// It does.
    there: AtomicBool,
    /// All that there is holds one.
    token: Arc<()>,
    semaphore: &'static Semaphore,
    /// When this ends, it panics where it is.
    bomb: Context,
    /// When this ends, so does who does not listen to its own.
    release: Context,
}

impl Stand {
    /// Waits for `future` on this thread; says so, if that is where it stays.
    fn wait<F: Future>(&self, stop: &str, future: F) -> F::Output {
        let _token = Arc::clone(&self.token);
        let (mut future, mut bomb) = (pin!(future), pin!(self.bomb.done()));
        block_on(poll_fn(|task| {
            assert!(bomb.as_mut().poll(task).is_pending(), "at {stop}");
            let polled = future.as_mut().poll(task);
            if polled.is_pending() && self.at == stop {
                self.there.store(true, Ordering::Release);
            }
            polled
        }))
    }

    /// Somebody else's work, which waits for its end where the thread stays.
    fn work(&self, stop: &str) -> impl FnOnce(Context) -> Result<(), Error> + Send + use<> {
        let (token, stays) = (Arc::clone(&self.token), self.at == stop);
        move |ctx| {
            let _token = token;
            if stays { Err(ctx.done().wait()) } else { Ok(()) }
        }
    }
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Passes all stops.
fn walk(ctx: &Context, stand: &Stand) -> Result<()> {
    let (ended, guard) = Context::background().with_cancel();
    guard.cancel();
    for stop in STOPS {
        let token = Arc::clone(&stand.token);
        let stays = stand.at == stop;
        let end = if stays { ctx } else { &ended };
        match stop {
            "end" => drop(stand.wait(stop, end.done())),
            "end, with a callback" => {
                let _called = ctx.on_done(move |_err| drop(token));
                stand.wait(stop, end.clone().into_done());
            }
            "sleep" => {
                let time = if stays { HOUR } else { Duration::ZERO };
                stand.wait(stop, ctx.sleep(time))?;
            }
            "run" => {
                let work = async {
                    let _token = token;
                    end.done().await
                };
                stand.wait(stop, ctx.run(work))?;
            }
            "semaphore" => drop(stand.wait(stop, stand.semaphore.acquire(ctx, 1))?),
            "join of threads" => {
                let group: TaskGroup<Error> = TaskGroup::new(ctx);
                group.spawn_thread(stand.work(stop));
                group.spawn_thread(stand.work(stop));
                stand.wait(stop, group.join())?;
            }
            "join of futures" => {
                let group: TaskGroup<Error, Threads> = TaskGroup::new(ctx);
                group.spawn(async move |ctx: Context| {
                    let _token = token;
                    if stays { Err(ctx.done().await) } else { Ok(()) }
                });
                stand.wait(stop, group.join())?;
            }
            "room" => {
                let group: TaskGroup<Error, Threads> = TaskGroup::builder(ctx).limit(1).build();
                group.spawn_thread(stand.work(stop));
                let ready = group.spawn_ready(async move |_ctx| {
                    drop(token);
                    Ok(())
                });
                if let Err(refused) = stand.wait(stop, ready) {
                    return Err(refused.ended().expect("it is not closed").clone().into());
                }
                group.join_blocking()?;
            }
            "shutdown" => {
                let group: TaskGroup<Error> = TaskGroup::new(ctx);
                let release = stand.release.clone();
                if stays {
                    group.spawn_thread(move |_ctx| {
                        let _token = token;
                        release.done().wait();
                        Ok(())
                    });
                }
                stand.wait(stop, group.shutdown("enough", HOUR));
            }
            "scope" => thread::scope(ctx, |s| {
                let work = stand.work(stop);
                s.spawn(|ctx| work(ctx.clone()));
                stand.wait(stop, end.done());
            })?,
            other => panic!("no such stop: {other}"),
        }
    }
    Ok(())
}

/// One thread, at one stop.
struct Case {
    parent: Context,
    parent_ends: CancelGuard,
    stand: Arc<Stand>,
    explode: CancelGuard,
    release: CancelGuard,
    /// Everybody else's permit.
    held: Option<Permit<'static>>,
}

impl Case {
    fn new(at: &'static str) -> Case {
        let (parent, parent_ends) = ManualClock::new().root().with_cancel();
        let (bomb, explode) = Context::background().with_cancel();
        let (released, release) = Context::background().with_cancel();
        let semaphore = a_semaphore_for_good();
        let held = if at == "semaphore" { semaphore.try_acquire(1) } else { None };
        let (there, token) = (AtomicBool::new(false), Arc::new(()));
        let stand = Stand { at, there, token, semaphore, bomb, release: released };
        Case { parent, parent_ends, stand: Arc::new(stand), explode, release, held }
    }

    /// When the thread stands at its stop, it panics.
    fn explode(&self) {
        self.until(|| self.stand.there.load(Ordering::Acquire));
        self.explode.cancel();
        self.release.cancel();
    }

    fn until(&self, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LONG, "it hangs: {}", self.stand.at);
            std::thread::yield_now();
        }
    }

    /// Nothing is left of it.
    fn leaves_nothing(mut self) {
        self.until(|| Arc::strong_count(&self.stand) == 1);
        self.until(|| Arc::strong_count(&self.stand.token) == 1);
        self.until(|| {
            let left = self.parent.statistics();
            (left.children(), left.waiters(), left.callbacks()) == (0, 0, 0)
        });
        assert_eq!(self.stand.bomb.statistics().waiters(), 0);
        drop(self.held.take());
        assert!(self.stand.semaphore.try_acquire(1).is_some(), "nobody is in the queue");
        assert!(!self.parent_ends.context().is_done(), "who dies takes nobody above along");
    }
}

/// Its borrowers are spawned: it has to be static. That it leaks is known to `xtask/src/sanitize/leaks.txt`.
fn a_semaphore_for_good() -> &'static Semaphore {
    Box::leak(Box::new(Semaphore::new(1)))
}

/// Has a thread killed at each stop; fails where that hangs.
fn at_each_stop(kill: fn(&Case)) {
    let (tell, told) = mpsc::channel::<()>();
    let all = std::thread::spawn(move || {
        let _tell = tell;
        for at in STOPS {
            eprintln!("{at}");
            let case = Case::new(at);
            kill(&case);
            case.leaves_nothing();
        }
    });
    let hangs = told.recv_timeout(LONG) == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "it hangs");
    if let Err(panic) = all.join() {
        std::panic::resume_unwind(panic);
    }
}

/// It panicked there, and nobody else failed.
fn is_told_by<E>(err: &GroupError<E>, case: &Case) {
    let [one] = err.failures() else { panic!("one: {err}") };
    assert_eq!((one.name(), err.failed(), err.ended().is_none()), (Some("victim"), 1, true));
    let panicked: &Panicked = one.cause().downcast_ref().expect("a panic");
    assert_eq!(panicked.message(), format!("at {}", case.stand.at));
}

#[test]
fn who_is_not_killed_passes_all_stops() {
    let case = Case::new("nowhere");
    walk(&case.parent, &case.stand).expect("it did its work");
    case.leaves_nothing();
}

#[test]
fn a_panic_in_a_groups_thread() {
    at_each_stop(|case| {
        let group = TaskGroup::<_>::new(&case.parent);
        let stand = Arc::clone(&case.stand);
        group.spawn_thread_named("victim", move |ctx| walk(&ctx, &stand));
        group.spawn_thread(|ctx| Err(ctx.done().wait().into()));
        case.explode();
        is_told_by(&group.join_blocking().expect_err("it panicked"), case);
    });
}

#[test]
fn a_panic_in_a_scopes_thread() {
    at_each_stop(|case| {
        let result = thread::scope(&case.parent, |s| {
            s.spawn_named("victim", |ctx| walk(ctx, &case.stand));
            s.spawn(|ctx| Err(ctx.done().wait().into()));
            case.explode();
        });
        is_told_by(&result.expect_err("it panicked"), case);
    });
}

#[test]
fn a_panic_in_a_scopes_own_code() {
    at_each_stop(|case| {
        std::thread::scope(|threads| {
            threads.spawn(|| case.explode());
            let ended = Arc::new(AtomicBool::new(false));
            let payload = catch_unwind(AssertUnwindSafe(|| {
                thread::scope(&case.parent, |s| {
                    s.spawn(|ctx| -> Result<()> {
                        ctx.done().wait();
                        ended.store(true, Ordering::Release);
                        Ok(())
                    });
                    walk(s.context(), &case.stand)
                })
            }));
            let payload = payload.map(drop).expect_err("it goes on");
            let text = payload.downcast_ref::<String>().expect("a text");
            assert_eq!(*text, format!("at {}", case.stand.at));
            assert!(ended.load(Ordering::Acquire), "it was waited for");
        });
    });
}

#[test]
fn a_panic_in_a_thread_of_nobodys() {
    at_each_stop(|case| {
        let (ctx, stand) = (case.parent.clone(), Arc::clone(&case.stand));
        let thread = std::thread::spawn(move || walk(&ctx, &stand).map_err(drop));
        case.explode();
        assert!(thread.join().is_err(), "it panicked");
    });
}

#[test]
fn a_group_that_is_dropped_tells_its_threads_and_nothing_is_left() {
    at_each_stop(|case| {
        let group = TaskGroup::<_>::new(&case.parent);
        let (stand, watch) = (Arc::clone(&case.stand), group.watch());
        group.spawn_thread_named("victim", move |ctx| walk(&ctx, &stand));
        case.until(|| case.stand.there.load(Ordering::Acquire));
        drop(group);
        case.release.cancel();
        case.until(|| watch.is_over());
    });
}
