//! What a sync asks its manager, and tells it, about other replicas: see [`crate::floors`].

use prost::Message;

use super::InvalidMessage;
use crate::clock::Reading;
use crate::floors::{Evidence, WirePublication, WireSnapshot, WireVector};
use crate::ids::OriginId;
use crate::table::Horizon;

/// Records of pods that are gone, told at once at the most.
pub const GONE_MAX: usize = 1_024;

/// How an exchange needs to know how its manager stands.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StateRequest {
    /// So many of the first coded symbols come along.
    #[prost(uint32, tag = "1")]
    pub symbols: u32,
    /// A snapshot is taken before the rest and comes along: a partner asked for it.
    #[prost(bool, tag = "2")]
    pub give_snapshot: bool,
    /// An exchange of ours begins: from now on it is watched what else comes in.
    #[prost(bool, tag = "3")]
    pub begin_session: bool,
    /// Without the tombstones that a partner may have let go.
    #[prost(message, optional, tag = "4")]
    pub without: Option<WireHorizon>,
}

/// A [`Horizon`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireHorizon {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub origin: Vec<u8>,
    /// See [`Horizon::vector`].
    #[prost(message, required, tag = "2")]
    pub vector: WireVector,
    /// See [`Horizon::reading`].
    #[prost(fixed64, tag = "3")]
    pub reading: u64,
}

impl WireHorizon {
    /// The horizon.
    pub fn read(&self) -> Result<Horizon, InvalidMessage> {
        Ok(Horizon {
            origin: OriginId::from_slice(&self.origin)
                .ok_or_else(|| InvalidMessage::field("origin", "is not 16 bytes"))?,
            vector: self.vector.read()?,
            reading: Reading::from_u64(self.reading),
        })
    }
}

/// Says that an exchange of ours brought all that its partner had at that snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Advance {
    /// [`State::session`](super::State::session) of that exchange.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// What the partner had.
    #[prost(message, required, tag = "2")]
    pub snapshot: WireSnapshot,
}

/// Whether the vector advanced; it does not where something else came in meanwhile.
#[derive(Copy, Clone, PartialEq, Eq, Message)]
pub struct Advanced {
    /// Whether it did.
    #[prost(bool, tag = "1")]
    pub advanced: bool,
}

/// Has a manager look after its floors: [`Evidence`].
#[derive(Clone, PartialEq, Eq, Message)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and a field of the wire"
)]
pub struct Tend {
    /// See [`Evidence::has_strangers`].
    #[prost(bool, tag = "1")]
    pub has_strangers: bool,
    /// See [`Evidence::is_braked`].
    #[prost(bool, tag = "2")]
    pub is_braked: bool,
    /// See [`Evidence::may_begin`].
    #[prost(bool, tag = "3")]
    pub may_begin: bool,
    /// See [`Evidence::met`]: 16 bytes each.
    #[prost(bytes = "vec", tag = "4")]
    pub met: Vec<u8>,
    /// See [`Evidence::gone`].
    #[prost(string, repeated, tag = "5")]
    pub gone: Vec<String>,
    /// How far this machine's clock is ahead of those of most others, in milliseconds, where it is
    /// further off than is allowed.
    #[prost(sint64, tag = "6")]
    pub clock_off_ms: i64,
    /// See [`Evidence::joined`]: 16 bytes, or none.
    #[prost(bytes = "vec", tag = "7")]
    pub joined: Vec<u8>,
    /// Whether this machine's clock is known to be near those of most others.
    #[prost(bool, tag = "8")]
    pub clock_agrees: bool,
}

impl From<&Evidence> for Tend {
    fn from(evidence: &Evidence) -> Self {
        Self {
            has_strangers: evidence.has_strangers,
            is_braked: evidence.is_braked,
            may_begin: evidence.may_begin,
            met: evidence
                .met
                .iter()
                .flat_map(OriginId::as_bytes)
                .copied()
                .collect(),
            gone: evidence.gone.iter().map(ToString::to_string).collect(),
            clock_off_ms: 0,
            joined: evidence
                .joined
                .map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            clock_agrees: false,
        }
    }
}

impl Tend {
    /// The evidence in it.
    pub fn read(&self) -> Result<Evidence, InvalidMessage> {
        let (met, rest) = self.met.as_chunks::<16>();
        if !rest.is_empty() || met.len() > crate::floors::IDS_MAX {
            return Err(InvalidMessage::field("met", "are not 16 bytes each"));
        }
        if self.gone.len() > GONE_MAX {
            let problem = format!("has {} entries, more than {GONE_MAX}", self.gone.len());
            return Err(InvalidMessage::field("gone", problem));
        }
        let joined = match self.joined.as_slice() {
            [] => None,
            bytes => Some(
                OriginId::from_slice(bytes)
                    .ok_or_else(|| InvalidMessage::field("joined", "is not 16 bytes"))?,
            ),
        };
        let gone = self.gone.iter().map(|key| key.parse());
        Ok(Evidence {
            has_strangers: self.has_strangers,
            is_braked: self.is_braked,
            may_begin: self.may_begin,
            joined,
            met: met.iter().copied().map(OriginId::from_bytes).collect(),
            gone: gone
                .collect::<Result<_, _>>()
                .map_err(|_| InvalidMessage::field("gone", "has one that is no key"))?,
        })
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TendAnswer {
    /// What all others are to be told.
    #[prost(message, optional, tag = "1")]
    pub publication: Option<WirePublication>,
}
