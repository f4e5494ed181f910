//! `cargo xtask fuzz`: libFuzzer, with AddressSanitizer, on the targets in `fuzz/`.
//!
//! It begins with the seeds that are committed; what it finds on the way is kept below `target`, and `--merge` chooses from it the few
//! that see as much, to be committed.

use std::fs;
use std::path::Path;

use crate::sanitize::TARGET;
use crate::{Outcome, number, run};

const TARGETS: [&str; 4] = ["ops", "headers", "timers", "wheel"];

/// As `cargo fuzz` has them, without the tracing of compares: most that is read here is a number, and it takes half of the time.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Ccodegen-units=1 -Zsanitizer=address --cfg fuzzing --cfg purview_check";

pub(crate) fn fuzz(root: &Path, args: &[&str]) -> Outcome {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: it is run on Linux on x86_64");
        return Ok(());
    }
    let (seconds, merge, only) = match args {
        [] => (60, false, None),
        ["--seconds", n] => (number(n)?, false, None),
        ["--minutes", n] => (number(n)? * 60, false, None),
        ["--minutes", n, target] => (number(n)? * 60, false, Some(*target)),
        ["--merge"] => (0, true, None),
        _ => return Err("cargo xtask fuzz [--seconds N | --minutes N [target] | --merge]".into()),
    };
    if let Some(other) = only.filter(|only| !TARGETS.contains(only)) {
        return Err(format!("there is no target {other}, only {}", TARGETS.join(", ")));
    }
    let folder = root.join("target/fuzz");
    let built = folder.display().to_string();
    let env = [("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", FLAGS), ("CARGO_TARGET_DIR", &built)];
    let manifest = root.join("fuzz/Cargo.toml").display().to_string();
    let build = ["build", "--release", "--quiet", "--target", TARGET, "--manifest-path", &manifest];
    run("cargo", &build, &env)?;
    for target in TARGETS.into_iter().filter(|target| only.is_none_or(|only| only == *target)) {
        let program = folder.join(TARGET).join("release").join(target).display().to_string();
        let seeds = root.join("fuzz/corpus").join(target);
        let found = folder.join("corpus").join(target);
        let artifacts = folder.join("artifacts").join(target);
        for folder in [&seeds, &found, &artifacts] {
            fs::create_dir_all(folder).map_err(|err| format!("{}: {err}", folder.display()))?;
        }
        let prefix = format!("-artifact_prefix={}/", artifacts.display());
        let [seeds, found] = [seeds, found].map(|folder| folder.display().to_string());
        let time = format!("-max_total_time={seconds}");
        let asan = [("ASAN_OPTIONS", "detect_stack_use_after_return=1:detect_leaks=0")];
        println!("{target}");
        if merge {
            run(&program, &["-set_cover_merge=1", "-max_len=512", &seeds, &found], &asan)?;
        } else {
            let options = [
                &*prefix,
                &time,
                "-timeout=20",
                "-max_len=2048",
                "-len_control=10",
                "-print_funcs=0",
                "-print_final_stats=1",
                "-verbosity=0",
            ];
            run(&program, &[&options[..], &[&found, &seeds]].concat(), &asan)?;
        }
    }
    Ok(())
}
