//! What went wrong in a group: errors and panics of tasks, with the task's name and place.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use crate::error::{Cause, Chain, Error, source_of_shown};

/// As many failures are kept; the rest is counted. A group may have a million tasks that all fail.
pub(super) const KEPT: usize = 16;

/// A task that failed: it returned an error, panicked, or was dropped before its end by somebody else than its group.
///
/// ```
/// use purview::{Context, Panicked, TaskGroup};
/// let group: TaskGroup<std::io::Error> = TaskGroup::new(&Context::background());
/// group.spawn_thread_named("parser", |_ctx| panic!("no such token"));
/// let err = group.join_blocking().unwrap_err();
/// let failure = &err.failures()[0];
/// assert_eq!(failure.name(), Some("parser"));
/// assert!(failure.location().file().ends_with(".rs"));
/// assert_eq!(failure.cause().downcast_ref::<Panicked>().unwrap().message(), "no such token");
/// ```
#[derive(Clone)]
pub struct Failure {
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) location: &'static Location<'static>,
    pub(super) cause: Cause,
}

impl Failure {
    pub(crate) fn new(
        name: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
        cause: Cause,
    ) -> Failure {
        Failure { name, location, cause }
    }

    /// The task's name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the task was spawned.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// What it returned; or a [`Panicked`], or a [`Dropped`].
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Whether the task panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.cause.downcast_ref::<Panicked>().is_some()
    }
}

/// The task, and its cause with all sources of the cause.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = Chain(&*self.cause);
        match self.name() {
            Some(name) => write!(f, "task {name} ({}): {cause}", self.location),
            None => write!(f, "task ({}): {cause}", self.location),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The cause of a task that panicked.
///
/// ```
/// use purview::{Context, Error, Panicked, TaskGroup};
/// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
/// group.spawn_thread(|ctx| Err(ctx.done().wait()));
/// group.spawn_thread(|_ctx| panic!("by accident"));
/// let ctx = group.context().clone();
/// assert!(group.join_blocking().is_err());
/// let ended = ctx.err().unwrap(); // what the other thread saw
/// assert_eq!(ended.cause().unwrap().downcast_ref::<Panicked>().unwrap().message(), "by accident");
/// ```
#[derive(Clone, Debug)]
pub struct Panicked {
    message: String,
}

impl Panicked {
    pub(crate) fn new(payload: &(dyn Any + Send)) -> Panicked {
        let message = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked { message: message.unwrap_or_else(|| "a value that is no text".to_string()) }
    }

    /// What it said.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message)
    }
}

impl std::error::Error for Panicked {}

/// The cause of a task that was dropped before its end, and not by its group: its runtime was shut down, say.
///
/// ```
/// use purview::{Context, Dropped, Error, Spawn, TaskGroup};
///
/// #[derive(Default)]
/// struct Gone;
/// impl Spawn for Gone {
///     fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
///         drop(task);
///     }
/// }
/// let group: TaskGroup<Error, Gone> = TaskGroup::new(&Context::background());
/// group.spawn(async |_ctx| Ok(()));
/// let err = group.join_blocking().unwrap_err();
/// assert!(err.failures()[0].cause().downcast_ref::<Dropped>().is_some());
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped before its end")
    }
}

impl std::error::Error for Dropped {}

/// Why a group did not do all it was given: tasks that failed, an end that came first, or tasks that came too late. E is the error of its tasks.
///
/// ```
/// use purview::{Context, TaskGroup};
/// use std::io::{Error, ErrorKind};
/// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
/// group.spawn_thread_named("reader", |_ctx| Err(ErrorKind::NotFound.into()));
/// let err = group.join_blocking().unwrap_err();
/// assert_eq!((err.failed(), err.error().unwrap().kind()), (1, ErrorKind::NotFound));
/// assert!(err.to_string().starts_with("task reader (")); // and where it was spawned
/// assert!(err.ended().is_none());
/// ```
pub struct GroupError<E> {
    pub(super) failures: Vec<Failure>,
    /// Of these, not all are kept.
    pub(super) failed: usize,
    pub(super) ended: Option<Error>,
    pub(super) refused: usize,
    pub(super) of: PhantomData<fn() -> E>,
}

impl<E> GroupError<E> {
    /// The tasks that failed, in the order in which they did: the first sixteen.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many tasks failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The end that kept tasks from doing their work, where none failed: the group's context was canceled from outside, or its
    /// time was up.
    #[must_use]
    pub fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// How many tasks were dropped because they were spawned from outside into the [closed](super::TaskGroup::close) group.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// What the first task returned that failed by an error of its own.
    #[must_use]
    pub fn error(&self) -> Option<&E>
    where
        E: std::error::Error + 'static,
    {
        self.failures.iter().find_map(|failure| failure.cause.downcast_ref())
    }
}

impl<E> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failures[..], &self.ended) {
            ([], Some(ended)) => fmt::Display::fmt(ended, f),
            ([], None) => {
                let tasks = if self.refused == 1 { "task was" } else { "tasks were" };
                write!(f, "{} {tasks} not begun: the group was closed", self.refused)
            }
            ([one], _) => fmt::Display::fmt(one, f),
            (failures, _) => {
                write!(f, "{} tasks failed", self.failed)?;
                for (i, failure) in failures.iter().enumerate() {
                    write!(f, "{} {failure}", if i == 0 { ":" } else { ";" })?;
                }
                let more = self.failed.saturating_sub(failures.len());
                if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
            }
        }
    }
}

impl<E> fmt::Debug for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupError")
            .field("failures", &self.failures)
            .field("failed", &self.failed)
            .field("ended", &self.ended)
            .field("refused", &self.refused)
            .finish()
    }
}

/// The text contains the failures with all their sources, so there is no `source()`; an [end](GroupError::ended) has the source that its
/// [`Error`] has. [`Error::find`] finds a context's error in both.
impl<E> std::error::Error for GroupError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match (self.failures.first(), &self.ended) {
            (Some(first), _) => source_of_shown(&*first.cause, None),
            (None, Some(ended)) => source_of_shown(ended, ended.source()),
            (None, None) => None,
        }
    }
}
