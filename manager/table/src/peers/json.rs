//! Bodies of requests: a whole peer, and a merge patch of one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
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
