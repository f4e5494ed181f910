//! `wide`: a parent with thousands of children, of which the oldest has a tree of its own. One thread cancels the parent, and
//! another, once it sees the parent done, that oldest child; the first checks everything the moment its call returns.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use purview::{CancelGuard, Context};

use crate::report::{Call, Way, broken};
use crate::rng::Rng;
use crate::team::Block;

struct Round {
    top: (Context, CancelGuard),
    middle: (Context, CancelGuard),
    lower: (Context, CancelGuard),
    younger: Vec<(Context, CancelGuard)>,
    leaves: Vec<(Context, CancelGuard)>,
    calls: Mutex<Vec<Call>>,
}

pub(crate) fn play(block: &Block<'_>) {
    block.play(
        (2, 1),
        |rng| prepare(rng, block.alone),
        act,
        |round, _| {
            block.tally.count_size(round.younger.len() + round.leaves.len() + 3);
            let calls = round.calls.into_inner().unwrap();
            block.tally.count_calls(&calls, |above, below| above <= below);
        },
    );
}

fn prepare(rng: &mut Rng, full: bool) -> Round {
    let (above, below) = if full && rng.percent(50) {
        (10_000, 100_000)
    } else {
        (rng.magnitude(100, 10_000), rng.magnitude(200, 20_000))
    };
    let top = Context::background().with_cancel();
    let middle = top.0.with_cancel();
    let lower = middle.0.with_cancel();
    let younger = (0..above).map(|_| top.0.with_cancel()).collect();
    let leaves = (0..below).map(|_| lower.0.with_cancel()).collect();
    Round { top, middle, lower, younger, leaves, calls: Mutex::new(Vec::new()) }
}

fn act(round: &Arc<Round>, thread: usize, _: &mut Rng) {
    let (target, guard) = if thread == 0 { (0, &round.top.1) } else { (1, &round.middle.1) };
    if thread == 1 {
        while !round.top.0.is_done() {
            std::hint::spin_loop();
        }
    }
    let began = Instant::now();
    guard.cancel();
    let ended = Instant::now();
    let live = |of: &[(Context, CancelGuard)]| of.iter().filter(|it| !it.0.is_done()).count();
    let leaves = live(&round.leaves);
    let younger = if thread == 0 { live(&round.younger) } else { 0 };
    let all = round.lower.0.is_done() && round.middle.0.is_done();
    if leaves + younger > 0 || !all {
        broken(
            "when a cancel returns, all below that was derived before is done (C7)",
            format_args!(
                "cancel of {}: {leaves} of {} leaves live, and {younger} of {} siblings",
                ["the parent", "its oldest child"][target],
                round.leaves.len(),
                round.younger.len(),
            ),
        );
    }
    round.calls.lock().unwrap().push(Call { target, way: Way::Guard, began, ended });
}
