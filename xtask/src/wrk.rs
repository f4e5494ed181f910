//! `cargo xtask wrk`: what purview-http costs a request, beside tower-http.
//!
//! Services are in `benches/http`. Each is a process on one thread and one core; wrk asks it from the other core, as fast as it can. A
//! round visits all of them, and ratios are taken within a round.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::machine::facts;
use crate::bench::{built, found, publish};
use crate::{Outcome, number, output};

const BEGIN: &str = "<!-- wrk:begin -->";
const END: &str = "<!-- wrk:end -->";
const ROUNDS: u32 = 7;

/// Services by their names in `benches/http`, and what they are.
const SERVICES: [(&str, &str); 8] = [
    ("nothing", "axum"),
    ("timeout", "axum, tower-http's `TimeoutLayer`"),
    ("context", "axum, `ContextLayer` with a limit"),
    ("asked", "the same, and the handler asks its `Ctx`"),
    ("everything", "the same, with a client's deadline, a name, a trace and an id"),
    ("server-nothing", "`serve::Server`"),
    ("server-timeout", "`serve::Server`, tower-http's `TimeoutLayer`"),
    ("server-context", "`serve::Server`, `ContextLayer` with a limit"),
];

/// Requests a second, of each service, round by round.
type Figures = Vec<Vec<f64>>;

pub(crate) fn run(root: &Path, args: &[&str]) -> Outcome {
    let rounds = match args {
        [] => ROUNDS,
        ["--rounds", n] => number(n)?,
        _ => return Err("cargo xtask wrk [--rounds N]".into()),
    };
    output("wrk", &["-v".into()], &[]).or_else(|why| {
        // It says its version, and fails.
        if why.contains("could not be started") {
            Err(format!("{why} (apt-get install wrk)"))
        } else {
            Ok(why)
        }
    })?;
    let programs = built("purview-http-benches")?;
    let (serve, count) = (found(&programs, "http-serve")?, found(&programs, "http-count")?);
    let counts = output(&count.display().to_string(), &[], &[])?;
    let facts = facts(root, None);
    let mut figures: Figures = vec![Vec::new(); SERVICES.len()];
    for round in 1..=rounds {
        for (figures, (name, _)) in figures.iter_mut().zip(SERVICES) {
            figures.push(asked(&serve, name)?);
        }
        println!("round {round} of {rounds}");
    }
    let mut text: String = facts.iter().map(|(name, what)| format!("- {name}: {what}\n")).collect();
    text.push_str(&format!("- rounds: {rounds}, of 2 s each\n\n{}", table(&figures, &counts)));
    println!("\n{text}");
    if rounds < ROUNDS {
        return Ok(());
    }
    publish(&root.join("BENCHMARKS.md"), (BEGIN, END), &text)
}

/// Requests a second.
fn asked(serve: &Path, name: &str) -> Result<f64, String> {
    let complain = |err: std::io::Error| format!("{name}: {err}");
    let mut server = Server::start(serve, name).map_err(complain)?;
    let mut address = String::new();
    let stdout = server.0.stdout.take().ok_or("it was to be piped")?;
    BufReader::new(stdout).read_line(&mut address).map_err(complain)?;
    let url = format!("http://{}/", address.trim());
    let args = ["-c", "1", "wrk", "-t1", "-c32", "-d2s", "-H", "x-request-timeout: 10", &url];
    let said = output("taskset", &args.map(String::from), &[])?;
    let failed =
        said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    if let Some(line) = failed {
        return Err(format!("{name}: {}", line.trim()));
    }
    let figure = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    figure
        .and_then(|figure| figure.trim().parse().ok())
        .ok_or(format!("wrk has no figure:\n{said}"))
}

/// Stops when its input is closed, and is waited for.
struct Server(Child);

impl Server {
    fn start(serve: &Path, name: &str) -> std::io::Result<Server> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(serve).arg(name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn table(figures: &Figures, counts: &str) -> String {
    let mut table = String::from(
        "| service | requests/s | to none around it | to `TimeoutLayer` | allocations of a request |\n|---|---:|---:|---:|---:|\n",
    );
    for (i, (name, what)) in SERVICES.iter().enumerate() {
        let group = if name.starts_with("server-") { 5 } else { 0 };
        let ratio = |to: usize| {
            let ratios = figures[i].iter().zip(&figures[to]).map(|(one, other)| one / other);
            if i == to { String::new() } else { format!("{:.3}", median(ratios.collect())) }
        };
        let count = counts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        table.push_str(&format!(
            "| {what} | {:.0} | {} | {} | {} |\n",
            median(figures[i].clone()),
            ratio(group),
            ratio(group + 1),
            count.unwrap_or_default(),
        ));
    }
    table
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
