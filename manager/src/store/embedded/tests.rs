mod start_over;
mod torn;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU8, Ordering};

use peer_table::Reading;
use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    TableHandle,
};
use tempfile::TempDir;

use super::*;
use crate::store::conformance::{
    self, Ground, commit, draw, entry, key, peers, read, removal, scan,
};

conformance::suite!(Home);

/// A directory with one embedded store.
struct Home {
    directory: TempDir,
}

impl Home {
    fn path(&self) -> PathBuf {
        self.directory.path().join("udht.redb")
    }

    fn embedded(&self, number: u8) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(&self.path(), draw(number))
    }

    /// Opens it on a disk that has the faults it is told to have.
    fn on_a_flaky_disk(&self, number: u8) -> (EmbeddedStore, Arc<Disk>) {
        let disk = Arc::new(Disk::default());
        let under = Arc::clone(&disk);
        let open = move |file| {
            let file = FileBackend::new(file)?;
            Builder::new()
                .set_check_integrity_on_open(true)
                .create_with_backend(Flaky {
                    file,
                    disk: Arc::clone(&under),
                })
        };
        let store = EmbeddedStore::open_with(&self.path(), draw(number), Box::new(open));
        (store.expect("opens"), disk)
    }

    /// The tables in the file.
    fn tables(&self) -> Vec<String> {
        let database = Database::open(self.path()).expect("opens");
        let transaction = database.begin_read().expect("begins");
        let tables = transaction.list_tables().expect("lists");
        tables.map(|table| table.name().to_owned()).collect()
    }

    /// The keys of one of them.
    fn keys(&self, table: &str) -> Vec<String> {
        let database = Database::open(self.path()).expect("opens");
        let transaction = database.begin_read().expect("begins");
        let table = TableDefinition::<&[u8], &[u8]>::new(table);
        let table = transaction.open_table(table).expect("opens");
        let keys = table.iter().expect("reads").map(|item| {
            let (key, _) = item.expect("reads");
            String::from_utf8_lossy(key.value()).into_owned()
        });
        keys.collect()
    }

    /// Changes the file as no store would.
    fn tamper(&self, table: &str, key: &[u8], value: Option<&[u8]>) {
        let database = Database::create(self.path()).expect("opens");
        let transaction = database.begin_write().expect("begins");
        {
            let table = TableDefinition::<&[u8], &[u8]>::new(table);
            let mut table = transaction.open_table(table).expect("opens");
            match value {
                Some(value) => drop(table.insert(key, value).expect("inserts")),
                None => drop(table.remove(key).expect("removes")),
            }
        }
        transaction.commit().expect("commits");
    }
}

#[async_trait]
impl Ground for Home {
    async fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    async fn open(&self, draw: Draw) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(EmbeddedStore::open(&self.path(), draw)?))
    }

    /// What is in the file now is what a kill would leave; closing it would say goodbye.
    async fn kill(&self, store: Arc<dyn Store>) {
        let copy = self.directory.path().join("copy");
        fs::copy(self.path(), &copy).expect("copies");
        drop(store);
        fs::rename(copy, self.path()).expect("renames");
    }

    async fn put_raw(&self, table: &TableName, key: &[u8], value: &[u8]) {
        self.tamper(&format!("{}:{table}", draw(1).store), key, Some(value));
    }

    async fn put_format(&self, format: u32) {
        self.tamper("meta", b"format", Some(&format.to_le_bytes()));
    }
}

/// What a disk does wrong.
#[derive(Default, Debug)]
struct Disk {
    fault: AtomicU8,
}

/// redb's header is in the first page, and is written in place.
const PAGE_BYTES: u64 = 4_096;

const NONE: u8 = 0;
/// Takes writes only where there were some before.
const FULL: u8 = 1;
/// Says of the next sync that it failed, though all of it is written.
const UNSYNCED: u8 = 2;
/// The same, and nothing works from then on.
const DYING: u8 = 3;
const DEAD: u8 = 4;
/// redb meets what it takes for impossible.
const ABSURD: u8 = 5;

impl Disk {
    fn set(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }

    fn check(&self, of: u8, kind: ErrorKind) -> Result<(), Error> {
        let fault = self.fault.load(Ordering::SeqCst);
        if fault == of || fault == DEAD {
            Err(kind.into())
        } else {
            Ok(())
        }
    }
}

#[derive(Debug)]
struct Flaky {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl StorageBackend for Flaky {
    fn len(&self) -> Result<u64, Error> {
        self.disk.check(DEAD, ErrorKind::Other)?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.disk.check(DEAD, ErrorKind::Other)?;
        assert_ne!(
            self.disk.fault.load(Ordering::SeqCst),
            ABSURD,
            "this cannot be"
        );
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.disk.check(FULL, ErrorKind::StorageFull)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.disk.check(DEAD, ErrorKind::Other)?;
        self.file.sync_data()?;
        match self.disk.fault.load(Ordering::SeqCst) {
            UNSYNCED => self.disk.set(NONE),
            DYING => self.disk.set(DEAD),
            _ => return Ok(()),
        }
        Err(ErrorKind::Other.into())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let written_before = if offset < PAGE_BYTES { DEAD } else { FULL };
        self.disk.check(written_before, ErrorKind::StorageFull)?;
        self.file.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn close(&self) -> Result<(), Error> {
        self.file.close()
    }
}

fn one(number: usize, reading: u64) -> Commit {
    commit([(key(number), entry(reading, b"content"))])
}

fn stored(reading: u64) -> Stored {
    Stored::Entry(entry(reading, b"content"))
}

#[tokio::test]
async fn a_full_disk_refuses_a_commit_and_takes_the_next_once_there_is_room() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(FULL);
    for _ in 0..3 {
        let error = store.commit(one(1, 2)).await.expect_err("there is no room");
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().ends_with("make room there"), "{error}");
        assert_eq!(read(&store, 1).await, Some(stored(1)));
    }
    disk.set(NONE);
    store.commit(one(1, 3)).await.expect("commits");
    assert_eq!(read(&store, 1).await, Some(stored(3)));
    drop(store);
    assert_eq!(
        read(&home.embedded(2).expect("opens"), 1).await,
        Some(stored(3))
    );
}

#[tokio::test]
async fn a_commit_that_failed_when_all_of_it_was_written_is_answered_as_stored() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    disk.set(UNSYNCED);
    store.commit(one(1, 1)).await.expect("it is stored");
    assert_eq!(read(&store, 1).await, Some(stored(1)));
    store.commit(one(1, 2)).await.expect("commits");
    drop(store);
    assert_eq!(
        read(&home.embedded(2).expect("opens"), 1).await,
        Some(stored(2))
    );
}

#[tokio::test]
async fn a_removal_that_failed_when_all_of_it_was_written_is_answered_as_stored() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(UNSYNCED);
    store.commit(removal([1, 2])).await.expect("it is stored");
    assert_eq!(read(&store, 1).await, None);
    store.commit(one(2, 1)).await.expect("commits");
    drop(store);
    let store = home.embedded(2).expect("opens");
    assert_eq!(scan(&store, &peers()).await.len(), 1);
}

#[tokio::test]
async fn each_part_of_a_commit_tells_whether_it_is_stored() {
    let home = Home::new().await;
    let store = home.embedded(1).expect("opens");
    store.commit(one(1, 1)).await.expect("commits");
    let parts = [
        one(2, 1),
        removal([1]),
        Commit {
            stamped: Some(Reading::from_u64(1)),
            ..Commit::default()
        },
        Commit {
            binding: Some(conformance::binding(1)),
            ..Commit::default()
        },
        Commit {
            floors: Some(b"floors".to_vec()),
            ..Commit::default()
        },
    ];
    let layout = store.inner.layout();
    for part in parts {
        let is_stored = || store.inner.read(|database| layout.holds(database, &part));
        assert!(!is_stored().expect("reads"), "{part:?}");
        store.commit(part.clone()).await.expect("commits");
        assert!(is_stored().expect("reads"), "{part:?}");
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_looked_for_makes_the_store_answer_nothing_more() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(DYING);
    let unknown = |error: StoreError| matches!(error, StoreError::OutcomeUnknown { .. });
    assert!(unknown(
        store.commit(one(1, 2)).await.expect_err("the disk is dead")
    ));
    disk.set(NONE);
    assert!(unknown(
        store
            .get_many(&peers(), &[key(1)])
            .await
            .expect_err("it would guess")
    ));
    assert!(unknown(
        store
            .scan(&peers(), None)
            .await
            .expect_err("it would guess")
    ));
    assert!(unknown(
        store.commit(one(1, 3)).await.expect_err("it would guess")
    ));
    drop(store);
    assert_eq!(
        read(&home.embedded(2).expect("opens"), 1).await,
        Some(stored(2))
    );
}

#[tokio::test]
async fn a_disk_that_fails_at_a_read_is_tried_again_at_the_next() {
    let home = Home::new().await;
    home.embedded(1)
        .expect("opens")
        .commit(one(1, 1))
        .await
        .expect("commits");
    let (store, disk) = home.on_a_flaky_disk(2);
    disk.set(DEAD);
    for _ in 0..3 {
        let error = store
            .get_many(&peers(), &[key(1)])
            .await
            .expect_err("the disk is dead");
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    disk.set(NONE);
    assert_eq!(read(&store, 1).await, Some(stored(1)));
    assert_eq!(scan(&store, &peers()).await.len(), 1);
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(read(&store, 1).await, Some(stored(2)));
}

#[tokio::test]
async fn a_panic_of_the_database_is_an_error_like_any_other() {
    let home = Home::new().await;
    home.embedded(1)
        .expect("opens")
        .commit(one(1, 1))
        .await
        .expect("commits");
    let (store, disk) = home.on_a_flaky_disk(2);
    disk.set(ABSURD);
    let error = store
        .get_many(&peers(), &[key(1)])
        .await
        .expect_err("it broke off");
    assert!(matches!(&error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("this cannot be"), "{error}");
    disk.set(NONE);
    assert_eq!(read(&store, 1).await, Some(stored(1)));
}

#[tokio::test]
async fn a_manager_that_had_an_error_does_not_write_after_another_had_its_turn() {
    let home = Home::new().await;
    home.embedded(1)
        .expect("opens")
        .commit(one(1, 1))
        .await
        .expect("commits");
    let (store, disk) = home.on_a_flaky_disk(2);
    disk.set(DEAD);
    store
        .get_many(&peers(), &[key(1)])
        .await
        .expect_err("the disk is dead");
    disk.set(NONE);
    let other = home
        .embedded(3)
        .expect("opens, as the first has closed the file");
    let error = store.commit(one(1, 3)).await.expect_err("another has it");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    other.commit(one(1, 4)).await.expect("commits");
    drop(other);
    let error = store.commit(one(1, 5)).await.expect_err("another had it");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
    assert_eq!(
        read(&home.embedded(4).expect("opens"), 1).await,
        Some(stored(4))
    );
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_noticed_before_anything_is_lost() {
    let home = Home::new().await;
    let store = home.embedded(1).expect("opens");
    store.commit(one(1, 1)).await.expect("commits");
    let aside = home.directory.path().join("aside");
    fs::rename(home.path(), &aside).expect("renames");
    let error = store.commit(one(1, 2)).await.expect_err("it is gone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let looked = store.check().await.expect_err("a look shows it too");
    assert_eq!(looked.to_string(), error.to_string());
    fs::rename(&aside, home.path()).expect("renames");
    store.check().await.expect("it is back");
    store.commit(one(1, 3)).await.expect("it is back");
}

#[tokio::test]
async fn a_commit_does_not_hold_up_other_tasks() {
    let home = Home::new().await;
    let store = home.embedded(1).expect("opens");
    let write = store.commit(commit(
        (0..1_000).map(|number| (key(number), entry(1, b"content"))),
    ));
    let mut write = std::pin::pin!(write);
    let is_pending = std::future::poll_fn(|context| {
        std::task::Poll::Ready(write.as_mut().poll(context).is_pending())
    });
    assert!(
        is_pending.await,
        "the only thread goes on while the commit is under way"
    );
    write.await.expect("commits");
}

fn refusal(path: &Path) -> StoreError {
    EmbeddedStore::open(path, draw(1)).err().expect("a refusal")
}

#[tokio::test]
async fn what_is_no_store_is_refused_with_what_to_do_and_left_as_it_is() {
    let home = Home::new().await;
    let directory = home.directory.path();
    let foreign = directory.join("notes.txt");
    fs::write(&foreign, "not a database, but dear to somebody").expect("writes");
    let other = directory.join("other.redb");
    let table = TableDefinition::<u64, u64>::new("theirs");
    let database = Database::create(&other).expect("opens");
    let transaction = database.begin_write().expect("begins");
    transaction
        .open_table(table)
        .expect("opens")
        .insert(1, 2)
        .expect("inserts");
    transaction.commit().expect("commits");
    drop(database);

    for (path, said) in [
        (directory, "is a directory; name a file in it"),
        (
            &foreign,
            "the file is no store; name another path, or move it away",
        ),
        (&foreign.join("udht.redb"), "a part of the path is a file"),
        (
            &foreign.join("deep/udht.redb"),
            "a part of the path is a file",
        ),
        (&other, "the database of something else; name another path"),
        (Path::new("/dev/null"), "no regular file; name another path"),
        (
            Path::new("/proc/udht.redb"),
            "cannot open embedded:/proc/udht.redb: ",
        ),
    ] {
        let error = refusal(path);
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }

    assert_eq!(
        fs::read(&foreign).expect("reads"),
        b"not a database, but dear to somebody"
    );
    let database = Database::open(&other).expect("opens");
    let transaction = database.begin_read().expect("begins");
    assert_eq!(transaction.list_tables().expect("lists").count(), 1);
    let theirs = transaction.open_table(table).expect("opens");
    assert_eq!(theirs.get(1).expect("reads").expect("a value").value(), 2);
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_refused_with_what_to_do() {
    let home = Home::new().await;
    let closed = home.directory.path().join("closed");
    fs::create_dir(&closed).expect("makes");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("sets");
    if fs::write(closed.join("probe"), "").is_ok() {
        return; // Nothing is closed to root.
    }
    for path in [closed.join("udht.redb"), closed.join("deep/udht.redb")] {
        let error = refusal(&path).to_string();
        assert!(
            error.contains("let the user that this runs as write there"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_file_that_redb_was_killed_over_at_its_making_is_made_anew() {
    let whole = Home::new().await;
    drop(Database::create(whole.path()).expect("makes"));
    let whole = fs::read(whole.path()).expect("reads");
    // First it has its length, then its header without the first bytes, then those.
    let mut headed = vec![0; whole.len()];
    headed[9..400].copy_from_slice(&whole[9..400]);
    for begun in [vec![], vec![0; whole.len()], headed] {
        let home = Home::new().await;
        fs::write(home.path(), begun).expect("writes");
        let store = home.embedded(1).expect("opens");
        assert_eq!(store.opening(), &Opening::first(draw(1)));
    }
    let mut foreign = vec![0; whole.len()];
    foreign[5_000] = 1;
    let home = Home::new().await;
    fs::write(home.path(), &foreign).expect("writes");
    assert!(matches!(refusal(&home.path()), StoreError::Open { .. }));
    assert_eq!(fs::read(home.path()).expect("reads"), foreign);
}

#[tokio::test]
async fn what_a_store_says_of_itself_is_checked() {
    let state = format!("{}:_state", draw(1).store);
    for (table, key, value) in [
        ("meta", "format", None),
        ("meta", "format", Some(&[0, 0, 0, 0][..])),
        ("meta", "format", Some(&[1])),
        ("meta", "store", None),
        ("meta", "store", Some(&[1; 15])),
        ("meta", "store", Some(&[9; 16])),
        ("meta", "peer_id", Some(b"no key/")),
        (&state, "origin", None),
        (&state, "origin", Some(b"short")),
        (&state, "retired", Some(&[1; 17])),
        (&state, "last_reading", Some(&[])),
    ] {
        let home = Home::new().await;
        drop(home.embedded(1).expect("opens"));
        home.tamper(table, key.as_bytes(), value);
        let error = home.embedded(2).err().expect("a refusal");
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{table} {key}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_store_of_an_earlier_build_opens_and_keeps_floors_from_then_on() {
    let home = Home::new().await;
    let state = format!("{}:_state", draw(1).store);
    drop(home.embedded(1).expect("opens"));
    assert!(!home.keys(&state).contains(&"floors".to_owned()));
    for key in ["vector", "known", "fenced"] {
        home.tamper(&state, key.as_bytes(), Some(&[]));
    }
    let store = home.embedded(2).expect("opens");
    assert!(store.opening().floors.is_empty());
    let floors = Commit {
        floors: Some(b"kept".to_vec()),
        ..Commit::default()
    };
    store.commit(floors).await.expect("commits");
    drop(store);
    assert_eq!(home.embedded(3).expect("opens").opening().floors, b"kept");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_or_a_store_but_never_a_panic() {
    let home = Home::new().await;
    let store = home.embedded(1).expect("opens");
    for reading in 1..5 {
        let write = commit((0..400).map(|number| (key(number), entry(reading, &[7; 300]))));
        store.commit(write).await.expect("commits");
    }
    drop(store);
    let whole = fs::read(home.path()).expect("reads");
    let (mut refused, mut opened) = (0, 0);
    // The header byte by byte, then all over the file.
    let places = (0..400)
        .step_by(3)
        .chain((400..whole.len()).step_by(whole.len() / 150));
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(home.path(), damaged).expect("writes");
        match home.embedded(2) {
            Ok(store) => {
                opened += 1;
                for (key, stored) in scan(&store, &peers()).await {
                    let content = stored.entry().expect("verified").content().cloned();
                    let content = content.expect("live");
                    assert_eq!(content.as_bytes(), [7; 300], "{key} is as it was written");
                }
            }
            Err(StoreError::Damaged { .. } | StoreError::Open { .. }) => refused += 1,
            Err(other) => panic!("{place}: {other:?}"),
        }
    }
    for length in [1, 8, 100, 4_096, 10_000, whole.len() / 2, whole.len() - 1] {
        fs::write(home.path(), &whole[..length]).expect("writes");
        assert!(matches!(
            refusal(&home.path()),
            StoreError::Damaged { .. } | StoreError::Open { .. }
        ));
        refused += 1;
    }
    assert!(
        refused > 20 && opened > 20,
        "{refused} refused, {opened} opened"
    );
}
