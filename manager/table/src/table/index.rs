//! The index of a table: its rows, found by their keys, by their fingerprints, and in the order of either.
//!
//! A key is found by its hash. Each record that comes is looked for three times, and in an ordered map
//! of some hundred thousand UUIDs that took half of the time of a merge: each step down such a map
//! is a wait for memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use indexmap::IndexMap;

use super::Row;
use crate::fingerprint::Fingerprint;
use crate::key::{Key, KeyHash};

/// Rows in three orders.
#[derive(Debug)]
pub(super) struct Index {
    /// A row keeps its place until one is removed: then the last one gets that place.
    rows: IndexMap<Key, Row, KeyHash>,
    keys: BTreeSet<Key>,
    /// The place of the row with each fingerprint; if two share one, of that which came last.
    places: BTreeMap<Fingerprint, u32>,
}

impl Index {
    /// Nothing yet; keys are found by `hash`.
    pub(super) fn new(hash: KeyHash) -> Self {
        Self {
            rows: IndexMap::with_hasher(hash),
            keys: BTreeSet::new(),
            places: BTreeMap::new(),
        }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row of `key`.
    pub(super) fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key)
    }

    /// The key whose row has this fingerprint.
    pub(super) fn key_of(&self, fingerprint: Fingerprint) -> Option<&Key> {
        let place = self.places.get(&fingerprint)?;
        let (key, _) = self.rows.get_index(*place as usize)?;
        Some(key)
    }

    /// The rows in the order of their keys, from the first after `after`.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Row)> {
        let start = after.map_or(Unbounded, |key| Excluded(key.clone()));
        let keys = self.keys.range((start, Unbounded));
        keys.filter_map(|key| Some((key, self.rows.get(key)?)))
    }

    /// The fingerprints in ascending order, from the first at or above `from`.
    pub(super) fn fingerprints_from(&self, from: Fingerprint) -> impl Iterator<Item = Fingerprint> {
        let places = self.places.range(from..);
        places.map(|(fingerprint, _)| *fingerprint)
    }

    /// Puts a row in; gives that which was there of its key.
    pub(super) fn insert(&mut self, key: Key, row: Row) -> Option<Row> {
        let (place, old) = self.rows.insert_full(key.clone(), row);
        let place = short(place);
        match old {
            Some(old) => self.leave(old.fingerprint, place),
            None => drop(self.keys.insert(key)),
        }
        self.places.insert(row.fingerprint, place);
        old
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<(Key, Row)> {
        let (place, key, row) = self.rows.swap_remove_full(key)?;
        self.keys.remove(&key);
        self.leave(row.fingerprint, short(place));
        let last = short(self.rows.len());
        if let Some((_, moved)) = self.rows.get_index(place)
            && let Some(of_moved) = self.places.get_mut(&moved.fingerprint)
            && *of_moved == last
        {
            *of_moved = short(place);
        }
        Some((key, row))
    }

    /// Has a fingerprint lead no longer to the row at `place`, if it does.
    fn leave(&mut self, fingerprint: Fingerprint, place: u32) {
        if self.places.get(&fingerprint) == Some(&place) {
            self.places.remove(&fingerprint);
        }
    }

    /// Takes all fingerprints out, so that [`Index::renew`] can put others in. The answer is what led from
    /// them to the rows; to drop it at once may take long.
    pub(super) fn take_fingerprints(&mut self) -> BTreeMap<Fingerprint, u32> {
        std::mem::take(&mut self.places)
    }

    /// Has the row at `place` get the fingerprint that `of` gives it; `None` if there is no such place.
    pub(super) fn renew(
        &mut self,
        place: usize,
        of: impl FnOnce(&Key, &Row) -> Fingerprint,
    ) -> Option<Fingerprint> {
        let (key, row) = self.rows.get_index_mut(place)?;
        row.fingerprint = of(key, row);
        let fingerprint = row.fingerprint;
        self.places.insert(fingerprint, short(place));
        Some(fingerprint)
    }
}

/// A place in half of its bytes.
fn short(place: usize) -> u32 {
    u32::try_from(place).expect("no memory has room for 2^32 rows")
}

/// An index that is being filled with many rows. Both orders are made at the end, each at once, of
/// what was sorted in runs as it came: made a row at a time they take half the time of a start.
#[derive(Debug)]
pub(super) struct Filling {
    rows: IndexMap<Key, Row, KeyHash>,
    keys: Vec<Key>,
    places: Vec<(Fingerprint, u32)>,
    /// Those of rows that came again.
    left: Vec<(Fingerprint, u32)>,
}

/// How many are sorted at a time: few enough for a processor's cache.
const RUN: usize = 1 << 13;

impl Filling {
    /// The beginning, for about so many rows, of which the keys are found by `hash`.
    pub(super) fn new(hash: KeyHash, rows: usize) -> Self {
        Self {
            rows: IndexMap::with_capacity_and_hasher(rows, hash),
            keys: Vec::with_capacity(rows),
            places: Vec::with_capacity(rows),
            left: Vec::new(),
        }
    }

    /// Puts a row in; gives that which was there of its key.
    pub(super) fn insert(&mut self, key: Key, row: Row) -> Option<Row> {
        let (place, old) = self.rows.insert_full(key.clone(), row);
        let place = short(place);
        match old {
            Some(old) => self.left.push((old.fingerprint, place)),
            None => push(&mut self.keys, key),
        }
        push(&mut self.places, (row.fingerprint, place));
        old
    }

    /// The index.
    pub(super) fn finish(self) -> Index {
        let mut index = Index {
            rows: self.rows,
            keys: BTreeSet::from_iter(self.keys),
            places: BTreeMap::from_iter(self.places),
        };
        for (fingerprint, place) in self.left {
            let now = index
                .rows
                .get_index(place as usize)
                .map(|(_, row)| row.fingerprint);
            if now != Some(fingerprint) {
                index.leave(fingerprint, place);
            }
        }
        index
    }
}

/// Adds to what is sorted in runs.
fn push<T: Ord>(all: &mut Vec<T>, one: T) {
    all.push(one);
    if all.len().is_multiple_of(RUN) {
        let begin = all.len() - RUN;
        all[begin..].sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Contact, Reading, Version};
    use crate::ids::OriginId;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u8),
        Remove(u8),
    }

    /// Of few keys and of fewer fingerprints, so that some are shared.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let insert = (0_u8..12, 0_u8..9).prop_map(|(key, of)| Step::Insert(key, of));
        let step = prop_oneof![2 => insert, 1 => (0_u8..12).prop_map(Step::Remove)];
        prop::collection::vec(step, 0..60)
    }

    fn key(number: u8) -> Key {
        format!("k{number:02}").parse().unwrap()
    }

    fn row(fingerprint: impl Into<u64>) -> Row {
        Row {
            version: Version {
                reading: Reading::default(),
                origin: OriginId::from_bytes([0; 16]),
            },
            contact: Contact::NEVER,
            fingerprint: Fingerprint(fingerprint.into()),
            is_live: true,
            content: 0,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_by_key_and_knows_the_last_row_of_each_fingerprint(steps in steps()) {
            let mut index = Index::new(KeyHash::default());
            let mut rows = BTreeMap::new();
            let mut last = BTreeMap::new();
            for step in steps {
                let old = match step {
                    Step::Insert(number, of) => {
                        let old = rows.insert(key(number), row(of));
                        prop_assert_eq!(index.insert(key(number), row(of)), old);
                        old.map(|old| (number, old))
                    }
                    Step::Remove(number) => {
                        let old = rows.remove_entry(&key(number));
                        prop_assert_eq!(index.remove(&key(number)), old.clone());
                        old.map(|(_, old)| (number, old))
                    }
                };
                if let Some((number, old)) = old
                    && last.get(&old.fingerprint) == Some(&key(number))
                {
                    last.remove(&old.fingerprint);
                }
                if let Step::Insert(number, of) = step {
                    last.insert(row(of).fingerprint, key(number));
                }
                prop_assert_eq!(index.len(), rows.len());
                prop_assert!(index.after(None).eq(&rows));
                prop_assert!(index.after(Some(&key(6))).eq(rows.range(key(7)..)));
                prop_assert!(index.fingerprints_from(Fingerprint(0)).eq(last.keys().copied()));
                prop_assert!(last.iter().all(|(of, key)| index.key_of(*of) == Some(key)));
                prop_assert!((0..12).all(|it| index.get(&key(it)) == rows.get(&key(it))));
            }
        }

        #[test]
        fn one_that_is_filled_is_as_one_that_was_written(
            rows in prop::collection::vec((0_u8..40, 0_u8..60), 0..80),
        ) {
            let mut index = Index::new(KeyHash::default());
            let mut filling = Filling::new(KeyHash::default(), 9);
            for (number, of) in rows {
                // No two keys share one: which of two that do is found is left open.
                let of = u64::from(number) << 8 | u64::from(of);
                let old = index.insert(key(number), row(of));
                prop_assert_eq!(filling.insert(key(number), row(of)), old);
            }
            let filled = filling.finish();
            prop_assert!(filled.after(None).eq(index.after(None)));
            prop_assert_eq!(filled.rows, index.rows);
            prop_assert_eq!(filled.places, index.places);
        }
    }
}
