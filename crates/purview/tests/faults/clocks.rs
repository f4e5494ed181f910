//! F25–F27, F39: clocks that stand still, creep, leap, or are asked for the impossible.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use purview::Context;
use purview::time::ManualClock;

use crate::support::{HOUR, SECOND, Wakes, poll, random, until, watched};

const NANO: Duration = Duration::from_nanos(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn f25_a_clock_that_stands_still_ends_nothing_and_one_that_creeps_ends_each_at_its_nanosecond() {
    let clock = ManualClock::new();
    let all: Vec<_> = (0..500_u32).map(|n| clock.root().with_timeout(n * NANO)).collect();
    let ended = || all.iter().filter(|(ctx, _)| ctx.is_done()).count();
    for _ in 0..100 {
        clock.advance(Duration::ZERO);
        clock.set(clock.now());
    }
    assert_eq!(ended(), 1, "the one of no time at all");
    for n in 2..=500 {
        clock.advance(NANO);
        assert_eq!(ended(), n);
    }
}

#[test]
fn f25_a_leap_of_years_ends_all_in_their_order_and_sleeps_too() {
    for leap in [13 * DAY, 3653 * DAY, 80_000 * DAY] {
        let (clock, order) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
        let begun = clock.now();
        let mut keep = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for n in 0..1_000_u32 {
            let after = Duration::from_millis(random(&mut seed, 1_000_000_000) as u64);
            let (ctx, guard) = clock.root().with_timeout(after);
            let (order, clock) = (Arc::clone(&order), clock.clone());
            let call = move |err: &purview::Error| {
                assert_eq!((err.origin().at(), clock.now()), (begun + after, begun + after));
                order.lock().expect("no panic").push((after, n));
            };
            keep.push((ctx.on_done(call), guard, after));
        }
        let root = clock.root();
        let (wakes, waker) = Wakes::new();
        let mut sleep = pin!(root.sleep(leap));
        assert!(poll(sleep.as_mut(), &waker).is_pending());
        clock.advance(leap);
        let order = order.lock().expect("no panic");
        let due = keep.iter().filter(|(.., after)| *after <= leap).count();
        assert_eq!((order.len(), wakes.count()), (due, 1));
        assert!(order.is_sorted());
    }
}

#[test]
fn f26_timeouts_of_every_size_are_armed_side_by_side_and_starve_no_short_one() {
    watched(|| {
        // One that is parked as far away as can be told was once what starved all others, in another wheel.
        let root = Context::background();
        let mut keep = Vec::new();
        for bits in 30..64 {
            let around = 1_u64 << bits;
            for nanos in [around - 1, around, around + 1] {
                let (ctx, guard) = root.with_timeout(Duration::from_nanos(nanos));
                keep.push((ctx.on_done(|_| {}), guard));
            }
        }
        for far in [Duration::MAX, Duration::MAX - NANO, Duration::from_nanos(u64::MAX)] {
            let (ctx, guard) = root.with_timeout(far);
            assert_eq!(ctx.deadline(), None);
            keep.push((ctx.on_done(|_| {}), guard));
        }
        for tick in [131_071, 131_072, 131_073, 8_388_607, 8_388_608, 8_388_609] {
            // Around the borders of the wheel's first slots.
            let begun = Instant::now();
            let (ctx, _guard) = root.with_timeout(Duration::from_nanos(tick));
            assert!(ctx.done().wait().is_deadline_exceeded());
            assert!(begun.elapsed() >= Duration::from_nanos(tick), "never early");
        }
        for (_, guard) in &keep {
            let (ended, deadline) = (guard.context().is_done(), guard.context().deadline());
            assert!(!ended || deadline.is_some_and(|at| Instant::now() >= at), "never early");
        }
    });
}

/// More than any one structure would like.
const TIMERS: usize = 1_000_000;

#[test]
fn f27_a_million_timers_of_one_instant_all_end_there_on_the_systems_clock() {
    watched(|| {
        let (parent, _guard) = Context::background().with_cancel();
        let at = Instant::now() + SECOND;
        let (wakes, waker) = Wakes::new();
        let all: Vec<_> = (0..TIMERS).map(|_| parent.with_deadline(at)).collect();
        let waits = all.iter().map(|(ctx, _)| Box::pin(ctx.done()));
        let mut waits: Vec<_> = waits.collect();
        // On a slow machine the time is up before all wait for it.
        let polls = waits.iter_mut().map(|it| poll(it.as_mut(), &waker));
        let too_late = polls.filter(|polled| polled.is_ready()).count();
        until(|| wakes.count() + too_late >= TIMERS);
        assert!(Instant::now() >= at, "never early");
        for (ctx, _) in &all {
            assert_eq!(ctx.err().expect("it has ended").origin().at(), at);
        }
        assert_eq!((wakes.count() + too_late, parent.statistics().children()), (TIMERS, 0));
    });
}

#[test]
fn f27_many_timers_of_one_instant_and_of_many_end_when_they_should_on_a_manual_clock() {
    const TIMERS: usize = 100_000;
    for apart in [Duration::ZERO, NANO] {
        let clock = ManualClock::new();
        let (parent, _guard) = clock.root().with_cancel();
        let begun = clock.now();
        // One ends with the next, in pairs that are far from each other in time.
        let all: Vec<_> = (0..TIMERS)
            .map(|n| {
                let n = u32::try_from(n * 7919 % TIMERS).expect("small");
                let (ctx, guard) = parent.with_deadline(begun + HOUR + n * apart);
                (n, ctx, guard)
            })
            .collect();
        clock.advance(HOUR - NANO);
        assert!(!all.iter().any(|(_, ctx, _)| ctx.is_done()));
        let half = u32::try_from(TIMERS / 2).expect("small");
        clock.set(begun + HOUR + half * apart);
        for (n, ctx, _) in &all {
            assert_eq!(ctx.is_done(), apart.is_zero() || *n <= half);
        }
        clock.set(begun + HOUR + 2 * half * apart);
        assert!(all.iter().all(|(_, ctx, _)| ctx.is_done()));
        assert_eq!(parent.statistics().children(), 0);
    }
}

#[test]
fn f27_a_storm_of_timers_that_are_set_and_taken_back_lets_one_through_in_time() {
    watched(|| {
        let over = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for seed in 1..=2_u64 {
                let over = &over;
                s.spawn(move || {
                    let mut seed = seed;
                    let (root, _guard) = Context::background().with_cancel();
                    while over.load(Ordering::SeqCst) < 20 {
                        let after = Duration::from_nanos(random(&mut seed, 1 << 40) as u64 + 1);
                        let (ctx, guard) = root.with_timeout(after);
                        let mut done = pin!(ctx.done());
                        let _ = poll(done.as_mut(), Waker::noop());
                        if seed % 2 == 0 {
                            guard.cancel();
                        }
                    }
                    assert_eq!(root.statistics().children(), 0);
                });
            }
            for _ in 0..20 {
                let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(2));
                assert!(ctx.done().wait().is_deadline_exceeded());
                over.fetch_add(1, Ordering::SeqCst);
            }
        });
    });
}

#[test]
fn f39_a_manual_clock_may_be_advanced_by_what_it_wakes_and_set_back_in_vain() {
    let clock = ManualClock::new();
    let begun = clock.now();
    let root = clock.root();
    let (ctx, _guard) = root.with_timeout(10 * SECOND);
    let inner = clock.clone();
    let waker = crate::support::waker_of(move || {
        inner.set(begun); // back, in vain
        inner.advance(SECOND);
        inner.set(begun + 8 * SECOND);
    });
    let mut sleep = pin!(root.sleep(SECOND));
    assert!(poll(sleep.as_mut(), &waker).is_pending());
    clock.advance(SECOND);
    assert_eq!(clock.now(), begun + 8 * SECOND);
    assert!(!ctx.is_done());
    clock.advance(2 * SECOND);
    assert!(ctx.is_done());
}
