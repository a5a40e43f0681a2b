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

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::{Binding, Entry, Key, OriginId, Reading, StoreId, TableName};
use uuid::Uuid;

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
    /// The authority that the store is bound to, if it is to any.
    pub binding: Option<Binding>,
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
            binding: draw.binding,
        }
    }

    /// Retires the ids of `known` too, an opening by the same process which ends with this one.
    pub fn remember(&mut self, known: &Self) {
        let mut retired = known.retired.clone();
        retired.push(known.origin);
        retired.retain(|id| *id != self.origin && !self.retired.contains(id));
        retired.append(&mut self.retired);
        let forgotten = retired.len().saturating_sub(RETIRED_MAX);
        retired.drain(..forgotten);
        self.retired = retired;
    }

    /// The same, bound as `draw` says if it is not bound yet.
    #[must_use]
    pub fn bound_as(mut self, draw: &Draw) -> Self {
        self.binding = self.binding.or_else(|| draw.binding.clone());
        self
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

/// What a new opening is made of: randomness, drawn by the caller, and what a store takes over that
/// knows nothing of it yet.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The store's id, if it has none yet.
    pub store: StoreId,
    /// The new opening's id.
    pub origin: OriginId,
    /// The pod's own `peer_id`, if the store has none yet.
    pub peer_id: Key,
    /// The authority to be bound to, if the store is not bound yet.
    pub binding: Option<Binding>,
}

impl Draw {
    /// Random ids, this `peer_id`, and no authority.
    pub fn new(peer_id: Key) -> Self {
        Self {
            store: StoreId::from_bytes(*Uuid::new_v4().as_bytes()),
            origin: OriginId::from_bytes(*Uuid::new_v4().as_bytes()),
            peer_id,
            binding: None,
        }
    }
}

/// One transaction: all of it is stored, or nothing is.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Records to write, by table.
    pub records: Vec<(TableName, BTreeMap<Key, Entry>)>,
    /// The highest reading stamped for an own write among them.
    pub stamped: Option<Reading>,
    /// The authority that the store is bound to from now on.
    pub binding: Option<Binding>,
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

    /// How many records a table has, if that can be told at once.
    async fn count(&self, table: &TableName) -> Result<Option<u64>, StoreError> {
        let _ = table;
        Ok(None)
    }
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
            binding: None,
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
