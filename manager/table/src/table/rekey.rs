//! Giving a table another key for its fingerprints, in steps.
//!
//! Only what depends on the key is made anew: the fingerprints in the index, the way from these to
//! the records, and the sketch. The old one goes as the new one comes, so that the table takes no
//! more room than before.

use std::collections::BTreeMap;

use super::Table;
use crate::feed::Feed;
use crate::fingerprint::{Fingerprint, FingerprintKey};
use crate::floors::Floors;
use crate::sketch::Sketch;

/// How far a table is with its new key.
#[derive(Debug)]
pub struct Rekeying {
    /// What leads from the old fingerprints to the records.
    old: BTreeMap<Fingerprint, u32>,
    /// How many records are done.
    done: usize,
}

impl Table {
    /// Begins to give it another key for its fingerprints. Until [`Table::rekey`] says that it is
    /// done, nothing may be loaded or applied, and its digest, sketch and fingerprints are those of
    /// the records that are done.
    pub fn begin_rekeying(&mut self, key: FingerprintKey) -> Rekeying {
        self.fingerprint_key = key;
        self.sketch = Sketch::new(self.sketch.len());
        Rekeying {
            old: self.index.take_fingerprints(),
            done: 0,
        }
    }

    /// Makes the fingerprints of up to `rows_max` further records anew, of at least one; says
    /// whether it is done.
    pub fn rekey(&mut self, rekeying: &mut Rekeying, rows_max: usize) -> bool {
        for _ in 0..rows_max.max(1) {
            rekeying.old.pop_first();
            let fingerprint = self.index.renew(rekeying.done, |key, row| {
                let (hash, name) = (&self.fingerprint_key, &self.name);
                hash.fingerprint(name, key, row.version, row.is_live(), row.contact)
            });
            let Some(fingerprint) = fingerprint else {
                return true;
            };
            self.sketch.insert(fingerprint);
            rekeying.done += 1;
        }
        rekeying.done == self.index.len()
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
