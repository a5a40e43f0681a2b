//! A table: the index of its records, and what a write or a batch from a peer changes in it.
//!
//! Deciding and doing are apart. [`Table::plan`] decides a group of writes, each against the state
//! that those before it in the group leave, and changes nothing; the caller writes the resulting
//! [`Changes`] to its store; and only then [`Table::apply`] brings index, sketch and feed up to
//! date. So a reader never sees what the store might still lose.
//!
//! The index holds no contents, only what decides merges; contents are in the store.

mod index;
mod loading;
mod plan;
mod rekey;
mod sessions;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Clock, Contact, Reading, Version, WallTime};
use crate::entry::{Content, Entry, Rank};
use crate::feed::{Feed, FeedLimits};
use crate::fingerprint::{Fingerprint, FingerprintKey};
use crate::floors::{Floors, HeldBack, Snapshot};
use crate::ids::OriginId;
use crate::key::{Key, KeyHash, TableName};
use crate::mutants;
use crate::sketch::Sketch;

use self::index::Index;
pub use self::loading::Loading;
pub use self::plan::{
    Changes, Entries, Match, MergeRefused, Merged, NewContent, Plan, Precondition, WriteRefused,
};
pub use self::rekey::Rekeying;
pub use self::sessions::SessionId;
use self::sessions::Sessions;
pub use self::standing::{Horizon, Standing};

/// How many and how large a table's records may be.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Records at the most, tombstones included.
    pub records_max: usize,
    /// Bytes of a record's key and content together at the most.
    pub record_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records_max: 1_000_000,
            record_bytes_max: 16 << 10,
        }
    }
}

/// Says whether bytes are a content of this table.
pub type ContentCheck = fn(&Key, &[u8]) -> Result<(), InvalidContent>;

/// Bytes that are no content of their table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a content of this table: {0}")]
pub struct InvalidContent(pub String);

/// What the index knows of one record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its version.
    pub version: Version,
    /// When its peer was last seen.
    pub contact: Contact,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    is_live: bool,
    /// The digest of its content; none of a tombstone.
    content: u64,
}

impl Row {
    /// Whether it is not a tombstone.
    pub const fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether `entry` is the record that this is the row of.
    pub fn is_of(&self, entry: &Entry) -> bool {
        self.contact == entry.contact && self.rank() == entry.rank()
    }

    fn rank(&self) -> Rank {
        Rank::new(self.version, self.is_live.then_some(self.content))
    }
}

/// Equal for two tables just where their records are, but for one pair of tables in 2^96.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    /// Records, tombstones included.
    pub records: u64,
    /// XOR of all fingerprints.
    pub sum: u64,
    /// XOR of a 32-bit hash of each fingerprint.
    pub check: u32,
}

/// A table of records.
#[derive(Debug)]
pub struct Table {
    name: TableName,
    fingerprint_key: FingerprintKey,
    check_content: ContentCheck,
    limits: Limits,
    index: Index,
    /// How many records each id wrote.
    origins: BTreeMap<OriginId, usize>,
    /// In the order in which they leave.
    tombstones: BTreeSet<(Version, Key)>,
    sketch: Sketch,
    feed: Feed,
    floors: Floors,
    sessions: Sessions,
}

/// What a table is made of, beside its records.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its name.
    pub name: TableName,
    /// The cluster's key for fingerprints.
    pub fingerprint_key: FingerprintKey,
    /// What a content must look like.
    pub check_content: ContentCheck,
    /// Bounds of its records.
    pub limits: Limits,
    /// The length of its sketch, in symbols.
    pub sketch_symbols: usize,
    /// Which opening of the store its revisions belong to.
    pub epoch: u64,
    /// Bounds of its feed.
    pub feed: FeedLimits,
    /// What is known of other replicas.
    pub floors: Floors,
}

impl Table {
    /// An empty table.
    pub fn new(spec: TableSpec) -> Self {
        Self {
            index: Index::new(KeyHash::from(&spec.fingerprint_key)),
            name: spec.name,
            fingerprint_key: spec.fingerprint_key,
            check_content: spec.check_content,
            limits: spec.limits,
            origins: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            sketch: Sketch::new(spec.sketch_symbols),
            feed: Feed::new(spec.epoch, spec.feed),
            floors: spec.floors,
            sessions: Sessions::new(spec.epoch),
        }
    }

    /// Takes in a record that the store already holds, as it holds another than was thought: no limit,
    /// clock or feed takes part. Refuses what is no content of this table; a peer may bring that again.
    /// A whole table is read by way of [`Loading`].
    pub fn load(&mut self, key: &Key, entry: &Entry, now: WallTime) -> Result<(), InvalidContent> {
        self.check_loaded(key, entry)?;
        self.floors.heard(entry.version, now);
        self.set(key, entry);
        Ok(())
    }

    /// Whether a record that the store holds is one of this table.
    fn check_loaded(&self, key: &Key, entry: &Entry) -> Result<(), InvalidContent> {
        let content = entry.content();
        content.map_or(Ok(()), |it| (self.check_content)(key, it.as_bytes()))
    }

    /// Its name.
    pub const fn name(&self) -> &TableName {
        &self.name
    }

    /// Its bounds.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether bytes are a content of this table.
    pub fn check_content(&self, key: &Key, content: &[u8]) -> Result<(), InvalidContent> {
        (self.check_content)(key, content)
    }

    /// What is known of `key`.
    pub fn row(&self, key: &Key) -> Option<&Row> {
        self.index.get(key)
    }

    /// Live records.
    pub fn live(&self) -> usize {
        self.index.len() - self.tombstones.len()
    }

    /// Deleted records that are still remembered.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// When the first of the deleted records that are still remembered was deleted.
    pub fn first_tombstone(&self) -> Option<WallTime> {
        let (version, _) = self.tombstones.first()?;
        Some(version.reading.wall())
    }

    /// What is known of other replicas.
    pub const fn floors(&self) -> &Floors {
        &self.floors
    }

    /// Takes over what became of [`Table::floors`], once it is stored.
    pub fn set_floors(&mut self, floors: Floors) {
        self.floors = floors;
    }

    /// What this replica has, at the beginning of an exchange that another begins.
    pub fn snapshot(&mut self, clock: &mut Clock, now: WallTime) -> Snapshot {
        self.floors.snapshot(clock, now)
    }

    /// Whether a tombstone is held with a reading above the first and up to the second.
    pub fn has_tombstone_within(&self, above: Reading, up_to: Reading) -> bool {
        let later = |(version, _): &&(Version, Key)| version.reading > above;
        let first = self.tombstones.iter().find(later);
        first.is_some_and(|(version, _)| version.reading <= up_to)
    }

    /// Whether a record is held that was written under this id.
    pub fn holds_of(&self, origin: OriginId) -> bool {
        self.origins.contains_key(&origin)
    }

    /// The first tombstones, `limit` at the most, that may leave where all up to `reading` may: those
    /// that are covered.
    pub fn collectable(&self, reading: Reading, limit: usize) -> Vec<Key> {
        let due = self.tombstones.iter();
        let due = due.take_while(|(version, _)| version.reading <= reading);
        let covered = due.filter(|(version, _)| self.floors.covers_held(*version));
        covered.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// What keeps the first of the tombstones, if anything does. `has_strangers` is whether discovery
    /// lists a replica whose id is not known.
    pub fn held_back(&self, has_strangers: bool) -> Option<HeldBack> {
        let (first, _) = self.tombstones.first()?;
        self.floors.held_back(*first, has_strangers)
    }

    /// Everybody who keeps that one: see [`Floors::holders`].
    pub fn holders(&self, has_strangers: bool) -> Vec<HeldBack> {
        let first = self.tombstones.first();
        first.map_or_else(Vec::new, |(first, _)| {
            self.floors.holders(*first, has_strangers)
        })
    }

    /// Begins an exchange of ours: from now on it is watched what else comes in.
    pub fn begin_session(&mut self) -> SessionId {
        self.sessions.begin()
    }

    /// What the floors become by an exchange of ours of which everything arrived and nothing was
    /// refused; `None` if they stay, as something else came meanwhile that the partner has dealt with.
    pub fn advanced(&mut self, session: SessionId, partner: &Snapshot) -> Option<Floors> {
        if !self.sessions.end(session)?.agrees_with(partner) {
            return None;
        }
        let mut floors = self.floors.clone();
        floors.advance(partner);
        Some(floors)
    }

    /// Up to `limit` rows in the order of their keys, from the first after `after`.
    pub fn rows_after<'a>(
        &'a self,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Iterator<Item = (&'a Key, &'a Row)> {
        self.index.after(after).take(limit)
    }

    /// The key whose record has this fingerprint now.
    pub fn key_of(&self, fingerprint: Fingerprint) -> Option<&Key> {
        self.index.key_of(fingerprint)
    }

    /// Up to `limit` fingerprints in ascending order, from the first at or above `from`.
    pub fn fingerprints_from(
        &self,
        from: Fingerprint,
        limit: usize,
    ) -> impl Iterator<Item = Fingerprint> {
        let off_by_one = usize::from(from.0 > 0 && mutants::is("page-off-by-one"));
        let fingerprints = self.index.fingerprints_from(from);
        fingerprints.skip(off_by_one).take(limit)
    }

    /// The first coded symbols of its fingerprints.
    pub const fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// What two tables compare first. See [`Table::standing`] for where tombstones may have left.
    pub fn digest(&self) -> Digest {
        let summary = self.sketch.summary();
        Digest {
            records: self.index.len() as u64,
            sum: summary.sum,
            check: summary.check,
        }
    }

    /// Its latest changes.
    pub const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Begins to decide a group of writes at wall time `now`, which `clock` stamps.
    ///
    /// `held` are the records of which [`Table::needs_content`] said so, as the store holds them.
    pub fn plan<'a>(
        &'a self,
        clock: &'a mut Clock,
        now: WallTime,
        held: &'a BTreeMap<Key, Entry>,
    ) -> Plan<'a> {
        Plan::new(self, clock, now, held)
    }

    /// Whether merging `entry` into what is held of `key` may need the held content: the incoming
    /// body does not win, but its contact is later.
    pub fn needs_content(&self, key: &Key, entry: &Entry) -> bool {
        self.index.get(key).is_some_and(|row| {
            row.is_live() && entry.contact > row.contact && entry.rank() <= row.rank()
        })
    }

    /// Does what was planned, once the store has it.
    pub fn apply(&mut self, changes: Changes) {
        for (origin, reading) in changes.heard {
            self.floors.heard(Version { reading, origin }, changes.at);
        }
        for (version, session) in changes.taken {
            self.sessions.note(version, session);
        }
        for key in changes.removed {
            if let Some((key, row)) = self.index.remove(&key) {
                self.unlink(&key, row);
            }
        }
        for (key, entry) in &*changes.entries {
            self.set(key, entry);
        }
        for change in changes.feed {
            self.feed.push(change);
        }
    }

    /// Takes out a record that the store does not hold, or not so that it can be read; says whether
    /// there was one. To other replicas it is one that this one lacks, and an exchange brings it again
    /// if its version is not covered any more: see [`Floors::forget_coverage`].
    pub fn forget(&mut self, key: &Key) -> bool {
        let Some((key, row)) = self.index.remove(key) else {
            return false;
        };
        self.unlink(&key, row);
        true
    }

    fn set(&mut self, key: &Key, entry: &Entry) {
        let row = self.row_of(key, entry);
        if let Some(old) = self.index.insert(key.clone(), row) {
            self.unlink(key, old);
        }
        self.link(key, &row);
    }

    fn row_of(&self, key: &Key, entry: &Entry) -> Row {
        Row {
            version: entry.version,
            contact: entry.contact,
            fingerprint: self.fingerprint_key.fingerprint(
                &self.name,
                key,
                entry.version,
                entry.is_live(),
                entry.contact,
            ),
            is_live: entry.is_live(),
            content: entry.content().map_or(0, Content::digest),
        }
    }

    /// Puts a row in all but the index.
    fn link(&mut self, key: &Key, row: &Row) {
        self.sketch.insert(row.fingerprint);
        *self.origins.entry(row.version.origin).or_default() += 1;
        if !row.is_live() {
            self.tombstones.insert((row.version, key.clone()));
        }
    }

    /// Takes a row that is no longer in the index out of all else.
    fn unlink(&mut self, key: &Key, old: Row) {
        if !mutants::is("sketch-keeps-what-was-removed") {
            self.sketch.remove(old.fingerprint);
        }
        if let Some(records) = self.origins.get_mut(&old.version.origin) {
            *records -= 1;
            if *records == 0 {
                self.origins.remove(&old.version.origin);
            }
        }
        if !old.is_live() {
            self.tombstones.remove(&(old.version, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
