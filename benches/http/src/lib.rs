//! A service that says hello, with and without layers around it.

use std::time::Duration;

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::get;
use purview::Context;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::propagation::Propagation;
use purview_http::{ContextLayer, Ctx};
use tower::layer::util::Identity;
use tower_http::timeout::TimeoutLayer;

/// What is around the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Around {
    /// Nothing.
    Nothing,
    /// tower-http's timeout.
    Timeout,
    /// tower's layer that does nothing: what it costs to have a layer.
    Identity,
    /// A context with a deadline, which nobody asks for.
    Context,
    /// The same; the handler asks for it, and whether it has ended.
    Asked,
    /// A deadline of the client's, a name, a trace and an id.
    Everything,
}

/// By their names on the command line, in the order in which they are measured.
pub const ALL: [(&str, Around); 6] = [
    ("nothing", Around::Nothing),
    ("timeout", Around::Timeout),
    ("identity", Around::Identity),
    ("context", Around::Context),
    ("asked", Around::Asked),
    ("everything", Around::Everything),
];

const LIMIT: Duration = Duration::from_secs(30);

/// The service, below `server`.
pub fn service(around: Around, server: &Context) -> Router {
    let plain = Router::new().route("/", get(async || "hello"));
    let limited = || ContextLayer::new(server).limit(LIMIT);
    match around {
        Around::Nothing => plain,
        Around::Timeout => {
            let status = StatusCode::GATEWAY_TIMEOUT;
            plain.layer(TimeoutLayer::with_status_code(status, LIMIT))
        }
        Around::Identity => plain.layer(Identity::new()),
        Around::Context => plain.layer(limited()),
        Around::Asked => Router::new()
            .route("/", get(async |Ctx(ctx): Ctx| if ctx.is_done() { "bye" } else { "hello" }))
            .layer(limited()),
        Around::Everything => plain.layer(
            limited()
                .believe(DeadlineHeaders::new([DeadlineHeader::relative()]))
                .reserve(Duration::from_millis(20))
                .name(route)
                .propagate(Propagation::new().trace().request_id()),
        ),
    }
}

fn route(parts: &Parts) -> Option<&str> {
    parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    /// CI measures nothing; it sees that there is something to be measured.
    #[test]
    fn each_service_says_hello() -> Result<(), Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (server, _stop) = Context::background().with_cancel();
        for (name, around) in ALL {
            let request = Request::get("/").header("x-request-timeout", "10").body(Body::empty())?;
            let response = runtime.block_on(service(around, &server).oneshot(request))?;
            let body = runtime.block_on(to_bytes(response.into_body(), 100))?;
            assert_eq!(body, "hello", "{name}");
        }
        Ok(())
    }
}
