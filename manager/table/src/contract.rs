//! How the two sidecars of a pod speak of a table, over loopback; and how records travel between
//! pods. Protobuf messages, so that neighbouring releases skip what they do not know.
//!
//! | call on manager | body | answer |
//! |---|---|---|
//! | `GET /v1/sync/state?symbols=N` | | [`State`], with the first N coded symbols of each table |
//! | `POST /v1/sync/state` | [`StateRequest`] | [`State`], as an exchange needs it |
//! | `POST /v1/sync/replicas` | [`Replicas`](crate::floors::Replicas) | ours, after taking in those |
//! | `POST /v1/sync/advance` | [`Advance`] | [`Advanced`] |
//! | `POST /v1/sync/tend` | [`Tend`] | [`TendAnswer`] |
//! | `GET /v1/sync/tables/{table}/fingerprints?from=F&limit=N` | | [`FingerprintPage`] |
//! | `POST /v1/sync/tables/{table}/records` | [`RecordsRequest`] | [`Records`] |
//! | `POST /v1/sync/tables/{table}/merge?via=push or exchange&from=STORE_ID&session=N` | [`Batch`] | [`MergeAnswer`] |
//! | `GET /v1/sync/feed?since=REVISION` | | a stream of length-delimited [`FeedPart`]s |
//! | `POST /v1/sync/authority` | [`Bind`] | [`State`], without symbols; 409 if the store is bound to another authority |
//! | `POST /v1/sync/leave` | [`Leave`] | [`LeaveAnswer`] |
//! | `POST /v1/sync/report` | [`Report`], as JSON | [`ReportAnswer`], as JSON |

mod alarms;
mod floors;
mod pod;
mod report;

use bytes::Bytes;
use prost::Message;

pub use self::alarms::{Alarms, Found, lacking};
pub use self::floors::{Advance, Advanced, GONE_MAX, StateRequest, Tend, TendAnswer, WireHorizon};
pub use self::pod::{ADOPTS_MAX, Bind, Leave, LeaveAnswer};
pub use self::report::{
    ALARM_ABOUT_MAX, ALARM_TEXT_BYTES_MAX, About, Alarm, AlarmKind, Event, EventKind, PeerStanding,
    REPORT_BYTES_MAX, REPORT_EVENTS_MAX, REPORT_PEERS_MAX, REPORT_TEXT_BYTES_MAX, Report,
    ReportAnswer,
};
use crate::clock::{Contact, Reading, Version};
use crate::entry::{Body, Content, Entry};
use crate::feed::Via;
use crate::fingerprint::Fingerprint;
use crate::floors::{Floors, WireSnapshot, WireVector};
use crate::ids::{ClusterId, OriginId};
use crate::key::{Key, TableName};
use crate::opening::Opening;
use crate::table::{Digest, Horizon, MergeRefused, Merged, SessionId, Table};

/// The media type of all these bodies.
pub const MEDIA_TYPE: &str = "application/x-protobuf";
/// Records in one batch at the most.
pub const BATCH_RECORDS_MAX: usize = 4_096;
/// Bytes of keys and contents after which a batch takes no further group of records, so that a
/// batch always makes progress. With the largest records, a group of 256 lies 4 MiB above it.
pub const BATCH_BYTES_FULL: usize = 1 << 20;
/// The largest body of any message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Fingerprints in one page or one request at the most.
pub const FINGERPRINTS_MAX: usize = 65_536;

/// Who this replica is and how its tables stand.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// The cluster's id; under an authority, with the UUID of that (see
    /// [`Binding::cluster`](crate::Binding::cluster)).
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// [`crate::FingerprintKey::check`] of its fingerprint key.
    #[prost(fixed64, tag = "2")]
    pub key_check: u64,
    /// The store's id: 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub store: Vec<u8>,
    /// The id of its current opening: 16 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub origin: Vec<u8>,
    /// [`Floors::digest`](crate::floors::Floors::digest).
    #[prost(fixed64, tag = "5")]
    pub replicas_digest: u64,
    /// The `peer_id` of this pod's own record.
    #[prost(string, tag = "6")]
    pub peer_id: String,
    /// Each table.
    #[prost(message, repeated, tag = "7")]
    pub tables: Vec<TableState>,
    /// The UUID of the authority that the store is bound to: 16 bytes, none while it is unbound.
    #[prost(bytes = "vec", tag = "8")]
    pub authority: Vec<u8>,
    /// Whether it belongs: see [`Floors::has_met`](crate::floors::Floors::has_met).
    #[prost(bool, tag = "10")]
    pub has_met: bool,
    /// Whether it holds a tombstone.
    #[prost(bool, tag = "11")]
    pub has_tombstones: bool,
    /// See [`Floors::horizon`](crate::floors::Floors::horizon).
    #[prost(fixed64, tag = "12")]
    pub horizon: u64,
    /// Its snapshot, if it was asked for: taken before the rest.
    #[prost(message, optional, tag = "13")]
    pub snapshot: Option<WireSnapshot>,
    /// The exchange of ours that begins with this, if that was asked for.
    #[prost(uint64, optional, tag = "14")]
    pub session: Option<u64>,
    /// Its vector, where an exchange of ours begins.
    #[prost(message, optional, tag = "9")]
    pub vector: Option<WireVector>,
}

impl State {
    /// The state of the replica of `cluster` that opened its store so and holds `table`, with the
    /// first `symbols` coded symbols of that, and without what a partner may have let go.
    pub fn of(
        cluster: &ClusterId,
        opening: &Opening,
        table: &Table,
        symbols: usize,
        without: Option<&Horizon>,
    ) -> Self {
        let floors = table.floors();
        let authority = opening.binding.as_ref();
        let authority = authority.map(|binding| binding.authority.as_bytes().to_vec());
        Self {
            cluster: cluster.to_string(),
            key_check: table.key_check(),
            store: opening.store.as_bytes().to_vec(),
            origin: opening.origin.as_bytes().to_vec(),
            replicas_digest: floors.digest(),
            peer_id: opening.peer_id.to_string(),
            tables: vec![TableState::of(table, symbols, without)],
            authority: authority.unwrap_or_default(),
            has_met: floors.has_met(),
            has_tombstones: table.tombstones() > 0,
            horizon: floors.horizon().as_u64(),
            snapshot: None,
            session: None,
            vector: None,
        }
    }

    /// The same, of a replica of which an exchange begins.
    #[must_use]
    pub fn begun(self, session: SessionId, floors: &Floors) -> Self {
        Self {
            session: Some(session.0),
            vector: Some(floors.vector().into()),
            ..self
        }
    }

    /// The state of the table of this name.
    pub fn table(&self, name: &TableName) -> Option<&TableState> {
        self.tables.iter().find(|table| table.name == name.as_str())
    }
}

/// How one table stands.
#[derive(Clone, PartialEq, Message)]
pub struct TableState {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its digest.
    #[prost(message, required, tag = "2")]
    pub digest: WireDigest,
    /// Its first coded symbols, in the form of [`crate::sketch`].
    #[prost(bytes = "vec", tag = "3")]
    pub symbols: Vec<u8>,
}

impl TableState {
    /// How `table` stands: see [`Table::standing`].
    pub fn of(table: &Table, symbols: usize, without: Option<&Horizon>) -> Self {
        let standing = table.standing(symbols, without);
        Self {
            name: table.name().to_string(),
            digest: standing.digest.into(),
            symbols: standing.symbols,
        }
    }
}

/// A [`Digest`] as it is sent.
#[derive(Copy, Clone, PartialEq, Eq, Message)]
pub struct WireDigest {
    /// See [`Digest::records`].
    #[prost(uint64, tag = "1")]
    pub records: u64,
    /// See [`Digest::sum`].
    #[prost(fixed64, tag = "2")]
    pub sum: u64,
    /// See [`Digest::check`].
    #[prost(fixed32, tag = "3")]
    pub check: u32,
}

impl From<Digest> for WireDigest {
    fn from(digest: Digest) -> Self {
        Self {
            records: digest.records,
            sum: digest.sum,
            check: digest.check,
        }
    }
}

impl From<WireDigest> for Digest {
    fn from(digest: WireDigest) -> Self {
        Self {
            records: digest.records,
            sum: digest.sum,
            check: digest.check,
        }
    }
}

/// A message that does not say what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidMessage {
    /// It is no message of its kind.
    #[error("not a message of its kind: {0}")]
    Encoding(String),
    /// A field has a value that it cannot have.
    #[error("the field {field} {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl InvalidMessage {
    /// An error about `field`.
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field {
            field,
            problem: problem.into(),
        }
    }
}

impl From<prost::DecodeError> for InvalidMessage {
    fn from(error: prost::DecodeError) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// Records of one table.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    /// The table's name.
    #[prost(string, tag = "1")]
    pub table: String,
    /// The origins of the records' versions, 16 bytes each, named by their place in this list.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub origins: Vec<Vec<u8>>,
    /// The records.
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<WireRecord>,
}

/// A record as it is sent.
#[derive(Clone, PartialEq, Message)]
pub struct WireRecord {
    /// Its key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The reading of its version.
    #[prost(fixed64, tag = "2")]
    pub reading: u64,
    /// The place of the origin of its version in [`Batch::origins`].
    #[prost(uint32, tag = "3")]
    pub origin: u32,
    /// Its contact, in steps.
    #[prost(uint32, tag = "4")]
    pub contact: u32,
    /// Its content; a tombstone has none.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub content: Option<Bytes>,
}

impl Batch {
    /// The batch of these records.
    pub fn new(table: &TableName, records: impl IntoIterator<Item = (Key, Entry)>) -> Self {
        let mut batch = BatchBuilder::new(table);
        for (key, entry) in records {
            batch.add(&key, &entry);
        }
        batch.finish()
    }

    /// Adds the records of another batch of the same table. One that names none of its origins is
    /// left out.
    pub fn append(&mut self, other: Self) {
        let places: Vec<_> = other
            .origins
            .into_iter()
            .map(|it| self.place_of(it))
            .collect();
        self.records.reserve(other.records.len());
        for mut record in other.records {
            let place = usize::try_from(record.origin).ok();
            if let Some(place) = place.and_then(|place| places.get(place)) {
                record.origin = *place;
                self.records.push(record);
            }
        }
    }

    /// The place of an origin among those of the records, where it is put if it is not there yet.
    fn place_of<O: AsRef<[u8]> + Into<Vec<u8>>>(&mut self, origin: O) -> u32 {
        let origins = &mut self.origins;
        // From the end: records of one origin mostly follow one another.
        let place = origins
            .iter()
            .rposition(|known| known == origin.as_ref())
            .unwrap_or_else(|| {
                origins.push(origin.into());
                origins.len() - 1
            });
        u32::try_from(place).expect("no more origins than records")
    }

    /// Whether records can be read from it: what [`Batch::into_records`] says, with nothing copied.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        self.heads().map(drop)
    }

    /// The records in it; refused whole if any of them is none, or if there are too many.
    pub fn into_records(self) -> Result<Vec<(Key, Entry)>, InvalidMessage> {
        let heads = self.heads()?.into_iter().zip(self.records);
        let records = heads.map(|((key, origin), record)| {
            let entry = Entry {
                version: Version {
                    reading: Reading::from_u64(record.reading),
                    origin,
                },
                contact: Contact::from_steps(record.contact),
                body: record.content.map_or(Body::Tombstone, |content| {
                    // Copied: a record that is kept does not keep the message that it came in.
                    Body::Live(Content::from(&content[..]))
                }),
            };
            (key, entry)
        });
        Ok(records.collect())
    }

    /// The key of each record and the origin of its version.
    fn heads(&self) -> Result<Vec<(Key, OriginId)>, InvalidMessage> {
        if self.records.len() > BATCH_RECORDS_MAX {
            let problem = format!(
                "has {} entries, more than {BATCH_RECORDS_MAX}",
                self.records.len()
            );
            return Err(InvalidMessage::field("records", problem));
        }
        let origins = self
            .origins
            .iter()
            .map(|origin| OriginId::from_slice(origin))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| InvalidMessage::field("origins", "has one that is not 16 bytes"))?;
        let heads = self.records.iter().map(|record| {
            let key = Key::from_bytes(&record.key)
                .map_err(|error| InvalidMessage::field("key", format!("is none: {error}")))?;
            let origin = usize::try_from(record.origin)
                .ok()
                .and_then(|place| origins.get(place))
                .ok_or_else(|| InvalidMessage::field("origin", "names none of the origins"))?;
            Ok((key, *origin))
        });
        heads.collect()
    }
}

/// Collects records into a [`Batch`] until it is full.
#[derive(Debug)]
pub struct BatchBuilder {
    batch: Batch,
    bytes: usize,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(table: &TableName) -> Self {
        Self {
            batch: Batch {
                table: table.to_string(),
                origins: Vec::new(),
                records: Vec::new(),
            },
            bytes: 0,
        }
    }

    /// Whether it should not take `records` more.
    pub const fn has_no_room_for(&self, records: usize) -> bool {
        self.batch.records.len() + records > BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_FULL
    }

    /// Adds a record.
    pub fn add(&mut self, key: &Key, entry: &Entry) {
        let origin = self.batch.place_of(entry.version.origin.as_bytes());
        let content = entry.content().map(Content::to_bytes);
        self.bytes += key.as_str().len() + content.as_ref().map_or(0, Bytes::len);
        self.batch.records.push(WireRecord {
            key: Bytes::copy_from_slice(key.as_str().as_bytes()),
            reading: entry.version.reading.as_u64(),
            origin,
            contact: entry.contact.steps(),
            content,
        });
    }

    /// The batch.
    pub fn finish(self) -> Batch {
        self.batch
    }
}

/// The form in which fingerprints are sent: 8 bytes each, little-endian.
pub fn fingerprints_to_bytes(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Vec<u8> {
    fingerprints
        .into_iter()
        .flat_map(|fingerprint| fingerprint.0.to_le_bytes())
        .collect()
}

/// Reads what [`fingerprints_to_bytes`] wrote; refuses more than [`FINGERPRINTS_MAX`].
pub fn fingerprints_from_bytes(bytes: &[u8]) -> Result<Vec<Fingerprint>, InvalidMessage> {
    let (fingerprints, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || fingerprints.len() > FINGERPRINTS_MAX {
        let problem = format!(
            "has {} bytes; 8 each, {FINGERPRINTS_MAX} at the most",
            bytes.len()
        );
        return Err(InvalidMessage::field("fingerprints", problem));
    }
    Ok(fingerprints
        .iter()
        .map(|bytes| Fingerprint(u64::from_le_bytes(*bytes)))
        .collect())
}

/// A part of a table's fingerprints, in ascending order.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FingerprintPage {
    /// See [`fingerprints_to_bytes`].
    #[prost(bytes = "vec", tag = "1")]
    pub fingerprints: Vec<u8>,
    /// Whether there are none above the last of these.
    #[prost(bool, tag = "2")]
    pub complete: bool,
    /// The digest of the table at that moment: pages with one digest are of one table.
    #[prost(message, optional, tag = "3")]
    pub digest: Option<WireDigest>,
}

impl FingerprintPage {
    /// Up to `limit` fingerprints of `table` in ascending order, from the first at or above `from`.
    pub fn of(table: &Table, from: Fingerprint, limit: usize) -> Self {
        let limit = limit.clamp(1, FINGERPRINTS_MAX);
        let mut page: Vec<_> = table.fingerprints_from(from, limit + 1).collect();
        let complete = page.len() <= limit;
        page.truncate(limit);
        Self {
            fingerprints: fingerprints_to_bytes(page),
            complete,
            digest: Some(table.digest().into()),
        }
    }
}

/// Asks for the records with these fingerprints.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RecordsRequest {
    /// See [`fingerprints_to_bytes`].
    #[prost(bytes = "vec", tag = "1")]
    pub fingerprints: Vec<u8>,
}

/// The records that were asked for, as far as one batch goes.
#[derive(Clone, PartialEq, Message)]
pub struct Records {
    /// The records; those that changed or left since are not among them.
    #[prost(message, required, tag = "1")]
    pub batch: Batch,
    /// How many of the fingerprints asked for were dealt with; at least one if any were.
    #[prost(uint32, tag = "2")]
    pub dealt_with: u32,
}

/// What became of each record of a merged batch.
#[derive(Clone, PartialEq, Message)]
pub struct MergeAnswer {
    /// One byte a record, in the batch's order: see [`merged_code`].
    #[prost(bytes = "vec", tag = "1")]
    pub outcomes: Vec<u8>,
    /// The tombstones that whoever sent the batch is to have, as they beat what it sent.
    #[prost(message, optional, tag = "2")]
    pub answers: Option<Batch>,
}

const MERGED_CODES: [(Merged, u8); 15] = [
    (Merged::Applied, 1),
    (Merged::Contact, 2),
    (Merged::Equal, 3),
    (Merged::Stale, 4),
    (Merged::Ghost, 5),
    (Merged::Collected, 6),
    (Merged::Fenced, 7),
    (Merged::Deferred, 8),
    (Merged::Refused(MergeRefused::VersionAhead), 16),
    (Merged::Refused(MergeRefused::ContactAhead), 17),
    (Merged::Refused(MergeRefused::Content), 18),
    (Merged::Refused(MergeRefused::TooLarge), 19),
    (Merged::Refused(MergeRefused::Full), 20),
    (Merged::Refused(MergeRefused::Unreadable), 21),
    (Merged::Refused(MergeRefused::Origins), 22),
];

/// The byte that stands for an outcome. From 16 up, the record was refused.
pub fn merged_code(merged: Merged) -> u8 {
    MERGED_CODES
        .iter()
        .find(|(known, _)| *known == merged)
        .map_or(0, |(_, code)| *code)
}

/// The outcome that a byte stands for.
pub fn merged_from_code(code: u8) -> Option<Merged> {
    MERGED_CODES
        .iter()
        .find(|(_, known)| *known == code)
        .map(|(merged, _)| *merged)
}

/// The word for an outcome in metrics, logs and the CLI.
pub const fn merged_word(merged: Merged) -> &'static str {
    match merged {
        Merged::Applied => "applied",
        Merged::Contact => "contact",
        Merged::Equal => "equal",
        Merged::Stale => "stale",
        Merged::Ghost => "ghost",
        Merged::Collected => "collected",
        Merged::Fenced => "fenced",
        Merged::Deferred => "deferred",
        Merged::Refused(MergeRefused::VersionAhead) => "refused_version_ahead",
        Merged::Refused(MergeRefused::ContactAhead) => "refused_contact_ahead",
        Merged::Refused(MergeRefused::Content) => "refused_content",
        Merged::Refused(MergeRefused::TooLarge) => "refused_too_large",
        Merged::Refused(MergeRefused::Full) => "refused_full",
        Merged::Refused(MergeRefused::Unreadable) => "refused_unreadable",
        Merged::Refused(MergeRefused::Origins) => "refused_origins",
    }
}

/// Every outcome, so that each has its metric from the start.
pub fn merged_all() -> impl Iterator<Item = Merged> {
    MERGED_CODES.into_iter().map(|(merged, _)| merged)
}

/// Fresh changes that were written here, for sync to push.
#[derive(Clone, PartialEq, Message)]
pub struct FeedPart {
    /// The revision after these changes: where to resume.
    #[prost(string, tag = "1")]
    pub revision: String,
    /// The changed records; contacts are not among them, as they are never pushed.
    #[prost(message, optional, tag = "2")]
    pub batch: Option<Batch>,
    /// The trace that the first traced one of these changes belongs to, as the header `traceparent`
    /// has it; empty if none does.
    #[prost(string, tag = "3")]
    pub trace: String,
}

/// The word for a way in the query of a merge.
pub const fn via_word(via: Via) -> &'static str {
    match via {
        Via::Local => "local",
        Via::Push => "push",
        Via::Exchange => "exchange",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(reading: u64, origin: u8, content: Option<Vec<u8>>) -> Entry {
        Entry {
            version: Version {
                reading: Reading::from_u64(reading),
                origin: OriginId::from_bytes([origin; 16]),
            },
            contact: Contact::from_steps(u32::from(origin)),
            body: content.map_or(Body::Tombstone, |content| {
                Body::Live(Content::from(content))
            }),
        }
    }

    fn table() -> TableName {
        "peers".parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_batch_reads_back(
            parts in prop::collection::vec(
                (any::<u64>(), 0_u8..3, prop::option::of(prop::collection::vec(any::<u8>(), 0..9))),
                0..20,
            ),
        ) {
            let records: Vec<(Key, Entry)> = parts
                .into_iter()
                .enumerate()
                .map(|(n, (reading, origin, content))| {
                    (format!("k{n}").parse().unwrap(), entry(reading, origin, content))
                })
                .collect();
            let bytes = Batch::new(&table(), records.clone()).encode_to_vec();
            let batch = Batch::decode(&bytes[..]).unwrap();
            prop_assert!(batch.origins.len() <= 3);
            prop_assert_eq!(batch.into_records().unwrap(), records);
        }

        #[test]
        fn any_bytes_are_a_batch_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(batch) = Batch::decode(&bytes[..]) {
                let _ = batch.into_records();
            }
        }
    }

    #[test]
    fn a_batch_with_a_wrong_part_is_refused_whole() {
        let good = Batch::new(&table(), [("a".parse().unwrap(), entry(1, 1, None))]);
        let mut origin = good.clone();
        origin.origins[0].pop();
        let mut place = good.clone();
        place.records[0].origin = 1;
        let mut key = good.clone();
        key.records[0].key = "a/b".into();
        let mut many = good;
        many.records = vec![many.records[0].clone(); BATCH_RECORDS_MAX + 1];
        for (batch, field) in [
            (origin, "origins"),
            (place, "origin"),
            (key, "key"),
            (many, "records"),
        ] {
            match batch.into_records() {
                Err(InvalidMessage::Field { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    #[test]
    fn each_outcome_has_a_byte_and_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = merged_all().map(merged_word).collect();
        assert_eq!(words.len(), MERGED_CODES.len());
        for merged in merged_all() {
            assert_eq!(merged_from_code(merged_code(merged)), Some(merged));
        }
        assert_eq!(merged_from_code(0), None);
    }
}
