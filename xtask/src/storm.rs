//! `cargo xtask storm`: random contexts under many threads, for as long as wanted, in a release build.
//!
//! The storm itself is a test of the core, `crates/purview/tests/storm`, which `cargo test` runs for two seconds. Here it is
//! built for speed, perhaps with a sanitizer, and told what to do by its environment. A crash leaves no report of its own, so
//! the storm keeps a note of its seed and shape, and that is printed instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sanitize::{ADDRESS, OwnStd, TARGET, THREAD};
use crate::{Outcome, output};

/// Without a bound, this many seconds.
const SECONDS: &str = "60";
const USAGE: &str = "cargo xtask storm [--seconds N] [--rounds N] [--cancels N] [--seed S] [--only SHAPE] \
                     [--keep-going] [--sanitizer address|thread]";

#[derive(Default)]
struct Options {
    /// Variables for the storm, without their prefix.
    variables: Vec<(&'static str, String)>,
    sanitizer: Option<String>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
            let mut counted = || -> Result<String, String> {
                let text = value()?;
                let count: u64 = text.parse().map_err(|_| format!("not a number: {text}"))?;
                Ok(count.to_string())
            };
            match arg {
                "--seconds" => options.set("SECONDS", counted()?),
                "--rounds" => options.set("ROUNDS", counted()?),
                "--cancels" => options.set("CANCELS", counted()?),
                "--seed" => options.set("SEED", counted()?),
                "--only" => options.set("ONLY", value()?.into()),
                "--keep-going" => options.set("KEEP_GOING", "1".into()),
                "--sanitizer" => options.sanitizer = Some(value()?.into()),
                _ => return Err(format!("what is {arg}?\n{USAGE}")),
            }
        }
        let bounds = ["SECONDS", "ROUNDS", "CANCELS"];
        if !options.variables.iter().any(|(name, _)| bounds.contains(name)) {
            options.set("SECONDS", SECONDS.into());
        }
        options.set("STRICT", "1".into());
        Ok(options)
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }
}

pub(crate) fn run(root: &Path, args: &[&str]) -> Outcome {
    let options = Options::parse(args)?;
    println!("building");
    let program = match options.sanitizer.as_deref() {
        None => built("cargo", &[], &[])?,
        Some("address") => {
            let env = [
                ("RUSTC_BOOTSTRAP", "1"),
                ("RUSTFLAGS", ADDRESS),
                ("CARGO_TARGET_DIR", "target/address"),
            ];
            built("cargo", &["--target", TARGET], &env)?
        }
        Some("thread") => {
            let own = OwnStd::new(root, "thread", THREAD)?;
            built(&own.cargo, &["--target", TARGET, "-Zbuild-std"], &own.env())?
        }
        Some(other) => return Err(format!("what is {other}?\n{USAGE}")),
    };
    let note = root.join("target/storm");
    fs::create_dir_all(&note).map_err(|err| format!("{}: {err}", note.display()))?;
    let note = note.join(format!("note-{}", std::process::id()));
    let mut storm = Command::new(&program);
    storm.current_dir(root);
    for (name, value) in &options.variables {
        storm.env(format!("PURVIEW_STORM_{name}"), value);
    }
    storm.env("PURVIEW_STORM_NOTE", &note);
    storm.env("TSAN_OPTIONS", "halt_on_error=1:exitcode=66");
    storm.env("ASAN_OPTIONS", "detect_stack_use_after_return=1:exitcode=66");
    let status = storm.status().map_err(|err| format!("{}: {err}", program.display()))?;
    let noted = fs::read_to_string(&note).unwrap_or_default();
    let _ = fs::remove_file(&note);
    if status.success() {
        return Ok(());
    }
    // With 1 it has reported by itself.
    if status.code() == Some(1) {
        return Err("storm: failed".into());
    }
    let (seed, shape) = noted.split_once(' ').unwrap_or(("?", "?"));
    Err(format!(
        "storm: {status}\n  seed:     {seed}\n  shape:    {shape}\n  \
         promised: no undefined behavior\n  repeat:   cargo xtask storm --seed {seed} --only {shape}"
    ))
}

/// Runs the storm of task groups for some seconds, if there is one.
pub(crate) fn groups(root: &Path, seconds: &str) -> Outcome {
    if !root.join("crates/purview/tests/group_storm").exists() {
        println!("skipped: there is no crates/purview/tests/group_storm");
        return Ok(());
    }
    let args = ["test", "--release", "--quiet", "-p", "purview", "--test", "group_storm"];
    crate::run("cargo", &args, &[("PURVIEW_STORM_SECONDS", seconds)])
}

/// Builds the storm for speed, and returns where it is.
fn built(cargo: &str, more: &[&str], env: &[(&str, &str)]) -> Result<PathBuf, String> {
    let args = ["test", "--release", "--quiet", "-p", "purview", "--test", "storm", "--no-run"];
    let args = [&args[..], &["--message-format=json"], more].concat();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let built = output(cargo, &args, env)?;
    let programs = built.lines().filter(|line| line.contains(r#""name":"storm""#));
    let program = programs
        .filter_map(|line| line.split_once(r#""executable":""#)?.1.split_once('"'))
        .map(|(path, _)| PathBuf::from(path.replace(r"\\", r"\")))
        .next_back();
    program.ok_or_else(|| "cargo did not say where it has put the storm".into())
}
