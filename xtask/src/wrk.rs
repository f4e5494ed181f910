//! `cargo xtask wrk`: what purview-http costs a request, beside tower-http.
//!
//! Services are in `benches/http`. Each is a process on one thread and one core; wrk asks it from the other core, as fast as it can. A
//! round visits all of them, and ratios are taken within a round.

use std::fs;
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
const SERVICES: [(&str, &str); 10] = [
    ("nothing", "axum"),
    ("timeout", "axum, tower-http's `TimeoutLayer`"),
    ("identity", "axum, a layer that does nothing"),
    ("context", "axum, `ContextLayer` with a limit"),
    ("asked", "the same, and the handler asks its `Ctx`"),
    ("everything", "the same, with a client's deadline, a name, a trace and an id"),
    ("server-nothing", "`serve::Server`"),
    ("server-timeout", "`serve::Server`, tower-http's `TimeoutLayer`"),
    ("server-identity", "`serve::Server`, a layer that does nothing"),
    ("server-context", "`serve::Server`, `ContextLayer` with a limit"),
];

/// What a service did in a round.
#[derive(Clone, Copy)]
struct Figure {
    /// Requests a second.
    rate: f64,
    /// Of the server, for a request, in microseconds. What the machine does to others does not count.
    cpu: f64,
}

/// Of each service, round by round.
type Figures = Vec<Vec<Figure>>;

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

fn asked(serve: &Path, name: &str) -> Result<Figure, String> {
    let complain = |err: std::io::Error| format!("{name}: {err}");
    let mut server = Server::start(serve, name).map_err(complain)?;
    let mut address = String::new();
    let stdout = server.0.stdout.take().ok_or("it was to be piped")?;
    BufReader::new(stdout).read_line(&mut address).map_err(complain)?;
    let url = format!("http://{}/", address.trim());
    let args = ["-c", "1", "wrk", "-t1", "-c32", "-d2s", "-H", "x-request-timeout: 10", &url];
    let before = server.cpu();
    let said = output("taskset", &args.map(String::from), &[])?;
    let cpu = server.cpu() - before;
    let failed =
        said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    if let Some(line) = failed {
        return Err(format!("{name}: {}", line.trim()));
    }
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
    let rate = number(said.lines().find_map(|line| line.strip_prefix("Requests/sec:")));
    let count = number(said.lines().find_map(|line| Some(line.split_once(" requests in")?.0)));
    let (Some(rate), Some(count)) = (rate, count) else {
        return Err(format!("wrk has no figure:\n{said}"));
    };
    Ok(Figure { rate, cpu: cpu / count })
}

/// Stops when its input is closed, and is waited for.
struct Server(Child);

impl Server {
    fn start(serve: &Path, name: &str) -> std::io::Result<Server> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(serve).arg(name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Server)
    }

    /// What its thread has had of a core so far, in microseconds.
    fn cpu(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0.id()));
        let nanos = text.ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        nanos.map_or(f64::NAN, |nanos| nanos / 1_000.0)
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
        "| service | requests/s | to no layer | to one that does nothing | to `TimeoutLayer` | CPU, µs | allocations |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (i, (name, what)) in SERVICES.iter().enumerate() {
        let plain = if name.starts_with("server-") { 6 } else { 0 };
        let ratio = |to: usize| {
            let ratios =
                figures[i].iter().zip(&figures[to]).map(|(one, other)| one.rate / other.rate);
            if i == to { String::new() } else { format!("{:.2}", median(ratios.collect())) }
        };
        let of = |of: fn(&Figure) -> f64| median(figures[i].iter().map(of).collect());
        let count = counts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        table.push_str(&format!(
            "| {what} | {:.0} | {} | {} | {} | {:.2} | {} |\n",
            of(|it| it.rate),
            ratio(plain),
            ratio(plain + 2),
            ratio(plain + 1),
            of(|it| it.cpu),
            count.unwrap_or_default().trim_end_matches(".00"),
        ));
    }
    table
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
