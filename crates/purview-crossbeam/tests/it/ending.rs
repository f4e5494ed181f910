//! How the end comes to the receiver.

use std::thread;
use std::time::Duration;

use crossbeam_channel::TryRecvError;
use purview::Context;
use purview::time::ManualClock;
use purview_crossbeam::DoneChannel;

#[test]
fn of_a_context_that_has_ended_it_is_disconnected_at_once() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let done = DoneChannel::new(&ctx);
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Disconnected));

    let (ctx, guard) = Context::background().with_cancel();
    let done = DoneChannel::new(&ctx);
    guard.cancel(); // before it is asked for
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn when_cancel_has_returned_it_is_disconnected_below_as_well() {
    let (ctx, guard) = Context::background().with_cancel();
    let (below, _guard) = ctx.with_cancel();
    let (done, done_below) = (DoneChannel::new(&ctx), DoneChannel::new(&below));
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    assert_eq!(done_below.receiver().try_recv(), Err(TryRecvError::Empty));
    guard.cancel();
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(done_below.receiver().try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_deadline_counts_though_nobody_else_waits_for_it() {
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    let done = DoneChannel::new(&ctx);
    assert!(done.receiver().recv().is_err());
    assert!(ctx.err().is_some_and(|err| err.is_deadline_exceeded()));

    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(10));
    let done = DoneChannel::new(&ctx);
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    clock.advance(Duration::from_secs(9));
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    clock.advance(Duration::from_secs(1));
    assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn an_end_while_it_is_made_is_not_lost_and_one_while_it_is_dropped_does_no_harm() {
    for round in 0..2_000 {
        let (ctx, guard) = Context::background().with_cancel();
        let done = DoneChannel::new(&ctx);
        thread::scope(|s| {
            s.spawn(move || guard.cancel());
            if round % 2 == 0 {
                assert!(done.receiver().recv().is_err());
            } else {
                let _ = done.receiver().try_recv();
                drop(done);
            }
        });
        assert!(ctx.is_done());
    }
}
