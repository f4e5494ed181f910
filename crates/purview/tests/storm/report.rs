//! What a run counts, what it prints, and how it ends: at the first broken promise, or when a round takes too long.

use std::env;
use std::fmt::Display;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A wait ends within this time of the end that it waits for.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);
/// The longest a round takes, on a busy machine and under a sanitizer. A longer one hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(50);

static RUN: OnceLock<Run> = OnceLock::new();

struct Run {
    seed: u64,
    began: Instant,
    /// Whether a broken promise is counted and the run goes on.
    keep_going: bool,
    /// The shape that is being run.
    shape: Mutex<&'static str>,
    round: AtomicU64,
    /// When the round began, in milliseconds since the run began; 0 between rounds.
    round_began: AtomicU64,
    /// When this process last went without a processor, in milliseconds since the run began.
    stalled: AtomicU64,
    broken: Mutex<Vec<(String, u64)>>,
}

fn this() -> &'static Run {
    RUN.get().expect("begun by main")
}

/// Starts the clock and the watchdog.
pub(crate) fn begin(seed: u64) {
    let run = Run {
        seed,
        began: Instant::now(),
        keep_going: env::var_os("PURVIEW_STORM_KEEP_GOING").is_some(),
        shape: Mutex::new("none"),
        round: AtomicU64::new(0),
        round_began: AtomicU64::new(0),
        stalled: AtomicU64::new(0),
        broken: Mutex::new(Vec::new()),
    };
    assert!(RUN.set(run).is_ok(), "begun once");
    thread::spawn(watchdog);
}

pub(crate) fn seed() -> u64 {
    this().seed
}

fn millis() -> u64 {
    this().began.elapsed().as_millis() as u64 + 1
}

/// Notes the shape, here and in the file that outlives a crash.
pub(crate) fn begin_shape(name: &'static str) {
    *this().shape.lock().unwrap_or_else(PoisonError::into_inner) = name;
    if let Some(file) = env::var_os("PURVIEW_STORM_NOTE") {
        let _ = std::fs::write(file, format!("{} {name}", seed()));
    }
}

pub(crate) fn begin_round(number: u64) {
    this().round.store(number, Relaxed);
    this().round_began.store(millis(), Relaxed);
}

pub(crate) fn end_round() {
    this().round_began.store(0, Relaxed);
}

fn watchdog() {
    let run = this();
    loop {
        let before = Instant::now();
        thread::park_timeout(TICK);
        if before.elapsed() > 5 * TICK {
            run.stalled.store(millis(), Relaxed);
        }
        let began = run.round_began.load(Relaxed);
        let limit = LONGEST_ROUND.as_millis() as u64;
        if began != 0 && millis().saturating_sub(began) > limit {
            fail("every call and every wait returns", &format!("nothing for {LONGEST_ROUND:?}"));
        }
    }
}

/// Whether the process went without a processor since `at`, so that being late says nothing.
pub(crate) fn has_stalled_since(at: Instant) -> bool {
    let at = at.saturating_duration_since(this().began).as_millis() as u64;
    this().stalled.load(Relaxed) >= at
}

/// Reports a broken promise. Ends the process, unless the run was asked to go on.
#[cold]
pub(crate) fn broken(promise: &str, seen: impl Display) {
    if !this().keep_going {
        fail(promise, &seen.to_string());
    }
    let mut broken = this().broken.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = *this().shape.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{shape}: {promise}");
    match broken.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count += 1,
        None => {
            println!("{}", describe(promise, &seen.to_string()));
            broken.push((key, 1));
        }
    }
}

/// Prints how many promises were broken, and returns the number.
pub(crate) fn print_broken() -> u64 {
    let broken = this().broken.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, count) in &*broken {
        println!("  broken {count} times: {what}");
    }
    broken.iter().map(|(_, count)| count).sum()
}

fn describe(promise: &str, seen: &str) -> String {
    let shape = *this().shape.lock().unwrap_or_else(PoisonError::into_inner);
    format!(
        "storm: broken after {:.1?}\n  seed:     {}\n  shape:    {shape}\n  round:    {}\n  \
         promised: {promise}\n  seen:     {seen}\n  \
         repeat:   cargo xtask storm --seed {} --only {shape}",
        this().began.elapsed(),
        seed(),
        this().round.load(Relaxed),
        seed(),
    )
}

#[cold]
fn fail(promise: &str, seen: &str) -> ! {
    static FIRST: AtomicBool = AtomicBool::new(true);
    if FIRST.swap(false, Relaxed) {
        println!("{}", describe(promise, seen));
        process::exit(1);
    }
    // Another thread is printing its own, and ends the process.
    loop {
        thread::park();
    }
}

/// Waits for up to [`PROMPT`] until `is_so`. What happens eventually has happened by then.
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let mut began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() > PROMPT {
            if !has_stalled_since(began) {
                return false;
            }
            began = Instant::now();
        }
        thread::yield_now();
    }
}

/// The ways in which a context is canceled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Guard,
    GuardWith,
    GuardDrop,
    Disarmed,
    Handle,
    HandleWith,
    Callback,
    /// Not a call: the deadline passes.
    Deadline,
}

const WAYS: [&str; 8] = [
    "guard.cancel",
    "guard.cancel_with",
    "drop(guard)",
    "guard.disarm().cancel",
    "handle.cancel",
    "handle.cancel_with",
    "in a callback",
    "(deadlines that passed)",
];

/// What the rounds of one shape came to.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) rounds: AtomicU64,
    /// Calls that cancel.
    pub(crate) cancels: AtomicU64,
    /// Those of them that are counted for `overlaps`.
    watched: AtomicU64,
    /// Calls during which another one was under way at the same context or above.
    overlaps: AtomicU64,
    ways: [AtomicU64; 8],
    /// Contexts in a round: below 1, 2, 4, 8, …
    sizes: [AtomicU64; 20],
    pub(crate) waits: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) derived: AtomicU64,
}

/// One call that canceled, or a deadline that passed.
pub(crate) struct Call {
    pub(crate) target: usize,
    pub(crate) way: Way,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Tally {
    pub(crate) fn count_size(&self, contexts: usize) {
        let class = (usize::BITS - contexts.leading_zeros()) as usize;
        self.sizes[class.min(self.sizes.len() - 1)].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_way(&self, way: Way, times: usize) {
        self.ways[way as usize].fetch_add(times as u64, Relaxed);
        if way != Way::Deadline {
            self.cancels.fetch_add(times as u64, Relaxed);
        }
    }

    /// Counts the calls of a round, and which of them overlapped with one at or above.
    pub(crate) fn count_calls(
        &self,
        calls: &[Call],
        is_at_or_above: impl Fn(usize, usize) -> bool,
    ) {
        for (index, call) in calls.iter().enumerate() {
            self.count_way(call.way, 1);
            if call.way == Way::Deadline {
                continue;
            }
            let overlaps = calls.iter().enumerate().any(|(other, it)| {
                other != index
                    && it.began < call.ended
                    && call.began < it.ended
                    && is_at_or_above(it.target, call.target)
            });
            self.watched.fetch_add(1, Relaxed);
            self.overlaps.fetch_add(overlaps.into(), Relaxed);
        }
    }

    /// Counts calls of which each overlapped with one at or above.
    pub(crate) fn count_overlapping(&self, calls: usize) {
        self.watched.fetch_add(calls as u64, Relaxed);
        self.overlaps.fetch_add(calls as u64, Relaxed);
    }

    /// How many calls were watched, and how many of those overlapped.
    pub(crate) fn overlaps(&self) -> (u64, u64) {
        (self.watched.load(Relaxed), self.overlaps.load(Relaxed))
    }

    /// The size below which half of the rounds lie, as the lower end of its class.
    pub(crate) fn median_size(&self) -> Option<usize> {
        let all: u64 = self.sizes.iter().map(|it| it.load(Relaxed)).sum();
        let mut passed = 0;
        let class = self.sizes.iter().position(|it| {
            passed += it.load(Relaxed);
            passed * 2 >= all
        });
        class.filter(|_| all > 0).map(|class| 1 << class.saturating_sub(1))
    }

    pub(crate) fn print(&self, name: &str) {
        let load = |it: &AtomicU64| it.load(Relaxed);
        if load(&self.rounds) == 0 {
            return;
        }
        let (watched, overlapping) = self.overlaps();
        let overlapping = (watched > 0).then(|| 100.0 * overlapping as f64 / watched as f64);
        println!(
            "{name}: {} rounds, {} cancels{}, {} derived, {} waits, {} errors kept",
            load(&self.rounds),
            load(&self.cancels),
            overlapping.map_or(String::new(), |it| format!(" ({it:.0} % overlap)")),
            load(&self.derived),
            load(&self.waits),
            load(&self.errors),
        );
        let ways = WAYS.iter().zip(&self.ways).filter(|(_, count)| load(count) > 0);
        let ways: Vec<String> = ways.map(|(way, count)| format!("{way} {}", load(count))).collect();
        if !ways.is_empty() {
            println!("  {}", ways.join(", "));
        }
        let sizes = self.sizes.iter().enumerate().filter(|(_, count)| load(count) > 0);
        let sizes: Vec<String> = sizes
            .map(|(class, count)| format!("{}+: {}", 1_u64 << class.saturating_sub(1), load(count)))
            .collect();
        if !sizes.is_empty() {
            println!("  contexts in a round: {}", sizes.join(", "));
        }
    }
}
