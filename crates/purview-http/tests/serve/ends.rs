//! What is left when the drain is over, of handlers that have no last words; and a process that has no descriptors left.

use axum::extract::ConnectInfo;

use super::*;

/// Serves what says that it has begun and then waits for nothing, and a body that is never whole; without a grace.
pub(super) async fn serve(
    begin: &Context,
) -> (Phases, Shutdown, SocketAddr, mpsc::UnboundedReceiver<String>) {
    let mut shutdown = Shutdown::new(begin);
    let phases = Phases::new(&mut shutdown, SECOND * 20);
    let server = Server::new(phases.clone());
    let (say, said) = mpsc::unbounded_channel();
    let saying = say.clone();
    let panics = async move |Ctx(ctx): Ctx| -> &'static str {
        let saying = saying.clone();
        tokio::spawn(async move {
            let err = ctx.done().await;
            let _ = saying.send(format!("{:?}", RequestEnded::of(&err)));
        });
        tokio::task::yield_now().await;
        panic!("a test's")
    };
    let endless = async move |Ctx(ctx): Ctx| {
        let ended = say.clone();
        tokio::spawn(async move {
            let err = ctx.done().await;
            let _ = ended.send(format!("{:?}", RequestEnded::of(&err)));
        });
        let _ = say.send("begun".to_string());
        std::future::pending::<&str>().await
    };
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/endless", get(endless))
        .route("/panics", get(panics))
        .route("/stream", get(async || Response::new(Body::new(Stream(Some("half"))))))
        .layer(ContextLayer::new(server.context()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    (phases, shutdown, address, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_answer_when_the_drain_is_over_is_answered_503_and_half_a_body_breaks_off() {
    let clock = ManualClock::new();
    let (begin, signal) = clock.root().with_cancel();
    let (phases, shutdown, address, mut said) = serve(&begin).await;
    let mut waiting = client(address);
    send(&mut waiting, "/endless", "");
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    let mut reading = client(address);
    send(&mut reading, "/stream", "");
    let mut reading = blocking(move || {
        assert!(head(&mut reading).contains("chunked"));
        let mut piece = [0; 9];
        reading.read_exact(&mut piece).expect("half of it");
        reading
    })
    .await;
    let report = tokio::spawn(shutdown.run());
    signal.cancel_with("SIGTERM");
    phases.drain.context().done().await;
    assert!(!phases.cancel.context().is_done(), "there is time");
    clock.advance(SECOND * 20);
    assert_eq!(heard(&mut said).await.as_deref(), Some("Some(ServerShutdown)"));
    let report = report.await.expect("no panic");
    assert!(report.is_clean() && report.took() == SECOND * 20, "{report}");
    let (head, rest) = blocking(move || (head(&mut waiting), rest(&mut reading))).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(rest, "", "no last chunk: nobody takes it for whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_all_requests_and_closes_all_connections_at_once() {
    let root = ManualClock::new().root();
    let (begin, signal) = root.with_cancel();
    let (force, again) = root.with_cancel();
    let (phases, shutdown, address, mut said) = serve(&begin).await;
    let mut waiting = client(address);
    send(&mut waiting, "/endless", "");
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    let mut reading = client(address);
    send(&mut reading, "/stream", "");
    let mut reading = blocking(move || {
        assert!(head(&mut reading).contains("chunked"));
        reading
    })
    .await;
    let report = tokio::spawn(shutdown.force_on(&force).run());
    signal.cancel_with("SIGTERM");
    phases.drain.context().done().await;
    again.cancel_with("SIGTERM again");
    assert_eq!(heard(&mut said).await.as_deref(), Some("Some(ServerShutdown)"));
    let report = report.await.expect("no panic");
    assert!(report.took() == Duration::ZERO, "{report}");
    let (waited, read) = blocking(move || (rest(&mut waiting), rest(&mut reading))).await;
    assert!(!waited.contains("200"), "{waited}");
    assert!(!read.contains("0\r\n\r\n"), "nobody takes it for whole: {read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_told_to_stop_serves_nobody() {
    let (begin, signal) = Context::background().with_cancel();
    signal.cancel_with("SIGTERM, early");
    let (_phases, shutdown, address, _said) = serve(&begin).await;
    let report = shutdown.run().await;
    assert!(report.is_clean(), "{report}");
    refused(address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_takes_its_connection_and_no_other() {
    let (begin, signal) = Context::background().with_cancel();
    let (_phases, shutdown, address, mut said) = serve(&begin).await;
    let mut other = client(address);
    send(&mut other, "/endless", "");
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    let mut panics = client(address);
    send(&mut panics, "/panics", "");
    assert_eq!(blocking(move || rest(&mut panics)).await, "");
    assert_eq!(heard(&mut said).await.as_deref(), Some("Some(Panicked)"));
    let mut next = client(address);
    send(&mut next, "/", "connection: close\r\n");
    assert!(blocking(move || rest(&mut next)).await.ends_with("hello"));
    assert!(said.try_recv().is_err(), "the other goes on");
    signal.cancel();
    drop((other, shutdown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_nothing_and_no_more_is_sent_nothing() {
    let (begin, signal) = Context::background().with_cancel();
    let (_phases, shutdown, address, _said) = serve(&begin).await;
    let mut silent = client(address);
    silent.get_ref().shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(blocking(move || rest(&mut silent)).await, "");
    signal.cancel();
    assert!(shutdown.run().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connection_can_have_a_service_of_its_own() {
    let (begin, signal) = Context::background().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let server = Server::new(Phases::new(&mut shutdown, SECOND * 20));
    let whoami = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
    let app = Router::new().route("/", get(whoami)).layer(ContextLayer::new(server.context()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn_each(listener, move |peer| app.clone().layer(axum::Extension(ConnectInfo(peer))));
    for _ in 0..3 {
        let mut client = client(address);
        let own = client.get_ref().local_addr().expect("it is connected");
        send(&mut client, "/", "connection: close\r\n");
        assert!(blocking(move || rest(&mut client)).await.ends_with(&own.to_string()));
    }
    signal.cancel();
    assert!(shutdown.run().await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_panics_when_it_is_made_costs_its_connection() {
    let (begin, signal) = Context::background().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let phases = Phases::new(&mut shutdown, SECOND * 20);
    let server = Server::new(phases.clone());
    let app =
        Router::new().route("/", get(async || "hello")).layer(ContextLayer::new(server.context()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let mut made = 0;
    server.spawn_each(listener, move |_peer| {
        made += 1;
        assert!(made != 2, "a test's");
        app.clone()
    });
    let answers = blocking(move || {
        let answer = |_| {
            let mut client = client(address);
            send(&mut client, "/", "connection: close\r\n");
            rest(&mut client)
        };
        (0..4).map(answer).collect::<Vec<_>>()
    })
    .await;
    for (number, answer) in (1..).zip(answers) {
        if number == 2 {
            assert_eq!(answer, "");
        } else {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{number}: {answer}");
            assert!(answer.ends_with("\r\n\r\nhello"), "{number}: {answer}");
        }
    }
    assert!(!begin.is_done() && !phases.stop_accepting.context().is_done());
    signal.cancel_with("SIGTERM");
    let report = shutdown.run().await;
    let [failure] = report.failures() else { panic!("{report}") };
    assert!(failure.is_panic() && failure.cause().to_string() == "panicked: a test's", "{failure}");
    assert!(failure.name().is_some_and(|name| name.starts_with("connection 127.0.0.1:")));
    assert!(report.abandoned().is_empty(), "{report}");
}

#[cfg(target_os = "linux")]
const FEW: &str = "PURVIEW_TEST_FEW_DESCRIPTORS";

/// In a process of its own, which may have few.
#[cfg(target_os = "linux")]
#[test]
fn a_server_without_descriptors_waits_for_some() {
    let name = "ends::a_server_without_descriptors_waits_for_some";
    if std::env::var_os(FEW).is_some() {
        return few_descriptors();
    }
    let program = std::env::current_exe().expect("it is known");
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(program)
        .arg(name)
        .env(FEW, "1")
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[cfg(target_os = "linux")]
fn few_descriptors() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    let (begin, signal) = Context::background().with_cancel();
    let (phases, shutdown, address, _said) = runtime.block_on(serve(&begin));
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    drop(files.pop());
    let mut late = client(address); // with the last one
    send(&mut late, "/", "");
    late.get_ref().set_read_timeout(Some(SECOND / 4)).expect("not zero");
    let err = late.fill_buf().expect_err("it cannot have been accepted");
    assert_eq!(err.kind(), ErrorKind::WouldBlock);
    assert_eq!(phases.drain.held().len(), 1, "the group");
    drop(files);
    late.get_ref().set_read_timeout(Some(PATIENCE)).expect("not zero");
    assert!(head(&mut late).starts_with("HTTP/1.1 200"));
    signal.cancel();
    let report = runtime.block_on(shutdown.run());
    assert!(report.is_clean(), "{report}");
}
