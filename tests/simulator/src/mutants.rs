//! What mistakes the simulator is to find, and within how many histories: its own test.
//!
//! The names of the first kind are those of the mutations of the model in which the rule of floors
//! was checked, each with a family of histories that is drawn towards what its clause is there for. What
//! the model found none of is not tried here: that a store which was given up does not start over, that
//! discovery is ignored, and that vectors are swapped in each exchange, which is allowed and only dearer.

pub use peer_table::mutants::*;

use crate::history::Family;

/// A mistake on purpose.
#[derive(Copy, Clone, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// The histories that bring it to light.
    pub family: Family,
    /// Within how many of them it is to be found.
    pub within: u64,
}

const fn mutant(name: &'static str, family: Family, within: u64) -> Mutant {
    Mutant {
        name,
        family,
        within,
    }
}

/// The histories by which nothing is found where no mistake is made.
pub const SOUND: &[Mutant] = &[
    mutant("", Family::ANY, 200),
    mutant("", Family::FLOORS, 1_000),
    mutant("", Family::UPGRADES, 200),
    mutant("", Family::CUT, 20),
    mutant("", Family::RESTORE, 20),
    mutant("", Family::DAMAGED, 50),
    mutant("", Family::LATE_PUSH, 50),
    mutant("", Family::ONE_PUSH, 50),
    mutant("", Family::CUT_INTRODUCTION, 50),
    mutant("", Family::FORGOTTEN_JOINER, 50),
    mutant("", Family::GIVEN_UP, 50),
    mutant("", Family::FENCE_OF_ONE, 50),
    mutant("", Family::RESTORED_AND_PUSHED, 200),
    mutant("", Family::CLOCK_AHEAD, 50),
    mutant("", Family::CLOCK_BEHIND, 50),
    mutant("", Family::REFUSAL, 50),
    mutant("", Family::LAST_FLOOR, 50),
    mutant("", Family::LET_GO, 50),
    mutant("", Family::LET_GO_AND_PUSHED, 50),
    mutant("", Family::CRASH, 50),
];

/// All that are to be found: those of the rule of floors, then those of sketch, protocol, clock and the
/// order of a store.
pub const MUTANTS: &[Mutant] = &[
    mutant("no-set-digest", Family::FLOORS, 1_000),
    mutant("no-ghost-rule", Family::FLOORS, 300),
    mutant("unknown-origin-covered", Family::FLOORS, 200),
    mutant("ghost-not-answered", Family::FLOORS, 1_000),
    mutant("half-exchange-advances", Family::CUT, 20),
    mutant("push-advances-vector", Family::FLOORS, 50),
    mutant("fence-whole-at-once", Family::FLOORS, 50),
    mutant("fence-vector-only", Family::FLOORS, 50),
    mutant("seal-without-since", Family::FLOORS, 100),
    mutant("origin-kept-over-openings", Family::RESTORE, 20),
    mutant("lost-stays-covered", Family::DAMAGED, 50),
    mutant("collect-by-age", Family::FLOORS, 500),
    mutant("no-door", Family::LATE_PUSH, 50),
    mutant("push-before-meeting", Family::LATE_PUSH, 50),
    mutant("heard-origin-not-known", Family::ONE_PUSH, 50),
    mutant("set-not-first", Family::CUT_INTRODUCTION, 50),
    mutant("fence-seal-whole", Family::FORGOTTEN_JOINER, 50),
    mutant("fence-given-up-as-seen", Family::GIVEN_UP, 50),
    mutant("digest-unfenced-only", Family::FENCE_OF_ONE, 50),
    mutant("race-not-checked", Family::RESTORED_AND_PUSHED, 200),
    mutant("ghost-only-absent-key", Family::RESTORED_AND_PUSHED, 50),
    mutant("readings-not-observed", Family::CLOCK_AHEAD, 50),
    mutant("left-out-by-horizon", Family::CLOCK_BEHIND, 50),
    mutant("refused-record-advances", Family::REFUSAL, 50),
    mutant("own-floor-ignored", Family::LAST_FLOOR, 50),
    mutant("nothing-left-out", Family::LET_GO, 50),
    mutant("left-out-not-answered", Family::LET_GO_AND_PUSHED, 50),
    mutant("tombstones-leave-before-floors", Family::CRASH, 50),
    mutant("sketch-keeps-what-was-removed", Family::ANY, 20),
    mutant("decode-taken-when-incomplete", Family::ANY, 50),
    mutant("digest-of-numbers", Family::ANY, 20),
    mutant("page-off-by-one", Family::ANY, 200),
    mutant("contact-of-the-last-writer", Family::ANY, 50),
    mutant("cluster-not-checked", Family::ANY, 50),
    mutant("stamp-of-the-wall-clock", Family::ANY, 50),
    mutant("stamp-ahead-by-all-of-the-drift", Family::ANY, 50),
    mutant("drift-not-checked", Family::ANY, 50),
    mutant("versions-not-observed", Family::ANY, 50),
    mutant("clock-floor-forgotten", Family::ANY, 200),
    mutant("answer-before-commit", Family::ANY, 20),
    mutant("apply-before-commit", Family::ANY, 20),
    mutant("doubt-taken-for-no", Family::ANY, 1_000),
    mutant("changed-store-written", Family::ANY, 50),
    mutant("newest-version-only", Family::UPGRADES, 20),
];
