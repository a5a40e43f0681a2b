//! A table that is being read from its store.
//!
//! The two maps of its index are made at the end, each at once and in order. Made a record at a time,
//! in the order in which a store has them, they take half the time of a start.
//!
//! What they are made of is sorted in runs as it comes, while the next part is on its way from the
//! store; the sort at the end only merges these.

use std::collections::BTreeMap;

use super::{InvalidContent, Row, Table, TableSpec};
use crate::clock::WallTime;
use crate::entry::Entry;
use crate::fingerprint::Fingerprint;
use crate::key::Key;

/// How many are sorted at a time: few enough for a processor's cache.
const RUN: usize = 1 << 13;

/// A table that is being read from its store.
#[derive(Debug)]
pub struct Loading {
    /// All of it but its index.
    table: Table,
    rows: Vec<(Key, Row)>,
    keys: Vec<(Fingerprint, Key)>,
}

impl Loading {
    /// The beginning, for about so many records.
    pub fn new(spec: TableSpec, records: usize) -> Self {
        let records = records.min(spec.limits.records_max);
        Self {
            table: Table::new(spec),
            rows: Vec::with_capacity(records),
            keys: Vec::with_capacity(records),
        }
    }

    /// Takes in a record; of one that comes again the last stays. Refuses what is no content of this
    /// table; a peer may bring that again.
    pub fn record(&mut self, key: Key, entry: &Entry, now: WallTime) -> Result<(), InvalidContent> {
        let key = self.table.check_loaded(key, entry)?;
        self.table.floors.heard(entry.version, now);
        let row = self.table.row_of(&key, entry);
        self.table.link(&key, &row);
        self.keys.push((row.fingerprint, key.clone()));
        self.rows.push((key, row));
        if self.rows.len().is_multiple_of(RUN) {
            let begin = self.rows.len() - RUN;
            sort(&mut self.rows[begin..]);
            sort(&mut self.keys[begin..]);
        }
        Ok(())
    }

    /// [`Table::lose`].
    pub fn lose(&mut self, key: Key) {
        self.table.lose(key);
    }

    /// [`Table::lose_some`].
    pub fn lose_some(&mut self) {
        self.table.lose_some();
    }

    /// The table.
    pub fn finish(self) -> Table {
        let Self {
            mut table,
            mut rows,
            mut keys,
        } = self;
        sort(&mut keys);
        table.keys = BTreeMap::from_iter(keys);
        sort(&mut rows);
        rows.dedup_by(|(later_key, later), (key, row)| {
            let is_again = later_key == key;
            if is_again {
                table.unlink(key, *row);
                // If both are one, that went too.
                table.unlink(key, *later);
                table.link(key, later);
                table.keys.insert(later.fingerprint, key.clone());
                *row = *later;
            }
            is_again
        });
        table.rows = BTreeMap::from_iter(rows);
        table.lost.retain(|key| !table.rows.contains_key(key));
        table
    }
}

/// Sorts so that what came later of one key stays behind what came earlier.
fn sort<K: Ord, V>(pairs: &mut [(K, V)]) {
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
}
