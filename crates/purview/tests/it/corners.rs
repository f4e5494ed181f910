//! Task groups in corners: room that is given back by who does not come, things that go before the end is told, reports of what
//! never began, user code where a group asks it something.

use std::future::{pending, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, Weak, mpsc};
use std::task::Poll;
use std::time::Duration;

use purview::thread::block_on;
use purview::time::ManualClock;
use purview::{Context, Error, GroupWatch, OnFailure, Spawn, TaskGroup, thread};

use crate::support::poll_once;

/// A runtime: each task has a thread.
#[derive(Clone, Default)]
struct Threads;

impl Spawn for Threads {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        std::thread::spawn(move || block_on(task));
    }
}

/// A runtime that is polled by hand: none of its tasks wakes itself.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<Task>>>);

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Spawn for ByHand {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.0.lock().expect("no panic").push(Box::pin(task));
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(&self, task: F) -> io::Result<()> {
        self.spawn(async { task() });
        Ok(())
    }
}

impl ByHand {
    /// Polls each once, and lets go of those that are over.
    fn poll(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        tasks.retain_mut(|task| poll_once(task.as_mut()).is_pending());
        self.0.lock().expect("no panic").extend(tasks);
    }

    /// As a runtime does that is shut down.
    fn shut_down(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        drop(tasks);
    }
}

/// Runs `code` on a thread, and fails where that hangs.
fn watched<R: Send + 'static>(code: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = tell.send(code());
    });
    match told.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it panicked"))
        }
    }
}

// ── room ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A group of one room: one task is there and waits for its context, one is waited for by a `spawn_ready`, one waits behind it.
type Hands = TaskGroup<io::Error, ByHand>;

fn full() -> (Hands, ByHand, mpsc::Sender<()>, Arc<AtomicBool>) {
    let (runtime, (end, ends), begun) = (ByHand::default(), mpsc::channel(), Arc::default());
    let group = Hands::builder(&Context::background()).limit(1).build_on(runtime.clone());
    let ends = Mutex::new(ends);
    group.spawn(async move |_ctx| {
        poll_fn(|_| match ends.lock().expect("no panic").try_recv() {
            Err(mpsc::TryRecvError::Empty) => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        })
        .await
    });
    runtime.poll();
    (group, runtime, end, begun)
}

fn begins(
    begun: &Arc<AtomicBool>,
) -> impl FnOnce(Context) -> std::future::Ready<io::Result<()>> + use<> {
    let begun = Arc::clone(begun);
    move |_ctx| {
        begun.store(true, Ordering::SeqCst);
        std::future::ready(Ok(()))
    }
}

#[test]
fn who_was_given_room_and_does_not_come_leaves_it_to_those_that_wait() {
    let (group, runtime, end, begun) = full();
    let mut ready = Box::pin(group.spawn_ready(async |_ctx| Ok(())));
    assert!(poll_once(ready.as_mut()).is_pending());
    group.spawn(begins(&begun));
    drop(end);
    runtime.poll(); // the first ends, and the room is kept for who waits for it
    runtime.poll();
    assert!(!begun.load(Ordering::SeqCst));
    drop(ready); // who does not come
    runtime.poll();
    assert!(begun.load(Ordering::SeqCst), "there is room");
    assert!(group.is_empty());
    watched(move || group.join_blocking()).expect("none failed");
}

#[test]
fn who_was_given_room_in_a_group_that_is_closed_leaves_it_to_those_that_wait() {
    let (group, runtime, end, begun) = full();
    let mut ready = Box::pin(group.spawn_ready(async |_ctx| Ok(())));
    assert!(poll_once(ready.as_mut()).is_pending());
    group.spawn(begins(&begun));
    group.close();
    drop(end);
    runtime.poll();
    let Poll::Ready(Err(refused)) = poll_once(ready.as_mut()) else { panic!("it is closed") };
    assert!(refused.is_closed());
    drop((ready, refused));
    runtime.poll();
    assert!(begun.load(Ordering::SeqCst), "it came before the close");
    watched(move || group.join_blocking()).expect("none failed");
}

#[test]
fn what_waits_for_room_that_was_given_to_who_does_not_come_goes_when_the_group_ends() {
    let (group, runtime, end, begun) = full();
    let mut ready = Box::pin(group.spawn_ready(async |_ctx| Ok(())));
    assert!(poll_once(ready.as_mut()).is_pending());
    group.spawn(begins(&begun));
    drop(end);
    runtime.poll();
    group.cancel_with("enough");
    let Poll::Ready(Err(refused)) = poll_once(ready.as_mut()) else { panic!("it has ended") };
    assert!(refused.ended().is_some());
    drop((ready, refused));
    runtime.poll();
    let err = watched(move || group.join_blocking()).expect_err("one never began");
    assert!(!begun.load(Ordering::SeqCst));
    assert_eq!(err.ended().expect("that is why").to_string(), "context canceled: enough");
}

#[test]
fn room_is_given_in_order_of_arrival_however_tasks_are_spawned() {
    let runtime = ByHand::default();
    let group = Hands::builder(&Context::background()).limit(1).build_on(runtime.clone());
    let order = Arc::new(Mutex::new(Vec::new()));
    let task = |name: &'static str| {
        let order = Arc::clone(&order);
        async move |_ctx: Context| {
            order.lock().expect("no panic").push(name);
            Ok(())
        }
    };
    group.spawn(task("first"));
    let mut ready = Box::pin(group.spawn_ready(task("ready")));
    assert!(poll_once(ready.as_mut()).is_pending());
    group.spawn(task("spawned"));
    // Somebody who waits for room all the time, as a server does that is busy.
    for _ in 0..4 {
        runtime.poll();
        let Poll::Ready(Ok(())) = poll_once(ready.as_mut()) else { break };
        ready = Box::pin(group.spawn_ready(task("ready")));
        assert!(poll_once(ready.as_mut()).is_pending());
    }
    assert_eq!(*order.lock().expect("no panic"), ["first", "ready"]);
    runtime.poll();
    assert!(poll_once(ready.as_mut()).is_ready(), "and then it is his turn again");
    runtime.poll();
    assert_eq!(*order.lock().expect("no panic"), ["first", "ready", "spawned", "ready"]);
    drop(ready);
    watched(move || group.join_blocking()).expect("none failed");
}

#[test]
fn who_comes_to_a_group_that_is_closed_and_full_does_not_wait() {
    let (group, runtime, end, begun) = full();
    group.close();
    let mut ready = Box::pin(group.spawn_ready(begins(&begun)));
    let Poll::Ready(Err(refused)) = poll_once(ready.as_mut()) else { panic!("it is closed") };
    assert!(refused.is_closed());
    drop((ready, end));
    runtime.poll();
    watched(move || group.join_blocking()).expect("none failed");
}

// ── what goes before the end is told ───────────────────────────────────────────────────────────────────────────────────────

/// Looks, when it is dropped, whether its group is over.
struct Looks(GroupWatch, Arc<Mutex<Vec<bool>>>);

impl Drop for Looks {
    fn drop(&mut self) {
        self.1.lock().expect("no panic").push(self.0.is_over());
    }
}

#[test]
fn what_a_task_holds_that_never_begins_goes_before_its_group_is_over() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let runtime = ByHand::default();
    let group = Hands::builder(&Context::background()).limit(1).build_on(runtime.clone());
    let looks = || Looks(group.watch(), Arc::clone(&seen));

    // Blocking, and dropped by its runtime.
    let held = looks();
    group.spawn_blocking(move |_ctx| {
        let _held = &held;
        Ok(())
    });
    // Behind it, a future and a thread that wait for room.
    let held = looks();
    group.spawn(async move |_ctx| {
        let _held = &held;
        Ok(())
    });
    let held = looks();
    group.spawn_thread(move |_ctx| {
        let _held = &held;
        Ok(())
    });
    group.cancel_with("enough");
    group.close();
    runtime.shut_down();
    let watch = group.watch();
    drop(group);
    assert!(watch.is_over());
    assert_eq!(*seen.lock().expect("no panic"), [false; 3]);

    // Those that wait, where nobody else is left.
    seen.lock().expect("no panic").clear();
    let group = Hands::builder(&Context::background()).limit(1).build_on(runtime.clone());
    let room = Arc::new(());
    let held = Arc::clone(&room);
    group.spawn_thread(move |ctx| {
        let _held = held;
        ctx.done().wait();
        Ok(())
    });
    let held = Looks(group.watch(), Arc::clone(&seen));
    group.spawn(async move |_ctx| {
        let _held = &held;
        Ok(())
    });
    let watch = group.watch();
    drop(group);
    while !watch.is_over() {
        std::thread::yield_now();
    }
    assert_eq!(*seen.lock().expect("no panic"), [false]);
    assert_eq!(Arc::strong_count(&room), 1);
}

#[test]
fn a_group_that_is_closed_and_has_no_task_is_over_though_it_is_kept() {
    let group = TaskGroup::<io::Error>::new(&Context::background());
    let watch = group.watch();
    assert!(!watch.is_over());
    group.close();
    assert!(watch.is_over());
    drop(group);
}

#[test]
fn a_group_may_be_dropped_shut_down_and_even_joined_by_one_of_its_own_tasks() {
    watched(|| {
        for way in ["drop", "shutdown", "join"] {
            let clock = ManualClock::new();
            let (above, ends) = clock.root().with_cancel();
            let mut builder = TaskGroup::<io::Error, Threads>::builder(&above);
            if way == "join" {
                builder = builder.grace(Duration::from_secs(1)); // or it would wait for itself for ever
            }
            let (group, token) = (builder.build(), Arc::new(()));
            let watch = group.watch();
            let handed = Arc::new(Mutex::new(None));
            let (held, hand) = (Arc::clone(&token), Arc::clone(&handed));
            group.spawn(async move |_ctx| {
                let _held = held;
                let group: TaskGroup<io::Error, Threads> = poll_fn(|task| {
                    task.waker().wake_by_ref();
                    hand.lock().expect("no panic").take().map_or(Poll::Pending, Poll::Ready)
                })
                .await;
                match way {
                    "drop" => drop(group),
                    "shutdown" => drop(group.shutdown("enough", Duration::ZERO).await),
                    _ => drop(group.join().await),
                }
                pending().await
            });
            *handed.lock().expect("no panic") = Some(group);
            if way == "join" {
                while handed.lock().expect("no panic").is_some() {
                    std::thread::yield_now();
                }
                ends.cancel();
                clock.advance(Duration::from_secs(1));
            }
            while !watch.is_over() {
                std::thread::yield_now();
            }
            assert_eq!(Arc::strong_count(&token), 1, "{way}");
        }
    });
}

// ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_report_of_tasks_that_their_runtime_dropped_is_not_clean() {
    let runtime = ByHand::default();
    let group = Hands::builder(&Context::background()).build_on(runtime.clone());
    group.spawn_named("lost", async |_ctx| pending().await);
    runtime.poll();
    runtime.shut_down();
    let report = block_on(group.shutdown("deploy", Duration::from_secs(60)));
    assert_eq!((report.failed(), report.lost()), (1, 1));
    assert_eq!((report.finished(), report.is_clean()), (0, false), "it did not end by itself");
    let text = report.to_string();
    assert!(
        text.starts_with("0 finished, 0 of them failed; 0 aborted, 0 abandoned, and 1 lost"),
        "{text}"
    );
    assert!(text.contains("\nfailed: task lost ("), "{text}");
}

#[test]
fn a_report_of_tasks_that_never_began_is_not_clean() {
    let runtime = ByHand::default();
    let group = Hands::builder(&Context::background()).limit(1).build_on(runtime.clone());
    for _ in 0..3 {
        group.spawn(async |ctx: Context| {
            ctx.done().await;
            Ok(())
        });
    }
    runtime.poll();
    let mut shutdown = pin!(group.shutdown("deploy", Duration::from_secs(60)));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    runtime.poll();
    let Poll::Ready(report) = poll_once(shutdown.as_mut()) else { panic!("all are over") };
    assert_eq!((report.finished(), report.unbegun(), report.is_clean()), (1, 2, false));
    assert!(report.to_string().ends_with("0 abandoned, and 2 never begun"), "{report}");
}

#[test]
fn who_is_dropped_before_it_begins_was_told_when_all_were() {
    let (clock, runtime) = (ManualClock::new(), ByHand::default());
    let group = Hands::builder(&clock.root()).build_on(runtime.clone());
    group.spawn(async |_ctx| pending().await);
    group.cancel_with("enough");
    clock.advance(Duration::from_secs(2));
    let mut shutdown = pin!(group.shutdown("deploy", Duration::ZERO));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    runtime.poll();
    let Poll::Ready(report) = poll_once(shutdown.as_mut()) else { panic!("all are over") };
    let [aborted] = report.aborted() else { panic!("one: {report}") };
    let told = (aborted.age(), aborted.told());
    assert_eq!(told, (Duration::ZERO, Some(Duration::from_secs(2))));
}

#[test]
fn the_first_failure_that_is_told_is_the_cause_that_all_see() {
    for _ in 0..2_000 {
        let group: TaskGroup<io::Error> = TaskGroup::new(&Context::background());
        let both = Arc::new(Barrier::new(2));
        for text in ["one", "two"] {
            let both = Arc::clone(&both);
            group.spawn_thread(move |_ctx| {
                both.wait();
                Err(io::Error::other(text))
            });
        }
        let ctx = group.context().clone();
        let err = group.join_blocking().expect_err("both failed");
        let cause = ctx.err().expect("ended").cause().expect("the first's").to_string();
        assert_eq!((err.failed(), err.failures()[0].cause().to_string()), (2, cause));
    }
}

// ── user code ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Does something when it is asked for its source.
struct Asked(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asked")
    }
}

impl std::error::Error for Asked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        (self.0)();
        None
    }
}

#[test]
fn an_error_that_uses_its_group_when_it_is_asked_for_its_source_locks_nobody_out() {
    watched(|| {
        let group = Arc::new(TaskGroup::<Asked, Threads>::new(&Context::background()));
        let weak: Weak<TaskGroup<Asked, Threads>> = Arc::downgrade(&group);
        group.cancel_with("enough");
        // Started before it ended, as far as a group can tell: by a thread that was on its way.
        let group = Arc::new(TaskGroup::<Asked, Threads>::new(&Context::background()));
        let same = Arc::downgrade(&group);
        drop(weak);
        group.spawn_thread(move |ctx| {
            ctx.done().wait();
            Err(Asked(Box::new(move || {
                if let Some(group) = same.upgrade() {
                    assert!(group.try_spawn(async |_ctx| Ok(())).is_err());
                }
            })))
        });
        group.cancel_with("enough");
        while !group.is_empty() {
            std::thread::yield_now();
        }
        let group = Arc::into_inner(group).expect("nobody else has it");
        assert_eq!(group.join_blocking().expect_err("it failed").failed(), 1);
    });
}

#[test]
fn an_error_that_panics_when_it_is_asked_for_its_source_is_a_failure_all_the_same() {
    let group: TaskGroup<Asked> = TaskGroup::new(&Context::background());
    group.spawn_thread(|ctx| {
        ctx.done().wait();
        Err(Asked(Box::new(|| panic!("in a source"))))
    });
    group.cancel_with("enough");
    assert_eq!(watched(move || group.join_blocking()).expect_err("it failed").failed(), 1);
}

#[test]
fn a_scope_in_a_drop_while_its_thread_unwinds_cancels_nothing_by_itself() {
    struct Cleanup(Arc<OnceLock<&'static str>>);
    impl Drop for Cleanup {
        fn drop(&mut self) {
            let ended = Arc::clone(&self.0);
            let result: Result<(), purview::GroupError<Error>> =
                thread::scope(&Context::background(), |s| {
                    let note = move |err: &Error| {
                        ended.set(err.origin().location().file()).expect("one end")
                    };
                    s.context().on_done(note).detach();
                });
            assert!(result.is_ok());
        }
    }
    let by = Arc::new(OnceLock::new());
    let cleanup = Cleanup(Arc::clone(&by));
    let unwound = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _cleanup = cleanup;
        panic!("by accident");
    }));
    assert!(unwound.is_err());
    let by = by.get().expect("it has ended");
    assert!(by.ends_with("group.rs"), "by the end of its group, and not by {by}");
}

#[test]
fn a_wait_inside_a_wait_takes_no_wake_up_from_it() {
    watched(|| {
        let (outer, outer_ends) = Context::background().with_cancel();
        let (inner, inner_ends) = Context::background().with_cancel();
        let (mut first, mut outer_done) = (true, pin!(outer.done()));
        block_on(poll_fn(|task| {
            if outer_done.as_mut().poll(task).is_ready() {
                return Poll::Ready(());
            }
            if std::mem::take(&mut first) {
                outer_ends.cancel(); // this wakes the outer wait
                std::thread::scope(|s| {
                    s.spawn(|| {
                        while inner.statistics().waiters() == 0 {
                            std::thread::yield_now();
                        }
                        inner_ends.cancel();
                    });
                    inner.done().wait(); // on the same thread
                });
            }
            Poll::Pending
        }));
    });
}

// ── many ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_deep_backlog_on_a_runtime_that_runs_tasks_where_they_are_spawned_needs_no_stack() {
    #[derive(Default)]
    struct Inline;
    impl Spawn for Inline {
        fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
            block_on(task);
        }
    }
    const TASKS: usize = 100_000;
    let run = || {
        let group: TaskGroup<io::Error, Inline> = TaskGroup::builder(&Context::background())
            .limit(1)
            .on_failure(OnFailure::Isolate)
            .build();
        let ran = Arc::new(AtomicUsize::new(0));
        let (go, goes) = mpsc::channel::<()>();
        group.spawn_thread(move |_ctx| {
            let _ = goes.recv();
            Ok(())
        });
        for _ in 0..TASKS {
            let ran = Arc::clone(&ran);
            group.spawn(async move |_ctx| {
                ran.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other("each"))
            });
        }
        drop(go);
        let err = group.join_blocking().expect_err("all but one failed");
        assert_eq!((ran.load(Ordering::Relaxed), err.failed()), (TASKS, TASKS));
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(run);
    thread.expect("a thread").join().expect("nothing overflows");
}
