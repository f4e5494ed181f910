//! A connection, as two have it: hyper, which reads and writes (socket.rs), and the connection's task, which watches whether the client
//! is still there (watch.rs).
//!
//! What always holds:
//!
//! - I1. A letter is sent ahead between two answers, or between two chunks of one: all of what was before has gone to the system, and
//!   nothing of what comes next has been written.
//! - I2. That of an answer is sent once, and taken off the answer; so what the client reads is what hyper wrote, byte for byte.
//! - I3. That of a chunk is a zero before its size, which may have as many (RFC 9112, 7.1). It is sent once in an answer.
//!
//! While there is a watch, it and hyper are polled by one task, one after the other. When an upgrade hands the socket to another
//! task, the watch is over. So the flags are atomics for the compiler's sake, and relaxed.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// The first letter of every answer of HTTP/1, whatever its version and status.
const OF_ANSWER: u8 = b'H';

/// What every chunk may begin with, the last one, too.
#[cfg(any(target_os = "linux", target_os = "android"))]
const OF_CHUNK: u8 = b'0';

/// What a client of HTTP/1 waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Awaited {
    /// Nothing, or what nobody here can begin.
    Nothing,
    /// The beginning of its answer.
    Answer,
    /// The next chunk of it.
    Chunk,
}

/// A client of which nothing was heard for so long is asked whether it is there; and so often again, until the system gives up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection.
pub(super) struct Line {
    pub(super) socket: TcpStream,
    /// What the client waits for, an [`Awaited`]. Written by the service (watch.rs).
    awaited: AtomicU8,
    /// All that hyper has written has gone to the system, and nothing waits in its buffer. Written by the socket.
    is_flushed: AtomicBool,
    /// The first letter of the next answer has been sent. Set by the watch, taken back by the socket.
    is_ahead: AtomicBool,
    /// The peer has sent enough to know which HTTP it speaks. Written by the socket.
    is_decided: AtomicBool,
    /// And that is HTTP/2. Written by the socket.
    is_http2: AtomicBool,
}

impl Line {
    pub(super) fn new(socket: TcpStream) -> Arc<Line> {
        // Either is for the better, and nothing is wrong without it.
        let _ = socket.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        Arc::new(Line {
            socket,
            awaited: AtomicU8::new(Awaited::Nothing as u8),
            is_flushed: AtomicBool::new(true),
            is_ahead: AtomicBool::new(false),
            is_decided: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
        })
    }

    /// Whether the peer has sent enough to know which HTTP it speaks. Until then hyper waits for more without an end.
    pub(super) fn is_decided(&self) -> bool {
        self.is_decided.load(Ordering::Relaxed)
    }

    pub(super) fn decide(&self, is_http2: bool) {
        self.is_http2.store(is_http2, Ordering::Relaxed);
        self.is_decided.store(true, Ordering::Relaxed);
    }

    /// Whether the peer speaks HTTP/2: then it sends also while it only reads, that it has room for more.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// From here on the client waits for that.
    pub(super) fn awaits(&self, what: Awaited) {
        self.awaited.store(what as u8, Ordering::Relaxed);
    }

    /// The letter that can be sent now. (I1, I2, I3)
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn letter(&self) -> Option<u8> {
        if !self.is_flushed.load(Ordering::Relaxed) || self.is_ahead.load(Ordering::Relaxed) {
            return None;
        }
        let letters = [(Awaited::Answer, OF_ANSWER), (Awaited::Chunk, OF_CHUNK)];
        let awaited = self.awaited.load(Ordering::Relaxed);
        letters.iter().find(|(what, _)| *what as u8 == awaited).map(|(_, letter)| *letter)
    }

    /// Sends the first letter of what the client waits for, if that can be said and has not been sent.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn poll_send_ahead(&self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let Some(letter) = self.letter() else { return Poll::Ready(Ok(())) };
        loop {
            // Nobody else waits for it: hyper has nothing to write.
            ready!(self.socket.poll_write_ready(task))?;
            match self.socket.try_write(&[letter]) {
                Ok(_none @ 0) => {}
                Ok(_) if letter == OF_ANSWER => self.is_ahead.store(true, Ordering::Relaxed),
                Ok(_) => self.awaits(Awaited::Nothing),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => continue,
                Err(err) => return Poll::Ready(Err(err)),
            }
            return Poll::Ready(Ok(()));
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
            Some((&OF_ANSWER, rest)) => rest,
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
