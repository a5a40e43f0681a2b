//! Where a table's records are kept: a trait, and its implementations that pass one conformance
//! suite.
//!
//! A store holds, under one pointer to the current store id, the records of each table and what
//! this replica must not forget about itself. It decides nothing: the owner of the table does, and
//! is its only writer.

pub mod embedded;
mod url;

#[cfg(test)]
mod conformance;

use std::collections::BTreeMap;

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::{Entry, Key, OriginId, Reading, StoreId, TableName};

pub use url::{InvalidStoreUrl, StoreUrl, open};

/// The format of the storage layout that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// How many ids of earlier openings a store keeps; of more, the oldest are forgotten.
///
/// Kubernetes starts a container that keeps failing every five minutes at the most, so these are
/// two weeks of nothing but restarts: twice as long as an id that says nothing is waited for.
pub const RETIRED_MAX: usize = 4_096;

/// What an opening of a store found and made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The store's id: made when it was first opened.
    pub store: StoreId,
    /// The id of this opening, drawn anew and stored before the answer.
    pub origin: OriginId,
    /// The ids of earlier openings, oldest first, at most [`RETIRED_MAX`]; the last of them is
    /// retired by this one.
    pub retired: Vec<OriginId>,
    /// The highest reading that was stored with an own write.
    pub last_reading: Reading,
    /// The `peer_id` of this pod's own record: made when the store was first opened.
    pub peer_id: Key,
}

impl Opening {
    /// The first opening of a store.
    pub fn first(draw: Draw) -> Self {
        Self {
            store: draw.store,
            origin: draw.origin,
            retired: Vec::new(),
            last_reading: Reading::default(),
            peer_id: draw.peer_id,
        }
    }

    /// The opening after this one, under `origin`; `None` if that id was used before: its versions
    /// would repeat.
    #[must_use]
    pub fn next(mut self, origin: OriginId) -> Option<Self> {
        self.retired.push(self.origin);
        if self.retired.contains(&origin) {
            return None;
        }
        let forgotten = self.retired.len().saturating_sub(RETIRED_MAX);
        self.retired.drain(..forgotten);
        Some(Self { origin, ..self })
    }
}

/// Randomness for an opening, drawn by the caller.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The store's id, if it has none yet.
    pub store: StoreId,
    /// The new opening's id.
    pub origin: OriginId,
    /// The pod's own `peer_id`, if the store has none yet.
    pub peer_id: Key,
}

/// One transaction: all of it is stored, or nothing is.
#[derive(Debug, Default)]
pub struct Commit {
    /// Records to write, by table.
    pub records: Vec<(TableName, BTreeMap<Key, Entry>)>,
    /// The highest reading stamped for an own write among them.
    pub stamped: Option<Reading>,
}

/// A record as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It reads back.
    Entry(Entry),
    /// It does not: reported, skipped, and healed from a peer.
    Corrupt(CorruptEntry),
}

impl Stored {
    /// Reads a stored value.
    pub fn from_value(value: &[u8]) -> Self {
        Entry::from_stored(value).map_or_else(Self::Corrupt, Self::Entry)
    }

    /// The record, if it reads back.
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Corrupt(_) => None,
        }
    }
}

/// One item of [`Store::scan`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The field under which it is stored; no key of a record if the store was damaged.
    pub key: String,
    /// What is stored there.
    pub stored: Stored,
}

/// Where a [`Store::scan`] goes on; only the store that gave it out can read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(Vec<u8>);

/// A store that does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another manager has it open.
    #[error(
        "{store} is open in another process; stop that one first, or give this one a store of its own"
    )]
    Locked {
        /// Which store.
        store: String,
    },
    /// It was written by a later release.
    #[error(
        "{store} is of format {found}, and this build knows up to {FORMAT}: run the release that wrote it, or a newer one"
    )]
    NewerFormat {
        /// Which store.
        store: String,
        /// Its format.
        found: u32,
    },
    /// It cannot be opened or made.
    #[error("cannot open {store}: {problem}")]
    Open {
        /// Which store.
        store: String,
        /// Why, and what to do.
        problem: String,
    },
    /// What it says of itself cannot be read.
    #[error(
        "{store} is damaged: {problem}; move it away, and this replica fills a new one from its peers"
    )]
    Damaged {
        /// Which store.
        store: String,
        /// What of it.
        problem: String,
    },
    /// It does not answer now; nothing was written, and a later try may succeed.
    #[error("the store cannot be reached now: {0}")]
    Unavailable(String),
    /// It failed in the middle of a transaction and cannot be asked whether that was stored. From
    /// then on it answers everything with this: the process has to end, and the next opening finds
    /// out.
    #[error("a write to {store} may or may not be stored; start again to find out: {problem}")]
    OutcomeUnknown {
        /// Which store.
        store: String,
        /// What failed.
        problem: String,
    },
}

/// The store of one manager. All methods may be called at the same time; `commit` is called by one
/// task, one at a time.
#[async_trait]
pub trait Store: Send + Sync {
    /// What opening it found and made.
    fn opening(&self) -> &Opening;

    /// All of a table's records in parts of a bounded number, in no particular order: the part
    /// after `cursor`, which is what the part before came with, `None` for the first. The last one
    /// comes with `None`.
    ///
    /// What is there from the first part to the last appears exactly once, whatever is written
    /// meanwhile; what comes in between may appear or not.
    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError>;

    /// What is stored under each of `keys`, in their order, at one moment: never a part of a
    /// transaction.
    async fn get_many(
        &self,
        table: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Writes a transaction. Once the answer is `Ok` it survives a kill -9; after an error, none of
    /// it is visible, now or later, but for [`StoreError::OutcomeUnknown`]. Who drops the future
    /// before it has an answer does not know either; it ends before the next begins.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> OriginId {
        OriginId::from_bytes(number.to_be_bytes())
    }

    fn first() -> Opening {
        Opening::first(Draw {
            store: StoreId::from_bytes([1; 16]),
            origin: id(0),
            peer_id: "pod".parse().expect("a key"),
        })
    }

    #[test]
    fn the_oldest_ids_are_forgotten_and_the_last_retired_one_never() {
        let last = RETIRED_MAX as u128 + 9;
        let opening = (1..=last).fold(first(), |opening, number| {
            opening.next(id(number)).expect("a new id")
        });
        assert_eq!(opening.origin, id(last));
        assert_eq!(opening.retired.len(), RETIRED_MAX);
        assert_eq!(opening.retired.first(), Some(&id(9)));
        assert_eq!(opening.retired.last(), Some(&id(last - 1)));
    }

    #[test]
    fn an_id_that_was_used_before_is_refused() {
        let second = first().next(id(1)).expect("a new id");
        assert_eq!(second.clone().next(id(0)), None);
        assert_eq!(second.next(id(1)), None);
    }
}
