//! Which signals a context hears, in what order, and what of its callbacks.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use purview::{By, Context, Key};
use purview_signal::{Signal, notify};

use crate::support::{
    count_in_proc, end_of, kill_self, raised, say, set_action, signal_that_ended,
};
use crate::unix::tests;

tests! {
    a_second_signal_is_heard => End::Success,
    signals_are_heard_in_their_order => End::Success,
    again_is_not_too_late => End::Success,
    the_parents_end_is_no_signal => End::Success,
    nobody_waits_for_a_second_that_cannot_come => End::Success,
    a_callback_that_blocks_keeps_nothing_up => End::Success,
    a_callback_that_panics_keeps_nothing_up => End::Success,
    a_signal_before_stop_counts => End::Success,
    a_signal_before_notify_does_not_count => End::Success,
    all_who_listen_hear => End::Success,
    it_may_be_dropped_in_its_own_callback => End::Success,
    a_storm => End::Prints("clear sky"),
    contexts_are_freed => End::Success,
    one_thread_and_two_files_however_many_listen => End::Success,
}

/// More than anything takes, and less than the alarm.
const LONG: Duration = Duration::from_secs(30);

fn a_second_signal_is_heard() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    let again = signals.again();
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&ctx), Signal::INTERRUPT);
    assert!(!again.is_done(), "there was one");
    raised(Signal::INTERRUPT);
    assert_eq!(end_of(&again).to_string(), "context canceled: signal SIGINT received");
    raised(Signal::INTERRUPT); // the third is nothing to anybody
}

fn signals_are_heard_in_their_order() {
    for _ in 0..100 {
        // Neither by number, nor as they are listed.
        let both = [Signal::INTERRUPT, Signal::TERMINATE];
        let (ctx, signals) = notify(&Context::background(), both).expect("Unix");
        let again = signals.again();
        raised(Signal::TERMINATE);
        raised(Signal::INTERRUPT);
        assert_eq!(signal_that_ended(&again), Signal::INTERRUPT);
        assert!(ctx.is_done(), "the first ends before the second");
        assert_eq!(signal_that_ended(&ctx), Signal::TERMINATE);
    }
}

fn again_is_not_too_late() {
    let (ctx, signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    raised(Signal::USER1);
    raised(Signal::USER1);
    assert_eq!(signal_that_ended(&signals.again()), Signal::USER1);
    assert!(ctx.is_done());
}

fn the_parents_end_is_no_signal() {
    let (parent, cancel) = Context::background().with_cancel();
    let (ctx, signals) = notify(&parent, [Signal::USER1]).expect("Unix");
    cancel.cancel_with("the parent's");
    assert_eq!(end_of(&ctx).to_string(), "context canceled: the parent's");
    raised(Signal::USER1);
    raised(Signal::USER1);
    assert_eq!(signal_that_ended(&signals.again()), Signal::USER1);
    assert_eq!(end_of(&ctx).to_string(), "context canceled: the parent's");
}

fn nobody_waits_for_a_second_that_cannot_come() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    let again = signals.again();
    drop(signals);
    for ctx in [ctx, again] {
        let err = end_of(&ctx);
        assert!(err.cause().is_none());
        assert_eq!(err.origin().by(), By::GuardDropped);
    }
}

fn a_callback_that_blocks_keeps_nothing_up() {
    for rounds in 0..100 {
        let root = Context::background();
        let (ctx, signals) = notify(&root, [Signal::INTERRUPT]).expect("Unix");
        let (other, _others) = notify(&root, [Signal::INTERRUPT]).expect("Unix");
        let (go_on, wait) = mpsc::channel::<()>();
        let (said, heard) = mpsc::channel();
        ctx.on_done(move |_| {
            said.send(()).expect("the test waits");
            let _ = wait.recv();
        })
        .detach();
        raised(Signal::INTERRUPT);
        if rounds % 2 == 0 {
            heard.recv_timeout(LONG).expect("called");
        } // else both may come at once
        raised(Signal::INTERRUPT);
        assert_eq!(signal_that_ended(&signals.again()), Signal::INTERRUPT);
        assert_eq!(signal_that_ended(&other), Signal::INTERRUPT);
        signals.stop(); // does not wait for the callback either
        drop(go_on);
    }
}

fn a_callback_that_panics_keeps_nothing_up() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    ctx.on_done(|_| panic!("the test's")).detach();
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&ctx), Signal::INTERRUPT);
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&signals.again()), Signal::INTERRUPT);
    let (next, _signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&next), Signal::INTERRUPT);
}

fn a_signal_before_stop_counts() {
    for _ in 0..100 {
        let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
        raised(Signal::INTERRUPT);
        signals.stop();
        assert_eq!(signal_that_ended(&ctx), Signal::INTERRUPT);
        assert!(signals.again().err().expect("done").cause().is_none());
    }
}

fn a_signal_before_notify_does_not_count() {
    for _ in 0..100 {
        let (before, _signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
        raised(Signal::USER1);
        let (after, _others) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
        assert_eq!(signal_that_ended(&before), Signal::USER1);
        raised(Signal::USER1);
        assert_eq!(signal_that_ended(&after), Signal::USER1);
        assert!(!_others.again().is_done(), "it has heard one");
    }
}

fn all_who_listen_hear() {
    let root = Context::background();
    let listen = |_| notify(&root, [Signal::USER1, Signal::USER2]).expect("Unix");
    let listeners: Vec<_> = (0..20).map(listen).collect();
    let (deaf, _signals) = notify(&root, [Signal::HANGUP]).expect("Unix");
    kill_self(Signal::USER2);
    for (ctx, _) in &listeners {
        assert_eq!(signal_that_ended(ctx), Signal::USER2);
    }
    assert!(!deaf.is_done());
}

fn it_may_be_dropped_in_its_own_callback() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    let (said, heard) = mpsc::channel();
    let again = signals.again();
    ctx.on_done(move |_| {
        drop(signals);
        said.send(()).expect("the test waits");
    })
    .detach();
    raised(Signal::INTERRUPT);
    heard.recv_timeout(LONG).expect("called");
    assert!(again.is_done());
}

/// 100,000 signals from two threads. An interrupted thread finds its errno as it was, although the line is full.
fn a_storm() {
    set_action(Signal::USER1, libc::SIG_IGN, 0);
    let (warm, its) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    raised(Signal::USER1);
    signal_that_ended(&warm);
    drop(its); // what is made once is made
    let files = count_in_proc("fd");

    let (ctx, signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    errno::set_errno(errno::Errno(77));
                    raised(Signal::USER1);
                    assert_eq!(errno::errno().0, 77);
                }
            });
        }
    });
    assert_eq!(signal_that_ended(&ctx), Signal::USER1);
    assert_eq!(signal_that_ended(&signals.again()), Signal::USER1);

    let (next, others) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    assert!(!next.is_done(), "the storm was before");
    raised(Signal::USER1);
    assert_eq!(signal_that_ended(&next), Signal::USER1);
    drop((signals, others));
    assert_eq!(count_in_proc("fd"), files);
    say("clear sky");
}

/// Says when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

static VALUE: Key<Told> = Key::new("value");

fn contexts_are_freed() {
    for signals in 0..3 {
        let (said, heard) = mpsc::channel();
        let parent = Context::background().with_value(&VALUE, Told(said));
        let (ctx, notify) = notify(&parent, [Signal::USER1]).expect("Unix");
        drop(parent);
        (0..signals).for_each(|_| raised(Signal::USER1));
        drop((ctx, notify));
        heard.recv_timeout(LONG).expect("nobody keeps it");
    }
}

fn one_thread_and_two_files_however_many_listen() {
    let count = || (count_in_proc("task"), count_in_proc("fd"));
    let (done, guard) = Context::background().with_cancel();
    guard.cancel();
    let before = count();
    let _nothing = notify(&done, [Signal::USER1]).expect("Unix");
    assert_eq!(count(), before, "a parent that is done");

    let root = Context::background();
    let listen = |_| notify(&root, [Signal::USER1, Signal::USER2]).expect("Unix");
    let listeners: Vec<_> = (0..100).map(listen).collect();
    let after = if before == (0, 0) { before } else { (before.0 + 1, before.1 + 2) };
    assert_eq!(count(), after, "where there is no /proc, nothing is counted");
    drop(listeners);
    assert_eq!(count(), after, "they stay");
}
