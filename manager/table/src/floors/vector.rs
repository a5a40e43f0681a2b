//! What this replica has of the writes of each id.

use std::collections::BTreeMap;

use crate::clock::{Reading, Version};
use crate::ids::OriginId;

/// How much is known of the writes of one id.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// All that the id wrote or held up to this reading is held here, or was seen to have lost.
    pub covered: Reading,
    /// The highest reading in a version of this id that came here in any way.
    pub seen: Reading,
}

/// [`Known`] of each id but the current one of this store, whose entry is the clock itself.
///
/// A version vector with exceptions left out: what a push brings above `covered` only moves `seen`,
/// since nothing is known of what lies between.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vector(BTreeMap<OriginId, Known>);

impl Vector {
    /// Above every reading: of an id that was given up all is covered.
    const WHOLE: Reading = Reading::from_u64(u64::MAX);

    /// What is known of `id`; nothing of one that is unknown.
    pub fn of(&self, id: OriginId) -> Known {
        self.0.get(&id).copied().unwrap_or_default()
    }

    /// Whether a version of another id is covered.
    pub fn covers(&self, version: Version) -> bool {
        version.reading <= self.of(version.origin).covered
    }

    /// Notes that a version of this id came here.
    pub fn see(&mut self, version: Version) {
        let known = self.0.entry(version.origin).or_default();
        known.seen = known.seen.max(version.reading);
    }

    /// Raises what is covered of `id` to `reading`.
    pub fn cover(&mut self, id: OriginId, reading: Reading) {
        let known = self.0.entry(id).or_default();
        known.covered = known.covered.max(reading);
    }

    /// Covers `id` as far as anything of it came here: there will be no more of it.
    pub fn cover_seen(&mut self, id: OriginId) {
        let known = self.0.entry(id).or_default();
        known.covered = known.covered.max(known.seen);
    }

    /// Covers all of `id`.
    pub fn cover_whole(&mut self, id: OriginId) {
        self.cover(id, Self::WHOLE);
    }

    /// Covers nothing any more. What was seen was seen.
    pub fn uncover(&mut self) {
        for known in self.0.values_mut() {
            known.covered = Reading::default();
        }
    }

    /// Covers nothing above `reading` any more, and has seen nothing there, but of those that are
    /// covered whole.
    pub fn cut(&mut self, reading: Reading) {
        let partial = self.0.values_mut();
        for known in partial.filter(|known| known.covered < Self::WHOLE) {
            known.covered = known.covered.min(reading);
            known.seen = known.seen.min(reading);
        }
    }

    /// Forgets an id.
    pub fn forget(&mut self, id: OriginId) {
        self.0.remove(&id);
    }

    /// The pointwise maximum with another replica's.
    pub fn join(&mut self, other: &Self) {
        for (id, theirs) in &other.0 {
            let known = self.0.entry(*id).or_default();
            known.covered = known.covered.max(theirs.covered);
            known.seen = known.seen.max(theirs.seen);
        }
    }

    /// All entries, in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (OriginId, Known)> {
        self.0.iter().map(|(id, known)| (*id, *known))
    }
}

impl FromIterator<(OriginId, Known)> for Vector {
    fn from_iter<I: IntoIterator<Item = (OriginId, Known)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: OriginId = OriginId::from_bytes([1; 16]);

    fn version(reading: u64) -> Version {
        Version {
            reading: Reading::from_u64(reading),
            origin: ID,
        }
    }

    fn vectors() -> impl Strategy<Value = Vector> {
        let known = (0_u64..4, 0_u64..4).prop_map(|(covered, seen)| Known {
            covered: Reading::from_u64(covered),
            seen: Reading::from_u64(seen),
        });
        let entry = (
            (0_u8..4).prop_map(|id| OriginId::from_bytes([id; 16])),
            known,
        );
        prop::collection::vec(entry, 0..5).prop_map(Vector::from_iter)
    }

    fn joined(a: &Vector, b: &Vector) -> Vector {
        let mut both = a.clone();
        both.join(b);
        both
    }

    proptest! {
        #[test]
        fn vectors_join_in_any_order_to_the_same(
            a in vectors(), b in vectors(), c in vectors(),
        ) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }
    }

    #[test]
    fn what_is_cut_covers_and_has_seen_nothing_above_but_of_an_id_that_was_given_up() {
        let mut vector = Vector::default();
        vector.see(version(9));
        vector.cover(ID, Reading::from_u64(7));
        vector.cut(Reading::from_u64(5));
        assert!(vector.covers(version(5)) && !vector.covers(version(6)));
        vector.cover_seen(ID);
        assert!(
            !vector.covers(version(6)),
            "what was seen above is forgotten"
        );
        vector.cover_whole(ID);
        vector.cut(Reading::from_u64(5));
        assert!(vector.covers(version(u64::MAX)));
    }

    #[test]
    fn an_id_that_nobody_heard_of_is_not_covered() {
        assert!(!Vector::default().covers(version(1)));
    }

    #[test]
    fn what_came_by_itself_is_seen_and_not_covered() {
        let mut vector = Vector::default();
        vector.see(version(5));
        assert!(!vector.covers(version(5)) && !vector.covers(version(3)));
        vector.cover_seen(ID);
        assert!(vector.covers(version(5)) && !vector.covers(version(6)));
        vector.cover_whole(ID);
        assert!(vector.covers(version(u64::MAX)));
    }
}
