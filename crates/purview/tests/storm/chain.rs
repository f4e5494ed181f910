//! `chain`: a chain of contexts, each with many children. Threads cancel levels of it at random, and each checks all that
//! is at its level and below, the moment its call returns.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use purview::{CancelGuard, CancelHandle, Context};

use crate::report::{Call, Way, broken};
use crate::rng::Rng;
use crate::team::{Block, spin_until};

const HOUR: Duration = Duration::from_secs(3600);

struct Level {
    context: Context,
    guard: CancelGuard,
    handle: CancelHandle,
    /// Below this level, and not below the next one.
    below: Vec<Context>,
}

struct Round {
    levels: Vec<Level>,
    contexts: usize,
    /// What the first thread cancels first.
    first: usize,
    calls: Mutex<Vec<Call>>,
    _guards: Vec<CancelGuard>,
    _root: (Context, CancelGuard),
}

pub(crate) fn play(block: &Block<'_>) {
    // Two threads are the widest race on two processors; more of them meet in other places.
    let mut rng = block.rng();
    let threads = if rng.percent(80) { 2 } else { rng.between(3, 4) };
    block.play((threads, 8), prepare, act, |round, _| {
        block.tally.count_size(round.contexts);
        let calls = round.calls.into_inner().unwrap();
        block.tally.count_calls(&calls, |above, below| above <= below);
    });
}

fn prepare(rng: &mut Rng) -> Round {
    let root = Context::background().with_cancel();
    let levels = if rng.percent(60) { 20 } else { rng.between(3, 30) };
    let children = if rng.percent(60) { 100 } else { rng.magnitude(4, 200) };
    let is_mixed = rng.percent(25);
    let mut round = Round {
        levels: Vec::with_capacity(levels),
        contexts: 1,
        first: rng.below(levels),
        calls: Mutex::new(Vec::with_capacity(8)),
        _guards: Vec::with_capacity(levels * children),
        _root: root,
    };
    // A sweep marks the youngest child first. So where the next level is the oldest child, a level's end and the next one's
    // are far apart; where it is the youngest, they are close together.
    let is_built_first = rng.percent(60);
    for _ in 0..levels {
        let above = round.levels.last().map_or(&round._root.0, |level| &level.context);
        let is_timed = is_mixed && rng.percent(10);
        let (context, guard) =
            if is_timed { above.with_timeout(HOUR) } else { above.with_cancel() };
        let handle = guard.handle();
        round.levels.push(Level { context, handle, guard, below: Vec::with_capacity(children) });
        if !is_built_first {
            fill(&mut round.levels, children, is_mixed, rng, &mut round._guards);
        }
    }
    for number in 0..if is_built_first { levels } else { 0 } {
        fill(&mut round.levels[..=number], children, is_mixed, rng, &mut round._guards);
    }
    round.contexts += levels * (children + 1);
    round
}

/// Gives the last of these levels its children, some of which have children, and some more parents than one.
fn fill(
    levels: &mut [Level],
    children: usize,
    is_mixed: bool,
    rng: &mut Rng,
    guards: &mut Vec<CancelGuard>,
) {
    let Some((level, above)) = levels.split_last_mut() else { return };
    for _ in 0..children {
        let parent = match level.below.last() {
            Some(last) if is_mixed && rng.percent(10) => last,
            _ => &level.context,
        };
        let (child, guard) = match rng.below(20) {
            0 if is_mixed => parent.with_timeout(HOUR),
            1 if is_mixed && !above.is_empty() => {
                Context::any_of([parent, &rng.pick(above).context])
            }
            _ => parent.with_cancel(),
        };
        level.below.push(child);
        guards.push(guard);
    }
}

fn act(round: &Arc<Round>, thread: usize, rng: &mut Rng) {
    for number in 0..rng.between(1, 2) {
        let levels = round.levels.len();
        let mut target = rng.below(levels);
        let mut trigger = None;
        if number == 0 && thread == 0 {
            target = round.first;
        } else if number == 0 && rng.percent(60) {
            // Comes in the middle of the first thread's cancel, right below what that has come to.
            let above = rng.between(round.first, levels - 1);
            trigger = Some(&round.levels[above].context);
            target = (above + rng.between(1, 2)).min(levels - 1);
        }
        let way =
            *rng.pick(&[Way::Guard, Way::Guard, Way::Handle, Way::HandleWith, Way::GuardWith]);
        let upwards = rng.percent(50);
        let level = &round.levels[target];
        match trigger {
            Some(above) => spin_until(|| above.is_done()),
            None => rng.spin(60),
        }
        let began = Instant::now();
        match way {
            Way::Guard => level.guard.cancel(),
            Way::GuardWith => level.guard.cancel_with("guard"),
            Way::HandleWith => level.handle.cancel_with("handle"),
            _ => level.handle.cancel(),
        }
        let live = live(&round.levels[target..], upwards);
        let ended = Instant::now();
        if let Some((at, child, count)) = live {
            let levels = round.levels.len();
            broken(
                "when a cancel returns, all below that was derived before is done (C7)",
                format_args!(
                    "{way:?} of level {target} of {levels}: live at level {}: {child} and {} more; done a moment later: {}",
                    target + at,
                    count - 1,
                    round.levels[target + at].below.iter().all(Context::is_done),
                ),
            );
        }
        round.calls.lock().unwrap().push(Call { target, way, began, ended });
    }
}

/// The first context that is live, as its level and its place there, and how many there are.
fn live(levels: &[Level], upwards: bool) -> Option<(usize, String, usize)> {
    let mut first = None;
    let mut count = 0;
    let mut look = |(at, level): (usize, &Level)| {
        let children = level.below.iter().enumerate().map(|(number, it)| (Some(number), it));
        for (number, context) in children.chain([(None, &level.context)]) {
            if !context.is_done() {
                count += 1;
                let name = || number.map_or("the level".into(), |number| format!("child {number}"));
                first.get_or_insert_with(|| (at, name()));
            }
        }
    };
    if upwards {
        levels.iter().enumerate().rev().for_each(&mut look);
    } else {
        levels.iter().enumerate().for_each(&mut look);
    }
    first.map(|(at, name)| (at, name, count))
}
