//! The routes. A handler reads its parameters, begins a [`Scope`], and hands the scope's context
//! down; everything about time, hanging up and shutting down is in that context.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{Html, Response};
use axum::routing::get;

use crate::failure::Explanation;
use crate::report::Report;
use crate::scope::{Scope, json};
use crate::search::Search;
use crate::shutdown::Phases;
use crate::stats::Stats;
use crate::store::Store;

/// What handlers share.
#[derive(Debug)]
pub(crate) struct App {
    /// The way down: a request lives under `cancel`, and `drain` waits for it.
    pub(crate) phases: Phases,
    /// The notes.
    pub(crate) store: Store,
    /// The books.
    pub(crate) stats: Arc<Stats>,
}

type Pairs = Query<Vec<(String, String)>>;

/// Everything that is served.
pub(crate) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/search", get(search))
        .route("/report", get(report))
        .route("/stats", get(stats))
        .fallback(no_such_page)
        .method_not_allowed_fallback(only_get)
        .with_state(app)
}

async fn search(State(app): State<Arc<App>>, Query(pairs): Pairs) -> Response {
    let search = match Search::read(pairs) {
        Ok(search) => search,
        Err(sentence) => return refuse(&app, sentence),
    };
    let scope = Scope::begin(&app, "search", search.timeout);
    let outcome = search.run(scope.ctx(), &app.store, &app.stats).await;
    scope.answer(outcome)
}

async fn report(State(app): State<Arc<App>>, Query(pairs): Pairs) -> Response {
    let report = match Report::read(pairs) {
        Ok(report) => report,
        Err(sentence) => return refuse(&app, sentence),
    };
    let scope = Scope::begin(&app, "report", report.timeout);
    let outcome = report.run(scope.ctx(), &app.store).await;
    scope.answer(outcome)
}

async fn stats(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.stats.picture(&app.phases))
}

fn refuse(app: &App, sentence: String) -> Response {
    app.stats.request_refused();
    json(StatusCode::BAD_REQUEST, &Explanation::of(sentence))
}

async fn no_such_page(uri: Uri) -> Response {
    let sentence = format!("no such page {}: there are /, /search, /report and /stats", uri.path());
    json(StatusCode::NOT_FOUND, &Explanation::of(sentence))
}

async fn only_get(method: Method) -> Response {
    json(
        StatusCode::METHOD_NOT_ALLOWED,
        &Explanation::of(format!("{method} is not served: use GET")),
    )
}
