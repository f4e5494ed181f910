//! What a check lists, and what not. All of these run side by side.

use std::future::pending;
use std::pin::pin;
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use purview::leak::Check;
use purview::thread::{self, block_on};
use purview::{Context, Error, Key, NoSpawn, Semaphore, TaskGroup};

use crate::support::{LONG, Threads, until};

static USER: Key<u64> = Key::new("user");

fn names(check: &Check) -> Vec<&'static str> {
    check.leaks().contexts().iter().map(|ctx| ctx.name().unwrap_or("?")).collect()
}

#[test]
fn what_is_dropped_is_gone_and_what_is_held_is_left() {
    let check = Check::new();
    let (a, guard) = Context::background().derive().name("a").build();
    let b = a.with_value(&USER, 7);
    let c = b.without_cancel();
    let (d, _) = Context::any_of([&b, &c]);
    assert_eq!(check.leaks().contexts().len(), 4);
    let ids: Vec<_> = check.leaks().contexts().iter().map(|ctx| ctx.id()).collect();
    assert_eq!(ids, [a.id(), b.id(), c.id(), d.id()]);
    guard.cancel_with("enough");
    drop((guard, b, c, d));
    let leaks = check.leaks();
    assert_eq!((leaks.contexts().len(), leaks.contexts()[0].id()), (1, a.id()));
    let err = leaks.contexts()[0].err().expect("it ended").to_string();
    assert_eq!(err, "context canceled: enough");
    drop(a);
    check.assert_none(Duration::ZERO);
}

/// The usual leak of a server, which Go's goroutineleak profile does not see: the parent's list of children keeps the child.
#[test]
fn a_child_of_a_live_parent_that_nobody_cancels_is_found() {
    let (server, _guard) = Context::background().derive().name("server").build();
    let check = Check::new();
    let (request, guard) = server.derive().name("request").timeout(LONG).build();
    std::mem::forget(guard);
    drop(request);
    let leaks = check.leaks();
    let [leaked] = leaks.contexts() else { panic!("{leaks}") };
    assert_eq!(format!("{leaked:?}"), leaked.to_string());
    assert_eq!(
        (leaked.name(), leaked.parent(), leaked.err().is_none()),
        (Some("request"), server.id(), true)
    );
    assert_eq!(leaked.location().file(), file!());
    let text = check.wait_blocking(Duration::ZERO).expect_err("it is left").to_string();
    assert!(text.contains("below server (") && text.contains("request ("), "{text}");
}

/// The same with the guard disarmed is no leak here: a child that nobody holds goes, whatever its parent does.
#[test]
fn a_child_that_nobody_holds_goes_though_its_parent_lives_and_nobody_canceled_it() {
    let (server, _guard) = Context::background().with_cancel();
    let check = Check::new();
    let (request, guard) = server.with_timeout(LONG);
    drop(guard.disarm());
    drop(request);
    assert_eq!(server.statistics().children(), 0);
    check.assert_none(Duration::ZERO);
}

#[test]
fn tests_that_run_side_by_side_see_their_own_contexts() {
    let all_there = Barrier::new(8);
    std::thread::scope(|s| {
        for n in 0..8 {
            let all_there = &all_there;
            s.spawn(move || {
                let check = Check::new();
                let held: Vec<_> = (0..=n).map(|_| Context::background().with_cancel()).collect();
                all_there.wait();
                assert_eq!(check.leaks().contexts().len(), n + 1);
                all_there.wait();
                drop(held);
                check.assert_none(Duration::ZERO);
            });
        }
    });
}

#[test]
fn a_child_is_its_parents_checks_wherever_it_is_derived() {
    let check = Check::new();
    let (ctx, guard) = Context::background().derive().name("job").build();
    let (child, _guard, foreign) = std::thread::scope(|s| {
        let work = s.spawn(|| {
            let other = Check::new();
            let (child, guard) = ctx.derive().name("child").build();
            let foreign = Context::background().with_cancel();
            assert_eq!(other.leaks().contexts().len(), 1, "the root");
            (child, guard, foreign)
        });
        work.join().expect("no panic")
    });
    assert_eq!(names(&check), ["job", "child"]);
    drop((ctx, guard, child, _guard, foreign));
    check.assert_none(Duration::ZERO);
}

#[test]
fn roots_of_other_threads_are_listed_where_they_entered() {
    let check = Check::new();
    let handle = check.handle();
    let held = std::thread::spawn(move || {
        let before = Context::background().with_cancel();
        let entered = handle.enter();
        assert_eq!(format!("{entered:?}"), "Entered");
        let inside = Context::background().derive().name("inside").build();
        drop(entered);
        (before, inside, Context::background().with_cancel())
    });
    let held = held.join().expect("no panic");
    assert_eq!(names(&check), ["inside"]);
    drop(held);
    check.assert_none(Duration::ZERO);
}

#[test]
fn a_check_within_a_check_has_its_own() {
    let outer = Check::new();
    let first = Context::background().derive().name("first").build();
    let inner = Check::new();
    let second = Context::background().derive().name("second").build();
    let third = first.0.derive().name("third").build();
    assert_eq!((names(&outer), names(&inner)), (vec!["first", "third"], vec!["second"]));
    drop(inner);
    let fourth = Context::background().derive().name("fourth").build();
    assert_eq!(names(&outer), ["first", "third", "fourth"]);
    drop((first, second, third, fourth));
    outer.assert_none(Duration::ZERO);
}

#[test]
fn a_wait_ends_when_the_last_handle_goes_on_whatever_thread() {
    let check = Check::new();
    let held = Context::background().with_cancel();
    let (go, going) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        going.recv().expect("it says so");
        drop(held);
    });
    assert_eq!(check.leaks().contexts().len(), 1);
    go.send(()).expect("it waits");
    check.wait_blocking(LONG).expect("it goes");
    thread.join().expect("no panic");
    block_on(check.wait(Duration::ZERO)).expect("nothing is left");
}

#[test]
fn a_context_that_nobody_watches_has_ended_when_its_deadline_has_passed() {
    let clock = purview::time::ManualClock::new();
    let check = Check::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(1));
    clock.advance(Duration::from_secs(1));
    let (late, _late_guard) = ctx.with_cancel();
    let leaks = check.leaks();
    let ended: Vec<_> = leaks.contexts().iter().map(|ctx| ctx.err().is_some()).collect();
    assert_eq!((ended.last(), late.is_done()), (Some(&true), true));
}

#[test]
fn tasks_are_listed_from_the_start_with_name_place_and_state() {
    let check = Check::new();
    let group: TaskGroup<Error, Threads> =
        TaskGroup::builder(&Context::background()).name("workers").build();
    let (end, ends) = mpsc::channel::<()>();
    group.spawn_named("waiter", async |ctx: Context| Err(ctx.done().await));
    let line = line!() + 1;
    group.spawn_thread_named("deaf", move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    let leaks = check.leaks();
    assert_eq!(leaks.contexts().len(), 1, "no more than the group's: {leaks}");
    let mut listed: Vec<_> = leaks.tasks().map(|task| task.name().unwrap_or("?")).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["deaf", "waiter"]);
    drop(group);
    until(|| check.leaks().tasks().count() == 1);
    let leaks = check.leaks();
    let task = leaks.tasks().next().expect("the thread goes on");
    assert_eq!((task.name(), task.location().line()), (Some("deaf"), line));
    assert!(task.told().is_some());
    drop(end);
    check.assert_none(LONG);
}

#[test]
fn tasks_of_many_groups_are_listed_with_others_that_came_and_went() {
    let check = Check::new();
    let groups: Vec<TaskGroup<Error, Threads>> = (0..20)
        .map(|_| {
            let group = TaskGroup::builder(&Context::background()).build();
            group.spawn(async |ctx: Context| Err(ctx.done().await));
            drop(TaskGroup::<Error>::new(&Context::background()));
            group
        })
        .collect();
    assert_eq!(check.leaks().tasks().count(), 20);
    drop(groups);
    check.assert_none(LONG);
}

/// A goroutine that does not listen is found even where no group knows of it: it holds its context.
#[test]
fn a_thread_that_does_not_listen_is_found_by_the_context_it_holds() {
    let check = Check::new();
    let (end, ends) = mpsc::channel::<()>();
    let thread = {
        let (ctx, _guard) = Context::background().derive().name("job").build();
        std::thread::spawn(move || {
            let _ = ends.recv();
            drop(ctx);
        })
    };
    let leaks = check.wait_blocking(Duration::ZERO).expect_err("it is there");
    assert!(leaks.contexts()[0].err().is_some(), "told, but held");
    drop(end);
    check.assert_none(LONG);
    thread.join().expect("no panic");
}

#[test]
fn what_tasks_derive_from_nowhere_is_their_groups_checks() {
    let check = Check::new();
    let (send, received) = mpsc::channel();
    let group: TaskGroup<Error, Threads> = TaskGroup::new(&Context::background());
    for name in ["thread", "future"] {
        let send = send.clone();
        let derive = move || {
            let _ = send.send(Context::background().derive().name(name).build());
        };
        if name == "thread" {
            group.spawn_thread(move |_ctx| {
                derive();
                Ok(())
            });
        } else {
            group.spawn(async move |_ctx| {
                derive();
                Ok(())
            });
        }
    }
    let _ = thread::scope::<_, Error>(group.context(), |s| {
        let send = send.clone();
        s.spawn(move |_ctx| {
            let _ = send.send(Context::background().derive().name("scoped").build());
            Ok(())
        });
    });
    group.join_blocking().expect("they did their work");
    drop(send);
    let held: Vec<_> = received.iter().collect();
    let mut left = names(&check);
    left.retain(|name| *name != "?");
    left.sort_unstable();
    assert_eq!(left, ["future", "scoped", "thread"]);
    drop(held);
    check.assert_none(LONG);
}

#[test]
fn a_group_that_is_forgotten_is_found_by_its_place() {
    let check = Check::new();
    let group: TaskGroup<Error, NoSpawn> = TaskGroup::new(&Context::background());
    std::mem::forget(group);
    let leaks = check.leaks();
    assert_eq!(leaks.contexts()[0].location().file(), file!());
    assert_eq!(leaks.contexts().len(), 1);
}

#[test]
fn a_future_that_is_forgotten_in_a_run_is_found() {
    let check = Check::new();
    let (ctx, guard) = Context::background().with_cancel();
    let mut work = Box::pin(async move {
        let (child, _guard) = ctx.derive().name("inner").build();
        let _ = child.run(pending::<()>()).await;
    });
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(work.as_mut().poll(&mut task).is_pending());
    std::mem::forget(work);
    drop(guard);
    let leaks = check.leaks();
    assert_eq!(names(&check), ["?", "inner"]);
    assert!(leaks.contexts().iter().all(|ctx| ctx.err().is_some()), "told, but held: {leaks}");
}

/// What the library derives for itself is no leak of its user's, whose place would be in the library.
#[test]
fn who_waits_for_a_permit_or_for_a_group_is_not_listed_for_that() {
    let check = Check::new();
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    let nowhere = Context::background();
    for permits in [1, 2] {
        let semaphore = Semaphore::new(1);
        let _taken = semaphore.try_acquire(1);
        let mut permit = pin!(semaphore.acquire(&nowhere, permits));
        assert!(permit.as_mut().poll(&mut task).is_pending());
        assert!(check.leaks().is_empty(), "{}", check.leaks());
    }

    let group: TaskGroup<Error> = TaskGroup::builder(&nowhere).name("deaf").build();
    let (end, ends) = mpsc::channel::<()>();
    group.spawn_thread(move |_ctx| {
        let _ = ends.recv();
        Ok(())
    });
    let mut shutdown = Box::pin(group.shutdown("enough", LONG));
    assert!(shutdown.as_mut().poll(&mut task).is_pending());
    assert_eq!(names(&check), ["deaf"]);
    drop((shutdown, end));
    check.assert_none(LONG);
}

/// Polls `future` once, with a waker that calls `code`.
fn poll_with<F: Future>(future: std::pin::Pin<&mut F>, code: impl Fn() + Send + Sync + 'static) {
    struct Run<F>(F);
    impl<F: Fn() + Send + Sync> std::task::Wake for Run<F> {
        fn wake(self: std::sync::Arc<Self>) {
            (self.0)();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Run(code)));
    assert!(future.poll(&mut std::task::Context::from_waker(&waker)).is_pending());
}

#[test]
fn c32_a_waker_that_panics_keeps_no_other_wait_asleep() {
    let check = Check::new();
    let held = Context::background().with_cancel();
    let mut waits = [(); 3].map(|()| Box::pin(check.wait(LONG)));
    let (woken, heard) = mpsc::channel();
    for (i, wait) in waits.iter_mut().enumerate() {
        let woken = woken.clone();
        poll_with(wait.as_mut(), move || {
            woken.send(i).expect("the test listens");
            assert!(i > 1, "by waker {i}");
        });
    }
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(held)));
    let payload = dropped.expect_err("the first panic is the caller's");
    assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("by waker 0"));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn of_two_checks_on_a_thread_each_may_go_first() {
    let [first, second, third] = [(); 3].map(|()| Check::new());
    drop(second);
    let held = Context::background().with_cancel();
    assert_eq!((first.leaks().contexts().len(), third.leaks().contexts().len()), (0, 1));
    drop(first);
    let more = Context::background().with_cancel();
    assert_eq!(third.leaks().contexts().len(), 2);
    let fourth = Check::new();
    drop((third, held, more));
    let held = Context::background().with_cancel();
    assert_eq!(fourth.leaks().contexts().len(), 1);
    drop(held);
    fourth.assert_none(Duration::ZERO);
}

#[test]
fn a_thread_that_leaves_checks_in_any_order_is_back_where_it_began() {
    let outer = Check::new();
    let [one, other] = [Check::new(), Check::new()];
    drop(one);
    drop(other);
    let held = Context::background().with_cancel();
    assert_eq!(outer.leaks().contexts().len(), 1);
    drop(held);
    let entered = outer.handle().enter();
    let inner = Check::new();
    drop(entered);
    let held = Context::background().with_cancel();
    assert_eq!((outer.leaks().contexts().len(), inner.leaks().contexts().len()), (0, 1));
    drop((inner, held));
    let _held = Context::background().with_cancel();
    assert_eq!(outer.leaks().contexts().len(), 1);
}
