//! Stores that are no longer what they were.

use super::proxy::Proxy;
use super::*;
use crate::store::Change;

/// Waits until the change is noticed, and opens the store anew as `number`.
async fn opened_anew(store: &RedisStore, change: Change, number: u8) -> Opening {
    match store.changed().await {
        StoreError::Changed { change: found, .. } => assert_eq!(found, change),
        other => panic!("{other}"),
    }
    let read = store
        .get_many(&peers(), &[key(1)])
        .await
        .expect_err("it changed");
    assert!(matches!(read, StoreError::Changed { .. }), "{read}");
    let written = store.commit(one(1, 99)).await.expect_err("it changed");
    assert!(matches!(written, StoreError::Changed { .. }), "{written}");
    let draw = Draw {
        peer_id: draw(1).peer_id,
        ..draw(number)
    };
    let opening = store.reopen(draw).await.expect("opens anew");
    assert_eq!(opening.origin, self::draw(number).origin);
    assert_eq!(opening.peer_id, self::draw(1).peer_id);
    store.check().await.expect("as it was left");
    opening
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_emptied_is_opened_anew_as_another() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("FLUSHALL").await;
    let opening = opened_anew(&store, Change::Wiped, 2).await;
    assert_eq!(opening.store, draw(2).store);
    assert_eq!(opening.retired, [draw(1).origin]);
    assert!(scan(&store, &peers()).await.is_empty());
    store.commit(one(2, 2)).await.expect("commits");
    drop(store);
    let store = open(&server.url(), 3).await;
    assert_eq!(store.opening().store, draw(2).store);
    assert_eq!(
        store.opening().retired,
        [1, 2].map(|number| draw(number).origin)
    );
    assert_eq!(scan(&store, &peers()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_notices_an_emptied_store_and_writes_nothing_into_it() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("FLUSHALL").await;
    let noticed = store.commit(one(2, 2)).await.expect_err("it is empty");
    assert!(
        matches!(
            noticed,
            StoreError::Changed {
                change: Change::Wiped,
                ..
            }
        ),
        "{noticed}"
    );
    assert_eq!(server.tell("DBSIZE").await, Value::Int(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_swapped_is_opened_anew_as_what_it_is() {
    let server = Server::start(&[]);
    let other = open(&server.url(), 9).await;
    other.commit(one(5, 5)).await.expect("commits");
    drop(other);
    server.tell(&format!("RENAME {PREFIX}meta aside")).await;
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server
        .tell(&format!("HSET {PREFIX}meta store {}", draw(9).store))
        .await;
    let opening = opened_anew(&store, Change::Swapped, 2).await;
    assert_eq!(opening.store, draw(9).store);
    assert_eq!(opening.retired, [draw(1).origin, draw(9).origin]);
    let all = scan(&store, &peers()).await;
    assert_eq!(all.into_keys().collect::<Vec<_>>(), [key(5).to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pointer_to_a_store_that_is_not_there_leads_to_an_empty_one() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    server
        .tell(&format!("HSET {PREFIX}meta store {}", draw(7).store))
        .await;
    let opening = opened_anew(&store, Change::Swapped, 2).await;
    assert_eq!(opening.store, draw(2).store);
    assert_eq!(opening.retired, [draw(1).origin]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_restored_from_a_dump_is_opened_anew() {
    let server = Server::start_with(&["--save", "", "--appendonly", "no"]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("SAVE").await;
    // Not an own write: no reading tells, but the number of transactions does.
    store.commit(one(1, 2)).await.expect("commits");
    server.kill();
    server.start_again();
    let opening = opened_anew(&store, Change::RolledBack, 2).await;
    assert_eq!(opening.store, draw(1).store);
    assert_eq!(opening.retired, [draw(1).origin]);
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_an_earlier_opening_is_noticed() {
    let server = Server::start_with(&["--save", "", "--appendonly", "no"]);
    drop(open(&server.url(), 1).await);
    server.tell("SAVE").await;
    let store = open(&server.url(), 2).await;
    server.kill();
    server.start_again();
    let opening = opened_anew(&store, Change::RolledBack, 3).await;
    assert_eq!(opening.retired, [draw(2).origin, draw(1).origin]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_goes_on_if_it_has_all_and_is_opened_anew_if_not() {
    let primary = Server::start(&[]);
    let replica = Server::start(&[]);
    let proxy = Proxy::to(primary.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let address = primary.address();
    replica
        .tell(&format!("REPLICAOF {} {}", address.ip(), address.port()))
        .await;
    let connection = primary.connection().await;
    while server::say(&connection, &[b"WAIT", b"1", b"0"]).await != Value::Int(1) {}
    // One that has all.
    replica.tell("REPLICAOF NO ONE").await;
    proxy.lead_to(replica.address());
    // Nothing more reaches the primary, not even what is sent as the connection is being cut.
    proxy.pipe().cut_after_requests(0);
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(conformance::read(&store, 1).await, self::stored(2));
    // One that lacks the last.
    proxy.lead_to(primary.address());
    proxy.cut();
    let opening = opened_anew(&store, Change::RolledBack, 2).await;
    assert_eq!(opening.retired, [draw(1).origin]);
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_something_else_takes_away_or_adds_are_noticed() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    let records = (0..10).map(|number| (key(number), entry(1, b"content")));
    store.commit(commit(records)).await.expect("commits");
    let hash = |number| format!("{PREFIX}{}:peers", draw(number).store);
    server.tell(&format!("HDEL {} {}", hash(1), key(3))).await;
    opened_anew(&store, Change::Meddled, 2).await;
    assert_eq!(scan(&store, &peers()).await.len(), 9);
    server
        .tell(&format!("HSET {} stranger here", hash(1)))
        .await;
    opened_anew(&store, Change::Meddled, 3).await;
    assert_eq!(scan(&store, &peers()).await.len(), 10);
    server.tell(&format!("UNLINK {}", hash(1))).await;
    opened_anew(&store, Change::Meddled, 4).await;
    assert!(scan(&store, &peers()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_lock_writes_nothing_and_comes_back_when_it_is_free() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    // The first is cut off, and cannot come back at once.
    proxy.lead_to(server::free_address());
    proxy.pipe().cut();
    store.down().await;
    let second = open(&server.url(), 2).await;
    second.commit(one(1, 2)).await.expect("commits");
    proxy.lead_to(server.address());
    let change = store.changed().await;
    assert!(
        matches!(
            change,
            StoreError::Changed {
                change: Change::TakenOver,
                ..
            }
        ),
        "{change}"
    );
    let refused = store.reopen(draw(3)).await.expect_err("the second has it");
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    second.commit(one(1, 3)).await.expect("commits");
    second.check().await.expect("as it was left");
    drop(second);
    let opening = loop {
        match store.reopen(draw(3)).await {
            Ok(opening) => break opening,
            Err(error) => assert!(matches!(error, StoreError::Locked { .. }), "{error}"),
        }
    };
    assert_eq!(opening.retired, [1, 2].map(|number| draw(number).origin));
    assert_eq!(conformance::read(&store, 1).await, self::stored(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_something_else_removed_is_taken_again() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell(&format!("UNLINK {PREFIX}lock")).await;
    store.commit(one(1, 2)).await.expect("commits");
    assert!(matches!(
        try_open(&server.url(), 2).await,
        Err(StoreError::Locked { .. })
    ));
}
