//! How large a difference is, judged by the counts of its cells.

use super::mapping::density;

/// An estimate of the number of elements in a difference.
#[derive(Copy, Clone, Debug)]
pub(super) struct Estimate {
    /// The number.
    pub(super) elements: f64,
    /// The standard deviation of its error, as a share of it.
    pub(super) deviation: f64,
}

/// Estimates the difference of two sets, of which ours has `surplus` elements more than theirs.
///
/// `counts` are the differences of the counts, modulo 256, from cell 0 on. Cell i is expected to
/// have `surplus * p`, where p is its density, with a variance of `elements * p * (1 - p)`. So the
/// residual of each cell gives an estimate; all are of the same quality, and their mean is the
/// result.
pub(super) fn estimate(counts: &[i8], surplus: f64) -> Estimate {
    // The first cells are of little use: in cell 0 all elements are, and the densities of the
    // others are not exact.
    const SKIP: usize = 4;
    // With this variance one count in 130 wraps, most of them only just.
    const VARIANCE_MAX: f64 = 48.0 * 48.0;
    let cells: Vec<_> = (0..)
        .zip(counts)
        .skip(SKIP)
        .map(|(i, count)| {
            let p = density(i);
            let residual = f64::from(*count) - surplus * p;
            Cell {
                variance: p * (1.0 - p),
                residual: residual - 256.0 * (residual / 256.0).round(),
            }
        })
        .collect();
    // The later a cell, the less it wraps: the later half tells which of the earlier ones to
    // believe.
    let half = cells.len() / 2;
    let later = mean(&cells[half..]);
    let start = cells.partition_point(|cell| cell.variance * later.elements > VARIANCE_MAX);
    if start < half {
        mean(&cells[start..])
    } else {
        later
    }
}

/// What a cell says about the number of elements.
struct Cell {
    /// The variance of its count that one element gives.
    variance: f64,
    /// By how much its count is off.
    residual: f64,
}

/// The mean of the estimates of the cells.
fn mean(cells: &[Cell]) -> Estimate {
    let Some(n) = u32::try_from(cells.len())
        .ok()
        .filter(|n| *n > 0)
        .map(f64::from)
    else {
        return Estimate {
            elements: 0.0,
            deviation: 0.0,
        };
    };
    let sum: f64 = cells
        .iter()
        .map(|cell| cell.residual * cell.residual / cell.variance)
        .sum();
    Estimate {
        elements: sum / n,
        deviation: (2.0 / n).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::sketch::mapping::{Mapping, SplitMix64};

    /// The differences of the first 128 counts of two sets with `ours` and `theirs` elements of
    /// their own.
    fn counts(ours: usize, theirs: usize, draws: &mut SplitMix64) -> Vec<i8> {
        let mut counts = vec![0_i8; 128];
        for element in 0..ours + theirs {
            let mut mapping = Mapping::new(Fingerprint(draws.draw()));
            while let Some(index) = mapping.next_below(counts.len()) {
                counts[index] = counts[index].wrapping_add(if element < ours { 1 } else { -1 });
            }
        }
        counts
    }

    #[test]
    fn an_estimate_is_within_four_of_its_deviations() {
        let mut draws = SplitMix64(7);
        for elements in [50_u32, 100, 300, 1_000, 3_000, 10_000, 25_000] {
            for (ours, theirs) in [
                (elements / 2, elements / 2),
                (elements, 0),
                (elements / 4, elements / 4 * 3),
            ] {
                let counts = counts(ours as usize, theirs as usize, &mut draws);
                let found = estimate(&counts, f64::from(ours) - f64::from(theirs));
                let error = found.elements / f64::from(elements) - 1.0;
                assert!(found.deviation < 0.15, "{elements}: {found:?}");
                assert!(
                    error.abs() < 4.0 * found.deviation,
                    "{ours} + {theirs}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn estimates_are_right_in_the_mean() {
        let mut draws = SplitMix64(7);
        for (elements, trials) in [(100_u32, 300_u32), (1_000, 60)] {
            let sum: f64 = (0..trials)
                .map(|_| {
                    let half = elements as usize / 2;
                    estimate(&counts(half, half, &mut draws), 0.0).elements
                })
                .sum();
            let error = sum / f64::from(trials) / f64::from(elements) - 1.0;
            assert!(error.abs() < 0.05, "{elements}: off by {error}");
        }
    }

    #[test]
    fn a_difference_beyond_all_counts_looks_larger_than_any_sketch_can_decode() {
        let found = estimate(&counts(100_000, 100_000, &mut SplitMix64(7)), 0.0);
        assert!(found.elements > 60_000.0, "{found:?}");
    }

    #[test]
    fn few_cells_give_an_estimate_too() {
        for len in 0..8 {
            let found = estimate(&[0; 8][..len], 0.0);
            assert!(found.elements.abs() < f64::EPSILON, "{found:?}");
        }
    }
}
