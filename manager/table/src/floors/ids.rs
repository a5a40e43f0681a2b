//! Which ids there are: every opening of every store that was ever heard of, and which of them
//! write no more.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::ids::OriginId;
use crate::mutants;

/// Why an id will write no more. Of two reasons for one id the greater holds.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fence {
    /// Its store was opened anew, or is gone with its pod: all that it wrote and that somebody has
    /// may still come.
    Ended,
    /// It was silent for too long. Its store must start over before it may speak again, so nothing
    /// of it will come that is not known.
    GivenUp,
}

impl Fence {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Ended, Self::GivenUp];

    /// The number that is stored and sent; 0 is no fence.
    pub const fn code(self) -> u32 {
        match self {
            Self::Ended => 1,
            Self::GivenUp => 2,
        }
    }

    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::GivenUp => "given_up",
        }
    }

    /// The fence of this number; that of a newer release counts as the weakest.
    pub fn from_code(code: u32) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|fence| fence.code() == code);
        known.or_else(|| (code != 0).then_some(Self::Ended))
    }
}

/// Known ids at the most. A replica that restarts once an hour makes 720 a month.
pub const IDS_MAX: usize = 65_536;

/// Known ids and their fences. It only grows, and merges by union, so replicas that tell each other
/// theirs end with the same.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdSet {
    fences: BTreeMap<OriginId, Option<Fence>>,
    /// Those of which the digest says nothing any more.
    old: BTreeSet<OriginId>,
    digest: u64,
}

impl IdSet {
    /// Whether `id` was heard of.
    pub fn knows(&self, id: OriginId) -> bool {
        self.fences.contains_key(&id)
    }

    /// Why `id` writes no more, if that is known.
    pub fn fence(&self, id: OriginId) -> Option<Fence> {
        self.fences.get(&id).copied().flatten()
    }

    /// Takes in `id`; whether it is new.
    pub fn learn(&mut self, id: OriginId) -> bool {
        self.take(id, None)
    }

    /// Takes in `id` and a fence of it; whether that changed anything.
    pub fn take(&mut self, id: OriginId, fence: Option<Fence>) -> bool {
        let held = self.fences.get(&id).copied();
        if held.is_some_and(|held| fence <= held) {
            return false;
        }
        // An XOR of hashes can be kept up to date.
        if !self.old.contains(&id) {
            if let Some(held) = held {
                self.digest ^= hash(id, held);
            }
            self.digest ^= hash(id, fence);
        }
        self.fences.insert(id, fence);
        true
    }

    /// Leaves an id that was fenced long ago out of the digest: replicas that have forgotten it and
    /// those that have not yet know the same.
    pub fn let_rest(&mut self, id: OriginId) {
        if let Some(Some(fence)) = self.fences.get(&id)
            && self.old.insert(id)
        {
            self.digest ^= hash(id, Some(*fence));
        }
    }

    /// Whether `id` was left out of the digest.
    pub fn rests(&self, id: OriginId) -> bool {
        self.old.contains(&id)
    }

    /// Forgets an id that was fenced so long ago that nobody asks for it any more.
    pub fn forget(&mut self, id: OriginId) {
        if let Some(fence) = self.fences.remove(&id)
            && !self.old.remove(&id)
        {
            self.digest ^= hash(id, fence);
        }
    }

    /// Whether there is room for another one.
    pub fn is_full(&self) -> bool {
        self.fences.len() >= IDS_MAX
    }

    /// Equal for equal sets, and but for one in 2^64 only for these; 0 for the empty one.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// All ids, with their fences, in the order of the ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (OriginId, Option<Fence>)> {
        self.fences.iter().map(|(id, fence)| (*id, *fence))
    }

    /// The ids that may still write.
    pub fn unfenced(&self) -> impl Iterator<Item = OriginId> {
        self.iter()
            .filter_map(|(id, fence)| fence.is_none().then_some(id))
    }

    /// The ids that write no more.
    pub fn fenced(&self) -> impl Iterator<Item = (OriginId, Fence)> {
        self.iter()
            .filter_map(|(id, fence)| fence.map(|fence| (id, fence)))
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) under a fixed key. Part of the wire's contract.
fn hash(id: OriginId, fence: Option<Fence>) -> u64 {
    if fence.is_some() && mutants::is("digest-unfenced-only") {
        return 0;
    }
    let mut hasher = SipHasher24::new_with_key(b"udht set of ids.");
    hasher.write(id.as_bytes());
    hasher.write(&fence.map_or(0, Fence::code).to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = IdSet> {
        prop::collection::vec((0_u8..6, 0_u32..3), 0..8).prop_map(|taken| {
            let mut set = IdSet::default();
            for (id, code) in taken {
                set.take(OriginId::from_bytes([id; 16]), Fence::from_code(code));
            }
            set
        })
    }

    /// Takes in all that another replica knows; whether that changed anything.
    fn join(set: &mut IdSet, other: &IdSet) -> bool {
        let taken = other.fences.iter().map(|(id, fence)| set.take(*id, *fence));
        taken.fold(false, |changed, taken| changed | taken)
    }

    fn joined(a: &IdSet, b: &IdSet) -> IdSet {
        let mut both = a.clone();
        join(&mut both, b);
        both
    }

    proptest! {
        #[test]
        fn sets_join_in_any_order_to_the_same(a in sets(), b in sets(), c in sets()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn a_digest_tells_just_whether_sets_are_equal(a in sets(), b in sets()) {
            prop_assert_eq!(a.digest() == b.digest(), a == b);
        }

        #[test]
        fn whether_a_join_changed_anything_is_said_rightly(a in sets(), b in sets()) {
            let mut joined = a.clone();
            let changed = join(&mut joined, &b);
            prop_assert_eq!(changed, joined != a);
        }
    }

    #[test]
    fn an_id_that_rests_is_known_and_counts_no_more() {
        let (resting, other) = (OriginId::from_bytes([1; 16]), OriginId::from_bytes([2; 16]));
        let mut set = IdSet::default();
        set.learn(other);
        let digest = set.digest();
        set.learn(resting);
        set.let_rest(resting);
        assert_ne!(set.digest(), digest, "who may still write counts");
        set.take(resting, Some(Fence::Ended));
        set.let_rest(resting);
        set.let_rest(resting);
        assert_eq!(
            (set.digest(), set.fence(resting)),
            (digest, Some(Fence::Ended))
        );
        set.take(resting, Some(Fence::GivenUp));
        assert_eq!(
            (set.digest(), set.fence(resting)),
            (digest, Some(Fence::GivenUp))
        );
        set.forget(resting);
        assert_eq!((set.digest(), set.knows(resting)), (digest, false));
    }

    #[test]
    fn a_fence_never_weakens() {
        let id = OriginId::from_bytes([1; 16]);
        let mut set = IdSet::default();
        assert!(set.take(id, Some(Fence::GivenUp)));
        assert!(!set.take(id, Some(Fence::Ended)));
        assert!(!set.learn(id));
        assert_eq!(set.fence(id), Some(Fence::GivenUp));
    }

    #[test]
    fn a_fence_of_a_newer_release_is_one() {
        assert_eq!(Fence::from_code(0), None);
        assert_eq!(Fence::from_code(9), Some(Fence::Ended));
    }
}
