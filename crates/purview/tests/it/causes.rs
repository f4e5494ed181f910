//! Errors, causes, origins; C37.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use purview::{By, Cause, Context, Error, ErrorKind};

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
    let source = err.source().expect("a cause");
    assert_eq!(
        source.downcast_ref::<io::Error>().map(io::Error::kind),
        Some(io::ErrorKind::NotFound)
    );
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
