//! Peers that answer what is no answer. Each costs one exchange, and the next is none the worse.

use std::time::Duration;

use peer_exchange::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use udht_sync::config::Bounds;
use udht_sync::http::ClientBounds;

use crate::pod::{Pod, Spec, start};

/// A listener that does the same to whoever connects.
async fn peer<F, Done>(treat: F) -> Address
where
    F: Fn(TcpStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(treat(stream));
        }
    });
    address
}

/// A peer that sends these bytes once it is asked, and closes or, if it `stays`, says no more.
async fn sends(bytes: Vec<u8>, stays: bool) -> Address {
    peer(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(&bytes).await;
            if stays {
                std::future::pending::<()>().await;
            }
            // What is left unread would turn the end into a reset.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

fn http(head: &str, body: &[u8]) -> Vec<u8> {
    [
        format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(),
        body,
    ]
    .concat()
}

async fn impatient() -> [Pod; 2] {
    let peer = ClientBounds {
        answer: Duration::from_secs(1),
        ..Bounds::default().peer
    };
    let impatient = Spec {
        bounds: Bounds {
            peer,
            ..Spec::default().bounds
        },
        ..Spec::default()
    };
    start([impatient, Spec::default()]).await
}

/// An exchange with such a peer fails by this word, and with another peer it then succeeds.
async fn fails_as(word: &str, pods: &[Pod; 2], peer: &Address) {
    let [a, b] = pods;
    a.manager.put("key", word);
    a.sync.node.exchange(peer).await.unwrap_err();
    let count = format!("udht_exchanges_total{{result=\"{word}\",role=\"initiator\"}}");
    assert_eq!(a.sync.metric(&count).await, 1);
    let report = a.sync.node.exchange(&b.sync.address).await;
    assert!(report.unwrap().0.is_equal());
}

/// As [`fails_as`], with more patience for whoever has much to say.
async fn fails_as_in_time(word: &str, peer: &Address) {
    let pods = start([Spec::default(), Spec::default()]).await;
    fails_as(word, &pods, peer).await;
}

#[tokio::test]
async fn a_peer_that_speaks_no_http_is_a_broken_connection() {
    let garbage: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let peer = sends(garbage, false).await;
    fails_as_in_time("failed_broken", &peer).await;
}

#[tokio::test]
async fn a_peer_that_answers_garbage_makes_no_sense() {
    let garbage: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let peer = sends(http("content-length: 1000", &garbage), false).await;
    fails_as_in_time("failed_invalid", &peer).await;
}

#[tokio::test]
async fn a_peer_that_cuts_its_answer_off_is_a_broken_connection() {
    let peer = sends(http("content-length: 1000", &[0; 10]), false).await;
    fails_as_in_time("failed_broken", &peer).await;
}

#[tokio::test]
async fn a_peer_that_never_ends_its_answer_is_not_listened_to_for_ever() {
    let peer = peer(async |mut stream| {
        let head = http("transfer-encoding: chunked", b"");
        let chunk = [b"1000\r\n", &[0; 0x1000][..], b"\r\n"].concat();
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(&head).await;
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    fails_as_in_time("failed_too_large", &peer).await;
}

#[tokio::test]
async fn a_peer_that_says_its_answer_is_huge_is_not_listened_to() {
    let peer = sends(http("content-length: 99999999999", &[0; 100]), true).await;
    fails_as("failed_too_large", &impatient().await, &peer).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    let peer = sends(http("content-length: 1000", &[0; 10]), true).await;
    fails_as("failed_timed_out", &impatient().await, &peer).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_at_all_is_given_up() {
    let peer = sends(Vec::new(), true).await;
    fails_as("failed_timed_out", &impatient().await, &peer).await;
}

#[tokio::test]
async fn a_peer_that_closes_at_once_is_a_broken_connection() {
    let peer = peer(async |stream| drop(stream)).await;
    fails_as_in_time("failed_broken", &peer).await;
}

#[tokio::test]
async fn something_else_that_speaks_http_is_told_by_its_status() {
    let not_found = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let peer = sends(not_found.to_vec(), false).await;
    fails_as_in_time("failed_status", &peer).await;
}
