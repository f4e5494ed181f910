//! Why a request got no answer, and what the client is told: a status and a JSON body.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use purview::{By, Context, ErrorKind};
use serde::Serialize;

use crate::scope::STARTED;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The client's mistake, in a sentence.
    Refused(String),
    /// The context ended: too late, hung up, or shutting down.
    Ended(purview::Error),
    /// SQLite's complaint.
    Sqlite(Arc<rusqlite::Error>),
    /// Ours.
    Broken(String),
}

impl From<purview::Error> for Failure {
    fn from(ended: purview::Error) -> Self {
        Self::Ended(ended)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(err))
    }
}

/// What a group tells of a task that failed with one.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(err) => fmt::Display::fmt(err, f),
            Self::Refused(sentence) | Self::Broken(sentence) => f.write_str(sentence),
            Self::Sqlite(err) => write!(f, "SQLite: {err}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Of a request, one of whose tasks has failed.
    pub(crate) fn of_task(task: &purview::Failure) -> Self {
        match task.cause().downcast_ref::<Self>() {
            Some(failure) => failure.clone(),
            None => Self::Broken(task.to_string()),
        }
    }

    /// The status that says it in one number.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Ended(err) if err.is_deadline_exceeded() => StatusCode::GATEWAY_TIMEOUT,
            Self::Ended(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Sqlite(_) | Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The same in full. `ctx` is the request's.
    pub(crate) fn explain(&self, ctx: &Context) -> Explanation {
        match self {
            Self::Ended(err) => Explanation::of_end(err, ctx),
            failure => Explanation::of(failure.to_string()),
        }
    }
}

/// An error as JSON; what does not apply is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    error: String,
    #[serde(flatten)]
    end: Option<End>,
}

/// How a context ended: everything that purview knows about it.
#[derive(Debug, Serialize)]
struct End {
    kind: &'static str,
    cause: Option<String>,
    origin: Origin,
}

/// Where it began to end, perhaps in an ancestor of the context that was asked.
#[derive(Debug, Serialize)]
struct Origin {
    context: String,
    name: Option<&'static str>,
    by: &'static str,
    /// File and line of the call that ended it, or that set its deadline.
    at: String,
    /// Milliseconds from the request's start.
    after_ms: Option<f64>,
}

impl Explanation {
    /// One sentence and nothing else.
    pub(crate) fn of(error: String) -> Self {
        Self { error, end: None }
    }

    fn of_end(err: &purview::Error, ctx: &Context) -> Self {
        let origin = err.origin();
        let after = |started: &Instant| millis(origin.at().saturating_duration_since(*started));
        let location = origin.location();
        Self {
            error: err.to_string(),
            end: Some(End {
                kind: match err.kind() {
                    ErrorKind::Canceled => "canceled",
                    ErrorKind::DeadlineExceeded => "deadline_exceeded",
                    _ => "unknown",
                },
                cause: err.cause().map(ToString::to_string),
                origin: Origin {
                    context: origin.context().to_string(),
                    name: origin.name(),
                    by: match origin.by() {
                        By::Call => "call",
                        By::GuardDropped => "guard_dropped",
                        By::Deadline => "deadline",
                        By::GraceOver => "grace_over",
                        _ => "unknown",
                    },
                    at: format!("{}:{}", location.file(), location.line()),
                    after_ms: ctx.value(&STARTED).map(after),
                },
            }),
        }
    }
}

/// Milliseconds, to the microsecond, as everything here reports them.
pub(crate) fn millis(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}
