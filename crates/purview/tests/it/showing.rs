//! C36: what `Debug` shows of everything that is not a context.

use std::fmt::Debug;
use std::future::pending;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use purview::shutdown::Shutdown;
use purview::time::ManualClock;
use purview::{Context, Key, OnFailure, Semaphore, TaskGroup};

static USER: Key<u64> = Key::new("user");

const SECOND: Duration = Duration::from_secs(1);
const CANCEL: &str = "Context(manual.cancel, live)";

fn shown(it: &dyn Debug) -> String {
    format!("{it:?}")
}

#[test]
fn c36_what_belongs_to_a_context_shows_which() {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().with_cancel();
    assert_eq!(shown(&guard), format!("CancelGuard({CANCEL})"));
    assert_eq!(shown(&guard.handle()), format!("CancelHandle({CANCEL})"));
    assert_eq!(shown(&ctx.done()), format!("Done {{ context: {CANCEL} }}"));
    assert_eq!(shown(&ctx.sleep(SECOND)), format!("Sleep {{ context: {CANCEL}, remaining: 1s }}"));
    assert_eq!(
        shown(&ctx.run(pending::<()>())),
        format!("Run {{ context: {CANCEL}, finished: false, .. }}")
    );
    assert_eq!(shown(&ctx.on_done(|_| ())), format!("OnDone {{ context: {CANCEL}, .. }}"));
    assert!(shown(&ctx.id()).starts_with("ContextId("));
    assert_eq!(shown(&USER), r#"Key("user")"#);
    let scope = purview::thread::scope::<_, io::Error>(&ctx, |scope| shown(scope));
    assert!(scope.is_ok_and(|shown| shown.starts_with("Scope { context: Context(manual.cancel.")));
    assert_eq!(shown(&clock), format!("ManualClock({:?})", clock.now()));
}

#[test]
fn c36_a_plan_shows_what_has_been_said_so_far() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_cancel();
    let plan = ctx.derive().name("job").timeout(2 * SECOND).reserve(SECOND).value(&USER, 1);
    assert_eq!(
        shown(&plan),
        format!(
            "Derive {{ parent: {CANCEL}, name: Some(\"job\"), timeout: Some(2s), deadline: None, \
             reserve: Some(1s), grace: None, values: 1, .. }}"
        )
    );
}

#[test]
fn c36_of_a_timeout_and_a_deadline_the_path_shows_the_one_that_binds() {
    let clock = ManualClock::new();
    let (root, now) = (clock.root(), clock.now());
    let show = |ctx: Context| shown(&ctx);
    let both = |timeout, deadline| {
        show(root.derive().timeout(timeout * SECOND).deadline(now + deadline * SECOND).build().0)
    };
    assert!(both(2, 3).starts_with("Context(manual.timeout(2.00s)"), "{}", both(2, 3));
    assert!(both(3, 2).starts_with("Context(manual.deadline(2.00s)"), "{}", both(3, 2));
    assert!(both(2, 2).starts_with("Context(manual.deadline(2.00s)"), "{}", both(2, 2));
    let forever = show(root.derive().timeout(Duration::MAX).build().0);
    assert!(forever.starts_with("Context(manual.timeout,"), "{forever}");
}

#[test]
fn c36_an_error_shows_what_whence_and_why() {
    let clock = ManualClock::new();
    let (ctx, guard) = clock.root().derive().name("job").build();
    guard.cancel_with("enough");
    let err = ctx.err().expect("canceled");
    let text = shown(&err);
    assert!(text.starts_with("Error { kind: Canceled, cause: Some(\"enough\"), "), "{text}");
    let origin = shown(err.origin());
    assert!(text.contains(&origin), "{text}");
    assert!(origin.starts_with("Origin { context: ContextId("), "{origin}");
    assert!(origin.contains("name: Some(\"job\"), location: "), "{origin}");
    assert!(origin.contains("showing.rs:"), "{origin}");
}

#[test]
fn c36_a_semaphore_and_a_permit_show_how_many_they_are() {
    let places = Semaphore::new(3);
    let permit = places.try_acquire(2).expect("free");
    assert_eq!(shown(&places), "Semaphore { size: 3, .. }");
    assert_eq!(shown(&permit), "Permit { permits: 2, .. }");
}

#[test]
fn c38_statistics_show_what_they_count() {
    let (ctx, _guard) = Context::background().with_cancel();
    let children: [_; 3] = std::array::from_fn(|_| ctx.with_cancel());
    let registration = ctx.on_done(|_| {});
    assert_eq!(shown(&ctx.statistics()), "Statistics { children: 3, waiters: 0, callbacks: 1 }");
    drop((children, registration));
}

#[test]
fn c36_a_shutdown_its_phases_and_who_holds_them() {
    let mut shutdown = Shutdown::new(&ManualClock::new().root());
    let phase = shutdown.phase("drain", SECOND);
    assert!(phase.held().is_empty());
    let hold = phase.hold("listener");
    assert_eq!(phase.held().iter().map(|it| it.name()).collect::<Vec<_>>(), [Some("listener")]);
    assert_eq!(shown(&hold), "Hold { phase: \"drain\", .. }");
    let text = shown(&phase);
    assert!(
        text.starts_with("Phase { name: \"drain\", budget: 1s, held: [task listener ("),
        "{text}"
    );
    assert_eq!(
        shown(&shutdown),
        "Shutdown { begin: Context(manual.cancel, live), phases: [\"drain\"], .. }"
    );
    drop(hold);
    assert!(phase.held().is_empty());
}

#[test]
fn c36_a_group_its_plan_its_tasks_and_what_became_of_them() {
    let (root, name) = (ManualClock::new().root(), "workers");
    let plan = TaskGroup::<io::Error>::builder(&root).name(name).limit(7).grace(SECOND);
    assert_eq!(
        shown(&plan),
        format!(
            "GroupBuilder {{ name: Some({name:?}), limit: {}, on_failure: {:?}, grace: {}, .. }}",
            shown(&Some(7)),
            OnFailure::default(),
            shown(&Some(SECOND))
        )
    );
    let group = plan.build();
    let watch = group.watch();
    assert_eq!(shown(&watch), "GroupWatch { name: Some(\"workers\"), tasks: [] }");
    let (release, held) = mpsc::channel::<()>();
    group.spawn_thread_named("first", move |_| {
        let _ = held.recv();
        Err(io::Error::other("broken"))
    });
    let text = shown(&watch);
    assert!(text.contains("tasks: [task first ("), "{text}");
    let ctx = shown(group.context());
    let open = format!("TaskGroup {{ context: {ctx}, tasks: 1, closed: false, .. }}");
    assert_eq!(shown(&group), open);
    group.close();
    assert_eq!(shown(&group), open.replace("false", "true"));
    let text = shown(&group.tasks());
    assert!(text.starts_with("[task first (") && text.contains(", running for 0"), "{text}");
    assert_eq!(shown(&group.stop_times()), "StopTimes { count: 0, median: None, p99: None }");
    drop(release);
    let err = group.join_blocking().expect_err("it failed");
    let text = shown(&err);
    assert!(text.starts_with("GroupError { failures: [task first ("), "{text}");
}
