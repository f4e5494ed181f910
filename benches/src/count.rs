//! Allocations and bytes of the loops on one thread.

use crate::case::Work;
use crate::measure::One;
use crate::print;
use crate::round::is_countable;

/// Enough for what comes only once to vanish.
const TIMES: u32 = 10_000;

/// Counts the loops of a row. `so_far` is the number of allocations of the process and their bytes, from its start.
pub fn count(row: &str, so_far: impl Fn() -> (u64, u64)) {
    for case in crate::cases().iter().filter(|case| case.row == row && is_countable(case)) {
        let Work::Loop { home, make, .. } = &case.work else { continue };
        let mut one = One::new(*home, &make());
        let (before, after) = one.run(|batch| {
            batch(1_000); // what is made once
            let before = so_far();
            batch(u64::from(TIMES));
            (before, so_far())
        });
        let each = |before, after| (after - before) as f64 / f64::from(TIMES);
        print::figure(case, "allocations", each(before.0, after.0), false);
        print::figure(case, "bytes", each(before.1, after.1), false);
    }
}
