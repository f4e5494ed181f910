//! The tables of BENCHMARKS.md.

use std::fmt::Write;

use super::bars::{self, Bar, FLOOR, GO, Of, TOKIO};
use super::counts::Counts;
use super::machine::Facts;
use super::results::{Results, Series};
use super::{Options, ROWS};

pub(crate) fn write(
    results: &Results,
    counts: &Counts,
    facts: &Facts,
    options: &Options,
) -> String {
    let mut text = String::new();
    for (name, value) in facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let pace = if options.quick { ", quick: small numbers, short samples" } else { "" };
    let _ = writeln!(text, "- rounds: {}{pace}\n", options.rounds);
    times(&mut text, results, facts, options);
    text.push('\n');
    counted(&mut text, counts);
    text
}

fn times(text: &mut String, results: &Results, facts: &Facts, options: &Options) {
    let without_go = facts.iter().any(|(name, value)| *name == "go" && value == "not run");
    text.push_str(
        "| row | case | purview | tokio-util | Go | to tokio-util | to Go | other bar | met |\n",
    );
    text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---|\n");
    let (mut met, mut missed) = (0, 0);
    for row in ROWS.iter().filter(|row| options.rows.contains(row)) {
        if figures(results, row).is_empty() {
            let _ = writeln!(text, "| {row} | failed | | | | | | | |");
        }
        for (case, metric) in figures(results, row) {
            let find = |peer| results.find(row, case, peer, metric);
            let failed = |peer| {
                let failed = |case| results.find(row, case, peer, "failed").is_some();
                failed(case) || failed("")
            };
            let cell = |peer| match find(peer) {
                Some(series) => series.cell(),
                None if failed(peer) => "failed".to_string(),
                None if peer == "go" && without_go && *row != "Idle" => "not run".to_string(),
                None => String::new(),
            };
            let mut verdict = Verdict::default();
            let mut held = |of: Of, shown: bool| {
                let bar = bars::of(row, case, metric).find(|bar| bar.of == of);
                let value = against(of, results, row, case, metric);
                verdict.cell(bar, value, shown)
            };
            let to_tokio = held(TOKIO, true);
            let to_go = held(GO, true);
            let mut other = Vec::new();
            if let Some(floor) = find("floor") {
                other.push(format!("{} floor {}", held(FLOOR, true), floor.cell()));
            }
            for bar in bars::of(row, case, metric) {
                match bar.of {
                    Of::Amount => other.push(held(bar.of, false)),
                    Of::Case(name) => other.push(format!("{} {name}", held(bar.of, true))),
                    Of::Peer(_) => {}
                }
            }
            match verdict.met {
                Some(true) => met += 1,
                Some(false) => missed += 1,
                None => {}
            }
            let _ = writeln!(
                text,
                "| {row} | {case}, {metric} | {} | {} | {} | {to_tokio} | {to_go} | {} | {} |",
                cell("purview"),
                cell("tokio-util"),
                cell("go"),
                other.join("; "),
                verdict.say()
            );
        }
    }
    let _ = writeln!(
        text,
        "\nMedian of the rounds (least of them); ratios are medians of the rounds' ratios, and the bar is in brackets. `*`: no \
         round was undisturbed. {met} of {} lines with bars meet them.",
        met + missed
    );
}

/// The cases of a row and their metrics, in the order in which they were measured.
fn figures<'a>(results: &'a Results, row: &str) -> Vec<(&'a str, &'a str)> {
    let mut figures = Vec::new();
    for series in results.series.iter().filter(|series| series.row == row) {
        let figure = (series.case.as_str(), series.metric.as_str());
        if series.metric != "failed" && !figures.contains(&figure) {
            figures.push(figure);
        }
    }
    // Go comes last in a round: what only it has goes to where its case is.
    let order: Vec<&str> = figures.iter().map(|figure| figure.0).collect();
    figures.sort_by_key(|figure| order.iter().position(|case| *case == figure.0));
    figures
}

/// What is held against a bar.
fn against(of: Of, results: &Results, row: &str, case: &str, metric: &str) -> Option<f64> {
    let ours = results.find(row, case, "purview", metric)?;
    match of {
        Of::Amount => Some(ours.summary()?.median),
        Of::Peer(peer) => ours.ratio(results.find(row, case, peer, metric)?),
        Of::Case(other) => ours.ratio(results.find(row, other, "purview", metric)?),
    }
}

/// Whether the bars of a line are met: all of them, where there are any and they could be tried.
#[derive(Default)]
struct Verdict {
    met: Option<bool>,
    untried: bool,
}

impl Verdict {
    fn cell(&mut self, bar: Option<&Bar>, value: Option<f64>, shown: bool) -> String {
        let Some(bar) = bar else { return value.map(three).unwrap_or_default() };
        match value {
            Some(value) => {
                self.met = Some(self.met.unwrap_or(true) && value <= bar.at_most);
                let value = if shown { three(value) } else { String::new() };
                format!("{value} (≤ {})", bar.at_most).trim_start().to_string()
            }
            None => {
                self.untried = true;
                format!("? (≤ {})", bar.at_most)
            }
        }
    }

    fn say(&self) -> &'static str {
        match (self.met, self.untried) {
            (Some(false), _) => "**no**",
            (_, true) => "?",
            (Some(true), false) => "yes",
            (None, false) => "",
        }
    }
}

impl Series {
    fn cell(&self) -> String {
        self.summary().map_or(String::new(), |summary| {
            let mark = if summary.disturbed { " *" } else { "" };
            format!("{} ({}){mark}", three(summary.median), three(summary.min))
        })
    }
}

fn counted(text: &mut String, counts: &Counts) {
    text.push_str("Per operation, on one thread:\n\n");
    text.push_str("| row | case | allocations: purview | tokio-util ");
    text.push_str("| bytes: purview | tokio-util | instructions: purview | tokio-util |\n");
    text.push_str("|---|---|---:|---:|---:|---:|---:|---:|\n");
    for (row, case) in counts.cases() {
        let _ = write!(text, "| {row} | {case} |");
        for metric in ["allocations", "bytes", "instructions"] {
            for peer in ["purview", "tokio-util"] {
                let run = counts.find(row, case, peer, "allocations").is_some();
                let cell = match counts.find(row, case, peer, metric) {
                    Some(value) => three(value),
                    None if metric == "instructions" && run => "not run".to_string(),
                    None => String::new(),
                };
                let _ = write!(text, " {cell} |");
            }
        }
        text.push('\n');
    }
    if let Some(why) = &counts.without_instructions {
        let _ = writeln!(text, "\nInstructions are not counted: {why}.");
    }
}

/// Three digits that say something.
fn three(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        0.0 => "0".to_string(),
        _ => format!("{value:.4}"),
    }
}
