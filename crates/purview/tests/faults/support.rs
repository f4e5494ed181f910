//! What several topics need.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::{Duration, Instant};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// Nothing here takes so long; it is for a machine that is busy.
pub(crate) const LONG: Duration = Duration::from_secs(100);

/// Polls once with `waker`.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Task::from_waker(waker))
}

/// Counts its wake-ups.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::<Wakes>::default();
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that runs code.
pub(crate) fn waker_of(code: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Run<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for Run<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Waker::from(Arc::new(Run(code)))
}

/// Runs `code` on a thread, and fails where that hangs.
pub(crate) fn watched<R: Send + 'static>(code: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = tell.send(code());
    });
    match told.recv_timeout(LONG) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it panicked"))
        }
    }
}

/// Waits until that is so.
#[track_caller]
pub(crate) fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it does not come to that");
        std::thread::yield_now();
    }
}

/// A small xorshift: the same sequence in every run.
pub(crate) fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % below as u64).expect("small")
}

/// The system's side.
#[cfg(unix)]
#[expect(unsafe_code, reason = "std knows neither signals nor forks")]
pub(crate) mod sys {
    use std::ffi::c_int;

    unsafe extern "C" {
        /// POSIX.
        pub(crate) safe fn alarm(seconds: u32) -> u32;
        /// POSIX. The child has no thread but the one that called it.
        pub(crate) safe fn fork() -> c_int;
        /// POSIX.
        pub(crate) safe fn _exit(status: c_int) -> !;
        /// POSIX; `status` is written.
        pub(crate) safe fn waitpid(pid: c_int, status: &mut c_int, options: c_int) -> c_int;
        /// POSIX: to a process.
        #[cfg(target_os = "linux")]
        pub(crate) safe fn kill(pid: c_int, signal: c_int) -> c_int;
        /// POSIX.
        #[cfg(target_os = "linux")]
        pub(crate) safe fn getpid() -> c_int;
        /// C: to be called when the process exits, after the calling thread's locals are gone.
        pub(crate) safe fn atexit(call: extern "C" fn()) -> c_int;
        /// C. The handler is the test's, and does nothing but count.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        pub(crate) safe fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> usize;
        /// POSIX: whether the signal interrupts system calls.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        pub(crate) safe fn siginterrupt(signal: c_int, flag: c_int) -> c_int;
        /// Linux: to a thread.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        pub(crate) safe fn tgkill(pid: c_int, thread: c_int, signal: c_int) -> c_int;
        /// POSIX; the limit is read.
        #[cfg(target_os = "linux")]
        pub(crate) safe fn setrlimit(resource: c_int, limit: &Limit) -> c_int;
    }

    /// What a process may use: for now, and at the most.
    #[cfg(target_os = "linux")]
    #[repr(C)]
    pub(crate) struct Limit(pub(crate) u64, pub(crate) u64);

    #[cfg(target_os = "linux")]
    pub(crate) const SIGABRT: c_int = 6;
    /// Waiting for a child returns also when it has stopped.
    #[cfg(target_os = "linux")]
    pub(crate) const WUNTRACED: c_int = 2;
    #[cfg(target_os = "linux")]
    pub(crate) const SIGUSR1: c_int = 10;
    #[cfg(target_os = "linux")]
    pub(crate) const SIGCONT: c_int = 18;
    #[cfg(target_os = "linux")]
    pub(crate) const SIGSTOP: c_int = 19;
}
