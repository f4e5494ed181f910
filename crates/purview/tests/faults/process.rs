//! F10, F11, F22–F24: ends of threads and processes, and signals.

use std::cell::Cell;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{CancelGuard, Context, Error, Key, Semaphore, TaskGroup};

use crate::child::{DONE, Running, alone, command};
use crate::support::{HOUR, SECOND, poll, sys, watched};

const MILLI: Duration = Duration::from_millis(1);
static KEY: Key<u32> = Key::new("key");

/// Uses all that needs a thread's own memory: waits, callbacks, numbers, timers. With a deadline, or without.
fn use_everything(deadlines: bool) {
    let (ctx, guard) = Context::background().with_value(&KEY, 1).with_cancel();
    let (child, _child_guard) = ctx.with_timeout(HOUR);
    assert!(child.done().wait_timeout(Duration::ZERO).is_none());
    assert!(poll(pin!(child.sleep(HOUR)), Waker::noop()).is_pending());
    let clock = ManualClock::new();
    let (timed, _timed_guard) = clock.root().with_timeout(SECOND);
    let called = Arc::new(AtomicUsize::new(0));
    let count = |ctx: &Context| {
        let called = Arc::clone(&called);
        ctx.on_done(move |_| _ = called.fetch_add(1, Ordering::SeqCst))
    };
    let registrations = [count(&child), count(&timed)];
    clock.advance(SECOND);
    guard.cancel();
    assert!(child.done().wait().is_canceled() && child.value(&KEY) == Some(&1));
    assert_eq!(called.load(Ordering::SeqCst), 2);
    drop(registrations);
    let semaphore = Semaphore::new(1);
    let permit = semaphore.acquire_blocking(&Context::background(), 1).expect("it is free");
    assert!(semaphore.acquire_blocking(&child, 1).is_err());
    drop(permit);
    let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    group.spawn_thread(|_ctx| Ok(()));
    assert!(group.join_blocking().is_ok());
    if deadlines {
        let (short, _guard) = Context::background().with_timeout(MILLI);
        let (say, hear) = mpsc::channel();
        short.on_done(move |_| _ = say.send(())).detach();
        assert!(short.done().wait().is_deadline_exceeded());
        hear.recv().expect("it is called");
        assert!(Context::background().sleep_blocking(MILLI).is_ok());
    }
}

/// Uses everything when it goes.
struct UsesAll(&'static AtomicUsize);

impl Drop for UsesAll {
    fn drop(&mut self) {
        use_everything(true);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local!(static LAST: Cell<Option<UsesAll>> = const { Cell::new(None) });

#[test]
fn f10_a_threads_destructors_may_use_everything_whatever_is_gone_before_them() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    watched(|| {
        for first in [false, true] {
            let uses = move || {
                // What is made first goes last: so once with this library's own already gone, once without.
                if first {
                    LAST.set(Some(UsesAll(&GONE)));
                }
                use_everything(true);
                LAST.set(Some(UsesAll(&GONE)));
            };
            thread::spawn(uses).join().expect("no panic");
        }
        // Of the one that was set twice, both.
        crate::support::until(|| GONE.load(Ordering::SeqCst) == 3);
    });
}

#[test]
fn f10_at_exit_the_exiting_threads_destructors_and_handlers_may_use_everything() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    const SEEN: i32 = 43;
    extern "C" fn at_exit() {
        assert_eq!(GONE.load(Ordering::SeqCst), 1, "the thread's own have gone before");
        use_everything(true);
        sys::_exit(SEEN);
    }
    let child = command(&[], || {
        assert_eq!(sys::atexit(at_exit), 0);
        use_everything(true);
        LAST.set(Some(UsesAll(&GONE)));
    });
    Running::start(child).end().is(SEEN);
}

#[test]
fn f11_contexts_in_statics_that_nobody_drops_are_no_matter_at_the_end() {
    static KEPT: OnceLock<(Context, CancelGuard, purview::OnDone)> = OnceLock::new();
    static ROOT: Context = Context::background();
    alone(|| {
        let (ctx, guard) = ROOT.with_timeout(HOUR);
        let registration = ctx.on_done(|_| panic!("nobody ends it"));
        assert!(ctx.done().wait_timeout(MILLI).is_none());
        assert!(KEPT.set((ctx, guard, registration)).is_ok());
    });
}

/// In a forked child, which this makes: runs `code` and ends, quietly, with [`DONE`]. To be waited for.
pub(crate) fn forked(code: impl FnOnce()) -> i32 {
    match sys::fork() {
        0 => {
            sys::alarm(20); // it inherits none
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
            sys::_exit(if result.is_ok() { DONE } else { 1 });
        }
        pid => {
            assert!(pid > 0, "fork failed");
            let mut status = -1;
            assert_eq!(sys::waitpid(pid, &mut status, 0), pid);
            status
        }
    }
}

#[test]
fn f22_a_process_may_exit_at_any_moment_with_its_timer_in_the_middle_of_its_work() {
    alone(|| {
        for round in 0..100_u64 {
            let status = forked(|| {
                let mut kept = Vec::new();
                for n in 0..100 {
                    let (ctx, guard) =
                        Context::background().with_timeout(Duration::from_micros(n * 10));
                    kept.push((ctx.on_done(|_| thread::yield_now()), guard));
                }
                // One that blocks for ever.
                let (never, silent) = mpsc::channel::<()>();
                let (ctx, guard) = Context::background().with_timeout(MILLI);
                let blocks =
                    thread::spawn(move || ctx.on_done(move |_| _ = silent.recv()).detach());
                // Somewhere among them.
                let (ctx, _guard) =
                    Context::background().with_timeout(Duration::from_micros(round * 10));
                drop(ctx.done().wait());
                std::mem::forget((kept, never, guard, blocks));
                std::process::exit(DONE);
            });
            assert_eq!(status, DONE << 8, "round {round}");
        }
    });
}

#[test]
fn f22_a_process_may_become_another_program_with_its_timer_alive() {
    let child = command(&[], || {
        use_everything(true);
        let (ctx, _guard) = Context::background().with_timeout(MILLI);
        let _registration = ctx.on_done(|_| {});
        let failed = Command::new("/bin/sh").args(["-c", "exit 43"]).exec();
        panic!("{failed}");
    });
    Running::start(child).end().is(43);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn f23_a_storm_of_signals_wakes_nobody_early_and_keeps_nobody_up() {
    use std::ffi::c_int;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    static HEARD: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn hear(_signal: c_int) {
        HEARD.fetch_add(1, Ordering::SeqCst);
    }
    alone(|| {
        sys::signal(sys::SIGUSR1, hear);
        assert_eq!(sys::siginterrupt(sys::SIGUSR1, 1), 0);
        let over = AtomicBool::new(false);
        thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // To every thread there is, in the middle of whatever it does.
                    for task in std::fs::read_dir("/proc/self/task").expect("Linux has it") {
                        let name = task.expect("readable").file_name();
                        let thread = name.to_string_lossy().parse().expect("a number");
                        sys::tgkill(sys::getpid(), thread, sys::SIGUSR1);
                    }
                }
            });
            for _ in 0..20 {
                let begun = Instant::now();
                assert!(Context::background().sleep_blocking(2 * MILLI).is_ok());
                assert!(begun.elapsed() >= 2 * MILLI);
                let (ctx, guard) = Context::background().with_cancel();
                let begun = Instant::now();
                assert!(ctx.done().wait_timeout(2 * MILLI).is_none(), "it has not ended");
                assert!(begun.elapsed() >= 2 * MILLI);
                let waits = s.spawn(move || ctx.done().wait());
                guard.cancel_with("through it all");
                let err = waits.join().expect("no panic");
                assert_eq!(err.to_string(), "context canceled: through it all");
                use_everything(true);
            }
            crate::support::until(|| HEARD.load(Ordering::SeqCst) > 1_000);
            over.store(true, Ordering::Relaxed);
        });
    });
}

/// A set of signals of a thread, as `/proc` has it: a bit for each, from 1 on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn signals(thread: &std::path::Path, set: &str) -> u64 {
    let status = std::fs::read_to_string(thread.join("status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("Linux has it");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn f23_no_handler_runs_on_the_threads_of_timers_and_callbacks() {
    use std::ffi::c_int;
    use std::path::PathBuf;

    static HEARD: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn hear(_signal: c_int) {
        HEARD.fetch_add(1, Ordering::SeqCst);
    }
    const BY_THE_THREAD_ITSELF: [u32; 7] = [4, 5, 6, 7, 8, 11, 31];

    alone(|| {
        sys::signal(sys::SIGUSR1, hear);
        let before = signals("/proc/thread-self".as_ref(), "SigBlk");
        use_everything(true);
        assert_eq!(signals("/proc/thread-self".as_ref(), "SigBlk"), before, "restored");

        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
        let tasks: Vec<PathBuf> = tasks.map(|task| task.expect("readable").path()).collect();
        let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).expect("it lives");
        let ours: Vec<_> = tasks.iter().filter(|task| name(task).starts_with("purview-")).collect();
        assert_eq!(ours.len(), 2, "one for time and one for callbacks");
        for task in &ours {
            let blocked = signals(task, "SigBlk");
            let kept = BY_THE_THREAD_ITSELF.iter().fold(0, |set, signal| set | 1 << (signal - 1));
            // No program can block these two; the C library keeps two more for itself.
            let all = !(1 << (9 - 1) | 1 << (19 - 1) | 0b11 << (32 - 1));
            assert_eq!(blocked, all & !kept, "{:x} on {}", blocked ^ (all & !kept), name(task));
            let number = task.file_name().expect("a number").to_string_lossy().into_owned();
            sys::tgkill(sys::getpid(), number.parse().expect("a number"), sys::SIGUSR1);
        }
        // They go on, and do not hear of it. A signal that is sent to the process is another thread's.
        (0..10).for_each(|_| use_everything(true));
        assert_eq!(HEARD.load(Ordering::SeqCst), 0);
        for task in ours {
            assert_ne!(signals(task, "SigPnd") & 1 << (sys::SIGUSR1 - 1), 0, "it waits");
        }
        sys::kill(sys::getpid(), sys::SIGUSR1);
        crate::support::until(|| HEARD.load(Ordering::SeqCst) == 1);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn f24_a_process_that_is_stopped_and_continued_finds_its_deadlines_passed_and_goes_on() {
    let child = command(&[], || {
        let called = Arc::new(AtomicUsize::new(0));
        let mut all = Vec::new();
        for n in 0..50_u32 {
            let (ctx, guard) = Context::background().with_timeout(5 * MILLI + n * MILLI / 5);
            let called = Arc::clone(&called);
            all.push((ctx.on_done(move |_| _ = called.fetch_add(1, Ordering::SeqCst)), guard));
        }
        sys::kill(sys::getpid(), sys::SIGSTOP);
        for (_, guard) in &all {
            assert!(guard.context().done().wait().is_deadline_exceeded());
        }
        crate::support::until(|| called.load(Ordering::SeqCst) == all.len());
        use_everything(true);
    });
    let child = Running::start(child);
    let mut status = 0;
    assert_eq!(sys::waitpid(child.pid(), &mut status, sys::WUNTRACED), child.pid());
    assert_eq!(status & 0xff, 0x7f, "it has stopped");
    // Meanwhile their time is up.
    assert!(Context::background().sleep_blocking(20 * MILLI).is_ok());
    assert_eq!(sys::kill(child.pid(), sys::SIGCONT), 0);
    child.end().is(DONE);
}
