//! How a table stands as a partner is to see it: without the tombstones that may have left there.

use super::{Digest, Table};
use crate::clock::Reading;
use crate::fingerprint::Fingerprint;
use crate::floors::Vector;
use crate::ids::OriginId;
use crate::mutants;
use crate::sketch::{Symbol, encode};

/// Which tombstones a partner may have let go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Horizon {
    /// Its id.
    pub origin: OriginId,
    /// What it covers.
    pub vector: Vector,
    /// Up to which reading it may have let go of those.
    pub reading: Reading,
}

/// How a table stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The digest of what takes part.
    pub digest: Digest,
    /// Its first coded symbols, as they are sent.
    pub symbols: Vec<u8>,
}

impl Table {
    /// How the table stands, with its first `symbols` coded symbols, and without the tombstones that
    /// `without` may have let go: those up to the higher horizon that both sides cover. So what has left
    /// there and may leave here looks alike.
    pub fn standing(&self, symbols: usize, without: Option<&Horizon>) -> Standing {
        let mut digest = self.digest();
        let mut encoded = Vec::new();
        let left_out = without.map_or_else(Vec::new, |partner| self.left_out(partner));
        if left_out.is_empty() {
            encode(self.sketch.symbols(0..symbols), &mut encoded);
            return Standing {
                digest,
                symbols: encoded,
            };
        }
        // At least the first, which is the digest's.
        let mut run: Vec<Symbol> = self.sketch.symbols(0..symbols.max(1)).to_vec();
        for fingerprint in &left_out {
            crate::sketch::take_out(&mut run, *fingerprint);
        }
        if let Some(summary) = run.first() {
            digest = Digest {
                records: digest.records.saturating_sub(left_out.len() as u64),
                sum: summary.sum,
                check: summary.check,
            };
        }
        run.truncate(symbols);
        encode(&run, &mut encoded);
        Standing {
            digest,
            symbols: encoded,
        }
    }

    fn left_out(&self, partner: &Horizon) -> Vec<Fingerprint> {
        let horizon = partner.reading.max(self.floors.horizon());
        let early = self.tombstones.iter();
        let early = early.take_while(|(version, _)| {
            version.reading <= horizon && !mutants::is("nothing-left-out")
        });
        let both = early.filter(|(version, _)| {
            let is_theirs = version.origin == partner.origin;
            let both =
                (is_theirs || partner.vector.covers(*version)) && self.floors.covers_held(*version);
            both || mutants::is("left-out-by-horizon")
        });
        let rows = both.filter_map(|(_, key)| self.index.get(key));
        rows.map(|row| row.fingerprint).collect()
    }
}
