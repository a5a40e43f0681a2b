//! The embedded store, watched: counts what is read, and fails on demand.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::{Key, OriginId, Reading, StoreId, TableName};
use udht_manager::store::{
    self, Commit, Cursor, Draw, Opening, Scanned, Store, StoreError, StoreUrl, Stored,
};
use uuid::Uuid;

/// An opening of an embedded store.
pub struct Watched {
    store: Arc<dyn Store>,
    /// Calls of [`Store::get_many`].
    pub reads: AtomicUsize,
    /// Keys that they asked for.
    pub keys_read: AtomicUsize,
    /// Whether every call fails.
    pub failing: AtomicBool,
    /// Whether it takes nothing that is written.
    pub full: AtomicBool,
    damaged: Mutex<BTreeSet<Key>>,
}

impl Watched {
    /// Opens the store at `path`; if it is new, the own record has the key `own`.
    pub async fn open(path: &Path) -> Arc<Self> {
        let draw = Draw {
            store: StoreId::from_bytes([7; 16]),
            origin: OriginId::from_bytes(*Uuid::new_v4().as_bytes()),
            peer_id: "own".parse().unwrap(),
            cluster: None,
            binding: None,
        };
        let url = StoreUrl::Embedded(path.to_owned());
        Arc::new(Self {
            store: store::open(&url, &"udht".parse().unwrap(), "pod", draw)
                .await
                .unwrap(),
            reads: AtomicUsize::new(0),
            keys_read: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            full: AtomicBool::new(false),
            damaged: Mutex::default(),
        })
    }

    /// Lets the stored record of `key` be damaged until it is written anew.
    pub fn damage(&self, key: &str) {
        self.damaged.lock().unwrap().insert(key.parse().unwrap());
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test said so".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Watched {
    fn opening(&self) -> &Opening {
        self.store.opening()
    }

    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        self.check()?;
        self.store.scan(table, cursor).await
    }

    async fn get_many(
        &self,
        table: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.keys_read.fetch_add(keys.len(), Ordering::SeqCst);
        let mut found = self.store.get_many(table, keys).await?;
        let damaged = self.damaged.lock().unwrap();
        for (key, found) in keys.iter().zip(&mut found) {
            if damaged.contains(key) {
                *found = Some(Stored::Corrupt(CorruptEntry::Truncated { bytes: 1 }));
            }
        }
        Ok(found)
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.check()?;
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test left no room".to_owned()));
        }
        for (_, records) in &commit.records {
            let mut damaged = self.damaged.lock().unwrap();
            damaged.retain(|key| !records.contains_key(key));
        }
        self.store.commit(commit).await
    }

    async fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError> {
        self.check()?;
        self.store.start_over(draw, floors).await
    }

    async fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError> {
        self.check()?;
        self.store.renew(origin, last).await
    }
}
