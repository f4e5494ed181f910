//! Numbers that tell the order of things: of contexts as they are derived, of waiters as they arrive.
//!
//! Whoever takes a number later has the higher one, by whatever means he knows that he is later. That needs no shared line
//! as long as one thread takes numbers at a time: it has some in stock, which are good until another thread fetches some.
//! Where several threads take numbers all the time they spoil each other's stock with every one (170 ns beside 2, on the
//! machine of BENCHMARKS.md); once that has been seen, numbers are read off the clock, for good, which is 35 ns and shares nothing.
//!
//! That the clock will do: it does not go back, and it ticks faster than one thread can hear of another. Where it does not,
//! which is asked before, stocks it stays.

use std::cell::Cell;
#[cfg(not(any(all(test, purview_loom), all(test, purview_shuttle))))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Tick};
use crate::leaked::Leaked;

/// The lowest number; what is lower is for constants.
const FIRST: u64 = 3;

/// How many numbers a thread fetches at a time.
const FETCHED: u64 = 64;

/// How often a thread finds its stock spoiled before numbers are read off the clock.
const PATIENCE: u32 = 64;

/// Numbers are read off the clock: a bit of `NEXT`, so that every stock is spoiled.
const CLOCKED: u64 = 1 << 63;

/// The first number that is in nobody's stock.
static NEXT: AtomicU64 = AtomicU64::new(FIRST);

thread_local! {
    /// The next number in stock, and the first that is not.
    static STOCK: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    /// How often another thread has spoiled it.
    static SPOILED: Cell<u32> = const { Cell::new(0) };
}

/// The next number, higher than `after`. The time helps, if the caller has just read the system's clock.
#[inline]
pub(crate) fn next(after: u64, now: Option<Tick>) -> u64 {
    let in_stock = STOCK.try_with(|stock| {
        let (next, end) = stock.get();
        // Later than another thread's fetch, in the order of happening, this reads what that one wrote or later.
        if next == end || NEXT.load(Ordering::Relaxed) != end {
            return None;
        }
        stock.set((next + 1, end));
        Some(next)
    });
    match in_stock {
        Ok(Some(number)) => number,
        _ => fetch(after, now),
    }
}

#[inline(never)]
fn fetch(after: u64, now: Option<Tick>) -> u64 {
    static SCALE: Leaked<Scale> = Leaked::new();
    if SCALE.get().is_none() && !is_patience_over() {
        let next = NEXT.fetch_add(FETCHED, Ordering::Relaxed);
        if next < CLOCKED {
            // A thread that is being torn down has no stock any more: it takes one number, and leaves the rest.
            let _ = STOCK.try_with(|stock| stock.set((next + 1, next + FETCHED)));
            return next;
        }
    }
    SCALE.get_or_make(Scale::begin).read(after, now)
}

/// Whether this thread's stock has been spoiled often enough, and the clock will do.
fn is_patience_over() -> bool {
    let spoiled = STOCK.try_with(|stock| {
        let (next, end) = stock.replace((0, 0));
        next != end
    });
    if !spoiled.unwrap_or(false) {
        return false;
    }
    let times = SPOILED.try_with(|times| times.replace(times.get().saturating_add(1)));
    times == Ok(PATIENCE) && is_clock_fine()
}

/// Whether the clock ticks faster than a thread can tell another something, which is some 50 ns.
fn is_clock_fine() -> bool {
    const FINE: Duration = Duration::from_nanos(50);
    let tick = || {
        let before = Instant::now();
        (0..1_000).map(|_| before.elapsed()).find(|tick| !tick.is_zero())
    };
    // A reading takes its time, too, and may be interrupted.
    (0..8).filter_map(|_| tick()).min().is_some_and(|least| least <= FINE)
}

/// Several numbers a nanosecond, so that threads that read the same time get different ones.
const LANES: usize = 64;

/// The first number that is not read off the clock any more: a process comes to it when it has been up for four and a half years,
/// or when the clock leaps so far. From there on numbers are counted, one by one, since the clock could soon tell no more.
const HALF: u64 = 1 << 63;

/// How numbers are read off the clock.
struct Scale {
    /// What had been given out before.
    base: u64,
    since: Tick,
    /// Not in here: it would be moved over the stack of whoever comes first, which took 60 KiB where that was not optimized.
    last: &'static Lanes,
    /// How many from [`HALF`] on have been given out. Once there is one, all are such: it is higher than any from the clock,
    /// and a thread that hears of it finds that there is one, also if the clock has gone back.
    late: &'static AtomicU64,
}

/// The last number of a lane; of two cache lines, since processors fetch lines in pairs.
#[repr(align(128))]
struct Lane(AtomicU64);

type Lanes = [Lane; LANES];

const fn lanes() -> Lanes {
    [const { Lane(AtomicU64::new(0)) }; LANES]
}

impl Scale {
    /// From here on all stocks are spoiled. Several threads may begin one; whichever scale is used, it begins above what was given
    /// out from stocks, and before any number of it was read.
    fn begin() -> Scale {
        static LAST: Lanes = lanes();
        static LATE: AtomicU64 = AtomicU64::new(0);
        let given_out = NEXT.fetch_or(CLOCKED, Ordering::Relaxed) & !CLOCKED;
        let base = given_out.next_multiple_of(LANES as u64);
        Scale { base, since: Clock::SYSTEM.now(), last: &LAST, late: &LATE }
    }

    fn read(&self, after: u64, now: Option<Tick>) -> u64 {
        const STEP: u64 = LANES as u64;
        if self.late.load(Ordering::Relaxed) != 0 {
            return self.count();
        }
        let lane = thread_number() % LANES;
        let now = now.unwrap_or_else(|| Clock::SYSTEM.now());
        let passed = now.nanos().saturating_sub(self.since.nanos());
        // A lane's numbers are a step apart, so no two lanes have one in common.
        let by_clock = u64::try_from(passed).unwrap_or(0).saturating_mul(STEP);
        let above = after.saturating_add(1).checked_next_multiple_of(STEP).unwrap_or(HALF);
        let at_least = self.base.saturating_add(by_clock).max(above).saturating_add(lane as u64);
        // A lane is one thread's alone, as long as there are no more threads than lanes.
        let last = &self.last[lane].0;
        let mut before = last.load(Ordering::Relaxed);
        loop {
            let number = at_least.max(before.saturating_add(STEP));
            if number >= HALF {
                return self.count();
            }
            match last.compare_exchange_weak(before, number, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return number,
                Err(other) => before = other,
            }
        }
    }

    /// The next from [`HALF`] on. At one in a nanosecond they last for another 292 years.
    #[cold]
    fn count(&self) -> u64 {
        HALF + self.late.fetch_add(1, Ordering::Relaxed)
    }
}

/// In a model: 0 for the first thread, and so on.
#[cfg(all(test, purview_loom))]
pub(crate) fn thread_number() -> usize {
    let id = format!("{:?}", loom::thread::current().id());
    id.chars()
        .filter_map(|digit| digit.to_digit(10))
        .fold(0, |number, digit| number * 10 + digit as usize)
}

/// The same: shuttle's threads are told apart by shuttle.
#[cfg(all(test, purview_shuttle))]
pub(crate) fn thread_number() -> usize {
    shuttle::thread::current().id().into()
}

/// This thread's number, in the order in which threads asked for one.
#[cfg(not(any(all(test, purview_loom), all(test, purview_shuttle))))]
#[inline]
pub(crate) fn thread_number() -> usize {
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    // A thread that is being torn down has no thread-locals any more.
    NUMBER
        .try_with(|number| {
            number.get().unwrap_or_else(|| {
                let new = THREADS.fetch_add(1, Ordering::Relaxed);
                number.set(Some(new));
                new
            })
        })
        .unwrap_or(0)
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn numbers_are_unique_and_later_ones_higher_whoever_takes_them_and_however_they_are_made() {
        const THREADS: usize = 8;
        const HOPS: usize = 20_000;
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::channel::<(usize, u64)>()).unzip();
        for start in 0..2_u64 {
            // Two tokens, so that numbers are taken at the same time, too.
            senders[start as usize].send((0, next(0, None))).expect("it is there");
        }
        let all: Vec<(u64, u64)> = thread::scope(|scope| {
            let threads: Vec<_> = receivers
                .into_iter()
                .enumerate()
                .map(|(me, receiver)| {
                    let senders = senders.clone();
                    scope.spawn(move || {
                        let mut taken = Vec::new();
                        for (hop, before) in receiver {
                            if hop == HOPS {
                                break;
                            }
                            let number = next(0, None);
                            taken.push((before, number)); // a panic here would take the token along
                            if hop + 1 == HOPS {
                                senders.iter().for_each(|all| _ = all.send((HOPS, 0)));
                            } else {
                                let to = (me + 1 + hop % (THREADS - 1)) % THREADS;
                                let _ = senders[to].send((hop + 1, number));
                            }
                        }
                        taken
                    })
                })
                .collect();
            threads.into_iter().flat_map(|it| it.join().expect("no panic")).collect()
        });
        for (before, number) in &all {
            assert!(number > before, "{number} after {before}");
        }
        let unique: HashSet<_> = all.iter().map(|(_, number)| number).collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.len() >= HOPS, "{}", all.len());
    }

    #[test]
    fn a_clock_that_leaps_by_centuries_leaves_numbers_unique_and_in_order() {
        static LAST: Lanes = lanes();
        static LATE: AtomicU64 = AtomicU64::new(0);
        let scale = Scale { base: 128, since: Tick::from_nanos(1_000), last: &LAST, late: &LATE };
        let times = [0, 1_000, i64::MAX / 128, i64::MAX / 64, i64::MAX - 1, i64::MAX - 1, 2_000, 0];
        let times = times.map(Tick::from_nanos);
        let taken: Vec<u64> = thread::scope(|scope| {
            let scale = &scale;
            let read = move || times.map(|now| scale.read(0, Some(now)));
            let threads: Vec<_> = (0..2 * LANES).map(|_| scope.spawn(read)).collect();
            threads.into_iter().flat_map(|it| it.join().expect("no panic")).collect()
        });
        let unique: HashSet<_> = taken.iter().collect();
        assert_eq!(unique.len(), taken.len());
        for one in taken.chunks(times.len()) {
            assert!(one.windows(2).all(|pair| pair[0] < pair[1]), "{one:?}");
        }
        // A later thread, on whatever lane, has the higher number, though the clock has gone back.
        let highest = taken.into_iter().max().expect("some");
        let mut before = scale.read(highest, Some(Tick::from_nanos(0)));
        assert!(before > highest);
        for _ in 0..2 * LANES {
            let read = || scale.read(0, Some(Tick::from_nanos(0)));
            let next = thread::scope(|scope| scope.spawn(read).join().expect("no panic"));
            assert!(next > before, "{next} after {before}");
            before = next;
        }
        // And of those that are taken beside one from the clock that is nearly half of all there are.
        static OTHERS: Lanes = lanes();
        static NONE: AtomicU64 = AtomicU64::new(0);
        let scale = Scale { base: 128, since: Tick::from_nanos(0), last: &OTHERS, late: &NONE };
        let last = scale.read(HALF - 1, Some(Tick::from_nanos(0)));
        assert!(last >= HALF && scale.read(last, Some(Tick::from_nanos(0))) > last);
    }

    #[test]
    fn a_clock_that_stands_still_and_threads_that_share_a_lane_still_give_numbers_of_their_own() {
        static LAST: Lanes = lanes();
        static LATE: AtomicU64 = AtomicU64::new(0);
        let scale = Scale { base: 128, since: Tick::from_nanos(1_000), last: &LAST, late: &LATE };
        let times = [0, 1_000, 1_000, 1_001, 5_000, 5_000].map(Tick::from_nanos);
        let taken: Vec<u64> = thread::scope(|scope| {
            let scale = &scale;
            let read = move || times.map(|now| scale.read(0, Some(now)));
            let threads: Vec<_> = (0..2 * LANES).map(|_| scope.spawn(read)).collect();
            threads.into_iter().flat_map(|it| it.join().expect("no panic")).collect()
        });
        let unique: HashSet<_> = taken.iter().collect();
        assert_eq!(unique.len(), taken.len());
        for one in taken.chunks(6) {
            assert!(one.windows(2).all(|pair| pair[0] < pair[1]), "{one:?}");
        }
        // A child's is higher than its parent's, whatever the clock and the lane say.
        let parent = 1 << 50;
        for _ in 0..2 * LANES {
            let read = || scale.read(parent, Some(Tick::from_nanos(0)));
            let child = thread::scope(|scope| scope.spawn(read).join().expect("no panic"));
            assert!(child > parent);
        }
    }
}
