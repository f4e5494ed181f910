//! The extractor, in a router of axum's.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use purview::Context;
use purview_http::{ContextLayer, Ctx};
use tower::ServiceExt;

async fn answer(app: Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response = app.oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a short text");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn routes() -> Router {
    Router::new()
        .route("/", get(async |Ctx(ctx): Ctx| ctx.name().unwrap_or("unnamed").to_string()))
        .route("/maybe", get(async |ctx: Option<Ctx>| ctx.is_some().to_string()))
}

#[tokio::test]
async fn a_handler_is_given_its_requests_context() {
    let (server, _stop) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server).name(|parts| {
        parts.extensions.get::<axum::extract::MatchedPath>().map(|path| path.as_str())
    });
    // Behind the routing, so that there is a route.
    let app = routes().route_layer(layer);
    assert_eq!(answer(app.clone(), "/").await, (StatusCode::OK, "GET /".to_string()));
    assert_eq!(answer(app, "/maybe").await.1, "true");
    assert_eq!(server.statistics().children(), 0);
}

#[tokio::test]
async fn without_the_layer_it_is_a_500_that_says_so_and_never_a_context_that_nobody_ends() {
    let (status, text) = answer(routes(), "/").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        text,
        "the request has no context: put purview_http::ContextLayer around this route\n"
    );
    assert_eq!(answer(routes(), "/maybe").await.1, "false");
}
