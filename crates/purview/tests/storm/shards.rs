//! `shards`: threads derive from a parent so fast that its list of children splits into shards, while another thread cancels
//! the parent's parent. No child may be lost, and none may be taken for something else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use purview::{CancelGuard, Context};

use crate::report::{Call, Way, broken};
use crate::rng::Rng;
use crate::team::{Block, spin_until};

/// More children than a round has time for; a bound should the cancel be late.
const MOST: usize = 200;

struct Round {
    root: (Context, CancelGuard),
    parent: Context,
    _parent_guard: CancelGuard,
    _first: (Context, CancelGuard),
    children: usize,
    gap: usize,
    ready: AtomicUsize,
    canceled: AtomicBool,
    threads: usize,
    derived: AtomicUsize,
    call: Mutex<Option<Call>>,
}

pub(crate) fn play(block: &Block<'_>) {
    let mut rng = block.rng();
    let threads = if rng.percent(80) { 2 } else { 3 };
    block.play(
        (threads, 32),
        |rng| prepare(rng, threads),
        act,
        |round, _| {
            let derived = round.derived.load(Ordering::Relaxed);
            block.tally.count_size(derived + 3);
            block.tally.derived.fetch_add(derived as u64, Ordering::Relaxed);
            block.tally.count_calls(round.call.lock().unwrap().as_slice(), |_, _| false);
        },
    );
}

fn prepare(rng: &mut Rng, threads: usize) -> Round {
    let root = Context::background().with_cancel();
    let (parent, guard) = root.0.with_cancel();
    let first = parent.with_cancel();
    Round {
        root,
        parent,
        _parent_guard: guard,
        _first: first,
        children: rng.below(12),
        gap: if rng.percent(70) { 6 } else { rng.magnitude(1, 100) },
        ready: AtomicUsize::new(0),
        canceled: AtomicBool::new(false),
        threads,
        derived: AtomicUsize::new(0),
        call: Mutex::new(None),
    }
}

fn act(round: &Arc<Round>, thread: usize, rng: &mut Rng) {
    let mut mine = Vec::with_capacity(64);
    if thread == 0 {
        for _ in 0..round.children {
            mine.push(round.parent.with_cancel());
        }
        rng.spin(round.gap);
        let began = Instant::now();
        round.root.1.cancel();
        let ended = Instant::now();
        check(&mine, "derived before the cancel by the same thread");
        round.canceled.store(true, Ordering::Release);
        *round.call.lock().unwrap() = Some(Call { target: 0, way: Way::Guard, began, ended });
    } else {
        while !round.parent.is_done() && mine.len() < MOST {
            mine.push(round.parent.with_cancel());
        }
        // One more, of a parent that is done (unless there were so many children before): it is done at once.
        let is_done = round.parent.is_done();
        mine.push(round.parent.with_cancel());
        if is_done && !mine.last().is_some_and(|(child, _)| child.is_done()) {
            broken("a child of a done parent is done at once (C8)", "a live one");
        }
        spin_until(|| round.canceled.load(Ordering::Acquire));
        check(&mine, "derived while the parent's parent was canceled");
        let facts = |context: &Context| {
            context.err().map(|it| (it.origin().context(), it.origin().by(), it.origin().at()))
        };
        let parents = facts(&round.parent);
        if let Some(other) = mine.iter().map(|it| facts(&it.0)).find(|it| *it != parents) {
            broken(
                "a child has its parent's error (C8)",
                format_args!("{other:?}, not {parents:?}"),
            );
        }
    }
    round.derived.fetch_add(mine.len(), Ordering::Relaxed);
    // All are dropped at the same time, as the shards keep their parent for the children.
    round.ready.fetch_add(1, Ordering::AcqRel);
    spin_until(|| round.ready.load(Ordering::Acquire) == round.threads);
    drop(mine);
}

fn check(mine: &[(Context, CancelGuard)], when: &str) {
    let live = mine.iter().filter(|(child, _)| !child.is_done()).count();
    if live > 0 {
        broken(
            "no child that is derived while its parent is canceled is lost (C8)",
            format_args!("{live} of {} live, {when}", mine.len()),
        );
    }
}
