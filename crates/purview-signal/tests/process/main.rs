//! Signals are the whole process's, and some of them end it: each test is a process of its own, which this program starts
//! from itself. What it is to come to is part of the test.
//!
//! With an argument it runs the tests whose names contain it. A test that hangs is ended by an alarm.

#[cfg(unix)]
mod actions;
#[cfg(unix)]
mod forks;
#[cfg(unix)]
mod golang;
#[cfg(unix)]
mod hearing;
#[cfg(unix)]
mod input;
#[cfg(unix)]
mod support;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    use std::io::ErrorKind;
    let refused = purview_signal::notify(
        &purview::Context::background(),
        [purview_signal::Signal::INTERRUPT],
    );
    assert_eq!(refused.expect_err("no Unix").kind(), ErrorKind::Unsupported);
}
