//! How a service came to its end.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::stage::{Left, Stage};
use crate::error::Chain;
use crate::group::First;
use crate::{Context, Error, Failure, TaskInfo};

/// What became of everything. Made by [`Shutdown::run`](super::Shutdown::run); displayed, it is the log's last lines.
///
/// ```
/// use purview::{Context, shutdown::Shutdown};
/// use std::time::Duration;
/// let (signal, stop) = Context::background().with_cancel();
/// let mut shutdown = Shutdown::new(&signal);
/// let drain = shutdown.phase("drain", Duration::from_millis(1));
/// let hold = drain.hold("request 17");
/// stop.cancel_with("SIGTERM");
/// let report = shutdown.run_blocking();
/// assert_eq!(report.abandoned()[0].name(), Some("request 17"));
/// println!("{report}");
/// // shut down in 1.000ms: SIGTERM
/// // drain: 1.000ms of 1.000ms; 0 finished, 0 canceled
/// // abandoned: task request 17 (src/main.rs:6:18), told to stop 10.000µs ago
/// # drop(hold);
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    why: Option<Error>,
    forced: Option<Error>,
    took: Option<Duration>,
    phases: Vec<PhaseReport>,
    abandoned: First,
    failures: Vec<Failure>,
    not_begun: Vec<NotBegun>,
    nested: Vec<(Cow<'static, str>, Report)>,
}

/// Tasks of a group that never began.
#[derive(Clone, Copy, Debug)]
struct NotBegun {
    group: &'static str,
    /// The group had ended.
    unbegun: usize,
    /// It was closed.
    refused: usize,
}

/// How a phase went. Told by [`Report::phases`].
///
/// ```
/// use purview::{Context, shutdown::Shutdown};
/// use std::time::Duration;
/// let (signal, stop) = Context::background().with_cancel();
/// let mut shutdown = Shutdown::new(&signal);
/// let _drain = shutdown.phase("drain", Duration::from_secs(20));
/// stop.cancel();
/// let report = shutdown.run_blocking();
/// let drain = &report.phases()[0];
/// assert_eq!((drain.name(), drain.budget(), drain.finished()), ("drain", Duration::from_secs(20), 0));
/// assert!(drain.took() < drain.budget());
/// ```
#[derive(Clone, Debug)]
pub struct PhaseReport {
    name: &'static str,
    budget: Duration,
    took: Option<Duration>,
    finished: usize,
    canceled: usize,
    canceled_tasks: Vec<TaskInfo>,
}

impl PhaseReport {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The time it was given.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// The time from its beginning until the next phase could begin; zero, if it did not begin.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took.unwrap_or_default()
    }

    /// How many of its holds were dropped in time: when the way down had begun, and this phase was not over.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// How many were dropped only when its time was over, in a later phase.
    #[must_use]
    pub fn canceled(&self) -> usize {
        self.canceled
    }

    /// Those, as they were when they went: the first 64.
    #[must_use]
    pub fn canceled_tasks(&self) -> &[TaskInfo] {
        &self.canceled_tasks
    }
}

impl Report {
    pub(super) fn of(
        begin: &Context,
        forced: Option<Error>,
        stages: &[Arc<Stage>],
        mut failures: Vec<Failure>,
    ) -> Report {
        let (mut phases, mut abandoned, mut nested) = (Vec::new(), First::default(), Vec::new());
        let mut not_begun = Vec::new();
        let why = begin.err();
        let took = why.as_ref().map(|why| begin.clock().now().since(why.origin().tick()));
        for stage in stages {
            let (held, Left { finished, late, first_late }) = stage.held_and_left();
            abandoned.append(held);
            failures.append(&mut stage.failures());
            for group in stage.groups() {
                abandoned.append(group.tasks());
                let (mut failed, unbegun, refused) = group.told_so_far();
                failures.append(&mut failed);
                if unbegun + refused > 0 {
                    not_begun.push(NotBegun { group: group.name(), unbegun, refused });
                }
            }
            for one in stage.nested() {
                let forced = stage.over.err().or_else(|| forced.clone());
                nested.push((one.name.clone(), one.report(forced)));
            }
            phases.push(PhaseReport {
                name: stage.place.name,
                budget: stage.place.budget,
                took: stage.took(),
                finished,
                canceled: late,
                canceled_tasks: first_late,
            });
        }
        Report { why, forced, took, phases, abandoned, failures, not_begun, nested }
    }

    /// The end it began with, such as a signal.
    #[must_use]
    pub fn why(&self) -> Option<&Error> {
        self.why.as_ref()
    }

    /// The end that forced it, such as a second signal.
    #[must_use]
    pub fn forced(&self) -> Option<&Error> {
        self.forced.as_ref()
    }

    /// The phases, in order.
    #[must_use]
    pub fn phases(&self) -> &[PhaseReport] {
        &self.phases
    }

    /// What was still there at the very end, and where it was born: holds, work, and tasks of groups. The first 64, phase by phase.
    /// The shutdown no longer waits for them.
    #[must_use]
    pub fn abandoned(&self) -> &[TaskInfo] {
        &self.abandoned.tasks
    }

    /// How many holds, pieces of work and tasks were still there at the very end.
    #[must_use]
    pub fn abandoned_count(&self) -> usize {
        self.abandoned.count
    }

    /// The work that failed, and tasks of groups that did: of each group the first sixteen.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many tasks of groups never began, because their group had ended: they were waiting for a slot, or were spawned later.
    #[must_use]
    pub fn unbegun(&self) -> usize {
        self.not_begun.iter().map(|group| group.unbegun).sum()
    }

    /// How many tasks of groups were dropped, because they were spawned from outside into a group that its phase had
    /// [closed](crate::TaskGroup::close).
    #[must_use]
    pub fn refused(&self) -> usize {
        self.not_begun.iter().map(|group| group.refused).sum()
    }

    /// The reports of shutdowns within this one's phases, by name. For one that is still under way when this one ends, the report is of
    /// that moment, and it counts as forced.
    #[must_use]
    pub fn nested(&self) -> &[(Cow<'static, str>, Report)] {
        &self.nested
    }

    /// The time from the beginning, such as the signal, until the report was made. It is more than that of the phases where the
    /// shutdown was run late or its work blocked.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took.unwrap_or_default()
    }

    /// Whether all came to its end in time, and nothing failed: not forced, nothing abandoned or [refused](Self::refused), here and
    /// in what is nested. Work that was canceled in its phase is no blemish, nor is work that never began because of that.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.forced.is_none()
            && self.abandoned.count == 0
            && self.failures.is_empty()
            && self.refused() == 0
            && self.nested.iter().all(|(_, report)| report.is_clean())
    }

    /// What the process should exit with: 0, if it was [clean](Self::is_clean), or 1. (A shell expects 128 and the signal's
    /// number of who leaves on a second signal; the cause of [`forced`](Self::forced) knows it.)
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_clean())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, within: &str) -> fmt::Result {
        for phase in &self.phases {
            let PhaseReport { name, budget, finished, canceled, .. } = phase;
            write!(f, "\n{within}{name}: ")?;
            match phase.took {
                Some(took) => write!(f, "{took:.3?} of {budget:.3?}")?,
                None => f.write_str("not begun")?,
            }
            write!(f, "; {finished} finished, {canceled} canceled")?;
        }
        for phase in &self.phases {
            for task in &phase.canceled_tasks {
                write!(f, "\n{within}canceled: {task}")?;
            }
            let more = phase.canceled.saturating_sub(phase.canceled_tasks.len());
            if more > 0 {
                write!(f, "\n{within}canceled: {more} more")?;
            }
        }
        for failure in &self.failures {
            write!(f, "\n{within}failed: {failure}")?;
        }
        self.abandoned.write(f, &format!("\n{within}abandoned: "))?;
        for &NotBegun { group, unbegun, refused } in &self.not_begun {
            for (count, what) in [(unbegun, "never begun"), (refused, "refused")] {
                match count {
                    0 => {}
                    1 => write!(f, "\n{within}{what}: 1 task of {group}")?,
                    _ => write!(f, "\n{within}{what}: {count} tasks of {group}")?,
                }
            }
        }
        for (name, report) in &self.nested {
            report.write(f, &format!("{within}{name}: "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.forced.is_some() { "forced down after" } else { "shut down in" };
        write!(f, "{how} {:.3?}", self.took())?;
        for (why, before) in [(&self.why, ": "), (&self.forced, ", then ")] {
            if let Some(why) = why {
                match why.cause() {
                    Some(cause) => write!(f, "{before}{}", Chain(&**cause))?,
                    None => write!(f, "{before}{why}")?,
                }
            }
        }
        self.write(f, "")
    }
}
