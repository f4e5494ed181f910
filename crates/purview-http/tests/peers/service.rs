//! A service of ours, for others to ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use purview::shutdown::Shutdown;
use purview::time::ManualClock;
use purview::{CancelGuard, Context};
use purview_http::serve::{Phases, Server};
use purview_http::{ContextLayer, Ctx, RequestEnded};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

/// After this, it never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Service {
    pub(crate) signal: CancelGuard,
    pub(crate) shutdown: Shutdown,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    said: mpsc::UnboundedReceiver<String>,
    go: mpsc::UnboundedSender<()>,
}

/// A body that sends a part, and then nothing.
struct Stream(Option<&'static str>);

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
        let server = Server::new(Phases::new(&mut shutdown, SECOND * 20));
        let (say, said) = mpsc::unbounded_channel();
        let (go, going) = mpsc::unbounded_channel();
        let going = Arc::new(Mutex::new(going));
        // Others hear of a request's end, whatever becomes of its handler.
        let begun = move |ctx: &Context| {
            let (ctx, say) = (ctx.clone(), say.clone());
            let left = ctx.remaining();
            let _ = say.send(left.map_or("begun".into(), |left| format!("begun {left:?}")));
            tokio::spawn(async move {
                let err = ctx.done().await;
                let _ = say.send(RequestEnded::of(&err).map_or("?".into(), |it| format!("{it:?}")));
            });
        };
        let streaming = begun.clone();
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
                    Response::new(Body::new(Stream(Some("half\n"))))
                }),
            )
            .layer(layer(ContextLayer::new(server.context())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        server.spawn(listener, app);
        Service { signal, shutdown, url: format!("http://{address}"), address, said, go }
    }

    /// What a handler says next: that it has begun, with how much time, or how its request ended.
    pub(crate) async fn heard(&mut self) -> String {
        self.said.recv().await.expect("handlers say something")
    }

    /// Lets a handler finish.
    pub(crate) fn go_on(&self) {
        self.go.send(()).expect("it is there");
    }
}
