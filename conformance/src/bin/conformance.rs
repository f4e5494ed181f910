//! Runs races in Go and in purview, and sees that nothing comes of them that may not; then generated programs, in the model, too, and
//! compares what they show, line by line.

#![expect(clippy::print_stdout, reason = "a command speaks on stdout")]

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use purview_conformance::go::{self, Go};
use purview_conformance::{Model, Numbers, Ours, Outcomes, Program, RACES, Scope, run};

/// As many as are on their way to Go at a time. More would fill the pipes.
const BATCH: u64 = 32;
const MOST: usize = 40;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let known = ["--programs", "--seed", "--races"];
    if let Some(other) = args.iter().step_by(2).find(|arg| !known.contains(&arg.as_str())) {
        return Err(format!("what is {other}? there are {}", known.join(", ")).into());
    }
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
    let built = go::build(&found, &folder)?;
    if !race(&mut Go::start_races(&built)?, number("--races", 5_000)? as usize)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut go = Go::start(&built)?;
    let begin = Instant::now();
    let mut ops = 0;
    for first in (seed..seed + programs).step_by(BATCH as usize) {
        let seeds = first..(first + BATCH).min(seed + programs);
        let batch: Vec<_> = seeds.clone().map(|seed| generated(seed, Scope::Go)).collect();
        go.send(&batch)?;
        for (seed, program) in seeds.clone().zip(&batch) {
            ops += program.ops.len();
            for program in [program, &generated(seed, Scope::All)] {
                if Ours::differing(program, &modeled(program)).is_some() {
                    tell(seed, program, "model", |it| Ok(modeled(it)), Ours::differing)?;
                    return Ok(ExitCode::FAILURE);
                }
                let still = program.still();
                if differing_on_the_systems_clock(&still, &modeled(&still)).is_some() {
                    let differing = differing_on_the_systems_clock;
                    tell(seed, &still, "model", |it| Ok(modeled(it)), differing)?;
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
        let mut differs = None;
        for (seed, program) in seeds.zip(&batch) {
            let theirs = go.receive()?;
            if differs.is_none() && Ours::differing(program, &theirs).is_some() {
                differs = Some((seed, program));
            }
        }
        if let Some((seed, program)) = differs {
            tell(seed, program, "Go", |program| go.run(program), Ours::differing)?;
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

/// Every race so many times in both; how often each outcome came. False, if there is one that may not be.
fn race(go: &mut Go, times: usize) -> io::Result<bool> {
    let mut fine = true;
    println!("{:>8} {:>8}  of {times} times", "Go", "purview");
    for race in &RACES {
        let (theirs, ours) = (race.theirs(go, times)?, race.ours(times));
        println!("{:17}  {}", "", race.name);
        let outcomes: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
        for outcome in outcomes {
            let count = |of: &Outcomes| of.get(outcome).copied().unwrap_or(0);
            let mark = if race.allowed.contains(&outcome.as_str()) { "" } else { " < may not be" };
            println!("{:>8} {:>8}  {outcome}{mark}", count(&theirs), count(&ours));
            fine &= mark.is_empty();
        }
    }
    Ok(fine)
}

fn generated(seed: u64, scope: Scope) -> Program {
    Program::generate(&mut Numbers::Seed(seed), scope, MOST)
}

fn modeled(program: &Program) -> Vec<String> {
    run(program, &mut Model::default())
}

fn differing_on_the_systems_clock(still: &Program, promised: &[String]) -> Option<Vec<String>> {
    let shown = run(still, &mut Ours::on_the_systems_clock());
    (shown != promised).then_some(shown)
}

/// The least that shows the difference, side by side.
fn tell(
    seed: u64,
    program: &Program,
    other: &str,
    mut theirs: impl FnMut(&Program) -> io::Result<Vec<String>>,
    differing: impl Fn(&Program, &[String]) -> Option<Vec<String>>,
) -> io::Result<()> {
    let mut both = |program: &Program| {
        let theirs = theirs(program)?;
        io::Result::Ok(differing(program, &theirs).map(|ours| (theirs, ours)))
    };
    let least = program.minimized(|program| both(program).is_ok_and(|it| it.is_some()));
    println!("seed {seed}, and less of it:\n{least}");
    println!("{other:<40} {:<40}", "purview");
    let (theirs, ours) = both(&least)?.unwrap_or_default();
    for (theirs, ours) in theirs.iter().zip(&ours) {
        println!("{theirs:<40} {ours:<40}{}", if theirs == ours { "" } else { " <" });
    }
    Ok(())
}
