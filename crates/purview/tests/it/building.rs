//! C35b: the builder.

use std::time::Duration;

use purview::time::ManualClock;
use purview::{Context, Key};

static USER: Key<u64> = Key::new("user").visible();
static TRACE: Key<&str> = Key::new("trace");

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c35b_the_order_of_the_calls_never_matters() {
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_timeout(60 * SECOND);
    let start = clock.now();
    let (a, _guard) = parent
        .derive()
        .name("n")
        .timeout(9 * SECOND)
        .deadline(start + 5 * SECOND)
        .reserve(SECOND)
        .deadline_cause("cause")
        .value(&USER, 1)
        .build();
    let (b, _guard) = parent
        .derive()
        .value(&USER, 1)
        .deadline_cause("cause")
        .reserve(SECOND)
        .deadline(start + 5 * SECOND)
        .timeout(9 * SECOND)
        .name("n")
        .build();
    for ctx in [&a, &b] {
        assert_eq!(ctx.remaining(), Some(5 * SECOND), "of timeout and deadline the earlier");
        assert_eq!((ctx.name(), ctx.value(&USER)), (Some("n"), Some(&1)));
    }
    clock.advance(5 * SECOND);
    for ctx in [&a, &b] {
        assert_eq!(ctx.err().expect("done").to_string(), "context deadline exceeded: cause");
    }
    let (earlier, _guard) = parent.derive().deadline(start + 60 * SECOND).timeout(SECOND).build();
    assert_eq!(earlier.remaining(), Some(SECOND));
}

#[test]
fn c35b_reserve_is_nothing_without_a_parents_deadline_and_leaves_that_much_with_one() {
    let clock = ManualClock::new();
    let (without, _guard) = clock.root().derive().reserve(SECOND).build();
    assert_eq!(without.deadline(), None);
    let (parent, _guard) = clock.root().with_timeout(3 * SECOND);
    let (child, _guard) = parent.derive().reserve(SECOND).build();
    assert_eq!(child.remaining(), Some(2 * SECOND));
    let (nothing_left, _guard) = parent.derive().reserve(10 * SECOND).build();
    assert!(nothing_left.err().expect("done").is_deadline_exceeded());
    assert_eq!(nothing_left.err().expect("done").origin().context(), nothing_left.id());
}

#[test]
fn c35b_grace_with_a_deadline_binds_both_and_a_cause_without_one_is_nothing() {
    let clock = ManualClock::new();
    let (parent, guard) = clock.root().with_cancel();
    let (a, _guard) =
        parent.derive().grace(5 * SECOND).timeout(60 * SECOND).deadline_cause("deadline").build();
    let (b, _guard) = parent.derive().deadline_cause("nothing").grace(5 * SECOND).build();
    assert_eq!((a.remaining(), b.remaining()), (Some(60 * SECOND), None));
    guard.cancel_with("parent");
    assert_eq!((a.remaining(), b.remaining()), (Some(5 * SECOND), Some(5 * SECOND)));
    clock.advance(5 * SECOND);
    for ctx in [&a, &b] {
        assert_eq!(ctx.err().expect("done").to_string(), "context canceled: parent");
    }
}

#[test]
fn c35b_a_plan_that_is_not_built_does_nothing_and_one_node_holds_it_all() {
    let clock = ManualClock::new();
    let (parent, _guard) = clock.root().with_cancel();
    drop(parent.derive().name("never").timeout(SECOND).value(&USER, 1));
    assert_eq!(parent.statistics().children(), 0);
    let (ctx, _guard) = parent
        .derive()
        .name("request")
        .timeout(2 * SECOND)
        .value(&USER, 123)
        .value(&TRACE, "secret")
        .build();
    assert_eq!(parent.statistics().children(), 1);
    let shown = format!("{ctx:?}");
    assert_eq!(
        shown,
        "Context(manual.cancel.request:timeout(2.00s)+value(trace)+value(user=123), live)"
    );
    assert_eq!(Context::background().derive().build().0.name(), None);
}
