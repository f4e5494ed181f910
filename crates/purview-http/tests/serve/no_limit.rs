//! `Duration::MAX`, which is no limit, wherever a time can be set; and times that are almost as long.

use purview_http::DetachLayer;

use super::*;

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

async fn serve(clock: Option<&ManualClock>, long: Duration) -> (SocketAddr, CancelGuard, Shutdown) {
    let root = clock.map_or_else(Context::background, ManualClock::root);
    let (begin, signal) = root.with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let phases = Phases::new(&mut shutdown, long);
    let server = Server::new(phases).head_timeout(long).write_timeout(long);
    let layer = ContextLayer::new(server.context()).limit(long).grace(long);
    let app = Router::new()
        .route("/", get(async |Ctx(ctx): Ctx| format!("{:?}", ctx.is_done())))
        .layer(DetachLayer::new(server.context(), long))
        .layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    (address, signal, shutdown)
}

fn ask(client: &mut BufReader<TcpStream>) {
    let head = head(client);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut body = [0; 5];
    client.read_exact(&mut body).expect("all of it");
    assert_eq!(&body, b"false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_limits_serves() {
    for long in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        YEAR * 1000,
    ] {
        for clock in [None, Some(ManualClock::new())] {
            let (address, signal, shutdown) = serve(clock.as_ref(), long).await;
            let mut client = blocking(move || {
                let mut client = client(address);
                for _ in 0..2 {
                    send(&mut client, "/", "");
                    ask(&mut client);
                }
                client.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: te").expect("it reads");
                client
            })
            .await;
            // Half a head may take as long as it likes.
            for _ in 0..20 {
                clock.iter().for_each(|clock| clock.advance(YEAR));
                tokio::task::yield_now().await;
            }
            let mut client = blocking(move || {
                client.get_mut().write_all(b"st\r\n\r\n").expect("it reads");
                ask(&mut client);
                client
            })
            .await;
            signal.cancel();
            let report = shutdown.run().await;
            assert!(report.is_clean(), "{long:?}: {report}");
            assert_eq!(blocking(move || rest(&mut client)).await, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_centuries_old_serves() {
    let clock = ManualClock::new();
    let (begin, signal) = clock.root().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let phases = Phases::new(&mut shutdown, SECOND * 20);
    let server = Server::new(phases.clone());
    let app = Router::new()
        .route("/", get(async |Ctx(ctx): Ctx| format!("{:?}", ctx.is_done())))
        .layer(ContextLayer::new(server.context()).limit(SECOND));
    let address = By::Ours.serve(server, app).await;
    for _ in 0..3 {
        clock.advance(YEAR * 75);
        let mut client = client(address);
        let mut client = blocking(move || {
            send(&mut client, "/", "");
            ask(&mut client);
            client.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: te").expect("it reads");
            client
        })
        .await;
        // And half a head has its time, which counts from when the server begins to read it. A client cannot see that.
        while phases.drain.held().len() > 1 {
            clock.advance(SECOND);
            tokio::task::yield_now().await;
        }
        assert_eq!(blocking(move || rest(&mut client)).await, "");
    }
    signal.cancel();
    assert!(shutdown.run().await.is_clean());
}
