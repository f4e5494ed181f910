//! Keeps signals off the threads that this crate starts for itself: a handler is the program's, and what it does (a `siglongjmp`, a
//! loop that waits, a use of thread-locals) would be done to everybody's deadlines.
//!
//! The mask is set on the thread that starts another, just around the start, since the new thread inherits it. If the new thread set
//! its own mask, a signal could come before that. What is sent meanwhile waits, or goes to another thread.
//!
//! Signals that a thread brings upon itself (a fault, an abort) are not blocked: while blocked, some of them end the process without
//! their handler. Only systems whose numbers are known here have masks; on all others nothing is changed.

pub(super) use imp::without_signals;

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
mod imp {
    #![expect(unsafe_code, reason = "std knows no signals")]

    use std::ffi::c_int;

    /// A `sigset_t`: at most 128 bytes on these systems, and no call touches more than it needs.
    #[repr(C, align(16))]
    struct Signals([u8; 128]);

    const IS_LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
    const IS_SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));
    const IS_MIPS: bool = cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "mips32r6",
        target_arch = "mips64r6"
    ));

    /// The numbers that most Linux systems have; on MIPS and SPARC it has those of the Unix that was there before.
    const IS_USUAL: bool = IS_LINUX && !IS_MIPS && !IS_SPARC;

    const SIG_SETMASK: c_int = match (IS_USUAL, IS_LINUX && IS_SPARC) {
        (true, _) => 2,
        (false, false) => 3,
        (false, true) => 4,
    };
    const SIGBUS: c_int = if IS_USUAL { 7 } else { 10 };
    const SIGSYS: c_int = if IS_USUAL { 31 } else { 12 };
    /// `SIGILL`, `SIGTRAP`, `SIGABRT`, `SIGFPE` and `SIGSEGV`, which have the same numbers everywhere, and two that do not.
    const BY_THE_THREAD_ITSELF: [c_int; 7] = [4, 5, 6, 8, 11, SIGBUS, SIGSYS];

    unsafe extern "C" {
        /// POSIX. Changes the calling thread's mask.
        safe fn pthread_sigmask(
            how: c_int,
            new: Option<&Signals>,
            old: Option<&mut Signals>,
        ) -> c_int;
        /// POSIX.
        safe fn sigfillset(set: &mut Signals) -> c_int;
        /// POSIX.
        safe fn sigdelset(set: &mut Signals, signal: c_int) -> c_int;
    }

    /// Gives a thread its mask back, also after a panic.
    struct Restore(Signals);

    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = pthread_sigmask(SIG_SETMASK, Some(&self.0), None);
        }
    }

    /// Runs `start`, by which a thread is started that gets no signals.
    pub(crate) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
        let mut all = Signals([0; 128]);
        let _ = sigfillset(&mut all);
        for signal in BY_THE_THREAD_ITSELF {
            let _ = sigdelset(&mut all, signal);
        }
        let mut before = Signals([0; 128]);
        let changed = pthread_sigmask(SIG_SETMASK, Some(&all), Some(&mut before)) == 0;
        let _restore = changed.then(|| Restore(before));
        start()
    }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
)))]
mod imp {
    pub(crate) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
        start()
    }
}
