//! One round of one row: the peers of each case take turns, sample by sample.
//!
//! A figure of a round is the median of its undisturbed samples; if there are none, that of all, and it is marked.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode, Stdio};

use crate::case::{Case, Peer, Scale, Work};
use crate::machine;
use crate::measure::{One, Sampler, TOLERATED, median};
use crate::print;

/// For a whole, which takes long.
const TRIES: usize = 3;
/// What a node of a large tree may need, with all that belongs to it.
const NODE: usize = 512;

const HELP: &str = "\
bench ROW [--quick]             one round of a row, such as P1
bench --loops                   the loops that run on one thread
bench --repeat ROW CASE PEER N  one of these, N times, and nothing else: to be run by callgrind
";

/// Runs what the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let well = match args[..] {
        ["--loops"] => {
            crate::cases().iter().filter(|case| is_countable(case)).for_each(print::name);
            true
        }
        ["--repeat", row, case, peer, times] => {
            times.parse().is_ok_and(|times| repeat(row, case, peer, times))
        }
        ["--alone", row, case, peer] => alone(row, case, peer, &Scale::FULL),
        ["--alone", row, case, peer, "--quick"] => alone(row, case, peer, &Scale::QUICK),
        [row] if !row.starts_with('-') => round(row, false),
        [row, "--quick"] => round(row, true),
        _ => false,
    };
    if well {
        ExitCode::SUCCESS
    } else {
        eprintln!("nothing to do for {args:?}\n{HELP}");
        ExitCode::FAILURE
    }
}

pub(crate) fn is_countable(case: &Case) -> bool {
    case.peer != Peer::Floor && matches!(case.work, Work::Loop { threads: 1, .. })
}

fn find(row: &str, name: &str, peer: &str) -> Option<Case> {
    crate::cases()
        .into_iter()
        .find(|case| case.row == row && case.name == name && case.peer.name() == peer)
}

fn repeat(row: &str, name: &str, peer: &str, times: u64) -> bool {
    match find(row, name, peer).map(|case| case.work) {
        Some(Work::Loop { threads: 1, home, make }) => {
            One::new(home, &make()).run(|batch| batch(times));
            true
        }
        _ => false,
    }
}

/// The process of its own that a whole may ask for.
fn alone(row: &str, name: &str, peer: &str, scale: &Scale) -> bool {
    let Some(case) = find(row, name, peer) else { return false };
    if let Work::Whole { run, .. } = &case.work {
        let outcome = run(scale);
        for (metric, value) in outcome.figures {
            print::figure(&case, metric, value, outcome.disturbed > TOLERATED);
        }
    }
    true
}

fn round(row: &str, quick: bool) -> bool {
    let scale = if quick { &Scale::QUICK } else { &Scale::FULL };
    let mut cases: Vec<Case> = crate::cases();
    cases.retain(|case| case.row == row);
    let any = !cases.is_empty();
    let is_large = |case: &Case| matches!(case.work, Work::Whole { alone: false, .. });
    machine::prepare_heap(if cases.iter().any(is_large) { scale.nodes * NODE } else { 0 });
    while !cases.is_empty() {
        let name = cases[0].name.clone();
        let (now, later) = cases.into_iter().partition(|case| case.name == name);
        turns(now, scale, quick);
        cases = later;
    }
    any
}

/// The peers of one case, in turns.
fn turns(cases: Vec<Case>, scale: &Scale, quick: bool) {
    let mut peers: Vec<Turn> =
        cases.into_iter().filter_map(|case| Turn::new(case, scale)).collect();
    let samples = match peers.first().map(|turn| &turn.case.work) {
        Some(Work::Loop { .. }) => scale.samples,
        Some(Work::Whole { .. }) => scale.wholes,
        None => 0,
    };
    for _ in 0..samples {
        peers
            .retain_mut(|turn| guarded(&turn.case, || turn.sampled.take(&turn.case, scale, quick)));
    }
    for turn in peers {
        turn.print();
    }
}

/// A peer in a case.
struct Turn {
    sampled: Sampled,
    case: Case,
}

/// What it has found so far.
struct Sampled {
    sampler: Option<(Sampler, u64)>,
    /// Metric, value, disturbed.
    values: Vec<(&'static str, f64, bool)>,
}

impl Turn {
    fn new(case: Case, scale: &Scale) -> Option<Turn> {
        let mut sampler = None;
        let well = guarded(&case, || {
            if let Work::Loop { threads, home, make } = &case.work {
                let mut made = Sampler::new(*threads, *home, &make());
                let times = made.size(if *threads == 1 { scale.one } else { scale.two });
                sampler = Some((made, times));
            }
        });
        well.then_some(Turn { sampled: Sampled { sampler, values: Vec::new() }, case })
    }

    fn print(mut self) {
        let mut metrics: Vec<&str> = Vec::new();
        for (metric, ..) in &self.sampled.values {
            if !metrics.contains(metric) {
                metrics.push(metric);
            }
        }
        self.sampled.sampler = None;
        for metric in metrics {
            let all = self.sampled.values.iter().filter(|value| value.0 == metric);
            let mut quiet: Vec<f64> =
                all.clone().filter(|value| !value.2).map(|value| value.1).collect();
            let disturbed = quiet.is_empty();
            if disturbed {
                quiet = all.map(|value| value.1).collect();
            }
            print::figure(&self.case, metric, median(&mut quiet), disturbed);
        }
    }
}

impl Sampled {
    fn take(&mut self, case: &Case, scale: &Scale, quick: bool) {
        match (&case.work, &mut self.sampler) {
            (Work::Loop { .. }, Some((sampler, times))) => {
                let sample = sampler.sample(*times);
                self.values.push(("ns", sample.ns, sample.disturbed > TOLERATED));
            }
            (Work::Loop { .. }, None) => {}
            (Work::Whole { alone: true, .. }, _) => in_a_process(case, quick),
            (Work::Whole { run, .. }, _) => {
                let mut best = run(scale);
                for _ in 1..TRIES {
                    if best.disturbed <= TOLERATED {
                        break;
                    }
                    let next = run(scale);
                    if next.disturbed < best.disturbed {
                        best = next;
                    }
                }
                let disturbed = best.disturbed > TOLERATED;
                let values = best.figures.into_iter();
                self.values.extend(values.map(|(metric, value)| (metric, value, disturbed)));
            }
        }
    }
}

/// The other process prints.
fn in_a_process(case: &Case, quick: bool) {
    let program = env::current_exe().expect("this program is a file");
    let mut command = Command::new(program);
    command.args(["--alone", case.row, &case.name, case.peer.name()]);
    if quick {
        command.arg("--quick");
    }
    let status = command.stdin(Stdio::null()).status().expect("it has just been started itself");
    assert!(status.success(), "{status}");
}

/// False if it panicked, which is then in the output. The others go on.
fn guarded(case: &Case, body: impl FnOnce()) -> bool {
    let well = panic::catch_unwind(AssertUnwindSafe(body)).is_ok();
    if !well {
        print::failure(case);
    }
    well
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few times each: this is about whether it runs. How fast is what `cargo xtask bench` says.
    #[test]
    fn every_workload_runs() {
        for case in crate::cases() {
            match &case.work {
                Work::Loop { threads, home, make } => {
                    let mut sampler = Sampler::new(*threads, *home, &make());
                    let times = sampler.size(Scale::SMOKE.one);
                    assert!(sampler.sample(times).ns > 0.0, "{} {}", case.row, case.name);
                }
                Work::Whole { run, .. } => {
                    let figures = run(&Scale::SMOKE).figures;
                    assert!(!figures.is_empty(), "{} {}", case.row, case.name);
                    assert!(figures.iter().all(|figure| figure.1.is_finite()), "{}", case.row);
                }
            }
        }
    }

    #[test]
    fn cases_are_found_by_their_names() {
        let cases = crate::cases();
        for case in &cases {
            let same = cases.iter().filter(|other| {
                other.row == case.row && other.name == case.name && other.peer == case.peer
            });
            assert_eq!(same.count(), 1, "{} {} {}", case.row, case.name, case.peer.name());
            assert!(!case.name.contains(['"', '\\']), "{} is printed as it is", case.name);
        }
    }
}
