//! Why a request's context ends.

use std::fmt;

/// Why a request's context has ended: the cause of its [`Error`](purview::Error), to be told apart.
///
/// ```
/// use purview::Context;
/// use purview_http::RequestEnded;
///
/// fn log(err: &purview::Error) -> &'static str {
///     match RequestEnded::of(err) {
///         Some(RequestEnded::ClientGone) => "nobody waits for the answer",
///         Some(RequestEnded::TimedOut) => "too late",
///         Some(RequestEnded::ServerShutdown) => "it had its grace",
///         Some(RequestEnded::Finished) => "work that was left behind",
///         Some(_) | None => "somebody else",
///     }
/// }
/// # let (ctx, guard) = Context::background().with_cancel();
/// # guard.cancel_with(RequestEnded::ClientGone);
/// # assert_eq!(log(&ctx.err().unwrap()), "nobody waits for the answer");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RequestEnded {
    /// The client went away before it had the whole answer.
    ClientGone,
    /// The time was up, the client's or the server's.
    TimedOut,
    /// The server goes down, and the time for those in flight was up.
    ServerShutdown,
    /// The handler, or the body, panicked.
    Panicked,
    /// The whole answer was handed over. Whoever still works for this request does so for nobody.
    Finished,
}

impl RequestEnded {
    /// Which of them an error tells of, if one of them. Where the context above a request's was ended by somebody else, the cause
    /// is whatever that one was given.
    #[must_use]
    pub fn of(err: &purview::Error) -> Option<RequestEnded> {
        err.cause()?.downcast_ref().copied()
    }
}

impl fmt::Display for RequestEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestEnded::ClientGone => "the client went away",
            RequestEnded::TimedOut => "the request's time was up",
            RequestEnded::ServerShutdown => "the server is shutting down",
            RequestEnded::Panicked => "the request's handler panicked",
            RequestEnded::Finished => "the request was answered",
        })
    }
}

impl std::error::Error for RequestEnded {}
