//! P1–P3b: deriving a child, finishing it and letting it go, under a parent that lives on.

use std::hint::black_box;
use std::pin::pin;
use std::time::{Duration, Instant};

use purview::{CancelGuard, Context};
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Purview, TokioUtil};
use crate::case::{Case, Loop, counted_waker, poll_once};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::one("P1", "cancel", Purview, cancel),
        Case::one("P1", "cancel", TokioUtil, token_cancel),
        Case::one("P1", "guard dropped", Purview, drop_guard),
        Case::two("P2", "2 threads", Purview, cancel),
        Case::two("P2", "2 threads", TokioUtil, token_cancel),
        Case::one("P3", "1 thread", Purview, timeout),
        Case::one("P3", "1 thread", TokioUtil, token_timeout).in_runtime(),
        Case::two("P3", "2 threads", Purview, timeout),
        Case::two("P3", "2 threads", TokioUtil, token_timeout).in_runtime(),
        Case::one("P3b", "1 thread", Purview, timeout_observed),
        Case::one("P3b", "1 thread", TokioUtil, token_timeout_observed).in_runtime(),
        Case::two("P3b", "2 threads", Purview, timeout_observed),
        Case::two("P3b", "2 threads", TokioUtil, token_timeout_observed).in_runtime(),
    ]
}

fn cancel() -> Loop {
    Loop::of(Context::background().with_cancel(), |(parent, _guard)| {
        let (child, guard) = black_box(parent.with_cancel());
        guard.cancel();
        drop(black_box(child));
        drop(guard);
    })
}

fn token_cancel() -> Loop {
    Loop::of(CancellationToken::new(), |parent| {
        let child = black_box(parent.child_token());
        child.cancel();
        drop(black_box(child));
    })
}

fn drop_guard() -> Loop {
    Loop::of(Context::background().with_cancel(), |(parent, _guard)| {
        let (child, guard) = black_box(parent.with_cancel());
        drop(guard);
        drop(black_box(child));
    })
}

fn timeout() -> Loop {
    Loop::of(Context::background().with_cancel(), |(parent, _guard)| {
        let (child, guard) = black_box(parent.with_timeout(TIMEOUT));
        guard.cancel();
        drop(black_box(child));
        drop(guard);
    })
}

/// A token knows no time: its user has a timer beside it, and polls that.
fn token_timeout() -> Loop {
    Loop::polling(CancellationToken::new(), |parent, task| {
        let child = black_box(parent.child_token());
        let mut timer = pin!(tokio::time::sleep(TIMEOUT));
        assert!(poll_once(timer.as_mut(), task));
        child.cancel();
        drop(black_box(child));
    })
}

/// As in a `select!` whose other branch is ready in the second turn.
fn timeout_observed() -> Loop {
    Loop::each(Context::background().with_cancel(), |shared| {
        let waker = counted_waker();
        let mut earlier = Earlier::new();
        Box::new(move |times| {
            earlier.renew();
            let mut task = std::task::Context::from_waker(&waker);
            for _ in 0..times {
                let (child, guard) = black_box(black_box(&shared).0.with_timeout(TIMEOUT));
                {
                    let mut done = pin!(child.done());
                    assert!(poll_once(done.as_mut(), &mut task));
                }
                guard.cancel();
                drop(black_box(child));
                drop(guard);
            }
        })
    })
}

fn token_timeout_observed() -> Loop {
    Loop::polling(CancellationToken::new(), |parent, task| {
        let child = black_box(parent.child_token());
        {
            let mut done = pin!(tokio::time::timeout(TIMEOUT, child.cancelled()));
            assert!(poll_once(done.as_mut(), task));
        }
        child.cancel();
        drop(black_box(child));
    })
}

/// An armed deadline before those that are measured, as there is in any server: theirs need not wake the timer.
struct Earlier {
    since: Instant,
    _armed: (Context, CancelGuard),
}

impl Earlier {
    fn new() -> Earlier {
        let armed = Context::background().with_timeout(TIMEOUT - Duration::from_secs(1));
        assert!(poll_once(
            pin!(armed.0.done()),
            &mut std::task::Context::from_waker(&counted_waker())
        ));
        Earlier { since: Instant::now(), _armed: armed }
    }

    fn renew(&mut self) {
        if self.since.elapsed() > TIMEOUT / 2 {
            *self = Earlier::new();
        }
    }
}
