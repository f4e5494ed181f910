//! C13, C24: what holds what holds what is dropped without recursion, however long the chain: each once, and by the time that
//! the outermost drop returns.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purview::{Cause, Context, Error, Key, OnDone};

use crate::support::on_a_small_stack;

const LINKS: usize = 100_000;

/// Something of the user's that counts its drops, and holds the rest of a chain.
struct Link {
    dropped: Arc<AtomicUsize>,
    _held: Box<dyn Held>,
}

trait Held: Send + Sync {}
impl<T: Send + Sync> Held for T {}

impl Link {
    fn new(dropped: &Arc<AtomicUsize>, held: impl Held + 'static) -> Link {
        Link { dropped: Arc::clone(dropped), _held: Box::new(held) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link")
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link")
    }
}

impl std::error::Error for Link {}

static KEY: Key<Link> = Key::new("link");
static OTHER: Key<Link> = Key::new("other");

fn canceled_with(cause: impl Into<Cause>) -> Error {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(cause);
    ctx.err().expect("it is done")
}

fn expired_with(cause: impl Into<Cause>) -> Error {
    let root = Context::background();
    let (ctx, _guard) = root.derive().timeout(Duration::ZERO).deadline_cause(cause).build();
    ctx.err().expect("it is done")
}

/// Builds a chain of [`LINKS`], each of which counts its drop, on a small stack, and drops it.
fn is_dropped_flat<T: Send + Sync + 'static>(
    first: impl FnOnce(Link) -> T + Send + 'static,
    next: impl Fn(usize, T, &dyn Fn(T) -> Link) -> T + Send + 'static,
) {
    on_a_small_stack(move || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let made = std::cell::Cell::new(1);
        let link = |held: T| {
            made.set(made.get() + 1);
            Link::new(&dropped, held)
        };
        let mut chain = first(Link::new(&dropped, ()));
        for n in 0..LINKS {
            chain = next(n, chain, &link);
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(chain);
        assert_eq!(dropped.load(Ordering::Relaxed), made.get(), "each once, by now");
        assert_eq!(Arc::strong_count(&dropped), 1);
    });
}

#[test]
fn c13_errors_that_cause_each_other_are_dropped_flat() {
    is_dropped_flat(canceled_with, |_, err, _| canceled_with(err));
    is_dropped_flat(expired_with, |n, err, link| match n % 5 {
        0 => canceled_with(err),
        1 => canceled_with(std::io::Error::from(err)),
        2 => expired_with(err),
        3 => expired_with(link(err)),
        _ => canceled_with(link(err)),
    });
}

#[test]
fn c13_causes_that_hold_causes_are_dropped_flat() {
    is_dropped_flat(Cause::from, |_, cause, link| Cause::from(link(cause)));
}

#[test]
fn c13_values_that_hold_contexts_are_dropped_flat() {
    let root = Context::background;
    is_dropped_flat(
        move |link| root().with_value(&KEY, link),
        move |_, ctx, link| root().with_value(&KEY, link(ctx)),
    );
    is_dropped_flat(
        move |link| root().with_value(&KEY, link),
        move |n, ctx, link| match n % 3 {
            0 => root().with_cancel().0.with_value(&KEY, link(ctx)).with_cancel().0,
            1 => {
                let other = link(ctx.clone());
                root().derive().value(&KEY, link(ctx)).value(&OTHER, other).build().0
            }
            _ => Context::any_of([&ctx, &ctx.with_value(&KEY, link(ctx.clone()))]).0,
        },
    );
}

#[test]
fn c13_callbacks_that_hold_registrations_are_dropped_flat() {
    fn register(link: Link) -> OnDone {
        let (ctx, guard) = Context::background().with_cancel();
        drop(guard.disarm());
        ctx.on_done(move |_| drop(link))
    }
    is_dropped_flat(register, |_, registration, link| register(link(registration)));
}

#[test]
fn c13_contexts_and_errors_that_hold_each_other_are_dropped_flat() {
    fn value(link: Link) -> Context {
        Context::background().with_value(&KEY, link)
    }
    enum Either {
        Context { _it: Context },
        Error(Error),
    }
    is_dropped_flat(
        |link| Either::Context { _it: value(link) },
        |n, held, link| match (n % 3, held) {
            (0, held) => Either::Context { _it: value(link(held)) },
            (1, Either::Error(err)) => Either::Error(canceled_with(err)),
            (1, held) => Either::Error(canceled_with(link(held))),
            (_, held) => Either::Error(expired_with(link(held))),
        },
    );
}

/// A drop inside a drop is no later than it was written, unless it is deep inside others.
#[test]
fn c24_a_drop_in_a_values_drop_has_dropped_when_it_returns() {
    struct Looks {
        ctx: Option<Context>,
        dropped: Arc<AtomicUsize>,
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            drop(self.ctx.take());
            assert_eq!(self.dropped.fetch_add(1, Ordering::Relaxed), 1);
        }
    }
    static LOOKS: Key<Looks> = Key::new("looks");
    let dropped = Arc::new(AtomicUsize::new(0));
    let inner = Context::background().with_value(&KEY, Link::new(&dropped, ()));
    let looks = Looks { ctx: Some(inner), dropped: Arc::clone(&dropped) };
    drop(Context::background().with_value(&LOOKS, looks));
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
}
