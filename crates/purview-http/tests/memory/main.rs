//! What clients write costs no memory when their requests are over, counted by a global allocator. In a process of its own, for names
//! are the process's.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::routing::get;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use purview::Context;
use purview_http::{ContextLayer, Ctx};
use tower::ServiceExt;

struct Counting;

thread_local! {
    /// The bytes this thread has allocated, less those it has freed. Const and without a drop: counting must not allocate.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn note(bytes: isize) {
    // A thread that is being torn down has no thread-locals any more, and the test does not count it.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

fn signed(bytes: usize) -> isize {
    bytes.try_into().unwrap_or(isize::MAX)
}

// SAFETY: the system's allocator, with a counter beside it that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()));
        // SAFETY: the caller's promise is this call's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(signed(size) - signed(layout.size()));
        // SAFETY: the caller's promise is this call's.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note(-signed(layout.size()));
        // SAFETY: the caller's promise is this call's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn live() -> isize {
    LIVE.with(Cell::get)
}

/// Of one layer around routes, and one of each around the router.
fn routers(server: &Context) -> [Router; 2] {
    fn route(parts: &Parts) -> Option<&str> {
        parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str)
    }
    let name = async |Ctx(ctx): Ctx| ctx.name().unwrap_or("unnamed").to_string();
    let routes = || {
        Router::new()
            .route("/users/{id}", get(name))
            .route("/any", axum::routing::any(name))
            .route("/late", get(name))
    };
    let layer = ContextLayer::new(server).name(route);
    [routes().layer(layer.clone()), routes().route_layer(layer)]
}

async fn ask(app: &Router, method: &Method, path: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    let response = app.clone().oneshot(request.expect("a request")).await.expect("infallible");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a short text");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// A method of no standard, of `length` bytes.
fn unknown(number: usize, length: usize) -> Method {
    let mut name = format!("M{number:07}-");
    name.extend(std::iter::repeat_n('X', length.saturating_sub(name.len())));
    Method::from_bytes(name.as_bytes()).expect("a token")
}

#[tokio::test]
async fn methods_that_nobody_knows_cost_no_memory_and_no_names() {
    let (server, _stop) = Context::background().with_cancel();
    for app in routers(&server) {
        for path in ["/users/1", "/any"] {
            for number in 0..3 {
                ask(&app, &unknown(number, 8192), path).await;
            }
            let before = live();
            for number in 0..200 {
                ask(&app, &unknown(1000 + number, 8192), path).await;
            }
            assert_eq!(live() - before, 0, "{path}");
        }
        // More of them than there may be names.
        for number in 0..2000 {
            assert_eq!(ask(&app, &unknown(number, 8), "/users/1").await.0, 405);
        }
        let any = ask(&app, &unknown(7, 8), "/any").await;
        assert_eq!(any, (StatusCode::OK, "/any".to_string()), "the route alone");
    }
    let late = ask(&routers(&server)[0], &Method::GET, "/late").await;
    assert_eq!(late, (StatusCode::OK, "GET /late".to_string()));
}
