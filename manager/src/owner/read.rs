//! Reading: which records there are says the index, what they say the store, or [`super::recent`] where one
//! was read or written here before.
//!
//! Reads of single records share calls of the store: while one is under way, those that come in
//! gather for the next. A call for fifty records costs manager and store little more than one for one.

use std::sync::Arc;

use peer_table::contract::{BatchBuilder, Records};
use peer_table::{Entry, Fingerprint, Key, Version};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Command, Current, Owner, OwnerError, PAGE_RECORDS, Shared};
use crate::store::{StoreError, Stored};

/// Reads of single records that wait for the next call of the store; more wait at their senders.
pub(super) const QUEUE_READS_MAX: usize = 1_024;
/// How many of them share one call.
const READS_AT_ONCE: usize = 256;

/// A read of one record, which has this version at least.
pub(super) struct Read {
    key: Key,
    version: Version,
    answer: Answer<Option<Entry>>,
}

/// Does the reads of single records.
pub(super) struct Reading {
    shared: Arc<Shared>,
    reads: mpsc::Receiver<Read>,
    /// Those of the [`Owner`] go on as long as there is one.
    commands: mpsc::WeakSender<Command>,
}

impl Reading {
    pub(super) fn new(
        shared: &Arc<Shared>,
        reads: mpsc::Receiver<Read>,
        commands: &mpsc::Sender<Command>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            reads,
            commands: commands.downgrade(),
        }
    }

    /// Reads until every handle is gone.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(READS_AT_ONCE);
        while self.reads.recv_many(&mut waiting, READS_AT_ONCE).await > 0 {
            let rows = waiting.iter().map(|read| (read.key.clone(), read.version));
            match self.shared.read(rows.collect()).await {
                Ok(Found { records, wrong, .. }) => {
                    // What is asked for after the answer comes after the correction.
                    if let Some(commands) = self.commands.upgrade() {
                        correct(&commands, wrong);
                    }
                    for (read, record) in waiting.drain(..).zip(records) {
                        // Who stopped waiting does not need the answer.
                        let _ = read.answer.send(Ok(record.map(|(_, entry)| entry)));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for read in waiting.drain(..) {
                        let _ = read.answer.send(Err(OwnerError::Store(Arc::clone(&error))));
                    }
                }
            }
        }
    }
}

/// Has the index compared with what is stored under these keys.
fn correct(commands: &mpsc::Sender<Command>, wrong: Vec<Key>) {
    if !wrong.is_empty() {
        // If the queue is full, the next reader finds it too.
        let _ = commands.try_send(Command::Correct(wrong));
    }
}

impl Owner {
    /// The live record of `key`. One that cannot be read now is not taken for one that is not there.
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, OwnerError> {
        let version = {
            let current = self.shared.valid()?;
            let Some(row) = current.table.row(key).filter(|row| row.is_live()) else {
                return Ok(None);
            };
            if let Some(entry) = self.shared.recent.get(key, row) {
                return Ok(Some(entry));
            }
            row.version
        };
        let (answer, answered) = oneshot::channel();
        let read = Read {
            key: key.clone(),
            version,
            answer,
        };
        let sent = self.reads.send(read).await;
        sent.map_err(|_| OwnerError::Stopped)?;
        let entry = answered.await.map_err(|_| OwnerError::Stopped)??;
        let Some(entry) = entry else {
            return Err(OwnerError::Unreadable(key.clone()));
        };
        let entry = Some(entry).filter(Entry::is_live);
        if let Some(entry) = &entry {
            self.shared.recent.put(key.clone(), entry.clone());
        }
        Ok(entry)
    }

    /// The next live records in the order of their keys, at most [`PAGE_RECORDS`] and `limit`, and
    /// the key to go on after if there may be more.
    pub async fn page(
        &self,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<(Vec<(Key, Entry)>, Option<Key>), OwnerError> {
        let (rows, last) = live_rows(&*self.shared.valid()?, after, limit);
        let mut records = self.read(rows).await?;
        records.retain(|(_, entry)| entry.is_live());
        Ok((records, last))
    }

    /// The keys of the next live records, at most [`PAGE_RECORDS`] and `limit`, and the key to go on
    /// after if there may be more.
    pub fn live_keys(&self, after: Option<&Key>, limit: usize) -> (Vec<Key>, Option<Key>) {
        let (rows, last) = live_rows(&self.shared.current(), after, limit);
        (rows.into_iter().map(|(key, _)| key).collect(), last)
    }

    /// Whether the store answers.
    pub async fn probe(&self) -> Result<(), OwnerError> {
        let own = self.shared.valid()?.opening.peer_id.clone();
        let shared = &self.shared;
        let call = shared
            .store
            .get_many(&shared.table_name, std::slice::from_ref(&own));
        shared.metrics.store("read", call).await?;
        // A file that was removed still answers to reads.
        shared.store.check().await?;
        Ok(())
    }

    async fn read(&self, rows: Vec<(Key, Version)>) -> Result<Vec<(Key, Entry)>, OwnerError> {
        let Found { records, wrong, .. } = self.shared.read(rows).await?;
        correct(&self.commands, wrong);
        Ok(records.into_iter().flatten().collect())
    }

    /// The records that have these fingerprints, tombstones too, as far as one batch goes.
    pub async fn records(&self, wanted: &[Fingerprint]) -> Result<Records, OwnerError> {
        const READ_AT_ONCE: usize = 256;
        let mut batch = BatchBuilder::new(&self.shared.table_name);
        let mut dealt_with = 0;
        for part in wanted.chunks(READ_AT_ONCE) {
            let rows: Vec<_> = {
                drop(self.shared.keyed()?);
                let current = self.shared.valid()?;
                let keys = part.iter().filter_map(|it| current.table.key_of(*it));
                let rows = keys.filter_map(|key| Some((key, current.table.row(key)?)));
                rows.map(|(key, row)| (key.clone(), row.version)).collect()
            };
            for (key, entry) in self.read(rows).await? {
                batch.add(&key, &entry);
            }
            dealt_with += part.len();
            if batch.has_no_room_for(READ_AT_ONCE) {
                break;
            }
        }
        Ok(Records {
            batch: batch.finish(),
            dealt_with: u32::try_from(dealt_with).unwrap_or(u32::MAX),
        })
    }
}

/// The next live records, and the key to go on after if there may be more.
fn live_rows(
    current: &Current,
    after: Option<&Key>,
    limit: usize,
) -> (Vec<(Key, Version)>, Option<Key>) {
    let scanned_max = limit.clamp(1, PAGE_RECORDS);
    let rows: Vec<_> = current.table.rows_after(after, scanned_max).collect();
    let last = (rows.len() == scanned_max)
        .then(|| rows.last().map(|(key, _)| (*key).clone()))
        .flatten();
    let live = rows.into_iter().filter(|(_, row)| row.is_live());
    let live = live.map(|(key, row)| (key.clone(), row.version));
    (live.collect(), last)
}

/// What a store has of the rows of an index.
#[derive(Default)]
pub(super) struct Found {
    /// Of each row, if it is there and reads back.
    pub(super) records: Vec<Option<(Key, Entry)>>,
    /// Keys under which there is something else than the index says.
    pub(super) wrong: Vec<Key>,
    /// Whether something is missing or older, which a store that is as it was left has not.
    pub(super) is_behind: bool,
}

impl Shared {
    /// The records of those of `rows` that the store has and that read back. The store has at least
    /// the version in the row; where it has not, it is not what it was, or the row is wrong.
    pub(super) async fn read(&self, rows: Vec<(Key, Version)>) -> Result<Found, StoreError> {
        if rows.is_empty() {
            return Ok(Found::default());
        }
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        let call = self.store.get_many(&self.table_name, &keys);
        let stored = self.metrics.store("read", call).await?;
        let found = self.found(rows, stored);
        if found.is_behind {
            self.store.check().await?;
        }
        Ok(found)
    }

    fn found(&self, rows: Vec<(Key, Version)>, stored: Vec<Option<Stored>>) -> Found {
        let mut found = Found {
            records: Vec::with_capacity(rows.len()),
            wrong: Vec::new(),
            is_behind: false,
        };
        for ((key, version), stored) in rows.into_iter().zip(stored) {
            let record = match stored {
                Some(Stored::Entry(entry)) if entry.version >= version => Some((key, entry)),
                Some(Stored::Corrupt(problem)) => {
                    self.metrics.corrupt.inc();
                    tracing::warn!(peer_id = %key, error = %problem, "a stored record cannot be read");
                    found.wrong.push(key);
                    None
                }
                Some(Stored::Entry(_)) | None => {
                    found.is_behind = true;
                    found.wrong.push(key);
                    None
                }
            };
            found.records.push(record);
        }
        found
    }
}
