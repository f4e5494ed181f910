//! What it was measured on.

use std::fs;
use std::path::Path;
use std::thread;

use super::go::Go;
use crate::output;

/// Names and what they are here, in the order in which they are told.
pub(crate) type Facts = Vec<(&'static str, String)>;

pub(crate) fn facts(root: &Path, go: Option<&Go>) -> Facts {
    let say = |program: &str, arg: &str| {
        output(program, &[arg.to_string()], &[]).map(|said| said.trim().to_string())
    };
    let unknown = || "unknown".to_string();
    vec![
        ("date", say("date", "+%Y-%m-%d %H:%M").unwrap_or_else(|_| unknown())),
        ("cpu", cpu().unwrap_or_else(unknown)),
        ("load before", load().unwrap_or_else(unknown)),
        ("cores", thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("kernel", say("uname", "-sr").unwrap_or_else(|_| unknown())),
        ("rustc", say("rustc", "--version").unwrap_or_else(|_| unknown())),
        ("purview", locked(root, "purview").unwrap_or_else(unknown)),
        ("tokio", locked(root, "tokio").unwrap_or_else(unknown)),
        ("tokio-util", locked(root, "tokio-util").unwrap_or_else(unknown)),
        ("go", go.map_or("not run".to_string(), |go| go.version.clone())),
    ]
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, name) = text.lines().find(|line| line.starts_with("model name"))?.split_once(':')?;
    Some(name.trim().to_string())
}

/// How many were running or waiting to, on average over a minute.
fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next().map(str::to_string)
}

/// The version in Cargo.lock.
fn locked(root: &Path, package: &str) -> Option<String> {
    let text = fs::read_to_string(root.join("Cargo.lock")).ok()?;
    let (_, rest) = text.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0.to_string())
}
