//! What a check says: a tree that a tired reader understands.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use purview::leak::Check;
use purview::{Context, Error, TaskGroup};

/// Without what differs from run to run: places and times.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('(') {
            plain += before;
            plain += "()";
            rest = after.split_once(')').map_or("", |(_, rest)| rest);
        }
        plain += rest;
        plain.push('\n');
    }
    let words = plain.split(' ').map(|word| {
        let is_time = word.ends_with('s') && word.starts_with(|c: char| c.is_ascii_digit());
        if is_time { "T" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_age_is_the_time_from_the_derivation_to_the_look() {
    let check = Check::new();
    let before = Instant::now();
    let _held = Context::background().with_cancel();
    let born = Instant::now();
    while born.elapsed() < Duration::from_micros(1) {}
    let at_least = born.elapsed();
    let age = check.leaks().contexts()[0].age();
    assert!((at_least..=before.elapsed()).contains(&age), "{age:?}");
}

#[test]
fn the_report_is_a_tree_of_names_places_ages_and_states() {
    let (server, _guard) = Context::background().derive().name("server").build();
    let check = Check::new();
    let (end, ends) = mpsc::channel::<()>();
    let (_request, guard) = server.derive().name("request").build();
    let group: TaskGroup<Error> = TaskGroup::builder(&_request).name("fetchers").build();
    group.spawn_thread_named("fetch", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    let (_db, _db_guard) = _request.derive().name("query").build();
    guard.cancel_with("the client went away");
    let _many: Vec<_> = (0..1000).map(|_| _db.with_cancel()).collect();
    let _other = Context::background().derive().name("other").build();

    assert_eq!(
        plain(&check.leaks().to_string()),
        "1004 contexts and 1 task are left:
below server (), which is not listed:
request (), T old, context canceled: the client went away, but held
├─ fetchers (), T old, context canceled: the client went away, but held
│  └─ task fetch (), told to stop T ago
└─ query (), T old, context canceled: the client went away, but held
   └─ context (), T old, context canceled: the client went away, but held; and 999 more like it
below nothing else:
other (), T old, live
"
    );
    drop(end);
    let _ = group.join_blocking();
}

#[test]
fn only_what_is_alike_and_hangs_on_the_same_is_told_as_one() {
    let parents = [0, 1].map(|_| Context::background().derive().name("parent").build());
    let check = Check::new();
    let held: Vec<_> = (0..6).map(|n| parents[n % 2].0.with_cancel()).collect();
    held[0].1.cancel();
    assert_eq!(
        plain(&check.leaks().to_string()),
        "6 contexts are left:
below parent (), which is not listed:
context (), T old, context canceled, but held
context (), T old, live; and 1 more like it
below parent (), which is not listed:
context (), T old, live; and 2 more like it
"
    );
    drop(held);

    let (end, ends) = mpsc::channel::<()>();
    let ends = Arc::new(Mutex::new(ends));
    let (ctx, guard) = Context::background().derive().name("job").build();
    let group: TaskGroup<Error> = TaskGroup::new(&ctx);
    for name in ["one", "two", "two"] {
        let ends = ends.clone();
        group.spawn_thread_named(name, move |_ctx| {
            let _ = ends.lock().map(|ends| ends.recv());
            Ok(())
        });
    }
    let text = plain(&check.leaks().to_string());
    assert!(text.contains("task one ()") && text.contains("task two ()"), "{text}");
    assert!(text.contains("; and 1 more like it"), "{text}");
    drop(end);
    group.join_blocking().expect("they end");
    drop(guard);
}

#[test]
#[should_panic(expected = "1 context is left:\njob (")]
fn an_assertion_panics_with_the_tree() {
    let check = Check::new();
    let _held = Context::background().derive().name("job").build();
    check.assert_none(Duration::ZERO);
}

#[test]
fn an_unwrap_in_async_code_says_the_same() {
    let check = Check::new();
    let held = Context::background().derive().name("job").build();
    let err = purview::thread::block_on(check.wait(Duration::ZERO)).expect_err("it is held");
    let text = err.to_string();
    assert!(text.starts_with("1 context is left:\njob ("), "{text}");
    assert!(format!("{err:?}").starts_with("1 context is left:\njob ("));
    drop(held);
    assert_eq!(check.leaks().to_string(), "nothing is left");
    assert!(check.leaks().is_empty());
}

#[test]
fn a_long_report_is_cut_short_and_a_deep_one_needs_no_deep_stack() {
    let check = Check::new();
    let mut chain = vec![Context::background().with_cancel()];
    for i in 0..10_000 {
        let next = chain[i].0.with_cancel();
        chain.push(next);
    }
    let text = check.leaks().to_string();
    assert!(text.ends_with("\n… and 9937 more"), "{text}");
    drop(chain.split_off(1));
    assert_eq!(check.leaks().contexts().len(), 1);
}
