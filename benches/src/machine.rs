//! What the workloads ask of the machine: cores, the scheduler's books, memory, the allocator's temper.
//!
//! All of it is Linux (and `mallopt` glibc); elsewhere the answers are zero, and a thread is "not pinned".
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "affinity, resource usage and malloc's options are C functions")
)]

#[cfg(target_os = "linux")]
use std::ffi::c_int;
use std::fs;
use std::hint::black_box;
use std::thread;

/// Ties the calling thread to the `nth` of the cores that this process may use. False where that cannot be done.
pub(crate) fn pin(nth: usize) -> bool {
    cfg!(target_os = "linux") && cores().get(nth).is_some_and(|&core| tie(core))
}

/// Whether two threads can run at once, each on a core of its own.
pub(crate) fn has_two_cores() -> bool {
    cores().len() >= 2
}

/// How long the calling thread has been runnable but not running, in ns: the second field of its schedstat.
pub(crate) fn waited() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat").map_or(0, |text| nth_number(&text, 1))
}

/// The same of all threads of the process together.
pub(crate) fn waited_by_all() -> u64 {
    tasks("schedstat").iter().map(|text| nth_number(text, 1)).sum()
}

/// CPU time of the process so far, in ns.
pub(crate) fn cpu() -> u64 {
    #[cfg(target_os = "linux")]
    {
        const SELF: c_int = 0;
        let mut usage = Usage::default();
        // SAFETY: `usage` is as large as C's struct rusage (glibc and musl, 64 bits), and outlives the call.
        unsafe { getrusage(SELF, &raw mut usage) };
        let [user_s, user_us, system_s, system_us] = usage.times.map(i64::unsigned_abs);
        (user_s + system_s) * 1_000_000_000 + (user_us + system_us) * 1_000
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Resident memory of the process, in bytes.
pub(crate) fn resident() -> u64 {
    const PAGE: u64 = 4096;
    fs::read_to_string("/proc/self/statm").map_or(0, |text| nth_number(&text, 1) * PAGE)
}

/// How many threads the process has.
pub(crate) fn threads() -> u64 {
    tasks("comm").len() as u64
}

/// How often threads of the process have gone to sleep, and how long they have run, in ns; without the calling one.
pub(crate) fn others() -> (u64, u64) {
    let me = fs::read_link("/proc/thread-self").unwrap_or_default();
    let me = me.file_name().unwrap_or_default();
    let mut sum = (0, 0);
    for folder in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        if folder.file_name() != me {
            let read = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
            let status = read("status");
            let switches = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            sum.0 += switches.map_or(0, |text| nth_number(text, 0));
            sum.1 += nth_number(&read("schedstat"), 0);
        }
    }
    sum
}

/// Has a heap of `bytes` at hand, and tells glibc to keep what is freed: otherwise the rows of a million measure page faults.
pub(crate) fn prepare_heap(bytes: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_TOP_PAD: c_int = -2;
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_MMAP_MAX: c_int = -4;
        const MIB: c_int = 1 << 20;
        for (option, value) in [
            (M_TRIM_THRESHOLD, c_int::MAX),
            (M_TOP_PAD, 64 * MIB),
            (M_MMAP_THRESHOLD, 32 * MIB), // the most that it takes
            (M_MMAP_MAX, 0),
        ] {
            mallopt(option, value);
        }
    }
    const PIECE: usize = 1 << 20;
    let pieces = (0..bytes / PIECE).map(|_| vec![1_u8; PIECE]);
    drop(black_box(pieces.collect::<Vec<_>>()));
}

/// The cores this process may use.
fn cores() -> Vec<usize> {
    // The main thread's: it is never pinned, and who asks may be.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = Vec::new();
    for range in list.unwrap_or_default().trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) {
            cores.extend(from..=to);
        }
    }
    if cores.is_empty() {
        cores.extend(0..thread::available_parallelism().map_or(1, usize::from));
    }
    cores
}

fn tie(core: usize) -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut mask = [0_u64; 16];
        let Some(word) = mask.get_mut(core / 64) else { return false };
        *word = 1 << (core % 64);
        // SAFETY: the mask is as long as is said, and outlives the call; 0 is the calling thread.
        unsafe { sched_setaffinity(0, size_of_val(&mask), mask.as_ptr()) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = core;
        false
    }
}

/// A file of each thread.
fn tasks(name: &str) -> Vec<String> {
    let folders = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    folders.filter_map(|folder| fs::read_to_string(folder.path().join(name)).ok()).collect()
}

fn nth_number(text: &str, nth: usize) -> u64 {
    text.split_whitespace().nth(nth).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(target_os = "linux")]
#[derive(Default)]
#[repr(C)]
struct Usage {
    /// Seconds and microseconds in user mode, then in the system.
    times: [i64; 4],
    rest: [i64; 14],
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    fn sched_setaffinity(thread: c_int, size: usize, mask: *const u64) -> c_int;
    fn getrusage(who: c_int, usage: *mut Usage) -> c_int;
    #[cfg(target_env = "gnu")]
    safe fn mallopt(option: c_int, value: c_int) -> c_int;
}
