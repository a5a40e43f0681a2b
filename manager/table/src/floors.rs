//! Floors: when a tombstone may leave without its record coming back.
//!
//! A tombstone that every replica has is of no more use, and one that any replica lacks must stay.
//! So each replica knows, of the writes of each id (an opening of a store), up to where it has them
//! all: its [`Vector`]. Its *floor* is the least of these, over all ids that may still write, and is
//! published. What lies below every floor is everywhere.
//!
//! A record that comes although the vector covers it was held here once and is gone: it is a *ghost*
//! of something deleted and collected, and is answered with its tombstone.
//!
//! The rule and each of its clauses were checked by a model over millions of histories; what a clause
//! is there for is said beside it. [`Floors`] decides and remembers; moving records, storing and
//! asking discovery is done by others.

mod ids;
mod vector;

use std::collections::BTreeMap;

pub use self::ids::{Fence, IdSet};
pub use self::vector::{Known, Vector};
use crate::clock::{Clock, Reading, Version, WallTime};
use crate::feed::Via;
use crate::ids::{OriginId, StoreId};

/// What a replica tells all others, as a record of the internal table `replicas` under its store id.
/// Of two the one of the later reading holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Whose it is.
    pub store: StoreId,
    /// Its current id.
    pub origin: OriginId,
    /// When it was made, by its own clock.
    pub at: Reading,
    /// Its floor: it has every write of every id up to there. 0 while that is not known.
    pub floor: Reading,
    /// The digest of its ids and fences.
    pub set_digest: u64,
    /// Its clock when that set last changed: whoever covers this has all that it held before.
    pub since: Reading,
}

/// Why there is no floor yet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unsettled {
    /// Discovery lists a replica whose id was not heard yet.
    Stranger,
    /// This id has not published anything yet.
    Silent(OriginId),
    /// This id knows other ids or other fences than we do.
    Set(OriginId),
    /// This id's set changed when it held what we may lack.
    Since(OriginId),
}

/// How a record that would win is received.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It is taken.
    Taken,
    /// It is a ghost: it is not taken, what is held of its key becomes the tombstone of its version,
    /// and its sender is answered with that.
    Ghost,
    /// It is the tombstone of something that is not held and was dealt with: nothing to do.
    Collected,
    /// It is a push from an id that writes no more: it would outlive what is known of that id. An
    /// exchange brings it, if anybody still has it.
    Fenced,
}

/// Vector and clock of one side at the beginning of an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Whose.
    pub origin: OriginId,
    /// Its clock, ticked for this: nothing is stamped or taken at this reading any more.
    pub reading: Reading,
    /// Its vector, without its own id.
    pub vector: Vector,
}

impl Snapshot {
    /// Whether it has `version`, or saw it lose.
    pub fn covers(&self, version: Version) -> bool {
        if version.origin == self.origin {
            version.reading <= self.reading
        } else {
            self.vector.covers(version)
        }
    }
}

/// What one replica knows of all others, and of what it has itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floors {
    own: OriginId,
    ids: IdSet,
    vector: Vector,
    publications: BTreeMap<OriginId, Publication>,
    /// The clock when `ids` last changed.
    since: Reading,
    /// The digest of `ids` then.
    since_digest: u64,
    has_met: bool,
}

impl Floors {
    /// Of a store that is opened for the first time, or starts over.
    pub fn new(own: OriginId) -> Self {
        let mut ids = IdSet::default();
        ids.learn(own);
        Self {
            own,
            since_digest: ids.digest(),
            ids,
            vector: Vector::default(),
            publications: BTreeMap::new(),
            since: Reading::default(),
            has_met: false,
        }
    }

    /// Of the next opening of the store, under the id `own`. The id of before is fenced, and covered
    /// up to `last`: the last reading that the store holds. So a store that was rolled back neither
    /// repeats a version nor takes its own later writes, which peers have, for ghosts.
    pub fn reopen(&mut self, own: OriginId, last: Reading) {
        self.vector.cover(self.own, last);
        self.ids.take(self.own, Some(Fence::Ended));
        self.publications.remove(&self.own);
        self.own = own;
        self.ids.learn(own);
        self.vector.cover(own, Reading::default());
    }

    /// The current id of this store.
    pub const fn own(&self) -> OriginId {
        self.own
    }

    /// All ids and fences.
    pub const fn ids(&self) -> &IdSet {
        &self.ids
    }

    /// What is known of the writes of all other ids.
    pub const fn vector(&self) -> &Vector {
        &self.vector
    }

    /// The latest publication of each id that may still write.
    pub fn publications(&self) -> impl Iterator<Item = &Publication> {
        self.publications.values()
    }

    /// Whether an exchange with a replica that belongs was completed. Until then no push is taken:
    /// one that outlived its sender could come to a newcomer of whom nobody knows yet.
    pub const fn has_met(&self) -> bool {
        self.has_met
    }

    /// Notes that this replica belongs: it is the first of all, or exchanged with one that does.
    pub const fn meet(&mut self) {
        self.has_met = true;
    }

    /// Whether all that matters of `version` is here already.
    pub fn covers(&self, version: Version, clock: &Clock) -> bool {
        if version.origin == self.own {
            version.reading <= clock.last()
        } else {
            self.vector.covers(version)
        }
    }

    /// How a record is received that would win over what is held of its key: over a record of the
    /// version `held`, or over nothing.
    pub fn arrival(
        &self,
        version: Version,
        is_live: bool,
        held: Option<Version>,
        via: Via,
        clock: &Clock,
    ) -> Arrival {
        let buries_held = !is_live && held == Some(version);
        let is_push = via == Via::Push;
        if is_push && !buries_held && self.ids.fence(version.origin).is_some() {
            return Arrival::Fenced;
        }
        if !self.covers(version, clock) {
            return Arrival::Taken;
        }
        match (is_live, held) {
            (true, _) => Arrival::Ghost,
            (false, None) => Arrival::Collected,
            (false, Some(_)) => Arrival::Taken,
        }
    }

    /// Notes a version that came here, whatever becomes of its record. Its origin is known from now
    /// on: a floor that leaves it out would let go of what it still lacks.
    pub fn heard(&mut self, version: Version) {
        self.ids.learn(version.origin);
        if version.origin != self.own {
            self.vector.see(version);
        }
    }

    /// Takes in the ids and fences of another replica.
    pub fn join_ids(&mut self, theirs: &IdSet) {
        self.ids.join(theirs);
        let ids = &self.ids;
        self.publications.retain(|id, _| ids.fence(*id).is_none());
    }

    /// Fences an id, on evidence that the caller has.
    pub fn fence(&mut self, id: OriginId, fence: Fence) {
        self.ids.take(id, Some(fence));
        self.publications.remove(&id);
    }

    /// Whether a replica that knows `theirs` has given this store up, so that it must start over:
    /// one of its ids was given up, or its current id is fenced.
    pub fn is_given_up_by<'a>(
        &self,
        theirs: &IdSet,
        earlier: impl IntoIterator<Item = &'a OriginId>,
    ) -> bool {
        let is_given_up = |id: OriginId| theirs.fence(id) == Some(Fence::GivenUp);
        theirs.fence(self.own).is_some() || earlier.into_iter().any(|id| is_given_up(*id))
    }

    /// Takes in what another replica published, if it is newer than what is known of its id.
    pub fn hear(&mut self, publication: Publication) {
        let id = publication.origin;
        self.ids.learn(id);
        let is_older = |held: &Publication| held.at >= publication.at;
        if self.ids.fence(id).is_none() && !self.publications.get(&id).is_some_and(is_older) {
            self.publications.insert(id, publication);
        }
    }

    /// Stamps the set with a tick of the clock if it changed. To be called after whatever may have
    /// changed it, and before a reading is given away.
    pub fn stamp_set(&mut self, clock: &mut Clock, now: WallTime) {
        if self.ids.digest() != self.since_digest {
            self.since_digest = self.ids.digest();
            self.since = clock.tick(now);
        }
    }

    /// What this replica has at the beginning of an exchange.
    pub fn snapshot(&mut self, clock: &mut Clock, now: WallTime) -> Snapshot {
        self.stamp_set(clock, now);
        Snapshot {
            origin: self.own,
            reading: clock.tick(now),
            vector: self.vector.clone(),
        }
    }

    /// After an exchange in which everything arrived, nothing was refused and nothing came in
    /// between from elsewhere: what the partner had at its beginning is here. Its clock was observed.
    pub fn advance(&mut self, partner: &Snapshot) {
        self.vector.join(&partner.vector);
        self.vector.cover(partner.origin, partner.reading);
    }

    /// Whether all replicas know the same of each other, and all that was held before they did is
    /// here; if not, who holds it back. `has_strangers` is whether discovery lists a replica whose id
    /// is not known.
    pub fn settled(&self, has_strangers: bool) -> Result<(), Unsettled> {
        if has_strangers {
            return Err(Unsettled::Stranger);
        }
        for id in self.ids.unfenced().filter(|id| *id != self.own) {
            let publication = self.publications.get(&id).ok_or(Unsettled::Silent(id))?;
            if publication.set_digest != self.ids.digest() {
                return Err(Unsettled::Set(id));
            }
            if self.vector.of(id).covered < publication.since {
                return Err(Unsettled::Since(id));
            }
        }
        Ok(())
    }

    /// The floor: every write of every id up to there is here. 0 if it is not settled.
    ///
    /// Settling is also when fences come to mean something: all that is left of an id that ended has
    /// come by then, so it is covered as far as it was seen; and an id that was given up, whole.
    pub fn floor(&mut self, has_strangers: bool, clock: &mut Clock, now: WallTime) -> Reading {
        self.stamp_set(clock, now);
        if self.settled(has_strangers).is_err() {
            return Reading::default();
        }
        for (id, fence) in self.ids.fenced() {
            match fence {
                Fence::Ended => self.vector.cover_seen(id),
                Fence::GivenUp => self.vector.cover_whole(id),
            }
        }
        let own = clock.tick(now);
        let others = self.ids.unfenced().filter(|id| *id != self.own);
        let covered = others.map(|id| self.vector.of(id).covered);
        covered.min().map_or(own, |least| least.min(own))
    }

    /// What this replica tells all others now.
    pub fn publish(
        &mut self,
        store: StoreId,
        has_strangers: bool,
        clock: &mut Clock,
        now: WallTime,
    ) -> Publication {
        let floor = self.floor(has_strangers, clock, now);
        let publication = Publication {
            store,
            origin: self.own,
            at: clock.tick(now),
            floor,
            set_digest: self.ids.digest(),
            since: self.since,
        };
        self.publications.insert(self.own, publication.clone());
        publication
    }

    /// Up to which reading tombstones may leave now, those that [`Floors::covers`] covers: below the
    /// own floor, and below what everybody published.
    pub fn collectable(
        &mut self,
        has_strangers: bool,
        clock: &mut Clock,
        now: WallTime,
    ) -> Reading {
        let own = self.floor(has_strangers, clock, now);
        let others = self.ids.unfenced().filter(|id| *id != self.own);
        let published = others.map(|id| match self.publications.get(&id) {
            Some(publication) if publication.set_digest == self.ids.digest() => publication.floor,
            _ => Reading::default(),
        });
        published.min().map_or(own, |least| least.min(own))
    }
}

#[cfg(test)]
mod tests;
