//! Where a table's records are kept: a trait, and its implementations that pass one conformance
//! suite.
//!
//! A store holds, under one pointer to the current store id, the records of each table and what
//! this replica must not forget about itself. It decides nothing: the owner of the table does, and
//! is its only writer.

pub mod embedded;
pub mod redis;
mod url;

#[cfg(test)]
mod conformance;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::table::Entries;
use peer_table::{Binding, ClusterId, Entry, Key, OriginId, Reading, StoreId, TableName};
use uuid::Uuid;

pub use peer_table::opening::{Draw, Opening};
pub use url::{InvalidStoreUrl, StoreUrl, open};

/// The format of the storage layout that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Random ids for an opening, this `peer_id` and cluster, and no authority.
pub fn draw(peer_id: Key, cluster: &ClusterId) -> Draw {
    Draw {
        store: StoreId::from_bytes(*Uuid::new_v4().as_bytes()),
        origin: OriginId::from_bytes(*Uuid::new_v4().as_bytes()),
        peer_id,
        cluster: Some(cluster.clone()),
        binding: None,
    }
}

/// One transaction: all of it is stored, or nothing is.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Records to write, by table.
    pub records: Vec<(TableName, Arc<Entries>)>,
    /// Records that leave for good, by table: collected tombstones. No key is in
    /// [`Commit::records`] of the same table too; one that is not there is as good as removed.
    pub removed: Vec<(TableName, BTreeSet<Key>)>,
    /// The highest reading stamped for an own write among them.
    pub stamped: Option<Reading>,
    /// The authority that the store is bound to from now on.
    pub binding: Option<Binding>,
    /// What is kept of floors from now on, in place of what was; only its owner can read it.
    pub floors: Option<Vec<u8>>,
}

impl Commit {
    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.records.iter().all(|(_, records)| records.is_empty())
            && self.removed.iter().all(|(_, keys)| keys.is_empty())
            && self.stamped.is_none()
            && self.binding.is_none()
            && self.floors.is_none()
    }
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

/// One item of [`Store::scan`], as it lies in the store: who asked reads it, while the store has the
/// next part brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The field under which it is stored; no key of a record if the store was damaged.
    pub key: Vec<u8>,
    /// What is stored there; [`Stored::from_value`] reads it.
    pub value: Vec<u8>,
}

/// Where a [`Store::scan`] goes on; only the store that gave it out can read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(Vec<u8>);

/// How a store turned out not to be what it was.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// There is nothing in it.
    Wiped,
    /// It has another id.
    Swapped,
    /// It is as it was earlier: restored, or a replica that lagged behind.
    RolledBack,
    /// Another manager had its turn.
    TakenOver,
    /// Something else writes to it.
    Meddled,
}

impl Change {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Wiped,
        Self::Swapped,
        Self::RolledBack,
        Self::TakenOver,
        Self::Meddled,
    ];

    /// As the label of a metric.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Wiped => "wiped",
            Self::Swapped => "swapped",
            Self::RolledBack => "rolled_back",
            Self::TakenOver => "taken_over",
            Self::Meddled => "meddled",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wiped => "was emptied",
            Self::Swapped => "was swapped for another",
            Self::RolledBack => "is as it was earlier",
            Self::TakenOver => "was taken over by another manager for a while",
            Self::Meddled => "was written to by something else",
        })
    }
}

/// A store that does not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another manager has it open.
    #[error("{store} is open in {by}; stop that one first, or give this one a store of its own")]
    Locked {
        /// Which store.
        store: String,
        /// Who has it.
        by: String,
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
    #[error("the store cannot be used now: {0}")]
    Unavailable(String),
    /// It failed in the middle of a transaction, and whether that was stored is not known yet;
    /// [`Store::settle`] finds out.
    #[error("a write to {store} may be stored or not: {problem}")]
    OutcomeUnknown {
        /// Which store.
        store: String,
        /// What failed.
        problem: String,
    },
    /// It is not what it was, and does nothing until [`Store::reopen`].
    #[error("{store} {change}: it is opened anew, and filled from the peers")]
    Changed {
        /// Which store.
        store: String,
        /// How.
        change: Change,
    },
}

/// The store of one manager. All methods may be called at the same time; `commit` is called by one
/// task, one at a time.
#[async_trait]
pub trait Store: Send + Sync {
    /// What opening it at the start found and made.
    fn opening(&self) -> &Opening;

    /// All of a table's records in parts of a bounded number, in no particular order: the part
    /// after `cursor`, which is what the part before came with, `None` for the first. The last one
    /// comes with `None`.
    ///
    /// What is there from the first part to the last appears, whatever is written meanwhile, and
    /// exactly once if nothing is; what comes in between may appear or not. After an error, a scan
    /// begins again.
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

    /// Waits until it is known whether the commit is stored that ended with
    /// [`StoreError::OutcomeUnknown`]. An error is the end of this opening: with
    /// [`StoreError::Changed`] the store is to be opened anew, with any other the manager has to end.
    async fn settle(&self) -> Result<bool, StoreError> {
        Err(StoreError::OutcomeUnknown {
            store: "the store".to_owned(),
            problem: "start again to find out".to_owned(),
        })
    }

    /// Ends when the store is not what it was any more, with [`StoreError::Changed`].
    async fn changed(&self) -> StoreError {
        std::future::pending().await
    }

    /// Looks whether the store is as it was left.
    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Opens the store anew as what it is now, with a new origin id; the earlier one is retired.
    async fn reopen(&self, draw: Draw) -> Result<Opening, StoreError> {
        let _ = draw;
        Err(StoreError::Unavailable(
            "it is opened once; start again".to_owned(),
        ))
    }

    /// Begins the store anew: under the ids of `draw`, without records and retired ids, with `floors`
    /// and the `peer_id`, the binding and the last reading that it has. It is one switch of the store id,
    /// and what lay under the earlier one goes with it: at any time there is either the old store,
    /// whole, or the new one, empty.
    ///
    /// Called by the task that commits, in place of a commit: an error means what it means there. If
    /// [`Store::settle`] says that it is done, [`Opening::started_over`] tells the opening.
    async fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError>;

    /// Ends this opening and begins the next, under the id `origin`: all stays but the last reading,
    /// which becomes `last`, be it lower. Of floors the answer may say what this opening began with.
    ///
    /// Called by the task that commits, in place of a commit: an error means what it means there. If
    /// [`Store::settle`] says that it is done, [`Opening::renewed`] tells the opening.
    async fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError>;

    /// How many records a table has, if that can be told at once.
    async fn count(&self, table: &TableName) -> Result<Option<u64>, StoreError> {
        let _ = table;
        Ok(None)
    }
}
