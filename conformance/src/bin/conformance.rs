//! Runs generated programs in Go, in purview and in the model, and compares what they show, line by line.

#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use purview_conformance::go::{self, Go};
use purview_conformance::{Model, Numbers, Ours, Program, Scope, run};

/// As many as are on their way to Go at a time. More would fill the pipes.
const BATCH: u64 = 32;
const MOST: usize = 40;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        let value = at.map(|at| args.get(at + 1).ok_or(format!("{name} needs a number")));
        value.transpose()?.map_or(Ok(default), |value| {
            value.parse().map_err(|_| format!("{name}: not a number: {value}"))
        })
    };
    let (programs, seed) = (number("--programs", 100_000)?, number("--seed", 0)?);
    let Some(found) = go::find() else {
        println!("skipped: there is no Go (cargo xtask tools fetches it)");
        return Ok(ExitCode::SUCCESS);
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/conformance");
    fs::create_dir_all(&folder)?;
    let mut go = Go::start(&go::build(&found, &folder)?)?;
    let begin = Instant::now();
    let mut ops = 0;
    for first in (seed..seed + programs).step_by(BATCH as usize) {
        let seeds = first..(first + BATCH).min(seed + programs);
        let batch: Vec<_> = seeds.clone().map(|seed| generated(seed, Scope::Go)).collect();
        go.send(&batch)?;
        let mut differences = Vec::new();
        for (seed, program) in seeds.clone().zip(&batch) {
            ops += program.ops.len();
            if differs_from_model(program) || differs_from_model(&generated(seed, Scope::All)) {
                differences.push(seed);
            }
        }
        for (seed, program) in seeds.zip(&batch) {
            if go.receive()? != run(program, &mut Ours::default()) {
                tell(seed, program, &mut go)?;
                return Ok(ExitCode::FAILURE);
            }
        }
        if let Some(seed) = differences.first() {
            println!(
                "seed {seed}: purview and the model differ; cargo test -p purview-conformance shows it"
            );
            return Ok(ExitCode::FAILURE);
        }
        if first % (BATCH * 3_125) == 0 && first != seed {
            println!("{} programs, {:.0?}", first - seed, begin.elapsed());
        }
    }
    let took = begin.elapsed();
    println!(
        "{programs} programs of {ops} operations: Go, purview and the model show the same ({took:.0?})"
    );
    Ok(ExitCode::SUCCESS)
}

fn generated(seed: u64, scope: Scope) -> Program {
    Program::generate(&mut Numbers::Seed(seed), scope, MOST)
}

fn differs_from_model(program: &Program) -> bool {
    run(program, &mut Model::default()) != run(program, &mut Ours::default())
}

/// The least that shows the difference, side by side.
fn tell(seed: u64, program: &Program, go: &mut Go) -> Result<(), Box<dyn Error>> {
    let mut failed = None;
    let least = program.minimized(|program| match go.run(program) {
        Ok(shown) => shown != run(program, &mut Ours::default()),
        Err(err) => {
            failed = Some(err);
            false
        }
    });
    if let Some(err) = failed {
        return Err(err.into());
    }
    println!("seed {seed}, and less of it:\n{least}");
    println!("{:<40} {:<40}", "Go", "purview");
    let (theirs, ours) = (go.run(&least)?, run(&least, &mut Ours::default()));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        println!("{theirs:<40} {ours:<40}{}", if theirs == ours { "" } else { " <" });
    }
    Ok(())
}
