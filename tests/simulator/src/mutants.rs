//! What mistakes the simulator is to find, and within how many histories: its own test.
//!
//! The names of the first kind are those of the mutations of the model in which the rule of floors
//! was checked. What the model found none of is not tried here: that a store which was given up does
//! not start over, that discovery is ignored, and that vectors are swapped in each exchange, which is
//! allowed and only dearer.

pub use peer_table::mutants::*;

use crate::history::History;

/// A mistake on purpose.
#[derive(Copy, Clone, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// The histories of a seed that bring it to light.
    pub draw: fn(u64) -> History,
    /// Within how many of them it is to be found.
    pub within: u64,
}

const fn any(name: &'static str, within: u64) -> Mutant {
    let draw = History::draw;
    Mutant { name, draw, within }
}

const fn floors(name: &'static str, within: u64) -> Mutant {
    let draw = History::draw_for_floors;
    Mutant { name, draw, within }
}

const fn cut(name: &'static str, within: u64) -> Mutant {
    let draw = History::draw_with_a_cut;
    Mutant { name, draw, within }
}

const fn restored(name: &'static str, within: u64) -> Mutant {
    let draw = History::draw_with_a_restore;
    Mutant { name, draw, within }
}

/// The histories by which nothing is found where no mistake is made.
pub const SOUND: &[Mutant] = &[
    any("", 200),
    floors("", 1_000),
    cut("", 20),
    restored("", 20),
];

/// All that are to be found: those of the rule of floors, then those of sketch, protocol, clock and the
/// order of a store.
pub const MUTANTS: &[Mutant] = &[
    floors("no-set-digest", 1_000),
    floors("no-ghost-rule", 300),
    floors("unknown-origin-covered", 200),
    floors("ghost-not-answered", 1_000),
    cut("half-exchange-advances", 20),
    floors("push-advances-vector", 50),
    floors("fence-whole-at-once", 50),
    floors("fence-vector-only", 50),
    floors("seal-without-since", 100),
    restored("origin-kept-over-openings", 20),
    floors("collect-by-age", 100),
    any("sketch-keeps-what-was-removed", 20),
    any("decode-taken-when-incomplete", 50),
    any("digest-of-numbers", 20),
    any("page-off-by-one", 200),
    any("contact-of-the-last-writer", 50),
    any("cluster-not-checked", 50),
    any("stamp-of-the-wall-clock", 50),
    any("stamp-ahead-by-all-of-the-drift", 50),
    any("drift-not-checked", 50),
    any("versions-not-observed", 50),
    any("clock-floor-forgotten", 200),
    any("answer-before-commit", 20),
    any("apply-before-commit", 20),
    any("doubt-taken-for-no", 100),
    any("changed-store-written", 50),
];

/// Mistakes that can be made and were not found, or too rarely to be waited for: by how many histories
/// in which floors matter, and why as far as is known.
///
/// The model found most of these once in thousands to millions of histories, whose messages were
/// delivered in any order; here an exchange brings the rest of it before faults end.
pub const NOT_FOUND: &[(&str, u64, &str)] = &[
    (
        "digest-unfenced-only",
        5_000,
        "a fence takes a publication away, which shows as well",
    ),
    (
        "ghost-only-absent-key",
        5_000,
        "two ghosts of one key have to come in the right order",
    ),
    (
        "heard-origin-not-known",
        5_000,
        "once: tombstones stay; exchanges tell of ids too",
    ),
    (
        "fence-seal-whole",
        5_000,
        "once: a write is lost that one push had left",
    ),
    (
        "fence-given-up-as-seen",
        5_000,
        "the model found it once in 1,500,000",
    ),
    (
        "no-door",
        5_000,
        "a push has to outlive its id and its fence",
    ),
    (
        "set-not-first",
        1_500,
        "once in some streams, in others not",
    ),
    (
        "race-not-checked",
        2_000,
        "a push has to come within one exchange after a collection",
    ),
    (
        "readings-not-observed",
        2_000,
        "versions that come are observed too",
    ),
    (
        "left-out-by-horizon",
        2_000,
        "what is left out is told by other replicas",
    ),
    (
        "left-out-not-answered",
        2_000,
        "the model saw it in one of 5,000, as traffic alone",
    ),
    (
        "refused-record-advances",
        1_000,
        "only a full table refuses so, and is not held to equality",
    ),
    (
        "nothing-left-out",
        1_000,
        "it costs traffic while a tombstone waits, which no rule bounds yet",
    ),
    (
        "own-floor-ignored",
        1_000,
        "what is covered has to be less than all others published",
    ),
    (
        "push-before-meeting",
        1_000,
        "the model found it three times in 4,000,000",
    ),
    (
        "tombstones-leave-before-floors",
        1_000,
        "a crash between the two has to meet a ghost",
    ),
];
