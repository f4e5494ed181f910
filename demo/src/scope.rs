//! One request on its way: its context, the duty to cancel it, and its entry in the books.
//!
//! The scope lives in the handler's future. When the client hangs up, the layer ends the request's
//! context, with that as the cause, and whatever runs below it, on whichever thread, stops; then the
//! future is dropped, and the scope with it. Nobody has to remember to; there is no other path out of a
//! handler than [`Scope::answer`] or that drop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use purview::shutdown::Hold;
use purview::{CancelGuard, Context, Key};
use serde::Serialize;

use crate::failure::Failure;
use crate::server::App;
use crate::stats::{Ending, Stats};

/// The request's number: readable all the way down to SQLite.
pub(crate) static REQUEST_ID: Key<u64> = Key::new("request_id");
/// When the request's handler began.
pub(crate) static STARTED: Key<Instant> = Key::new("started");

/// See the module.
#[derive(Debug)]
pub(crate) struct Scope {
    ctx: Context,
    /// Cancels on drop, answered or not: what is left of the work has no reader any more.
    _guard: CancelGuard,
    id: u64,
    stats: Arc<Stats>,
    answered: bool,
    /// A shutdown waits for it.
    _hold: Hold,
}

impl Scope {
    /// Begins a request, whose context is `request`. The caller's line becomes the deadline's origin.
    #[track_caller]
    pub(crate) fn begin(
        app: &App,
        request: &Context,
        name: &'static str,
        timeout: Duration,
    ) -> Self {
        let stats = Arc::clone(&app.stats);
        let id = stats.request_began(name);
        let hold = app.phases.drain.hold(format!("request {id} /{name}"));
        let (ctx, guard) = request
            .derive()
            .name(name)
            .value(&REQUEST_ID, id)
            .value(&STARTED, Instant::now())
            .timeout(timeout)
            .deadline_cause(format!("timeout_ms={}", timeout.as_millis()))
            .build();
        Self { ctx, _guard: guard, id, stats, answered: false, _hold: hold }
    }

    /// What the request's work runs under.
    pub(crate) fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Ends the request with an answer: a body, and whether it is all that was asked for.
    pub(crate) fn answer<T: Serialize>(
        mut self,
        outcome: Result<(T, Completeness), Failure>,
    ) -> Response {
        let (ending, response) = match &outcome {
            Ok((body, Completeness::Full)) => (Ending::Completed, json(StatusCode::OK, body)),
            Ok((body, Completeness::Partial)) => (Ending::Partial, json(StatusCode::OK, body)),
            Err(failure) => {
                let ending = match failure {
                    Failure::Refused(_) => Ending::Refused,
                    Failure::Ended(err) if err.is_deadline_exceeded() => Ending::TimedOut,
                    Failure::Ended(_) => Ending::ShutDown,
                    Failure::Sqlite(_) | Failure::Broken(_) => Ending::Failed,
                };
                (ending, json(failure.status(), &failure.explain(&self.ctx)))
            }
        };
        self.answered = true;
        self.stats.request_ended(self.id, ending);
        response
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !self.answered {
            self.stats.request_ended(self.id, Ending::HungUp);
        }
    }
}

/// Whether an answer has everything in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completeness {
    /// Everything that was asked for.
    Full,
    /// What was there when the time was up.
    Partial,
}

/// A JSON answer, laid out for people, who read it from curl.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(body) {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
        }
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n")).into_response(),
    }
}
