//! Looking after the floors from time to time: who is to be fenced, whether to publish, and which
//! tombstones may leave.

use std::time::Duration;

use super::{Fence, Floors, Me, Publication, Storage};
use crate::clock::{Clock, Reading, WallTime};
use crate::ids::OriginId;
use crate::key::Key;

/// Between two looks after the floors there is no more time than this while the replica runs: any
/// longer one it was away, and cannot say who was silent.
const AWAKE_GAP: Duration = Duration::from_mins(5);
/// A replica publishes at least so many times within the time that silence may last, though it has
/// nothing to say: one that is known through others only is not silent.
const SIGNS_OF_LIFE: u32 = 8;
/// See [`Ages::times_pause`]; less than [`AWAKE_GAP`].
const TIMES_PAUSE_MAX: Duration = Duration::from_mins(2);

/// How long what lasts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ages {
    /// Between two publications of one replica at the least.
    pub publish_pause: Duration,
    /// A replica that is silent for longer is given up.
    pub silence: Duration,
    /// A fence, with what is known of its id, is kept for so long at the least.
    pub fences: Duration,
}

impl Ages {
    /// For a time of silence, `--tombstone-max-age`, and a pause between publications. Fences stay
    /// well past the former.
    pub const fn new(silence: Duration, publish_pause: Duration) -> Self {
        Self {
            publish_pause,
            silence,
            fences: silence.saturating_mul(3),
        }
    }

    /// For how long floors of which nothing but times has changed need not be stored: a start that
    /// finds them so old takes nobody for silent.
    pub fn times_pause(self) -> Duration {
        (self.silence / SIGNS_OF_LIFE).min(TIMES_PAUSE_MAX)
    }
}

impl Default for Ages {
    /// A week, and a minute.
    fn default() -> Self {
        Self::new(Duration::from_hours(7 * 24), Duration::from_mins(1))
    }
}

/// What only those can know who talk to the other replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// Discovery lists a replica whose id was not heard yet.
    pub has_strangers: bool,
    /// What discovery says of who is gone cannot be relied on now: nobody is fenced, and no
    /// tombstone leaves.
    pub is_braked: bool,
    /// Nobody whom discovery lists belongs to a cluster yet, so this replica may begin one.
    pub may_begin: bool,
    /// The own id under which an exchange with a replica that belongs was completed.
    pub joined: Option<OriginId>,
    /// The ids under which replicas were talked to since the last time.
    pub met: Vec<OriginId>,
    /// The records of pods that are gone for good, as Kubernetes has said for long enough.
    pub gone: Vec<Key>,
}

/// What came of looking after the floors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tended {
    /// What all others are to be told. It may be told only once the floors are stored.
    pub publication: Option<Publication>,
    /// The ids that were fenced now.
    pub fenced: Vec<(OriginId, Fence)>,
    /// The ids that nobody asks for any more, forgotten now.
    pub forgotten: usize,
    /// Up to which reading tombstones may leave, those that are covered. They may leave only once
    /// the floors are stored.
    pub collectable: Reading,
    /// More than half of the others are silent for too long: nobody is given up, as it may be this
    /// replica that is cut off.
    pub is_braked: bool,
}

impl Floors {
    /// Looks after the floors. `waiting` says whether a tombstone waits with a reading above the
    /// first and up to the second; `holds` whether an id is not to be forgotten: the table has a record
    /// that it wrote, or it was this store's own.
    pub fn tend(
        &mut self,
        evidence: &Evidence,
        me: &Me,
        ages: Ages,
        (waiting, holds): (impl Fn(Reading, Reading) -> bool, impl Fn(OriginId) -> bool),
        clock: &mut Clock,
        now: WallTime,
    ) -> Tended {
        let mut tended = Tended::default();
        self.wake(now);
        for id in &evidence.met {
            self.met(*id, now);
        }
        if evidence.may_begin || evidence.joined == Some(self.own) {
            self.meet();
        }
        if !evidence.is_braked {
            self.fence_gone(&evidence.gone, now, &mut tended);
            self.give_up_silent(ages, now, &mut tended);
        }
        tended.forgotten = self.forget_old(ages, holds, now);

        let floor = self.floor(evidence.has_strangers, clock, now);
        let own = self.publications.get(&self.own);
        let is_due = own.is_none_or(|own| {
            let age = |age| own.at.wall().plus(age) <= now;
            let is_news = own.set_digest != self.ids.digest()
                || own.since != self.since
                // Others may hold tombstones that have left here before the set last changed.
                || own.floor == Reading::default() && floor > Reading::default()
                || waiting(own.floor, floor);
            is_news && age(ages.publish_pause) || age(ages.silence / SIGNS_OF_LIFE)
        });
        if is_due {
            let publication = self.publish(me, evidence.has_strangers, clock, now);
            tended.publication = Some(publication);
        }
        if !evidence.is_braked {
            tended.collectable = self.collectable(evidence.has_strangers, clock, now);
            self.horizon = self.horizon.max(tended.collectable);
        }
        tended
    }

    /// Lets the time in which this replica was away be nobody's silence.
    fn wake(&mut self, now: WallTime) {
        let away = now.as_millis().saturating_sub(self.tended.as_millis());
        let away = Duration::from_millis(away);
        if away > AWAKE_GAP {
            let ids = &self.ids;
            let unfenced = self.times.iter_mut();
            for (_, at) in unfenced.filter(|(id, _)| ids.fence(**id).is_none()) {
                *at = at.plus(away).min(now);
            }
        }
        self.tended = now;
    }

    /// Fences the stores that went with their pods.
    fn fence_gone(&mut self, gone: &[Key], now: WallTime, tended: &mut Tended) {
        let is_gone = |publication: &&Publication| {
            let peer_id = publication.peer_id.as_ref();
            publication.storage == Storage::Pod
                && publication.origin != self.own
                && peer_id.is_some_and(|peer_id| gone.contains(peer_id))
        };
        let gone = self.publications.values().filter(is_gone);
        let gone: Vec<_> = gone.map(|publication| publication.origin).collect();
        for id in gone {
            self.fence(id, Fence::Ended, now);
            tended.fenced.push((id, Fence::Ended));
        }
    }

    /// Gives up those who were silent for too long, unless it may be that this replica is cut off: more
    /// than half of the others are silent. Of these, who never said anything of itself is no sign of
    /// that, where anybody did: a pod that is killed at each start leaves many such ids at once.
    fn give_up_silent(&mut self, ages: Ages, now: WallTime, tended: &mut Tended) {
        let others: Vec<_> = self.ids.unfenced().filter(|id| *id != self.own).collect();
        let is_silent = |id: &OriginId| {
            let heard = self.times.get(id).copied().unwrap_or_default();
            heard.plus(ages.silence) < now
        };
        let silent: Vec<_> = others.iter().copied().filter(is_silent).collect();
        let mut signs = others;
        if signs.iter().any(|id| self.publications.contains_key(id)) {
            signs.retain(|id| self.publications.contains_key(id));
        }
        if signs.iter().filter(|id| is_silent(id)).count() * 2 > signs.len() {
            tended.is_braked = true;
            return;
        }
        for id in silent {
            self.fence(id, Fence::GivenUp, now);
            tended.fenced.push((id, Fence::GivenUp));
        }
    }

    /// Lets the ids rest that were fenced long ago, and forgets those of twice that age of which no
    /// record is held: until then whoever still waits for one is told of the fence. Answers how many
    /// were forgotten.
    fn forget_old(&mut self, ages: Ages, holds: impl Fn(OriginId) -> bool, now: WallTime) -> usize {
        let fenced: Vec<_> = self.ids.fenced().map(|(id, _)| id).collect();
        let since = |id: &OriginId| self.times.get(id).copied().unwrap_or_default();
        let is_old = |id: &OriginId, age| since(id).plus(age) < now;
        for id in fenced.iter().filter(|id| is_old(id, ages.fences)) {
            self.ids.let_rest(*id);
        }
        let age = ages.fences.saturating_mul(2);
        let old: Vec<_> = fenced
            .into_iter()
            .filter(|id| is_old(id, age) && !holds(*id))
            .collect();
        for id in &old {
            self.ids.forget(*id);
            self.vector.forget(*id);
            self.times.remove(id);
            self.former.remove(id);
        }
        old.len()
    }
}
