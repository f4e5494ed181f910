//! Sleeping until a time or until the context ends, whichever is first.
#![expect(
    unsafe_code,
    reason = "an alarm's entry is pinned with its future, and ordered by pointer"
)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use crate::Context;
use crate::clock::{Clock, Tick};
use crate::done::{Done, Either};
use crate::error::Error;
use crate::order;
use crate::timer::{AlarmEntry, Target};

/// The future of a sleep, made by [`Context::sleep`].
///
/// `Ok(())` when the time is up, `Err` when the context ends first; where both come at once, the end wins. The time starts
/// when the future is made, and is told by the context's clock. Never early.
///
/// # Cancel safety
/// Dropping it leaves nothing behind. Sleeping allocates nothing.
#[must_use = "a future does nothing unless it is polled"]
pub struct Sleep<'a> {
    either: Either<'a>,
}

impl<'a> Sleep<'a> {
    pub(crate) fn new(context: &'a Context, duration: Duration) -> Self {
        let clock = context.clock();
        let alarm = Alarm::new(clock, clock.now().after(duration));
        Sleep { either: Either { alarm, done: Done::borrowed(context) } }
    }
}

impl Future for Sleep<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        // SAFETY: pinned with the whole.
        unsafe { self.map_unchecked_mut(|this| &mut this.either) }.poll(task)
    }
}

impl fmt::Debug for Sleep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alarm = &self.either.alarm;
        f.debug_struct("Sleep")
            .field("context", self.either.done.context())
            .field("remaining", &alarm.at.since(alarm.clock.now()))
            .finish()
    }
}

/// Ready at a time. Lies beside something that keeps a context of its clock.
pub(crate) struct Alarm {
    clock: Clock,
    at: Tick,
    /// None until it is first entered.
    entry: Option<AlarmEntry>,
}

impl Alarm {
    pub(crate) fn new(clock: Clock, at: Tick) -> Self {
        Alarm { clock, at, entry: None }
    }

    pub(crate) fn at(&self) -> Tick {
        self.at
    }

    pub(crate) fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        // SAFETY: nothing is moved out.
        let this = unsafe { self.get_unchecked_mut() };
        if this.at == Tick::NEVER {
            return Poll::Pending;
        }
        if this.clock.now() >= this.at {
            return Poll::Ready(());
        }
        let at = this.at;
        // Its place among alarms of one time is when it was first entered.
        let entry = &*this.entry.get_or_insert_with(|| AlarmEntry::new(at, order::next(0, None)));
        let waker = Some(task.waker().clone());
        let old = this.clock.with_timers(entry.wheel(), |mut timers| {
            // SAFETY: pinned, and taken out when it is dropped (T2).
            unsafe { timers.insert(Target::alarm(entry)) };
            // SAFETY: the timers' lock is held (T1).
            unsafe { entry.set_waker(waker) }
        });
        drop(old); // an old waker: nothing is locked
        // A manual clock may have been advanced past it meanwhile, and does not come by again.
        if this.clock.now() >= this.at { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            let old = self.clock.with_timers(entry.wheel(), |mut timers| {
                timers.remove(Target::alarm(entry));
                // SAFETY: the timers' lock is held (T1).
                unsafe { entry.set_waker(None) }
            });
            drop(old);
        }
    }
}

// SAFETY: the entry is guarded by its timers' lock, and wakers are `Send + Sync`.
unsafe impl Send for Alarm {}
// SAFETY: as above.
unsafe impl Sync for Alarm {}
