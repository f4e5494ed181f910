//! The service as a new user meets it: the built program, its own words, real curl, real signals.
//!
//! Each test starts its own service, on a free port and a small data set of its own, and ends it. Nothing waits for a time to
//! pass: what is to happen is asked for until it has, and a minute is the bound after which it never will.

#![cfg(unix)] // signals are sent with kill(1)

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// After this, it never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that is ended with the test.
struct Service {
    child: Child,
    lines: Receiver<String>,
    address: String,
    /// What it said before it could be used.
    greeting: String,
    folder: PathBuf,
}

impl Service {
    fn start(extra: &[&str]) -> Service {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique =
            format!("purview-demo-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(unique);
        let data = folder.join("notes.db").display().to_string();
        let mut child = program(&["--port", "0", "--rows", "20000", "--data", &data])
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let stdout = child.stdout.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut service =
            Service { child, lines, address: String::new(), greeting: String::new(), folder };
        while !service.greeting.contains("Ctrl-C stops it") {
            let line = service.line().expect("it greets");
            service.greeting += &(line + "\n");
        }
        let url = service.greeting.split("http://").nth(1).expect("it says where it is");
        service.address =
            url.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
        service
    }

    /// The next line that it prints; None when it is over.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it says nothing for a minute"),
        }
    }

    /// All that it still prints, and its exit code.
    fn finish(&mut self) -> (String, Option<i32>) {
        let mut text = String::new();
        while let Some(line) = self.line() {
            text += &(line + "\n");
        }
        (text, self.child.wait().expect("it was started here").code())
    }

    /// Sends a request, and gives the connection.
    fn send(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream
    }

    fn get(&self, path: &str) -> (u16, String) {
        read_answer(self.send(path))
    }

    fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap_or_else(|err| panic!("{path}: {err}: {body}")))
    }

    /// Asks for the counters until `holds` does.
    fn stats_until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let (_, stats) = self.json("/stats");
            if holds(&stats) {
                return stats;
            }
            assert!(begin.elapsed() < PATIENCE, "{what}: {stats:#}");
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill(1) is there").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether SQLite works for a request, and not only for the refresher, which has a look at the data now and then.
fn a_request_queries(stats: &Value) -> bool {
    let now = stats["now"].as_array();
    now.is_some_and(|now| {
        now.iter().any(|work| work.as_str().is_some_and(|work| work.contains(" for request ")))
    })
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purview-demo"));
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs the program where it must not get as far as serving.
fn refuses(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = program(args).output().expect("the program is built");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn read_answer(mut stream: TcpStream) -> (u16, String) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers and closes");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status line"), body.to_owned())
}

#[test]
fn a_search_finds_and_says_that_it_is_all() {
    let service = Service::start(&[]);
    let (status, answer) = service.json("/search?q=storm&timeout_ms=60000");
    assert_eq!(status, 200);
    assert_eq!(answer["partial"], false);
    assert_eq!(answer["answered"].as_array().map(Vec::len), Some(4));
    assert!(answer["matches"].as_u64() > Some(0));
    let note = answer["notes"][0]["text"].as_str().expect("a note");
    assert!(note.contains("storm"), "{note}");
    let (status, page) = service.get("/");
    assert!(status == 200 && page.contains("<form"));
    let stats = service.stats_until("all is counted", |stats| stats["sqlite"]["running"] == 0);
    assert_eq!(stats["requests"]["completed"], 1);
    assert_eq!(stats["requests"]["in_flight"], 0);
}

#[test]
fn a_search_whose_time_is_up_gives_what_it_has_and_says_what_is_missing_and_why() {
    let service = Service::start(&["--rows", "120000"]);
    // Shards differ in size, so that some time is enough for the first and not for the last, on whatever machine.
    for timeout in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120] {
        let (status, answer) =
            service.json(&format!("/search?q=storm&slow=1&timeout_ms={timeout}"));
        if answer["partial"] == true {
            assert_eq!(status, 200);
            let missing = &answer["missing"][0];
            assert_eq!(missing["kind"], "deadline_exceeded");
            assert_eq!(missing["cause"], format!("timeout_ms={timeout}"));
            assert_eq!(missing["origin"]["name"], "search");
            assert_eq!(missing["origin"]["by"], "deadline");
            let shards = |name: &str| answer[name].as_array().map_or(0, Vec::len);
            assert_eq!(shards("answered") + shards("missing"), 4);
            return;
        }
        assert_eq!(status, if answer["error"].is_null() { 200 } else { 504 });
    }
    panic!("no timeout gave a part of the answer");
}

#[test]
fn a_client_says_in_a_header_how_long_it_waits() {
    let service = Service::start(&["--rows", "120000"]);
    let get = |path: &str, header: &str| {
        let mut stream = TcpStream::connect(&service.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n{header}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        read_answer(stream)
    };
    let (status, body) = get("/report?timeout_ms=60000", "x-request-timeout: 0.05");
    assert!(status == 504 && body.contains("the request's time was up"), "{body}");
    assert!(body.contains("GET /report") && body.contains("demo/src/server.rs:"), "{body}");
    let (status, body) = get("/report?timeout_ms=20", "grpc-timeout: 60S");
    assert!(status == 504 && body.contains("timeout_ms=20"), "{body}");
    let (status, body) = get("/report", "x-request-timeout: soon");
    assert!(status == 400 && body.contains("x-request-timeout: not a time"), "{body}");
    let (_, stats) = service.json("/stats");
    assert_eq!(stats["requests"]["timed_out"], 2);
}

#[test]
fn a_deadline_shrinks_from_hop_to_hop_and_a_service_that_is_gone_is_told_of() {
    let last = Service::start(&[]);
    let middle = Service::start(&["--upstream", &format!("http://{}", last.address)]);
    let first = Service::start(&["--upstream", &format!("http://{}/", middle.address)]);
    let (status, answer) = first.json("/trace?timeout_ms=60000");
    assert_eq!(status, 200, "{answer:#}");
    let mut left = 60_000.0;
    let mut here = &answer;
    for hop in 1..=3 {
        let its = here["remaining_ms"].as_f64().unwrap_or_else(|| panic!("{answer:#}"));
        assert!(here["hop"] == hop && its < left, "{answer:#}");
        left = its - 5.0; // what is kept for the way
        here = &here["upstream"];
    }
    assert!(here.is_null(), "{answer:#}");

    drop(last);
    let (_, answer) = first.json("/trace?timeout_ms=60000");
    let error = answer["upstream"]["upstream"]["error"].as_str().unwrap_or_default().to_lowercase();
    assert!(error.contains("connect"), "{answer:#}");
}

#[test]
fn a_report_whose_time_is_up_is_504_with_the_errors_origin() {
    let service = Service::start(&["--rows", "120000"]);
    let (status, answer) = service.json("/report?timeout_ms=20");
    assert_eq!(status, 504);
    assert_eq!(answer["error"], "context deadline exceeded: timeout_ms=20");
    assert_eq!(answer["origin"]["name"], "report");
    assert_eq!(answer["origin"]["by"], "deadline");
    assert!(
        answer["origin"]["at"].as_str().is_some_and(|at| at.starts_with("demo/src/server.rs:")),
        "{answer}"
    );
    let stats =
        service.stats_until("the query is stopped", |stats| stats["sqlite"]["running"] == 0);
    assert_eq!(
        (&stats["requests"]["timed_out"], &stats["sqlite"]["interrupted"]),
        (&Value::from(1), &Value::from(1))
    );
}

#[test]
fn bad_parameters_get_400_and_a_clear_sentence() {
    let service = Service::start(&[]);
    for (path, part) in [
        ("/search", "q is missing"),
        ("/search?q=", "q is empty"),
        ("/search?q=%20", "q is empty"),
        ("/search?q=storm&timeout_ms=0", "from 1 to 60000"),
        ("/search?q=storm&timeout_ms=-1", "from 1 to 60000"),
        ("/search?q=storm&timeout_ms=soon", "from 1 to 60000"),
        ("/search?q=storm&timeout_ms=60001", "from 1 to 60000"),
        ("/search?q=storm&timeout_ms=99999999999999999999999", "from 1 to 60000"),
        ("/search?q=storm&slow=maybe", "0 or 1"),
        ("/search?q=%22unclosed", "not a full-text query"),
        ("/search?q=storm&q=rain", "given twice"),
        ("/search?q=storm&limit=3", "unknown parameter"),
        ("/report?timeout_ms=", "from 1 to 60000"),
    ] {
        let (status, answer) = service.json(path);
        let sentence = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && sentence.contains(part), "{path}: {status} {answer}");
    }
    assert_eq!(service.json("/nowhere").0, 404);
    assert_eq!(service.json("/stats").1["requests"]["failed"], 0);
}

#[test]
fn a_client_that_hangs_up_stops_its_query_within_50_ms() {
    let service = Service::start(&["--rows", "120000"]);
    for path in ["/report?timeout_ms=60000", "/search?q=storm&slow=1&timeout_ms=60000"] {
        // The bound is the service's, measured by the service. A busy machine may not run the thread in time; one that
        // never does in ten times is not busy but broken.
        let stopped_in_time = |_| hang_up(&service, path) < 50.0;
        assert!((0..10).any(stopped_in_time), "{path}: ten times too late");
    }
}

/// Hangs up while a query runs, and gives the milliseconds that SQLite then took to stop.
fn hang_up(service: &Service, path: &str) -> f64 {
    let before = service.json("/stats").1;
    let client = service.send(path);
    service.stats_until("its query runs", a_request_queries);
    drop(client);
    let stats = service.stats_until("its query is stopped", |stats| !a_request_queries(stats));
    let count = |stats: &Value, of: &str, what: &str| stats[of][what].as_u64().unwrap_or_default();
    let more = |of: &str, what: &str| count(&stats, of, what) - count(&before, of, what);
    assert_eq!(more("requests", "canceled_by_client"), 1, "{stats:#}");
    assert!(more("sqlite", "interrupted") >= 1, "{stats:#}");
    assert_eq!(more("requests", "completed"), 0);
    stats["sqlite"]["last_stop_ms"].as_f64().expect("one was interrupted")
}

#[test]
fn the_three_curl_lines_do_what_they_say() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let service = Service::start(&["--rows", "120000"]);
    let lines: Vec<&str> =
        service.greeting.lines().filter_map(|line| line.trim().strip_prefix("curl ")).collect();
    assert_eq!(lines.len(), 3, "{}", service.greeting);
    let shell = |line: &str| {
        let output = Command::new("sh")
            .args(["-c", &format!("curl {line}")])
            .output()
            .expect("there is a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // A machine may be so fast, or so slow, that it is all or nothing; it is one of these.
    let search = shell(lines[0]);
    assert!(search.contains("\"partial\"") || search.contains("deadline_exceeded"), "{search}");
    let report = shell(lines[1]);
    assert!(report.contains("deadline_exceeded") && report.contains("\"origin\""), "{report}");
    let stats = shell(lines[2]);
    assert!(stats.contains("canceled_by_client"), "{stats}");
    let stats = service.stats_until("the client that hung up is counted", |stats| {
        stats["requests"]["canceled_by_client"] == 1 && !a_request_queries(stats)
    });
    assert!(stats["sqlite"]["interrupted"].as_u64() >= Some(2), "{stats:#}");
}

#[test]
fn a_signal_lets_requests_finish_within_the_grace_and_then_interrupts_them() {
    for signal in ["-INT", "-TERM"] {
        let mut service = Service::start(&["--rows", "120000", "--grace-ms", "50"]);
        let client = service.send("/report?timeout_ms=60000");
        service.stats_until("its query runs", a_request_queries);
        service.signal(signal);
        let (status, body) = read_answer(client);
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("the server is shutting down"), "{body}");
        let (said, code) = service.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("1 in flight, with 50 ms to finish"), "{said}");
        assert!(said.contains("canceled: task request 1 /report (demo/src/server.rs:"), "{said}");
        assert!(said.contains("nothing left"), "{said}");
        assert!(TcpStream::connect(&service.address).is_err(), "it has stopped listening");
    }
}

/// Whether the report of a forced shutdown names a request. Its query is interrupted, so it may come to its end just in time to be
/// counted as canceled.
fn is_named(said: &str, request: usize) -> bool {
    let named = format!(": task request {request} /report (demo/src/server.rs:");
    ["abandoned", "canceled"].iter().any(|how| said.contains(&format!("{how}{named}")))
}

#[test]
fn a_signal_with_nothing_to_do_ends_it_at_once_and_a_second_one_forces_it() {
    let mut idle = Service::start(&["--grace-ms", "60000"]);
    idle.signal("-INT");
    let (said, code) = idle.finish();
    assert!(code == Some(0) && said.contains("nothing left"), "{said}");

    let mut busy = Service::start(&["--rows", "120000", "--grace-ms", "60000"]);
    let _client = busy.send("/report?timeout_ms=60000");
    busy.stats_until("its query runs", a_request_queries);
    busy.signal("-INT");
    while !busy.line().expect("it goes on").contains("in flight") {}
    busy.signal("-INT");
    let (said, code) = busy.finish();
    assert!(
        code == Some(130) && said.contains("forced down after") && is_named(&said, 1),
        "{code:?} {said}"
    );
}

#[test]
fn a_request_that_finishes_within_the_grace_is_answered() {
    let mut service = Service::start(&["--rows", "120000", "--grace-ms", "60000"]);
    let client = service.send("/report?timeout_ms=300");
    service.stats_until("its query runs", a_request_queries);
    service.signal("-INT");
    assert_eq!(read_answer(client).0, 504, "its own deadline, and not the shutdown");
    let (said, code) = service.finish();
    assert!(code == Some(0) && said.contains("drain: ") && !said.contains("canceled:"), "{said}");
}

/// As many as the pool has connections for are at work, and more wait for one.
const CROWD: usize = 24;

/// A service under load: this many reports, all begun.
fn crowded(grace_ms: &str) -> (Service, Vec<TcpStream>) {
    let service = Service::start(&["--rows", "120000", "--grace-ms", grace_ms]);
    let clients = (0..CROWD).map(|_| service.send("/report?timeout_ms=60000")).collect();
    service.stats_until("all have begun", |stats| {
        stats["requests"]["in_flight"] == CROWD && a_request_queries(stats)
    });
    (service, clients)
}

#[test]
fn under_load_a_signal_leaves_no_request_without_an_answer_or_a_name() {
    let (mut service, clients) = crowded("50");
    service.signal("-INT");
    for client in clients {
        assert_eq!(read_answer(client).0, 503);
    }
    let (said, code) = service.finish();
    assert_eq!(code, Some(0), "{said}");
    for n in 1..=CROWD {
        assert!(said.contains(&format!("canceled: task request {n} /report")), "{n}: {said}");
    }
    assert!(said.contains("nothing left"), "{said}");
}

#[test]
fn under_load_a_second_signal_leaves_at_once_and_names_every_request() {
    let (mut service, _clients) = crowded("600000");
    service.signal("-INT");
    while !service.line().expect("it goes on").contains("in flight") {}
    service.signal("-TERM");
    let (said, code) = service.finish();
    assert_eq!(code, Some(128 + 15), "{said}");
    for n in 1..=CROWD {
        assert!(is_named(&said, n), "{n}: {said}");
    }
}

#[test]
fn the_stats_show_tasks_by_state() {
    let service = Service::start(&["--rows", "120000"]);
    let client = service.send("/search?q=storm&slow=1&timeout_ms=60000");
    let stats = service.stats_until("the shards are at work", |stats| {
        stats["tasks"]["groups"]["shards"].as_array().is_some_and(|tasks| tasks.len() == 4)
    });
    let groups = &stats["tasks"]["groups"];
    let first = |group: &str| groups[group][0].as_str().unwrap_or_default().to_owned();
    assert!(first("background").starts_with("task refresher (demo/src/main.rs:"), "{stats:#}");
    assert!(first("shards").contains("(demo/src/search.rs:"), "{stats:#}");
    assert!(stats["tasks"]["running"].as_u64() >= Some(5), "{stats:#}");
    drop(client);
    service.stats_until("its shards are gone", |stats| {
        stats["tasks"]["groups"]["shards"].is_null() && stats["tasks"]["canceled"] == 0
    });
}

#[test]
fn the_stats_count_contexts_and_timers_and_nothing_is_left_of_a_client_that_hangs_up() {
    let service = Service::start(&["--rows", "120000"]);
    let alive = |stats: &Value| {
        ["contexts", "timers"].map(|what| stats["alive"][what].as_u64().expect("it is served"))
    };
    // The refresher has its moments. What is there between them is what is always there.
    let at_rest = |stats: &Value| {
        stats["sqlite"]["running"] == 0
            && stats["requests"]["in_flight"] == 0
            && stats["refresher"]["runs"].as_u64() >= Some(1)
            && stats["tasks"]["groups"]["shards"].is_null()
    };
    let before = alive(&service.stats_until("the first refresh is over", at_rest));
    let client = service.send("/search?q=storm&slow=1&timeout_ms=60000");
    service.stats_until("the search is held by many, and its deadline waited for", |stats| {
        alive(stats)[0] > before[0] && alive(stats)[1] > before[1]
    });
    drop(client);
    service.stats_until("nothing is left of it", |stats| {
        at_rest(stats) && alive(stats)[0] <= before[0] && alive(stats)[1] <= before[1]
    });
}

#[test]
fn a_busy_port_bad_arguments_and_bad_data_are_told_in_a_sentence() {
    let service = Service::start(&[]);
    let port = service.address.rsplit(':').next().expect("a port");
    let (code, said) = refuses(&["--port", port]);
    assert!(code == Some(1) && said.contains("is in use") && said.contains("--port 0"), "{said}");
    for args in [
        &["--port", "x"][..],
        &["--port", "70000"],
        &["--port"],
        &["--bogus"],
        &["--grace-ms", "-1"],
    ] {
        let (code, said) = refuses(args);
        assert!(
            code == Some(2) && said.starts_with("purview-demo: ") && said.lines().count() == 1,
            "{args:?}: {said}"
        );
    }
    let junk = service.folder.join("junk.db");
    std::fs::write(&junk, "this is no database, however long it is said to be one")
        .expect("the folder is there");
    let (code, said) = refuses(&["--port", "0", "--data", &junk.display().to_string()]);
    assert!(code == Some(1) && said.contains("is not an SQLite database"), "{said}");
    let (code, said) =
        refuses(&["--port", "0", "--data", &junk.join("below").display().to_string()]);
    assert!(code == Some(1) && said.starts_with("purview-demo: "), "{said}");
    let help = program(&["--help"]).output().expect("the program is built");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--grace-ms"));
}

#[test]
fn the_data_is_made_once_and_found_again() {
    let mut first = Service::start(&[]);
    assert!(first.greeting.contains("made 20000 notes"), "{}", first.greeting);
    let data = first.folder.join("notes.db").display().to_string();
    first.signal("-INT");
    let (_, code) = first.finish();
    assert_eq!(code, Some(0));
    let second = Service::start(&["--data", &data]);
    assert!(!second.greeting.contains("made"), "{}", second.greeting);
    assert_eq!(second.json("/search?q=storm&timeout_ms=60000").0, 200);
}
