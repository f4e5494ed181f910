//! Children: this program again, to run one test's code in a process of its own.
//!
//! The code runs where the test is, in the child; in this process the same call gives the command that starts it. So what a
//! fault is done to stands in the test.

use std::any::type_name;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::support::sys;

/// Says to a process that it is a child.
const IS_CHILD: &str = "PURVIEW_FAULT";
/// What a child ends with that came to the end of its code. Not 0: so ends one that has found no such test.
pub(crate) const DONE: i32 = 42;
/// Nothing here takes so long; it is for a machine that is busy. A child that hangs is ended by the alarm.
const LONG: u32 = 120;

/// In a child, runs `code`, and ends. In the parent, the command that does so, behind a program that changes its surroundings,
/// if one is given.
pub(crate) fn command<F: FnOnce()>(before: &[&str], code: F) -> Command {
    let name = type_name::<F>();
    if std::env::var_os(IS_CHILD).is_some() {
        sys::alarm(LONG);
        code();
        std::process::exit(DONE);
    }
    let name = name.split_once("::").map_or(name, |(_binary, name)| name);
    let name = name.split_once("::{{closure}}").expect("a closure, in a test").0;
    let program = std::env::current_exe().expect("it is known");
    let mut command = match before {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(["--exact", name, "--nocapture", "--test-threads", "1"]);
    command.env(IS_CHILD, "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Has a child run `code` to its end.
pub(crate) fn alone<F: FnOnce()>(code: F) {
    let ended = Running::start(command(&[], code)).end();
    ended.is(DONE);
}

/// The same, under a program that changes its surroundings. False, having said so, where that program cannot be had.
pub(crate) fn alone_under<F: FnOnce()>(before: &[&str], code: F) -> bool {
    let command = command(before, code);
    let (first, rest) = before.split_first().expect("a program");
    let tried = Command::new(first).args(rest).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: {} cannot be had here", before.join(" "));
        return false;
    }
    Running::start(command).end().is(DONE);
    true
}

/// A child that runs. Dropping it ends it.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        Running(Some(command.spawn().expect("started as this was")))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn pid(&self) -> i32 {
        let child = self.0.as_ref().expect("it has not been waited for");
        i32::try_from(child.id()).expect("it is one")
    }

    /// Waits for its end, which its alarm brings on if nothing else does.
    pub(crate) fn end(mut self) -> Ended {
        let child = self.0.take().expect("it has not been waited for");
        let output = child.wait_with_output().expect("it is this process's");
        let said = [output.stdout, output.stderr].concat();
        Ended { status: output.status, said: String::from_utf8_lossy(&said).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = (child.kill(), child.wait());
        }
    }
}

/// How a child has ended.
pub(crate) struct Ended {
    status: ExitStatus,
    said: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn is(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{}: {}", self.status, self.said);
    }
}
