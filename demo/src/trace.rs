//! `/trace`: how much time is left here, and at the service behind this one, and at the one behind that.
//!
//! With `--upstream URL` the service asks another instance of itself the same question, under its request's
//! context: the time that is left goes along in a header, less a little for the way, and so does the
//! number of the hop. If the client hangs up, or the time is up, the whole chain stops. Nothing else ends a
//! circle, either: each hop leaves less for the next.

use std::time::Duration;

use axum::http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use purview::{Context, Key};
use purview_http::client::{ContextLayer, ContextService, RetryLayer, RetryService, WithContext};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::propagation::{Propagation, TRACE_CONTEXT, TraceContext};
use serde::Serialize;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::failure::{Failure, millis};
use crate::params::Params;
use crate::scope::Completeness;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// What the way there and back takes.
const RESERVE: Duration = Duration::from_millis(5);
/// An answer is short, and a circle of services is cut by the time long before.
const LONGEST: usize = 1 << 20;

/// How many services a request has come through.
static HOP: Key<u32> = Key::new("hop");

/// What travels from service to service.
pub(crate) fn propagation() -> Propagation {
    Propagation::new().trace().baggage().carry("hop", &HOP)
}

type Body = Empty<axum::body::Bytes>;

/// The service behind this one.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    uri: Uri,
    client: RetryService<ContextService<Client<HttpConnector, Body>>>,
}

impl Upstream {
    /// The other instance's address, such as `http://127.0.0.1:7879`. Connects to nothing yet.
    pub(crate) fn new(uri: Uri) -> Self {
        let context = ContextLayer::new()
            .deadlines(DeadlineHeaders::new([DeadlineHeader::relative()]))
            .reserve(RESERVE)
            .propagate(propagation());
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { uri, client: RetryLayer::new().layer(context.layer(client)) }
    }

    async fn ask(&self, ctx: &Context) -> Result<Value, String> {
        let uri = format!("{}trace", self.uri);
        let request = Request::get(uri).body(Body::new()).map_err(|err| err.to_string())?;
        let mut client = self.client.clone();
        let answer = std::future::poll_fn(|task| client.poll_ready(task)).await;
        answer.map_err(|err| err.to_string())?;
        let answer = client.call(request.with_context(ctx)).await.map_err(|err| says(&err))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|err| says(&*err))?.to_bytes();
        serde_json::from_slice(&body).map_err(|err| format!("{status}, and no JSON: {err}"))
    }
}

/// An error with its reasons.
fn says(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        let more = err.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = err.source();
    }
    text
}

/// A trace that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    /// What it may take, here and behind.
    pub(crate) timeout: Duration,
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    hop: u32,
    remaining_ms: Option<f64>,
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Value>,
}

impl Trace {
    /// Reads the query string. The error is a sentence.
    pub(crate) fn read(pairs: Vec<(String, String)>) -> Result<Self, String> {
        let params = Params::new(pairs, &["timeout_ms"])?;
        Ok(Self { timeout: params.timeout(DEFAULT_TIMEOUT)? })
    }

    /// Says what is left, and asks the next.
    pub(crate) async fn run(
        self,
        ctx: &Context,
        upstream: Option<&Upstream>,
    ) -> Result<(Answer, Completeness), Failure> {
        let hop = ctx.value(&HOP).copied().unwrap_or(0).saturating_add(1);
        let mut answer = Answer {
            hop,
            remaining_ms: ctx.remaining().map(millis),
            trace: ctx.value(&TRACE_CONTEXT).map(TraceContext::trace_id).map(str::to_owned),
            upstream: None,
        };
        let mut completeness = Completeness::Full;
        if let Some(upstream) = upstream {
            let next = ctx.with_value(&HOP, hop);
            let asked = upstream.ask(&next).await;
            if asked.is_err() {
                completeness = Completeness::Partial;
            }
            answer.upstream = Some(asked.unwrap_or_else(|why| serde_json::json!({ "error": why })));
        }
        Ok((answer, completeness))
    }
}
