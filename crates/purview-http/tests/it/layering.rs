//! Layers of others around ours: they make responses of their own, of the type that ours has.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use purview::Context;
use purview_http::client::{self, WithContext};
use purview_http::{BoxError, ContextLayer, Ctx, DetachLayer, ResponseBody};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;

const HOUR: Duration = Duration::from_secs(3600);

async fn ask(app: &Router, method: &str, path: &str) -> (StatusCode, http::HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).header("origin", "http://a.test");
    let request = request.body(Body::empty()).expect("a request");
    let (parts, body) = app.clone().oneshot(request).await.expect("infallible").into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn layers_that_make_empty_responses_fit_around_ours() {
    let (server, _stop) = Context::background().with_cancel();
    let routes = || {
        Router::new()
            .route("/", get(async |Ctx(ctx): Ctx| format!("{}", ctx.is_done())))
            .route("/never", get(std::future::pending::<&str>))
    };
    let timeout = |time| TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, time);
    let ours = || {
        ServiceBuilder::new()
            .layer(ContextLayer::new(&server))
            .layer(DetachLayer::new(&server, HOUR))
    };
    for app in [
        routes().layer(ServiceBuilder::new().layer(CorsLayer::permissive()).layer(ours())),
        routes().layer(
            ServiceBuilder::new().layer(CorsLayer::permissive()).layer(timeout(HOUR)).layer(ours()),
        ),
    ] {
        let (status, headers, body) = ask(&app, "GET", "/").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "false"));
        assert_eq!(headers["access-control-allow-origin"], "*");
        let (status, headers, body) = ask(&app, "OPTIONS", "/").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
        assert_eq!(headers["access-control-allow-origin"], "*");
    }
    let app = routes().layer(ServiceBuilder::new().layer(timeout(Duration::ZERO)).layer(ours()));
    let (status, _, body) = ask(&app, "GET", "/never").await;
    assert_eq!((status, body.as_str()), (StatusCode::REQUEST_TIMEOUT, ""));
}

#[tokio::test]
async fn layers_that_make_empty_responses_fit_around_a_client() {
    let service = service_fn(async |_: Request<()>| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("all")))
    });
    let layer = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, HOUR);
    let client = layer.layer(client::ContextLayer::new().layer(service));
    let request = Request::new(()).with_context(&Context::background());
    let response = client.oneshot(request).await.expect("an answer");
    assert_eq!(response.into_body().collect().await.expect("all of it").to_bytes(), "all");
}

#[test]
fn a_default_body_is_empty_and_whole() {
    fn check(body: impl http_body::Body<Data = Bytes, Error = BoxError>) {
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert_eq!(crate::support::text(body), "");
    }
    // Whatever is in there otherwise: that has no default here.
    struct Other;
    impl http_body::Body for Other {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
            unreachable!()
        }
    }
    check(ResponseBody::<Other>::default());
    check(client::ResponseBody::<Other>::default());
    assert!(ResponseBody::<Full<Bytes>>::default().is_end_stream());
}
