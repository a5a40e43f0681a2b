//! The records that were read one by one, or written here, last: reading such a one again, or writing
//! over it, needs no call of the store.
//!
//! Each is compared with its row of the index when it is asked for, so nothing has to be taken out of
//! here when a record changes, and what is answered is what is committed, always. It goes on while
//! the store is away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use peer_table::entry::Content;
use peer_table::key::KeyHash;
use peer_table::table::Row;
use peer_table::{Entry, FingerprintKey, Key};
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// What the records in here may take of memory, in bytes: as much as the feed of changes may, which
/// shares contents with it.
const BYTES_MAX: u64 = 8 << 20;
/// How many records that is, about.
const RECORDS_ABOUT: usize = 16_384;
/// What a record takes in here beside its key and its content, in bytes.
const BYTES_OF_ONE: usize = 2 * size_of::<(Key, Entry)>();

/// Records by their keys, in a cache that a walk over many does not empty (S3-FIFO).
pub(super) struct Recent(Mutex<Records>);

type Records = Cache<Key, Entry, Bytes, KeyHash, DefaultLifecycle<Key, Entry>>;

/// The bytes that a record takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let content = entry.content().map_or(&[][..], Content::as_bytes);
        (BYTES_OF_ONE + key.as_str().len() + content.len()) as u64
    }
}

impl Recent {
    /// Nothing yet; keys are found by a hash that `key` makes.
    pub(super) fn new(key: &FingerprintKey) -> Self {
        Self::with_room(key, BYTES_MAX)
    }

    fn with_room(key: &FingerprintKey, bytes_max: u64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(RECORDS_ABOUT)
            .weight_capacity(bytes_max)
            .build()
            .expect("both are given");
        let lifecycle = DefaultLifecycle::default();
        Self(Mutex::new(Cache::with_options(
            options,
            Bytes,
            key.into(),
            lifecycle,
        )))
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of `key`, if it is in here as `row` has it.
    pub(super) fn get(&self, key: &Key, row: &Row) -> Option<Entry> {
        let records = self.records();
        let entry = records.get(key)?;
        row.is_of(entry).then(|| entry.clone())
    }

    /// Puts a record in.
    pub(super) fn put(&self, key: Key, entry: Entry) {
        self.records().insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer_table::table::{Limits, TableSpec};
    use peer_table::{Body, Contact, OriginId, Reading, Table, Version, WallTime};

    fn entry(reading: u64, contact: u32, bytes: usize) -> Entry {
        Entry {
            version: Version {
                reading: Reading::from_u64(reading),
                origin: OriginId::from_bytes([1; 16]),
            },
            contact: Contact::from_steps(contact),
            body: Body::Live(Content::from(vec![7; bytes])),
        }
    }

    fn hash_key() -> FingerprintKey {
        FingerprintKey::from_bytes([1; 16])
    }

    /// The row that the index has where a store holds `entry` under `key`.
    fn row(key: &Key, entry: &Entry) -> Row {
        let mut table = Table::new(TableSpec {
            name: "peers".parse().unwrap(),
            fingerprint_key: hash_key(),
            check_content: |_, _| Ok(()),
            limits: Limits::default(),
            sketch_symbols: 1,
            epoch: 1,
            feed: peer_table::feed::FeedLimits::default(),
            floors: peer_table::floors::Floors::new(OriginId::from_bytes([1; 16])),
        });
        let now = WallTime::from_millis(1);
        table.load(key, entry, now).unwrap();
        *table.row(key).unwrap()
    }

    #[test]
    fn what_is_not_as_the_index_has_it_is_not_answered() {
        let recent = Recent::new(&hash_key());
        let key: Key = "a".parse().unwrap();
        let held = entry(5, 1, 9);
        assert_eq!(recent.get(&key, &row(&key, &held)), None);
        recent.put(key.clone(), held.clone());
        assert_eq!(recent.get(&key, &row(&key, &held)), Some(held.clone()));
        let deleted = Entry {
            body: Body::Tombstone,
            ..held.clone()
        };
        for other in [entry(6, 1, 9), entry(5, 2, 9), entry(5, 1, 8), deleted] {
            assert_eq!(recent.get(&key, &row(&key, &other)), None, "{other:?}");
        }
        recent.put(key.clone(), entry(6, 1, 9));
        assert_eq!(recent.get(&key, &row(&key, &held)), None);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        const BYTES: u64 = 64 << 10;
        let recent = Recent::with_room(&hash_key(), BYTES);
        for number in 0..1_000 {
            recent.put(format!("k{number}").parse().unwrap(), entry(1, 1, 1_000));
            assert!(recent.records().weight() <= BYTES);
        }
        assert!(recent.records().len() > 30);
    }
}
