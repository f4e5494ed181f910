//! The request's context, where the request is at hand.

use http::request::Parts;
use http::{Extensions, Request};
use purview::Context;

/// Asks a request for its context.
///
/// ```
/// use purview_http::RequestExt;
/// let request = http::Request::new(());
/// assert!(request.context().is_none(), "no layer has given it one");
/// ```
pub trait RequestExt {
    /// The context that a [`ContextLayer`](crate::ContextLayer) has given it.
    fn context(&self) -> Option<&Context>;
}

impl RequestExt for Extensions {
    fn context(&self) -> Option<&Context> {
        self.get()
    }
}

impl RequestExt for Parts {
    fn context(&self) -> Option<&Context> {
        self.extensions.context()
    }
}

impl<B> RequestExt for Request<B> {
    fn context(&self) -> Option<&Context> {
        self.extensions().context()
    }
}

/// The request's context, as an extractor of axum's.
///
/// Without a [`ContextLayer`](crate::ContextLayer) around the handler it is refused with 500 and a sentence that says so: a context that
/// nobody ends would be worse.
///
/// ```
/// use axum::{Router, routing::get};
/// use purview::Context;
/// use purview_http::{ContextLayer, Ctx};
///
/// let (server, _stop) = Context::background().with_cancel();
/// let app: Router = Router::new()
///     .route("/", get(async |Ctx(ctx): Ctx| format!("{:?} left", ctx.remaining())))
///     .layer(ContextLayer::new(&server));
/// ```
#[cfg(feature = "axum")]
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "extractors are taken apart")]
pub struct Ctx(pub Context);

#[cfg(feature = "axum")]
mod of_axum {
    use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
    use axum_core::response::{IntoResponse, Response};
    use http::StatusCode;
    use http::request::Parts;
    use std::convert::Infallible;
    use std::fmt;

    use super::{Ctx, RequestExt};

    /// There is no layer that gives requests a context. As a response, it is a 500.
    #[derive(Clone, Copy, Debug)]
    #[non_exhaustive]
    pub struct NoContext;

    impl fmt::Display for NoContext {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(
                "the request has no context: put purview_http::ContextLayer around this route",
            )
        }
    }

    impl std::error::Error for NoContext {}

    impl IntoResponse for NoContext {
        fn into_response(self) -> Response {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{self}\n")).into_response()
        }
    }

    impl<S: Send + Sync> FromRequestParts<S> for Ctx {
        type Rejection = NoContext;

        async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoContext> {
            parts.context().cloned().map(Ctx).ok_or(NoContext)
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for Ctx {
        type Rejection = Infallible;

        async fn from_request_parts(
            parts: &mut Parts,
            _state: &S,
        ) -> Result<Option<Self>, Infallible> {
            Ok(parts.context().cloned().map(Ctx))
        }
    }
}

#[cfg(feature = "axum")]
pub use of_axum::NoContext;
