use std::collections::BTreeSet;

use udht_sync::metrics::Metrics;
use udht_sync::ops::PeerReport;

use crate::pod::start_default;

#[test]
fn every_metric_has_its_name_its_help_and_all_its_labels_from_the_start() {
    let text = Metrics::new().unwrap().render().unwrap();
    // The bounds of histograms are many, and no news.
    let lines = text.lines().filter(|line| !line.contains("_bucket{"));
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let shown: Vec<_> = lines
        .map(|line| line.replace(&version, "version=\"VERSION\""))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn the_metrics_of_both_are_one_text_in_which_no_family_comes_twice() {
    let [a] = start_default().await;
    let (status, text) = a.sync.ask("/metrics").await;
    assert_eq!(status, 200);
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.to_owned()), "twice: {family}");
        }
    }
    assert!(families.contains("udht_exchanges_total counter"));
    assert!(families.contains("udht_records gauge"));
}

#[tokio::test]
async fn the_peer_book_is_told_as_json() {
    let [a, b] = start_default().await;
    b.manager.put("more", "1");
    a.manager.says("more", "1").await;
    let report = peers(&a).await;
    assert!(report.manager);
    assert_eq!(report.records, Some(1));
    assert_eq!(report.peers.len(), 2);

    a.sync.node.exchange(&b.sync.address).await.unwrap();
    a.sync.node.exchange(&a.sync.address).await.unwrap_err();
    let report = peers(&a).await;
    let view = |address: &str| report.peers.iter().find(|peer| peer.address == address);
    let own = view(a.sync.address.as_str()).unwrap();
    assert!(own.is_self && !own.reachable);
    let other = view(b.sync.address.as_str()).unwrap();
    assert!(other.reachable && !other.is_self);
    assert_eq!(other.peer_id.as_deref(), Some(b.manager.peer_id().as_str()));
    assert_eq!(other.equal, Some(true));
    assert_eq!(other.failures, 0);
    assert!(other.last_ok_ms.is_some());
}

async fn peers(pod: &crate::pod::Pod) -> PeerReport {
    let (status, body) = pod.sync.ask("/v1/peers").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn figures_of_the_peers_follow_the_book() {
    let [a, b, c] = start_default().await;
    a.sync.node.exchange(&a.sync.address).await.unwrap_err();
    a.sync.node.exchange(&b.sync.address).await.unwrap();
    assert_eq!(a.sync.metric("udht_peers_known").await, 2);
    assert_eq!(a.sync.metric("udht_peers_reachable").await, 1);
    assert_eq!(a.sync.metric("udht_isolated").await, 0);
    assert_eq!(a.sync.metric("udht_distinct_digests").await, 1);
    drop(c);
}

#[tokio::test]
async fn whoever_reaches_none_of_its_peers_is_isolated() {
    let [a, b] = start_default().await;
    let address = b.sync.address.clone();
    b.sync.end().await;
    a.sync.node.book().replace([address.clone()]);
    assert_eq!(a.sync.metric("udht_isolated").await, 0);
    a.sync.node.exchange(&address).await.unwrap_err();
    assert_eq!(a.sync.metric("udht_isolated").await, 1);
    assert_eq!(a.sync.metric("udht_peers_reachable").await, 0);
    let failed = "udht_exchanges_total{result=\"failed_unreachable\",role=\"initiator\"}";
    assert_eq!(a.sync.metric(failed).await, 1);
    let lost = peers(&a).await.peers.remove(0);
    assert_eq!(lost.last_error.as_deref(), Some("failed_unreachable"));
    assert_eq!((lost.failures, lost.reachable), (1, false));
}

#[tokio::test]
async fn anything_else_is_not_found() {
    let [a] = start_default().await;
    let (status, body) = a.sync.ask("/v1/other").await;
    assert_eq!(status, 404);
    assert!(body.contains("/readyz"), "{body}");
}
