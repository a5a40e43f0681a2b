//! What there is to be seen of the owner that somebody may have to be told.

use std::collections::BTreeMap;

use peer_table::OriginId;
use peer_table::floors::{Floors, HeldBack};

use super::{Owner, wall_now};
use crate::alarms::{Holder, Replica, Signs};

impl Replica {
    fn of(floors: &Floors, id: OriginId) -> Self {
        let whose = floors.whose(id);
        Self {
            id,
            store: whose.as_ref().map(|it| it.store),
            pod: whose.and_then(|it| it.peer_id),
        }
    }
}

impl Holder {
    fn of(floors: &Floors, held_back: HeldBack) -> Self {
        Self {
            reason: held_back.word(),
            replica: held_back.by().map(|id| Replica::of(floors, id)),
        }
    }
}

impl Owner {
    /// Notes that somebody has to wait, or is turned away.
    pub fn note_crowd(&self) {
        self.shared.metrics.note_crowd();
    }

    /// What is to be seen now. The store is not asked, and no record is looked at.
    pub fn signs(&self) -> Signs {
        let shared = &self.shared;
        let tending = shared.tending();
        let current = shared.current();
        let (table, floors) = (&current.table, current.table.floors());
        let mutual = shared.mutual.list(floors, wall_now()).into_iter();
        let holders = table.holders(tending.has_strangers).into_iter();
        Signs {
            store_fails: None,
            commit_failed: shared.metrics.commit_failed(),
            crowded: shared.metrics.crowded(),
            rows: table.live() + table.tombstones(),
            rows_max: shared.limits.records_max,
            clock_off: shared.clock_off(),
            mutual: mutual.map(|id| Replica::of(floors, id)).collect(),
            is_mass_silence: tending.is_mass_silence,
            is_braked: tending.is_braked,
            tombstones: table.tombstones(),
            first_tombstone: table.first_tombstone(),
            holders: holders.map(|it| Holder::of(floors, it)).collect(),
            publish_pause: shared.ages.publish_pause,
            names: BTreeMap::new(),
        }
    }
}
