//! Runs each test in a process of its own.
#![expect(clippy::print_stdout, reason = "says what was run, as the harness would")]

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use crate::{actions, forks, golang, hearing, input, support};

/// What a test's process is to come to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum End {
    /// It finishes, and every assertion of it holds.
    Success,
    /// It finishes, having printed this.
    Prints(&'static str),
    /// It is killed by this signal, having printed [`support::READY`] before.
    Killed(i32),
}

pub(crate) type Test = (&'static str, fn(), End);

/// The tests of a topic, each with what it is to come to.
macro_rules! tests {
    ($($name:ident => $end:expr,)*) => {
        pub(crate) const TESTS: &[crate::unix::Test] = {
            use crate::unix::End;
            &[$((stringify!($name), $name, $end)),*]
        };
    };
}
pub(crate) use tests;

/// Tells a process that it is to run one test.
const RUN: &str = "PURVIEW_SIGNAL_TEST";

pub(crate) fn main() -> ExitCode {
    let tests =
        [golang::TESTS, actions::TESTS, hearing::TESTS, forks::TESTS, input::TESTS].concat();
    if let Ok(name) = env::var(RUN) {
        let (_, test, _) = tests.iter().find(|test| test.0 == name).expect("one of the tests");
        support::alarm(60);
        support::forget_what_was_inherited();
        test();
        return ExitCode::SUCCESS;
    }
    let wanted = env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    let mut passed = 0;
    for (name, _, end) in tests.iter().filter(|test| test.0.contains(&wanted)) {
        match run(name, *end) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn run(name: &str, end: End) -> Result<(), String> {
    let program = env::current_exe().expect("Unix tells");
    let output = Command::new(program).env(RUN, name).output().expect("started as this was");
    let said = String::from_utf8_lossy(&output.stdout);
    let as_expected = match end {
        End::Success => output.status.success(),
        End::Prints(text) => output.status.success() && said.contains(text),
        End::Killed(signal) => {
            output.status.signal() == Some(signal) && said.contains(support::READY)
        }
    };
    if as_expected {
        return Ok(());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}, and not {end:?}\n{said}{complaints}", output.status))
}
