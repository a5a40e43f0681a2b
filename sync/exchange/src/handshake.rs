//! Who may talk to whom: what is checked of every message before anything else in it is looked at.
//!
//! Both sides check the other's [`Hello`]. The version of the protocol comes first, because it says
//! how to read the rest; the cluster next, so that nothing of another cluster is looked at, be it
//! only a pod address that changed hands.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use peer_table::contract::{InvalidMessage, State};
use peer_table::{ClusterId, Key, OriginId, StoreId, WallTime, mutants};
use siphasher::sip128::{Hasher128, SipHasher24};
use uuid::Uuid;

use crate::message::{DETAIL_BYTES_MAX, Hello, Refused};

/// A range of versions of the protocol.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Protocols {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

/// The versions of the protocol that this release understands.
pub const PROTOCOLS: Protocols = Protocols { min: 1, max: 1 };
/// Those that the next release is to understand: this one can speak them too, and does where it is
/// told to, so that a version is tried between real pods before any release speaks it by itself.
pub const NEXT: Protocols = Protocols { min: 1, max: 2 };

/// A text that is no range of versions that can be spoken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("versions of the protocol are MIN-MAX, of {} to {}", NEXT.min, NEXT.max)]
pub struct InvalidProtocols;

impl FromStr for Protocols {
    type Err = InvalidProtocols;

    /// Of what is spoken with [`NEXT`] at the most.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once('-').ok_or(InvalidProtocols)?;
        let version = |text: &str| {
            let version = text.parse().map_err(|_| InvalidProtocols)?;
            NEXT.contains(version)
                .then_some(version)
                .ok_or(InvalidProtocols)
        };
        let (min, max) = (version(min)?, version(max)?);
        if min > max {
            return Err(InvalidProtocols);
        }
        Ok(Self { min, max })
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

impl Protocols {
    /// Whether `protocol` is one of them.
    pub const fn contains(self, protocol: u32) -> bool {
        self.min <= protocol && protocol <= self.max
    }

    /// The highest version in both ranges.
    pub fn highest_common(self, other: Self) -> Option<u32> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }

    /// Those that the speaker of `hello` understands.
    pub fn of(hello: &Hello) -> Self {
        let or_spoken = |version: u32| {
            if version == 0 {
                hello.protocol
            } else {
                version
            }
        };
        Self {
            min: or_spoken(hello.protocol_min),
            max: or_spoken(hello.protocol_max),
        }
    }
}

/// The form in which a cluster id is sent and compared: SipHash-2-4 with 128 bits (Aumasson and
/// Bernstein, 2012) under a fixed key. Part of the wire's contract.
///
/// It tells clusters apart by accident-proof 128 bits; what keeps out who lies is the certificate.
pub fn cluster_check(cluster: &ClusterId) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(b"udht cluster id.");
    hasher.write(cluster.as_str().as_bytes());
    hasher.finish128().as_bytes()
}

/// Why a message was not dealt with. Each variant has its word in metrics and its number on the
/// wire.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HandshakeRefused {
    /// No version of the protocol is understood by both.
    Protocol,
    /// It is of another cluster.
    Cluster,
    /// It has another key for fingerprints.
    Key,
    /// It is ourselves: nothing to be alarmed about.
    Myself,
    /// It has our store's id and is not ourselves: a store was copied, and one of the two must
    /// start over.
    Copied,
    /// The message cannot be read, or says what cannot be.
    Malformed,
    /// There is no such table.
    Table,
    /// It asks what this release does not know.
    Ask,
    /// Too much is going on; later.
    Busy,
    /// Its manager cannot be reached or has failed; later.
    Unavailable,
    /// A reason that only a newer release knows.
    Other,
}

impl HandshakeRefused {
    /// Every reason, so that each has its metric from the start.
    pub const ALL: [Self; 11] = [
        Self::Protocol,
        Self::Cluster,
        Self::Key,
        Self::Myself,
        Self::Copied,
        Self::Malformed,
        Self::Table,
        Self::Ask,
        Self::Busy,
        Self::Unavailable,
        Self::Other,
    ];

    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Myself => "self",
            Self::Copied => "copied",
            Self::Malformed => "malformed",
            Self::Table => "table",
            Self::Ask => "ask",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::Other => 0,
            Self::Protocol => 1,
            Self::Cluster => 2,
            Self::Key => 3,
            Self::Myself => 4,
            Self::Copied => 5,
            Self::Malformed => 6,
            Self::Table => 7,
            Self::Ask => 8,
            Self::Busy => 9,
            Self::Unavailable => 10,
        }
    }

    fn from_number(number: u32) -> Self {
        let known = Self::ALL
            .into_iter()
            .find(|reason| reason.number() == number);
        known.unwrap_or(Self::Other)
    }
}

/// A [`HandshakeRefused`] with a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The reason.
    pub reason: HandshakeRefused,
    /// What exactly was wrong. Where the other side refused, it wrote this.
    pub detail: String,
}

impl Refusal {
    /// A refusal; a detail beyond [`DETAIL_BYTES_MAX`] is cut.
    pub fn new(reason: HandshakeRefused, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { reason, detail }
    }

    /// The refusal that the other side sent. What would disturb a log line is taken out.
    pub fn from_wire(refused: &Refused) -> Self {
        let plain = |char: char| if char.is_control() { ' ' } else { char };
        let detail: String = refused.detail.chars().map(plain).collect();
        Self::new(HandshakeRefused::from_number(refused.reason), detail)
    }

    /// As it is sent.
    pub fn to_wire(&self) -> Refused {
        Refused {
            reason: self.reason.number(),
            detail: self.detail.clone(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused ({}): {}", self.reason.word(), self.detail)
    }
}

impl std::error::Error for Refusal {}

/// Who this replica is, as its manager says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    cluster: ClusterId,
    cluster_check: [u8; 16],
    key_check: u64,
    store: StoreId,
    origin: OriginId,
    replicas_digest: u64,
    has_met: bool,
    peer_id: String,
}

/// Who the other side is, once its hello was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partner {
    /// Its store.
    pub store: StoreId,
    /// The current opening of that store.
    pub origin: OriginId,
    /// The `peer_id` of its pod's own record, if it has one.
    pub peer_id: Option<Key>,
    /// The versions of the protocol that it understands.
    pub protocols: Protocols,
    /// What its wall clock read as it spoke.
    pub wall: WallTime,
    /// The digest of what it knows of all replicas.
    pub replicas_digest: u64,
    /// Whether it belongs: see [`Floors::has_met`](peer_table::floors::Floors::has_met).
    pub has_met: bool,
}

impl Identity {
    /// Who the manager says we are; an error if it says what cannot be.
    pub fn from_state(state: &State) -> Result<Self, InvalidMessage> {
        let cluster: ClusterId = state
            .cluster
            .parse()
            .map_err(|_| InvalidMessage::field("cluster", "is no cluster id"))?;
        Ok(Self {
            cluster_check: cluster_check(&cluster),
            cluster,
            key_check: state.key_check,
            store: StoreId::from_slice(&state.store)
                .ok_or_else(|| InvalidMessage::field("store", "is not 16 bytes"))?,
            origin: OriginId::from_slice(&state.origin)
                .ok_or_else(|| InvalidMessage::field("origin", "is not 16 bytes"))?,
            replicas_digest: state.replicas_digest,
            has_met: state.has_met,
            peer_id: state.peer_id.clone(),
        })
    }

    /// The current opening of our store.
    pub const fn origin(&self) -> OriginId {
        self.origin
    }

    /// The digest of what we know of all replicas.
    pub const fn replicas_digest(&self) -> u64 {
        self.replicas_digest
    }

    /// What to say of ourselves in a message of version `protocol`, at wall time `now`.
    pub fn hello(&self, protocol: u32, understood: Protocols, now: WallTime) -> Hello {
        let unless_spoken = |version: u32| if version == protocol { 0 } else { version };
        let (peer_id, peer_uuid) = spell(&self.peer_id);
        Hello {
            protocol,
            protocol_min: unless_spoken(understood.min),
            protocol_max: unless_spoken(understood.max),
            cluster: self.cluster_check.to_vec(),
            key_check: self.key_check,
            store: self.store.as_bytes().to_vec(),
            origin: self.origin.as_bytes().to_vec(),
            wall_ms: now.as_millis(),
            replicas_digest: self.replicas_digest,
            peer_id,
            peer_uuid,
            has_met: self.has_met,
        }
    }

    /// Checks what the other side says of itself.
    pub fn check(&self, hello: &Hello, understood: Protocols) -> Result<Partner, Refusal> {
        use HandshakeRefused as Reason;
        let theirs = Protocols::of(hello);
        if hello.protocol == 0 {
            return Err(Refusal::new(Reason::Malformed, "there is no hello"));
        }
        if !understood.contains(hello.protocol) {
            let Protocols { min, max } = understood;
            let spoken = hello.protocol;
            let detail = format!("protocol {spoken} is not understood here, {min} to {max} are");
            return Err(Refusal::new(Reason::Protocol, detail));
        }
        if hello.cluster != self.cluster_check && !mutants::is("cluster-not-checked") {
            let detail = format!(
                "this is the cluster {}, and not the one meant",
                self.cluster
            );
            return Err(Refusal::new(Reason::Cluster, detail));
        }
        let malformed = |what| move || Refusal::new(Reason::Malformed, what);
        let store = StoreId::from_slice(&hello.store)
            .ok_or_else(malformed("the store's id is not 16 bytes"))?;
        let origin = OriginId::from_slice(&hello.origin)
            .ok_or_else(malformed("the origin's id is not 16 bytes"))?;
        let peer_id = match (hello.peer_id.as_str(), hello.peer_uuid.as_slice()) {
            ("", []) => None,
            ("", uuid) => Some(
                Uuid::from_slice(uuid)
                    .map_err(|_| malformed("the peer_id's UUID is not 16 bytes")())?
                    .to_string(),
            ),
            (text, _) => Some(text.to_owned()),
        };
        let peer_id = peer_id
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| malformed("the peer_id is none")())?;
        if hello.key_check != self.key_check && !mutants::is("cluster-not-checked") {
            return Err(Refusal::new(
                Reason::Key,
                "the keys of the fingerprints differ",
            ));
        }
        if store == self.store {
            return Err(if origin == self.origin {
                Refusal::new(Reason::Myself, "this is the store that asks")
            } else {
                Refusal::new(
                    Reason::Copied,
                    format!("two replicas have the store id {store}"),
                )
            });
        }
        let wall = WallTime::from_millis(hello.wall_ms);
        Ok(Partner {
            store,
            origin,
            peer_id,
            protocols: theirs,
            wall,
            replicas_digest: hello.replicas_digest,
            has_met: hello.has_met,
        })
    }
}

/// A `peer_id` as it is sent: as text, or as the bytes of a UUID, which are less than half of it.
fn spell(peer_id: &str) -> (String, Vec<u8>) {
    match Uuid::try_parse(peer_id) {
        Ok(uuid) if uuid.to_string() == peer_id => (String::new(), uuid.as_bytes().to_vec()),
        _ => (peer_id.to_owned(), Vec::new()),
    }
}

/// How far the clock of the other side is ahead of ours for sure, in milliseconds: `theirs` was read at
/// some moment from asking to having the answer, which may be long where somebody is busy, and a clock
/// that could be right is not said to be wrong.
pub fn skew_ms(asked: WallTime, answered: WallTime, theirs: WallTime) -> i64 {
    let ms = |time: WallTime| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (asked, answered, theirs) = (ms(asked), ms(answered), ms(theirs));
    if theirs < asked {
        theirs - asked
    } else {
        (theirs - answered.max(asked)).max(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn identity(store: u8) -> Identity {
        let cluster: ClusterId = "default/udht".parse().unwrap();
        Identity {
            cluster_check: cluster_check(&cluster),
            cluster,
            key_check: 5,
            store: StoreId::from_bytes([store; 16]),
            origin: OriginId::from_bytes([store + 100; 16]),
            replicas_digest: 0,
            has_met: true,
            peer_id: "p".into(),
        }
    }

    fn hello(store: u8) -> Hello {
        identity(store).hello(1, PROTOCOLS, WallTime::from_millis(7))
    }

    fn reason(hello: &Hello) -> HandshakeRefused {
        identity(1).check(hello, PROTOCOLS).unwrap_err().reason
    }

    #[test]
    fn a_hello_of_the_same_cluster_is_accepted() {
        let partner = identity(1).check(&hello(2), PROTOCOLS).unwrap();
        assert_eq!(partner.store, StoreId::from_bytes([2; 16]));
        assert_eq!(partner.origin, OriginId::from_bytes([102; 16]));
        assert_eq!(partner.peer_id.unwrap().as_str(), "p");
        assert_eq!(partner.protocols, PROTOCOLS);
        assert_eq!(partner.wall, WallTime::from_millis(7));
    }

    #[test]
    fn a_peer_without_a_record_of_its_own_is_accepted() {
        let hello = Hello {
            peer_id: String::new(),
            ..hello(2)
        };
        assert_eq!(identity(1).check(&hello, PROTOCOLS).unwrap().peer_id, None);
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_reason() {
        use HandshakeRefused as Reason;
        assert_eq!(
            reason(&Hello {
                protocol: 2,
                ..hello(2)
            }),
            Reason::Protocol
        );
        assert_eq!(
            reason(&Hello {
                cluster: vec![0; 16],
                ..hello(2)
            }),
            Reason::Cluster
        );
        assert_eq!(
            reason(&Hello {
                key_check: 6,
                ..hello(2)
            }),
            Reason::Key
        );
        assert_eq!(
            reason(&Hello {
                store: vec![2; 15],
                ..hello(2)
            }),
            Reason::Malformed
        );
        assert_eq!(
            reason(&Hello {
                origin: vec![],
                ..hello(2)
            }),
            Reason::Malformed
        );
        assert_eq!(
            reason(&Hello {
                peer_id: "a b".into(),
                ..hello(2)
            }),
            Reason::Malformed
        );
        assert_eq!(reason(&Hello::default()), Reason::Malformed);
    }

    #[test]
    fn a_peer_id_reads_back_be_it_a_uuid_or_not() {
        for text in [
            "p",
            "0e3f6b1c-6f0f-4d57-9a83-40d7c4bd7c11",
            "0E3F6B1C-6F0F-4D57-9A83-40D7C4BD7C11",
            "0e3f6b1c6f0f4d579a8340d7c4bd7c11",
        ] {
            let named = Identity {
                peer_id: text.to_owned(),
                ..identity(2)
            };
            let hello = named.hello(1, PROTOCOLS, WallTime::default());
            let partner = identity(1).check(&hello, PROTOCOLS).unwrap();
            assert_eq!(partner.peer_id.unwrap().as_str(), text);
        }
        let cut = Hello {
            peer_id: String::new(),
            peer_uuid: vec![0; 15],
            ..hello(2)
        };
        assert_eq!(reason(&cut), HandshakeRefused::Malformed);
    }

    #[test]
    fn our_own_hello_is_ourselves_and_one_of_another_opening_is_a_copy() {
        assert_eq!(reason(&hello(1)), HandshakeRefused::Myself);
        assert_eq!(
            reason(&Hello {
                origin: vec![9; 16],
                ..hello(1)
            }),
            HandshakeRefused::Copied
        );
    }

    #[test]
    fn the_cluster_is_checked_before_all_but_the_protocol() {
        let wrong = Hello {
            cluster: vec![0; 16],
            store: vec![],
            key_check: 0,
            ..hello(1)
        };
        assert_eq!(reason(&wrong), HandshakeRefused::Cluster);
        assert_eq!(
            reason(&Hello {
                protocol: 9,
                ..wrong
            }),
            HandshakeRefused::Protocol
        );
    }

    #[test]
    fn a_cluster_is_the_same_in_every_build() {
        let check = |id: &str| u128::from_le_bytes(cluster_check(&id.parse().unwrap()));
        assert_eq!(check("default/udht"), GOLDEN_CLUSTER);
        assert_ne!(check("default/udht"), check("default/udhu"));
    }

    #[test]
    fn the_highest_version_that_both_understand_is_spoken() {
        let range = |min, max| Protocols { min, max };
        assert_eq!(range(1, 2).highest_common(range(2, 3)), Some(2));
        assert_eq!(range(1, 3).highest_common(range(1, 2)), Some(2));
        assert_eq!(range(1, 1).highest_common(range(2, 3)), None);
    }

    #[test]
    fn the_next_release_talks_to_this_one() {
        const { assert!(NEXT.max <= PROTOCOLS.max + 1 && NEXT.min <= PROTOCOLS.min + 1) };
        assert_eq!(PROTOCOLS.highest_common(NEXT), Some(PROTOCOLS.max));
    }

    #[test]
    fn a_range_is_told_as_a_text_and_no_version_that_cannot_be_spoken() {
        for range in [PROTOCOLS, NEXT, Protocols { min: 2, max: 2 }] {
            assert_eq!(range.to_string().parse(), Ok(range));
        }
        for bad in ["", "1", "2-1", "0-1", "1-3", "1-", "-1", "1-2-2", "one-two"] {
            assert_eq!(bad.parse::<Protocols>(), Err(InvalidProtocols), "{bad}");
        }
    }

    #[test]
    fn a_range_reads_back_from_a_hello() {
        for (spoken, min, max) in [(1, 1, 1), (2, 1, 2), (2, 2, 3), (2, 1, 3)] {
            let range = Protocols { min, max };
            let hello = identity(1).hello(spoken, range, WallTime::default());
            assert_eq!(Protocols::of(&hello), range);
        }
    }

    #[test]
    fn each_reason_has_a_word_and_a_number_of_its_own() {
        let words: BTreeSet<_> = HandshakeRefused::ALL.map(HandshakeRefused::word).into();
        assert_eq!(words.len(), HandshakeRefused::ALL.len());
        for reason in HandshakeRefused::ALL {
            assert_eq!(HandshakeRefused::from_number(reason.number()), reason);
        }
        assert_eq!(HandshakeRefused::from_number(77), HandshakeRefused::Other);
    }

    #[test]
    fn a_detail_from_elsewhere_is_one_bounded_line() {
        let refused = Refused {
            reason: 2,
            detail: format!("a\nb{}", "é".repeat(400)),
        };
        let refusal = Refusal::from_wire(&refused);
        assert!(refusal.to_string().starts_with("refused (cluster): a bé"));
        assert!((DETAIL_BYTES_MAX - 1..=DETAIL_BYTES_MAX).contains(&refusal.detail.len()));
    }

    #[test]
    fn skew_is_what_no_moment_of_the_round_trip_explains() {
        let at = WallTime::from_millis;
        for right in [100, 110, 120] {
            assert_eq!(skew_ms(at(100), at(120), at(right)), 0);
        }
        assert_eq!(skew_ms(at(100), at(15_100), at(14_000)), 0, "a slow answer");
        assert_eq!(skew_ms(at(100), at(120), at(5_120)), 5_000);
        assert_eq!(skew_ms(at(100), at(120), at(10)), -90);
        assert_eq!(
            skew_ms(at(120), at(100), at(130)),
            10,
            "ours went back meanwhile"
        );
        assert_eq!(skew_ms(at(u64::MAX), at(0), at(0)), -i64::MAX);
        assert_eq!(skew_ms(at(0), at(0), at(u64::MAX)), i64::MAX);
    }

    const GOLDEN_CLUSTER: u128 = 148_765_641_569_753_797_764_302_745_554_455_089_950;
}
