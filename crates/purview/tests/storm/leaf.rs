//! `leaf`: two threads cancel one leaf, or one of them the leaf and the other its parent, and each checks the leaf the moment
//! its own call returns. In bulk: a round is hundreds of leaves, and the threads meet before each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purview::{CancelGuard, CancelHandle, Context};

use crate::report::{Way, broken};
use crate::rng::Rng;
use crate::team::{Block, spin_until};

const LEAVES: usize = 512;
const HOUR: Duration = Duration::from_secs(3600);

struct Leaf {
    context: Context,
    guard: Mutex<Option<CancelGuard>>,
    /// What the second thread cancels: the leaf, or its parent.
    handle: CancelHandle,
}

#[repr(align(128))]
struct Progress(AtomicUsize);

struct Round {
    leaves: Vec<Leaf>,
    progress: [Progress; 2],
    _parents: Vec<(Context, CancelGuard)>,
}

pub(crate) fn play(block: &Block<'_>) {
    block.play(
        (2, 1),
        prepare,
        |round, thread, rng| act(block, round, thread, rng),
        |round, _| {
            block.tally.count_size(round.leaves.len());
            block.tally.count_overlapping(2 * round.leaves.len());
            drop(round);
        },
    );
}

fn prepare(rng: &mut Rng) -> Round {
    let (timed, from_above) = (rng.percent(15), rng.percent(40));
    let siblings = if from_above { 1 } else { rng.magnitude(1, 64) };
    let mut parents = Vec::new();
    let leaves = (0..LEAVES).map(|number| {
        if number % siblings == 0 {
            parents.push(Context::background().with_cancel());
        }
        let (parent, parent_guard) = parents.last().unwrap();
        let (context, guard) = if timed { parent.with_timeout(HOUR) } else { parent.with_cancel() };
        let handle = if from_above { parent_guard.handle() } else { guard.handle() };
        Leaf { context, handle, guard: Mutex::new(Some(guard)) }
    });
    let leaves = leaves.collect();
    Round { leaves, progress: [0, 0].map(|it| Progress(AtomicUsize::new(it))), _parents: parents }
}

fn act(block: &Block<'_>, round: &Round, thread: usize, rng: &mut Rng) {
    let mut ways = [0; 8];
    let other = &round.progress[1 - thread].0;
    // Mostly the two plain calls, whose quick paths are the shortest.
    let rare = rng.percent(30);
    for (number, leaf) in round.leaves.iter().enumerate() {
        let guard = if thread == 0 { leaf.guard.lock().unwrap().take() } else { None };
        let way = match (&guard, if rare { rng.below(4) } else { 0 }) {
            (Some(_), 2) => Way::GuardWith,
            (Some(_), 3) => Way::GuardDrop,
            (Some(_), _) => Way::Guard,
            (None, 3) => Way::HandleWith,
            (None, _) => Way::Handle,
        };
        let spin = rng.below(24);
        round.progress[thread].0.store(number + 1, Ordering::Release);
        spin_until(|| other.load(Ordering::Acquire) > number);
        for _ in 0..spin {
            std::hint::spin_loop();
        }
        let mut kept = None;
        match (way, guard) {
            (Way::GuardWith, Some(guard)) => {
                guard.cancel_with("guard");
                kept = Some(guard);
            }
            (Way::GuardDrop, Some(guard)) => drop(guard),
            (_, Some(guard)) => {
                guard.cancel();
                kept = Some(guard);
            }
            (Way::HandleWith, None) => leaf.handle.cancel_with("handle"),
            (_, None) => leaf.handle.cancel(),
        }
        if !leaf.context.is_done() {
            let later = leaf.context.is_done();
            broken(
                "when a cancel returns, the context is done (C7)",
                format_args!("leaf {number}, {way:?}: live; a moment later done: {later}"),
            );
        }
        drop(kept);
        ways[way as usize] += 1;
    }
    for way in [Way::Guard, Way::GuardWith, Way::GuardDrop, Way::Handle, Way::HandleWith] {
        block.tally.count_way(way, ways[way as usize]);
    }
}
