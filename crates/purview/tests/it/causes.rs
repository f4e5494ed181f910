//! Errors, causes, origins; C37.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use purview::{By, Cause, Context, Error, ErrorKind, TaskGroup};

#[derive(Debug)]
struct Wrapped(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "while fetching")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn c37_every_error_names_its_origin_context_place_instant_and_manner() {
    let before = Instant::now();
    let line = line!() + 1;
    let (ctx, guard) = Context::background().derive().name("request").build();
    let (child, _guard) = ctx.with_cancel();
    drop(guard);
    let err = child.err().expect("done");
    let origin = err.origin();
    assert_eq!(origin.context(), ctx.id());
    assert_eq!(origin.name(), Some("request"));
    assert_eq!((origin.location().file(), origin.location().line()), (file!(), line));
    assert!(origin.at() >= before && origin.at() <= Instant::now());
    assert_eq!(origin.by(), By::GuardDropped);

    let line = line!() + 1;
    let (timed, _guard) = Context::background().with_timeout(Duration::ZERO);
    let err = timed.err().expect("done");
    assert_eq!(err.origin().location().line(), line);
    assert_eq!(Some(err.origin().at()), timed.deadline());

    let (ctx, guard) = Context::background().with_cancel();
    let handle = guard.handle();
    let line = line!() + 1;
    handle.cancel_with("x");
    assert_eq!(ctx.err().expect("done").origin().location().line(), line);
    let text = format!("{:?}", ctx.err().expect("done"));
    for part in ["Canceled", "\"x\"", "causes.rs", "Call", "ContextId("] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_error_says_the_standards_text_then_the_cause() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled");
    assert!(ctx.err().expect("done").source().is_none());
    let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    let err = ctx.err().expect("done");
    assert_eq!(err.to_string(), "context deadline exceeded");
    assert_eq!(err.kind(), ErrorKind::DeadlineExceeded);
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(io::Error::new(io::ErrorKind::NotFound, "no such table"));
    let err = ctx.err().expect("done");
    assert_eq!(err.to_string(), "context canceled: no such table");
    let cause = err.cause().expect("given");
    assert_eq!(
        cause.downcast_ref::<io::Error>().map(io::Error::kind),
        Some(io::ErrorKind::NotFound)
    );
    assert!(err.source().is_none(), "what is printed is no source");
}

/// What prints an error with all its sources, as `anyhow` does with `{:#}`.
fn whole(err: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(err))
}

#[test]
fn an_error_prints_its_cause_or_has_it_as_its_source_and_never_both() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(io::Error::other("disk full"));
    assert_eq!(whole(ctx.err().expect("done")), "context canceled: disk full");
    assert_eq!(whole(io::Error::from(ctx.err().expect("done"))), "context canceled: disk full");

    // What is behind a cause is not printed, and so it is a source.
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(Wrapped("no route".into()));
    let err = ctx.err().expect("done");
    assert_eq!(err.to_string(), "context canceled: while fetching");
    assert_eq!(whole(err), "context canceled: while fetching: no route");
    let (below, guard) = Context::background().with_cancel();
    guard.cancel_with(ctx.err().expect("done"));
    let err = below.err().expect("done");
    assert_eq!(whole(err), "context canceled: context canceled: while fetching: no route");
}

#[test]
fn what_a_group_says_is_said_once_and_the_end_is_found_in_it() {
    let (ctx, guard) = Context::background().with_cancel();
    let group: TaskGroup<Error> = TaskGroup::new(&ctx);
    group.spawn_thread(|ctx| Err(ctx.done().wait()));
    guard.cancel_with(Wrapped("no route".into()));
    let err = group.join_blocking().expect_err("it was told");
    let found = Error::find(&err).expect("the end").cause().expect("given");
    assert!(found.downcast_ref::<Wrapped>().is_some());
    assert!(Error::find(&io::Error::other(Wrapped(Box::new(err)))).is_some());
    let group: TaskGroup<Error> = TaskGroup::new(&ctx);
    group.spawn_thread(|_ctx| Ok(()));
    let err = group.join_blocking().expect_err("it had ended");
    assert_eq!(whole(err), "context canceled: while fetching: no route");

    let group: TaskGroup<Wrapped> = TaskGroup::new(&Context::background());
    group.spawn_thread(|_ctx| Err(Wrapped(io::Error::other(Wrapped("no route".into())).into())));
    let err = group.join_blocking().expect_err("one failed");
    let text = err.to_string();
    assert!(text.ends_with("): while fetching: no route"), "{text}");
    assert_eq!(whole(err), text);

    // A failure that is the end of another context, as of a request's own time.
    let (request, _guard) = Context::background().with_timeout(Duration::ZERO);
    let group: TaskGroup<io::Error> = TaskGroup::new(&Context::background());
    let ended = request.err().expect("done");
    group.spawn_thread(move |_ctx| Err(io::Error::other(ended)));
    let err = group.join_blocking().expect_err("one failed");
    assert!(Error::find(&err).is_some_and(Error::is_deadline_exceeded));
    let wrapped = anyhow::Error::from(err).context("report");
    assert!(Error::find(wrapped.as_ref()).is_some_and(Error::is_deadline_exceeded));
}

#[test]
fn a_chain_that_never_ends_or_repeats_itself_is_printed_all_the_same() {
    /// Its own source, without an end.
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "again")
        }
    }
    impl std::error::Error for Endless {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self)
        }
    }
    /// One of those that print their source and have it, too.
    #[derive(Debug)]
    struct Both(Wrapped);
    impl fmt::Display for Both {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "failed ({})", self.0)
        }
    }
    impl std::error::Error for Both {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let of = |cause: Cause| {
        let group: TaskGroup<Box<dyn std::error::Error + Send + Sync>> =
            TaskGroup::new(&Context::background());
        group.spawn_thread(move |_ctx| Err(Box::new(Shown(cause))));
        group.join_blocking().expect_err("it failed").to_string()
    };
    assert!(of(Cause::from(Endless)).contains("): again"));
    assert!(
        of(Cause::from(Both(Wrapped("no route".into()))))
            .ends_with("): failed (while fetching): no route")
    );
}

/// A cause as an error.
#[derive(Debug)]
struct Shown(Cause);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[test]
fn a_cause_is_made_of_text_or_any_error_and_is_passed_on_as_it_is() {
    let (a, a_guard) = Context::background().with_cancel();
    let (b, b_guard) = Context::background().with_cancel();
    a_guard.cancel_with(String::from("because"));
    let cause = a.err().expect("done").cause().expect("given").clone();
    b_guard.cancel_with(cause.clone());
    assert_eq!(b.err().expect("done").to_string(), "context canceled: because");
    // The end of one context as the cause of another's.
    let (c, c_guard) = Context::background().with_cancel();
    c_guard.cancel_with(b.err().expect("done"));
    let err = c.err().expect("done");
    assert_eq!(err.to_string(), "context canceled: context canceled: because");
    assert!(err.cause().expect("given").downcast_ref::<Error>().is_some());
    let boxed: Box<dyn std::error::Error + Send + Sync> = "boxed".into();
    assert_eq!(Cause::from(boxed).to_string(), "boxed");
}

#[test]
fn an_error_is_found_in_any_chain_also_behind_io_errors() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("stop");
    let err = ctx.err().expect("done");
    let plain = Wrapped(Box::new(err.clone()));
    assert_eq!(Error::find(&plain).map(|e| e.origin().context()), Some(ctx.id()));
    let through_io =
        Wrapped(Box::new(io::Error::other(Wrapped(Box::new(io::Error::from(err.clone()))))));
    assert!(Error::find(&through_io).is_some_and(Error::is_canceled));
    assert!(Error::find(&err).is_some());
    assert!(Error::find(&fmt::Error).is_none());
    assert!(Error::find(&io::Error::from(io::ErrorKind::NotFound)).is_none());
}

#[test]
fn as_an_io_error_a_deadline_is_timed_out_and_a_cancel_is_never_interrupted() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    assert_eq!(io::Error::from(ctx.err().expect("done")).kind(), io::ErrorKind::Other);
    let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    assert_eq!(io::Error::from(ctx.err().expect("done")).kind(), io::ErrorKind::TimedOut);
}

#[test]
fn an_error_outlives_its_tree_and_says_the_same() {
    let err = {
        let clock = purview::time::ManualClock::new();
        let (ctx, _guard) = clock
            .root()
            .derive()
            .name("gone")
            .timeout(Duration::from_secs(1))
            .deadline_cause("slow")
            .build();
        let (child, _guard) = ctx.with_grace(Duration::from_secs(1));
        clock.advance(Duration::from_secs(2));
        child.err().expect("done")
    };
    let copy = err.clone();
    drop(err);
    assert_eq!(copy.to_string(), "context deadline exceeded: slow");
    assert_eq!(copy.origin().name(), Some("gone"));
    assert_eq!(copy.origin().by(), By::GraceOver);
    assert!(format!("{copy:?}").contains("causes.rs"));
}

#[test]
fn a_long_chain_of_ends_is_shown_on_a_small_stack() {
    const ENDS: usize = 100_000;
    crate::support::on_a_small_stack(|| {
        let mut err = Cause::from("the first");
        for n in 0..ENDS {
            let (ctx, guard) = Context::background().with_cancel();
            guard.cancel_with(err);
            let ended = ctx.err().expect("done");
            err = if n % 2 == 0 { Cause::from(ended) } else { Cause::from(io::Error::from(ended)) };
        }
        let text = err.to_string();
        assert!(text == "context canceled: ".repeat(ENDS) + "the first", "{} bytes", text.len());
        assert!(err.source().is_none(), "it is all in the text");
        assert!(Error::find(&*err).is_some());
        for text in [format!("{err:?}"), format!("{err:#?}")] {
            let (first, cut) = (text.matches("kind: Canceled").count(), text.len());
            assert!((2..100).contains(&first) && cut < 3_000_000, "{first}, {cut} bytes");
            assert!(text.contains("causes.rs") && text.contains(": the first"));
        }
        let group: TaskGroup<io::Error> = TaskGroup::new(&Context::background());
        group.spawn_thread(move |_ctx| Err(io::Error::other(err.to_string())));
        assert!(group.join_blocking().expect_err("one failed").to_string().ends_with("the first"));
    });
}

#[test]
fn ends_in_one_another_are_shown_whole_for_debugging() {
    let end_by = |cause: Cause| {
        let (ctx, guard) = Context::background().derive().name("request").build();
        guard.cancel_with(cause);
        ctx.err().expect("done")
    };
    let first = end_by(io::Error::other("disk full").into());
    let last = end_by(io::Error::from(end_by(first.clone().into())).into());
    let text = format!("{last:?}");
    assert_eq!(text.matches("cause: Some(").count(), 3);
    assert_eq!(text.matches("name: Some(\"request\")").count(), 3);
    assert_eq!(text.matches("Custom { kind: Other, error: ").count(), 2);
    assert!(text.contains(&format!("{first:?}")) && !text.contains("canceled"), "{text}");
}

/// An error that cannot be shown.
#[derive(Debug)]
struct Mute;

impl fmt::Display for Mute {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

impl std::error::Error for Mute {}

#[test]
fn an_error_that_cannot_be_shown_is_a_failure_and_no_panic() {
    use std::fmt::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.to_string().contains("a Display implementation returned an error") {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        others(info);
    }));
    let (ctx, guard) = Context::background().with_cancel();
    let group: TaskGroup<Mute> = TaskGroup::new(&ctx);
    group.spawn_thread(|ctx| {
        ctx.done().wait();
        Err(Mute)
    });
    guard.cancel_with("deploy");
    let err = group.join_blocking().expect_err("one failed");
    assert_eq!((err.failed(), PANICS.load(Ordering::SeqCst)), (1, 0));
    let mut text = String::new();
    let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write!(text, "{err}")));
    assert!(written.expect("no panic").is_err(), "{text}");
}
