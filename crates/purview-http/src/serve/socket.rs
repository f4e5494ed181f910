//! A connection's socket, wherever it goes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use purview::shutdown::Hold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::Line;
use super::timer::ContextTimer;

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection's socket. After an upgrade it is no longer hyper's, and still holds the drain.
pub(super) struct Socket {
    line: Arc<Line>,
    /// As much of the preface as has come.
    preface: usize,
    patience: Patience,
    _hold: Hold,
}

/// With a client that reads nothing of what it is sent.
pub(super) struct Patience {
    timer: ContextTimer,
    timeout: Duration,
    /// Since the system's buffer is full.
    waiting: Option<Pin<Box<dyn Sleep>>>,
}

impl Patience {
    pub(super) fn new(timer: ContextTimer, timeout: Duration) -> Patience {
        Patience { timer, timeout, waiting: None }
    }

    /// What is written, or an error when nothing was for too long.
    fn poll(
        &mut self,
        task: &mut Task<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| self.timer.sleep(self.timeout));
        waiting.as_mut().poll(task).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Socket {
    pub(super) fn new(line: Arc<Line>, patience: Patience, hold: Hold) -> Socket {
        Socket { line, preface: 0, patience, _hold: hold }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.preface..];
        let common = expected.len().min(bytes.len());
        self.preface += common;
        let is_preface = expected[..common] == bytes[..common];
        if !is_preface || self.preface == PREFACE.len() {
            self.preface = PREFACE.len();
            self.line.decide(is_preface);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = self.line.poll_read(task, into);
        if self.preface < PREFACE.len() {
            self.look_at(&into.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(task, &[IoSlice::new(bytes)])
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, _task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.line.note_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.line.end_writing())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.line.poll_write(task, slices);
        self.patience.poll(task, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
