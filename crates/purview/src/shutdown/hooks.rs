//! What is run in a phase.

use std::borrow::Cow;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use super::Hold;
use super::nested::Progress;
use super::stage::Stage;
use crate::Context;
use crate::error::Cause;
use crate::group::{Failure, panicked};

type Work = Pin<Box<dyn Future<Output = Result<(), Cause>> + Send>>;

/// Work that waits for its phase.
pub(super) struct Hook {
    name: Cow<'static, str>,
    location: &'static Location<'static>,
    hold: Hold,
    begin: Box<dyn FnOnce(Context) -> Work + Send>,
}

impl Hook {
    pub(super) fn new<F, Fut, E>(
        name: Cow<'static, str>,
        location: &'static Location<'static>,
        hold: Hold,
        work: F,
    ) -> Hook
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause>,
    {
        let begin = Box::new(move |ctx| {
            let work = work(ctx);
            Box::pin(async move { work.await.map_err(Into::into) }) as Work
        });
        Hook { name, location, hold, begin }
    }

    /// Its phase has begun without it.
    pub(super) fn too_late(&self) -> Failure {
        Failure::new(
            Some(self.name.clone()),
            self.location,
            Cause::from("came when the phase had begun"),
        )
    }
}

/// Work that has begun. All of it is polled by whoever runs the shutdown.
pub(super) struct Running {
    work: Vec<Begun>,
    /// Collects the failures.
    progress: Arc<Progress>,
}

struct Begun {
    // In the order in which they are dropped: the phase waits for the work to be gone.
    work: Work,
    /// The work's. It ends when the time is up.
    context: Context,
    /// The time is its own, and not its phase's.
    is_late: bool,
    name: Cow<'static, str>,
    location: &'static Location<'static>,
    _hold: Hold,
}

impl Running {
    pub(super) fn new(progress: Arc<Progress>) -> Running {
        Running { work: Vec::new(), progress }
    }

    pub(super) fn begin(&mut self, stage: &Stage) {
        for Hook { name, location, hold, begin } in stage.begin_hooks() {
            // Its phase's time may be up, because the shutdown was not run in time or other work has blocked it. Then it has that
            // time from now on.
            let is_late = stage.over.is_done();
            let context = if is_late { stage.time_from_now() } else { stage.over.clone() };
            let ctx = context.clone();
            match catch_unwind(AssertUnwindSafe(|| begin(ctx))) {
                Ok(work) => {
                    self.work.push(Begun { work, context, is_late, name, location, _hold: hold })
                }
                Err(panic) => {
                    self.progress.add_failure(Failure::new(Some(name), location, panicked(panic)));
                }
            }
        }
    }

    /// The context of work that has time left, when that of all phases is up.
    pub(super) fn late(&self) -> Option<&Context> {
        let mut late = self.work.iter().filter(|begun| begun.is_late);
        late.find(|begun| !begun.context.is_done()).map(|begun| &begun.context)
    }

    /// Polls all work, or, since it may block, as much as there is until `stop` says so.
    pub(super) fn poll(&mut self, task: &mut Task<'_>, stop: impl Fn() -> bool) {
        let mut i = 0;
        while let Some(begun) = self.work.get_mut(i).filter(|_| !stop()) {
            // Unwind safety: what panicked is not polled again.
            let polled = catch_unwind(AssertUnwindSafe(|| begun.work.as_mut().poll(task)));
            let result = match polled {
                Ok(Poll::Pending) => {
                    i += 1;
                    continue;
                }
                Ok(Poll::Ready(result)) => result,
                Err(panic) => Err(panicked(panic)),
            };
            let over = self.work.swap_remove(i);
            // By the rule for ends, as in a group: work that was canceled is counted as such when its hold is dropped.
            let is_end =
                |cause: &Cause| over.context.err().is_some_and(|end| end.is_all_of(&**cause));
            let failed = result.err().filter(|cause| {
                // The user's error is asked.
                !catch_unwind(AssertUnwindSafe(|| is_end(cause))).unwrap_or(false)
            });
            if let Some(cause) = failed {
                self.progress.add_failure(Failure::new(
                    Some(over.name.clone()),
                    over.location,
                    cause,
                ));
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(over))) {
                let _ = panicked(panic); // the hook has reported it
            }
        }
    }
}
