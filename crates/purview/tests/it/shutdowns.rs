//! The end of a service, in phases. Time is a manual clock's; who waits for what is the order of these lines.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use purview::shutdown::{Hold, Phase, Shutdown};
use purview::thread::block_on;
use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error, OnFailure, TaskGroup};

use crate::support::{Log, poll_once};

const SECOND: Duration = Duration::from_secs(1);

/// A service's usual four phases, with budgets of 1, 20, 5 and 5 seconds.
struct Service {
    clock: ManualClock,
    signal: CancelGuard,
    again: CancelGuard,
    phases: [Phase; 4],
    shutdown: Shutdown,
}

fn service() -> Service {
    let clock = ManualClock::new();
    let (told, signal) = clock.root().with_cancel();
    let (told_again, again) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&told).force_on(&told_again);
    let phases = [("stop accepting", 1), ("drain", 20), ("cancel", 5), ("close", 5)]
        .map(|(name, seconds)| shutdown.phase(name, SECOND * seconds));
    Service { clock, signal, again, phases, shutdown }
}

/// Whether each phase has begun.
fn begun(phases: &[Phase; 4]) -> [bool; 4] {
    [0, 1, 2, 3].map(|i| phases[i].context().is_done())
}

fn names(tasks: &[purview::TaskInfo]) -> Vec<&str> {
    tasks.iter().map(|task| task.name().unwrap_or("?")).collect()
}

#[test]
fn phases_begin_in_order_as_soon_as_all_that_the_one_before_waits_for_is_gone() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let listener = phases[0].hold("listener");
    let requests: Vec<Hold> = (0..3).map(|n| phases[1].hold(format!("request {n}"))).collect();
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(begun(&phases), [false; 4]);

    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(begun(&phases), [true, false, false, false]);
    clock.advance(SECOND / 2);
    drop(listener);
    assert_eq!(begun(&phases), [true, true, false, false], "at once");
    clock.advance(SECOND * 2);
    assert!(poll_once(run.as_mut()).is_pending());
    drop(requests);
    assert!(phases[2].context().is_done());
    let report = block_on(run);
    assert_eq!(begun(&phases), [true; 4]);
    assert_eq!(report.took(), SECOND * 5 / 2);
    let told: Vec<_> = report
        .phases()
        .iter()
        .map(|phase| (phase.name(), phase.finished(), phase.canceled()))
        .collect();
    assert_eq!(
        told,
        [("stop accepting", 1, 0), ("drain", 3, 0), ("cancel", 0, 0), ("close", 0, 0)]
    );
    let budgets: Vec<_> = report.phases().iter().map(|phase| phase.budget()).collect();
    assert_eq!(budgets, [1, 20, 5, 5].map(|seconds| SECOND * seconds));
    assert!(report.is_clean() && report.exit_code() == 0);
    for phase in &phases {
        let err = phase.context().err().expect("it began");
        assert_eq!(err.cause().expect("the signal's").to_string(), "SIGTERM");
    }
}

#[test]
fn a_phase_is_over_when_its_time_is_up_and_who_is_late_is_canceled_or_abandoned() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let (polite, stubborn) = (phases[1].hold("polite"), phases[1].hold("stubborn"));
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(begun(&phases), [true, true, false, false], "nothing held the first");
    clock.advance(SECOND * 19);
    assert_eq!(begun(&phases), [true, true, false, false]);
    clock.advance(SECOND);
    assert_eq!(begun(&phases), [true, true, true, false]);
    assert_eq!(
        phases[2].context().err().expect("it ended").to_string(),
        "context canceled: SIGTERM",
        "the signal, and not a deadline"
    );
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND);
    drop(polite);
    assert_eq!(begun(&phases), [true, true, true, false], "the other one is waited for");
    clock.advance(SECOND * 4);
    assert_eq!(begun(&phases), [true; 4]);
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND * 5);
    let report = block_on(run);
    let drain = &report.phases()[1];
    assert_eq!((drain.took(), drain.finished(), drain.canceled()), (SECOND * 20, 0, 1));
    assert_eq!(names(drain.canceled_tasks()), ["polite"]);
    assert_eq!(drain.canceled_tasks()[0].told(), Some(SECOND), "so long after it was told to stop");
    assert_eq!(names(report.abandoned()), ["stubborn"]);
    assert_eq!(report.abandoned()[0].location().file(), file!());
    assert_eq!(report.exit_code(), 1);
    let text = report.to_string();
    assert!(
        text.starts_with(
            "shut down in 30.000s: SIGTERM
stop accepting: 0.000ns of 1.000s; 0 finished, 0 canceled
drain: 20.000s of 20.000s; 0 finished, 1 canceled
cancel: 5.000s of 5.000s; 0 finished, 0 canceled
close: 5.000s of 5.000s; 0 finished, 0 canceled
canceled: task polite ("
        ),
        "{text}"
    );
    assert!(text.contains("\nabandoned: task stubborn ("), "{text}");
    drop(stubborn);
}

#[test]
fn a_second_signal_ends_everything_at_once_and_what_is_left_is_named() {
    let Service { signal, again, phases, shutdown, clock: _clock } = service();
    let _request = phases[1].hold("request 17");
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGINT");
    assert!(poll_once(run.as_mut()).is_pending());
    again.cancel_with("SIGINT again");
    let report = block_on(run);
    assert_eq!(begun(&phases), [true; 4]);
    let forced = report.forced().expect("it was").to_string();
    assert_eq!(forced, "context canceled: SIGINT again");
    assert_eq!(phases[3].context().err().expect("it ended").to_string(), forced);
    assert_eq!((names(report.abandoned()), report.exit_code()), (vec!["request 17"], 1));
    let text = report.to_string();
    assert!(text.starts_with("forced down after 0.000ns: SIGINT, then SIGINT again\n"), "{text}");
}

#[test]
fn a_force_before_the_beginning_is_the_beginning_too() {
    let Service { again, phases, shutdown, signal: _signal, clock: _clock } = service();
    again.cancel_with("SIGKILL is next");
    let report = shutdown.run_blocking();
    assert_eq!(begun(&phases), [true; 4]);
    assert_eq!(report.why().expect("it ended").to_string(), "context canceled: SIGKILL is next");
    assert!(!report.is_clean());
}

#[test]
fn the_phases_begin_in_time_even_if_nobody_runs_the_shutdown() {
    let Service { clock, signal, phases, shutdown: _shutdown, again: _again } = service();
    let _request = phases[1].hold("request");
    signal.cancel();
    clock.advance(SECOND);
    assert_eq!(begun(&phases), [true, true, false, false]);
    clock.advance(SECOND * 20);
    assert_eq!(begun(&phases), [true, true, true, false]);
}

#[test]
fn a_shutdown_that_is_dropped_begins_all_phases_and_lets_go_of_all_that_took_part() {
    let Service { phases, shutdown, signal: _signal, again: _again, clock: _clock } = service();
    let token = Arc::new(());
    let held = Arc::clone(&token);
    phases[3].on_begin("journal", async move |_ctx| {
        let _held = held;
        Ok::<(), io::Error>(())
    });
    let group: TaskGroup<Error> = TaskGroup::new(phases[0].context());
    let held = Arc::clone(&token);
    let watch = group.watch();
    group.spawn_thread(move |ctx| {
        let _held = held;
        Err(ctx.done().wait())
    });
    phases[0].own(group);
    drop(shutdown);
    assert_eq!(begun(&phases), [true; 4]);
    while Arc::strong_count(&token) > 1 {
        std::thread::yield_now();
    }
    while !watch.is_over() {
        std::thread::yield_now();
    }
}

#[test]
fn work_is_run_when_its_phase_begins_and_its_context_ends_with_the_phases_time() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let log = Log::default();
    for (phase, name) in [(3, "pool"), (0, "listener"), (3, "journal")] {
        let log = log.clone();
        phases[phase].on_begin(name, async move |ctx: Context| {
            log.add(name);
            assert!(!ctx.is_done());
            Ok::<(), io::Error>(())
        });
    }
    let late = log.clone();
    phases[3].on_begin("flush", async move |ctx: Context| {
        let err = ctx.done().await;
        late.add(format!("flush: {err}"));
        Ok::<(), io::Error>(())
    });
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending());
    assert!(log.take().is_empty(), "nothing is run before");
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(log.take(), ["listener", "pool", "journal"]);
    clock.advance(SECOND * 5);
    let report = block_on(run);
    assert_eq!(log.take(), ["flush: context canceled: SIGTERM"], "it has its word");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn work_that_fails_or_panics_or_comes_too_late_is_told_of_and_keeps_nobody_waiting() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    phases[0].on_begin("fails", async |_ctx| Err(io::Error::other("disk full")));
    phases[0].on_begin("panics", async |_ctx| -> Result<(), io::Error> { panic!("by accident") });
    let phase = phases[0].clone();
    phases[1].on_begin("panics at once", |_ctx| -> std::future::Ready<Result<(), io::Error>> {
        panic!("by accident")
    });
    phases[3].on_begin("adds", async move |_ctx| {
        phase.on_begin("too late", async |_ctx| Ok::<(), io::Error>(()));
        Ok::<(), io::Error>(())
    });
    signal.cancel();
    let report = shutdown.run_blocking();
    let mut failures: Vec<_> = report
        .failures()
        .iter()
        .map(|it| (it.name().unwrap_or("?"), it.cause().to_string()))
        .collect();
    failures.sort();
    let expected = [
        ("fails", "disk full"),
        ("panics", "panicked: by accident"),
        ("panics at once", "panicked: by accident"),
        ("too late", "came when the phase had begun"),
    ];
    assert_eq!(failures, expected.map(|(name, cause)| (name, cause.to_string())));
    assert!(report.abandoned().is_empty() && report.exit_code() == 1);
}

#[test]
fn work_that_does_not_end_is_dropped_at_the_very_end_and_named() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let token = Arc::new(());
    let held = Arc::clone(&token);
    phases[2].on_begin("deaf", async move |_ctx| -> Result<(), io::Error> {
        let _held = held;
        pending().await
    });
    let mut run = pin!(shutdown.run());
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND * 10);
    let report = block_on(run);
    assert_eq!((names(report.abandoned()), Arc::strong_count(&token)), (vec!["deaf"], 1));
}

#[test]
fn a_group_takes_no_more_when_its_phase_begins_and_is_told_of_by_its_tasks() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let group: Arc<TaskGroup<io::Error>> = Arc::new(
        TaskGroup::builder(phases[2].context())
            .name("workers")
            .on_failure(OnFailure::Isolate)
            .build(),
    );
    phases[1].own(Arc::clone(&group));
    let (end, ends) = mpsc::channel::<()>();
    group.spawn_thread_named("deaf", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    group.spawn_thread_named("wrong", |_ctx| Err(io::Error::other("disk full")));
    while group.len() > 1 {
        std::thread::yield_now();
    }
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending() && !group.is_closed());
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    assert!(group.is_closed() && !group.context().is_done(), "its phase is the third");
    clock.advance(SECOND * 30);
    let report = block_on(run);
    assert_eq!(names(report.abandoned()), ["workers", "deaf"]);
    assert_eq!(report.failures()[0].name(), Some("wrong"));
    drop(end);
}

#[test]
fn a_group_that_is_over_lets_the_phase_go_on_at_once() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let group: Arc<TaskGroup<Error>> = Arc::new(TaskGroup::new(phases[0].context()));
    for _ in 0..4 {
        group.spawn_thread(|ctx| Err(ctx.done().wait()));
    }
    phases[0].own(Arc::clone(&group));
    signal.cancel();
    let report = shutdown.run_blocking(); // and no time passes
    assert!(report.is_clean() && report.took() == Duration::ZERO, "{report}");
    assert_eq!(report.phases()[0].finished(), 1);
}

#[test]
fn a_service_within_a_service_has_phases_of_its_own_and_is_forced_when_its_time_is_up() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let mut inner = phases[1].nested("search");
    let flush = inner.phase("flush", SECOND * 3);
    let sync = inner.phase("sync", SECOND * 60);
    let (slow, slower) = (flush.hold("slow"), sync.hold("slower"));
    let mut inner = pin!(inner.run());
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending() && poll_once(inner.as_mut()).is_pending());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending() && poll_once(inner.as_mut()).is_pending());
    assert!(flush.context().is_done() && !sync.context().is_done());
    drop(slow);
    assert!(sync.context().is_done() && !phases[2].context().is_done(), "it is waited for");
    assert!(poll_once(inner.as_mut()).is_pending());
    clock.advance(SECOND * 20); // the drain's
    let theirs = block_on(inner);
    assert!(theirs.forced().is_some() && names(theirs.abandoned()) == ["slower"]);
    let report = block_on(run);
    let (name, told) = &report.nested()[0];
    assert_eq!((&**name, names(told.abandoned())), ("search", vec!["slower"]));
    assert_eq!(names(report.phases()[1].canceled_tasks()), ["search"]);
    assert!(!report.is_clean());
    assert!(report.to_string().contains("\nsearch: flush: "), "{report}");
    drop(slower);
}

#[test]
fn holds_that_come_late_are_waited_for_by_the_phases_that_are_left() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let mut run = pin!(shutdown.run());
    let drain = phases[1].hold("first");
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND * 20);
    let late = phases[0].hold("late");
    assert!(poll_once(run.as_mut()).is_pending());
    drop(drain);
    assert_eq!(begun(&phases), [true, true, true, false], "the late one is waited for");
    drop(late);
    let report = block_on(run);
    assert_eq!(names(report.phases()[0].canceled_tasks()), ["late"]);
    let _after_all = phases[0].hold("after all"); // for nobody
    let token = Arc::new(());
    let kept = Arc::clone(&token);
    phases[0].on_begin("after all", async move |_ctx| {
        drop(kept);
        Ok::<(), io::Error>(())
    });
    let group = Arc::new(TaskGroup::<Error>::new(&Context::background()));
    phases[0].own(Arc::clone(&group));
    assert!(group.is_closed(), "nobody would close it any more");
    assert_eq!((Arc::strong_count(&token), Arc::strong_count(&group)), (1, 1), "nor let it go");
}

#[test]
fn a_group_that_comes_when_its_phase_has_begun_is_closed_and_waited_for() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let mut run = pin!(shutdown.run());
    let drain = phases[1].hold("drain");
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    let group: Arc<TaskGroup<Error>> = Arc::new(TaskGroup::new(&Context::background()));
    let (end, ends) = mpsc::channel::<()>();
    group.spawn_thread_named("reader", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    phases[1].own(Arc::clone(&group));
    assert!(group.is_closed());
    drop(drain);
    assert_eq!(begun(&phases), [true, true, false, false], "the group is waited for");
    drop(end);
    assert!(block_on(run).is_clean());
}

#[test]
fn of_many_that_are_late_the_first_are_told_of_by_name_and_all_are_counted() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let holds: Vec<Hold> = (0..100).map(|n| phases[0].hold(n.to_string())).collect();
    let mut run = pin!(shutdown.run());
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND);
    drop(holds);
    let report = block_on(run);
    let [first, ..] = report.phases() else { panic!("four") };
    assert_eq!((first.canceled(), first.canceled_tasks().len()), (100, 64));
}

#[test]
fn a_shutdown_without_phases_waits_for_its_beginning() {
    let (signal, stop) = Context::background().with_cancel();
    let mut run = pin!(Shutdown::new(&signal).run());
    assert!(poll_once(run.as_mut()).is_pending());
    stop.cancel();
    assert!(block_on(run).is_clean());
}

#[test]
fn many_threads_hold_and_let_go_while_the_phases_begin() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let there = Arc::new(AtomicUsize::new(0));
    let report = std::thread::scope(|s| {
        for _ in 0..4 {
            let (phase, ctx) = (phases[1].clone(), phases[0].context().clone());
            let there = Arc::clone(&there);
            s.spawn(move || {
                while !ctx.is_done() {
                    let hold = phase.hold("request");
                    there.fetch_add(1, Ordering::Relaxed);
                    drop(hold);
                }
            });
        }
        while there.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        signal.cancel();
        shutdown.run_blocking()
    });
    assert_eq!(report.took(), Duration::ZERO, "{report}");
    assert!(phases[1].held().is_empty());
}

#[test]
fn a_task_of_a_group_that_a_phase_closed_may_spawn_the_rest_of_its_work() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let group: Arc<TaskGroup<io::Error>> = Arc::new(TaskGroup::new(&Context::background()));
    phases[1].own(Arc::clone(&group));
    let receipts = Arc::new(AtomicUsize::new(0));
    let (go, gone) = mpsc::channel::<()>();
    let (weak, written) = (Arc::downgrade(&group), Arc::clone(&receipts));
    group.spawn_thread_named("order", move |_ctx| {
        let _ = gone.recv();
        let group = weak.upgrade().expect("the phase owns it");
        group.spawn_thread_named("write the receipt", move |_ctx| {
            written.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        Ok(())
    });
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending() && group.is_closed());
    drop(go);
    let report = block_on(run);
    assert_eq!(receipts.load(Ordering::SeqCst), 1);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_task_that_a_closed_group_did_not_take_is_in_the_report() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let group: Arc<TaskGroup<io::Error>> =
        Arc::new(TaskGroup::builder(&Context::background()).name("workers").build());
    phases[0].own(Arc::clone(&group));
    let _drain = phases[1].hold("drain");
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending() && group.is_closed());
    group.spawn_thread(|_ctx| unreachable!());
    drop(_drain);
    let report = block_on(run);
    assert_eq!((report.refused(), report.is_clean(), report.exit_code()), (1, false, 1));
    assert!(report.to_string().ends_with("\nrefused: 1 task of workers"), "{report}");
}

#[test]
fn tasks_that_never_began_before_their_group_was_canceled_are_told_of_and_no_blemish() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let group: Arc<TaskGroup<Error>> =
        Arc::new(TaskGroup::builder(phases[0].context()).name("workers").limit(1).build());
    phases[0].own(Arc::clone(&group));
    for _ in 0..3 {
        group.spawn_thread(|ctx| Err(ctx.done().wait()));
    }
    signal.cancel_with("SIGTERM");
    let report = shutdown.run_blocking();
    assert_eq!((report.unbegun(), report.is_clean()), (2, true), "{report}");
    assert!(report.to_string().ends_with("\nnever begun: 2 tasks of workers"), "{report}");
}

#[test]
fn a_nested_shutdown_that_is_still_under_way_is_in_the_report_with_what_is_stuck() {
    let clock = ManualClock::new();
    let (told, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&told);
    let drain = shutdown.phase("drain", SECOND * 20);
    let mut search = drain.nested("search");
    let flush = search.phase("flush", SECOND * 60);
    let mut index = flush.nested("index");
    let merge = index.phase("merge", SECOND * 60);
    merge.on_begin("log", async |_ctx| Err(io::Error::other("disk full")));
    let (_writer, _segment) = (flush.hold("writer 7"), merge.hold("segment 3"));
    let mut runs = [Box::pin(index.run()), Box::pin(search.run())];
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending());
    for nested in &mut runs {
        assert!(poll_once(nested.as_mut()).is_pending());
    }
    clock.advance(SECOND * 20);
    // The outer one first: those within it have not heard of their end.
    let report = block_on(run);
    let [(name, search)] = report.nested() else { panic!("{report}") };
    assert_eq!((&**name, search.is_clean(), search.forced().is_some()), ("search", false, true));
    assert!(names(search.abandoned()).contains(&"writer 7"), "{report}");
    let [(name, index)] = search.nested() else { panic!("{report}") };
    assert_eq!((&**name, index.is_clean(), index.forced().is_some()), ("index", false, true));
    assert_eq!(names(index.abandoned()), ["segment 3"]);
    assert_eq!(index.failures()[0].cause().to_string(), "disk full");
    let text = report.to_string();
    assert!(text.contains("\nsearch: abandoned: task writer 7 ("), "{text}");
    assert!(text.contains("\nsearch: index: abandoned: task segment 3 ("), "{text}");
    assert!(text.contains("\nsearch: index: merge: 20.000s of 60.000s; "), "{text}");
}

#[test]
fn a_nested_shutdown_that_was_dropped_is_in_the_report_only_if_its_phase_had_begun() {
    let clock = ManualClock::new();
    let (told, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&told);
    let drain = shutdown.phase("drain", SECOND * 20);
    drop(drain.nested("never started"));
    let mut search = drain.nested("search");
    let flush = search.phase("flush", SECOND * 60);
    let _writer = flush.hold("writer 7");
    let mut nested = Box::pin(search.run());
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending() && poll_once(nested.as_mut()).is_pending());
    drop(nested);
    let report = block_on(run);
    let [(name, search)] = report.nested() else { panic!("{report}") };
    assert_eq!((&**name, names(search.abandoned())), ("search", vec!["writer 7"]));
    assert!(!report.is_clean());
}

#[test]
fn the_report_has_the_whole_chain_of_what_failed() {
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    let opened = || anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound));
    phases[0].on_begin("read", async move |_ctx| Err(opened().context("open x").context("start")));
    let group: TaskGroup<anyhow::Error> =
        TaskGroup::builder(&Context::background()).on_failure(OnFailure::Isolate).build();
    group.spawn_thread(move |_ctx| Err(opened().context("open y").context("start")));
    phases[0].own(group);
    signal.cancel_with("SIGTERM");
    let text = shutdown.run_blocking().to_string();
    assert!(text.contains("): start: open x: entity not found\n"), "{text}");
    assert!(text.ends_with("): start: open y: entity not found"), "{text}");
}

#[test]
fn work_that_stops_when_its_time_is_up_is_canceled_and_has_not_failed() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let _hold = phases[2].hold("cancel");
    phases[1].on_begin("flush", async |ctx: Context| anyhow::Ok(ctx.sleep(SECOND * 3600).await?));
    let mut run = pin!(shutdown.run());
    signal.cancel_with("SIGTERM");
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND * 20);
    assert!(poll_once(run.as_mut()).is_pending());
    drop(_hold);
    let report = block_on(run);
    assert_eq!(names(report.phases()[1].canceled_tasks()), ["flush"]);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_report_names_the_first_of_what_is_abandoned_and_counts_the_rest() {
    let Service { clock, signal, phases, shutdown, again: _again } = service();
    let holds: Vec<Hold> = (0..1000).map(|n| phases[1].hold(n.to_string())).collect();
    let mut run = pin!(shutdown.run());
    signal.cancel();
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(SECOND * 30);
    let report = block_on(run);
    assert_eq!(report.abandoned().len(), 64);
    let text = report.to_string();
    assert_eq!(text.lines().count(), 1 + 4 + 64 + 1, "{text}");
    assert!(text.ends_with("\nabandoned: 936 more"), "{text}");
    drop(holds);
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn a_shutdown_that_is_run_late_gives_work_its_time_from_then_on() {
    let clock = ManualClock::new();
    let (told, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&told);
    let _first = shutdown.phase("first", MILLISECOND * 100);
    let last = shutdown.phase("last", MILLISECOND * 100);
    let log = Log::default();
    let [flush, deaf] = [log.clone(), log.clone()];
    last.on_begin("flush", async move |ctx: Context| {
        ctx.sleep(MILLISECOND * 20).await?;
        flush.add("flushed");
        Ok::<(), Error>(())
    });
    last.on_begin("deaf", async move |ctx: Context| -> Result<(), Error> {
        ctx.done().await;
        deaf.add("told");
        pending().await
    });
    signal.cancel_with("SIGTERM");
    clock.advance(MILLISECOND * 500);
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending(), "its time begins now");
    clock.advance(MILLISECOND * 20);
    assert!(poll_once(run.as_mut()).is_pending());
    assert_eq!(log.take(), ["flushed"]);
    clock.advance(MILLISECOND * 80);
    let report = block_on(run);
    assert_eq!(log.take(), ["told"]);
    assert_eq!((names(report.abandoned()), report.failures().len()), (vec!["deaf"], 0));
    assert_eq!(report.took(), MILLISECOND * 600);
}

#[test]
fn a_shutdown_that_is_run_late_ends_when_its_last_work_does() {
    let clock = ManualClock::new();
    let (told, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&told);
    for name in ["first", "last"] {
        let phase = shutdown.phase(name, MILLISECOND * 100);
        phase.on_begin("flush", async move |ctx: Context| ctx.sleep(MILLISECOND * 20).await);
    }
    signal.cancel_with("SIGTERM");
    clock.advance(MILLISECOND * 500);
    let mut run = pin!(shutdown.run());
    assert!(poll_once(run.as_mut()).is_pending());
    clock.advance(MILLISECOND * 20);
    let report = block_on(run);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.took(), MILLISECOND * 520);
}

#[test]
fn a_force_that_comes_while_work_blocks_is_obeyed_when_it_returns_and_reported() {
    let Service { clock, signal, again, phases, shutdown } = service();
    let log = Log::default();
    let blocks = log.clone();
    let advanced = clock.clone();
    // Time goes by while the thread that runs the shutdown is in here.
    phases[0].on_begin("blocks", async move |_ctx| {
        blocks.add("blocks");
        advanced.advance(SECOND * 60);
        again.cancel_with("SIGINT again");
        Ok::<(), io::Error>(())
    });
    let next = log.clone();
    phases[3].on_begin("close", async move |_ctx| {
        next.add("close");
        Ok::<(), io::Error>(())
    });
    signal.cancel_with("SIGINT");
    let report = shutdown.run_blocking();
    assert_eq!(report.took(), SECOND * 60);
    let forced = report.forced().map(ToString::to_string);
    assert_eq!(forced.as_deref(), Some("context canceled: SIGINT again"));
    assert_eq!((log.take(), report.exit_code()), (vec!["blocks".to_string()], 1));
    let text = report.to_string();
    assert!(text.starts_with("forced down after 60.000s: SIGINT, then SIGINT again\n"), "{text}");
    assert_eq!(names(report.abandoned()), ["close"], "it was not begun");
}

#[test]
fn a_phase_that_is_over_keeps_nothing_of_a_shutdown_within_it() {
    /// An error that is kept where its failure is.
    #[derive(Debug)]
    struct Kept(#[expect(dead_code, reason = "counted")] Arc<()>);
    impl std::fmt::Display for Kept {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("kept")
        }
    }
    impl std::error::Error for Kept {}
    /// Runs each task at once, on the thread that spawns it.
    #[derive(Default)]
    struct Here;
    impl purview::Spawn for Here {
        fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
            block_on(task);
        }
    }
    let Service { signal, phases, shutdown, clock: _clock, again: _again } = service();
    signal.cancel_with("SIGTERM");
    drop(shutdown.run_blocking());
    let kept = Arc::new(());
    let mut late = phases[0].nested("late");
    let flush = late.phase("flush", SECOND);
    let error = Kept(Arc::clone(&kept));
    let group: TaskGroup<Kept, Here> = TaskGroup::new(&Context::background());
    group.spawn(async move |_ctx| Err(error));
    flush.own(group);
    let report = late.run_blocking();
    assert_eq!((report.failures().len(), report.forced().is_some()), (1, true));
    drop((report, flush));
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[test]
fn a_nested_shutdown_that_ends_while_the_outer_one_reads_it_is_in_the_report_whole() {
    const HOLDS: usize = 300;
    for round in 0..200 {
        let clock = ManualClock::new();
        let (told, signal) = clock.root().with_cancel();
        let mut shutdown = Shutdown::new(&told);
        let drain = shutdown.phase("drain", SECOND);
        let mut search = drain.nested("search");
        let flush = search.phase("flush", SECOND * 60);
        let mut index = flush.nested("index");
        let merge = index.phase("merge", SECOND * 60);
        let _segment = merge.hold("segment 3");
        // It takes time to read these: the inner one its own, the outer one first some of its own.
        let hold_each = |phase: &Phase, count| -> Vec<Hold> {
            (0..count).map(|n: usize| phase.hold(n.to_string())).collect()
        };
        let _holds = [hold_each(&flush, HOLDS), hold_each(&drain, round * 2 * HOLDS / 200)];
        signal.cancel_with("SIGTERM");
        let mut run = pin!(shutdown.run());
        let mut nested = Box::pin(search.run());
        assert!(poll_once(run.as_mut()).is_pending() && poll_once(nested.as_mut()).is_pending());
        let report = std::thread::scope(|s| {
            s.spawn(|| block_on(nested));
            clock.advance(SECOND);
            block_on(run)
        });
        let [(_, search)] = report.nested() else { panic!("round {round}: {report}") };
        assert_eq!(names(search.abandoned()).len(), 64, "round {round}: {report}");
        assert_eq!(search.abandoned_count(), HOLDS + 1, "round {round}: {report}");
        let [(_, index)] = search.nested() else { panic!("round {round}: {report}") };
        assert_eq!(names(index.abandoned()), ["segment 3"], "round {round}");
    }
}

#[test]
fn a_report_that_is_made_while_holds_are_dropped_has_each_of_them_once() {
    const HOLDS: usize = 500;
    for round in 0..100 {
        let Service { signal, again, phases, shutdown, clock: _clock } = service();
        let holds: Vec<Hold> = (0..HOLDS).map(|n| phases[1].hold(n.to_string())).collect();
        let mut run = pin!(shutdown.run());
        signal.cancel_with("SIGTERM");
        assert!(poll_once(run.as_mut()).is_pending());
        let dropped = AtomicUsize::new(0);
        let report = std::thread::scope(|s| {
            s.spawn(|| {
                for hold in holds {
                    drop(hold);
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            });
            while dropped.load(Ordering::Relaxed) < round * 4 {
                std::hint::spin_loop();
            }
            again.cancel_with("SIGTERM again");
            block_on(run)
        });
        let drain = &report.phases()[1];
        let counts = [drain.finished(), drain.canceled(), report.abandoned_count()];
        assert_eq!(counts.iter().sum::<usize>(), HOLDS, "round {round}: {counts:?}");
    }
}
