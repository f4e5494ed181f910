//! A pool of workers, told to stop after two seconds.
//!
//! Teaches the one shape that everything else is made of:
//! - whoever starts work derives a context for it, and keeps the right to cancel: the guard;
//! - whoever does work borrows the context, and looks at it wherever it would wait. `sleep_blocking`
//!   returns early, with the reason, when the context ends;
//! - one `cancel` reaches every worker, and when it returns the context is done for all of them.
//!
//! Run it: `cargo run -p purview-examples --bin worker_pool`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;
use std::time::Duration;

use purview::{Context, Error};

const WORKERS: usize = 3;

fn main() {
    let (ctx, cancel) = Context::background().with_cancel();
    thread::scope(|scope| {
        for id in 0..WORKERS {
            let ctx = &ctx;
            scope.spawn(move || {
                let stopped = work(ctx, id);
                println!("Worker {id} stopped: {stopped}");
            });
        }
        thread::sleep(Duration::from_secs(2));
        cancel.cancel(); // dropping the guard would do the same
    });
}

/// Works until the context ends, and gives the reason why it did.
fn work(ctx: &Context, id: usize) -> Error {
    loop {
        println!("Worker {id} is working...");
        if let Err(stopped) = ctx.sleep_blocking(Duration::from_millis(500)) {
            return stopped;
        }
    }
}
