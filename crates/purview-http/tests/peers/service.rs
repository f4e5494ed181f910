//! A service of ours, for others to ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{Request, Version};
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use purview::shutdown::{Phase, Report, Shutdown};
use purview::time::ManualClock;
use purview::{CancelGuard, Context};
use purview_http::client::{ContextLayer as Sending, WithContext};
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::serve::{Phases, Server};
use purview_http::{ContextLayer, Ctx, RequestEnded};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};

/// After this, it never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Service {
    signal: CancelGuard,
    shutdown: Option<Shutdown>,
    drain: Phase,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    said: mpsc::UnboundedReceiver<String>,
    go: mpsc::UnboundedSender<()>,
}

/// A body that sends a part, and then nothing.
pub(crate) struct Stream(Option<&'static str>);

pub(crate) fn half() -> Stream {
    Stream(Some("half\n"))
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(part) => {
                Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes())))))
            }
            None => Poll::Pending,
        }
    }
}

/// Asks somebody else, on behalf of a request.
async fn pass_on(ctx: &Context, version: Version, to: &str) -> Response {
    let client = Sending::new().deadlines(relative()).layer(hyper(version));
    let request = Request::get(format!("http://{to}")).with_context(ctx);
    match client.oneshot(request.body(Body::empty()).expect("a request")).await {
        Ok(response) => response.map(Body::new),
        // So has the request, for which it is asked, and that is answered.
        Err(_ended) => std::future::pending().await,
    }
}

/// A client of ours.
pub(crate) fn hyper<B>(version: Version) -> Client<HttpConnector, B>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http()
}

pub(crate) fn relative() -> DeadlineHeaders {
    DeadlineHeaders::new([DeadlineHeader::relative()])
}

impl Service {
    /// On a manual clock, so that no request's time passes by itself.
    pub(crate) async fn start(
        clock: &ManualClock,
        layer: impl FnOnce(ContextLayer) -> ContextLayer,
    ) -> Service {
        Service::below(&clock.root(), layer).await
    }

    pub(crate) async fn below(
        root: &Context,
        layer: impl FnOnce(ContextLayer) -> ContextLayer,
    ) -> Service {
        let (begin, signal) = root.with_cancel();
        let mut shutdown = Shutdown::new(&begin);
        let phases = Phases::new(&mut shutdown, SECOND * 20);
        let drain = phases.drain.clone();
        let server = Server::new(phases);
        let (say, said) = mpsc::unbounded_channel();
        let (go, going) = mpsc::unbounded_channel();
        let going = Arc::new(Mutex::new(going));
        // Others hear of a request's end, whatever becomes of its handler.
        let words = say.clone();
        let begun = move |ctx: &Context| {
            let (ctx, say) = (ctx.clone(), words.clone());
            let left = ctx.remaining();
            let _ = say.send(left.map_or("begun".into(), |left| format!("begun {left:?}")));
            tokio::spawn(async move {
                let err = ctx.done().await;
                let _ = say.send(RequestEnded::of(&err).map_or("?".into(), |it| format!("{it:?}")));
            });
        };
        let (streaming, uploading, passing) = (begun.clone(), begun.clone(), begun.clone());
        let app = Router::new()
            .route("/hello", get(async || "hello"))
            .route(
                "/work",
                get(async move |Ctx(ctx): Ctx| {
                    begun(&ctx);
                    going.lock().await.recv().await;
                    "done"
                }),
            )
            .route(
                "/stream",
                get(async move |Ctx(ctx): Ctx| {
                    streaming(&ctx);
                    Response::new(Body::new(half()))
                }),
            )
            .route(
                "/upload",
                post(async move |Ctx(ctx): Ctx, mut body: Body| {
                    uploading(&ctx);
                    let _first = body.frame().await;
                    let _ = say.send("a part".into());
                    // What was broken off is never whole.
                    match body.collect().await {
                        Ok(_) => say.send("whole".into()).map_or("nobody listens", |()| "done"),
                        Err(_broken) => std::future::pending().await,
                    }
                }),
            )
            .route(
                "/through/{address}/{path}",
                get(async move |Ctx(ctx): Ctx, version: Version, Path(to): Path<[String; 2]>| {
                    passing(&ctx);
                    pass_on(&ctx, version, &to.join("/")).await
                }),
            )
            .layer(layer(ContextLayer::new(server.context())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        server.spawn(listener, app);
        let url = format!("http://{address}");
        let shutdown = Some(shutdown);
        Service { signal, shutdown, drain, url, address, said, go }
    }

    /// What a handler says next: that it has begun, with how much time, or how its request ended.
    pub(crate) async fn heard(&mut self) -> String {
        self.said.recv().await.expect("handlers say something")
    }

    /// Whether a request comes, and not `before` it the end of a peer whose own time is up.
    pub(crate) async fn begins<T>(&mut self, before: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            begun = self.heard() => { assert_eq!(begun, "begun"); true }
            _ = before => false,
        }
    }

    /// Tells it to go down, and waits until it has let go of its listener.
    pub(crate) async fn drain(&mut self) -> JoinHandle<Report> {
        let shutdown = self.shutdown.take().expect("it goes down once");
        self.signal.cancel_with("SIGTERM");
        let report = tokio::spawn(shutdown.run());
        self.drain.context().done().await;
        report
    }

    pub(crate) fn connections(&self) -> usize {
        let held = self.drain.held();
        let names = held.iter().filter_map(|it| it.name());
        names.filter(|name| name.starts_with("connection ")).count()
    }

    /// Lets a handler finish.
    pub(crate) fn go_on(&self) {
        self.go.send(()).expect("it is there");
    }
}
