//! Servers, a client, and a bound on how long all of it may take.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Received;
use axum::response::Response as Sent;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use purview::Context;
use purview_http::RequestExt;
use purview_http::client::WithContext;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Runs a test that hangs for no longer than a minute.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime on this thread");
    let (watchdog, _guard) = Context::background().with_timeout(SECOND * 60);
    runtime.block_on(watchdog.run(test)).expect("it hangs");
}

pub(crate) type Hyper = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn hyper() -> Hyper {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn request(method: Method, url: &str, ctx: &Context) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(url)
        .with_context(ctx)
        .body(Full::from("payload"))
        .expect("a request")
}

pub(crate) fn get(url: &str, ctx: &Context) -> Request<Full<Bytes>> {
    request(Method::GET, url, ctx)
}

/// All of an answer.
pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.expect("all of it");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

/// Serves until the runtime goes. Its URL.
pub(crate) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/")
}

/// A port at which a connection waits until the test accepts it. Its URL.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    (listener, url)
}

/// A connection whose request has come.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _peer) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"payload") {
        assert_ne!(stream.read_buf(&mut head).await.expect("a request"), 0, "half a request");
    }
    stream
}

/// Until the other side has hung up.
pub(crate) async fn gone(mut stream: TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// A server that answers as planned, and tells of each request that it gets.
#[derive(Clone)]
pub(crate) struct Planned {
    hits: Arc<Mutex<Vec<Hit>>>,
    plan: Arc<Mutex<VecDeque<Plan>>>,
    told: mpsc::UnboundedSender<usize>,
}

#[derive(Clone, Copy)]
pub(crate) enum Plan {
    Status(u16),
    RetryAfter(&'static str),
    /// When its context ends.
    Never,
}

/// A request as the server has it.
#[derive(Clone)]
pub(crate) struct Hit {
    /// What it says of its time, in seconds.
    pub(crate) seconds: Option<f64>,
    pub(crate) body: Bytes,
    /// The server's own, if it has a layer for it.
    pub(crate) ctx: Option<Context>,
}

impl Planned {
    /// Where the plan is over, all is well.
    pub(crate) fn new(
        plan: impl IntoIterator<Item = Plan>,
    ) -> (Planned, mpsc::UnboundedReceiver<usize>) {
        let (told, hears) = mpsc::unbounded_channel();
        let plan = Arc::new(Mutex::new(plan.into_iter().collect()));
        (Planned { hits: Arc::default(), plan, told }, hears)
    }

    pub(crate) fn router(&self) -> Router {
        let planned = self.clone();
        Router::new().fallback(move |request: Received| planned.clone().answer(request))
    }

    async fn answer(self, request: Received) -> Sent {
        let seconds = request.headers().get("x-request-timeout");
        let seconds = seconds.map(|value| {
            let text = value.to_str().expect("text");
            text.parse().expect("a number")
        });
        let ctx = request.context().cloned();
        let body = request.into_body().collect().await.expect("all of it").to_bytes();
        let number = {
            let mut hits = self.hits.lock().expect("no panic");
            hits.push(Hit { seconds, body, ctx });
            hits.len()
        };
        let _ = self.told.send(number);
        let plan = self.plan.lock().expect("no panic").pop_front();
        let answer = Sent::builder();
        let answer = match plan {
            Some(Plan::Status(status)) => answer.status(status),
            Some(Plan::RetryAfter(value)) => answer.status(503).header("retry-after", value),
            Some(Plan::Never) => std::future::pending().await,
            None => answer,
        };
        answer.body(number.to_string().into()).expect("an answer")
    }

    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.hits.lock().expect("no panic").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.hits().len()
    }
}
