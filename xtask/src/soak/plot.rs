//! Plots over time, as SVG: lines of several instances, or areas one upon the other.

use std::fmt::Write;

const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 22.0;
/// More than a line can show.
const MOST_POINTS: usize = 500;
/// Seconds without a sample after which a line is another one.
const GAP: f64 = 2.5;

/// What is marked behind the lines.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    /// From, to.
    Span(f64, f64),
    At(f64),
}

pub(crate) struct Line<'a> {
    pub(crate) color: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
    /// What it is judged by.
    pub(crate) dots: Vec<(f64, f64)>,
}

pub(crate) struct Plot<'a> {
    /// In pixels, as it is meant to be shown.
    pub(crate) width: f64,
    pub(crate) seconds: f64,
    pub(crate) marks: &'a [Mark],
}

impl Plot<'_> {
    pub(crate) fn lines(&self, series: &[Line<'_>]) -> String {
        let most = series.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        let scale = Scale::of(most.fold(0.0, f64::max));
        let mut svg = self.ground(&scale);
        for Line { color, points, .. } in series {
            let mut path = String::new();
            let mut before = f64::NEG_INFINITY;
            for (x, y) in thinned(points) {
                let pen = if x - before > GAP.max(3.0 * self.seconds / 500.0) { 'M' } else { 'L' };
                let _ = write!(path, "{pen}{:.1} {:.1}", self.x(x), scale.y(y));
                before = x;
            }
            let _ = write!(
                svg,
                r#"<path d="{path}" fill="none" stroke="{color}" stroke-opacity=".55" stroke-linejoin="round"/>"#
            );
        }
        for Line { color, dots, .. } in series {
            for (x, y) in dots {
                let (x, y) = (self.x(*x), scale.y(*y));
                let _ = write!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2" fill="{color}"/>"#);
            }
        }
        for Line { color, dots, .. } in series {
            for (x, y) in dots {
                let (x, y) = (self.x(*x), scale.y(*y));
                let _ = write!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.2" fill="{color}"/>"#);
            }
        }
        svg + "</svg>"
    }

    /// Of each layer, the lowest first, its colour and its heights at the points in time.
    pub(crate) fn layers(&self, times: &[f64], layers: &[(&str, Vec<f64>)]) -> String {
        let tops = (0..times.len()).map(|i| layers.iter().map(|(_, all)| all[i]).sum::<f64>());
        let scale = Scale::of(tops.fold(0.0, f64::max));
        let mut svg = self.ground(&scale);
        let mut floor = vec![0.0; times.len()];
        for (color, heights) in layers {
            let top: Vec<f64> = floor.iter().zip(heights).map(|(low, high)| low + high).collect();
            let edge = |all: &[f64]| {
                let points: Vec<(f64, f64)> =
                    times.iter().copied().zip(all.iter().copied()).collect();
                thinned(&points)
            };
            let mut path = String::new();
            for (x, y) in edge(&top).into_iter().chain(edge(&floor).into_iter().rev()) {
                let pen = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{pen}{:.1} {:.1}", self.x(x), scale.y(y));
            }
            let _ = write!(svg, r#"<path d="{path}Z" fill="{color}"/>"#);
            floor = top;
        }
        svg + "</svg>"
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds * (self.width - LEFT - RIGHT)
    }

    /// Axes, and marks.
    fn ground(&self, scale: &Scale) -> String {
        let width = self.width;
        let mut svg = format!(r#"<svg viewBox="0 0 {width} {HEIGHT}" role="img">"#);
        let (floor, right) = (HEIGHT - BOTTOM, width - RIGHT);
        for mark in self.marks {
            let _ = match *mark {
                Mark::Span(from, to) => {
                    let (from, to) = (self.x(from), self.x(to));
                    let width = to - from;
                    write!(
                        svg,
                        r##"<rect x="{from:.1}" y="{TOP}" width="{width:.1}" height="{:.1}" fill="#eef1f6"/>"##,
                        floor - TOP
                    )
                }
                Mark::At(at) => {
                    let at = self.x(at);
                    write!(
                        svg,
                        r##"<path d="M{at:.1} {TOP}V{floor}" stroke="#98a2b3" stroke-dasharray="2 3"/>"##
                    )
                }
            };
        }
        for tick in scale.ticks() {
            let y = scale.y(tick);
            let color = if tick == 0.0 { "#98a2b3" } else { "#e7e9ee" };
            let _ = write!(
                svg,
                r##"<path d="M{LEFT} {y:.1}H{right}" stroke="{color}"/><text x="{}" y="{:.1}" text-anchor="end">{tick}</text>"##,
                LEFT - 6.0,
                y + 3.5,
            );
        }
        let steps = [5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
        let step = steps
            .into_iter()
            .find(|step| self.seconds / step <= self.width / 70.0)
            .unwrap_or(14_400.0);
        for n in 0..=(self.seconds / step) as u32 {
            let at = f64::from(n) * step;
            let (minutes, seconds) = (at as u32 / 60, at as u32 % 60);
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{minutes}:{seconds:02}</text>"#,
                self.x(at),
                HEIGHT - 6.0,
            );
        }
        svg
    }
}

/// From zero to a round number.
struct Scale {
    step: f64,
    most: f64,
}

impl Scale {
    fn of(most: f64) -> Scale {
        let rough = most.max(1.0) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| rough <= factor * power);
        let step = (factor.unwrap_or(10.0) * power).max(1.0);
        Scale { step, most: (most / step).ceil().max(1.0) * step }
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.most * (HEIGHT - BOTTOM - TOP)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = (self.most / self.step).round() as u32;
        (0..=count).map(|n| f64::from(n) * self.step)
    }
}

/// Of points that lie too close to each other, the highest.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(MOST_POINTS).max(1);
    let highest = |some: &[(f64, f64)]| some.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(each).filter_map(highest).collect()
}
