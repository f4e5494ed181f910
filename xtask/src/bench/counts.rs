//! What does not depend on the machine's mood: allocations, bytes, instructions.
//!
//! Instructions are callgrind's: those of 22 000 repetitions less those of 2 000, so what comes once cancels out.

use std::path::Path;
use std::sync::Mutex;
use std::thread;

use super::line::Line;
use super::{Options, Programs};
use crate::output;

const FEW: u32 = 2_000;
const MANY: u32 = 22_000;

pub(crate) struct Counts {
    lines: Vec<Line>,
    /// Why there are no instructions, if there are none.
    pub(crate) without_instructions: Option<String>,
}

pub(crate) fn run(options: &Options, programs: &Programs) -> Counts {
    println!("counting");
    let mut lines = Vec::new();
    for row in &options.rows {
        lines.extend(printed(&programs.count, row)); // a process each: who fails, fails alone
    }
    let valgrind = output("valgrind", &["--version".to_string()], &[]);
    let without_instructions = valgrind.err().map(|_| "valgrind is not installed".to_string());
    if without_instructions.is_none() {
        let mut loops = printed(&programs.time, "--loops");
        loops.retain(|line| options.rows.contains(&line.row.as_str()));
        lines.extend(instructions(&programs.time, loops));
    }
    Counts { lines, without_instructions }
}

fn printed(program: &Path, arg: &str) -> Vec<Line> {
    let text = output(&program.display().to_string(), &[arg.to_string()], &[]);
    let text = text.inspect_err(|why| complain(why)).unwrap_or_default();
    text.lines().filter_map(Line::parse).collect()
}

/// The first line says what failed; below it is all that was printed.
fn complain(why: &str) {
    eprintln!("{}", why.lines().next().unwrap_or_default());
}

/// On all cores: here nothing is timed.
fn instructions(program: &Path, loops: Vec<Line>) -> Vec<Line> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (waiting, counted) = (Mutex::new(loops.into_iter()), Mutex::new(Vec::new()));
    let take = || waiting.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(line) = take() {
                    match per_operation(program, &line) {
                        Ok(value) => {
                            let metric = "instructions".to_string();
                            let line = Line { metric, value, ..line };
                            counted.lock().map(|mut counted| counted.push(line)).ok();
                        }
                        Err(why) => complain(&why),
                    }
                }
            });
        }
    });
    counted.into_inner().unwrap_or_default()
}

fn per_operation(program: &Path, line: &Line) -> Result<f64, String> {
    let (few, many) = (collected(program, line, FEW)?, collected(program, line, MANY)?);
    Ok((many - few) / f64::from(MANY - FEW))
}

fn collected(program: &Path, line: &Line, times: u32) -> Result<f64, String> {
    let program = program.display().to_string();
    let times = times.to_string();
    // The summary, and nothing else, goes to stdout.
    let args = [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--log-fd=1",
        &program,
        "--repeat",
        &line.row,
        &line.case,
        &line.peer,
        &times,
    ];
    let text = output("valgrind", &args.map(String::from), &[])?;
    let collected = text.split_once("Collected :").map(|(_, rest)| rest.lines().next());
    let number = collected.flatten().and_then(|number| number.trim().parse().ok());
    number.ok_or(format!("callgrind did not count {} {}", line.row, line.case))
}

impl Counts {
    /// Rows and cases that were counted, each once.
    pub(crate) fn cases(&self) -> Vec<(&str, &str)> {
        let mut cases = Vec::new();
        for line in &self.lines {
            let case = (line.row.as_str(), line.case.as_str());
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    pub(crate) fn find(&self, row: &str, case: &str, peer: &str, metric: &str) -> Option<f64> {
        let line = self.lines.iter().find(|line| {
            line.row == row && line.case == case && line.peer == peer && line.metric == metric
        });
        line.map(|line| line.value)
    }

    pub(crate) fn json(&self) -> Vec<String> {
        let json = |line: &Line| {
            format!(
                r#"{{"row":"{}","case":"{}","peer":"{}","metric":"{}","value":{}}}"#,
                line.row, line.case, line.peer, line.metric, line.value
            )
        };
        self.lines.iter().map(json).collect()
    }
}
