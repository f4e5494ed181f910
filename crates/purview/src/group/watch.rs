//! A group from outside.

use std::fmt;
use std::sync::{Arc, Weak};

use super::info::TaskInfo;
use super::shared::Shared;

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
