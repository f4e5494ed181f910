//! The timing wheel of the system's clock, beside an ordered set, in a process that has been up for any time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use purview_conformance::Numbers;
use purview_fuzz::count;

const STEPS: u32 = 200;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers::Bytes(data);
    let bits = numbers.below(63);
    let uptime = numbers.below(1 << bits) as i64;
    // As long as there are bytes: behind them are zeros.
    let steps = u32::try_from(data.len() / 4).unwrap_or(STEPS).min(STEPS);
    count(steps as usize);
    purview::try_the_wheel(uptime, steps, |limit| numbers.below(limit));
});
