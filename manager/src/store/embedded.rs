//! The embedded store: one file, by redb, so that a manager needs nothing else installed.
//!
//! | table of redb | key | value |
//! |---|---|---|
//! | `meta` | `format` | the format of all this: `u32`, little-endian, [`FORMAT`] |
//! | | `store` | the current store id, 16 bytes: starting over is one switch of it |
//! | | `peer_id` | the `peer_id` of this pod's own record, text |
//! | `{store id}:{table}` | key of a record | [`Entry::to_stored`](peer_table::Entry::to_stored): format byte, kind, version, contact, content |
//! | `{store id}:_state` | `origin` | the id of the last opening, 16 bytes |
//! | | `retired` | the ids of the openings before it, oldest first, 16 bytes each |
//! | | `last_reading` | the highest reading stamped for an own write: `u64`, little-endian |
//! | | `authority` | the UUID of the authority that the store is bound to, and the key that came with it: 16 bytes each; missing while it is unbound |
//! | | `vector`, `known`, `fenced` | empty: kept for the vector and the sets of ids |
//!
//! Keys and values are bytes to redb. A store id is spelled as a hyphenated UUID in lower case.
//!
//! Commits run on a thread of their own, as they wait for the disk; scans and reads of many keys on
//! another. A read of a few keys runs where it is asked for: it takes a microsecond each, or five
//! where the page comes from the operating system, also while a commit is under way; the way to
//! another thread and back takes longer than that.
//!
//! redb does nothing more once the file had an error, such as a full disk. The store then opens it
//! again by itself; after a commit that failed half-way it looks whether that is stored.

mod file;
mod layout;
#[cfg(test)]
mod tests;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

use async_trait::async_trait;
use peer_table::{Key, TableName};
use redb::Database;

use super::{Commit, Cursor, Draw, FORMAT, Opening, Scanned, Store, StoreError, Stored};
use file::{Fault, IfMissing, OpenDatabase, OpenFile, guarded, open_database};
use layout::Layout;
use worker::Worker;

/// Keys that are read without another thread, at the most.
const INLINE_KEYS_MAX: usize = 16;

/// A store in one file.
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    /// For commits.
    writer: Worker,
    /// For scans and for reads of many keys.
    reader: Worker,
}

struct Inner {
    path: PathBuf,
    open_database: Box<OpenDatabase>,
    opening: Opening,
    layout: Layout,
    file: RwLock<FileState>,
}

enum FileState {
    Open(OpenFile),
    /// It had an error; the next call opens it again.
    Closed,
    /// Whether the last commit is stored is not known, with what failed.
    OutcomeUnknown(String),
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, or makes it there, with the directories above it.
    /// Takes as long as it takes to read the file; blocks.
    pub fn open(path: &Path, draw: Draw) -> Result<Self, StoreError> {
        Self::open_with(path, draw, Box::new(open_database))
    }

    fn open_with(
        path: &Path,
        draw: Draw,
        open_database: Box<OpenDatabase>,
    ) -> Result<Self, StoreError> {
        Self::try_open(path, draw, open_database).map_err(|fault| fault.at_opening(&name(path)))
    }

    fn try_open(path: &Path, draw: Draw, open_database: Box<OpenDatabase>) -> Result<Self, Fault> {
        let file = OpenFile::open(path, IfMissing::Make, &open_database)?;
        let opening = guarded(|| layout::next_opening(&file.database, draw))?;
        let inner = Inner {
            path: path.to_owned(),
            open_database,
            layout: Layout::new(opening.store),
            opening,
            file: RwLock::new(FileState::Open(file)),
        };
        Ok(Self {
            inner: Arc::new(inner),
            writer: Worker::start("store-write")?,
            reader: Worker::start("store-read")?,
        })
    }

    async fn on<T: Send + 'static>(
        &self,
        worker: &Worker,
        action: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = worker.run(move || action(&inner)).await;
        done.unwrap_or_else(|| Err(StoreError::Unavailable("its thread has ended".to_owned())))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn opening(&self) -> &Opening {
        &self.inner.opening
    }

    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        let name = self.inner.layout.records(table);
        self.on(&self.reader, move |inner| {
            inner.read(|database| layout::part(database, &name, cursor.as_ref()))
        })
        .await
    }

    async fn get_many(
        &self,
        table: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        let name = self.inner.layout.records(table);
        if keys.len() <= INLINE_KEYS_MAX
            && let Some(stored) = self
                .inner
                .read_at_once(|database| layout::get_many(database, &name, keys))
        {
            return stored;
        }
        let keys = keys.to_vec();
        self.on(&self.reader, move |inner| {
            inner.read(|database| layout::get_many(database, &name, &keys))
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.on(&self.writer, move |inner| inner.commit(&commit))
            .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.on(&self.reader, Inner::check).await
    }

    async fn count(&self, table: &TableName) -> Result<Option<u64>, StoreError> {
        let name = self.inner.layout.records(table);
        self.on(&self.reader, move |inner| {
            inner.read(|database| Ok(Some(layout::count(database, &name)?)))
        })
        .await
    }
}

impl Inner {
    /// Reads, after opening the file again if it had an error.
    fn read<T>(&self, action: impl Fn(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        loop {
            if let Some(result) = self.read_at_once(&action) {
                return result;
            }
            self.reopen()?;
        }
    }

    /// Reads, or `None` if the file has to be opened first or is just being opened.
    fn read_at_once<T>(
        &self,
        action: impl Fn(&Database) -> Result<T, Fault>,
    ) -> Option<Result<T, StoreError>> {
        let fault = {
            let state = match self.file.try_read() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            let FileState::Open(file) = &*state else {
                return None;
            };
            match guarded(|| action(&file.database)) {
                Ok(value) => return Some(Ok(value)),
                Err(fault) => fault,
            }
        };
        if fault.needs_reopening() {
            self.close();
        }
        Some(Err(fault.in_use(&name(&self.path))))
    }

    /// Whether a commit would find the file where it was opened.
    fn check(&self) -> Result<(), StoreError> {
        let state = self.file.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            FileState::Open(file) => self.check_place(file),
            // The next call opens it again, or says what failed.
            FileState::Closed | FileState::OutcomeUnknown(_) => Ok(()),
        }
    }

    fn check_place(&self, file: &OpenFile) -> Result<(), StoreError> {
        if file.is_at(&self.path) {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "{} was moved, replaced or removed while it was open; start again",
            self.path.display()
        )))
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.reopen()?;
        let (fault, is_in_doubt) = {
            let state = self.file.read().unwrap_or_else(PoisonError::into_inner);
            let FileState::Open(file) = &*state else {
                return Err(StoreError::Unavailable(
                    "the file has just had an error".to_owned(),
                ));
            };
            self.check_place(file)?;
            let mut is_in_doubt = false;
            let done = guarded(|| {
                let transaction = file.database.begin_write()?;
                self.layout.write(&transaction, commit)?;
                is_in_doubt = true;
                Ok(transaction.commit()?)
            });
            match done {
                Ok(()) => return Ok(()),
                Err(fault) => (fault, is_in_doubt),
            }
        };
        if is_in_doubt || fault.needs_reopening() {
            self.close();
        }
        if is_in_doubt && self.is_stored(commit)? {
            return Ok(());
        }
        Err(fault.in_use(&name(&self.path)))
    }

    /// Whether a commit that failed is stored all the same.
    fn is_stored(&self, commit: &Commit) -> Result<bool, StoreError> {
        self.read(|database| self.layout.holds(database, commit))
            .map_err(|error| {
                let problem = error.to_string();
                let mut state = self.file.write().unwrap_or_else(PoisonError::into_inner);
                *state = FileState::OutcomeUnknown(problem.clone());
                StoreError::OutcomeUnknown {
                    store: name(&self.path),
                    problem,
                }
            })
    }

    /// Opens the file if it was closed after an error.
    fn reopen(&self) -> Result<(), StoreError> {
        let state = self.file.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, FileState::Open(_)) {
            return Ok(());
        }
        drop(state);
        let mut state = self.file.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            FileState::Open(_) => return Ok(()),
            FileState::Closed => {}
            FileState::OutcomeUnknown(problem) => {
                let problem = problem.clone();
                return Err(StoreError::OutcomeUnknown {
                    store: name(&self.path),
                    problem,
                });
            }
        }
        let opened = OpenFile::open(&self.path, IfMissing::Refuse, &self.open_database);
        let current = opened.and_then(|file| {
            let is_current = || self.layout.is_current(&file.database, &self.opening);
            Ok(guarded(is_current)?.then_some(file))
        });
        match current.map_err(|fault| fault.in_use(&name(&self.path)))? {
            Some(file) => *state = FileState::Open(file),
            // While it was closed, another manager had its turn.
            None => {
                return Err(StoreError::Locked {
                    store: name(&self.path),
                    by: "another manager, or was meanwhile".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Closes the file after an error; the next call opens it again.
    fn close(&self) {
        let mut state = self.file.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, FileState::Open(_)) {
            // redb closes it here, and may break off once more; what it says of that is known.
            let open = std::mem::replace(&mut *state, FileState::Closed);
            let _ = guarded(|| {
                drop(open);
                Ok(())
            });
        }
    }
}

/// How the store is called in an error: as in the flag.
fn name(path: &Path) -> String {
    format!("embedded:{}", path.display())
}
