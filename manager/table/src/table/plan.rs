//! A group of writes that is being decided: local ones and those from peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::sessions::SessionId;
use super::{Row, Table};
use crate::clock::{Clock, ClockAhead, Contact, Reading, Version, WallTime};
use crate::entry::{Body, Content, Entry, Rank};
use crate::feed::{Change, Changed, Via};
use crate::floors::Arrival;
use crate::history::{Note, Noted, Stamped, Way};
use crate::ids::{OriginId, StoreId};
use crate::key::{Key, KeyHash};
use crate::mutants;

/// What a write demands of the version that is held.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Precondition {
    /// `If-Match`: live, and one of these versions.
    pub if_match: Option<Match>,
    /// `If-None-Match`: not live, or none of these versions.
    pub if_none_match: Option<Match>,
}

/// The versions a precondition names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Match {
    /// `*`: any.
    Any,
    /// One of these.
    Versions(Vec<Version>),
}

impl Precondition {
    /// Holds only if there is no live record.
    pub const fn absent() -> Self {
        Self {
            if_match: None,
            if_none_match: Some(Match::Any),
        }
    }

    /// Whether it holds where a live record of version `live`, or none, is held.
    pub fn holds(&self, live: Option<Version>) -> bool {
        let matches = |wanted: &Match| match (wanted, live) {
            (_, None) => false,
            (Match::Any, Some(_)) => true,
            (Match::Versions(versions), Some(version)) => versions.contains(&version),
        };
        self.if_match.as_ref().is_none_or(matches)
            && !self.if_none_match.as_ref().is_some_and(matches)
    }
}

/// Why a local write was not planned; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteRefused {
    /// The precondition does not hold.
    #[error("the precondition does not hold")]
    Precondition {
        /// The version of the live record, if there is one.
        live: Option<Version>,
    },
    /// There is no live record of that key.
    #[error("there is no such record")]
    Absent,
    /// The table is full and the key is new.
    #[error("the table holds {records_max} records and takes no new key")]
    Full {
        /// The bound that was reached.
        records_max: usize,
    },
    /// The record is too large.
    #[error("the record has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// Of its key and content.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The contact is in the future.
    #[error(
        "the last contact is {ahead_ms} ms ahead of this machine's clock, more than {limit_ms} ms"
    )]
    ContactAhead {
        /// How far it is ahead, in milliseconds.
        ahead_ms: u64,
        /// How far it may be, in milliseconds.
        limit_ms: u64,
    },
    /// The clock is too far ahead of the wall clock to stamp a write.
    #[error(transparent)]
    Clock(#[from] ClockAhead),
    /// The record is in the index but could not be read from the store.
    #[error("the stored record cannot be read")]
    Unreadable,
}

/// Why a record from a peer was refused at the door.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MergeRefused {
    /// Its version is stamped too far ahead of this machine's wall clock.
    VersionAhead,
    /// Its contact is.
    ContactAhead,
    /// Its content is none of this table.
    Content,
    /// It is larger than a record may be.
    TooLarge,
    /// The table is full and its key is new.
    Full,
    /// The record held here could not be read from the store.
    Unreadable,
    /// It was written by a replica that is not known yet, and no more are taken in.
    Origins,
}

/// What became of a record from a peer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Merged {
    /// Its body won and was taken.
    Applied,
    /// Only its contact was news.
    Contact,
    /// The same record is held.
    Equal,
    /// A newer one is held.
    Stale,
    /// It was deleted, and the tombstone has left since: its sender is to be told so, with a
    /// tombstone of its version.
    Ghost,
    /// A tombstone of what is not held, and was dealt with before.
    Collected,
    /// It was pushed, and comes from an opening of a store that writes no more: exchanges bring it
    /// if anybody still has it.
    Fenced,
    /// It was pushed, and this replica takes no pushes before it has met one that belongs.
    Deferred,
    /// It was not let in.
    Refused(MergeRefused),
}

/// Records by their keys, in the order in which they came.
pub type Entries = IndexMap<Key, Entry, KeyHash>;

/// What decides over a record, of what is held of its key.
#[derive(Copy, Clone)]
struct Held {
    rank: Rank,
    contact: Contact,
    is_live: bool,
}

impl Held {
    const fn stamped(self) -> Stamped {
        Stamped {
            version: self.rank.version(),
            is_live: self.is_live,
        }
    }
}

impl From<&Entry> for Held {
    fn from(entry: &Entry) -> Self {
        Self {
            rank: entry.rank(),
            contact: entry.contact,
            is_live: entry.is_live(),
        }
    }
}

impl From<&Row> for Held {
    fn from(row: &Row) -> Self {
        Self {
            rank: row.rank(),
            contact: row.contact,
            is_live: row.is_live(),
        }
    }
}

/// A group of writes that is being decided.
#[derive(Debug)]
pub struct Plan<'a> {
    table: &'a Table,
    clock: &'a mut Clock,
    now: WallTime,
    held: &'a BTreeMap<Key, Entry>,
    entries: Entries,
    /// Keys among `entries` that the table does not hold.
    added: usize,
    changes: Vec<Change>,
    stamped: Option<Reading>,
    heard: BTreeMap<OriginId, Reading>,
    taken: Vec<(Version, Option<SessionId>)>,
    answers: Vec<(Key, Entry)>,
    /// Who sent what is merged now, where that is known.
    sender: Option<StoreId>,
    notes: Vec<Note>,
}

/// What a decided group of writes changes.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The records to store, each as the last write of the group leaves it.
    pub entries: Arc<Entries>,
    /// Tombstones that leave.
    pub removed: BTreeSet<Key>,
    /// The highest reading stamped for a local write; to be stored with the records.
    pub stamped: Option<Reading>,
    /// Each change, in stamp order.
    pub(super) feed: Vec<Change>,
    /// Of each id, the highest reading among the versions that came from a peer.
    pub(super) heard: BTreeMap<OriginId, Reading>,
    /// Those of the records that were news, and the exchange that each came by.
    pub(super) taken: Vec<(Version, Option<SessionId>)>,
    /// The wall time at which it was decided.
    pub(super) at: WallTime,
    /// What came, whatever became of it, for a [`History`](crate::history::History).
    pub notes: Vec<Note>,
}

impl Changes {
    /// The wall time at which it was decided.
    pub const fn at(&self) -> WallTime {
        self.at
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.removed.is_empty()
    }

    /// The removal of tombstones that may leave: see [`Table::collectable`](super::Table::collectable).
    pub fn removal(keys: impl IntoIterator<Item = Key>) -> Self {
        Self {
            removed: keys.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// What a local write does to the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewContent {
    /// The content it writes.
    pub content: Content,
    /// A contact it brings along; an older one than is held changes nothing.
    pub contact: Contact,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        table: &'a Table,
        clock: &'a mut Clock,
        now: WallTime,
        held: &'a BTreeMap<Key, Entry>,
    ) -> Self {
        Self {
            table,
            clock,
            now,
            held,
            entries: Entries::with_hasher(KeyHash::from(&table.fingerprint_key)),
            added: 0,
            changes: Vec::new(),
            stamped: None,
            heard: BTreeMap::new(),
            taken: Vec::new(),
            answers: Vec::new(),
            sender: None,
            notes: Vec::new(),
        }
    }
}

impl Plan<'_> {
    /// What is held of `key` at this point of the group.
    fn current(&self, key: &Key) -> Option<Held> {
        match self.entries.get(key) {
            Some(entry) => Some(entry.into()),
            None => self.table.index.get(key).map(Held::from),
        }
    }

    /// The version of the live record of `key` at this point of the group.
    pub fn live_version(&self, key: &Key) -> Option<Version> {
        match self.entries.get(key) {
            Some(entry) => entry.is_live().then_some(entry.version),
            None => self
                .table
                .index
                .get(key)
                .filter(|row| row.is_live())
                .map(|row| row.version),
        }
    }

    /// The whole live record of `key` at this point of the group, if it could be read.
    pub fn live_entry(&self, key: &Key) -> Option<&Entry> {
        let entry = self.entries.get(key).or_else(|| {
            let version = self.table.index.get(key)?.version;
            self.held.get(key).filter(|entry| entry.version == version)
        })?;
        entry.is_live().then_some(entry)
    }

    /// Plans to write `new` under `key`, where `precondition` holds; the answer is the record as
    /// it will be.
    pub fn put(
        &mut self,
        key: &Key,
        precondition: &Precondition,
        new: NewContent,
    ) -> Result<Entry, WriteRefused> {
        self.demand(key, precondition)?;
        let bytes = key.as_str().len() + new.content.as_bytes().len();
        let bytes_max = self.table.limits.record_bytes_max;
        if bytes > bytes_max {
            return Err(WriteRefused::TooLarge { bytes, bytes_max });
        }
        self.check_contact(new.contact)?;
        let held = self.current(key);
        if held.is_none() && self.is_full() {
            return Err(WriteRefused::Full {
                records_max: self.table.limits.records_max,
            });
        }
        self.write(key, held, new.contact, Body::Live(new.content))
    }

    /// Plans to delete `key`, where `precondition` holds; the answer is the tombstone.
    pub fn delete(
        &mut self,
        key: &Key,
        precondition: &Precondition,
    ) -> Result<Entry, WriteRefused> {
        self.demand(key, precondition)?;
        let held = self.current(key);
        if !held.is_some_and(|held| held.is_live) {
            return Err(WriteRefused::Absent);
        }
        self.write(key, held, Contact::NEVER, Body::Tombstone)
    }

    /// Plans to note that the peer of `key` was seen; an earlier contact than is held changes
    /// nothing. The answer is the record as it will be. The caller has handed in the held record.
    pub fn contact(&mut self, key: &Key, contact: Contact) -> Result<Entry, WriteRefused> {
        if self.live_version(key).is_none() {
            return Err(WriteRefused::Absent);
        }
        self.check_contact(contact)?;
        let held = self
            .live_entry(key)
            .ok_or(WriteRefused::Unreadable)?
            .clone();
        if contact <= held.contact {
            return Ok(held);
        }
        let entry = Entry { contact, ..held };
        self.set(key, false, entry.clone(), Changed::Contact, Via::Local);
        Ok(entry)
    }

    /// Says who sent the next records that are merged, and that there are so many of them.
    pub fn sent_by(&mut self, store: Option<StoreId>, records: usize) {
        self.sender = store;
        self.notes.reserve(records);
    }

    /// Has something be remembered that is not decided here.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Plans to merge a record from a peer, that came by the exchange `session` of ours if by any.
    pub fn merge(
        &mut self,
        key: &Key,
        entry: Entry,
        via: Via,
        session: Option<SessionId>,
    ) -> Merged {
        let came = Stamped {
            version: entry.version,
            is_live: entry.is_live(),
        };
        let (merged, held) = self.merge_at_the_door(key, entry, via, session);
        if let Some(noted) = Noted::of(came, held.map(Held::stamped), merged) {
            let from = self.sender;
            self.notes.push(Note {
                key: key.clone(),
                way: Way { via, from },
                noted,
            });
        }
        merged
    }

    /// What becomes of a record from a peer, and what was held of its key before, if it was let in.
    fn merge_at_the_door(
        &mut self,
        key: &Key,
        entry: Entry,
        via: Via,
        session: Option<SessionId>,
    ) -> (Merged, Option<Held>) {
        if let Err(refused) = self.admit(key, &entry) {
            return (Merged::Refused(refused), None);
        }
        let may_push = self.table.floors.has_met() || mutants::is("push-before-meeting");
        if via == Via::Push && !may_push {
            return (Merged::Deferred, None);
        }
        let version = entry.version;
        let held = self.current(key);
        let merged = self.merge_admitted(key, entry, held, via, session);
        if !matches!(merged, Merged::Refused(_)) && !mutants::is("versions-not-observed") {
            // Within the drift, as the record was admitted.
            let _ = self.clock.observe(version.reading, self.now);
        }
        if !matches!(merged, Merged::Refused(_) | Merged::Fenced) {
            let highest = self.heard.entry(version.origin).or_default();
            *highest = version.reading.max(*highest);
        }
        (merged, held)
    }

    /// What the senders of merged records are to be told: the tombstones that beat these.
    pub fn take_answers(&mut self) -> Vec<(Key, Entry)> {
        std::mem::take(&mut self.answers)
    }

    /// The changes that were planned.
    pub fn finish(self) -> Changes {
        Changes {
            entries: Arc::new(self.entries),
            removed: BTreeSet::new(),
            stamped: self.stamped,
            feed: self.changes,
            heard: self.heard,
            taken: self.taken,
            at: self.now,
            notes: self.notes,
        }
    }

    fn admit(&self, key: &Key, entry: &Entry) -> Result<(), MergeRefused> {
        let ids = self.table.floors.ids();
        if ids.is_full() && !ids.knows(entry.version.origin) {
            return Err(MergeRefused::Origins);
        }
        self.clock
            .check(entry.version.reading.wall(), self.now)
            .map_err(|_| MergeRefused::VersionAhead)?;
        self.check_contact(entry.contact)
            .map_err(|_| MergeRefused::ContactAhead)?;
        if let Some(content) = entry.content() {
            let bytes = key.as_str().len() + content.as_bytes().len();
            if bytes > self.table.limits.record_bytes_max {
                return Err(MergeRefused::TooLarge);
            }
            self.table
                .check_content(key, content.as_bytes())
                .map_err(|_| MergeRefused::Content)?;
        }
        Ok(())
    }

    fn merge_admitted(
        &mut self,
        key: &Key,
        entry: Entry,
        held: Option<Held>,
        via: Via,
        session: Option<SessionId>,
    ) -> Merged {
        let Some(held) = held else {
            return self.receive(key, entry, None, via, session);
        };
        let rank = entry.rank();
        if rank > held.rank {
            return self.receive(key, entry, Some(held), via, session);
        }
        let buried = || Entry {
            version: held.rank.version(),
            contact: held.contact.max(entry.contact),
            body: Body::Tombstone,
        };
        let is_stale = rank < held.rank;
        if is_stale && !held.is_live && !mutants::is("left-out-not-answered") {
            self.answers.push((key.clone(), buried()));
        }
        if entry.contact > held.contact {
            let held = if held.is_live {
                self.live_entry(key).cloned()
            } else {
                Some(buried())
            };
            let Some(held) = held else {
                return Merged::Refused(MergeRefused::Unreadable);
            };
            let contact = entry.contact;
            self.set(key, false, Entry { contact, ..held }, Changed::Contact, via);
            Merged::Contact
        } else if is_stale {
            Merged::Stale
        } else {
            Merged::Equal
        }
    }

    /// Receives a record that beats what is held.
    fn receive(
        &mut self,
        key: &Key,
        entry: Entry,
        held: Option<Held>,
        via: Via,
        session: Option<SessionId>,
    ) -> Merged {
        let version = entry.version;
        let held_version = held.map(|held| held.rank.version());
        let floors = &self.table.floors;
        let arrival = floors.arrival(version, entry.is_live(), held_version, via, self.clock);
        let held_contact = held.map_or(Contact::NEVER, |held| held.contact);
        let contact = if mutants::is("contact-of-the-last-writer") {
            entry.contact
        } else {
            entry.contact.max(held_contact)
        };
        match arrival {
            Arrival::Taken if held.is_none() && self.is_full() => {
                Merged::Refused(MergeRefused::Full)
            }
            Arrival::Taken => {
                if !self.table.floors.covers(version, self.clock) {
                    self.taken.push((version, session));
                }
                let entry = Entry { contact, ..entry };
                self.set(key, held.is_none(), entry, Changed::Body, via);
                Merged::Applied
            }
            Arrival::Ghost => {
                let tombstone = Entry {
                    version,
                    contact,
                    body: Body::Tombstone,
                };
                if held.is_some() {
                    self.set(key, false, tombstone.clone(), Changed::Body, via);
                    let way = Way {
                        via,
                        from: self.sender,
                    };
                    self.note_taken(key, way, &tombstone, held);
                }
                if !mutants::is("ghost-not-answered") {
                    self.answers.push((key.clone(), tombstone));
                }
                Merged::Ghost
            }
            Arrival::Collected => Merged::Collected,
            Arrival::Fenced => Merged::Fenced,
        }
    }

    /// Whether `precondition` holds for `key` at this point of the group.
    pub fn demand(&self, key: &Key, precondition: &Precondition) -> Result<(), WriteRefused> {
        let live = self.live_version(key);
        if precondition.holds(live) {
            Ok(())
        } else {
            Err(WriteRefused::Precondition { live })
        }
    }

    fn check_contact(&self, contact: Contact) -> Result<(), WriteRefused> {
        let Some(time) = contact.time() else {
            return Ok(());
        };
        self.clock
            .check(time, self.now)
            .map_err(|ahead| WriteRefused::ContactAhead {
                ahead_ms: ahead.ahead_ms,
                limit_ms: ahead.limit_ms,
            })
    }

    /// Whether the table has no room for a new key.
    fn is_full(&self) -> bool {
        self.table.index.len() + self.added >= self.table.limits.records_max
    }

    fn write(
        &mut self,
        key: &Key,
        held: Option<Held>,
        contact: Contact,
        body: Body,
    ) -> Result<Entry, WriteRefused> {
        let held_contact = held.map_or(Contact::NEVER, |held| held.contact);
        let version = self.clock.stamp(self.now)?;
        self.stamped = Some(version.reading);
        let entry = Entry {
            version,
            contact: contact.max(held_contact),
            body,
        };
        self.set(
            key,
            held.is_none(),
            entry.clone(),
            Changed::Body,
            Via::Local,
        );
        self.note_taken(key, Way::LOCAL, &entry, held);
        Ok(entry)
    }

    fn note_taken(&mut self, key: &Key, way: Way, taken: &Entry, over: Option<Held>) {
        self.notes.push(Note {
            key: key.clone(),
            way,
            noted: Noted::Taken {
                taken: Stamped {
                    version: taken.version,
                    is_live: taken.is_live(),
                },
                over: over.map(Held::stamped),
            },
        });
    }

    fn set(&mut self, key: &Key, is_new: bool, entry: Entry, what: Changed, via: Via) {
        self.added += usize::from(is_new);
        self.changes.push(Change {
            key: key.clone(),
            entry: entry.clone(),
            what,
            via,
        });
        self.entries.insert(key.clone(), entry);
    }
}
