use std::time::Duration;

use crate::pod::{CLUSTER, Pod, Spec, start, start_default};
use crate::stand_in::{METRICS, StandIn};

#[tokio::test]
async fn while_the_manager_is_away_the_pod_is_not_ready_and_its_peers_are_told() {
    let [a, b] = start_default().await;
    let up = "udht_manager_up";
    assert_eq!(a.sync.ask("/readyz").await.0, 200);
    assert_eq!(a.sync.metric(up).await, 1);

    let Pod { manager, sync } = a;
    let address = manager.address;
    manager.end().await;
    let (status, body) = sync.ask("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("the manager does not answer"), "{body}");
    assert_eq!(sync.ask("/livez").await.0, 200);
    assert_eq!(sync.metric(up).await, 0);
    assert!(!sync.ask("/metrics").await.1.contains("udht_records"));
    let error = b.sync.node.exchange(&sync.address).await.unwrap_err();
    assert_eq!(error.word(), "unavailable");

    let _manager = StandIn::start_at(CLUSTER, address).await;
    assert_eq!(sync.ask("/readyz").await.0, 200);
    assert_eq!(sync.metric(up).await, 1);
    assert!(sync.ask("/metrics").await.1.ends_with(METRICS));
    assert!(b.sync.node.exchange(&sync.address).await.is_ok());
}

#[tokio::test]
async fn a_peer_is_not_blamed_for_the_own_manager() {
    let [a, b] = start_default().await;
    let Pod { manager, sync } = a;
    manager.end().await;
    sync.node.exchange(&b.sync.address).await.unwrap_err();
    let book = sync.node.book();
    assert!(book.peers().all(|(_, peer)| peer.failures == 0));
}

#[tokio::test]
async fn many_failures_at_once_are_one() {
    let [a, b] = start_default().await;
    let address = b.sync.address.clone();
    b.sync.end().await;
    let node = &a.sync.node;
    let (one, other) = tokio::join!(node.exchange(&address), node.exchange(&address));
    assert!(one.is_err() && other.is_err());
    let failures = node
        .book()
        .peers()
        .map(|(_, peer)| peer.failures)
        .sum::<u32>();
    assert_eq!(failures, 1);
}

#[tokio::test]
async fn what_was_written_while_nobody_followed_the_feed_is_exchanged_soon() {
    let mut eager = Spec::default();
    eager.bounds.brisk_interval = Duration::from_millis(20);
    let [a, b] = start([eager, Spec::default()]).await;
    let Pod { manager, sync } = a;
    // They meet, and are equal: the next round is an hour away.
    let equal = "udht_exchanges_total{result=\"equal\",role=\"initiator\"}";
    sync.counts(equal, 1).await;
    let address = manager.address;
    manager.end().await;
    let manager = StandIn::start_at(CLUSTER, address).await;
    manager.put("key", "value");
    b.manager.says("key", "value").await;
    assert_eq!(sync.metric("udht_feed_gaps_total").await, 1);
    assert_eq!(sync.metric("udht_pushes_total{result=\"ok\"}").await, 0);
}
