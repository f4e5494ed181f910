//! C12–C14: what is kept, what is freed, how deep and how wide.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{Context, Key};

use crate::support::on_a_small_stack;

static KEY: Key<Arc<()>> = Key::new("key");

#[test]
fn c12_a_canceled_or_dropped_child_leaves_nothing_in_its_parent() {
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_cancel();
    let children = || parent.statistics().children();
    let (a, a_guard) = parent.with_cancel();
    let (b, b_guard) = parent.with_timeout(Duration::from_secs(1));
    let (c, c_guard) = parent.with_grace(Duration::from_secs(1));
    let registration = parent.on_done(|_| {});
    assert_eq!((children(), parent.statistics().callbacks()), (3, 1));
    a_guard.cancel();
    assert_eq!(children(), 2, "canceled");
    drop((c, c_guard.disarm()));
    assert_eq!(children(), 1, "dropped live");
    clock.advance(Duration::from_secs(1));
    assert_eq!(children(), 0, "by its deadline");
    assert!(registration.stop());
    assert_eq!(parent.statistics().callbacks(), 0);
    drop((a, b, b_guard));
    // And where nothing is to be told to anybody, which is the quickest way.
    let (parent, _guard) = Context::background().with_cancel();
    let (leaf, guard) = parent.with_cancel();
    let (other, _other_guard) = parent.with_cancel();
    assert_eq!(parent.statistics().children(), 2);
    guard.cancel();
    assert_eq!(parent.statistics().children(), 1, "a leaf, canceled");
    drop((leaf, other));
    // A deadline that passed unwatched is noticed by its guard.
    let (parent, _guard) = Context::background().with_cancel();
    let (expired, guard) = parent.with_timeout(Duration::from_nanos(1));
    while !expired.is_done() {}
    drop(guard);
    assert_eq!(parent.statistics().children(), 0);
}

#[test]
fn c13_children_keep_their_ancestors_and_ancestors_keep_no_children() {
    let token = Arc::new(());
    let valued = Context::background().with_value(&KEY, token.clone());
    let (a, a_guard) = valued.with_cancel();
    let (b, b_guard) = a.with_cancel();
    let handle = b_guard.handle();
    drop((valued, a, a_guard.disarm(), b, b_guard.disarm()));
    assert_eq!(Arc::strong_count(&token), 2, "a handle keeps all above it");
    assert!(handle.context().value(&KEY).is_some());
    drop(handle);
    assert_eq!(Arc::strong_count(&token), 1);

    let (parent, _guard) = Context::background().with_cancel();
    let child = parent.with_cancel().0.with_value(&KEY, token.clone());
    drop(child);
    assert_eq!(Arc::strong_count(&token), 1, "a parent keeps no child");
}

#[test]
fn c13_a_context_lives_while_there_is_a_registration_or_a_pending_wait_for_it() {
    let token = Arc::new(());
    let make = || Context::background().with_value(&KEY, token.clone()).with_cancel();
    let (ctx, guard) = make();
    let registration = ctx.on_done(|_| {});
    drop((ctx, guard.disarm()));
    assert_eq!(Arc::strong_count(&token), 2);
    drop(registration);
    assert_eq!(Arc::strong_count(&token), 1);
    let (ctx, guard) = make();
    let done = ctx.into_done();
    drop(guard.disarm());
    assert_eq!(Arc::strong_count(&token), 2);
    drop(done);
    assert_eq!(Arc::strong_count(&token), 1);
    let (ctx, guard) = make();
    let held = ctx.clone();
    ctx.on_done(move |_| drop(held)).detach(); // a cycle, until the end comes
    let handle = guard.disarm();
    drop(ctx);
    handle.cancel();
    drop(handle);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn c13_a_guard_dropped_after_its_context_and_errors_of_a_dead_tree_are_harmless() {
    let (ctx, guard) = Context::background().with_cancel();
    let (child, child_guard) = ctx.with_cancel();
    drop((ctx, child));
    drop(guard);
    let err = child_guard.context().err();
    drop(child_guard);
    assert!(err.is_some_and(|err| err.is_canceled()));
}

#[test]
fn c13_a_cause_that_panics_when_it_is_dropped_keeps_no_ancestor() {
    #[derive(Debug)]
    struct Bomb;
    impl std::fmt::Display for Bomb {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bomb")
        }
    }
    impl std::error::Error for Bomb {}
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let token = Arc::new(());
    let (ctx, guard) = Context::background().with_value(&KEY, token.clone()).with_cancel();
    let (child, child_guard) = ctx.with_cancel();
    drop((ctx, guard.disarm()));
    child_guard.cancel_with(std::io::Error::other(Bomb));
    drop(child);
    let last = AssertUnwindSafe(move || drop(child_guard));
    let payload = catch_unwind(last).expect_err("the panic goes on to who dropped the last handle");
    assert_eq!(payload.downcast_ref(), Some(&"dropped"));
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn c13_a_chain_of_a_million_contexts_is_canceled_and_dropped_on_a_64_kib_stack() {
    on_a_small_stack(|| {
        let (root, guard) = Context::background().with_cancel();
        let mut leaf = root.clone();
        let mut middle = None;
        for n in 0..1_000_000_u32 {
            leaf = match n % 4 {
                0 => leaf.with_value(&KEY, Arc::new(())),
                1 => leaf
                    .derive()
                    .timeout(Duration::from_secs(3600))
                    .build()
                    .1
                    .disarm()
                    .context()
                    .clone(),
                _ => leaf.with_cancel().1.disarm().context().clone(),
            };
            if n == 500_000 {
                middle = Some(leaf.clone());
            }
        }
        assert!(!leaf.is_done() && leaf.deadline().is_some());
        assert!(format!("{leaf:?}").len() < 2000);
        guard.cancel_with("all of you");
        assert_eq!(leaf.err().expect("done").to_string(), "context canceled: all of you");
        assert!(middle.is_some_and(|ctx| ctx.is_done()));
        drop(leaf);
    });
}

#[test]
fn c13_a_live_chain_of_a_million_is_dropped_from_the_leaf_and_from_the_root() {
    on_a_small_stack(|| {
        for root_first in [true, false] {
            let (root, guard) = Context::background().with_cancel();
            let guard = guard.disarm();
            let mut leaf = root.clone();
            for _ in 0..1_000_000 {
                leaf = leaf.with_cancel().1.disarm().context().clone();
            }
            if root_first {
                drop((root, guard));
                drop(leaf);
            } else {
                drop(leaf);
                assert_eq!(root.statistics().children(), 0);
            }
        }
    });
}

#[test]
fn c13_deep_chains_of_every_sort_take_no_stack() {
    on_a_small_stack(|| {
        let clock = ManualClock::new();
        let (root, guard) = clock.root().with_cancel();
        let mut leaf = root.clone();
        for n in 0..30_000_u32 {
            leaf = match n % 3 {
                0 => leaf.with_grace(Duration::from_nanos(1)).1.disarm().context().clone(),
                1 => Context::any_of([&leaf, &root.without_cancel()]).1.disarm().context().clone(),
                _ => leaf
                    .with_timeout(Duration::from_secs(3600 * 24) - Duration::from_millis(n.into()))
                    .1
                    .disarm()
                    .context()
                    .clone(),
            };
        }
        let registration = leaf.on_done(|_| {});
        guard.cancel();
        clock.advance(Duration::from_secs(1));
        assert!(leaf.is_done());
        assert!(!registration.stop());
        drop(leaf);

        // The same, unwatched, on the system's clock: told by the clock through ten thousand graces.
        let (root, _guard) = Context::background().with_timeout(Duration::from_nanos(1));
        let mut leaf = root.clone();
        for _ in 0..10_000 {
            leaf = leaf.with_grace(Duration::from_nanos(1)).1.disarm().context().clone();
        }
        while !leaf.is_done() {}
        assert!(leaf.err().expect("done").is_deadline_exceeded());
    });
}

#[test]
fn c14_a_parent_with_a_million_children_is_canceled_while_others_look_on() {
    let (root, guard) = Context::background().with_cancel();
    let mut children: Vec<_> = (0..1_000_000).map(|_| root.with_cancel()).collect();
    assert_eq!(root.statistics().children(), 1_000_000);
    let over = AtomicBool::new(false);
    let looks = AtomicUsize::new(0);
    thread::scope(|s| {
        s.spawn(|| {
            // Whatever is asked meanwhile is answered: each of these would hang or lie if a lock were held across it.
            while !over.load(Ordering::Relaxed) {
                let (late, _guard) = root.with_cancel();
                assert_eq!(late.is_done(), late.err().is_some());
                let _ = (
                    children[children.len() - 1].0.is_done(),
                    root.statistics(),
                    format!("{root:?}"),
                );
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        while looks.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        guard.cancel();
        over.store(true, Ordering::Relaxed);
    });
    assert!(children.iter().all(|(ctx, _)| ctx.is_done()));
    assert_eq!(root.statistics().children(), 0);
    children.clear();
}

#[test]
fn c13_a_tree_is_freed_whichever_end_goes_first_and_from_any_thread() {
    let token = Arc::new(());
    for seed in 0..50_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n as u64).expect("small")
        };
        let mut nodes = vec![(Context::background().with_value(&KEY, token.clone()), None)];
        for _ in 0..100 {
            let parent = nodes[random(nodes.len())].0.clone();
            let (ctx, guard) = match random(6) {
                0 => (parent.with_value(&KEY, token.clone()), None),
                1 => (parent.without_cancel(), None),
                2 => some(parent.with_timeout(Duration::from_micros(random(2000) as u64))),
                3 => some(parent.with_grace(Duration::from_micros(random(2000) as u64))),
                4 => some(Context::any_of([&parent, &nodes[random(nodes.len())].0])),
                _ => some(parent.with_cancel()),
            };
            if random(3) == 0 {
                ctx.on_done(|_| {}).detach();
            }
            nodes.push((ctx, guard));
        }
        let mut heaps = vec![Vec::new(), Vec::new(), Vec::new()];
        while !nodes.is_empty() {
            let node = nodes.swap_remove(random(nodes.len()));
            heaps[random(3)].push(node);
        }
        thread::scope(|s| {
            heaps.into_iter().for_each(|heap| {
                s.spawn(|| drop(heap));
            });
        });
    }
    // What a timer, or a callback's thread, holds for a moment it lets go.
    while Arc::strong_count(&token) > 1 {
        thread::yield_now();
    }
}

fn some((ctx, guard): (Context, purview::CancelGuard)) -> (Context, Option<purview::CancelGuard>) {
    (ctx, Some(guard))
}
