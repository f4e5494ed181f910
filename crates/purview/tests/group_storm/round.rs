//! One group, from its making to its end, and what is checked then.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, RwLock, Weak};
use std::task::Poll;
use std::time::Duration;

use purview::shutdown::Shutdown;
use purview::thread::{self, block_on};
use purview::{Context, Error, GroupError, OnFailure, TaskGroup};

use crate::Random;
use crate::pool::Pool;
use crate::tally::{count, during};

type Group = TaskGroup<Failed, Pool>;

/// What a task returns.
#[derive(Debug)]
enum Failed {
    Own,
    Told(Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failed::Own => "a failure of its own",
            Failed::Told(_) => "told to stop",
        })
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failed::Own => None,
            Failed::Told(error) => Some(error),
        }
    }
}

const PANIC: &str = "a panic of the storm's";

/// Keeps the panics that belong to it out of the log.
pub(crate) fn expect_panics() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
            others(info);
        }
    }));
}

/// How a group comes to its end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ending {
    Join,
    CancelAndJoin,
    ParentAndJoin,
    CloseAndJoin,
    Shutdown,
    Drop,
    Phase,
    Scope,
}

impl Ending {
    const ALL: [(Ending, &'static str); 8] = [
        (Ending::Join, "join"),
        (Ending::CancelAndJoin, "cancel, join"),
        (Ending::ParentAndJoin, "cancel of the parent, join"),
        (Ending::CloseAndJoin, "close, join"),
        (Ending::Shutdown, "shutdown"),
        (Ending::Drop, "drop"),
        (Ending::Phase, "phase"),
        (Ending::Scope, "scope"),
    ];

    /// Whether it tells tasks that wait for it to stop.
    fn tells(self) -> bool {
        !matches!(self, Ending::Join | Ending::CloseAndJoin | Ending::Scope)
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Work {
    Nothing,
    Yields,
    Fails,
    Panics,
    Spawns,
    WaitsToBeTold,
    GivesUp,
    /// A future only: it has to be dropped.
    Forever,
}

pub(crate) struct Round {
    seed: u64,
    ending: (Ending, &'static str),
    limit: Option<usize>,
    on_failure: OnFailure,
    grace: Option<Duration>,
    drops: u64,
    threads: u64,
    steps: u64,
    /// Canceled or closed while the others spawn.
    is_disturbed: bool,
}

/// What the tasks and the threads of a round have seen.
#[derive(Default)]
struct Seen {
    /// Tasks that were given to the group and not handed back.
    spawned: AtomicUsize,
    /// Tasks that were handed back because the group had ended.
    handed_back: AtomicUsize,
    /// Tasks, or what is left of them.
    alive: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
    did_their_work: AtomicUsize,
    failed: AtomicUsize,
    panicked: AtomicUsize,
    gave_up: AtomicUsize,
    /// From here on no task may run.
    is_over: AtomicBool,
    ran_on: AtomicUsize,
}

impl Seen {
    fn get(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }

    fn add(counter: &AtomicUsize) -> usize {
        counter.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn step(&self) {
        if self.is_over.load(Ordering::SeqCst) {
            Seen::add(&self.ran_on);
        }
    }

    /// Tasks that came to their end by themselves.
    fn ended(&self) -> usize {
        [&self.did_their_work, &self.failed, &self.panicked, &self.gave_up]
            .map(Seen::get)
            .iter()
            .sum()
    }
}

/// A task is there as long as this is.
struct Probe(Arc<Seen>);

impl Probe {
    fn new(seen: &Arc<Seen>) -> Probe {
        Seen::add(&seen.alive);
        Probe(Arc::clone(seen))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.step();
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A task runs as long as this is there.
struct Running<'a>(&'a Seen);

impl<'a> Running<'a> {
    fn new(seen: &'a Seen) -> Running<'a> {
        seen.step();
        Seen::add(&seen.begun);
        seen.most.fetch_max(Seen::add(&seen.running), Ordering::SeqCst);
        Running(seen)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.step();
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The way from a task to its group, until the group is about to end.
type Gate = Arc<RwLock<Weak<Group>>>;

#[derive(Clone)]
struct Tasks {
    seen: Arc<Seen>,
    gate: Gate,
    works: &'static [Work],
}

const TOLD: [Work; 8] = [
    Work::Nothing,
    Work::Yields,
    Work::Fails,
    Work::Panics,
    Work::Spawns,
    Work::WaitsToBeTold,
    Work::GivesUp,
    Work::Forever,
];

/// A future that is pending once.
async fn give_way() {
    let mut is_first = true;
    std::future::poll_fn(|task| {
        if std::mem::take(&mut is_first) {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

impl Tasks {
    fn work(&self, random: &mut Random, is_thread: bool) -> Work {
        loop {
            let work = random.of(self.works);
            // Failures end a group that is not told to isolate them, so there are fewer of them.
            let is_rare = matches!(work, Work::Fails | Work::Panics) && !random.one_in(4);
            if !(is_rare || is_thread && work == Work::Forever) {
                return work;
            }
        }
    }

    fn close_to_end(&self, work: Work) -> Result<(), Failed> {
        self.seen.step();
        match work {
            Work::Fails => {
                Seen::add(&self.seen.failed);
                Err(Failed::Own)
            }
            Work::Panics => {
                Seen::add(&self.seen.panicked);
                std::panic::panic_any(PANIC)
            }
            _ => {
                Seen::add(&self.seen.did_their_work);
                Ok(())
            }
        }
    }

    fn give_up(&self, ended: Error) -> Result<(), Failed> {
        self.seen.step();
        Seen::add(&self.seen.gave_up);
        Err(Failed::Told(ended))
    }

    fn spawn_more(&self, random: &mut Random, depth: u64) {
        // Does not wait: the end of the group waits for those that are in here.
        let Ok(gate) = self.gate.try_read() else { return };
        let Some(group) = gate.upgrade() else { return };
        if depth < 3 {
            let is_closed = group.is_closed();
            during("spawn from a task", || self.spawn(&group, random, depth + 1));
            count(
                "tasks' spawns",
                if is_closed { "into a closed group" } else { "into an open one" },
                1,
            );
        }
        drop(group); // not the last: that is beyond the gate
    }

    fn future(&self, random: &mut Random, depth: u64) -> impl AsyncFnOnceOf + use<> {
        let (tasks, work) = (self.clone(), self.work(random, false));
        let mut random = Random(random.next());
        let probe = Probe::new(&self.seen);
        count("futures", name_of(work), 1);
        move |ctx: Context| async move {
            let probe = probe;
            let _running = Running::new(&probe.0);
            for _ in 0..random.below(3) {
                give_way().await;
                tasks.seen.step();
            }
            match work {
                Work::Spawns => tasks.spawn_more(&mut random, depth),
                Work::WaitsToBeTold => drop(ctx.done().await),
                Work::GivesUp => {
                    let ended = ctx.done().await;
                    return tasks.give_up(ended);
                }
                Work::Forever => std::future::pending().await,
                _ => {}
            }
            tasks.close_to_end(work)
        }
    }

    fn closure(
        &self,
        random: &mut Random,
        depth: u64,
    ) -> impl FnOnce(Context) -> Result<(), Failed> + Send + use<> {
        let (tasks, work) = (self.clone(), self.work(random, true));
        let mut random = Random(random.next());
        let probe = Probe::new(&self.seen);
        count("threads", name_of(work), 1);
        move |ctx| {
            let probe = probe;
            let _running = Running::new(&probe.0);
            (0..random.below(3)).for_each(|_| std::thread::yield_now());
            match work {
                Work::Spawns => tasks.spawn_more(&mut random, depth),
                Work::WaitsToBeTold => drop(ctx.done().wait()),
                Work::GivesUp => return tasks.give_up(ctx.done().wait()),
                _ => {}
            }
            tasks.close_to_end(work)
        }
    }

    /// Spawns a task in one of the ways in which it is given away.
    fn spawn(&self, group: &Group, random: &mut Random, depth: u64) {
        Seen::add(&self.seen.spawned);
        match random.below(6) {
            0 => group.spawn_thread(self.closure(random, depth)),
            1 => group.spawn_blocking(self.closure(random, depth)),
            2 => group.spawn_named("named", self.future(random, depth)),
            _ => group.spawn(self.future(random, depth)),
        }
    }
}

/// What a group takes.
trait AsyncFnOnceOf: FnOnce(Context) -> Self::Made + Send + 'static {
    type Made: Future<Output = Result<(), Failed>> + Send + 'static;
}

impl<F, Fut> AsyncFnOnceOf for F
where
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Failed>> + Send + 'static,
{
    type Made = Fut;
}

fn name_of(work: Work) -> &'static str {
    match work {
        Work::Nothing => "do nothing",
        Work::Yields => "yield",
        Work::Fails => "fail",
        Work::Panics => "panic",
        Work::Spawns => "spawn",
        Work::WaitsToBeTold => "wait for the end",
        Work::GivesUp => "give up",
        Work::Forever => "wait in vain",
    }
}

/// Compares, and says what was compared.
macro_rules! check {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!("{}: {}", stringify!($holds), format_args!($($what)+)));
        }
    };
}

impl Round {
    pub(crate) fn new(seed: u64) -> Round {
        let mut random = Random(seed);
        Round {
            seed,
            ending: random.of(&Ending::ALL),
            limit: random.of(&[None, None, Some(1), Some(2), Some(8)]),
            on_failure: random.of(&[OnFailure::Cancel, OnFailure::Isolate]),
            grace: random.of(&[None, None, Some(Duration::ZERO), Some(Duration::from_millis(1))]),
            drops: random.of(&[0, 0, 0, 8]),
            threads: 1 + random.below(4),
            steps: 1 + random.below(20),
            is_disturbed: random.one_in(2),
        }
    }

    pub(crate) fn described(&self) -> String {
        format!(
            "{}; limit {:?}, on failure {:?}, grace {:?}, one in {} is dropped, {} threads, {} steps each, disturbed: {}",
            self.ending.1,
            self.limit,
            self.on_failure,
            self.grace,
            self.drops,
            self.threads,
            self.steps,
            self.is_disturbed
        )
    }

    /// What its tasks may do so that the group comes to its end.
    fn works(&self) -> &'static [Work] {
        let ending = self.ending.0;
        let drops_futures = ending == Ending::Shutdown
            || ending.tells() && self.grace.is_some()
            || ending == Ending::Drop;
        match (ending.tells(), drops_futures) {
            (true, true) => &TOLD,
            (true, false) => &TOLD[..7],
            (false, _) => &TOLD[..5],
        }
    }

    pub(crate) fn play(&self) -> Result<(), String> {
        count("endings", self.ending.1, 1);
        if self.ending.0 == Ending::Scope {
            return self.play_scope();
        }
        let (parent, parent_guard) = Context::background().with_cancel();
        let pool = Pool::new(self.drops, self.seed);
        let mut builder = TaskGroup::builder(&parent).on_failure(self.on_failure);
        if let Some(limit) = self.limit {
            builder = builder.limit(limit);
        }
        if let Some(grace) = self.grace {
            builder = builder.grace(grace);
        }
        let group: Arc<Group> = Arc::new(builder.build_on(pool.clone()));
        let watch = group.watch();
        let seen = Arc::<Seen>::default();
        let gate: Gate = Arc::new(RwLock::new(Arc::downgrade(&group)));
        let tasks = Tasks { seen: Arc::clone(&seen), gate: Arc::clone(&gate), works: self.works() };
        self.disturb(&group, &tasks);

        if self.ending.0 == Ending::Phase {
            let (signal, stop) = Context::background().with_cancel();
            let mut shutdown = Shutdown::new(&signal);
            let drain = shutdown.phase("drain", Duration::from_secs(3600));
            drain.own(Arc::clone(&group));
            stop.cancel();
            let canceler = std::thread::spawn(move || parent_guard.cancel_with("drained"));
            let report = during("phase", || shutdown.run_blocking());
            canceler.join().map_err(|_| "the cancel panicked")?;
            check!(group.is_empty(), "{} tasks after\n{report}", group.len());
            check!(report.abandoned_count() == 0, "{report}");
            let never = report.unbegun() + report.refused();
            check!(never <= Seen::get(&seen.spawned) - Seen::get(&seen.begun), "{report}");
            let taken = close_gate(&gate, group)?;
            return self.joined(taken, &seen, &pool);
        }
        let group = close_gate(&gate, group)?;
        match self.ending.0 {
            Ending::Join => self.joined(group, &seen, &pool),
            Ending::CloseAndJoin => {
                group.close();
                Seen::add(&seen.spawned);
                group.spawn_thread(tasks.closure(&mut Random(self.seed), 3));
                self.joined(group, &seen, &pool)
            }
            Ending::CancelAndJoin => {
                during("cancel", || group.cancel_with("enough"));
                self.joined(group, &seen, &pool)
            }
            Ending::ParentAndJoin => {
                let canceler = std::thread::spawn(move || parent_guard.cancel_with("enough"));
                let joined = self.joined(group, &seen, &pool);
                canceler.join().map_err(|_| "the cancel panicked")?;
                joined
            }
            Ending::Drop => {
                during("drop", || drop(group));
                // It does not wait. What it told to stop does, or is dropped.
                while !(watch.is_over() && Seen::get(&seen.alive) == 0) {
                    std::thread::yield_now();
                }
                check!(Seen::get(&seen.running) == 0, "{} run", Seen::get(&seen.running));
                Ok(())
            }
            Ending::Shutdown => self.shut_down(group, &seen, &pool),
            Ending::Phase | Ending::Scope => Ok(()),
        }
    }

    /// Several threads do what they like to the group.
    fn disturb(&self, group: &Arc<Group>, tasks: &Tasks) {
        let barrier = Barrier::new(self.threads as usize + 1);
        std::thread::scope(|s| {
            for thread in 0..self.threads {
                let mut random =
                    Random(self.seed ^ (thread + 1).wrapping_mul(0xA076_1D64_78BD_642F));
                let barrier = &barrier;
                s.spawn(move || {
                    barrier.wait();
                    (0..self.steps).for_each(|_| self.step(group, tasks, &mut random));
                });
            }
            barrier.wait();
            if self.is_disturbed {
                let mut random = Random(self.seed ^ 0xE703_7ED1_A0B4_28DB);
                (0..random.below(200)).for_each(|_| std::thread::yield_now());
                match random.below(3) {
                    0 => during("cancel", || group.cancel_with("disturbed")),
                    1 => during("close", || group.close()),
                    _ => {
                        during("close", || group.close());
                        during("cancel", || group.cancel_with("disturbed"));
                    }
                }
            }
        });
    }

    fn step(&self, group: &Group, tasks: &Tasks, random: &mut Random) {
        let seen = &tasks.seen;
        // It waits for a slot, which tasks that wait for the end would keep.
        let may_wait = self.works().len() == 5;
        let result = match random.below(10) {
            0 => {
                during("try_spawn", || group.try_spawn(tasks.future(random, 0)).map_err(drop_task))
            }
            1 if may_wait => during("spawn_ready", || {
                block_on(group.spawn_ready(tasks.future(random, 0))).map_err(drop_task)
            }),
            2 => {
                during("look", || {
                    let (tasks, len) = (group.tasks().len(), group.len());
                    std::hint::black_box((tasks, len, format!("{group:?}")));
                });
                return;
            }
            _ => return during("spawn", || tasks.spawn(group, random, 0)),
        };
        match result {
            Ok(()) => _ = Seen::add(&seen.spawned),
            Err(true) => _ = Seen::add(&seen.handed_back),
            Err(false) => {}
        }
    }

    fn joined(&self, group: Group, seen: &Seen, pool: &Pool) -> Result<(), String> {
        let result = during("join", || group.join_blocking());
        seen.is_over.store(true, Ordering::SeqCst);
        let [alive, running] = [&seen.alive, &seen.running].map(Seen::get);
        check!((alive, running) == (0, 0), "{alive} are left and {running} run after the join"); // S2
        self.check_limit(seen)?;
        let lost = Seen::get(&pool.dropped);
        let [spawned, begun, failed, panicked, gave_up] =
            [&seen.spawned, &seen.begun, &seen.failed, &seen.panicked, &seen.gave_up]
                .map(Seen::get);
        let failures = failed + panicked + lost;
        // What neither came to its end nor was lost was aborted, or never begun.
        let undone = spawned - seen.ended() - lost;
        let cut_short = gave_up + undone + Seen::get(&seen.handed_back);
        let told = describe(&result);
        check!(result.is_ok() == (failures + cut_short == 0), "{failures} and {cut_short}, {told}"); // S3
        if let Err(err) = &result {
            check!(err.failed() == failures, "{failures} failed, {told}");
            check!(err.failures().len() == failures.min(16), "{told}");
            check!(err.refused() <= spawned - begun, "{} of {spawned} begun, {told}", begun);
            check!(err.ended().is_some() || failures + err.refused() > 0, "{told}");
            check!(err.ended().is_none() || failures == 0, "{told}");
            count("joins", if failures > 0 { "failed" } else { "ended" }, 1);
            count("tasks", "refused", err.refused());
        } else {
            count("joins", "ok", 1);
        }
        count("tasks", "finished", seen.ended());
        count("tasks", "failed", failures);
        count("tasks", "lost", lost);
        count("tasks", "aborted or never begun", undone);
        std::thread::yield_now();
        check!(Seen::get(&seen.ran_on) == 0, "{} went on after the join", Seen::get(&seen.ran_on)); // S2
        Ok(())
    }

    fn shut_down(&self, group: Group, seen: &Seen, pool: &Pool) -> Result<(), String> {
        let grace = Random(self.seed).of(&[
            Duration::ZERO,
            Duration::from_micros(200),
            Duration::from_secs(3600),
        ]);
        let is_patient = grace > Duration::from_secs(1) && !self.works().contains(&Work::Forever);
        let grace = if is_patient { grace } else { grace.min(Duration::from_micros(500)) };
        let spawned = Seen::get(&seen.spawned);
        let report = during("shutdown", || block_on(group.shutdown("deploy", grace)));
        let over = report.finished() + report.aborted_count() + report.lost();
        let left = report.abandoned_count() + report.unlisted();
        let never = report.unbegun() + report.refused();
        check!(over + left + never == spawned, "{spawned} were spawned\n{report}"); // S1
        check!(report.lost() <= report.failed(), "{report}");
        check!(report.failed() - report.lost() <= report.finished(), "{report}");
        self.check_limit(seen)?;
        if left == 0 {
            let [failed, panicked] = [&seen.failed, &seen.panicked].map(Seen::get);
            check!(report.finished() == seen.ended(), "{} ended\n{report}", seen.ended());
            check!(report.lost() == Seen::get(&pool.dropped), "{report}");
            check!(report.failed() == failed + panicked + report.lost(), "{report}"); // S3
            check!(Seen::get(&seen.running) == 0, "{} run\n{report}", Seen::get(&seen.running));
        }
        for (what, tasks) in [
            ("finished", report.finished()),
            ("aborted", report.aborted_count()),
            ("lost", report.lost()),
            ("abandoned", report.abandoned_count()),
            ("unlisted", report.unlisted()),
            ("never begun", report.unbegun()),
            ("refused", report.refused()),
        ] {
            count("shutdowns' tasks", what, tasks);
        }
        // What was left behind ends soon, since its context is done.
        while Seen::get(&seen.alive) > 0 {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn check_limit(&self, seen: &Seen) -> Result<(), String> {
        let most = Seen::get(&seen.most);
        check!(self.limit.is_none_or(|limit| most <= limit), "{most} at a time"); // S4
        Ok(())
    }

    fn play_scope(&self) -> Result<(), String> {
        let seen = Seen::default();
        let threads = (self.threads * self.steps).min(16);
        let mut random = Random(self.seed);
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = self.is_disturbed;
        let result = during("scope", || {
            thread::scope(&ctx, |s| {
                for _ in 0..threads {
                    let work = random.of(&[
                        Work::Nothing,
                        Work::Yields,
                        Work::Fails,
                        Work::Spawns,
                        Work::GivesUp,
                    ]);
                    let work = if work == Work::GivesUp && !cancels { Work::Nothing } else { work };
                    let (more, seen) = (s.clone(), &seen);
                    Seen::add(&seen.spawned);
                    s.spawn(move |ctx| {
                        let _running = Running::new(seen);
                        match work {
                            Work::Fails => {
                                Seen::add(&seen.failed);
                                return Err(Failed::Own);
                            }
                            Work::GivesUp => {
                                let ended = ctx.done().wait();
                                Seen::add(&seen.gave_up);
                                return Err(Failed::Told(ended));
                            }
                            Work::Spawns => {
                                Seen::add(&seen.spawned);
                                more.spawn(|_ctx| {
                                    let _running = Running::new(seen);
                                    Seen::add(&seen.did_their_work);
                                    Ok(())
                                });
                            }
                            _ => {}
                        }
                        Seen::add(&seen.did_their_work);
                        Ok(())
                    });
                }
                if cancels {
                    guard.cancel_with("enough");
                }
            })
        });
        let [spawned, running, failed] =
            [&seen.spawned, &seen.running, &seen.failed].map(Seen::get);
        let undone = spawned - seen.ended() + Seen::get(&seen.gave_up);
        let told = describe(&result);
        check!(running == 0, "{running} run");
        check!(
            result.is_ok() == (failed + undone == 0),
            "{failed} failed, {undone} did not, {told}"
        );
        check!(result.as_ref().err().is_none_or(|err| err.failed() == failed), "{failed}, {told}");
        Ok(())
    }
}

/// Drops a task that was handed back. Whether that was because the group had ended.
fn drop_task<F>(err: purview::TrySpawnError<F>) -> bool {
    let has_ended = err.ended().is_some();
    drop(err.into_task());
    has_ended
}

/// Takes the group out of the tasks' reach.
fn close_gate(gate: &Gate, group: Arc<Group>) -> Result<Group, String> {
    *gate.write().map_err(|err| err.to_string())? = Weak::new();
    Arc::into_inner(group).ok_or_else(|| "a task has the group".to_string())
}

fn describe<T>(result: &Result<T, GroupError<Failed>>) -> String {
    result.as_ref().err().map_or_else(|| "Ok".to_string(), |err| format!("{err:?}"))
}
