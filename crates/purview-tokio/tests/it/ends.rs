//! Canceled tasks that return their context's error: an end and no failure, whatever the error is made of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use purview::shutdown::Shutdown;
use purview::{Cause, Context, Error, GroupError, OnFailure};
use purview_tokio::{BoxError, TaskGroup, map_concurrent, map_stream};

const HOUR: Duration = Duration::from_secs(3600);

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().expect("a runtime").block_on(test);
}

/// Tells a task of a group that it is to stop. What it returns is made of its context's error.
async fn told_to_stop<E>(of: fn(Error) -> E) -> GroupError<E>
where
    E: Into<Cause> + Send + 'static,
{
    let group: TaskGroup<E> = TaskGroup::new(&Context::background());
    group.spawn(async move |ctx: Context| ctx.sleep(HOUR).await.map_err(of));
    tokio::task::yield_now().await;
    group.cancel_with("deploy");
    group.join().await.expect_err("it was told")
}

fn is_an_end<E: 'static>(err: &GroupError<E>) -> bool {
    assert_eq!(Error::find(err).map(ToString::to_string), err.ended().map(ToString::to_string));
    (err.failed(), err.failures().len()) == (0, 0)
        && err.ended().is_some()
        && err.to_string() == "context canceled: deploy"
}

#[test]
fn an_end_is_an_end_through_every_error_that_programs_use() {
    run(async {
        assert!(is_an_end(&told_to_stop::<Error>(|err| err).await));
        assert!(is_an_end(&told_to_stop::<io::Error>(Into::into).await));
        assert!(is_an_end(&told_to_stop::<BoxError>(Into::into).await));
        assert!(is_an_end(&told_to_stop::<anyhow::Error>(Into::into).await));
        assert!(is_an_end(&told_to_stop::<eyre::Report>(Into::into).await));
        let context: fn(Error) -> anyhow::Error =
            |err| anyhow::Error::from(err).context("load").context("start");
        assert!(is_an_end(&told_to_stop(context).await));
        let context: fn(Error) -> eyre::Report =
            |err| eyre::Report::from(err).wrap_err("load").wrap_err("start");
        assert!(is_an_end(&told_to_stop(context).await));
        assert!(is_an_end(&told_to_stop::<BoxError>(|err| err.to_string().into()).await));
    });
}

#[test]
fn an_end_is_an_end_through_a_group_in_a_group() {
    async fn both<E, F>(of: F)
    where
        E: Into<Cause> + Send + 'static,
        F: Fn(GroupError<anyhow::Error>) -> E + Send + Sync + Copy + 'static,
    {
        let outer: TaskGroup<E> = TaskGroup::new(&Context::background());
        outer.spawn(async move |ctx: Context| {
            let inner: TaskGroup<anyhow::Error> = TaskGroup::new(&ctx);
            inner.spawn(async |ctx: Context| Ok(ctx.sleep(HOUR).await?));
            inner.join().await.map_err(of)
        });
        tokio::task::yield_now().await;
        outer.cancel_with("deploy");
        assert!(is_an_end(&outer.join().await.expect_err("it was told")));
    }
    run(async {
        both(BoxError::from).await;
        both(anyhow::Error::from).await;
        both(|err| anyhow::Error::from(err).context("load")).await;
        both(eyre::Report::from).await;
    });
}

#[test]
fn an_error_of_ones_own_is_a_failure_also_when_one_has_been_told_to_stop() {
    run(async {
        for text in ["could not flush", "context canceled", "context canceled: deploys"] {
            let group: TaskGroup<anyhow::Error> = TaskGroup::new(&Context::background());
            group.spawn(async move |ctx: Context| {
                ctx.done().await;
                Err(anyhow::anyhow!(text))
            });
            tokio::task::yield_now().await;
            group.cancel_with("deploy");
            assert_eq!(group.join().await.expect_err("it failed").failed(), 1);
        }
        // The text of the end is no end while the context is live.
        let group: TaskGroup<anyhow::Error> = TaskGroup::new(&Context::background());
        group.spawn(async |_ctx| Err(anyhow::anyhow!("context canceled: deploy")));
        assert_eq!(group.join().await.expect_err("it failed").failed(), 1);
        // Nor is another context's end, such as a query's own time.
        let group: TaskGroup<BoxError> = TaskGroup::new(&Context::background());
        group.spawn(async |ctx: Context| {
            let (query, _guard) = ctx.with_timeout(Duration::ZERO);
            let err = query.done().await;
            ctx.done().await;
            Err(err.into())
        });
        tokio::task::yield_now().await;
        group.cancel_with("deploy");
        assert_eq!(group.join().await.expect_err("it failed").failed(), 1);
    });
}

#[test]
fn an_end_is_an_end_in_maps() {
    run(async {
        let (ctx, guard) = Context::background().with_cancel();
        let waits = async |ctx: Context, n: u32| {
            ctx.sleep(HOUR).await?;
            anyhow::Ok(n)
        };
        let mut results = map_stream(&ctx, stream::iter(0..2), 2, waits);
        let all = map_concurrent(&ctx, 0..2, 2, waits);
        let canceled = async {
            tokio::task::yield_now().await;
            guard.cancel_with("deploy");
        };
        let (streamed, all, ()) = tokio::join!(results.next(), all, canceled);
        assert!(is_an_end(&streamed.expect("not over").expect_err("canceled")));
        assert!(is_an_end(&all.expect_err("canceled")));
    });
}

#[test]
fn a_service_whose_tasks_stop_when_they_are_told_to_exits_with_zero() {
    run(async {
        let (signal, stop) = Context::background().with_cancel();
        let mut shutdown = Shutdown::new(&signal);
        let cancel = shutdown.phase("cancel", HOUR);
        let group: Arc<TaskGroup<anyhow::Error>> =
            Arc::new(TaskGroup::builder(cancel.context()).on_failure(OnFailure::Isolate).build());
        cancel.own(Arc::clone(&group));
        group.spawn(async |ctx: Context| Ok(ctx.sleep(HOUR).await?));
        tokio::task::yield_now().await;
        stop.cancel_with("SIGTERM");
        let report = shutdown.run().await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.exit_code(), 0);
    });
}

#[test]
fn a_group_that_says_how_errors_become_causes_shows_what_is_inside() {
    run(async {
        let group: TaskGroup<anyhow::Error> = TaskGroup::builder(&Context::background())
            .on_failure(OnFailure::Isolate)
            .errors(|err: anyhow::Error| {
                Cause::from(err.reallocate_into_boxed_dyn_error_without_backtrace())
            })
            .limit(1)
            .build();
        let full = async |_ctx| Err(io::Error::other("disk full").into());
        group.spawn(full);
        group.spawn_named("second", full); // past the limit
        group.spawn_ready(full).await.expect("it isolates");
        group.spawn_blocking(|_ctx| Err(io::Error::other("disk full").into()));
        group.spawn(async |ctx: Context| Ok(ctx.sleep(HOUR).await?));
        group.cancel_with("deploy");
        let err = group.join().await.expect_err("they failed");
        assert!(err.failed() > 0);
        for failure in err.failures() {
            assert!(failure.cause().downcast_ref::<io::Error>().is_some(), "{failure}");
        }

        let group: TaskGroup<eyre::Report> = TaskGroup::builder(&Context::background())
            .errors(|report: eyre::Report| match report.downcast::<io::Error>() {
                Ok(err) => Cause::from(err),
                Err(other) => Cause::from(other),
            })
            .build();
        group.spawn(async |_ctx| Err(io::Error::other("disk full").into()));
        let err = group.join().await.expect_err("it failed");
        assert!(err.failures()[0].cause().downcast_ref::<io::Error>().is_some());
    });
}
