//! What a signal does before, while and after somebody listens for it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use purview::Context;
use purview_signal::{Signal, notify};

use crate::support::{self, action, die_of, raised, set_action, signal_that_ended};
use crate::unix::tests;

tests! {
    after_the_drop_the_signal_kills => End::Killed(libc::SIGINT),
    after_stop_the_signal_kills => End::Killed(libc::SIGTERM),
    of_two_that_listen_one_may_go => End::Killed(libc::SIGINT),
    only_what_nobody_else_wants_is_given_back => End::Success,
    a_listener_may_come_again => End::Killed(libc::SIGUSR1),
    ignored_before_ignored_after => End::Success,
    a_handler_comes_back_as_it_was => End::Success,
    a_handler_set_meanwhile_is_left_alone => End::Success,
    a_handler_set_while_the_last_listener_goes_is_left_alone => End::Success,
    system_calls_are_restarted => End::Success,
    without_files_nothing_is_taken => End::Success,
}

fn after_the_drop_the_signal_kills() {
    let (ctx, signals) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&ctx), Signal::INTERRUPT);
    drop(signals);
    die_of(Signal::INTERRUPT);
}

fn after_stop_the_signal_kills() {
    let (_ctx, signals) = notify(&Context::background(), [Signal::TERMINATE]).expect("Unix");
    signals.stop();
    die_of(Signal::TERMINATE);
}

fn of_two_that_listen_one_may_go() {
    let (one, its) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    let (other, others) = notify(&Context::background(), [Signal::INTERRUPT]).expect("Unix");
    drop(its);
    assert_eq!(one.err().expect("done").to_string(), "context canceled");
    assert!(!other.is_done());
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&other), Signal::INTERRUPT);
    drop(others);
    die_of(Signal::INTERRUPT);
}

fn only_what_nobody_else_wants_is_given_back() {
    let root = Context::background();
    let (_a, both) = notify(&root, [Signal::INTERRUPT, Signal::HANGUP]).expect("Unix");
    let (hung_up, _one) = notify(&root, [Signal::HANGUP, Signal::HANGUP]).expect("Unix");
    drop(both);
    assert_eq!(action(Signal::INTERRUPT).sa_sigaction, libc::SIG_DFL);
    raised(Signal::HANGUP);
    assert_eq!(signal_that_ended(&hung_up), Signal::HANGUP);
}

fn a_listener_may_come_again() {
    for _ in 0..100 {
        let (ctx, _signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
        assert!(!ctx.is_done());
        raised(Signal::USER1);
        assert_eq!(signal_that_ended(&ctx), Signal::USER1);
    }
    die_of(Signal::USER1);
}

/// As `nohup` starts a program.
fn ignored_before_ignored_after() {
    set_action(Signal::HANGUP, libc::SIG_IGN, 0);
    let (ctx, signals) = notify(&Context::background(), [Signal::HANGUP]).expect("Unix");
    raised(Signal::HANGUP);
    assert_eq!(signal_that_ended(&ctx), Signal::HANGUP);
    drop(signals);
    assert_eq!(action(Signal::HANGUP).sa_sigaction, libc::SIG_IGN);
    raised(Signal::HANGUP); // and is not killed
}

static COUNTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: c_int) {
    COUNTED.fetch_add(1, Ordering::SeqCst);
}

fn counter() -> usize {
    count as extern "C" fn(c_int) as usize
}

fn a_handler_comes_back_as_it_was() {
    set_action(Signal::USER2, counter(), libc::SA_NODEFER);
    raised(Signal::USER2);
    let (ctx, signals) = notify(&Context::background(), [Signal::USER2]).expect("Unix");
    raised(Signal::USER2);
    assert_eq!(signal_that_ended(&ctx), Signal::USER2);
    assert_eq!(COUNTED.load(Ordering::SeqCst), 1, "it is not called meanwhile");
    drop(signals);
    raised(Signal::USER2);
    assert_eq!(COUNTED.load(Ordering::SeqCst), 2);
    assert_ne!(action(Signal::USER2).sa_flags & libc::SA_NODEFER, 0);
}

fn a_handler_set_meanwhile_is_left_alone() {
    let (_ctx, signals) = notify(&Context::background(), [Signal::USER2]).expect("Unix");
    set_action(Signal::USER2, counter(), 0);
    drop(signals);
    raised(Signal::USER2);
    assert_eq!(COUNTED.load(Ordering::SeqCst), 1);
}

fn system_calls_are_restarted() {
    let (_ctx, _signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    let flags = action(Signal::USER1).sa_flags;
    assert_ne!(flags & libc::SA_RESTART, 0);
    assert_ne!(flags & libc::SA_ONSTACK, 0);
}

/// The first `notify` needs two files and a thread.
fn without_files_nothing_is_taken() {
    support::allow_files(0);
    let (ctx, signals) = {
        let refused = notify(&Context::background(), [Signal::INTERRUPT]);
        assert!(refused.is_err_and(|err| err.raw_os_error() == Some(libc::EMFILE)));
        assert_eq!(action(Signal::INTERRUPT).sa_sigaction, libc::SIG_DFL);
        support::allow_files(64);
        notify(&Context::background(), [Signal::INTERRUPT]).expect("now there are")
    };
    raised(Signal::INTERRUPT);
    assert_eq!(signal_that_ended(&ctx), Signal::INTERRUPT);
    drop(signals);
}

/// Another thread sets its handler at some moment of the drop.
fn a_handler_set_while_the_last_listener_goes_is_left_alone() {
    extern "C" fn theirs(_: c_int) {}
    const ROUNDS: usize = 3_000;
    let round = AtomicUsize::new(0);
    let is_set = AtomicUsize::new(0);
    let handler = theirs as extern "C" fn(c_int) as usize;
    let mut lost = 0;
    let wait_for = |counter: &AtomicUsize, number| {
        while counter.load(Ordering::Acquire) != number {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| {
            for number in 1..=ROUNDS {
                while round.load(Ordering::Acquire) != number {
                    std::hint::spin_loop();
                }
                (0..number % 300).for_each(|_| std::hint::spin_loop());
                set_action(Signal::USER2, handler, 0);
                is_set.store(number, Ordering::Release);
            }
        });
        for number in 1..=ROUNDS {
            let listener = notify(&Context::background(), [Signal::USER2]).expect("Unix");
            round.store(number, Ordering::Release);
            drop(listener);
            wait_for(&is_set, number);
            lost += usize::from(action(Signal::USER2).sa_sigaction != handler);
            set_action(Signal::USER2, libc::SIG_DFL, 0);
        }
    });
    assert_eq!(lost, 0, "of {ROUNDS}");
}
