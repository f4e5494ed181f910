//! A connection's socket, wherever it goes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll};

use purview::shutdown::Hold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection's socket. After an upgrade it is no longer hyper's, and still holds the drain.
pub(super) struct Socket {
    socket: TcpStream,
    /// As much of the preface as has come.
    preface: usize,
    is_decided: Arc<AtomicBool>,
    _hold: Hold,
}

impl Socket {
    pub(super) fn new(socket: TcpStream, hold: Hold) -> Socket {
        Socket { socket, preface: 0, is_decided: Arc::default(), _hold: hold }
    }

    /// Whether the peer has sent enough to know which HTTP it speaks. Until then hyper waits for more without an end.
    pub(super) fn is_decided(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_decided)
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.preface..];
        let common = expected.len().min(bytes.len());
        self.preface += common;
        if expected[..common] != bytes[..common] || self.preface == PREFACE.len() {
            self.preface = PREFACE.len();
            self.is_decided.store(true, Ordering::Relaxed);
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
        let polled = Pin::new(&mut self.socket).poll_read(task, into);
        if self.preface < PREFACE.len() {
            self.look_at(&into.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
