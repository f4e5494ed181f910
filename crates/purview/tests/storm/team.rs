//! Threads that play rounds together, each round begun by all of them at the same moment.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use purview::observe;

use crate::report::{self, Tally, broken, eventually};
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

    /// Plays rounds until the block is over, `batch` of them in a row. This thread prepares them all, acts in each as number 0,
    /// and finishes them all. So from one round to the next the threads wait for each other only briefly: on a busy machine,
    /// a thread that waits longer loses its processor.
    pub(crate) fn play<R: Send + Sync>(
        &self,
        (threads, batch): (usize, usize),
        mut prepare: impl FnMut(&mut Rng) -> R,
        act: impl Fn(&Arc<R>, usize, &mut Rng) + Sync,
        mut finish: impl FnMut(R, &mut Rng),
    ) {
        let stage = Stage::new(threads);
        let rng = |round: u64, role: u64| Rng::new(mix(&[report::seed(), self.shape, round, role]));
        let act_in_all = |rounds: &[Arc<R>], first: u64, thread: usize| {
            for (round, number) in rounds.iter().zip(first..) {
                let mut rng = rng(number, thread as u64 + 1);
                if thread == 0 {
                    report::begin_round(number);
                }
                stage.meet((number + 1) as usize);
                act(round, thread, &mut rng);
            }
        };
        // A number of the shape's rounds, counted through all of its blocks.
        let mut first = self.tally.rounds.load(Ordering::Relaxed);
        stage.met.store(first as usize * threads, Ordering::Relaxed);
        thread::scope(|scope| {
            for number in 1..threads {
                let (stage, act_in_all) = (&stage, &act_in_all);
                scope.spawn(move || {
                    for turn in 1.. {
                        let Some((rounds, first)) = stage.next(turn) else { return };
                        act_in_all(&rounds, first, number);
                        drop(rounds);
                        stage.left.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            for turn in 1.. {
                if turn > 1 && self.is_over() {
                    stage.over.store(true, Ordering::Release);
                    break;
                }
                report::begin_round(first);
                let numbers = first..first + batch as u64;
                let mut dice: Vec<Rng> = numbers.map(|number| rng(number, 0)).collect();
                let rounds: Vec<Arc<R>> = dice.iter_mut().map(|it| Arc::new(prepare(it))).collect();
                let rounds = Arc::new(rounds);
                *stage.rounds() = Some((Arc::clone(&rounds), first));
                stage.turn.store(turn, Ordering::Release);
                act_in_all(&rounds, first, 0);
                spin_until(|| stage.left.load(Ordering::Acquire) >= turn * (threads - 1));
                *stage.rounds() = None;
                for (round, dice) in unshared(rounds).into_iter().zip(&mut dice) {
                    finish(unshared(round), dice);
                }
                if !eventually(|| observe::timers() == 0) {
                    let left = observe::timers();
                    broken("no timer is left behind (C12)", format_args!("{left} are"));
                }
                report::end_round();
                first = self.tally.rounds.fetch_add(batch as u64, Ordering::Relaxed) + batch as u64;
            }
        });
    }
}

/// Unwraps an `Arc` once it is the last one. The thread for callbacks may hold another for a moment.
pub(crate) fn unshared<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(it) => return it,
            Err(held) => shared = held,
        }
        thread::yield_now();
    }
}

type Rounds<R> = Arc<Vec<Arc<R>>>;

/// Where the threads of a team meet.
struct Stage<R> {
    threads: usize,
    /// The rounds of this turn, and the number of the first.
    rounds: Mutex<Option<(Rounds<R>, u64)>>,
    turn: AtomicUsize,
    met: AtomicUsize,
    left: AtomicUsize,
    over: AtomicBool,
}

impl<R> Stage<R> {
    fn new(threads: usize) -> Self {
        Stage {
            threads,
            rounds: Mutex::new(None),
            turn: AtomicUsize::new(0),
            met: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn rounds(&self) -> MutexGuard<'_, Option<(Rounds<R>, u64)>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the rounds of this turn; `None` once all are over.
    fn next(&self, turn: usize) -> Option<(Rounds<R>, u64)> {
        let over = || self.over.load(Ordering::Acquire);
        spin_until(|| self.turn.load(Ordering::Acquire) >= turn || over());
        if over() { None } else { self.rounds().clone() }
    }

    /// Waits until all threads have come here as often as this.
    fn meet(&self, times: usize) {
        self.met.fetch_add(1, Ordering::AcqRel);
        spin_until(|| self.met.load(Ordering::Acquire) >= times * self.threads);
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
