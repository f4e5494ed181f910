//! Clients that go away where hyper does not look, and clients that only have no more to say. Where the system tells of it.

use std::net::Shutdown as Close;

use axum::extract::State;
use axum::http::Version;
use axum::routing::any;
use purview_http::serve::HalfClosed;

use super::*;

/// A service whose handlers wait to be let go, and whose requests' contexts are listened to by others.
struct Service {
    address: SocketAddr,
    signal: CancelGuard,
    report: Pin<Box<dyn Future<Output = Report>>>,
    said: mpsc::UnboundedReceiver<String>,
    go: mpsc::UnboundedSender<()>,
}

#[derive(Clone)]
struct Words {
    say: mpsc::UnboundedSender<String>,
    gate: Gate,
}

impl Words {
    fn begin(&self, ctx: Context) {
        let _ = self.say.send("begun".to_string());
        let say = self.say.clone();
        // Not a part of the handler, which is dropped.
        tokio::spawn(async move {
            let err = ctx.done().await;
            let _ = say.send(format!("{:?}", RequestEnded::of(&err)));
        });
    }
}

/// A body of pieces, one for each that the gate lets go; the third is the last.
struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(task).map(|piece| piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }
}

async fn pieces(words: State<Words>, Ctx(ctx): Ctx) -> Response {
    words.begin(ctx.clone());
    let (sender, receiver) = mpsc::unbounded_channel();
    let gate = Arc::clone(&words.gate);
    tokio::spawn(async move {
        for piece in ["one", "two", "three"] {
            let mut gate = gate.lock().await;
            if ctx.run(gate.recv()).await.is_err() || sender.send(Bytes::from(piece)).is_err() {
                break;
            }
        }
    });
    Response::new(Body::new(Pieces(receiver)))
}

async fn serve(half_closed: HalfClosed) -> Service {
    let (begin, signal) = ManualClock::new().root().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let server = Server::new(Phases::new(&mut shutdown, SECOND)).half_closed(half_closed);
    let (say, said) = mpsc::unbounded_channel();
    let (go, going) = mpsc::unbounded_channel();
    let words = Words { say, gate: Arc::new(tokio::sync::Mutex::new(going)) };
    let app = Router::new()
        .route(
            "/work",
            any(async |words: State<Words>, Ctx(ctx): Ctx, _unread: Request<Body>| {
                words.begin(ctx);
                words.gate.lock().await.recv().await;
                "finished"
            }),
        )
        .route(
            "/read",
            any(async |words: State<Words>, Ctx(ctx): Ctx, request: Request<Body>| {
                words.begin(ctx);
                words.gate.lock().await.recv().await;
                axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("it is sent")
            }),
        )
        .route(
            "/large",
            any(async |words: State<Words>, Ctx(ctx): Ctx| {
                words.begin(ctx);
                words.gate.lock().await.recv().await;
                large()
            }),
        )
        .route("/pieces", any(pieces))
        .route(
            "/known",
            any(async |words: State<Words>, ctx: Ctx| {
                ([("content-length", "11")], pieces(words, ctx).await)
            }),
        )
        .route(
            "/passed-on",
            any(async |words: State<Words>, ctx: Ctx| {
                ([("transfer-encoding", "chunked")], pieces(words, ctx).await)
            }),
        )
        .route(
            "/passed-on-from-http2",
            any(async |words: State<Words>, ctx: Ctx| {
                let mut response = pieces(words, ctx).await;
                *response.version_mut() = Version::HTTP_2;
                response
            }),
        )
        .route("/hello", any(async || "hello"))
        .with_state(words)
        .layer(ContextLayer::new(server.context()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    Service { address, signal, report: Box::pin(shutdown.run()), said, go }
}

/// More than the buffers of a connection take.
fn large() -> String {
    "0123456789abcdef".repeat(1 << 19)
}

impl Service {
    async fn heard(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.said.recv())
            .await
            .expect("it is noticed")
            .expect("handlers say something")
    }

    async fn over(mut self) {
        self.signal.cancel_with("SIGTERM");
        let report = tokio::time::timeout(PATIENCE, self.report).await.expect("it ends");
        assert!(report.is_clean() && report.took() == Duration::ZERO, "{report}");
        assert_eq!(self.said.try_recv().ok(), None, "nothing else happened");
    }
}

/// A client that has sent this.
fn sent(address: SocketAddr, bytes: &str) -> BufReader<TcpStream> {
    let mut client = client(address);
    client.get_mut().write_all(bytes.as_bytes()).expect("it reads");
    client
}

const GET: &str = "GET /work HTTP/1.1\r\nhost: test\r\n\r\n";
const PART: &str = "POST /work HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\na part";
const WHOLE: &str = "POST /work HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nall";
const CHUNK: &str =
    "POST /work HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n";

/// What a client may have sent when it goes.
fn requests() -> [String; 6] {
    [GET, PART, WHOLE, CHUNK, &GET.repeat(2), &WHOLE.repeat(3)].map(str::to_string)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_is_gone_whatever_lies_unread() {
    for request in requests() {
        let mut service = serve(HalfClosed::Served).await;
        let client = sent(service.address, &request);
        assert_eq!(service.heard().await, "begun");
        drop(client);
        assert_eq!(service.heard().await, "Some(ClientGone)", "{request}");
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_is_gone_whatever_lies_unread() {
    for request in requests() {
        let mut service = serve(HalfClosed::Served).await;
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_zero_linger().expect("it can be reset");
        let mut socket = socket.connect(service.address).await.expect("it listens");
        socket.write_all(request.as_bytes()).await.expect("it reads");
        assert_eq!(service.heard().await, "begun");
        drop(socket);
        assert_eq!(service.heard().await, "Some(ClientGone)", "{request}");
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_no_more_and_reads_gets_its_answer() {
    for request in [GET, WHOLE, PART] {
        let mut service = serve(HalfClosed::Served).await;
        let mut client = sent(service.address, request);
        assert_eq!(service.heard().await, "begun");
        client.get_ref().shutdown(Close::Write).expect("it is open");
        // So it is asked, while the handler still works.
        let client = blocking(move || {
            assert_eq!(client.fill_buf().expect("a letter"), b"H");
            client
        });
        let mut client = client.await;
        service.go.send(()).expect("it waits");
        let (head, body) = blocking(move || (head(&mut client), rest(&mut client))).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, "finished", "{request}");
        assert_eq!(service.heard().await, "Some(Finished)", "{request}");
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_1_0_that_sends_no_more_gets_an_answer_of_http_1_0() {
    let mut service = serve(HalfClosed::Served).await;
    let mut client = sent(service.address, "GET /work HTTP/1.0\r\n\r\n");
    client.get_ref().shutdown(Close::Write).expect("it is open");
    assert_eq!(service.heard().await, "begun");
    let client = blocking(move || {
        assert_eq!(client.fill_buf().expect("a letter"), b"H");
        client
    });
    let mut client = client.await;
    service.go.send(()).expect("it waits");
    let answer = blocking(move || rest(&mut client)).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nfinished"), "{answer}");
    assert_eq!(service.heard().await, "Some(Finished)");
    service.over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_three_requests_and_no_more_gets_three_answers_byte_for_byte() {
    let mut service = serve(HalfClosed::Served).await;
    let large_one = GET.replace("/work", "/large");
    let mut client = sent(service.address, &format!("{large_one}{WHOLE}{large_one}"));
    client.get_ref().shutdown(Close::Write).expect("it is open");
    let answers = tokio::task::spawn_blocking(move || {
        let mut answers = Vec::new();
        for _ in 0..3 {
            let head = head(&mut client);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.expect("it is told").parse().expect("a number");
            let mut body = vec![0; length];
            client.read_exact(&mut body).expect("all of it");
            answers.push((head, String::from_utf8(body).expect("text")));
        }
        assert_eq!(rest(&mut client), "");
        answers
    });
    // That a request is finished may be told when the next has begun.
    let mut heard = Vec::new();
    while heard.len() < 6 {
        let word = service.heard().await;
        if word == "begun" {
            service.go.send(()).expect("it waits");
        }
        heard.push(word);
    }
    heard.sort();
    assert_eq!(heard, [["Some(Finished)"; 3], ["begun"; 3]].concat());
    let answers = answers.await.expect("no panic");
    for ((head, body), whole) in answers.iter().zip([large(), "finished".to_string(), large()]) {
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(*body == whole, "{} bytes of {}", body.len(), whole.len());
    }
    service.over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_expects_to_be_told_to_continue_is_told_so_in_whole() {
    let mut service = serve(HalfClosed::Served).await;
    let request =
        WHOLE.replace("/work", "/read").replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    // The body is there already, but a server that has not read it cannot know.
    let (request, body) = request.split_at(request.len() - 3);
    let mut client = sent(service.address, request);
    assert_eq!(service.heard().await, "begun");
    client.get_mut().write_all(body.as_bytes()).expect("it reads");
    client.get_ref().shutdown(Close::Write).expect("it is open");
    let client = blocking(move || {
        assert_eq!(client.fill_buf().expect("a letter"), b"H");
        client
    });
    let mut client = client.await;
    service.go.send(()).expect("it waits");
    let answer = blocking(move || rest(&mut client)).await;
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nall"), "{answer}");
    assert_eq!(service.heard().await, "Some(Finished)");
    service.over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_for_who_reads_and_ends_for_who_does_not() {
    let paths = ["/pieces", "/passed-on", "/passed-on-from-http2"];
    for (path, reads) in paths.into_iter().flat_map(|path| [(path, true), (path, false)]) {
        let mut service = serve(HalfClosed::Served).await;
        let mut client = sent(service.address, &GET.replace("/work", path));
        assert_eq!(service.heard().await, "begun");
        service.go.send(()).expect("it waits");
        let mut client = blocking(move || {
            assert!(head(&mut client).starts_with("HTTP/1.1 200 OK"));
            let mut piece = [0; 8];
            client.read_exact(&mut piece).expect("a piece");
            assert_eq!(&piece, b"3\r\none\r\n");
            client
        })
        .await;
        client.get_ref().shutdown(Close::Write).expect("it is open");
        if reads {
            let mut client = blocking(move || {
                let mut ahead = [0];
                client.read_exact(&mut ahead).expect("the beginning of a size");
                assert_eq!(&ahead, b"0");
                client
            })
            .await;
            service.go.send(()).expect("it waits");
            service.go.send(()).expect("it waits");
            let rest = blocking(move || rest(&mut client)).await;
            assert_eq!(rest, "3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n", "and it is not said again");
            assert_eq!(service.heard().await, "Some(Finished)");
        } else {
            drop(client);
            assert_eq!(service.heard().await, "Some(ClientGone)", "{path}, and no piece was sent");
        }
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sent_in_chunks_has_nothing_sent_ahead() {
    for request in ["GET /known HTTP/1.1", "GET /pieces HTTP/1.0", "GET /known HTTP/1.0"] {
        let mut service = serve(HalfClosed::Served).await;
        let mut client = sent(service.address, &format!("{request}\r\nhost: test\r\n\r\n"));
        assert_eq!(service.heard().await, "begun");
        service.go.send(()).expect("it waits");
        let client = blocking(move || {
            assert!(!head(&mut client).contains("chunked"));
            let mut piece = [0; 3];
            client.read_exact(&mut piece).expect("a piece");
            assert_eq!(&piece, b"one");
            client.get_ref().shutdown(Close::Write).expect("it is open");
            client
        })
        .await;
        // Others are answered meanwhile; so that was noticed, too.
        let address = service.address;
        blocking(move || {
            for _ in 0..20 {
                let mut other = super::client(address);
                send(&mut other, "/hello", "connection: close\r\n");
                assert!(rest(&mut other).ends_with("hello"));
            }
        })
        .await;
        service.go.send(()).expect("it waits");
        service.go.send(()).expect("it waits");
        let mut client = client;
        assert_eq!(blocking(move || rest(&mut client)).await, "twothree", "{request}");
        assert_eq!(service.heard().await, "Some(Finished)");
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_that_is_the_rule_who_sends_no_more_is_gone() {
    for request in requests() {
        let mut service = serve(HalfClosed::Gone).await;
        let mut client = sent(service.address, &request);
        assert_eq!(service.heard().await, "begun");
        client.get_ref().shutdown(Close::Write).expect("it is open");
        assert_eq!(service.heard().await, "Some(ClientGone)", "{request}");
        assert_eq!(blocking(move || rest(&mut client)).await, "");
        service.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_ends_at_once_where_who_sends_no_more_is_gone() {
    let mut service = serve(HalfClosed::Gone).await;
    let client = sent(service.address, &GET.replace("/work", "/pieces"));
    assert_eq!(service.heard().await, "begun");
    drop(client);
    assert_eq!(service.heard().await, "Some(ClientGone)");
    service.over().await;
}
