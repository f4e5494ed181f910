//! Sizes and auto traits: what types promise without saying.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::{RefUnwindSafe, UnwindSafe};

use purview::observe::Observer;
use purview::time::ManualClock;
use purview::{
    By, CancelGuard, CancelHandle, Cause, Context, ContextId, Derive, Done, Error, ErrorKind, Key,
    OnDone, Origin, Run, Sleep, Statistics,
};

fn send_sync<T: Send + Sync>() {}
fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
fn unpin<T: Unpin>() {}

#[test]
fn a_context_is_one_word_and_so_is_an_optional_one() {
    assert_eq!(size_of::<Context>(), 8);
    assert_eq!(size_of::<Option<Context>>(), 8);
    assert_eq!(size_of::<Error>(), 8);
    assert_eq!(size_of::<Option<Error>>(), 8);
    assert_eq!(size_of::<Result<(), Error>>(), 8);
}

#[test]
fn everything_may_be_sent_and_shared() {
    send_sync::<Context>();
    send_sync::<CancelGuard>();
    send_sync::<CancelHandle>();
    send_sync::<Done<'static>>();
    send_sync::<Run<'static, std::future::Ready<()>>>();
    send_sync::<Sleep<'static>>();
    send_sync::<OnDone>();
    send_sync::<Error>();
    send_sync::<Origin>();
    send_sync::<Cause>();
    send_sync::<Key<*const ()>>(); // a key holds no value
    send_sync::<ContextId>();
    send_sync::<Statistics>();
    send_sync::<ManualClock>();
    send_sync::<Derive<'static>>();
    send_sync::<Box<dyn Observer>>();
}

#[test]
fn a_context_and_its_error_survive_an_unwind() {
    unwind_safe::<Context>();
    unwind_safe::<CancelGuard>();
    unwind_safe::<CancelHandle>();
    unwind_safe::<Error>();
    unwind_safe::<ErrorKind>();
    unwind_safe::<By>();
    unwind_safe::<ContextId>();
}

#[test]
fn a_key_is_of_one_type_not_of_its_subtypes() {
    // That neither key can be used for the other does not compile, which the documentation of `Key` has as examples.
    static GENERAL: Key<for<'a> fn(&'a str) -> usize> = Key::new("general");
    static SPECIAL: Key<fn(&'static str) -> usize> = Key::new("special");
    let ctx = Context::background().with_value(&GENERAL, str::len);
    assert_eq!(ctx.value(&GENERAL).expect("it is there")(&String::from("four")), 4);
    assert!(ctx.value(&SPECIAL).is_none());
    let ctx = ctx.with_value(&SPECIAL, |text| text.len() + 1);
    assert_eq!(ctx.value(&SPECIAL).expect("it is there")("four"), 5);
}

#[test]
fn handles_may_be_moved_while_they_are_pinned() {
    unpin::<Context>();
    unpin::<CancelGuard>();
    unpin::<OnDone>();
    unpin::<Error>();
}

#[test]
fn a_root_can_be_a_constant_and_a_static() {
    static ROOT: Context = Context::background();
    const TODO: Context = Context::todo();
    assert_eq!(ROOT, Context::background());
    assert_eq!(TODO, Context::todo());
}

#[test]
fn equality_is_identity_of_the_context() {
    let (a, _guard) = Context::background().with_cancel();
    let (b, _guard) = Context::background().with_cancel();
    assert_eq!(a, a.clone());
    assert_ne!(a, b);
    assert_ne!(Context::background(), Context::todo());
    assert_eq!(Context::default(), Context::background());
    let set: std::collections::HashSet<Context> = [a.clone(), a.clone(), b.clone()].into();
    assert_eq!(set.len(), 2);
    let hash = |ctx: &Context| BuildHasherDefault::<DefaultHasher>::default().hash_one(ctx);
    assert_eq!(hash(&a), hash(&a.clone()));
    assert_ne!(hash(&a), hash(&b));
    assert_ne!(a.id(), b.id());
}
