//! Task groups on tokio.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use purview::{Context, Dropped, OnFailure};
use purview_tokio::{BoxError, TaskGroup, Tokio};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn a_hundred_thousand_tasks_past_a_limit_a_failure_and_a_panic_are_told_by_name_and_nothing_runs_on()
 {
    const TASKS: usize = 100_000;
    const LIMIT: usize = 64;
    runtime().block_on(async {
        let now = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicUsize::new(0));
        let group: TaskGroup = TaskGroup::builder(&Context::background())
            .limit(LIMIT)
            .on_failure(OnFailure::Isolate)
            .build();
        for n in 0..TASKS {
            let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&done));
            let task = async move |_ctx| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                assert!(n != TASKS / 2, "in the middle");
                if n == TASKS / 3 { Err(BoxError::from("at a third")) } else { Ok(()) }
            };
            assert!(group.spawn_ready(task).await.is_ok(), "it isolates");
        }
        let err = group.join().await.expect_err("two failed");
        assert_eq!((now.load(Ordering::SeqCst), done.load(Ordering::SeqCst)), (0, TASKS));
        assert!(most.load(Ordering::SeqCst) <= LIMIT);
        assert_eq!(err.failed(), 2);
        let text = err.to_string();
        assert!(text.contains("at a third") && text.contains("panicked: in the middle"), "{text}");
    });
}

#[test]
fn after_a_failure_no_task_begins_and_the_others_are_told() {
    const TASKS: usize = 10_000;
    runtime().block_on(async {
        let begun = Arc::new(AtomicUsize::new(0));
        let group: TaskGroup = TaskGroup::builder(&Context::background()).limit(8).build();
        let mut refused = 0;
        for n in 0..TASKS {
            let begun = Arc::clone(&begun);
            let task = async move |ctx: Context| {
                begun.fetch_add(1, Ordering::SeqCst);
                if n == 100 {
                    return Err("enough".into());
                }
                tokio::task::yield_now().await;
                Ok(ctx.check()?)
            };
            refused += usize::from(group.spawn_ready(task).await.is_err());
        }
        let ctx = group.context().clone();
        let err = group.join().await.expect_err("one failed");
        assert_eq!(
            (err.failed(), err.failures()[0].cause().to_string()),
            (1, "enough".to_string())
        );
        assert_eq!(begun.load(Ordering::SeqCst) + refused, TASKS);
        assert!(refused > TASKS / 2, "{refused}");
        assert_eq!(ctx.err().expect("ended").to_string(), "context canceled: enough");
    });
}

#[test]
fn a_runtime_that_is_shut_down_loses_no_task_unseen_and_nothing_hangs() {
    let runtime = runtime();
    let token = Arc::new(());
    let group: TaskGroup =
        TaskGroup::builder(&Context::background()).build_on(Tokio::new(runtime.handle().clone()));
    for n in 0..100 {
        let token = Arc::clone(&token);
        group.spawn_named(format!("task {n}"), async move |_ctx| {
            let _token = token;
            pending().await
        });
    }
    runtime.shutdown_timeout(Duration::from_secs(10));
    let err = group.join_blocking().expect_err("all were lost");
    assert_eq!(Arc::strong_count(&token), 1);
    assert!(err.failures()[0].cause().downcast_ref::<Dropped>().is_some());
    assert!(err.failures()[0].name().is_some());
}

#[test]
fn a_group_on_a_runtime_that_is_gone_says_so() {
    let runtime = runtime();
    let spawner = Tokio::new(runtime.handle().clone());
    drop(runtime);
    let isolate = OnFailure::Isolate;
    let group: TaskGroup =
        TaskGroup::builder(&Context::background()).on_failure(isolate).build_on(spawner);
    group.spawn(async |_ctx| Ok(()));
    group.spawn_blocking(|_ctx| Ok(()));
    assert_eq!(group.join_blocking().expect_err("both were lost").failed(), 2);
}

#[test]
fn a_group_dropped_at_any_await_point_leaves_nothing_behind() {
    // Each task stands at another of its awaits when the group goes.
    runtime().block_on(async {
        for steps in 0..20 {
            let token = Arc::new(());
            let group: TaskGroup = TaskGroup::new(&Context::background());
            let (at, mut there) = tokio::sync::mpsc::unbounded_channel();
            for _ in 0..8 {
                let (token, at) = (Arc::clone(&token), at.clone());
                group.spawn(async move |_ctx| {
                    let _token = token;
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                    let _ = at.send(());
                    pending().await
                });
            }
            for _ in 0..8 {
                there.recv().await.expect("each comes there");
            }
            let ctx = group.context().clone();
            drop((group, at));
            assert!(ctx.is_done());
            assert!(there.recv().await.is_none(), "all are gone");
            assert_eq!(Arc::strong_count(&token), 1);
        }
    });
}

#[test]
fn blocking_tasks_hear_of_the_end_as_others_do_and_are_reported_if_they_do_not_listen() {
    runtime().block_on(async {
        let group: TaskGroup = TaskGroup::new(&Context::background());
        let (end, ends) = std::sync::mpsc::channel::<()>();
        group.spawn_blocking(|ctx| Err(ctx.done().wait().into()));
        group.spawn_thread_named("deaf", move |_ctx| {
            let _ = ends.recv();
            Ok(())
        });
        while group.tasks().len() < 2 {
            tokio::task::yield_now().await;
        }
        group.cancel_with("deploy");
        while group.len() > 1 {
            tokio::task::yield_now().await;
        }
        let report = group.shutdown("too late to say why", Duration::from_millis(1)).await;
        assert_eq!((report.abandoned().len(), report.abandoned()[0].name()), (1, Some("deaf")));
        assert_eq!((report.finished(), report.failed()), (1, 0));
        drop(end);
    });
}

#[test]
fn groups_nest_and_an_end_goes_all_the_way_down() {
    runtime().block_on(async {
        let (ctx, guard) = Context::background().with_cancel();
        let outer: TaskGroup = TaskGroup::new(&ctx);
        let told = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 {
            let told = Arc::clone(&told);
            outer.spawn(async move |ctx: Context| {
                let inner: TaskGroup = TaskGroup::new(&ctx);
                for _ in 0..4 {
                    let told = Arc::clone(&told);
                    inner.spawn(async move |ctx: Context| {
                        let err = ctx.done().await;
                        told.fetch_add(1, Ordering::SeqCst);
                        Err(err.into())
                    });
                }
                Ok(inner.join().await?)
            });
        }
        while outer.tasks().len() < 4 {
            tokio::task::yield_now().await;
        }
        guard.cancel_with("shutdown");
        let err = outer.join().await.expect_err("none did its work");
        assert_eq!(err.to_string(), "context canceled: shutdown");
        assert!(told.load(Ordering::SeqCst) <= 16);
    });
}

#[test]
fn many_spawners_of_all_kinds_some_of_whom_give_up_lose_no_room_and_no_task() {
    const LIMIT: usize = 3;
    const EACH: usize = 2_000;
    let runtime = Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    runtime.block_on(async {
        let [now, begun, taken] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let group: Arc<TaskGroup> =
            Arc::new(TaskGroup::builder(&Context::background()).limit(LIMIT).build());
        let mut spawners = Vec::new();
        for spawner in 0..6 {
            let (group, taken) = (Arc::clone(&group), Arc::clone(&taken));
            let (now, begun) = (Arc::clone(&now), Arc::clone(&begun));
            spawners.push(tokio::spawn(async move {
                for n in 0..EACH {
                    let (now, begun) = (Arc::clone(&now), Arc::clone(&begun));
                    let task = async move |_ctx: Context| {
                        assert!(now.fetch_add(1, Ordering::SeqCst) < LIMIT);
                        begun.fetch_add(1, Ordering::SeqCst);
                        if n % 3 == 0 {
                            tokio::task::yield_now().await;
                        }
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    let is_taken = match spawner % 3 {
                        0 => {
                            group.spawn(task);
                            true
                        }
                        1 => group.try_spawn(task).is_ok(),
                        _ => {
                            // Gives up after a few looks, maybe when the room is already his.
                            let mut ready = std::pin::pin!(group.spawn_ready(task));
                            let mut looks = n % 7;
                            let waits =
                                std::future::poll_fn(|task| match ready.as_mut().poll(task) {
                                    Poll::Ready(result) => Poll::Ready(result.is_ok()),
                                    Poll::Pending if looks == 0 => Poll::Ready(false),
                                    Poll::Pending => {
                                        looks -= 1;
                                        task.waker().wake_by_ref();
                                        Poll::Pending
                                    }
                                });
                            waits.await
                        }
                    };
                    taken.fetch_add(usize::from(is_taken), Ordering::SeqCst);
                }
            }));
        }
        for spawner in spawners {
            spawner.await.expect("it has spawned");
        }
        let group = Arc::into_inner(group).expect("nobody else has it");
        group.join().await.expect("none failed");
        assert_eq!(begun.load(Ordering::SeqCst), taken.load(Ordering::SeqCst));
    });
}
