//! Where a table's records are kept: a trait, and its implementations that pass one conformance
//! suite.
//!
//! A store holds, under one pointer to the current store id, the records of each table and what
//! this replica must not forget about itself. It decides nothing: the owner of the table does, and
//! is its only writer.

pub mod embedded;

use std::collections::BTreeMap;

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::{Entry, Key, OriginId, Reading, StoreId, TableName};

/// The format of the storage layout that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What an opening of a store found and made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The store's id: made when it was first opened.
    pub store: StoreId,
    /// The id of this opening, drawn anew and stored before the answer.
    pub origin: OriginId,
    /// The ids of earlier openings, oldest first; the last of them is retired by this one.
    pub retired: Vec<OriginId>,
    /// The highest reading that was stored with an own write.
    pub last_reading: Reading,
    /// The `peer_id` of this pod's own record: made when the store was first opened.
    pub peer_id: Key,
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
    #[error("{store} is damaged: {problem}")]
    Damaged {
        /// Which store.
        store: String,
        /// What of it.
        problem: String,
    },
    /// It does not answer now; nothing was written, and a later try may succeed.
    #[error("the store cannot be reached now: {0}")]
    Unavailable(String),
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
    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<String>,
    ) -> Result<(Vec<Scanned>, Option<String>), StoreError>;

    /// What is stored under each of `keys`, in their order.
    async fn get_many(
        &self,
        table: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Writes a transaction. Once the answer is `Ok` it survives a kill -9; after an error, none of
    /// it is visible, now or later.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;
}
