//! What two syncs say to each other: one [`Request`] and one [`Response`], each one HTTP body.
//!
//! A body is one protobuf message behind its length as a varint, and nothing else. Fields that a
//! reader does not know are skipped and an ask that it does not know is refused by name, so that
//! two neighbouring releases talk. What is read here keeps its bounds; whether it makes sense to
//! who asked is for [`mod@crate::exchange`] and [`crate::respond`] to say.

use bytes::Bytes;
use peer_table::TableName;
use peer_table::contract::{
    BATCH_RECORDS_MAX, Batch, FingerprintPage, InvalidMessage, MESSAGE_BYTES_MAX, WireDigest,
    WireHorizon,
};
use peer_table::floors::{Replicas, WireSnapshot};
use peer_table::sketch::{Sketch, WIRE_LEN};
use prost::{Message, Oneof};

/// Coded symbols in one answer at the most.
pub const SYMBOLS_MAX: usize = Sketch::LEN;
/// Fingerprints of wanted records in one [`Swap`] at the most: more than one batch could answer.
pub const WANTED_MAX: usize = BATCH_RECORDS_MAX;
/// Bytes of a refusal's detail at the most.
pub const DETAIL_BYTES_MAX: usize = 512;
/// Fields in an encoded batch at the most: its table, records and origins, and what a newer release
/// may add. Checked before anything is allocated for them.
const BATCH_FIELDS_MAX: usize = 4 * BATCH_RECORDS_MAX;
/// Fields in what is told of all replicas at the most: a publication each, and what a newer release
/// may add. Checked before anything is allocated for them.
const REPLICAS_FIELDS_MAX: usize = 32_768;
/// The fields of a [`Request`] in which that is: in [`Ask::Replicas`], and in a [`Push`].
const REPLICAS_IN_REQUEST: &[&[usize]] = &[&[8], &[7, 5]];
/// The fields of a [`Response`] in which that is.
const REPLICAS_IN_RESPONSE: &[&[usize]] = &[&[9]];

/// Who speaks. Carried by every request and every response, but for refusals by who does not know
/// itself because its manager is down.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    /// The version of the protocol that this message is of.
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// The lowest version that the speaker understands; 0 where it is the one spoken.
    #[prost(uint32, tag = "2")]
    pub protocol_min: u32,
    /// The highest version that the speaker understands; 0 where it is the one spoken.
    #[prost(uint32, tag = "3")]
    pub protocol_max: u32,
    /// The cluster id as [`cluster_check`](crate::handshake::cluster_check) has it: 16 bytes, so
    /// that what two equal tables cost does not depend on how long the id is.
    #[prost(bytes = "vec", tag = "4")]
    pub cluster: Vec<u8>,
    /// [`FingerprintKey::check`](peer_table::FingerprintKey::check) of its fingerprint key.
    #[prost(fixed64, tag = "5")]
    pub key_check: u64,
    /// Its store's id: 16 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub store: Vec<u8>,
    /// The id of the store's current opening: 16 bytes.
    #[prost(bytes = "vec", tag = "7")]
    pub origin: Vec<u8>,
    /// Its wall clock, in milliseconds since 1970.
    #[prost(uint64, tag = "8")]
    pub wall_ms: u64,
    /// [`Floors::digest`](peer_table::floors::Floors::digest): where the other side's is another, the
    /// two tell each other what they know of all replicas before any record moves.
    #[prost(fixed64, tag = "9")]
    pub replicas_digest: u64,
    /// The `peer_id` of its pod's own record, unless it is a UUID; empty if it has none yet.
    #[prost(string, tag = "11")]
    pub peer_id: String,
    /// The `peer_id` where it is a UUID as it is usually spelled: its 16 bytes.
    #[prost(bytes = "vec", tag = "12")]
    pub peer_uuid: Vec<u8>,
    /// Whether it belongs: see [`Floors::has_met`](peer_table::floors::Floors::has_met).
    #[prost(bool, tag = "13")]
    pub has_met: bool,
}

/// What one sync asks of another.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Who asks.
    #[prost(message, required, tag = "1")]
    pub hello: Hello,
    /// Of which table.
    #[prost(string, tag = "2")]
    pub table: String,
    /// What; `None` if it is nothing that this release knows.
    #[prost(oneof = "Ask", tags = "3, 4, 5, 6, 7, 8")]
    pub ask: Option<Ask>,
}

/// All that can be asked.
#[derive(Clone, PartialEq, Oneof)]
pub enum Ask {
    /// Begins an exchange; answered by [`Answer::Opened`].
    #[prost(message, tag = "3")]
    Open(Open),
    /// More coded symbols; answered by [`Answer::Symbols`].
    #[prost(message, tag = "4")]
    Symbols(AskSymbols),
    /// A part of the fingerprints; answered by [`Answer::Fingerprints`].
    #[prost(message, tag = "5")]
    Fingerprints(AskFingerprints),
    /// Records for records; answered by [`Answer::Swapped`].
    #[prost(message, tag = "6")]
    Swap(Swap),
    /// A fresh change, to be taken and passed on; answered by [`Answer::Pushed`].
    #[prost(message, tag = "7")]
    Push(Push),
    /// What the asker knows of all replicas, for what the other side knows; answered by
    /// [`Answer::Replicas`].
    #[prost(message, tag = "8")]
    Replicas(Replicas),
}

/// Begins an exchange.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Open {
    /// The digest of the asker's table.
    #[prost(message, required, tag = "1")]
    pub digest: WireDigest,
    /// How many coded symbols to answer with, if the digests differ.
    #[prost(uint32, tag = "2")]
    pub symbols: u32,
    /// The tombstones that the asker may have let go, for the answer to be without them; left out
    /// where it holds none.
    #[prost(message, optional, tag = "3")]
    pub without: Option<WireHorizon>,
}

/// Asks for coded symbols of the table as it was when it had this digest.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AskSymbols {
    /// That digest.
    #[prost(message, required, tag = "1")]
    pub digest: WireDigest,
    /// The first one.
    #[prost(uint32, tag = "2")]
    pub from: u32,
    /// One past the last one.
    #[prost(uint32, tag = "3")]
    pub to: u32,
    /// As in [`Open`].
    #[prost(message, optional, tag = "4")]
    pub without: Option<WireHorizon>,
}

/// Asks for a part of the fingerprints.
#[derive(Copy, Clone, PartialEq, Eq, Message)]
pub struct AskFingerprints {
    /// The first at or above this one.
    #[prost(fixed64, tag = "1")]
    pub from: u64,
    /// How many at the most.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
}

/// Gives records, and asks for others.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Swap {
    /// Records that the other side lacks: an encoded [`Batch`], or nothing. See [`batch_from_bytes`].
    #[prost(bytes = "bytes", tag = "1")]
    pub batch: Bytes,
    /// The fingerprints of the records wanted, as
    /// [`fingerprints_to_bytes`](peer_table::contract::fingerprints_to_bytes) writes them;
    /// [`WANTED_MAX`] at the most.
    #[prost(bytes = "vec", tag = "2")]
    pub want: Vec<u8>,
}

/// Gives fresh records, for the receiver and for those within the scope.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Push {
    /// The records: an encoded [`Batch`]. See [`batch_from_bytes`].
    #[prost(bytes = "bytes", tag = "1")]
    pub batch: Bytes,
    /// See [`Scope::after`](crate::push::Scope::after).
    #[prost(fixed64, tag = "2")]
    pub after: u64,
    /// See [`Scope::up_to`](crate::push::Scope::up_to).
    #[prost(fixed64, tag = "3")]
    pub up_to: u64,
    /// See [`Scope::origin`](crate::push::Scope::origin); 0 if it is not known.
    #[prost(fixed64, tag = "4")]
    pub origin: u64,
    /// Fresh publications of replicas, without ids.
    #[prost(message, optional, tag = "5")]
    pub replicas: Option<Replicas>,
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Who answers. Only a refusal may be without it.
    #[prost(message, optional, tag = "1")]
    pub hello: Option<Hello>,
    /// The table that was asked about.
    #[prost(string, tag = "2")]
    pub table: String,
    /// The answer; `None` if it is none that this release knows.
    #[prost(oneof = "Answer", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub answer: Option<Answer>,
}

/// All that can be answered.
#[derive(Clone, PartialEq, Oneof)]
pub enum Answer {
    /// Nothing was done.
    #[prost(message, tag = "3")]
    Refused(Refused),
    /// To [`Ask::Open`].
    #[prost(message, tag = "4")]
    Opened(Opened),
    /// To [`Ask::Symbols`].
    #[prost(message, tag = "5")]
    Symbols(Symbols),
    /// To [`Ask::Fingerprints`].
    #[prost(message, tag = "6")]
    Fingerprints(FingerprintPage),
    /// To [`Ask::Swap`].
    #[prost(message, tag = "7")]
    Swapped(Swapped),
    /// To [`Ask::Push`].
    #[prost(message, tag = "8")]
    Pushed(Pushed),
    /// To [`Ask::Replicas`].
    #[prost(message, tag = "9")]
    Replicas(Replicas),
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// The number of a [`HandshakeRefused`](crate::handshake::HandshakeRefused).
    #[prost(uint32, tag = "1")]
    pub reason: u32,
    /// A sentence for people; [`DETAIL_BYTES_MAX`] at the most.
    #[prost(string, tag = "2")]
    pub detail: String,
}

/// How the responder's table stands.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Opened {
    /// Its digest.
    #[prost(message, required, tag = "1")]
    pub digest: WireDigest,
    /// Its first coded symbols, as many as were asked for or as its sketch has; none if the digests
    /// are equal, or if there is a listing.
    #[prost(bytes = "vec", tag = "2")]
    pub symbols: Vec<u8>,
    /// All its fingerprints, where these take no more bytes than the symbols would.
    #[prost(message, optional, tag = "3")]
    pub listing: Option<FingerprintPage>,
    /// What it had right before that, where either side holds a tombstone.
    #[prost(message, optional, tag = "4")]
    pub snapshot: Option<WireSnapshot>,
    /// With a snapshot: up to which reading it may have let go of tombstones.
    #[prost(fixed64, tag = "5")]
    pub horizon: u64,
}

/// Coded symbols of one snapshot of the responder's table.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Symbols {
    /// The digest of that snapshot.
    #[prost(message, required, tag = "1")]
    pub digest: WireDigest,
    /// The index of the first one: the one asked for, or 0 if the digest is not the one named.
    #[prost(uint32, tag = "2")]
    pub from: u32,
    /// The symbols, up to the one asked for or as far as the sketch goes.
    #[prost(bytes = "vec", tag = "3")]
    pub symbols: Vec<u8>,
}

/// The responder's side of a swap.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Swapped {
    /// Records that were wanted: an encoded [`Batch`], or nothing; those that changed or left since
    /// are not among them.
    #[prost(bytes = "bytes", tag = "1")]
    pub batch: Bytes,
    /// How many of the wanted fingerprints were dealt with; at least one if any were wanted.
    #[prost(uint32, tag = "2")]
    pub dealt_with: u32,
    /// What became of the records given, one byte each: see
    /// [`merged_code`](peer_table::contract::merged_code).
    #[prost(bytes = "vec", tag = "3")]
    pub outcomes: Vec<u8>,
    /// The digest of the responder's table after that.
    #[prost(message, required, tag = "4")]
    pub digest: WireDigest,
    /// The tombstones that beat records given: an encoded [`Batch`], or nothing.
    #[prost(bytes = "bytes", tag = "5")]
    pub answers: Bytes,
    /// From version 2 of the protocol on, in place of `outcomes`: each outcome once for all that
    /// follow one another, and behind it, as a varint, how many more they are.
    #[prost(bytes = "vec", tag = "6")]
    pub runs: Vec<u8>,
}

/// The responder's side of a push.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pushed {
    /// What became of the records, one byte each: see
    /// [`merged_code`](peer_table::contract::merged_code).
    #[prost(bytes = "vec", tag = "1")]
    pub outcomes: Vec<u8>,
    /// The tombstones that beat records pushed: an encoded [`Batch`], or nothing.
    #[prost(bytes = "bytes", tag = "2")]
    pub answers: Bytes,
    /// As in [`Swapped`].
    #[prost(bytes = "vec", tag = "3")]
    pub runs: Vec<u8>,
}

/// Bytes that are no request, or no response.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin with a length.
    #[error("{bytes} bytes that do not begin with the length of a message")]
    NoLength {
        /// How many there are.
        bytes: usize,
    },
    /// It is larger than any message may be.
    #[error("a message of {bytes} bytes, more than {MESSAGE_BYTES_MAX}")]
    Oversized {
        /// Its length, as it says or as it is.
        bytes: usize,
    },
    /// It ends too early.
    #[error("a message of {said} bytes was cut off after {bytes}")]
    Truncated {
        /// How long it says it is.
        said: usize,
        /// How many bytes of it there are.
        bytes: usize,
    },
    /// Something follows it.
    #[error("{bytes} bytes follow the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// What it tells of replicas is of more parts than there can be replicas.
    #[error("what is told of replicas has {fields} fields, more than {REPLICAS_FIELDS_MAX}")]
    Crowded {
        /// How many.
        fields: usize,
    },
    /// What it holds is no message of its kind.
    #[error("the message cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
}

impl Request {
    /// The body to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_length_delimited_to_vec()
    }

    /// Reads a body.
    pub fn from_bytes(body: &[u8]) -> Result<Self, Unreadable> {
        read(body, REPLICAS_IN_REQUEST)
    }
}

impl Response {
    /// The body to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_length_delimited_to_vec()
    }

    /// Reads a body.
    pub fn from_bytes(body: &[u8]) -> Result<Self, Unreadable> {
        read(body, REPLICAS_IN_RESPONSE)
    }
}

fn read<M: Message + Default>(body: &[u8], replicas: &[&[usize]]) -> Result<M, Unreadable> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(Unreadable::Oversized { bytes: body.len() });
    }
    let mut message = body;
    let said = prost::decode_length_delimiter(&mut message)
        .map_err(|_| Unreadable::NoLength { bytes: body.len() })?;
    if said > MESSAGE_BYTES_MAX {
        return Err(Unreadable::Oversized { bytes: said });
    }
    if said > message.len() {
        return Err(Unreadable::Truncated {
            said,
            bytes: message.len(),
        });
    }
    if said < message.len() {
        return Err(Unreadable::Trailing {
            bytes: message.len() - said,
        });
    }
    // Two bytes on the wire could else become a hundred in memory. What is cut off is for the
    // decoder to say.
    let fields = replicas
        .iter()
        .map(|path| count_fields_at(message, path).unwrap_or(0));
    let fields = fields.sum();
    if fields > REPLICAS_FIELDS_MAX {
        return Err(Unreadable::Crowded { fields });
    }
    Ok(M::decode(message)?)
}

/// Reads the batch of a [`Swap`], [`Swapped`] or [`Push`]: `None` if there is none. Refuses one of
/// another table, with too many records, or with what is no record: the manager would too, and then
/// what the peer said wrongly would look like a failure of the manager.
///
/// The fields of a batch are bytes, and read here, so that they can be counted first: two bytes on
/// the wire could else become a hundred in memory.
pub fn batch_from_bytes(bytes: &Bytes, table: &TableName) -> Result<Option<Batch>, InvalidMessage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let fields = count_fields(bytes)
        .ok_or_else(|| InvalidMessage::Encoding("a batch is cut off".to_owned()))?;
    if fields > BATCH_FIELDS_MAX {
        let problem = format!("has {fields} fields, more than {BATCH_FIELDS_MAX}");
        return Err(InvalidMessage::field("batch", problem));
    }
    let batch = Batch::decode(bytes.clone())?;
    if batch.records.len() > BATCH_RECORDS_MAX {
        let problem = format!(
            "has {} entries, more than {BATCH_RECORDS_MAX}",
            batch.records.len()
        );
        return Err(InvalidMessage::field("batch", problem));
    }
    if batch.table != table.as_str() {
        return Err(InvalidMessage::field(
            "batch",
            format!("is not of the table {table}"),
        ));
    }
    batch.check()?;
    Ok((!batch.records.is_empty()).then_some(batch))
}

/// The bytes of a batch for a [`Swap`], [`Swapped`] or [`Push`]: none if it has no records.
pub fn batch_to_bytes(batch: &Batch) -> Bytes {
    if batch.records.is_empty() {
        Bytes::new()
    } else {
        batch.encode_to_vec().into()
    }
}

/// Counts the fields of an encoded message without looking into them; `None` if it is cut off, or
/// has a field of a kind that protobuf no longer has.
fn count_fields(mut bytes: &[u8]) -> Option<usize> {
    let mut fields = 0;
    while !bytes.is_empty() {
        take_field(&mut bytes)?;
        fields += 1;
    }
    Some(fields)
}

/// Counts the fields of the message at this path of fields in an encoded message, wherever it is in
/// several parts of all of them.
fn count_fields_at(mut bytes: &[u8], path: &[usize]) -> Option<usize> {
    let Some((first, rest)) = path.split_first() else {
        return count_fields(bytes);
    };
    let mut fields = 0;
    while !bytes.is_empty() {
        let (number, content) = take_field(&mut bytes)?;
        if number == *first {
            fields += count_fields_at(content, rest)?;
        }
    }
    Some(fields)
}

/// Takes a field off: its number, and its content where that has a length.
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(usize, &'a [u8])> {
    let key = prost::decode_length_delimiter(&mut *bytes).ok()?;
    let has_length = key & 7 == 2;
    let length = match key & 7 {
        0 => 1 + bytes.iter().position(|byte| byte & 0x80 == 0)?,
        1 => 8,
        2 => prost::decode_length_delimiter(&mut *bytes).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((key >> 3, if has_length { content } else { &[] }))
}

/// Refuses bytes that are no run of coded symbols, or too long a one; the answer is how many they
/// are.
pub(crate) fn count_symbols(symbols: &[u8]) -> Result<usize, InvalidMessage> {
    let count = symbols.len() / WIRE_LEN;
    if !symbols.len().is_multiple_of(WIRE_LEN) || count > SYMBOLS_MAX {
        let bytes = symbols.len();
        let problem = format!("has {bytes} bytes; {WIRE_LEN} each, {SYMBOLS_MAX} at the most");
        return Err(InvalidMessage::field("symbols", problem));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use peer_table::contract::WireRecord;
    use proptest::prelude::*;

    use super::*;

    fn table() -> TableName {
        "peers".parse().unwrap()
    }

    fn request() -> Request {
        Request {
            hello: Hello {
                protocol: 1,
                peer_id: "a".into(),
                ..Hello::default()
            },
            table: "peers".into(),
            ask: Some(Ask::Fingerprints(AskFingerprints { from: 7, limit: 9 })),
        }
    }

    #[test]
    fn a_body_reads_back() {
        assert_eq!(Request::from_bytes(&request().to_bytes()), Ok(request()));
        let response = Response {
            hello: None,
            table: "peers".into(),
            answer: Some(Answer::Refused(Refused {
                reason: 3,
                detail: "no".into(),
            })),
        };
        assert_eq!(Response::from_bytes(&response.to_bytes()), Ok(response));
    }

    #[test]
    fn a_body_that_is_cut_off_anywhere_is_refused() {
        let body = request().to_bytes();
        assert_eq!(
            Request::from_bytes(&[]),
            Err(Unreadable::NoLength { bytes: 0 })
        );
        for end in 1..body.len() {
            let (said, bytes) = (body.len() - 1, end - 1);
            let refused = Request::from_bytes(&body[..end]);
            assert_eq!(refused, Err(Unreadable::Truncated { said, bytes }));
        }
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut body = request().to_bytes();
        body.extend([0; 3]);
        assert_eq!(
            Request::from_bytes(&body),
            Err(Unreadable::Trailing { bytes: 3 })
        );
    }

    #[test]
    fn an_oversized_body_is_refused_by_what_it_says_and_by_what_it_is() {
        let body = vec![0; MESSAGE_BYTES_MAX + 1];
        let bytes = body.len();
        assert_eq!(
            Request::from_bytes(&body),
            Err(Unreadable::Oversized { bytes })
        );
        let mut says = Vec::new();
        prost::encode_length_delimiter(bytes, &mut says).unwrap();
        assert_eq!(
            Request::from_bytes(&says),
            Err(Unreadable::Oversized { bytes })
        );
    }

    #[test]
    fn an_ask_or_answer_of_a_newer_release_is_read_as_none() {
        #[derive(Clone, PartialEq, Message)]
        struct Newer {
            #[prost(message, required, tag = "1")]
            hello: Hello,
            #[prost(string, tag = "2")]
            table: String,
            #[prost(message, required, tag = "99")]
            ask: AskFingerprints,
        }
        let Request { hello, table, .. } = request();
        let newer = Newer {
            hello,
            table,
            ask: AskFingerprints { from: 1, limit: 2 },
        };
        let body = newer.encode_length_delimited_to_vec();
        assert_eq!(
            Request::from_bytes(&body),
            Ok(Request {
                ask: None,
                ..request()
            })
        );
        assert_eq!(Response::from_bytes(&body).unwrap().answer, None);
    }

    #[test]
    fn a_batch_of_more_records_than_allowed_is_refused_before_it_takes_memory() {
        // Field 3, of length 0, over and over: an empty record each.
        let bytes = Bytes::from([0x1a, 0x00].repeat(BATCH_FIELDS_MAX + 1));
        let refused = batch_from_bytes(&bytes, &table()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the field batch has 16385 fields, more than 16384"
        );
        let bytes = Bytes::from([0x1a, 0x00].repeat(BATCH_RECORDS_MAX + 1));
        let refused = batch_from_bytes(&bytes, &table()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the field batch has 4097 entries, more than 4096"
        );
    }

    #[test]
    fn a_batch_of_another_table_is_refused_and_an_empty_one_is_none() {
        let mut batch = Batch {
            table: "files".into(),
            ..Batch::default()
        };
        assert_eq!(batch_to_bytes(&batch), Bytes::new());
        assert_eq!(batch_from_bytes(&Bytes::new(), &table()), Ok(None));
        batch.origins.push(vec![1; 16]);
        batch.records.push(WireRecord {
            key: "a".into(),
            ..WireRecord::default()
        });
        assert!(batch_from_bytes(&batch_to_bytes(&batch), &table()).is_err());
        batch.table = "peers".into();
        assert_eq!(
            batch_from_bytes(&batch_to_bytes(&batch), &table()),
            Ok(Some(batch))
        );
    }

    #[test]
    fn what_is_told_of_replicas_is_counted_before_it_is_read() {
        // Each two bytes are a publication that says nothing.
        let crowd = |fields: usize| [0x12, 0].repeat(fields);
        let part = |number: u8, content: &[u8]| {
            let mut part = vec![number << 3 | 2];
            prost::encode_length_delimiter(content.len(), &mut part).unwrap();
            part.extend(content);
            part
        };
        let half = crowd(REPLICAS_FIELDS_MAX / 2);
        let whole = |message: Vec<u8>| {
            let mut body = Vec::new();
            prost::encode_length_delimiter(message.len(), &mut body).unwrap();
            [body, message].concat()
        };
        let hello = part(1, &Hello::default().encode_to_vec());
        for ask in [part(8, &half), part(7, &part(5, &half))] {
            let twice = [&hello[..], &ask, &ask].concat();
            assert!(Request::from_bytes(&whole(twice.clone())).is_ok());
            let more = [&twice[..], &part(8, &crowd(1))].concat();
            let fields = REPLICAS_FIELDS_MAX + 1;
            assert_eq!(
                Request::from_bytes(&whole(more)),
                Err(Unreadable::Crowded { fields })
            );
        }
        let answer = part(9, &crowd(REPLICAS_FIELDS_MAX + 1));
        assert!(matches!(
            Response::from_bytes(&whole(answer)),
            Err(Unreadable::Crowded { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_a_refusal(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Request::from_bytes(&bytes);
            let _ = Response::from_bytes(&bytes);
            let _ = count_symbols(&bytes);
            let _ = batch_from_bytes(&bytes.into(), &table());
        }
    }
}
