//! Giving a table another key for its fingerprints, in steps.
//!
//! Only what depends on the key is made anew: the fingerprints in the index, the way from these to
//! the records, and the sketch. The old one goes as the new one comes, so that the table takes no
//! more room than before.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::Table;
use crate::feed::Feed;
use crate::fingerprint::{Fingerprint, FingerprintKey};
use crate::floors::Floors;
use crate::key::Key;
use crate::sketch::Sketch;

/// How far a table is with its new key.
#[derive(Debug)]
pub struct Rekeying {
    /// What leads from the old fingerprints to the records.
    old: BTreeMap<Fingerprint, Key>,
    /// The last record that is done.
    after: Option<Key>,
}

impl Table {
    /// Begins to give it another key for its fingerprints. Until [`Table::rekey`] says that it is
    /// done, nothing may be loaded or applied, and its digest, sketch and fingerprints are those of
    /// the records that are done.
    pub fn begin_rekeying(&mut self, key: FingerprintKey) -> Rekeying {
        self.fingerprint_key = key;
        self.sketch = Sketch::new(self.sketch.len());
        Rekeying {
            old: std::mem::take(&mut self.keys),
            after: None,
        }
    }

    /// Makes the fingerprints of up to `rows_max` further records anew, of at least one; says
    /// whether it is done.
    pub fn rekey(&mut self, rekeying: &mut Rekeying, rows_max: usize) -> bool {
        let rows_max = rows_max.max(1);
        let Rekeying { old, after } = rekeying;
        for _ in 0..rows_max {
            old.pop_first();
        }
        let start = after.take().map_or(Unbounded, Excluded);
        let mut rows = self.rows.range_mut::<Key, _>((start, Unbounded));
        for _ in 0..rows_max {
            let Some((key, row)) = rows.next() else {
                return true;
            };
            row.fingerprint = self.fingerprint_key.fingerprint(
                &self.name,
                key,
                row.version,
                row.is_live(),
                row.contact,
            );
            self.sketch.insert(row.fingerprint);
            self.keys.insert(row.fingerprint, key.clone());
            *after = Some(key.clone());
        }
        rows.next().is_none()
    }

    /// Has its feed begin anew, as that of `epoch`: who follows it lists again.
    pub fn renew_feed(&mut self, epoch: u64) {
        self.feed = Feed::new(epoch, self.feed.limits());
    }

    /// Goes on under the next opening of its store, whose clock went back, with these floors: the feed
    /// begins anew, and no exchange that is under way comes to anything.
    pub fn renew(&mut self, floors: Floors, epoch: u64) {
        self.floors = floors;
        self.sessions.end_all();
        self.renew_feed(epoch);
    }

    /// [`FingerprintKey::check`] of the key of its fingerprints.
    pub fn key_check(&self) -> u64 {
        self.fingerprint_key.check()
    }
}
