//! Whether what an instance holds is flat.
//!
//! It is looked at in rests: the clients have gone, the requests have ended, and a second has passed. A rest's figure is the
//! smallest of its samples. What comes and goes, such as the refresher, is not in that; what is leaked is in every one.
//!
//! - Counts are held against the first rest, before the first request, by an allowance that says what may be kept on purpose.
//! - Memory has no such measure: pages stay with the allocator, and caches fill. A leak is what goes on growing. So the first
//!   quarter of the rests is for warming up, and of those that are left, the median of the last third may be above the
//!   median of the first third by a tenth and 4 MiB, and no more. Medians, since a single rest may lie anywhere; a tenth,
//!   since fragmentation is in proportion; 4 MiB, since a thread's stack or an arena may come at any time. Counts are held to
//!   the same, with 4 for 4 MiB: what grows within its allowance grows.

use super::load::CLIENTS;
use super::sample::{QUANTITIES, Quantity, Sample};

/// Connections to SQLite that the demo keeps.
const POOL: f64 = 8.0;

/// Fewer rests say nothing of memory: there are to be two in each third.
const ENOUGH: usize = 8;

pub(crate) struct Rest {
    pub(crate) number: usize,
    pub(crate) at: f64,
    pub(crate) values: [f64; QUANTITIES.len()],
}

/// The rests that there are samples of.
pub(crate) fn rests(samples: &[Sample]) -> Vec<Rest> {
    let mut rests: Vec<Rest> = Vec::new();
    for Sample { at, rest, values } in samples.iter().filter(|sample| sample.rest > 0) {
        match rests.last_mut().filter(|last| last.number == *rest) {
            Some(last) => {
                let both = last.values.iter_mut().zip(values);
                both.for_each(|(least, value)| *least = least.min(*value));
            }
            None => rests.push(Rest { number: *rest, at: *at, values: *values }),
        }
    }
    rests
}

/// How much more than at first there may be at a rest. `kept` is how many connections clients may have left open.
fn allowance(quantity: Quantity, kept: f64) -> f64 {
    match quantity {
        Quantity::Memory => f64::INFINITY, // that is for its trend
        // Whoever keeps connections to another has them, too.
        Quantity::Descriptors => POOL + 2.0 * f64::from(CLIENTS),
        // tokio's for blocking work, kept for ten seconds: one for each query, and as many again, since a query's place in the
        // pool is free a moment before its thread is. Besides these purview's, for time and for callbacks.
        Quantity::Threads => 2.0 * POOL + 2.0,
        Quantity::Tasks => 0.0,
        // A connection has an alarm, for when nothing comes; that is a context.
        Quantity::Contexts => kept,
        // Whether the deadline of the request that looks is waited for yet is a matter of chance.
        Quantity::Timers => kept + 1.0,
    }
}

/// What grows, each a sentence.
pub(crate) fn complaints(instance: &str, kept: u32, rests: &[Rest]) -> Vec<String> {
    let Some((first, later)) = rests.split_first() else {
        return vec![format!("the {instance} was never seen at rest")];
    };
    let mut complaints = Vec::new();
    for (i, (quantity, name)) in QUANTITIES.into_iter().enumerate() {
        let most = first.values[i] + allowance(quantity, f64::from(kept));
        if let Some(rest) = later.iter().find(|rest| rest.values[i] > most) {
            complaints.push(format!(
                "the {instance} has {} {name} at the rest at {:.0} s, where it had {} before the first request and may have {most}",
                rest.values[i], rest.at, first.values[i],
            ));
        }
    }
    for (quantity, name) in QUANTITIES {
        if let Some(Trend { first, last }) = trend(rests, quantity).filter(Trend::grows) {
            complaints.push(format!(
                "the {instance} has more and more {name}: {first:.1} at its first rests, {last:.1} at its last"
            ));
        }
    }
    complaints
}

/// Medians of the first and the last third.
pub(crate) struct Trend {
    pub(crate) first: f64,
    pub(crate) last: f64,
}

impl Trend {
    fn grows(&self) -> bool {
        self.last > self.first * 1.1 + 4.0
    }
}

/// None, if there are too few rests to tell.
pub(crate) fn trend(rests: &[Rest], quantity: Quantity) -> Option<Trend> {
    if rests.len() < ENOUGH {
        return None;
    }
    let warm = &rests[rests.len().div_ceil(4)..];
    let third = warm.len() / 3;
    let median = |rests: &[Rest]| {
        let mut all: Vec<f64> = rests.iter().map(|rest| rest.values[quantity as usize]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Some(Trend { first: median(&warm[..third]), last: median(&warm[warm.len() - third..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(number: usize, values: [f64; QUANTITIES.len()]) -> Vec<Sample> {
        let more = values.map(|value| value + 1.0);
        let sample = |rest, values| Sample { at: number as f64 * 10.0, rest, values };
        vec![sample(0, more), sample(number, more), sample(number, values), sample(number, more)]
    }

    fn told(of: impl Fn(f64) -> [f64; QUANTITIES.len()]) -> Vec<String> {
        let samples: Vec<Sample> = (1..=20).flat_map(|n| rest(n, of(n as f64))).collect();
        complaints("front", 0, &rests(&samples))
    }

    #[test]
    fn what_is_flat_is_no_complaint_and_what_is_kept_on_purpose_is_not_either() {
        assert_eq!(told(|_| [40.0, 20.0, 5.0, 7.0, 1.0, 1.0]), [""; 0]);
        let pools =
            |n: f64| [40.0 + n.min(5.0), 20.0 + n.min(9.0), 5.0 + n.min(9.0), 7.0, 1.0, 1.0];
        assert_eq!(told(pools), [""; 0]);
    }

    #[test]
    fn what_grows_is_told_by_its_name() {
        for (quantity, name) in QUANTITIES {
            let leak = |n: f64| {
                let mut values = [40.0, 20.0, 5.0, 7.0, 1.0, 1.0];
                values[quantity as usize] += 2.0 * n;
                values
            };
            let told = told(leak);
            assert!(!told.is_empty() && told.iter().all(|it| it.contains(name)), "{told:?}");
        }
    }

    #[test]
    fn a_count_may_not_grow_within_its_allowance_either() {
        let told = told(|n| [40.0, 20.0 + n, 5.0, 7.0, 1.0, 1.0]);
        assert!(told.len() == 1 && told[0].contains("more and more file descriptors"), "{told:?}");
    }

    #[test]
    fn an_instance_that_was_never_at_rest_is_a_complaint() {
        assert_eq!(complaints("front", 0, &[]).len(), 1);
    }
}
