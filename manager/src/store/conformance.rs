//! What every store must do, as tests against [`Store`] alone.
//!
//! A store joins with a [`Ground`] to open it on and `conformance::suite!(ItsGround);`.

mod floors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use peer_table::entry::CorruptEntry;
use peer_table::{
    AuthorityId, Binding, Body, ClusterId, Contact, Content, Entry, FingerprintKey, Key, OriginId,
    Reading, StoreId, TableName, Version,
};

use super::{Commit, Draw, FORMAT, Scanned, Store, StoreError, Stored};
pub(crate) use floors::{
    a_corrupt_record_can_leave, a_reader_sees_a_removal_with_what_came_with_it,
    a_reader_sees_the_store_before_it_starts_over_or_after,
    a_record_that_is_not_there_is_as_good_as_removed,
    a_store_does_not_start_over_under_ids_that_it_had, a_store_starts_over_as_often_as_it_has_to,
    a_store_that_starts_over_is_empty_and_can_be_used_at_once,
    an_opening_is_not_renewed_under_an_id_that_it_had,
    an_opening_that_is_renewed_keeps_all_but_its_id_and_its_last_reading,
    records_leave_in_one_commit_with_others_that_come, removal,
    what_is_kept_of_floors_reads_back_at_each_opening,
};

/// A place where a store is kept. Each test has one of its own, empty at first.
#[async_trait]
pub(crate) trait Ground: Send + Sync + Sized {
    /// A place where there is no store yet.
    async fn new() -> Self;

    /// Opens the store that is there, or makes it.
    async fn open(&self, draw: Draw) -> Result<Arc<dyn Store>, StoreError>;

    /// Ends the manager of an open store as a kill -9 would: nothing is said to the store.
    async fn kill(&self, store: Arc<dyn Store>);

    /// Puts a value under a key of a table, past the store. It is not open meanwhile.
    async fn put_raw(&self, table: &TableName, key: &[u8], value: &[u8]);

    /// Changes the format that the store says it has. It is not open meanwhile.
    async fn put_format(&self, format: u32);
}

/// Runs all tests of this module with a [`Ground`].
macro_rules! suite {
    ($ground:ty) => {
        $crate::store::conformance::suite! {
            $ground:
            what_was_committed_reads_back
            records_come_in_the_order_of_the_keys_asked_for
            the_last_commit_of_a_key_is_the_one_that_reads_back
            a_tombstone_reads_back_with_its_contact
            tables_keep_their_records_apart
            a_table_never_written_to_is_empty
            a_key_and_a_record_as_long_as_allowed_read_back
            a_scan_gives_every_record_once_in_bounded_parts
            a_scan_beside_writes_gives_what_stays_exactly_once
            a_reader_sees_all_of_a_commit_or_nothing
            what_was_committed_survives_a_kill
            many_commits_are_all_there_after_a_kill
            the_ids_of_store_and_peer_stay_and_each_opening_has_its_own
            an_opening_is_kept_although_nothing_was_written
            an_id_of_an_opening_is_not_taken_twice
            the_last_reading_is_kept_and_never_goes_down
            a_reading_is_kept_without_a_record
            a_store_is_bound_until_it_is_bound_anew
            a_store_takes_over_a_binding_just_if_it_has_none
            a_store_of_one_cluster_is_not_opened_for_another
            corrupt_records_are_reported_and_hide_no_other
            a_corrupt_record_can_be_overwritten
            a_second_opening_is_refused_until_the_first_is_gone
            a_newer_format_is_refused_and_left_as_it_is
            a_commit_that_nobody_waits_for_ends_before_the_next_begins
            records_leave_in_one_commit_with_others_that_come
            a_record_that_is_not_there_is_as_good_as_removed
            a_corrupt_record_can_leave
            a_reader_sees_a_removal_with_what_came_with_it
            what_is_kept_of_floors_reads_back_at_each_opening
            a_store_that_starts_over_is_empty_and_can_be_used_at_once
            a_store_starts_over_as_often_as_it_has_to
            a_store_does_not_start_over_under_ids_that_it_had
            a_reader_sees_the_store_before_it_starts_over_or_after
            an_opening_that_is_renewed_keeps_all_but_its_id_and_its_last_reading
            an_opening_is_not_renewed_under_an_id_that_it_had
        }
    };
    ($ground:ty: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let ground = <$ground as $crate::store::conformance::Ground>::new().await;
                $crate::store::conformance::$name(&ground).await;
            }
        )*
    };
}
pub(crate) use suite;

/// The draw of the opening with this number.
pub(crate) fn draw(number: u8) -> Draw {
    Draw {
        store: StoreId::from_bytes([number; 16]),
        origin: OriginId::from_bytes([number; 16]),
        peer_id: key(usize::from(number)),
        cluster: None,
        binding: None,
    }
}

pub(crate) fn key(number: usize) -> Key {
    format!("key-{number:06}").parse().expect("a key")
}

pub(crate) fn peers() -> TableName {
    "peers".parse().expect("a table's name")
}

pub(crate) fn entry(reading: u64, content: &[u8]) -> Entry {
    Entry {
        version: Version {
            reading: Reading::from_u64(reading),
            origin: OriginId::from_bytes([7; 16]),
        },
        contact: Contact::from_steps(5),
        body: Body::Live(Content::from(content)),
    }
}

/// The transaction that writes these records to `peers`.
pub(crate) fn commit(records: impl IntoIterator<Item = (Key, Entry)>) -> Commit {
    Commit {
        records: vec![(peers(), Arc::new(records.into_iter().collect()))],
        ..Commit::default()
    }
}

fn stamped(reading: u64) -> Commit {
    Commit {
        stamped: Some(Reading::from_u64(reading)),
        ..commit([(key(0), entry(reading, b"own"))])
    }
}

pub(crate) async fn read(store: &dyn Store, number: usize) -> Option<Stored> {
    let mut stored = store
        .get_many(&peers(), &[key(number)])
        .await
        .expect("reads");
    assert_eq!(stored.len(), 1);
    stored.remove(0)
}

/// All of a table, with no key twice.
pub(crate) async fn scan(store: &dyn Store, table: &TableName) -> BTreeMap<String, Stored> {
    let mut all = BTreeMap::new();
    let mut cursor = None;
    loop {
        let (part, next) = store.scan(table, cursor).await.expect("scans");
        assert!(
            part.len() <= 2_000,
            "{} records are too many for one part",
            part.len()
        );
        for Scanned { key, value } in part {
            let key = String::from_utf8_lossy(&key).into_owned();
            let stored = Stored::from_value(&value);
            assert_eq!(all.insert(key.clone(), stored), None, "{key} came twice");
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

async fn open(ground: &impl Ground, number: u8) -> Arc<dyn Store> {
    ground.open(draw(number)).await.expect("opens")
}

pub(crate) async fn what_was_committed_reads_back(ground: &impl Ground) {
    let store = open(ground, 1).await;
    assert_eq!(read(&*store, 1).await, None);
    store
        .commit(commit([(key(1), entry(1, b"one"))]))
        .await
        .expect("commits");
    assert_eq!(
        read(&*store, 1).await,
        Some(Stored::Entry(entry(1, b"one")))
    );
    let all = scan(&*store, &peers()).await;
    assert_eq!(
        all,
        BTreeMap::from([(key(1).to_string(), Stored::Entry(entry(1, b"one")))])
    );
    drop(store);
    let store = open(ground, 2).await;
    assert_eq!(
        read(&*store, 1).await,
        Some(Stored::Entry(entry(1, b"one")))
    );
}

pub(crate) async fn records_come_in_the_order_of_the_keys_asked_for(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let number = |number: usize| entry(number as u64, b"content");
    store
        .commit(commit((0..500).map(|n| (key(n), number(n)))))
        .await
        .expect("commits");
    for asked in [
        vec![],
        vec![3, 1, 999, 3, 2],
        (0..600).rev().collect::<Vec<_>>(),
    ] {
        let keys: Vec<_> = asked.iter().copied().map(key).collect();
        let stored = store.get_many(&peers(), &keys).await.expect("reads");
        let wanted: Vec<_> = asked
            .iter()
            .map(|&n| (n < 500).then(|| Stored::Entry(number(n))))
            .collect();
        assert_eq!(stored, wanted);
    }
}

pub(crate) async fn the_last_commit_of_a_key_is_the_one_that_reads_back(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let contents = [
        b"longer than the next".as_slice(),
        b"short",
        b"",
        b"as long again as this",
    ];
    for (reading, content) in contents.iter().enumerate() {
        // Which record wins is not for the store to say: a lower version overwrites, too.
        let entry = entry(9 - reading as u64, content);
        store
            .commit(commit([(key(1), entry.clone())]))
            .await
            .expect("commits");
        assert_eq!(read(&*store, 1).await, Some(Stored::Entry(entry)));
    }
    assert_eq!(scan(&*store, &peers()).await.len(), 1);
}

pub(crate) async fn a_tombstone_reads_back_with_its_contact(ground: &impl Ground) {
    let store = open(ground, 1).await;
    store
        .commit(commit([(key(1), entry(1, b"live"))]))
        .await
        .expect("commits");
    let tombstone = Entry {
        body: Body::Tombstone,
        contact: Contact::from_steps(u32::MAX),
        ..entry(u64::MAX, b"")
    };
    store
        .commit(commit([(key(1), tombstone.clone())]))
        .await
        .expect("commits");
    ground.kill(store).await;
    let store = open(ground, 2).await;
    assert_eq!(read(&*store, 1).await, Some(Stored::Entry(tombstone)));
}

pub(crate) async fn tables_keep_their_records_apart(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let tables: [TableName; 3] =
        ["peers", "state", "meta"].map(|name| name.parse().expect("a table's name"));
    let records = tables.iter().zip(1..).map(|(table, reading)| {
        (
            table.clone(),
            Arc::new(
                [(key(1), entry(reading, table.as_str().as_bytes()))]
                    .into_iter()
                    .collect(),
            ),
        )
    });
    let commit = Commit {
        records: records.collect(),
        ..Commit::default()
    };
    store.commit(commit).await.expect("commits");
    drop(store);
    let store = open(ground, 2).await;
    for (table, reading) in tables.iter().zip(1..) {
        let wanted = Stored::Entry(entry(reading, table.as_str().as_bytes()));
        assert_eq!(
            scan(&*store, table).await,
            BTreeMap::from([(key(1).to_string(), wanted.clone())])
        );
        let stored = store.get_many(table, &[key(1)]).await.expect("reads");
        assert_eq!(stored, [Some(wanted)]);
    }
}

pub(crate) async fn a_table_never_written_to_is_empty(ground: &impl Ground) {
    let store = open(ground, 1).await;
    assert_eq!(
        store.scan(&peers(), None).await.expect("scans"),
        (vec![], None)
    );
    assert_eq!(
        store
            .get_many(&peers(), &[key(1), key(2)])
            .await
            .expect("reads"),
        [None, None]
    );
}

pub(crate) async fn a_key_and_a_record_as_long_as_allowed_read_back(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let long: Key = "k".repeat(128).parse().expect("a key");
    let odd: Key = "A-z.0:9_".parse().expect("a key");
    let content: Vec<u8> = (0..16_384_u32).map(|n| n.to_le_bytes()[0] ^ 0xa5).collect();
    let mut records: BTreeMap<_, _> = (0..200)
        .map(|number| (key(number), entry(number as u64, &content)))
        .collect();
    records.insert(long, entry(1, &content));
    records.insert(odd, entry(2, b""));
    store
        .commit(commit(records.clone()))
        .await
        .expect("commits");
    ground.kill(store).await;
    let store = open(ground, 2).await;
    let wanted: BTreeMap<_, _> = records
        .into_iter()
        .map(|(key, entry)| (key.to_string(), Stored::Entry(entry)))
        .collect();
    assert!(
        scan(&*store, &peers()).await == wanted,
        "all records as they were written"
    );
}

pub(crate) async fn a_scan_gives_every_record_once_in_bounded_parts(ground: &impl Ground) {
    let store = open(ground, 1).await;
    for count in [999_usize, 1_000, 1_001, 3_000] {
        let records = (0..count).map(|number| (key(number), entry(1, b"content")));
        store.commit(commit(records)).await.expect("commits");
        let all = scan(&*store, &peers()).await;
        let wanted: BTreeSet<_> = (0..count).map(|number| key(number).to_string()).collect();
        assert_eq!(all.into_keys().collect::<BTreeSet<_>>(), wanted);
    }
}

pub(crate) async fn a_scan_beside_writes_gives_what_stays_exactly_once(ground: &impl Ground) {
    let store = open(ground, 1).await;
    // Every other number, so that there is room between them.
    let stays: Vec<_> = (0..6_000).step_by(2).map(key).collect();
    let records = stays.iter().map(|key| (key.clone(), entry(1, b"content")));
    store.commit(commit(records)).await.expect("commits");
    let mut seen = Vec::new();
    let (mut cursor, mut parts) = (None, 0);
    loop {
        let (part, next) = store.scan(&peers(), cursor).await.expect("scans");
        let keys = part
            .into_iter()
            .map(|scanned| String::from_utf8(scanned.key));
        seen.extend(keys.map(|key| key.expect("keys as they were written")));
        let Some(next) = next else { break };
        cursor = Some(next);
        parts += 1;
        let written = (0..6_000).skip(parts).step_by(7).map(|number| {
            (
                key(number),
                entry(
                    parts as u64,
                    format!("{parts}").repeat(parts * 9).as_bytes(),
                ),
            )
        });
        store.commit(commit(written)).await.expect("commits");
    }
    assert!(parts > 0, "more than one part");
    let count = seen.len();
    let seen: BTreeSet<_> = seen.into_iter().collect();
    assert_eq!(seen.len(), count, "none twice");
    assert!(
        stays.iter().all(|key| seen.contains(key.as_str())),
        "none missing"
    );
}

pub(crate) async fn a_reader_sees_all_of_a_commit_or_nothing(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let keys: Vec<_> = (0..50).map(key).collect();
    let write = |reading: u64| {
        commit(
            keys.iter()
                .map(move |key| (key.clone(), entry(reading, &reading.to_le_bytes()))),
        )
    };
    store.commit(write(0)).await.expect("commits");
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, keys, done) = (Arc::clone(&store), keys.clone(), Arc::clone(&done));
        async move {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                // Few keys and many may be read in different ways.
                for keys in [&keys[..], &keys[..5]] {
                    let stored = store.get_many(&peers(), keys).await.expect("reads");
                    let readings: BTreeSet<_> = stored
                        .into_iter()
                        .map(|stored| {
                            let entry = stored.and_then(Stored::entry).expect("a record");
                            entry.version.reading.as_u64()
                        })
                        .collect();
                    assert_eq!(readings.len(), 1, "a part of a commit: {readings:?}");
                    let reading = readings.into_iter().next().unwrap_or_default();
                    assert!(reading >= last, "what was seen is not taken back");
                    last = reading;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for reading in 1..100 {
        store.commit(write(reading)).await.expect("commits");
        let seen = read(&*store, 7)
            .await
            .and_then(Stored::entry)
            .expect("a record");
        assert_eq!(
            seen.version.reading.as_u64(),
            reading,
            "a commit is seen once it is answered"
        );
    }
    done.store(true, Ordering::Relaxed);
    reader.await.expect("the reader saw only whole commits");
}

pub(crate) async fn what_was_committed_survives_a_kill(ground: &impl Ground) {
    let mut wanted = BTreeMap::new();
    for number in 1..6 {
        let store = open(ground, number).await;
        assert_eq!(scan(&*store, &peers()).await, wanted);
        let entry = entry(u64::from(number), b"content");
        wanted.insert(
            key(usize::from(number)).to_string(),
            Stored::Entry(entry.clone()),
        );
        store
            .commit(commit([(key(usize::from(number)), entry)]))
            .await
            .expect("commits");
        ground.kill(store).await;
    }
}

pub(crate) async fn many_commits_are_all_there_after_a_kill(ground: &impl Ground) {
    let store = open(ground, 1).await;
    for number in 0..300 {
        let write = commit([
            (key(number), entry(1, b"new")),
            (key(0), entry(number as u64, b"0")),
        ]);
        store.commit(write).await.expect("commits");
    }
    ground.kill(store).await;
    let store = open(ground, 2).await;
    assert_eq!(scan(&*store, &peers()).await.len(), 300);
    assert_eq!(
        read(&*store, 0).await,
        Some(Stored::Entry(entry(299, b"0")))
    );
}

pub(crate) async fn the_ids_of_store_and_peer_stay_and_each_opening_has_its_own(
    ground: &impl Ground,
) {
    let mut retired = Vec::new();
    for number in 1..8 {
        let store = open(ground, number).await;
        let opening = store.opening().clone();
        assert_eq!(opening.store, draw(1).store);
        assert_eq!(opening.peer_id, draw(1).peer_id);
        assert_eq!(opening.origin, draw(number).origin);
        assert_eq!(opening.retired, retired);
        retired.push(opening.origin);
        if number % 2 == 0 {
            store
                .commit(commit([(key(1), entry(1, b"x"))]))
                .await
                .expect("commits");
            ground.kill(store).await;
        }
    }
}

pub(crate) async fn an_opening_is_kept_although_nothing_was_written(ground: &impl Ground) {
    for number in 1..4 {
        let store = open(ground, number).await;
        ground.kill(store).await;
    }
    let store = open(ground, 4).await;
    assert_eq!(
        store.opening().retired,
        [1, 2, 3].map(|number| draw(number).origin)
    );
}

pub(crate) async fn an_id_of_an_opening_is_not_taken_twice(ground: &impl Ground) {
    drop(open(ground, 1).await);
    drop(open(ground, 2).await);
    for number in [1, 2] {
        let refused = ground.open(draw(number)).await.err();
        assert!(
            matches!(refused, Some(StoreError::Open { .. })),
            "{refused:?}"
        );
    }
    let store = open(ground, 3).await;
    assert_eq!(
        store.opening().retired,
        [1, 2].map(|number| draw(number).origin)
    );
}

pub(crate) async fn the_last_reading_is_kept_and_never_goes_down(ground: &impl Ground) {
    let store = open(ground, 1).await;
    assert_eq!(store.opening().last_reading, Reading::default());
    store.commit(stamped(50)).await.expect("commits");
    store.commit(stamped(40)).await.expect("commits");
    store
        .commit(commit([(key(1), entry(90, b"from a peer"))]))
        .await
        .expect("commits");
    ground.kill(store).await;
    let store = open(ground, 2).await;
    assert_eq!(store.opening().last_reading, Reading::from_u64(50));
    store.commit(stamped(45)).await.expect("commits");
    ground.kill(store).await;
    let store = open(ground, 3).await;
    assert_eq!(store.opening().last_reading, Reading::from_u64(50));
    store.commit(stamped(u64::MAX)).await.expect("commits");
    drop(store);
    assert_eq!(
        open(ground, 4).await.opening().last_reading,
        Reading::from_u64(u64::MAX)
    );
}

pub(crate) async fn a_reading_is_kept_without_a_record(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let commit = Commit {
        stamped: Some(Reading::from_u64(7)),
        ..Commit::default()
    };
    store.commit(commit).await.expect("commits");
    store
        .commit(Commit::default())
        .await
        .expect("commits nothing");
    drop(store);
    let store = open(ground, 2).await;
    assert_eq!(store.opening().last_reading, Reading::from_u64(7));
    assert!(scan(&*store, &peers()).await.is_empty());
}

pub(crate) fn binding(number: u8) -> Binding {
    Binding {
        authority: AuthorityId::from_bytes([number; 16]),
        fingerprint_key: FingerprintKey::from_bytes([number ^ 0xf0; 16]),
    }
}

pub(crate) async fn a_store_is_bound_until_it_is_bound_anew(ground: &impl Ground) {
    let store = open(ground, 1).await;
    assert_eq!(store.opening().binding, None);
    let bound = |number| Commit {
        binding: Some(binding(number)),
        ..Commit::default()
    };
    store.commit(bound(1)).await.expect("commits");
    store.commit(stamped(3)).await.expect("commits");
    ground.kill(store).await;
    for number in 2..4 {
        let store = open(ground, number).await;
        assert_eq!(store.opening().binding, Some(binding(1)));
        assert_eq!(store.opening().last_reading, Reading::from_u64(3));
        ground.kill(store).await;
    }
    let store = open(ground, 4).await;
    let both = Commit {
        binding: Some(binding(2)),
        ..stamped(7)
    };
    store.commit(both).await.expect("commits");
    ground.kill(store).await;
    let store = open(ground, 5).await;
    assert_eq!(store.opening().binding, Some(binding(2)));
    assert_eq!(
        read(&*store, 0).await,
        Some(Stored::Entry(entry(7, b"own")))
    );
}

pub(crate) async fn a_store_takes_over_a_binding_just_if_it_has_none(ground: &impl Ground) {
    let with = |number, bound| Draw {
        binding: Some(binding(bound)),
        ..draw(number)
    };
    drop(open(ground, 1).await);
    for (number, bound) in [(2, 1), (3, 2)] {
        let store = ground.open(with(number, bound)).await.expect("opens");
        assert_eq!(store.opening().binding, Some(binding(1)));
        ground.kill(store).await;
    }
    assert_eq!(open(ground, 4).await.opening().binding, Some(binding(1)));
}

pub(crate) async fn a_store_of_one_cluster_is_not_opened_for_another(ground: &impl Ground) {
    let of = |number, cluster: &str| Draw {
        cluster: Some(cluster.parse().expect("a cluster id")),
        ..draw(number)
    };
    // One of an earlier build does not say of which it is.
    drop(open(ground, 1).await);
    for number in [2, 3] {
        let store = ground.open(of(number, "prod")).await.expect("opens");
        assert_eq!(
            store.opening().cluster.as_ref().map(ClusterId::as_str),
            Some("prod")
        );
        ground.kill(store).await;
    }
    let refused = ground.open(of(4, "staging")).await.err();
    let Some(StoreError::Open { problem, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        problem.contains("prod") && problem.contains("staging"),
        "{problem}"
    );
    let store = ground.open(of(5, "prod")).await.expect("opens");
    let draw = of(6, "elsewhere");
    let begun = store.start_over(draw, Vec::new()).await;
    let begun = begun.expect("starts over");
    assert_eq!(begun.cluster.as_ref().map(ClusterId::as_str), Some("prod"));
    ground.kill(store).await;
    assert!(ground.open(of(7, "staging")).await.is_err());
}

pub(crate) async fn corrupt_records_are_reported_and_hide_no_other(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let good = |number: usize| (key(number), entry(number as u64, b"good"));
    store
        .commit(commit((0..2_000).map(good)))
        .await
        .expect("commits");
    drop(store);
    let foreign = [9; 80];
    ground
        .put_raw(&peers(), key(3).as_str().as_bytes(), b"")
        .await;
    ground
        .put_raw(&peers(), key(5).as_str().as_bytes(), &foreign)
        .await;
    ground
        .put_raw(&peers(), b"no key/", &entry(1, b"good").to_stored())
        .await;
    ground.put_raw(&peers(), b"", b"x").await;
    ground
        .put_raw(
            &peers(),
            b"key-000999\xff\xfe",
            &entry(2, b"good").to_stored(),
        )
        .await;
    let store = open(ground, 2).await;
    let all = scan(&*store, &peers()).await;
    assert_eq!(all.len(), 2_003);
    let cut = Stored::Corrupt(CorruptEntry::Truncated { bytes: 0 });
    let unknown = Stored::Corrupt(CorruptEntry::Format { format: 9 });
    assert_eq!(all.get(key(3).as_str()), Some(&cut));
    assert_eq!(all.get(key(5).as_str()), Some(&unknown));
    assert_eq!(all.get("no key/"), Some(&Stored::Entry(entry(1, b"good"))));
    assert_eq!(
        all.get(""),
        Some(&Stored::Corrupt(CorruptEntry::Truncated { bytes: 1 }))
    );
    let readable = all
        .values()
        .filter(|stored| matches!(stored, Stored::Entry(_)))
        .count();
    assert_eq!(readable, 2_000);
    let stored = store
        .get_many(&peers(), &[key(2), key(3), key(4), key(5)])
        .await
        .expect("reads");
    let good = |number| Some(Stored::Entry(good(number).1));
    assert_eq!(stored, [good(2), Some(cut), good(4), Some(unknown)]);
}

pub(crate) async fn a_corrupt_record_can_be_overwritten(ground: &impl Ground) {
    drop(open(ground, 1).await);
    ground
        .put_raw(&peers(), key(1).as_str().as_bytes(), b"broken")
        .await;
    let store = open(ground, 2).await;
    assert!(matches!(read(&*store, 1).await, Some(Stored::Corrupt(_))));
    store
        .commit(commit([(key(1), entry(1, b"healed"))]))
        .await
        .expect("commits");
    assert_eq!(
        read(&*store, 1).await,
        Some(Stored::Entry(entry(1, b"healed")))
    );
}

pub(crate) async fn a_second_opening_is_refused_until_the_first_is_gone(ground: &impl Ground) {
    let first = open(ground, 1).await;
    for number in 2..5 {
        let refused = ground.open(draw(number)).await.err();
        assert!(
            matches!(refused, Some(StoreError::Locked { .. })),
            "{refused:?}"
        );
    }
    first
        .commit(commit([(key(1), entry(1, b"still"))]))
        .await
        .expect("commits");
    drop(first);
    let second = open(ground, 5).await;
    assert_eq!(
        second.opening().retired,
        [draw(1).origin],
        "who was refused left no trace"
    );
    ground.kill(second).await;
    let third = open(ground, 6).await;
    assert_eq!(
        read(&*third, 1).await,
        Some(Stored::Entry(entry(1, b"still")))
    );
}

pub(crate) async fn a_newer_format_is_refused_and_left_as_it_is(ground: &impl Ground) {
    let store = open(ground, 1).await;
    store.commit(stamped(5)).await.expect("commits");
    drop(store);
    ground.put_format(FORMAT + 1).await;
    for number in 2..4 {
        match ground.open(draw(number)).await.err() {
            Some(StoreError::NewerFormat { found, .. }) => assert_eq!(found, FORMAT + 1),
            other => panic!("{other:?}"),
        }
    }
    ground.put_format(FORMAT).await;
    let store = open(ground, 4).await;
    assert_eq!(store.opening().retired, [draw(1).origin]);
    assert_eq!(store.opening().last_reading, Reading::from_u64(5));
    assert_eq!(
        read(&*store, 0).await,
        Some(Stored::Entry(entry(5, b"own")))
    );
}

pub(crate) async fn a_commit_that_nobody_waits_for_ends_before_the_next_begins(
    ground: &impl Ground,
) {
    let store = open(ground, 1).await;
    let write =
        |reading| commit((0..20).map(move |number| (key(number), entry(reading, b"content"))));
    for reading in 1..20 {
        tokio::select! {
            biased;
            done = store.commit(write(reading)) => done.expect("commits"),
            () = std::future::ready(()) => {}
        }
    }
    store.commit(write(99)).await.expect("commits");
    let all = scan(&*store, &peers()).await;
    assert_eq!(all.len(), 20);
    let last = Stored::Entry(entry(99, b"content"));
    assert!(all.values().all(|stored| *stored == last), "{all:?}");
}
