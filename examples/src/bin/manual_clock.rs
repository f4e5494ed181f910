//! Testing what takes time, without taking any.
//!
//! A retry that waits longer after each failure runs for ten seconds. On a `ManualClock` they pass in
//! no time, and always in the same way. Teaches that
//! - the clock comes with the root: code that is given a context needs no change to be tested;
//! - nothing happens until `advance`, and then all that is due has happened when it returns;
//! - so a test can say *when* something happened, to the nanosecond, and never sleeps.
//!
//! Run it: `cargo run -p purview-examples --bin manual_clock`, and its test:
//! `cargo test -p purview-examples --bin manual_clock`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::pin::pin;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use purview::time::ManualClock;
use purview::{Context, Error};

const LIMIT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn main() {
    let clock = ManualClock::new();
    let start = clock.now();
    let tried = || {
        println!("{:>2} s  tried, and failed", (clock.now() - start).as_secs());
        false
    };

    let (ctx, _guard) = clock.root().with_timeout(LIMIT);
    let outcome = passing_time(&clock, retry(&ctx, tried));

    let after = (clock.now() - start).as_secs();
    match outcome {
        Ok(()) => println!("{after:>2} s  it worked"),
        Err(why) => println!("{after:>2} s  gave up: {why}"),
    }
}

/// Tries until it works or the context ends; waits a second after the first failure, and after each
/// one twice as long as before.
async fn retry(ctx: &Context, mut works: impl FnMut() -> bool) -> Result<(), Error> {
    let mut pause = SECOND;
    while !works() {
        ctx.sleep(pause).await?;
        pause *= 2;
    }
    Ok(())
}

/// Runs a future to its end; whenever it waits, lets a second pass.
fn passing_time<F: Future>(clock: &ManualClock, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut task = task::Context::from_waker(Waker::noop());
    loop {
        match work.as_mut().poll(&mut task) {
            Poll::Ready(output) => return output,
            Poll::Pending => clock.advance(SECOND),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each attempt was made, in seconds, and how it went: an attempt works from `ready` on.
    fn attempts(ready: u64) -> (Vec<u64>, Result<(), Error>) {
        let clock = ManualClock::new();
        let start = clock.now();
        let (ctx, _guard) = clock.root().with_timeout(LIMIT);
        let mut attempts = Vec::new();
        let outcome = passing_time(
            &clock,
            retry(&ctx, || {
                let now = (clock.now() - start).as_secs();
                attempts.push(now);
                now >= ready
            }),
        );
        (attempts, outcome)
    }

    #[test]
    fn each_pause_is_twice_the_one_before() {
        let (attempts, outcome) = attempts(3);
        assert_eq!(attempts, [0, 1, 3]);
        assert!(outcome.is_ok());
    }

    #[test]
    fn it_gives_up_at_its_deadline_and_not_later() {
        let clock = ManualClock::new();
        let (ctx, _guard) = clock.root().with_timeout(LIMIT);
        let deadline = clock.now() + LIMIT;
        let err = passing_time(&clock, retry(&ctx, || false)).expect_err("it never works");
        assert!(err.is_deadline_exceeded());
        assert_eq!(err.origin().at(), deadline);
        assert_eq!(clock.now(), deadline);
    }

    #[test]
    fn an_attempt_that_would_come_after_the_deadline_is_not_made() {
        let (attempts, outcome) = attempts(u64::MAX);
        assert_eq!(attempts, [0, 1, 3, 7]); // the next would be at 15
        assert!(outcome.is_err());
    }
}
