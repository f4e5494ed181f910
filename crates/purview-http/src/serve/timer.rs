//! hyper's timeouts, on the clock of the server's context. So no runtime's timers are needed, and a test's clock is for these, too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;
use purview::{CancelGuard, Context, Done};

/// A clock, which is that of a context.
#[derive(Clone, Debug)]
pub(super) struct ContextTimer(Context);

impl ContextTimer {
    /// On the clock of `ctx`, whose end does not matter.
    pub(super) fn of(ctx: &Context) -> ContextTimer {
        ContextTimer(ctx.without_cancel())
    }
}

impl Timer for ContextTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Asleep::under(self.0.with_timeout(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Asleep::under(self.0.with_deadline(deadline))
    }

    fn now(&self) -> Instant {
        let (now, _guard) = self.0.with_timeout(Duration::ZERO);
        now.deadline().unwrap_or_else(Instant::now)
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
