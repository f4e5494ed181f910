//! Task groups: tasks that end before who started them does.
//!
//! ```text
//! TaskGroup ──► Shared ◄── Ticket ── Tracked (a future, in the runtime)     context ── the tasks'; a failure cancels it
//!    │            │ roster: who is there                                    abort   ── its end drops futures
//!    └ its guard  │ limit, backlog: who may not begin yet                   idle    ── ends when all is over
//! ```
//! A group is made of contexts: to tell all is to cancel one, to drop futures is to cancel another, above which each of them
//! [runs](crate::Context::run), and the last task cancels a third, which is what a join waits for.
//!
//! # Invariants
//! - **G1** A task that was taken is counted in `live` until its [`Ticket`](task::Ticket) has told how it ended, however that
//!   was: by itself, by a panic, dropped by its runtime, or never begun.
//! - **G2** A future's work is gone before its ticket tells; so nothing of a task runs after a join has returned.
//! - **G3** No lock is held while something of the user's runs: no task, closure, drop or hook.
//! - **G4** The room for a task is taken before it is handed to the runtime, and given back after it has told.

mod builder;
mod ending;
mod failure;
mod info;
mod inside;
mod roster;
mod scope;
mod shared;
mod spawn;
mod start;
mod task;
mod watch;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Weak};

pub use builder::{GroupBuilder, OnFailure};
pub use failure::{Dropped, Failure, GroupError, Panicked};
pub use info::{Report, StopTimes, TaskInfo, TaskKind, TaskState};
pub use scope::{Scope, scope};
pub use spawn::{NoSpawn, Spawn, TrySpawnError};
pub use watch::GroupWatch;

use crate::clock::Tick;
use crate::error::Cause;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::tree::Panics;
use crate::{CancelGuard, Context};
pub(crate) use info::First;
use inside::Address;
pub(crate) use roster::{Record, Roster, Seat};
use shared::{Crew, Futures, Shared, UnusedRoom};
use spawn::Refused;
use start::{named_thread, start, start_blocking, start_now};
use task::Ticket;
pub(crate) use task::panicked;

/// Tasks under one context, all of which have ended before the group has.
///
/// The first failure cancels the others, with itself as the cause; [`join`](Self::join) waits for all and tells what failed. A
/// panic is a failure like an error. Results are not kept: a group may run for years.
///
/// `E` is the tasks' error, `S` starts them: a runtime's crate names a group of its own (`purview_tokio::TaskGroup`); a group
/// of threads needs none.
///
/// ```
/// use purview::{Context, TaskGroup};
///
/// let group: TaskGroup<std::io::Error> = TaskGroup::new(&Context::background());
/// group.spawn_thread(|ctx| {
///     ctx.done().wait(); // works until it is told to stop
///     Ok(())
/// });
/// group.spawn_thread(|_ctx| Err(std::io::Error::other("disk full")));
/// let err = group.join_blocking().unwrap_err();
/// assert_eq!(err.failures()[0].cause().to_string(), "disk full");
/// ```
///
/// # Failures and ends
/// A task's `Err` is a failure, unless it only reports that the task was canceled. It is an *end* if the group's context is done and
/// either the context's error is in its chain, as [`Error::find`](crate::Error::find) follows it, or its text is exactly the text of
/// that error. So the error of another context with another text is a failure: the deadline of a query in a group that was canceled.
///
/// The text is compared for errors that hide their content: an `anyhow::Error` or `eyre::Report` that becomes a box cannot be
/// downcast. Neither can the [cause](Failure::cause) of a failure that was made of one, unless the group is given
/// [`errors`](GroupBuilder::errors).
///
/// # When it is dropped
/// Its context is canceled, and nothing is detached unseen: futures are dropped at their next await, when the group's
/// [grace](GroupBuilder::grace) is over; at once, if it was given none. Threads cannot be stopped from outside: they are told.
#[must_use = "dropping a group cancels its tasks"]
pub struct TaskGroup<E, S: 'static = NoSpawn> {
    shared: Arc<Shared<S>>,
    crew_left: Weak<Crew<S>>,
    own: Mutex<Own<S>>,
    guard: CancelGuard,
    has_grace: bool,
    /// How an error becomes a cause, if not by `Into`.
    errors: Option<fn(E) -> Cause>,
}

/// What lets a group take tasks.
struct Own<S: 'static> {
    /// None once it is closed.
    open: Option<Arc<Futures<S>>>,
    left: Weak<Futures<S>>,
}

impl<E, S> TaskGroup<E, S> {
    /// Makes a group below `ctx`.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.join_blocking().unwrap(); // nothing to do
    /// ```
    ///
    /// # Panics
    /// As the making of an `S` does: a runtime's may want to be made inside it.
    #[track_caller]
    pub fn new(ctx: &Context) -> Self
    where
        S: Default + Send + Sync + 'static,
    {
        Self::builder(ctx).build()
    }

    /// Makes one with a name, a limit, a grace, or one that goes on after a failure.
    ///
    /// ```
    /// use purview::{Context, Error, OnFailure, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::builder(&Context::background())
    ///     .name("indexers")
    ///     .limit(2)
    ///     .on_failure(OnFailure::Isolate)
    ///     .build();
    /// (0..100).for_each(|_| group.spawn_thread(|ctx| ctx.check())); // two at a time
    /// group.join_blocking().unwrap();
    /// ```
    #[track_caller]
    pub fn builder(ctx: &Context) -> GroupBuilder<E, S> {
        GroupBuilder::new(ctx)
    }

    /// The tasks' context. It ends with the first failure, when the group is told to stop, or with the group.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// let ctx = group.context().clone();
    /// drop(group);
    /// assert!(ctx.is_done());
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// Closes the group permanently to tasks from outside. A running task of the group may go on to spawn in it: the group is
    /// not over before that task is.
    ///
    /// A task is inside while it is polled, or while its closure runs on its own thread. Everything else is outside, including
    /// threads that a task started by itself. A task that is spawned from outside is dropped and counted: [`join`](Self::join) and
    /// [`shutdown`](Self::shutdown) report it as [refused](GroupError::refused).
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.close();
    /// group.spawn_thread(|_ctx| unreachable!());
    /// assert_eq!(group.join_blocking().unwrap_err().refused(), 1);
    /// ```
    pub fn close(&self) {
        let own = self.own().open.take();
        drop(own); // maybe the last
    }

    /// Whether it was [closed](Self::close).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.own().open.is_none()
    }

    /// Tells all tasks to stop, and why, unless they have been told.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread(|ctx| Err(ctx.done().wait()));
    /// group.cancel_with("no longer needed");
    /// let err = group.join_blocking().unwrap_err();
    /// assert_eq!(err.to_string(), "context canceled: no longer needed");
    /// ```
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.guard.cancel_with(cause);
    }

    // ── threads ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Starts a thread for `task`. Past the limit, it is started when there is room.
    ///
    /// Where the system has no thread left, that is the task's failure. A group that is [closed](Self::close), or has ended, drops
    /// the task and reports that it did.
    ///
    /// ```
    /// use purview::{Context, TaskGroup};
    /// let group: TaskGroup<std::io::Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread(|_ctx| std::fs::read("/no/such/file").map(drop));
    /// assert_eq!(group.join_blocking().unwrap_err().error().unwrap().kind(), std::io::ErrorKind::NotFound);
    /// ```
    #[track_caller]
    pub fn spawn_thread<F>(&self, task: F)
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
        E: Into<Cause> + 'static,
        S: Send + Sync + 'static,
    {
        self.spawn_thread_as(None, Location::caller(), task);
    }

    /// The same, with a name: the thread's, too.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread_named("reader", |_ctx| {
    ///     assert_eq!(std::thread::current().name(), Some("reader"));
    ///     Ok(())
    /// });
    /// group.join_blocking().unwrap();
    /// ```
    #[track_caller]
    pub fn spawn_thread_named<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
        E: Into<Cause> + 'static,
        S: Send + Sync + 'static,
    {
        self.spawn_thread_as(Some(name.into()), Location::caller(), task);
    }

    fn spawn_thread_as<F>(
        &self,
        name: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
        task: F,
    ) where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
        E: Into<Cause> + 'static,
        S: Send + Sync + 'static,
    {
        let thread = named_thread(name.as_deref());
        let to_cause = self.to_cause();
        self.begin(name, location, TaskKind::Blocking, move |shared, ticket| {
            start_blocking(shared, ticket, task, to_cause, |run| thread.spawn(run).map(drop));
        });
    }

    fn to_cause(&self) -> fn(E) -> Cause
    where
        E: Into<Cause>,
    {
        self.errors.unwrap_or(Into::into)
    }

    /// Has `start` called with the task's ticket: now, if there is room, or later, or never.
    fn begin(
        &self,
        name: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
        kind: TaskKind,
        start: impl FnOnce(&Shared<S>, Ticket<S>) + Send + 'static,
    ) where
        S: Send + Sync + 'static,
    {
        let futures = match self.enter() {
            Ok(futures) => futures,
            Err(refused) => return self.shared.count_refused(&refused),
        };
        let record = Record { name, location, kind, begun: Tick::NEVER };
        if self.shared.has_room() {
            return start(&self.shared, Ticket::new(futures, record));
        }
        // In the order in which they are dropped, if it never begins: what is the user's goes before the group hears of it (G2).
        let later = (start, futures);
        self.shared.begin_later(Box::new(move || {
            let (start, futures) = later;
            let shared = Arc::clone(&futures.crew.shared);
            start(&shared, Ticket::new(futures, record));
        }));
    }

    /// Enters one more task, unless the group has ended or is closed to the caller.
    fn enter(&self) -> Result<Arc<Futures<S>>, Refused> {
        if let Some(error) = self.shared.context.err() {
            return Err(self.shared.refuse(error));
        }
        let open = self.own().open.clone();
        open.or_else(|| self.enter_from_within()).ok_or(Refused::Closed)
    }

    /// Enters a task into a closed group, for a task of the group that runs on this thread and so keeps the group from being over.
    fn enter_from_within(&self) -> Option<Arc<Futures<S>>> {
        if !Address::of(&self.shared).is_entered() {
            return None;
        }
        let left = self.own().left.upgrade();
        if left.is_some() {
            return left;
        }
        // There are only threads, this one among them. Their new futures are made under no lock: an observer hears of it.
        let new = Arc::new(Futures::new(self.crew_left.upgrade()?));
        let mut own = self.own();
        let first = own.left.upgrade(); // another thread's, that did the same
        if first.is_none() {
            own.left = Arc::downgrade(&new);
        }
        drop(own);
        Some(first.unwrap_or(new))
    }

    fn own(&self) -> MutexGuard<'_, Own<S>> {
        lock(&self.own)
    }
}

impl<E, S: Spawn> TaskGroup<E, S> {
    /// Starts a task. Past the limit, it is started when there is room.
    ///
    /// A group that is [closed](Self::close), or has ended, drops it, and reports that it did: nothing begins that is to stop at
    /// once. To get such a task back, there is [`try_spawn`](Self::try_spawn). To wait for room, so that not too many wait here, there is
    /// [`spawn_ready`](Self::spawn_ready).
    ///
    /// ```
    /// # #[derive(Default)]
    /// # struct Threads;
    /// # impl purview::Spawn for Threads {
    /// #     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
    /// #         std::thread::spawn(move || purview::thread::block_on(task));
    /// #     }
    /// # }
    /// use purview::{Context, Error, TaskGroup};
    /// // A runtime's crate has this type: purview_tokio::TaskGroup.
    /// let group: TaskGroup<Error, Threads> = TaskGroup::new(&Context::background());
    /// group.spawn(async |ctx| ctx.check());
    /// group.join_blocking().unwrap();
    /// ```
    #[track_caller]
    pub fn spawn<F, Fut>(&self, task: F)
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        self.spawn_as(None, Location::caller(), task);
    }

    /// The same, with a name.
    ///
    /// ```
    /// # #[derive(Default)]
    /// # struct Threads;
    /// # impl purview::Spawn for Threads {
    /// #     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
    /// #         std::thread::spawn(move || purview::thread::block_on(task));
    /// #     }
    /// # }
    /// use purview::{Context, TaskGroup};
    /// let group: TaskGroup<std::io::Error, Threads> = TaskGroup::new(&Context::background());
    /// group.spawn_named("writer", async |_ctx| Err(std::io::Error::other("disk full")));
    /// assert_eq!(group.join_blocking().unwrap_err().failures()[0].name(), Some("writer"));
    /// ```
    #[track_caller]
    pub fn spawn_named<F, Fut>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        self.spawn_as(Some(name.into()), Location::caller(), task);
    }

    fn spawn_as<F, Fut>(
        &self,
        name: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
        task: F,
    ) where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let to_cause = self.to_cause();
        self.begin(name, location, TaskKind::Async, move |shared, ticket| {
            start(shared, ticket, task, to_cause);
        });
    }

    /// Starts a task now, or not at all.
    ///
    /// ```
    /// # #[derive(Default)]
    /// # struct Threads;
    /// # impl purview::Spawn for Threads {
    /// #     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
    /// #         std::thread::spawn(move || purview::thread::block_on(task));
    /// #     }
    /// # }
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error, Threads> = TaskGroup::builder(&Context::background()).limit(1).build();
    /// group.try_spawn(async |ctx: Context| Err(ctx.done().await)).unwrap();
    /// assert!(group.try_spawn(async |_ctx| Ok(())).unwrap_err().is_full());
    /// ```
    ///
    /// # Errors
    /// Hands the task back, where the group is full or closed, or has ended.
    #[track_caller]
    pub fn try_spawn<F, Fut>(&self, task: F) -> Result<(), TrySpawnError<F>>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let futures = match self.enter() {
            Ok(futures) => futures,
            Err(refused) => return Err(TrySpawnError { task, refused }),
        };
        if !self.shared.has_room() {
            return Err(TrySpawnError { task, refused: Refused::Full });
        }
        start_now(&self.shared, futures, Location::caller(), task, self.to_cause());
        Ok(())
    }

    /// Waits for room under the limit, and starts a task. Room is given in order of arrival, to who waits and to what was
    /// [spawned](Self::spawn) past the limit alike.
    ///
    /// ```
    /// # #[derive(Default)]
    /// # struct Threads;
    /// # impl purview::Spawn for Threads {
    /// #     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
    /// #         std::thread::spawn(move || purview::thread::block_on(task));
    /// #     }
    /// # }
    /// use purview::{Context, Error, TaskGroup};
    /// # purview::thread::block_on(async {
    /// let group: TaskGroup<Error, Threads> = TaskGroup::builder(&Context::background()).limit(8).build();
    /// for _ in 0..100 {
    ///     group.spawn_ready(async |ctx: Context| ctx.check()).await.unwrap();
    /// }
    /// group.join().await.unwrap();
    /// # })
    /// ```
    ///
    /// # Errors
    /// Hands the task back, where the group is closed or has ended, also while it waited.
    ///
    /// # Cancel safety
    /// Dropping the future drops the task, which was not started.
    #[track_caller]
    pub fn spawn_ready<F, Fut>(
        &self,
        task: F,
    ) -> impl Future<Output = Result<(), TrySpawnError<F>>> + use<'_, F, Fut, E, S>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let location = Location::caller();
        async move {
            let unused = UnusedRoom(&self.shared); // goes after the permit
            let mut permit = None;
            if let Some(limit) = &self.shared.limit {
                permit = limit.try_acquire(1);
                if permit.is_none() {
                    // Nobody waits for room in a group that takes no more tasks.
                    if let Err(refused) = self.enter() {
                        return Err(TrySpawnError { task, refused });
                    }
                    permit = match limit.acquire(&self.shared.context, 1).await {
                        Ok(permit) => Some(permit),
                        Err(error) => {
                            let refused = self.shared.refuse(error);
                            return Err(TrySpawnError { task, refused });
                        }
                    };
                }
            }
            let futures = match self.enter() {
                Ok(futures) => futures,
                Err(refused) => return Err(TrySpawnError { task, refused }),
            };
            std::mem::forget((permit, unused)); // given back when the task has ended
            start_now(&self.shared, futures, location, task, self.to_cause());
            Ok(())
        }
    }

    /// Starts a task that blocks, where the runtime has room for such: a pool of threads, or a thread.
    ///
    /// ```
    /// # #[derive(Default)]
    /// # struct Threads;
    /// # impl purview::Spawn for Threads {
    /// #     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
    /// #         std::thread::spawn(move || purview::thread::block_on(task));
    /// #     }
    /// # }
    /// use purview::{Context, Error, TaskGroup};
    /// use std::time::Duration;
    /// let group: TaskGroup<Error, Threads> = TaskGroup::new(&Context::background());
    /// group.spawn_blocking(|ctx| ctx.sleep_blocking(Duration::from_secs(3600)));
    /// group.cancel_with("no longer needed");
    /// assert!(group.join_blocking().unwrap_err().ended().is_some());
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F>(&self, task: F)
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        let to_cause = self.to_cause();
        self.begin(None, Location::caller(), TaskKind::Blocking, move |shared, ticket| {
            let spawn = |run| shared.spawner.spawn_blocking(run);
            start_blocking(shared, ticket, task, to_cause, spawn);
        });
    }
}

impl<E, S> Drop for TaskGroup<E, S> {
    fn drop(&mut self) {
        let mut panics = Panics::new(); // of callbacks, wakers, and drops of what was not begun
        panics.catch(|| self.guard.cancel());
        panics.catch(|| self.close());
        panics.catch(|| self.shared.drop_waiting());
        if !self.has_grace {
            panics.catch(|| self.shared.abort_now.cancel());
        }
        panics.resume();
    }
}

impl<E, S> fmt::Debug for TaskGroup<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup")
            .field("context", self.context())
            .field("tasks", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
