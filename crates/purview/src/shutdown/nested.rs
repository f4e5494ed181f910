//! A shutdown as the one that it is nested in sees it: whether it has come to its end or not, there is a report of it.
//!
//! The outer shutdown forces the inner one and makes its report in the same instant, before the inner one has run again. So it
//! does not wait for a report to be handed over: it reads the phases of the inner one itself, as they are.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Hold;
use super::report::Report;
use super::stage::Stage;
use crate::group::Failure;
use crate::{Context, Error};

/// How far a shutdown has come.
pub(super) struct Progress {
    /// Ends when the first phase is to begin.
    pub(super) begin: Context,
    stages: Mutex<Vec<Arc<Stage>>>,
    /// Of its work.
    failures: Mutex<Vec<Failure>>,
}

impl Progress {
    pub(super) fn new(begin: Context) -> Progress {
        Progress { begin, stages: Mutex::default(), failures: Mutex::default() }
    }

    pub(super) fn stages(&self) -> Vec<Arc<Stage>> {
        lock(&self.stages).clone()
    }

    pub(super) fn add_stage(&self, stage: Arc<Stage>) {
        lock(&self.stages).push(stage);
    }

    pub(super) fn add_failure(&self, failure: Failure) {
        lock(&self.failures).push(failure);
    }

    pub(super) fn report(&self, forced: Option<Error>) -> Report {
        let failures = lock(&self.failures).clone();
        Report::of(&self.begin, forced, &self.stages(), failures)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shutdown within a phase.
pub(super) struct Nested {
    pub(super) name: Cow<'static, str>,
    progress: Arc<Progress>,
    /// The report that it made at its end.
    report: OnceLock<Report>,
}

impl Nested {
    /// Its own report; or, if it has not come to its end, one of this moment, `forced` being why it does not.
    pub(super) fn report(&self, forced: Option<Error>) -> Report {
        if let Some(report) = self.report.get() {
            return report.clone();
        }
        let now = self.progress.report(forced);
        // If it came to its end meanwhile, it has released what was to be read after that, and its report was there before.
        self.report.get().cloned().unwrap_or(now)
    }
}

/// A nested shutdown's place in the phase that waits for it.
pub(super) struct Within {
    nested: Arc<Nested>,
    hold: Hold,
}

impl Within {
    pub(super) fn new(name: Cow<'static, str>, progress: Arc<Progress>, hold: Hold) -> Within {
        let nested = Arc::new(Nested { name, progress, report: OnceLock::new() });
        hold.stage.add_nested(Arc::clone(&nested));
        Within { nested, hold }
    }

    pub(super) fn finish(self, report: Report) {
        let _ = self.nested.report.set(report);
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        // One that is given up before its phase begins is forgotten.
        if !self.hold.stage.context.is_done() {
            self.hold.stage.remove_nested(&self.nested);
        }
    }
}
