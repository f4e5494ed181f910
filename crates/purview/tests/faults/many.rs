//! F29, F30, F40: trees of odd shapes, and storms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use purview::{CancelGuard, Context, Key};

use crate::support::{HOUR, random, watched};

static TOKEN: Key<Arc<()>> = Key::new("token");

/// A tree of so many, with the numbers of everybody's parent. A node's guard is forgotten: who ends what is up to the test.
struct Tree {
    nodes: Vec<Context>,
    guards: Vec<CancelGuard>,
    parents: Vec<usize>,
}

impl Tree {
    fn new(nodes: usize, token: &Arc<()>, parent_of: impl Fn(usize) -> usize) -> Tree {
        let valued = Context::background().with_value(&TOKEN, Arc::clone(token));
        let (root, guard) = valued.with_cancel();
        let (mut tree, rest) =
            (Tree { nodes: vec![root], guards: vec![guard], parents: vec![0] }, 1..nodes);
        for n in rest {
            let parent = parent_of(n);
            let (ctx, guard) = tree.nodes[parent].with_cancel();
            tree.nodes.push(ctx);
            tree.guards.push(guard);
            tree.parents.push(parent);
        }
        tree
    }

    /// Whether `upper` is `lower` or above it.
    fn is_above(&self, upper: usize, mut lower: usize) -> bool {
        while lower > upper {
            lower = self.parents[lower];
        }
        lower == upper
    }
}

#[test]
fn f29_trees_of_every_shape_are_canceled_anywhere_and_dropped_from_either_end() {
    const NODES: usize = 100_000;
    let odd = |n: usize| {
        let mut seed = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        random(&mut seed, n)
    };
    // Each tooth of the comb hangs at a node of its back.
    let comb = |n: usize| if n % 2 == 0 { n - 2 } else { n - 1 };
    let shapes: [(&str, &dyn Fn(usize) -> usize); 4] =
        [("chain", &|n| n - 1), ("star", &|_| 0), ("comb", &comb), ("random", &odd)];
    for (shape, parent_of) in shapes {
        for (at, root_first) in [(0, true), (NODES / 2, false), (NODES - 1, true)] {
            let token = Arc::new(());
            let tree = Tree::new(NODES, &token, parent_of);
            tree.guards[at].cancel();
            let mut below = vec![false; NODES];
            for n in 0..NODES {
                below[n] = n == at || (n > at && below[tree.parents[n]]);
                assert_eq!(tree.nodes[n].is_done(), below[n], "{shape}: {n} under {at}");
            }
            assert!(tree.is_above(0, at));
            let Tree { mut nodes, guards, .. } = tree;
            guards.into_iter().for_each(|guard| drop(guard.disarm()));
            if root_first {
                nodes.reverse();
            }
            while nodes.pop().is_some() {}
            assert_eq!(Arc::strong_count(&token), 1, "{shape}: nothing is left");
        }
    }
}

/// So many threads derive, wait, call back, cancel and drop under one root, each so often; half of them are asked to stop by it.
fn storm(threads: usize, rounds: usize) {
    let token = Arc::new(());
    let (ended, called) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (root, guard) = Context::background().with_cancel();
    let is_over = AtomicBool::new(false);
    thread::scope(|s| {
        for thread in 0..threads {
            let (root, token, ended, called) = (&root, &token, &ended, &called);
            s.spawn(move || {
                let mut seed = (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut kept = Vec::new();
                for _ in 0..rounds {
                    let layer = root.with_value(&TOKEN, Arc::clone(token));
                    let (ctx, guard) = match random(&mut seed, 4) {
                        0 => {
                            layer.with_timeout(Duration::from_micros(random(&mut seed, 50) as u64))
                        }
                        1 => layer.with_timeout(HOUR),
                        2 => Context::any_of([&layer, root]),
                        _ => layer.with_cancel(),
                    };
                    let (below, below_guard) = ctx.with_cancel();
                    let count = Arc::clone(called);
                    let registration = below.on_done(move |_| {
                        count.fetch_add(1, Ordering::SeqCst);
                    });
                    match random(&mut seed, 5) {
                        0 => guard.cancel(),
                        1 => drop(guard),
                        2 => {
                            thread::scope(|s| {
                                let waits = s.spawn(|| below.done().wait());
                                guard.cancel();
                                ended.fetch_add(1, Ordering::SeqCst);
                                drop(waits.join().expect("no panic"));
                            });
                        }
                        3 => {
                            kept.push((ctx, guard, below, below_guard));
                            continue; // and the callback is taken back
                        }
                        _ => drop((ctx, guard.disarm())),
                    }
                    assert!(registration.stop() || below.is_done());
                    if kept.len() > 20 {
                        drop(kept.swap_remove(random(&mut seed, 20)));
                    }
                }
            });
        }
        // Somebody looks on, whoever is held up.
        s.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let _ = (root.statistics(), root.is_done(), format!("{root:?}"));
                thread::yield_now();
            }
        });
        crate::support::until(|| ended.load(Ordering::SeqCst) > threads * rounds / 10);
        guard.cancel_with("in the middle of it");
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(root.statistics().children(), 0);
    // What a timer, or a callback's thread, holds for a moment it lets go.
    crate::support::until(|| Arc::strong_count(&token) == 1);
}

#[test]
fn f30_many_threads_that_derive_cancel_and_drop_under_one_root_leave_nothing() {
    watched(|| storm(8, 400));
}

#[cfg(unix)]
#[test]
fn f40_sixty_four_threads_on_one_core_go_through_the_same() {
    crate::child::alone_under(&["taskset", "-c", first_core()], || watched(|| storm(64, 40)));
}

#[cfg(unix)]
#[test]
fn f28_a_timer_that_gets_hardly_any_time_comes_all_the_same() {
    crate::child::alone_under(&["taskset", "-c", first_core()], || {
        watched(|| {
            let over = AtomicBool::new(false);
            thread::scope(|s| {
                for _ in 0..16 {
                    s.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
                for _ in 0..5 {
                    let (ctx, _guard) =
                        Context::background().with_timeout(Duration::from_millis(1));
                    assert!(ctx.done().wait().is_deadline_exceeded());
                }
                over.store(true, Ordering::Relaxed);
            });
        });
    });
}

/// One on which this process may run.
#[cfg(unix)]
fn first_core() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.unwrap_or("0").trim().split(['-', ',']).next().unwrap_or("0").to_string();
    String::leak(first)
}
