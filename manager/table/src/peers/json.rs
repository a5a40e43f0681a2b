//! Bodies of requests: a whole peer, and a merge patch of one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::draft::{Draft, InvalidField, port_out_of_range, shorten};
use super::stored::Said;
use crate::clock::{Contact, WallTime};
use crate::entry::Entry;
use crate::key::{InvalidKey, Key};

/// What may stand in a body.
const FIELDS: [&str; 9] = [
    "peer_id",
    "name",
    "ip",
    "ports",
    "labels",
    "lastConnectionOn",
    "version",
    "createdAt",
    "updatedAt",
];

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
        match Self::from_plain(json) {
            Some(body) => Ok(body),
            None => Self::from_object(object(json)?),
        }
    }

    fn from_plain(json: &[u8]) -> Option<Self> {
        // An array of the values would do for the parser too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let plain: Plain = serde_json::from_slice(json).ok()?;
        let draft = Draft {
            name: plain.name,
            ip: plain.ip,
            ports: plain.ports,
            labels: plain.labels,
            contact: match plain.contact {
                Some(contact) => contact_of(contact).ok()?,
                None => Contact::NEVER,
            },
        };
        draft.check().ok()?;
        let peer_id = plain.peer_id.map(|id| id.parse());
        let peer_id = peer_id.transpose().ok()?;
        Some(Self { peer_id, draft })
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
                _ => return Err(unknown(&field)),
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

/// A body as most are, which is read without a tree of values in between, in half the time. What is
/// written otherwise, or is wrong, is read by way of one, which says what is wrong with it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(default, deserialize_with = "given")]
    peer_id: Option<String>,
    name: String,
    ip: IpAddr,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(rename = "lastConnectionOn", default, deserialize_with = "given")]
    contact: Option<Value>,
    #[serde(rename = "version", default)]
    _version: Value,
    #[serde(rename = "createdAt", default)]
    _created_at: Value,
    #[serde(rename = "updatedAt", default)]
    _updated_at: Value,
}

/// A field that is there has a value: null is one, and none of a text.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// A JSON merge patch (RFC 7396) of a peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Patch(Map<String, Value>);

impl Patch {
    /// Reads a JSON object.
    ///
    /// An unknown field is refused here, as one that is null would leave no trace in the body.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidField> {
        let object = object(json)?;
        match object
            .keys()
            .find(|field| !FIELDS.contains(&field.as_str()))
        {
            Some(field) => Err(unknown(field)),
            None => Ok(Self(object)),
        }
    }

    /// The body that the patch makes of `held`.
    pub fn apply(&self, key: &Key, held: &Entry) -> Result<Body, InvalidField> {
        let said = held
            .content()
            .and_then(|content| Said::from_content(content.as_bytes()).ok())
            .ok_or_else(|| InvalidField::new("", "the stored record cannot be read"))?;
        let ports: BTreeMap<_, _> = said.ports.into_iter().collect();
        let labels: BTreeMap<_, _> = said.labels.into_iter().collect();
        let mut target = serde_json::json!({
            "peer_id": key.as_str(),
            "name": said.name,
            "ip": said.ip,
            "ports": ports,
            "labels": labels,
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

fn unknown(field: &str) -> InvalidField {
    let detail = "unknown field; a peer has peer_id, name, ip, ports, labels and lastConnectionOn";
    InvalidField::new(shorten(field), detail)
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
        .map_err(|error: InvalidKey| InvalidField::new("peer_id", error.to_string()))
}

fn address(value: Value) -> Result<IpAddr, InvalidField> {
    text("ip", value)?
        .parse()
        .map_err(|_| InvalidField::new("ip", "must be an IPv4 or IPv6 address"))
}

fn ports_of(value: Value) -> Result<BTreeMap<String, u16>, InvalidField> {
    entries("ports", value)?
        .into_iter()
        .map(|(purpose, value)| {
            // A number is what it is and not how it is written: 5001.0 is 5001, as in JSON Schema.
            let port = value
                .as_f64()
                .and_then(|port| port.to_string().parse().ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_read_at_once_or_by_way_of_a_tree() {
        for (json, is_plain) in [
            (r#"{"name":"a","ip":"::1"}"#, true),
            (
                r#" {"ip":"10.0.0.7","name":"a","peer_id":"p1","ports":{"x":1,"y":65535},
                    "labels":{"k":"v \u00e9","l":""},"lastConnectionOn":null,"version":7,
                    "createdAt":null,"updatedAt":"never"}"#,
                true,
            ),
            (
                r#"{"name":"a","ip":"::1","lastConnectionOn":"2026-01-31T08:00:00Z"}"#,
                true,
            ),
            (r#"{"name":"a","name":"b","ip":"::1"}"#, false),
            (r#"{"name":"a","ip":"::1","ports":{"x":5001.0}}"#, false),
            (r#"{"name":"a","ip":"::1","peer_id":null}"#, false),
            (r#"{"name":"a","ip":"::1","peer_id":".."}"#, false),
            (r#"{"name":"a","ip":"::1","ports":null}"#, false),
            (r#"{"name":"a","ip":"::1","ports":{"x":0}}"#, false),
            (r#"{"name":"a","ip":"::1","labels":{"k":1}}"#, false),
            (r#"{"name":"a","ip":"::1","lastConnectionOn":1}"#, false),
            (r#"{"name":"a","ip":"::1","colour":"red"}"#, false),
            (r#"{"name":"a","ip":"::1"} {}"#, false),
            (r#"{"name":"","ip":"::1"}"#, false),
            (r#"{"name":"a","ip":"::1.2"}"#, false),
            (r#"["p1","a","::1",{},{},null,null,null,null]"#, false),
            (r#"{"name":"a"}"#, false),
            ("null", false),
        ] {
            let plain = Body::from_plain(json.as_bytes());
            let read = object(json.as_bytes()).and_then(Body::from_object);
            assert_eq!(plain.is_some(), is_plain, "{json}");
            if is_plain {
                assert_eq!(plain, read.ok(), "{json}");
            } else {
                assert_eq!(Body::from_json(json.as_bytes()), read, "{json}");
            }
        }
    }
}
