//! Those with whom this replica has given each other up: they exchange nothing until one of the two
//! starts over, and a person says which.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_table::floors::Floors;
use peer_table::{OriginId, WallTime};

/// Whoever was not heard of again for so long is gone, and nobody has to decide anything.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Of more than so many at once, the rest is not remembered.
const PARTIES_MAX: usize = 256;

/// Their ids, and when each was last heard of.
#[derive(Debug, Default)]
pub(super) struct Mutual(Mutex<BTreeMap<OriginId, WallTime>>);

impl Mutual {
    fn parties(&self) -> MutexGuard<'_, BTreeMap<OriginId, WallTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `teller` was heard of, and is one of them.
    pub(super) fn refused(&self, teller: OriginId, now: WallTime) {
        let mut parties = self.parties();
        if parties.len() < PARTIES_MAX || parties.contains_key(&teller) {
            parties.insert(teller, now);
        }
    }

    /// Notes that this replica has started over.
    pub(super) fn clear(&self) {
        self.parties().clear();
    }

    /// Those that were heard of lately, and whose pods have not come under another id since.
    pub(super) fn list(&self, floors: &Floors, now: WallTime) -> Vec<OriginId> {
        let is_back = |id: OriginId| {
            let pod = floors.whose(id).and_then(|whose| whose.peer_id);
            let mut others = floors.publications().filter(|it| it.origin != floors.own());
            pod.is_some() && others.any(|it| it.peer_id == pod)
        };
        let mut parties = self.parties();
        parties.retain(|id, at| at.plus(REMEMBERED) > now && !is_back(*id));
        parties.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use peer_table::floors::{Fence, Publication, Storage};
    use peer_table::{Reading, StoreId};

    use super::*;

    fn id(number: u8) -> OriginId {
        OriginId::from_bytes([number; 16])
    }

    fn at(seconds: u64) -> WallTime {
        WallTime::from_millis(seconds * 1_000)
    }

    /// What `origin` published, of which the pod is `pod`.
    fn publication(origin: u8, pod: &str) -> Publication {
        Publication {
            store: StoreId::from_bytes([origin; 16]),
            origin: id(origin),
            at: Reading::from_u64(1),
            floor: Reading::default(),
            set_digest: 0,
            since: Reading::default(),
            storage: Storage::Volume,
            peer_id: Some(pod.parse().unwrap()),
        }
    }

    #[test]
    fn one_of_them_is_told_of_until_its_pod_comes_under_another_id() {
        let mut floors = Floors::new(id(0));
        for (origin, pod) in [(1, "a"), (2, "b")] {
            floors.hear(publication(origin, pod), at(1));
            floors.fence(id(origin), Fence::GivenUp, at(2));
        }
        let mutual = Mutual::default();
        for origin in [1, 2] {
            mutual.refused(id(origin), at(3));
        }
        // That a third one comes says nothing of these.
        floors.hear(publication(3, "c"), at(3));
        assert_eq!(mutual.list(&floors, at(3)), [id(1), id(2)]);
        floors.hear(publication(4, "a"), at(4));
        assert_eq!(mutual.list(&floors, at(4)), [id(2)]);
        mutual.clear();
        assert!(mutual.list(&floors, at(4)).is_empty());
    }

    #[test]
    fn who_was_not_heard_of_for_long_is_none_and_there_is_a_bound() {
        let floors = Floors::new(id(0));
        let mutual = Mutual::default();
        mutual.refused(id(1), at(0));
        assert_eq!(mutual.list(&floors, at(599)), [id(1)]);
        assert!(mutual.list(&floors, at(600)).is_empty());
        for number in 0..=PARTIES_MAX as u64 {
            let origin = OriginId::from_bytes(u128::from(number).to_le_bytes());
            mutual.refused(origin, at(0));
        }
        assert_eq!(mutual.list(&floors, at(1)).len(), PARTIES_MAX);
    }
}
