//! A store as a pod has it: what survives a crash, what it was earlier, and what goes wrong with it.

use std::collections::{BTreeMap, VecDeque};

use peer_table::opening::Draw;
use peer_table::table::Changes;
use peer_table::{Entry, Key, Opening, OriginId, mutants};

use crate::oracle::{Known, Oracle, Writer};
use crate::world::Violation;

/// Earlier states that are remembered, so that the last transactions can be lost.
const EARLIER_MAX: usize = 8;

/// All that is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    /// What the last opening left.
    opening: Option<Opening>,
    /// The records, as bytes.
    records: BTreeMap<Key, Vec<u8>>,
    /// The newest that was ever held here.
    pub(crate) known: Known,
}

/// Why a store did not do what it was asked.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It cannot now; nothing was done.
    Unavailable,
    /// Whether it was done is not known.
    Doubtful,
    /// It is not what it was when it was opened.
    Changed,
}

/// The store of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimStore {
    data: Data,
    earlier: VecDeque<Data>,
    backup: Option<Data>,
    /// Whether it is no longer what it was when it was opened.
    changed: bool,
    refuses: u64,
    doubtful: bool,
}

impl SimStore {
    /// All that is durable now.
    pub(crate) const fn data(&self) -> &Data {
        &self.data
    }

    /// What it has had and what it was told.
    pub(crate) const fn known_mut(&mut self) -> &mut Known {
        &mut self.data.known
    }

    /// The id of its last opening.
    pub(crate) fn origin(&self) -> Option<OriginId> {
        self.data.opening.as_ref().map(|opening| opening.origin)
    }

    /// Whether it is still what it was when it was opened.
    pub(crate) const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Opens it, or opens it anew as what it is now, where `known` was opened by the same process.
    pub(crate) fn open(&mut self, draw: Draw, known: Option<&Opening>) -> Option<Opening> {
        let origin = draw.origin;
        let opening = match self.data.opening.clone() {
            None => Opening::first(draw),
            Some(_) if mutants::is("origin-kept-over-openings") => self.data.opening.clone()?,
            Some(last) => last.next(origin)?,
        };
        let mut opening = opening;
        if let Some(known) = known {
            opening.remember(known);
        }
        self.remember();
        self.data.opening = Some(opening.clone());
        self.changed = false;
        Some(opening)
    }

    /// Every record that reads back.
    pub(crate) fn scan(&self) -> impl Iterator<Item = (Key, Entry)> {
        let read = |(key, value): (&Key, &Vec<u8>)| {
            Entry::from_stored(value)
                .ok()
                .map(|entry| (key.clone(), entry))
        };
        self.data.records.iter().filter_map(read)
    }

    /// Whether there is one that does not.
    pub(crate) fn is_damaged(&self) -> bool {
        let mut values = self.data.records.values();
        values.any(|value| Entry::from_stored(value).is_err())
    }

    /// One record.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        Entry::from_stored(self.data.records.get(key)?).ok()
    }

    /// Writes one transaction, whole.
    ///
    /// `floors` replace those that it keeps.
    pub(crate) fn commit(
        &mut self,
        changes: &Changes,
        floors: Option<Vec<u8>>,
        writer: Writer,
        oracle: &mut Oracle,
    ) -> (Result<(), Refused>, Result<(), Violation>) {
        if self.changed && !mutants::is("changed-store-written") {
            return (Err(Refused::Changed), Ok(()));
        }
        if self.refuses > 0 {
            self.refuses -= 1;
            return (Err(Refused::Unavailable), Ok(()));
        }
        // One in doubt is stored or not.
        let doubtful = std::mem::take(&mut self.doubtful);
        if doubtful && writer.wall.as_millis().is_multiple_of(2) {
            return (Err(Refused::Doubtful), Ok(()));
        }
        self.remember();
        let mut checked = Ok(());
        for (key, entry) in &*changes.entries {
            self.data.records.insert(key.clone(), entry.to_stored());
            checked = checked.and(oracle.stored(&mut self.data.known, writer, key, entry));
        }
        for key in &changes.removed {
            self.data.records.remove(key);
            self.data.known.collected(key);
        }
        if let (Some(opening), Some(floors)) = (&mut self.data.opening, floors) {
            opening.floors = floors;
        }
        if let (Some(opening), Some(stamped)) = (&mut self.data.opening, changes.stamped) {
            opening.last_reading = stamped;
        }
        let done = if doubtful {
            Err(Refused::Doubtful)
        } else {
            Ok(())
        };
        (done, checked)
    }

    /// Whether what was in doubt is stored.
    pub(crate) fn holds(&self, changes: &Changes, floors: Option<&Vec<u8>>) -> bool {
        let mut entries = changes.entries.iter();
        let kept = self.data.opening.as_ref().map(|opening| &opening.floors);
        entries.all(|(key, entry)| self.get(key).as_ref() == Some(entry))
            && changes
                .removed
                .iter()
                .all(|key| !self.data.records.contains_key(key))
            && floors.is_none_or(|floors| kept == Some(floors))
    }

    /// Begins anew under other ids, without any record.
    pub(crate) fn start_over(&mut self, draw: Draw, floors: Vec<u8>) -> Option<Opening> {
        if self.changed || self.refuses > 0 {
            self.refuses = self.refuses.saturating_sub(1);
            return None;
        }
        let opening = self.data.opening.clone()?.started_over(draw, floors)?;
        self.data = Data {
            opening: Some(opening.clone()),
            ..Data::default()
        };
        self.earlier.clear();
        self.backup = None;
        Some(opening)
    }

    /// Puts a record there that was there before the history began.
    pub(crate) fn preload(
        &mut self,
        oracle: &mut Oracle,
        writer: Writer,
        key: &Key,
        entry: &Entry,
    ) -> Result<(), Violation> {
        self.data.records.insert(key.clone(), entry.to_stored());
        oracle
            .stamped(writer, &Known::default(), key, entry)
            .and_then(|()| oracle.stored(&mut self.data.known, writer, key, entry))
    }

    /// Has the next transactions refused.
    pub(crate) fn refuse(&mut self, transactions: u64) {
        self.refuses = transactions;
    }

    /// Leaves the next transaction in doubt.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// No fault is left waiting.
    pub(crate) fn calm(&mut self) {
        self.refuses = 0;
        self.doubtful = false;
    }

    /// Copies it away.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.data.clone());
    }

    /// Makes it what it was when it was copied away.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.clone() else {
            return false;
        };
        self.become_other(backup);
        true
    }

    /// Loses the last transactions.
    pub(crate) fn lose_last(&mut self, transactions: usize) -> bool {
        let Some(at) = self.earlier.len().checked_sub(transactions) else {
            return false;
        };
        let data = self.earlier[at].clone();
        self.earlier.truncate(at);
        self.become_other(data);
        true
    }

    /// Becomes a copy of the records of another, under an id of its own, or empty. It knows no more than
    /// these say: what the other had let go of, and its floors, stay there.
    pub(crate) fn swap(&mut self, other: Option<(Data, Draw)>) {
        let data = other.map_or_else(Data::default, |(mut data, draw)| {
            data.known.keep(|key| data.records.contains_key(key));
            Data {
                opening: Some(Opening::first(draw)),
                ..data
            }
        });
        self.earlier.clear();
        self.become_other(data);
    }

    /// Has one of its records not read back any more.
    pub(crate) fn damage(&mut self, record: usize) {
        let Some(at) = record.checked_rem(self.data.records.len()) else {
            return;
        };
        if let Some((key, value)) = self.data.records.iter_mut().nth(at) {
            value.clear();
            self.data.known.keep(|known| known != key);
        }
        self.changed = true;
    }

    fn become_other(&mut self, data: Data) {
        self.data = data;
        self.changed = true;
    }

    fn remember(&mut self) {
        if self.earlier.len() == EARLIER_MAX {
            self.earlier.pop_front();
        }
        self.earlier.push_back(self.data.clone());
    }
}
