//! Threads that play rounds together, each round begun by all of them at the same moment.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::report::{self, Tally};
use crate::rng::{Rng, mix};

/// How long a shape is played, by whom, and what it counts.
pub(crate) struct Block<'a> {
    /// Its number among the shapes: a part of each round's seed.
    pub(crate) shape: u64,
    pub(crate) until: Instant,
    pub(crate) most_rounds: u64,
    pub(crate) most_cancels: u64,
    pub(crate) tally: &'a Tally,
    /// Whether no other shape is played: then it may take its full size.
    pub(crate) alone: bool,
}

impl Block<'_> {
    /// What decides about a block as a whole.
    pub(crate) fn rng(&self) -> Rng {
        let rounds = self.tally.rounds.load(Ordering::Relaxed);
        Rng::new(mix(&[report::seed(), self.shape, rounds, u64::MAX]))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
            || self.tally.rounds.load(Ordering::Relaxed) >= self.most_rounds
            || self.tally.cancels.load(Ordering::Relaxed) >= self.most_cancels
    }

    /// Plays rounds until the block is over. This thread prepares each round and finishes it, and acts in it as number 0.
    pub(crate) fn play<R: Send + Sync>(
        &self,
        threads: usize,
        mut prepare: impl FnMut(&mut Rng) -> R,
        act: impl Fn(&Arc<R>, usize, &mut Rng) + Sync,
        mut finish: impl FnMut(R, &mut Rng),
    ) {
        let stage = Stage::new(threads as u64);
        let rng = |round: u64, role: u64| Rng::new(mix(&[report::seed(), self.shape, round, role]));
        thread::scope(|scope| {
            for number in 1..threads {
                let (stage, act, rng) = (&stage, &act, &rng);
                scope.spawn(move || {
                    for turn in 1.. {
                        let Some((round, number_of_round)) = stage.next(turn) else { return };
                        let mut rng = rng(number_of_round, number as u64 + 1);
                        stage.meet(turn);
                        act(&round, number, &mut rng);
                        drop(round);
                        stage.left.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            for turn in 1.. {
                if turn > 1 && self.is_over() {
                    stage.over.store(true, Ordering::Release);
                    break;
                }
                let number = self.tally.rounds.fetch_add(1, Ordering::Relaxed);
                let mut dice = rng(number, 0);
                report::begin_round(number);
                let round = Arc::new(prepare(&mut dice));
                *stage.round() = Some((Arc::clone(&round), number));
                stage.turn.store(turn, Ordering::Release);
                let mut rng = rng(number, 1);
                stage.meet(turn);
                act(&round, 0, &mut rng);
                spin_until(|| stage.left.load(Ordering::Acquire) >= turn * (stage.threads - 1));
                *stage.round() = None;
                // A callback on the thread that is kept for them may hold it for a moment longer.
                let mut round = round;
                let round = loop {
                    match Arc::try_unwrap(round) {
                        Ok(round) => break round,
                        Err(held) => round = held,
                    }
                    thread::yield_now();
                };
                finish(round, &mut dice);
                report::end_round();
            }
        });
    }
}

/// Where the threads of a team meet.
struct Stage<R> {
    threads: u64,
    round: Mutex<Option<(Arc<R>, u64)>>,
    turn: AtomicU64,
    arrived: AtomicU64,
    left: AtomicU64,
    over: AtomicBool,
}

impl<R> Stage<R> {
    fn new(threads: u64) -> Self {
        Stage {
            threads,
            round: Mutex::new(None),
            turn: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            left: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn round(&self) -> std::sync::MutexGuard<'_, Option<(Arc<R>, u64)>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the round of this turn; `None` once all are over.
    fn next(&self, turn: u64) -> Option<(Arc<R>, u64)> {
        let over = || self.over.load(Ordering::Acquire);
        spin_until(|| self.turn.load(Ordering::Acquire) >= turn || over());
        if over() { None } else { self.round().clone() }
    }

    /// Waits until all threads have come to this turn.
    fn meet(&self, turn: u64) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        spin_until(|| self.arrived.load(Ordering::Acquire) >= turn * self.threads);
    }
}

/// Spins, and after a while yields, as there may be fewer processors than threads.
pub(crate) fn spin_until(mut is_so: impl FnMut() -> bool) {
    for step in 0_u64.. {
        if is_so() {
            return;
        }
        if step < 4_000 {
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}
