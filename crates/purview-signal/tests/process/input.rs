//! What is refused, and how signals are written.

use std::io::ErrorKind;

use purview::Context;
use purview_signal::{Notify, Signal, SignalReceived, notify};

use crate::unix::tests;

tests! {
    no_signals_are_refused => End::Success,
    some_numbers_are_refused => End::Success,
    signals_have_names => End::Success,
    it_can_be_sent_and_shared => End::Success,
}

fn no_signals_are_refused() {
    let (done, guard) = Context::background().with_cancel();
    guard.cancel();
    for parent in [Context::background(), done] {
        let err = notify(&parent, []).expect_err("no signals");
        assert_eq!(err.kind(), ErrorKind::InvalidInput);
        assert_eq!(err.to_string(), "no signals to listen for");
    }
}

fn some_numbers_are_refused() {
    for (number, why) in [
        (i32::MIN, "there is no signal -2147483648"),
        (-1, "there is no signal -1"),
        (0, "there is no signal 0"),
        (127, "there is no signal 127"),
        (i32::MAX, "there is no signal 2147483647"),
        (libc::SIGKILL, "SIGKILL cannot be listened for"),
        (libc::SIGSTOP, "SIGSTOP cannot be listened for"),
        (libc::SIGSEGV, "SIGSEGV is a fault, which cannot wait for anybody to listen"),
        (libc::SIGBUS, "SIGBUS is a fault, which cannot wait for anybody to listen"),
        (libc::SIGILL, "SIGILL is a fault, which cannot wait for anybody to listen"),
        (libc::SIGFPE, "SIGFPE is a fault, which cannot wait for anybody to listen"),
    ] {
        let err = Signal::from_raw(number).expect_err(why);
        assert_eq!(err.kind(), ErrorKind::InvalidInput);
        assert_eq!(err.to_string(), why);
    }
    // Whatever is not refused can be listened for.
    let all: Vec<Signal> = (0..200).filter_map(|number| Signal::from_raw(number).ok()).collect();
    assert!(all.len() > 20 && all.contains(&Signal::TERMINATE));
    let (_ctx, signals) = notify(&Context::background(), all).expect("all of them");
    drop(signals);
}

fn signals_have_names() {
    let names = [
        (Signal::INTERRUPT, "SIGINT"),
        (Signal::TERMINATE, "SIGTERM"),
        (Signal::HANGUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USER1, "SIGUSR1"),
        (Signal::USER2, "SIGUSR2"),
    ];
    for (signal, name) in names {
        assert_eq!((signal.to_string(), format!("{signal:?}")), (name.into(), name.into()));
        assert_eq!(Signal::from_raw(signal.number()).expect("there is"), signal);
    }
    #[cfg(target_os = "linux")]
    {
        let real_time = Signal::from_raw(40).expect("Linux has it");
        assert_eq!(real_time.to_string(), "signal 40");
        let (ctx, _signals) = notify(&Context::background(), [real_time]).expect("Linux has it");
        crate::support::raised(real_time);
        let err = crate::support::end_of(&ctx);
        assert_eq!(err.to_string(), "context canceled: signal 40 received");
    }
}

fn it_can_be_sent_and_shared() {
    fn both<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    both::<Notify>();
    both::<Signal>();
    both::<SignalReceived>();
}
