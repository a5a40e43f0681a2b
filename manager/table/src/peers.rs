//! The table `peers`: the one place that knows what a peer's record says, in JSON and as stored.

mod draft;
mod json;
mod stored;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use self::draft::{
    Draft, InvalidField, LABEL_KEY_CHARS_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX,
    PORTS_MAX, PURPOSE_CHARS_MAX,
};
pub use self::json::{Body, Patch};
use self::stored::Said;
use crate::clock::{Version, WallTime};
use crate::entry::{Content, Entry};
use crate::key::{Key, TableName};
use crate::table::InvalidContent;

/// The label of a pod's own record that says the pod's name.
pub const LABEL_POD: &str = "udht/pod";
/// The label that says the UID of the pod: by it the pod's peers know whose record this is.
pub const LABEL_POD_UID: &str = "udht/pod-uid";
/// The label that says the name of the node that the pod runs on.
pub const LABEL_NODE: &str = "udht/node";

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

/// A [`Peer`] whose texts are those of its record: what answers are written from, in the same JSON without
/// a copy of each.
#[derive(Debug)]
pub struct Shown<'a> {
    key: &'a Key,
    entry: &'a Entry,
    said: Said<'a>,
}

impl<'a> Shown<'a> {
    /// The peer of a live record; `None` for a tombstone.
    pub fn from_entry(key: &'a Key, entry: &'a Entry) -> Result<Option<Self>, InvalidContent> {
        let Some(content) = entry.content() else {
            return Ok(None);
        };
        let said = Said::from_content(content.as_bytes())?;
        Ok(Some(Self { key, entry, said }))
    }

    /// Who it is.
    pub const fn key(&self) -> &'a Key {
        self.key
    }

    /// The version of its record.
    pub const fn version(&self) -> Version {
        self.entry.version
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { key, entry, said } = self;
        let mut peer = serializer.serialize_struct("Peer", 9)?;
        peer.serialize_field("peer_id", key.as_str())?;
        peer.serialize_field("name", said.name)?;
        peer.serialize_field("ip", &said.ip)?;
        peer.serialize_field("ports", &Pairs(&said.ports))?;
        peer.serialize_field("labels", &Pairs(&said.labels))?;
        peer.serialize_field("createdAt", &rfc3339(said.created_at))?;
        peer.serialize_field("updatedAt", &rfc3339(entry.version.reading.wall()))?;
        let contact = entry.contact.time().map(rfc3339);
        peer.serialize_field("lastConnectionOn", &contact)?;
        peer.serialize_field("version", entry.version.text().as_str())?;
        peer.end()
    }
}

/// A map, as what it is made of in order.
struct Pairs<'a, T>(&'a [(&'a str, T)]);

impl<T: Serialize + Copy> Serialize for Pairs<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl Peer {
    /// The peer of a live record; `None` for a tombstone.
    pub fn from_entry(key: &Key, entry: &Entry) -> Result<Option<Self>, InvalidContent> {
        let Some(Shown { said, .. }) = Shown::from_entry(key, entry)? else {
            return Ok(None);
        };
        let labels = said.labels.into_iter();
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let ports = said.ports.into_iter();
        let ports = ports.map(|(purpose, port)| (purpose.to_owned(), port));
        Ok(Some(Self {
            peer_id: key.to_string(),
            name: said.name.to_owned(),
            ip: said.ip,
            ports: ports.collect(),
            labels: labels.collect(),
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

/// When the record of this content was created; `None` if it is no content of any table.
pub fn created_at(content: &Content) -> Option<WallTime> {
    stored::created_at(content.as_bytes())
}

/// Which peers a reader asks for: those that match all that is given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Exactly this name.
    pub name: Option<String>,
    /// This address, however it is spelled.
    pub ip: Option<IpAddr>,
    /// Each of these labels, with this value or with any.
    pub labels: Vec<(String, Option<String>)>,
}

impl Filter {
    /// Whether it lets everything through.
    pub const fn is_empty(&self) -> bool {
        self.name.is_none() && self.ip.is_none() && self.labels.is_empty()
    }

    /// Whether `peer` matches.
    pub fn matches(&self, peer: &Shown<'_>) -> bool {
        let Said {
            name, ip, labels, ..
        } = &peer.said;
        self.name.as_ref().is_none_or(|wanted| wanted == name)
            && self
                .ip
                .is_none_or(|wanted| wanted.to_canonical() == ip.to_canonical())
            && self.labels.iter().all(|(key, wanted)| {
                let held = labels.iter().find(|(held, _)| held == key);
                held.is_some_and(|(_, held)| wanted.as_ref().is_none_or(|wanted| wanted == held))
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::clock::{Contact, Reading, Version};
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
            body: entry::Body::Live(draft.clone().content(WallTime::from_millis(created_ms))),
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
    fn a_patch_that_removes_an_unknown_field_is_refused() {
        for field in ["colour", "", "label"] {
            let json = format!(r#"{{"{field}":null,"labels":{{}}}}"#);
            let refused = Patch::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(refused.field, field);
        }
        assert!(Patch::from_json(br#"{"version":null,"ports":null}"#).is_ok());
    }

    #[test]
    fn a_port_is_a_whole_number_however_it_is_written() {
        let port = |text: &str| {
            let json = format!(r#"{{"name":"a","ip":"::1","ports":{{"x":{text}}}}}"#);
            Body::from_json(json.as_bytes()).map(|body| body.draft.ports["x"])
        };
        for text in ["5001", "5001.0", "5.001e3"] {
            assert_eq!(port(text), Ok(5001), "{text}");
        }
        for text in ["0", "0.0", "-0.0", "-1", "1.5", "65536", "1e300", "\"1\""] {
            assert!(port(text).is_err(), "{text}");
        }
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
        let shown = Shown::from_entry(&key, &entry).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            serde_json::to_string(&peer).unwrap()
        );
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
        let peer = Shown::from_entry(&key, &entry).unwrap().unwrap();
        let filter = |name: &str, zone: &str| Filter {
            name: Some(name.into()),
            ip: Some("2001:db8:0::7".parse().unwrap()),
            labels: vec![("zone".into(), Some(zone.into()))],
        };
        let labelled = |key: &str| Filter {
            labels: vec![(key.into(), None)],
            ..Filter::default()
        };
        assert!(filter("files-0", "a").matches(&peer));
        assert!(!filter("files-1", "a").matches(&peer));
        assert!(!filter("files-0", "b").matches(&peer));
        assert!(Filter::default().matches(&peer));
        assert!(labelled("zone").matches(&peer));
        assert!(!labelled("zon").matches(&peer));
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
