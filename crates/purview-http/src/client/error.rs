//! What can go wrong with a request, besides what its service says.

use std::fmt;

use crate::BoxError;

/// Why there is no answer.
///
/// Where a context's end is the reason, or a deadline that leaves no time to send the request, [`purview::Error::find`] finds it, here and
/// in the errors of bodies.
///
/// ```
/// use http::{Request, Response};
/// use purview::Context;
/// use purview_http::client::{ContextLayer, ErrorKind, WithContext};
/// use tower::{Layer, ServiceExt, service_fn};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel_with("no longer needed");
/// let client = ContextLayer::new().layer(service_fn(async |_request: Request<()>| {
///     Ok::<_, std::io::Error>(Response::new(())) // not called
/// }));
/// let err = client.oneshot(Request::new(()).with_context(&ctx)).await.unwrap_err();
/// assert_eq!(err.kind(), ErrorKind::Ended);
/// assert!(purview::Error::find(&err).unwrap().is_canceled());
/// # }
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    ended: Option<purview::Error>,
    service: Option<BoxError>,
}

/// What sort of reason it is. Told by [`Error::kind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request's context has ended.
    Ended,
    /// There was no time left to send it.
    NoTime,
    /// The request was given no context.
    NoContext,
    /// The service says so.
    Service,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, ended: Option<purview::Error>) -> Self {
        Error { kind, ended, service: None }
    }

    /// What a service says, for who makes one that a layer is not around.
    ///
    /// ```
    /// use purview_http::client::{Error, ErrorKind};
    /// let err = Error::service("no route to host");
    /// assert_eq!(err.kind(), ErrorKind::Service);
    /// assert_eq!(err.to_string(), "the request failed"); // and its source says why
    /// assert_eq!(std::error::Error::source(&err).map(ToString::to_string).as_deref(), Some("no route to host"));
    /// ```
    #[must_use]
    pub fn service(err: impl Into<BoxError>) -> Self {
        Error { kind: ErrorKind::Service, ended: None, service: Some(err.into()) }
    }

    /// What sort of reason it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the end of the request's context. Where [no time](ErrorKind::NoTime) was left to send it, that is its deadline, which has
    /// yet to pass.
    #[must_use]
    pub fn ended(&self) -> Option<&purview::Error> {
        self.ended.as_ref()
    }

    /// What the service says.
    #[must_use]
    pub fn into_service(self) -> Option<BoxError> {
        self.service
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ErrorKind::NoTime {
            return f.write_str("no time is left to send the request");
        }
        match (&self.ended, &self.service) {
            (Some(_), _) => f.write_str("the request's context is done"),
            (None, Some(_)) => f.write_str("the request failed"),
            (None, None) => f.write_str("the request was given no context"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match (&self.ended, &self.service) {
            (Some(ended), _) => Some(ended),
            (None, Some(err)) => Some(&**err),
            (None, None) => None,
        }
    }
}
