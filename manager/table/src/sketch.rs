//! The sketch of a set of fingerprints, and the difference of two sets found from their sketches.
//!
//! A sketch is a rateless invertible Bloom lookup table (Yang, Gilad, Alizadeh, "Practical Rateless
//! Set Reconciliation", SIGCOMM 2024): a list of coded symbols, each the XOR of some of the
//! fingerprints. Two sides subtract their lists, symbol by symbol; what both have cancels out, and
//! from a little more symbols than there are differences, however large the sets, one can peel
//! these. A prefix of the list is good for a small difference, a longer one for a larger, so it is
//! sent in growing chunks:
//!
//! ```
//! use peer_table::fingerprint::Fingerprint;
//! use peer_table::sketch::{Difference, Sketch, WireSymbols, encode};
//!
//! let (mut ours, mut theirs) = (Sketch::new(Sketch::LEN), Sketch::new(Sketch::LEN));
//! for fingerprint in 1..=1_000 {
//!     ours.insert(Fingerprint(fingerprint));
//!     theirs.insert(Fingerprint(fingerprint + 3));
//! }
//! let mut wire = Vec::new();
//! encode(theirs.symbols(0..Difference::FIRST), &mut wire);
//!
//! let mut difference = Difference::new(ours.total(), theirs.total());
//! let theirs = WireSymbols::parse(&wire)?;
//! difference.extend(ours.symbols(0..Difference::FIRST).iter().copied(), theirs)?;
//! let decoded = difference.decode()?;
//! assert_eq!(decoded.ours, [1, 2, 3].map(Fingerprint));
//! assert_eq!(decoded.theirs, [1_001, 1_002, 1_003].map(Fingerprint));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod difference;
mod estimate;
mod mapping;
mod symbol;

use std::ops::Range;

pub use self::difference::{DecodeError, Decoded, Difference, UnequalRunsError};
use self::mapping::Mapping;
use self::symbol::checksum;
pub use self::symbol::{Symbol, WIRE_LEN, WireIter, WireLenError, WireSymbols, encode};
use crate::fingerprint::Fingerprint;

/// The first coded symbols of a set of fingerprints, kept up to date at each change of the set.
///
/// It depends on the set alone, not on its history. The caller sees to it that a fingerprint is put
/// in once at most, and taken out only when it is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch {
    /// At least one.
    symbols: Vec<Symbol>,
}

#[expect(
    clippy::len_without_is_empty,
    reason = "a sketch has at least one symbol"
)]
impl Sketch {
    /// How many symbols the sketch of a table has: enough to find a difference of 28,000
    /// elements, in 512 KiB.
    pub const LEN: usize = 32_768;

    /// The first `len` symbols of the empty set; at least one.
    pub fn new(len: usize) -> Self {
        Self {
            symbols: vec![Symbol::default(); len.max(1)],
        }
    }

    /// Puts a fingerprint in.
    pub fn insert(&mut self, fingerprint: Fingerprint) {
        self.add(fingerprint, 1);
    }

    /// Takes a fingerprint out.
    pub fn remove(&mut self, fingerprint: Fingerprint) {
        self.add(fingerprint, -1);
    }

    fn add(&mut self, fingerprint: Fingerprint, count: i32) {
        add(&mut self.symbols, fingerprint, count);
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// The symbols in `range`, as far as the sketch has them.
    pub fn symbols(&self, range: Range<usize>) -> &[Symbol] {
        let end = range.end.min(self.symbols.len());
        self.symbols.get(range.start..end).unwrap_or_default()
    }

    /// Symbol 0, which all fingerprints are in: a digest of the set.
    pub fn summary(&self) -> Symbol {
        self.symbols[0]
    }

    /// The number of fingerprints in the set.
    pub fn total(&self) -> u64 {
        u64::try_from(self.summary().count).unwrap_or(0)
    }
}

/// Takes a fingerprint out of the first symbols of a set that it is in.
pub(crate) fn take_out(symbols: &mut [Symbol], fingerprint: Fingerprint) {
    add(symbols, fingerprint, -1);
}

fn add(symbols: &mut [Symbol], fingerprint: Fingerprint, count: i32) {
    let check = checksum(fingerprint);
    let mut mapping = Mapping::new(fingerprint);
    while let Some(index) = mapping.next_below(symbols.len()) {
        symbols[index].add(fingerprint, check, count);
    }
}

/// The sketch, of the default length, of a set put in at once.
impl FromIterator<Fingerprint> for Sketch {
    fn from_iter<I: IntoIterator<Item = Fingerprint>>(fingerprints: I) -> Self {
        let mut sketch = Self::new(Self::LEN);
        for fingerprint in fingerprints {
            sketch.insert(fingerprint);
        }
        sketch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_symbols_of_this_set_are_part_of_the_wire_contract() {
        let mut sketch = Sketch::new(8);
        for fingerprint in [1, 2, 0xfeed_beef_dead_cafe] {
            sketch.insert(Fingerprint(fingerprint));
        }
        let symbols: Vec<_> = sketch
            .symbols(0..8)
            .iter()
            .map(|symbol| (symbol.sum, symbol.check, symbol.count))
            .collect();
        assert_eq!(
            symbols,
            [
                (0xfeed_beef_dead_cafd, 0xfcb8_8398, 3),
                (0xfeed_beef_dead_cafd, 0xfcb8_8398, 3),
                (3, 0x4110_dcbd, 2),
                (2, 0x1dd8_d53f, 1),
                (0xfeed_beef_dead_caff, 0xe160_56a7, 2),
                (0, 0, 0),
                (0, 0, 0),
                (3, 0x4110_dcbd, 2),
            ]
        );
    }

    #[test]
    fn a_longer_sketch_starts_with_a_shorter_one() {
        let fingerprints: Vec<_> = (0..100).map(Fingerprint).collect();
        let mut short = Sketch::new(200);
        for fingerprint in &fingerprints {
            short.insert(*fingerprint);
        }
        let long: Sketch = fingerprints.into_iter().collect();
        assert_eq!(long.len(), Sketch::LEN);
        assert_eq!(long.symbols(0..200), short.symbols(0..200));
    }

    #[test]
    fn a_range_of_symbols_is_cut_at_the_end_of_the_sketch() {
        let sketch = Sketch::new(10);
        assert_eq!(sketch.symbols(8..20).len(), 2);
        assert_eq!(sketch.symbols(10..20).len(), 0);
        assert_eq!(sketch.symbols(15..20).len(), 0);
        assert_eq!(Sketch::new(0).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_sketch_depends_only_on_what_is_in_the_set(changes in vec(0..50_u64, 0..200)) {
            let mut sketch = Sketch::new(300);
            let mut set = BTreeSet::new();
            // Each change puts in what is not there and takes out what is.
            for fingerprint in changes.into_iter().map(Fingerprint) {
                if set.insert(fingerprint) {
                    sketch.insert(fingerprint);
                } else {
                    set.remove(&fingerprint);
                    sketch.remove(fingerprint);
                }
            }
            let mut fresh = Sketch::new(300);
            for fingerprint in &set {
                fresh.insert(*fingerprint);
            }
            prop_assert_eq!(sketch.total(), set.len() as u64);
            prop_assert_eq!(sketch.summary(), fresh.symbols(0..1)[0]);
            prop_assert_eq!(sketch, fresh);
        }
    }
}
