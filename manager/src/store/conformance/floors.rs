//! What every store must do for floors: let records leave, keep what it is given, and start over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peer_table::{Opening, Reading};

use super::{
    Commit, Ground, Store, StoreError, Stored, binding, commit, draw, entry, key, open, peers,
    read, scan, stamped,
};

/// The transaction that removes these records from `peers`.
pub(crate) fn removal(numbers: impl IntoIterator<Item = usize>) -> Commit {
    Commit {
        removed: vec![(peers(), numbers.into_iter().map(key).collect())],
        ..Commit::default()
    }
}

/// The transaction that keeps this of floors.
pub(crate) fn floors(bytes: &[u8]) -> Commit {
    Commit {
        floors: Some(bytes.to_vec()),
        ..Commit::default()
    }
}

/// The numbers of the records that are there.
async fn numbers(store: &dyn Store) -> Vec<usize> {
    let all = scan(store, &peers()).await.into_keys();
    let number = |key: String| {
        let number = key.strip_prefix("key-")?;
        number.parse().ok()
    };
    all.map(|key| number(key).expect("a key of these tests"))
        .collect()
}

pub(crate) async fn records_leave_in_one_commit_with_others_that_come(ground: &impl Ground) {
    let store = open(ground, 1).await;
    let records = (0..10).map(|number| (key(number), entry(1, b"old")));
    store.commit(commit(records)).await.expect("commits");
    let both = Commit {
        records: vec![(
            peers(),
            Arc::new(
                [(key(1), entry(2, b"new")), (key(10), entry(2, b"new"))]
                    .into_iter()
                    .collect(),
            ),
        )],
        stamped: Some(Reading::from_u64(2)),
        binding: Some(binding(1)),
        floors: Some(b"floors".to_vec()),
        ..removal([2, 3])
    };
    store.commit(both).await.expect("commits");
    let wanted = [0, 1, 4, 5, 6, 7, 8, 9, 10];
    assert_eq!(numbers(&*store).await, wanted);
    assert_eq!(read(&*store, 2).await, None);
    assert_eq!(store.count(&peers()).await.expect("counts"), Some(9));
    store.check().await.expect("as it was left");
    ground.kill(store).await;
    let store = open(ground, 2).await;
    assert_eq!(numbers(&*store).await, wanted);
    assert_eq!(
        read(&*store, 1).await,
        Some(Stored::Entry(entry(2, b"new")))
    );
    assert_eq!(store.opening().last_reading, Reading::from_u64(2));
    assert_eq!(store.opening().binding, Some(binding(1)));
    assert_eq!(store.opening().floors, b"floors");
    // What has left may come again.
    store
        .commit(commit([(key(2), entry(3, b"again"))]))
        .await
        .expect("commits");
    store.commit(removal(3..11)).await.expect("commits");
    assert_eq!(numbers(&*store).await, [0, 1, 2]);
    store.check().await.expect("as it was left");
}

pub(crate) async fn a_record_that_is_not_there_is_as_good_as_removed(ground: &impl Ground) {
    let store = open(ground, 1).await;
    store.commit(removal([1])).await.expect("commits");
    assert_eq!(store.count(&peers()).await.expect("counts"), Some(0));
    store
        .commit(commit([(key(1), entry(1, b"content"))]))
        .await
        .expect("commits");
    for removed in [removal([0, 2]), removal([])] {
        store.commit(removed).await.expect("commits");
        store.check().await.expect("as it was left");
    }
    let elsewhere = Commit {
        removed: vec![("files".parse().expect("a table"), BTreeSet::from([key(1)]))],
        ..Commit::default()
    };
    store.commit(elsewhere).await.expect("commits");
    for _ in 0..2 {
        assert_eq!(numbers(&*store).await, [1]);
        store.commit(removal([0])).await.expect("commits");
    }
    store.commit(removal([1])).await.expect("commits");
    store.commit(removal([1])).await.expect("commits");
    assert!(numbers(&*store).await.is_empty());
    store.check().await.expect("as it was left");
}

pub(crate) async fn a_corrupt_record_can_leave(ground: &impl Ground) {
    drop(open(ground, 1).await);
    ground
        .put_raw(&peers(), key(1).as_str().as_bytes(), b"broken")
        .await;
    let store = open(ground, 2).await;
    assert!(matches!(read(&*store, 1).await, Some(Stored::Corrupt(_))));
    store.commit(removal([1])).await.expect("commits");
    assert_eq!(read(&*store, 1).await, None);
    store.check().await.expect("as it was left");
}

pub(crate) async fn a_reader_sees_a_removal_with_what_came_with_it(ground: &impl Ground) {
    let store = open(ground, 1).await;
    // Of two records there is always just one.
    let swap = |comes: usize| Commit {
        removed: removal([1 - comes]).removed,
        ..commit([(key(comes), entry(1, b"content"))])
    };
    store.commit(swap(0)).await.expect("commits");
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                let stored = store.get_many(&peers(), &[key(0), key(1)]).await;
                let stored = stored.expect("reads");
                assert_eq!(stored.iter().flatten().count(), 1, "{stored:?}");
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 1..100 {
        store.commit(swap(round % 2)).await.expect("commits");
        assert_eq!(read(&*store, 1 - round % 2).await, None);
    }
    done.store(true, Ordering::Relaxed);
    reader.await.expect("the reader saw only whole commits");
}

pub(crate) async fn what_is_kept_of_floors_reads_back_at_each_opening(ground: &impl Ground) {
    let store = open(ground, 1).await;
    assert!(store.opening().floors.is_empty());
    ground.kill(store).await;
    let store = open(ground, 2).await;
    assert!(store.opening().floors.is_empty());
    let long: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    store.commit(floors(b"earlier")).await.expect("commits");
    store.commit(floors(&long)).await.expect("commits");
    ground.kill(store).await;
    for number in 3..6 {
        let store = open(ground, number).await;
        assert!(store.opening().floors == long, "all of it");
        // What comes without it leaves it.
        store.commit(stamped(number.into())).await.expect("commits");
        ground.kill(store).await;
    }
    let store = open(ground, 6).await;
    store.commit(floors(b"short\r\n\0")).await.expect("commits");
    drop(store);
    let store = open(ground, 7).await;
    assert_eq!(store.opening().floors, b"short\r\n\0");
    assert_eq!(store.opening().last_reading, Reading::from_u64(5));
    store.commit(floors(b"")).await.expect("commits");
    drop(store);
    assert!(open(ground, 8).await.opening().floors.is_empty());
}

/// A store with all that a store can have.
async fn full(ground: &impl Ground) -> Arc<dyn Store> {
    drop(open(ground, 1).await);
    let store = open(ground, 2).await;
    let records = (0..2_500).map(|number| (key(number), entry(1, b"old")));
    let all = Commit {
        stamped: Some(Reading::from_u64(50)),
        binding: Some(binding(1)),
        floors: Some(b"floors".to_vec()),
        ..commit(records)
    };
    store.commit(all).await.expect("commits");
    store
}

/// What a store with all that it can have becomes under the ids with this number.
fn over(number: u8) -> Opening {
    Opening {
        last_reading: Reading::from_u64(50),
        peer_id: draw(1).peer_id,
        binding: Some(binding(1)),
        ..Opening::first(draw(number))
    }
}

pub(crate) async fn a_store_that_starts_over_is_empty_and_can_be_used_at_once(
    ground: &impl Ground,
) {
    let store = full(ground).await;
    let opening = store.start_over(draw(3), b"new floors".to_vec());
    let opening = opening.await.expect("starts over");
    let wanted = Opening {
        floors: b"new floors".to_vec(),
        ..over(3)
    };
    assert_eq!(opening, wanted);
    store.check().await.expect("as it was left");
    assert_eq!(store.count(&peers()).await.expect("counts"), Some(0));
    assert_eq!(read(&*store, 1).await, None);
    assert!(numbers(&*store).await.is_empty());
    store
        .commit(commit([(key(7), entry(60, b"new"))]))
        .await
        .expect("commits");
    store.check().await.expect("as it was left");
    assert_eq!(numbers(&*store).await, [7]);
    assert_eq!(store.count(&peers()).await.expect("counts"), Some(1));
    ground.kill(store).await;
    let store = open(ground, 4).await;
    assert_eq!(
        store.opening().clone(),
        wanted.next(draw(4).origin).expect("a new id")
    );
    assert_eq!(numbers(&*store).await, [7]);
    store.check().await.expect("as it was left");
}

pub(crate) async fn a_store_starts_over_as_often_as_it_has_to(ground: &impl Ground) {
    let store = full(ground).await;
    for number in [3, 4] {
        let opening = store
            .start_over(draw(number), Vec::new())
            .await
            .expect("starts over");
        assert_eq!(opening, over(number));
    }
    store
        .commit(commit([(key(7), entry(60, b"new"))]))
        .await
        .expect("commits");
    store.commit(stamped(70)).await.expect("commits");
    store.commit(floors(b"new")).await.expect("commits");
    let opening = store
        .start_over(draw(5), Vec::new())
        .await
        .expect("starts over");
    let wanted = Opening {
        last_reading: Reading::from_u64(70),
        ..over(5)
    };
    assert_eq!(opening, wanted);
    ground.kill(store).await;
    let store = open(ground, 6).await;
    let wanted = wanted.next(draw(6).origin).expect("a new id");
    assert_eq!(store.opening(), &wanted);
    assert!(numbers(&*store).await.is_empty());
    assert_eq!(
        store
            .start_over(draw(7), Vec::new())
            .await
            .expect("starts over")
            .store,
        draw(7).store
    );
    assert!(numbers(&*store).await.is_empty());
}

pub(crate) async fn a_store_does_not_start_over_under_ids_that_it_had(ground: &impl Ground) {
    let store = full(ground).await;
    for (id, origin) in [(1, 9), (9, 1), (9, 2)] {
        let used = super::Draw {
            origin: draw(origin).origin,
            ..draw(id)
        };
        let refused = store
            .start_over(used, Vec::new())
            .await
            .expect_err("they were used");
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    }
    assert_eq!(numbers(&*store).await.len(), 2_500);
    store.commit(removal([1])).await.expect("commits");
    ground.kill(store).await;
    let store = open(ground, 3).await;
    assert_eq!(store.opening().store, draw(1).store);
    assert_eq!(store.opening().floors, b"floors");
    assert_eq!(numbers(&*store).await.len(), 2_499);
}

pub(crate) async fn a_reader_sees_the_store_before_it_starts_over_or_after(ground: &impl Ground) {
    let store = full(ground).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        async move {
            let keys: Vec<_> = (0..50).map(key).collect();
            let mut is_over = false;
            while !done.load(Ordering::Relaxed) {
                for keys in [&keys[..], &keys[..5]] {
                    let stored = store.get_many(&peers(), keys).await.expect("reads");
                    let found = stored.iter().flatten().count();
                    assert!(found == 0 || found == keys.len() && !is_over, "{found}");
                    is_over = found == 0;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    store
        .start_over(draw(3), Vec::new())
        .await
        .expect("starts over");
    assert_eq!(read(&*store, 1).await, None);
    done.store(true, Ordering::Relaxed);
    reader.await.expect("the reader saw no part of a store");
}

pub(crate) async fn an_opening_that_is_renewed_keeps_all_but_its_id_and_its_last_reading(
    ground: &impl Ground,
) {
    let store = full(ground).await;
    let before = numbers(&*store).await;
    let (origin, last) = (draw(3).origin, Reading::from_u64(20));
    let opening = store.renew(origin, last).await.expect("renews");
    assert_eq!((opening.origin, opening.last_reading), (origin, last));
    assert_eq!(opening.retired, [1, 2].map(|number| draw(number).origin));
    assert_eq!(opening.store, draw(1).store);
    store.check().await.expect("as it was left");
    assert_eq!(numbers(&*store).await, before);
    store.commit(stamped(30)).await.expect("commits");
    let opening = store.renew(draw(4).origin, last).await.expect("renews");
    assert_eq!(opening.last_reading, last);
    store.commit(removal([1])).await.expect("commits");
    store.check().await.expect("as it was left");
    ground.kill(store).await;
    let store = open(ground, 5).await;
    let wanted = Opening {
        store: draw(1).store,
        origin: draw(5).origin,
        retired: [1, 2, 3, 4].map(|number| draw(number).origin).to_vec(),
        last_reading: last,
        peer_id: draw(1).peer_id,
        cluster: None,
        binding: Some(binding(1)),
        floors: b"floors".to_vec(),
    };
    assert_eq!(store.opening(), &wanted);
    assert!(numbers(&*store).await.len() < before.len());
}

pub(crate) async fn an_opening_is_not_renewed_under_an_id_that_it_had(ground: &impl Ground) {
    let store = full(ground).await;
    for used in [1, 2] {
        let last = Reading::from_u64(1);
        let refused = store.renew(draw(used).origin, last).await;
        let refused = refused.expect_err("it was used");
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    }
    store.commit(stamped(60)).await.expect("commits");
    ground.kill(store).await;
    let store = open(ground, 3).await;
    assert_eq!(store.opening().last_reading, Reading::from_u64(60));
}
