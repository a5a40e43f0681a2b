use std::collections::BTreeSet;

use hyper::Method;
use udht_sync::config::Bounds;
use udht_sync::http::HttpClient;
use udht_sync::metrics::Metrics;
use udht_sync::ops::PeerReport;
use udht_tell::log::FilterInUse;

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

#[tokio::test]
async fn what_is_logged_is_told_and_changed_by_programs_of_this_pod() {
    let [a] = start_default().await;
    let (status, body) = a.sync.ask("/v1/log-filter").await;
    assert_eq!(status, 200);
    let used: FilterInUse = serde_json::from_str(&body).unwrap();
    assert_eq!(used.filter, used.begun);
    let post = |body: &str| {
        let request = a
            .sync
            .ops
            .request(Method::POST, "/v1/log-filter", body.into());
        let http = HttpClient::new(Bounds::default().peer);
        async move {
            let (status, body) = http.send(request.unwrap(), 1 << 20).await.unwrap();
            (status.as_u16(), String::from_utf8(body.into()).unwrap())
        }
    };
    let (status, body) = post(r#"{"filter":"info,udht_sync::push=debug","for":"10m"}"#).await;
    assert_eq!(status, 200, "{body}");
    let used: FilterInUse = serde_json::from_str(&body).unwrap();
    assert_eq!(used.filter.to_string(), "info,udht_sync::push=debug");
    assert!(used.until.is_some());
    for bad in [r#"{"filter":"loud"}"#, "{}", ""] {
        let (status, body) = post(bad).await;
        assert_eq!(status, 422, "{body}");
    }
    let (_, body) = post(r#"{"filter":"loud"}"#).await;
    assert!(
        body.contains("off, error, warn, info, debug or trace"),
        "{body}"
    );
    let large = format!(r#"{{"filter":"{}"}}"#, "i".repeat(9 << 10));
    assert_eq!(post(&large).await.0, 413);
    let (status, _) = post(r#"{"filter":"info"}"#).await;
    assert_eq!(status, 200);

    let (status, _) = a.sync.ask("/v1/logs").await;
    assert_eq!(status, 200);
    let (status, body) = a.sync.ask("/v1/about").await;
    assert!(status == 200 && body.contains("flags"), "{body}");
}

#[tokio::test]
async fn a_page_in_a_browser_neither_changes_what_is_logged_nor_reads_the_log() {
    let [a] = start_default().await;
    let http = HttpClient::new(Bounds::default().peer);
    for (method, path) in [
        (Method::POST, "/v1/log-filter"),
        (Method::GET, "/v1/logs"),
        (Method::GET, "/v1/about"),
    ] {
        let body = br#"{"filter":"trace"}"#.to_vec();
        let request = a.sync.ops.request(method.clone(), path, body);
        let mut request = request.unwrap();
        let origin = "http://localhost:3004".parse().unwrap();
        request.headers_mut().insert("origin", origin);
        let (status, _) = http.send(request.clone(), 1 << 20).await.unwrap();
        assert_eq!(status.as_u16(), 403, "{method} {path}");
        // A page of elsewhere whose name was made to lead here says so with that name alone.
        request.headers_mut().remove("origin");
        let rebound = "evil.example:3004".parse().unwrap();
        request.headers_mut().insert("host", rebound);
        let (status, _) = http.send(request, 1 << 20).await.unwrap();
        assert_eq!(status.as_u16(), 403, "{method} {path}");
    }
    let request = a.sync.ops.request(Method::DELETE, "/v1/logs", Vec::new());
    let (status, _) = http.send(request.unwrap(), 1 << 20).await.unwrap();
    assert_eq!(status.as_u16(), 405);
}
