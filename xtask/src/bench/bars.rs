//! The bars: what purview has set itself. Each is a ratio to a peer within a round, or an amount.

pub(crate) struct Bar {
    row: &'static str,
    /// Empty for every case of the row.
    case: &'static str,
    /// Empty for every metric of the case.
    metric: &'static str,
    pub(crate) of: Of,
    pub(crate) at_most: f64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Of {
    /// Times a peer's, by the name that it prints.
    Peer(&'static str),
    /// Times what purview takes for another case of the row.
    Case(&'static str),
    /// In the metric's own unit.
    Amount,
}

pub(crate) const TOKIO: Of = Of::Peer("tokio-util");
pub(crate) const GO: Of = Of::Peer("go");
pub(crate) const FLOOR: Of = Of::Peer("floor");

const fn bar(
    row: &'static str,
    case: &'static str,
    metric: &'static str,
    of: Of,
    at_most: f64,
) -> Bar {
    Bar { row, case, metric, of, at_most }
}

#[rustfmt::skip]
const BARS: &[Bar] = &[
    bar("P1", "cancel", "ns", TOKIO, 0.35),
    bar("P1", "cancel", "ns", GO, 0.20),
    bar("P2", "2 threads", "ns", TOKIO, 0.12),
    bar("P2", "2 threads", "ns", GO, 0.20),
    bar("P3", "1 thread", "ns", TOKIO, 0.40),
    bar("P3", "1 thread", "ns", GO, 0.16),
    bar("P3", "2 threads", "ns", TOKIO, 0.20),
    bar("P3", "2 threads", "ns", GO, 0.10),
    bar("P3b", "", "ns", TOKIO, 0.60),
    bar("P3b", "", "ns", GO, 0.25),
    bar("P4", "", "ns", FLOOR, 1.5),
    bar("P5", "64 values, hit at the root", "ns", Of::Amount, 8.0),
    bar("P5", "64 values, hit at the leaf", "ns", Of::Amount, 8.0),
    bar("P5", "64 values, miss", "ns", Of::Amount, 8.0),
    bar("P5", "one more value at depth 64", "ns", Of::Case("one more value at depth 1"), 1.2),
    bar("P6", "children", "ns a node", TOKIO, 0.40),
    bar("P6", "chain", "ns a node", TOKIO, 0.20),
    bar("P6", "", "ns a node", GO, 0.05),
    bar("P6b", "is_done on a child", "worst us", Of::Amount, 10.0),
    bar("P6b", "derive on the parent", "worst us", Of::Amount, 1000.0),
    bar("P7", "one context", "ns a waiter", TOKIO, 0.45),
    bar("P7", "one context", "ns a waiter", GO, 0.70),
    bar("P7", "a child each", "ns a waiter", TOKIO, 0.70),
    bar("P7", "a child each", "ns a waiter", GO, 0.20),
    bar("P7b", "", "", TOKIO, 1.1),
    bar("P8", "child", "bytes", Of::Amount, 96.0),
    bar("P8", "child with an armed deadline", "bytes", Of::Amount, 112.0),
    bar("P9", "", "create ns", TOKIO, 0.9),
    bar("P9", "", "create ns", GO, 0.09),
    bar("P9", "", "cancel ns", TOKIO, 0.3),
    bar("P9", "", "cancel ns", GO, 0.13),
    bar("P9b", "", "p50 us", GO, 0.25),
    bar("P9b", "", "p99 us", GO, 1.0),
    bar("P9b", "", "cpu ns", GO, 0.7),
    bar("P10", "register, 1 thread", "ns", TOKIO, 0.6),
    bar("P10", "register, 2 threads", "ns", TOKIO, 0.15),
    bar("P10", "poll again, 1 thread", "ns", TOKIO, 0.3),
    bar("P10", "poll again, 2 threads", "ns", TOKIO, 0.3),
    bar("P11", "", "ns", GO, 0.18),
    bar("P12", "beside a TaskTracker and a token", "ns a task", FLOOR, 1.15),
    bar("P12", "beside a TaskTracker and a token", "ns a task", TOKIO, 1.0),
    bar("P12", "beside a JoinSet", "ns a task", TOKIO, 0.9),
    bar("Idle", "", "threads before", Of::Amount, 1.0),
    bar("Idle", "", "wakes", Of::Amount, 0.0),
];

/// The bars of one figure.
pub(crate) fn of<'a>(
    row: &'a str,
    case: &'a str,
    metric: &'a str,
) -> impl Iterator<Item = &'static Bar> + 'a {
    let fits = |asked: &str, given: &str| asked.is_empty() || asked == given;
    BARS.iter()
        .filter(move |bar| bar.row == row && fits(bar.case, case) && fits(bar.metric, metric))
}
