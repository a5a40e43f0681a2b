//! Whoever connects to the exchange port and does not do as a sync does.

use std::time::Duration;

use peer_exchange::message::{Answer, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use udht_sync::config::Bounds;
use udht_sync::transport::BODY_BYTES_MAX;

use crate::pod::{Pod, Spec, soon, start};

/// A pod with other bounds than usual, and a usual one.
async fn pods(change: impl FnOnce(&mut Bounds)) -> [Pod; 2] {
    let mut strict = Spec::default();
    change(&mut strict.bounds);
    start([strict, Spec::default()]).await
}

async fn connect(pod: &Pod) -> TcpStream {
    TcpStream::connect(pod.sync.address.as_str()).await.unwrap()
}

/// Sends these bytes and nothing more, and reads until the other side closes.
async fn say(pod: &Pod, bytes: &[u8]) -> String {
    let mut stream = connect(pod).await;
    stream.write_all(bytes).await.unwrap();
    heard(&mut stream).await
}

async fn heard(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset is an end too.
    let _ = soon("the connection is closed", stream.read_to_end(&mut heard)).await;
    String::from_utf8_lossy(&heard).into_owned()
}

fn post(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/exchange HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Its answers are as they were.
async fn still_works(pods: &[Pod; 2]) {
    let [strict, other] = pods;
    let report = other.sync.node.exchange(&strict.sync.address).await;
    assert!(report.unwrap().0.is_equal());
}

#[tokio::test]
async fn who_speaks_no_http_is_told_so_and_closed() {
    let pods = pods(|_| ()).await;
    let garbage: Vec<u8> = (128..=255).cycle().take(1_000).collect();
    let heard = say(&pods[0], &garbage).await;
    assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
    still_works(&pods).await;
}

#[tokio::test]
async fn a_body_that_is_no_message_is_refused_as_one() {
    let pods = pods(|_| ()).await;
    let mut stream = connect(&pods[0]).await;
    let garbage = post("content-length: 200\r\nconnection: close", &[0xff; 200]);
    stream.write_all(&garbage).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    let ends = heard.windows(4).position(|four| four == b"\r\n\r\n");
    let response = Response::from_bytes(&heard[ends.unwrap() + 4..]).unwrap();
    assert!(matches!(response.answer, Some(Answer::Refused(_))));
    let refused = "udht_exchanges_total{result=\"refused_malformed\",role=\"responder\"}";
    assert_eq!(pods[0].sync.metric(refused).await, 1);
    still_works(&pods).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let pods = pods(|_| ()).await;
    let length = BODY_BYTES_MAX + 1;
    let heard = say(&pods[0], &post(&format!("content-length: {length}"), b"")).await;
    assert!(heard.starts_with("HTTP/1.1 413"), "{heard}");
    let cut_off = "udht_messages_cut_off_total";
    assert_eq!(pods[0].sync.metric(cut_off).await, 1);
    still_works(&pods).await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused_once_it_is_too_large() {
    let pods = pods(|_| ()).await;
    let (mut read, mut write) = connect(&pods[0]).await.into_split();
    let writes = tokio::spawn(async move {
        let head = post("transfer-encoding: chunked", b"");
        let chunk = [b"1000\r\n", &[0; 0x1000][..], b"\r\n"].concat();
        write.write_all(&head).await.unwrap();
        while write.write_all(&chunk).await.is_ok() {}
    });
    soon("the body is no longer read", writes).await.unwrap();
    let mut heard = Vec::new();
    let _ = read.read_to_end(&mut heard).await;
    let cut_off = "udht_messages_cut_off_total";
    assert_eq!(pods[0].sync.metric(cut_off).await, 1);
    still_works(&pods).await;
}

#[tokio::test]
async fn a_body_that_stays_away_is_waited_for_only_so_long() {
    let pods = pods(|bounds| bounds.server.body = Duration::from_millis(100)).await;
    let heard = say(&pods[0], &post("content-length: 200", b"beginning")).await;
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    still_works(&pods).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let pods = pods(|bounds| bounds.server.head = Duration::from_millis(300)).await;
    assert_eq!(say(&pods[0], b"").await, "");
    assert_eq!(say(&pods[0], b"POST /v1/exch").await.lines().count(), 0);
    still_works(&pods).await;
}

#[tokio::test]
async fn a_connection_has_an_end_even_if_it_is_used() {
    let pods = pods(|bounds| bounds.server.age = Duration::from_millis(300)).await;
    let mut stream = connect(&pods[0]).await;
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let heard = heard(&mut stream).await;
    assert!(heard.starts_with("HTTP/1.1 404"), "{heard}");
    still_works(&pods).await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let pods = pods(|bounds| bounds.server.connections_max = 2).await;
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut places = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&pods[0]).await;
        stream.write_all(ask).await.unwrap();
        // Answered, and so in its place.
        stream.read_u8().await.unwrap();
        places.push(stream);
    }
    assert_eq!(heard(&mut connect(&pods[0]).await).await, "");
    let turned_away = "udht_connections_turned_away_total{port=\"exchange\"}";
    assert_eq!(pods[0].sync.metric(turned_away).await, 1);
    // The port for health and metrics has places of its own: that was it.
}

#[tokio::test]
async fn a_message_too_many_is_refused_as_busy() {
    let pods = pods(|bounds| {
        bounds.messages_max = 1;
        bounds.turn = Duration::from_millis(50);
    })
    .await;
    let [strict, other] = &pods;
    let mut slow = connect(strict).await;
    let head = post("content-length: 200\r\nexpect: 100-continue", b"");
    slow.write_all(&head).await.unwrap();
    // It is being waited for, and so it has its turn.
    slow.read_u8().await.unwrap();
    let error = other.sync.node.exchange(&strict.sync.address).await;
    assert_eq!(error.unwrap_err().word(), "busy");
    drop(slow);
    let busy = "udht_exchanges_total{result=\"refused_busy\",role=\"responder\"}";
    assert_eq!(strict.sync.metric(busy).await, 1);
    still_works(&pods).await;
}

#[tokio::test]
async fn anything_but_an_exchange_is_not_found() {
    let pods = pods(|_| ()).await;
    for ask in [
        "GET /v1/exchange",
        "POST /",
        "GET /metrics",
        "POST /v1/exchange/",
    ] {
        let ask = format!("{ask} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let heard = say(&pods[0], ask.as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 404"), "{heard}");
    }
}
