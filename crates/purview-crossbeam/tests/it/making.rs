//! What is made, when, and what is left of it.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Barrier;
use std::thread;

use crossbeam_channel::TryRecvError;
use purview::Context;
use purview_crossbeam::DoneChannel;

#[test]
fn nothing_is_registered_before_the_receiver_is_asked_for_and_one_callback_however_often_it_is() {
    let (ctx, _guard) = Context::background().with_cancel();
    let done = DoneChannel::new(&ctx);
    assert_eq!(ctx.statistics().callbacks(), 0);
    for _ in 0..10 {
        assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    }
    assert_eq!(ctx.statistics().callbacks(), 1);
    assert!(done.receiver().same_channel(done.receiver()));
}

#[test]
fn threads_that_ask_for_it_at_once_get_the_same_one() {
    for _ in 0..200 {
        let (ctx, guard) = Context::background().with_cancel();
        let done = DoneChannel::new(&ctx);
        let together = Barrier::new(4);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    together.wait();
                    assert!(done.receiver().recv().is_err());
                });
            }
            while ctx.statistics().callbacks() == 0 {
                thread::yield_now();
            }
            assert_eq!(ctx.statistics().callbacks(), 1);
            guard.cancel();
        });
    }
}

#[test]
fn dropping_it_leaves_nothing_at_the_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let channels: Vec<_> = (0..100).map(|_| DoneChannel::new(&ctx)).collect();
    for done in &channels[..50] {
        assert_eq!(done.receiver().try_recv(), Err(TryRecvError::Empty));
    }
    assert_eq!(ctx.statistics().callbacks(), 50);
    drop(channels);
    assert_eq!(ctx.statistics().callbacks(), 0);
    guard.cancel();
}

#[test]
fn a_clone_disconnects_with_the_one_it_is_of() {
    let (ctx, _guard) = Context::background().with_cancel();
    let done = DoneChannel::new(&ctx);
    let clone = done.receiver().clone();
    drop(done);
    assert_eq!(clone.try_recv(), Err(TryRecvError::Disconnected));
    assert!(!ctx.is_done());
}

#[test]
fn where_there_is_no_end_it_never_comes_and_nothing_is_registered() {
    let never_done =
        [Context::background(), Context::todo(), Context::background().without_cancel()];
    for ctx in never_done {
        let done = DoneChannel::new(&ctx);
        assert!(done.receiver().same_channel(&crossbeam_channel::never()));
        assert_eq!(ctx.statistics().callbacks(), 0);
    }
}

#[test]
fn it_can_be_sent_and_shared_and_says_whose_end_it_is() {
    fn all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>(_: &T) {}
    let (ctx, _guard) = Context::background().derive().name("server").build();
    let done = DoneChannel::new(&ctx);
    all(&done);
    assert_eq!(format!("{done:?}"), format!("DoneChannel({ctx:?})"));
    assert_eq!(done.context(), &ctx);
}
