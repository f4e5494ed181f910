//! What is asked of a context neither blocks nor allocates: it may be asked where nothing else may be done. `cargo xtask sanitize
//! realtime` has a sanitizer look on; otherwise this only sees that it can be asked.
#![cfg_attr(purview_realtime, feature(sanitize))]

use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context as Task, Waker};
use std::time::Duration;

use purview::{Context, Key};

static USER: Key<u64> = Key::new("user");

#[cfg_attr(purview_realtime, sanitize(realtime = "nonblocking"))]
fn ask(ctx: &Context) -> (bool, bool, Option<Duration>, Option<u64>) {
    let err = black_box(ctx.err());
    (ctx.is_done(), err.is_some(), ctx.remaining(), ctx.value(&USER).copied())
}

#[cfg_attr(purview_realtime, sanitize(realtime = "nonblocking"))]
fn poll(done: Pin<&mut purview::Done<'_>>, task: &mut Task<'_>) -> bool {
    done.poll(task).is_ready()
}

#[test]
fn asking_blocks_nobody() {
    let (root, stop) = Context::background().with_cancel();
    let (ctx, _guard) = root.derive().timeout(Duration::from_secs(60)).value(&USER, 7).build();
    let (layer, _guard) = ctx.with_cancel();
    assert_eq!(layer.value(&USER), Some(&7));
    let mut done = pin!(layer.done());
    let mut task = Task::from_waker(Waker::noop());
    // It is listed by the first poll, which may take a lock.
    assert!(done.as_mut().poll(&mut task).is_pending());
    for ctx in [&root, &ctx, &layer] {
        let (is_done, has_err, ..) = ask(ctx);
        assert!(!is_done && !has_err);
    }
    assert!(!poll(done.as_mut(), &mut task));
    stop.cancel();
    for ctx in [&root, &ctx, &layer] {
        let (is_done, has_err, ..) = ask(ctx);
        assert!(is_done && has_err);
    }
    assert!(poll(done, &mut task));
}
