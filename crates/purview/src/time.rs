//! A clock for tests, and what is to be known of the system's.
//!
//! # The threads of the system's clock
//! The first time that a deadline is waited for a thread is started that serves all of them, and the first callback of a deadline
//! starts another one. They block all signals but those that a thread brings upon itself (on Linux, Android, Apple's systems and
//! FreeBSD), so that a program's handlers run on its own threads; so does a thread that a callback starts, unless it
//! unblocks them. A process that a callback starts by [`std::process::Command`] has none blocked.
//!
//! CPU affinity, scheduling class and priority are inherited from the thread that is first to wait for a deadline. A program whose
//! threads are pinned, or run in real time, waits for a deadline on an ordinary thread first: for example
//! `Context::background().sleep_blocking(Duration::from_millis(1))` at the beginning of `main`.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Context;
use crate::clock::{Manual, Tick};
use crate::tree;

/// A clock that stands still until it is advanced, for tests of time that neither sleep nor guess.
///
/// A tree uses its root's clock: deadlines, sleeps and waits below [`root`](ManualClock::root) happen while the clock is
/// advanced, in order of deadline and then of derivation, and [`advance`](ManualClock::advance) returns when all callbacks
/// have. Handles are clones of one clock.
///
/// ```
/// use purview::time::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(2));
/// clock.advance(Duration::from_secs(2) - Duration::from_nanos(1));
/// assert!(!ctx.is_done());
/// clock.advance(Duration::from_nanos(1));
/// assert!(ctx.err().unwrap().is_deadline_exceeded());
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// Makes a clock. It shows the present instant, and stays there.
    ///
    /// ```
    /// let clock = purview::time::ManualClock::new();
    /// assert_eq!(clock.now(), clock.now());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        ManualClock(Manual::new(true))
    }

    /// A model of the system's clock: deadlines are armed by the first waiter only.
    #[cfg(any(all(test, purview_loom), purview_check))]
    #[doc(hidden)]
    #[must_use]
    pub fn like_the_systems() -> Self {
        ManualClock(Manual::new(false))
    }

    /// Moves the clock on as if its timer were late: nothing that is due happens before the next advance.
    #[cfg(all(test, purview_loom))]
    pub(crate) fn pass(&self, by: Duration) {
        self.0.pass(by);
    }

    /// How many deadlines and sleeps lie in it.
    #[cfg(test)]
    pub(crate) fn timers(&self) -> usize {
        self.0.timers()
    }

    /// Makes a root on this clock: never done, no deadline, no values.
    ///
    /// ```
    /// let clock = purview::time::ManualClock::new();
    /// assert_eq!(format!("{:?}", clock.root()), "Context(manual, live)");
    /// ```
    #[track_caller]
    #[must_use]
    pub fn root(&self) -> Context {
        Context::from_ref(tree::manual_root(&self.0, Location::caller()))
    }

    /// Moves the clock on. What is due on the way happens here, each at its own time; callbacks may advance it further.
    ///
    /// ```
    /// use std::time::Duration;
    /// let clock = purview::time::ManualClock::new();
    /// let before = clock.now();
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(clock.now() - before, Duration::from_secs(60));
    /// ```
    ///
    /// # Panics
    /// Resumes the first panic of a callback or waker that it called, after all have been called.
    ///
    /// # Blocking
    /// As long as the callbacks do.
    ///
    /// # Ordering
    /// When it returns, all that was due is done, if one thread moves the clock. If two do, one may return while the other is
    /// still at what both have passed.
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }

    /// Moves the clock on to `at`. Time does not go back: an earlier instant changes nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// let clock = purview::time::ManualClock::new();
    /// let at = clock.now() + Duration::from_secs(60);
    /// clock.set(at);
    /// clock.set(at - Duration::from_secs(1));
    /// assert_eq!(clock.now(), at);
    /// ```
    ///
    /// # Panics
    /// As [`advance`](Self::advance).
    ///
    /// # Blocking
    /// As [`advance`](Self::advance).
    pub fn set(&self, at: Instant) {
        self.0.set(at);
    }

    /// What the clock shows.
    ///
    /// ```
    /// use std::time::Instant;
    /// assert!(purview::time::ManualClock::new().now() <= Instant::now());
    /// ```
    #[must_use]
    pub fn now(&self) -> Instant {
        // A manual clock stops short of what cannot be told.
        self.0
            .now()
            .to_instant()
            .or_else(|| Tick::from_nanos(0).to_instant())
            .unwrap_or_else(Instant::now)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}
