//! Bad input: no duration, instant or misuse panics, hangs or leaks. C20.

use std::time::{Duration, Instant};

use purview::time::ManualClock;
use purview::{Context, Key};

fn durations() -> Vec<Duration> {
    let mut all = vec![
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::MAX,
        Duration::MAX - Duration::from_nanos(1),
    ];
    all.push(Duration::new(u64::MAX, 0));
    all.push(Duration::from_secs_f64(1e-9));
    for bits in [30, 31, 32, 36, 42, 52, 62, 63] {
        let around = 1_u64 << bits;
        all.extend([around - 1, around, around + 1].map(Duration::from_nanos));
        all.extend([around - 1, around, around + 1].map(Duration::from_secs));
    }
    all
}

fn instants() -> Vec<Instant> {
    let now = Instant::now();
    let mut all = vec![now];
    all.extend(durations().iter().filter_map(|d| now.checked_add(*d)));
    all.extend(durations().iter().filter_map(|d| now.checked_sub(*d)));
    all
}

#[test]
fn c20_no_duration_and_no_instant_panics_anywhere() {
    let manual = ManualClock::new();
    let (parent, _guard) = manual.root().with_timeout(Duration::from_secs(60));
    for root in [Context::background(), manual.root(), parent] {
        for duration in durations() {
            let (timed, _guard) = root.with_timeout(duration);
            let (grace, _guard) = timed.with_grace(duration);
            let (nested, _guard) = grace.with_grace(duration);
            let (built, _guard) =
                root.derive().timeout(duration).reserve(duration).grace(duration).build();
            for ctx in [&timed, &grace, &nested, &built] {
                let _ =
                    (ctx.is_done(), ctx.deadline(), ctx.remaining(), ctx.err(), format!("{ctx:?}"));
            }
            let done = root.with_cancel().0; // its guard is gone, so it is done
            assert!(done.is_done());
            assert!(done.sleep_blocking(duration).is_err());
            assert!(done.done().wait_timeout(duration).is_some());
            assert!(format!("{:?}", done.sleep(duration)).contains("Sleep"));
        }
        for at in instants() {
            let (ctx, _guard) = root.with_deadline(at);
            let (built, _guard) = root.derive().deadline(at).build();
            for ctx in [&ctx, &built] {
                let _ =
                    (ctx.is_done(), ctx.deadline(), ctx.remaining(), ctx.err(), format!("{ctx:?}"));
            }
            let done = root.with_cancel().0;
            assert!(done.done().wait_deadline(at).is_some());
        }
    }
}

#[test]
fn c20_max_and_what_the_clock_cannot_hold_mean_no_own_deadline() {
    for root in [Context::background(), ManualClock::new().root()] {
        let (ctx, _guard) = root.with_timeout(Duration::MAX);
        assert_eq!((ctx.deadline(), ctx.remaining(), ctx.is_done()), (None, None, false));
        let (ctx, _guard) = root.derive().timeout(Duration::MAX).deadline_cause("never").build();
        assert_eq!(ctx.deadline(), None);
        let (parent, _guard) = root.with_timeout(Duration::from_secs(3600));
        let (ctx, _guard) = parent.with_timeout(Duration::MAX);
        assert_eq!(ctx.deadline(), parent.deadline());
        let (grace, guard) = root.with_grace(Duration::MAX);
        assert_eq!(grace.deadline(), None);
        guard.cancel();
    }
    let (parent, guard) = Context::background().with_cancel();
    let (grace, _guard) = parent.with_grace(Duration::MAX);
    guard.cancel();
    assert!(!grace.is_done());
}

#[test]
fn instants_in_the_past_are_done_and_told_as_given() {
    for at in instants().into_iter().filter(|at| *at <= Instant::now()) {
        let (ctx, _guard) = Context::background().with_deadline(at);
        assert!(ctx.is_done());
        assert!(ctx.err().expect("done").is_deadline_exceeded());
        assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    }
}

#[test]
fn a_guard_that_is_forgotten_leaves_the_end_to_the_parent() {
    let (parent, parent_guard) = Context::background().with_cancel();
    let (ctx, guard) = parent.with_cancel();
    std::mem::forget(guard);
    assert!(!ctx.is_done());
    parent_guard.cancel();
    assert!(ctx.is_done());
}

#[test]
fn a_guard_that_is_dropped_at_once_makes_all_that_follows_fail_clearly() {
    let (ctx, _) = Context::background().with_timeout(Duration::from_secs(2));
    let err = ctx.sleep_blocking(Duration::from_secs(1)).expect_err("done from the start");
    assert!(err.is_canceled());
    assert_eq!(err.origin().location().file(), file!());
    assert!(ctx.with_cancel().0.is_done());
}

#[test]
fn unusual_names_and_strings_are_only_text() {
    static ODD: Key<&str> = Key::new("a\u{0}b\n{}").visible();
    let (ctx, guard) =
        Context::background().derive().name("{}\u{1f980}\"").value(&ODD, "\u{202e}").build();
    assert!(format!("{ctx:?}").contains("{}\u{1f980}\""));
    guard.cancel_with(String::new());
    assert_eq!(ctx.err().expect("done").to_string(), "context canceled: ");
}
