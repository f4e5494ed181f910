//! What the targets have in common.

use std::sync::atomic::{AtomicU64, Ordering};

static DONE: AtomicU64 = AtomicU64::new(0);

const SAID: u64 = 1_000_000;

/// Counts what was done, and says so at each millionth.
pub fn count(operations: usize) {
    let before = DONE.fetch_add(operations as u64, Ordering::Relaxed);
    let millions = (before + operations as u64) / SAID;
    if millions > before / SAID {
        eprintln!("{millions},000,000 operations");
    }
}
