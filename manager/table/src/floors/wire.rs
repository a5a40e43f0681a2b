//! Floors as they are stored and sent: protobuf messages, of which unknown fields are skipped.

use std::collections::BTreeMap;

use prost::Message;

use super::ids::IDS_MAX;
use super::{
    FORMER_MAX, Fence, Floors, IdSet, Known, Publication, Snapshot, Storage, Vector, Whose,
};
use crate::clock::{Reading, WallTime};
use crate::contract::InvalidMessage;
use crate::ids::{OriginId, StoreId};
use crate::key::Key;

/// Publications in one message at the most: one for each replica that may still write.
const PUBLICATIONS_MAX: usize = 16_384;

/// Ids and their fences, column by column.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireIds {
    /// The ids, 16 bytes each.
    #[prost(bytes = "vec", tag = "1")]
    pub ids: Vec<u8>,
    /// [`Fence::code`] of each, one byte each; 0 where there is none.
    #[prost(bytes = "vec", tag = "2")]
    pub fences: Vec<u8>,
    /// Of each, in milliseconds since 1970: when it was last heard of, or since when it is fenced.
    #[prost(uint64, repeated, tag = "3")]
    pub times: Vec<u64>,
}

/// A [`Vector`], column by column.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireVector {
    /// The ids, 16 bytes each.
    #[prost(bytes = "vec", tag = "1")]
    pub ids: Vec<u8>,
    /// [`Known::covered`] of each.
    #[prost(fixed64, repeated, tag = "2")]
    pub covered: Vec<u64>,
    /// [`Known::seen`] of each where that is above what is covered, else 0.
    #[prost(fixed64, repeated, tag = "3")]
    pub seen: Vec<u64>,
}

/// A [`Snapshot`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireSnapshot {
    /// Whose: 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub origin: Vec<u8>,
    /// See [`Snapshot::reading`].
    #[prost(fixed64, tag = "2")]
    pub reading: u64,
    /// See [`Snapshot::vector`].
    #[prost(message, required, tag = "3")]
    pub vector: WireVector,
}

/// A [`Publication`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WirePublication {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub store: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub origin: Vec<u8>,
    /// See [`Publication::at`].
    #[prost(fixed64, tag = "3")]
    pub at: u64,
    /// See [`Publication::floor`].
    #[prost(fixed64, tag = "4")]
    pub floor: u64,
    /// See [`Publication::set_digest`].
    #[prost(fixed64, tag = "5")]
    pub set_digest: u64,
    /// See [`Publication::since`].
    #[prost(fixed64, tag = "6")]
    pub since: u64,
    /// [`Storage::code`].
    #[prost(uint32, tag = "7")]
    pub storage: u32,
    /// See [`Publication::peer_id`]; empty if there is none.
    #[prost(string, tag = "8")]
    pub peer_id: String,
}

/// What two replicas tell each other of all replicas, before any record moves.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Replicas {
    /// All ids; left out where only publications are told.
    #[prost(message, optional, tag = "1")]
    pub ids: Option<WireIds>,
    /// The latest publication of each.
    #[prost(message, repeated, tag = "2")]
    pub publications: Vec<WirePublication>,
    /// The current id of who tells: 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub origin: Vec<u8>,
}

/// All of [`Floors`] that a store keeps.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FloorsState {
    /// The current id: 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub own: Vec<u8>,
    /// All ids.
    #[prost(message, required, tag = "2")]
    pub ids: WireIds,
    /// What is covered of them.
    #[prost(message, required, tag = "3")]
    pub vector: WireVector,
    /// What they published.
    #[prost(message, repeated, tag = "4")]
    pub publications: Vec<WirePublication>,
    /// The clock when the ids last changed.
    #[prost(fixed64, tag = "5")]
    pub since: u64,
    /// The digest of the ids then.
    #[prost(fixed64, tag = "6")]
    pub since_digest: u64,
    /// See [`Floors::has_met`].
    #[prost(bool, tag = "7")]
    pub has_met: bool,
    /// See [`Floors::horizon`].
    #[prost(fixed64, tag = "8")]
    pub horizon: u64,
    /// When the floors were last looked after, in milliseconds since 1970.
    #[prost(uint64, tag = "9")]
    pub tended_ms: u64,
    /// Whose ids were that write no more.
    #[prost(message, repeated, tag = "10")]
    pub former: Vec<WireWhose>,
}

/// A [`Whose`], and of which id.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireWhose {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub origin: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub store: Vec<u8>,
    /// See [`Whose::peer_id`]; empty if there is none.
    #[prost(string, tag = "3")]
    pub peer_id: String,
}

fn id(field: &'static str, bytes: &[u8]) -> Result<OriginId, InvalidMessage> {
    OriginId::from_slice(bytes).ok_or_else(|| InvalidMessage::field(field, "is not 16 bytes"))
}

fn store(bytes: &[u8]) -> Result<StoreId, InvalidMessage> {
    StoreId::from_slice(bytes).ok_or_else(|| InvalidMessage::field("store", "is not 16 bytes"))
}

fn peer_id(text: &str) -> Result<Option<Key>, InvalidMessage> {
    let peer_id = (!text.is_empty()).then(|| text.parse());
    let peer_id = peer_id.transpose();
    peer_id.map_err(|_| InvalidMessage::field("peer_id", "is none"))
}

/// The ids of a column, if the columns beside it have as many entries.
fn column<const N: usize>(
    ids: &[u8],
    beside: [usize; N],
) -> Result<impl Iterator<Item = OriginId>, InvalidMessage> {
    let (ids, rest) = ids.as_chunks::<16>();
    if !rest.is_empty() || ids.len() > IDS_MAX {
        let problem = format!("are not 16 bytes each, {IDS_MAX} at the most");
        return Err(InvalidMessage::field("ids", problem));
    }
    if beside.iter().any(|len| *len != ids.len()) {
        return Err(InvalidMessage::field(
            "ids",
            "are not as many as what goes with them",
        ));
    }
    Ok(ids.iter().copied().map(OriginId::from_bytes))
}

impl WireIds {
    fn of(floors: &Floors) -> Self {
        let mut wire = Self::default();
        for (id, fence) in floors.ids.iter() {
            wire.ids.extend_from_slice(id.as_bytes());
            wire.fences
                .push(fence.map_or(0, |fence| u8::try_from(fence.code()).unwrap_or(u8::MAX)));
            wire.times
                .push(floors.time_of(id).unwrap_or_default().as_millis());
        }
        wire
    }

    /// The ids, each with its fence and the time that goes with it.
    pub fn read(&self) -> Result<Vec<(OriginId, Option<Fence>, WallTime)>, InvalidMessage> {
        let ids = column(&self.ids, [self.fences.len(), self.times.len()])?;
        let fences = self
            .fences
            .iter()
            .map(|code| Fence::from_code(u32::from(*code)));
        let times = self.times.iter().map(|ms| WallTime::from_millis(*ms));
        let all = ids.zip(fences).zip(times);
        Ok(all.map(|((id, fence), time)| (id, fence, time)).collect())
    }
}

impl From<&Vector> for WireVector {
    fn from(vector: &Vector) -> Self {
        let mut wire = Self::default();
        for (id, Known { covered, seen }) in vector.iter() {
            wire.ids.extend_from_slice(id.as_bytes());
            wire.covered.push(covered.as_u64());
            wire.seen
                .push(if seen > covered { seen.as_u64() } else { 0 });
        }
        wire
    }
}

impl WireVector {
    /// The vector.
    pub fn read(&self) -> Result<Vector, InvalidMessage> {
        let ids = column(&self.ids, [self.covered.len(), self.seen.len()])?;
        let known = self
            .covered
            .iter()
            .zip(&self.seen)
            .map(|(covered, seen)| Known {
                covered: Reading::from_u64(*covered),
                seen: Reading::from_u64((*seen).max(*covered)),
            });
        Ok(ids.zip(known).collect())
    }
}

impl From<&Snapshot> for WireSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            origin: snapshot.origin.as_bytes().to_vec(),
            reading: snapshot.reading.as_u64(),
            vector: (&snapshot.vector).into(),
        }
    }
}

impl WireSnapshot {
    /// The snapshot.
    pub fn read(&self) -> Result<Snapshot, InvalidMessage> {
        Ok(Snapshot {
            origin: id("origin", &self.origin)?,
            reading: Reading::from_u64(self.reading),
            vector: self.vector.read()?,
        })
    }
}

impl From<&Publication> for WirePublication {
    fn from(publication: &Publication) -> Self {
        let peer_id = publication.peer_id.as_ref();
        Self {
            store: publication.store.as_bytes().to_vec(),
            origin: publication.origin.as_bytes().to_vec(),
            at: publication.at.as_u64(),
            floor: publication.floor.as_u64(),
            set_digest: publication.set_digest,
            since: publication.since.as_u64(),
            storage: publication.storage.code(),
            peer_id: peer_id.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl WirePublication {
    /// The publication.
    pub fn read(&self) -> Result<Publication, InvalidMessage> {
        let peer_id = peer_id(&self.peer_id)?;
        Ok(Publication {
            store: store(&self.store)?,
            origin: id("origin", &self.origin)?,
            at: Reading::from_u64(self.at),
            floor: Reading::from_u64(self.floor),
            set_digest: self.set_digest,
            since: Reading::from_u64(self.since),
            storage: Storage::from_code(self.storage),
            peer_id,
        })
    }
}

fn publications(wire: &[WirePublication]) -> Result<Vec<Publication>, InvalidMessage> {
    if wire.len() > PUBLICATIONS_MAX {
        let problem = format!("are {}, more than {PUBLICATIONS_MAX}", wire.len());
        return Err(InvalidMessage::field("publications", problem));
    }
    wire.iter().map(WirePublication::read).collect()
}

impl Replicas {
    /// What `floors` tell: all ids too if `with_ids`.
    pub fn of(floors: &Floors, with_ids: bool) -> Self {
        Self {
            ids: with_ids.then(|| WireIds::of(floors)),
            publications: floors.publications().map(WirePublication::from).collect(),
            origin: floors.own.as_bytes().to_vec(),
        }
    }

    /// One publication, as it is pushed.
    pub fn of_one(publication: &Publication) -> Self {
        Self {
            ids: None,
            publications: vec![publication.into()],
            origin: Vec::new(),
        }
    }

    /// Whether all of it can be read.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        if let Some(ids) = &self.ids {
            ids.read()?;
        }
        self.publications()?;
        self.teller().map(drop)
    }

    /// The publications in it.
    pub fn publications(&self) -> Result<Vec<Publication>, InvalidMessage> {
        publications(&self.publications)
    }

    /// The current id of who tells, if it said so.
    pub fn teller(&self) -> Result<Option<OriginId>, InvalidMessage> {
        match self.origin.as_slice() {
            [] => Ok(None),
            bytes => id("origin", bytes).map(Some),
        }
    }
}

impl From<(&OriginId, &Whose)> for WireWhose {
    fn from((origin, whose): (&OriginId, &Whose)) -> Self {
        let peer_id = whose.peer_id.as_ref();
        Self {
            origin: origin.as_bytes().to_vec(),
            store: whose.store.as_bytes().to_vec(),
            peer_id: peer_id.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

fn former(wire: &[WireWhose]) -> Result<BTreeMap<OriginId, Whose>, InvalidMessage> {
    let read = |it: &WireWhose| {
        let whose = Whose {
            store: store(&it.store)?,
            peer_id: peer_id(&it.peer_id)?,
        };
        Ok((id("origin", &it.origin)?, whose))
    };
    wire.iter().take(FORMER_MAX).map(read).collect()
}

impl From<&Floors> for FloorsState {
    fn from(floors: &Floors) -> Self {
        Self {
            own: floors.own.as_bytes().to_vec(),
            ids: WireIds::of(floors),
            vector: (&floors.vector).into(),
            publications: floors.publications().map(WirePublication::from).collect(),
            since: floors.since.as_u64(),
            since_digest: floors.since_digest,
            has_met: floors.has_met,
            horizon: floors.horizon.as_u64(),
            tended_ms: floors.tended.as_millis(),
            former: floors.former.iter().map(WireWhose::from).collect(),
        }
    }
}

impl FloorsState {
    /// The floors that were stored.
    pub fn read(&self) -> Result<Floors, InvalidMessage> {
        let mut ids = IdSet::default();
        let mut times = BTreeMap::new();
        for (id, fence, time) in self.ids.read()? {
            ids.take(id, fence);
            times.insert(id, time);
        }
        let of_origin = |publication: Publication| (publication.origin, publication);
        Ok(Floors {
            own: id("own", &self.own)?,
            ids,
            vector: self.vector.read()?,
            publications: publications(&self.publications)?
                .into_iter()
                .map(of_origin)
                .collect(),
            times,
            since: Reading::from_u64(self.since),
            since_digest: self.since_digest,
            has_met: self.has_met,
            horizon: Reading::from_u64(self.horizon),
            tended: WallTime::from_millis(self.tended_ms),
            former: former(&self.former)?,
        })
    }
}
