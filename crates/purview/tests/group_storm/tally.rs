//! What was done, how often, and what was done at the same time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Tally {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    /// Who is at what at this moment.
    at: BTreeMap<&'static str, u64>,
    overlaps: BTreeMap<(&'static str, &'static str), u64>,
}

static TALLY: Mutex<Tally> =
    Mutex::new(Tally { counts: BTreeMap::new(), at: BTreeMap::new(), overlaps: BTreeMap::new() });

fn tally() -> MutexGuard<'static, Tally> {
    TALLY.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn count(topic: &'static str, what: &'static str, times: usize) {
    if times > 0 {
        *tally().counts.entry((topic, what)).or_default() += times as u64;
    }
}

/// Runs `code`, which does `what` to a group.
pub(crate) fn during<R>(what: &'static str, code: impl FnOnce() -> R) -> R {
    struct Leave(&'static str);
    impl Drop for Leave {
        fn drop(&mut self) {
            if let Some(at) = tally().at.get_mut(self.0) {
                *at -= 1;
            }
        }
    }
    let mut now = tally();
    *now.counts.entry(("operations", what)).or_default() += 1;
    let others: Vec<_> =
        now.at.iter().filter(|(_, at)| **at > 0).map(|(other, _)| *other).collect();
    for other in others {
        let pair = if what < other { (what, other) } else { (other, what) };
        *now.overlaps.entry(pair).or_default() += 1;
    }
    *now.at.entry(what).or_default() += 1;
    drop(now);
    let _leave = Leave(what);
    code()
}

pub(crate) fn shown() -> String {
    let tally = tally();
    let mut text = String::new();
    let mut last = "";
    for ((topic, what), count) in &tally.counts {
        if *topic != last {
            let _ = write!(text, "\n{topic}:");
            last = topic;
        }
        let _ = write!(text, " {what} {count},");
    }
    let _ = write!(text, "\nat the same time:");
    for ((one, other), count) in &tally.overlaps {
        let _ = write!(text, " {one} + {other} {count},");
    }
    text.trim_start().replace(",\n", "\n").trim_end_matches(',').to_string()
}
