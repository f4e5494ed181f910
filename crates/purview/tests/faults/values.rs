//! F33, F34: values that are not as values usually are, and Debug while nothing stands still.

use std::marker::PhantomPinned;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use purview::{Context, Key};

use crate::support::{HOUR, watched};

#[test]
fn f33_a_value_may_be_huge_and_never_moves() {
    struct Huge {
        bytes: [u8; 1 << 16],
        _pinned: PhantomPinned,
    }
    static HUGE: Key<Huge> = Key::new("huge");
    static PLAIN: Key<Still> = Key::new("still");
    struct Still {
        at: Mutex<usize>,
        _pinned: PhantomPinned,
    }
    let huge = || Huge { bytes: [7; 1 << 16], _pinned: PhantomPinned };
    let still = || Still { at: Mutex::new(0), _pinned: PhantomPinned };
    let (ctx, guard) = Context::background().derive().value(&PLAIN, still()).build();
    let layer = ctx.with_value(&HUGE, huge());
    let place = |ctx: &Context| std::ptr::from_ref(ctx.value(&PLAIN).expect("set")).addr();
    *layer.value(&PLAIN).expect("set").at.lock().expect("no panic") = place(&layer);
    let (below, below_guard) = layer.with_timeout(HOUR);
    let (detached, grace) = (below.without_cancel(), below.with_grace(HOUR));
    guard.cancel();
    drop((ctx, layer, below, below_guard, guard));
    for ctx in [&detached, &grace.0] {
        assert_eq!(*ctx.value(&PLAIN).expect("set").at.lock().expect("no panic"), place(ctx));
        assert!(ctx.value(&HUGE).expect("set").bytes.iter().all(|byte| *byte == 7));
    }
}

/// Writes down when it goes, and what its own context says then.
struct Goes {
    name: &'static str,
    above: Context,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Goes {
    fn drop(&mut self) {
        let above = self.above.value(&GOES).map_or("nobody", |goes| goes.name);
        let line = format!("{} below {above}, {}", self.name, self.above.is_done());
        self.log.lock().expect("no panic").push(line);
    }
}

static GOES: Key<Goes> = Key::new("goes");

#[test]
fn f33_values_go_from_the_leaf_up_and_may_look_at_what_is_above_them() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let goes = |name, above: &Context| Goes { name, above: above.clone(), log: Arc::clone(&log) };
    let (root, guard) = Context::background().with_cancel();
    let upper = root.with_value(&GOES, goes("upper", &root));
    let (middle, _guard) = upper.with_cancel();
    let lower = middle.with_value(&GOES, goes("lower", &middle));
    let (leaf, _leaf_guard) = lower.derive().value(&GOES, goes("leaf", &lower)).build();
    drop((upper, middle, _guard));
    guard.cancel();
    drop(lower);
    assert_eq!(log.lock().expect("no panic").len(), 0, "the leaf sees them");
    drop((leaf, _leaf_guard));
    let expected =
        ["leaf below lower, true", "lower below upper, true", "upper below nobody, true"];
    assert_eq!(*log.lock().expect("no panic"), expected);
}

#[test]
fn f34_debug_and_statistics_answer_while_everything_changes() {
    watched(|| {
        static SHOWN: Key<Loud> = Key::new("shown").visible();
        /// Its Debug uses the context that it is printed with.
        struct Loud(Mutex<Option<Context>>);
        impl std::fmt::Debug for Loud {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let ctx = self.0.lock().expect("no panic").clone();
                let done = ctx.map(|ctx| (ctx.is_done(), ctx.with_cancel().0.is_done()));
                write!(f, "{done:?}")
            }
        }
        for _ in 0..50 {
            let (root, guard) = Context::background().with_cancel();
            let loud = Loud(Mutex::new(Some(root.clone())));
            let ctx = root.with_value(&SHOWN, loud);
            let over = AtomicBool::new(false);
            thread::scope(|s| {
                for _ in 0..2 {
                    s.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            let (child, guard) = ctx.with_timeout(HOUR);
                            let registration = child.on_done(|_| {});
                            let shown = format!("{child:?} {guard:?} {registration:?}");
                            assert!(shown.contains("shown=Some((") && shown.contains("timeout"));
                            let _ = (child.statistics(), root.statistics(), child.err());
                        }
                    });
                }
                while root.statistics().children() == 0 {
                    thread::yield_now();
                }
                guard.cancel_with("shown");
                over.store(true, Ordering::Relaxed);
            });
            assert!(format!("{ctx:?} {:?}", ctx.err()).contains("context canceled: shown"));
            drop(ctx.value(&SHOWN).expect("set").0.lock().expect("no panic").take());
        }
    });
}
