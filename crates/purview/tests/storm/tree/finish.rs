//! What holds when a round is over: all contexts are done, all callbacks have run, all observers agree, and nothing is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use purview::{By, Error};

use super::board::{Board, Kind, Log, Slot};
use crate::report::{Tally, Way, broken, eventually};
use crate::rng::Rng;
use crate::seen::{Facts, Kept};
use crate::team::unshared;

pub(crate) fn finish(tally: &Tally, board: Arc<Board>, rng: &mut Rng) {
    let board = unshared(board);
    nothing_is_left(&board);
    all_have_ended(&board);
    let mut log = join(&board);
    errors_are_inherited(&board);
    count(tally, &board, &log);
    callbacks_have_run_once(&board, &mut log);

    let mut kept = std::mem::take(&mut log.kept);
    kept.extend(
        board.slots().filter_map(|(number, slot)| Some(Kept::new(number, slot.context.err()?))),
    );
    all_agree(&board, &kept);
    tally.errors.fetch_add(kept.len() as u64, Ordering::Relaxed);
    let (values, causes) = (Arc::clone(&board.values), Arc::clone(&board.causes));
    drop_all(board, rng);
    kept.iter().for_each(|kept| kept.check("after all contexts were dropped"));
    dropped_once("values", || values.counts());
    drop(kept);
    dropped_once("causes", || causes.counts());
}

/// The top has ended by a call, and all calls have returned: the root has no trace of it.
fn nothing_is_left(board: &Board) {
    let left = board.root.0.statistics();
    if left.children() + left.callbacks() + left.waiters() > 0 {
        broken("a canceled child leaves nothing behind in its parent (C12)", format!("{left:?}"));
    }
}

fn all_have_ended(board: &Board) {
    for (number, slot) in board.slots() {
        if slot.is_mortal && !eventually(|| slot.context.is_done()) {
            let kind = slot.kind;
            broken("what is below an end is done (C6)", format!("{number} ({kind:?}) is live"));
        }
    }
    // What the top does not end is ended here.
    for (_, slot) in board.slots().filter(|it| !it.1.is_mortal) {
        slot.handle.iter().for_each(purview::CancelHandle::cancel);
    }
    for (number, slot) in board.slots().filter(|it| it.1.context.is_done()) {
        let left = || {
            let left = slot.context.statistics();
            left.children() + left.callbacks() + left.waiters()
        };
        if !eventually(|| left() == 0) {
            let (kind, left) = (slot.kind, slot.context.statistics());
            broken(
                "a done context has nothing registered (C12)",
                format!("{number} ({kind:?}): {left:?}"),
            );
        }
    }
}

fn join(board: &Board) -> Log {
    let mut all = std::mem::take(&mut *board.told.lock().unwrap());
    for mut log in board.logs.lock().unwrap().drain(..) {
        all.calls.append(&mut log.calls);
        all.kept.append(&mut log.kept);
        all.stopped.append(&mut log.stopped);
        all.registered.append(&mut log.registered);
        all.waits += log.waits;
    }
    all
}

fn count(tally: &Tally, board: &Board, log: &Log) {
    let contexts = board.slots().count();
    tally.count_size(contexts);
    tally.derived.fetch_add(contexts as u64, Ordering::Relaxed);
    tally.waits.fetch_add(log.waits, Ordering::Relaxed);
    tally.count_calls(&log.calls, |above, below| board.is_at_or_above(above, below));
    let expired = board.slots().filter(|(_, slot)| {
        let own = |it: Error| {
            it.origin().by() == By::Deadline && it.origin().context() == slot.context.id()
        };
        slot.kind != Kind::Value && slot.context.err().is_some_and(own)
    });
    tally.count_way(Way::Deadline, expired.count());
}

/// A context's error is its own, or that of a parent (C10); below a grace by that the grace was over (C27).
fn errors_are_inherited(board: &Board) {
    let facts = |slot: &Slot| slot.context.err().map(|error| Facts::of(&error));
    for (number, slot) in board.slots().filter(|it| it.1.kind != Kind::WithoutCancel) {
        let Some(mine) = facts(slot) else { continue };
        let above = slot.parents.iter().filter_map(|it| facts(board.get(*it)?));
        let mut above = above.peekable();
        if mine.origin == slot.context.id() {
            continue;
        }
        let is_inherited = if let Kind::Grace(_) = slot.kind {
            above.any(|it| it.origin == mine.origin && mine.by == By::GraceOver)
        } else {
            slot.parents.is_empty() || above.any(|it| it == mine)
        };
        if !is_inherited {
            let parents = slot.parents.iter().filter_map(|it| facts(board.get(*it)?));
            let parents: Vec<Facts> = parents.collect();
            broken(
                "a context ends by itself or with a parent's error (C10)",
                format_args!("{mine:?}; its parents: {parents:?}; {}", board.describe(number)),
            );
        }
    }
}

fn callbacks_have_run_once(board: &Board, log: &mut Log) {
    for (number, slot) in board.slots() {
        let expected = u32::from(slot.context.is_done());
        for callback in &slot.callbacks {
            let runs = || callback.runs.load(Ordering::SeqCst);
            if !eventually(|| runs() == expected) {
                broken(
                    "a callback runs once if the context ends, or never (C33)",
                    format_args!("one of {number} ({:?}) ran {} times", slot.kind, runs()),
                );
            }
        }
    }
    // Once a registration is dropped, its callback neither runs nor begins to.
    for (registration, runs) in log.registered.drain(..) {
        drop(registration);
        let so_far = runs.load(Ordering::SeqCst);
        log.stopped.push((runs, so_far));
    }
    for (runs, expected) in log.stopped.drain(..) {
        let seen = || runs.load(Ordering::SeqCst);
        if !eventually(|| seen() == expected) {
            broken(
                "a stopped callback never runs, one that was not runs once (C33)",
                format_args!("{} times, and not {expected}", seen()),
            );
        }
    }
}

/// All that was read of one context says the same (C2).
fn all_agree(board: &Board, kept: &[Kept]) {
    let mut first: HashMap<usize, &Kept> = HashMap::new();
    for kept in kept {
        kept.check("at the end of the round");
        let other = first.entry(kept.of).or_insert(kept);
        if other.facts != kept.facts {
            let kind = board.get(kept.of).map(|slot| slot.kind);
            broken(
                "every observer sees the same error (C2)",
                format_args!("{} ({kind:?}): {:?} and {:?}", kept.of, other.facts, kept.facts),
            );
        }
    }
}

fn drop_all(board: Board, rng: &mut Rng) {
    let mut slots: Vec<Option<Slot>> = board.into_slots().into_iter().map(Some).collect();
    match rng.below(3) {
        0 => drop(slots),
        1 => {
            while let Some(slot) = slots.pop() {
                drop(slot);
            }
        }
        _ => {
            for _ in 0..slots.len() {
                let number = rng.below(slots.len());
                drop(slots[number].take());
            }
        }
    }
}

fn dropped_once(what: &str, counts: impl Fn() -> (u64, u64)) {
    if !eventually(|| counts().0 == counts().1) {
        let (made, dropped) = counts();
        broken(
            "values and causes are dropped once (C24)",
            format_args!("{made} {what} were made, and {dropped} dropped"),
        );
    }
}
