//! Random task groups under many threads: what became of each task is compared, the moment a join or a shutdown returns, with what the
//! tasks themselves have seen.
//!
//! A round is one group. From its seed follow its limit, its policy and its grace, what each of several threads does to it (spawn in
//! every way, close, cancel, look), what each task does, and how the group ends: by a join, a shutdown, a drop, as part of a phase.
//! How threads interleave does not follow from the seed, so a round that failed is repeated until it fails again.
//!
//! Checked at once in each round:
//!
//! - **S1** Each task that was spawned is accounted for exactly once: finished, aborted, lost, abandoned, unlisted, never begun, refused.
//! - **S2** Nothing of a task is there, and none runs, when a join has returned.
//! - **S3** Failures are as many as tasks that failed, and a join is `Ok` if and only if each task did its work.
//! - **S4** No more tasks run at a time than the limit says.
//! - **S5** Nothing hangs: a round that takes too long ends the process.
//!
//! `PURVIEW_STORM_SECONDS` says how long to go on (2 without it), `PURVIEW_STORM_SEED` which round to repeat, and
//! `PURVIEW_STORM_PATIENCE` how many seconds a round may take (10).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod pool;
mod round;
mod tally;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use round::Round;

/// Random numbers: SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The seed of the round that is being played, for a watchdog that finds it stuck.
static PLAYED: AtomicU64 = AtomicU64::new(0);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(format!("PURVIEW_STORM_{name}")).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("PURVIEW_STORM_{name} is no number: {text}")))
}

fn repeat(seed: u64) -> String {
    format!(
        "repeat: PURVIEW_STORM_SEED={seed:#x} PURVIEW_STORM_SECONDS=60 cargo test --release -p purview --test group_storm"
    )
}

/// Aborts the process when a round takes longer than `patience`.
fn watch_for_hangs(patience: Duration) -> mpsc::Sender<()> {
    let (over, rounds) = mpsc::channel();
    let watch = move || {
        while rounds.recv_timeout(patience).is_ok() {}
        if rounds.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
            return; // the storm is over
        }
        let seed = PLAYED.load(Ordering::Relaxed);
        eprintln!("group storm: a round hangs\nseed {seed:#x}: {}", Round::new(seed).described());
        eprintln!("{}", repeat(seed));
        std::process::abort();
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(watch).expect("a thread");
    over
}

fn main() -> ExitCode {
    // A harness is asked for the names of its tests, or for one of them.
    if std::env::args().any(|arg| arg == "--list") {
        println!("group_storm: test");
        return ExitCode::SUCCESS;
    }
    let seconds = number("SECONDS").unwrap_or(2);
    let fixed = number("SEED");
    let over = watch_for_hangs(Duration::from_secs(number("PATIENCE").unwrap_or(10)));
    round::expect_panics();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let mut seeds = Random(fixed.unwrap_or(now));
    println!("group storm: seed {:#x}, {seconds} s", seeds.0);
    let mut rounds = 0_u64;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let seed = fixed.unwrap_or_else(|| seeds.next());
        PLAYED.store(seed, Ordering::Relaxed);
        let round = Round::new(seed);
        if let Err(why) = round.play() {
            eprintln!("group storm: {why}");
            eprintln!("seed {seed:#x}: {}", round.described());
            eprintln!("{}", repeat(seed));
            return ExitCode::FAILURE;
        }
        rounds += 1;
        over.send(()).expect("it watches");
    }
    println!("{rounds} rounds\n{}", tally::shown());
    ExitCode::SUCCESS
}
