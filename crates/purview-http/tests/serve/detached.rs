//! Handlers that are tasks, and a shutdown that waits for them.

use std::sync::atomic::{AtomicBool, Ordering};

use purview_http::DetachLayer;

use super::*;

struct Service {
    clock: ManualClock,
    signal: CancelGuard,
    phases: Phases,
    address: SocketAddr,
    report: Pin<Box<dyn Future<Output = Report>>>,
    said: mpsc::UnboundedReceiver<String>,
    go: mpsc::UnboundedSender<()>,
    saved: Arc<AtomicBool>,
}

impl Service {
    /// A handler waits for the end of its request, then for leave to go on, and saves something.
    async fn start(by: By, grace: Duration) -> Service {
        let clock = ManualClock::new();
        let (begin, signal) = clock.root().with_cancel();
        let mut shutdown = Shutdown::new(&begin);
        let phases = Phases::new(&mut shutdown, SECOND * 20);
        let server = Server::new(phases.clone());
        let (say, said) = mpsc::unbounded_channel();
        let (go, going) = mpsc::unbounded_channel();
        let gate: Gate = Arc::new(tokio::sync::Mutex::new(going));
        let saved = Arc::new(AtomicBool::new(false));
        let saves = Arc::clone(&saved);
        let work = async move |Ctx(ctx): Ctx| {
            let _ = say.send("begun".to_string());
            let err = ctx.done().await;
            let _ = say.send(format!("{:?}", RequestEnded::of(&err)));
            gate.lock().await.recv().await;
            saves.store(true, Ordering::Relaxed);
            "too late"
        };
        let detach = match by {
            By::Axum => DetachLayer::new(&clock.root(), grace).phase(&phases.drain),
            By::Ours => DetachLayer::new(server.context(), grace),
        };
        let app = Router::new()
            .route("/work", get(work))
            .layer(detach)
            .layer(ContextLayer::new(server.context()).limit(SECOND * 3));
        let address = by.serve(server, app).await;
        let report = Box::pin(shutdown.run());
        Service { clock, signal, phases, address, report, said, go, saved }
    }

    async fn heard(&mut self) -> String {
        heard(&mut self.said).await.expect("handlers say something")
    }

    /// What the drain waits for besides connections and the server's own group.
    fn handlers(&self) -> Vec<String> {
        let held = self.phases.drain.held();
        let names = held.iter().filter_map(|it| it.name()).map(ToString::to_string);
        names.filter(|name| *name != "connections" && !name.starts_with("connection ")).collect()
    }

    /// The report, if the shutdown comes to its end without more time, however often it is polled.
    async fn over(&mut self) -> Option<Report> {
        for _ in 0..100 {
            let report = self.report.as_mut();
            let mut report = pin!(report);
            let polled = poll_fn(|task| Poll::Ready(report.as_mut().poll(task)));
            if let Poll::Ready(report) = polled.await {
                return Some(report);
            }
            tokio::task::yield_now().await;
        }
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_a_handler_whose_client_is_gone() {
    for by in BOTH {
        let mut service = Service::start(by, SECOND * 3600).await;
        let mut client = client(service.address);
        send(&mut client, "/work", "");
        assert_eq!(service.heard().await, "begun");
        assert_eq!(service.handlers(), ["detached handler"]);
        drop(client);
        assert_eq!(service.heard().await, "Some(ClientGone)");
        service.signal.cancel_with("SIGTERM");
        assert!(service.over().await.is_none(), "{by:?}");
        assert!(!service.phases.cancel.context().is_done(), "it is in the drain");
        assert!(!service.saved.load(Ordering::Relaxed));
        service.go.send(()).expect("it waits");
        let report = service.report.await;
        assert!(service.saved.load(Ordering::Relaxed), "{by:?}");
        assert!(report.is_clean() && report.exit_code() == 0, "{report}");
        assert_eq!(report.took(), Duration::ZERO, "at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_a_handler_whose_client_has_its_504() {
    for by in BOTH {
        let mut service = Service::start(by, SECOND * 3600).await;
        let mut client = client(service.address);
        send(&mut client, "/work", "");
        assert_eq!(service.heard().await, "begun");
        service.clock.advance(SECOND * 3);
        assert_eq!(service.heard().await, "Some(TimedOut)");
        let mut client = blocking(move || {
            let (head, body) = answer(&mut client);
            assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
            assert_eq!(body, "the request's time was up\n");
            client
        })
        .await;
        service.signal.cancel_with("SIGTERM");
        assert!(service.over().await.is_none(), "{by:?}");
        service.go.send(()).expect("it waits");
        let report = service.report.await;
        assert!(service.saved.load(Ordering::Relaxed) && report.is_clean(), "{report}");
        if by == By::Ours {
            assert_eq!(blocking(move || rest(&mut client)).await, "", "it is closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_longer_than_the_phases_is_named() {
    for by in BOTH {
        let mut service = Service::start(by, SECOND * 3600).await;
        let mut client = client(service.address);
        send(&mut client, "/work", "");
        assert_eq!(service.heard().await, "begun");
        drop(client);
        assert_eq!(service.heard().await, "Some(ClientGone)");
        service.signal.cancel_with("SIGTERM");
        // What else there is ends at once, whenever that is.
        while !is_begun(service.phases.drain.context()) || service.phases.drain.held().len() > 1 {
            assert!(service.over().await.is_none(), "{by:?}");
        }
        let mut seconds = 0;
        let report = loop {
            if let Some(report) = service.over().await {
                break report;
            }
            seconds += 1;
            service.clock.advance(SECOND);
        };
        assert!(seconds >= 30, "after the drain's time, and that of two phases: {seconds}");
        let abandoned: Vec<_> = report.abandoned().iter().filter_map(|it| it.name()).collect();
        assert_eq!(abandoned, ["detached handler"], "{report}");
        assert_eq!((report.is_clean(), report.exit_code()), (false, 1));
        assert!(!service.saved.load(Ordering::Relaxed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_grace_is_over_holds_nothing_up() {
    for by in BOTH {
        let mut service = Service::start(by, SECOND).await;
        let mut client = client(service.address);
        send(&mut client, "/work", "");
        assert_eq!(service.heard().await, "begun");
        drop(client);
        assert_eq!(service.heard().await, "Some(ClientGone)");
        service.signal.cancel_with("SIGTERM");
        assert!(service.over().await.is_none(), "{by:?}");
        service.clock.advance(SECOND);
        let report = service.report.await;
        assert!(report.is_clean() && report.took() == SECOND, "{report}");
        assert!(!service.saved.load(Ordering::Relaxed), "it was dropped");
    }
}
