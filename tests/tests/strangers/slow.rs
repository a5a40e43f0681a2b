//! Who is slow on purpose, at each step from the handshake to the body.

use std::io::{Read, Write};

use rustls::ClientConnection;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;

use crate::credentials::NAME;
use crate::house::{House, Secure, drip, heard, post, refused};

/// How many there are of each kind: more would wait for a place, and be no others.
const MANY: usize = 40;

#[test]
fn who_is_slow_at_the_handshake_is_closed_and_counted_and_holds_up_nobody() {
    let house = House::new();
    let name = ServerName::try_from(NAME).unwrap();
    let config = house.authority.client(None, &TLS13);
    let mut greeting = Vec::new();
    let mut connection = ClientConnection::new(config, name).unwrap();
    connection.write_tls(&mut greeting).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..MANY {
            let (stream, greeting) = (house.call(), &greeting);
            // Reset or closed, it has ended.
            scope.spawn(move || drop(drip(stream, greeting)));
        }
        house.peers_go_on();
    });
    house.counts(&refused("too_slow"), MANY as u64);
    house.peers_go_on();
    house.is_within_memory("slow handshakes");
}

/// Peers with good certificates that have said this and say no more.
fn slow_peers(house: &House, bytes: &[u8]) -> Vec<Secure> {
    let peers = (0..MANY).map(|_| {
        let mut peer = house.call_as_peer();
        peer.write_all(bytes).unwrap();
        peer.flush().unwrap();
        peer
    });
    peers.collect()
}

#[test]
fn who_is_slow_with_a_head_or_a_body_holds_up_nobody() {
    let house = House::new();
    let heads = slow_peers(&house, b"POST /v1/exchange HTTP/1.1\r\nhost: a\r\nx: ");
    house.peers_go_on();
    let body = post("/v1/exchange", "content-length: 200", b"beginning");
    let mut bodies = slow_peers(&house, &body);
    house.peers_go_on();
    for peer in &mut bodies {
        let said = heard(peer);
        assert!(
            said.starts_with(b"HTTP/1.1 408"),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
    house.counts("udht_messages_cut_off_total", MANY as u64);
    // They are still waited for, and still hold up nobody.
    for peer in heads {
        peer.sock.set_nonblocking(true).unwrap();
        let mut socket = &peer.sock;
        while let Ok(read) = socket.read(&mut [0; 1_024]) {
            assert_ne!(read, 0, "closed too early");
        }
    }
    house.peers_go_on();
    house.is_within_memory("slow heads and bodies");
}
