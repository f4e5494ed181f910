//! Threads that wait for jobs and for the end of their context, whichever comes first.
//!
//! Teaches Go's `select` with a `<-ctx.Done()`:
//! - `DoneChannel` gives the end of a context as a branch of crossbeam-channel's `select!`;
//! - the branch only says that it is over; the context says why;
//! - the job queue need not be closed to stop who waits for it: others may be using it.
//!
//! Run it: `cargo run -p purview-examples --bin select_on_threads`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use purview::{Context, Error};
use purview_crossbeam::DoneChannel;

const WORKERS: usize = 3;
const JOBS: u64 = 6;

fn main() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (give, jobs) = bounded(1);
    let (finish, finished) = bounded(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| work(&ctx, &jobs, &finish).expect_err("it only ends so")))
            .collect();
        scope.spawn(|| (1..=JOBS).for_each(|job| give.send(job).expect("there are workers")));
        let sum: u64 = finished.iter().take(JOBS as usize).sum();
        println!("Sum of squares: {sum}");
        cancel.cancel_with("nothing left to do");
        for (id, worker) in workers.into_iter().enumerate() {
            println!("Worker {id} stopped: {}", worker.join().expect("it does not panic"));
        }
    });
}

/// Squares numbers until the context ends.
fn work(ctx: &Context, jobs: &Receiver<u64>, finish: &Sender<u64>) -> Result<(), Error> {
    let done = DoneChannel::new(ctx);
    loop {
        select! {
            recv(done.receiver()) -> _ => ctx.check()?,
            recv(jobs) -> job => finish.send(job.expect("never closed").pow(2)).expect("main listens"),
        }
    }
}
