//! Go's `context`, real: a process that runs programs.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Program;

/// A process of Go's that waits for programs.
#[derive(Debug)]
pub struct Go {
    process: Child,
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
}

/// Where Go is: in the folder of `cargo xtask tools`, or among the system's programs.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin");
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(tools).chain(std::env::split_paths(&paths));
    folders.find_map(|folder| Some(folder.join("go")).filter(|path| path.is_file()))
}

/// Builds the program of `go/`, into a folder.
///
/// # Errors
/// When Go cannot be started, or says that it cannot be built.
pub fn build(go: &Path, folder: &Path) -> io::Result<PathBuf> {
    let program = folder.join("conformance");
    let output = Command::new(go)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go"))
        .args(["test", "-c", "-o"])
        .arg(&program)
        .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-buildvcs=false")])
        .envs([("GOCACHE", folder.join("cache")), ("GOPATH", folder.join("path"))])
        .output()?;
    if output.status.success() {
        Ok(program)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

impl Go {
    /// Starts one that runs programs.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn start(program: &Path) -> io::Result<Go> {
        Go::start_test(program, "TestRun")
    }

    /// Starts one that runs races.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn start_races(program: &Path) -> io::Result<Go> {
        Go::start_test(program, "TestRaces")
    }

    fn start_test(program: &Path, test: &str) -> io::Result<Go> {
        let mut command = Command::new(program);
        command.args([&format!("-test.run=^{test}$"), "-test.timeout=0"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().map(BufWriter::new);
        let output = process.stdout.take().map(BufReader::new);
        let output = output.ok_or_else(|| io::Error::other("it was to be piped"))?;
        Ok(Go { process, input, output })
    }

    /// Sends programs, which are then run.
    ///
    /// # Errors
    /// When the process is gone.
    ///
    /// # Blocking
    /// When more is sent than is read: a few dozen programs are no trouble.
    pub fn send(&mut self, programs: &[Program]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        programs.iter().try_for_each(|program| writeln!(input, "{program}"))?;
        input.flush()
    }

    /// What the next of them showed.
    ///
    /// # Errors
    /// When the process is gone.
    ///
    /// # Blocking
    /// Until it has run.
    pub fn receive(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end_matches('\n');
            if text == END {
                return Ok(lines);
            }
            lines.push(text.to_string());
        }
    }

    /// A line, and the answer to it.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<Vec<String>> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")?;
        input.flush()?;
        self.receive()
    }

    /// One program.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn run(&mut self, program: &Program) -> io::Result<Vec<String>> {
        self.send(std::slice::from_ref(program))?;
        self.receive()
    }
}

/// Behind what a program shows. Its lines can be empty.
const END: &str = ".";

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.input.take()); // it ends by itself
        let _ = self.process.wait();
    }
}
