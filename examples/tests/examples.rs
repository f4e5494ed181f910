//! Runs every example as a user does, and checks all that it says.
//!
//! No time is measured: what an example prints, and in what order, does not depend on how fast the
//! machine is. A program that hangs is a failure, and is killed whatever happens.

#[cfg(unix)]
use std::io::Write;
use std::io::{BufRead, BufReader, Read};
#[cfg(unix)]
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Nothing takes as long, unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

#[test]
fn worker_pool_every_worker_works_and_is_stopped() {
    let lines = output(env!("CARGO_BIN_EXE_worker_pool"));
    let mut workers = 0;
    for id in 0..3 {
        let of_worker: Vec<_> =
            lines.iter().filter(|line| line.starts_with(&format!("Worker {id} "))).collect();
        let (stopped, working) = of_worker.split_last().expect("each worker says something");
        assert_eq!(**stopped, format!("Worker {id} stopped: context canceled"));
        assert!(!working.is_empty(), "worker {id} has worked");
        assert!(working.iter().all(|line| **line == format!("Worker {id} is working...")));
        workers += of_worker.len();
    }
    assert_eq!(workers, lines.len(), "nobody else says anything: {lines:?}");
}

#[test]
fn task_group_the_first_failure_cancels_the_others_and_who_does_not_listen_is_named() {
    let mut lines = output(env!("CARGO_BIN_EXE_task_group"));
    lines[..2].sort();
    assert_eq!(
        lines,
        [
            "Shard 1 stopped: context canceled: no such index",
            "Shard 2 stopped: context canceled: no such index",
            "Failed: shard 3 (no such index)",
            "Finished: 1",
            "Aborted: forgetful",
        ]
    );
}

#[test]
fn shutdown_phases_what_finishes_what_is_canceled_and_what_is_left_behind() {
    assert_eq!(
        output(env!("CARGO_BIN_EXE_shutdown_phases")),
        [
            "The slow job stops: context canceled: SIGTERM",
            "The database is closed.",
            "stop accepting: 0 finished, 0 canceled",
            "drain: 1 finished, 1 canceled",
            "cancel: 0 finished, 0 canceled",
            "close: 1 finished, 0 canceled",
            "Abandoned: deaf job",
            "Exit code: 1",
        ]
    );
}

#[test]
fn select_on_threads_the_jobs_are_done_and_the_end_stops_who_waits_for_more() {
    let stopped = |id| format!("Worker {id} stopped: context canceled: nothing left to do");
    let lines = output(env!("CARGO_BIN_EXE_select_on_threads"));
    assert_eq!(lines, ["Sum of squares: 91".to_string(), stopped(0), stopped(1), stopped(2)]);
}

#[test]
fn propagation_tree_an_end_travels_down_only() {
    let late = "context deadline exceeded: the answer took too long [request, Deadline]";
    let stopped = "context canceled: shutting down [server, Call]";
    let tree = |title: &str, states: [&str; 5]| {
        let labels = [
            "background                     ",
            "└─ cancel: server              ",
            "   ├─ timeout: request         ",
            "   │  └─ value: user_id=123    ",
            "   └─ cancel: stream           ",
        ];
        let mut lines = vec![title.to_owned()];
        lines.extend(labels.iter().zip(states).map(|(label, state)| format!("{label}{state}")));
        lines
    };
    let expected = [
        tree("Everything is alive.", ["live"; 5]),
        vec![String::new()],
        tree(
            "The request's time is up: its branch has ended, the other has not.",
            ["live", "live", late, late, "live"],
        ),
        vec![String::new()],
        tree(
            "The server is canceled: all below it that was alive has ended.",
            ["live", stopped, late, late, stopped],
        ),
    ];
    assert_eq!(output(env!("CARGO_BIN_EXE_propagation_tree")), expected.concat());
}

#[test]
fn timeout_504_the_client_gets_its_answer_and_the_work_is_stopped() {
    let mut lines = output(env!("CARGO_BIN_EXE_timeout_504"));
    assert_eq!(lines.remove(0), "server: GET /report");
    lines.sort();
    let why = "context deadline exceeded: a report has two seconds";
    assert_eq!(
        lines,
        [format!("client: 504 Gateway Timeout: {why}"), format!("report: told to stop: {why}")]
    );
}

#[cfg(unix)]
#[test]
fn graceful_server_requests_in_flight_have_the_grace_and_no_more() {
    let server = Program::start(env!("CARGO_BIN_EXE_graceful_server"));
    let serving = server.line();
    let (_, rest) = serving.split_once("http://").expect("it says where it serves");
    let (address, rest) = rest.split_once('/').expect("and what");
    assert_eq!(rest, format!("second and http://{address}/hour"));

    let unknown = get(address, "/").answer();
    assert_eq!(unknown, ("404 Not Found".into(), "try /second or /hour\n".into()));

    let second = get(address, "/second");
    let hour = get(address, "/hour");
    let mut started = [server.line(), server.line()];
    started.sort();
    assert_eq!(started, ["/hour: started", "/second: started"]);

    server.interrupt();
    let mut next = [server.line(), server.line()];
    next.sort(); // if we were held up, the second was over before the signal
    assert_eq!(next, ["/second: finished", "stopping: context canceled: Ctrl-C"]);
    assert!(TcpStream::connect(address).is_err(), "it no longer accepts");

    assert_eq!(server.line(), "/hour: told to stop: context canceled: Ctrl-C");
    assert_eq!(server.line(), "stopped");
    assert_eq!(server.finish(), [""; 0]);

    assert_eq!(second.answer(), ("200 OK".into(), "finished\n".into()));
    assert_eq!(
        hour.answer(),
        ("503 Service Unavailable".into(), "context canceled: Ctrl-C\n".into())
    );
}

#[test]
fn cleanup_with_grace_saves_what_there_is_time_for() {
    let why = "context canceled: the operator said so";
    assert_eq!(
        output(env!("CARGO_BIN_EXE_cleanup_with_grace")),
        [
            format!("import: {why}"),
            format!("save: gave up: {why} [Call]"),
            "save with grace: three records of import".to_owned(),
            format!("goodbye with grace: gave up: {why} [GraceOver]"),
        ]
    );
}

#[test]
fn merging_ends_with_the_first_parent_and_keeps_its_reason() {
    assert_eq!(
        output(env!("CARGO_BIN_EXE_merging")),
        [
            "ann: context canceled: the client hung up [request]",
            "the server goes on, with 0 requests",
            "",
            "ben: context canceled: maintenance [shutdown]",
            "the request itself: live",
        ]
    );
}

#[test]
fn thread_and_task_both_hear_of_the_end() {
    let lines = output(env!("CARGO_BIN_EXE_thread_and_task"));
    let [before, heard @ .., after] = &lines[..] else { panic!("too few lines: {lines:?}") };
    assert_eq!((before.as_str(), after.as_str()), ("2 wait", "0 wait"));
    let mut heard = heard.to_vec();
    heard.sort();
    assert_eq!(
        heard,
        [
            "the task heard: context canceled: that will do",
            "the thread heard: context canceled: that will do",
        ]
    );
}

#[test]
fn request_tracing_every_layer_sees_what_was_set_above_it() {
    let lines = output(env!("CARGO_BIN_EXE_request_tracing"));
    let of = |id: u32| -> Vec<_> {
        lines.iter().filter_map(|line| line.strip_prefix(&format!("request={id} "))).collect()
    };
    for (id, user) in [(1, "ann"), (2, "ben")] {
        let query = |span: &str| {
            format!(
                "user={user} span={span} queries in \
                 Context(background.value(request_id={id}).value(user).value(span=\"{span}\"), live)"
            )
        };
        let expected = [
            "user=- span=- begins".to_owned(),
            query("orders"),
            query("invoices"),
            "user=- span=- ends".to_owned(),
        ];
        assert_eq!(of(id), expected);
    }
    assert_eq!(of(3), ["user=- span=- begins", "user=- span=- refused", "user=- span=- ends"]);
    assert_eq!(lines.len(), 4 + 4 + 3);
}

#[test]
fn manual_clock_ten_seconds_pass_as_written() {
    assert_eq!(
        output(env!("CARGO_BIN_EXE_manual_clock")),
        [
            " 0 s  tried, and failed",
            " 1 s  tried, and failed",
            " 3 s  tried, and failed",
            " 7 s  tried, and failed",
            "10 s  gave up: context deadline exceeded",
        ]
    );
}

/// Runs a program to its end, and gives the lines that it printed.
fn output(program: &str) -> Vec<String> {
    Program::start(program).finish()
}

/// A running example. Dropping it kills it.
struct Program {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Program {
    fn start(program: &str) -> Self {
        let mut child = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built for this test");
        let lines = lines_of(child.stdout.take().expect("it is piped"));
        let errors = lines_of(child.stderr.take().expect("it is piped"));
        Program { child, lines, errors }
    }

    /// The next line that it prints.
    #[cfg(unix)]
    fn line(&self) -> String {
        self.lines.recv_timeout(HANGS).expect("it prints another line, in time")
    }

    /// Sends SIGINT, as Ctrl-C does.
    #[cfg(unix)]
    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("there is a kill");
        assert!(sent.success());
    }

    /// Waits for its end, and gives the lines that are left. It must have succeeded, and have said
    /// nothing on stderr.
    fn finish(mut self) -> Vec<String> {
        let printed = rest(&self.lines);
        assert_eq!(rest(&self.errors), [""; 0], "nothing on stderr");
        let status = self.child.wait().expect("it closed both pipes: it has exited");
        assert!(status.success(), "{status}");
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have exited
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, as they come.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let line = line.expect("the examples print UTF-8");
            if sender.send(line).is_err() {
                break; // the test is over
            }
        }
    });
    receiver
}

/// The lines until the pipe is closed.
fn rest(lines: &Receiver<String>) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(HANGS) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("it hangs, after {rest:?}"),
        }
    }
}

/// A request on its way.
#[cfg(unix)]
struct Request(Receiver<(String, String)>);

#[cfg(unix)]
impl Request {
    /// The answer's status and body.
    fn answer(self) -> (String, String) {
        self.0.recv_timeout(HANGS).expect("it is answered, in time")
    }
}

#[cfg(unix)]
fn get(address: &str, path: &str) -> Request {
    let (sender, receiver) = channel();
    let mut connection = TcpStream::connect(address).expect("it accepts");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("it reads");
    thread::spawn(move || {
        let mut response = String::new();
        connection.read_to_string(&mut response).expect("it answers");
        let (head, body) = response.split_once("\r\n\r\n").expect("there is a head");
        let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let _ = sender.send((status.expect("it is HTTP").to_owned(), body.to_owned()));
    });
    Request(receiver)
}
