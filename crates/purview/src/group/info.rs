//! What can be seen of a group's tasks.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// A task as it was when it was looked at.
///
/// ```
/// use purview::{Context, Error, TaskGroup, TaskKind, TaskState};
/// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
/// group.spawn_thread_named("reader", |ctx| Err(ctx.done().wait()));
/// let task = &group.tasks()[0];
/// assert_eq!((task.kind(), task.state(), task.told()), (TaskKind::Blocking, TaskState::Running, None));
/// println!("{task}"); // task reader (src/main.rs:3:7), running for 17.000µs
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TaskInfo {
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) location: &'static Location<'static>,
    pub(super) kind: TaskKind,
    pub(super) age: Duration,
    pub(super) told: Option<Duration>,
}

/// How a task is run, and so whether it can be stopped from outside. Told by [`TaskInfo::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TaskKind {
    /// A future: it is dropped at its next await, if need be.
    Async,
    /// A closure on a thread: nobody can stop it but itself.
    Blocking,
}

/// Where a task is in its life. Told by [`TaskInfo::state`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TaskState {
    /// It runs, or is about to.
    Running,
    /// Its context is done, and it is not.
    Canceled,
}

impl TaskInfo {
    /// Its name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it was spawned.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// How it is run.
    #[must_use]
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> TaskState {
        if self.told.is_some() { TaskState::Canceled } else { TaskState::Running }
    }

    /// The time since it began: a thread's start, a future's first await. Zero, if it has not.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// The time since it was told to stop.
    #[must_use]
    pub fn told(&self) -> Option<Duration> {
        self.told
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "task {name} ({})", self.location)?,
            None => write!(f, "task ({})", self.location)?,
        }
        match self.told {
            None => write!(f, ", running for {:.3?}", self.age),
            Some(told) => write!(f, ", told to stop {told:.3?} ago"),
        }
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first of many tasks, and how many there are: a report does not grow with a group.
#[derive(Clone, Default, Debug)]
pub(crate) struct First {
    pub(crate) tasks: Vec<TaskInfo>,
    pub(crate) count: usize,
}

impl First {
    const KEPT: usize = 64;

    pub(crate) fn push(&mut self, task: impl FnOnce() -> TaskInfo) {
        self.count += 1;
        if self.tasks.len() < First::KEPT {
            self.tasks.push(task());
        }
    }

    pub(crate) fn append(&mut self, tasks: Vec<TaskInfo>) {
        tasks.into_iter().for_each(|task| self.push(|| task));
    }

    /// A line for each, which begins with `prefix`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, prefix: &str) -> fmt::Result {
        for task in &self.tasks {
            write!(f, "{prefix}{task}")?;
        }
        match self.count - self.tasks.len() {
            0 => Ok(()),
            more => write!(f, "{prefix}{more} more"),
        }
    }
}

/// How long tasks took from being told to stop until they had: a histogram in powers of two. Made by
/// [`TaskGroup::stop_times`](super::TaskGroup::stop_times).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StopTimes {
    /// Of these many nanoseconds at least, and less than twice as many: 2^i.
    pub(super) buckets: [u64; BUCKETS],
}

pub(super) const BUCKETS: usize = 64;

impl StopTimes {
    pub(super) const NONE: StopTimes = StopTimes { buckets: [0; BUCKETS] };

    pub(super) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.buckets[nanos.ilog2() as usize] += 1;
    }

    /// How many tasks stopped after they had been told to.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time within which this part of them had stopped, rounded up to a power of two of nanoseconds; 0.5 is the median.
    /// None, if there were none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = (part.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (power, in_bucket) in self.buckets.iter().enumerate() {
            seen += in_bucket;
            if seen >= wanted {
                let end = 1_u64.checked_shl(power as u32 + 1).unwrap_or(u64::MAX);
                return Some(Duration::from_nanos(end));
            }
        }
        None
    }
}

impl fmt::Debug for StopTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopTimes")
            .field("count", &self.count())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

/// How a group came to its end, made by [`TaskGroup::shutdown`](super::TaskGroup::shutdown).
///
/// ```
/// use purview::{Context, Error, TaskGroup};
/// use std::{sync::mpsc, time::Duration};
/// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
/// let (end, ends) = mpsc::channel::<()>();
/// group.spawn_thread_named("deaf", move |_ctx| { let _ = ends.recv(); Ok(()) });
/// let report = purview::thread::block_on(group.shutdown("deploy", Duration::from_millis(1)));
/// assert_eq!(report.abandoned()[0].name(), Some("deaf"));
/// println!("{report}"); // a line for each task that did not finish
/// drop(end);
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) finished: usize,
    pub(super) failures: Vec<super::Failure>,
    pub(super) failed: usize,
    pub(super) aborted: First,
    pub(super) abandoned: First,
    pub(super) unlisted: usize,
    pub(super) lost: usize,
    pub(super) unbegun: usize,
    pub(super) refused: usize,
    pub(super) stop_times: StopTimes,
}

impl Report {
    /// How many tasks came to their end by themselves, in the group's whole life; failures among them.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// The tasks that failed: the first sixteen.
    #[must_use]
    pub fn failures(&self) -> &[super::Failure] {
        &self.failures
    }

    /// How many tasks failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The tasks that had not stopped when the grace was over, and were dropped at their next await: the first 64.
    #[must_use]
    pub fn aborted(&self) -> &[TaskInfo] {
        &self.aborted.tasks
    }

    /// How many tasks were dropped when the grace was over.
    #[must_use]
    pub fn aborted_count(&self) -> usize {
        self.aborted.count
    }

    /// The tasks that still run: on a thread, or without coming to an await. The oldest 64. The group no longer waits for them.
    #[must_use]
    pub fn abandoned(&self) -> &[TaskInfo] {
        &self.abandoned.tasks
    }

    /// How many tasks still run.
    #[must_use]
    pub fn abandoned_count(&self) -> usize {
        self.abandoned.count
    }

    /// How many tasks were left behind besides, of which no more is known: futures that have not come to a first await, perhaps
    /// not even been begun by their runtime, and tasks that were ending at that moment.
    #[must_use]
    pub fn unlisted(&self) -> usize {
        self.unlisted
    }

    /// How many of those that failed did not come to their end by themselves: somebody [dropped](super::Dropped) them, and not
    /// their group.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// How many never began, because the group had ended: they were waiting for a slot, or were spawned later.
    #[must_use]
    pub fn unbegun(&self) -> usize {
        self.unbegun
    }

    /// How many were dropped because they were spawned from outside into the [closed](super::TaskGroup::close) group.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// How long tasks took to stop.
    #[must_use]
    pub fn stop_times(&self) -> StopTimes {
        self.stop_times
    }

    /// Whether all tasks came to their end by themselves.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let others = self.unlisted + self.lost + self.unbegun + self.refused;
        self.aborted.count == 0 && self.abandoned.count == 0 && others == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { finished, aborted, abandoned, .. } = self;
        let failed = self.failed.saturating_sub(self.lost);
        write!(
            f,
            "{finished} finished, {failed} of them failed; {} aborted, {} abandoned",
            aborted.count, abandoned.count
        )?;
        let others = [
            (self.unlisted, "before their first await"),
            (self.lost, "lost"),
            (self.unbegun, "never begun"),
            (self.refused, "refused"),
        ];
        for (count, what) in others.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, ", and {count} {what}")?;
        }
        for failure in &self.failures {
            write!(f, "\nfailed: {failure}")?;
        }
        let more = self.failed.saturating_sub(self.failures.len());
        if more > 0 {
            write!(f, "\nfailed: {more} more")?;
        }
        aborted.write(f, "\naborted: ")?;
        abandoned.write(f, "\nabandoned: ")
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_end_of_the_power_of_two_in_which_that_part_had_stopped() {
        let mut times = StopTimes::NONE;
        assert_eq!(times.quantile(0.5), None);
        (0..9).for_each(|_| times.add(Duration::from_micros(1)));
        times.add(Duration::from_secs(1));
        let end = |part| times.quantile(part).map(|end| end.as_nanos());
        assert_eq!([-1.0, 0.0, 0.5, 0.9, f64::NAN].map(end), [Some(1 << 10); 5]);
        assert_eq!([0.91, 1.0, 2.0].map(end), [Some(1 << 30); 3]);
        times.add(Duration::ZERO);
        times.add(Duration::MAX);
        assert_eq!(times.quantile(0.0), Some(Duration::from_nanos(2)));
        assert_eq!(times.quantile(1.0), Some(Duration::from_nanos(u64::MAX)));
    }
}
