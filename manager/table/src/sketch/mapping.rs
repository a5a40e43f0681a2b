//! Which coded symbols a fingerprint is part of.

use crate::fingerprint::Fingerprint;

/// Below this index all fingerprints have one density.
const REGULAR: i64 = 32;

/// The indices of the coded symbols that one fingerprint is part of: ascending, from 0 on, without
/// end.
///
/// Up to index 31 this is the mapping of Yang, Gilad, Alizadeh, "Practical Rateless Set
/// Reconciliation" (SIGCOMM 2024): index i belongs to a fingerprint with probability 2 / (i + 2).
/// Beyond, three fingerprints in sixteen are *dense* and go on with 8 / (i + 8), the others are
/// *sparse*, with 4/3 / (i + 4/3). Such irregular degrees bring a sparse-graph code closer to its
/// limit (Luby, Mitzenmacher, Shokrollahi, Spielman, "Efficient Erasure Correcting Codes", 2001): a
/// difference of 1,000 takes 1.16 symbols for each element, of 10,000 1.10, where the regular
/// mapping takes 1.38 and 1.36, for a fifth more indices. The regular beginning keeps small
/// differences apart: sparse from the start, one in thirty of size 50 would not decode from 128
/// symbols.
///
/// The sequence is part of the wire contract: two builds must agree on every index. It is defined
/// as follows.
///
/// - Draws are those of `SplitMix64` seeded with the fingerprint.
/// - The fingerprint is dense if the lowest four bits of the first draw are a number below 3.
/// - Each further draw `r` leads from an index `i` to the one after it,
///   `i + 1 + floor((i + c) * (1 / v - 1))`, where `u = (floor(r / 2^11) + 1) / 2^53`, which is in
///   (0, 1], and
///   - `v = u^(1/2)`, `c = 1.5` for an `i` below 32, else
///   - `v = u^(1/8)`, `c = 4.5` for a dense fingerprint,
///   - `v = u^(1/2) * u^(1/4)`, `c = 1.25` for a sparse one.
///
/// All of it is in double precision, and the roots are square roots of square roots: IEEE 754
/// rounds addition, multiplication, division and square root alike on every platform, but leaves
/// powers and logarithms open.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    draws: SplitMix64,
    dense: bool,
    next: i64,
}

impl Mapping {
    /// The indices of `fingerprint`, from the start.
    pub(super) fn new(fingerprint: Fingerprint) -> Self {
        let mut draws = SplitMix64(fingerprint.0);
        let dense = draws.draw() % 16 < 3;
        Self {
            draws,
            dense,
            next: 0,
        }
    }

    /// Takes the next index if it is below `end`, or else leaves it for a later call.
    pub(super) fn next_below(&mut self, end: usize) -> Option<usize> {
        let index = usize::try_from(self.next)
            .ok()
            .filter(|index| *index < end)?;
        self.next = self.next.saturating_add(1).saturating_add(self.gap());
        Some(index)
    }

    /// How many indices are left out after the next one.
    ///
    /// Conversions are to and from `i64` because processors have an instruction for these and not
    /// always one for `u64`, and both ways of a choice are computed because a branch costs more:
    /// together that saves a third.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_precision_loss,
        reason = "the shifted draw and indices of a sketch are below 2^53; a longer gap saturates"
    )]
    fn gap(&mut self) -> i64 {
        const UNIT: f64 = 1.0 / (1_i64 << 53) as f64;
        let u = ((self.draws.draw() >> 11) + 1) as i64 as f64 * UNIT;
        let half = u.sqrt();
        let quarter = half.sqrt();
        let (late, late_offset) = if self.dense {
            (quarter.sqrt(), 4.5)
        } else {
            (half * quarter, 1.25)
        };
        let regular = self.next < REGULAR;
        let power = if regular { half } else { late };
        let offset = if regular { 1.5 } else { late_offset };
        ((self.next as f64 + offset) * (1.0 / power - 1.0)) as i64
    }
}

/// The probability with which index `i` belongs to a fingerprint: exact to 1 % from index 4 on, up
/// to 4 % too high below.
#[expect(clippy::cast_precision_loss, reason = "indices are below 2^53")]
pub(super) fn density(i: usize) -> f64 {
    const START: f64 = REGULAR as f64;
    let i = i as f64;
    let regular = 2.0 / (i + 2.0);
    if i < START {
        return regular;
    }
    let dense = 8.0 / (i + 8.0);
    let sparse = 4.0 / (3.0 * i + 4.0);
    // Until its first index from 32 on, a fingerprint goes by the gap drawn before.
    let early = START * (START + 1.0) / (i * (i + 1.0));
    early * regular + (1.0 - early) * (3.0 * dense + 13.0 * sparse) / 16.0
}

/// Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014), with
/// Stafford's finalizer 13.
#[derive(Clone, Debug)]
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    /// The next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(fingerprint: u64, end: usize) -> Vec<usize> {
        let mut mapping = Mapping::new(Fingerprint(fingerprint));
        std::iter::from_fn(|| mapping.next_below(end)).collect()
    }

    #[test]
    fn the_indices_of_these_fingerprints_are_part_of_the_wire_contract() {
        const SPARSE: [usize; 16] = [
            0, 1, 14, 15, 50, 118, 442, 538, 1545, 1604, 3212, 3943, 6404, 9958, 12900, 21114,
        ];
        const DENSE: [usize; 38] = [
            0, 1, 4, 7, 9, 11, 12, 26, 30, 284, 486, 500, 934, 952, 1160, 1219, 1364, 1678, 2153,
            2398, 2722, 2861, 3144, 3860, 4770, 5090, 5199, 5750, 5955, 9881, 12596, 12822, 14320,
            14413, 15431, 17508, 24723, 29764,
        ];
        for (fingerprint, dense, first) in [
            (0, false, &SPARSE[..]),
            (u64::MAX, true, &DENSE[..]),
            (
                0xfeed_beef_dead_cafe,
                false,
                &[0, 1, 4, 8, 14, 19, 31, 93, 451, 4125, 19133],
            ),
        ] {
            assert_eq!(
                Mapping::new(Fingerprint(fingerprint)).dense,
                dense,
                "{fingerprint:#x}"
            );
            assert_eq!(indices(fingerprint, 32_768), first, "{fingerprint:#x}");
        }
    }

    #[test]
    fn indices_ascend_from_zero() {
        for seed in 0..1_000 {
            let indices = indices(SplitMix64(seed).draw(), 32_768);
            assert_eq!(indices[0], 0);
            assert!(indices.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn indices_taken_in_parts_are_those_taken_at_once() {
        for seed in 0..100 {
            let fingerprint = SplitMix64(seed).draw();
            let mut mapping = Mapping::new(Fingerprint(fingerprint));
            let mut parts = Vec::new();
            for end in [0, 1, 7, 7, 128, 1_000] {
                parts.extend(std::iter::from_fn(|| mapping.next_below(end)));
            }
            assert_eq!(parts, indices(fingerprint, 1_000));
        }
    }

    #[test]
    fn indices_are_as_frequent_as_their_density() {
        const FINGERPRINTS: u32 = 20_000;
        let mut frequency = vec![0_u32; 512];
        let mut draws = SplitMix64(1);
        for _ in 0..FINGERPRINTS {
            for index in indices(draws.draw(), 512) {
                frequency[index] += 1;
            }
        }
        for (index, found) in frequency.into_iter().enumerate().skip(4) {
            let expected = density(index) * f64::from(FINGERPRINTS);
            let sigmas = (f64::from(found) - expected) / expected.sqrt();
            assert!(
                sigmas.abs() < 5.0,
                "index {index}: {found} rather than {expected}"
            );
        }
    }
}
