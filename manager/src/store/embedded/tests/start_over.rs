//! Starting over on disks that do not do what they are asked.

use super::*;

/// Whether it is the store that it was, with its record, or an empty one under the ids of `3`.
async fn is_over(store: &EmbeddedStore) -> bool {
    match scan(store, &peers()).await.len() {
        0 => true,
        1 => false,
        other => panic!("{other} records are no store of these"),
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_store_that_started_over() {
    let home = Home::new().await;
    let store = home.embedded(1).expect("opens");
    let mut commit = one(1, 1);
    let files = "files".parse().expect("a table");
    commit.records.push((files, commit.records[0].1.clone()));
    store.commit(commit).await.expect("commits");
    store
        .start_over(draw(2), Vec::new())
        .await
        .expect("starts over");
    drop(store);
    let state = format!("{}:_state", draw(2).store);
    assert_eq!(home.tables(), [state.as_str(), "meta"]);
    assert_eq!(home.keys(&state), ["last_reading", "origin", "retired"]);
}

#[tokio::test]
async fn a_start_over_without_room_leaves_the_store_as_it_is() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(FULL);
    for _ in 0..3 {
        let error = store
            .start_over(draw(2), Vec::new())
            .await
            .expect_err("no room");
        assert!(error.to_string().ends_with("make room there"), "{error}");
        assert!(!is_over(&store).await);
    }
    disk.set(NONE);
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(read(&store, 1).await, Some(stored(2)));
    let opening = store
        .start_over(draw(2), Vec::new())
        .await
        .expect("starts over");
    assert_eq!(opening.store, draw(2).store);
    assert!(is_over(&store).await);
}

#[tokio::test]
async fn a_start_over_that_failed_when_all_of_it_was_written_is_answered_as_done() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(UNSYNCED);
    let opening = store
        .start_over(draw(2), Vec::new())
        .await
        .expect("it is done");
    assert_eq!(opening.store, draw(2).store);
    assert!(is_over(&store).await);
    store.commit(one(1, 2)).await.expect("commits");
    disk.set(FULL);
    let write = store.commit(one(1, 3)).await;
    write.expect_err("there is no room, and the file is opened again");
    disk.set(NONE);
    assert_eq!(
        read(&store, 1).await,
        Some(stored(2)),
        "it is known again as what it is"
    );
    drop(store);
    let store = home.embedded(3).expect("opens");
    assert_eq!(store.opening().store, draw(2).store);
    assert_eq!(store.opening().retired, [draw(2).origin]);
    assert_eq!(read(&store, 1).await, Some(stored(2)));
}

#[tokio::test]
async fn a_start_over_that_cannot_be_looked_for_makes_the_store_answer_nothing_more() {
    let home = Home::new().await;
    let (store, disk) = home.on_a_flaky_disk(1);
    store.commit(one(1, 1)).await.expect("commits");
    disk.set(DYING);
    let unknown = |error: StoreError| matches!(error, StoreError::OutcomeUnknown { .. });
    let error = store
        .start_over(draw(2), Vec::new())
        .await
        .expect_err("it is dead");
    assert!(unknown(error));
    disk.set(NONE);
    let read = store.get_many(&peers(), &[key(1)]).await;
    assert!(unknown(read.expect_err("it would guess")));
    let error = store
        .start_over(draw(3), Vec::new())
        .await
        .expect_err("it would guess");
    assert!(unknown(error));
    drop(store);
    let store = home.embedded(4).expect("opens");
    assert_eq!(store.opening().store, draw(2).store);
    assert!(is_over(&store).await);
}
