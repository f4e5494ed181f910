//! What each operation may allocate, counted by a global allocator of this test's own.
//!
//! Counts are of the thread that asks, so that the harness's threads and the timer's don't blur them; one test counts all
//! threads. Figures are for the second time and later: what is made once (a thread's parker, the timer's heap and thread) is
//! made by then. Run one at a time, for the system's clock has one heap for the whole process, which grows with its peak.
//!
//! The figures are exact where std's locks are futexes. Apple's are boxed when they are first used, so nothing is counted
//! there.
#![cfg(not(target_vendor = "apple"))]
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context as Task, Poll, Waker};
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{CancelHandle, Context, Error, Key, Spawn, TaskGroup};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_micros(50);

// ── counting ───────────────────────────────────────────────────────────────────────────────────────────────────────────

struct Counting;

/// Of all threads.
static ALL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's allocations, reallocations included. Const and without a drop: counting must not allocate.
    static MINE: Cell<usize> = const { Cell::new(0) };
    /// The bytes this thread has allocated, less those it has freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn note(allocations: usize, bytes: isize) {
    ALL.fetch_add(allocations, Ordering::Relaxed);
    // A thread that is being torn down has no thread-locals any more, and nobody asks it.
    let _ = MINE.try_with(|mine| mine.set(mine.get() + allocations));
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

fn signed(bytes: usize) -> isize {
    bytes.try_into().unwrap_or(isize::MAX)
}

// SAFETY: the system's allocator, with counters beside it that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        // SAFETY: the caller's promise is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, signed(size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note(0, -signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Keeps the tests of this process apart.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many allocations `work` makes on this thread, once it has run twice; the same each time.
#[track_caller]
fn allocations(mut work: impl FnMut()) -> usize {
    work();
    work();
    let mut count = || {
        let before = MINE.get();
        work();
        MINE.get() - before
    };
    let first = count();
    for _ in 0..100 {
        assert_eq!(count(), first, "not the same each time");
    }
    first
}

/// Polls once, with a waker that costs nothing to clone.
fn poll<F: Future + ?Sized>(future: std::pin::Pin<&mut F>) -> bool {
    future.poll(&mut Task::from_waker(Waker::noop())).is_ready()
}

/// What the counter would hide if it were broken.
/// Sixteen levels, and a grace whose parent's deadline has passed and was never armed: the first poll records all of it.
#[test]
fn a_poll_that_finds_a_deadline_passed_allocates_nothing() {
    let _alone = alone();
    let (request, _guard) = Context::background().with_timeout(SHORT);
    let mut chain = vec![request.with_cancel()];
    while chain.len() < 16 {
        let next = chain[chain.len() - 1].0.with_cancel();
        chain.push(next);
    }
    let (grace, _grace_guard) = request.with_grace(SHORT);
    let (below, _below_guard) = grace.with_cancel();
    let past = std::time::Instant::now() + 3 * SHORT;
    while std::time::Instant::now() < past {
        std::hint::spin_loop();
    }
    let before = MINE.get();
    assert!(below.is_done() && grace.is_done());
    assert!(chain[15].0.is_done());
    assert_eq!(MINE.get() - before, 0);
    assert!(chain.iter().all(|(ctx, _)| ctx.is_done()) && request.is_done());
}

#[test]
fn the_counter_counts() {
    let _alone = alone();
    assert_eq!(allocations(|| drop(black_box(Box::new(1_u64)))), 1);
    assert_eq!(allocations(|| drop(black_box(vec![Box::new(1_u64), Box::new(2)]))), 3);
    let (before, all) = (LIVE.get(), ALL.load(Ordering::Relaxed));
    let kept = black_box(vec![0_u8; 1000]);
    assert_eq!(LIVE.get() - before, 1000);
    drop(kept);
    assert_eq!(LIVE.get(), before);
    assert!(ALL.load(Ordering::Relaxed) > all);
}

// ── sizes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_context_and_an_error_are_one_word_with_or_without_an_option() {
    assert_eq!(size_of::<Context>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Context>>(), size_of::<usize>());
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Error>>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
}

// ── deriving and ending ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_root_and_a_clone_are_free() {
    let _alone = alone();
    assert_eq!(allocations(|| drop(black_box(Context::background()))), 0);
    assert_eq!(allocations(|| drop(black_box(Context::todo()))), 0);
    let (ctx, _guard) = Context::background().with_cancel();
    let layer = ctx.with_value(&NUMBER, 1);
    assert_eq!(allocations(|| drop(black_box(ctx.clone()))), 0);
    assert_eq!(allocations(|| drop(black_box(layer.clone()))), 0);
}

#[test]
fn a_cancelable_child_is_one_allocation_to_its_end() {
    let _alone = alone();
    let (parent, _guard) = Context::background().with_cancel();
    for parent in [&Context::background(), &parent] {
        let canceled = allocations(|| {
            let (ctx, cancel) = parent.with_cancel();
            cancel.cancel();
            assert!(ctx.is_done());
        });
        assert_eq!(canceled, 1);
        assert_eq!(allocations(|| drop(black_box(parent.with_cancel()))), 1);
    }
}

/// The end of a subtree allocates nothing, however wide or deep.
#[test]
fn canceling_a_subtree_is_free() {
    let _alone = alone();
    for round in 0..3 {
        let (root, cancel) = Context::background().with_cancel();
        let wide: Vec<_> = (0..500).map(|_| root.with_cancel()).collect();
        let mut deep = vec![root.with_cancel()];
        for i in 0..500 {
            deep.push(deep[i].0.with_timeout(LONG));
        }
        let before = MINE.get();
        cancel.cancel();
        assert_eq!(MINE.get() - before, 0, "round {round}");
        assert!(wide.iter().chain(&deep).all(|(ctx, _)| ctx.is_done()));
        drop((wide, deep));
    }
}

#[test]
fn a_timeout_that_is_waited_for_is_one_allocation() {
    let _alone = alone();
    let system = allocations(|| {
        let (ctx, _guard) = Context::background().with_timeout(SHORT);
        assert!(ctx.done().wait().is_deadline_exceeded());
    });
    assert_eq!(system, 1);

    let clock = ManualClock::new();
    let root = clock.root();
    let manual = allocations(|| {
        let (ctx, _guard) = root.with_timeout(LONG);
        let mut done = pin!(ctx.done());
        assert!(!poll(done.as_mut()));
        clock.advance(LONG);
        assert!(poll(done));
    });
    assert_eq!(manual, 1);
}

#[test]
fn a_timeout_that_is_canceled_or_dropped_early_is_one_allocation() {
    let _alone = alone();
    for root in [Context::background(), ManualClock::new().root()] {
        let canceled = allocations(|| {
            let (ctx, cancel) = root.with_timeout(LONG);
            assert!(!poll(pin!(ctx.done())));
            cancel.cancel();
            assert!(poll(pin!(ctx.done())));
        });
        assert_eq!(canceled, 1);
        assert_eq!(allocations(|| drop(black_box(root.with_timeout(LONG)))), 1);
        assert_eq!(allocations(|| drop(black_box(root.with_timeout(Duration::ZERO)))), 1);
    }
}

/// The timer's thread, and whichever else there may be, allocate nothing for a deadline that is waited for.
#[test]
fn a_timeout_that_is_waited_for_is_one_allocation_on_all_threads_together() {
    let _alone = alone();
    const ROUNDS: usize = 20;
    let batch = || {
        let before = ALL.load(Ordering::Relaxed);
        for _ in 0..ROUNDS {
            let (ctx, _guard) = Context::background().with_timeout(SHORT);
            assert!(ctx.done().wait().is_deadline_exceeded());
        }
        ALL.load(Ordering::Relaxed) - before
    };
    // The harness allocates, too, now and then: what is always there is ours.
    assert_eq!((0..50).map(|_| batch()).min(), Some(ROUNDS));
}

/// Of two parents; more make its lists longer, not more.
#[test]
fn a_merged_context_is_six_allocations_at_most() {
    let _alone = alone();
    let (a, _a) = Context::background().with_cancel();
    let (b, _b) = Context::background().with_cancel();
    let taken = allocations(|| drop(black_box(Context::any_of([&a, &b]))));
    assert!(taken <= 6, "{taken}");
}

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

static NUMBER: Key<u64> = Key::new("number");
static TEXT: Key<String> = Key::new("text");

#[test]
fn a_merged_context_leaves_nothing_behind() {
    let _alone = alone();
    let (first, _guard) = Context::background().with_value(&NUMBER, 1).with_cancel();
    let (second, _guard) = Context::background().with_value(&NUMBER, 2).with_cancel();
    let merge = || drop(Context::any_of([&first, &second]).0.with_value(&NUMBER, 3).with_cancel());
    merge();
    let before = LIVE.get();
    merge();
    assert_eq!(LIVE.get(), before);
}

#[test]
fn a_value_is_one_allocation_and_its_own() {
    let _alone = alone();
    let (parent, _guard) = Context::background().with_cancel();
    for parent in [&Context::background(), &parent] {
        let number = allocations(|| {
            let ctx = parent.with_value(&NUMBER, 123);
            assert_eq!(ctx.value(&NUMBER), Some(&123));
            assert_eq!(ctx.value(&TEXT), None);
        });
        assert_eq!(number, 1);
        let text = allocations(|| {
            let ctx = parent.with_value(&TEXT, String::from("its own"));
            assert_eq!(ctx.value(&TEXT).map(String::as_str), Some("its own"));
        });
        assert_eq!(text, 2, "one of them is the string's");
    }
    assert_eq!(allocations(|| drop(black_box(parent.without_cancel()))), 1);
}

/// The first lookups in a chain of eight layers and more make indexes, which stay; later ones are free.
#[test]
fn looking_up_is_free_at_any_depth_once_somebody_has_looked() {
    let _alone = alone();
    static KEYS: [Key<usize>; 64] = [const { Key::new("layer") }; 64];
    let mut ctx = Context::background();
    for (i, key) in KEYS.iter().enumerate() {
        ctx = ctx.with_value(key, i);
    }
    let looked_up = allocations(|| {
        for (i, key) in KEYS.iter().enumerate() {
            assert_eq!(ctx.value(key), Some(&i));
        }
        assert_eq!(ctx.value(&NUMBER), None);
    });
    assert_eq!(looked_up, 0);
}

#[test]
fn derive_is_one_allocation_and_what_its_values_take() {
    let _alone = alone();
    let (parent, _guard) = Context::background().with_timeout(LONG);
    let plain = allocations(|| {
        let (ctx, cancel) = parent.derive().name("request").timeout(SHORT).build();
        cancel.cancel();
        assert_eq!(ctx.name(), Some("request"));
    });
    assert_eq!(plain, 1);
    let one = allocations(|| {
        let derive = parent.derive().name("request").timeout(SHORT);
        drop(black_box(derive.value(&NUMBER, 1).build()));
    });
    let two = allocations(|| {
        let derive = parent.derive().name("request").timeout(SHORT);
        drop(black_box(derive.value(&NUMBER, 1).value(&TEXT, String::new()).build()));
    });
    assert_eq!((one, two), (2, 3));
}

/// A finished context that is kept has no place in the timer: the bytes of many are the same with a deadline and without.
#[test]
fn c21_a_finished_context_leaves_the_timer_at_once_though_it_is_kept() {
    let _alone = alone();
    let clock = ManualClock::new();
    let root = clock.root();
    let mut bytes = [0; 2];
    for (timed, bytes) in [false, true].into_iter().zip(&mut bytes) {
        let mut kept = Vec::with_capacity(10_000);
        let before = LIVE.get();
        for _ in 0..10_000 {
            let (ctx, cancel) = if timed { root.with_timeout(LONG) } else { root.with_cancel() };
            cancel.cancel();
            kept.push(ctx);
        }
        *bytes = LIVE.get() - before;
    }
    // A heap's first room, kept for good, is all that a single deadline at a time can take.
    assert!(bytes[1] - bytes[0] < 1024, "{bytes:?}");
}

// ── asking and waiting ─────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn asking_is_free_live_or_done() {
    let _alone = alone();
    let (live, _guard) = Context::background().with_timeout(LONG);
    let (canceled, cancel) = live.with_cancel();
    cancel.cancel_with("a cause");
    let (late, _late) = live.with_timeout(Duration::ZERO);
    for ctx in [&Context::background(), &live, &canceled, &late, &canceled.with_value(&NUMBER, 1)] {
        let asked = allocations(|| {
            black_box(ctx.is_done());
            black_box(ctx.err());
            black_box(ctx.check().is_ok());
            black_box((ctx.deadline(), ctx.remaining(), ctx.can_be_done()));
            black_box((ctx.id(), ctx.name(), ctx.statistics()));
            if let Some(err) = ctx.err() {
                let origin = err.origin();
                black_box((err.kind(), err.cause().is_some(), origin.by(), origin.at()));
                black_box((origin.context(), origin.name(), origin.location()));
            }
        });
        assert_eq!(asked, 0, "{ctx:?}");
    }
}

#[test]
fn waiting_in_a_task_is_free() {
    let _alone = alone();
    let (canceled, _guard) = Context::background().with_cancel();
    let (timed, _guard) = canceled.with_timeout(LONG);
    for ctx in [&Context::background(), &canceled, &timed, &timed.with_value(&NUMBER, 1)] {
        let done = allocations(|| {
            let mut done = pin!(ctx.done());
            assert!(!poll(done.as_mut()));
            assert!(!poll(done)); // and dropped
        });
        assert_eq!(done, 0, "{ctx:?}");
        let slept = allocations(|| {
            let mut sleep = pin!(ctx.sleep(LONG));
            assert!(!poll(sleep.as_mut()));
            assert!(!poll(sleep));
        });
        assert_eq!(slept, 0, "{ctx:?}");
        let ran = allocations(|| {
            assert!(!poll(pin!(ctx.run(std::future::pending::<()>()))));
            assert!(poll(pin!(ctx.run(async { 1 }))));
        });
        assert_eq!(ran, 0, "{ctx:?}");
    }
}

#[test]
fn waiting_on_a_thread_is_free() {
    let _alone = alone();
    let (ctx, _guard) = Context::background().with_cancel();
    assert_eq!(allocations(|| assert!(ctx.done().wait_timeout(SHORT).is_none())), 0);
    assert_eq!(allocations(|| assert!(ctx.sleep_blocking(SHORT).is_ok())), 0);
    thread::scope(|s| {
        let (asleep, go) = mpsc::sync_channel(0);
        s.spawn(|| {
            go.into_iter().for_each(|handle: CancelHandle| handle.cancel());
        });
        for round in 0..100 {
            let (ctx, cancel) = ctx.with_cancel();
            asleep.send(cancel.handle()).expect("the other thread lives");
            let before = MINE.get();
            assert!(ctx.done().wait().is_canceled());
            assert!(round == 0 || MINE.get() == before, "{}", MINE.get() - before);
        }
    });
}

/// The code, with what its registration and its list share.
const CALLBACK: usize = 1;

#[test]
fn a_callback_is_one_allocation() {
    let _alone = alone();
    let (ctx, _guard) = Context::background().with_cancel();
    let mut captured = 1_u64;
    let stopped = allocations(|| {
        captured += 1;
        assert!(ctx.on_done(move |_| assert!(black_box(captured) > 0)).stop());
    });
    assert_eq!(stopped, CALLBACK);
    assert_eq!(allocations(|| assert!(ctx.on_done(|_| {}).stop())), CALLBACK);
    let called = allocations(|| {
        let (ctx, cancel) = ctx.with_cancel();
        ctx.on_done(move |_| assert!(black_box(captured) > 0)).detach();
        cancel.cancel();
    });
    assert_eq!(called, CALLBACK + 1, "with the node");
}

// ── beside Go ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go: TestAllocs. Go's ceilings, each with what it takes here.
#[test]
fn gos_ceilings_hold() {
    let _alone = alone();
    let bg = Context::background();
    let cases: [(&str, usize, usize, &dyn Fn()); 5] = [
        ("Background()", 0, 0, &|| drop(black_box(Context::background()))),
        ("WithValue(bg, k1, nil); c.Value(k1)", 3, 1, &|| {
            black_box(bg.with_value(&NUMBER, 1).value(&NUMBER));
        }),
        ("WithTimeout(bg, 1ns); <-c.Done()", 12, 1, &|| {
            let (ctx, _guard) = bg.with_timeout(Duration::from_nanos(1));
            black_box(ctx.done().wait());
        }),
        ("WithCancel(bg); cancel(); <-c.Done()", 5, 1, &|| {
            let (ctx, cancel) = bg.with_cancel();
            cancel.cancel();
            black_box(ctx.done().wait());
        }),
        ("WithTimeout(bg, 5ms); cancel(); <-c.Done()", 8, 1, &|| {
            let (ctx, cancel) = bg.with_timeout(Duration::from_millis(5));
            cancel.cancel();
            black_box(ctx.done().wait());
        }),
    ];
    for (name, ceiling, expected, work) in cases {
        let taken = allocations(work);
        assert!(taken <= ceiling, "{name}: {taken}");
        assert_eq!(taken, expected, "{name}");
    }
}

// ── for years ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Go's map of children keeps some bytes for every child there ever was. Ten million children here, or a million where they
/// are not optimized.
#[test]
fn millions_of_children_leave_their_parents_memory_as_it_was() {
    let _alone = alone();
    let rounds = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
    let (parent, _guard) = Context::background().with_cancel();
    let one = |i: u32| {
        let (child, cancel) = match i % 2 {
            0 => parent.with_cancel(),
            _ => parent.with_timeout(LONG),
        };
        if i % 16 == 1 {
            assert!(!poll(pin!(child.done()))); // into the timer's heap and out again
        }
        if i % 32 == 0 {
            child.on_done(|_| {}).detach();
            drop(child.with_value(&NUMBER, 1).with_cancel());
        }
        if i % 4 < 2 {
            cancel.cancel();
        }
    };
    for i in 0..100 {
        one(i);
    }
    let before = LIVE.get();
    for i in 0..rounds {
        one(i);
        assert_eq!(LIVE.get(), before, "after child {i}");
    }
    assert_eq!(parent.statistics().children(), 0);
}

/// A runtime that runs when it is told to, on this thread.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<Waiting>>>);

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Spawn for ByHand {
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        self.0.lock().expect("no panic").push(Box::pin(task));
    }
}

impl ByHand {
    fn run(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().expect("no panic"));
        tasks.retain_mut(|task| !poll(task.as_mut()));
        self.0.lock().expect("no panic").append(&mut tasks);
    }
}

/// Pending once.
async fn give_way() {
    let mut asked = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn a_group_of_many_tasks_a_few_at_a_time_takes_no_more_memory_than_one_of_few() {
    let _alone = alone();
    let runtime = ByHand::default();
    let group: TaskGroup<Error, ByHand> =
        TaskGroup::builder(&Context::background()).limit(64).build_on(runtime.clone());
    let mut after_few = 0;
    for n in 0..100_000 {
        let mut room = pin!(group.spawn_ready(async |ctx: Context| {
            give_way().await;
            ctx.check()
        }));
        while !poll(room.as_mut()) {
            runtime.run();
        }
        if n == 1_000 {
            after_few = LIVE.get();
        }
    }
    // As many wait at either time, give or take one round of them.
    let grown = LIVE.get() - after_few;
    assert!(grown.abs() < 64 * 1024, "{grown} bytes more");
    while !group.is_empty() {
        runtime.run();
    }
    group.join_blocking().expect("all did their work");
}
