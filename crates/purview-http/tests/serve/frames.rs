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
