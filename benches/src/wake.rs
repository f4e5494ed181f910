//! P7 and P7b: canceling what many tasks wait for, and waking a single waiter that sleeps on the other core.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use purview::Context;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Floor, Purview, TokioUtil};
use crate::case::{Case, Outcome, Scale};
use crate::machine;
use crate::measure::quantile;

/// After this, who is about to sleep does so.
const ASLEEP: Duration = Duration::from_micros(100);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::whole("P7", "one context", Purview, |scale| {
            let (ctx, guard) = Context::background().with_cancel();
            fan_out(scale, || ctx.clone().into_done(), move || guard.cancel())
        }),
        Case::whole("P7", "one context", TokioUtil, |scale| {
            let token = CancellationToken::new();
            let waited = token.clone();
            fan_out(scale, || waited.clone().cancelled_owned(), move || token.cancel())
        }),
        // The least that waking so many tasks costs: their wakers, in a vector.
        Case::whole("P7", "one context", Floor, |scale| {
            let flag = Arc::new(Flag::default());
            let waited = Arc::clone(&flag);
            fan_out(scale, || Flag::raised(Arc::clone(&waited)), move || flag.raise())
        }),
        Case::whole("P7", "a child each", Purview, |scale| {
            let (ctx, guard) = Context::background().with_cancel();
            let mut guards = Vec::with_capacity(scale.tasks);
            let waiter = || {
                let (child, guard) = ctx.with_cancel();
                guards.push(guard);
                child.into_done()
            };
            fan_out(scale, waiter, move || guard.cancel())
        }),
        Case::whole("P7", "a child each", TokioUtil, |scale| {
            let token = CancellationToken::new();
            let parent = token.clone();
            fan_out(scale, || parent.child_token().cancelled_owned(), move || token.cancel())
        }),
        Case::whole("P7b", "thread", Purview, |scale| {
            wake_thread(scale, || {
                let (ctx, guard) = Context::background().with_cancel();
                (move || drop(ctx.done().wait()), move || guard.cancel())
            })
        }),
        Case::whole("P7b", "thread", TokioUtil, |scale| {
            wake_thread(scale, || {
                let token = CancellationToken::new();
                let waited = token.clone();
                (move || block_on(waited.cancelled()), move || token.cancel())
            })
        }),
        Case::whole("P7b", "task", Purview, |scale| {
            wake_task(scale, || {
                let (ctx, guard) = Context::background().with_cancel();
                (ctx.into_done(), move || guard.cancel())
            })
        }),
        Case::whole("P7b", "task", TokioUtil, |scale| {
            wake_task(scale, || {
                let token = CancellationToken::new();
                (token.clone().cancelled_owned(), move || token.cancel())
            })
        }),
    ]
}

/// What tasks can wait for, and no more than that.
#[derive(Default)]
struct Flag {
    raised: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Flag {
    async fn raised(self: Arc<Self>) {
        let mut listed = false;
        poll_fn(|task| {
            if self.raised.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if !listed {
                let mut waiting = self.waiting.lock().expect("nobody panics");
                waiting.push(task.waker().clone());
                listed = true;
            }
            if self.raised.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("nobody panics"));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The time from `cancel`, in a task, until all the other tasks have seen it; on two workers.
fn fan_out<F: Future<Output: Send> + Send + 'static>(
    scale: &Scale,
    mut waiter: impl FnMut() -> F,
    cancel: impl FnOnce() + Send + 'static,
) -> Outcome {
    let runtime = runtime(2, None);
    let waiting = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let (finish, finished) = mpsc::channel();
    let tasks = scale.tasks;
    for _ in 0..tasks {
        let (waiting, seen, finish) = (Arc::clone(&waiting), Arc::clone(&seen), finish.clone());
        let done = waiter();
        runtime.spawn(async move {
            waiting.fetch_add(1, Ordering::Release);
            done.await;
            if seen.fetch_add(1, Ordering::AcqRel) + 1 == tasks {
                let _ = finish.send(Instant::now());
            }
        });
    }
    while waiting.load(Ordering::Acquire) < tasks {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(5)); // the last of them are about to be listed
    let before = machine::waited_by_all();
    let (start, started) = mpsc::channel();
    runtime.spawn(async move {
        let begin = Instant::now();
        cancel();
        let _ = start.send(begin);
    });
    let end = finished.recv().expect("the last task sends it");
    let begin = started.recv().expect("the canceling task sends it");
    let elapsed = (end - begin).as_secs_f64();
    let waited = machine::waited_by_all().saturating_sub(before) as f64 / 1e9;
    Outcome {
        disturbed: waited / (2.0 * elapsed),
        ..Outcome::of([("ns a waiter", elapsed * 1e9 / tasks as f64)])
    }
}

/// The time from a cancel on one core until a thread that slept on the other one has returned from its wait.
fn wake_thread<W, C>(scale: &Scale, make: impl Fn() -> (W, C) + Send) -> Outcome
where
    W: FnOnce() + Send,
    C: FnOnce(),
{
    let ready = AtomicBool::new(false);
    let (job, jobs) = mpsc::channel::<W>();
    let (wake, wakes) = mpsc::channel();
    let ready = &ready;
    thread::scope(|scope| {
        scope.spawn(move || {
            machine::pin(0);
            for wait in jobs {
                ready.store(true, Ordering::Release);
                wait();
                let _ = wake.send(Instant::now());
            }
        });
        let canceler = scope.spawn(move || {
            wakes_of(scale.wakes, || {
                let (wait, cancel) = make();
                job.send(wait).expect("the thread waits for it");
                cancel_sleeper(ready, cancel, &wakes)
            })
        });
        canceler.join().expect("it does not panic")
    })
}

/// The same for a task, whose worker sleeps on the other core.
fn wake_task<F, C>(scale: &Scale, make: impl Fn() -> (F, C) + Send) -> Outcome
where
    F: Future<Output: Send> + Send + 'static,
    C: FnOnce(),
{
    let runtime = runtime(1, Some(0));
    let ready = Arc::new(AtomicBool::new(false));
    let (wake, wakes) = mpsc::channel();
    thread::scope(|scope| {
        let canceler = scope.spawn(move || {
            wakes_of(scale.wakes, || {
                let (done, cancel) = make();
                let (said, wake) = (Arc::clone(&ready), wake.clone());
                runtime.spawn(async move {
                    said.store(true, Ordering::Release);
                    done.await;
                    let _ = wake.send(Instant::now());
                });
                cancel_sleeper(&ready, cancel, &wakes)
            })
        });
        canceler.join().expect("it does not panic")
    })
}

/// Cancels when the waiter is asleep, and says how long it took to wake.
fn cancel_sleeper(
    ready: &AtomicBool,
    cancel: impl FnOnce(),
    wakes: &mpsc::Receiver<Instant>,
) -> Duration {
    while !ready.swap(false, Ordering::AcqRel) {
        std::hint::spin_loop();
    }
    let asleep = Instant::now() + ASLEEP;
    while Instant::now() < asleep {
        std::hint::spin_loop(); // this core stays awake
    }
    let begin = Instant::now();
    cancel();
    wakes.recv().expect("the waiter sends it").saturating_duration_since(begin)
}

/// The scheduler's books of the waiter are of no use here: being woken is time that it is runnable. Those of this thread are.
fn wakes_of(wakes: usize, mut once: impl FnMut() -> Duration) -> Outcome {
    let pinned = machine::has_two_cores() && machine::pin(1);
    let (before, begin) = (machine::waited(), Instant::now());
    let mut times: Vec<f64> = (0..wakes).map(|_| once().as_secs_f64() * 1e6).collect();
    let kept_off = machine::waited().saturating_sub(before) as f64 / 1e9;
    let figures = [("p50 us", quantile(&mut times, 0.5)), ("p99 us", quantile(&mut times, 0.99))];
    let disturbed = if pinned { kept_off / begin.elapsed().as_secs_f64() } else { 1.0 };
    Outcome { disturbed, ..Outcome::of(figures) }
}

fn runtime(workers: usize, core: Option<usize>) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    if let Some(core) = core {
        builder.on_thread_start(move || {
            machine::pin(core);
        });
    }
    builder.worker_threads(workers).enable_all().build().expect("a runtime can be built")
}

/// A token has no blocking wait; this is the usual one.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut task = Task::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut task) {
            return output;
        }
        thread::park();
    }
}
