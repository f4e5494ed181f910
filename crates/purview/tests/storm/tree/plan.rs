//! What a round is: its tree, and what each thread is going to do. All of it follows from the round's seed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use purview::Context;

use super::act::{self, Cancel};
use super::board::{Board, Callback, Flavor, Kind, keep};
use crate::report::Way;
use crate::rng::Rng;

/// Contexts that threads may derive during a round.
const MORE: usize = 200;

/// Something that a thread does.
pub(crate) enum Step {
    Cancel(Cancel),
    Derive {
        parent: usize,
        count: usize,
    },
    Wait {
        target: usize,
        how: usize,
    },
    /// Asks a run of contexts for their deadlines.
    Deadlines {
        from: usize,
        count: usize,
    },
    Errors {
        from: usize,
        count: usize,
    },
    Statistics {
        target: usize,
    },
    Register {
        target: usize,
    },
    /// Stops one of the thread's own registrations.
    Stop,
    /// Derives a small tree, and cancels or drops it.
    Churn {
        parent: usize,
    },
    /// Waits for the other threads, so that what comes next begins everywhere at the same moment.
    Meet {
        phase: usize,
    },
}

#[derive(Clone, Copy)]
enum Form {
    Chain,
    Star,
    Comb(usize),
    Bush,
    Tall,
}

pub(crate) fn prepare(rng: &mut Rng, threads: usize) -> Arc<Board> {
    let size = rng.magnitude(30, 240);
    let flavor = match rng.below(10) {
        0..3 => Flavor::Plain,
        3..5 => Flavor::Merges,
        _ => Flavor::Mixed,
    };
    let form = match rng.below(6) {
        0 => Form::Chain,
        1 => Form::Star,
        2 | 3 => Form::Comb(rng.between(2, 20)),
        4 => Form::Bush,
        _ => Form::Tall,
    };
    let board = Arc::new(Board::new(size + MORE, flavor, threads));
    let mut spine = 0;
    for number in 0..size {
        let parent = match form {
            _ if number == 0 => Vec::new(),
            Form::Chain => vec![number - 1],
            Form::Star => vec![0],
            Form::Comb(teeth) => {
                let parent = spine;
                if number % (teeth + 1) == 0 {
                    spine = number;
                }
                vec![parent]
            }
            Form::Bush => vec![rng.below(number)],
            Form::Tall => vec![number - rng.between(1, number.min(4))],
        };
        let mut kind = if number == 0 { Kind::Cancel } else { Kind::random(rng, flavor) };
        if kind == Kind::WithoutCancel && !matches!(form, Form::Bush) && rng.percent(80) {
            kind = Kind::Cancel; // it would cut off most of the tree
        }
        derive(&board, kind, parent, rng);
    }
    let hot = path(&board, rng.between(size / 2, size - 1));
    let phases = rng.between(1, 4);
    let steps = |thread| steps(&board, (thread, threads), phases, &hot, rng);
    let steps = (0..threads).map(steps).collect();
    assert!(board.steps.set(steps).is_ok(), "set once");
    board
}

/// Derives a context with what belongs to it.
pub(crate) fn derive(
    board: &Arc<Board>,
    kind: Kind,
    mut parents: Vec<usize>,
    rng: &mut Rng,
) -> Option<usize> {
    if kind == Kind::Merge {
        let taken = board.taken();
        parents.extend((0..rng.between(1, 2)).map(|_| rng.below(taken)));
        parents.retain(|it| board.get(*it).is_some());
    }
    board.derive(kind, &parents, |context| {
        let count = if rng.percent(25) { rng.between(1, 2) } else { 0 };
        (0..count).map(|_| callback(board, context, rng)).collect()
    })
}

fn callback(board: &Arc<Board>, context: &Context, rng: &mut Rng) -> Callback {
    let runs = Arc::new(AtomicU32::new(0));
    let mine = Arc::clone(&runs);
    let weak: Weak<Board> = Arc::downgrade(board);
    let (what, target, id) = (rng.below(10), 1 + rng.below(board.taken()), context.id());
    let registration = context.on_done(move |error| {
        mine.fetch_add(1, Ordering::SeqCst);
        if what > 2 {
            return;
        }
        let Some(board) = weak.upgrade() else { return };
        if what == 0 {
            act::cancel_in_callback(&board, id, target);
        } else if let Some((number, slot)) = board.slots().find(|it| it.1.context.id() == id) {
            let mut log = super::board::Log::default();
            log.kept.push(crate::seen::Kept::new(number, error.clone()));
            let _ = keep(&mut log, number, slot);
            board.told.lock().unwrap().kept.append(&mut log.kept);
        }
    });
    if rng.percent(50) {
        registration.detach();
        Callback { _registration: None, runs }
    } else {
        Callback { _registration: Some(registration), runs }
    }
}

/// A context and all above it by its first parents, as far as a cancel comes down.
fn path(board: &Board, from: usize) -> Vec<usize> {
    let mut path = vec![from];
    while let Some(slot) = path.last().and_then(|last| board.get(*last)) {
        let Some(parent) = slot.parents.first() else { break };
        path.push(*parent);
    }
    path
}

fn steps(
    board: &Board,
    (thread, threads): (usize, usize),
    phases: usize,
    hot: &[usize],
    rng: &mut Rng,
) -> Vec<Step> {
    let taken = board.taken();
    let mut steps = Vec::new();
    for phase in 1..=phases {
        // Each phase begins with a cancel, in all threads at the same moment.
        if phase > 1 {
            steps.push(Step::Meet { phase: phase - 1 });
        }
        steps.push(Step::Cancel(cancel(board, hot, rng)));
        for _ in 0..rng.between(0, if threads > 3 { 2 } else { 4 }) {
            let target = rng.below(taken);
            let count = rng.between(1, 6);
            steps.push(match rng.below(100) {
                0..20 => Step::Cancel(cancel(board, hot, rng)),
                20..40 => Step::Derive { parent: target, count },
                // In the last phase alone, for what is waited for may end last of all.
                40..55 if thread > 0 && phase == phases => {
                    let is_mortal = |it: &usize| board.get(*it).is_some_and(|slot| slot.is_mortal);
                    let target = Some(target).filter(is_mortal).unwrap_or(0);
                    Step::Wait { target, how: rng.below(5) }
                }
                40..65 => Step::Deadlines { from: target, count: rng.between(1, 30) },
                65..80 => Step::Errors { from: target, count },
                80..84 => Step::Statistics { target },
                84..90 => Step::Register { target },
                90..94 => Step::Stop,
                _ => Step::Churn { parent: target },
            });
        }
    }
    if thread == 0 {
        // Waiting threads are woken by this at the latest.
        steps.push(Step::Cancel(Cancel::plan(board, 0, way(rng), rng)));
    }
    steps
}

fn way(rng: &mut Rng) -> Way {
    *rng.pick(&[
        Way::Guard,
        Way::Guard,
        Way::GuardWith,
        Way::GuardDrop,
        Way::Disarmed,
        Way::Handle,
        Way::Handle,
        Way::HandleWith,
    ])
}

fn cancel(board: &Board, hot: &[usize], rng: &mut Rng) -> Cancel {
    let mut target = 0;
    // The top only now and then, for nothing is left after it; and rather what is live.
    for _ in 0..4 {
        target = if rng.percent(75) { *rng.pick(hot) } else { rng.below(board.taken()) };
        let suits =
            board.get(target).is_some_and(|it| it.handle.is_some() && !it.context.is_done());
        if suits && (target != 0 || rng.percent(20)) {
            break;
        }
    }
    if board.get(target).is_none_or(|it| it.handle.is_none()) {
        target = 0;
    }
    Cancel::plan(board, target, way(rng), rng)
}
