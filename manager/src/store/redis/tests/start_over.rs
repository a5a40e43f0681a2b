//! Stores that start over while connections break and servers end: there is the old store, whole, or
//! the new one.

use super::proxy::Proxy;
use peer_table::Reading;

use super::*;
use crate::store::Change;

/// The names of all keys at the server, without what they begin with.
async fn names(server: &Server) -> Vec<String> {
    let Value::Array(keys) = server.tell("KEYS *").await else {
        panic!("KEYS gives keys");
    };
    let mut names: Vec<_> = keys
        .into_iter()
        .map(|key| match key {
            Value::BulkString(key) => {
                let key = String::from_utf8(key).expect("a text");
                key.strip_prefix(PREFIX).expect("of this store").to_owned()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    names.sort();
    names
}

/// What these are for an empty store with this number.
fn empty(number: u8) -> [String; 3] {
    let state = format!("{}:_state", draw(number).store);
    [state, "lock".to_owned(), "meta".to_owned()]
}

/// Makes sure that the store is the old one, whole, or the new one, and nothing else is there;
/// whether it is the new one.
async fn is_over(server: &Server, store: &RedisStore) -> bool {
    store.check().await.expect("as it was left");
    let is_over = match scan(store, &peers()).await.len() {
        0 => true,
        1 => false,
        other => panic!("{other} records are no store of these"),
    };
    if is_over {
        assert_eq!(names(server).await, empty(2));
    } else {
        assert_eq!(conformance::read(store, 1).await, self::stored(1));
        assert_eq!(names(server).await.len(), 4);
    }
    is_over
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_store_that_started_over() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    let mut commit = one(1, 1);
    let files = "files".parse().expect("a table");
    commit.records.push((files, commit.records[0].1.clone()));
    store.commit(commit).await.expect("commits");
    assert_eq!(names(&server).await.len(), 5);
    store
        .start_over(draw(2), Vec::new())
        .await
        .expect("starts over");
    assert_eq!(names(&server).await, empty(2));
    let state = format!("{PREFIX}{}:_state", draw(2).store);
    assert_eq!(server.tell(&format!("HLEN {state}")).await, Value::Int(4));
    // Also of what an earlier manager wrote, and of ids that should not be there.
    store.commit(one(1, 1)).await.expect("commits");
    drop(store);
    let store = open(&server.url(), 3).await;
    assert_eq!(scan(&store, &peers()).await.len(), 1);
    let state = format!("{PREFIX}{}:_state", draw(4).store);
    let peers = format!("{PREFIX}{}:peers", draw(4).store);
    server.tell(&format!("SET {state} text")).await;
    server.tell(&format!("HSET {peers} stranger here")).await;
    store
        .start_over(draw(4), Vec::new())
        .await
        .expect("starts over");
    assert_eq!(names(&server).await, empty(4));
    store.check().await.expect("as it was left");
}

/// Comes back once a field of a hash on the server is `wanted`.
async fn has_become(server: &Server, hash: &str, field: &str, wanted: &str) {
    let connection = server.connection().await;
    let get: [&[u8]; 3] = [b"HGET", hash.as_bytes(), field.as_bytes()];
    let wanted = Value::BulkString(wanted.as_bytes().to_vec());
    while server::say(&connection, &get).await != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_over_whose_answer_was_lost_is_found_to_be_done() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let pipe = proxy.pipe();
    pipe.replies(false);
    let (opening, ()) = tokio::join!(store.start_over(draw(2), Vec::new()), async {
        let meta = format!("{PREFIX}meta");
        has_become(&server, &meta, "store", &draw(2).store.to_string()).await;
        pipe.cut();
    });
    let opening = opening.expect("it is done, which the new connection found out");
    assert_eq!(opening.store, draw(2).store);
    assert!(is_over(&server, &store).await);
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(conformance::read(&store, 1).await, self::stored(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_whose_answer_was_lost_is_found_to_be_done() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let pipe = proxy.pipe();
    pipe.replies(false);
    let (origin, last) = (draw(2).origin, Reading::from_u64(0));
    let (opening, ()) = tokio::join!(store.renew(origin, last), async {
        let state = format!("{PREFIX}{}:_state", draw(1).store);
        has_become(&server, &state, "origin", &origin.to_string()).await;
        pipe.cut();
    });
    let opening = opening.expect("it is done, which the new connection found out");
    assert_eq!((opening.origin, opening.last_reading), (origin, last));
    assert_eq!(conformance::read(&store, 1).await, self::stored(1));
    store.commit(one(1, 2)).await.expect("commits");
    assert_eq!(conformance::read(&store, 1).await, self::stored(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_over_that_arrives_late_is_not_done() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let pipe = proxy.pipe();
    pipe.requests(false);
    let begun = store.start_over(draw(2), Vec::new());
    let mut begun = std::pin::pin!(begun);
    let is_pending = std::future::poll_fn(|context| {
        std::task::Poll::Ready(begun.as_mut().poll(context).is_pending())
    });
    assert!(is_pending.await);
    pipe.cut();
    begun.await.expect("it is done by the new connection");
    store.commit(one(1, 3)).await.expect("commits");
    // Now it arrives.
    pipe.requests(true);
    pipe.drained().await;
    assert_eq!(conformance::read(&store, 1).await, self::stored(3));
    store.check().await.expect("as it was left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_silence_it_is_found_out_whether_the_store_started_over() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.stop();
    let unknown = store
        .start_over(draw(2), Vec::new())
        .await
        .expect_err("it is silent");
    assert!(
        matches!(unknown, StoreError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    server.go_on();
    let is_done = store.settle().await.expect("it answers again");
    assert_eq!(is_over(&server, &store).await, is_done);
    store.commit(one(2, 2)).await.expect("commits");
    store.check().await.expect("as it was left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_a_start_over_leaves_one_store_or_the_other() {
    for pause in 0..16 {
        let server = Server::start(&[]);
        let store = open(&server.url(), 1).await;
        store.commit(one(1, 1)).await.expect("commits");
        let begun = tokio::spawn(async move { store.start_over(draw(2), Vec::new()).await });
        for _ in 0..1 << pause {
            tokio::task::yield_now().await;
        }
        server.kill();
        begun.abort();
        let is_answered = matches!(begun.await, Ok(Ok(_)));
        server.start_again();
        let store = open(&server.url(), 3).await;
        let is_over = is_over(&server, &store).await;
        assert!(is_over || !is_answered);
        let number = if is_over { 2 } else { 1 };
        assert_eq!(store.opening().store, draw(number).store);
        assert_eq!(store.opening().retired, [draw(number).origin]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_what_it_was_does_not_start_over() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("FLUSHALL").await;
    let refused = store
        .start_over(draw(2), Vec::new())
        .await
        .expect_err("it is empty");
    assert!(
        matches!(
            refused,
            StoreError::Changed {
                change: Change::Wiped,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(server.tell("DBSIZE").await, Value::Int(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_over_that_a_full_server_refuses_leaves_the_store_as_it_is() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let store = open(&server.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    server.tell("CONFIG SET maxmemory 1").await;
    let refused = store
        .start_over(draw(2), Vec::new())
        .await
        .expect_err("it is full");
    assert!(refused.to_string().contains("out of memory"), "{refused}");
    assert!(!is_over(&server, &store).await);
    server.tell("CONFIG SET maxmemory 0").await;
    store
        .start_over(draw(2), Vec::new())
        .await
        .expect("starts over");
    assert!(is_over(&server, &store).await);
}
