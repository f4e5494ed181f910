//! A connection, as two have it: hyper, which reads and writes (socket.rs), and the connection's task, which watches whether the client
//! is still there (watch.rs).
//!
//! What always holds:
//!
//! - I1. The letter that may be sent ahead is sent between two answers: all of the last one has gone to the system, and nothing of the
//!   next one has been written.
//! - I2. It is sent once, and taken off the next answer; so what the client reads is what hyper wrote, byte for byte.
//!
//! While there is a watch, it and hyper are polled by one task, one after the other. When an upgrade hands the socket to another
//! task, the watch is over. So the flags are atomics for the compiler's sake, and relaxed.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// The first letter of every answer of HTTP/1, whatever its version and status.
const FIRST_LETTER: u8 = b'H';

/// A client of which nothing was heard for so long is asked whether it is there; and so often again, until the system gives up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection.
pub(super) struct Line {
    pub(super) socket: TcpStream,
    /// A request of HTTP/1 waits for the beginning of its answer. Written by the service (watch.rs).
    pub(super) is_awaited: AtomicBool,
    /// All that hyper has written has gone to the system, and nothing waits in its buffer. Written by the socket.
    is_flushed: AtomicBool,
    /// The first letter of the next answer has been sent. Set by the watch, taken back by the socket.
    is_ahead: AtomicBool,
    /// The peer has sent enough to know which HTTP it speaks. Written by the socket.
    is_decided: AtomicBool,
}

impl Line {
    pub(super) fn new(socket: TcpStream) -> Arc<Line> {
        // Either is for the better, and nothing is wrong without it.
        let _ = socket.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        Arc::new(Line {
            socket,
            is_awaited: AtomicBool::new(false),
            is_flushed: AtomicBool::new(true),
            is_ahead: AtomicBool::new(false),
            is_decided: AtomicBool::new(false),
        })
    }

    /// Whether the peer has sent enough to know which HTTP it speaks. Until then hyper waits for more without an end.
    pub(super) fn is_decided(&self) -> bool {
        self.is_decided.load(Ordering::Relaxed)
    }

    pub(super) fn decide(&self) {
        self.is_decided.store(true, Ordering::Relaxed);
    }

    /// Sends the first letter of the next answer, if there is one to come and it has not been sent. (I1, I2)
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn poll_send_ahead(&self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let is_due = self.is_awaited.load(Ordering::Relaxed)
            && self.is_flushed.load(Ordering::Relaxed)
            && !self.is_ahead.load(Ordering::Relaxed);
        if !is_due {
            return Poll::Ready(Ok(()));
        }
        loop {
            // Nobody else waits for it: hyper has nothing to write.
            ready!(self.socket.poll_write_ready(task))?;
            match self.socket.try_write(&[FIRST_LETTER]) {
                Ok(sent) => {
                    self.is_ahead.store(sent == 1, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }

    /// All that hyper had has been written.
    pub(super) fn note_flush(&self) {
        self.is_flushed.store(true, Ordering::Relaxed);
    }

    pub(super) fn poll_read(
        &self,
        task: &mut Task<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(task))?;
            match self.socket.try_read_buf(into) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }

    /// Writes for hyper. (I2)
    pub(super) fn poll_write(
        &self,
        task: &mut Task<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed.store(false, Ordering::Relaxed);
        if self.is_ahead.load(Ordering::Relaxed) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write_behind(task, first.map_or(&[], |slice| slice));
        }
        self.poll_write_through(task, slices)
    }

    fn poll_write_through(
        &self,
        task: &mut Task<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(task))?;
            match self.socket.try_write_vectored(slices) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes what begins with the letter that has been sent.
    fn poll_write_behind(&self, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let rest = match bytes.split_first() {
            None => return Poll::Ready(Ok(0)),
            Some((&FIRST_LETTER, rest)) => rest,
            // No HTTP/1, and so half an answer to nobody.
            Some(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        };
        let written = match rest {
            [] => 0,
            rest => ready!(self.poll_write_through(task, &[IoSlice::new(rest)]))?,
        };
        self.is_ahead.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(1 + written))
    }

    /// Whether the client has sent more than was read.
    pub(super) fn has_unread(&self) -> bool {
        matches!(self.socket.try_read(&mut [0]), Ok(1))
    }

    /// Reads until the client ends, whatever it sends.
    pub(super) async fn discard(&self) {
        let mut scratch = [0; 4096];
        while self.socket.readable().await.is_ok() {
            match self.socket.try_read(&mut scratch) {
                Ok(0) => return,
                Err(err) if err.kind() != io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    pub(super) fn end_writing(&self) -> io::Result<()> {
        SockRef::from(&self.socket).shutdown(Shutdown::Write)
    }
}
