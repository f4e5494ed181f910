//! Task groups: Go's `golang.org/x/sync/errgroup`, its tests retold, and what is ours.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use purview::thread::block_on;
use purview::time::ManualClock;
use purview::{
    Context, Dropped, Error, OnFailure, Panicked, Spawn, TaskGroup, TaskKind, TaskState, thread,
};

use crate::support::poll_once;

/// A runtime: each task has a thread. It counts those that are over.
#[derive(Clone, Default)]
struct Threads {
    over: Arc<AtomicUsize>,
}

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let over = Arc::clone(&self.over);
        std::thread::spawn(move || {
            block_on(task);
            over.fetch_add(1, Ordering::Release);
        });
    }
}

/// A runtime that is shut down: it drops what it gets.
#[derive(Default)]
struct Gone;

impl Spawn for Gone {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        drop(task);
    }
}

type Group = TaskGroup<io::Error, Threads>;

fn failure(text: &'static str) -> io::Error {
    io::Error::other(text)
}

/// TestZeroGroup: what join says is what the first task said that failed.
#[test]
fn the_first_failure_is_what_a_join_tells() {
    for (given, told) in [
        (vec![], None),
        (vec![None], None),
        (vec![Some("one")], Some("one")),
        (vec![None, Some("one")], Some("one")),
        (vec![Some("one"), None, Some("two")], Some("one")),
    ] {
        let group = Group::builder(&Context::background()).limit(1).build();
        for text in given {
            // One after the other; after a failure, none begins.
            let room = block_on(group.spawn_ready(async move |_ctx| match text {
                None => Ok(()),
                Some(text) => Err(failure(text)),
            }));
            assert!(room.is_ok() || told.is_some());
        }
        let first =
            group.join_blocking().err().map(|err| err.error().expect("its own").to_string());
        assert_eq!(first.as_deref(), told);
    }
}

/// TestWithContext, TestCancelCause: the group's context ends with the first failure as its cause, or when the group does.
#[test]
fn the_first_failure_cancels_the_others_and_is_the_cause_they_see() {
    let group = Group::new(&Context::background());
    let (told, heard) = mpsc::channel();
    group.spawn(async move |ctx: Context| {
        told.send(ctx.done().await).expect("the test waits");
        Ok(())
    });
    group.spawn_named("fetcher", async |_ctx| Err(failure("disk full")));
    let ctx = group.context().clone();
    let err = group.join_blocking().expect_err("one failed");
    let seen = heard.recv().expect("it was told");
    assert_eq!(seen.to_string(), "context canceled: disk full");
    assert_eq!(ctx.err().expect("ended").to_string(), seen.to_string());
    let [one] = err.failures() else { panic!("one failed") };
    assert_eq!((one.name(), one.is_panic(), err.failed()), (Some("fetcher"), false, 1));
    assert!(one.location().file().ends_with("groups.rs"));
    assert!(err.to_string().starts_with("task fetcher ("), "{err}");
    assert!(err.to_string().ends_with("): disk full"), "{err}");
    assert!(std::error::Error::source(&err).is_none(), "all of it is in the text");

    let group = Group::new(&Context::background());
    let ctx = group.context().clone();
    group.join_blocking().expect("nothing failed");
    assert!(ctx.is_done(), "a group's context does not outlive it");
}

/// TestTryGo.
#[test]
fn try_spawn_starts_a_task_now_or_hands_it_back() {
    let group = Group::builder(&Context::background()).limit(2).build();
    let (end, ends) = mpsc::channel::<()>();
    let ends = Arc::new(Mutex::new(ends));
    let task = || {
        let ends = Arc::clone(&ends);
        async move |_ctx| {
            let _ = ends.lock().expect("no panic").recv();
            Ok(())
        }
    };
    group.try_spawn(task()).expect("room for two");
    group.try_spawn(task()).expect("room for one");
    let refused = group.try_spawn(task()).expect_err("no room");
    assert!(refused.is_full() && !refused.is_closed() && refused.ended().is_none());
    assert_eq!(format!("{refused}; {refused:?}"), "the group is full; TrySpawnError(Full)");
    end.send(()).expect("they wait");
    block_on(group.spawn_ready(refused.into_task())).expect("room again");
    drop(end);
    group.close();
    let refused = group.try_spawn(task()).expect_err("closed");
    assert!(refused.is_closed() && !refused.is_full() && refused.ended().is_none());
    assert_eq!(format!("{refused}; {refused:?}"), "the group is closed; TrySpawnError(Closed)");
    group.join_blocking().expect("none failed");
}

/// TestGoLimit.
#[test]
fn there_are_never_more_tasks_than_the_limit_says_however_they_are_spawned() {
    const LIMIT: usize = 4;
    let group = Group::builder(&Context::background()).limit(LIMIT).build();
    let now = Arc::new(AtomicUsize::new(0));
    let all = Arc::new(AtomicUsize::new(0));
    let task = || {
        let (now, all) = (Arc::clone(&now), Arc::clone(&all));
        async move |ctx: Context| {
            let there = now.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(there <= LIMIT, "{there}");
            ctx.sleep(Duration::from_micros(200)).await.map_err(io::Error::from)?;
            now.fetch_sub(1, Ordering::SeqCst);
            all.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    for _ in 0..50 {
        group.spawn(task());
        block_on(group.spawn_ready(task())).expect("room, in the end");
        group.spawn(task());
    }
    group.join_blocking().expect("none failed");
    assert_eq!(all.load(Ordering::SeqCst), 150);
}

#[test]
fn who_waits_for_room_gives_up_when_the_group_ends() {
    let group = Group::builder(&Context::background()).limit(1).build();
    group.spawn(async |ctx: Context| Err(ctx.done().await.into()));
    let mut waiting = Box::pin(group.spawn_ready(async |_ctx| Ok(())));
    assert!(poll_once(waiting.as_mut()).is_pending());
    group.cancel_with("enough");
    let refused = block_on(waiting).expect_err("it ended");
    assert_eq!(refused.ended().expect("that is why").to_string(), "context canceled: enough");
    assert!(group.try_spawn(async |_ctx| Ok(())).expect_err("it ended").ended().is_some());
    assert_eq!(refused.to_string(), "the group has ended: context canceled: enough");
    assert!(std::error::Error::source(&refused).is_none(), "it is in the text");
    assert!(Error::find(&refused).is_some_and(Error::is_canceled));
    let err = group.join_blocking().expect_err("a task gave up");
    assert!(err.failures().is_empty() && err.failed() == 0);
    assert_eq!(err.ended().expect("that is why").to_string(), "context canceled: enough");
    assert_eq!(err.to_string(), "context canceled: enough");
}

#[test]
fn what_waits_for_room_when_the_group_ends_never_begins_and_the_join_says_so() {
    let (parent, guard) = Context::background().with_cancel();
    let group = Group::builder(&parent).limit(1).build();
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let begun = Arc::clone(&begun);
        group.spawn(async move |ctx: Context| {
            begun.fetch_add(1, Ordering::SeqCst);
            ctx.done().await;
            Ok(())
        });
    }
    assert_eq!(group.len(), 100);
    guard.cancel_with("shutdown");
    let err = group.join_blocking().expect_err("99 did not begin");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    assert_eq!(err.ended().expect("that is why").to_string(), "context canceled: shutdown");
}

#[test]
fn a_panic_is_a_failure_with_its_message_and_hides_no_sibling() {
    let group = Group::new(&Context::background());
    group.spawn_named("bomb", async |ctx: Context| -> io::Result<()> {
        ctx.sleep(Duration::from_millis(1)).await?;
        panic!("out of {}", "cheese");
    });
    group.spawn(async |ctx: Context| {
        ctx.done().await;
        Err(failure("could not clean up"))
    });
    let err = group.join_blocking().expect_err("two failed");
    assert_eq!(err.failed(), 2);
    let [first, second] = err.failures() else { panic!("two: {err}") };
    assert!(first.is_panic() && first.name() == Some("bomb"));
    let panicked: &Panicked = first.cause().downcast_ref().expect("a panic");
    assert_eq!(panicked.message(), "out of cheese");
    assert_eq!(second.cause().to_string(), "could not clean up");
    assert!(err.to_string().starts_with("2 tasks failed: task bomb ("), "{err}");
    assert!(err.to_string().contains("panicked: out of cheese; task ("), "{err}");
    assert_eq!(err.error().expect("the second's").to_string(), "could not clean up");
}

#[test]
fn in_a_group_that_isolates_the_others_go_on_after_a_failure() {
    let isolate = OnFailure::Isolate;
    let group = Group::builder(&Context::background()).on_failure(isolate).limit(1).build();
    let done = Arc::new(AtomicUsize::new(0));
    for n in 0..100 {
        let done = Arc::clone(&done);
        group.spawn(async move |ctx: Context| {
            ctx.check().map_err(io::Error::from)?;
            done.fetch_add(1, Ordering::SeqCst);
            if n % 2 == 0 { Err(failure("even")) } else { Ok(()) }
        });
    }
    let err = group.join_blocking().expect_err("half of them failed");
    assert_eq!((done.load(Ordering::SeqCst), err.failed(), err.failures().len()), (100, 50, 16));
    assert!(err.to_string().ends_with("; and 34 more"), "{err}");
}

#[test]
fn nothing_of_a_task_is_left_when_the_join_returns() {
    for _ in 0..100 {
        let token = Arc::new(());
        let group = Group::new(&Context::background());
        for _ in 0..4 {
            let token = Arc::clone(&token);
            group.spawn(async move |ctx: Context| {
                let _token = token;
                ctx.sleep(Duration::from_micros(50)).await.map_err(io::Error::from)
            });
        }
        group.join_blocking().expect("none failed");
        assert_eq!(Arc::strong_count(&token), 1);
    }
}

#[test]
fn tasks_can_be_seen_running_then_canceled_then_gone() {
    let clock = ManualClock::new();
    let (root, guard) = clock.root().with_cancel();
    let group = Group::new(&root);
    let (end, ends) = mpsc::channel::<()>();
    let begun = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&begun);
    group.spawn_thread_named("stubborn", move |_ctx| {
        flag.store(true, Ordering::SeqCst);
        let _ = ends.recv(); // deaf to its context
        Ok(())
    });
    clock.advance(Duration::from_secs(3));
    let [task] = &group.tasks()[..] else { panic!("one") };
    assert_eq!((task.name(), task.kind()), (Some("stubborn"), TaskKind::Blocking));
    assert_eq!((task.state(), task.told()), (TaskState::Running, None));
    assert_eq!(task.age(), Duration::from_secs(3));
    assert!(task.to_string().ends_with(", running for 3.000s"), "{task}");
    guard.cancel();
    clock.advance(Duration::from_secs(2));
    let [task] = &group.tasks()[..] else { panic!("one") };
    assert_eq!((task.state(), task.told()), (TaskState::Canceled, Some(Duration::from_secs(2))));
    assert!(task.to_string().ends_with(", told to stop 2.000s ago"), "{task}");
    assert_eq!(group.overdue(Duration::from_secs(2)).len(), 1);
    assert_eq!(group.overdue(Duration::from_secs(3)).len(), 0);
    assert_eq!(group.stop_times().count(), 0);
    drop(end);
    let times = {
        while !group.is_empty() {
            std::thread::yield_now();
        }
        group.stop_times()
    };
    assert_eq!(times.count(), 1);
    let two_seconds = times.quantile(0.5).expect("one");
    assert!(two_seconds >= Duration::from_secs(2) && two_seconds < Duration::from_secs(5));
    assert!(group.tasks().is_empty());
    group.join_blocking().expect("it did its work");
}

#[test]
fn a_hook_hears_of_each_task_that_does_not_stop_in_time() {
    let clock = ManualClock::new();
    let (root, guard) = clock.root().with_cancel();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let group: Group = TaskGroup::builder(&root)
        .on_overdue(Duration::from_secs(1), move |task, err| {
            let line = format!("{} {:?}: {err}", task.name().unwrap_or("?"), task.told());
            hear.lock().expect("no panic").push(line);
        })
        .build();
    let (end, ends) = mpsc::channel::<()>();
    group.spawn_thread_named("stubborn", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    clock.advance(Duration::from_secs(10));
    guard.cancel_with("shutdown");
    clock.advance(Duration::from_millis(999));
    assert!(heard.lock().expect("no panic").is_empty());
    clock.advance(Duration::from_millis(1));
    let lines = std::mem::take(&mut *heard.lock().expect("no panic"));
    assert_eq!(lines, ["stubborn Some(1s): context canceled: shutdown"]);
    drop(end);
    group.join_blocking().expect("it did its work");
}

#[test]
fn shutdown_tells_all_waits_drops_what_can_be_and_names_what_cannot() {
    let (clock, threads) = (ManualClock::new(), Threads::default());
    let group: Group = TaskGroup::builder(&clock.root()).build_on(threads.clone());
    let (end, ends) = mpsc::channel::<()>();
    let token = Arc::new(());
    let held = Arc::clone(&token);
    group.spawn_named("polite", async |ctx: Context| {
        ctx.done().await;
        Ok(())
    });
    group.spawn_named("deaf", async move |_ctx| {
        let _held = held;
        pending().await
    });
    group.spawn_thread_named("stubborn", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    group.spawn_named("wrong", async |ctx: Context| {
        ctx.done().await;
        Err(failure("could not flush"))
    });
    let watch = group.watch();
    while watch.tasks().len() < 4 {
        std::thread::yield_now();
    }
    let mut shutdown = pin!(group.shutdown("deploy", Duration::from_secs(1)));
    assert!(poll_once(shutdown.as_mut()).is_pending(), "it tells them");
    while threads.over.load(Ordering::Acquire) < 2 {
        std::thread::yield_now();
    }
    clock.advance(Duration::from_secs(1));
    let report = block_on(shutdown); // as soon as no future is left
    let names = |tasks: &[purview::TaskInfo]| {
        tasks.iter().map(|task| task.name().unwrap_or("?").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(report.aborted()), names(report.abandoned())),
        (vec!["deaf".to_string()], vec!["stubborn".to_string()])
    );
    assert_eq!((report.finished(), report.failed(), report.is_clean()), (2, 1, false));
    assert_eq!(report.failures()[0].cause().to_string(), "could not flush");
    assert_eq!(report.stop_times().count(), 3);
    assert_eq!(Arc::strong_count(&token), 1, "what it held is gone");
    let text = report.to_string();
    assert!(
        text.starts_with(
            "2 finished, 1 of them failed; 1 aborted, 1 abandoned\nfailed: task wrong ("
        ),
        "{text}"
    );
    assert!(
        text.contains("\naborted: task deaf (") && text.contains("\nabandoned: task stubborn ("),
        "{text}"
    );
    assert_eq!(names(&watch.tasks()), ["stubborn"]);
    drop(end);
}

#[test]
fn futures_that_come_to_no_await_are_counted_when_a_shutdown_leaves_them_behind() {
    /// Keeps what it gets, and runs none of it.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<Vec<Box<dyn Send>>>>);
    impl Spawn for Stuck {
        fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
            self.0.lock().expect("no panic").push(Box::new(task));
        }
    }
    let clock = ManualClock::new();
    let stuck = Stuck::default();
    let group: TaskGroup<Error, Stuck> = TaskGroup::builder(&clock.root()).build_on(stuck.clone());
    group.spawn(async |ctx: Context| ctx.check());
    group.spawn(async |ctx: Context| ctx.check());
    let (release, held) = mpsc::channel::<()>();
    group.spawn_thread(move |_| {
        let _ = held.recv();
        Ok(())
    });
    assert_eq!(group.len(), 3);
    let mut shutdown = pin!(group.shutdown("deploy", Duration::from_secs(1)));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    assert!(poll_once(shutdown.as_mut()).is_pending(), "they may come to an await yet");
    clock.advance(Duration::from_secs(1));
    let report = block_on(shutdown);
    assert_eq!((report.unlisted(), report.finished(), report.is_clean()), (2, 0, false));
    assert_eq!((report.lost(), report.failed()), (0, 0));
    assert_eq!(report.abandoned().len(), 1, "a thread is no such future");
    assert!(report.to_string().contains("1 abandoned, and 2 before their first await"));
    drop(release);
    drop(std::mem::take(&mut *stuck.0.lock().expect("no panic")));
}

#[test]
fn a_watch_keeps_nothing_and_sees_nothing_of_a_group_that_is_over() {
    let group: Group = TaskGroup::builder(&Context::background()).name("readers").build();
    let watch = group.watch();
    let ctx = Arc::new(());
    let held = Arc::clone(&ctx);
    group.spawn_thread_named("reader", move |ctx| {
        let _held = held;
        Err(ctx.done().wait().into())
    });
    assert_eq!((watch.name(), watch.tasks()[0].name()), (Some("readers"), Some("reader")));
    group.cancel_with("enough");
    assert!(group.join_blocking().is_err());
    assert_eq!(Arc::strong_count(&ctx), 1);
    assert!(watch.is_over() && watch.tasks().is_empty());
}

#[test]
fn a_grace_is_given_and_no_more() {
    let clock = ManualClock::new();
    let (root, guard) = clock.root().with_cancel();
    let group: Group = TaskGroup::builder(&root).grace(Duration::from_secs(5)).build();
    group.spawn_named("deaf", async |_ctx| pending().await);
    while group.tasks().is_empty() {
        std::thread::yield_now();
    }
    guard.cancel();
    clock.advance(Duration::from_secs(4));
    assert_eq!(group.len(), 1);
    clock.advance(Duration::from_secs(1));
    let err = group.join_blocking().expect_err("it was dropped");
    assert!(err.ended().expect("that is why").is_canceled());
}

#[test]
fn a_group_that_is_dropped_leaves_nothing_behind() {
    let token = Arc::new(());
    let (told, heard) = mpsc::channel::<()>();
    let group = Group::new(&Context::background());
    let ctx = group.context().clone();
    for _ in 0..4 {
        let (token, told) = (Arc::clone(&token), told.clone());
        group.spawn(async move |_ctx| {
            let _goes = (token, told);
            pending().await
        });
    }
    drop((told, group));
    assert!(ctx.is_done());
    assert!(heard.recv().is_err(), "all four were dropped");
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn a_task_that_its_runtime_drops_is_a_failure_and_nothing_hangs() {
    let group: TaskGroup<io::Error, Gone> = TaskGroup::new(&Context::background());
    group.spawn_named("lost", async |_ctx| Ok(()));
    let err = group.join_blocking().expect_err("it was lost");
    assert!(err.failures()[0].cause().downcast_ref::<Dropped>().is_some());
    assert!(err.to_string().ends_with("dropped before its end"), "{err}");

    // Also where many wait for room, in a group that goes on.
    let group: TaskGroup<io::Error, Gone> =
        TaskGroup::builder(&Context::background()).limit(1).on_failure(OnFailure::Isolate).build();
    for _ in 0..100_000 {
        group.spawn(async |_ctx| Ok(()));
    }
    assert_eq!(group.join_blocking().expect_err("all were lost").failed(), 100_000);
}

#[test]
fn what_may_block_has_a_thread_of_its_own_by_the_name_it_is_given_where_the_system_knows_such() {
    let group = Group::new(&Context::background());
    let (said, heard) = mpsc::channel();
    let here = std::thread::current().id();
    let say = || {
        let said = said.clone();
        move |_ctx: Context| {
            let thread = std::thread::current();
            let _ = said.send((thread.id() != here, thread.name().map(str::to_string)));
            Ok(())
        }
    };
    group.spawn_blocking(say()); // of a runtime that has no pool for it
    assert_eq!(heard.recv().expect("run"), (true, None));
    group.spawn_thread_named("reader", say());
    assert_eq!(heard.recv().expect("run"), (true, Some("reader".into())));
    group.spawn_thread_named("no\0name", say());
    assert_eq!(heard.recv().expect("run"), (true, None));
    group.join_blocking().expect("all have run");
}

#[test]
fn threads_that_borrow_end_before_the_scope_does_and_a_failure_cancels_the_others() {
    let ctx = Context::background();
    let mut numbers = vec![1, 2, 3];
    let count = AtomicUsize::new(0);
    let sum = &count;
    let result: Result<&str, _> = thread::scope(&ctx, |s| {
        let (first, rest) = numbers.split_at_mut(1);
        s.spawn(|_ctx| -> io::Result<()> {
            first[0] = 10;
            Ok(())
        });
        let (end, ends) = mpsc::channel::<()>();
        s.spawn_named("rest", move |_ctx| {
            let _ = ends.recv();
            rest.fill(20);
            Ok(())
        });
        assert!(s.tasks().iter().any(|task| task.name() == Some("rest")));
        drop(end);
        let inner = s.clone();
        s.spawn(move |_ctx| {
            inner.spawn(move |_ctx| {
                sum.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            Ok(())
        });
        "done"
    });
    assert_eq!(result.expect("none failed"), "done");
    assert_eq!((numbers, sum.load(Ordering::SeqCst)), (vec![10, 20, 20], 1));

    let err = thread::scope(&ctx, |s| {
        s.spawn(|ctx| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err(ctx.done().wait().into())
        });
        s.spawn_named("reader", |_ctx| Err("no such file".into()));
    })
    .expect_err("one failed");
    assert_eq!((err.failed(), err.failures()[0].name()), (1, Some("reader")));

    let err = thread::scope(&ctx, |s| {
        s.spawn(|ctx| -> Result<(), Error> { Err(ctx.done().wait()) });
        s.spawn(|_ctx| panic!("by accident"));
    })
    .expect_err("one panicked");
    assert!(err.failures()[0].is_panic() && err.failed() == 1);
}

#[test]
fn a_panic_of_the_scopes_own_code_tells_the_threads_before_they_are_waited_for() {
    let code = || {
        thread::scope(&Context::background(), |s| {
            s.spawn(|ctx| -> Result<(), Error> { Err(ctx.done().wait()) });
            panic!("by the scope");
        })
    };
    let result: Result<Result<(), _>, _> = std::panic::catch_unwind(code);
    let payload = result.map(drop).expect_err("it goes on");
    assert_eq!(payload.downcast_ref(), Some(&"by the scope"));
}

/// A runtime that takes no task, and says so loudly.
#[derive(Default)]
struct Loud;

impl Spawn for Loud {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, _task: F) {
        panic!("no runtime");
    }
}

#[test]
fn panics_of_runtimes_callbacks_and_drops_keep_nobody_waiting() {
    let quietly = |code: &mut dyn FnMut()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)).is_err()
    };
    // A runtime's: each task that is not taken is a failure.
    let isolate = OnFailure::Isolate;
    let group: TaskGroup<io::Error, Loud> =
        TaskGroup::builder(&Context::background()).limit(1).on_failure(isolate).build();
    for _ in 0..10 {
        assert!(quietly(&mut || group.spawn(async |_ctx| Ok(()))));
    }
    assert_eq!(group.join_blocking().expect_err("none was taken").failed(), 10);

    // A callback's, called where a task fails: the room that the task had is there again.
    let group: Group = TaskGroup::builder(&Context::background()).limit(1).build();
    group.context().on_done(|_| panic!("in a callback")).detach();
    group.spawn(async |_ctx| Err(failure("first")));
    let err = group.join_blocking().expect_err("one failed");
    assert_eq!((err.failed(), err.to_string().contains("first")), (1, true));

    // A callback's, called where a group is dropped: its tasks go all the same.
    let (told, heard) = mpsc::channel::<()>();
    let group = Group::new(&Context::background());
    group.context().on_done(|_| panic!("in a callback")).detach();
    group.spawn(async move |_ctx| {
        let _told = told;
        pending().await
    });
    let mut group = Some(group);
    assert!(quietly(&mut || drop(group.take())));
    assert!(heard.recv().is_err(), "it was dropped");

    // The drop of a task's own work is its failure; that of one that was never begun is the dropping thread's.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    let group = Group::new(&Context::background());
    group.spawn(async |_ctx| {
        let _bomb = Bomb;
        Ok(())
    });
    assert!(group.join_blocking().expect_err("it panicked").failures()[0].is_panic());
}

/// Keeps what it gets, and runs none of it.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Spawn for Shelf {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.0.lock().expect("no panic").push(Box::new(task));
    }
}

#[test]
fn a_report_that_is_made_while_tasks_are_dropped_adds_up() {
    const TASKS: usize = 2000;
    for round in 0..200 {
        let (clock, shelf) = (ManualClock::new(), Shelf::default());
        let group: TaskGroup<Error, Shelf> = TaskGroup::builder(&clock.root())
            .on_failure(OnFailure::Isolate)
            .build_on(shelf.clone());
        let watched = Arc::new(AtomicUsize::new(0));
        for _ in 0..TASKS {
            let dropped = CountDrop(Arc::clone(&watched));
            group.spawn(async move |_ctx| {
                let _dropped = dropped;
                Ok(())
            });
        }
        let mut shutdown = pin!(group.shutdown("deploy", Duration::ZERO));
        assert!(poll_once(shutdown.as_mut()).is_pending(), "they may come to an await yet");
        let tasks = std::mem::take(&mut *shelf.0.lock().expect("no panic"));
        let dropper = std::thread::spawn(move || drop(tasks));
        while watched.load(Ordering::Relaxed) < round * 8 {
            std::hint::spin_loop();
        }
        clock.advance(Duration::from_secs(1));
        let report = block_on(shutdown);
        let text = report.to_string();
        assert!(report.lost() <= report.failed(), "round {round}: {text}");
        assert_eq!(report.lost() + report.unlisted(), TASKS, "round {round}: {text}");
        assert!(text.starts_with("0 finished, 0 of them failed; 0 aborted, 0 abandoned"), "{text}");
        dropper.join().expect("no panic");
    }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An error whose drop spawns into its group, which has ended: that is recorded.
struct Asks(Option<std::sync::Weak<TaskGroup<Asks, Shelf>>>, Arc<AtomicUsize>);

impl Drop for Asks {
    fn drop(&mut self) {
        let Some(group) = self.0.take().and_then(|group| group.upgrade()) else { return };
        // On another thread, so that a lock that is held is a failure of this test, and no hang.
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            group.spawn_thread(|_ctx| Ok(()));
            drop(group);
            let _ = tell.send(());
        });
        if told.recv_timeout(Duration::from_secs(10)).is_ok() {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asks")
    }
}

impl std::fmt::Display for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asks")
    }
}

impl std::error::Error for Asks {}

#[test]
fn c31_an_error_that_is_not_kept_is_dropped_outside_the_groups_lock() {
    const TASKS: usize = 20;
    let asked = Arc::new(AtomicUsize::new(0));
    let group: TaskGroup<Asks, Shelf> = TaskGroup::new(&Context::background());
    let group = Arc::new(group);
    for _ in 0..TASKS {
        let (weak, asked) = (Arc::downgrade(&group), Arc::clone(&asked));
        group.spawn_thread(move |ctx| {
            ctx.done().wait();
            Err(Asks(Some(weak), asked))
        });
    }
    group.cancel_with("enough");
    while !group.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(asked.load(Ordering::SeqCst), TASKS - 16, "those that are not kept");
}

/// A task that waits for the sender's drop, then spawns another one in its own group.
fn spawns_one_more(
    group: &Arc<Group>,
    more: impl FnOnce(&Group) + Send + 'static,
) -> mpsc::Sender<()> {
    let (go, gone) = mpsc::channel();
    let weak = Arc::downgrade(group);
    group.spawn_thread(move |_ctx| {
        let _ = gone.recv();
        let group = weak.upgrade().expect("the test keeps it");
        more(&group);
        Ok(())
    });
    go
}

#[test]
fn a_task_of_a_closed_group_can_spawn_in_it() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = || {
        let ran = Arc::clone(&ran);
        move || {
            ran.fetch_add(1, Ordering::SeqCst);
        }
    };
    let limited = TaskGroup::builder(&Context::background()).limit(1).build();
    for group in [Group::new(&Context::background()), limited] {
        ran.store(0, Ordering::SeqCst);
        let group = Arc::new(group);
        let [one, other, last] = [count(), count(), count()];
        let go = spawns_one_more(&group, move |group| {
            // No future is left at this moment, and this thread is the last one.
            group.spawn_thread(move |_ctx| {
                one();
                Ok(())
            });
            group.spawn(async move |_ctx| {
                other();
                Ok(())
            });
            let task = async move |_ctx| {
                last();
                Ok(())
            };
            if let Err(full) = group.try_spawn(task) {
                assert!(full.is_full());
                group.spawn(full.into_task());
            }
        });
        group.close();
        drop(go);
        while !group.is_empty() {
            std::thread::yield_now();
        }
        let watch = group.watch();
        Arc::into_inner(group).expect("no task has it").join_blocking().expect("none failed");
        assert_eq!((watch.is_over(), ran.load(Ordering::SeqCst)), (true, 3));
    }
}

#[test]
fn a_tree_of_tasks_in_a_closed_group_runs_to_its_last_leaf() {
    fn node(group: &Arc<Group>, depth: usize, ran: &Arc<AtomicUsize>) {
        let (weak, ran) = (Arc::downgrade(group), Arc::clone(ran));
        group.spawn(async move |_ctx| {
            ran.fetch_add(1, Ordering::SeqCst);
            if depth > 0 {
                let group = weak.upgrade().expect("the test keeps it");
                node(&group, depth - 1, &ran);
                node(&group, depth - 1, &ran);
            }
            Ok(())
        });
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let group = Arc::new(Group::new(&Context::background()));
    node(&group, 5, &ran);
    group.close();
    while !group.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(ran.load(Ordering::SeqCst), 63);
}

#[test]
fn a_task_that_comes_from_outside_into_a_closed_group_is_told_of() {
    let refusing = || {
        let group = Arc::new(Group::new(&Context::background()));
        let go = spawns_one_more(&group, |_| {});
        group.close();
        group.spawn_thread(|_ctx| unreachable!());
        group.spawn(async |_ctx| unreachable!());
        let back = group.try_spawn(async |_ctx| unreachable!()).expect_err("closed");
        assert!(back.is_closed(), "it is handed back, so it is not counted");
        drop(go);
        while !group.is_empty() {
            std::thread::yield_now();
        }
        Arc::into_inner(group).expect("no task has it")
    };
    let err = refusing().join_blocking().expect_err("two were dropped");
    assert_eq!((err.refused(), err.failed(), err.ended().is_none()), (2, 0, true));
    assert_eq!(err.to_string(), "2 tasks were not begun: the group was closed");
    let report = block_on(refusing().shutdown("deploy", Duration::ZERO));
    assert_eq!((report.refused(), report.finished(), report.is_clean()), (2, 1, false));
    let text = report.to_string();
    assert_eq!(text, "1 finished, 0 of them failed; 0 aborted, 0 abandoned, and 2 refused");
}

#[test]
fn a_task_that_comes_when_its_group_has_ended_is_told_of_as_never_begun() {
    let group = Group::new(&Context::background());
    group.cancel_with("deploy");
    group.spawn_thread(|_ctx| unreachable!());
    let report = block_on(group.shutdown("again", Duration::ZERO));
    assert_eq!((report.unbegun(), report.refused(), report.is_clean()), (1, 0, false));
}

#[test]
fn a_thread_that_is_left_behind_is_no_member_that_can_spawn_from_elsewhere() {
    let group = Arc::new(Group::new(&Context::background()));
    let other = Arc::new(Group::new(&Context::background()));
    let weak = Arc::downgrade(&other);
    let waits = spawns_one_more(&other, |_| {});
    let go = spawns_one_more(&group, move |_| {
        let other = weak.upgrade().expect("the test keeps it");
        other.spawn_thread(|_ctx| unreachable!());
    });
    other.close();
    drop(go);
    while !group.is_empty() {
        std::thread::yield_now();
    }
    drop(waits);
    while !other.is_empty() {
        std::thread::yield_now();
    }
    let err = Arc::into_inner(other).expect("none has it").join_blocking();
    assert_eq!(err.expect_err("a task of another group is an outsider").refused(), 1);
}

#[test]
fn a_thread_that_stops_when_it_is_told_to_has_not_failed_whatever_its_error_is() {
    let (ctx, guard) = Context::background().with_cancel();
    let group: TaskGroup<anyhow::Error> = TaskGroup::new(&ctx);
    group.spawn_thread(|ctx| Err(ctx.done().wait().into()));
    let scope = std::thread::scope(|s| {
        let scope = s.spawn(|| {
            thread::scope(&ctx, |s| {
                s.spawn(|ctx| -> anyhow::Result<()> { Err(ctx.done().wait().into()) });
            })
        });
        guard.cancel_with("deploy");
        scope.join().expect("no panic")
    });
    for err in [scope.expect_err("told"), group.join_blocking().expect_err("told")] {
        assert_eq!((err.failed(), err.to_string()), (0, "context canceled: deploy".to_string()));
        assert!(err.ended().is_some());
    }
}

#[test]
fn a_report_names_the_first_of_many_tasks_and_counts_the_rest() {
    let clock = ManualClock::new();
    let runtime = Polled::default();
    let group: TaskGroup<Error, Polled> =
        TaskGroup::builder(&clock.root()).build_on(runtime.clone());
    for _ in 0..200 {
        group.spawn(async |_ctx| pending().await);
    }
    let mut shutdown = pin!(group.shutdown("deploy", Duration::ZERO));
    assert!(poll_once(shutdown.as_mut()).is_pending(), "they may come to an await yet");
    clock.advance(Duration::from_secs(1));
    let report = block_on(shutdown);
    assert!(report.abandoned().len() == 64 && !report.is_clean());
    let text = report.to_string();
    assert!(text.starts_with("0 finished, 0 of them failed; 0 aborted, 200 abandoned\n"), "{text}");
    assert_eq!(text.lines().count(), 1 + 64 + 1, "{text}");
    assert!(text.ends_with("\nabandoned: 136 more"), "{text}");
    // The tasks keep their runtime, and it keeps them.
    let kept = std::mem::take(&mut *runtime.0.0.lock().expect("no panic"));
    assert_eq!(kept.len(), 200);
}

/// Polls what it gets once, and keeps it.
#[derive(Clone, Default)]
struct Polled(Shelf);

impl Spawn for Polled {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let mut task = Box::pin(task);
        let _ = poll_once(task.as_mut());
        self.0.0.lock().expect("no panic").push(Box::new(task));
    }
}
