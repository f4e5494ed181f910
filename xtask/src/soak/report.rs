//! What there is to tell: on the terminal, and as a page with plots.

use std::fmt::Write;
use std::sync::PoisonError;
use std::time::Duration;

use super::judge::{self, Rest};
use super::load::{CLIENTS, Load, OUTCOMES};
use super::plot::{Line, Mark, Plot};
use super::sample::{QUANTITIES, Quantity, Records, Sample};
use crate::Outcome;

/// How an instance that was told to stop went.
pub(crate) struct Stop {
    /// By a second signal, while it was draining.
    pub(crate) forced: bool,
    pub(crate) took: Duration,
}

const INSTANCES: [(&str, &str); 2] = [("front", "#2456a6"), ("upstream", "#c4691c")];

/// Connections of clients that an instance may have at rest: the front one keeps some to the upstream, two for each client at the
/// most, since it takes whichever comes first, an old one or a new one.
const KEPT: [u32; 2] = [0, 2 * CLIENTS];

/// In the order of the outcomes.
const COLORS: [&str; OUTCOMES.len()] =
    ["#3f7fd4", "#9cc3f2", "#e9b44c", "#c3c9d4", "#8d6cc0", "#6db597", "#d8645a"];

pub(crate) struct Report {
    seconds: f64,
    samples: [Vec<Sample>; 2],
    rests: [Vec<Rest>; 2],
    requests: Vec<(f64, [u64; OUTCOMES.len()])>,
    late: Vec<f64>,
    marks: Vec<Mark>,
    stops: Vec<Stop>,
    complaints: Vec<String>,
}

/// Columns of words; the first is the rows' names.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn new(
        records: &Records,
        load: &Load,
        marks: Vec<Mark>,
        stops: Vec<Stop>,
        mut complaints: Vec<String>,
    ) -> Report {
        let samples = [0, 1].map(|instance| records.samples(instance));
        let rests = samples.each_ref().map(|samples| judge::rests(samples));
        for ((name, _), (kept, rests)) in INSTANCES.into_iter().zip(KEPT.into_iter().zip(&rests)) {
            complaints.extend(judge::complaints(name, kept, rests));
        }
        let mut late = load.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
        late.sort_by(f64::total_cmp);
        let mut requests = records.requests();
        requests.push((records.now(), load.counts()));
        Report { seconds: records.now(), samples, rests, requests, late, marks, stops, complaints }
    }

    pub(crate) fn verdict(&self) -> Outcome {
        if self.complaints.is_empty() {
            return Ok(());
        }
        Err(format!("the demo does not hold what it promises:\n  {}", self.complaints.join("\n  ")))
    }

    pub(crate) fn text(&self) -> String {
        let tables = [self.by_outcome(), self.stopping(), self.holding()];
        tables.map(|table| table.text()).join("\n") + &format!("\n{}\n", self.memory())
    }

    pub(crate) fn html(&self) -> String {
        let verdict = if self.complaints.is_empty() {
            "<p class=good>Every answer was one that may be, and what was held is flat.</p>".into()
        } else {
            let complaints = self.complaints.iter().map(|it| format!("<li>{}", escaped(it)));
            format!("<ul class=bad>{}</ul>", complaints.collect::<String>())
        };
        let plot = |width| Plot { width, seconds: self.seconds, marks: &self.marks };
        let mut figures =
            figure("requests a second", &self.rates(&plot(1_160.0)), &self.outcome_keys());
        for (i, (_, name)) in QUANTITIES.into_iter().enumerate() {
            let line = |instance: usize| Line {
                color: INSTANCES[instance].1,
                points: self.samples[instance].iter().map(|it| (it.at, it.values[i])).collect(),
                dots: self.rests[instance].iter().map(|it| (it.at, it.values[i])).collect(),
            };
            figures += &figure(name, &plot(568.0).lines(&[line(0), line(1)]), &keys(&INSTANCES));
        }
        let tables =
            [self.by_outcome(), self.stopping(), self.holding()].map(|it| it.html()).concat();
        format!(
            include_str!("report.html"),
            seconds = self.seconds,
            clients = CLIENTS,
            verdict = verdict,
            figures = figures,
            tables = tables,
            memory = self.memory(),
        )
    }

    fn by_outcome(&self) -> Table {
        let counts = self.requests.last().map_or([0; OUTCOMES.len()], |(_, counts)| *counts);
        let row = |((_, name), count): ((_, &str), u64)| {
            vec![name.to_owned(), count.to_string(), format!("{:.1}", count as f64 / self.seconds)]
        };
        Table {
            head: ["requests", "count", "a second"].map(String::from).to_vec(),
            rows: OUTCOMES.into_iter().zip(counts).map(row).collect(),
        }
    }

    fn stopping(&self) -> Table {
        let took = |forced| {
            let stops = self.stops.iter().filter(|stop| stop.forced == forced);
            let mut all: Vec<f64> = stops.map(|stop| stop.took.as_secs_f64() * 1_000.0).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        Table {
            head: ["how long it took, ms", "count", "min", "median", "max"]
                .map(String::from)
                .to_vec(),
            rows: vec![
                spread("stopped by one signal", &took(false)),
                spread("stopped by a second one", &took(true)),
                spread("504s, after their deadline", &self.late),
            ],
        }
    }

    /// At the first rest, at the last, and ever.
    fn holding(&self) -> Table {
        let mut head = vec!["held at rest, and ever".to_owned()];
        for (name, _) in INSTANCES {
            head.extend([format!("{name}, first"), "last".into(), "most".into()]);
        }
        let rows = QUANTITIES.into_iter().enumerate().map(|(i, (_, name))| {
            let mut row = vec![name.to_owned()];
            for (samples, rests) in self.samples.iter().zip(&self.rests) {
                let value = |rest: Option<&Rest>| rest.map_or(f64::NAN, |rest| rest.values[i]);
                let most = samples.iter().map(|sample| sample.values[i]).fold(f64::NAN, f64::max);
                row.extend([value(rests.first()), value(rests.last()), most].map(rounded));
            }
            row
        });
        Table { rows: rows.collect(), head }
    }

    fn memory(&self) -> String {
        let told = INSTANCES.iter().zip(&self.rests).map(|((name, _), rests)| {
            match judge::trend(rests, Quantity::Memory) {
                Some(it) => format!("{name} {:.1} MiB, then {:.1} MiB", it.first, it.last),
                None => format!("{name}: too few rests to tell"),
            }
        });
        let told = told.collect::<Vec<_>>().join("; ");
        format!("memory, median of the first and of the last third of the rests: {told}")
    }

    fn rates(&self, plot: &Plot<'_>) -> String {
        let rates = self.requests.windows(2).map(|pair| {
            let [(from, before), (to, after)] = pair else { return [0.0; OUTCOMES.len()] };
            std::array::from_fn(|i| (after[i] - before[i]) as f64 / (to - from).max(0.2))
        });
        let rates: Vec<[f64; OUTCOMES.len()]> = rates.collect();
        let times: Vec<f64> = self.requests.iter().skip(1).map(|(at, _)| *at).collect();
        let layer = |i: usize| (COLORS[i], rates.iter().map(|rate| rate[i]).collect());
        plot.layers(&times, &(0..OUTCOMES.len()).map(layer).collect::<Vec<_>>())
    }

    fn outcome_keys(&self) -> String {
        let names = OUTCOMES.map(|(_, name)| name);
        keys(&names.into_iter().zip(COLORS).collect::<Vec<_>>())
    }
}

impl Table {
    fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            for (i, (word, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if i == 0 {
                    write!(text, "{word:width$}")
                } else {
                    write!(text, "  {word:>width$}")
                };
            }
            text.push('\n');
        }
        text
    }

    fn html(&self) -> String {
        let row = |row: &Vec<String>, tag: &str| {
            let cells = row.iter().map(|word| format!("<{tag}>{}", escaped(word)));
            format!("<tr>{}", cells.collect::<String>())
        };
        let rows: String = self.rows.iter().map(|it| row(it, "td")).collect();
        format!("<table>{}{rows}</table>", row(&self.head, "th"))
    }
}

/// `sorted` is.
fn spread(name: &str, sorted: &[f64]) -> Vec<String> {
    let at = |place: usize| sorted.get(place).map_or("–".into(), |value| format!("{value:.1}"));
    let last = sorted.len().saturating_sub(1);
    vec![name.to_owned(), sorted.len().to_string(), at(0), at(sorted.len() / 2), at(last)]
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") }
}

fn figure(title: &str, svg: &str, keys: &str) -> String {
    format!("<figure><figcaption><b>{title}</b>{keys}</figcaption>{svg}</figure>")
}

fn keys(all: &[(&str, &str)]) -> String {
    let key = |(name, color): &(&str, &str)| format!(r#"<i style="--color:{color}">{name}</i>"#);
    all.iter().map(key).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
