//! C1–C11: roots, state, cancel and its order.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use purview::time::ManualClock;
use purview::{By, Context, Error};

use crate::support::{CountingWaker, Log, poll_once, poll_with, waker_of};

#[test]
fn c1_roots_are_never_done_and_have_no_deadline_and_no_values() {
    static KEY: purview::Key<u8> = purview::Key::new("key");
    for root in [Context::background(), Context::todo(), ManualClock::new().root()] {
        assert!(!root.is_done());
        assert!(root.err().is_none());
        assert!(root.check().is_ok());
        assert_eq!(root.deadline(), None);
        assert_eq!(root.remaining(), None);
        assert_eq!(root.value(&KEY), None);
        assert!(!root.can_be_done());
        assert!(poll_once(pin!(root.done())).is_pending());
    }
}

fn same(a: &Error, b: &Error) -> bool {
    (a.kind(), a.origin().context(), a.origin().at(), a.origin().by(), a.origin().location())
        == (b.kind(), b.origin().context(), b.origin().at(), b.origin().by(), b.origin().location())
        && a.cause().map(ToString::to_string) == b.cause().map(ToString::to_string)
}

#[test]
fn c2_done_is_final_and_every_observer_sees_the_same_error_for_ever() {
    let clock = ManualClock::new();
    let (parent, parent_guard) = clock.root().with_timeout(Duration::from_secs(5));
    let (ctx, guard) = parent.with_timeout(Duration::from_secs(2));
    guard.cancel_with("first");
    let first = ctx.err().expect("done");
    guard.cancel_with("second");
    clock.advance(Duration::from_secs(60));
    parent_guard.cancel_with("third");
    drop((guard, parent_guard));
    for _ in 0..3 {
        assert!(same(&first, &ctx.err().expect("done")));
        assert!(same(&first, &ctx.check().expect_err("done")));
        assert!(same(&first, &ctx.done().wait()));
    }
    assert_eq!(first.to_string(), "context canceled: first");
}

#[test]
fn c2_of_a_parents_end_and_a_cancel_that_comes_after_it_the_parents_is_first() {
    for _ in 0..50 {
        let (parent, stop) = Context::background().with_cancel();
        let children: Vec<_> = (0..1000).map(|_| parent.with_cancel()).collect();
        let (child, cancel) = &children[999];
        thread::scope(|s| {
            s.spawn(|| {
                while !parent.is_done() {
                    std::hint::spin_loop();
                }
                // The sweep has begun, and is not here yet.
                cancel.cancel_with("too late");
            });
            stop.cancel_with("the parent's");
        });
        assert_eq!(child.err().expect("done").to_string(), "context canceled: the parent's");
    }
}

#[test]
fn c3_err_is_done_and_a_poll_agree_at_every_moment_of_a_race() {
    for _ in 0..200 {
        let (ctx, guard) = Context::background().with_cancel();
        let start = Barrier::new(2);
        thread::scope(|s| {
            s.spawn(|| {
                start.wait();
                guard.cancel();
            });
            start.wait();
            loop {
                // In either order: once one says done, whatever is asked afterwards says so too.
                let before = poll_once(pin!(ctx.done())).is_ready();
                assert!(!before || (ctx.is_done() && ctx.err().is_some() && ctx.check().is_err()));
                let err = ctx.err();
                assert!(err.is_none() || (ctx.is_done() && poll_once(pin!(ctx.done())).is_ready()));
                if ctx.is_done() {
                    assert!(ctx.err().is_some());
                    break;
                }
            }
        });
    }
}

#[test]
fn c4_what_was_written_before_cancel_is_visible_to_who_sees_the_end() {
    for _ in 0..500 {
        let written = AtomicUsize::new(0);
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _guard) = ctx.with_cancel();
        thread::scope(|s| {
            s.spawn(|| {
                written.store(42, Ordering::Relaxed);
                guard.cancel();
            });
            while !child.is_done() {
                std::hint::spin_loop();
            }
            assert_eq!(written.load(Ordering::Relaxed), 42);
        });
    }
}

#[test]
fn c5_all_methods_may_be_called_from_many_threads_at_once() {
    static KEY: purview::Key<usize> = purview::Key::new("key");
    let (root, root_guard) = Context::background().with_cancel();
    thread::scope(|s| {
        for n in 0..4 {
            let root = &root;
            s.spawn(move || {
                while !root.is_done() {
                    let (a, guard) = root.with_timeout(Duration::from_secs(3600));
                    let b = a.with_value(&KEY, n);
                    let (c, _guard) = b.with_grace(Duration::from_secs(1));
                    let (m, _guard) = Context::any_of([root, &a, &c]);
                    let registration = b.on_done(|_| {});
                    let _ = poll_once(pin!(m.done()));
                    assert_eq!(m.value(&KEY), Some(&n));
                    let _ = (format!("{c:?}"), root.statistics(), b.remaining(), c.err());
                    guard.cancel();
                    assert!(m.is_done());
                    let _ = registration.stop(); // true where the root was faster and has not called it yet
                }
            });
        }
        for _ in 0..20_000 {
            let (_ctx, _guard) = root.with_cancel();
        }
        root_guard.cancel();
    });
    assert_eq!(root.statistics().children(), 0);
    assert_eq!(root.statistics().waiters(), 0);
}

#[test]
fn c6_canceling_a_child_never_touches_its_parent_or_siblings() {
    let (parent, parent_guard) = Context::background().with_cancel();
    let (child, guard) = parent.with_cancel();
    let (sibling, _guard) = parent.with_cancel();
    guard.cancel();
    assert!(child.is_done() && !parent.is_done() && !sibling.is_done());
    parent_guard.cancel();
    assert!(parent.is_done() && sibling.is_done());
}

#[test]
fn c7_cancel_is_synchronous_for_the_whole_subtree_and_its_wakers_and_callbacks() {
    let (root, guard) = Context::background().with_cancel();
    let waker = CountingWaker::new();
    let called = Arc::new(AtomicUsize::new(0));
    let mut level = vec![root.clone()];
    let mut keep = Vec::new();
    for _ in 0..6 {
        let parents = std::mem::take(&mut level);
        for parent in &parents {
            for _ in 0..3 {
                let (child, guard) = parent.with_cancel();
                let mut done = Box::pin(child.clone().into_done());
                assert!(poll_with(done.as_mut(), &Waker::from(waker.clone())).is_pending());
                let called = called.clone();
                keep.push((
                    guard,
                    done,
                    child.on_done(move |_| {
                        called.fetch_add(1, Ordering::SeqCst);
                    }),
                ));
                level.push(child);
            }
        }
    }
    let total = keep.len();
    guard.cancel();
    assert_eq!(waker.count(), total);
    assert_eq!(called.load(Ordering::SeqCst), total);
    assert!(level.iter().all(Context::is_done));
}

#[test]
fn c7_every_caller_of_cancel_returns_only_when_the_subtree_is_done() {
    for round in 0..100 {
        let (root, guard) = Context::background().with_cancel();
        let mut leaves = Vec::new();
        let mut guards = Vec::new();
        for _ in 0..50 {
            let (a, a_guard) = root.with_cancel();
            for _ in 0..10 {
                let (b, b_guard) = a.with_cancel();
                leaves.push(b);
                guards.push(b_guard);
            }
            guards.push(a_guard);
        }
        let start = Barrier::new(3);
        thread::scope(|s| {
            for thread in 0..3 {
                let (start, guard, leaves, guards) = (&start, guard.handle(), &leaves, &guards);
                s.spawn(move || {
                    start.wait();
                    // One of them may also be busy ending a part of the tree.
                    if thread == 2 {
                        guards[(round * 7) % guards.len()].cancel();
                    }
                    guard.cancel();
                    assert!(leaves.iter().all(Context::is_done), "live below a canceled context");
                });
            }
        });
    }
}

#[test]
fn c7_a_second_caller_never_waits_behind_user_code() {
    let (ctx, guard) = Context::background().with_cancel();
    let (child, _child_guard) = ctx.with_cancel();
    let handle = guard.handle();
    let returned = Arc::new(AtomicBool::new(false));
    let seen = returned.clone();
    // The callback runs inside the first cancel, and does not return before a second one has.
    let _registration = child.on_done(move |_| {
        let second = handle.clone();
        thread::spawn(move || second.cancel()).join().expect("the second cancel returns");
        seen.store(true, Ordering::SeqCst);
    });
    guard.cancel();
    assert!(returned.load(Ordering::SeqCst));
}

#[test]
fn c7_a_cancel_made_inside_a_callback_runs_to_its_end_there() {
    let (a, a_guard) = Context::background().with_cancel();
    let (b, b_guard) = Context::background().with_cancel();
    let (below_b, _guard) = b.with_cancel();
    let (log, inner) = (Log::default(), Log::default());
    let line = inner.clone();
    let _in_b = below_b.on_done(move |_| line.add("callback below b"));
    let (outer, check) = (log.clone(), below_b.clone());
    let _in_a = a.on_done(move |_| {
        b_guard.cancel();
        outer.add(format!("below b done: {}, {:?}", check.is_done(), inner.take()));
    });
    a_guard.cancel();
    assert_eq!(log.take(), ["below b done: true, [\"callback below b\"]"]);
}

#[test]
fn c8_a_child_derived_while_its_parent_is_canceled_is_never_lost_and_gets_the_parents_error() {
    for _ in 0..300 {
        let (parent, guard) = Context::background().with_cancel();
        let start = Barrier::new(2);
        thread::scope(|s| {
            s.spawn(|| {
                start.wait();
                guard.cancel_with("the parent's cause");
            });
            start.wait();
            let children: Vec<_> = (0..20).map(|_| parent.with_cancel()).collect();
            let _ = parent.done().wait();
            guard.handle().cancel(); // returns when the subtree is marked, whoever marks it
            for (child, _guard) in &children {
                let err = child.err().expect("a late child is done");
                assert_eq!(err.to_string(), "context canceled: the parent's cause");
                assert_eq!(err.origin().context(), parent.id());
            }
        });
    }
}

#[test]
fn c8_a_child_of_a_done_parent_is_done_at_once_registers_nothing_and_reports_its_own_deadline() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    guard.cancel_with("over");
    let at = clock.now() + Duration::from_secs(3);
    let (child, _guard) = parent.with_deadline(at);
    assert_eq!(child.err().expect("done").to_string(), "context canceled: over");
    assert_eq!(child.deadline(), Some(at));
    assert_eq!(parent.statistics().children(), 0);
    clock.advance(Duration::from_secs(10));
    assert!(child.err().expect("done").is_canceled());
}

#[test]
fn c9_order_is_defined_parents_first_then_derivation_then_registration() {
    let log = Log::default();
    let (root, guard) = Context::background().with_cancel();
    let mut keep: Vec<Box<dyn std::any::Any>> = Vec::new();
    // Built depth first and breadth first at once, so that neither walk gives the order by chance.
    let (a, a_guard) = root.with_cancel();
    let (a1, a1_guard) = a.with_cancel();
    let (b, b_guard) = root.with_cancel();
    let (b1, b1_guard) = b.with_cancel();
    let (a2, a2_guard) = a.with_cancel();
    let everyone = [("a2", &a2), ("b1", &b1), ("b", &b), ("a1", &a1), ("a", &a), ("root", &root)];
    let all: Vec<Context> = everyone.iter().map(|(_, ctx)| (*ctx).clone()).collect();
    for (name, ctx) in everyone {
        let (log1, log2, log3, all) = (log.clone(), log.clone(), log.clone(), all.clone());
        let first = ctx.on_done(move |_| {
            assert!(
                all.iter().all(Context::is_done),
                "the whole subtree is marked before the first callback"
            );
            log1.add(format!("{name} 1"));
        });
        let waker = waker_of(move || log2.add(format!("{name} 2")));
        let mut done = Box::pin(ctx.clone().into_done());
        assert!(poll_with(done.as_mut(), &waker).is_pending());
        let third = ctx.on_done(move |_| log3.add(format!("{name} 3")));
        keep.push(Box::new((first, done, third)));
    }
    guard.cancel();
    let expected: Vec<String> = ["root", "a", "a1", "b", "b1", "a2"]
        .iter()
        .flat_map(|name| (1..=3).map(move |n| format!("{name} {n}")))
        .collect();
    assert_eq!(log.take(), expected);
    drop((a_guard, a1_guard, b_guard, b1_guard, a2_guard));
}

#[test]
fn c9_parents_are_seen_done_before_their_children() {
    for _ in 0..100 {
        let (root, guard) = Context::background().with_cancel();
        let mut chain = vec![root.with_cancel()];
        for _ in 0..100 {
            let next = chain[chain.len() - 1].0.with_cancel();
            chain.push(next);
        }
        thread::scope(|s| {
            s.spawn(|| guard.cancel());
            loop {
                // From the leaf up: if a child is done, everything above it must be by now.
                let lowest_done = chain.iter().rposition(|(ctx, _)| ctx.is_done());
                if let Some(lowest) = lowest_done {
                    assert!(chain[..lowest].iter().all(|(ctx, _)| ctx.is_done()));
                    assert!(root.is_done());
                }
                if lowest_done == Some(chain.len() - 1) {
                    break;
                }
            }
        });
    }
}

#[test]
fn c10_the_first_cause_wins_and_a_child_inherits_its_parents_error() {
    let (parent, parent_guard) = Context::background().with_cancel();
    let (early, early_guard) = parent.with_cancel();
    let (late, late_guard) = parent.with_cancel();
    early_guard.cancel_with("the child's own");
    parent_guard.cancel_with("the parent's");
    late_guard.cancel_with("too late");
    assert_eq!(early.err().expect("done").to_string(), "context canceled: the child's own");
    let inherited = late.err().expect("done");
    assert!(same(&inherited, &parent.err().expect("done")));
    assert_eq!(inherited.origin().context(), parent.id());
    let (plain, guard) = Context::background().with_cancel();
    guard.cancel();
    assert!(plain.err().expect("done").cause().is_none());
}

#[test]
fn c11_dropping_the_guard_cancels_at_the_place_of_derivation_and_disarm_ends_that_duty() {
    let line = line!() + 1;
    let (ctx, guard) = Context::background().with_cancel();
    drop(guard);
    let err = ctx.err().expect("done");
    assert_eq!(err.origin().by(), By::GuardDropped);
    assert_eq!((err.origin().location().file(), err.origin().location().line()), (file!(), line));

    let (ctx, guard) = Context::background().with_cancel();
    let handle = guard.disarm();
    assert!(!ctx.is_done());
    drop(handle.clone());
    assert!(!ctx.is_done());
    let line = line!() + 1;
    handle.cancel();
    let err = ctx.err().expect("done");
    assert_eq!(err.origin().by(), By::Call);
    assert_eq!(err.origin().location().line(), line);
}

#[test]
fn c11_a_guard_dropped_at_once_is_loud_about_where() {
    let line = line!() + 1;
    let (ctx, _) = Context::background().with_cancel();
    let err = ctx.err().expect("the guard went at once");
    assert_eq!(err.origin().by(), By::GuardDropped);
    assert_eq!(err.origin().location().line(), line);
    assert!(format!("{err:?}").contains(&format!("canceling.rs:{line}:")));
}

#[test]
fn c11_a_forgotten_guard_keeps_nothing_but_the_childs_slot_until_the_end() {
    let (parent, parent_guard) = Context::background().with_cancel();
    let (child, guard) = parent.with_cancel();
    let handle = guard.disarm();
    std::mem::forget(handle); // a handle that is never dropped, as a forgotten guard's
    drop(child);
    assert_eq!(parent.statistics().children(), 1);
    parent_guard.cancel();
    assert_eq!(parent.statistics().children(), 0);

    let (parent, _parent_guard) = Context::background().with_cancel();
    let (child, guard) = parent.with_cancel();
    std::mem::forget(guard);
    assert!(!child.is_done());
}
