//! What is known of all writes, and the rules that must hold of every store at every step.
//!
//! It never decides which of two records wins but by comparing what the records themselves say, and
//! it forgets nothing that a store once held.

use std::collections::{BTreeMap, BTreeSet};

use peer_table::entry::Rank;
use peer_table::{Contact, Entry, Key, OriginId, Reading, Version, WallTime};

use crate::owner::DRIFT_MS;
use crate::world::Violation;

/// The newest that a store ever held of each key; it goes back only with the store itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(pub(crate) BTreeMap<Key, Newest>);

/// The newest of one key.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Newest {
    /// Its body's rank.
    pub(crate) rank: Rank,
    /// Whether it was written live: also where it is the tombstone that was laid on a ghost.
    pub(crate) live: bool,
    /// The latest contact.
    pub(crate) contact: Contact,
}

impl Newest {
    fn of(entry: &Entry) -> Self {
        Self {
            rank: entry.rank(),
            live: entry.is_live(),
            contact: entry.contact,
        }
    }
}

/// Who writes to a store, and when it was decided.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Writer {
    /// The opening of the store.
    pub(crate) origin: OriginId,
    /// The cluster of the pod.
    pub(crate) cluster: usize,
    /// The wall clock of the pod.
    pub(crate) wall: WallTime,
}

/// A tombstone that left some store.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// Its version.
    pub(crate) version: Version,
    /// Whether somebody deleted the record, rather than laid a ghost of it.
    pub(crate) is_deletion: bool,
    /// The ids that were known there.
    pub(crate) known: BTreeSet<OriginId>,
    /// What replicas held of its key of which nothing was known there.
    pub(crate) strange: Vec<Version>,
}

/// What is known of all writes.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The tombstones that left, by key.
    collections: BTreeMap<Key, Vec<Collection>>,
    /// Which record each version is of: its key and the rank of its body.
    versions: BTreeMap<Version, (Key, Rank)>,
    /// The cluster of each opening.
    origins: BTreeMap<OriginId, usize>,
    /// Live records that went with a store that was wiped, as no other store had them.
    lost: BTreeSet<Version>,
    /// The highest reading and contact anywhere.
    pub(crate) latest: WallTime,
    /// Whether somebody who belongs to the cluster lies. Who says that it has what it has not has
    /// others bury it, as it could have by a tombstone of its own: that breaks no rule.
    pub(crate) has_liar: bool,
}

fn broken(rule: &'static str, detail: String) -> Result<(), Violation> {
    Err(Violation { rule, detail })
}

impl Known {
    /// The highest reading in it.
    pub(crate) fn highest(&self) -> Reading {
        let readings = self.0.values().map(|newest| newest.rank.version().reading);
        readings.max().unwrap_or_default()
    }

    /// Notes that a tombstone has left. What it knew of contacts went with it.
    pub(crate) fn collected(&mut self, key: &Key) {
        if let Some(newest) = self.0.get_mut(key) {
            newest.contact = Contact::NEVER;
        }
    }

    /// Takes in all that `other` knows.
    pub(crate) fn join(&mut self, other: &Self) {
        for (key, newest) in &other.0 {
            let mine = self.0.entry(key.clone()).or_insert(*newest);
            let contact = mine.contact.max(newest.contact);
            if newest.rank > mine.rank {
                *mine = *newest;
            }
            mine.contact = contact;
        }
    }

    /// Whether it knows of `entry` or of what beats it, and of its contact.
    pub(crate) fn covers(&self, key: &Key, entry: &Entry) -> bool {
        self.0
            .get(key)
            .is_some_and(|newest| newest.rank >= entry.rank() && newest.contact >= entry.contact)
    }
}

impl Oracle {
    /// Notes that a tombstone leaves.
    pub(crate) fn collects(&mut self, key: &Key, collection: Collection) {
        let written = self.versions.get(&collection.version);
        let collection = Collection {
            is_deletion: written
                .is_some_and(|(_, rank)| *rank == Rank::new(collection.version, None)),
            ..collection
        };
        self.collections
            .entry(key.clone())
            .or_default()
            .push(collection);
    }

    /// Whether a live record may be where something newer was deleted: it was written by somebody, or
    /// held by somebody, of whom no message had ever told the store that the tombstone left.
    pub(crate) fn is_excused(&self, key: &Key, version: Version) -> bool {
        let collections = self.collections.get(key).into_iter().flatten();
        let mut newer = collections.filter(|it| it.version > version);
        newer.any(|it| !it.known.contains(&version.origin) || it.strange.contains(&version))
    }

    /// Whether a tombstone left some store that was written for this key later than `version`.
    pub(crate) fn was_deleted_after(&self, key: &Key, version: Version) -> bool {
        let mut collections = self.collections.get(key).into_iter().flatten();
        collections.any(|it| it.version > version && it.is_deletion)
    }

    /// Notes that a live record is in no store any more, as the only one that had it was wiped. Once all
    /// have agreed on what is left of its writer's, a backup of that store brings a ghost of it.
    pub(crate) fn loses(&mut self, version: Version) {
        self.lost.insert(version);
    }

    /// Notes an opening of a store. No id is ever drawn twice.
    pub(crate) fn opened(&mut self, origin: OriginId, cluster: usize) -> Result<(), Violation> {
        if self.origins.insert(origin, cluster).is_some() {
            return broken("each opening has an id of its own", origin.to_string());
        }
        Ok(())
    }

    /// Checks a local write that was decided, and notes its version, if it has a new one.
    pub(crate) fn stamped(
        &mut self,
        writer: Writer,
        known: &Known,
        key: &Key,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let version = entry.version;
        let content = (key.clone(), entry.rank());
        if let Some(first) = self.versions.get(&version) {
            if *first == content {
                return Ok(());
            }
            return broken(
                "no version is used twice",
                format!("{version} is of {first:?} and of {key} {entry:?}"),
            );
        }
        self.versions.insert(version, content);
        if version.origin != writer.origin {
            return broken("nobody stamps for another", format!("{key} {version}"));
        }
        if version.reading <= known.highest() {
            return broken(
                "a stamp is above all that its writer holds",
                format!("{key} {version} is not above {:?}", known.highest()),
            );
        }
        let (wall, now) = (version.reading.wall().as_millis(), writer.wall.as_millis());
        if wall > now + DRIFT_MS / 2 {
            return broken(
                "nothing is stamped too far ahead",
                format!("{key} {version} at {now}"),
            );
        }
        Ok(())
    }

    /// Checks a record that is being stored.
    pub(crate) fn stored(
        &mut self,
        known: &mut Known,
        writer: Writer,
        key: &Key,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let version = entry.version;
        let wall = version.reading.wall();
        self.latest = self.latest.max(wall);
        self.latest = self.latest.max(entry.contact.time().unwrap_or_default());
        if self.origins.get(&version.origin) != Some(&writer.cluster) {
            return broken(
                "clusters never mix",
                format!("{key} {version} is of no replica of the cluster"),
            );
        }
        match self.versions.get(&version) {
            // Who deals with a ghost makes the tombstone of its very version.
            Some((first, _)) if first == key && !entry.is_live() => {}
            Some(first) if *first != (key.clone(), entry.rank()) => {
                return broken(
                    "no version is used twice",
                    format!("{version} is of {first:?} and of {key} {entry:?}"),
                );
            }
            Some(_) => {}
            None => {
                return broken(
                    "what is stored was written",
                    format!("{key} {version} was written by nobody"),
                );
            }
        }
        // What is held already may get a later contact.
        let held = known.0.get(key).map(|held| held.rank);
        let is_held = held == Some(entry.rank());
        if !is_held && wall.as_millis() > writer.wall.as_millis() + DRIFT_MS {
            return broken(
                "nothing is taken from too far ahead",
                format!("{key} {version} at {}", writer.wall.as_millis()),
            );
        }
        let mut newest = Newest::of(entry);
        let written = self.versions.get(&version).map(|(_, rank)| *rank);
        // Nobody deleted that: somebody says that it was deleted before.
        let is_buried = written.is_some_and(|written| written < newest.rank);
        newest.live |= is_buried && !self.has_liar && !self.lost.contains(&version);
        let Some(held) = known.0.insert(key.clone(), newest) else {
            return Ok(());
        };
        if newest.rank < held.rank {
            known.0.insert(
                key.clone(),
                Newest {
                    contact: newest.contact,
                    ..held
                },
            );
        }
        // A tombstone of something older is no way back.
        if newest.rank < held.rank && entry.is_live() && !self.is_excused(key, version) {
            return broken(
                "no store goes back to an older record",
                format!("{key} from {held:?} to {newest:?}"),
            );
        }
        if newest.contact < held.contact {
            return broken(
                "no store goes back to an older contact",
                format!("{key} from {held:?} to {newest:?}"),
            );
        }
        Ok(())
    }
}
