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
            let mut visit = |program: &Path, peers: &[&str]| {
                let (lines, failed) = measured(program, row, options.quick, folder);
                lines.into_iter().for_each(|line| results.add(line));
                if let Some(why) = failed {
                    eprintln!("{} {row}: {why}", program.display());
                    peers.iter().for_each(|peer| results.add(Line::failure(row, peer)));
                }
            };
            visit(&programs.time, &["purview", "tokio-util"]);
            if let Some(go) = programs.go.as_ref().filter(|_| *row != "Idle") {
                visit(&go.program, &["go"]);
            }
        }
        results.end_round();
        println!("round {round} of {}: {:.1?}", options.rounds, begin.elapsed());
    }
}

/// What a program printed, and why that is not all, if it is not.
fn measured(program: &Path, row: &str, quick: bool, folder: &Path) -> (Vec<Line>, Option<String>) {
    let file = folder.join("output");
    let mut command = Command::new(program);
    command.arg(row).args(quick.then_some("--quick")).stdin(Stdio::null());
    let status = File::create(&file).and_then(|file| patiently(command.stdout(file)));
    let text = fs::read_to_string(&file).unwrap_or_default();
    let failed = match status {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(status.to_string()),
        Ok(None) => Some(format!("stopped after {PATIENCE:?}")),
        Err(err) => Some(err.to_string()),
    };
    (text.lines().filter_map(Line::parse).collect(), failed)
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
