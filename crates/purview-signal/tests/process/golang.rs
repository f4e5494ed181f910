//! The tests of Go's `signal.NotifyContext` (src/os/signal/signal_test.go), retold. Each names its original.

use std::thread;

use purview::Context;
use purview_signal::{Notify, Signal, SignalReceived, notify};

use crate::support::{action, end_of, kill_self, raised, say, set_action};
use crate::unix::tests;

tests! {
    one_notification => End::Prints("received SIGINT"),
    ten_notifications => End::Prints("received SIGINT"),
    stop_ends_the_context => End::Success,
    the_parents_end_is_the_contexts => End::Success,
    a_parent_that_is_done => End::Success,
    ten_stops_at_once => End::Success,
    debug_names_the_signals => End::Success,
    the_cause_is_the_signal => End::Success,
}

fn one_notification() {
    notifications(1);
}

fn ten_notifications() {
    notifications(10);
}

/// `TestNotifyContextNotifications`: once, and multiple. Receiving a signal does not stop listening: the next ones do not
/// kill. Go sleeps to see that; here one more is raised, which returns when it was handled.
fn notifications(times: usize) {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    thread::scope(|scope| {
        for _ in 0..times {
            scope.spawn(|| kill_self(Signal::INTERRUPT));
        }
    });
    let err = end_of(&ctx);
    assert!(err.is_canceled());
    say("received SIGINT");
    raised(Signal::INTERRUPT);
    std::mem::forget(signals);
}

/// `TestNotifyContextStop`: a signal that is ignored is not while it is listened for.
fn stop_ends_the_context() {
    set_action(Signal::HANGUP, libc::SIG_IGN, 0);
    let (parent, _guard) = Context::background().with_cancel();
    let (ctx, signals) = notify(&parent, [Signal::HANGUP]).expect("Unix");
    assert_ne!(action(Signal::HANGUP).sa_sigaction, libc::SIG_IGN);
    assert_eq!(format!("{ctx:?}"), "Context(background.cancel.signal:cancel, live)");

    signals.stop();
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled");
    assert!(!parent.is_done());
}

/// `TestNotifyContextCancelParent`.
fn the_parents_end_is_the_contexts() {
    let (parent, cancel) = Context::background().with_cancel();
    let (ctx, _signals) = notify(&parent, [Signal::INTERRUPT]).expect("Unix");
    cancel.cancel_with("the parent's");
    let err = end_of(&ctx);
    assert_eq!(err.to_string(), "context canceled: the parent's");
    assert_eq!(err.origin().context(), parent.id());
}

/// `TestNotifyContextPrematureCancelParent`. Go listens all the same; here the signal keeps what it does.
fn a_parent_that_is_done() {
    let (parent, cancel) = Context::background().with_cancel();
    cancel.cancel_with("too early");
    let (ctx, signals) = notify(&parent, [Signal::INTERRUPT]).expect("Unix");
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled: too early");
    assert_eq!(action(Signal::INTERRUPT).sa_sigaction, libc::SIG_DFL);

    let again = signals.again();
    assert!(!again.is_done());
    drop(signals);
    assert!(again.is_done());
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled: too early");
}

/// `TestNotifyContextSimultaneousStop`.
fn ten_stops_at_once() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                signals.stop();
                assert!(ctx.is_done());
                assert_eq!(action(Signal::INTERRUPT).sa_sigaction, libc::SIG_DFL);
            });
        }
    });
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled");
}

/// `TestNotifyContextStringer`: the context's path is a context's; what is listened for is the Notify's to tell.
fn debug_names_the_signals() {
    let (parent, _guard) = Context::background().with_cancel();
    let signals = [Signal::HANGUP, Signal::INTERRUPT, Signal::TERMINATE];
    let (_ctx, notify): (_, Notify) = notify(&parent, signals).expect("Unix");
    assert_eq!(
        format!("{notify:?}"),
        "Notify([SIGHUP, SIGINT, SIGTERM], Context(background.cancel.signal:cancel, live))"
    );
}

/// The cause, which in Go says "interrupt signal received". Go's type of it is not exported; here the signal is had back.
fn the_cause_is_the_signal() {
    let (ctx, _signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    let (child, _guard) = ctx.with_cancel();
    raised(Signal::INTERRUPT);
    let err = end_of(&child);
    assert_eq!(err.to_string(), "context canceled: signal SIGINT received");
    assert_eq!(err.origin().name(), Some("signal"));
    let received = err.cause().and_then(|cause| cause.downcast_ref::<SignalReceived>());
    assert_eq!(received.map(SignalReceived::signal), Some(Signal::INTERRUPT));
}
