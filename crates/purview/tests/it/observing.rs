//! C36–C39: Debug, statistics, observers.

use std::pin::pin;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use purview::observe::{Observer, install};
use purview::time::ManualClock;
use purview::{Context, ContextId, Error, Key};

use crate::support::poll_once;

static USER: Key<u64> = Key::new("user_id");
static SHOWN: Key<u64> = Key::new("shown").visible();

#[test]
fn c36_debug_prints_the_path_and_the_state_and_no_value_unless_its_key_is_visible() {
    assert_eq!(format!("{:?}", Context::background()), "Context(background, live)");
    assert_eq!(format!("{:?}", Context::todo()), "Context(todo, live)");
    let clock = ManualClock::new();
    let (a, guard) = clock.root().with_cancel();
    let (b, _guard) = a.with_timeout(Duration::from_millis(1980));
    let c = b.with_value(&USER, 123).with_value(&SHOWN, 7);
    assert_eq!(
        format!("{c:?}"),
        "Context(manual.cancel.timeout(1.98s).value(user_id).value(shown=7), live)"
    );
    let (d, _guard) = c.derive().name("cleanup").grace(Duration::from_secs(5)).build();
    let (e, _guard) = Context::any_of([&d, &a]);
    assert!(format!("{e:?}").contains(".cleanup:grace(5s).any_of, live)"), "{e:?}");
    assert!(format!("{:?}", e.without_cancel()).ends_with(".any_of.without_cancel, live)"));
    guard.cancel_with("shutting down");
    assert_eq!(
        format!("{c:?}"),
        "Context(manual.cancel.timeout(1.98s).value(user_id).value(shown=7), context canceled: shutting down)"
    );
}

#[test]
fn c36_a_timeout_is_shown_as_it_was_given_whether_it_binds_or_not() {
    let hours = |hours: u32| Duration::from_secs(3600) * hours;
    let (outer, _guard) = Context::background().with_timeout(hours(5));
    for own in [1, 5, 9] {
        let (inner, _guard) = outer.with_timeout(hours(own));
        let shown = format!("{inner:?}");
        let left = shown.rsplit("timeout(").next().and_then(|rest| rest.split('s').next());
        let left: f64 = left.and_then(|left| left.parse().ok()).expect("seconds");
        assert!((left / 3600.0 - f64::from(own)).abs() < 0.5, "{shown}");
    }
}

#[test]
fn c36_debug_of_a_long_path_shows_both_ends() {
    let mut ctx = Context::background().with_value(&USER, 1);
    for _ in 0..100 {
        ctx = ctx.with_cancel().1.disarm().context().clone();
    }
    let shown = format!("{ctx:?}");
    assert!(shown.starts_with("Context(background.value(user_id).cancel."), "{shown}");
    assert!(shown.ends_with(".cancel.cancel, live)"), "{shown}");
    let segments = shown.matches("cancel").count() + 2; // and background, and the value
    let hidden: usize = shown
        .split("…(")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|n| n.parse().ok())
        .expect("a count");
    assert_eq!(segments + hidden, 102, "{shown}");
    let nearest = shown.split("more).").nth(1).map(|rest| rest.matches("cancel").count());
    assert_eq!(nearest, Some(16), "{shown}");
}

#[test]
fn c36_debug_never_blocks_while_the_tree_is_being_canceled() {
    let (ctx, guard) = Context::background().with_cancel();
    let shown = ctx.clone();
    let other = ctx.clone();
    let _registration = ctx.on_done(move |err| {
        // From within, and from another thread that the callback waits for.
        let text = format!("{shown:?} {err:?}");
        assert!(text.contains("context canceled"));
        thread::spawn(move || format!("{other:?}")).join().expect("does not block");
    });
    guard.cancel();
}

#[test]
fn c38_counts_are_exact_when_nothing_happens() {
    let (ctx, guard) = Context::background().with_cancel();
    let kept: Vec<_> = (0..5).map(|_| ctx.with_cancel()).collect();
    let registrations: Vec<_> = (0..3).map(|_| ctx.on_done(|_| {})).collect();
    {
        let mut a = pin!(ctx.done());
        let mut b = pin!(ctx.done());
        let _ = (poll_once(a.as_mut()), poll_once(b.as_mut()), poll_once(a.as_mut()));
        let statistics = ctx.statistics();
        assert_eq!(
            (statistics.children(), statistics.waiters(), statistics.callbacks()),
            (5, 2, 3)
        );
    }
    drop((kept, registrations));
    let statistics = ctx.statistics();
    assert_eq!((statistics.children(), statistics.waiters(), statistics.callbacks()), (0, 0, 0));
    let _child = ctx.with_cancel();
    ctx.on_done(|_| {}).detach();
    guard.cancel();
    let statistics = ctx.statistics();
    assert_eq!((statistics.children(), statistics.waiters(), statistics.callbacks()), (0, 0, 0));
}

/// Keeps what it hears. The process has one observer, and other tests run beside this one: each looks for its own contexts.
struct Recorder;

type Event = (ContextId, String);

fn events() -> &'static Mutex<Vec<Event>> {
    static EVENTS: OnceLock<Mutex<Vec<Event>>> = OnceLock::new();
    EVENTS.get_or_init(Mutex::default)
}

impl Recorder {
    fn add(id: ContextId, what: String) {
        let mut events = events().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if events.len() < 1_000_000 {
            events.push((id, what));
        }
    }
}

impl Observer for Recorder {
    fn derived(&self, ctx: &Context, parent: ContextId) {
        // Off the locks: it may ask the parent's own list for something.
        let _ = (ctx.statistics(), ctx.is_done());
        if ctx.name() == Some("observed") {
            Recorder::add(ctx.id(), format!("derived from {parent}"));
        }
    }

    fn done(&self, ctx: ContextId, error: &Error) {
        if error.origin().name() == Some("observed") {
            Recorder::add(ctx, format!("done: {error}"));
        }
    }

    fn dropped(&self, ctx: ContextId) {
        let known = {
            let events = events().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            events.iter().rev().take(1000).any(|(id, _)| *id == ctx)
        };
        if known {
            Recorder::add(ctx, "dropped".into());
        }
    }
}

#[test]
fn c39_an_observer_learns_of_every_derive_end_and_drop() {
    assert!(install(Box::new(Recorder)).is_ok());
    assert!(install(Box::new(Recorder)).is_err(), "one for the process, for good");
    let root = Context::background();
    let (ctx, guard) = root.derive().name("observed").build();
    let (child, child_guard) = ctx.derive().name("observed").build();
    let layer = child.with_value(&USER, 1);
    let (leaf, leaf_guard) = ctx.with_cancel();
    let leaf_id = leaf.id();
    let (expired, expired_guard) =
        root.derive().name("observed").timeout(Duration::from_nanos(1)).build();
    let ids = [ctx.id(), child.id(), layer.id(), expired.id()];
    guard.cancel_with("x");
    while !expired.is_done() {}
    let (born_done, born_done_guard) = ctx.derive().name("observed").build();
    let (zero, zero_guard) = root.derive().name("observed").timeout(Duration::ZERO).build();
    let born = [born_done.id(), zero.id()];
    drop((born_done, born_done_guard, zero, zero_guard));
    let expired_guard = expired_guard.disarm();
    drop((leaf, leaf_guard, layer, child, child_guard, ctx, guard, expired, expired_guard));
    let heard = events().lock().expect("no panic").clone();
    let of = |id: ContextId| -> Vec<String> {
        heard.iter().filter(|(of, _)| *of == id).map(|(_, what)| what.clone()).collect()
    };
    assert_eq!(of(ids[0]), ["derived from #1", "done: context canceled: x", "dropped"]);
    assert_eq!(
        of(ids[1]),
        [format!("derived from {}", ids[0]), "done: context canceled: x".into(), "dropped".into()]
    );
    assert_eq!(of(leaf_id), ["done: context canceled: x", "dropped"], "its name is not looked for");
    assert_eq!(
        of(born[0]),
        [format!("derived from {}", ids[0]), "done: context canceled: x".into(), "dropped".into()]
    );
    assert_eq!(of(born[1]), ["derived from #1", "done: context deadline exceeded", "dropped"]);
    assert_eq!(of(ids[2]), [format!("derived from {}", ids[1]), "dropped".into()]);
    assert_eq!(of(ids[3]), ["derived from #1", "done: context deadline exceeded", "dropped"]);
}
