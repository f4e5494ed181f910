//! A task dies while it waits: at each of its awaits, in each of the ways in which a task can die. Nothing hangs, nothing is left,
//! and what is told is true.
//!
//! The task passes [`STOPS`] one after the other, and stands at one of them for ever. Time is a manual clock's, which nobody
//! advances.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use purview::leak::Check;
use purview::time::ManualClock;
use purview::{
    CancelGuard, Context, Dropped, GroupBuilder, GroupError, Panicked, Permit, Report, Semaphore,
    Spawn,
};
use purview_tokio::{BoxError, TaskGroup, Tokio, map_concurrent};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::{LONG, a_semaphore_for_good, watched};

const HOUR: Duration = Duration::from_secs(3600);

/// Where a task waits.
const STOPS: [&str; 15] = [
    "end",
    "owned end",
    "end, with a callback",
    "sleep",
    "run",
    "semaphore",
    "join",
    "join of a blocking task",
    "join of a group in a group",
    "room",
    "room, with others behind",
    "shutdown, in its grace",
    "shutdown, after its grace",
    "map, for room",
    "map, for its last",
];

/// A task's surroundings.
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
    stuck: Stuck,
}

/// A runtime that keeps what it gets, and runs none of it.
#[derive(Clone, Default)]
struct Stuck(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Spawn for Stuck {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.0.lock().expect("no panic").push(Box::new(task));
    }
}

impl Stand {
    fn is_at(&self, stop: &str) -> bool {
        self.at == stop
    }

    /// Waits for `future`; says so, if that is where it stays.
    async fn wait<F: Future>(&self, stop: &str, future: F) -> F::Output {
        let _token = Arc::clone(&self.token);
        let (mut future, mut bomb) = (pin!(future), pin!(self.bomb.done()));
        let wait = poll_fn(|task| {
            assert!(bomb.as_mut().poll(task).is_pending(), "at {stop}");
            let polled = future.as_mut().poll(task);
            if polled.is_pending() && self.is_at(stop) {
                self.there.store(true, Ordering::Release);
            }
            polled
        });
        wait.await
    }

    /// Somebody else's work, which never ends if it is waited for where the task stays.
    fn work(&self, stop: &str) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
        let (token, stays) = (Arc::clone(&self.token), self.is_at(stop));
        async move {
            let _token = token;
            if stays { pending().await } else { Ok(()) }
        }
    }

    fn has(&self, stop: &str, group: &TaskGroup) {
        let work = self.work(stop);
        group.spawn(|_ctx| work);
    }
}

/// Passes all stops. Deaf where its own groups are: they are waited for, whatever its context does.
async fn walk(ctx: Context, stand: Arc<Stand>) -> Result<(), BoxError> {
    let stand = &*stand;
    let (ended, guard) = Context::background().with_cancel();
    guard.cancel();
    for stop in STOPS {
        let token = Arc::clone(&stand.token);
        let stays = stand.is_at(stop);
        let end = if stays { &ctx } else { &ended };
        match stop {
            "end" => drop(stand.wait(stop, end.done()).await),
            "owned end" => drop(stand.wait(stop, end.clone().into_done()).await),
            "end, with a callback" => {
                let _called = ctx.on_done(move |_err| drop(token));
                stand.wait(stop, end.done()).await;
            }
            "sleep" => {
                let time = if stays { HOUR } else { Duration::ZERO };
                stand.wait(stop, ctx.sleep(time)).await?;
            }
            "run" => stand.wait(stop, ctx.run(stand.work(stop))).await??,
            "semaphore" => drop(stand.wait(stop, stand.semaphore.acquire(&ctx, 1)).await?),
            "join" => {
                let group = TaskGroup::new(&ctx);
                stand.has(stop, &group);
                stand.has(stop, &group);
                stand.wait(stop, group.join()).await?;
            }
            "join of a blocking task" => {
                let group: TaskGroup = TaskGroup::new(&ctx);
                group.spawn_blocking(move |ctx| {
                    if stays {
                        ctx.done().wait();
                    }
                    drop(token);
                    Ok(())
                });
                stand.wait(stop, group.join()).await?;
            }
            "join of a group in a group" => {
                let outer: TaskGroup = TaskGroup::new(&ctx);
                let work = stand.work(stop);
                outer.spawn(async move |ctx: Context| {
                    let _token = token;
                    let inner: TaskGroup = TaskGroup::new(&ctx);
                    inner.spawn(|_ctx| work);
                    Ok(inner.join().await?)
                });
                stand.wait(stop, outer.join()).await?;
            }
            "room" | "room, with others behind" => {
                let group: TaskGroup = TaskGroup::builder(&ctx).limit(1).build();
                stand.has(stop, &group);
                let work = stand.work(stop);
                let mut room = pin!(group.spawn_ready(|_ctx| work));
                let first = poll_fn(|task| Poll::Ready(room.as_mut().poll(task)));
                let polled = first.await;
                if stop != "room" {
                    stand.has(stop, &group);
                    let work = stand.work(stop);
                    group.spawn_thread(move |_ctx| {
                        drop(work);
                        Ok(())
                    });
                }
                let refused = match polled {
                    Poll::Ready(result) => result,
                    Poll::Pending => stand.wait(stop, room).await,
                };
                if let Err(refused) = refused {
                    return Err(refused.ended().expect("it is not closed").clone().into());
                }
                while !group.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            "shutdown, in its grace" => {
                let group = TaskGroup::new(&ctx);
                stand.has(stop, &group);
                stand.wait(stop, group.shutdown("enough", HOUR)).await;
            }
            "shutdown, after its grace" => {
                let group: purview::TaskGroup<BoxError, Stuck> =
                    purview::TaskGroup::builder(&ctx).build_on(stand.stuck.clone());
                if stays {
                    let work = stand.work(stop);
                    group.spawn(|_ctx| work);
                }
                stand.wait(stop, group.shutdown("enough", Duration::ZERO)).await;
            }
            "map, for room" | "map, for its last" => {
                let items = if stop == "map, for room" { 0..8 } else { 0..1 };
                let works: Vec<_> = items.map(|_| stand.work(stop)).collect();
                let map = map_concurrent(&ctx, works, 2, move |_ctx, work| {
                    let token = Arc::clone(&token);
                    async move {
                        let _token = token;
                        work.await
                    }
                });
                stand.wait(stop, map).await?;
            }
            other => panic!("no such stop: {other}"),
        }
    }
    Ok(())
}

/// One task, at one stop, on one runtime.
struct Case {
    runtime: Option<Runtime>,
    clock: ManualClock,
    parent: Context,
    parent_ends: CancelGuard,
    stand: Arc<Stand>,
    explode: CancelGuard,
    /// Everybody else's permit.
    held: Option<Permit<'static>>,
    check: Option<Check>,
}

impl Case {
    fn new(at: &'static str, workers: usize, is_checked: bool) -> Case {
        let check = is_checked.then(Check::new);
        let runtime = match workers {
            0 => Builder::new_current_thread().build(),
            _ => Builder::new_multi_thread().worker_threads(workers).build(),
        };
        let clock = ManualClock::new();
        let (parent, parent_ends) = clock.root().with_cancel();
        let (bomb, explode) = Context::background().with_cancel();
        let semaphore = a_semaphore_for_good();
        let held = if at == "semaphore" { semaphore.try_acquire(1) } else { None };
        let (there, token, stuck) = (AtomicBool::new(false), Arc::new(()), Stuck::default());
        let stand = Arc::new(Stand { at, there, token, semaphore, bomb, stuck });
        let runtime = Some(runtime.expect("a runtime"));
        Case { runtime, clock, parent, parent_ends, stand, explode, held, check }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there yet")
    }

    /// A group with the task, and nobody else.
    fn group(&self) -> TaskGroup {
        self.group_of(TaskGroup::builder(&self.parent))
    }

    fn group_of(&self, builder: GroupBuilder<BoxError, Tokio>) -> TaskGroup {
        let group = builder.build_on(Tokio::new(self.runtime().handle().clone()));
        let stand = Arc::clone(&self.stand);
        group.spawn_named("victim", |ctx| walk(ctx, stand));
        group
    }

    /// The task by itself.
    fn task(&self) -> JoinHandle<Result<(), BoxError>> {
        self.runtime().spawn(walk(self.parent.clone(), Arc::clone(&self.stand)))
    }

    /// Until the task stands at its stop.
    fn wait(&self) {
        self.until(|| self.stand.there.load(Ordering::Acquire));
    }

    /// Until that is so. The runtime, if it is there, goes on meanwhile.
    fn until(&self, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        let looks = async {
            while !is_so() {
                assert!(begun.elapsed() < LONG, "it hangs: {}", self.stand.at);
                match self.runtime {
                    Some(_) => tokio::task::yield_now().await,
                    None => std::thread::yield_now(),
                }
            }
        };
        match &self.runtime {
            Some(runtime) => runtime.block_on(looks),
            None => purview::thread::block_on(looks),
        }
    }

    /// Nothing is left of it.
    fn leaves_nothing(mut self) {
        drop(std::mem::take(&mut *self.stand.stuck.0.lock().expect("no panic")));
        self.until(|| Arc::strong_count(&self.stand) == 1);
        self.until(|| Arc::strong_count(&self.stand.token) == 1);
        self.until(|| {
            let left = self.parent.statistics();
            (left.children(), left.waiters(), left.callbacks()) == (0, 0, 0)
        });
        assert_eq!(self.stand.bomb.statistics().waiters(), 0);
        drop(self.held.take());
        assert!(self.stand.semaphore.try_acquire(1).is_some(), "nobody is in the queue");
        assert!(!self.parent.is_done(), "who dies takes nobody above along");
        drop(self.runtime.take());
        let Case { clock, parent, parent_ends, stand, explode, check, .. } = self;
        drop((clock, parent, parent_ends, stand, explode));
        if let Some(check) = check {
            check.assert_none(LONG);
        }
    }
}

/// Has the task killed at each stop, on a runtime of one thread and on one of two, listed by a check for leaks and not.
fn at_each_stop(kill: fn(&mut Case)) {
    watched(move || {
        for at in STOPS {
            for (workers, is_checked) in [(0, false), (0, true), (2, false), (2, true)] {
                eprintln!("{at}; {workers} workers");
                let mut case = Case::new(at, workers, is_checked);
                kill(&mut case);
                case.leaves_nothing();
            }
        }
    });
}

/// Has the task killed when its runtime has it, and has not polled it.
fn before_it_begins(kill: fn(&mut Case)) {
    watched(move || {
        for is_checked in [false, true] {
            let mut case = Case::new("nowhere", 0, is_checked);
            kill(&mut case);
            case.leaves_nothing();
        }
    });
}

/// It was dropped, by somebody else than its group, and its group says so.
fn is_lost(result: Result<(), GroupError<BoxError>>) {
    let err = result.expect_err("it was lost");
    let [one] = err.failures() else { panic!("one: {err}") };
    assert_eq!((one.name(), err.failed()), (Some("victim"), 1));
    assert!(one.cause().downcast_ref::<Dropped>().is_some() && err.ended().is_none(), "{err}");
}

/// It has heard of the end, or was dropped, and the report says which.
fn is_told_of(report: &Report) {
    let aborted: Vec<_> = report.aborted().iter().map(|task| task.name()).collect();
    match report.finished() {
        0 => assert_eq!(aborted, [Some("victim")], "{report}"),
        _ => assert_eq!((report.finished(), aborted.len()), (1, 0), "{report}"),
    }
    let others = (report.failed(), report.abandoned().len(), report.unlisted(), report.lost());
    assert_eq!(others, (0, 0, 0, 0), "{report}");
    assert_eq!((report.unbegun(), report.is_clean()), (0, aborted.is_empty()), "{report}");
}

#[test]
fn who_is_not_killed_passes_all_stops() {
    watched(|| {
        for workers in [0, 2] {
            let case = Case::new("nowhere", workers, true);
            let group = case.group();
            case.runtime().block_on(group.join()).expect("it did its work");
            case.leaves_nothing();
        }
    });
}

#[test]
fn by_the_drop_of_its_group() {
    fn kill(group: TaskGroup, case: &Case) {
        let watch = group.watch();
        drop(group);
        case.until(|| watch.is_over());
    }
    at_each_stop(|case| {
        let group = case.group();
        case.wait();
        kill(group, case);
    });
    before_it_begins(|case| kill(case.group(), case));
}

#[test]
fn by_a_shutdown_of_its_group() {
    fn kill(group: TaskGroup, case: &Case) {
        is_told_of(&case.runtime().block_on(group.shutdown("deploy", Duration::ZERO)));
    }
    at_each_stop(|case| {
        let group = case.group();
        case.wait();
        kill(group, case);
    });
    before_it_begins(|case| kill(case.group(), case));
}

#[test]
fn by_its_groups_grace() {
    fn kill(case: &Case, waits: bool) {
        let (above, ends) = case.parent.with_cancel();
        let group = case.group_of(TaskGroup::builder(&above).grace(Duration::from_secs(1)));
        if waits {
            case.wait();
        }
        ends.cancel_with("deploy");
        case.clock.advance(Duration::from_secs(1));
        let err = case.runtime().block_on(group.join()).expect_err("it was told");
        assert_eq!(err.ended().expect("that is why").to_string(), "context canceled: deploy");
        assert_eq!((err.failed(), err.failures().len()), (0, 0));
    }
    at_each_stop(|case| kill(case, true));
    before_it_begins(|case| kill(case, false));
}

#[test]
fn by_the_drop_of_its_runtime() {
    at_each_stop(|case| {
        let group = case.group();
        case.wait();
        drop(case.runtime.take());
        is_lost(group.join_blocking());
    });
    before_it_begins(|case| {
        let group = case.group();
        drop(case.runtime.take());
        is_lost(group.join_blocking());
    });
}

#[test]
fn by_a_runtime_that_is_shut_down_in_the_background() {
    at_each_stop(|case| {
        let group = case.group();
        case.wait();
        case.runtime.take().expect("it is there yet").shutdown_background();
        is_lost(group.join_blocking());
    });
}

#[test]
fn by_an_abort() {
    fn kill(task: JoinHandle<Result<(), BoxError>>, case: &Case) {
        task.abort();
        let err = case.runtime().block_on(task).expect_err("it was aborted");
        assert!(err.is_cancelled());
    }
    at_each_stop(|case| {
        let task = case.task();
        case.wait();
        kill(task, case);
    });
    before_it_begins(|case| kill(case.task(), case));
}

#[test]
fn by_an_abort_of_who_waits_for_its_group() {
    fn kill(group: TaskGroup, case: &Case, waits: bool) {
        let watch = group.watch();
        let waiter = case.runtime().spawn(group.join());
        if waits {
            case.wait();
        }
        waiter.abort();
        assert!(case.runtime().block_on(waiter).expect_err("it was aborted").is_cancelled());
        case.until(|| watch.is_over());
    }
    at_each_stop(|case| kill(case.group(), case, true));
    before_it_begins(|case| kill(case.group(), case, false));
}

#[test]
fn by_a_panic() {
    at_each_stop(|case| {
        let group = case.group();
        case.wait();
        case.explode.cancel();
        let err = case.runtime().block_on(group.join()).expect_err("it panicked");
        let [one] = err.failures() else { panic!("one: {err}") };
        assert_eq!((one.name(), err.failed(), err.ended().is_none()), (Some("victim"), 1, true));
        let panicked: &Panicked = one.cause().downcast_ref().expect("a panic");
        assert_eq!(panicked.message(), format!("at {}", case.stand.at));
    });
}

#[test]
fn by_a_panic_in_no_group() {
    at_each_stop(|case| {
        let task = case.task();
        case.wait();
        case.explode.cancel();
        assert!(case.runtime().block_on(task).expect_err("it panicked").is_panic());
    });
}
