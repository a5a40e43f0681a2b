//! Whoever comes to the doors of a pod and should not: real sockets, and real programs at the other
//! end. Each is refused and counted, the memory of the programs stays within a bound, and those who
//! should come are let in meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here is the test, also where a helper of it unwraps"
)]

mod credentials;
mod house;
mod loopback;
mod slow;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use peer_exchange::handshake::{Identity, PROTOCOLS};
use peer_exchange::message::{Answer, Ask, Open, Push, Request, Response, Swap, batch_to_bytes};
use peer_table::contract::{BATCH_RECORDS_MAX, Batch, MESSAGE_BYTES_MAX, WireRecord};
use peer_table::floors::Replicas;
use peer_table::{WallTime, peers};
use prost::Message;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use udht_tests::http;

use crate::credentials::{Authority, NAME};
use crate::house::{House, connect, heard, post, refused, say};

const EXCHANGE: &str = "/v1/exchange";
/// How often each stranger comes.
const TIMES: u64 = 20;

#[test]
fn who_has_no_certificate_of_the_cluster_is_refused_and_counted_by_the_reason() {
    let house = House::new();
    let (one, other) = (&house.authority, Authority::new("one"));
    let good = one.leaf(NAME, |_| ());
    let foreign = other.leaf(NAME, |_| ());
    let elsewhere = one.leaf("other.udht.internal", |_| ());
    let expired = one.leaf(NAME, |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let strangers: [(&str, Arc<ClientConfig>); 5] = [
        ("no_certificate", one.client(None, &TLS13)),
        ("unknown_authority", one.client(Some(&foreign), &TLS13)),
        ("name", one.client(Some(&elsewhere), &TLS13)),
        ("expired", one.client(Some(&expired), &TLS13)),
        ("protocol", one.client(Some(&good), &TLS12)),
    ];
    for (reason, config) in strangers {
        for _ in 0..TIMES {
            let said = say(
                house.call_secure(Arc::clone(&config)),
                &post(EXCHANGE, "", b""),
            );
            assert_eq!(said, b"", "{reason}");
        }
        house.counts(&refused(reason), TIMES);
        house.peers_go_on();
        assert_eq!(house.refused(reason), TIMES, "{reason}");
    }
    // Those who do not speak TLS are told in the words that they do speak.
    for _ in 0..TIMES {
        let said = say(house.call(), &post(EXCHANGE, "content-length: 3", b"abc"));
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 400"), "{said}");
        assert!(said.contains("--tls files:DIR"), "{said}");
    }
    assert_eq!(house.refused("protocol"), 2 * TIMES);
    house.peers_go_on();
    house.is_within_memory("strangers without a certificate of the cluster");
}

/// What a peer with a certificate of the cluster says of itself: all is true but its store.
fn hello(house: &House) -> peer_exchange::message::Hello {
    let mut state = http::state(&house.agent, &house.pod().manager_url()).unwrap();
    state.store = vec![9; 16];
    state.origin = vec![9; 16];
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let now = WallTime::from_millis(u64::try_from(now).unwrap());
    Identity::from_state(&state)
        .unwrap()
        .hello(1, PROTOCOLS, now)
}

fn request(house: &House, ask: Ask) -> Request {
    Request {
        hello: hello(house),
        table: peers::table_name().to_string(),
        ask: Some(ask),
    }
}

/// Asks as one who has a certificate of the cluster.
fn ask(house: &House, message: &[u8]) -> Answer {
    let head = format!("content-length: {}", message.len());
    let said = say(house.call_as_peer(), &post(EXCHANGE, &head, message));
    let body = said.windows(4).position(|four| four == b"\r\n\r\n");
    let body = body.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&said)));
    Response::from_bytes(&said[body + 4..])
        .unwrap()
        .answer
        .unwrap()
}

fn exchanges(result: &str) -> String {
    format!("udht_exchanges_total{{result=\"{result}\",role=\"responder\"}}")
}

#[test]
fn a_certificate_of_the_cluster_does_not_help_who_is_of_another_cluster() {
    let house = House::new();
    let before = house.held();
    let swap = Swap {
        batch: batch_to_bytes(&stray_batch("stray", 1)),
        ..Swap::default()
    };
    let push = Push {
        batch: swap.batch.clone(),
        ..Push::default()
    };
    for stray in [Ask::Open(Open::default()), Ask::Swap(swap), Ask::Push(push)] {
        let mut stray = request(&house, stray);
        stray.hello.cluster = vec![7; 16];
        for _ in 0..TIMES {
            let answer = ask(&house, &stray.to_bytes());
            assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
    }
    // A push is no exchange, and counted as a message only; as those are that a pod of a fixed list
    // has sent to itself.
    assert_eq!(house.metric(&exchanges("refused_cluster")), 2 * TIMES);
    let pushes = "udht_messages_total{ask=\"push\",result=\"refused\"}";
    assert!(house.metric(pushes) >= TIMES);
    assert_eq!(house.held(), before);
    house.peers_go_on();
    house.is_within_memory("peers of another cluster");
}

/// A batch of peers that nobody knows.
fn stray_batch(key: &str, records: usize) -> Batch {
    let body = peers::Body::from_json(br#"{"name":"stray","ip":"10.6.6.6"}"#).unwrap();
    let content = body.draft.content(WallTime::from_millis(1));
    let record = |number| WireRecord {
        key: format!("{key}-{number}").into(),
        reading: (1_700_000_000_000 << 16) + 1,
        content: Some(content.to_bytes()),
        ..WireRecord::default()
    };
    Batch {
        table: peers::table_name().to_string(),
        origins: vec![vec![8; 16]],
        records: (0..records).map(record).collect(),
    }
}

#[test]
fn a_recorded_handshake_that_is_sent_again_is_refused() {
    let house = House::new();
    let recorded = record(&house);
    assert!(recorded.len() > 1_000, "a handshake and a request");
    let before = house.refused("other");
    for _ in 0..TIMES {
        say(house.call(), &recorded);
    }
    house.counts(&refused("other"), before + TIMES);
    house.peers_go_on();
    assert_eq!(house.refused("other"), before + TIMES);
    house.is_within_memory("recorded handshakes");
}

/// Every byte that a peer says in an exchange: its handshake and its request.
fn record(house: &House) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pod = house.pod().exchange_address();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&recorded);
    let wire = std::thread::spawn(move || {
        let (peer, _) = listener.accept().unwrap();
        let pod = connect(&pod);
        let (mut from_pod, mut to_peer) = (pod.try_clone().unwrap(), peer.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_pod, &mut to_peer);
            let _ = to_peer.shutdown(std::net::Shutdown::Both);
        });
        carry(peer, &pod, &kept);
        let _ = pod.shutdown(std::net::Shutdown::Both);
        back.join().unwrap();
    });
    let mut exchange = house.exchange_by_hand(&address);
    udht_tests::recipe::output(&mut exchange, "").unwrap();
    wire.join().unwrap();
    let recorded = recorded.lock().unwrap();
    recorded.clone()
}

fn carry(mut from: TcpStream, mut to: &TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4_096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.lock().unwrap().extend_from_slice(&buffer[..read]);
        to.write_all(&buffer[..read]).unwrap();
    }
}

#[test]
fn a_recorded_message_that_is_sent_again_changes_nothing() {
    let house = House::new();
    let batch = batch_to_bytes(&stray_batch("once", 3));
    let swap = Swap {
        batch,
        ..Swap::default()
    };
    let recorded = request(&house, Ask::Swap(swap)).to_bytes();
    let outcomes = || match ask(&house, &recorded) {
        Answer::Swapped(swapped) => swapped.outcomes,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcomes(), [1; 3], "it is applied");
    let url = format!("{}/v1/peers/once-0", house.pod().manager_url());
    let peer = serde_json::json!({"name": "later", "ip": "10.0.0.7"});
    http::put(&house.agent, &url, &peer).unwrap().ok().unwrap();
    let before = house.held();
    for _ in 0..TIMES {
        assert_eq!(outcomes(), [4, 3, 3], "it is stale or known");
    }
    assert_eq!(house.held(), before);
    house.peers_go_on();
    house.is_within_memory("recorded messages");
}

/// A request that tells of four million replicas, and of each nothing.
fn crowd(house: &House) -> Vec<u8> {
    let replicas = [0x12, 0].repeat(MESSAGE_BYTES_MAX / 2 - 500);
    let mut message = request(house, Ask::Replicas(Replicas::default()));
    message.ask = None;
    let mut message = message.encode_to_vec();
    // The field of that ask, with a length.
    message.push(8 << 3 | 2);
    prost::encode_length_delimiter(replicas.len(), &mut message).unwrap();
    message.extend(replicas);
    let mut body = Vec::new();
    prost::encode_length_delimiter(message.len(), &mut body).unwrap();
    [body, message].concat()
}

#[test]
fn what_is_too_large_is_refused_before_it_takes_room() {
    let house = House::new();
    // A handshake that says it is of 16 MiB, in records that say they are full.
    let record = [&[22, 3, 1, 64, 0, 1, 255, 255, 255][..], &[0; 16_380]].concat();
    say(house.call(), &record.repeat(1_024));
    house.counts(&refused("protocol"), 1);

    let head = format!("x: {}", "x".repeat(1 << 20));
    let said = say(house.call_as_peer(), &post(EXCHANGE, &head, b""));
    assert!(
        said.is_empty() || said.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        &said[..40]
    );

    let head = format!("content-length: {}", 1_u64 << 40);
    let said = say(house.call_as_peer(), &post(EXCHANGE, &head, b""));
    assert!(
        said.starts_with(b"HTTP/1.1 413"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let chunk = [b"10000\r\n", &vec![0; 0x10000][..], b"\r\n"].concat();
    let endless = post(EXCHANGE, "transfer-encoding: chunked", &chunk.repeat(512));
    say(house.call_as_peer(), &endless);
    house.counts("udht_messages_cut_off_total", 2);

    let mut malformed = house.metric(&exchanges("refused_malformed"));
    let mut longer_than_said = vec![0xff, 0xff, 0xff, 0x7f];
    longer_than_said.resize(MESSAGE_BYTES_MAX / 2, 0);
    let too_many = batch_to_bytes(&stray_batch("many", BATCH_RECORDS_MAX + 1));
    let small_and_many = [0x1a, 0].repeat(MESSAGE_BYTES_MAX / 4);
    let swap = |batch| {
        let swap = Swap {
            batch,
            ..Swap::default()
        };
        request(&house, Ask::Swap(swap)).to_bytes()
    };
    for message in [
        longer_than_said,
        swap(too_many),
        swap(small_and_many.into()),
        crowd(&house),
    ] {
        let answer = ask(&house, &message);
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        malformed += 1;
        assert_eq!(house.metric(&exchanges("refused_malformed")), malformed);
    }

    // Who asks for more symbols than there are gets as many as the table needs.
    let open = Open {
        symbols: u32::MAX,
        ..Open::default()
    };
    let Answer::Opened(opened) = ask(&house, &request(&house, Ask::Open(open)).to_bytes()) else {
        panic!("it was not opened");
    };
    assert!(opened.listing.is_some() && opened.symbols.is_empty());
    house.peers_go_on();
    house.is_within_memory("messages that are too large");
}

#[test]
fn a_thousand_idle_connections_keep_no_peer_out() {
    let house = House::new();
    let mut idle: Vec<_> = (0..1_000).map(|_| house.call()).collect();
    house.peers_go_on();
    let turned_away = house.metric("udht_connections_turned_away_total{port=\"exchange\"}");
    assert!(
        turned_away >= 488,
        "{turned_away} were turned away for those who came later"
    );
    // Nobody waits for ever for who says nothing.
    for stream in &mut idle {
        assert_eq!(heard(stream), b"");
    }
    house.counts(&refused("too_slow"), 500);
    house.peers_go_on();
    house.is_within_memory("a thousand idle connections");
}
