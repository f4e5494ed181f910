//! C23–C25: values.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use purview::time::ManualClock;
use purview::{Context, Key};

static USER: Key<u64> = Key::new("user");
static NAME: Key<String> = Key::new("name");
static OTHER_NAME: Key<String> = Key::new("name");

#[test]
fn c23_a_value_never_changes_a_context_and_the_nearest_one_is_seen() {
    let root = Context::background();
    let a = root.with_value(&USER, 1);
    let b = a.with_value(&USER, 2);
    let (c, _guard) = a.derive().value(&NAME, "n".into()).value(&USER, 3).value(&USER, 4).build();
    assert_eq!(root.value(&USER), None);
    assert_eq!(a.value(&USER), Some(&1));
    assert_eq!(b.value(&USER), Some(&2));
    assert_eq!(c.value(&USER), Some(&4), "of two in one derive, the last");
    assert_eq!(c.value(&NAME).map(String::as_str), Some("n"));
    assert_ne!(a, b);
}

#[test]
fn c23_two_keys_of_one_name_are_two_keys() {
    let ctx = Context::background().with_value(&NAME, "mine".into());
    assert_eq!(ctx.value(&OTHER_NAME), None);
    let ctx = ctx.with_value(&OTHER_NAME, "theirs".into());
    assert_eq!(ctx.value(&NAME).map(String::as_str), Some("mine"));
    assert_eq!(ctx.value(&OTHER_NAME).map(String::as_str), Some("theirs"));
    let leaked: &'static Key<u64> = Box::leak(Box::new(Key::new("user")));
    assert_eq!(ctx.with_value(leaked, 7).value(&USER), None);
    assert_eq!([NAME.name(), OTHER_NAME.name()], ["name"; 2]);
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

static COUNTED: Key<Counted> = Key::new("counted");

#[test]
fn c24_values_stay_after_done_and_through_without_cancel_and_grace() {
    let (ctx, guard) = Context::background().with_value(&USER, 123).with_cancel();
    let detached = ctx.without_cancel();
    let (grace, _guard) = ctx.with_grace(Duration::from_secs(1));
    guard.cancel();
    for ctx in [&ctx, &detached, &grace] {
        assert_eq!(ctx.value(&USER), Some(&123));
    }
}

#[test]
fn c24_a_value_is_dropped_exactly_once_when_the_last_context_that_can_see_it_goes() {
    let drops = Arc::new(AtomicUsize::new(0));
    let count = || drops.load(Ordering::SeqCst);
    let layer = Context::background().with_value(&COUNTED, Counted(drops.clone()));
    let (child, guard) = layer.with_cancel();
    let below = child.with_value(&USER, 1).without_cancel();
    drop(layer);
    guard.cancel();
    drop((child, guard));
    assert_eq!(count(), 0, "still seen from below");
    assert!(below.value(&COUNTED).is_some());
    drop(below);
    assert_eq!(count(), 1);

    // In a derived node, shadowed in the same derive, never built, and behind an error that is kept.
    let root = Context::background();
    let plan = root.derive().value(&COUNTED, Counted(drops.clone()));
    let (ctx, guard) = plan.value(&COUNTED, Counted(drops.clone())).build();
    guard.cancel();
    let err = ctx.err();
    drop((ctx, guard));
    assert_eq!(count(), 3);
    assert!(err.is_some_and(|err| err.is_canceled()), "an error keeps no value");
    drop(Context::background().derive().value(&COUNTED, Counted(drops.clone())));
    assert_eq!(count(), 4);
}

#[test]
fn c24_a_merged_context_keeps_the_values_of_all_its_parents() {
    let drops = Arc::new(AtomicUsize::new(0));
    let a = Context::background().with_value(&COUNTED, Counted(drops.clone()));
    let b = Context::background().with_value(&USER, 5);
    let (merged, guard) = Context::any_of([&b, &a]);
    drop((a, b));
    assert!(merged.value(&COUNTED).is_some());
    assert_eq!(merged.value(&USER), Some(&5));
    drop((merged, guard));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

fn keys(n: usize) -> Vec<&'static Key<usize>> {
    (0..n).map(|_| &*Box::leak(Box::new(Key::new("some")))).collect()
}

#[test]
fn c25_every_one_of_many_values_is_found_at_any_depth_with_shadowing() {
    for n in [1, 7, 8, 9, 16, 64, 65, 200, 1000] {
        let keys = keys(n);
        let absent = &*Box::leak(Box::new(Key::<usize>::new("absent")));
        let mut ctx = Context::background();
        let mut levels = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            ctx = ctx.with_value(key, i);
            if i % 5 == 0 {
                // Shadow an earlier one, and look it up while the chain grows, so that indexes come at odd places.
                ctx = ctx.with_value(keys[i / 2], 10_000 + i);
                assert_eq!(ctx.value(keys[i / 2]), Some(&(10_000 + i)));
            }
            levels.push(ctx.clone());
        }
        assert_eq!(ctx.value(absent), None);
        let mut model: Vec<Option<usize>> = vec![None; n];
        for (i, level) in levels.iter().enumerate() {
            model[i] = Some(i);
            if i % 5 == 0 {
                model[i / 2] = Some(10_000 + i);
            }
            for k in [0, i / 3, i / 2, i, n - 1] {
                assert_eq!(level.value(keys[k]).copied(), model[k], "{n} keys, level {i}, key {k}");
            }
        }
    }
}

#[test]
fn c25_layers_of_values_share_the_end_and_the_deadline_of_their_scope() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(1));
    let mut layered = ctx.clone();
    for n in 0..1000 {
        layered = layered.with_value(&USER, n);
    }
    assert_eq!(layered.deadline(), ctx.deadline());
    assert_eq!(ctx.statistics().children(), 0, "layers are not listed");
    let registration = layered.on_done(|_| {});
    assert_eq!(ctx.statistics().callbacks(), 1, "and wait where their scope does");
    clock.advance(Duration::from_secs(1));
    assert!(layered.is_done());
    assert_eq!(layered.err().expect("done").origin().context(), ctx.id());
    assert!(!registration.stop());
}

#[test]
fn a_value_of_any_alignment_and_size_is_kept_whole() {
    #[repr(align(64))]
    #[derive(Debug, PartialEq)]
    struct Wide([u8; 200]);
    static WIDE: Key<Wide> = Key::new("wide");
    static UNIT: Key<()> = Key::new("unit");
    let ctx = Context::background().with_value(&WIDE, Wide([7; 200])).with_value(&UNIT, ());
    let wide = ctx.value(&WIDE).expect("set");
    assert_eq!(std::ptr::from_ref(wide).addr() % 64, 0);
    assert_eq!(wide, &Wide([7; 200]));
    assert_eq!(ctx.value(&UNIT), Some(&()));
    let (ctx, _guard) = Context::background().derive().value(&WIDE, Wide([9; 200])).build();
    assert_eq!(ctx.value(&WIDE), Some(&Wide([9; 200])));
}

#[test]
fn c24_a_value_that_panics_when_it_is_dropped_keeps_no_other_from_being_dropped() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    static PANICS: Key<Panics> = Key::new("panics");
    let drops = Arc::new(AtomicUsize::new(0));
    let root = Context::background();
    for built in [false, true] {
        let plan = root.derive().value(&COUNTED, Counted(drops.clone())).value(&PANICS, Panics);
        let plan = plan.value(&COUNTED, Counted(drops.clone()));
        let drop_it = || if built { drop(plan.build()) } else { drop(plan) };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(drop_it)).is_err());
        assert_eq!(drops.swap(0, Ordering::SeqCst), 2);
    }
}
