//! How a thread that serves timers sleeps until the earliest of them, and is woken for an earlier one.
//!
//! It says that it is about to look, looks, and sleeps until what it found. Who puts something in does that first and then
//! looks until when the thread sleeps. So either the thread finds it, or the other sees that the thread has looked, or is
//! looking, and rings where that was too early or too late: whoever comes second at a timers' lock sees what the first one
//! did. What is taken out wakes nobody: the thread comes by once for nothing, and most deadlines are far away and taken out.

use std::time::Duration;

use crate::clock::Tick;
use crate::sync::{AtomicI64, Condvar, Mutex, Ordering, lock, wait};

pub(crate) struct Bell {
    /// Until when the thread sleeps, in nanoseconds; the beginning of time while it is awake and has yet to look, the end of
    /// time while it looks.
    until: AtomicI64,
    rung: Mutex<bool>,
    ringing: Condvar,
}

const AWAKE: i64 = i64::MIN;

/// The thread sleeps for a time, not until an instant (std has nothing else): if the clock goes on a lot between the look at it
/// and the sleep, since the process is stopped just there, say, it sleeps as much too long. So it looks again after a minute.
const LONGEST: Duration = Duration::from_secs(60);

impl Bell {
    #[cfg(not(all(test, purview_loom)))]
    pub(crate) const fn new() -> Bell {
        Bell { until: AtomicI64::new(AWAKE), rung: Mutex::new(false), ringing: Condvar::new() }
    }

    #[cfg(all(test, purview_loom))]
    pub(crate) fn new() -> Bell {
        Bell { until: AtomicI64::new(AWAKE), rung: Mutex::new(false), ringing: Condvar::new() }
    }

    /// The thread is about to look at what there is, each under its lock.
    pub(crate) fn look(&self) {
        self.until.store(Tick::NEVER.nanos(), Ordering::Relaxed);
    }

    /// Sleeps for `time`, or until something is put in that is due before `at`, which is the earliest that was found; now and
    /// then, less.
    pub(crate) fn sleep(&self, at: Tick, time: Option<Duration>) {
        self.until.store(at.nanos(), Ordering::Relaxed);
        let mut rung = lock(&self.rung);
        if !*rung {
            rung = wait(&self.ringing, rung, time.map(|time| time.min(LONGEST)));
        }
        *rung = false;
        drop(rung);
        self.until.store(AWAKE, Ordering::Relaxed);
    }

    /// Something was put in that is due at `at`; the lock that it was put in under is free again.
    #[inline]
    pub(crate) fn ring_before(&self, at: Tick) {
        if at.nanos() < self.until.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        self.until.store(AWAKE, Ordering::Relaxed); // it is told once
        *lock(&self.rung) = true;
        self.ringing.notify_one();
    }

    /// Keeps the thread from going to sleep, or waking up, while the process is forked.
    #[cfg(unix)]
    pub(crate) fn hold(&self) -> crate::sync::MutexGuard<'_, bool> {
        lock(&self.rung)
    }

    /// There is no such thread any more.
    #[cfg(unix)]
    pub(crate) fn forget(&self) {
        self.until.store(AWAKE, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(purview_loom)))]
mod tests {
    use super::{AWAKE, Bell};
    use crate::clock::Tick;
    use crate::sync::{Ordering, lock};

    #[test]
    fn who_was_rung_for_does_not_go_to_sleep_and_is_awake_until_he_looks_again() {
        let bell = Bell::new();
        bell.ring_before(Tick::from_nanos(1));
        assert!(!*lock(&bell.rung), "awake: nobody need ring");
        bell.look();
        bell.ring_before(Tick::from_nanos(1));
        assert!(*lock(&bell.rung));
        bell.sleep(Tick::NEVER, None); // for ever, if it did not hear
        assert!(!*lock(&bell.rung));
        assert_eq!(bell.until.load(Ordering::Relaxed), AWAKE);
    }
}
