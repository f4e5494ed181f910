//! What a group may be told before it begins.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::shared::{Crew, Futures, Shared};
use super::{GroupWatch, Own, TaskGroup, TaskInfo};
use crate::error::Cause;
use crate::leak;
use crate::sync::Mutex;
use crate::tree::{Kind, Plan};
use crate::{Context, Error};

/// A group to be, made by [`TaskGroup::builder`].
///
/// ```
/// use purview::{Context, Error, TaskGroup};
/// use std::time::Duration;
///
/// let group: TaskGroup<Error> = TaskGroup::builder(&Context::background())
///     .name("readers")
///     .limit(64)
///     .grace(Duration::from_secs(5))
///     .on_overdue(Duration::from_secs(1), |task, err| eprintln!("{task}: {err}"))
///     .build();
/// assert_eq!(group.context().name(), Some("readers"));
/// ```
#[must_use = "a builder does nothing before it is built"]
pub struct GroupBuilder<E, S> {
    parent: Context,
    location: &'static Location<'static>,
    name: Option<&'static str>,
    limit: Option<usize>,
    on_failure: OnFailure,
    grace: Option<Duration>,
    overdue: Option<(Duration, Hook)>,
    task_location: Option<&'static Location<'static>>,
    errors: Option<fn(E) -> Cause>,
    of: PhantomData<fn() -> S>,
}

/// What a group does when a task fails.
///
/// ```
/// use purview::{Context, OnFailure, TaskGroup};
/// let group: TaskGroup<std::io::Error> =
///     TaskGroup::builder(&Context::background()).on_failure(OnFailure::Isolate).build();
/// group.spawn_thread(|_ctx| Err(std::io::Error::other("one of many")));
/// group.spawn_thread(|ctx| ctx.check().map_err(std::io::Error::from)); // goes on
/// assert_eq!(group.join_blocking().unwrap_err().failed(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// Cancels its context, with the failure as the cause.
    #[default]
    Cancel,
    /// Notes it; the other tasks go on.
    Isolate,
}

type Hook = Box<dyn Fn(&TaskInfo, &Error) + Send + Sync>;

impl<E, S> GroupBuilder<E, S> {
    #[track_caller]
    pub(super) fn new(parent: &Context) -> Self {
        GroupBuilder {
            parent: parent.clone(),
            location: Location::caller(),
            name: None,
            limit: None,
            on_failure: OnFailure::default(),
            grace: None,
            overdue: None,
            task_location: None,
            errors: None,
            of: PhantomData,
        }
    }

    /// Names the group's context.
    pub fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Has no more than so many tasks at a time; at least one. A task is not even begun before there is room for it.
    pub fn limit(mut self, tasks: usize) -> Self {
        self.limit = Some(tasks);
        self
    }

    /// What a failure means to the others.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Gives futures so long to stop after they were told to; then they are dropped at their next await. Without it they are
    /// waited for, as long as the group is.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Calls `hook` with each task that has not stopped so long after it was told to, and with why it was.
    ///
    /// It is called once, where [callbacks](Context::on_done) are, with no lock held.
    pub fn on_overdue(
        mut self,
        after: Duration,
        hook: impl Fn(&TaskInfo, &Error) + Send + Sync + 'static,
    ) -> Self {
        self.overdue = Some((after, Box::new(hook)));
        self
    }

    /// Tells tasks by this place, instead of by the one at which each is spawned: for who spawns them on his caller's behalf.
    ///
    /// ```
    /// use purview::{Context, Error, GroupError, TaskGroup};
    /// use std::panic::Location;
    ///
    /// #[track_caller]
    /// fn both(ctx: &Context, work: fn(Context) -> Result<(), Error>) -> Result<(), GroupError<Error>> {
    ///     let group: TaskGroup<Error> =
    ///         TaskGroup::builder(ctx).task_location(Location::caller()).build();
    ///     group.spawn_thread(work);
    ///     group.spawn_thread(work);
    ///     group.join_blocking()
    /// }
    /// let err = both(&Context::background(), |_ctx| panic!("by accident")).unwrap_err();
    /// let line = line!() - 1;
    /// assert_eq!(err.failures()[0].location().line(), line); // that of the call
    /// ```
    pub fn task_location(mut self, location: &'static Location<'static>) -> Self {
        self.task_location = Some(location);
        self
    }

    /// Makes causes of the tasks' errors by `errors`, instead of by `Into`: for errors whose boxes hide what is inside.
    ///
    /// `anyhow::Error` is one of those. Its own box can be had with its content visible, so that a failure's cause can be
    /// downcast:
    ///
    /// ```
    /// use purview::{Cause, Context, TaskGroup};
    /// use std::io;
    ///
    /// let group: TaskGroup<anyhow::Error> = TaskGroup::builder(&Context::background())
    ///     .errors(|err: anyhow::Error| Cause::from(err.reallocate_into_boxed_dyn_error_without_backtrace()))
    ///     .build();
    /// group.spawn_thread(|_ctx| Err(io::Error::other("disk full").into()));
    /// let err = group.join_blocking().unwrap_err();
    /// let cause = err.failures()[0].cause();
    /// assert!(cause.downcast_ref::<io::Error>().is_some());
    /// ```
    ///
    /// `eyre::Report` gives its content away by type only: `report.downcast::<io::Error>()` is a cause if it is `Ok`, and the report that
    /// it hands back is one if it is not.
    ///
    /// Whether an error is an [end](TaskGroup#failures-and-ends) does not depend on it.
    pub fn errors(mut self, errors: fn(E) -> Cause) -> Self {
        self.errors = Some(errors);
        self
    }

    /// Makes the group.
    ///
    /// # Panics
    /// As the making of an `S` does: a runtime's may want to be made inside it.
    #[track_caller]
    pub fn build(self) -> TaskGroup<E, S>
    where
        S: Default + Send + Sync + 'static,
    {
        self.build_on(S::default())
    }

    /// Makes the group, whose tasks are started by `spawner`.
    pub fn build_on(self, spawner: S) -> TaskGroup<E, S>
    where
        S: Send + Sync + 'static,
    {
        self.build_with_members(spawner).0
    }

    /// The same, and what its tasks keep.
    pub(super) fn build_with_members(self, spawner: S) -> (TaskGroup<E, S>, Arc<Futures<S>>)
    where
        S: Send + Sync + 'static,
    {
        let mut plan = Plan::new(Kind::Cancel, self.location);
        plan.name = self.name;
        let (context, guard) = self.parent.child(plan);
        let handles = (context.clone(), guard.handle());
        let mut shared = Shared::new(spawner, handles, self.grace, self.on_failure, self.limit);
        shared.task_location = self.task_location;
        let shared = Arc::new(shared);
        leak::register(shared.check, &context, || GroupWatch::new(&shared));
        if let Some((after, hook)) = self.overdue {
            let group = Arc::downgrade(&shared);
            let (late, guard) = leak::unseen(|| context.with_grace(after));
            let _ = guard.disarm();
            shared.set_overdue(late.on_done(move |error| report(&group, error, &hook)));
        }
        let crew = Arc::new(Crew { shared: Arc::clone(&shared) });
        let crew_left = Arc::downgrade(&crew);
        let futures = Arc::new(Futures::new(crew));
        let left = Arc::downgrade(&futures);
        let own = Mutex::new(Own { open: Some(Arc::clone(&futures)), left });
        let has_grace = self.grace.is_some();
        let errors = self.errors;
        (TaskGroup { shared, crew_left, own, guard, has_grace, errors }, futures)
    }
}

fn report<S>(group: &Weak<Shared<S>>, error: &Error, hook: &Hook) {
    let Some(shared) = group.upgrade() else { return };
    for task in shared.tasks() {
        hook(&task, error);
    }
}

impl<E, S> fmt::Debug for GroupBuilder<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuilder")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("on_failure", &self.on_failure)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
