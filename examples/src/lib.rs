//! Just enough HTTP for the examples that serve it. Nothing here is about contexts: read `src/bin/`.
//!
//! One request a connection, headers skipped, bodies of text. Not for use outside.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Reads a request and gives its path.
///
/// # Errors
/// The connection's, and `InvalidData` for what is not a request.
pub async fn read_request(connection: &mut TcpStream) -> io::Result<String> {
    let mut lines = BufReader::new(connection.take(8 * 1024)).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|header| !header.is_empty()) {}
    match first.split(' ').collect::<Vec<_>>()[..] {
        ["GET", path, "HTTP/1.1"] => Ok(path.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a GET request")),
    }
}

/// Writes a response. `status` is a code and its text: `"200 OK"`.
///
/// # Errors
/// The connection's.
pub async fn respond(connection: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}

/// Requests `path`, and gives the response's status and body.
///
/// # Errors
/// The connection's, and `InvalidData` for what is not a response.
pub async fn get(server: SocketAddr, path: &str) -> io::Result<(String, String)> {
    let mut connection = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    response
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split_once("\r\n"))
        .and_then(|(status, rest)| Some((status, rest.split_once("\r\n\r\n")?.1)))
        .map(|(status, body)| (status.to_owned(), body.to_owned()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a response"))
}
