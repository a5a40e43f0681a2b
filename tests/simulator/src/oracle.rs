//! What is known of all writes, and the rules that must hold of every store at every step.
//!
//! It never decides which of two records wins but by comparing what the records themselves say, and
//! it forgets nothing that a store once held.

use std::collections::{BTreeMap, BTreeSet};

use peer_table::entry::Rank;
use peer_table::floors::Snapshot;
use peer_table::{Contact, Entry, Key, OriginId, Reading, Table, Version, WallTime};

use crate::owner::DRIFT_MS;
use crate::world::Violation;

/// What a store has had and what it was told; it goes back only with the store itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The newest of each key that it ever held.
    pub(crate) newest: BTreeMap<Key, Newest>,
    /// The highest reading of these.
    highest: Reading,
    /// The newest of each key that partners knew as it took in all that they had.
    told: BTreeMap<Key, Rank>,
    /// The ids of which a record or an exchange told it.
    heard: BTreeSet<OriginId>,
}

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
    /// The highest reading of what exchanges have told it of since it runs.
    pub(crate) told: Reading,
}

/// What a replica had when it told a partner so.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    known: Known,
    /// The records that it held.
    held: Vec<(Key, Version, bool)>,
}

impl Told {
    /// Of this table, whose store knew this.
    pub(crate) fn new(known: &Known, table: &Table) -> Self {
        let held = table.rows_after(None, usize::MAX);
        let held = held.map(|(key, row)| (key.clone(), row.version, row.is_live()));
        Self {
            known: known.clone(),
            held: held.collect(),
        }
    }
}

/// A tombstone that left some store.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    /// Its version.
    pub(crate) version: Version,
    /// Whether somebody deleted the record, rather than laid a ghost of it.
    pub(crate) is_deletion: bool,
    /// The ids that were known there, and those of which a message had told it.
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
    /// Ids that some replica has forgotten, as they were fenced so long ago.
    forgotten: BTreeSet<OriginId>,
    /// What replicas had, by who and when.
    told: BTreeMap<(OriginId, Reading), Told>,
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
    /// Notes that a message told of this id.
    pub(crate) fn hears(&mut self, id: OriginId) {
        self.heard.insert(id);
    }

    /// Becomes what is known from these records alone.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(&Key) -> bool) {
        self.newest.retain(|key, _| is_kept(key));
        let versions = || self.newest.values().map(|it| it.rank.version());
        self.highest = versions().map(|it| it.reading).max().unwrap_or_default();
        self.heard = versions().map(|it| it.origin).collect();
        self.told.clear();
    }

    /// Takes in what a partner knew, as all that it had is here.
    fn learn(&mut self, partner: &Self) {
        let held = partner.newest.iter();
        let held = held.map(|(key, newest)| (key, newest.rank));
        let told = partner.told.iter().map(|(key, rank)| (key, *rank));
        for (key, rank) in held.chain(told) {
            let mine = self.told.entry(key.clone()).or_insert(rank);
            *mine = rank.max(*mine);
        }
        self.heard.extend(&partner.heard);
    }

    /// Whether a partner knew something newer than this.
    fn was_told_newer(&self, key: &Key, rank: Rank) -> bool {
        self.told.get(key).is_some_and(|told| rank < *told)
    }

    /// Notes that a tombstone has left. What it knew of contacts went with it.
    pub(crate) fn collected(&mut self, key: &Key) {
        if let Some(newest) = self.newest.get_mut(key) {
            newest.contact = Contact::NEVER;
        }
    }

    /// Takes in all that `other` knows.
    pub(crate) fn join(&mut self, other: &Self) {
        for (key, newest) in &other.newest {
            let mine = self.newest.entry(key.clone()).or_insert(*newest);
            let contact = mine.contact.max(newest.contact);
            if newest.rank > mine.rank {
                *mine = *newest;
            }
            mine.contact = contact;
        }
    }

    /// Whether it knows of `entry` or of what beats it, and of its contact.
    pub(crate) fn covers(&self, key: &Key, entry: &Entry) -> bool {
        self.newest
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

    /// Notes that an id was fenced so long ago that a replica has forgotten it.
    pub(crate) fn forgets(&mut self, id: OriginId) {
        self.forgotten.insert(id);
    }

    /// The ids of which a store was told, but for those that are forgotten.
    pub(crate) fn heard(&self, known: &Known) -> BTreeSet<OriginId> {
        known.heard.difference(&self.forgotten).copied().collect()
    }

    /// Notes what a replica had when it gave this snapshot away.
    pub(crate) fn tells(&mut self, snapshot: &Snapshot, told: Told) {
        self.told.insert((snapshot.origin, snapshot.reading), told);
    }

    /// Checks that all that a partner had is here, as a replica is about to cover it; its store has what
    /// `held` says and has known what `known` says, and before that it covered what `covered` says. From
    /// then on it knows what the partner knew. The answer has the highest reading of that.
    pub(crate) fn advances(
        &self,
        known: &mut Known,
        held: impl Iterator<Item = (Key, Entry)>,
        covered: impl Fn(Version) -> bool,
        partner: &Snapshot,
    ) -> (Reading, Result<(), Violation>) {
        // Who lies of what it has is told nothing wrong by this.
        let told = self.told.get(&(partner.origin, partner.reading));
        let Some(told) = told.filter(|_| !self.has_liar) else {
            return (Reading::default(), Ok(()));
        };
        let mut checked = Ok(());
        for (key, version, is_live) in &told.held {
            let came = known.newest.get(key).is_some_and(|newest| {
                let rank = newest.rank;
                rank.version() > *version
                    || rank.version() == *version && (*is_live || rank >= Rank::new(*version, None))
            });
            if !came && !covered(*version) {
                let detail = format!("{key} {version} of {}", partner.origin);
                checked = checked.and(broken("what a replica covers has come to it", detail));
            }
        }
        known.learn(&told.known);
        known.hears(partner.origin);
        for (key, entry) in held.filter(|(_, entry)| entry.is_live()) {
            let is_older = known.was_told_newer(&key, entry.rank());
            if is_older && !self.is_excused(&key, entry.version) {
                let detail = format!("{key} {}", entry.version);
                checked = checked.and(broken("who covers a deletion holds nothing older", detail));
            }
        }
        let readings = told.known.newest.values();
        let readings = readings.map(|newest| newest.rank.version().reading);
        let highest = readings.filter(|reading| *reading <= partner.reading).max();
        (highest.unwrap_or_default(), checked)
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
        let above = known.highest.max(writer.told);
        if version.reading <= above {
            return broken(
                "a stamp is above all that its writer knows",
                format!("{key} {version} is not above {above:?}"),
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
        let held = known.newest.get(key).map(|held| held.rank);
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
        newest.live |= is_buried && !self.has_liar;
        let is_back = entry.is_live() && known.was_told_newer(key, entry.rank());
        if is_back && !self.is_excused(key, version) {
            return broken(
                "no store goes back to an older record",
                format!("{key} to {newest:?}, and was told of a newer one"),
            );
        }
        known.highest = known.highest.max(version.reading);
        known.hears(version.origin);
        let Some(held) = known.newest.insert(key.clone(), newest) else {
            return Ok(());
        };
        if newest.rank < held.rank {
            known.newest.insert(
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
