//! The routes. A layer gives each request its context; a handler reads its parameters, begins a
//! [`Scope`] below that, and hands the scope's context down. Everything about time, hanging up and
//! shutting down is in there.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{Html, Response};
use axum::routing::get;
use purview::Context;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders, OnInvalid};
use purview_http::serve::Phases;
use purview_http::{ContextLayer, Ctx};

use crate::failure::Explanation;
use crate::report::Report;
use crate::scope::{Scope, json};
use crate::search::Search;
use crate::stats::Stats;
use crate::store::Store;
use crate::trace::{Trace, Upstream, propagation};

/// What handlers share.
#[derive(Debug)]
pub(crate) struct App {
    /// The way down: `drain` waits for requests.
    pub(crate) phases: Phases,
    /// Ends when that is over: what each request lives under.
    pub(crate) requests: Context,
    /// The notes.
    pub(crate) store: Store,
    /// The instance behind this one.
    pub(crate) upstream: Option<Upstream>,
    /// The books.
    pub(crate) stats: Arc<Stats>,
}

type Pairs = Query<Vec<(String, String)>>;

/// No request takes longer, whatever it asks for.
const LIMIT: Duration = Duration::from_secs(90);

/// What a handler whose time is up gets at the most for the part of an answer that it has, or to say why there is none.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What that takes, and the way back: so much of a client's time is not for the work.
const RESERVE: Duration = Duration::from_millis(20);

/// Everything that is served.
pub(crate) fn routes(app: Arc<App>) -> Router {
    let headers = [DeadlineHeader::relative(), DeadlineHeader::Grpc, DeadlineHeader::Envoy];
    let contexts = ContextLayer::new(&app.requests)
        .limit(LIMIT)
        .grace(LAST_WORDS)
        .reserve(RESERVE)
        .propagate(propagation())
        .believe(DeadlineHeaders::new(headers).on_invalid(OnInvalid::Refuse))
        .name(|parts| parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/search", get(search))
        .route("/report", get(report))
        .route("/trace", get(trace))
        .route("/stats", get(stats))
        .route_layer(contexts) // behind the routing, so that there is a route to be named after
        .fallback(no_such_page)
        .method_not_allowed_fallback(only_get)
        .with_state(app)
}

async fn search(State(app): State<Arc<App>>, Ctx(ctx): Ctx, Query(pairs): Pairs) -> Response {
    let search = match Search::read(pairs) {
        Ok(search) => search,
        Err(sentence) => return refuse(&app, sentence),
    };
    let scope = Scope::begin(&app, &ctx, "search", search.timeout);
    let outcome = search.run(scope.ctx(), &app.store, &app.stats).await;
    scope.answer(outcome)
}

async fn report(State(app): State<Arc<App>>, Ctx(ctx): Ctx, Query(pairs): Pairs) -> Response {
    let report = match Report::read(pairs) {
        Ok(report) => report,
        Err(sentence) => return refuse(&app, sentence),
    };
    let scope = Scope::begin(&app, &ctx, "report", report.timeout);
    let outcome = report.run(scope.ctx(), &app.store).await;
    scope.answer(outcome)
}

async fn trace(State(app): State<Arc<App>>, Ctx(ctx): Ctx, Query(pairs): Pairs) -> Response {
    let trace = match Trace::read(pairs) {
        Ok(trace) => trace,
        Err(sentence) => return refuse(&app, sentence),
    };
    let scope = Scope::begin(&app, &ctx, "trace", trace.timeout);
    let outcome = trace.run(scope.ctx(), app.upstream.as_ref()).await;
    scope.answer(outcome)
}

async fn stats(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &app.stats.picture([app.phases.stop_accepting.context(), &app.requests]))
}

fn refuse(app: &App, sentence: String) -> Response {
    app.stats.request_refused();
    json(StatusCode::BAD_REQUEST, &Explanation::of(sentence))
}

async fn no_such_page(uri: Uri) -> Response {
    let sentence =
        format!("no such page {}: there are /, /search, /report, /trace and /stats", uri.path());
    json(StatusCode::NOT_FOUND, &Explanation::of(sentence))
}

async fn only_get(method: Method) -> Response {
    json(
        StatusCode::METHOD_NOT_ALLOWED,
        &Explanation::of(format!("{method} is not served: use GET")),
    )
}
