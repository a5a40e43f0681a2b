//! What a writer says of a peer, and the bounds it keeps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::clock::Contact;
use crate::key::Key;

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

impl Draft {
    /// Whether it keeps the bounds of a peer.
    pub fn check(&self) -> Result<(), InvalidField> {
        let ports = self.ports.iter();
        let labels = self.labels.iter();
        check_bounds(
            &self.name,
            ports.map(|(purpose, port)| (purpose.as_str(), *port)),
            labels.map(|(key, value)| (key.as_str(), value.as_str())),
        )
    }
}

/// Whether what is said of a peer keeps the bounds of one.
pub(super) fn check_bounds<'a>(
    name: &str,
    ports: impl ExactSizeIterator<Item = (&'a str, u16)>,
    labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Result<(), InvalidField> {
    check_name(name)?;
    let count = |field: &str, count: usize, max: usize| {
        if count <= max {
            return Ok(());
        }
        Err(InvalidField::new(
            field,
            format!("has {count} entries, more than {max}"),
        ))
    };
    count("ports", ports.len(), PORTS_MAX)?;
    count("labels", labels.len(), LABELS_MAX)?;
    for (purpose, port) in ports {
        check_word("ports", "purpose of a port", purpose, PURPOSE_CHARS_MAX)?;
        if port == 0 {
            return Err(port_out_of_range(purpose));
        }
    }
    for (key, value) in labels {
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

/// Something in a body that cannot be taken: which field, and what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}{}{detail}", if field.is_empty() { "" } else { ": " })]
pub struct InvalidField {
    /// The field, with dots between the levels; empty for the body itself.
    pub field: String,
    /// What is wrong with it, and the limit that was broken.
    pub detail: String,
}

impl InvalidField {
    pub(super) fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }

    /// A body names another id than that of the record that it is for.
    pub fn fixed_id(id: &Key) -> Self {
        Self::new(
            "peer_id",
            format!("must be {id}, which this record has, or be left out"),
        )
    }
}

pub(super) fn port_out_of_range(purpose: &str) -> InvalidField {
    InvalidField::new(
        format!("ports.{}", shorten(purpose)),
        "must be a whole number from 1 to 65535",
    )
}

fn has_control(text: &str) -> bool {
    // Most are of printable ASCII, of which one look at each byte makes sure.
    let may_have = text.bytes().any(|byte| !matches!(byte, b' '..=b'~'));
    may_have && text.chars().any(char::is_control)
}

fn check_name(name: &str) -> Result<(), InvalidField> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || has_control(name) {
        return Err(InvalidField::new(
            "name",
            format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters"),
        ));
    }
    Ok(())
}

fn check_word(field: &str, what: &str, word: &str, chars_max: usize) -> Result<(), InvalidField> {
    // There are no more characters than bytes.
    let fits = word.len() <= chars_max || word.chars().count() <= chars_max;
    if fits && !word.is_empty() && !has_control(word) {
        return Ok(());
    }
    Err(InvalidField::new(
        format!("{field}.{}", shorten(word)),
        format!("the {what} must have 1 to {chars_max} characters and no control characters"),
    ))
}

/// A name from outside, fit for a message.
pub(super) fn shorten(name: &str) -> String {
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
