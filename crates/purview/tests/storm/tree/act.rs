//! What threads do in a round, and what is checked at once.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use purview::{By, CancelGuard, CancelHandle, Context, ContextId, Error};

use super::board::{Board, Kind, Log, Slot, keep};
use super::plan::{self, Step};
use crate::graces::check_lateness;
use crate::report::{Call, PROMPT, Way, broken, has_stalled_since};
use crate::rng::Rng;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn act(board: &Arc<Board>, thread: usize, rng: &mut Rng) {
    let mut log = Log::default();
    let mut trash = Vec::new();
    let steps = &board.steps.get().expect("set before the round")[thread];
    for step in steps {
        match *step {
            Step::Cancel(ref cancel) => cancel.run(board, thread, &mut log, &mut trash),
            Step::Derive { parent, count } => {
                for _ in 0..count {
                    let kind = Kind::random(rng, board.flavor);
                    plan::derive(board, kind, vec![parent], rng);
                }
            }
            Step::Wait { target, how } => wait(board, target, how, &mut log),
            Step::Deadlines { from, count } => deadlines(board, from, count),
            Step::Errors { from, count } => {
                for number in from..from + count {
                    if let Some(slot) = board.get(number) {
                        let was_done = slot.context.is_done();
                        if keep(&mut log, number, slot).is_none() && was_done {
                            broken("is_done() and err() agree (C3)", "done, and no error");
                        }
                    }
                }
            }
            Step::Statistics { target } => {
                board.get(target).map(|slot| slot.context.statistics());
            }
            Step::Register { target } => {
                let runs = Arc::new(AtomicU32::new(0));
                let mine = Arc::clone(&runs);
                let Some(slot) = board.get(target) else { continue };
                let registration = slot.context.on_done(move |_| {
                    mine.fetch_add(1, Ordering::SeqCst);
                });
                log.registered.push((registration, runs));
            }
            Step::Stop => {
                if let Some((registration, runs)) = log.registered.pop() {
                    let is_stopped = registration.stop();
                    if is_stopped && runs.load(Ordering::SeqCst) != 0 {
                        broken("stop() is true only if the callback never runs (C33)", "it ran");
                    }
                    // It never runs where the context cannot end, and has not been stopped.
                    log.stopped.push((runs, u32::from(!is_stopped)));
                }
            }
            Step::Churn { parent } => churn(board, parent, rng),
            Step::Meet { phase } => board.meet(phase),
        }
    }
    drop(trash);
    board.logs.lock().unwrap().push(log);
}

// ── cancel ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A cancel to come, with what it has to reach of the tree as it is planned.
pub(crate) struct Cancel {
    target: usize,
    way: Way,
    spin: usize,
    /// Whether it is left out if its target is done already: then there is little to see.
    may_skip: bool,
    /// The contexts that have to be done when it returns, in the order in which they are looked at.
    reach: Vec<usize>,
    /// The graces that it comes to. Those that are over before are passed through.
    graces: Vec<usize>,
}

impl Cancel {
    pub(crate) fn plan(board: &Board, target: usize, way: Way, rng: &mut Rng) -> Cancel {
        let mut reach: Vec<usize> =
            board.reach(target, u64::MAX, &[]).iter().map(|it| it.number).collect();
        let is_next = |slot: &Slot| slot.parents.iter().any(|it| reach.contains(it));
        // In half of the calls: asking them takes a moment.
        let graces = board.slots().filter(|it| matches!(it.1.kind, Kind::Grace(_)));
        let graces = graces.filter(|it| is_next(it.1)).map(|it| it.0);
        let graces = if rng.percent(50) { graces.collect() } else { Vec::new() };
        if rng.percent(50) {
            reach.reverse();
        }
        let (spin, may_skip) = (rng.below(40), target != 0 && rng.percent(80));
        Cancel { target, way, spin, may_skip, reach, graces }
    }

    fn run(&self, board: &Arc<Board>, thread: usize, log: &mut Log, trash: &mut Vec<CancelGuard>) {
        let Some(slot) = board.get(self.target) else { return };
        let Some(handle) = slot.handle.as_ref() else { return };
        if self.may_skip && slot.context.is_done() {
            return;
        }
        let (number, cause) = board.cause();
        let guard = match self.way {
            Way::Handle | Way::HandleWith => None,
            _ => slot.guard.lock().unwrap().take(),
        };
        // There is one guard; later calls use the handle.
        let way =
            if guard.is_some() || self.way == Way::HandleWith { self.way } else { Way::Handle };
        let over: Vec<usize> = self
            .graces
            .iter()
            .copied()
            .filter(|it| board.has_ended_before_its_parent(*it))
            .collect();
        slot.calls.fetch_add(1, Ordering::SeqCst);
        let before = board.now();
        for _ in 0..self.spin {
            std::hint::spin_loop();
        }
        let began = Instant::now();
        let line = match (way, guard) {
            (Way::GuardWith, Some(guard)) => {
                guard.cancel_with(cause);
                trash.push(guard);
                Mine::Cause(number)
            }
            (Way::GuardDrop, Some(guard)) => {
                drop(guard);
                Mine::Drop
            }
            (Way::Disarmed, Some(guard)) => {
                let handle = guard.disarm();
                Mine::Line(cancel_on_a_line(&handle, thread))
            }
            (_, Some(guard)) => {
                let line = line!() + 1;
                guard.cancel();
                trash.push(guard);
                Mine::Line(line)
            }
            (Way::HandleWith, None) => {
                handle.cancel_with(cause);
                Mine::Cause(number)
            }
            (_, None) => Mine::Line(cancel_on_a_line(handle, thread)),
        };
        // At once: the fewer steps until here, the more is seen.
        let live =
            self.reach.iter().find(|it| !board.get(**it).is_some_and(|it| it.context.is_done()));
        let ended = Instant::now();
        if let Some(live) = live {
            report_live(board, self.target, way, *live, "planned");
        }
        log.calls.push(Call { target: self.target, way, began, ended });
        check(board, self.target, way, before, &over, line, log);
    }
}

/// What distinguishes the error of this cancel from those of others.
enum Mine {
    Cause(u64),
    /// The guard's drop: there is one guard.
    Drop,
    /// The line of the call, which no other thread uses for this context.
    Line(u32),
}

/// Calls `cancel` on a line that is this thread's alone, and returns its number.
fn cancel_on_a_line(handle: &CancelHandle, thread: usize) -> u32 {
    match thread {
        0 => (handle.cancel(), line!()).1,
        1 => (handle.cancel(), line!()).1,
        2 => (handle.cancel(), line!()).1,
        3 => (handle.cancel(), line!()).1,
        4 => (handle.cancel(), line!()).1,
        5 => (handle.cancel(), line!()).1,
        6 => (handle.cancel(), line!()).1,
        _ => (handle.cancel(), line!()).1,
    }
}

/// From within a callback, on whatever thread that runs.
pub(crate) fn cancel_in_callback(board: &Arc<Board>, at: ContextId, target: usize) {
    // Rather something below the context whose callback this is.
    let own = board.slots().find(|it| it.1.context.id() == at).map(|it| it.0);
    let below = own.filter(|_| target % 4 > 0).and_then(|own| {
        let mut all = board.slots().filter(|it| it.0 >= target.max(own) && it.1.handle.is_some());
        all.find(|it| board.is_at_or_above(own, it.0)).map(|it| it.0)
    });
    let target = below.unwrap_or(target);
    let Some(slot) = board.get(target) else { return };
    let Some(handle) = slot.handle.as_ref() else { return };
    let (number, cause) = board.cause();
    slot.calls.fetch_add(1, Ordering::SeqCst);
    let before = board.now();
    let began = Instant::now();
    handle.cancel_with(cause);
    let is_done = slot.context.is_done();
    let ended = Instant::now();
    if !is_done {
        report_live(board, target, Way::Callback, target, "the target");
    }
    let mut log = Log::default();
    log.calls.push(Call { target, way: Way::Callback, began, ended });
    check(board, target, Way::Callback, before, &[], Mine::Cause(number), &mut log);
    let mut told = board.told.lock().unwrap();
    told.calls.append(&mut log.calls);
    told.kept.append(&mut log.kept);
}

#[cold]
fn report_live(board: &Board, target: usize, way: Way, live: usize, which: &str) {
    broken(
        "when a cancel returns, all below that was derived before is done (C7)",
        format_args!(
            "{way:?} of {target}; live ({which}): {}; a moment later done: {}",
            board.describe(live),
            board.get(live).is_some_and(|it| it.context.is_done())
        ),
    );
}

/// What holds when a cancel has returned.
fn check(
    board: &Board,
    target: usize,
    way: Way,
    before: u64,
    over: &[usize],
    mine: Mine,
    log: &mut Log,
) {
    let reached = board.reach(target, before, over);
    for it in &reached {
        if board.get(it.number).is_some_and(|slot| !slot.context.is_done()) {
            report_live(board, target, way, it.number, "reached");
        }
    }
    let Some(slot) = board.get(target) else { return };
    let Some(error) = keep(log, target, slot) else {
        broken("is_done() and err() agree (C3)", "done by a cancel, and no error");
        return;
    };
    let id = slot.context.id();
    let is_of = |error: &Error| error.origin().context() == id && is_mine(error, &mine);
    if !is_of(&error) {
        return;
    }
    // This call won. Of what it ended, the callbacks have run; where another call was under way at it or above it, and below
    // the target, that one may have been the one that ended it.
    for it in reached.iter().filter(|it| !it.is_contested) {
        let Some(slot) = board.get(it.number) else { continue };
        if slot.callbacks.is_empty() || !slot.context.err().is_some_and(|it| is_of(&it)) {
            continue;
        }
        if let Some(late) = slot.callbacks.iter().find(|it| it.runs.load(Ordering::SeqCst) == 0) {
            broken(
                "when a cancel returns to the caller that won, the callbacks of what it ended have run (C7)",
                format_args!(
                    "{way:?} of {target}: a callback of {} ({:?}) has not; a moment later it ran {} times",
                    it.number,
                    slot.kind,
                    late.runs.load(Ordering::SeqCst)
                ),
            );
        }
    }
    check_graces(board, before, &reached);
}

fn is_mine(error: &Error, mine: &Mine) -> bool {
    match (mine, error.origin().by()) {
        (Mine::Drop, by) => by == By::GuardDropped,
        (Mine::Cause(number), By::Call) => {
            error.cause().is_some_and(|it| it.to_string() == format!("cause {number}"))
        }
        (Mine::Line(line), By::Call) => error.origin().location().line() == *line,
        _ => false,
    }
}

/// A grace whose parent has been ended has begun, and its deadline is exact (C15).
fn check_graces(board: &Board, before: u64, reached: &[super::board::Reached]) {
    for (number, slot) in board.slots().filter(|it| it.1.stamp < before) {
        let Kind::Grace(time) = slot.kind else { continue };
        let Some(&above) = slot.parents.first() else { continue };
        if !reached.iter().any(|it| it.number == above) {
            continue;
        }
        let Some(error) = board.get(above).and_then(|above| above.context.err()) else { continue };
        // One that had ended before its parent did never begins.
        let mine = slot.context.err();
        if mine.is_some_and(|mine| mine.origin().by() != By::GraceOver) {
            continue;
        }
        let latest = error.origin().at().max(slot.derived) + time;
        let deadline = slot.context.deadline();
        if deadline.is_none_or(|it| it > latest) {
            broken(
                "a grace's deadline is exact once its parent is done (C15)",
                format_args!(
                    "{deadline:?}, and not {latest:?}; a moment later {:?}; parent's error {error:?}; derived {:?}; done: {}; {}",
                    slot.context.deadline(),
                    slot.derived,
                    slot.context.is_done(),
                    board.describe(number),
                ),
            );
        }
    }
}

// ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────────

fn deadlines(board: &Board, from: usize, count: usize) {
    for number in from..from + count {
        let Some(slot) = board.get(number) else { return };
        let Some(latest) = slot.deadline else { continue };
        let deadline = slot.context.deadline();
        let is_right = match deadline {
            None => false,
            Some(at) if slot.has_grace => at <= latest,
            Some(at) => at == latest,
        };
        if !is_right {
            broken(
                "deadline() is the earliest of a context's own and its ancestors', and stays (C15)",
                format_args!("{deadline:?}, was {latest:?}; {}", board.describe(number)),
            );
        }
    }
}

fn wait(board: &Board, target: usize, how: usize, log: &mut Log) {
    let Some(slot) = board.get(target) else { return };
    let context = &slot.context;
    let began = Instant::now();
    let error = match how {
        0 => context.done().wait(),
        1 => block_on(context.done()),
        2 => match block_on(context.run(pending::<()>())) {
            Err(error) => error,
            Ok(()) => return,
        },
        3 => match context.sleep_blocking(HOUR) {
            Err(error) => error,
            Ok(()) => return broken("a sleep lasts as long as was asked for", "an hour is over"),
        },
        _ => match wait_with_a_limit(board, context) {
            Some(error) => error,
            None => {
                return broken(
                    "a wait ends when the context does (C29)",
                    format_args!(
                        "{target} ({:?}): not woken in {PROMPT:?}; is_done: {}",
                        slot.kind,
                        context.is_done()
                    ),
                );
            }
        },
    };
    check_lateness(error.origin().at().max(began));
    log.kept.push(crate::seen::Kept::new(target, error));
    log.waits += 1;
}

fn wait_with_a_limit(board: &Board, context: &Context) -> Option<Error> {
    let is_over = || board.get(0).is_some_and(|top| top.context.is_done());
    loop {
        let (began, was_over) = (Instant::now(), is_over());
        let error = context.done().wait_timeout(PROMPT);
        // All that is waited for ends microseconds after the top.
        if error.is_some() || was_over && !has_stalled_since(began) {
            return error;
        }
    }
}

/// The simplest of executors.
fn block_on<F: Future>(work: F) -> F::Output {
    struct Unpark(Thread, Mutex<bool>);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = true;
            self.0.unpark();
        }
    }
    let mut work = pin!(work);
    let unpark = Arc::new(Unpark(thread::current(), Mutex::new(false)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut task = std::task::Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = work.as_mut().poll(&mut task) {
            return output;
        }
        while !std::mem::take(&mut *unpark.1.lock().unwrap()) {
            thread::park();
        }
    }
}

/// A small tree of the thread's own below a context of all threads: canceled, or dropped from above or from below.
fn churn(board: &Board, parent: usize, rng: &mut Rng) {
    let Some(parent) = board.get(parent) else { return };
    let (upper, upper_guard) = parent.context.with_cancel();
    let (middle, middle_guard) = upper.with_timeout(HOUR);
    let layer = middle.with_value(&super::board::VALUE, board.values.mark());
    let (lower, lower_guard) = layer.with_cancel();
    drop((upper, middle));
    match rng.below(4) {
        0 => {
            let handle = upper_guard.disarm();
            handle.cancel();
            if !lower.is_done() || !layer.is_done() {
                broken("when a cancel returns, all below is done (C7)", "a tree of three");
            }
        }
        1 => {
            drop(middle_guard);
            if !lower.is_done() {
                broken("dropping a guard cancels (C11)", "a child is live");
            }
        }
        2 => drop((lower_guard.disarm(), lower, layer, middle_guard.disarm())),
        _ => drop((layer, upper_guard, lower)),
    }
}
