//! How a group's tasks are started: the one thing that a runtime has to give.

use std::fmt;
use std::future::Future;
use std::io;
use std::thread;

/// Starts tasks: a runtime, as far as a [`TaskGroup`](crate::TaskGroup) needs one.
///
/// A group needs nothing else of it: it hears of a task's end, and stops a task, by the future that it hands over.
///
/// ```
/// use purview::Spawn;
///
/// /// Each task has a thread of its own.
/// #[derive(Default)]
/// struct Threads;
///
/// impl Spawn for Threads {
///     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
///         std::thread::spawn(move || purview::thread::block_on(task));
///     }
/// }
/// ```
pub trait Spawn: Send + Sync + 'static {
    /// Has `task` run. Where it cannot be, it is dropped, and its group hears of that.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F);

    /// Has `task` run where it may block: on a thread, unless the runtime has a pool for that.
    ///
    /// # Errors
    /// The system has no thread left.
    fn spawn_blocking<F: FnOnce() + Send + 'static>(&self, task: F) -> io::Result<()> {
        thread::Builder::new().spawn(task).map(drop)
    }
}

/// No runtime: for a group of nothing but threads, which is what [`TaskGroup`](crate::TaskGroup) is if nothing else is said.
#[derive(Clone, Copy, Default, Debug)]
#[non_exhaustive]
pub struct NoSpawn;

/// The task that is handed back by a group that did not take it, and why. Made by
/// [`TaskGroup::try_spawn`](crate::TaskGroup::try_spawn) and [`spawn_ready`](crate::TaskGroup::spawn_ready).
pub struct TrySpawnError<F> {
    pub(super) task: F,
    pub(super) refused: Refused,
}

/// Why a group does not take a task.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    Full,
    Closed,
    Done(crate::Error),
}

impl<F> TrySpawnError<F> {
    /// The task.
    #[must_use]
    pub fn into_task(self) -> F {
        self.task
    }

    /// Whether the group has as many tasks as it may have at a time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.refused, Refused::Full)
    }

    /// Whether the group was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.refused, Refused::Closed)
    }

    /// The end of the group's context, if that is why.
    #[must_use]
    pub fn ended(&self) -> Option<&crate::Error> {
        match &self.refused {
            Refused::Done(error) => Some(error),
            Refused::Full | Refused::Closed => None,
        }
    }
}

impl<F> fmt::Display for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            Refused::Full => f.write_str("the group is full"),
            Refused::Closed => f.write_str("the group is closed"),
            Refused::Done(error) => write!(f, "the group has ended: {error}"),
        }
    }
}

impl<F> fmt::Debug for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrySpawnError").field(&self.refused).finish()
    }
}

impl<F> std::error::Error for TrySpawnError<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.ended().and_then(|error| crate::error::source_of_shown(error, error.source()))
    }
}
