//! A server that goes down in phases.
//!
//! ```text
//! stop accepting   the listener is closed; idle connections are; the others get no further request
//! drain            requests under way go on, upgraded connections too
//! cancel           requests' contexts end, with ServerShutdown as the cause
//! close            what is left of the connections is dropped
//! ```
//! Each connection is a task of a group, and holds the drain for as long as its socket is open, whoever has it: hyper, or a WebSocket's
//! task after an upgrade. When the last is closed, the next phase begins at once.

mod line;
mod socket;
mod timer;
mod watch;

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use purview::shutdown::{Phase, Shutdown};
use purview::{Context, OnFailure};
use purview_tokio::TaskGroup;
use tokio::net::TcpListener;
use tower_service::Service;

pub use watch::HalfClosed;

use crate::BoxError;
use crate::detach::DRAIN;
use crate::ended::RequestEnded;
use line::Line;
use socket::{Patience, Socket};
use timer::{ContextTimer, LazyTimer};
use watch::Watched;

/// The phases in which a server goes down. See the [module](self).
///
/// ```
/// use purview::Context;
/// use purview::shutdown::Shutdown;
/// use purview_http::serve::Phases;
/// use std::time::Duration;
///
/// let (signal, _stop) = Context::background().with_cancel(); // or purview_signal::notify
/// let mut shutdown = Shutdown::new(&signal);
/// let phases = Phases::new(&mut shutdown, Duration::from_secs(20));
/// assert_eq!(phases.drain.context().name(), Some("drain"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Phases {
    /// Nothing new is taken. Who sends a stream without an end may end it when this begins.
    pub stop_accepting: Phase,
    /// What is under way goes on.
    pub drain: Phase,
    /// It is told to stop.
    pub cancel: Phase,
    /// It is dropped; and pools are closed.
    pub close: Phase,
}

impl Phases {
    /// Requests get the time of `drain` to finish, and 5 seconds after they were told to stop. Those that close something get 5 more.
    pub fn new(shutdown: &mut Shutdown, drain: Duration) -> Phases {
        let some = Duration::from_secs(5);
        Phases::of(
            [("stop accepting", some), ("drain", drain), ("cancel", some), ("close", some)]
                .map(|(name, budget)| shutdown.phase(name, budget)),
        )
    }

    /// Of four that there are.
    #[must_use]
    pub fn of([stop_accepting, drain, cancel, close]: [Phase; 4]) -> Phases {
        Phases { stop_accepting, drain, cancel, close }
    }
}

/// Serves HTTP/1 and HTTP/2 on sockets, in [`Phases`].
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use purview::Context;
/// use purview::shutdown::Shutdown;
/// use purview_http::serve::{Phases, Server};
/// use purview_http::{ContextLayer, Ctx};
/// use std::time::Duration;
/// use tokio::net::TcpListener;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let (signal, _stop) = Context::background().with_cancel(); // or purview_signal::notify
/// let mut shutdown = Shutdown::new(&signal);
/// let server = Server::new(Phases::new(&mut shutdown, Duration::from_secs(20)));
/// let app = Router::new()
///     .route("/", get(async |Ctx(ctx): Ctx| format!("{:?} left", ctx.remaining())))
///     .layer(ContextLayer::new(server.context()).limit(Duration::from_secs(30)));
/// let listener = TcpListener::bind("127.0.0.1:8080").await?;
/// server.spawn(listener, app);
/// println!("{}", shutdown.run().await);
/// # Ok(())
/// # }
/// ```
pub struct Server {
    phases: Phases,
    requests: Context,
    head_timeout: Duration,
    write_timeout: Duration,
    half_closed: HalfClosed,
}

impl Server {
    /// One that goes down in `phases`.
    #[must_use]
    pub fn new(phases: Phases) -> Server {
        let cancel = phases.cancel.context();
        // Not below it: it is to end for a reason of its own.
        let base = cancel.without_cancel();
        let requests = base.derive().name("requests").value(&DRAIN, phases.drain.clone());
        let (requests, guard) = requests.build();
        let requests_end = guard.disarm();
        cancel.on_done(move |_| requests_end.cancel_with(RequestEnded::ServerShutdown)).detach();
        Server {
            phases,
            requests,
            head_timeout: HEAD_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            half_closed: HalfClosed::default(),
        }
    }

    /// Closes a connection that says nothing for so long, or of HTTP/1 on which no whole request's head has come: 30 seconds, if
    /// nothing else is said here. Bodies have the time of their requests. `Duration::MAX` is no limit.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Server {
        self.head_timeout = timeout;
        self
    }

    /// Closes a connection whose client reads nothing of what it is sent for so long, upgraded ones, too: 60 seconds, if nothing else
    /// is said here. A client that reads slowly is served for as long as its request's time lasts. `Duration::MAX` is no limit.
    ///
    /// A client of HTTP/2 that reads its connection, and gives one of its streams no room, is not among them: that stream's body lasts as
    /// long as the connection does. Its context ends in time.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Server {
        self.write_timeout = timeout;
        self
    }

    /// What a client of HTTP/1 is taken for that has closed its side of the connection: gone or, as it is without this, to be
    /// served if it still reads.
    ///
    /// To find that out, it is sent something: the first letter of the answer that it waits for, or, of a stream, a zero before the
    /// next chunk's size. If it is gone, the request ends a round trip later, with [`RequestEnded::ClientGone`] as the cause. Of
    /// an answer whose length was said, the next piece tells; where none comes, it can take a minute and more. If that is too long,
    /// and no client of the service closes its side early, `Gone` is for the better.
    ///
    /// ```
    /// # use purview::{Context, shutdown::Shutdown};
    /// # use std::time::Duration;
    /// use purview_http::serve::{HalfClosed, Phases, Server};
    /// # let mut shutdown = Shutdown::new(&Context::background());
    /// # let phases = Phases::new(&mut shutdown, Duration::from_secs(20));
    /// let server = Server::new(phases).half_closed(HalfClosed::Gone);
    /// ```
    ///
    /// # Platform-specific behavior
    /// On systems other than Linux it is as hyper has it: who closes its side is gone, and is not noticed while there is
    /// something of it to be read.
    #[must_use]
    pub fn half_closed(mut self, half_closed: HalfClosed) -> Server {
        self.half_closed = half_closed;
        self
    }

    /// What requests' contexts are to be below: give it to the [`ContextLayer`](crate::ContextLayer). It ends when the drain is
    /// over, with [`RequestEnded::ServerShutdown`] as the cause.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.requests
    }

    /// Serves, as a task of a group that the phases wait for.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn<S, B>(self, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.spawn_each(listener, move |_peer| service.clone());
    }

    /// Serves each connection by a service of its own, which `make` gives for the peer's address: so that requests can be told who
    /// asks, for example. If `make` panics, that connection is closed and the server goes on; the shutdown's report has the panic.
    ///
    /// ```no_run
    /// # use axum::{Router, extract::ConnectInfo, routing::get};
    /// # use purview_http::serve::Server;
    /// # use std::net::SocketAddr;
    /// # fn example(server: Server, listener: tokio::net::TcpListener) {
    /// let app: Router = Router::new()
    ///     .route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| format!("hello, {peer}")));
    /// server.spawn_each(listener, move |peer| app.clone().layer(axum::Extension(ConnectInfo(peer))));
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn_each<S, B>(
        self,
        listener: TcpListener,
        make: impl FnMut(SocketAddr) -> S + Send + 'static,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Phases { stop_accepting, drain, close, .. } = &self.phases;
        let group: TaskGroup<purview::Error> = TaskGroup::builder(close.context())
            .name("connections")
            .on_failure(OnFailure::Isolate)
            .grace(Duration::ZERO)
            .build();
        let group = Arc::new(group);
        drain.own(Arc::clone(&group));
        // Until the listener is closed, nothing is drained: what it has accepted is served.
        let hold = stop_accepting.hold("listener");
        let connections = Arc::clone(&group);
        group.spawn_named("listener", async move |_close| {
            self.accept(&listener, make, &connections).await;
            drop((listener, connections, hold)); // from here on, connections are refused
            Ok(())
        });
    }

    async fn accept<S, B>(
        &self,
        listener: &TcpListener,
        mut make: impl FnMut(SocketAddr) -> S,
        connections: &TaskGroup<purview::Error>,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let told = self.phases.stop_accepting.context();
        let timer = ContextTimer::of(told);
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().header_read_timeout(timer::limit(self.head_timeout));
        builder.http1().half_close(watch::IS_TOLD);
        builder.http2().timer(timer.clone());
        builder.http2().enable_connect_protocol(); // WebSockets over HTTP/2
        while let Ok(accepted) = told.run(listener.accept()).await {
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(err) if is_the_peers(&err) => continue,
                Err(_nothing_left) => {
                    // Out of descriptors, say: some connection will be closed meanwhile.
                    let _ = told.sleep(WAIT).await;
                    continue;
                }
            };
            let service = match catch_unwind(AssertUnwindSafe(|| make(peer))) {
                Ok(service) => service,
                Err(panic) => {
                    // The connection is lost, and no other. The panic is its task's, so the report names it.
                    let name = format!("connection {peer}");
                    connections.spawn_named(name, async move |_close| resume_unwind(panic));
                    continue;
                }
            };
            let hold = self.phases.drain.hold(format!("connection {peer}"));
            let line = Line::new(socket);
            let patience = Patience::new(timer.clone(), self.write_timeout);
            let socket = Socket::new(Arc::clone(&line), patience, hold);
            let (limit, half_closed) = (self.head_timeout, self.half_closed);
            let (told, mut builder) = (told.clone(), builder.clone());
            builder.http1().timer(LazyTimer::new(timer.clone()));
            connections.spawn(async move |_close| {
                let gone = watch::gone(&line, half_closed);
                connection(&line, socket, gone, &builder, service, &told, limit).await;
                linger(line, &told).await;
                Ok(())
            });
        }
    }
}

/// Who has not said by then what he wants is not waited for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Who reads nothing is gone, or might as well be. (nginx's `send_timeout` is the same.)
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Somewhat more than a client takes to notice that it is answered.
const LINGER: Duration = Duration::from_millis(500);

/// After an error that is nobody's in particular.
const WAIT: Duration = Duration::from_millis(50);

/// The connection was gone before it was accepted.
fn is_the_peers(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Serves one connection, and lets it end well when it is told to. When its client is `gone`, all of it is dropped.
async fn connection<S, B>(
    line: &Arc<Line>,
    socket: Socket,
    gone: impl Future<Output = ()>,
    builder: &Builder<TokioExecutor>,
    service: S,
    told: &Context,
    limit: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let service = Watched::new(TowerToHyperService::new(service), Arc::clone(line));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    let (mut serving, mut gone) = (pin!(serving), pin!(gone));
    // Its errors are the peer's: what it sent was no HTTP, or it went away.
    let (begun, _guard) = told.with_timeout(limit);
    if begun.run(first(serving.as_mut(), gone.as_mut())).await.is_ok() {
        return;
    }
    if !told.is_done() {
        if !line.is_decided() {
            return; // it has said nothing
        }
        if told.run(first(serving.as_mut(), gone.as_mut())).await.is_ok() {
            return;
        }
    }
    serving.as_mut().graceful_shutdown();
    first(serving.as_mut(), gone.as_mut()).await;
}

/// Lets a client that still sends read its answer: a connection that is closed on what it has sent is reset, and the answer can be
/// lost with it. A client of HTTP/2 sends as long as it reads. (Go waits for as long, nginx calls it a lingering close.)
async fn linger(line: Arc<Line>, told: &Context) {
    // After an upgrade, it is somebody else's.
    if Arc::strong_count(&line) == 1 && (line.is_http2() || line.has_unread()) {
        let _ = line.end_writing(); // if hyper has not: it is to see the end
        let (moment, _guard) = told.without_cancel().with_timeout(LINGER);
        let _ = moment.run(Box::pin(line.discard())).await; // boxed: few connections need its room
    }
}

/// Until either is ready. The second is always polled after the first, at whose traces it looks.
async fn first(mut serving: Pin<&mut impl Future>, mut gone: Pin<&mut impl Future>) {
    poll_fn(|task| {
        let is_over = serving.as_mut().poll(task).is_ready() || gone.as_mut().poll(task).is_ready();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("phases", &self.phases).finish_non_exhaustive()
    }
}
