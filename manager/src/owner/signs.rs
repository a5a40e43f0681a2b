//! What there is to be seen of the owner that somebody may have to be told.

use std::sync::atomic::Ordering;

use peer_table::WallTime;
use peer_table::floors::{Floors, HeldBack};

use super::{Owner, wall_now};
use crate::alarms::{Holder, Signs};

impl Holder {
    fn of(floors: &Floors, held_back: HeldBack) -> Self {
        let publication = held_back.by().and_then(|id| floors.publication(id));
        let named = publication.map(|it| {
            let peer_id = it.peer_id.as_ref().map(ToString::to_string);
            let peer_id = peer_id.unwrap_or_else(|| "an unnamed pod".to_owned());
            format!("{peer_id} (store {})", it.store)
        });
        let who = named.or_else(|| held_back.by().map(|id| format!("the replica {id}")));
        Self {
            reason: held_back.word(),
            store: publication.map(|it| it.store),
            who: who.unwrap_or_else(|| "a pod that was never met".to_owned()),
        }
    }
}

impl Owner {
    /// Notes that somebody has to wait, or is turned away.
    pub fn note_crowd(&self) {
        let now = wall_now().as_millis();
        self.shared.crowded_ms.store(now, Ordering::Relaxed);
    }

    /// What is to be seen now. The store is not asked, and no record is looked at.
    pub fn signs(&self) -> Signs {
        let shared = &self.shared;
        let tending = shared.tending();
        let crowded_ms = shared.crowded_ms.load(Ordering::Relaxed);
        let current = shared.current();
        let (table, floors) = (&current.table, current.table.floors());
        let holders = table.holders(tending.has_strangers).into_iter();
        Signs {
            store_fails: None,
            commit_failed: shared.metrics.commit_failed(),
            crowded: (crowded_ms > 0).then(|| WallTime::from_millis(crowded_ms)),
            rows: table.live() + table.tombstones(),
            rows_max: shared.limits.records_max,
            clock_off: shared.clock_off(),
            is_mutual: shared.is_mutual.load(Ordering::Relaxed),
            is_mass_silence: tending.is_mass_silence,
            is_braked: tending.is_braked,
            tombstones: table.tombstones(),
            first_tombstone: table.first_tombstone(),
            holders: holders.map(|it| Holder::of(floors, it)).collect(),
            publish_pause: shared.ages.publish_pause,
        }
    }
}
