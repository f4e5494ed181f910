//! Bugs that nobody planted.

use std::thread;

use crate::{Outcome, command, output};

/// Bugs that `cargo mutants` makes up, in the core: all of them, or those with that in what it calls them, which begins with the file.
/// What it is told is in `.cargo/mutants.toml`. Twice: most are caught by quick tests, each of which ends the mutant's trial
/// when it fails (`.config/nextest.toml`); those that are left have all tests to pass.
pub(crate) fn generated(filter: &str) -> Outcome {
    for (tool, package) in [("mutants", "cargo-mutants"), ("nextest", "cargo-nextest")] {
        if output("cargo", &[tool.into(), "--version".into()], &[]).is_err() {
            println!("skipped: there is no {package} (cargo install {package})");
            return Ok(());
        }
    }
    let jobs = thread::available_parallelism().map_or(1, usize::from).to_string();
    let common = ["mutants", "--output", "target", "--re", filter, "--jobs", &jobs];
    let quick = ["--test-tool", "nextest", "--cargo-arg=--test=it", "--cargo-arg=--test=leaks"];
    let tests = ["it", "leaks", "alloc", "faults", "process"].map(|test| format!("--test={test}"));
    let all = ["--iterate", "--", "--lib"].into_iter().chain(tests.iter().map(String::as_str));
    let env = [("CARGO_PROFILE_DEV_DEBUG", "0"), ("NEXTEST_PROFILE", "mutants")]; // linked two thousand times
    trial(&[&common[..], &quick].concat(), &env)?;
    trial(&common.into_iter().chain(all).collect::<Vec<_>>(), &env)
}

/// That some mutants are missed is no error here: it says which.
fn trial(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    const MISSED: i32 = 2;
    const TIMED_OUT: i32 = 3;
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let status = command("cargo", &args, env).status().map_err(|err| err.to_string())?;
    match status.code() {
        Some(0 | MISSED | TIMED_OUT) => Ok(()),
        _ => Err(format!("cargo {}: {status}", args.join(" "))),
    }
}
