//! A record: as it is stored, as a writer sends it, and the texts by which it is found.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use peer_table::feed::Revision;
use peer_table::peers::{
    self, Body, Draft, InvalidField, LABELS_MAX, NAME_BYTES_MAX, PORTS_MAX, Patch, Peer,
};
use peer_table::{
    AuthorityId, ClusterId, Contact, Entry, Key, OriginId, Reading, StoreId, TableName, Version,
    WallTime, entry,
};
use udht_manager::store::Stored;

use crate::choices::Choices;

fn key() -> Key {
    "p1".parse().expect("a key")
}

/// A stored value.
pub(crate) fn stored_entry(bytes: &[u8]) {
    let entry = match Stored::from_value(bytes) {
        Stored::Entry(entry) => entry,
        Stored::Corrupt(corrupt) => return assert!(!corrupt.to_string().is_empty()),
    };
    assert_eq!(entry.to_stored(), bytes, "what was read is what is written");
    assert_eq!(entry::merge(entry.clone(), entry.clone()), entry);
    let peer = Peer::from_entry(&key(), &entry);
    let Some(content) = entry.content() else {
        return assert!(matches!(peer, Ok(None)));
    };
    let is_good = peers::check_content(&key(), content.as_bytes()).is_ok();
    match peer {
        Ok(Some(peer)) => {
            assert!(is_good);
            let created = peers::created_at(content).expect("it is a content");
            let json = serde_json::to_vec(&peer).expect("a peer is JSON");
            let body = Body::from_json(&json).expect("what was read can be written back");
            // The times are shown to the end of the year 9999, and kept beyond.
            is_kept(&body.draft, created, peer);
        }
        Ok(None) => panic!("a live record without a peer"),
        Err(invalid) => {
            assert!(!is_good);
            assert!(!invalid.to_string().is_empty());
        }
    }
}

fn is_kept(draft: &Draft, created: WallTime, peer: Peer) {
    let content = draft.clone().content(created);
    let entry = Entry {
        version: Version {
            reading: Reading::from_u64(1 << 16),
            origin: OriginId::from_bytes([1; 16]),
        },
        contact: draft.contact,
        body: entry::Body::Live(content),
    };
    let read = Peer::from_entry(&key(), &entry).expect("a content that was made of a draft");
    let read = read.expect("it is live");
    let Peer {
        name,
        ip,
        ports,
        labels,
        created_at,
        ..
    } = peer;
    assert_eq!((read.name, read.ip), (name, ip));
    assert_eq!((read.ports, read.labels), (ports, labels));
    assert_eq!(read.created_at, created_at);
}

/// A body with a whole peer.
pub(crate) fn json(bytes: &[u8]) {
    match Body::from_json(bytes) {
        Ok(body) => is_within_bounds(&body.draft),
        Err(invalid) => is_named(&invalid),
    }
}

fn is_within_bounds(draft: &Draft) {
    assert_eq!(draft.check(), Ok(()));
    assert!((1..=NAME_BYTES_MAX).contains(&draft.name.len()));
    assert!(draft.ports.len() <= PORTS_MAX && draft.labels.len() <= LABELS_MAX);
    let content = draft.clone().content(WallTime::from_millis(1));
    assert_eq!(peers::check_content(&key(), content.as_bytes()), Ok(()));
    let entry = live(draft);
    let peer = Peer::from_entry(&key(), &entry).expect("a content");
    let json = serde_json::to_vec(&peer).expect("a peer is JSON");
    let again = Body::from_json(&json).expect("what was read can be written back");
    assert_eq!(again.peer_id, Some(key()));
    assert_eq!(again.draft, *draft);
}

fn live(draft: &Draft) -> Entry {
    Entry {
        version: Version {
            reading: Reading::from_u64(1_700_000_000_000 << 16),
            origin: OriginId::from_bytes([1; 16]),
        },
        contact: draft.contact,
        body: entry::Body::Live(draft.clone().content(WallTime::from_millis(1))),
    }
}

fn is_named(invalid: &InvalidField) {
    assert!(!invalid.detail.is_empty(), "a refusal without a word");
    assert!(invalid.detail.len() <= 512, "{invalid}");
    assert!(invalid.field.len() <= 512, "{invalid}");
    assert!(!invalid.field.contains(char::is_control), "{invalid:?}");
}

/// A merge patch, of a peer that may be any.
pub(crate) fn patch(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let held = choices.bytes(400);
    let patch = choices.bytes(1_000);
    let held = match Body::from_json(&held) {
        Ok(body) => body.draft,
        Err(_) => example(),
    };
    let patch = match Patch::from_json(&patch) {
        Ok(patch) => patch,
        Err(invalid) => return is_named(&invalid),
    };
    let entry = live(&held);
    match patch.apply(&key(), &entry) {
        Ok(body) => {
            is_within_bounds(&body.draft);
            // RFC 7396: a patch that was applied changes nothing when it is applied again.
            let again = patch.apply(&key(), &live(&body.draft));
            assert_eq!(again.map(|body| body.draft), Ok(body.draft));
        }
        Err(invalid) => is_named(&invalid),
    }
    let nothing = Patch::from_json(b"{}").expect("an empty patch");
    let same = nothing.apply(&key(), &entry).expect("nothing is changed");
    let contact = Contact::NEVER;
    assert_eq!(same.draft, Draft { contact, ..held });
}

fn example() -> Draft {
    let json = br#"{"name":"files-0","ip":"10.0.0.7","ports":{"userSync":5001,"x":1},"labels":{"zone":"a"}}"#;
    Body::from_json(json).expect("a peer").draft
}

/// Versions, revisions, ids and names.
pub(crate) fn texts(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    reads_back::<Version>(text);
    reads_back::<Revision>(text);
    reads_back::<Key>(text);
    reads_back::<TableName>(text);
    reads_back::<ClusterId>(text);
    reads_back::<StoreId>(text);
    reads_back::<OriginId>(text);
    reads_back::<AuthorityId>(text);
}

/// What is read of a text is read of what it is shown as, and has no second spelling.
fn reads_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let shown = read.to_string();
        assert!(shown.len() <= 253);
        assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&read));
    }
}
