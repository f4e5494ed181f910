//! The command line: five flags, read by hand, with a clear sentence for whatever is wrong.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
purview-demo: a small HTTP search service that lives by purview

Usage: cargo run --release -p purview-demo [-- FLAGS]

  --port N       listen on 127.0.0.1:N; 0 takes any free port (default 7878)
  --data PATH    the SQLite file, made on the first start
                 (default demo/data/notes.db, or in the system's folder for temporary
                 files when there is no folder named demo here)
  --rows N       how many notes to make if the file is new (default 120000)
  --upstream URL another instance, which /trace asks in its turn: http://127.0.0.1:7879
  --grace-ms N   how long requests may go on after Ctrl-C (default 3000)
  --help         this text

It serves on that port
  /                                   a page to try it with
  /search?q=storm&timeout_ms=1000     full-text search; slow=1 asks for an order that takes
                                      SQLite seconds: every match compared with every other
  /report?timeout_ms=30000            a slow report
  /trace?timeout_ms=1000              the time that is left, here and at the upstream
  /stats                              its own counters

Ctrl-C or SIGTERM stops it; a second one stops it at once.";

/// The longest grace: ten minutes.
const MOST_GRACE_MS: u64 = 600_000;
/// The most notes: about 3 GB of them.
const MOST_ROWS: u64 = 10_000_000;

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Run the service.
    Serve(Args),
    /// Print the help.
    Help,
}

/// How to run the service.
#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    /// The port on 127.0.0.1; 0 for any.
    pub(crate) port: u16,
    /// The database file.
    pub(crate) data: PathBuf,
    /// Notes to make if the file is new.
    pub(crate) rows: u32,
    /// How long requests may go on after the first signal.
    pub(crate) grace: Duration,
    /// The instance behind this one.
    pub(crate) upstream: Option<Uri>,
}

impl Command {
    /// Reads the arguments that follow the program's name. The error is a sentence.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = Args {
            port: 7878,
            data: default_data(),
            rows: 120_000,
            grace: Duration::from_secs(3),
            upstream: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let flag = word.to_string_lossy();
            let mut number = |most: u64| number(&flag, words.next(), most);
            match &*flag {
                "--port" => args.port = number(u64::from(u16::MAX))? as u16,
                "--rows" => args.rows = number(MOST_ROWS)? as u32,
                "--grace-ms" => args.grace = Duration::from_millis(number(MOST_GRACE_MS)?),
                "--data" => {
                    args.data = words.next().ok_or("--data needs a path after it")?.into();
                }
                "--upstream" => args.upstream = Some(url(words.next())?),
                "--help" | "-h" => return Ok(Self::Help),
                _ => {
                    return Err(format!(
                        "unknown argument {flag}: there are --port, --data, --rows, --upstream, --grace-ms and --help"
                    ));
                }
            }
        }
        if args.data.file_name().is_none() {
            return Err(format!("--data {} does not name a file", args.data.display()));
        }
        if args.rows < 100 {
            return Err(format!("--rows {} is too few: at least 100, please", args.rows));
        }
        Ok(Self::Serve(args))
    }
}

/// Where an instance is: a scheme and an address.
fn url(word: Option<OsString>) -> Result<Uri, String> {
    let word = word.ok_or("--upstream needs a URL after it, as http://127.0.0.1:7879")?;
    let word = word.to_string_lossy();
    let uri: Option<Uri> = word.parse().ok();
    let is_whole = |uri: &Uri| {
        uri.scheme_str() == Some("http") && uri.authority().is_some() && uri.path() == "/"
    };
    uri.filter(is_whole)
        .ok_or_else(|| format!("--upstream {word}: a URL, please, as http://127.0.0.1:7879"))
}

fn number(flag: &str, word: Option<OsString>, most: u64) -> Result<u64, String> {
    let word = word.ok_or_else(|| format!("{flag} needs a number after it"))?;
    let word = word.to_string_lossy();
    match word.parse() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(format!("{flag} {word}: a whole number from 0 to {most}, please")),
    }
}

/// Inside the repository its own folder, which git ignores; anywhere else nothing is left lying
/// about in the current folder.
fn default_data() -> PathBuf {
    if Path::new("demo/Cargo.toml").exists() {
        Path::new("demo/data").join("notes.db")
    } else {
        std::env::temp_dir().join("purview-demo").join("notes.db")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_flag_is_read() {
        let Ok(Command::Serve(args)) = parse("--port 0 --data x.db --rows 1000 --grace-ms 50")
        else {
            panic!("refused");
        };
        assert_eq!((args.port, args.rows, args.grace.as_millis()), (0, 1_000, 50));
        assert_eq!(args.data, Path::new("x.db"));
        assert_eq!(parse("--port 1 --help"), Ok(Command::Help));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, says) in [
            ("--prot 1", "unknown argument --prot"),
            ("extra", "unknown argument extra"),
            ("--port", "needs a number"),
            ("--port x", "--port x: a whole number from 0 to 65535"),
            ("--port 65536", "from 0 to 65535"),
            ("--port -1", "from 0 to 65535"),
            ("--grace-ms 1.5", "a whole number"),
            ("--rows 99", "too few"),
            ("--data", "needs a path"),
            ("--data ..", "does not name a file"),
            ("--upstream", "needs a URL"),
            ("--upstream 127.0.0.1:7879", "a URL, please"),
            ("--upstream https://127.0.0.1:7879", "a URL, please"),
            ("--upstream http://127.0.0.1:7879/trace", "a URL, please"),
        ] {
            let refused = parse(line).unwrap_err();
            assert!(refused.contains(says), "{line}: {refused}");
        }
    }
}
