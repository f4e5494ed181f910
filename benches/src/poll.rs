//! P4: asking a leaf whether it is done, beside the least that an answer can cost: one Acquire load.

use std::hint::black_box;
use std::pin::pin;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use purview::{CancelGuard, Context};
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Floor, Purview, TokioUtil};
use crate::case::{Case, Loop, poll_once};

const FAR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, PartialEq)]
enum Leaf {
    Live,
    Done,
    /// Live, below a deadline that a timer watches.
    Armed,
    /// Live, below a deadline that nobody waits for: the poll has to ask the clock.
    Unarmed,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (leaf, name) in
        [(Leaf::Live, "live"), (Leaf::Done, "done"), (Leaf::Armed, "live, armed deadline")]
    {
        for depth in [1, 10, 100] {
            let one = format!("{name}, depth {depth}, 1 thread");
            cases.push(Case::one("P4", &one, Purview, move || context(leaf, depth)));
            cases.push(Case::one("P4", &one, Floor, load));
            let two = format!("{name}, depth {depth}, 2 threads");
            let also_two = depth != 10;
            if also_two {
                cases.push(Case::two("P4", &two, Purview, move || context(leaf, depth)));
                cases.push(Case::two("P4", &two, Floor, load));
            }
            // A token has no deadline to be armed.
            if leaf != Leaf::Armed {
                cases.push(Case::one("P4", &one, TokioUtil, move || token(leaf, depth)));
                if also_two {
                    cases.push(Case::two("P4", &two, TokioUtil, move || token(leaf, depth)));
                }
            }
        }
    }
    let name = "live, deadline nobody waits for, depth 1, 1 thread";
    cases.push(Case::one("P4", name, Purview, || context(Leaf::Unarmed, 1)));
    cases
}

fn context(leaf: Leaf, depth: usize) -> Loop {
    let root = match leaf {
        Leaf::Live | Leaf::Done => Context::background().with_cancel(),
        Leaf::Armed | Leaf::Unarmed => Context::background().with_timeout(FAR),
    };
    let mut chain: Vec<(Context, CancelGuard)> = vec![root];
    for level in 0..depth {
        let child = chain[level].0.with_cancel();
        chain.push(child);
    }
    let polled = chain[depth].0.clone();
    match leaf {
        Leaf::Live | Leaf::Unarmed => {}
        Leaf::Done => chain[0].1.cancel(),
        Leaf::Armed => {
            let mut task = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(poll_once(pin!(polled.done()), &mut task));
        }
    }
    polling((polled, chain), |(polled, _chain)| polled.is_done())
}

fn token(leaf: Leaf, depth: usize) -> Loop {
    let mut chain = vec![CancellationToken::new()];
    for level in 0..depth {
        let child = chain[level].child_token();
        chain.push(child);
    }
    if leaf == Leaf::Done {
        chain[0].cancel();
    }
    polling((chain[depth].clone(), chain), |(polled, _chain)| polled.is_cancelled())
}

fn load() -> Loop {
    polling(Box::new(AtomicPtr::new(ptr::null_mut::<u8>())), |word| {
        !word.load(Ordering::Acquire).is_null()
    })
}

/// A loop as tight as it gets, since an answer is: what is polled is hidden from the compiler once a batch and not once a
/// poll, which would cost as much as the answer. It has to follow every pointer all the same: to hide an answer
/// is to say that all memory may have changed.
fn polling<S: Send + Sync + 'static>(
    shared: S,
    poll: impl Fn(&S) -> bool + Copy + Send + Sync + 'static,
) -> Loop {
    Loop::each(shared, move |shared| {
        Box::new(move |times| {
            let shared = black_box(&*shared);
            for _ in 0..times {
                black_box(poll(shared));
            }
        })
    })
}
