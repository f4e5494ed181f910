//! The wheel beside an ordered set, on a clock that leaps: for the tests, which have a sequence of numbers for it, and for the
//! fuzzer, which has its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};

use super::{LEVELS, WIDTH, Wheel};
use crate::clock::Tick;
use crate::timer::{AlarmEntry, Due, Target};

/// Where the decisions come from: one below the limit, which is not 0.
pub(crate) type Numbers<'a> = dyn FnMut(u64) -> u64 + 'a;

const ENTRIES: u64 = 300;

/// What is told last is noted.
struct Tells {
    number: u64,
    last: Arc<AtomicU64>,
}

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.last.store(self.number, Ordering::Relaxed);
    }
}

/// Puts in, takes out, and goes on, `steps` times or to the end of time, in a process that has been up for `uptime` nanoseconds: what is
/// due comes in order, all of it, and nothing early. Gives how many came.
///
/// # Panics
/// If not.
pub(crate) fn play(uptime: i64, steps: u32, numbers: &mut Numbers<'_>) -> u64 {
    let mut now = uptime;
    let mut wheel = Wheel::new();
    wheel.advance(Tick::from_nanos(now));
    let last = Arc::new(AtomicU64::new(ENTRIES));
    let mut entries: Vec<Option<Box<AlarmEntry>>> = (0..ENTRIES).map(|_| None).collect();
    let mut ordered = BTreeSet::new();
    let mut came = 0;
    for _ in 0..steps {
        let number = numbers(ENTRIES);
        let place = &mut entries[number as usize];
        if let Some(old) = place.take() {
            wheel.remove(Target::alarm(&old));
            ordered.remove(&(old.at().nanos(), number));
        }
        if numbers(4) != 0 {
            let at = now.saturating_add(distance(numbers)).min(i64::MAX - 1);
            let entry = place.insert(Box::new(AlarmEntry::new(Tick::from_nanos(at), number)));
            let waker = Waker::from(Arc::new(Tells { number, last: Arc::clone(&last) }));
            // SAFETY: nobody else has it.
            let _ = unsafe { entry.set_waker(Some(waker)) };
            // SAFETY: boxed, and taken out before it goes.
            unsafe { wheel.insert(Target::alarm(entry)) };
            ordered.insert((at, number));
        }
        assert_eq!(wheel.len(), ordered.len());
        let is_near = |at: i64| at as u64 >> WIDTH <= wheel.cursor;
        let near = ordered.iter().take_while(|(at, _)| is_near(*at)).count();
        assert_eq!(wheel.near.len(), near, "the heap has what is near, and nothing else (H1)");
        let first = ordered.first().map(|(at, _)| *at);
        let next = wheel.next().map(Tick::nanos);
        assert_eq!(next.is_none(), first.is_none(), "it sleeps when there is nothing");
        assert!(next <= first.map(|first| first.max(now)), "it wakes when the first is due");
        if numbers(8) != 0 {
            continue;
        }
        // To the next thing to do, or some way past it.
        let leap = if numbers(2) == 0 { 0 } else { distance(numbers) >> 8 };
        now = next.map_or(now, |at| at.max(now).saturating_add(leap)).min(i64::MAX - 1);
        wheel.advance(Tick::from_nanos(now));
        while let Some(due) = wheel.pop(Tick::from_nanos(now)) {
            let Some(Due::Alarm(waker)) = due else { unreachable!("each has its waker") };
            waker.wake();
            came += 1;
            let (at, number) = ordered.pop_first().expect("one that is in");
            assert!(at <= now, "early");
            assert_eq!(last.load(Ordering::Relaxed), number, "out of order");
        }
        assert!(ordered.first().is_none_or(|(at, _)| *at > now), "left behind");
    }
    for entry in entries.iter().flatten() {
        wheel.remove(Target::alarm(entry));
    }
    assert_eq!((wheel.len(), wheel.occupied), (0, [0; LEVELS]));
    came
}

/// Of every size, from the same instant to centuries: a number of bits, and that many of them.
fn distance(numbers: &mut Numbers<'_>) -> i64 {
    let bits = numbers(62);
    numbers(1 << bits) as i64
}
