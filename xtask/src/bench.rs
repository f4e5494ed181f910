//! `cargo xtask bench`: what purview costs, beside tokio-util and Go.
//!
//! The workloads are in `benches/`, in Rust and in Go; here they are built, run round after round, and put into tables. A
//! round visits every row, and in each row every peer, so that whatever the machine does meanwhile, it does to all of them.
//! Ratios are taken within a round, and their median is what is held against the bars (bars.rs).

mod bars;
mod counts;
mod go;
mod line;
pub(crate) mod machine;
mod results;
mod rounds;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, number, output};
use go::Go;
use results::Results;

/// What is measured, in this order. The titles are BENCHMARKS.md's.
const ROWS: [&str; 17] = [
    "P1", "P2", "P3", "P3b", "P4", "P5", "P6", "P6b", "P7", "P7b", "P8", "P9", "P9b", "P10", "P11",
    "P12", "Idle",
];
const ROUNDS: u32 = 7;
const QUICK_ROUNDS: u32 = 5;
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

struct Options {
    quick: bool,
    rounds: u32,
    rows: Vec<&'static str>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Options, String> {
        let mut options = Options { quick: false, rounds: 0, rows: ROWS.to_vec() };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let mut value = || args.next().copied().ok_or(format!("{arg} needs a value"));
            match arg {
                "--quick" => options.quick = true,
                "--rounds" => options.rounds = number(value()?)?,
                "--rows" => {
                    options.rows = value()?.split(',').map(row).collect::<Result<_, _>>()?
                }
                _ => return Err(format!("cargo xtask bench: what is {arg}?")),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { QUICK_ROUNDS } else { ROUNDS };
        }
        Ok(options)
    }

    /// Only such a run goes into BENCHMARKS.md.
    fn is_whole(&self) -> bool {
        !self.quick && self.rows.len() == ROWS.len()
    }
}

fn row(name: &str) -> Result<&'static str, String> {
    let known = ROWS.iter().find(|row| row.eq_ignore_ascii_case(name));
    known.copied().ok_or(format!("no such row: {name}; there are {}", ROWS.join(" ")))
}

/// The programs that do the work.
struct Programs {
    time: PathBuf,
    count: PathBuf,
    go: Option<Go>,
}

pub(crate) fn run(root: &Path, args: &[&str]) -> Outcome {
    let options = Options::parse(args)?;
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder).map_err(|err| format!("{}: {err}", folder.display()))?;
    let programs = build(root, &folder)?;
    let facts = machine::facts(root, programs.go.as_ref());

    let mut results = Results::default();
    rounds::run(&options, &programs, &folder, &mut results);
    let counts = counts::run(&options, &programs);

    let text = table::write(&results, &counts, &facts, &options);
    write(&folder.join("results.json"), &results.json(&counts, &facts))?;
    write(&folder.join("table.md"), &text)?;
    println!("\n{text}");
    if options.is_whole() {
        publish(&root.join("BENCHMARKS.md"), (BEGIN, END), &text)
    } else {
        Ok(())
    }
}

fn build(root: &Path, folder: &Path) -> Result<Programs, String> {
    let programs = built("purview-benches")?;
    let find = |name: &str| found(&programs, name);
    let go = Go::build(root, folder);
    let go = go.inspect_err(|why| eprintln!("Go is not run: {}", why.trim())).ok();
    Ok(Programs { time: find("bench")?, count: find("count")?, go })
}

/// The programs of a package, built for speed.
pub(crate) fn built(package: &str) -> Result<Vec<PathBuf>, String> {
    println!("building");
    let args = ["build", "--release", "--quiet", "-p", package, "--message-format=json"];
    let built = output("cargo", &args.map(String::from), &[])?;
    // The artefacts say where they are: target folders can be anywhere.
    let programs = built
        .lines()
        .filter_map(|line| line.split_once(r#""executable":""#)?.1.split_once('"'))
        .map(|(path, _)| PathBuf::from(path.replace(r"\\", r"\")))
        .collect();
    Ok(programs)
}

/// The one of that name.
pub(crate) fn found(programs: &[PathBuf], name: &str) -> Result<PathBuf, String> {
    let program = programs.iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
    program.cloned().ok_or(format!("cargo did not say where it has put {name}"))
}

/// Replaces what is between the marks.
pub(crate) fn publish(document: &Path, (begin, end): (&str, &str), text: &str) -> Outcome {
    let old =
        fs::read_to_string(document).map_err(|err| format!("{}: {err}", document.display()))?;
    let parts =
        old.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    let (head, tail) = parts.ok_or(format!("{} has lost its marks", document.display()))?;
    write(document, &format!("{head}{begin}\n\n{text}\n{end}{tail}"))
}

fn write(file: &Path, text: &str) -> Outcome {
    fs::write(file, text).map_err(|err| format!("{}: {err}", file.display()))
}
