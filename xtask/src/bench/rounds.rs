//! Running the rounds. A program that fails, or does not end, costs its row of this round and nothing else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Line;
use super::results::Results;
use super::{Options, Programs};

/// No row takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(options: &Options, programs: &Programs, folder: &Path, results: &mut Results) {
    for round in 1..=options.rounds {
        let begin = Instant::now();
        for row in &options.rows {
            results.add(measured(&programs.time, row, options.quick, folder), "rust", row);
            if let Some(go) = programs.go.as_ref().filter(|_| *row != "Idle") {
                results.add(measured(&go.program, row, options.quick, folder), "go", row);
            }
        }
        results.end_round();
        println!("round {round} of {}: {:.1?}", options.rounds, begin.elapsed());
    }
}

fn measured(program: &Path, row: &str, quick: bool, folder: &Path) -> Result<Vec<Line>, String> {
    let file = folder.join("output");
    let error = |err: std::io::Error| format!("{} {row}: {err}", program.display());
    let mut command = Command::new(program);
    command.arg(row).args(quick.then_some("--quick"));
    command.stdin(Stdio::null()).stdout(File::create(&file).map_err(error)?);
    let status = patiently(&mut command).map_err(error)?;
    let text = fs::read_to_string(&file).map_err(error)?;
    match status {
        Some(status) if status.success() => {}
        Some(status) => eprintln!("{} {row}: {status}", program.display()),
        None => eprintln!("{} {row}: stopped after {PATIENCE:?}", program.display()),
    }
    let lines: Vec<Line> = text.lines().filter_map(Line::parse).collect();
    if lines.is_empty() {
        Err(format!("{} {row} printed nothing", program.display()))
    } else {
        Ok(lines)
    }
}

/// None if it had to be stopped.
fn patiently(command: &mut Command) -> std::io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(50)); // who looks too often disturbs
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
