use std::ops::Range;

use peer_exchange::Own;
use peer_exchange::push::{PassOn, Scope, push};
use peer_table::contract::{Batch, StateRequest};
use peer_table::{Body, Contact, Entry, OriginId, Reading, Version};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use udht_sync::config::Bounds;
use udht_sync::wall;

use crate::pod::{NEVER, Spec, start, start_default};
use crate::stand_in::StandIn;

#[tokio::test]
async fn a_change_arrives_without_a_round() {
    let [a, b] = start_default().await;
    a.manager.put("key", "value");
    b.manager.says("key", "value").await;
    assert_eq!(exchanges_begun(&a).await, 0);
}

async fn exchanges_begun(pod: &crate::pod::Pod) -> u64 {
    let count = "udht_exchange_seconds_count{role=\"initiator\"}";
    pod.sync.metric(count).await
}

#[tokio::test]
async fn whoever_is_pushed_to_passes_it_on() {
    let one_each = Spec {
        fanout: 1,
        ..Spec::default()
    };
    let pods: [_; 5] = start(std::array::from_fn(|_| one_each.clone())).await;
    pods[3].manager.put("key", "value");
    for pod in &pods {
        pod.manager.says("key", "value").await;
        assert_eq!(exchanges_begun(pod).await, 0);
    }
}

#[tokio::test]
async fn a_burst_of_changes_arrives_whole() {
    let [a, b, c] = start_default().await;
    for number in 0..1_000 {
        a.manager.put(&format!("key-{number}"), "value");
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    b.manager.becomes(a.manager.digest()).await;
    c.manager.becomes(a.manager.digest()).await;
    assert_eq!(exchanges_begun(&a).await, 0);
}

#[tokio::test]
async fn where_a_head_fails_the_next_of_its_group_is_pushed_to() {
    let one = Spec {
        fanout: 1,
        ..Spec::default()
    };
    let [a, b] = start([one.clone(), one]).await;
    // Nobody listens there any more.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr();
    let dead = dead.unwrap().to_string().parse().unwrap();
    a.sync.node.book().replace([dead, b.sync.address.clone()]);
    for round in 0..8 {
        let value = format!("value-{round}");
        a.manager.put("key", &value);
        b.manager.says("key", &value).await;
    }
}

#[tokio::test]
async fn after_a_restart_of_the_manager_its_feed_is_followed_again() {
    let [a, b] = start_default().await;
    let crate::pod::Pod { manager, sync } = a;
    let address = manager.address;
    manager.put("before", "1");
    b.manager.says("before", "1").await;
    manager.end().await;
    // With another opening of its store, so that the old revision is none of its own.
    let manager = StandIn::start_at(crate::pod::CLUSTER, address).await;
    manager.followed().await;
    manager.put("after", "2");
    b.manager.says("after", "2").await;
    assert_eq!(sync.metric("udht_feed_gaps_total").await, 1);
    assert_eq!(sync.metric("udht_feed_connected").await, 1);
}

#[tokio::test]
async fn what_is_too_much_to_pass_on_is_dropped_and_counted() {
    let narrow = Spec {
        bounds: Bounds {
            push_queue_kib_max: 1,
            push: NEVER,
            ..Spec::default().bounds
        },
        ..Spec::default()
    };
    let [a, b] = start([Spec::default(), narrow]).await;
    // Whoever b passes on to takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string().parse().unwrap();
    b.sync.node.book().replace([address]);
    let dropped = "udht_push_dropped_records_total";
    for (keys, expected) in [(0..1, 0), (0..3, 3)] {
        push_to(&a, &b, keys).await;
        assert_eq!(b.sync.metric(dropped).await, expected);
    }
    assert_eq!(
        b.sync.metric("udht_pushes_total{result=\"dropped\"}").await,
        1
    );
    assert_eq!(
        b.manager.digest().records,
        3,
        "what is not passed on is still taken"
    );
}

#[tokio::test]
async fn what_comes_while_a_push_is_on_its_way_waits_and_goes_together() {
    let pods: [_; 3] = start(std::array::from_fn(|_| Spec {
        bounds: Bounds {
            push: NEVER,
            ..Spec::default().bounds
        },
        ..Spec::default()
    }))
    .await;
    let [a, b, c] = &pods;
    // What b passes on to c gets there once somebody lets it.
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap().to_string().parse().unwrap();
    b.sync.node.book().replace([address]);
    c.sync.node.book().replace([]);
    push_to(a, b, 0..1).await;
    let (first, _) = door.accept().await.unwrap();
    push_to(a, b, 1..2).await;
    push_to(a, b, 2..5).await;
    let through = let_through(door, first, c.sync.address.to_string());
    let arrived = b.sync.counts("udht_push_records_total", 5);
    tokio::select! {
        () = through => unreachable!("it does not end"),
        () = arrived => {}
    }
    assert_eq!(b.sync.metric("udht_pushes_total{result=\"ok\"}").await, 2);
    assert_eq!(c.manager.digest(), b.manager.digest());
}

/// Connects the connection `first`, and each that comes to the door after it, with an address.
async fn let_through(door: TcpListener, first: TcpStream, address: String) {
    let mut next = first;
    loop {
        let mut there = TcpStream::connect(&address).await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut next, &mut there).await });
        (next, _) = door.accept().await.unwrap();
    }
}

/// Pushes fresh records from one pod to the other, to be passed on to everybody.
async fn push_to(from: &crate::pod::Pod, to: &crate::pod::Pod, keys: Range<usize>) {
    let node = &from.sync.node;
    let entry = Entry {
        version: Version {
            reading: Reading::from_u64(wall::now().as_millis() << 16),
            origin: OriginId::from_bytes([7; 16]),
        },
        contact: Contact::NEVER,
        body: Body::Tombstone,
    };
    let records = keys.map(|key| (format!("key-{key}").parse().unwrap(), entry.clone()));
    let batch = Batch::new(&node.table, records);
    let state = node.manager.state(&StateRequest::default()).await.unwrap();
    let line = node.transport.to(&to.sync.address);
    // Always the same, as is what is passed on.
    let scope = Scope::whole(0, None);
    let news = PassOn {
        table: node.table.clone(),
        batch,
        replicas: None,
        scope,
    };
    let pushed = push(&node.manager, &state, &line, &news, scope, &node.options);
    pushed.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_whoever_hangs() {
    let [a, b] = start_default().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = silent.local_addr().unwrap().to_string().parse().unwrap();
    let both = [hangs, b.sync.address.clone()];
    a.sync.node.book().replace(both);
    a.manager.put("key", "value");
    b.manager.says("key", "value").await;
    a.sync.end().await;
}
