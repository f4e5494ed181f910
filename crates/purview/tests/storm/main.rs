//! A storm: rounds of random contexts that several threads derive, cancel, wait for and drop at the same time, on the
//! system's clock, each return checked against the promises at once.
//!
//! The models (`src/models`) try every schedule of a few calls, and the histories generated schedules of three threads.
//! Neither has a tree of any size, real time, or a sweep that takes a millisecond. Here is all that, and chance instead of
//! completeness: a seed decides what each thread does, the machine decides when.
//!
//! Each *shape* is a kind of round, chosen so that one family of races has a wide window. `tree` is the general one: it
//! keeps a model of the tree beside the contexts, and checks all of it.
//!
//! `cargo test` plays for two seconds. `cargo xtask storm` plays a release build for as long as wanted. Environment:
//! `PURVIEW_STORM_SEED`, `_SECONDS`, `_ROUNDS`, `_CANCELS`, `_ONLY` (a shape), `_STRICT` (a run whose threads did not meet
//! often enough fails), `_KEEP_GOING` (counts what is broken, and fails at the end) and `_NOTE` (a file that says which shape
//! is being played, should the process crash).
#![expect(clippy::print_stdout, reason = "a program without a test harness, which reports")]
#![expect(clippy::unwrap_used, reason = "a test: a poisoned lock is a failure")]

mod chain;
mod graces;
mod leaf;
mod report;
mod rng;
mod seen;
mod shards;
mod team;
mod tree;
mod wide;

use std::env;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use report::Tally;
use team::Block;

/// A kind of round.
struct Shape {
    name: &'static str,
    /// Its part of the time.
    share: u32,
    play: fn(&Block<'_>),
    /// Whether its cancels count for how many have to overlap. Of the others, some are alone by design, and some never.
    is_measured: bool,
}

const fn shape(name: &'static str, share: u32, play: fn(&Block<'_>), is_measured: bool) -> Shape {
    Shape { name, share, play, is_measured }
}

const SHAPES: [Shape; 9] = [
    shape("tree", 5, tree::play, true),
    shape("chain", 3, chain::play, true),
    shape("leaf", 1, leaf::play, false),
    shape("shards", 5, shards::play, false),
    shape("wide", 1, wide::play, false),
    shape("grace_wait", 2, graces::wait, false),
    shape("grace_deadline", 1, graces::deadline, false),
    shape("grace_error", 1, graces::error, false),
    shape("grace_ended", 2, graces::ended, false),
];

/// A shape's turn in a long run, for each part of its share.
const TURN: Duration = Duration::from_millis(150);
/// How many of the cancels have to overlap with another one at or above, in percent.
const LEAST_OVERLAP: u64 = 20;
/// How many contexts half of the trees have to have.
const LEAST_MEDIAN: usize = 30;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(format!("PURVIEW_STORM_{name}")).ok()?;
    let value = text.parse();
    assert!(value.is_ok(), "PURVIEW_STORM_{name}: what is {text}?");
    value.ok()
}

fn main() -> ExitCode {
    if env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS; // asked by a runner of tests: there is no harness, and so no list
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos() as u64);
    let seed = variable("SEED").unwrap_or(rng::mix(&[time]) >> 32);
    let only: Option<String> = variable("ONLY");
    let rounds = variable("ROUNDS");
    let cancels = variable("CANCELS");
    let is_bounded = rounds.is_some() || cancels.is_some();
    let default = if is_bounded { 365 * 24 * 3600 } else { 2 };
    let time = Duration::from_secs(variable("SECONDS").unwrap_or(default));
    let shapes: Vec<(usize, &Shape)> = SHAPES
        .iter()
        .enumerate()
        .filter(|(_, shape)| only.as_ref().is_none_or(|only| shape.name == only))
        .collect();
    if shapes.is_empty() {
        println!("storm: no such shape; there are {}", SHAPES.map(|it| it.name).join(" "));
        return ExitCode::FAILURE;
    }
    println!("storm: seed {seed}");
    report::begin(seed);

    let tallies: Vec<Tally> = SHAPES.iter().map(|_| Tally::default()).collect();
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let all_cancels = || sum(|tally| tally.cancels.load(Ordering::Relaxed));
    let all_rounds = || sum(|tally| tally.rounds.load(Ordering::Relaxed));
    let end = Instant::now() + time;
    let shares: u32 = shapes.iter().map(|(_, shape)| shape.share).sum();
    let turn = TURN.min(time / shares);
    let is_over = || {
        Instant::now() >= end
            || cancels.is_some_and(|most| all_cancels() >= most)
            || rounds.is_some_and(|most| all_rounds() >= most)
    };
    while !is_over() {
        for &(number, shape) in &shapes {
            report::begin_shape(shape.name);
            let tally = &tallies[number];
            let left = |most: Option<u64>, done: u64, mine: u64| {
                most.map_or(u64::MAX, |most| mine + most.saturating_sub(done))
            };
            (shape.play)(&Block {
                shape: number as u64,
                until: end.min(Instant::now() + turn * shape.share),
                most_rounds: left(rounds, all_rounds(), tally.rounds.load(Ordering::Relaxed)),
                most_cancels: left(cancels, all_cancels(), tally.cancels.load(Ordering::Relaxed)),
                tally,
                alone: only.is_some(),
            });
            if is_over() {
                break;
            }
        }
    }

    for (shape, tally) in SHAPES.iter().zip(&tallies) {
        tally.print(shape.name);
    }
    let broken = report::print_broken();
    let invalid = complaints(&tallies);
    for complaint in &invalid {
        println!("storm: {complaint}");
    }
    println!("storm: {} rounds, {} cancels, {broken} broken promises", all_rounds(), all_cancels());
    let strict = variable::<u8>("STRICT").is_some();
    if broken > 0 || (strict && !invalid.is_empty()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What makes a run worth nothing, though no promise was seen to be broken.
fn complaints(tallies: &[Tally]) -> Vec<String> {
    let mut found = Vec::new();
    let measured = SHAPES.iter().zip(tallies).filter(|(shape, _)| shape.is_measured);
    let (watched, overlapping) = measured
        .map(|(_, tally)| tally.overlaps())
        .fold((0, 0), |(all, some), it| (all + it.0, some + it.1));
    if overlapping * 100 < watched * LEAST_OVERLAP {
        found.push(format!(
            "of {watched} cancels, {overlapping} had another one at or above under way: \
             {LEAST_OVERLAP} % have to"
        ));
    }
    let trees = SHAPES.iter().zip(tallies).find(|(shape, _)| shape.name == "tree");
    if trees.and_then(|it| it.1.median_size()).is_some_and(|median| median < LEAST_MEDIAN) {
        found.push(format!("half of the trees have fewer than {LEAST_MEDIAN} contexts"));
    }
    found
}
