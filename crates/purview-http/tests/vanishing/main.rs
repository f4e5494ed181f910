//! Clients that vanish, ten thousand of them, and what they leave behind: nothing. In a process of its own, for it counts
//! descriptors.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use http_body::Frame;
use purview::Context;
use purview::shutdown::Shutdown;
use purview_http::serve::{Phases, Server};
use purview_http::{ContextLayer, Ctx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A body that sends a part, and then nothing.
struct Endless(bool);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match std::mem::take(&mut self.0) {
            true => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half"))))),
            false => Poll::Pending,
        }
    }
}

/// After this, it never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors of this process; None, where nobody can say.
fn descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_vanish_leave_nothing_behind() {
    const CLIENTS: usize = 10_000;
    let (signal, stop) = Context::background().with_cancel();
    let mut shutdown = Shutdown::new(&signal);
    let phases = Phases::new(&mut shutdown, Duration::from_secs(20));
    let server = Server::new(phases.clone());
    let requests = server.context().clone();
    let app = Router::new()
        .route("/work", get(async |Ctx(ctx): Ctx| ctx.done().await.to_string()))
        .route("/stream", get(async || Response::new(Body::new(Endless(true)))))
        .layer(ContextLayer::new(&requests));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    let before = descriptors();
    for n in 0..CLIENTS / 10 {
        let clients = (0..10).map(|i| tokio::spawn(vanish(address, n * 10 + i)));
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("no panic");
        }
    }
    // A connection that was closed before it was accepted may be yet to be: so all of it is waited for.
    let begin = Instant::now();
    let left = || (phases.drain.held().len(), requests.statistics().children(), descriptors());
    while left() > (1, 0, before) {
        assert!(
            begin.elapsed() < PATIENCE,
            "tasks, contexts, descriptors: {:?}, {before:?}",
            left()
        );
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let report = shutdown.run().await;
    assert!(report.is_clean(), "{report}");
}

/// A client that goes away somewhere: connected, in the middle of its request, after it, or while it reads the answer; in good order
/// or with a reset.
async fn vanish(address: SocketAddr, n: usize) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    if n % 2 == 0 {
        socket.set_zero_linger().expect("it can be reset");
    }
    let mut socket = socket.connect(address).await.expect("it listens");
    let request = b"GET /work HTTP/1.1\r\nhost: test\r\n\r\n";
    let stream = b"GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";
    // The server may have closed it already, which is as good.
    let _ = match n % 7 {
        0 => Ok(()),
        1 => socket.write_all(&request[..n % request.len()]).await,
        2 | 3 => socket.write_all(request).await,
        4 => {
            socket
                .write_all(b"POST /work HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n")
                .await
        }
        _ => match socket.write_all(stream).await {
            Ok(()) => socket.read_exact(&mut vec![0; n % 80 + 1]).await.map(drop),
            Err(err) => Err(err),
        },
    };
    drop(socket);
}
