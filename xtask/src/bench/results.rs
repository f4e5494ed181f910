//! All figures of all rounds.

use std::fmt::Write;

use super::counts::Counts;
use super::line::Line;
use super::machine::Facts;

#[derive(Default)]
pub(crate) struct Results {
    /// In the order in which they first came.
    pub(crate) series: Vec<Series>,
    rounds: usize,
}

/// One figure, round by round.
pub(crate) struct Series {
    pub(crate) row: String,
    pub(crate) case: String,
    pub(crate) peer: String,
    pub(crate) metric: String,
    /// None where it is missing.
    rounds: Vec<Option<Figure>>,
}

#[derive(Clone, Copy)]
struct Figure {
    value: f64,
    disturbed: bool,
}

/// What is told of a series.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    /// No round was undisturbed: it is an upper bound.
    pub(crate) disturbed: bool,
}

impl Results {
    /// Takes in a figure of the round that is going on.
    pub(crate) fn add(&mut self, line: Line) {
        let known = self.series.iter().position(|series| series.is_of(&line));
        let place = known.unwrap_or_else(|| {
            self.series.push(Series::of(&line));
            self.series.len() - 1
        });
        let rounds = &mut self.series[place].rounds;
        rounds.resize(self.rounds, None);
        rounds.push(Some(Figure { value: line.value, disturbed: line.disturbed }));
    }

    pub(crate) fn end_round(&mut self) {
        self.rounds += 1;
        for series in &mut self.series {
            series.rounds.resize(self.rounds, None);
        }
    }

    pub(crate) fn find(&self, row: &str, case: &str, peer: &str, metric: &str) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.row == row
                && series.case == case
                && series.peer == peer
                && series.metric == metric
        })
    }

    pub(crate) fn json(&self, counts: &Counts, facts: &Facts) -> String {
        let mut text = String::from("{\n\"machine\":{");
        let facts = facts.iter().map(|(name, value)| format!("\"{name}\":\"{value}\""));
        text += &facts.collect::<Vec<_>>().join(",");
        text += "},\n\"series\":[\n";
        let series = self.series.iter().map(Series::json);
        text += &series.collect::<Vec<_>>().join(",\n");
        text += "\n],\n\"counts\":[\n";
        text += &counts.json().join(",\n");
        text + "\n]\n}\n"
    }
}

impl Series {
    fn of(line: &Line) -> Series {
        Series {
            row: line.row.clone(),
            case: line.case.clone(),
            peer: line.peer.clone(),
            metric: line.metric.clone(),
            rounds: Vec::new(),
        }
    }

    fn is_of(&self, line: &Line) -> bool {
        self.row == line.row
            && self.case == line.case
            && self.peer == line.peer
            && self.metric == line.metric
    }

    pub(crate) fn summary(&self) -> Option<Summary> {
        let all: Vec<Figure> = self.rounds.iter().copied().flatten().collect();
        let quiet: Vec<f64> = all.iter().filter(|f| !f.disturbed).map(|f| f.value).collect();
        let disturbed = quiet.is_empty();
        let values = if disturbed { all.iter().map(|f| f.value).collect() } else { quiet };
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        Some(Summary { median: median(values)?, min, disturbed })
    }

    /// The median of the rounds' ratios: of those in which neither was disturbed, if there are such.
    pub(crate) fn ratio(&self, to: &Series) -> Option<f64> {
        let pairs = self.rounds.iter().zip(&to.rounds).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
        let pairs: Vec<(Figure, Figure)> = pairs.collect();
        let ratios = |quiet: bool| {
            let fit = pairs.iter().filter(|(a, b)| !quiet || !(a.disturbed || b.disturbed));
            fit.map(|(a, b)| a.value / b.value).collect::<Vec<f64>>()
        };
        median(ratios(true)).or_else(|| median(ratios(false)))
    }

    fn json(&self) -> String {
        let mut text = format!(
            r#"{{"row":"{}","case":"{}","peer":"{}","metric":"{}""#,
            self.row, self.case, self.peer, self.metric
        );
        if let Some(summary) = self.summary() {
            let _ = write!(text, r#","median":{},"min":{}"#, summary.median, summary.min);
        }
        let show = |of: fn(&Figure) -> String| {
            let each = self.rounds.iter().map(|f| f.as_ref().map_or("null".to_string(), of));
            each.collect::<Vec<_>>().join(",")
        };
        let values = show(|figure| figure.value.to_string());
        let disturbed = show(|figure| figure.disturbed.to_string());
        let _ = write!(text, r#","values":[{values}],"disturbed":[{disturbed}]}}"#);
        text
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(f64::midpoint(values[last / 2], values[last.div_ceil(2)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(peer: &str, value: f64, disturbed: bool) -> Line {
        let [row, case, metric] = ["P1", "cancel", "ns"].map(String::from);
        Line { row, case, peer: peer.to_string(), metric, value, disturbed }
    }

    #[test]
    fn ratios_are_taken_within_rounds_and_without_disturbed_ones() {
        let mut results = Results::default();
        for (ours, theirs, disturbed) in
            [(10.0, 20.0, false), (30.0, 50.0, false), (9.0, 1.0, true), (7.0, 10.0, false)]
        {
            results.add(line("purview", ours, disturbed));
            results.add(line("go", theirs, false));
            results.end_round();
        }
        let ours = results.find("P1", "cancel", "purview", "ns").unwrap();
        let theirs = results.find("P1", "cancel", "go", "ns").unwrap();
        assert_eq!(ours.ratio(theirs), Some(0.6));
        let summary = ours.summary().unwrap();
        assert_eq!((summary.median, summary.min, summary.disturbed), (10.0, 7.0, false));
    }

    #[test]
    fn a_round_that_is_missing_is_no_figure() {
        let mut results = Results::default();
        results.add(line("purview", 1.0, true));
        results.end_round();
        results.add(Line::failure("P1", "purview"));
        results.end_round();
        let ours = results.find("P1", "cancel", "purview", "ns").unwrap();
        assert_eq!(ours.rounds.len(), 2);
        assert!(ours.summary().unwrap().disturbed);
        assert!(results.find("P1", "", "purview", "failed").is_some());
    }
}
