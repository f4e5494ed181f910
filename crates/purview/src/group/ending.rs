//! How a group comes to its end: a join waits for it, a shutdown brings it about, and both report what became of the tasks.

use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

use super::info::{First, Report};
use super::shared::SoFar;
use super::{GroupError, TaskGroup};
use crate::error::Cause;
use crate::park::block_on;
use crate::{Context, leak};

/// As many futures as are not dropped at once, when they are to be, are waited for no longer than this: they don't come to an
/// await.
const PATIENCE: Duration = Duration::from_millis(100);

impl<E, S> TaskGroup<E, S> {
    /// [Closes](Self::close) the group, and waits for all tasks to end.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// async fn work(ctx: &Context) -> Result<(), purview::GroupError<Error>> {
    ///     let group: TaskGroup<Error> = TaskGroup::new(ctx);
    ///     group.spawn_thread(|ctx| ctx.check());
    ///     group.join().await
    /// }
    /// purview::thread::block_on(work(&Context::background())).unwrap();
    /// ```
    ///
    /// A task that has its own group's handle and joins it waits for itself.
    ///
    /// # Errors
    /// The tasks that failed; or, if none did, the end that kept some of them from doing their work; or, if there was none, that
    /// some were refused, because the group was closed.
    ///
    /// # Cancel safety
    /// Dropping the future drops the group.
    pub async fn join(self) -> Result<(), GroupError<E>> {
        self.close();
        self.shared.idle.done().await;
        self.outcome()
    }

    /// The same, blocking the thread.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread(|_ctx| panic!("by accident"));
    /// let err = group.join_blocking().unwrap_err();
    /// assert!(err.failures()[0].is_panic() && err.to_string().ends_with("panicked: by accident"));
    /// ```
    ///
    /// # Errors
    /// As [`join`](Self::join).
    ///
    /// # Blocking
    /// Until the last task has ended. Not for use inside async code.
    pub fn join_blocking(self) -> Result<(), GroupError<E>> {
        block_on(pin!(self.join()))
    }

    pub(super) fn outcome(&self) -> Result<(), GroupError<E>> {
        let SoFar { failures, failed, ended, refused, .. } = self.shared.so_far();
        if failures.is_empty() && ended.is_none() && refused == 0 {
            return Ok(());
        }
        Err(GroupError { failures, failed, ended, refused, of: PhantomData })
    }

    /// Tells all tasks to stop, and why; waits for `grace`; then has futures dropped at their next await. Tells what became of
    /// all of them, by name.
    ///
    /// Threads that go on, and futures that don't come to an await within a tenth of a second, are left behind, and named.
    ///
    /// ```
    /// use purview::{Context, Error, TaskGroup};
    /// use std::time::Duration;
    /// let group: TaskGroup<Error> = TaskGroup::new(&Context::background());
    /// group.spawn_thread(|ctx| { ctx.done().wait(); Ok(()) });
    /// let report = purview::thread::block_on(group.shutdown("deploy", Duration::from_secs(5)));
    /// assert!(report.is_clean());
    /// assert_eq!(report.to_string(), "1 finished, 0 of them failed; 0 aborted, 0 abandoned");
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future drops the group.
    pub async fn shutdown(self, cause: impl Into<Cause>, grace: Duration) -> Report {
        self.cancel_with(cause);
        self.close();
        self.shared.drop_waiting();
        within(&self.shared.idle, grace).await;
        if !self.shared.idle.is_done() {
            self.shared.abort_now.cancel();
            let left = self.own().left.upgrade();
            let still = left.map(|futures| futures.still.clone()); // dropped under no lock: it may be the last
            if let Some(still) = still {
                within(&still, PATIENCE).await;
            }
        }
        self.report()
    }

    /// Counts each task once, also while tasks end: a task leaves the roster before it is counted as over, and one that is in neither
    /// count is unlisted.
    fn report(&self) -> Report {
        let SoFar { failures, finished, failed, lost, aborted, unbegun, refused, .. } =
            self.shared.so_far();
        let mut abandoned = First::default();
        abandoned.append(self.tasks());
        let told = finished + lost + aborted.count + abandoned.count;
        Report {
            finished,
            failures,
            failed,
            aborted,
            unlisted: self.shared.roster.taken().saturating_sub(told),
            abandoned,
            lost,
            unbegun,
            refused,
            stop_times: self.stop_times(),
        }
    }
}

/// Waits for the end of `ctx`, no longer than that.
async fn within(ctx: &Context, time: Duration) {
    let (over, _guard) = leak::unseen(|| ctx.with_timeout(time));
    over.done().await;
}
