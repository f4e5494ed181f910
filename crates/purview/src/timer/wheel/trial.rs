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

/// The wheel, and the ordered set that says what it should do.
struct Trial {
    wheel: Wheel,
    entries: Vec<Option<Box<AlarmEntry>>>,
    ordered: BTreeSet<(i64, u64)>,
    last: Arc<AtomicU64>,
    came: u64,
}

impl Trial {
    /// Takes an entry out, if it is in, and mostly puts it in again, somewhere else.
    fn change(&mut self, now: i64, numbers: &mut Numbers<'_>) {
        let number = numbers(ENTRIES);
        let place = &mut self.entries[number as usize];
        if let Some(old) = place.take() {
            self.wheel.remove(Target::alarm(&old));
            self.ordered.remove(&(old.at().nanos(), number));
        }
        if numbers(4) != 0 {
            let at = now.saturating_add(distance(numbers)).min(i64::MAX - 1);
            let entry = place.insert(Box::new(AlarmEntry::new(Tick::from_nanos(at), number)));
            let waker = Waker::from(Arc::new(Tells { number, last: Arc::clone(&self.last) }));
            // SAFETY: nobody else has it.
            let _ = unsafe { entry.set_waker(Some(waker)) };
            // SAFETY: boxed, and taken out before it goes.
            unsafe { self.wheel.insert(Target::alarm(entry)) };
            self.ordered.insert((at, number));
        }
        assert_eq!(self.wheel.len(), self.ordered.len());
        assert_eq!(self.wheel.found(), self.ordered.len());
        if !self.wheel.is_moving() {
            let is_near = |at: i64| at as u64 >> WIDTH <= self.wheel.cursor;
            let near = self.ordered.iter().take_while(|(at, _)| is_near(*at)).count();
            assert_eq!(
                self.wheel.near.len(),
                near,
                "the heap has what is near, and nothing else (H1)"
            );
        }
        let first = self.ordered.first().map(|(at, _)| *at);
        let next = self.wheel.next().map(Tick::nanos);
        assert_eq!(next.is_none(), first.is_none(), "it sleeps when there is nothing");
        assert!(next <= first.map(|first| first.max(now)), "it wakes when the first is due");
    }

    /// Takes out what is due and may be taken out: in order, and nothing early.
    fn fire(&mut self, now: i64) {
        while let Some(due) = self.wheel.pop(Tick::from_nanos(now)) {
            let Some(Due::Alarm(waker)) = due else { unreachable!("each has its waker") };
            waker.wake();
            self.came += 1;
            let (at, number) = self.ordered.pop_first().expect("one that is in");
            assert!(at <= now, "early");
            assert_eq!(self.last.load(Ordering::Relaxed), number, "out of order");
        }
    }
}

/// Puts in, takes out, and goes on, `steps` times or to the end of time, in a process that has been up for `uptime` nanoseconds: what is
/// due comes in order, all of it, and nothing early. Gives how many came.
///
/// # Panics
/// If not.
pub(crate) fn play(uptime: i64, steps: u32, numbers: &mut Numbers<'_>) -> u64 {
    let mut now = uptime;
    let mut trial = Trial {
        wheel: Wheel::new(),
        entries: (0..ENTRIES).map(|_| None).collect(),
        ordered: BTreeSet::new(),
        last: Arc::new(AtomicU64::new(ENTRIES)),
        came: 0,
    };
    assert!(trial.wheel.advance(Tick::from_nanos(now)), "there is nothing to move");
    for _ in 0..steps {
        trial.change(now, numbers);
        if numbers(8) != 0 {
            continue;
        }
        // To the next thing to do, or some way past it.
        let leap = if numbers(2) == 0 { 0 } else { distance(numbers) >> 8 };
        let next = trial.wheel.next().map(Tick::nanos);
        now = next.map_or(now, |at| at.max(now).saturating_add(leap)).min(i64::MAX - 1);
        while !trial.wheel.advance(Tick::from_nanos(now)) {
            // Between two parts others come.
            if numbers(2) == 0 {
                trial.change(now, numbers);
            }
            if numbers(2) == 0 {
                trial.fire(now);
            }
        }
        trial.fire(now);
        assert!(trial.ordered.first().is_none_or(|(at, _)| *at > now), "left behind");
    }
    for entry in trial.entries.iter().flatten() {
        trial.wheel.remove(Target::alarm(entry));
    }
    assert_eq!((trial.wheel.len(), trial.wheel.found()), (0, 0));
    assert_eq!(trial.wheel.occupied, [0; LEVELS]);
    trial.came
}

/// Of every size, from the same instant to centuries: a number of bits, and that many of them.
fn distance(numbers: &mut Numbers<'_>) -> i64 {
    let bits = numbers(62);
    numbers(1 << bits) as i64
}
