//! Time, as the core counts it, and the two clocks that tell it.
//!
//! An instant is a [`Tick`]: nanoseconds since one instant that the whole process shares, whichever clock it was read
//! from. 64 bits hold 292 years to either side; what is further away is [never](Tick::NEVER), or longer ago than anybody
//! can tell. One shared epoch means that an error can say when it happened after its tree, and its clock, are gone.
#![expect(
    unsafe_code,
    reason = "a node names its manual clock by a pointer that its root keeps alive"
)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::leaked::Leaked;
use crate::sync::{AtomicI64, Mutex, Ordering, lock};
use crate::timer::heap::Heap;
use crate::timer::{Due, Timers, driver};
use crate::tree;

/// An instant, in nanoseconds since the process's epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tick(i64);

impl Tick {
    /// Further away than the clock can tell: no deadline.
    pub(crate) const NEVER: Tick = Tick(i64::MAX);

    pub(crate) const fn from_nanos(nanos: i64) -> Tick {
        Tick(nanos)
    }

    pub(crate) const fn nanos(self) -> i64 {
        self.0
    }

    #[inline]
    pub(crate) fn from_instant(at: Instant) -> Tick {
        let epoch = epoch();
        match at.checked_duration_since(epoch) {
            Some(after) => Tick(nanos(after)),
            None => Tick(-nanos(epoch.saturating_duration_since(at))),
        }
    }

    /// None for [never](Tick::NEVER), and where the platform's own clock cannot say it.
    pub(crate) fn to_instant(self) -> Option<Instant> {
        if self == Tick::NEVER {
            return None;
        }
        let distance = Duration::from_nanos(self.0.unsigned_abs());
        if self.0 < 0 { epoch().checked_sub(distance) } else { epoch().checked_add(distance) }
    }

    /// `duration` later; never, where that is beyond what can be told.
    pub(crate) fn after(self, duration: Duration) -> Tick {
        match nanos(duration) {
            i64::MAX => Tick::NEVER,
            nanos => Tick(self.0.saturating_add(nanos)),
        }
    }

    /// `duration` earlier.
    pub(crate) fn before(self, duration: Duration) -> Tick {
        if self == Tick::NEVER {
            return self;
        }
        Tick(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to here; zero where that is later.
    pub(crate) fn since(self, earlier: Tick) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// As many as can be told.
#[inline]
fn nanos(duration: Duration) -> i64 {
    const MOST: u64 = (i64::MAX / 1_000_000_000) as u64;
    match duration.as_secs() {
        seconds if seconds < MOST => {
            seconds as i64 * 1_000_000_000 + i64::from(duration.subsec_nanos())
        }
        _ => i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
    }
}

#[inline]
fn epoch() -> Instant {
    static EPOCH: Leaked<Instant> = Leaked::new();
    *EPOCH.get_or_make(Instant::now)
}

#[cfg(not(all(test, purview_loom)))]
#[inline]
fn system_now() -> Tick {
    Tick::from_instant(Instant::now())
}

/// In a model the system's clock stands still between calls of [`modeled::set`], so that each interleaving repeats.
#[cfg(all(test, purview_loom))]
fn system_now() -> Tick {
    modeled::now()
}

#[cfg(all(test, purview_loom))]
pub(crate) mod modeled {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Tick;

    static NOW: AtomicI64 = AtomicI64::new(0);

    pub(crate) fn now() -> Tick {
        Tick(NOW.load(Ordering::SeqCst))
    }

    /// Sets the system's clock, in nanoseconds since the process's epoch.
    pub(crate) fn set(nanos: i64) {
        NOW.store(nanos, Ordering::SeqCst);
    }
}

/// The clock of a tree (C40): the system's, or a manual one that the tree's root keeps alive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock(Option<NonNull<Manual>>);

impl Clock {
    pub(crate) const SYSTEM: Clock = Clock(None);

    pub(crate) fn manual(clock: &Arc<Manual>) -> Clock {
        Clock(Some(NonNull::from(&**clock)))
    }

    /// Whether deadlines are armed from the start, and decide whenever they are reached (C18).
    pub(crate) fn is_manual(self) -> bool {
        self.get().is_some_and(|manual| manual.arms_at_once)
    }

    #[inline]
    fn get(&self) -> Option<&Manual> {
        // SAFETY: a clock lies in a node, or beside a borrow of one; every node keeps its root, and the root keeps its
        // manual clock, until nothing of the tree is left but errors, which don't ask.
        self.0.map(|manual| unsafe { manual.as_ref() })
    }

    #[inline]
    pub(crate) fn now(&self) -> Tick {
        match self.get() {
            None => system_now(),
            Some(manual) => manual.now(),
        }
    }

    /// Runs `change` on this clock's timers (on one of its wheels, if it has several), under their lock, and sees to it that
    /// somebody serves them.
    pub(crate) fn with_timers<R>(&self, wheel: usize, change: impl FnOnce(Timers<'_>) -> R) -> R {
        match self.get() {
            None => driver::with_wheel(wheel, |wheel| change(Timers::Wheel(wheel))),
            Some(manual) => change(Timers::Heap(&mut lock(&manual.heap))),
        }
    }
}

/// A clock that stands still until it is advanced.
pub(crate) struct Manual {
    now: AtomicI64,
    /// How far the advances begun so far will go. Guarded by the heap's lock as to who adds what.
    goal: AtomicI64,
    /// False only in models of the system's clock, whose deadlines are armed by the first waiter.
    arms_at_once: bool,
    heap: Mutex<Heap>,
}

impl Manual {
    pub(crate) fn new(arms_at_once: bool) -> Arc<Manual> {
        let now = Tick::from_instant(Instant::now()).nanos();
        let heap = Mutex::new(Heap::new());
        let (now, goal) = (AtomicI64::new(now), AtomicI64::new(now));
        Arc::new(Manual { now, goal, arms_at_once, heap })
    }

    #[cfg(test)]
    pub(crate) fn timers(&self) -> usize {
        lock(&self.heap).len()
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::Acquire))
    }

    /// Time goes on, and the timer does not come: it is late, as the system's may be.
    #[cfg(all(test, purview_loom))]
    pub(crate) fn pass(&self, duration: Duration) {
        self.now.store(self.now().after(duration).nanos(), Ordering::Release);
    }

    pub(crate) fn advance(&self, duration: Duration) {
        let goal = {
            let _heap = lock(&self.heap);
            let from = Tick(self.goal.load(Ordering::Relaxed).max(self.now().nanos()));
            let goal = from.after(duration).nanos().min(i64::MAX - 1);
            self.goal.store(goal, Ordering::Relaxed);
            goal
        };
        self.run_to(Tick(goal));
    }

    pub(crate) fn set(&self, at: Instant) {
        let goal = Tick::from_instant(at).nanos().min(i64::MAX - 1);
        {
            let _heap = lock(&self.heap);
            self.goal.fetch_max(goal, Ordering::Relaxed);
        }
        self.run_to(Tick(goal));
    }

    /// Fires what is due up to `goal`, each at its own time, in order of deadline and then derivation (C40). Callbacks may
    /// advance the clock again: the inner call goes further, and the outer one finds nothing left to do.
    fn run_to(&self, goal: Tick) {
        let mut panics = tree::Panics::new();
        loop {
            let due = {
                let mut heap = lock(&self.heap);
                let Some(at) = heap.earliest().filter(|at| *at <= goal) else {
                    // Under the lock: who enters something afterwards sees the new time, and need not be come to.
                    self.now.fetch_max(goal.nanos(), Ordering::AcqRel);
                    break;
                };
                self.now.fetch_max(at.nanos(), Ordering::AcqRel);
                heap.pop()
            };
            match due {
                Some(Due::Deadline(node)) => {
                    tree::expire(&node, &mut tree::Wake::Here, &mut panics);
                    panics.release(node);
                }
                Some(Due::Alarm(waker)) => panics.catch(|| waker.wake()),
                None => {}
            }
        }
        panics.resume();
    }
}
