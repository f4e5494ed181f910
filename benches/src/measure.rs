//! Sampling.
//!
//! A sample is a loop of a set time (some ms) on one thread, or on two that are pinned to two cores and begin together.
//! Each thread asks the scheduler before and after how long it was kept from running. A sample in which that was more than
//! 2 % of the time is repeated, and so is one in which two threads did not run together for 98 %: two threads that take turns
//! on one core show no contention at all. If all tries are disturbed, the least disturbed one is kept, and says so.
//!
//! On two threads a loop goes on until the first of them has done its part; so they are never alone. The figure is the time
//! per operation of one thread: had they nothing to do with each other, it would be that of one thread alone.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::unconstrained;

use crate::case::{Batch, Home, Loop};
use crate::machine;

/// More than this part of the time is a disturbance.
pub(crate) const TOLERATED: f64 = 0.02;
const TRIES_ONE: usize = 8;
const TRIES_TWO: usize = 30;
/// How long a driver is given to fall asleep, so that it knows its next timer.
const SETTLE: Duration = Duration::from_millis(20);
/// The earlier timer, which no sample lives to see.
const EARLIER: Duration = Duration::from_secs(9);

#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Per operation of one thread.
    pub(crate) ns: f64,
    pub(crate) elapsed: Duration,
    pub(crate) disturbed: f64,
}

/// A loop, ready to be run on its thread or threads.
pub(crate) enum Sampler {
    One(One),
    Two(Two),
}

impl Sampler {
    pub(crate) fn new(threads: usize, home: Home, work: &Loop) -> Sampler {
        if threads == 1 {
            Sampler::One(One::new(home, work))
        } else {
            Sampler::Two(Two::new(home, work))
        }
    }

    /// How often the operation fits into `time`.
    pub(crate) fn size(&mut self, time: Duration) -> u64 {
        let mut times: u64 = 3;
        while !time.is_zero() {
            let elapsed = self.once(times).elapsed;
            if elapsed * 8 >= time || times >= 1 << 40 {
                let ratio = time.as_secs_f64() / elapsed.as_secs_f64();
                return ((times as f64 * ratio) as u64).max(3);
            }
            times *= 4;
        }
        times
    }

    /// The least disturbed of some tries.
    pub(crate) fn sample(&mut self, times: u64) -> Sample {
        let tries = if matches!(self, Sampler::One(_)) { TRIES_ONE } else { TRIES_TWO };
        let mut best = self.once(times);
        for _ in 1..tries {
            if best.disturbed <= TOLERATED || best.elapsed.is_zero() {
                break;
            }
            let next = self.once(times);
            if next.disturbed < best.disturbed {
                best = next;
            }
        }
        best
    }

    fn once(&mut self, times: u64) -> Sample {
        match self {
            Sampler::One(one) => one.once(times),
            Sampler::Two(two) => two.once(times),
        }
    }
}

/// On the calling thread.
pub(crate) struct One {
    /// Dropped before the runtime, of which it may hold a part.
    batch: Batch,
    runtime: Option<Runtime>,
}

impl One {
    pub(crate) fn new(home: Home, work: &Loop) -> One {
        let runtime = (home == Home::Runtime).then(|| {
            Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
        });
        One { batch: work.batch(), runtime }
    }

    /// Runs it, in the runtime if it needs one.
    pub(crate) fn run<R>(&mut self, body: impl FnOnce(&mut Batch) -> R) -> R {
        let batch = &mut self.batch;
        match &self.runtime {
            None => body(batch),
            // A task's budget would have every poll after the 128th do nothing.
            Some(runtime) => runtime.block_on(unconstrained(async move {
                let mut earlier = pin!(tokio::time::sleep(EARLIER));
                let mut settle = pin!(tokio::time::sleep(Duration::from_millis(1)));
                std::future::poll_fn(|task| {
                    let _ = earlier.as_mut().poll(task);
                    settle.as_mut().poll(task)
                })
                .await;
                body(batch)
            })),
        }
    }

    fn once(&mut self, times: u64) -> Sample {
        let timed = self.run(|batch| {
            batch(times / 16 + 1);
            Timed::of(|| {
                batch(times);
                times
            })
        });
        let disturbed = timed.waited / timed.elapsed().as_secs_f64().max(1e-9);
        Sample { ns: timed.ns(), elapsed: timed.elapsed(), disturbed }
    }
}

/// On two threads, which are kept from sample to sample.
pub(crate) struct Two {
    orders: Vec<Sender<Order>>,
    results: Receiver<Timed>,
    pinned: bool,
    runtime: Option<Runtime>,
    threads: Vec<thread::JoinHandle<()>>,
}

struct Order {
    times: u64,
    race: Arc<Race>,
}

/// Two threads, that begin together and end when the first one does.
#[derive(Default)]
struct Race {
    ready: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    fn line_up(&self) {
        self.ready.fetch_add(1, Ordering::AcqRel);
        let mut turns: u32 = 0;
        while self.ready.load(Ordering::Acquire) < 2 {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(1 << 14) {
                thread::yield_now(); // the other one may need this core
            }
            std::hint::spin_loop();
        }
    }
}

impl Two {
    fn new(home: Home, work: &Loop) -> Two {
        let runtime = (home == Home::Runtime).then(|| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime can be built");
            runtime.spawn(async { tokio::time::sleep(EARLIER).await });
            thread::sleep(SETTLE);
            runtime
        });
        let (results, incoming) = mpsc::channel();
        let (says, pinned) = mpsc::channel();
        let mut two =
            Two { orders: vec![], results: incoming, pinned: true, runtime, threads: vec![] };
        for core in 0..2 {
            let (order, orders) = mpsc::channel();
            let (work, results, says) = (work.clone(), results.clone(), says.clone());
            let body = move || {
                let _ = says.send(machine::has_two_cores() && machine::pin(core));
                serve(&work, &orders, &results);
            };
            match &two.runtime {
                // Both workers are busy from here on, as a loaded server's are.
                Some(runtime) => drop(runtime.spawn(unconstrained(async move { body() }))),
                None => two.threads.push(thread::spawn(body)),
            }
            two.orders.push(order);
        }
        drop(says);
        two.pinned = pinned.iter().take(2).filter(|&pinned| pinned).count() == 2;
        if !two.pinned {
            eprintln!("not pinned: this needs Linux and two cores");
        }
        two
    }

    fn once(&mut self, times: u64) -> Sample {
        let race = Arc::new(Race::default());
        for order in &self.orders {
            order.send(Order { times, race: Arc::clone(&race) }).expect("the thread waits for it");
        }
        let timed: Vec<Timed> = self.results.iter().take(2).collect();
        let [a, b] = timed[..] else { panic!("a thread did not finish") };
        let longest = a.elapsed().max(b.elapsed());
        let together = a.end.min(b.end).saturating_duration_since(a.begin.max(b.begin));
        let apart = 1.0 - together.as_secs_f64() / longest.as_secs_f64().max(1e-9);
        let waited = a.waited.max(b.waited) / longest.as_secs_f64().max(1e-9);
        Sample {
            // Of both, weighed by what each did.
            ns: (a.elapsed() + b.elapsed()).as_secs_f64() * 1e9 / (a.times + b.times) as f64,
            elapsed: longest,
            disturbed: if self.pinned { waited.max(apart) } else { 1.0 },
        }
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.orders.clear(); // so the threads end
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        drop(self.runtime.take());
    }
}

fn serve(work: &Loop, orders: &Receiver<Order>, results: &Sender<Timed>) {
    let mut batch = work.batch();
    for Order { times, race } in orders {
        batch(times / 16 + 1);
        race.line_up();
        let part = times / 64 + 1;
        let timed = Timed::of(|| {
            let mut done = 0;
            while done < times && !race.over.load(Ordering::Relaxed) {
                batch(part);
                done += part;
            }
            race.over.store(true, Ordering::Relaxed);
            done
        });
        if results.send(timed).is_err() {
            return;
        }
    }
}

/// A thread's part of a sample.
#[derive(Clone, Copy)]
struct Timed {
    begin: Instant,
    end: Instant,
    times: u64,
    /// For how long it was kept from running, in s.
    waited: f64,
}

impl Timed {
    fn of(body: impl FnOnce() -> u64) -> Timed {
        let before = machine::waited();
        let begin = Instant::now();
        let times = body();
        let end = Instant::now();
        let waited = machine::waited().saturating_sub(before) as f64 / 1e9;
        Timed { begin, end, times, waited }
    }

    fn elapsed(&self) -> Duration {
        self.end - self.begin
    }

    fn ns(&self) -> f64 {
        self.elapsed().as_secs_f64() * 1e9 / self.times as f64
    }
}

/// Does something once on the calling thread: how long it took, and the part of it for which it was kept from running.
pub(crate) fn watch(body: impl FnOnce()) -> (Duration, f64) {
    let timed = Timed::of(|| {
        body();
        1
    });
    (timed.elapsed(), timed.waited / timed.elapsed().as_secs_f64().max(1e-9))
}

/// The middle one; of two, their mean.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The value that `part` of them do not exceed.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
