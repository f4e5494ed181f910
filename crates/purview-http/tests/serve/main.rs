//! A server on real sockets that goes down in phases. Time is a manual clock's; what happens is waited for, with a bound.

mod detached;
mod ends;
mod frames;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod hanging_up;
mod hostile;
mod late_answers;
mod no_limit;

use std::future::poll_fn;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use purview::shutdown::{Report, Shutdown};
use purview::time::ManualClock;
use purview::{CancelGuard, Context};
use purview_http::serve::{Phases, Server};
use purview_http::{ContextLayer, Ctx, RequestEnded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// After this, it never will.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A service, and its way down.
struct Running {
    clock: ManualClock,
    signal: CancelGuard,
    phases: Phases,
    address: SocketAddr,
    report: Pin<Box<dyn Future<Output = Report>>>,
    /// What handlers say.
    said: mpsc::UnboundedReceiver<String>,
    /// Each message lets one handler go on.
    go: mpsc::UnboundedSender<()>,
}

/// Which server it is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Axum,
    Ours,
}

const BOTH: [By; 2] = [By::Axum, By::Ours];

impl By {
    /// Serves by that server. The context of `server` is the requests' in any case.
    async fn serve(self, server: Server, app: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        match self {
            By::Axum => _ = tokio::spawn(async move { axum::serve(listener, app).await }),
            By::Ours => server.spawn(listener, app),
        }
        address
    }
}

type Gate = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>>;

/// A body that sends a part, and then nothing.
struct Stream(Option<&'static str>);

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _task: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(part) => {
                Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes())))))
            }
            None => Poll::Pending,
        }
    }
}

async fn start() -> Running {
    let clock = ManualClock::new();
    let (begin, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let phases = Phases::new(&mut shutdown, SECOND * 20);
    let server = Server::new(phases.clone());
    let (say, said) = mpsc::unbounded_channel();
    let (go, going) = mpsc::unbounded_channel();
    let gate: Gate = Arc::new(tokio::sync::Mutex::new(going));
    let told = phases.stop_accepting.context().clone();
    let (words, listening) = (say.clone(), say.clone());
    let work = async move |Ctx(ctx): Ctx| {
        let _ = say.send("begun".to_string());
        let ended = tokio::select! {
            biased;
            err = ctx.done() => format!("{:?}", RequestEnded::of(&err)),
            () = async { gate.lock().await.recv().await; } => "finished".to_string(),
        };
        let _ = say.send(ended.clone());
        ended
    };
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/work", get(work))
        .route("/stream", get(async || Response::new(Body::new(Stream(Some("half"))))))
        .route(
            "/events",
            get(async move || {
                // A stream that ends by itself when the service stops accepting.
                let _ = listening.send("listening".to_string());
                told.done().await;
                "goodbye"
            }),
        )
        .route("/echo", get(move |request| upgrade(request, words)))
        .layer(ContextLayer::new(server.context()).grace(SECOND));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    Running { clock, signal, phases, address, report: Box::pin(shutdown.run()), said, go }
}

/// What a WebSocket begins with; then bytes go back as they come.
async fn upgrade(mut request: Request<Body>, say: mpsc::UnboundedSender<String>) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut socket = TokioIo::new(upgraded.await.expect("it is upgraded"));
        let _ = say.send("upgraded".to_string());
        let mut byte = [0];
        while socket.read_exact(&mut byte).await.is_ok() {
            socket.write_all(&byte).await.expect("it reads");
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
        .into_response()
}

/// A client that blocks, on its own thread.
fn client(address: SocketAddr) -> BufReader<TcpStream> {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    BufReader::new(socket)
}

fn send(client: &mut BufReader<TcpStream>, path: &str, headers: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
    client.get_mut().write_all(head.as_bytes()).expect("it reads");
}

/// The status and the headers.
fn head(client: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(client.read_line(&mut head).expect("it answers") > 0, "{head}");
    }
    head
}

/// The head of an answer, and its whole body, which is as long as the head says.
fn answer(client: &mut BufReader<TcpStream>) -> (String, String) {
    let head = head(client);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.expect("it says how long it is").parse().expect("a number");
    let mut body = vec![0; length];
    client.read_exact(&mut body).expect("all of it");
    (head, String::from_utf8(body).expect("text"))
}

/// What comes until the connection is closed, however that is.
fn rest(client: &mut BufReader<TcpStream>) -> String {
    let mut rest = Vec::new();
    if let Err(err) = client.read_to_end(&mut rest) {
        assert!(!matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it hangs");
    }
    String::from_utf8_lossy(&rest).into_owned()
}

/// It has stopped listening.
async fn refused(address: SocketAddr) {
    // A process that another test starts has a copy of the listener, between fork and exec.
    let begin = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still listens");
        tokio::task::yield_now().await;
    }
}

/// The next word, where there is one in time.
async fn heard(said: &mut mpsc::UnboundedReceiver<String>) -> Option<String> {
    tokio::time::timeout(PATIENCE, said.recv()).await.expect("it is said")
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

impl Running {
    async fn heard(&mut self) -> String {
        heard(&mut self.said).await.expect("handlers say something")
    }

    /// Lets the way down go on until `holds` does.
    async fn until(&mut self, holds: impl Fn(&Phases) -> bool) {
        while !holds(&self.phases) {
            let mut report = pin!(&mut self.report);
            poll_fn(|task| {
                assert!(report.as_mut().poll(task).is_pending(), "it is over too early");
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
    }

    async fn over(self) -> Report {
        self.report.await
    }
}

fn is_begun(ctx: &Context) -> bool {
    ctx.is_done()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_at_once_and_new_ones_refused() {
    let running = start().await;
    let address = running.address;
    let mut idle = blocking(move || {
        let mut idle = client(address);
        send(&mut idle, "/", "");
        let head = head(&mut idle);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut hello = [0; 5];
        idle.read_exact(&mut hello).expect("hello");
        idle
    })
    .await;
    let never_used = client(address);
    running.signal.cancel_with("SIGTERM");
    let report = running.over().await; // and no time passes
    assert!(report.is_clean() && report.took() == Duration::ZERO, "{report}");
    assert_eq!(blocking(move || rest(&mut idle)).await, "");
    refused(address).await;
    drop(never_used);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_finishes_in_the_drain_and_its_connection_is_closed() {
    let mut running = start().await;
    let mut client = client(running.address);
    send(&mut client, "/work", "");
    assert_eq!(running.heard().await, "begun");
    running.signal.cancel_with("SIGTERM");
    running.until(|phases| is_begun(phases.drain.context())).await;
    running.go.send(()).expect("it waits");
    assert_eq!(running.heard().await, "finished");
    let report = running.over().await;
    assert!(report.is_clean(), "{report}");
    let (head, body) = blocking(move || (head(&mut client), rest(&mut client))).await;
    assert!(head.contains("200 OK"), "{head}");
    assert_eq!(body, "finished", "and then it is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_longer_is_canceled_and_told_that_it_is_the_shutdown() {
    let mut running = start().await;
    let mut client = client(running.address);
    send(&mut client, "/work", "");
    assert_eq!(running.heard().await, "begun");
    running.signal.cancel_with("SIGTERM");
    running.until(|phases| is_begun(phases.drain.context())).await;
    running.clock.advance(SECOND * 20);
    assert_eq!(running.heard().await, "Some(ServerShutdown)");
    let report = running.over().await;
    assert!(report.abandoned().is_empty(), "{report}");
    let (head, body) = blocking(move || (head(&mut client), rest(&mut client))).await;
    assert!(head.contains("200 OK"), "its own last words: {head}");
    assert_eq!(body, "Some(ServerShutdown)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_end_breaks_off_and_one_that_listens_ends_first() {
    let mut running = start().await;
    let mut endless = client(running.address);
    send(&mut endless, "/stream", "");
    let mut endless = blocking(move || {
        let head = head(&mut endless);
        assert!(head.contains("chunked"), "{head}");
        let mut line = String::new();
        endless.read_line(&mut line).expect("a chunk's length");
        endless.read_line(&mut line).expect("the chunk");
        assert_eq!(line, "4\r\nhalf\r\n");
        endless
    })
    .await;
    let mut events = client(running.address);
    send(&mut events, "/events", "");
    assert_eq!(running.heard().await, "listening");
    running.signal.cancel_with("SIGTERM");
    running.until(|phases| is_begun(phases.drain.context())).await;
    let (head, body) = blocking(move || (head(&mut events), rest(&mut events))).await;
    assert!(head.contains("200 OK") && body == "goodbye", "{head}{body}");
    running.clock.advance(SECOND * 20);
    running.until(|phases| is_begun(phases.cancel.context())).await;
    running.clock.advance(SECOND); // the layer's grace
    let report = running.over().await;
    assert!(report.abandoned().is_empty(), "{report}");
    let rest = blocking(move || rest(&mut endless)).await;
    assert!(!rest.contains("0\r\n\r\n"), "nobody takes it for whole: {rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_waited_for() {
    let mut running = start().await;
    let mut socket = client(running.address);
    send(&mut socket, "/echo", "connection: upgrade\r\nupgrade: echo\r\n");
    assert_eq!(running.heard().await, "upgraded");
    let mut socket = blocking(move || {
        assert!(head(&mut socket).starts_with("HTTP/1.1 101"));
        socket
    })
    .await;
    running.signal.cancel_with("SIGTERM");
    running.until(|phases| is_begun(phases.drain.context())).await;
    // It goes on, and the drain with it.
    let socket = blocking(move || {
        socket.get_mut().write_all(b"x").expect("it reads");
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an echo");
        assert_eq!(&byte, b"x");
        socket
    })
    .await;
    assert!(!running.phases.cancel.context().is_done());
    drop(socket);
    let report = running.over().await;
    assert!(report.is_clean() && report.took() == Duration::ZERO, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_half_a_request_does_not_hold_the_end_up_for_longer_than_the_phases() {
    let running = start().await;
    let mut slow = client(running.address);
    slow.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: te").expect("it reads");
    while running.phases.drain.held().len() < 2 {
        tokio::task::yield_now().await;
    }
    running.signal.cancel_with("SIGTERM");
    // As long as the phases are. What the report says is from the signal until it is made, by this clock.
    for _ in 0..35 {
        running.clock.advance(SECOND);
    }
    let report = running.over().await;
    assert!(report.took() <= SECOND * 35, "{report}");
    let rest = blocking(move || rest(&mut slow)).await;
    assert!(!rest.contains("200"), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_says_what_he_wants_is_not_waited_for() {
    let running = start().await;
    for said in [&b"GET / HTTP/1.1\r\nhost: te"[..], b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut slow = client(running.address);
        slow.get_mut().write_all(said).expect("it reads");
        while running.phases.drain.held().len() < 2 {
            tokio::task::yield_now().await;
        }
        // It counts from when it has begun to read, which nobody here can see.
        while running.phases.drain.held().len() > 1 {
            running.clock.advance(SECOND);
            tokio::task::yield_now().await;
        }
        let rest = blocking(move || rest(&mut slow)).await;
        assert!(!rest.contains("200"), "{rest}");
    }
    running.signal.cancel();
    assert!(running.over().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_is_why_its_request_ends() {
    let mut running = start().await;
    let mut socket = client(running.address);
    send(&mut socket, "/work", "");
    assert_eq!(running.heard().await, "begun");
    drop(socket);
    // The handler is dropped, and says nothing; but nothing of it is left.
    while running.phases.drain.held().len() > 1 {
        tokio::task::yield_now().await;
    }
    running.signal.cancel();
    assert!(running.over().await.is_clean());
}
