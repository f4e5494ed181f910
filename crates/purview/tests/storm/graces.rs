//! The shapes about graces: what happens below one while its parent is canceled.
//!
//! - `grace_wait`: a thread begins to wait below a short grace while the grace's parent is canceled.
//! - `grace_deadline`: a thread asks hundreds of contexts below a grace for their deadlines while the grace begins.
//! - `grace_error`: a thread reads the error of a context whose own deadline passes while a short grace begins above it, and
//!   keeps the error longer than all contexts.
//! - `grace_ended`: a grace ends by a call or a deadline of its own, and its parent is canceled while the tree below the
//!   grace is being marked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use purview::{CancelGuard, Context, OnDone};

use crate::report::{Call, PROMPT, Way, broken, eventually, has_stalled_since};
use crate::rng::Rng;
use crate::seen::Kept;
use crate::team::{Block, spin_until};

const HOUR: Duration = Duration::from_secs(3600);

fn nanos(rng: &mut Rng, most: usize) -> Duration {
    Duration::from_nanos(rng.below(most) as u64)
}

/// The one cancel of a round. Calls that are meant to be alone are not counted for overlaps.
fn count(block: &Block<'_>, contexts: usize, call: Way) {
    block.tally.count_size(contexts);
    block.tally.count_way(call, 1);
}

// ── grace_wait ─────────────────────────────────────────────────────────────────────────────────────────────────────────

struct Waits {
    parent: (Context, CancelGuard),
    _grace: (Context, CancelGuard),
    waited_for: (Context, CancelGuard),
    siblings: Vec<(Context, CancelGuard)>,
    _below: Option<(Context, CancelGuard)>,
}

pub(crate) fn wait(block: &Block<'_>) {
    let prepare = |rng: &mut Rng| {
        let parent = Context::background().with_cancel();
        let grace = parent.0.with_grace(nanos(rng, 3_000));
        let siblings = if rng.percent(70) { 20 } else { rng.below(60) };
        let mut all = Vec::with_capacity(2 * siblings);
        all.extend((0..siblings).map(|_| grace.0.with_timeout(2 * HOUR)));
        let waited_for = grace.0.with_timeout(HOUR);
        all.extend((0..siblings).map(|_| grace.0.with_timeout(2 * HOUR)));
        // Now and then the wait is for a context further down.
        let (waited_for, below) = if rng.percent(20) {
            (waited_for.0.with_timeout(HOUR / 2), Some(waited_for))
        } else {
            (waited_for, None)
        };
        Waits { parent, _grace: grace, waited_for, siblings: all, _below: below }
    };
    let act = |round: &Arc<Waits>, thread: usize, rng: &mut Rng| {
        rng.spin(600);
        if thread == 0 {
            round.parent.1.cancel();
            return;
        }
        let waited_for = &round.waited_for.0;
        let woken = loop {
            let began = Instant::now();
            if let Some(error) = waited_for.done().wait_timeout(PROMPT) {
                break Some(error);
            }
            // The parent was canceled long ago, unless that thread has not been run.
            if round.parent.0.is_done() && !has_stalled_since(began) {
                break None;
            }
        };
        match woken {
            None => broken(
                "a wait ends when the context does (C29)",
                format_args!(
                    "not woken in {PROMPT:?} below a grace of microseconds whose parent was canceled; is_done: {}",
                    waited_for.is_done()
                ),
            ),
            Some(error) => check_lateness(error.origin().at()),
        }
    };
    block.play((2, 16), prepare, act, |round, _| {
        block.tally.waits.fetch_add(1, Ordering::Relaxed);
        count(block, round.siblings.len() + 3, Way::Guard);
    });
}

/// Checks a thread that was woken just now, for a context that was done at `at`.
pub(crate) fn check_lateness(at: Instant) {
    let late = at.elapsed();
    if late > PROMPT && !has_stalled_since(at) {
        broken("a wait ends within a second of the end (C29)", format_args!("{late:?} late"));
    }
}

// ── grace_deadline ─────────────────────────────────────────────────────────────────────────────────────────────────────

struct Deadlines {
    parent: (Context, CancelGuard),
    /// Whether it has a deadline.
    is_bounded: bool,
    grace: (Context, CancelGuard),
    time: Duration,
    middle: (Context, CancelGuard),
    /// The latest that its deadline can be.
    latest: Instant,
    below: Vec<(Context, CancelGuard)>,
    canceled: AtomicBool,
}

pub(crate) fn deadline(block: &Block<'_>) {
    let prepare = |rng: &mut Rng| {
        let is_bounded = rng.percent(50);
        let parent = match is_bounded {
            true => Context::background().with_timeout(HOUR),
            false => Context::background().with_cancel(),
        };
        let time = *rng.pick(&[Duration::ZERO, Duration::from_micros(2), HOUR / 4, 2 * HOUR]);
        let grace = parent.0.with_grace(time);
        let middle = grace.0.with_timeout(HOUR);
        let latest = Instant::now() + HOUR;
        let count = if rng.percent(70) { 200 } else { rng.magnitude(10, 400) };
        let below = (0..count).map(|_| middle.0.with_cancel()).collect();
        let canceled = AtomicBool::new(false);
        Deadlines { parent, is_bounded, grace, time, middle, latest, below, canceled }
    };
    let act = |round: &Arc<Deadlines>, thread: usize, rng: &mut Rng| {
        let all = || round.below.iter().chain([&round.middle]).map(|it| &it.0);
        if thread == 0 {
            rng.spin(200);
            round.parent.1.cancel();
            let until = round.parent.0.err().map(|it| it.origin().at() + round.time);
            if until.is_none() || round.grace.0.deadline() != until {
                broken(
                    "a grace's deadline is exact once its parent is done (C15)",
                    format_args!("{:?}, not {until:?}", round.grace.0.deadline()),
                );
            }
            round.canceled.store(true, Ordering::Release);
            return;
        }
        let mut is_last = false;
        loop {
            for context in all() {
                let seen = context.deadline();
                if seen.is_none_or(|seen| seen > round.latest) {
                    broken(
                        "deadline() is never later than an ancestor's (C15)",
                        format_args!("{seen:?} below a deadline {:?}", round.latest),
                    );
                }
            }
            let own = round.grace.0.deadline();
            if round.is_bounded && own.is_none_or(|own| own > round.latest + round.time) {
                broken(
                    "a grace's deadline is no later than its parent's and the grace (C15)",
                    format_args!("{own:?}, after {:?} and {:?}", round.latest, round.time),
                );
            }
            if is_last {
                break;
            }
            is_last = round.canceled.load(Ordering::Acquire);
        }
        let until = round.grace.0.deadline().map(|it| it.min(round.latest));
        if let Some(other) = all().map(Context::deadline).find(|it| *it > until) {
            broken(
                "once a grace has begun, its deadline binds below it (C15)",
                format_args!("{other:?}, not {until:?}"),
            );
        }
    };
    block.play((2, 4), prepare, act, |round, _| count(block, round.below.len() + 3, Way::Guard));
}

// ── grace_error ────────────────────────────────────────────────────────────────────────────────────────────────────────

struct Errors {
    parent: (Context, CancelGuard),
    grace: (Context, CancelGuard),
    timed: (Context, CancelGuard),
    children: Vec<(Context, CancelGuard)>,
    /// How long after its derivation the parent is canceled.
    after: Duration,
    derived: Instant,
    kept: Mutex<Option<Kept>>,
}

pub(crate) fn error(block: &Block<'_>) {
    let full = block.alone;
    let prepare = |rng: &mut Rng| {
        let parent = Context::background().with_cancel();
        let grace = parent.0.with_grace(Duration::from_nanos(*rng.pick(&[0, 300, 1_000, 3_000])));
        let count = if full && rng.percent(10) { 100_000 } else { rng.magnitude(100, 10_000) };
        let children = (0..count).map(|_| parent.0.with_cancel()).collect();
        // The deadline passes while the children are being marked, some ten nanoseconds each.
        let time = (10 + rng.below(100 + count / 20)) as u64;
        let timed = grace.0.with_timeout(Duration::from_micros(time));
        let derived = Instant::now();
        let ahead = rng.below(time as usize) as u64;
        let after = Duration::from_micros(time - ahead);
        Errors { parent, grace, timed, children, after, derived, kept: Mutex::new(None) }
    };
    let act = |round: &Arc<Errors>, thread: usize, _: &mut Rng| {
        if thread == 0 {
            spin_until(|| round.derived.elapsed() >= round.after);
            round.parent.1.cancel();
            return;
        }
        let mut error = None;
        spin_until(|| {
            error = round.timed.0.err();
            error.is_some()
        });
        *round.kept.lock().unwrap() = error.map(|error| Kept::new(0, error));
    };
    block.play((2, 1), prepare, act, |round, _| {
        let kept = round.kept.into_inner().unwrap();
        let contexts = round.children.len() + 3;
        if let Some(kept) = &kept {
            kept.check("after the cancel of the grace's parent");
        }
        drop((round.timed, round.grace));
        drop((round.parent, round.children));
        if let Some(kept) = &kept {
            kept.check("after all contexts are dropped");
        }
        block.tally.errors.fetch_add(kept.iter().count() as u64, Ordering::Relaxed);
        count(block, contexts, Way::Guard);
    });
}

// ── grace_ended ────────────────────────────────────────────────────────────────────────────────────────────────────────

struct Ended {
    parent: (Context, CancelGuard),
    /// One grace below another.
    graces: Vec<(Context, CancelGuard)>,
    /// What is below each grace.
    below: Vec<Vec<(Context, CancelGuard)>>,
    /// The grace that ends by itself.
    ends: usize,
    by: End,
    _callback: Option<OnDone>,
    calls: Mutex<Vec<Call>>,
}

/// How a grace ends by itself.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Call,
    /// Its own deadline, without waiters: a poll finds that it has passed, and the next cancel marks what is below.
    Unarmed,
    /// Its own deadline, which the timer's thread sees to.
    Armed,
}

pub(crate) fn ended(block: &Block<'_>) {
    // The timer's thread is one more.
    let is_armed = block.rng().percent(70);
    let ends_by: &[End] = if is_armed { &[End::Armed] } else { &[End::Call, End::Unarmed] };
    let prepare = |rng: &mut Rng| {
        let parent = Context::background().with_cancel();
        let mut graces: Vec<(Context, CancelGuard)> = Vec::new();
        let mut below: Vec<Vec<(Context, CancelGuard)>> = Vec::new();
        let count = rng.between(1, 3);
        let ends = if rng.percent(70) { 0 } else { rng.below(count) };
        let by = *rng.pick(ends_by);
        for number in 0..count {
            let above = graces.last().map_or(&parent.0, |grace| &grace.0);
            let time = if rng.percent(50) { HOUR } else { nanos(rng, 3_000) };
            let children = rng.magnitude(50, 2_000);
            let own = children / 5 + 5 + rng.below(10); // long enough to be derived from
            let own = Duration::from_micros(own as u64);
            let derive = above.derive().grace(time);
            let grace =
                if number == ends && by != End::Call { derive.timeout(own) } else { derive }
                    .build();
            below.push((0..children).map(|_| grace.0.with_cancel()).collect());
            graces.push(grace);
        }
        let callback = (by == End::Armed).then(|| below[ends][0].0.on_done(|_| {}));
        let calls = Mutex::new(Vec::new());
        Ended { parent, graces, below, ends, by, _callback: callback, calls }
    };
    let act = |round: &Arc<Ended>, thread: usize, rng: &mut Rng| {
        let grace = &round.graces[round.ends];
        let (target, guard) = if thread == 0 { (0, &round.parent.1) } else { (1, &grace.1) };
        // The grace has ended before its parent's cancel begins, so it shields nothing.
        if thread == 0 || round.by != End::Call {
            spin_until(|| grace.0.is_done());
            let most = if rng.percent(50) { 2 } else { 30 };
            rng.spin(most);
        }
        let began = Instant::now();
        guard.cancel();
        let live = round.below[round.ends].iter().filter(|it| !it.0.is_done()).count();
        // The parent reaches that grace only if none is above it.
        let is_reached = thread == 1 || round.ends == 0;
        let ended = Instant::now();
        if is_reached && live > 0 {
            broken(
                "when a cancel returns, all below a grace that had ended before is done (C7)",
                format_args!(
                    "cancel of the {}: {live} of {} below the grace live",
                    ["grace's parent", "grace"][target],
                    round.below[round.ends].len()
                ),
            );
        }
        round.calls.lock().unwrap().push(Call { target, way: Way::Guard, began, ended });
    };
    block.play((if is_armed { 1 } else { 2 }, 1), prepare, act, |round, _| {
        let contexts = round.below.iter().map(|it| it.len() + 1).sum::<usize>() + 1;
        block.tally.count_size(contexts);
        let calls = round.calls.lock().unwrap();
        block.tally.count_calls(&calls, |above, below| above <= below);
        // What the parent's cancel left live below a shorter grace ends with that.
        if round.graces[0].0.deadline().is_some_and(|it| it <= Instant::now()) {
            let is_done = |it: &(Context, CancelGuard)| it.0.is_done();
            if !eventually(|| round.below[0].iter().all(is_done)) {
                broken("what is below a grace that is over is done (C27)", "a live one");
            }
        }
    });
}
