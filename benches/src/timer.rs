//! P9 and P9b: a million deadlines that are waited for and never come, and a hundred thousand that come within a second.

use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Context as Task;
use std::thread;
use std::time::{Duration, Instant};

use purview::Context;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Purview, TokioUtil};
use crate::case::{Case, Outcome, Scale, counted_waker, poll_once};
use crate::machine;
use crate::measure::{quantile, watch};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::whole("P9", "create and cancel", Purview, deadlines),
        Case::whole("P9", "create and cancel", TokioUtil, token_deadlines),
        Case::whole("P9b", "fire", Purview, |scale| fire(scale, contexts)),
        Case::whole("P9b", "fire", TokioUtil, |scale| fire(scale, sleeps)),
    ]
}

/// 10 to 69 s away, in no order: none comes while this is measured.
fn far(now: Instant, i: usize) -> Instant {
    let spread = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 59_000_000;
    now + Duration::from_secs(10) + Duration::from_micros(spread)
}

fn deadlines(scale: &Scale) -> Outcome {
    let (parent, _guard) = Context::background().with_cancel();
    let waker = counted_waker();
    let mut task = Task::from_waker(&waker);
    let mut live = Vec::with_capacity(scale.nodes);
    let now = Instant::now();
    let create = watch(|| {
        for i in 0..scale.nodes {
            let child = parent.with_deadline(far(now, i));
            assert!(poll_once(pin!(child.0.done()), &mut task));
            live.push(child);
        }
    });
    black_box(&mut live);
    let cancel = watch(|| {
        for (child, guard) in live.drain(..) {
            guard.cancel();
            drop(child);
            drop(guard);
        }
    });
    both(scale, create, cancel)
}

fn token_deadlines(scale: &Scale) -> Outcome {
    let runtime =
        Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let _inside = runtime.enter();
    let parent = CancellationToken::new();
    let waker = counted_waker();
    let mut task = Task::from_waker(&waker);
    let mut live = Vec::with_capacity(scale.nodes);
    let now = Instant::now();
    let create = watch(|| {
        for i in 0..scale.nodes {
            let child = parent.child_token();
            let mut timer = Box::pin(tokio::time::sleep_until(far(now, i).into()));
            assert!(poll_once(timer.as_mut(), &mut task));
            live.push((child, timer));
        }
    });
    black_box(&mut live);
    let cancel = watch(|| {
        for (child, timer) in live.drain(..) {
            child.cancel();
            drop(child);
            drop(timer);
        }
    });
    both(scale, create, cancel)
}

fn both(scale: &Scale, create: (Duration, f64), cancel: (Duration, f64)) -> Outcome {
    let each = |time: Duration| time.as_secs_f64() * 1e9 / scale.nodes as f64;
    Outcome {
        disturbed: create.1.max(cancel.1),
        ..Outcome::of([("create ns", each(create.0)), ("cancel ns", each(cancel.0))])
    }
}

/// Where those who are woken write down how late it is.
struct Log {
    lateness: Vec<AtomicU64>,
    seen: AtomicUsize,
    finish: mpsc::Sender<()>,
}

impl Log {
    fn write(&self, i: usize, at: Instant) {
        let late = Instant::now().saturating_duration_since(at);
        self.lateness[i].store(late.as_nanos() as u64, Ordering::Relaxed);
        if self.seen.fetch_add(1, Ordering::AcqRel) + 1 == self.lateness.len() {
            let _ = self.finish.send(());
        }
    }
}

/// Lateness, and the CPU time of the whole process for a firing. `arm` gets the deadlines and gives what has to be kept.
fn fire<K>(scale: &Scale, arm: impl FnOnce(&Arc<Log>, &[Instant]) -> K) -> Outcome {
    let (finish, finished) = mpsc::channel();
    let lateness = (0..scale.firings).map(|_| AtomicU64::new(0)).collect();
    let log = Arc::new(Log { lateness, seen: AtomicUsize::new(0), finish });
    // Time to arm them all: 5 us each.
    let first = Instant::now()
        + Duration::from_millis(100)
        + Duration::from_micros(5) * scale.firings as u32;
    let step = scale.spread / scale.firings as u32;
    let deadlines: Vec<Instant> = (0..scale.firings as u32).map(|i| first + step * i).collect();
    let kept = arm(&log, &deadlines);
    let in_time = Instant::now() < first;
    thread::sleep(first.saturating_duration_since(Instant::now() + Duration::from_millis(20)));
    let before = machine::cpu();
    finished.recv().expect("the last one sends it");
    let cpu = (machine::cpu() - before) as f64 / scale.firings as f64;
    drop(kept);
    let us = log.lateness.iter().map(|ns| ns.load(Ordering::Relaxed) as f64 / 1e3);
    let mut us: Vec<f64> = us.collect();
    let (p50, p99) = (quantile(&mut us, 0.5), quantile(&mut us, 0.99));
    Outcome {
        disturbed: if in_time { 0.0 } else { 1.0 },
        ..Outcome::of([("p50 us", p50), ("p99 us", p99), ("cpu ns", cpu)])
    }
}

fn contexts(log: &Arc<Log>, deadlines: &[Instant]) -> impl Sized + use<> {
    let (parent, guard) = Context::background().with_cancel();
    let armed = deadlines.iter().enumerate().map(|(i, &at)| {
        let child = parent.with_deadline(at);
        let log = Arc::clone(log);
        let registration = child.0.on_done(move |_| log.write(i, at));
        (registration, child)
    });
    let armed: Vec<_> = armed.collect();
    (armed, guard)
}

fn sleeps(log: &Arc<Log>, deadlines: &[Instant]) -> impl Sized + use<> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    for (i, &at) in deadlines.iter().enumerate() {
        let log = Arc::clone(log);
        runtime.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            log.write(i, at);
        });
    }
    runtime
}
