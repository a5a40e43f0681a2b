//! One record as it is compared, stored and sent, and the merge that decides between two of them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use crate::clock::{Contact, Reading, Version};
use crate::ids::OriginId;

/// What a record holds: opaque bytes to everything but the one module of its table.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Content(Bytes);

impl Content {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The digest by which the index tells two contents of one version apart.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.0);
        hasher.finish()
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, {:016x})", self.0.len(), self.digest())
    }
}

/// Live with a content, or deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The record says something.
    Live(Content),
    /// The record says "deleted": a write like any other, so that a delete wins by its version.
    Tombstone,
}

/// A record without its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which of two bodies wins.
    pub version: Version,
    /// When the peer was last seen; merges apart from the body, and a tombstone keeps it too.
    pub contact: Contact,
    /// What was written.
    pub body: Body,
}

/// All by which two bodies of one key are ordered: the version, then a tombstone over a live
/// record, then the content by its digest.
///
/// Two different bodies of one version need a store that was copied while it ran; the rest of the
/// order only makes sure that even then every replica chooses the same.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    version: Version,
    tombstone: bool,
    content: u64,
}

impl Rank {
    /// The rank of a body with this version: live with this digest of its content, or a tombstone.
    pub const fn new(version: Version, live: Option<u64>) -> Self {
        match live {
            Some(content) => Self {
                version,
                tombstone: false,
                content,
            },
            None => Self {
                version,
                tombstone: true,
                content: 0,
            },
        }
    }

    /// The version of the ranked body.
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl Entry {
    /// By what its body wins or loses.
    pub fn rank(&self) -> Rank {
        Rank::new(self.version, self.content().map(Content::digest))
    }

    /// The content, unless it is a tombstone.
    pub const fn content(&self) -> Option<&Content> {
        match &self.body {
            Body::Live(content) => Some(content),
            Body::Tombstone => None,
        }
    }

    /// Whether it is not a tombstone.
    pub const fn is_live(&self) -> bool {
        matches!(self.body, Body::Live(_))
    }

    /// The value under which a store keeps it: format byte, kind, version, contact, content.
    pub fn to_stored(&self) -> Vec<u8> {
        let content = self.content().map_or(&[][..], Content::as_bytes);
        let mut value = Vec::with_capacity(STORED_HEAD_BYTES + content.len());
        value.push(STORED_FORMAT);
        value.push(if self.is_live() {
            KIND_LIVE
        } else {
            KIND_TOMBSTONE
        });
        value.extend_from_slice(&self.version.reading.as_u64().to_le_bytes());
        value.extend_from_slice(self.version.origin.as_bytes());
        value.extend_from_slice(&self.contact.steps().to_le_bytes());
        value.extend_from_slice(content);
        value
    }

    /// The entry that [`Entry::to_stored`] wrote. Whether the content is one is for its table to say.
    pub fn from_stored(value: &[u8]) -> Result<Self, CorruptEntry> {
        let (head, content) = value
            .split_first_chunk::<STORED_HEAD_BYTES>()
            .ok_or(CorruptEntry::Truncated { bytes: value.len() })?;
        let [format, kind, fixed @ ..] = head;
        if *format != STORED_FORMAT {
            return Err(CorruptEntry::Format { format: *format });
        }
        let (reading, rest) = fixed.split_at(8);
        let (origin, contact) = rest.split_at(16);
        let body = match *kind {
            KIND_LIVE => Body::Live(Content::from(content)),
            KIND_TOMBSTONE if content.is_empty() => Body::Tombstone,
            _ => return Err(CorruptEntry::Kind),
        };
        Ok(Self {
            version: Version {
                reading: Reading::from_u64(u64::from_le_bytes(array(reading))),
                origin: OriginId::from_bytes(array(origin)),
            },
            contact: Contact::from_steps(u32::from_le_bytes(array(contact))),
            body,
        })
    }
}

/// The bytes of a part of the head, of which the layout says the length.
fn array<const N: usize>(part: &[u8]) -> [u8; N] {
    part.try_into()
        .expect("the parts of the head have fixed lengths")
}

/// The bytes of a stored value before its content.
pub const STORED_HEAD_BYTES: usize = 1 + 1 + 8 + 16 + 4;
const STORED_FORMAT: u8 = 1;
const KIND_LIVE: u8 = 1;
const KIND_TOMBSTONE: u8 = 2;

/// A stored value that no record can be read from.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorruptEntry {
    /// It ends within the head.
    #[error("{bytes} bytes are too few for a stored record")]
    Truncated {
        /// How many there are.
        bytes: usize,
    },
    /// It is of a format that this build does not know.
    #[error("stored in the unknown format {format}")]
    Format {
        /// The format byte.
        format: u8,
    },
    /// It is neither live nor a tombstone, or a tombstone with a content.
    #[error("neither a live record nor a tombstone")]
    Kind,
}

/// Merges two records of one key: a join.
///
/// 1. commutative: `merge(a, b) == merge(b, a)`
/// 2. associative: `merge(merge(a, b), c) == merge(a, merge(b, c))`
/// 3. idempotent: `merge(a, a) == a`
///
/// The body of higher [`Rank`] wins, the contact is the later of the two, and nothing else takes
/// part: no clock, no order of arrival, no "ours". A table decides the same by its index, without the
/// record that it holds, and its tests hold it to this.
#[must_use]
pub fn merge(a: Entry, b: Entry) -> Entry {
    let contact = a.contact.max(b.contact);
    let winner = match a.rank().cmp(&b.rank()) {
        Ordering::Less => b,
        Ordering::Equal | Ordering::Greater => a,
    };
    Entry { contact, ..winner }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few values of each part, so that ties in all of them are common.
    fn entries() -> impl Strategy<Value = Entry> {
        (0_u64..3, 0_u8..2, 0_u32..3, prop::option::of(0_u8..3)).prop_map(
            |(reading, origin, contact, content)| Entry {
                version: Version {
                    reading: Reading::from_u64(reading),
                    origin: OriginId::from_bytes([origin; 16]),
                },
                contact: Contact::from_steps(contact),
                body: content.map_or(Body::Tombstone, |byte| {
                    Body::Live(Content::from(vec![byte]))
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn merge_is_commutative(a in entries(), b in entries()) {
            prop_assert_eq!(merge(a.clone(), b.clone()), merge(b, a));
        }

        #[test]
        fn merge_is_associative(a in entries(), b in entries(), c in entries()) {
            prop_assert_eq!(
                merge(merge(a.clone(), b.clone()), c.clone()),
                merge(a, merge(b, c))
            );
        }

        #[test]
        fn merge_is_idempotent(a in entries()) {
            prop_assert_eq!(merge(a.clone(), a.clone()), a);
        }

        #[test]
        fn the_winning_body_is_one_of_the_two_and_the_contact_the_later(
            a in entries(), b in entries(),
        ) {
            let merged = merge(a.clone(), b.clone());
            prop_assert_eq!(merged.contact, a.contact.max(b.contact));
            prop_assert_eq!(merged.version, a.version.max(b.version));
            prop_assert!(merged.body == a.body || merged.body == b.body);
        }

        #[test]
        fn a_stored_entry_reads_back(entry in entries()) {
            prop_assert_eq!(Entry::from_stored(&entry.to_stored()), Ok(entry));
        }

        #[test]
        fn any_bytes_are_an_entry_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(entry) = Entry::from_stored(&bytes) {
                prop_assert_eq!(entry.to_stored(), bytes);
            }
        }
    }

    #[test]
    fn at_one_version_a_tombstone_beats_a_live_record() {
        let version = Version {
            reading: Reading::from_u64(1),
            origin: OriginId::from_bytes([1; 16]),
        };
        let live = Entry {
            version,
            contact: Contact::from_steps(7),
            body: Body::Live(Content::from(vec![255])),
        };
        let dead = Entry {
            version,
            contact: Contact::NEVER,
            body: Body::Tombstone,
        };
        let merged = merge(live, dead);
        assert_eq!(merged.body, Body::Tombstone);
        assert_eq!(merged.contact, Contact::from_steps(7));
    }

    #[test]
    fn a_cut_or_foreign_value_is_named_for_what_it_is() {
        assert_eq!(
            Entry::from_stored(&[1, 1]),
            Err(CorruptEntry::Truncated { bytes: 2 })
        );
        let mut value = Entry {
            version: Version {
                reading: Reading::from_u64(1),
                origin: OriginId::from_bytes([1; 16]),
            },
            contact: Contact::NEVER,
            body: Body::Tombstone,
        }
        .to_stored();
        value[1] = 9;
        assert_eq!(Entry::from_stored(&value), Err(CorruptEntry::Kind));
        value[0] = 9;
        assert_eq!(
            Entry::from_stored(&value),
            Err(CorruptEntry::Format { format: 9 })
        );
    }
}
