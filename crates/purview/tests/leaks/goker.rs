//! The programs of GoKer that use a context: leaks of Go projects, cut down to what matters, with which Go tests its
//! `goroutineleak` profile.
//!
//! GoKer is from "GoBench: A Benchmark Suite of Real-World Go Concurrency Bugs" (doi:10.1109/CGO51591.2021.9370317). Each program
//! is retold here, not copied: first as the leak it was, which is reported; then as it cannot happen. A goroutine is a thread, in a
//! group or with a context in its hands.
//!
//! That somebody is stuck is not found out by waiting for a while: he was told to stop and has not, or nobody is left to tell him;
//! and the one thing that would let him go on is the test's to do, afterwards.

mod channel;
mod ends;
mod locks;
mod receives;
mod sends;

use std::time::Duration;

use purview::leak::{Check, Leaks};

/// What is left: there is something.
#[track_caller]
fn left(check: &Check) -> Leaks {
    check.wait_blocking(Duration::ZERO).expect_err("somebody is stuck")
}

/// These tasks are left, and no others: told to stop, and reported by name and by the file of their birth.
#[track_caller]
fn assert_stuck(check: &Check, file: &str, names: &[&str]) {
    let leaks = left(check);
    let stuck: Vec<_> = leaks.tasks().map(|task| task.name().unwrap_or("?")).collect();
    assert_eq!(stuck, names, "{leaks}");
    for task in leaks.tasks() {
        assert_eq!((task.location().file(), task.told().is_some()), (file, true), "{task}");
    }
    let of_others = leaks.contexts().iter().find(|ctx| ctx.location().file() != file);
    assert!(of_others.is_none(), "{leaks}");
    let text = leaks.to_string();
    assert!(names.iter().all(|name| text.contains(&format!("task {name} ({file}:"))), "{text}");
}

/// These contexts are left, and no others, in the order of their derivation: `is_told`, or live.
#[track_caller]
fn assert_held(check: &Check, file: &str, names: &[&str], is_told: bool) {
    let leaks = left(check);
    let held: Vec<_> = leaks.contexts().iter().map(|ctx| ctx.name().unwrap_or("?")).collect();
    assert_eq!(held, names, "{leaks}");
    for ctx in leaks.contexts() {
        assert_eq!((ctx.location().file(), ctx.err().is_some()), (file, is_told), "{ctx}");
    }
}
