//! curl, over HTTP/1 and HTTP/2.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use purview::Context;
use purview::time::ManualClock;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use purview_http::{ContextLayer, Ctx};

use super::peer::{Peer, program, run};
use super::service::{SECOND, Service};

const PROTOCOLS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")];

/// One that speaks both.
fn curl() -> Option<PathBuf> {
    let curl = program("curl")?;
    let version = std::process::Command::new(&curl).arg("--version").output().ok()?;
    let speaks = String::from_utf8_lossy(&version.stdout).contains("HTTP2");
    if !speaks {
        eprintln!("skipped: this curl does not speak HTTP/2");
    }
    speaks.then_some(curl)
}

fn ask(curl: &std::path::Path, protocol: &str, url: &str, more: &[&str]) -> Peer {
    let mut args = vec!["-sN", protocol];
    args.extend(["-w", "\n%{http_version} %{http_code} %{exitcode}\n", url]);
    args.extend(more);
    Peer::start(curl, &args)
}

#[test]
fn curl_is_answered_504_when_the_time_that_it_gave_is_up() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let clock = ManualClock::new();
            let headers = DeadlineHeaders::new([DeadlineHeader::relative(), DeadlineHeader::Grpc]);
            let mut service = Service::start(&clock, |layer| layer.believe(headers)).await;
            let url = format!("{}/work", service.url);
            for header in ["x-request-timeout: 1500ms", "grpc-timeout: 1500m"] {
                let curl =
                    ask(&curl, protocol, &url, &["-H", header, "-H", "accept: application/json"]);
                assert_eq!(service.heard().await, "begun 1.5s");
                clock.advance(SECOND * 2);
                assert_eq!(service.heard().await, "TimedOut");
                let answer =
                    format!("{{\"error\":\"the request's time was up\"}}\n\n{version} 504 0");
                assert_eq!(curl.rest().await, answer);
            }
        }
    });
}

#[test]
fn curl_that_is_killed_ends_its_request() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            for path in ["work", "stream"] {
                let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
                let mut curl = ask(&curl, protocol, &format!("{}/{path}", service.url), &[]);
                assert_eq!(service.heard().await, "begun");
                if path == "stream" {
                    assert_eq!(curl.heard().await, "half");
                }
                curl.kill().await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
            }
        }
    });
}

#[test]
fn curl_whose_time_is_up_ends_its_request() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let url = format!("{}/work", service.url);
            // On a busy machine, it may be up before we hear of it.
            let mut seconds = 0.1;
            loop {
                let curl = ask(&curl, protocol, &url, &["--max-time", &format!("{seconds}")]);
                let mut end = pin!(curl.rest());
                if service.begins(&mut end).await {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    let end = end.await;
                    assert!(end.ends_with(" 28"), "{end}"); // a timeout, says its manual
                    break;
                }
                seconds *= 2.0;
            }
        }
    });
}

#[test]
fn curl_does_not_take_half_a_stream_for_a_whole_one() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let clock = ManualClock::new();
            let mut service = Service::start(&clock, |layer| layer.limit(SECOND)).await;
            let mut curl = ask(&curl, protocol, &format!("{}/stream", service.url), &[]);
            assert_eq!(service.heard().await, "begun 1s");
            assert_eq!(curl.heard().await, "half");
            clock.advance(SECOND);
            assert_eq!(service.heard().await, "TimedOut");
            let said = curl.rest().await;
            let end = said.trim_start();
            assert!(end.starts_with(&format!("{version} 200 ")) && !end.ends_with(" 0"), "{said}");
        }
    });
}

#[test]
fn curl_is_answered_while_we_go_down_and_told_to_go_away_in_good_order() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let curl = ask(&curl, protocol, &format!("{}/work", service.url), &[]);
            assert_eq!(service.heard().await, "begun");
            let report = service.drain().await;
            service.go_on();
            assert_eq!(service.heard().await, "Finished");
            assert_eq!(curl.rest().await, format!("done\n{version} 200 0"));
            let report = report.await.expect("no panic");
            assert!(report.is_clean(), "{report}");
        }
    });
}

/// A client that has no answer on a connection that it has used before asks once more.
#[test]
fn curl_asks_once_for_an_answer_given_when_the_time_is_up() {
    let Some(curl) = curl() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let (server, _stop) = Context::background().with_cancel();
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let own = async move |Ctx(ctx): Ctx| {
                counted.fetch_add(1, Ordering::Relaxed);
                format!("handler: {}\n", ctx.done().await)
            };
            let app = Router::new()
                .route("/", get(async || "hello\n"))
                .route("/own", get(own))
                .layer(ContextLayer::new(&server).limit(SECOND / 10));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("it is bound"));
            tokio::spawn(async move { axum::serve(listener, app).await });
            // curl 7.88 cannot ask twice on a connection of HTTP/2 with prior knowledge, whatever is answered.
            let is_reused = protocol == "--http1.1";
            let mut args = vec!["-sN", protocol, "-w", "%{exitcode}\n"];
            args.extend(is_reused.then_some(url.as_str()));
            let own_url = format!("{url}/own");
            args.push(&own_url);
            let said = Peer::start(&curl, &args).rest().await;
            let own = "handler: context deadline exceeded: the request's time was up\n0";
            let first = if is_reused { "hello\n0\n" } else { "" };
            assert_eq!(said, format!("{first}{own}"));
            assert_eq!(count.load(Ordering::Relaxed), 1);
        }
    });
}
