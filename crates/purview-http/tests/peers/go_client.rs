//! Go's client asks us.

use std::pin::pin;

use purview::time::ManualClock;

use super::peer::{Peer, go, run};
use super::service::{SECOND, Service, relative};

const PROTOCOLS: [(&str, &str); 2] = [("h1", "HTTP/1"), ("h2", "HTTP/2")];

#[test]
fn gos_client_that_gives_up_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            for path in ["work", "stream"] {
                client.tell(&format!("get {path} {}/{path} 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                if path == "stream" {
                    assert!(client.heard().await.starts_with("stream status 200"));
                    assert_eq!(client.heard().await, "stream body half");
                }
                client.tell(&format!("cancel {path}")).await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
                assert!(client.heard().await.ends_with("canceled"));
            }
        }
    });
}

#[test]
fn gos_client_whose_time_is_up_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            // On its own clock, of which nobody here knows. On a busy machine it may give up before we hear of it.
            let mut millis = 50;
            loop {
                client.tell(&format!("get late {}/work {millis}ms", service.url)).await;
                let mut end = pin!(client.heard());
                if service.begins(&mut end).await {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    assert_eq!(end.await, "late error deadline exceeded");
                    break;
                }
                millis *= 2;
            }
        }
    });
}

#[test]
fn gos_client_that_breaks_an_upload_off_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            for id in ["finish", "cancel"] {
                client.tell(&format!("post {id} {}/upload 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                assert_eq!(service.heard().await, "a part");
                client.tell(&format!("{id} {id}")).await;
                if id == "finish" {
                    assert_eq!(service.heard().await, "whole");
                    assert_eq!(service.heard().await, "Finished");
                    assert_eq!(client.heard().await, format!("finish status 200 {version}"));
                    assert_eq!(client.heard().await, "finish body done");
                    assert_eq!(client.heard().await, "finish whole");
                } else {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    // Of HTTP/1, Go's client gives no error before the body that it sends has come to its end.
                    client.tell("finish cancel").await;
                    assert_eq!(client.heard().await, "cancel error canceled");
                }
            }
        }
    });
}

#[test]
fn of_gos_requests_on_one_connection_only_that_which_it_cancels_ends() {
    let Some(go) = go() else { return };
    run(async {
        let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
        let mut client = Peer::start(go, &["ask", "h2"]);
        for id in ["1", "2"] {
            client.tell(&format!("get {id} {}/work 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun");
        }
        assert_eq!(service.connections(), 1);
        client.tell("cancel 1").await;
        assert_eq!(service.heard().await, "ClientGone");
        assert_eq!(client.heard().await, "1 error canceled");
        service.go_on();
        assert_eq!(service.heard().await, "Finished");
        assert_eq!(client.heard().await, "2 status 200 HTTP/2");
        assert_eq!(client.heard().await, "2 body done");
        assert_eq!(client.heard().await, "2 whole");
        assert_eq!(service.connections(), 1);
    });
}

#[test]
fn gos_client_that_dies_ends_its_request_here() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, _) in PROTOCOLS {
            for path in ["work", "stream"] {
                let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
                let mut client = Peer::start(go, &["ask", protocol]);
                client.tell(&format!("get 1 {}/{path} 0s", service.url)).await;
                assert_eq!(service.heard().await, "begun");
                client.kill().await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
            }
        }
    });
}

#[test]
fn gos_client_gets_the_504_and_does_not_take_half_a_stream_for_a_whole_one() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let clock = ManualClock::new();
            let mut service =
                Service::start(&clock, |layer| layer.limit(SECOND * 9).believe(relative())).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            let url = &service.url;
            client.tell(&format!("get 1 {url}/work 0s x-request-timeout 2.5")).await;
            assert_eq!(service.heard().await, "begun 2.5s");
            clock.advance(SECOND * 5 / 2);
            assert_eq!(service.heard().await, "TimedOut");
            assert_eq!(client.heard().await, format!("1 status 504 {version}"));
            assert_eq!(client.heard().await, "1 body the request's time was up");
            assert_eq!(client.heard().await, "1 whole");

            client.tell(&format!("get 2 {}/stream 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun 9s");
            assert_eq!(client.heard().await, format!("2 status 200 {version}"));
            assert_eq!(client.heard().await, "2 body half");
            clock.advance(SECOND * 9);
            assert_eq!(service.heard().await, "TimedOut");
            let end = client.heard().await;
            let is_broken = match protocol {
                "h1" => end == "2 broken unexpected EOF",
                _ => end.starts_with("2 broken stream error"),
            };
            assert!(is_broken, "{end}");
        }
    });
}

#[test]
fn gos_client_is_answered_while_we_go_down_and_others_are_refused() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let mut client = Peer::start(go, &["ask", protocol]);
            client.tell(&format!("get 1 {}/work 0s", service.url)).await;
            assert_eq!(service.heard().await, "begun");
            let report = service.drain().await;
            // What an HTTP/2 client sends before it has read that we go away is answered, too.
            loop {
                client.tell(&format!("get 2 {}/hello 0s", service.url)).await;
                let said = client.heard().await;
                if said != "2 status 200 HTTP/2" {
                    assert!(said.starts_with("2 error "), "{said}");
                    break;
                }
                assert_eq!(client.heard().await, "2 body hello");
                assert_eq!(client.heard().await, "2 whole");
            }
            service.go_on();
            assert_eq!(service.heard().await, "Finished");
            assert_eq!(client.heard().await, format!("1 status 200 {version}"));
            assert_eq!(client.heard().await, "1 body done");
            assert_eq!(client.heard().await, "1 whole");
            let report = report.await.expect("no panic");
            assert!(report.is_clean(), "{report}");
        }
    });
}

#[test]
fn between_gos_client_and_gos_server_ends_and_deadlines_go_through_us() {
    let Some(go) = go() else { return };
    run(async {
        for (protocol, version) in PROTOCOLS {
            let clock = ManualClock::new();
            let mut service = Service::start(&clock, |layer| layer.believe(relative())).await;
            let mut server = Peer::start(go, &["serve"]);
            let through = format!("{}/through/{}", service.url, server.heard().await);
            let mut client = Peer::start(go, &["ask", protocol]);
            for path in ["wait", "stream"] {
                client.tell(&format!("get 1 {through}/{path} 0s x-request-timeout 30")).await;
                assert_eq!(service.heard().await, "begun 30s");
                assert_eq!(server.heard().await, format!("begun /{path} 30"));
                if path == "stream" {
                    assert_eq!(client.heard().await, format!("1 status 200 {version}"));
                    assert_eq!(client.heard().await, "1 body half");
                }
                client.tell("cancel 1").await;
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
                assert!(server.heard().await.starts_with("ended context canceled"));
                assert!(client.heard().await.ends_with(" canceled"));
            }
            client.tell(&format!("get 2 {through}/wait 0s x-request-timeout 30")).await;
            assert_eq!(service.heard().await, "begun 30s");
            assert_eq!(server.heard().await, "begun /wait 30");
            clock.advance(SECOND * 30);
            assert_eq!(service.heard().await, "TimedOut");
            assert_eq!(client.heard().await, format!("2 status 504 {version}"));
            assert!(server.heard().await.starts_with("ended context canceled"));
        }
    });
}
