//! hyper's timeouts, on the clock of the server's context. So no runtime's timers are needed, and a test's clock is for these, too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;
use purview::{CancelGuard, Context, Done};

/// A clock, which is that of a context.
#[derive(Clone, Debug)]
pub(super) struct ContextTimer {
    base: Context,
    /// Ends so late that it tells the time.
    late: Context,
}

/// A hundred years.
const LATE: Duration = Duration::from_secs(100 * 31_557_600);

/// Longer than it takes to look at a clock twice.
const SOON: Duration = Duration::from_secs(3600);

/// A timeout for hyper, which adds it to an instant without a check. One that long is none.
pub(super) fn limit(timeout: Duration) -> Option<Duration> {
    (timeout < LATE).then_some(timeout)
}

impl ContextTimer {
    /// On the clock of `ctx`, whose end does not matter.
    pub(super) fn of(ctx: &Context) -> ContextTimer {
        let base = ctx.without_cancel();
        let (late, guard) = base.with_timeout(LATE);
        let _ = guard.disarm();
        ContextTimer { base, late }
    }
}

impl Timer for ContextTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Asleep::under(self.base.with_timeout(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Asleep::under(self.base.with_deadline(deadline))
    }

    fn now(&self) -> Instant {
        let told = |(deadline, left): (Instant, Duration)| deadline - left;
        let late = self.late.deadline().zip(self.late.remaining());
        match late {
            Some((_, Duration::ZERO)) => {
                // A manual clock may come to be that old, and can tell no more than 292 years.
                let (later, _guard) = self.base.with_timeout(SOON);
                later.deadline().zip(later.remaining()).map_or_else(Instant::now, told)
            }
            late => late.map_or_else(Instant::now, told),
        }
    }
}

pin_project! {
    /// A context that ends in time.
    struct Asleep {
        #[pin]
        done: Done<'static>,
        // Goes second: its end wakes nobody then.
        guard: CancelGuard,
    }
}

impl Asleep {
    fn under((ctx, guard): (Context, CancelGuard)) -> Pin<Box<dyn Sleep>> {
        Box::pin(Asleep { done: ctx.into_done(), guard })
    }
}

impl Future for Asleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        self.project().done.poll(task).map(drop)
    }
}

impl Sleep for Asleep {}

/// For a timeout that begins anew with each request of a connection, and hardly ever passes. There is one alarm for the connection,
/// which is left as it is while it rings too early; only then it is set again.
#[derive(Clone)]
pub(super) struct LazyTimer {
    timer: ContextTimer,
    alarm: Arc<Mutex<Option<Alarm>>>,
}

type Alarm = Pin<Box<dyn Sleep>>;

impl LazyTimer {
    pub(super) fn new(timer: ContextTimer) -> LazyTimer {
        LazyTimer { timer, alarm: Arc::default() }
    }

    fn alarm(&self) -> MutexGuard<'_, Option<Alarm>> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for LazyTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        match self.now().checked_add(duration) {
            Some(deadline) => self.sleep_until(deadline),
            None => self.timer.sleep(duration), // it never ends
        }
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Dozing { timer: self.clone(), deadline })
    }

    fn now(&self) -> Instant {
        self.timer.now()
    }
}

impl fmt::Debug for LazyTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTimer").finish_non_exhaustive()
    }
}

/// Until a deadline. A later one of the same timer is no earlier.
struct Dozing {
    timer: LazyTimer,
    deadline: Instant,
}

impl Future for Dozing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        let Dozing { timer, deadline } = &*self;
        // Taken out meanwhile: a waker is somebody else's code.
        let set = timer.alarm().take();
        let mut alarm = set.unwrap_or_else(|| timer.timer.sleep_until(*deadline));
        if alarm.as_mut().poll(task).is_ready() {
            // It may have been set for an earlier deadline.
            alarm = timer.timer.sleep_until(*deadline);
            if alarm.as_mut().poll(task).is_ready() {
                return Poll::Ready(());
            }
        }
        *timer.alarm() = Some(alarm);
        Poll::Pending
    }
}

impl Sleep for Dozing {}
