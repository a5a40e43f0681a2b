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
mod join;
mod publication;
mod tend;
mod vector;
mod wire;

use std::collections::BTreeMap;

use prost::Message;

pub use self::ids::{Fence, IDS_MAX, IdSet};
pub use self::join::Joined;
pub use self::publication::{Me, Publication, Storage};
pub use self::tend::{Ages, Evidence, Tended};
pub use self::vector::{Known, Vector};
pub use self::wire::{FloorsState, Replicas, WireIds, WirePublication, WireSnapshot, WireVector};
use crate::clock::{Clock, Reading, Version, WallTime};
use crate::contract::InvalidMessage;
use crate::feed::Via;
use crate::ids::{OriginId, StoreId};
use crate::key::Key;
use crate::mutants;
use crate::opening::Opening;

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

/// What keeps a tombstone.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HeldBack {
    /// There is no floor yet.
    Unsettled(Unsettled),
    /// Not all that this id wrote or held by then is here.
    Covered(OriginId),
    /// This id has not published yet that all is there.
    Published(OriginId),
}

impl HeldBack {
    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unsettled(Unsettled::Stranger) => "stranger",
            Self::Unsettled(Unsettled::Silent(_)) => "silent",
            Self::Unsettled(Unsettled::Set(_)) => "set",
            Self::Unsettled(Unsettled::Since(_)) => "since",
            Self::Covered(_) => "covered",
            Self::Published(_) => "published",
        }
    }

    /// By whom, where that is known.
    pub const fn by(self) -> Option<OriginId> {
        match self {
            Self::Unsettled(Unsettled::Stranger) => None,
            Self::Unsettled(Unsettled::Silent(id) | Unsettled::Set(id) | Unsettled::Since(id))
            | Self::Covered(id)
            | Self::Published(id) => Some(id),
        }
    }
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

/// Whose an id is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whose {
    /// The store that was opened under it.
    pub store: StoreId,
    /// The `peer_id` of its pod's own record.
    pub peer_id: Option<Key>,
}

/// Ids that write no more of which it is remembered whose they were, at the most.
const FORMER_MAX: usize = 4_096;

/// What one replica knows of all others, and of what it has itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Floors {
    own: OriginId,
    ids: IdSet,
    vector: Vector,
    publications: BTreeMap<OriginId, Publication>,
    /// Whose ids were that write no more, for those who ask who wrote a record.
    former: BTreeMap<OriginId, Whose>,
    /// Of an id that may still write: when it was last heard of. Of one that may not: since when.
    /// Not a part of any decision about records, only of when to fence and when to forget.
    times: BTreeMap<OriginId, WallTime>,
    /// The clock when `ids` last changed.
    since: Reading,
    /// The digest of `ids` then.
    since_digest: u64,
    has_met: bool,
    /// Up to which reading tombstones may leave, as it was last worked out.
    horizon: Reading,
    /// When this replica last looked after its floors: time in which it did not run is nobody's
    /// silence.
    tended: WallTime,
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
            former: BTreeMap::new(),
            times: BTreeMap::new(),
            since: Reading::default(),
            has_met: false,
            horizon: Reading::default(),
            tended: WallTime::default(),
        }
    }

    /// Of an opening of a store that keeps `stored`, the bytes of a [`FloorsState`], or nothing yet.
    /// The ids of its earlier openings write no more.
    pub fn opened(stored: &[u8], opening: &Opening, now: WallTime) -> Result<Self, InvalidMessage> {
        let mut floors = if stored.is_empty() {
            Self::new(opening.origin)
        } else {
            let mut floors = FloorsState::decode(stored)?.read()?;
            if opening.retired.last() == Some(&floors.own) {
                floors.reopen(opening.origin, opening.last_reading, now);
            } else if floors.own != opening.origin {
                // The openings in between kept no floors, so that reading may be one of theirs, and
                // says nothing of what is held of the id of before.
                floors.vector.cut(opening.last_reading);
                floors.reopen(opening.origin, Reading::default(), now);
            }
            floors
        };
        for id in &opening.retired {
            floors.fence(*id, Fence::Ended, now);
        }
        Ok(floors)
    }

    /// Whether both say the same but for when somebody was last heard of, and when that was looked at.
    pub fn is_same_but_for_times(&self, other: &Self) -> bool {
        let Self {
            own,
            ids,
            vector,
            publications,
            former,
            times: _,
            since,
            since_digest,
            has_met,
            horizon,
            tended: _,
        } = self;
        *own == other.own
            && *since == other.since
            && *since_digest == other.since_digest
            && *has_met == other.has_met
            && *horizon == other.horizon
            && *ids == other.ids
            && *vector == other.vector
            && *publications == other.publications
            && *former == other.former
    }

    /// The bytes under which a store keeps them.
    pub fn to_stored(&self) -> Vec<u8> {
        FloorsState::from(self).encode_to_vec()
    }

    /// Of the next opening of the store, under the id `own`. The id of before is fenced, and covered
    /// up to `last`: the last reading that the store holds. So a store that was rolled back neither
    /// repeats a version nor takes its own later writes, which peers have, for ghosts.
    pub fn reopen(&mut self, own: OriginId, last: Reading, now: WallTime) {
        self.vector.cover(self.own, last);
        self.fence(self.own, Fence::Ended, now);
        self.own = own;
        self.ids.learn(own);
        self.vector.cover(own, Reading::default());
        self.horizon = Reading::default();
    }

    /// Of the next opening of the store, whose clock goes on from `last` although it was further, as a
    /// wrong clock had been believed. Nothing that was known of later readings holds any more: what has
    /// one may come, or come again, and is no ghost.
    pub fn renew(&mut self, own: OriginId, last: Reading, now: WallTime) {
        self.vector.cut(last);
        self.reopen(own, last, now);
        self.publications
            .retain(|_, it| it.at.max(it.floor).max(it.since) <= last);
        self.since = self.since.min(last);
        for at in self.times.values_mut() {
            *at = (*at).min(now);
        }
    }

    /// Of the store that this one begins anew as, under the id `own`. Nothing stays of what was known
    /// but that the ids of this opening and of the `earlier` ones write no more: what others never
    /// heard of their end, they would wait for.
    #[must_use]
    pub fn started_over(&self, own: OriginId, earlier: &[OriginId], now: WallTime) -> Self {
        let mut floors = Self::new(own);
        floors.fence(self.own, Fence::Ended, now);
        for id in earlier.iter().filter(|id| !self.ids.rests(**id)) {
            if let Some(fence) = self.ids.fence(*id) {
                floors.fence(*id, fence, self.time_of(*id).unwrap_or(now));
            }
        }
        floors
    }

    /// Gives up all that was thought to be covered, as the store lost records. What others have of them
    /// is then taken again, and not for ghosts: here, and by whoever hears from here what is covered. The
    /// next exchange with each of them covers what they cover. To be called before anything is stamped
    /// under the current id, which is covered all the same.
    pub fn forget_coverage(&mut self) {
        self.vector.uncover();
        self.horizon = Reading::default();
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

    /// The latest publication of this id.
    pub fn publication(&self, id: OriginId) -> Option<&Publication> {
        self.publications.get(&id)
    }

    /// Whose this id is or was; `None` if it never published here, or that is long ago.
    pub fn whose(&self, id: OriginId) -> Option<Whose> {
        let publication = self.publications.get(&id).map(Publication::whose);
        publication.or_else(|| self.former.get(&id).cloned())
    }

    /// The `peer_id` of the own record of the pod of this store.
    pub fn pod_of(&self, store: StoreId) -> Option<&Key> {
        let published = self.publications.values();
        let published = published.filter(|it| it.store == store);
        let former = self.former.values().filter(|it| it.store == store);
        let pods = published.map(|it| &it.peer_id);
        let mut pods = pods.chain(former.map(|it| &it.peer_id));
        pods.find_map(Option::as_ref)
    }

    /// Remembers whose an id was that writes no more; of too many, the one goes that ended first.
    fn remember(&mut self, publication: Publication) {
        let since = |id: &OriginId| self.times.get(id).copied().unwrap_or_default();
        if self.former.len() >= FORMER_MAX
            && let Some(first) = self.former.keys().min_by_key(|id| since(id)).copied()
        {
            self.former.remove(&first);
        }
        self.former.insert(publication.origin, publication.into());
    }

    /// Equal where two replicas know the same ids, fences and publications, and but for one in 2^64
    /// only there.
    pub fn digest(&self) -> u64 {
        let digests = self.publications.values().map(Publication::digest);
        let published = digests.fold(0, |sum, digest| sum ^ digest);
        self.ids.digest() ^ published.rotate_left(1)
    }

    /// When an id was last heard of; of one that is fenced, since when it is.
    pub fn time_of(&self, id: OriginId) -> Option<WallTime> {
        self.times.get(&id).copied()
    }

    /// Up to which reading tombstones may leave, as it was last worked out: those that are covered
    /// left then.
    pub const fn horizon(&self) -> Reading {
        self.horizon
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
                || mutants::is("unknown-origin-covered") && !self.ids.knows(version.origin)
        }
    }

    /// The same of the version of a record that is held: what was stamped under the own id is here.
    pub fn covers_held(&self, version: Version) -> bool {
        version.origin == self.own || self.vector.covers(version)
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
        let is_push = via == Via::Push && !mutants::is("no-door");
        if is_push && !buries_held && self.ids.fence(version.origin).is_some() {
            return Arrival::Fenced;
        }
        if !self.covers(version, clock) || mutants::is("no-ghost-rule") {
            return Arrival::Taken;
        }
        match (is_live, held) {
            // Of one version there is one content, but where a store was copied while it ran.
            (true, Some(held)) if held == version => Arrival::Taken,
            (true, Some(_)) if mutants::is("ghost-only-absent-key") => Arrival::Taken,
            (true, _) => Arrival::Ghost,
            (false, None) => Arrival::Collected,
            (false, Some(_)) => Arrival::Taken,
        }
    }

    /// Notes a version that came here, whatever becomes of its record. Its origin is known from now
    /// on: a floor that leaves it out would let go of what it still lacks.
    pub fn heard(&mut self, version: Version, now: WallTime) {
        if !mutants::is("heard-origin-not-known") {
            self.learn(version.origin, now);
        }
        if version.origin != self.own {
            self.vector.see(version);
            if mutants::is("push-advances-vector") {
                self.vector.cover_seen(version.origin);
            }
        }
    }

    /// Takes in an id. It counts as silent from now on.
    pub fn learn(&mut self, id: OriginId, now: WallTime) {
        if !self.ids.is_full() && self.ids.learn(id) {
            self.times.insert(id, now);
        }
    }

    /// Notes that a replica was talked to under this id.
    pub fn met(&mut self, id: OriginId, now: WallTime) {
        self.learn(id, now);
        if self.ids.fence(id).is_none() {
            let at = self.times.entry(id).or_default();
            *at = (*at).max(now);
        }
    }

    /// Takes in the ids and fences of another replica, each fence with the time since when it is.
    /// One that has stood for longer than fences are `kept` comes to rest at once.
    pub fn join_ids(
        &mut self,
        theirs: &[(OriginId, Option<Fence>, WallTime)],
        kept: Ages,
        now: WallTime,
    ) {
        for (id, fence, at) in theirs {
            let at = (*at).min(now);
            match fence {
                None => self.learn(*id, now),
                Some(fence) => {
                    self.fence(*id, *fence, at);
                    // The earlier of two times, so that all come to the same and let it rest together.
                    let since = self.times.entry(*id).or_insert(at);
                    *since = (*since).min(at);
                    if since.plus(kept.fences) < now {
                        self.ids.let_rest(*id);
                    }
                }
            }
        }
    }

    /// Fences an id, on evidence that the caller has, as of `at`.
    pub fn fence(&mut self, id: OriginId, fence: Fence, at: WallTime) {
        let has_room = !self.ids.is_full() || self.ids.knows(id);
        if has_room && self.ids.take(id, Some(fence)) {
            self.times.insert(id, at);
            if let Some(publication) = self.publications.remove(&id) {
                self.remember(publication);
            }
            if mutants::is("fence-whole-at-once") {
                self.vector.cover_whole(id);
            }
        }
    }

    /// Whether a replica that knows `theirs` has given this store up, so that it must start over:
    /// one of its ids was given up, or its current id is fenced.
    pub fn is_given_up_by(
        &self,
        theirs: &[(OriginId, Option<Fence>, WallTime)],
        earlier: &[OriginId],
    ) -> bool {
        theirs.iter().any(|(id, fence, _)| match fence {
            Some(_) if *id == self.own => true,
            Some(Fence::GivenUp) => earlier.contains(id),
            Some(Fence::Ended) | None => false,
        })
    }

    /// Takes in what another replica published, if it is newer than what is known of its id; says
    /// whether it was.
    pub fn hear(&mut self, publication: Publication, now: WallTime) -> bool {
        let id = publication.origin;
        if id == self.own {
            return false;
        }
        self.learn(id, now);
        let is_older = |held: &Publication| held.at >= publication.at;
        if self.ids.fence(id).is_some() || self.publications.get(&id).is_some_and(is_older) {
            return false;
        }
        if !self.ids.knows(id) {
            return false;
        }
        let at = self.times.entry(id).or_default();
        *at = (*at).max(publication.at.wall().min(now));
        self.publications.insert(id, publication);
        true
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
            if publication.set_digest != self.ids.digest() && !mutants::is("no-set-digest") {
                return Err(Unsettled::Set(id));
            }
            let covered = self.vector.of(id).covered;
            if covered < publication.since && !mutants::is("seal-without-since") {
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
                _ if mutants::is("fence-vector-only") => {}
                Fence::Ended if mutants::is("fence-seal-whole") => self.vector.cover_whole(id),
                Fence::GivenUp if mutants::is("fence-given-up-as-seen") => {
                    self.vector.cover_seen(id);
                }
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
        me: &Me,
        has_strangers: bool,
        clock: &mut Clock,
        now: WallTime,
    ) -> Publication {
        let floor = self.floor(has_strangers, clock, now);
        let publication = Publication {
            store: me.store,
            origin: self.own,
            at: clock.tick(now),
            floor,
            set_digest: self.ids.digest(),
            since: self.since,
            storage: me.storage,
            peer_id: Some(me.peer_id.clone()),
        };
        self.publications.insert(self.own, publication.clone());
        publication
    }

    /// What keeps a tombstone of this version, if anything does.
    pub fn held_back(&self, version: Version, has_strangers: bool) -> Option<HeldBack> {
        if let Err(unsettled) = self.settled(has_strangers) {
            return Some(HeldBack::Unsettled(unsettled));
        }
        let others = || self.ids.unfenced().filter(|id| *id != self.own);
        let lacking = others().find(|id| self.vector.of(*id).covered < version.reading);
        let published = |id: &OriginId| {
            let publication = self.publications.get(id);
            publication.is_some_and(|publication| publication.floor >= version.reading)
        };
        let waiting = || others().find(|id| !published(id));
        lacking
            .map(HeldBack::Covered)
            .or_else(|| waiting().map(HeldBack::Published))
    }

    /// Everybody who keeps a tombstone of this version, and how; [`Floors::held_back`] is the first
    /// thing that has to end.
    pub fn holders(&self, version: Version, has_strangers: bool) -> Vec<HeldBack> {
        let stranger = has_strangers.then_some(HeldBack::Unsettled(Unsettled::Stranger));
        let others = self.ids.unfenced().filter(|id| *id != self.own);
        let by = others.filter_map(|id| {
            let covered = self.vector.of(id).covered;
            match self.publications.get(&id) {
                None => Some(HeldBack::Unsettled(Unsettled::Silent(id))),
                Some(it) if it.set_digest != self.ids.digest() => {
                    Some(HeldBack::Unsettled(Unsettled::Set(id)))
                }
                Some(it) if covered < it.since => Some(HeldBack::Unsettled(Unsettled::Since(id))),
                Some(_) if covered < version.reading => Some(HeldBack::Covered(id)),
                Some(it) if it.floor < version.reading => Some(HeldBack::Published(id)),
                Some(_) => None,
            }
        });
        stranger.into_iter().chain(by).collect()
    }

    /// Up to which reading tombstones may leave now, those that [`Floors::covers`] covers: below the
    /// own floor, and below what everybody published, this replica too. Once one has left here there is
    /// no news of it to tell, and the others would wait for this replica's word until its next sign of
    /// life.
    pub fn collectable(
        &mut self,
        has_strangers: bool,
        clock: &mut Clock,
        now: WallTime,
    ) -> Reading {
        let told = self.publications.get(&self.own);
        let told = told.map_or(Reading::default(), |own| own.floor);
        let mut own = self.floor(has_strangers, clock, now).min(told);
        if mutants::is("own-floor-ignored") {
            own = clock.tick(now);
        }
        let others = self.ids.unfenced().filter(|id| *id != self.own);
        let published = others.map(|id| match self.publications.get(&id) {
            Some(publication)
                if publication.set_digest == self.ids.digest() || mutants::is("no-set-digest") =>
            {
                publication.floor
            }
            _ => Reading::default(),
        });
        published.min().map_or(own, |least| least.min(own))
    }
}

#[cfg(test)]
mod tests;
