//! The table `peers`: the one place that knows what a peer's record says, in JSON and as stored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::{Contact, WallTime};
use crate::entry::{Content, Entry};
use crate::key::{Key, TableName};
use crate::table::InvalidContent;

/// The most ports of one peer.
pub const PORTS_MAX: usize = 64;
/// The most labels of one peer.
pub const LABELS_MAX: usize = 64;
/// The longest peer name, in bytes.
pub const NAME_BYTES_MAX: usize = 253;
/// The longest purpose of a port, in characters.
pub const PURPOSE_CHARS_MAX: usize = 63;
/// The longest key of a label, in characters.
pub const LABEL_KEY_CHARS_MAX: usize = 63;
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 1024;

/// The table's name.
pub fn table_name() -> TableName {
    "peers".parse().expect("a valid name")
}

/// One peer, as it is read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Peer {
    /// Who it is: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 1, max_length = 128,
        pattern = "^[A-Za-z0-9._:-]{1,128}$", example = "peer-1"))]
    pub peer_id: String,
    /// A name for people.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 253, example = "files-0")
    )]
    pub name: String,
    /// Its IPv4 or IPv6 address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.0.0.7"))]
    pub ip: IpAddr,
    /// The port of each purpose: `userSync`, `fileSync`, `networkLayer`, `consensusPort`, or any
    /// name of up to 63 characters; 64 at the most.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u16>))]
    pub ports: BTreeMap<String, u16>,
    /// Free text by key; 64 at the most.
    pub labels: BTreeMap<String, String>,
    /// When this record was created (RFC 3339, UTC).
    #[serde(rename = "createdAt")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub created_at: String,
    /// When it was last written (RFC 3339, UTC).
    #[serde(rename = "updatedAt")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub updated_at: String,
    /// When the peer was last seen, in steps of five minutes (RFC 3339, UTC); null if never.
    #[serde(rename = "lastConnectionOn")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub last_connection_on: Option<String>,
    /// Opaque; changes with each write of the record, and is its `ETag`.
    pub version: String,
}

impl Peer {
    /// The peer of a live record; `None` for a tombstone.
    pub fn from_entry(key: &Key, entry: &Entry) -> Result<Option<Self>, InvalidContent> {
        let Some(content) = entry.content() else {
            return Ok(None);
        };
        let said = Said::from_content(content.as_bytes())?;
        Ok(Some(Self {
            peer_id: key.to_string(),
            name: said.name,
            ip: said.ip,
            ports: said.ports,
            labels: said.labels,
            created_at: rfc3339(said.created_at),
            updated_at: rfc3339(entry.version.reading.wall()),
            last_connection_on: entry.contact.time().map(rfc3339),
            version: entry.version.to_string(),
        }))
    }
}

/// A time as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(time: WallTime) -> String {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// Whether bytes are the content of a peer; the check of this table.
pub fn check_content(_key: &Key, content: &[u8]) -> Result<(), InvalidContent> {
    Said::from_content(content).map(drop)
}

/// When the record of this content was created; `None` if it is no content of this table.
pub fn created_at(content: &Content) -> Option<WallTime> {
    Said::from_content(content.as_bytes())
        .ok()
        .map(|said| said.created_at)
}

/// What a writer says of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// A name for people.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// The port of each purpose.
    pub ports: BTreeMap<String, u16>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// When it was last seen.
    pub contact: Contact,
}

/// Something in a body that cannot be taken: which field, and what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidField {
    /// The field, with dots between the levels; empty for the body itself.
    pub field: String,
    /// What is wrong with it, and the limit that was broken.
    pub detail: String,
}

impl InvalidField {
    fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }

    /// A body names another id than its path.
    pub fn fixed_id(path: &Key) -> Self {
        Self::new(
            "peer_id",
            format!("must be {path} as in the path, or be left out"),
        )
    }
}

/// A body as it was sent: the draft, and the id if it named one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// The `peer_id` in it.
    pub peer_id: Option<Key>,
    /// The rest.
    pub draft: Draft,
}

impl Body {
    /// Reads a JSON object.
    ///
    /// `version`, `createdAt` and `updatedAt` are ignored, so that what was read can be written
    /// back; any other unknown field is refused.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidField> {
        Self::from_object(object(json)?)
    }

    fn from_object(object: Map<String, Value>) -> Result<Self, InvalidField> {
        let mut peer_id = None;
        let (mut name, mut ip) = (None, None);
        let (mut ports, mut labels) = (BTreeMap::new(), BTreeMap::new());
        let mut contact = Contact::NEVER;
        for (field, value) in object {
            match field.as_str() {
                "peer_id" => peer_id = Some(key(value)?),
                "name" => name = Some(text("name", value)?),
                "ip" => ip = Some(address(value)?),
                "ports" => ports = ports_of(value)?,
                "labels" => labels = labels_of(value)?,
                "lastConnectionOn" => contact = contact_of(value)?,
                "version" | "createdAt" | "updatedAt" => {}
                _ => {
                    return Err(InvalidField::new(
                        shorten(&field),
                        "unknown field; a peer has peer_id, name, ip, ports, labels and \
                         lastConnectionOn",
                    ));
                }
            }
        }
        let missing = |field: &str| InvalidField::new(field, "is missing");
        let draft = Draft {
            name: name.ok_or_else(|| missing("name"))?,
            ip: ip.ok_or_else(|| missing("ip"))?,
            ports,
            labels,
            contact,
        };
        draft.check()?;
        Ok(Self { peer_id, draft })
    }
}

/// A JSON merge patch (RFC 7396) of a peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Patch(Map<String, Value>);

impl Patch {
    /// Reads a JSON object.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidField> {
        object(json).map(Self)
    }

    /// The body that the patch makes of `held`.
    pub fn apply(&self, key: &Key, held: &Entry) -> Result<Body, InvalidField> {
        let said = held
            .content()
            .and_then(|content| Said::from_content(content.as_bytes()).ok())
            .ok_or_else(|| InvalidField::new("", "the stored record cannot be read"))?;
        let mut target = serde_json::json!({
            "peer_id": key.as_str(),
            "name": said.name,
            "ip": said.ip,
            "ports": said.ports,
            "labels": said.labels,
        });
        merge_patch(&mut target, &self.0);
        match target {
            Value::Object(object) => Body::from_object(object),
            _ => Err(InvalidField::new("", "must be a JSON object")),
        }
    }
}

/// RFC 7396, section 2. The depth is that of the parsed patch, which the parser bounds.
fn merge_patch(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (field, value) in patch {
        match value {
            Value::Null => {
                target.remove(field);
            }
            Value::Object(inner) => {
                merge_patch(target.entry(field.clone()).or_insert(Value::Null), inner);
            }
            other => {
                target.insert(field.clone(), other.clone());
            }
        }
    }
}

impl Draft {
    /// The content that says this of a peer whose record was created at `created_at`.
    pub fn content(&self, created_at: WallTime) -> Content {
        let mut ports = self.ports.clone();
        let mut take = |purpose: &str| u32::from(ports.remove(purpose).unwrap_or(0));
        let mut stored = StoredPeer {
            name: self.name.clone(),
            ip: match self.ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            user_sync: take("userSync"),
            file_sync: take("fileSync"),
            network_layer: take("networkLayer"),
            consensus_port: take("consensusPort"),
            ports: BTreeMap::new(),
            labels: self.labels.clone(),
            created_at_ms: created_at.as_millis(),
        };
        stored.ports = ports
            .into_iter()
            .map(|(purpose, port)| (purpose, port.into()))
            .collect();
        Content::from(stored.encode_to_vec())
    }

    /// Whether it keeps the bounds of a peer.
    pub fn check(&self) -> Result<(), InvalidField> {
        check_name(&self.name)?;
        let count = |field: &str, count: usize, max: usize| {
            if count <= max {
                return Ok(());
            }
            Err(InvalidField::new(
                field,
                format!("has {count} entries, more than {max}"),
            ))
        };
        count("ports", self.ports.len(), PORTS_MAX)?;
        count("labels", self.labels.len(), LABELS_MAX)?;
        for (purpose, port) in &self.ports {
            check_word("ports", "purpose of a port", purpose, PURPOSE_CHARS_MAX)?;
            if *port == 0 {
                return Err(port_out_of_range(purpose));
            }
        }
        for (key, value) in &self.labels {
            check_word("labels", "label's key", key, LABEL_KEY_CHARS_MAX)?;
            if key.contains('=') {
                return Err(InvalidField::new(
                    format!("labels.{}", shorten(key)),
                    "a label's key has no \"=\" in it",
                ));
            }
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(InvalidField::new(
                    format!("labels.{}", shorten(key)),
                    format!(
                        "has {} bytes, more than {LABEL_VALUE_BYTES_MAX}",
                        value.len()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Which peers a reader asks for: those that match all that is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Exactly this name.
    pub name: Option<String>,
    /// This address, however it is spelled.
    pub ip: Option<IpAddr>,
    /// Each of these labels with this value.
    pub labels: Vec<(String, String)>,
}

impl Filter {
    /// Whether it lets everything through.
    pub const fn is_empty(&self) -> bool {
        self.name.is_none() && self.ip.is_none() && self.labels.is_empty()
    }

    /// Whether `peer` matches.
    pub fn matches(&self, peer: &Peer) -> bool {
        self.name.as_ref().is_none_or(|name| *name == peer.name)
            && self.ip.is_none_or(|ip| ip == peer.ip)
            && self
                .labels
                .iter()
                .all(|(key, value)| peer.labels.get(key) == Some(value))
    }
}

/// The content as it is stored and sent: a protobuf message, so that a later release can add
/// fields that this one skips. The four well-known purposes have fields of their own, as they
/// would otherwise be the larger part of most records.
#[derive(Clone, PartialEq, Message)]
struct StoredPeer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    ip: Vec<u8>,
    #[prost(uint32, tag = "3")]
    user_sync: u32,
    #[prost(uint32, tag = "4")]
    file_sync: u32,
    #[prost(uint32, tag = "5")]
    network_layer: u32,
    #[prost(uint32, tag = "6")]
    consensus_port: u32,
    #[prost(btree_map = "string, uint32", tag = "7")]
    ports: BTreeMap<String, u32>,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "9")]
    created_at_ms: u64,
}

/// A content that was read and keeps the bounds.
struct Said {
    name: String,
    ip: IpAddr,
    ports: BTreeMap<String, u16>,
    labels: BTreeMap<String, String>,
    created_at: WallTime,
}

impl Said {
    fn from_content(content: &[u8]) -> Result<Self, InvalidContent> {
        let invalid = |detail: String| InvalidContent(detail);
        let stored = StoredPeer::decode(content).map_err(|error| invalid(error.to_string()))?;
        let ip = <[u8; 4]>::try_from(&stored.ip[..])
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(&stored.ip[..]).map(IpAddr::from))
            .map_err(|_| invalid(format!("an address of {} bytes", stored.ip.len())))?;
        let well_known = [
            ("userSync", stored.user_sync),
            ("fileSync", stored.file_sync),
            ("networkLayer", stored.network_layer),
            ("consensusPort", stored.consensus_port),
        ]
        .into_iter()
        .filter(|(_, port)| *port != 0)
        .map(|(purpose, port)| (purpose.to_owned(), port));
        let ports = stored
            .ports
            .into_iter()
            .chain(well_known)
            .map(|(purpose, port)| {
                let port = u16::try_from(port).map_err(|_| invalid(format!("port {port}")))?;
                Ok((purpose, port))
            })
            .collect::<Result<_, InvalidContent>>()?;
        let draft = Draft {
            name: stored.name,
            ip,
            ports,
            labels: stored.labels,
            contact: Contact::NEVER,
        };
        draft.check().map_err(|error| invalid(error.to_string()))?;
        let Draft {
            name,
            ip,
            ports,
            labels,
            contact: _,
        } = draft;
        Ok(Self {
            name,
            ip,
            ports,
            labels,
            created_at: WallTime::from_millis(stored.created_at_ms),
        })
    }
}

fn object(json: &[u8]) -> Result<Map<String, Value>, InvalidField> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(InvalidField::new(
            "",
            format!("must be an object, not {}", kind(&other)),
        )),
        Err(error) => Err(InvalidField::new("", format!("is not JSON: {error}"))),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn text(field: &str, value: Value) -> Result<String, InvalidField> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(InvalidField::new(
            field,
            format!("must be a string, not {}", kind(&other)),
        )),
    }
}

fn entries(field: &str, value: Value) -> Result<Map<String, Value>, InvalidField> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(InvalidField::new(
            field,
            format!("must be an object, not {}", kind(&other)),
        )),
    }
}

fn key(value: Value) -> Result<Key, InvalidField> {
    text("peer_id", value)?
        .parse()
        .map_err(|error: crate::key::InvalidKey| InvalidField::new("peer_id", error.to_string()))
}

fn address(value: Value) -> Result<IpAddr, InvalidField> {
    text("ip", value)?
        .parse()
        .map_err(|_| InvalidField::new("ip", "must be an IPv4 or IPv6 address"))
}

fn port_out_of_range(purpose: &str) -> InvalidField {
    InvalidField::new(
        format!("ports.{}", shorten(purpose)),
        "must be a whole number from 1 to 65535",
    )
}

fn ports_of(value: Value) -> Result<BTreeMap<String, u16>, InvalidField> {
    entries("ports", value)?
        .into_iter()
        .map(|(purpose, value)| {
            let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
            let port = port
                .filter(|port| *port != 0)
                .ok_or_else(|| port_out_of_range(&purpose))?;
            Ok((purpose, port))
        })
        .collect()
}

fn labels_of(value: Value) -> Result<BTreeMap<String, String>, InvalidField> {
    entries("labels", value)?
        .into_iter()
        .map(|(key, value)| {
            let value = text(&format!("labels.{}", shorten(&key)), value)?;
            Ok((key, value))
        })
        .collect()
}

fn contact_of(value: Value) -> Result<Contact, InvalidField> {
    const FIELD: &str = "lastConnectionOn";
    if value.is_null() {
        return Ok(Contact::NEVER);
    }
    let timestamp: Timestamp = text(FIELD, value)?.parse().map_err(|_| {
        InvalidField::new(
            FIELD,
            "must be an RFC 3339 time, such as 2026-01-31T08:00:00Z, or null",
        )
    })?;
    let ms = u64::try_from(timestamp.as_millisecond())
        .map_err(|_| InvalidField::new(FIELD, "must not be before 1970"))?;
    Ok(Contact::at(WallTime::from_millis(ms)))
}

fn check_name(name: &str) -> Result<(), InvalidField> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(InvalidField::new(
            "name",
            format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters"),
        ));
    }
    Ok(())
}

fn check_word(field: &str, what: &str, word: &str, chars_max: usize) -> Result<(), InvalidField> {
    let fits = (1..=chars_max).contains(&word.chars().count());
    if fits && !word.chars().any(char::is_control) {
        return Ok(());
    }
    Err(InvalidField::new(
        format!("{field}.{}", shorten(word)),
        format!("the {what} must have 1 to {chars_max} characters and no control characters"),
    ))
}

/// A name from outside, fit for a message.
fn shorten(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .filter(|char| !char.is_control())
        .take(64)
        .collect();
    if name.chars().count() > 64 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Reading, Version};
    use crate::entry;
    use crate::ids::OriginId;

    fn body(json: &Value) -> Result<Body, InvalidField> {
        Body::from_json(json.to_string().as_bytes())
    }

    fn entry_of(draft: &Draft, created_ms: u64) -> Entry {
        Entry {
            version: Version {
                reading: Reading::from_u64(1_700_000_000_123 << 16),
                origin: OriginId::from_bytes([1; 16]),
            },
            contact: draft.contact,
            body: entry::Body::Live(draft.content(WallTime::from_millis(created_ms))),
        }
    }

    fn example() -> Value {
        serde_json::json!({
            "peer_id": "p1",
            "name": "files-0",
            "ip": "2001:db8::7",
            "ports": {"userSync": 5001, "consensusPort": 65535, "extra": 1},
            "labels": {"zone": "a"},
            "lastConnectionOn": "2026-01-31T08:04:00+01:00",
        })
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let body = body(&example()).unwrap();
        let key: Key = "p1".parse().unwrap();
        assert_eq!(body.peer_id, Some(key.clone()));
        let entry = entry_of(&body.draft, 1_600_000_000_000);
        let peer = Peer::from_entry(&key, &entry).unwrap().unwrap();
        let json = serde_json::to_value(&peer).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "peer_id": "p1",
                "name": "files-0",
                "ip": "2001:db8::7",
                "ports": {"userSync": 5001, "consensusPort": 65535, "extra": 1},
                "labels": {"zone": "a"},
                "createdAt": "2020-09-13T12:26:40.000Z",
                "updatedAt": "2023-11-14T22:13:20.123Z",
                "lastConnectionOn": "2026-01-31T07:00:00.000Z",
                "version": entry.version.to_string(),
            })
        );
        assert_eq!(Body::from_json(json.to_string().as_bytes()).unwrap(), body);
    }

    #[test]
    fn each_wrong_field_is_named_with_its_limit() {
        let many = |count: usize| -> Map<String, Value> {
            (1..=count)
                .map(|n| (format!("p{n}"), Value::from(n)))
                .collect()
        };
        let with = |field: &str, value: Value| {
            let mut example = example();
            example[field] = value;
            example
        };
        let cases = [
            (
                with("ports", serde_json::json!({"userSync": 0})),
                "ports.userSync",
                "1 to 65535",
            ),
            (
                with("ports", serde_json::json!({"userSync": 65536})),
                "ports.userSync",
                "1 to 65535",
            ),
            (
                with("ports", serde_json::json!({"userSync": -1})),
                "ports.userSync",
                "1 to 65535",
            ),
            (
                with("ports", serde_json::json!({"userSync": 1.5})),
                "ports.userSync",
                "1 to 65535",
            ),
            (
                with("ports", serde_json::json!({"userSync": "80"})),
                "ports.userSync",
                "1 to 65535",
            ),
            (
                with("ports", Value::Object(many(65))),
                "ports",
                "more than 64",
            ),
            (
                with("ports", serde_json::json!({"": 1})),
                "ports.",
                "1 to 63",
            ),
            (
                with("ports", serde_json::json!([])),
                "ports",
                "not an array",
            ),
            (
                with("labels", serde_json::json!({"a": 1})),
                "labels.a",
                "not a number",
            ),
            (
                with("labels", serde_json::json!({"a=b": "c"})),
                "labels.a=b",
                "\"=\"",
            ),
            (
                with("labels", serde_json::json!({"a": "x".repeat(1025)})),
                "labels.a",
                "1024",
            ),
            (with("ip", "10.0.0".into()), "ip", "IPv4 or IPv6"),
            (with("ip", Value::Null), "ip", "not null"),
            (with("name", "".into()), "name", "1 to 253"),
            (with("name", "a\nb".into()), "name", "control"),
            (with("peer_id", "".into()), "peer_id", "1 to 128"),
            (
                with("peer_id", "x".repeat(129).into()),
                "peer_id",
                "1 to 128",
            ),
            (
                with("lastConnectionOn", "yesterday".into()),
                "lastConnectionOn",
                "RFC 3339",
            ),
            (
                with("lastConnectionOn", "1969-12-31T00:00:00Z".into()),
                "lastConnectionOn",
                "1970",
            ),
            (with("colour", "red".into()), "colour", "unknown field"),
            (serde_json::json!({"ip": "::1"}), "name", "missing"),
            (serde_json::json!({"name": "a"}), "ip", "missing"),
            (serde_json::json!([]), "", "not an array"),
        ];
        for (json, field, part) in cases {
            let error = body(&json).expect_err(&json.to_string());
            assert_eq!(error.field, field, "{json}");
            assert!(error.detail.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_json_and_json_that_is_too_deep_are_refused() {
        let deep = [b"{\"labels\":".repeat(200), b"1".to_vec(), b"}".repeat(200)].concat();
        for bad in [&b"{\"name\":\"\xff\"}"[..], b"", b"{", &deep] {
            let error = Body::from_json(bad).unwrap_err();
            assert!(error.detail.starts_with("is not JSON"), "{error}");
        }
    }

    #[test]
    fn what_the_service_adds_is_ignored_when_it_is_written_back() {
        let mut json = example();
        json["version"] = "anything".into();
        json["createdAt"] = 7.into();
        json["updatedAt"] = Value::Null;
        assert_eq!(body(&json), body(&example()));
    }

    #[test]
    fn a_patch_sets_removes_and_merges() {
        let key: Key = "p1".parse().unwrap();
        let held = entry_of(&body(&example()).unwrap().draft, 1);
        let patch = serde_json::json!({
            "ip": "10.0.0.1", "ports": {"extra": null, "new": 7}, "labels": {"zone": "b", "x": "y"},
        });
        let patched = Patch::from_json(patch.to_string().as_bytes())
            .unwrap()
            .apply(&key, &held)
            .unwrap();
        assert_eq!(patched.draft.name, "files-0");
        assert_eq!(patched.draft.ip.to_string(), "10.0.0.1");
        let ports: Vec<_> = patched.draft.ports.into_iter().collect();
        assert_eq!(
            ports,
            [
                ("consensusPort".into(), 65535),
                ("new".into(), 7),
                ("userSync".into(), 5001)
            ]
        );
        assert_eq!(patched.draft.labels.len(), 2);

        let without = Patch::from_json(br#"{"name":null}"#)
            .unwrap()
            .apply(&key, &held);
        assert_eq!(without.unwrap_err().to_string(), "name: is missing");
    }

    #[test]
    fn a_filter_lets_through_what_matches_all_of_it() {
        let key: Key = "p1".parse().unwrap();
        let entry = entry_of(&body(&example()).unwrap().draft, 1);
        let peer = Peer::from_entry(&key, &entry).unwrap().unwrap();
        let filter = |name: &str, zone: &str| Filter {
            name: Some(name.into()),
            ip: Some("2001:db8:0::7".parse().unwrap()),
            labels: vec![("zone".into(), zone.into())],
        };
        assert!(filter("files-0", "a").matches(&peer));
        assert!(!filter("files-1", "a").matches(&peer));
        assert!(!filter("files-0", "b").matches(&peer));
        assert!(Filter::default().matches(&peer));
    }

    #[test]
    fn a_content_of_a_later_release_is_read_without_what_it_adds() {
        let draft = body(&example()).unwrap().draft;
        let mut bytes = draft.content(WallTime::from_millis(5)).as_bytes().to_vec();
        bytes.extend_from_slice(&[0x7a, 3, b'n', b'e', b'w']);
        let key = "p1".parse().unwrap();
        assert_eq!(check_content(&key, &bytes), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_content_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let key: Key = "p1".parse().unwrap();
            let entry = Entry {
                version: Version {
                    reading: Reading::from_u64(u64::MAX),
                    origin: OriginId::from_bytes([1; 16]),
                },
                contact: Contact::from_steps(u32::MAX),
                body: entry::Body::Live(Content::from(bytes.clone())),
            };
            prop_assert_eq!(
                Peer::from_entry(&key, &entry).is_ok(),
                check_content(&key, &bytes).is_ok()
            );
        }

        #[test]
        fn any_json_is_a_body_or_a_refusal(text in "\\PC{0,40}") {
            let wrapped = serde_json::json!({"name": text, "ip": text, "labels": {&text: text}});
            let _ = body(&wrapped);
            let _ = Body::from_json(text.as_bytes());
        }
    }
}
