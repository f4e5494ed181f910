//! The end of a service, in phases: it stops accepting, drains, cancels what is left, and closes what it had open.
//!
//! ```text
//! signal ──► "stop accepting" ──► "drain" ──► "cancel" ──► "close" ──► over
//!            listeners            requests    requests     pools        report
//!            are told             finish      are told     are closed
//! ```
//! Each phase is a context, which ends when the phase begins: a listener waits for the end of the first, a request lives under
//! the third. A phase is over when all that it waits for is gone, at once and not at the next look; or when its time is up. What
//! an earlier phase waited for, and is still there, is waited for by the later ones, too; what is there at the very end is told by
//! name and place.
//!
//! # How
//! Every phase's time is a grace after the one before, so the contexts end in time even if nobody runs the shutdown. A
//! phase's holds share one count, its crew, which keeps that of the next phase; with the last of them the next phase begins. So
//! there is no list to look through and no timer to poll.

mod hooks;
mod nested;
mod report;
mod stage;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

pub use report::{PhaseReport, Report};

use crate::error::Cause;
use crate::park::block_on;
use crate::{CancelGuard, Context, Done, Error, TaskGroup, TaskInfo, TaskKind, leak};
use hooks::{Hook, Running};
use nested::{Progress, Within};
use stage::{Crew, Place, Stage};

/// A service's way down. See the [module](self).
///
/// ```
/// use purview::Context;
/// use purview::shutdown::Shutdown;
/// use std::time::Duration;
///
/// // In a service: `purview_signal::notify(…)`, and `notify.again()` for the second signal.
/// let (signal, stop) = Context::background().with_cancel();
/// let (again, _guard) = Context::background().with_cancel();
///
/// let mut shutdown = Shutdown::new(&signal).force_on(&again);
/// let accepting = shutdown.phase("stop accepting", Duration::from_secs(1));
/// let draining = shutdown.phase("drain", Duration::from_secs(20));
/// let canceling = shutdown.phase("cancel", Duration::from_secs(5));
/// let closing = shutdown.phase("close", Duration::from_secs(5));
///
/// let listener = std::thread::spawn({
///     let (told, hold) = (accepting.context().clone(), accepting.hold("listener"));
///     move || { told.done().wait(); drop(hold) }
/// });
/// let request = std::thread::spawn({
///     let (ctx, hold) = (canceling.context().clone(), draining.hold("request 1"));
///     move || { assert!(!ctx.is_done()); drop(hold) } // it has time to finish
/// });
/// closing.on_begin("pool", async |_ctx| Ok::<(), std::io::Error>(()));
///
/// stop.cancel_with("SIGTERM");
/// let report = shutdown.run_blocking();
/// assert_eq!((report.is_clean(), report.exit_code()), (true, 0));
/// println!("{report}");
/// # listener.join().unwrap();
/// # request.join().unwrap();
/// ```
///
/// # When it is dropped
/// All phases begin at once.
#[must_use = "a shutdown does nothing before it is run"]
pub struct Shutdown {
    force: Option<Context>,
    stages: Stages,
    /// What keeps phases that have not begun.
    crews: Vec<Arc<Crew>>,
    /// In the order in which they are to cancel.
    guards: Vec<CancelGuard>,
    /// The phase of another shutdown that waits for this one.
    within: Option<Within>,
}

impl Shutdown {
    /// One that begins when `begin` ends, such as on a signal. Its end's cause is why all the phases' contexts end.
    #[track_caller]
    pub fn new(begin: &Context) -> Shutdown {
        let (begin, guard) = leak::unseen(|| begin.with_cancel());
        Shutdown {
            force: None,
            stages: Stages(Arc::new(Progress::new(begin))),
            crews: Vec::new(),
            guards: vec![guard],
            within: None,
        }
    }

    /// Ends everything at once when `ctx` ends, such as on a second signal: [`run`](Self::run) returns, and tells what was
    /// left.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// use std::time::Duration;
    /// let (signal, stop) = Context::background().with_cancel();
    /// let (again, stop_at_once) = Context::background().with_cancel();
    /// let mut shutdown = Shutdown::new(&signal).force_on(&again);
    /// let drain = shutdown.phase("drain", Duration::from_secs(3600));
    /// let _hold = drain.hold("request 1");
    /// stop.cancel_with("SIGINT");
    /// stop_at_once.cancel_with("SIGINT again");
    /// let report = shutdown.run_blocking();
    /// assert_eq!(report.abandoned()[0].name(), Some("request 1"));
    /// assert_eq!((report.exit_code(), report.forced().is_some()), (1, true));
    /// ```
    pub fn force_on(mut self, ctx: &Context) -> Shutdown {
        self.force = Some(ctx.clone());
        self
    }

    /// Adds a phase, which is given `budget`: after that the next one begins, whoever is left. The name is its context's.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// use std::time::Duration;
    /// let mut shutdown = Shutdown::new(&Context::background());
    /// let drain = shutdown.phase("drain", Duration::from_secs(20));
    /// assert_eq!(drain.context().name(), Some("drain"));
    /// ```
    #[track_caller]
    pub fn phase(&mut self, name: &'static str, budget: Duration) -> Phase {
        let location = Location::caller();
        let (begin, stages) = (&self.stages.0.begin, self.stages.0.stages());
        let before = stages.last().map_or(begin, |stage| &stage.over);
        let (context, guard) = before.derive().name(name).build();
        let _ = guard.disarm();
        let (over, guard) = leak::unseen(|| context.with_grace(budget));
        let contexts = [begin.clone(), context, over];
        let over_now = guard.handle();
        self.guards.push(guard);
        let stage = Stage::new(Place { name, location, budget }, contexts, over_now);
        let stage = Arc::new(stage);
        let crew = Crew::of(&stage);
        if let (Some(last), Some(its_crew)) = (stages.last(), self.crews.last()) {
            last.follow(&stage);
            its_crew.keep(&crew);
        }
        self.stages.0.add_stage(Arc::clone(&stage));
        self.crews.push(crew);
        Phase { stage }
    }

    /// Waits for the beginning, goes through the phases, and reports what became of everything.
    ///
    /// The phases' time counts from the beginning, also if the shutdown is not run then. Only the work of a phase whose time is up has
    /// that time from when it begins: [`took`](Report::took) says how long it was in all. Work that blocks blocks the shutdown: a force
    /// that comes meanwhile is obeyed when the work returns, and no more is begun.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// # purview::thread::block_on(async {
    /// let (signal, stop) = Context::background().with_cancel();
    /// let shutdown = Shutdown::new(&signal);
    /// stop.cancel_with("SIGTERM");
    /// assert!(shutdown.run().await.to_string().starts_with("shut down in "));
    /// # })
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future drops the shutdown.
    pub async fn run(mut self) -> Report {
        let Shutdown { force, stages: Stages(progress), crews, guards, within } = &mut self;
        let stages = progress.stages();
        let mut running = Running::new(Arc::clone(progress));
        let first = stages.first().map_or(&progress.begin, |stage| &stage.context);
        let mut way_down = WayDown {
            waited_for: Box::pin(first.clone().into_done()),
            stages: &stages,
            crews: std::mem::take(crews).into_iter(),
            running: &mut running,
            force: force.as_ref(),
            is_waiting_for_late: false,
        };
        let way_down = poll_fn(|task| way_down.poll(task));
        let mut way_down = pin!(way_down);
        let forced = match &*force {
            Some(force) => force.run(way_down.as_mut()).await.unwrap_or_else(Some),
            None => way_down.as_mut().await,
        };
        if let Some(forced) = &forced {
            let cause = || forced.cause().cloned().unwrap_or_else(|| Cause::from(forced.clone()));
            guards.iter().for_each(|guard| guard.cancel_with(cause()));
        }
        let report = progress.report(forced);
        if let Some(within) = within.take() {
            within.finish(report.clone());
        }
        stages.iter().for_each(|stage| stage.let_go_of_nested());
        report
    }

    /// The same, blocking the thread.
    ///
    /// # Blocking
    /// Until all is over. Not for use inside async code.
    #[expect(clippy::must_use_candidate, reason = "it is run for what it does")]
    pub fn run_blocking(self) -> Report {
        block_on(pin!(self.run()))
    }
}

/// The phases, in order. They let go of what takes part when the shutdown is over, or dropped: that has holds, which have phases.
struct Stages(Arc<Progress>);

impl Drop for Stages {
    fn drop(&mut self) {
        self.0.stages().iter().for_each(|stage| stage.let_go());
    }
}

/// Goes through the phases, and runs what is to be run in them.
struct WayDown<'a> {
    /// The phases that have not begun.
    stages: &'a [Arc<Stage>],
    crews: std::vec::IntoIter<Arc<Crew>>,
    /// The beginning of the next of them, or the end of the last.
    waited_for: Pin<Box<Done<'static>>>,
    running: &'a mut Running,
    force: Option<&'a Context>,
    /// All phases are over, and work that began late has time left.
    is_waiting_for_late: bool,
}

impl WayDown<'_> {
    /// Ready when all is over, or when it was forced meanwhile, with the end that did it.
    fn poll(&mut self, task: &mut Task<'_>) -> Poll<Option<Error>> {
        // What is ready is still done if it was forced before this poll. While work blocks, this is the only place that notices.
        let force = self.force.filter(|force| !force.is_done());
        let is_forced = || force.is_some_and(Context::is_done);
        loop {
            self.running.poll(task, is_forced);
            if is_forced() {
                return Poll::Ready(force.and_then(Context::err));
            }
            if self.waited_for.as_mut().poll(task).is_pending() {
                // Only for work that began late, there may be none left to wait for.
                let is_over = self.is_waiting_for_late && self.running.late().is_none();
                return if is_over { Poll::Ready(None) } else { Poll::Pending };
            }
            let Some((stage, rest)) = self.stages.split_first() else {
                let Some(late) = self.running.late() else { return Poll::Ready(None) };
                self.waited_for = Box::pin(late.clone().into_done());
                self.is_waiting_for_late = true;
                continue;
            };
            self.running.begin(stage);
            stage.close_groups();
            drop(self.crews.next()); // from here on its holds keep it, if there are any
            let next = rest.first().map_or(&stage.over, |next| &next.context);
            self.waited_for = Box::pin(next.clone().into_done());
            self.stages = rest;
        }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = self.stages.0.stages();
        let phases: Vec<_> = stages.iter().map(|stage| stage.place.name).collect();
        f.debug_struct("Shutdown")
            .field("begin", &self.stages.0.begin)
            .field("phases", &phases)
            .finish_non_exhaustive()
    }
}

/// A phase of a [`Shutdown`], made by [`Shutdown::phase`]. It can be handed to whoever takes part.
///
/// ```
/// use purview::{Context, shutdown::Shutdown};
/// use std::time::Duration;
/// let mut shutdown = Shutdown::new(&Context::background());
/// let drain = shutdown.phase("drain", Duration::from_secs(20));
/// let hold = drain.hold("request 1");
/// assert_eq!(drain.held()[0].name(), Some("request 1"));
/// drop(hold);
/// assert!(drain.held().is_empty());
/// ```
#[derive(Clone)]
pub struct Phase {
    stage: Arc<Stage>,
}

impl Phase {
    /// Ends when the phase begins.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.stage.context
    }

    /// Has the phase, and all that come after it, wait until the hold is dropped; no longer than their budgets.
    ///
    /// One that is taken when the phase is over is waited for by the later ones.
    #[track_caller]
    pub fn hold(&self, name: impl Into<Cow<'static, str>>) -> Hold {
        self.hold_as(name.into(), TaskKind::Blocking, Location::caller())
    }

    fn hold_as(
        &self,
        name: Cow<'static, str>,
        kind: TaskKind,
        location: &'static Location<'static>,
    ) -> Hold {
        // The crew first: what is there is never seen without being waited for.
        let crew = self.stage.crew();
        let seat = self.stage.enter(name, kind, location);
        Hold { stage: Arc::clone(&self.stage), seat, _crew: crew }
    }

    /// Has `work` run when the phase begins, as a part of [`Shutdown::run`]: a pool is closed, a last record is written. Its context
    /// ends when the phase's time is up; the work goes on for as long as any phase does, and is dropped at the very end. Work that
    /// comes when the phase has begun is not run: that is a failure in the report. What it returns is a failure or an end, by the
    /// [rule of groups](TaskGroup#failures-and-ends): work that stops because its time is up is canceled, and has not failed.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// use std::{io, time::Duration};
    /// let (signal, stop) = Context::background().with_cancel();
    /// let mut shutdown = Shutdown::new(&signal);
    /// let close = shutdown.phase("close", Duration::from_secs(5));
    /// close.on_begin("journal", async |_ctx| Err(io::Error::other("disk full")));
    /// stop.cancel();
    /// let report = shutdown.run_blocking();
    /// assert_eq!(report.failures()[0].name(), Some("journal"));
    /// ```
    #[track_caller]
    pub fn on_begin<F, Fut, E>(&self, name: impl Into<Cow<'static, str>>, work: F)
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause>,
    {
        let location = Location::caller();
        let name = name.into();
        let hold = self.hold_as(name.clone(), TaskKind::Async, location);
        self.stage.add_hook(Hook::new(name, location, hold, work));
    }

    /// Waits for a group, too: it is [closed](TaskGroup::close) when the phase begins, and its tasks are reported by name. When its tasks are to
    /// stop is for its context to say.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup, shutdown::Shutdown};
    /// use std::{sync::Arc, time::Duration};
    /// let (signal, stop) = Context::background().with_cancel();
    /// let mut shutdown = Shutdown::new(&signal);
    /// let accepting = shutdown.phase("stop accepting", Duration::from_secs(1));
    /// let group: Arc<TaskGroup<Error>> = Arc::new(TaskGroup::new(accepting.context()));
    /// accepting.own(Arc::clone(&group));
    /// group.spawn_thread_named("refresher", |ctx| Err(ctx.done().wait()));
    /// stop.cancel_with("SIGTERM");
    /// assert!(shutdown.run_blocking().is_clean());
    /// ```
    pub fn own<E: 'static, S: Send + Sync + 'static>(
        &self,
        group: impl Into<Arc<TaskGroup<E, S>>>,
    ) {
        let group = group.into();
        let ctx = group.context();
        let name = Cow::Borrowed(ctx.name().unwrap_or("group"));
        let hold = self.hold_as(name, TaskKind::Async, ctx.location());
        group.when_over(move || drop(hold));
        self.stage.add_group(group);
    }

    /// A shutdown within this phase, of a service that has phases of its own: it begins with the phase, is waited for by it, is
    /// forced when the phase's time is up, and its report is a part of the whole one. Somebody has to [run](Shutdown::run) it.
    ///
    /// ```
    /// use purview::{Context, shutdown::Shutdown};
    /// use std::time::Duration;
    /// let (signal, stop) = Context::background().with_cancel();
    /// let mut shutdown = Shutdown::new(&signal);
    /// let drain = shutdown.phase("drain", Duration::from_secs(20));
    /// let mut search = drain.nested("search");
    /// let _flush = search.phase("flush", Duration::from_secs(1));
    /// let service = std::thread::spawn(move || search.run_blocking());
    /// stop.cancel_with("SIGTERM");
    /// let report = shutdown.run_blocking();
    /// assert_eq!(report.nested()[0].0, "search");
    /// # service.join().unwrap();
    /// ```
    #[track_caller]
    pub fn nested(&self, name: impl Into<Cow<'static, str>>) -> Shutdown {
        let name = name.into();
        let hold = self.hold_as(name.clone(), TaskKind::Async, Location::caller());
        let mut nested = Shutdown::new(&self.stage.context).force_on(&self.stage.over);
        nested.within = Some(Within::new(name, Arc::clone(&nested.stages.0), hold));
        nested
    }

    /// What it waits for, the oldest first: holds, work that was not run yet, and groups as a whole.
    #[must_use]
    pub fn held(&self) -> Vec<TaskInfo> {
        self.stage.held()
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phase")
            .field("name", &self.stage.place.name)
            .field("budget", &self.stage.place.budget)
            .field("held", &self.held())
            .finish()
    }
}

/// Keeps a phase waiting, until it is dropped. Made by [`Phase::hold`].
#[must_use = "a phase waits for it only as long as it is there"]
pub struct Hold {
    stage: Arc<Stage>,
    seat: stage::Seat,
    /// None, if it came too late for any phase. Goes after this has told.
    _crew: Option<Arc<Crew>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stage.leave(self.seat);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("phase", &self.stage.place.name).finish_non_exhaustive()
    }
}
