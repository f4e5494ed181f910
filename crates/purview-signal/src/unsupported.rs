//! Systems without the signals of Unix: there is nothing to listen to. The face of `unix.rs`, which says so.

use std::io::{self, ErrorKind};

use crate::signal::Signal;

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGQUIT: i32 = 3;
pub(crate) const SIGUSR1: i32 = 10;
pub(crate) const SIGUSR2: i32 = 12;
pub(crate) const SIGTERM: i32 = 15;

pub(crate) const UNSTOPPABLE: [i32; 0] = [];
pub(crate) const FAULTS: [i32; 0] = [];

/// The constants, by the numbers that they have on Linux.
pub(crate) const NAMES: [(i32, &str); 6] = [
    (SIGHUP, "SIGHUP"),
    (SIGINT, "SIGINT"),
    (SIGQUIT, "SIGQUIT"),
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
    (SIGTERM, "SIGTERM"),
];

pub(crate) fn exists(_: i32) -> bool {
    false
}

pub(crate) struct Action;

pub(crate) fn take(_: Signal) -> io::Result<Action> {
    Err(ErrorKind::Unsupported.into())
}

pub(crate) fn restore(_: Signal, _: &Action) {}

pub(crate) fn counted(_: Signal) -> u32 {
    0
}

pub(crate) struct Line;

impl Line {
    pub(crate) fn new() -> io::Result<Line> {
        let why = "signals are listened for on Unix only";
        Err(io::Error::new(ErrorKind::Unsupported, why))
    }

    pub(crate) fn open(&self) {}

    pub(crate) fn is_open_here(&self) -> bool {
        false
    }

    pub(crate) fn empty(&self, _: impl FnMut(u8)) {}

    pub(crate) fn reader(&self) -> Reader {
        Reader
    }
}

pub(crate) struct Reader;

impl Reader {
    pub(crate) fn wait(&self) -> bool {
        false
    }
}
