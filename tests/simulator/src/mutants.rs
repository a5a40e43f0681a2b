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
    floors("set-not-first", 1_500),
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
