//! What concerns the whole process: its threads, and forks. One program without a test harness, so that it begins with
//! one thread.

#[cfg(target_os = "linux")]
fn main() {
    linux::no_thread_before_a_deadline_is_waited_for_then_one_for_time_and_one_for_callbacks();
    linux::deadlines_survive_a_fork();
    linux::timers_are_those_that_somebody_has_waited_for_and_that_have_not_ended();
    linux::report();
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::print_stdout, reason = "says what it does not do")]
fn main() {
    println!("skipped: threads are counted in /proc, which is Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::c_int;
    use std::sync::{Arc, Barrier, mpsc};
    use std::time::{Duration, Instant};

    use purview::Context;
    use purview::observe::timers;

    /// Nothing here takes so long; it is for a machine that is busy.
    const LONG: Duration = Duration::from_secs(60);

    /// The names of the process's threads but the main one.
    fn threads() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
        let names = tasks.filter_map(|task| {
            let path = task.expect("readable").path();
            let is_main = path.file_name().is_some_and(|id| *id == *std::process::id().to_string());
            // A thread may be gone by now.
            (!is_main).then(|| std::fs::read_to_string(path.join("comm")).unwrap_or_default())
        });
        let mut names: Vec<String> = names.map(|name| name.trim().to_string()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names
    }

    /// There are these and no others. A thread that has just begun has its starter's name, until it gives itself its own.
    #[track_caller]
    fn assert_threads(names: &[&str]) {
        let begun = Instant::now();
        while threads() != names && begun.elapsed() < LONG {
            std::thread::yield_now();
        }
        assert_eq!(threads(), names);
    }

    pub(super) fn no_thread_before_a_deadline_is_waited_for_then_one_for_time_and_one_for_callbacks()
     {
        let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(3600));
        let (child, _guard) = ctx.with_timeout(Duration::from_nanos(1));
        while !child.is_done() {}
        assert!(!ctx.is_done() && child.err().is_some() && ctx.remaining().is_some());
        let (plain, plain_guard) = Context::background().with_cancel();
        let registration = plain.on_done(|_| {});
        plain_guard.cancel();
        drop(registration);
        assert_eq!(threads(), [""; 0], "nobody has waited for a deadline");

        let _ = ctx.done().wait_timeout(Duration::from_millis(1));
        assert_threads(&["purview-timer"]);
        let mut keep = Vec::new();
        for _ in 0..1000 {
            let (ctx, guard) = Context::background().with_timeout(Duration::from_millis(1));
            assert!(keep.len() % 100 != 0 || ctx.done().wait().is_deadline_exceeded());
            keep.push(guard);
        }
        assert_threads(&["purview-timer"]);
        let (said, heard) = mpsc::channel();
        for _ in 0..100 {
            let (ctx, guard) = Context::background().with_timeout(Duration::from_millis(1));
            let said = said.clone();
            ctx.on_done(move |_| said.send(()).expect("the test waits")).detach();
            keep.push(guard);
        }
        (0..100).for_each(|_| heard.recv().expect("called"));
        let quiet = ["purview-callbac", "purview-timer"]; // cut at 15 bytes by the system
        assert_threads(&quiet);

        // Where callbacks block there are more, which go again when they are not needed any more.
        let barrier = Arc::new(Barrier::new(4));
        for _ in 0..3 {
            let (ctx, guard) = Context::background().with_timeout(Duration::from_millis(1));
            let barrier = Arc::clone(&barrier);
            ctx.on_done(move |_| _ = barrier.wait()).detach();
            keep.push(guard);
        }
        assert_threads(&["purview-callbac", "purview-callbac", "purview-callbac", "purview-timer"]);
        barrier.wait();
        assert_threads(&quiet);
        guard.cancel();
    }

    #[expect(unsafe_code, reason = "std knows no fork")]
    mod sys {
        use std::ffi::c_int;
        unsafe extern "C" {
            /// POSIX. The child of a process with threads may only do what its locks allow; purview sees to its own.
            pub(super) safe fn fork() -> c_int;
            /// POSIX.
            pub(super) safe fn _exit(status: c_int) -> !;
            /// POSIX; `status` is written.
            pub(super) safe fn waitpid(pid: c_int, status: &mut c_int, options: c_int) -> c_int;
        }
    }

    pub(super) fn deadlines_survive_a_fork() {
        let (old, _guard) = Context::background().with_timeout(Duration::from_millis(20));
        let registration = old.on_done(|_| {}); // armed before the fork
        for _ in 0..20 {
            match sys::fork() {
                0 => {
                    // The child: no thread but this one. A panic here must not go back into the test.
                    let code = std::panic::catch_unwind(|| {
                        let (ctx, _guard) =
                            Context::background().with_timeout(Duration::from_millis(1));
                        let (said, heard) = mpsc::channel();
                        ctx.on_done(move |_| said.send(()).unwrap_or_default()).detach();
                        let by_time = ctx.done().wait().is_deadline_exceeded();
                        let called = heard.recv().is_ok();
                        let before_the_fork = old.done().wait().is_deadline_exceeded();
                        c_int::from(!(by_time && called && before_the_fork))
                    });
                    sys::_exit(code.unwrap_or(2));
                }
                child => {
                    assert!(child > 0, "fork failed");
                    let mut status = -1;
                    assert_eq!(sys::waitpid(child, &mut status, 0), child);
                    assert_eq!(
                        status, 0,
                        "the child's deadlines, its callback, and one from before the fork"
                    );
                }
            }
        }
        assert!(old.done().wait().is_deadline_exceeded());
        drop(registration);
    }

    pub(super) fn timers_are_those_that_somebody_has_waited_for_and_that_have_not_ended() {
        let hour = Duration::from_secs(3600);
        assert_eq!(timers(), 0, "what ended above is in none");
        let (outer, outer_guard) = Context::background().with_timeout(hour);
        let (inner, inner_guard) = outer.with_timeout(hour / 2);
        assert_eq!(timers(), 0, "nobody waits");
        drop(inner.on_done(|_| {}));
        let sleeps = std::thread::spawn(move || inner.sleep_blocking(hour));
        let begun = Instant::now();
        while timers() != 3 && begun.elapsed() < LONG {
            std::thread::yield_now();
        }
        assert_eq!(timers(), 3, "two deadlines and a sleep");
        inner_guard.cancel();
        assert!(sleeps.join().expect("it does not panic").is_err());
        assert_eq!(timers(), 1, "the outer one has not ended");
        outer_guard.cancel();
        assert_eq!(timers(), 0);
    }

    #[expect(clippy::print_stdout, reason = "says what was run, as the harness would")]
    pub(super) fn report() {
        println!("3 passed, 0 failed");
    }
}
