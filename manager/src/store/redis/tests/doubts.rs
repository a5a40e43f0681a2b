//! Connections that break, and writes of which nobody heard what became of them.

use super::proxy::{Pipe, Proxy};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_started_again_goes_on_with_the_same_opening() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    for round in 1..4 {
        store.commit(one(1, round)).await.expect("commits");
        server.kill();
        let away = store.down().await;
        assert!(matches!(away, StoreError::Unavailable(_)), "{away}");
        let read = store
            .get_many(&peers(), &[key(1)])
            .await
            .expect_err("it is away");
        assert!(read.to_string().contains("cannot be reached"), "{read}");
        let written = store.commit(one(2, round)).await.expect_err("it is away");
        assert!(matches!(written, StoreError::Unavailable(_)), "{written}");
        server.start_again();
        store.up().await;
        assert_eq!(conformance::read(&store, 1).await, self::stored(round));
        assert_eq!(conformance::read(&store, 2).await, None);
        store.commit(one(3, round)).await.expect("commits");
        store.check().await.expect("as it was left");
    }
    assert_eq!(scan(&store, &peers()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_absence_is_waited_for() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    for round in 1..20 {
        proxy.pipe().cut();
        store.commit(one(1, round)).await.expect("commits");
        proxy.pipe().cut();
        assert_eq!(conformance::read(&store, 1).await, self::stored(round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_silence_the_outcome_is_unknown_and_then_found_out() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    for round in 1..4_usize {
        store.commit(one(0, 1)).await.expect("commits");
        server.stop();
        let unknown = store.commit(one(round, 7)).await.expect_err("it is silent");
        assert!(
            matches!(unknown, StoreError::OutcomeUnknown { .. }),
            "{unknown}"
        );
        let next = store.commit(one(9, 7)).await.expect_err("it is silent");
        assert!(matches!(next, StoreError::Unavailable(_)), "{next}");
        server.go_on();
        let is_stored = store.settle().await.expect("it answers again");
        let read = conformance::read(&store, round).await;
        assert_eq!(read.is_some(), is_stored);
        store.commit(one(0, 2)).await.expect("commits");
        assert_eq!(
            conformance::read(&store, round).await,
            read,
            "as it was found"
        );
        assert_eq!(
            conformance::read(&store, 9).await,
            None,
            "it was never sent"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_is_found_to_be_stored() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let pipe = proxy.pipe();
    pipe.replies(false);
    let (written, ()) = tokio::join!(store.commit(one(1, 2)), async {
        let value = entry(2, b"content").to_stored();
        let hash = format!("{PREFIX}{}:peers", draw(1).store);
        let connection = server.connection().await;
        let name = key(1).to_string();
        let get: [&[u8]; 3] = [b"HGET", hash.as_bytes(), name.as_bytes()];
        while server::say(&connection, &get).await != Value::BulkString(value.clone()) {
            tokio::task::yield_now().await;
        }
        pipe.cut();
    });
    written.expect("it is stored, which the new connection found out");
    assert_eq!(conformance::read(&store, 1).await, self::stored(2));
    store.check().await.expect("as it was left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_whose_answer_was_lost_is_found_to_be_stored() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    for number in 0..4 {
        store.commit(one(number, 1)).await.expect("commits");
    }
    let pipe = proxy.pipe();
    pipe.replies(false);
    let both = Commit {
        floors: Some(b"floors".to_vec()),
        ..removal([1, 2, 9])
    };
    let (written, ()) = tokio::join!(store.commit(both), async {
        let hash = format!("{PREFIX}{}:peers", draw(1).store);
        let connection = server.connection().await;
        while server::say(&connection, &[b"HLEN", hash.as_bytes()]).await != Value::Int(2) {
            tokio::task::yield_now().await;
        }
        pipe.cut();
    });
    written.expect("it is stored, which the new connection found out");
    assert_eq!(conformance::read(&store, 1).await, None);
    store.check().await.expect("as it was left");
    store.commit(removal([3])).await.expect("commits");
    store.check().await.expect("as it was left");
    assert_eq!(scan(&store, &peers()).await.len(), 1);
    drop(store);
    assert_eq!(open(&server.url(), 2).await.opening().floors, b"floors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_silence_it_is_found_out_whether_a_record_left() {
    let server = Server::start(&[]);
    let store = open(&server.url(), 1).await;
    let records = (0..4).map(|number| (key(number), entry(1, b"content")));
    store.commit(commit(records)).await.expect("commits");
    for number in 1..4 {
        store.commit(one(0, 1)).await.expect("commits");
        server.stop();
        let unknown = store.commit(removal([number])).await.expect_err("silent");
        assert!(
            matches!(unknown, StoreError::OutcomeUnknown { .. }),
            "{unknown}"
        );
        server.go_on();
        let is_stored = store.settle().await.expect("it answers again");
        let read = conformance::read(&store, number).await;
        assert_eq!(read.is_none(), is_stored);
        store.check().await.expect("as it was left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_arrives_late_is_not_done() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    store.commit(one(1, 1)).await.expect("commits");
    let pipe = proxy.pipe();
    // The first write lies on the way, and its connection is gone.
    pipe.requests(false);
    let write = store.commit(one(1, 2));
    let mut write = std::pin::pin!(write);
    let begun = std::future::poll_fn(|context| {
        std::task::Poll::Ready(write.as_mut().poll(context).is_pending())
    });
    assert!(begun.await);
    pipe.cut();
    write.await.expect("it is written by the new connection");
    store.commit(one(1, 3)).await.expect("commits");
    store.commit(one(2, 3)).await.expect("commits");
    // Now it arrives.
    pipe.requests(true);
    pipe.drained().await;
    assert_eq!(conformance::read(&store, 1).await, self::stored(3));
    store.check().await.expect("as it was left");
}

/// Commits again and again while each connection is cut after a number of bytes, to each of which
/// `cut` is told.
async fn cut_everywhere(bytes_max: usize, cut: impl Fn(&Pipe, usize)) {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    let keys = [key(1), key(2), key(3)];
    for bytes in 0..bytes_max {
        let reading = bytes as u64 + 1;
        cut(&proxy.pipe(), bytes);
        let records = keys.iter().cloned();
        let write = commit(records.map(|key| (key, entry(reading, b"content"))));
        store
            .commit(write)
            .await
            .expect("the next connection finds out, or does it");
        let read = store.get_many(&peers(), &keys).await.expect("reads");
        assert_eq!(
            read,
            vec![self::stored(reading); 3],
            "cut after {bytes} bytes"
        );
    }
    // Had one been done twice, or in part, it would be noticed here.
    store.check().await.expect("as it was left");
    drop(store);
    let store = open(&server.url(), 2).await;
    let read = store.get_many(&peers(), &keys).await.expect("reads");
    assert_eq!(read, vec![self::stored(bytes_max as u64); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_which_any_first_part_arrived_is_done_once_and_as_a_whole() {
    cut_everywhere(800, Pipe::cut_after_requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_whose_answer_any_first_part_arrived_is_done_once_and_as_a_whole() {
    cut_everywhere(300, Pipe::cut_after_replies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_do_not_queue_up_at_a_silent_server() {
    let server = Server::start(&[]);
    let store = Arc::new(open(&server.url(), 1).await);
    store.commit(one(1, 1)).await.expect("commits");
    server.stop();
    store
        .get_many(&peers(), &[key(1)])
        .await
        .expect_err("it is silent");
    store.says("did not answer").await;
    store.says("see that it runs").await;
    server.go_on();
    store.up().await;
    assert_eq!(conformance::read(&*store, 1).await, self::stored(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_over_a_new_connection_begins_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.address()).await;
    let store = open(&proxy.url(), 1).await;
    let records = (0..5_000).map(|number| (key(number), entry(1, b"content")));
    store.commit(commit(records)).await.expect("commits");
    let (_, mut cursor) = store.scan(&peers(), None).await.expect("scans");
    proxy.pipe().cut();
    store.commit(one(1, 2)).await.expect("commits");
    let broken = loop {
        match store.scan(&peers(), cursor).await {
            Ok((_, next)) => cursor = Some(next.expect("no end is reached")),
            Err(error) => break error,
        }
    };
    assert!(matches!(broken, StoreError::Unavailable(_)), "{broken}");
    assert_eq!(scan(&store, &peers()).await.len(), 5_000);
}
