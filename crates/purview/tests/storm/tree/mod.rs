//! `tree`: random trees of every kind of context, canceled in every way by two to eight threads, which also derive, wait,
//! register callbacks, and read deadlines, errors and statistics. A model of the tree (`board.rs`) is kept beside the
//! contexts and says after each call what has to be so.

mod act;
mod board;
mod finish;
mod plan;

use crate::team::Block;

pub(crate) fn play(block: &Block<'_>) {
    let mut rng = block.rng();
    let threads = match rng.below(10) {
        0..6 => 2,
        6..8 => 3,
        8 => 4,
        _ => rng.between(5, 8),
    };
    block.play(
        (threads, 4),
        |rng| plan::prepare(rng, threads),
        |round, thread, rng| act::act(round, thread, rng),
        |round, rng| finish::finish(block.tally, round, rng),
    );
}
