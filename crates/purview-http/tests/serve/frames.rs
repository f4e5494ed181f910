//! What ends a request of HTTP/2, frame by frame (RFC 9113, 6).

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one");
    let head = [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [head.as_slice(), payload].concat()
}

/// `GET /endless`, all of it.
fn request(stream: u32) -> Vec<u8> {
    frame(1, 0b101, stream, b"\x82\x86\x04\x08/endless\x01\x04test")
}

fn reset(stream: u32) -> Vec<u8> {
    let cancel = 8_u32;
    frame(3, 0, stream, &cancel.to_be_bytes())
}

/// More room than there may be: an error of the stream, or of the connection, which is stream 0.
fn overflow(stream: u32) -> Vec<u8> {
    frame(8, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_by_a_reset_or_an_error_and_all_of_them_by_an_error_of_the_connection() {
    let (begin, _stop) = ManualClock::new().root().with_cancel();
    let (_phases, _shutdown, address, mut said) = super::ends::serve(&begin).await;
    let mut client = client(address);
    let mut send = |bytes: &[u8]| client.get_mut().write_all(bytes).expect("it reads");
    send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send(&frame(4, 0, 0, &[]));
    send(&request(1));
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    for (stream, end) in [(1, reset(1)), (3, overflow(3))] {
        // That the next one begins shows that the connection goes on.
        send(&request(stream + 2));
        assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
        send(&end);
        assert_eq!(heard(&mut said).await.as_deref(), Some("Some(ClientGone)"), "{stream}");
    }
    send(&request(7));
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    send(&overflow(0));
    for _ in [5, 7] {
        assert_eq!(heard(&mut said).await.as_deref(), Some("Some(ClientGone)"));
    }
}

/// The next frame: its kind, its flags, and what is in it. None when the connection is closed.
fn next_frame(client: &mut BufReader<TcpStream>) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    client.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    client.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

/// A client whose system takes little at once: the rest of an answer waits in the server's.
fn slow_client(address: SocketAddr) -> BufReader<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it is possible");
    socket.connect(&address.into()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    BufReader::new(socket.into())
}

const DATA: u8 = 0;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// It says something while the server closes the connection, as each client does that gives its streams room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_still_sends_has_all_of_its_answer_at_the_shutdown() {
    const LENGTH: usize = 100_000;
    let (begin, signal) = ManualClock::new().root().with_cancel();
    let mut shutdown = Shutdown::new(&begin);
    let phases = Phases::new(&mut shutdown, SECOND * 20);
    let server = Server::new(phases.clone());
    let (say, mut said) = mpsc::unbounded_channel();
    let (go, going) = mpsc::unbounded_channel();
    let gate: Gate = Arc::new(tokio::sync::Mutex::new(going));
    let long = async move || {
        let _ = say.send("begun".to_string());
        gate.lock().await.recv().await;
        "x".repeat(LENGTH)
    };
    let app = Router::new().route("/long", get(long)).layer(ContextLayer::new(server.context()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    server.spawn(listener, app);
    let report = tokio::spawn(shutdown.run());

    let mut client = slow_client(address);
    let mut send = |bytes: &[u8]| client.get_mut().write_all(bytes).expect("it reads");
    send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    send(&frame(4, 0, 0, b"\0\x04\x7f\xff\xff\xff")); // each stream has room for all
    send(&frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes())); // and the connection
    send(&frame(1, 0b101, 1, b"\x82\x86\x04\x05/long\x01\x04test"));
    assert_eq!(heard(&mut said).await.as_deref(), Some("begun"));
    signal.cancel_with("SIGTERM");
    let mut client = blocking(move || {
        // It has seen that the server goes away, and says so.
        loop {
            let (kind, flags, payload) = next_frame(&mut client).expect("it is open");
            if (kind, flags & ACK) == (PING, 0) {
                client.get_mut().write_all(&frame(PING, ACK, 0, &payload)).expect("it reads");
                return client;
            }
        }
    })
    .await;
    go.send(()).expect("it waits");
    let is_connection = |name: Option<&str>| name.is_some_and(|it| it.starts_with("connection "));
    let begun = Instant::now();
    while phases.drain.held().iter().any(|it| is_connection(it.name())) {
        assert!(begun.elapsed() < PATIENCE, "all of it is with the system");
        tokio::task::yield_now().await;
    }
    let (length, is_whole) = blocking(move || {
        let _ = client.get_mut().write_all(&frame(PING, 0, 0, &[0; 8]));
        let (mut length, mut is_whole) = (0, false);
        while let Some((kind, flags, payload)) = next_frame(&mut client) {
            if kind == DATA {
                length += payload.len();
                is_whole = flags & END_STREAM != 0;
            }
        }
        (length, is_whole)
    })
    .await;
    assert_eq!((length, is_whole), (LENGTH, true));
    let report = tokio::time::timeout(PATIENCE, report).await.expect("in time").expect("no panic");
    assert!(report.is_clean(), "{report}");
}
