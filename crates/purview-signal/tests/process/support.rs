//! What several topics need: the system's side of signals, and waiting with a bound.
#![expect(unsafe_code, reason = "std knows neither signals nor forks")]
#![expect(clippy::print_stdout, reason = "what a test prints is looked at by its parent")]

use std::ffi::c_int;
use std::io::Write;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use purview::{Context, Error};
use purview_signal::{Signal, SignalReceived};

/// Printed right before the process is to be killed.
pub(crate) const READY: &str = "not killed yet";

unsafe extern "C" {
    /// POSIX: to the calling thread. When it returns, the handler has run.
    pub(crate) safe fn raise(signal: c_int) -> c_int;
    /// POSIX.
    pub(crate) safe fn alarm(seconds: u32) -> u32;
    /// POSIX. What is registered first to be called before a fork, is called last.
    pub(crate) safe fn pthread_atfork(
        before: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
    /// POSIX. The child has no thread but the one that called it.
    pub(crate) safe fn fork() -> c_int;
    /// POSIX.
    pub(crate) safe fn _exit(status: c_int) -> !;
    /// POSIX; `status` is written.
    pub(crate) safe fn waitpid(pid: c_int, status: &mut c_int, options: c_int) -> c_int;
    /// POSIX: to a process.
    pub(crate) safe fn kill(pid: c_int, signal: c_int) -> c_int;
    /// POSIX.
    pub(crate) safe fn getpid() -> c_int;
}

/// To the process: on whatever thread the system likes.
pub(crate) fn kill_self(signal: Signal) {
    assert_eq!(kill(getpid(), signal.number()), 0);
}

pub(crate) fn raised(signal: Signal) {
    assert_eq!(raise(signal.number()), 0);
}

/// Raises a signal that is to kill the process.
pub(crate) fn die_of(signal: Signal) {
    println!("{READY}");
    std::io::stdout().flush().expect("the parent reads it");
    raised(signal);
    println!("survived {signal}");
}

pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// What a signal does now.
pub(crate) fn action(signal: Signal) -> libc::sigaction {
    let mut now = MaybeUninit::uninit();
    // SAFETY: nothing is set; what is there is written.
    let result = unsafe { libc::sigaction(signal.number(), ptr::null(), now.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: written, as there was no error.
    unsafe { now.assume_init() }
}

/// Sets what a signal does: [`libc::SIG_IGN`], [`libc::SIG_DFL`], or a handler's address.
pub(crate) fn set_action(signal: Signal, handler: usize, flags: c_int) {
    // SAFETY: all zeros is the default action.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the tests' handlers take a number, and do nothing but count.
    let result = unsafe { libc::sigaction(signal.number(), &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// A process inherits what is ignored: in the background of a shell, that is SIGINT.
pub(crate) fn forget_what_was_inherited() {
    for signal in
        [Signal::INTERRUPT, Signal::TERMINATE, Signal::HANGUP, Signal::USER1, Signal::USER2]
    {
        set_action(signal, libc::SIG_DFL, 0);
    }
}

/// Files with numbers from here on cannot be opened.
pub(crate) fn allow_files(below: libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: written to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = below;
    // SAFETY: read from.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Waits until a child has ended, and leaves it to be waited for.
pub(crate) extern "C" fn a_child_has_ended() {
    let mut what = MaybeUninit::uninit();
    // SAFETY: written to.
    unsafe { libc::waitid(libc::P_ALL, 0, what.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
}

/// Waits for the end, with a bound.
pub(crate) fn end_of(ctx: &Context) -> Error {
    ctx.done().wait_timeout(Duration::from_secs(30)).expect("it ends")
}

/// Waits for the end, which is to have a signal as its cause.
pub(crate) fn signal_that_ended(ctx: &Context) -> Signal {
    let err = end_of(ctx);
    let cause = err.cause().expect("a signal is a cause");
    cause.downcast_ref::<SignalReceived>().expect("it keeps its type").signal()
}

/// The names of what is in a folder of `/proc/self`, where there is one.
pub(crate) fn count_in_proc(folder: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{folder}")).map_or(0, Iterator::count)
}

/// The processes that this one forks from here on count from 1, the first of them being the next. False if it may not, or on other systems.
#[cfg(target_os = "linux")]
pub(crate) fn has_new_process_ids() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::unshare(libc::CLONE_NEWPID) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn has_new_process_ids() -> bool {
    false
}
