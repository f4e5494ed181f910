//! A group as it is seen: by who has it, and from outside.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::info::{StopTimes, TaskInfo};
use super::shared::{Shared, SoFar};
use super::{Failure, TaskGroup};

impl<E, S> TaskGroup<E, S> {
    /// How many tasks there are that have not ended, begun or not.
    #[must_use]
    pub fn len(&self) -> usize {
        // Nothing of the two is counted twice: what is left of the futures is one of the crew.
        let own = self.own();
        let futures = own.left.strong_count();
        let all = self.crew_left.strong_count() + futures;
        all.saturating_sub(usize::from(own.open.is_some()) + usize::from(futures > 0))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tasks that have begun and not ended, the oldest first.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup, TaskState};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread_named("reader", |ctx| Err(ctx.done().wait()));
    /// let task = &group.tasks()[0];
    /// assert_eq!((task.name(), task.state()), (Some("reader"), TaskState::Running));
    /// ```
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.shared.tasks()
    }

    /// Those that were told to stop so long ago, and have not: the leaks.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// use std::{sync::mpsc, time::Duration};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// let (end, ends) = mpsc::channel::<()>();
    /// group.spawn_thread_named("deaf", move |_ctx| { let _ = ends.recv(); Ok(()) });
    /// group.cancel_with("shutdown");
    /// assert_eq!(group.overdue(Duration::ZERO)[0].name(), Some("deaf"));
    /// drop(end);
    /// ```
    #[must_use]
    pub fn overdue(&self, after: Duration) -> Vec<TaskInfo> {
        let mut tasks = self.tasks();
        tasks.retain(|task| task.told().is_some_and(|told| told >= after));
        tasks
    }

    /// To look at the tasks from elsewhere, without owning or keeping anything of the group's.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// let watch = group.watch();
    /// group.spawn_thread(|ctx| Err(ctx.done().wait()));
    /// assert_eq!(watch.tasks().len(), 1);
    /// group.cancel_with("enough");
    /// let _ = group.join_blocking();
    /// assert!(watch.is_over());
    /// ```
    #[must_use]
    pub fn watch(&self) -> GroupWatch
    where
        S: Send + Sync + 'static,
    {
        GroupWatch::new(&self.shared)
    }

    /// Calls `f` when the group is closed and its last task has ended.
    pub(crate) fn when_over(&self, f: impl FnOnce() + Send + 'static) {
        self.shared.idle.on_done(move |_| f()).detach();
    }

    /// The failures so far; how many tasks never began, since the group had ended; and how many it refused, since it was closed.
    pub(crate) fn told_so_far(&self) -> (Vec<Failure>, usize, usize) {
        let SoFar { failures, unbegun, refused, .. } = self.shared.so_far();
        (failures, unbegun, refused)
    }

    /// How long tasks took from being told to stop until they had.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// use std::time::Duration;
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// assert_eq!(group.stop_times().count(), 0);
    /// ```
    #[must_use]
    pub fn stop_times(&self) -> StopTimes {
        self.shared.roster.stop_times()
    }
}

/// Looks at the tasks of a group, and owns nothing of it. Made by [`TaskGroup::watch`](super::TaskGroup::watch).
///
/// A page that shows what goes on keeps one for each group; who waits for the group need not know.
///
/// ```
/// use purview::{Context, Error, TaskGroup, TaskState};
/// let group: TaskGroup<Error> = TaskGroup::builder(&Context::background()).name("readers").build();
/// let watch = group.watch();
/// group.spawn_thread_named("reader", |ctx| Err(ctx.done().wait()));
/// assert_eq!(watch.name(), Some("readers"));
/// assert_eq!(watch.tasks()[0].state(), TaskState::Running);
/// ```
#[derive(Clone)]
pub struct GroupWatch(Weak<dyn Watched>);

/// A group, whatever starts its tasks.
trait Watched: Send + Sync {
    fn name(&self) -> Option<&'static str>;
    fn tasks(&self) -> Vec<TaskInfo>;
    fn is_over(&self) -> bool;
}

impl<S: Send + Sync> Watched for Shared<S> {
    fn name(&self) -> Option<&'static str> {
        self.context.name()
    }

    fn tasks(&self) -> Vec<TaskInfo> {
        Shared::tasks(self)
    }

    fn is_over(&self) -> bool {
        self.idle.is_done()
    }
}

impl GroupWatch {
    pub(super) fn new<S: Send + Sync + 'static>(shared: &Arc<Shared<S>>) -> GroupWatch {
        let shared = Arc::downgrade(shared);
        GroupWatch(shared)
    }

    /// The group's name, if it was given one and is still there.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.0.upgrade()?.name()
    }

    /// The tasks that have begun and not ended, the oldest first, as [`TaskGroup::tasks`](super::TaskGroup::tasks).
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.0.upgrade().map_or_else(Vec::new, |group| group.tasks())
    }

    /// Whether nothing of the group is there any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// Whether the group takes no more tasks, and has none.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.upgrade().is_none_or(|group| group.is_over())
    }
}

impl fmt::Debug for GroupWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupWatch")
            .field("name", &self.name())
            .field("tasks", &self.tasks())
            .finish()
    }
}
