//! Deadlines near and far, on a manual clock that leaps, beside a map of them.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use purview::time::ManualClock;
use purview::{CancelGuard, Context};
use purview_conformance::Numbers;
use purview_fuzz::count;

/// Of every size: a number of bits, and that many of them.
fn time(numbers: &mut Numbers<'_>) -> u64 {
    let bits = numbers.below(63);
    numbers.below(1 << bits)
}

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers::Bytes(data);
    let clock = ManualClock::new();
    let root = clock.root();
    let mut now = 0_u64;
    let mut live: BTreeMap<(u64, usize), (Context, CancelGuard)> = BTreeMap::new();
    for number in 0..200 {
        count(1);
        match numbers.below(4) {
            0 | 1 => {
                let after = time(&mut numbers);
                let (ctx, guard) = root.with_timeout(Duration::from_nanos(after));
                // A wait has it armed; without one, it is found by who looks.
                if numbers.below(2) == 0 {
                    ctx.on_done(|_| ()).detach();
                }
                if after == 0 {
                    assert!(ctx.is_done());
                } else if let Some(at) =
                    now.checked_add(after).filter(|at| *at < i64::MAX as u64 / 2)
                {
                    live.insert((at, number), (ctx, guard));
                }
            }
            2 => {
                let by = time(&mut numbers);
                if now.saturating_add(by) < i64::MAX as u64 / 4 {
                    now += by;
                    clock.advance(Duration::from_nanos(by));
                }
                while let Some(first) = live.first_entry().filter(|first| first.key().0 <= now) {
                    let (ctx, _guard) = first.remove();
                    assert!(ctx.err().is_some_and(|err| err.is_deadline_exceeded()));
                }
            }
            _ => {
                let at = numbers.below(live.len().max(1) as u64) as usize;
                let key = live.keys().nth(at).copied();
                if let Some((ctx, guard)) = key.and_then(|key| live.remove(&key)) {
                    guard.cancel();
                    assert!(ctx.err().is_some_and(|err| err.is_canceled()));
                }
            }
        }
        if data.is_empty() || numbers.below(2) == 0 && number > 20 {
            break;
        }
    }
    assert!(live.values().all(|(ctx, _)| !ctx.is_done()), "none is early");
});
