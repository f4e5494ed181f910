//! Processes, and what they say.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use purview::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::service::PATIENCE;

/// Runs a test that hangs for no longer than `PATIENCE`.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .expect("a runtime");
    let (watchdog, _guard) = Context::background().with_timeout(PATIENCE);
    runtime.block_on(watchdog.run(test)).expect("it hangs");
}

/// Where a program is: in the folder of `cargo xtask tools`, or among the system's. None, with a word, where it is not.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin");
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(tools).chain(std::env::split_paths(&paths));
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    if found.is_none() {
        eprintln!("skipped: there is no {name} (cargo xtask tools fetches Go and Envoy)");
    }
    found
}

/// A process that ends with the test, and says things line by line.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) fn start(program: &Path, args: &[&str]) -> Peer {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it can be started");
        let output = child.stdout.take().expect("it is piped");
        let input = child.stdin.take();
        Peer { child, input, lines: BufReader::new(output).lines() }
    }

    /// The next line that it says.
    pub(crate) async fn heard(&mut self) -> String {
        let line = self.lines.next_line().await.expect("text");
        line.expect("it says something more")
    }

    pub(crate) async fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it listens");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it listens");
    }

    /// All that it still says, until it ends by itself.
    pub(crate) async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        drop(self.input.take());
        while let Some(line) = self.lines.next_line().await.expect("text") {
            rest.push(line);
        }
        self.child.wait().await.expect("it ends");
        rest.join("\n")
    }

    /// Ends it as nothing else would: it can do nothing more.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }
}

/// The program of `go/`, which is built once.
pub(crate) fn go() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let go = program("go")?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-peer");
    let built = folder.join("peer");
    let output = std::process::Command::new(go)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/go"))
        .args(["build", "-o"])
        .arg(&built)
        .arg(".")
        .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-buildvcs=false")])
        .envs([("GOCACHE", folder.join("cache")), ("GOPATH", folder.join("path"))])
        .output()
        .expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(built)
}
