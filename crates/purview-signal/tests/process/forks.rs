//! The child of a fork has the handlers and not the thread.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use purview::Context;
use purview_signal::{Signal, notify};

use crate::support::{
    _exit, a_child_has_ended, action, alarm, count_in_proc, fork, has_new_process_ids,
    pthread_atfork, raised, set_action, signal_that_ended, waitpid,
};
use crate::unix::tests;

tests! {
    a_forked_child_dies_of_a_signal => End::Success,
    a_forked_child_ignores_what_was_ignored => End::Success,
    a_forked_child_can_listen_itself => End::Success,
    a_forked_child_can_stop => End::Success,
    a_fork_may_come_at_any_time => End::Success,
    a_full_line_holds_nobody_up => End::Success,
    what_came_to_the_parent_is_not_the_childs => End::Success,
    of_two_at_once_the_first_ends_first => End::Success,
    a_forked_child_that_listens_hears_all => End::Success,
    a_forked_child_with_its_parents_process_id_is_not_its_parent => End::Success,
}

/// Runs code in a forked child, and returns what became of that, as `waitpid` tells it. A panic is 2.
fn in_child(code: impl FnOnce()) -> c_int {
    match fork() {
        0 => _exit(if catch_unwind(AssertUnwindSafe(code)).is_ok() { 0 } else { 2 }),
        child => {
            assert!(child > 0, "fork failed");
            let mut status = -1;
            assert_eq!(waitpid(child, &mut status, 0), child);
            status
        }
    }
}

/// And the parent hears nothing of it.
fn a_forked_child_dies_of_a_signal() {
    let (ctx, _signals) = notify(&Context::background(), [Signal::TERMINATE]).expect("Unix");
    let status = in_child(|| raised(Signal::TERMINATE));
    assert!(libc::WIFSIGNALED(status), "{status}");
    assert_eq!(libc::WTERMSIG(status), libc::SIGTERM);
    assert!(!ctx.is_done());
    raised(Signal::TERMINATE);
    assert_eq!(signal_that_ended(&ctx), Signal::TERMINATE);
}

fn a_forked_child_ignores_what_was_ignored() {
    set_action(Signal::HANGUP, libc::SIG_IGN, 0);
    let (ctx, _signals) = notify(&Context::background(), [Signal::HANGUP]).expect("Unix");
    assert_eq!(in_child(|| raised(Signal::HANGUP)), 0);
    assert!(!ctx.is_done());
}

/// With one listener from before the fork, and a signal that came before it.
fn a_forked_child_can_listen_itself() {
    let (old, _signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    let status = in_child(|| {
        let files = count_in_proc("fd");
        let (new, signals) =
            notify(&Context::background(), [Signal::USER1, Signal::USER2]).expect("Unix");
        assert_eq!(count_in_proc("fd"), files, "the parent's line is closed");
        raised(Signal::USER1);
        assert_eq!(signal_that_ended(&new), Signal::USER1);
        assert_eq!(signal_that_ended(&old), Signal::USER1);
        raised(Signal::USER2);
        assert_eq!(signal_that_ended(&signals.again()), Signal::USER2);
    });
    assert_eq!(status, 0);
    assert!(!old.is_done());
    raised(Signal::USER1);
    assert_eq!(signal_that_ended(&old), Signal::USER1);
}

fn a_forked_child_can_stop() {
    let (ctx, signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    let status = in_child(|| {
        signals.stop();
        assert!(ctx.is_done());
        assert_eq!(action(Signal::USER1).sa_sigaction, libc::SIG_DFL);
    });
    assert_eq!(status, 0);
    assert!(!ctx.is_done());
}

/// Also while another thread is listing itself, or hears something.
fn a_fork_may_come_at_any_time() {
    let over = AtomicBool::new(false);
    let (_ctx, signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (_ctx, _signals) =
                    notify(&Context::background(), [Signal::USER2]).expect("Unix");
                raised(Signal::USER1);
            }
        });
        for _ in 0..300 {
            let status = in_child(|| {
                alarm(20);
                let (ctx, _new) = notify(&Context::background(), [Signal::USER2]).expect("Unix");
                raised(Signal::USER2);
                assert_eq!(signal_that_ended(&ctx), Signal::USER2);
                signals.stop();
            });
            assert_eq!(status, 0);
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Forks, and runs `before` right before. The crate's lock is held from then until the child has ended, so nothing that is
/// raised is heard in the meantime: what is registered first, before any listener is, runs last before the fork, and first
/// after it.
fn fork_with(before: extern "C" fn(), listen: impl FnOnce(), in_the_child: impl FnOnce()) {
    assert_eq!(pthread_atfork(Some(before), Some(a_child_has_ended), None), 0);
    listen();
    assert_eq!(in_child(in_the_child), 0);
}

extern "C" fn raise_many() {
    for _ in 0..10_000 {
        errno::set_errno(errno::Errno(77));
        raised(Signal::USER1);
        assert_eq!(errno::errno().0, 77, "although the write has failed");
    }
    raised(Signal::USER2);
}

/// The line takes some hundreds of bytes. What has no place in it is heard all the same, and not by the child.
fn a_full_line_holds_nobody_up() {
    let listeners = OnceLock::new();
    let listen = |signal| notify(&Context::background(), [signal]).expect("Unix");
    let all = || listeners.get().expect("made before the fork");
    fork_with(
        raise_many,
        || drop(listeners.set([Signal::USER1, Signal::USER2].map(listen))),
        || {
            let (_ctx, _signals) = listen(Signal::USER2);
            for (ctx, signals) in all() {
                signals.stop();
                assert!(ctx.err().expect("done").cause().is_none());
            }
        },
    );
    let [(many, signals), (one, others)] = all();
    assert_eq!(signal_that_ended(many), Signal::USER1);
    assert_eq!(signal_that_ended(&signals.again()), Signal::USER1);
    assert_eq!(signal_that_ended(one), Signal::USER2);
    assert!(!others.again().is_done());
}

extern "C" fn raise_two() {
    raised(Signal::USER2);
    raised(Signal::USER1);
}

/// Neither if the child listens itself, nor if it only stops.
fn what_came_to_the_parent_is_not_the_childs() {
    let listener = OnceLock::new();
    let listen = || notify(&Context::background(), [Signal::USER1, Signal::USER2]).expect("Unix");
    let made = || listener.get().expect("made before the fork");
    fork_with(
        raise_two,
        || drop(listener.set(listen())),
        || {
            let (old, signals) = made();
            let (new, _signals) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
            assert!(!new.is_done());
            raised(Signal::USER1);
            assert_eq!(signal_that_ended(&new), Signal::USER1);
            signals.stop();
            assert_eq!(signal_that_ended(old), Signal::USER1);
            assert!(signals.again().err().expect("done").cause().is_none(), "one was heard");
        },
    );
    let (ctx, signals) = made();
    assert_eq!(signal_that_ended(ctx), Signal::USER2, "neither by number, nor as they are listed");
    assert_eq!(signal_that_ended(&signals.again()), Signal::USER1);

    let (ctx, signals) = listen();
    let status = in_child(|| {
        signals.stop();
        assert!(ctx.err().expect("done").cause().is_none());
    });
    assert_eq!(status, 0);
    assert_eq!(signal_that_ended(&ctx), Signal::USER2);
}

/// Although the callbacks of the first block.
fn of_two_at_once_the_first_ends_first() {
    let (said, heard) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let mut listener = None;
    let listen = || {
        let (ctx, signals) =
            notify(&Context::background(), [Signal::USER1, Signal::USER2]).expect("Unix");
        ctx.on_done(move |_| wait.recv().unwrap_or_default()).detach();
        let first = ctx.clone();
        let say = move |_: &purview::Error| said.send(first.is_done()).expect("the test waits");
        signals.again().on_done(say).detach();
        (ctx, signals)
    };
    fork_with(raise_two, || listener = Some(listen()), || {});
    assert!(heard.recv_timeout(Duration::from_secs(30)).expect("it ends"));
    drop(go_on);
}

/// SIGURG does nothing by default. When it comes to a child in which nobody reads, its action is the default from then on.
fn a_forked_child_that_listens_hears_all() {
    let urgent = Signal::from_raw(libc::SIGURG).expect("there is");
    let (old, _signals) = notify(&Context::background(), [urgent]).expect("Unix");
    let status = in_child(|| {
        raised(urgent);
        let (_new, _others) = notify(&Context::background(), [Signal::USER1]).expect("Unix");
        assert!(!old.is_done());
        raised(urgent);
        assert_eq!(signal_that_ended(&old), urgent);
    });
    assert_eq!(status, 0);
}

/// Each of the two is the first process of a namespace of its own, and so has the number 1. Where the process may have
/// no namespaces, there is nothing to test.
fn a_forked_child_with_its_parents_process_id_is_not_its_parent() {
    if !has_new_process_ids() {
        return;
    }
    let status = in_child(|| {
        let listen = |signal| notify(&Context::background(), [signal]).expect("Unix");
        let ((parents, _first), (after, _second)) = (listen(Signal::USER1), listen(Signal::USER2));
        assert!(std::process::id() == 1 && has_new_process_ids());
        let status = in_child(|| {
            assert_eq!(std::process::id(), 1);
            raised(Signal::USER1);
            let (own, _signals) = listen(Signal::HANGUP);
            raised(Signal::HANGUP);
            assert_eq!(signal_that_ended(&own), Signal::HANGUP);
            assert!(!parents.is_done());
        });
        assert_eq!(status, 0);
        raised(Signal::USER2); // behind what the child wrote to the parent's line, if it did
        assert_eq!(signal_that_ended(&after), Signal::USER2);
        assert!(!parents.is_done(), "it came to the child");
    });
    assert_eq!(status, 0);
}
