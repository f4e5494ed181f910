//! Envoy, between a client and us: it says how long it waits, and hangs up when its client does.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use purview::Context;
use purview::time::ManualClock;
use purview_http::ContextLayer;
use purview_http::deadline::{DeadlineHeader, DeadlineHeaders};
use tokio::process::{Child, Command};

use super::peer::{program, run};
use super::service::{SECOND, Service};

/// How Envoy asks us.
const PROTOCOLS: [&str; 2] = ["http_protocol_options", "http2_protocol_options"];

/// An Envoy that passes all on to a service, and waits `route` seconds for an answer.
struct Envoy {
    _process: Child,
    url: String,
}

impl Envoy {
    async fn start(envoy: &PathBuf, service: &Service, protocol: &str, route: u32) -> Envoy {
        let port = service.address.port();
        // The port is the system's choice; the file is where Envoy says which it is.
        let file =
            std::env::temp_dir().join(format!("purview-envoy-{}-{port}", std::process::id()));
        let config = format!(
            r#"
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          use_remote_address: true
          internal_address_config: {{ cidr_ranges: [ {{ address_prefix: 127.0.0.0, prefix_len: 8 }} ] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: ours, timeout: {route}s }}
  clusters:
  - name: ours
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ {protocol}: {{}} }}
    load_assignment:
      cluster_name: ours
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"#
        );
        let mut process = Command::new(envoy)
            .args(["--config-yaml", &config, "--concurrency", "1", "--use-dynamic-base-id"])
            .args(["-l", "error", "--admin-address-path"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it can be started");
        let admin = loop {
            match std::fs::read_to_string(&file) {
                Ok(address) if !address.is_empty() => break address,
                _ => tokio::task::yield_now().await,
            }
            assert_eq!(process.try_wait().expect("it is a child"), None, "it has ended");
        };
        let _ = std::fs::remove_file(&file);
        let url = loop {
            let said = text(&format!("http://{admin}/listeners")).await.unwrap_or_default();
            match said.trim().strip_prefix("front::") {
                Some(address) => break format!("http://{address}"),
                None => tokio::task::yield_now().await,
            }
        };
        Envoy { _process: process, url }
    }
}

type Asking = Client<hyper_util::client::legacy::connect::HttpConnector, Empty<Bytes>>;

fn client() -> Asking {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Of an answer that is one.
async fn text(url: &str) -> Option<String> {
    let response = client().get(url.parse().expect("a URL")).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(body.to_vec()).ok()
}

fn get(url: &str, timeout: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::get(url);
    if let Some(timeout) = timeout {
        request = request.header("x-envoy-upstream-rq-timeout-ms", timeout);
    }
    request.body(Empty::new()).expect("a request")
}

fn believing(layer: ContextLayer) -> ContextLayer {
    layer.believe(DeadlineHeaders::new([DeadlineHeader::Envoy]))
}

#[test]
fn envoys_route_and_its_client_say_how_much_time_there_is() {
    let Some(envoy) = program("envoy") else { return };
    run(async {
        for protocol in PROTOCOLS {
            let clock = ManualClock::new();
            let layer = |layer| believing(layer).limit(SECOND * 90);
            let mut service = Service::start(&clock, layer).await;
            let envoy = Envoy::start(&envoy, &service, protocol, 40).await;
            let url = format!("{}/work", envoy.url);
            for (asked, begun) in [(None, "begun 40s"), (Some("30000"), "begun 30s")] {
                let answer = tokio::spawn(client().request(get(&url, asked)));
                assert_eq!(service.heard().await, begun);
                service.go_on();
                assert_eq!(service.heard().await, "Finished");
                assert_eq!(answer.await.expect("no panic").expect("an answer").status(), 200);
            }
        }
    });
}

#[test]
fn our_504_comes_before_envoys() {
    let Some(envoy) = program("envoy") else { return };
    run(async {
        // Envoy's clock is the real one, and so is ours. Of the 50 s, we answer after 1, and say so.
        let root = Context::background();
        let layer = |layer| believing(layer).reserve(SECOND * 49);
        let mut service = Service::below(&root, layer).await;
        let envoy = Envoy::start(&envoy, &service, PROTOCOLS[0], 50).await;
        let answer = client().request(get(&format!("{}/work", envoy.url), None)).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 504);
        let body = answer.into_body().collect().await.expect("all of it").to_bytes();
        assert_eq!(body, "the request's time was up\n", "Envoy says: upstream request timeout");
        assert!(service.heard().await.starts_with("begun "));
        assert_eq!(service.heard().await, "TimedOut");
    });
}

#[test]
fn envoy_hangs_up_when_its_client_does() {
    let Some(envoy) = program("envoy") else { return };
    run(async {
        for protocol in PROTOCOLS {
            let clock = ManualClock::new();
            let mut service = Service::start(&clock, believing).await;
            let envoy = Envoy::start(&envoy, &service, protocol, 50).await;
            for path in ["work", "stream"] {
                let url = format!("{}/{path}", envoy.url);
                let asking = tokio::spawn(client().request(get(&url, None)));
                assert_eq!(service.heard().await, "begun 50s");
                asking.abort();
                drop(asking.await); // and with it the answer, and the connection
                assert_eq!(service.heard().await, "ClientGone", "{protocol} {path}");
            }
        }
    });
}

#[test]
fn envoy_hangs_up_when_its_own_time_is_up() {
    let Some(envoy) = program("envoy") else { return };
    run(async {
        for protocol in PROTOCOLS {
            // No header is believed.
            let mut service = Service::start(&ManualClock::new(), |layer| layer).await;
            let envoy = Envoy::start(&envoy, &service, protocol, 50).await;
            let url = format!("{}/work", envoy.url);
            // On a busy machine, it may be up before we hear of it.
            let mut millis = 100;
            loop {
                let client = client();
                let mut answer = pin!(client.request(get(&url, Some(&millis.to_string()))));
                if service.begins(&mut answer).await {
                    assert_eq!(service.heard().await, "ClientGone", "{protocol}");
                    assert_eq!(answer.await.expect("an answer").status(), 504);
                    break;
                }
                millis *= 2;
            }
        }
    });
}
