//! Go's own tests of package `context`, asked of this crate.
//!
//! The 39 tests and the 23 cases of TestCause in Go 1.27 are the work of the Go Authors (BSD-3-Clause). None of their code is
//! here: what each of them asks is asked anew, in this crate's terms, and each test cites the one that it stands for.
//!
//! | Go | here |
//! |---|---|
//! | TestAllocs | `gos_ceilings_hold` in tests/alloc.rs, which counts in a process of its own |
//! | TestWithValueChecksKey | does not compile: a key is a `&'static Key<T>`, never nil, compared by address; see key.rs |
//! | TestInvalidDerivedFail | does not compile: a `Context` is never nil; `Option<Context>` has no methods to derive with |
//! | otherContext, customDoneContext, … | a struct that holds a `Context`; a [`Foreign`] source; `any_of` of the two |
//!
//! What Go's tests read from unexported fields is read from `statistics()` here, with these differences: a root has no list of
//! children, since it never ends; a callback counts as a callback, not as a child; a value layer has no node, so it shows the
//! counts of the context it was derived from.
//!
//! Time is a `ManualClock`'s. [`PATIENCE`] bounds what a deadlock would make endless; nothing waits for it otherwise.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{By, CancelGuard, Cause, Context, Error, ErrorKind, Key};

use crate::support::{Log, poll_once};

/// After this a test gives up and fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(1000 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

// ── what the tests have in common ──────────────────────────────────────────────────────────────────────────────────────

/// Live, by every way of asking.
#[track_caller]
fn assert_live(name: &str, ctx: &Context) {
    assert!(!ctx.is_done(), "{name} is done");
    assert!(ctx.err().is_none(), "{name} has an error");
    assert!(ctx.check().is_ok(), "{name} fails its check");
    assert!(poll_once(pin!(ctx.done())).is_pending(), "{name}.done() is ready");
}

/// Done, by every way of asking, of this kind and with this very cause.
#[track_caller]
fn assert_ended(name: &str, ctx: &Context, kind: ErrorKind, cause: Option<&Cause>) {
    assert!(ctx.is_done(), "{name} is live");
    let Poll::Ready(polled) = poll_once(pin!(ctx.done())) else { panic!("{name}.done() blocks") };
    let asked = ctx.err().unwrap_or_else(|| panic!("{name} has no error"));
    let Err(checked) = ctx.check() else { panic!("{name} passes its check") };
    for err in [polled, asked, checked] {
        assert_eq!(err.kind(), kind, "{name}: {err:?}");
        assert!(same(err.cause(), cause), "{name}: cause {:?}, not {cause:?}", err.cause());
    }
}

/// Whether it is one and the same cause, and not merely an equal one.
fn same(a: Option<&Cause>, b: Option<&Cause>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => std::ptr::addr_eq(&raw const **a, &raw const **b),
        _ => false,
    }
}

/// Runs `work` on a thread of its own. If that takes too long it has hung, and the test fails.
#[track_caller]
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || drop(sender.send(work())));
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a result is sent before the thread ends"),
        },
    }
}

/// Looks again and again, and now and then lets others run.
fn spin_until(mut seen: impl FnMut() -> bool) {
    while !(0..100).any(|_| seen()) {
        thread::yield_now();
    }
}

/// A user's own type around a context, where Go embeds the interface.
struct Request {
    ctx: Context,
}

impl Request {
    fn new(ctx: &Context) -> Request {
        Request { ctx: ctx.clone() }
    }
}

impl Deref for Request {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

/// Something that can be stopped and that this crate knows nothing of, but that calls back: Go's afterFuncContext.
#[derive(Default)]
struct Foreign {
    state: Mutex<ForeignState>,
}

#[derive(Default)]
struct ForeignState {
    stopped: bool,
    next: usize,
    callbacks: BTreeMap<usize, Box<dyn FnOnce() + Send>>,
}

impl Foreign {
    fn new() -> Arc<Foreign> {
        Arc::default()
    }

    fn with<R>(&self, access: impl FnOnce(&mut ForeignState) -> R) -> R {
        access(&mut self.state.lock().expect("no panic under this lock"))
    }

    fn stop(&self) {
        let callbacks = self.with(|state| {
            state.stopped = true;
            std::mem::take(&mut state.callbacks)
        });
        callbacks.into_values().for_each(|call| call());
    }

    fn is_stopped(&self) -> bool {
        self.with(|state| state.stopped)
    }

    fn registered(&self) -> usize {
        self.with(|state| state.callbacks.len())
    }

    /// Calls `call` when it stops; at once if it has.
    fn after(&self, call: impl FnOnce() + Send + 'static) -> usize {
        let (ticket, late) = self.with(|state| {
            state.next += 1;
            if state.stopped {
                return (state.next, Some(call));
            }
            state.callbacks.insert(state.next, Box::new(call));
            (state.next, None)
        });
        if let Some(call) = late {
            call();
        }
        ticket
    }

    fn forget(&self, ticket: usize) {
        let call = self.with(|state| state.callbacks.remove(&ticket));
        drop(call); // and with it a handle: not under the lock
    }
}

/// A context that ends when `foreign` stops. Whichever of the two ends first, nothing stays behind in the other.
fn under(foreign: &Arc<Foreign>) -> (Context, CancelGuard) {
    let (ctx, guard) = Context::background().with_cancel();
    let handle = guard.handle();
    let ticket = foreign.after(move || handle.cancel());
    let foreign = Arc::clone(foreign);
    ctx.on_done(move |_| foreign.forget(ticket)).detach();
    (ctx, guard)
}

/// A small xorshift, so that a seed tells all about a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }
}

/// A mark to be seen.
#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// A callback that must run at most once.
    fn setter(&self) -> impl FnOnce(&Error) + Send + use<> {
        let flag = self.clone();
        move |_| assert!(!flag.0.swap(true, Ordering::SeqCst), "called twice")
    }
}

// ── roots ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestBackground.
#[test]
fn background_is_never_done_and_says_its_name() {
    let ctx = Context::background();
    assert_live("background", &ctx);
    assert_eq!(format!("{ctx:?}"), "Context(background, live)");
}

/// Go: TestTODO.
#[test]
fn todo_is_never_done_and_says_its_name() {
    let ctx = Context::todo();
    assert_live("todo", &ctx);
    assert_eq!(format!("{ctx:?}"), "Context(todo, live)");
}

// ── parents and children ───────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestParentFinishesChild.
#[test]
fn a_parent_that_ends_ends_its_children_and_lets_them_go() {
    static KEY: Key<&str> = Key::new("key");
    // parent ─┬─ canceled
    //         ├─ layer ── timed
    //         └─ a callback
    let (parent, cancel) = Context::background().with_cancel();
    let (canceled, _canceled) = parent.with_cancel();
    let layer = parent.with_value(&KEY, "value");
    let (timed, _timed) = layer.with_timeout(LONG);
    let called = Flag::default();
    let callback = parent.on_done(called.setter());

    let all = [("parent", &parent), ("canceled", &canceled), ("layer", &layer), ("timed", &timed)];
    for (name, ctx) in all {
        assert_live(name, ctx);
    }
    let registered = parent.statistics();
    assert_eq!((registered.children(), registered.callbacks()), (2, 1));
    assert_eq!(layer.statistics(), registered, "a layer has no lists of its own");
    assert_eq!(timed.statistics().children(), 0);

    cancel.cancel();
    let registered = parent.statistics();
    assert_eq!((registered.children(), registered.callbacks()), (0, 0));
    for (name, ctx) in all {
        assert_ended(name, ctx, ErrorKind::Canceled, None);
        assert_eq!(ctx.err().unwrap().origin().context(), parent.id(), "{name}");
    }
    assert!(called.is_set() && !callback.stop());

    let late = parent.with_value(&KEY, "value");
    assert_ended("a layer on a done parent", &late, ErrorKind::Canceled, None);
    let (late, _late) = parent.with_cancel();
    assert_ended("a child of a done parent", &late, ErrorKind::Canceled, None);
    assert_eq!(parent.statistics().children(), 0, "which registers nothing");
}

/// Go: TestChildFinishesFirst.
#[test]
fn a_child_that_finishes_first_leaves_its_parent_alone() {
    let (cancelable, _guard) = Context::background().with_cancel();
    for (name, parent, listed) in
        [("background", &Context::background(), 0), ("cancelable", &cancelable, 1)]
    {
        let (child, cancel) = parent.with_cancel();
        let (sibling, _sibling) = parent.with_cancel();
        assert_live(name, parent);
        assert_live("child", &child);
        assert_eq!(parent.statistics().children(), 2 * listed, "{name}");

        cancel.cancel();
        assert_eq!(parent.statistics().children(), listed, "{name}");
        assert_ended("child", &child, ErrorKind::Canceled, None);
        assert_live(name, parent);
        assert_live("sibling", &sibling);
    }
}

/// Go: TestCancelRemoves.
#[test]
fn a_cancel_leaves_nothing_behind_in_the_parent() {
    let (parent, _guard) = Context::background().with_cancel();
    let counts = || (parent.statistics().children(), parent.statistics().callbacks());
    assert_eq!(counts(), (0, 0), "at first");

    let (_ctx, cancel) = parent.with_cancel();
    assert_eq!(counts(), (1, 0), "with a with_cancel child");
    cancel.cancel();
    assert_eq!(counts(), (0, 0), "after its cancel");

    let (_ctx, cancel) = parent.with_timeout(LONG);
    assert_eq!(counts(), (1, 0), "with a with_timeout child");
    cancel.cancel();
    assert_eq!(counts(), (0, 0), "after its cancel");

    let registration = parent.on_done(|_| unreachable!("stopped before the end"));
    assert_eq!(counts(), (0, 1), "with a callback");
    assert!(registration.stop());
    assert_eq!(counts(), (0, 0), "after its stop");
}

/// Go: TestCustomContextGoroutines. Go counts the goroutines that watch a foreign parent; here nothing ever watches: a
/// wrapper's children are its context's own, a merged context is a child of each parent, and a done parent has none.
#[test]
fn a_child_of_a_wrapper_is_registered_directly_and_nobody_watches() {
    let (parent, cancel) = Context::background().with_cancel();
    let (shutdown, _shutdown) = Context::background().with_cancel();
    let wrapper = Request::new(&parent);
    let counts = |ctx: &Context| {
        let registered = ctx.statistics();
        (registered.children(), registered.waiters(), registered.callbacks())
    };

    let wrapped = [wrapper.with_cancel(), wrapper.with_cancel(), wrapper.with_timeout(LONG)];
    assert_eq!(counts(&parent), (3, 0, 0));
    let (merged, _merged) = Context::any_of([&*wrapper, &shutdown]);
    let (below, _below) = Request::new(&merged).with_timeout(LONG);
    assert_eq!(counts(&parent), (4, 0, 0));
    assert_eq!(counts(&shutdown), (1, 0, 0));
    assert_eq!(counts(&merged), (1, 0, 0));
    drop(wrapped);
    assert_eq!(counts(&parent), (1, 0, 0));

    cancel.cancel();
    assert_ended("below", &below, ErrorKind::Canceled, None);
    assert_eq!(counts(&shutdown), (0, 0, 0), "the merged context has left its other parent, too");
    let _late = [wrapper.with_cancel(), Context::any_of([&*wrapper, &shutdown])];
    assert_eq!([counts(&parent), counts(&shutdown)], [(0, 0, 0); 2]);
}

/// Go: TestWithCancel.
#[test]
fn a_cancel_is_seen_at_once_by_the_context_its_wrapper_and_its_child() {
    let (ctx, cancel) = Context::background().with_cancel();
    assert_eq!(format!("{ctx:?}"), "Context(background.cancel, live)");
    let wrapper = Request::new(&ctx);
    let (child, _child) = wrapper.with_cancel();
    assert_eq!(format!("{child:?}"), "Context(background.cancel.cancel, live)");
    let all = [("ctx", &ctx), ("wrapper", &*wrapper), ("child", &child)];
    for (name, ctx) in all {
        assert!(ctx.can_be_done(), "{name}");
        assert_live(name, ctx);
    }
    cancel.cancel();
    for (name, ctx) in all {
        assert_ended(name, ctx, ErrorKind::Canceled, None);
    }
    assert_eq!(format!("{child:?}"), "Context(background.cancel.cancel, context canceled)");
}

/// Go: TestWithCancelCanceledParent.
#[test]
fn a_child_of_a_done_parent_is_done_on_return_with_its_parents_cause() {
    let (parent, cancel) = Context::background().with_cancel();
    let cause = Cause::from("because");
    cancel.cancel_with(cause.clone());
    let (child, _guard) = parent.with_cancel();
    assert_ended("child", &child, ErrorKind::Canceled, Some(&cause));
    assert_eq!(child.err().unwrap().origin().context(), parent.id());
}

/// Go: TestWithCancelSimultaneouslyCanceledParent.
#[test]
fn a_child_derived_during_its_parents_cancel_is_never_lost() {
    in_time("deriving during a cancel", || {
        for round in 0..2000 {
            let (parent, cancel) = Context::background().with_cancel();
            let cause = Cause::from("because");
            let start = Barrier::new(2);
            thread::scope(|s| {
                s.spawn(|| {
                    start.wait();
                    cancel.cancel_with(cause.clone());
                });
                start.wait();
                for _ in 0..round % 64 {
                    std::hint::spin_loop(); // here and there in the course of the cancel
                }
                let (child, _guard) = parent.with_cancel();
                let err = child.done().wait();
                assert!(err.is_canceled() && same(err.cause(), Some(&cause)), "{round}: {err:?}");
                assert_eq!(err.origin().by(), By::Call, "{round}: not by its own guard");
            });
            assert_eq!(parent.statistics().children(), 0, "{round}");
        }
    });
}

/// Go: TestSimultaneousCancels.
#[test]
fn a_tree_whose_nodes_are_all_canceled_at_once_ends_and_nobody_hangs() {
    /// In a tree of four children each, numbered level by level.
    fn is_below(mut i: usize, above: usize) -> bool {
        while i > above {
            i = (i - 1) / 4;
        }
        i == above
    }
    in_time("canceling a tree from everywhere", || {
        for round in 0..10 {
            let mut tree = vec![Context::background().with_cancel()];
            let mut next = 0;
            while tree.len() < 100 {
                let children: [_; 4] = std::array::from_fn(|_| tree[next].0.with_cancel());
                tree.extend(children);
                next += 1;
            }
            let start = Barrier::new(tree.len());
            thread::scope(|s| {
                for (i, (_, cancel)) in tree.iter().enumerate() {
                    let (start, tree) = (&start, &tree);
                    s.spawn(move || {
                        start.wait();
                        cancel.cancel();
                        // Whoever returns from a cancel, first or not, finds all below done.
                        for (j, (ctx, _)) in tree.iter().enumerate().skip(i) {
                            assert!(!is_below(j, i) || ctx.is_done(), "{j} is live, {i} is done");
                        }
                    });
                }
                // Last derived first: most of these waits are for an ancestor's cancel.
                for (ctx, _) in tree.iter().rev() {
                    assert!(ctx.done().wait().is_canceled());
                }
            });
            for (ctx, _) in &tree {
                assert_eq!(ctx.statistics().children(), 0, "round {round}");
            }
        }
    });
}

/// Not in Go's suite: what a second caller of `cancel` may rely on. In Go it waits for a mutex; here for the marking only (C7).
#[test]
fn whoever_returns_from_a_cancel_first_or_not_finds_all_below_done() {
    in_time("canceling one context from two threads", || {
        for round in 0..5 {
            let (root, cancel) = Context::background().with_cancel();
            let children: Vec<_> = (0..20_000).map(|_| root.with_cancel()).collect();
            let start = Barrier::new(2);
            thread::scope(|s| {
                for _ in 0..2 {
                    s.spawn(|| {
                        start.wait();
                        cancel.cancel();
                        let live = children.iter().filter(|(child, _)| !child.is_done()).count();
                        assert_eq!(live, 0, "round {round}");
                    });
                }
            });
            assert_eq!(root.statistics().children(), 0, "round {round}");
        }
    });
}

/// Go: TestInterlockedCancels.
#[test]
fn a_child_may_be_canceled_by_whoever_its_parents_end_wakes() {
    in_time("canceling a child from its parent's waiter", || {
        for _ in 0..500 {
            let (parent, cancel_parent) = Context::background().with_cancel();
            let (child, cancel_child) = parent.with_cancel();
            let handle = cancel_child.handle();
            let within = parent.on_done(move |_| handle.cancel()); // the canceling thread itself
            thread::scope(|s| {
                s.spawn(|| {
                    let _ = parent.done().wait();
                    cancel_child.cancel();
                });
                cancel_parent.cancel();
                assert!(child.done().wait().is_canceled());
            });
            assert!(!within.stop());
            // Who polls may see the parent done a moment before the child, and then cancels that one itself.
            let origin = child.err().unwrap().origin().context();
            assert!([parent.id(), child.id()].contains(&origin));
        }
    });
}

/// Go: TestContextErrDoneRace (golang/go#75533: an error was seen before Done was closed).
#[test]
fn whoever_sees_an_error_sees_the_context_done_in_every_way() {
    in_time("racing err() against done()", || {
        for round in 0..1000 {
            let (parent, cancel) = Context::background().with_cancel();
            let (child, _guard) = parent.with_cancel();
            let start = Barrier::new(3);
            thread::scope(|s| {
                s.spawn(|| {
                    start.wait();
                    cancel.cancel();
                });
                for ctx in [&parent, &child] {
                    let (start, parent) = (&start, &parent);
                    s.spawn(move || {
                        start.wait();
                        spin_until(|| ctx.err().is_some());
                        assert_ended("the one that was asked", ctx, ErrorKind::Canceled, None);
                        // The parent is done before the child.
                        assert_ended("its parent", parent, ErrorKind::Canceled, None);
                    });
                }
            });
            assert_eq!(parent.err().unwrap().origin().context(), parent.id(), "{round}");
        }
    });
}

// ── deadlines ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Lives up to its last nanosecond, and is done with that.
#[track_caller]
fn assert_ends_in_a_second(clock: &ManualClock, name: &str, ctx: &Context) {
    assert_eq!(ctx.deadline(), Some(clock.now() + SECOND), "{name}");
    clock.advance(SECOND - NANO);
    assert_live(name, ctx);
    clock.advance(NANO);
    assert_ended(name, ctx, ErrorKind::DeadlineExceeded, None);
    assert_eq!(ctx.deadline(), Some(clock.now()), "{name}: still to be read");
}

/// Go: TestDeadline.
#[test]
fn a_deadline_ends_a_context_however_it_is_wrapped_nested_or_late() {
    let clock = ManualClock::new();
    let root = clock.root();
    let soon = || clock.now() + SECOND;

    let (ctx, _guard) = root.with_deadline(soon());
    assert_eq!(format!("{ctx:?}"), "Context(manual.deadline(1.00s), live)");
    assert_ends_in_a_second(&clock, "with_deadline", &ctx);

    let (ctx, _guard) = root.with_deadline(soon());
    assert_ends_in_a_second(&clock, "a wrapper", &Request::new(&ctx));

    let (outer, _guard) = root.with_deadline(soon());
    let (ctx, _guard) = Request::new(&outer).with_deadline(clock.now() + LONG);
    assert_ends_in_a_second(&clock, "a longer one below a wrapper", &ctx);
    assert_eq!(ctx.err().unwrap().origin().context(), outer.id(), "the one that bound");

    for (name, at) in [("the past", clock.now() - NANO), ("now", clock.now())] {
        let (ctx, _guard) = root.with_deadline(at);
        assert_ended(name, &ctx, ErrorKind::DeadlineExceeded, None);
        assert_eq!(ctx.deadline(), Some(at), "{name}: as it was given");
    }
}

/// Go: TestTimeout.
#[test]
fn a_timeout_ends_a_context_however_it_is_wrapped_or_nested() {
    let clock = ManualClock::new();
    let root = clock.root();

    let (ctx, _guard) = root.with_timeout(SECOND);
    assert_eq!(format!("{ctx:?}"), "Context(manual.timeout(1.00s), live)");
    assert_ends_in_a_second(&clock, "with_timeout", &ctx);

    let (ctx, _guard) = root.with_timeout(SECOND);
    assert_ends_in_a_second(&clock, "a wrapper", &Request::new(&ctx));

    let (outer, _guard) = root.with_timeout(SECOND);
    let (ctx, _guard) = Request::new(&outer).with_timeout(LONG);
    assert_ends_in_a_second(&clock, "a longer one below a wrapper", &ctx);
    assert_eq!(ctx.err().unwrap().origin().context(), outer.id(), "the one that bound");
}

/// Go: TestCanceledTimeout.
#[test]
fn a_cancel_before_the_timeout_is_a_cancel_and_stays_one() {
    let clock = ManualClock::new();
    let (outer, _outer) = clock.root().with_timeout(SECOND);
    let (ctx, cancel) = Request::new(&outer).with_timeout(LONG);
    cancel.cancel();
    assert_ended("ctx", &ctx, ErrorKind::Canceled, None);
    assert_live("its parent", &outer);
    clock.advance(LONG);
    assert_ended("ctx, later", &ctx, ErrorKind::Canceled, None);
    assert_ended("its parent, later", &outer, ErrorKind::DeadlineExceeded, None);
}

/// Go: TestDeadlineExceededSupportsTimeout.
#[test]
fn a_deadlines_error_says_that_it_is_a_timeout() {
    let (late, _guard) = Context::background().with_timeout(Duration::ZERO);
    let late = late.err().unwrap();
    assert!(late.is_deadline_exceeded() && !late.is_canceled());
    assert_eq!(late.to_string(), "context deadline exceeded");

    let (canceled, cancel) = Context::background().with_cancel();
    cancel.cancel();
    let canceled = canceled.err().unwrap();
    assert!(canceled.is_canceled() && !canceled.is_deadline_exceeded());
    assert_eq!(canceled.to_string(), "context canceled");
}

/// Go: TestDeadlineExceededIsNetError. What I/O code asks here is `io::Error::kind`.
#[test]
fn a_deadlines_error_is_an_io_timeout() {
    use std::io;
    let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    let err = io::Error::from(ctx.err().unwrap());
    assert_eq!(err.kind(), io::ErrorKind::TimedOut);
    assert!(Error::find(&err).is_some_and(Error::is_deadline_exceeded));

    let (ctx, cancel) = Context::background().with_cancel();
    cancel.cancel();
    let err = io::Error::from(ctx.err().unwrap());
    assert_ne!(err.kind(), io::ErrorKind::TimedOut);
    assert_ne!(err.kind(), io::ErrorKind::Interrupted, "which std's loops would try again on");
}

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestValues.
#[test]
fn a_key_is_found_by_identity_shadowed_by_the_nearest_and_hidden_by_none() {
    type Text = Option<&'static str>;
    static K1: Key<Text> = Key::new("k1").visible();
    static K2: Key<Text> = Key::new("k"); // one name and one type,
    static K3: Key<Text> = Key::new("k"); // and two keys
    #[track_caller]
    fn check(name: &str, ctx: &Context, expected: [Text; 3]) {
        // A value that is None hides an outer one, and reads as None: two levels where Go has one.
        let found = [&K1, &K2, &K3].map(|key| ctx.value(key).copied().flatten());
        assert_eq!(found, expected, "{name}");
    }

    let c0 = Context::background();
    check("c0", &c0, [None, None, None]);
    let c1 = c0.with_value(&K1, Some("c1k1"));
    check("c1", &c1, [Some("c1k1"), None, None]);
    assert_eq!(format!("{c1:?}"), r#"Context(background.value(k1=Some("c1k1")), live)"#);
    let c2 = c1.with_value(&K2, Some("c2k2"));
    check("c2", &c2, [Some("c1k1"), Some("c2k2"), None]);
    assert_eq!(format!("{c2:?}"), r#"Context(background.value(k1=Some("c1k1")).value(k), live)"#);
    let c3 = c2.with_value(&K3, Some("c3k3"));
    check("c3", &c3, [Some("c1k1"), Some("c2k2"), Some("c3k3")]);
    let c4 = c3.with_value(&K1, None);
    check("c4", &c4, [None, Some("c2k2"), Some("c3k3")]);
    assert_eq!(c4.value(&K1), Some(&None), "set, and to nothing");
    assert_eq!(c0.value(&K1), None, "not set");
    assert_eq!(
        format!("{c4:?}"),
        r#"Context(background.value(k1=Some("c1k1")).value(k).value(k).value(k1=None), live)"#
    );
    check("c3, later", &c3, [Some("c1k1"), Some("c2k2"), Some("c3k3")]);

    check("o0", &Request::new(&c0), [None, None, None]);
    let o1 = Request::new(&c1);
    check("o1", &o1, [Some("c1k1"), None, None]);
    let o2 = o1.with_value(&K2, Some("o2k2"));
    check("o2", &o2, [Some("c1k1"), Some("o2k2"), None]);
    let o3 = Request::new(&c4);
    check("o3", &o3, [None, Some("c2k2"), Some("c3k3")]);
    let o4 = o3.with_value(&K3, None);
    check("o4", &o4, [None, Some("c2k2"), None]);
}

/// At least 30 layers in a random order, of every sort at least one.
struct Layers {
    ctx: Context,
    /// Each layer that can be canceled, outermost first.
    guards: Vec<CancelGuard>,
    /// Of each key, the nearest value.
    values: Vec<usize>,
    earliest: Duration,
}

static LAYER: [Key<usize>; 64] = [const { Key::new("layer") }; 64];

impl Layers {
    fn new(seed: u64, root: Context) -> Layers {
        let mut random = Random(seed);
        let mut layers =
            Layers { ctx: root, guards: Vec::new(), values: Vec::new(), earliest: Duration::MAX };
        let (mut count, mut plain) = (0, 0);
        while count < 30
            || plain == 0
            || layers.values.is_empty()
            || layers.earliest == Duration::MAX
        {
            count += 1;
            let (ctx, guard) = match random.below(3) {
                0 => {
                    // A new key, or one time in four a value that hides an earlier one.
                    let known = layers.values.len();
                    let i = if random.below(4) == 0 { random.below(known + 1) } else { known };
                    layers.values.resize(known.max(i + 1), count);
                    layers.values[i] = count;
                    layers.ctx = layers.ctx.with_value(&LAYER[i], count);
                    continue;
                }
                1 => {
                    plain += 1;
                    layers.ctx.with_cancel()
                }
                _ => {
                    let timeout = Duration::from_millis(1 + random.below(1000) as u64);
                    layers.earliest = layers.earliest.min(timeout);
                    layers.ctx.with_timeout(timeout)
                }
            };
            layers.ctx = ctx;
            layers.guards.push(guard);
        }
        layers
    }

    #[track_caller]
    fn check_values(&self, seed: u64, when: &str) {
        for (i, key) in LAYER.iter().enumerate() {
            assert_eq!(self.ctx.value(key), self.values.get(i), "seed {seed}, {when}: value {i}");
        }
    }
}

/// Go: TestLayersCancel.
#[test]
fn of_random_layers_a_cancel_of_any_ends_the_innermost_and_spares_the_values() {
    for seed in 1..=100 {
        let layers = Layers::new(seed, ManualClock::new().root());
        assert_live(&format!("seed {seed}"), &layers.ctx);
        assert!(format!("{:?}", layers.ctx).starts_with("Context(manual."), "seed {seed}");
        layers.check_values(seed, "before the cancel");

        let chosen = Random(seed).below(layers.guards.len());
        layers.guards[chosen].cancel();
        for (i, guard) in layers.guards.iter().enumerate() {
            assert_eq!(
                guard.context().is_done(),
                i >= chosen,
                "seed {seed}: layer {i} of {chosen}"
            );
        }
        let name = format!("seed {seed}: the innermost");
        assert_ended(&name, &layers.ctx, ErrorKind::Canceled, None);
        layers.check_values(seed, "after the cancel");
    }
}

/// Go: TestLayersTimeout.
#[test]
fn of_random_layers_the_earliest_timeout_ends_the_innermost_and_spares_the_values() {
    for seed in 1..=100 {
        let clock = ManualClock::new();
        let layers = Layers::new(seed, clock.root());
        layers.check_values(seed, "before the timeout");
        assert_eq!(layers.ctx.remaining(), Some(layers.earliest), "seed {seed}");
        clock.advance(layers.earliest - NANO);
        assert_live(&format!("seed {seed}"), &layers.ctx);
        clock.advance(NANO);
        let name = format!("seed {seed}: the innermost");
        assert_ended(&name, &layers.ctx, ErrorKind::DeadlineExceeded, None);
        layers.check_values(seed, "after the timeout");
    }
}

// ── without_cancel ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestWithoutCancel.
#[test]
fn without_cancel_keeps_the_values_and_nothing_else() {
    static KEY: Key<&str> = Key::new("key");
    let (timed, cancel) = Context::background().with_timeout(LONG);
    let ctx = timed.with_value(&KEY, "value").without_cancel();
    assert_eq!(ctx.deadline(), None);
    assert!(!ctx.can_be_done());
    assert_live("ctx", &ctx);
    assert_eq!(ctx.value(&KEY), Some(&"value"));
    cancel.cancel();
    assert_live("ctx, later", &ctx);
    assert_eq!(ctx.value(&KEY), Some(&"value"), "later");
}

// ── causes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestCause, a test for each of its 23 cases. Where Go's `Cause` falls back to the error itself there is no cause here.
/// Guards live to the end of each test, so that no drop stands in for the end that is asked about.
mod cause {
    use super::*;

    const CANCELED: ErrorKind = ErrorKind::Canceled;
    const DEADLINE: ErrorKind = ErrorKind::DeadlineExceeded;

    fn causes() -> [Cause; 2] {
        ["the parent's", "the child's"].map(Cause::from)
    }

    /// A parent and a child, both to be canceled.
    fn family() -> (CancelGuard, Context, CancelGuard) {
        let (parent, cancel_parent) = Context::background().with_cancel();
        let (ctx, cancel_child) = parent.with_cancel();
        (cancel_parent, ctx, cancel_child)
    }

    /// With a timeout that has a cause of its own.
    fn timed(parent: &Context, timeout: Duration, cause: &Cause) -> (Context, CancelGuard) {
        parent.derive().timeout(timeout).deadline_cause(cause.clone()).build()
    }

    /// Go: TestCause, "Background".
    #[test]
    fn background_has_none() {
        assert_live("background", &Context::background());
    }

    /// Go: TestCause, "TODO".
    #[test]
    fn todo_has_none() {
        assert_live("todo", &Context::todo());
    }

    /// Go: TestCause, "WithCancel".
    #[test]
    fn a_plain_cancel_gives_none() {
        let (ctx, cancel) = Context::background().with_cancel();
        cancel.cancel();
        assert_ended("ctx", &ctx, CANCELED, None);
        assert!(ctx.err().unwrap().source().is_none());
    }

    /// Go: TestCause, "WithCancelCause".
    #[test]
    fn cancel_with_gives_it_as_it_is() {
        let (ctx, cancel) = Context::background().with_cancel();
        let [cause, _] = causes();
        cancel.cancel_with(cause.clone());
        assert_ended("ctx", &ctx, CANCELED, Some(&cause));
        assert_eq!(ctx.err().unwrap().to_string(), "context canceled: the parent's");
    }

    /// Go: TestCause, "WithCancelCause nil". A cause is never nil; `cancel()` is the form without one.
    #[test]
    fn cancel_is_cancel_with_without_one() {
        let (ctx, cancel) = Context::background().with_cancel();
        cancel.cancel();
        cancel.cancel_with("too late");
        assert_ended("ctx", &ctx, CANCELED, None);
        assert_eq!(ctx.err().unwrap().to_string(), "context canceled");
    }

    /// Go: TestCause, "WithCancelCause: parent cause before child".
    #[test]
    fn the_parents_stands_when_the_childs_comes_after_it() {
        let (parent, ctx, child) = family();
        let [parents, childs] = causes();
        parent.cancel_with(parents.clone());
        child.cancel_with(childs);
        assert_ended("ctx", &ctx, CANCELED, Some(&parents));
    }

    /// Go: TestCause, "WithCancelCause: parent cause after child".
    #[test]
    fn the_childs_stands_when_the_parents_comes_after_it() {
        let (parent, ctx, child) = family();
        let [parents, childs] = causes();
        child.cancel_with(childs.clone());
        parent.cancel_with(parents);
        assert_ended("ctx", &ctx, CANCELED, Some(&childs));
    }

    /// Go: TestCause, "WithCancelCause: parent cause before nil".
    #[test]
    fn the_parents_stands_when_a_plain_cancel_comes_after_it() {
        let (parent, ctx, child) = family();
        let [parents, _] = causes();
        parent.cancel_with(parents.clone());
        child.cancel();
        assert_ended("ctx", &ctx, CANCELED, Some(&parents));
    }

    /// Go: TestCause, "WithCancelCause: parent cause after nil".
    #[test]
    fn a_plain_cancel_stands_when_the_parents_comes_after_it() {
        let (parent, ctx, child) = family();
        let [parents, _] = causes();
        child.cancel();
        parent.cancel_with(parents);
        assert_ended("ctx", &ctx, CANCELED, None);
    }

    /// Go: TestCause, "WithCancelCause: child cause after nil".
    #[test]
    fn a_plain_cancel_of_the_parent_stands_when_the_childs_comes_after_it() {
        let (parent, ctx, child) = family();
        let [_, childs] = causes();
        parent.cancel();
        child.cancel_with(childs);
        assert_ended("ctx", &ctx, CANCELED, None);
    }

    /// Go: TestCause, "WithCancelCause: child cause before nil".
    #[test]
    fn the_childs_stands_when_a_plain_cancel_of_the_parent_comes_after_it() {
        let (parent, ctx, child) = family();
        let [_, childs] = causes();
        child.cancel_with(childs.clone());
        parent.cancel();
        assert_ended("ctx", &ctx, CANCELED, Some(&childs));
    }

    /// Go: TestCause, "WithTimeout".
    #[test]
    fn a_timeout_without_one_gives_none() {
        let (ctx, cancel) = Context::background().with_timeout(Duration::ZERO);
        cancel.cancel();
        assert_ended("ctx", &ctx, DEADLINE, None);
    }

    /// Go: TestCause, "WithTimeout canceled".
    #[test]
    fn a_cancel_before_the_timeout_gives_none() {
        let (ctx, cancel) = Context::background().with_timeout(LONG);
        cancel.cancel();
        assert_ended("ctx", &ctx, CANCELED, None);
    }

    /// Go: TestCause, "WithTimeoutCause".
    #[test]
    fn a_timeout_gives_its_own() {
        let [too_slow, _] = causes();
        let (ctx, cancel) = timed(&Context::background(), Duration::ZERO, &too_slow);
        cancel.cancel();
        assert_ended("ctx", &ctx, DEADLINE, Some(&too_slow));
        assert_eq!(ctx.err().unwrap().to_string(), "context deadline exceeded: the parent's");
    }

    /// Go: TestCause, "WithTimeoutCause canceled".
    #[test]
    fn a_cancel_before_the_timeout_does_not_give_the_timeouts() {
        let [too_slow, _] = causes();
        let (ctx, cancel) = timed(&Context::background(), LONG, &too_slow);
        cancel.cancel();
        assert_ended("ctx", &ctx, CANCELED, None);
    }

    /// Go: TestCause, "WithTimeoutCause stacked".
    #[test]
    fn a_timeout_that_fired_keeps_its_own_when_the_parent_is_canceled() {
        let [finished_early, too_slow] = causes();
        for timeout in [Duration::ZERO, Duration::from_micros(100)] {
            let (parent, cancel) = Context::background().with_cancel();
            let (ctx, _guard) = timed(&parent, timeout, &too_slow);
            spin_until(|| ctx.is_done()); // nobody waits: it is this poll that finds the time passed
            cancel.cancel_with(finished_early.clone());
            assert_ended("ctx", &ctx, DEADLINE, Some(&too_slow));
        }
    }

    /// Go: TestCause, "WithTimeoutCause stacked canceled".
    #[test]
    fn a_timeout_that_has_not_fired_gives_way_to_the_parents() {
        let [finished_early, too_slow] = causes();
        let (parent, cancel) = Context::background().with_cancel();
        let (ctx, _guard) = timed(&parent, LONG, &too_slow);
        cancel.cancel_with(finished_early.clone());
        assert_ended("ctx", &ctx, CANCELED, Some(&finished_early));
    }

    /// Go: TestCause, "WithoutCancel".
    #[test]
    fn without_cancel_has_none() {
        assert_live("ctx", &Context::background().without_cancel());
    }

    /// Go: TestCause, "WithoutCancel canceled".
    #[test]
    fn without_cancel_hears_of_no_cancel() {
        let [finished_early, _] = causes();
        let (parent, cancel) = Context::background().with_cancel();
        let ctx = parent.without_cancel();
        cancel.cancel_with(finished_early.clone());
        assert_live("ctx", &ctx);
        assert_ended("parent", &parent, CANCELED, Some(&finished_early));
    }

    /// Go: TestCause, "WithoutCancel timeout".
    #[test]
    fn without_cancel_hears_of_no_timeout() {
        let [too_slow, _] = causes();
        let (parent, cancel) = timed(&Context::background(), Duration::ZERO, &too_slow);
        let ctx = parent.without_cancel();
        cancel.cancel();
        assert_live("ctx", &ctx);
        assert_ended("parent", &parent, DEADLINE, Some(&too_slow));
    }

    /// A parent and something foreign, and a context that ends with the first of the two: Go's custom context with a standard
    /// one above it.
    fn custom() -> (CancelGuard, Arc<Foreign>, Context, [CancelGuard; 2]) {
        let (parent, cancel_parent) = Context::background().with_cancel();
        let foreign = Foreign::new();
        let (bridge, bridge_guard) = under(&foreign);
        let (ctx, guard) = Context::any_of([&parent, &bridge]);
        (cancel_parent, foreign, ctx, [bridge_guard, guard])
    }

    /// Go: TestCause, "parent of custom context not canceled".
    #[test]
    fn a_foreign_stop_gives_none() {
        let (parent, foreign, ctx, _guards) = custom();
        foreign.stop();
        assert_ended("ctx", &ctx, CANCELED, None);
        assert_live("parent", parent.context());
    }

    /// Go: TestCause, "parent of custom context is canceled before".
    #[test]
    fn the_parents_stands_when_something_foreign_stops_after_it() {
        let [parents, _] = causes();
        let (parent, foreign, ctx, _guards) = custom();
        parent.cancel_with(parents.clone());
        foreign.stop();
        assert_ended("ctx", &ctx, CANCELED, Some(&parents));
    }

    /// Go: TestCause, "parent of custom context is canceled after". Go gives the parent's cause, though it came second, and says
    /// that this isn't right. Here the first end decides (C2).
    #[test]
    fn a_foreign_stop_stands_when_the_parents_comes_after_it() {
        let [parents, _] = causes();
        let (parent, foreign, ctx, _guards) = custom();
        foreign.stop();
        parent.cancel_with(parents);
        assert_ended("ctx", &ctx, CANCELED, None);
    }
}

/// Go: TestCauseRace.
#[test]
fn a_cause_may_be_polled_while_it_is_given() {
    in_time("polling for causes", || {
        let family: Vec<_> = (0..5000).map(|_| Context::background().with_cancel()).collect();
        let cause = Cause::from("because");
        let polled = AtomicUsize::new(0);
        thread::scope(|s| {
            s.spawn(|| {
                for (round, (_, cancel)) in family.iter().enumerate() {
                    spin_until(|| polled.load(Ordering::SeqCst) >= round);
                    cancel.cancel_with(cause.clone());
                }
            });
            for (round, (ctx, _)) in family.iter().enumerate() {
                polled.store(round, Ordering::SeqCst);
                let mut first = None;
                spin_until(|| {
                    first = ctx.err().map(|err| err.cause().cloned());
                    first.is_some()
                });
                let first = first.flatten();
                assert!(same(first.as_ref(), Some(&cause)), "{round}: {first:?}");
            }
        });
    });
}

/// Not in Go's suite: of two causes that are given at once, one wins, and no later look finds the other.
#[test]
fn of_two_causes_given_at_once_one_stays() {
    in_time("giving two causes", || {
        let family: Vec<_> = (0..10_000).map(|_| Context::background().with_cancel()).collect();
        let causes = ["one", "other"].map(Cause::from);
        let arrived = AtomicUsize::new(0);
        let seen = thread::scope(|s| {
            let cancelers = causes.each_ref().map(|cause| {
                let (family, arrived) = (&family, &arrived);
                s.spawn(move || {
                    let mut seen = Vec::new();
                    for (round, (ctx, cancel)) in family.iter().enumerate() {
                        // Closer together than a barrier's wake-up would be.
                        arrived.fetch_add(1, Ordering::SeqCst);
                        spin_until(|| arrived.load(Ordering::SeqCst) >= 2 * (round + 1));
                        cancel.cancel_with(cause.clone());
                        seen.push(ctx.err().and_then(|err| err.cause().cloned()));
                    }
                    seen
                })
            });
            cancelers.map(|canceler| canceler.join().expect("no panic there"))
        });
        for (round, (ctx, _)) in family.iter().enumerate() {
            let last = ctx.err().unwrap();
            assert!(causes.iter().any(|cause| same(last.cause(), Some(cause))), "{round}");
            for seen in &seen {
                assert!(same(seen[round].as_ref(), last.cause()), "{round}: then {last:?}");
            }
        }
    });
}

// ── foreign sources, in place of custom contexts ───────────────────────────────────────────────────────────────────────

/// Go: TestCustomContextPropagation.
#[test]
fn below_a_context_and_something_foreign_the_contexts_cause_comes_through() {
    let (above, cancel) = Context::background().with_cancel();
    let foreign = Foreign::new();
    let (bridge, _bridge) = under(&foreign);
    let (custom, _custom) = Context::any_of([&above, &bridge]);
    let (ctx, _guard) = custom.with_cancel();
    let cause = Cause::from("from above");

    cancel.cancel_with(cause.clone());
    foreign.stop();
    assert_ended("ctx", &ctx, ErrorKind::Canceled, Some(&cause));
    assert_ended("the bridge", &bridge, ErrorKind::Canceled, None);
}

/// Go: TestCustomContextCause.
#[test]
fn a_cause_below_something_foreign_does_not_rise_and_is_not_replaced() {
    // Stopped before anything is derived.
    let foreign = Foreign::new();
    foreign.stop();
    let (ctx, _guard) = under(&foreign);
    assert_ended("derived late", &ctx, ErrorKind::Canceled, None);
    assert_eq!(foreign.registered(), 0);

    // The child ends first, with a cause: that stays below.
    let foreign = Foreign::new();
    let (ctx, cancel) = under(&foreign);
    let cause = Cause::from("the child's own");
    cancel.cancel_with(cause.clone());
    assert_ended("ctx", &ctx, ErrorKind::Canceled, Some(&cause));
    assert!(!foreign.is_stopped());

    // The foreign source ends afterwards: the child's cause stands.
    foreign.stop();
    assert!(foreign.is_stopped());
    assert_ended("ctx, later", &ctx, ErrorKind::Canceled, Some(&cause));

    // The foreign source ends first.
    let foreign = Foreign::new();
    let (ctx, _guard) = under(&foreign);
    foreign.stop();
    assert_ended("linked", &ctx, ErrorKind::Canceled, None);
    assert_eq!(ctx.err().unwrap().origin().by(), By::Call);
}

/// Go: TestCustomContextAfterFuncCancel.
#[test]
fn something_foreign_ends_a_cancelable_child() {
    let foreign = Foreign::new();
    let (bridge, _bridge) = under(&foreign);
    let (ctx, _guard) = bridge.with_cancel();
    assert_live("ctx", &ctx);
    foreign.stop();
    assert_ended("ctx", &ctx, ErrorKind::Canceled, None);
    assert_eq!(ctx.err().unwrap().origin().context(), bridge.id());
}

/// Go: TestCustomContextAfterFuncTimeout.
#[test]
fn something_foreign_ends_a_child_with_a_timeout() {
    let foreign = Foreign::new();
    let (bridge, _bridge) = under(&foreign);
    let (ctx, _guard) = bridge.with_timeout(LONG);
    assert_live("ctx", &ctx);
    foreign.stop();
    assert_ended("ctx", &ctx, ErrorKind::Canceled, None);
    assert_eq!(ctx.err().unwrap().origin().context(), bridge.id());
}

/// Go: TestCustomContextAfterFuncAfterFunc.
#[test]
fn something_foreign_brings_on_a_callback() {
    let foreign = Foreign::new();
    let (bridge, _bridge) = under(&foreign);
    let called = Flag::default();
    let registration = bridge.on_done(called.setter());
    assert!(!called.is_set());
    foreign.stop();
    assert!(called.is_set());
    assert!(!registration.stop());
}

/// Go: TestCustomContextAfterFuncUnregisterCancel.
#[test]
fn a_cancel_unregisters_from_something_foreign() {
    let foreign = Foreign::new();
    let (_ctx, first) = under(&foreign);
    let (_ctx, second) = under(&foreign);
    assert_eq!(foreign.registered(), 2);
    first.cancel();
    assert_eq!(foreign.registered(), 1);
    drop(second);
    assert_eq!(foreign.registered(), 0);
    assert!(!foreign.is_stopped());
}

/// Go: TestCustomContextAfterFuncUnregisterTimeout.
#[test]
fn a_cancel_of_a_timeout_unregisters_from_something_foreign() {
    let foreign = Foreign::new();
    let (bridge, cancel) = under(&foreign);
    let (ctx, _guard) = bridge.with_timeout(LONG);
    assert_eq!(foreign.registered(), 1);
    cancel.cancel();
    assert_eq!(foreign.registered(), 0);
    assert_ended("ctx", &ctx, ErrorKind::Canceled, None);
}

/// Go: TestCustomContextAfterFuncUnregisterAfterFunc. The bridge is what is registered, for all that hangs below it.
#[test]
fn a_stopped_callback_and_a_dropped_bridge_leave_something_foreign_alone() {
    let foreign = Foreign::new();
    let (bridge, guard) = under(&foreign);
    let registration = bridge.on_done(|_| unreachable!("stopped before the end"));
    assert_eq!((foreign.registered(), bridge.statistics().callbacks()), (1, 2));
    assert!(registration.stop());
    assert_eq!((foreign.registered(), bridge.statistics().callbacks()), (1, 1));
    drop(guard);
    assert_eq!((foreign.registered(), bridge.statistics().callbacks()), (0, 0));
}

// ── callbacks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestAfterFuncCalledAfterCancel.
#[test]
fn a_callback_runs_after_the_cancel_and_not_before() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (called, done_inside) = (Flag::default(), Flag::default());
    let registration = ctx.on_done({
        let (called, done_inside, ctx) = (called.setter(), done_inside.clone(), ctx.clone());
        move |err| {
            called(err);
            if ctx.is_done() && err.is_canceled() {
                done_inside.set();
            }
        }
    });
    assert!(!called.is_set());
    cancel.cancel();
    assert!(called.is_set());
    assert!(done_inside.is_set(), "it sees the context done");
    assert!(!registration.stop(), "nothing left to stop");
}

/// Go: TestAfterFuncCalledAfterTimeout.
#[test]
fn a_callback_runs_after_the_timeout_and_not_before() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(SECOND);
    let called = Flag::default();
    ctx.on_done(called.setter()).detach();
    clock.advance(SECOND - NANO);
    assert!(!called.is_set());
    clock.advance(NANO);
    assert!(called.is_set());
}

/// Go: TestAfterFuncCalledImmediately.
#[test]
fn a_callback_on_a_done_context_runs_at_once() {
    let (ctx, cancel) = Context::background().with_cancel();
    cancel.cancel_with("before");
    let log = Log::default();
    let inside = log.clone();
    let registration = ctx.on_done(move |err| inside.add(err.to_string()));
    assert_eq!(log.take(), ["context canceled: before"], "before on_done returned");
    assert!(!registration.stop());
}

/// Go: TestAfterFuncNotCalledAfterStop. `stop` takes the registration, so a second stop does not compile.
#[test]
fn a_stopped_callback_never_runs() {
    let (ctx, cancel) = Context::background().with_cancel();
    let called = Flag::default();
    assert!(ctx.on_done(called.setter()).stop());
    drop(ctx.on_done(called.setter())); // a dropped registration is a stopped one
    assert_eq!(ctx.statistics().callbacks(), 0);
    cancel.cancel();
    assert!(!called.is_set());
}

/// Go: TestAfterFuncCalledAsynchronously. Go starts a goroutine for each function. Here it runs on the thread that ends the
/// context, and a cancel returns when it has; one that must block starts a thread, and then nobody waits for it.
#[test]
fn a_callback_that_must_block_spawns_and_cancel_does_not_wait_for_it() {
    in_time("canceling with a callback that blocks elsewhere", || {
        let (ctx, cancel) = Context::background().with_cancel();
        let (sender, receiver) = mpsc::sync_channel(0);
        let runs_on = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&runs_on);
        ctx.on_done(move |_| {
            *seen.lock().expect("not poisoned") = Some(thread::current().id());
            // A rendezvous: the send lasts until it is received.
            thread::spawn(move || sender.send("unblocked").expect("the test is listening"));
        })
        .detach();
        cancel.cancel();
        let ran_on = *runs_on.lock().expect("not poisoned");
        assert_eq!(ran_on, Some(thread::current().id()), "it has run, and here");
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok("unblocked"));
    });
}

/// Not in Go's suite: the order that Go leaves to its map (golang/go#51075).
#[test]
fn callbacks_run_in_the_order_of_derivation_and_then_of_registration() {
    let (root, cancel) = Context::background().with_cancel();
    let log = Log::default();
    let mut family: Vec<(Context, CancelGuard)> = Vec::new();
    for i in 0..100 {
        // Now below the root, now below an earlier one: neither level by level nor branch by branch.
        let parent = if i % 3 == 0 { &root } else { &family[i / 2].0 };
        let child = parent.with_cancel();
        family.push(child);
    }
    let note = |line: String| {
        let log = log.clone();
        move |_: &Error| log.add(line)
    };
    // Registered from last to first, so that neither order is the other by chance.
    for (i, (ctx, _)) in family.iter().enumerate().rev() {
        ctx.on_done(note(format!("{i} first"))).detach();
        ctx.on_done(note(format!("{i} second"))).detach();
    }
    root.on_done(note("root".into())).detach();
    cancel.cancel();
    let expected = (0..100).flat_map(|i| [format!("{i} first"), format!("{i} second")]);
    assert_eq!(log.take(), std::iter::once("root".to_string()).chain(expected).collect::<Vec<_>>());
}

/// Not in Go's suite: what its AfterFunc leaves to the caller, to know that the function is over.
#[test]
fn a_dropped_registration_means_that_the_callback_is_not_running() {
    in_time("dropping a registration whose callback runs", || {
        for _ in 0..500 {
            let (ctx, cancel) = Context::background().with_cancel();
            let inside = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&inside);
            let registration = ctx.on_done(move |_| {
                counter.store(1, Ordering::SeqCst);
                thread::yield_now();
                counter.store(2, Ordering::SeqCst);
            });
            let start = Barrier::new(2);
            thread::scope(|s| {
                s.spawn(|| {
                    start.wait();
                    cancel.cancel();
                });
                start.wait();
                drop(registration);
                assert_ne!(inside.load(Ordering::SeqCst), 1, "it is in the middle");
            });
        }
    });
}
