//! A context's end, for tasks that know no context.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use purview::Context;
use purview::time::ManualClock;
use purview_tokio::abort_on_done;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[tokio::test]
async fn the_end_drops_the_task_by_one_callback_and_no_task() {
    let (ctx, guard) = Context::background().with_cancel();
    let theirs = Arc::new(());
    let kept = Arc::clone(&theirs);
    let task = tokio::spawn(async move {
        let _kept = kept;
        pending::<()>().await;
    });
    let abort = abort_on_done(&ctx, task.abort_handle());
    assert_eq!(ctx.statistics().callbacks(), 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    guard.cancel();
    assert!(task.await.expect_err("it is aborted").is_cancelled());
    assert_eq!(Arc::strong_count(&theirs), 1);
    drop(abort);
}

#[tokio::test]
async fn under_a_context_that_has_ended_it_is_aborted_before_the_call_returns() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let task = tokio::spawn(async { unreachable!() });
    abort_on_done(&ctx, task.abort_handle()).detach();
    assert!(task.await.expect_err("it never began").is_cancelled());
}

#[tokio::test]
async fn dropping_it_lets_the_task_be_and_leaves_nothing_at_the_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let (end, ends) = oneshot::channel::<u32>();
    let task = tokio::spawn(ends);
    drop(abort_on_done(&ctx, task.abort_handle()));
    assert_eq!(ctx.statistics().callbacks(), 0);
    guard.cancel();
    end.send(7).expect("it lives");
    assert_eq!(task.await.expect("not aborted").expect("sent"), 7);
}

#[tokio::test]
async fn detached_it_holds_until_the_end_and_no_longer_where_there_is_none() {
    let (ctx, guard) = Context::background().with_cancel();
    let task = tokio::spawn(pending::<()>());
    abort_on_done(&ctx, task.abort_handle()).detach();
    assert_eq!(ctx.statistics().callbacks(), 1);
    guard.cancel();
    assert!(task.await.expect_err("it is aborted").is_cancelled());

    let task = tokio::spawn(async { 1 });
    abort_on_done(&Context::background(), task.abort_handle()).detach();
    assert_eq!(task.await.expect("nobody aborts it"), 1);
}

#[tokio::test]
async fn a_task_that_has_ended_keeps_its_result() {
    let (ctx, guard) = Context::background().with_cancel();
    let task = tokio::spawn(async { "done" });
    let abort = abort_on_done(&ctx, task.abort_handle());
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
    guard.cancel();
    assert_eq!(task.await.expect("it had ended"), "done");
    drop(abort);
}

#[test]
fn a_runtime_that_is_gone_is_no_matter() {
    for builder in [Builder::new_current_thread, Builder::new_multi_thread] {
        let runtime: Runtime = builder().build().expect("a runtime");
        let (ctx, guard) = Context::background().with_cancel();
        let task = runtime.spawn(pending::<()>());
        let abort = abort_on_done(&ctx, task.abort_handle());
        let late = task.abort_handle();
        drop(runtime);
        guard.cancel();
        abort_on_done(&ctx, late).detach();
        drop(abort);
        let joined = purview::thread::block_on(task);
        assert!(joined.expect_err("it went with its runtime").is_cancelled());
    }
}

#[tokio::test]
async fn a_deadline_reaches_the_tasks_of_a_set() {
    let clock = ManualClock::new();
    let (ctx, _guard) = clock.root().with_timeout(Duration::from_secs(10));
    let mut set = JoinSet::new();
    let aborts: Vec<_> = (0..10).map(|_| abort_on_done(&ctx, set.spawn(pending::<()>()))).collect();
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(9));
    assert!(set.try_join_next().is_none());
    clock.advance(Duration::from_secs(1));
    while let Some(joined) = set.join_next().await {
        assert!(joined.expect_err("it is aborted").is_cancelled());
    }
    drop(aborts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_owns_its_own_tie_is_aborted_and_nobody_waits_for_himself() {
    for _ in 0..500 {
        let (ctx, guard) = Context::background().with_cancel();
        let (give, given) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _tie = given.await;
            pending::<()>().await;
        });
        let tie = abort_on_done(&ctx, task.abort_handle());
        assert!(give.send(tie).is_ok());
        drop(guard);
        assert!(task.await.expect_err("it is aborted").is_cancelled());
    }
}
