//! Cleanup after the end, with a bound.
//!
//! A job that is canceled has something left to do: save what it has, say goodbye. Its own context is
//! no use for that, for everything that respects it refuses at once; and no context at all means that
//! a cleanup that hangs, hangs for ever. Teaches `with_grace`:
//! - it ends a while *after* its parent, and keeps the parent's values;
//! - derived beforehand, it counts from the parent's end; derived after the end, from now;
//! - when the grace is over it ends with the parent's error, so that the reason is not lost.
//!
//! Run it: `cargo run -p purview-examples --bin cleanup_with_grace`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;
use std::time::Duration;

use purview::{Context, Error, Key};

static JOB: Key<&str> = Key::new("job");

fn main() {
    let (ctx, cancel) = Context::background().with_cancel();
    let ctx = ctx.with_value(&JOB, "import");
    thread::scope(|scope| {
        scope.spawn(|| job(&ctx));
        thread::sleep(Duration::from_millis(100));
        cancel.cancel_with("the operator said so");
    });
}

fn job(ctx: &Context) {
    let (saving, _guard) = ctx.with_grace(Duration::from_secs(30));
    let (goodbye, _guard) = ctx.with_grace(Duration::from_millis(200));

    let why = ctx.done().wait(); // the work itself
    let name = ctx.value(&JOB).copied().unwrap_or("job");
    println!("{name}: {why}");

    // In its own context nothing can be saved any more.
    report("save", save(ctx));

    // In its grace it can: there is time enough, and the values are still there.
    report("save with grace", save(&saving));

    // And what takes too long is cut off.
    report("goodbye with grace", wait_for_peers(&goodbye));
}

fn report(step: &str, outcome: Result<String, Error>) {
    match outcome {
        Ok(text) => println!("{step}: {text}"),
        Err(err) => println!("{step}: gave up: {err} [{:?}]", err.origin().by()),
    }
}

/// Saves three records, and asks before each whether it still may.
fn save(ctx: &Context) -> Result<String, Error> {
    for _record in 0..3 {
        ctx.sleep_blocking(Duration::from_millis(10))?; // the disk
    }
    Ok(format!("three records of {}", ctx.value(&JOB).copied().unwrap_or("a job")))
}

/// Waits for an answer that never comes.
fn wait_for_peers(ctx: &Context) -> Result<String, Error> {
    Err(ctx.done().wait())
}
