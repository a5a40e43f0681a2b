//! Records as they are in the field: a UUID, a name, an address, four ports and two labels.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use peer_table::entry::Body;
use peer_table::peers::{Draft, LABEL_NODE, LABEL_POD};
use peer_table::{Contact, Entry, Key, OriginId, Reading, Version, WallTime};
use udht_replica::NOW;

/// How many replicas have written the records.
const WRITERS: u8 = 50;
/// Before when all of them were written, and after when: within a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Draws records, always the same ones for the same seed.
pub(crate) struct Records {
    random: Rng,
    drawn: usize,
}

impl Records {
    pub(crate) fn new(seed: usize) -> Self {
        Self {
            random: Rng::with_seed(seed as u64),
            drawn: 0,
        }
    }

    fn draw(&mut self) -> (Key, Entry) {
        let number = self.drawn;
        self.drawn += 1;
        let random = &mut self.random;
        let mut uuid = format!("{:032x}", random.u128(..));
        for place in [8, 13, 18, 23] {
            uuid.insert(place, '-');
        }
        let key = uuid.parse().expect("a UUID is a key");
        let port = |base: u16| base + u16::try_from(number % 1_000).expect("less than 1,000");
        let ports = [
            ("userSync", 5_001),
            ("fileSync", 6_001),
            ("networkLayer", 7_001),
            ("consensusPort", 8_001),
        ];
        let draft = Draft {
            name: format!("files-{number}"),
            ip: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | random.u32(..1 << 24))),
            ports: ports
                .into_iter()
                .map(|(purpose, base)| (purpose.to_owned(), port(base)))
                .collect(),
            labels: BTreeMap::from([
                (LABEL_POD.to_owned(), format!("files-{number}")),
                (LABEL_NODE.to_owned(), format!("node-{}", random.u8(..100))),
            ]),
            contact: Contact::NEVER,
        };
        let written = WallTime::from_millis(NOW.as_millis() - random.u64(1..DAY_MS));
        let entry = Entry {
            version: Version {
                // What is above the counter is the time in milliseconds.
                reading: Reading::from_u64(written.as_millis() << 16 | random.u64(..1 << 16)),
                origin: OriginId::from_bytes([random.u8(..WRITERS); 16]),
            },
            contact: Contact::from_steps(random.u32(1..1_000)),
            body: Body::Live(draft.content(written)),
        };
        (key, entry)
    }
}

/// They never end.
impl Iterator for Records {
    type Item = (Key, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.draw())
    }
}
