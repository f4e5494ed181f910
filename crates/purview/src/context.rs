//! The handle: one-line methods into the tree.

use std::hash::{Hash, Hasher};
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use crate::builder::Derive;
use crate::clock::{Clock, Tick};
use crate::done::Done;
use crate::error::Error;
use crate::guard::CancelGuard;
use crate::key::Key;
use crate::observe::{ContextId, Statistics};
use crate::on_done::OnDone;
use crate::run::Run;
use crate::sleep::Sleep;
use crate::tree::{self, Kind, Node, Plan, Ref};
use crate::value;

/// What one piece of work may know, how long it may take, and when it must stop.
///
/// A context is a place in a tree. Deriving gives a child, with a deadline, a value, or a way to cancel it; when a context
/// ends, so does everything below it. Hand it along as the first argument, by reference; clone it where a task or thread
/// needs one of its own.
///
/// A handle is 8 bytes (so is `Option<Context>`); cloning it is one atomic increment. A `Context` alone cannot cancel:
/// that right is the [`CancelGuard`]'s, which comes with it when it is derived.
///
/// ```
/// use purview::{Context, Error, Key};
/// use std::{thread, time::Duration};
///
/// static USER_ID: Key<u64> = Key::new("user_id");
///
/// fn work(ctx: &Context) -> Result<u64, Error> {
///     ctx.check()?; // in a loop: stop when told to
///     Ok(*ctx.value(&USER_ID).expect("set by the caller"))
/// }
///
/// let (ctx, cancel) = Context::background().with_timeout(Duration::from_secs(2));
/// let ctx = ctx.with_value(&USER_ID, 123);
/// thread::scope(|s| {
///     assert_eq!(s.spawn(|| work(&ctx)).join().unwrap().unwrap(), 123);
///     cancel.cancel_with("no longer needed");
///     assert_eq!(s.spawn(|| work(&ctx)).join().unwrap().unwrap_err().to_string(),
///         "context canceled: no longer needed");
/// });
/// ```
///
/// Two handles are equal if they are handles of one context.
#[derive(Clone)]
pub struct Context(Ref);

impl Context {
    pub(crate) fn from_ref(context: Ref) -> Self {
        Context(context)
    }

    pub(crate) fn as_ref(&self) -> &Ref {
        &self.0
    }

    pub(crate) fn scope(&self) -> &Node {
        self.0.scope()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.scope().clock()
    }

    // ── roots ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The root: never done, no deadline, no values. For `main`, for tests, and as the parent of all else. Allocates nothing.
    ///
    /// ```
    /// use purview::Context;
    /// static ROOT: Context = Context::background();
    /// assert!(!ROOT.is_done());
    /// assert_eq!(ROOT, Context::background());
    /// ```
    #[must_use]
    #[cfg(not(all(test, purview_loom)))]
    pub const fn background() -> Context {
        Context(Ref::background())
    }

    #[cfg(all(test, purview_loom))]
    #[track_caller]
    #[must_use]
    pub fn background() -> Context {
        Context(Ref::background())
    }

    /// The same, for code that is not given a context yet and should be: it is found by its name.
    ///
    /// ```
    /// use purview::Context;
    /// assert_eq!(format!("{:?}", Context::todo()), "Context(todo, live)");
    /// assert_ne!(Context::todo(), Context::background());
    /// ```
    #[must_use]
    #[cfg(not(all(test, purview_loom)))]
    pub const fn todo() -> Context {
        Context(Ref::todo())
    }

    #[cfg(all(test, purview_loom))]
    #[track_caller]
    #[must_use]
    pub fn todo() -> Context {
        Context(Ref::todo())
    }

    // ── deriving ───────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Derives a child that can be canceled on its own.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let (child, _guard) = ctx.with_cancel();
    /// cancel.cancel();
    /// assert!(child.is_done());
    /// ```
    /// Dropping the guard cancels. `let (ctx, _) = …` drops it at once: the child is done before it is used, and the
    /// error's origin names that line.
    #[track_caller]
    pub fn with_cancel(&self) -> (Context, CancelGuard) {
        CancelGuard::of(self.0.derive_cancel(Location::caller()).map(Context))
    }

    /// Derives a child that ends at `at`, or when this context does. An instant that has passed gives a child that is done;
    /// one that is 292 years away or more is no deadline.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::{Duration, Instant};
    /// let at = Instant::now() + Duration::from_secs(3600);
    /// let (ctx, _guard) = Context::background().with_deadline(at);
    /// assert_eq!(ctx.deadline(), Some(at));
    /// ```
    #[track_caller]
    pub fn with_deadline(&self, at: Instant) -> (Context, CancelGuard) {
        let mut plan = Plan::new(Kind::Deadline, Location::caller());
        plan.deadline = Tick::from_instant(at);
        self.child(plan)
    }

    /// Derives a child that ends after `after` on this tree's clock, or when this context does. Zero gives a child that is
    /// done; `Duration::MAX` is no deadline.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_secs(2));
    /// assert!(ctx.remaining() <= Some(Duration::from_secs(2)));
    /// ```
    #[track_caller]
    pub fn with_timeout(&self, after: Duration) -> (Context, CancelGuard) {
        let mut plan = Plan::new(Kind::Timeout, Location::caller());
        let now = self.clock().now();
        plan.deadline = now.after(after);
        plan.now = Some(now);
        self.child(plan)
    }

    /// Derives a context that shows `value` under `key`, and is this one in all else: it ends when this one does, and
    /// waiting, deadlines and polls cost nothing more for it.
    ///
    /// ```
    /// use purview::{Context, Key};
    /// static TRACE: Key<String> = Key::new("trace");
    /// let outer = Context::background().with_value(&TRACE, "a".to_string());
    /// let inner = outer.with_value(&TRACE, "b".to_string());
    /// assert_eq!(outer.value(&TRACE).unwrap(), "a"); // a context never changes
    /// assert_eq!(inner.value(&TRACE).unwrap(), "b"); // the nearest value is seen
    /// ```
    #[track_caller]
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, key: &'static Key<T>, value: T) -> Context {
        Context(self.0.layer(key, value, Location::caller()))
    }

    /// Derives a context with the values and nothing else: never done, no deadline. For work that must outlive its request;
    /// give it a bound of its own. For cleanup prefer [`with_grace`](Context::with_grace), which has one.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let audit = ctx.without_cancel();
    /// cancel.cancel();
    /// assert!(!audit.is_done());
    /// ```
    #[track_caller]
    #[must_use]
    pub fn without_cancel(&self) -> Context {
        Context(self.0.without_cancel(Location::caller()))
    }

    /// Derives a context that ends `grace` after this one does, with this one's error: time to clean up.
    ///
    /// Of a context that is done already, it has `grace` from now. If this context never ends, nor does the grace.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let (cleanup, _guard) = ctx.with_grace(Duration::from_secs(5));
    /// cancel.cancel();
    /// assert!(!cleanup.is_done());
    /// assert!(cleanup.remaining() <= Some(Duration::from_secs(5)));
    /// ```
    #[track_caller]
    pub fn with_grace(&self, grace: Duration) -> (Context, CancelGuard) {
        let mut plan = Plan::new(Kind::Grace, Location::caller());
        plan.grace = Some(grace);
        self.child(plan)
    }

    /// Derives a context that is done when the first of `parents` is, with that one's error. It has the earliest of their
    /// deadlines, and of each key the value of the first parent that has it. Its clock is that of the first parent that
    /// can end. Of no parents at all it is a child of [`background`](Context::background).
    ///
    /// It waits for its parents: their deadlines are watched from here on. A parent on another clock ends it all the same,
    /// but that one's deadline is not told here. O(parents), here and when it ends or goes.
    ///
    /// ```
    /// use purview::Context;
    /// let (request, _guard) = Context::background().with_cancel();
    /// let (shutdown, stop) = Context::background().with_cancel();
    /// let (ctx, _guard) = Context::any_of([&request, &shutdown]);
    /// stop.cancel_with("shutting down");
    /// assert_eq!(ctx.err().unwrap().to_string(), "context canceled: shutting down");
    /// ```
    #[track_caller]
    pub fn any_of<'a>(parents: impl IntoIterator<Item = &'a Context>) -> (Context, CancelGuard) {
        let place = Location::caller();
        let parents = parents.into_iter().map(|parent| parent.0.clone()).collect();
        let merged = Context(tree::any_of(parents, place));
        CancelGuard::of([merged.clone(), merged])
    }

    /// Derives a child with several of these at once: one node, one allocation (and one for each value).
    ///
    /// ```
    /// use purview::{Context, Key};
    /// use std::time::Duration;
    /// static USER_ID: Key<u64> = Key::new("user_id");
    /// let (ctx, _guard) = Context::background()
    ///     .derive()
    ///     .name("request")
    ///     .timeout(Duration::from_secs(2))
    ///     .deadline_cause("the request took too long")
    ///     .value(&USER_ID, 123)
    ///     .build();
    /// assert_eq!(ctx.name(), Some("request"));
    /// ```
    #[track_caller]
    pub fn derive(&self) -> Derive<'_> {
        Derive::new(self, Location::caller())
    }

    pub(crate) fn child(&self, plan: Plan) -> (Context, CancelGuard) {
        CancelGuard::of(self.0.derive(plan).map(Context))
    }

    // ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether it has ended. One load, unless a deadline binds here that nobody waits for: then that and the clock.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// assert!(!ctx.is_done());
    /// cancel.cancel();
    /// assert!(ctx.is_done());
    /// ```
    ///
    /// # Ordering
    /// Everything written before `cancel()` is visible to who sees the context done, by whatever means.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.head().is_done()
    }

    /// Why it has ended; None while it lives. For ever the same error.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// assert!(ctx.err().is_none());
    /// cancel.cancel();
    /// assert!(ctx.err().unwrap().is_canceled());
    /// ```
    #[must_use]
    pub fn err(&self) -> Option<Error> {
        self.scope().ending().map(Error::new)
    }

    /// The same, to be used with `?`.
    ///
    /// # Errors
    /// The context's error, if it has ended.
    ///
    /// ```
    /// fn count(ctx: &purview::Context) -> Result<u32, purview::Error> {
    ///     let mut n = 0;
    ///     while n < 1000 {
    ///         ctx.check()?;
    ///         n += 1;
    ///     }
    ///     Ok(n)
    /// }
    /// assert_eq!(count(&purview::Context::background()).unwrap(), 1000);
    /// ```
    pub fn check(&self) -> Result<(), Error> {
        self.err().map_or(Ok(()), Err)
    }

    /// When it ends at the latest: the earliest of its own deadline and its ancestors', also once it has ended. A grace's is
    /// its parent's and the grace, and exact once the parent has ended.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (outer, _guard) = Context::background().with_timeout(Duration::from_secs(1));
    /// let (inner, _guard) = outer.with_timeout(Duration::from_secs(3600));
    /// assert_eq!(inner.deadline(), outer.deadline());
    /// assert_eq!(Context::background().deadline(), None);
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.scope().deadline().to_instant()
    }

    /// How long it has got, on its own clock; zero once its deadline has passed, None without a deadline.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
    /// assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.scope().deadline();
        (deadline != Tick::NEVER).then(|| deadline.since(self.clock().now()))
    }

    /// The value of `key`: the nearest one that was set here or above.
    ///
    /// It takes no longer for 64 values than for 8, whatever the depth.
    ///
    /// ```
    /// use purview::{Context, Key};
    /// static USER_ID: Key<u64> = Key::new("user_id");
    /// let ctx = Context::background().with_value(&USER_ID, 123);
    /// let (child, _guard) = ctx.with_cancel();
    /// assert_eq!(child.value(&USER_ID), Some(&123));
    /// assert_eq!(Context::background().value(&USER_ID), None);
    /// ```
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        value::find(self, key)
    }

    /// Returns the context that this one's value layers lie on; the context itself, if it is no value layer.
    ///
    /// Value layers end with their base, so what is registered at the base serves all of them, and keeps none of their values.
    ///
    /// ```
    /// use purview::{Context, Key};
    ///
    /// static USER: Key<&str> = Key::new("user");
    /// let (server, _guard) = Context::background().with_cancel();
    /// let request = server.with_value(&USER, "alice");
    /// assert_eq!(request.base().id(), server.id());
    /// assert_eq!(request.base().value(&USER), None);
    /// assert_eq!(server.base().id(), server.id());
    /// ```
    #[must_use]
    pub fn base(&self) -> Context {
        let head = self.0.head();
        // The layers keep their base, so it is there.
        let base = if head.is_layer() { Ref::upgrade(head.scope_ptr()) } else { None };
        base.map_or_else(|| self.clone(), Context::from_ref)
    }

    /// Whether it can ever end: false if neither it nor an ancestor can be canceled or has a deadline.
    ///
    /// ```
    /// use purview::Context;
    /// assert!(!Context::background().can_be_done());
    /// assert!(Context::background().with_cancel().0.can_be_done());
    /// ```
    #[must_use]
    pub fn can_be_done(&self) -> bool {
        self.scope().can_be_done()
    }

    // ── waiting ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The context's end, as a future: `.await` it in a task, [`wait`](Done::wait) for it on a thread.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    /// assert!(ctx.done().wait().is_deadline_exceeded());
    /// ```
    pub fn done(&self) -> Done<'_> {
        Done::borrowed(self)
    }

    /// The same, as a future of its own that keeps the context.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let done = ctx.clone().into_done();
    /// cancel.cancel();
    /// assert!(done.wait().is_canceled());
    /// ```
    pub fn into_done(self) -> Done<'static> {
        Done::owned(self)
    }

    /// Runs `work` until it is finished or this context ends, whichever is first; then `work` is dropped.
    ///
    /// Dropping stops a future, and nothing that it has started: threads, tasks and queries need the context themselves.
    ///
    /// ```
    /// # fn block_on<F: std::future::Future>(work: F) -> F::Output {
    /// #     let mut work = std::pin::pin!(work);
    /// #     loop {
    /// #         let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    /// #         if let std::task::Poll::Ready(out) = work.as_mut().poll(&mut task) { return out; }
    /// #     }
    /// # }
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// assert_eq!(block_on(ctx.run(async { 42 })).unwrap(), 42);
    /// cancel.cancel();
    /// assert!(block_on(ctx.run(async { 42 })).is_err());
    /// ```
    pub fn run<F: Future>(&self, work: F) -> Run<'_, F> {
        Run::new(self, work)
    }

    /// Sleeps in a task, until the time is up or this context ends. See [`Sleep`].
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    ///
    /// async fn refresh(ctx: &Context) -> Result<(), purview::Error> {
    ///     loop {
    ///         ctx.sleep(Duration::from_secs(60)).await?; // and then do it
    ///     }
    /// }
    /// # let _ = refresh(&Context::background());
    /// ```
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Sleep::new(self, duration)
    }

    /// Sleeps on a thread, until the time is up or this context ends.
    ///
    /// # Errors
    /// The context's error, if it has ended or does so first.
    ///
    /// # Blocking
    /// At most for `duration`, and what it takes to be woken.
    ///
    /// ```
    /// use purview::Context;
    /// use std::time::Duration;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// assert!(ctx.sleep_blocking(Duration::from_millis(1)).is_ok());
    /// cancel.cancel();
    /// assert!(ctx.sleep_blocking(Duration::from_secs(3600)).is_err());
    /// ```
    pub fn sleep_blocking(&self, duration: Duration) -> Result<(), Error> {
        crate::park::block_on(std::pin::pin!(self.sleep(duration)))
    }

    /// Has `f` called once when this context ends; at once, before this returns, if it has ended. If it can never end, `f`
    /// never runs.
    ///
    /// It runs on the thread that ended the context; for a deadline of the system's clock, on a thread kept for callbacks.
    /// It may call anything here. Who must do something long spawns it: a cancel returns when the callbacks have.
    ///
    /// ```
    /// let (ctx, cancel) = purview::Context::background().with_cancel();
    /// let registration = ctx.on_done(|err| println!("stopped: {err}"));
    /// cancel.cancel();
    /// assert!(!registration.stop(), "it has run");
    /// ```
    pub fn on_done<F: FnOnce(&Error) + Send + 'static>(&self, f: F) -> OnDone {
        OnDone::new(self, f)
    }

    // ── looking ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Its number.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().with_cancel();
    /// assert!(ctx.id() > purview::Context::background().id());
    /// ```
    #[must_use]
    pub fn id(&self) -> ContextId {
        self.0.head().id
    }

    /// The name it was [given](Derive::name). A value layer has that of the context it was derived from.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().derive().name("request").build();
    /// assert_eq!(ctx.name(), Some("request"));
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.scope().name()
    }

    /// Where it was derived.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().with_cancel();
    /// assert_eq!(ctx.location().file(), file!());
    /// ```
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.0.head().place
    }

    /// What is registered here. Never blocks. A value layer has what the context it was derived from has.
    ///
    /// ```
    /// let (ctx, _guard) = purview::Context::background().with_cancel();
    /// assert_eq!(ctx.statistics().children(), 0);
    /// ```
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics { counts: self.scope().counts() }
    }
}

impl Default for Context {
    /// [`Context::background`].
    fn default() -> Self {
        Context::background()
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.head(), other.0.head())
    }
}

impl Eq for Context {}

impl Hash for Context {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0.head()).hash(state);
    }
}

// A panic leaves no context broken: what is behind a lock is consistent at every statement, and no user code runs there.
impl UnwindSafe for Context {}
impl RefUnwindSafe for Context {}
