//! P10 and P11: waiting for an end that does not come, by a future and by a callback.

use std::hint::black_box;
use std::pin::pin;
use std::task::Context as Task;

use purview::Context;
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Purview, TokioUtil};
use crate::case::{Case, Loop, counted_waker, poll_once};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::one("P10", "register, 1 thread", Purview, register),
        Case::one("P10", "register, 1 thread", TokioUtil, token_register),
        Case::two("P10", "register, 2 threads", Purview, register),
        Case::two("P10", "register, 2 threads", TokioUtil, token_register),
        Case::one("P10", "poll again, 1 thread", Purview, poll_again),
        Case::one("P10", "poll again, 1 thread", TokioUtil, token_poll_again),
        Case::two("P10", "poll again, 2 threads", Purview, poll_again),
        Case::two("P10", "poll again, 2 threads", TokioUtil, token_poll_again),
        Case::one("P11", "1 thread", Purview, callback),
        Case::one("P11", "1 thread", TokioUtil, token_task),
        Case::two("P11", "2 threads", Purview, callback),
    ]
}

fn register() -> Loop {
    Loop::polling(Context::background().with_cancel(), |(ctx, _guard), task| {
        let mut done = pin!(ctx.done());
        assert!(poll_once(done.as_mut(), task));
    })
}

fn token_register() -> Loop {
    Loop::polling(CancellationToken::new(), |token, task| {
        let mut done = pin!(token.cancelled());
        assert!(poll_once(done.as_mut(), task));
    })
}

/// By the same task, as in the further turns of a loop around a `select!`.
fn poll_again() -> Loop {
    Loop::each(Context::background().with_cancel(), |shared| {
        let waker = counted_waker();
        let mut done = Box::pin(shared.0.clone().into_done());
        Box::new(move |times| {
            let _alive = &shared;
            let mut task = Task::from_waker(&waker);
            for _ in 0..times {
                assert!(poll_once(black_box(done.as_mut()), &mut task));
            }
        })
    })
}

fn token_poll_again() -> Loop {
    Loop::each(CancellationToken::new(), |token| {
        let waker = counted_waker();
        let mut done = Box::pin(CancellationToken::clone(&token).cancelled_owned());
        Box::new(move |times| {
            let mut task = Task::from_waker(&waker);
            for _ in 0..times {
                assert!(poll_once(black_box(done.as_mut()), &mut task));
            }
        })
    })
}

fn callback() -> Loop {
    Loop::of(Context::background().with_cancel(), |(ctx, _guard)| {
        let registration = ctx.on_done(|err| _ = black_box(err));
        assert!(black_box(registration).stop());
    })
}

/// A token has no callbacks: a task waits, and is aborted. Each turn of the executor registers one and buries the last one.
fn token_task() -> Loop {
    Loop::each(CancellationToken::new(), |token| {
        let runtime = Builder::new_current_thread().build().expect("a runtime can be built");
        Box::new(move |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    let done = CancellationToken::clone(black_box(&token)).cancelled_owned();
                    let task = tokio::spawn(done);
                    yield_now().await;
                    task.abort();
                }
                yield_now().await;
            });
        })
    })
}
