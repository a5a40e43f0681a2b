//! What the unit tests of several modules begin with.

use std::time::Duration;

use peer_table::{OriginId, StoreId, WallTime};

use crate::book::{Address, PeerBook, Uptime};
use crate::handshake::{PROTOCOLS, Partner};

/// So many seconds after the start.
pub(crate) fn at(seconds: u64) -> Uptime {
    Uptime(Duration::from_secs(seconds))
}

/// The address of the peer of this number.
pub(crate) fn address(n: u64) -> Address {
    format!("10.0.0.{n}:3003").parse().unwrap()
}

/// The peer of this number, as it says who it is.
pub(crate) fn partner(n: u8) -> Partner {
    Partner {
        store: StoreId::from_bytes([n; 16]),
        origin: OriginId::from_bytes([n; 16]),
        peer_id: Some(format!("p{n}").parse().unwrap()),
        protocols: PROTOCOLS,
        wall: WallTime::default(),
        replicas_digest: 0,
        has_met: true,
    }
}

/// A book of so many peers, of which nothing is known yet.
pub(crate) fn book(peers: u64) -> PeerBook {
    let mut book = PeerBook::new();
    book.replace((1..=peers).map(address));
    book
}
