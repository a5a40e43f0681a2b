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
//! | | `floors` | what its owner keeps of floors; missing until that is first written |
//!
//! The state of a store that an earlier build made has `vector`, `known` and `fenced` too, which are
//! empty and of no use.
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
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, TryLockError};

use async_trait::async_trait;
use peer_table::{Key, OriginId, Reading, TableName};
use redb::{Database, WriteTransaction};

use super::{Commit, Cursor, Draw, FORMAT, Opening, Scanned, Store, StoreError, Stored};
use file::{Fault, IfMissing, OpenDatabase, OpenFile, guarded, open_database};
use layout::Layout;
use worker::Worker;

/// Keys that are read without another thread, at the most.
const INLINE_KEYS_MAX: usize = 16;

/// A store in one file.
pub struct EmbeddedStore {
    opening: Opening,
    inner: Arc<Inner>,
    /// For commits.
    writer: Worker,
    /// For scans and for reads of many keys.
    reader: Worker,
}

struct Inner {
    path: PathBuf,
    open_database: Box<OpenDatabase>,
    file: RwLock<FileState>,
    /// Taken after the lock of the file, if both are.
    layouts: RwLock<Layouts>,
}

/// Of which opening the records are that are read and written.
struct Layouts {
    current: Arc<Layout>,
    /// The one after it, while the store starts over; opening the file again tells which it is.
    next: Option<Arc<Layout>>,
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
            file: RwLock::new(FileState::Open(file)),
            layouts: RwLock::new(Layouts {
                current: Arc::new(Layout::new(&opening)),
                next: None,
            }),
        };
        Ok(Self {
            opening,
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

/// Opens the store in `database` anew. For the fuzz targets, which have no file.
#[doc(hidden)]
pub fn next_opening(database: &Database, draw: Draw) -> Result<Opening, StoreError> {
    layout::next_opening(database, draw).map_err(|fault| fault.at_opening("the store"))
}

#[async_trait]
impl Store for EmbeddedStore {
    fn opening(&self) -> &Opening {
        &self.opening
    }

    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        let name = self.inner.layout().records(table);
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
        let name = self.inner.layout().records(table);
        if keys.len() <= INLINE_KEYS_MAX
            && let Some(Ok(stored)) = self
                .inner
                .read_at_once(|database| layout::get_many(database, &name, keys))
        {
            return Ok(stored);
        }
        // After a fault too: the file is closed for it, which may take as long as a commit that hangs.
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

    async fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError> {
        self.on(&self.writer, move |inner| inner.start_over(draw, floors))
            .await
    }

    async fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError> {
        self.on(&self.writer, move |inner| inner.renew(origin, last))
            .await
    }

    async fn count(&self, table: &TableName) -> Result<Option<u64>, StoreError> {
        let name = self.inner.layout().records(table);
        self.on(&self.reader, move |inner| {
            inner.read(|database| Ok(Some(layout::count(database, &name)?)))
        })
        .await
    }
}

impl Inner {
    fn layout(&self) -> Arc<Layout> {
        let layouts = self.layouts.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&layouts.current)
    }

    fn change_layouts(&self) -> RwLockWriteGuard<'_, Layouts> {
        self.layouts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, after opening the file again if it had an error.
    fn read<T>(&self, action: impl Fn(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        loop {
            match self.read_at_once(&action) {
                Some(Ok(value)) => return Ok(value),
                Some(Err(fault)) => {
                    if fault.needs_reopening() {
                        self.close();
                    }
                    return Err(fault.in_use(&name(&self.path)));
                }
                None => self.reopen()?,
            }
        }
    }

    /// Reads, or `None` if the file has to be opened first or is just being opened.
    fn read_at_once<T>(
        &self,
        action: impl Fn(&Database) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let state = match self.file.try_read() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let FileState::Open(file) = &*state else {
            return None;
        };
        Some(guarded(|| action(&file.database)))
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
            "{} was moved, replaced or removed while it was open; start the manager again",
            self.path.display()
        )))
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let layout = self.layout();
        self.transact(
            |transaction| layout.write(transaction, commit),
            |database| layout.holds(database, commit),
        )
    }

    fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError> {
        let (layout, origin) = (self.layout(), draw.origin);
        self.switch(origin, |transaction| {
            layout.start_over(transaction, draw, floors)
        })
    }

    fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError> {
        let layout = self.layout();
        self.switch(origin, |transaction| {
            layout.renew(transaction, origin, last)
        })
    }

    /// Goes on with the opening under the id `origin`, as `write` makes it.
    fn switch(
        &self,
        origin: OriginId,
        write: impl FnOnce(&WriteTransaction) -> Result<Opening, Fault>,
    ) -> Result<Opening, StoreError> {
        let begin = |transaction: &WriteTransaction| {
            let opening = write(transaction)?;
            self.change_layouts().next = Some(Arc::new(Layout::new(&opening)));
            Ok(opening)
        };
        let opening = self.transact(begin, |_| Ok(self.layout().is_of(origin)))?;
        *self.change_layouts() = Layouts {
            current: Arc::new(Layout::new(&opening)),
            next: None,
        };
        Ok(opening)
    }

    /// One transaction, as `write` fills it. If its commit fails, `holds` tells whether it is stored.
    fn transact<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
        holds: impl Fn(&Database) -> Result<bool, Fault>,
    ) -> Result<T, StoreError> {
        self.reopen()?;
        let (fault, in_doubt) = {
            let state = self.file.read().unwrap_or_else(PoisonError::into_inner);
            let FileState::Open(file) = &*state else {
                return Err(StoreError::Unavailable(
                    "the file has just had an error".to_owned(),
                ));
            };
            self.check_place(file)?;
            let done = guarded(|| {
                let transaction = file.database.begin_write()?;
                let written = write(&transaction)?;
                Ok((written, guarded(|| Ok(transaction.commit()?))))
            });
            match done {
                Ok((written, Ok(()))) => return Ok(written),
                Ok((written, Err(fault))) => (fault, Some(written)),
                Err(fault) => (fault, None),
            }
        };
        if in_doubt.is_some() || fault.needs_reopening() {
            self.close();
        }
        match in_doubt {
            Some(written) if self.is_stored(holds)? => Ok(written),
            _ => Err(fault.in_use(&name(&self.path))),
        }
    }

    /// Whether a transaction that failed is stored all the same.
    fn is_stored(
        &self,
        holds: impl Fn(&Database) -> Result<bool, Fault>,
    ) -> Result<bool, StoreError> {
        self.read(holds).map_err(|error| {
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
            let is_current = guarded(|| self.find_layout(&file.database));
            Ok(is_current?.then_some(file))
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

    /// Whether the file is at an opening of this manager, which is the current one from now on.
    fn find_layout(&self, database: &Database) -> Result<bool, Fault> {
        let mut layouts = self.change_layouts();
        let next = layouts.next.clone();
        if let Some(next) = next
            && next.is_current(database)?
        {
            layouts.current = next;
        }
        layouts.next = None;
        layouts.current.is_current(database)
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
