//! The openings of a store: who stamps versions, and above which reading.

use std::time::Duration;

use crate::authority::Binding;
use crate::clock::{Clock, Reading};
use crate::ids::{ClusterId, OriginId, StoreId};
use crate::key::Key;

/// How many ids of earlier openings a store keeps; of more, the oldest are forgotten.
///
/// Kubernetes starts a container that keeps failing every five minutes at the most, so these are
/// two weeks of nothing but restarts: twice as long as an id that says nothing is waited for.
pub const RETIRED_MAX: usize = 4_096;

/// What an opening of a store found and made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The store's id: made when it was first opened.
    pub store: StoreId,
    /// The id of this opening, drawn anew and stored before the answer.
    pub origin: OriginId,
    /// The ids of earlier openings, oldest first, at most [`RETIRED_MAX`]; the last of them is
    /// retired by this one.
    pub retired: Vec<OriginId>,
    /// The highest reading that was stored with an own write.
    pub last_reading: Reading,
    /// The `peer_id` of this pod's own record: made when the store was first opened.
    pub peer_id: Key,
    /// The cluster that its records are of, without its authority, if that was ever said.
    pub cluster: Option<ClusterId>,
    /// The authority that the store is bound to, if it is to any.
    pub binding: Option<Binding>,
    /// What the store keeps of floors, as it was last written; empty if it never was.
    pub floors: Vec<u8>,
}

impl Opening {
    /// The first opening of a store.
    pub fn first(draw: Draw) -> Self {
        Self {
            store: draw.store,
            origin: draw.origin,
            retired: Vec::new(),
            last_reading: Reading::default(),
            peer_id: draw.peer_id,
            cluster: draw.cluster,
            binding: draw.binding,
            floors: Vec::new(),
        }
    }

    /// Retires the ids of `known` too, an opening by the same process which ends with this one.
    pub fn remember(&mut self, known: &Self) {
        let mut retired = known.retired.clone();
        retired.push(known.origin);
        retired.retain(|id| *id != self.origin && !self.retired.contains(id));
        retired.append(&mut self.retired);
        let forgotten = retired.len().saturating_sub(RETIRED_MAX);
        retired.drain(..forgotten);
        self.retired = retired;
    }

    /// The same, of the cluster and bound as `draw` says where it is of none and not bound yet; refused
    /// where it is of another cluster.
    pub fn taken_by(mut self, draw: &Draw) -> Result<Self, OtherCluster> {
        let held = self.cluster.or_else(|| draw.cluster.clone());
        if let (Some(held), Some(ours)) = (&held, &draw.cluster)
            && held != ours
        {
            let (held, ours) = (held.clone(), ours.clone());
            return Err(OtherCluster { held, ours });
        }
        self.cluster = held;
        self.binding = self.binding.or_else(|| draw.binding.clone());
        Ok(self)
    }

    /// The opening after this one, under `origin`; `None` if that id was used before: its versions
    /// would repeat.
    #[must_use]
    pub fn next(mut self, origin: OriginId) -> Option<Self> {
        self.retired.push(self.origin);
        if self.retired.contains(&origin) {
            return None;
        }
        let forgotten = self.retired.len().saturating_sub(RETIRED_MAX);
        self.retired.drain(..forgotten);
        Some(Self { origin, ..self })
    }

    /// The same, with a clock that goes on from `last`, which may be lower: what it was at was a
    /// wrong clock's.
    #[must_use]
    pub fn renewed(self, origin: OriginId, last: Reading) -> Option<Self> {
        let next = self.next(origin)?;
        Some(Self {
            last_reading: last,
            ..next
        })
    }

    /// The first opening of the store that this one's begins anew as, which keeps `floors`; `None` if
    /// the store's id or the opening's was used before. The pod and the authority stay the same, and
    /// the clock goes on.
    #[must_use]
    pub fn started_over(self, draw: Draw, floors: Vec<u8>) -> Option<Self> {
        let is_used = draw.store == self.store
            || draw.origin == self.origin
            || self.retired.contains(&draw.origin);
        if is_used {
            return None;
        }
        Some(Self {
            store: draw.store,
            origin: draw.origin,
            retired: Vec::new(),
            binding: self.binding.or(draw.binding),
            floors,
            ..self
        })
    }

    /// The clock of this opening: above `highest`, the highest reading in the tables of the store,
    /// and above every own write, be it of a record that is no longer there.
    pub fn clock(&self, highest: Reading, drift_max: Duration) -> Clock {
        Clock::new(self.origin, highest.max(self.last_reading), drift_max)
    }
}

/// The records of a store are of another cluster than the one that it is opened for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "it holds the records of the cluster {held}, and this manager is of {ours}: use --cluster {held}, or another \
     store; udht-manager export there and import here take records along"
)]
pub struct OtherCluster {
    /// Whose records they are.
    pub held: ClusterId,
    /// For whom it is opened.
    pub ours: ClusterId,
}

/// What an opening is made of: randomness, drawn by the caller, and for whom it is.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The store's id, if it has none yet or begins anew.
    pub store: StoreId,
    /// The new opening's id.
    pub origin: OriginId,
    /// The pod's own `peer_id`, if the store has none yet.
    pub peer_id: Key,
    /// The cluster that it is opened for, without its authority; none where any will do.
    pub cluster: Option<ClusterId>,
    /// The authority to be bound to, if the store is not bound yet.
    pub binding: Option<Binding>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::fingerprint::FingerprintKey;
    use crate::ids::AuthorityId;

    fn id(number: u128) -> OriginId {
        OriginId::from_bytes(number.to_be_bytes())
    }

    fn first() -> Opening {
        Opening::first(Draw {
            store: StoreId::from_bytes([1; 16]),
            origin: id(0),
            peer_id: "pod".parse().expect("a key"),
            cluster: None,
            binding: None,
        })
    }

    #[test]
    fn the_oldest_ids_are_forgotten_and_the_last_retired_one_never() {
        let last = RETIRED_MAX as u128 + 9;
        let opening = (1..=last).fold(first(), |opening, number| {
            opening.next(id(number)).expect("a new id")
        });
        assert_eq!(opening.origin, id(last));
        assert_eq!(opening.retired.len(), RETIRED_MAX);
        assert_eq!(opening.retired.first(), Some(&id(9)));
        assert_eq!(opening.retired.last(), Some(&id(last - 1)));
    }

    #[test]
    fn an_id_that_was_used_before_is_refused() {
        let second = first().next(id(1)).expect("a new id");
        assert_eq!(second.clone().next(id(0)), None);
        assert_eq!(second.next(id(1)), None);
    }

    #[test]
    fn a_renewed_opening_has_an_id_of_its_own_and_a_clock_that_may_go_back() {
        let fast = Opening {
            last_reading: Reading::from_u64(90),
            ..first()
        };
        let renewed = fast.clone().renewed(id(1), Reading::from_u64(7));
        let wanted = Opening {
            last_reading: Reading::from_u64(7),
            ..fast.clone().next(id(1)).expect("a new id")
        };
        assert_eq!(renewed, Some(wanted));
        assert_eq!(fast.renewed(id(0), Reading::from_u64(7)), None);
    }

    #[test]
    fn what_is_kept_of_floors_goes_from_one_opening_to_the_next() {
        let floors = b"floors".to_vec();
        let opening = Opening {
            floors: floors.clone(),
            ..first()
        };
        assert_eq!(opening.next(id(1)).expect("a new id").floors, floors);
        assert!(first().floors.is_empty());
    }

    #[test]
    fn a_store_that_starts_over_keeps_the_pod_the_authority_and_the_clock_alone() {
        let binding = |number| Binding {
            authority: AuthorityId::from_bytes([number; 16]),
            fingerprint_key: FingerprintKey::from_bytes([number; 16]),
        };
        let draw = |store, origin, bound: Option<u8>| Draw {
            store: StoreId::from_bytes([store; 16]),
            origin: id(origin),
            peer_id: "other".parse().expect("a key"),
            cluster: None,
            binding: bound.map(binding),
        };
        let earlier = Opening {
            last_reading: Reading::from_u64(7),
            binding: Some(binding(1)),
            floors: b"floors".to_vec(),
            ..first().next(id(1)).expect("a new id")
        };
        let over = earlier
            .clone()
            .started_over(draw(2, 2, Some(2)), b"others".to_vec());
        let wanted = Opening {
            store: StoreId::from_bytes([2; 16]),
            origin: id(2),
            retired: Vec::new(),
            last_reading: Reading::from_u64(7),
            peer_id: earlier.peer_id.clone(),
            cluster: None,
            binding: Some(binding(1)),
            floors: b"others".to_vec(),
        };
        assert_eq!(over.as_ref(), Some(&wanted));
        for used in [draw(1, 2, None), draw(2, 0, None), draw(2, 1, None)] {
            assert_eq!(earlier.clone().started_over(used, Vec::new()), None);
        }
        let bound = first().started_over(draw(2, 2, Some(2)), Vec::new());
        let bound = bound.and_then(|opening| opening.binding);
        assert_eq!(bound, Some(binding(2)), "as any opening of one unbound");
    }

    #[test]
    fn the_clock_of_an_opening_is_above_what_is_held_and_what_was_stamped() {
        let last_reading = Reading::from_u64(7 << 16);
        let opening = Opening {
            last_reading,
            ..first()
        };
        let stamp = |highest: u64| {
            let mut clock = opening.clock(Reading::from_u64(highest), Duration::from_secs(10));
            let stamped = clock.stamp(WallTime::default());
            stamped.expect("within the drift").reading
        };
        assert_eq!(stamp(0), Reading::from_u64((7 << 16) + 1));
        assert_eq!(stamp(9 << 16), Reading::from_u64((9 << 16) + 1));
    }
}
