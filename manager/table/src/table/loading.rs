//! A table that is being read from its store.

use super::index::Filling;
use super::{InvalidContent, Table, TableSpec};
use crate::clock::WallTime;
use crate::entry::Entry;
use crate::key::{Key, KeyHash};
use crate::mutants;

/// A table that is being read from its store.
#[derive(Debug)]
pub struct Loading {
    /// All of it but its index.
    table: Table,
    index: Filling,
}

impl Loading {
    /// The beginning, for about so many records.
    pub fn new(spec: TableSpec, records: usize) -> Self {
        let records = records.min(spec.limits.records_max);
        let hash = KeyHash::from(&spec.fingerprint_key);
        Self {
            table: Table::new(spec),
            index: Filling::new(hash, records),
        }
    }

    /// Takes in a record; of one that comes again the last stays. Refuses what is no content of this
    /// table, which is then lost.
    pub fn record(
        &mut self,
        key: &Key,
        entry: &Entry,
        now: WallTime,
    ) -> Result<(), InvalidContent> {
        if let Err(invalid) = self.table.check_loaded(key, entry) {
            self.lose();
            return Err(invalid);
        }
        self.table.floors.heard(entry.version, now);
        let row = self.table.row_of(key, entry);
        if let Some(old) = self.index.insert(key.clone(), row) {
            self.table.unlink(key, old);
        }
        self.table.link(key, &row);
        Ok(())
    }

    /// Notes that the store has lost a record. That its version was covered says nothing any more: who
    /// heard so from this replica would bury the copies that others have.
    pub fn lose(&mut self) {
        if !mutants::is("lost-stays-covered") {
            self.table.floors.forget_coverage();
        }
    }

    /// The table.
    pub fn finish(self) -> Table {
        let Self { mut table, index } = self;
        table.index = index.finish();
        table
    }
}
