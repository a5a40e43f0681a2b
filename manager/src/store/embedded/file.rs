//! The file of an embedded store, from a path to an open database, and the words for what can be
//! wrong with it.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

use super::StoreError;

/// Memory for pages of the file. A thousand records fit ten times over; more than fit are read from
/// the file again, which takes microseconds while the operating system has it in memory.
const CACHE_BYTES: usize = 16 << 20;

/// What redb writes into the first bytes of a file as the last step of making it.
const MAGIC_BYTES: usize = 9;
/// What redb writes of a file before that: all after it is zero.
const HEADER_BYTES: usize = 512;
/// The size of a file that redb has just begun is well below this.
const UNFINISHED_BYTES_MAX: u64 = 16 << 20;

/// Makes a database of a file that is open.
pub(super) type OpenDatabase = dyn Fn(File) -> Result<Database, DatabaseError> + Send + Sync;

/// A database and what its file is known by.
pub(super) struct OpenFile {
    pub(super) database: Database,
    id: FileId,
}

/// Which file a path leads to: device and inode.
#[derive(Copy, Clone, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// Whether a file that is missing is made.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum IfMissing {
    Make,
    Refuse,
}

/// What goes wrong with a database.
#[derive(Debug)]
pub(super) enum Fault {
    /// redb says so.
    Redb(redb::Error),
    /// redb broke off, as it does on a damage that it takes for impossible.
    Panic(String),
    /// What the store says of itself makes no sense.
    Damaged(String),
    /// It was written by a later release.
    NewerFormat(u32),
    /// It cannot be opened, and what to do.
    Unusable(String),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

impl Fault {
    /// Whether the database has to be opened anew before it does anything more.
    pub(super) fn needs_reopening(&self) -> bool {
        use redb::Error;
        match self {
            Self::Redb(error) => matches!(
                error,
                Error::Io(_)
                    | Error::PreviousIo
                    | Error::Backend(_)
                    | Error::DatabaseClosed
                    | Error::LockPoisoned(_)
            ),
            Self::Panic(_) => true,
            Self::Damaged(_) | Self::NewerFormat(_) | Self::Unusable(_) => false,
        }
    }

    /// What it means while the store is being opened.
    pub(super) fn at_opening(self, store: &str) -> StoreError {
        let store = store.to_owned();
        match self {
            Self::Redb(redb::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                let problem = "the file is no store; name another path, or move it away".to_owned();
                StoreError::Open { store, problem }
            }
            Self::Redb(redb::Error::Io(error)) if error.kind() != ErrorKind::UnexpectedEof => {
                StoreError::Open {
                    store,
                    problem: with_advice(&error),
                }
            }
            Self::Unusable(problem) => StoreError::Open { store, problem },
            other => other.in_use(&store),
        }
    }

    /// What it means once the store is open.
    pub(super) fn in_use(self, store: &str) -> StoreError {
        let store = store.to_owned();
        match self {
            Self::Redb(redb::Error::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                let problem = "the file ends before the database in it does".to_owned();
                StoreError::Damaged { store, problem }
            }
            Self::Redb(redb::Error::Io(error)) => StoreError::Unavailable(with_advice(&error)),
            Self::Redb(redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => {
                let by = "another process".to_owned();
                StoreError::Locked { store, by }
            }
            Self::Panic(problem) | Self::Damaged(problem) => StoreError::Damaged { store, problem },
            Self::NewerFormat(found) => StoreError::NewerFormat { store, found },
            Self::Unusable(problem) => StoreError::Unavailable(problem),
            Self::Redb(error) if Self::is_damage(&error) => StoreError::Damaged {
                store,
                problem: error.to_string(),
            },
            Self::Redb(error) => StoreError::Unavailable(error.to_string()),
        }
    }

    fn is_damage(error: &redb::Error) -> bool {
        use redb::Error;
        matches!(
            error,
            Error::Corrupted(_)
                | Error::UpgradeRequired(_)
                | Error::TableTypeMismatch { .. }
                | Error::TypeDefinitionChanged { .. }
                | Error::TableIsMultimap(_)
                | Error::TableDoesNotExist(_)
        )
    }
}

/// What the operating system says, and what to do about it.
fn with_advice(error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            "let the user that this runs as write there (on Kubernetes: fsGroup), or name another path"
        }
        ErrorKind::ReadOnlyFilesystem => "name a path on a volume that can be written",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room there"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a part of the path is a file; name another path"
        }
        ErrorKind::NotFound => "the file was moved or removed; start again",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}

/// Makes a folder that is not there, and says so: it may be a path that is misspelt, or a volume that is
/// not mounted.
fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path)?;
        tracing::warn!(folder = %path.display(), "the folder of the store was not there, and was made");
    }
    Ok(())
}

/// Does something with redb; a panic of it is a fault like any other.
pub(super) fn guarded<T>(action: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Fault::Panic(
            text.unwrap_or("the database broke off").to_owned(),
        ))
    })
}

impl OpenFile {
    /// Opens the file at `path`.
    pub(super) fn open(
        path: &Path,
        if_missing: IfMissing,
        open_database: &OpenDatabase,
    ) -> Result<Self, Fault> {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let problem = format!(
                    "it is a directory; name a file in it, as {}",
                    path.join("udht.redb").display()
                );
                return Err(Fault::Unusable(problem));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(Fault::Unusable(
                    "it is no regular file; name another path".to_owned(),
                ));
            }
            Ok(_) => {}
            Err(_) if if_missing == IfMissing::Refuse => {}
            Err(_) => make_folder(parent.unwrap_or(Path::new(".")))?,
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(if_missing == IfMissing::Make)
            .truncate(false)
            .open(path)?;
        empty_if_unfinished(&mut file)?;
        let metadata = file.metadata()?;
        let id = FileId::of(&metadata);
        let database = guarded(|| Ok(open_database(file)?))?;
        if metadata.len() == 0 {
            // So that the file's name outlasts a loss of power, too.
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(Self { database, id })
    }

    /// Whether `path` still leads to it. Otherwise, what is written would be lost with the process.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == self.id)
    }
}

/// The database in `file`, made if it is empty.
///
/// redb verifies all of it, as it would after a kill: a damage is found here and not as a panic
/// later. That takes about a second for a million records, and in exchange commits need not store
/// what would spare the check (redb's quick repair), which takes almost twice their time.
pub(super) fn open_database(file: File) -> Result<Database, DatabaseError> {
    let file = FileBackend::new(file)?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(file)
}

/// Empties a file that redb began to make and did not finish, because it was killed just then: it
/// would refuse it for ever. It holds nothing yet.
fn empty_if_unfinished(file: &mut File) -> io::Result<()> {
    if !(1..=UNFINISHED_BYTES_MAX).contains(&file.metadata()?.len()) {
        return Ok(());
    }
    match file.try_lock() {
        Ok(()) => {}
        // Another process may be making it; that it is open there is said when redb locks it.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    Read::by_ref(file)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut content)?;
    if content.iter().all(|byte| *byte == 0) {
        file.read_to_end(&mut content)?;
        if content.iter().skip(HEADER_BYTES).all(|byte| *byte == 0) {
            file.set_len(0)?;
        }
    }
    Ok(())
}
