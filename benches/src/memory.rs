//! P8: resident bytes of a live child, of a million of them, in a fresh process each.
//!
//! What the allocator adds is counted, what holds the handles is not: that vector is touched beforehand. malloc is left as
//! it is by default here, since a growing array that leaves its old places behind is not a context's memory.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::Context as Task;
use std::time::Duration;

use purview::Context;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Purview, TokioUtil};
use crate::case::{Case, Outcome, Scale, counted_waker, poll_once};
use crate::machine;

const FAR: Duration = Duration::from_secs(600);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::whole("P8", "child", Purview, |scale| {
            let (parent, _guard) = Context::background().with_cancel();
            resident(scale, || parent.with_cancel())
        })
        .in_a_process(),
        Case::whole("P8", "child", TokioUtil, |scale| {
            let parent = CancellationToken::new();
            resident(scale, || parent.child_token())
        })
        .in_a_process(),
        Case::whole("P8", "child with an armed deadline", Purview, |scale| {
            let (parent, _guard) = Context::background().with_cancel();
            let waker = counted_waker();
            let mut task = Task::from_waker(&waker);
            resident(scale, || {
                let child = parent.with_timeout(FAR);
                assert!(poll_once(pin!(child.0.done()), &mut task));
                child
            })
        })
        .in_a_process(),
        Case::whole("P8", "child with an armed deadline", TokioUtil, |scale| {
            let runtime =
                Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
            let _inside = runtime.enter();
            let parent = CancellationToken::new();
            let waker = counted_waker();
            let mut task = Task::from_waker(&waker);
            resident(scale, || {
                let mut timer = Box::pin(tokio::time::sleep(FAR));
                assert!(poll_once(timer.as_mut(), &mut task));
                (parent.child_token(), timer)
            })
        })
        .in_a_process(),
    ]
}

fn resident<T>(scale: &Scale, mut make: impl FnMut() -> T) -> Outcome {
    drop(make()); // whatever comes once
    let mut live = Vec::with_capacity(scale.nodes);
    live.spare_capacity_mut().fill_with(MaybeUninit::zeroed);
    let before = machine::resident();
    while live.len() < scale.nodes {
        live.push(make());
        black_box(&mut live);
    }
    let bytes = machine::resident().saturating_sub(before);
    Outcome::of([("bytes", bytes as f64 / live.len() as f64)])
}
