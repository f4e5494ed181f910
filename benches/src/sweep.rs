//! P6 and P6b: canceling a large tree, and what another thread feels of it meanwhile.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use purview::{CancelGuard, Context};
use tokio_util::sync::CancellationToken;

use crate::case::Peer::{Floor, Purview, TokioUtil};
use crate::case::{Case, Outcome, Scale};
use crate::machine;
use crate::measure::{TOLERATED, watch};

/// A stall is short: an observer that was kept from running for longer than this has seen the scheduler's.
const KEPT_OFF: Duration = Duration::from_micros(2);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::whole("P6", "children", Purview, |scale| cancel(children(scale))),
        Case::whole("P6", "children", TokioUtil, |scale| token_cancel(token_children(scale))),
        Case::whole("P6", "chain", Purview, |scale| cancel(chain(scale))),
        Case::whole("P6", "chain", TokioUtil, |scale| token_cancel(token_chain(scale))),
        Case::whole("P6b", "is_done on a child", Purview, |scale| {
            let tree = children(scale);
            let child = &tree.last().expect("a tree has a root").0;
            stall(|| tree[0].1.cancel(), || _ = black_box(child.is_done()))
        }),
        Case::whole("P6b", "is_done on a child", TokioUtil, |scale| {
            let tree = token_children(scale);
            let child = tree.last().expect("a tree has a root");
            stall(|| tree[0].cancel(), || _ = black_box(child.is_cancelled()))
        }),
        Case::whole("P6b", "is_done on a child", Floor, |scale| {
            let (tree, word) = (children(scale), AtomicBool::new(false));
            stall(|| tree[0].1.cancel(), || _ = black_box(word.load(Ordering::Acquire)))
        }),
        Case::whole("P6b", "derive on the parent", Purview, |scale| {
            let tree = children(scale);
            stall(|| tree[0].1.cancel(), || drop(black_box(tree[0].0.with_cancel())))
        }),
        Case::whole("P6b", "derive on the parent", TokioUtil, |scale| {
            let tree = token_children(scale);
            stall(|| tree[0].cancel(), || drop(black_box(tree[0].child_token())))
        }),
    ]
}

/// The root first.
type Tree = Vec<(Context, CancelGuard)>;

fn children(scale: &Scale) -> Tree {
    let mut tree = Tree::with_capacity(scale.nodes + 1);
    tree.push(Context::background().with_cancel());
    for _ in 0..scale.nodes {
        let child = tree[0].0.with_cancel();
        tree.push(child);
    }
    tree
}

fn chain(scale: &Scale) -> Tree {
    let mut tree = Tree::with_capacity(scale.nodes + 1);
    tree.push(Context::background().with_cancel());
    for level in 0..scale.nodes {
        let child = tree[level].0.with_cancel();
        tree.push(child);
    }
    tree
}

fn token_children(scale: &Scale) -> Vec<CancellationToken> {
    let mut tree = Vec::with_capacity(scale.nodes + 1);
    tree.push(CancellationToken::new());
    for _ in 0..scale.nodes {
        let child = tree[0].child_token();
        tree.push(child);
    }
    tree
}

fn token_chain(scale: &Scale) -> Vec<CancellationToken> {
    let mut tree = Vec::with_capacity(scale.nodes + 1);
    tree.push(CancellationToken::new());
    for level in 0..scale.nodes {
        let child = tree[level].child_token();
        tree.push(child);
    }
    tree
}

fn cancel(tree: Tree) -> Outcome {
    let (elapsed, disturbed) = watch(|| tree[0].1.cancel());
    assert!(tree.last().is_some_and(|leaf| leaf.0.is_done()));
    per_node(elapsed, tree.len(), disturbed)
}

fn token_cancel(tree: Vec<CancellationToken>) -> Outcome {
    let (elapsed, disturbed) = watch(|| tree[0].cancel());
    assert!(tree.last().is_some_and(CancellationToken::is_cancelled));
    per_node(elapsed, tree.len(), disturbed)
}

fn per_node(elapsed: Duration, nodes: usize, disturbed: f64) -> Outcome {
    let ns = elapsed.as_secs_f64() * 1e9 / nodes as f64;
    Outcome { disturbed, ..Outcome::of([("ns a node", ns)]) }
}

/// The longest that `operation` took on one core while `cancel` ran on another.
fn stall(cancel: impl FnOnce() + Send, operation: impl Fn() + Sync) -> Outcome {
    let begin = Barrier::new(2);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let canceler = scope.spawn(|| {
            let pinned = machine::pin(1);
            begin.wait();
            let kept_off = watch(cancel).1;
            over.store(true, Ordering::Release);
            if pinned { kept_off } else { 1.0 }
        });
        let observer = scope.spawn(|| {
            let pinned = machine::pin(0);
            begin.wait();
            let before = machine::waited();
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Acquire) {
                let from = Instant::now();
                operation();
                longest = longest.max(from.elapsed());
            }
            let kept_off = Duration::from_nanos(machine::waited().saturating_sub(before));
            (longest, !pinned || kept_off > KEPT_OFF)
        });
        let (longest, kept_off) = observer.join().expect("it does not panic");
        let disturbed = canceler.join().expect("it does not panic");
        let disturbed = if kept_off { disturbed.max(2.0 * TOLERATED) } else { disturbed };
        Outcome { disturbed, ..Outcome::of([("worst us", longest.as_secs_f64() * 1e6)]) }
    })
}
