//! Pods that go: their records, and what they hand over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderValue, ORIGIN};
use peer_exchange::gone::{Gone, Held};
use peer_exchange::{Address, PodUid, Uptime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use udht_sync::config::Bounds;
use udht_sync::http::HttpClient;
use udht_sync::kubernetes::pods::{Pod as Listed, Pods, Sight};
use udht_sync::lifecycle::{GoneView, Place};
use udht_sync::node::Node;

use crate::cli::{said, udht_sync};
use crate::pod::{NEVER, Pod, Spec, soon, start, start_default};

/// What Kubernetes says of the pods.
struct Kubernetes(watch::Sender<Arc<Pods>>);

impl Kubernetes {
    fn with(uids: &[&str]) -> Self {
        let kubernetes = Self(watch::Sender::default());
        kubernetes.lists(uids);
        kubernetes
    }

    fn says(&self, uids: &[&str], is_terminating: bool, sight: Sight) {
        let pod = |uid: &&str| {
            let pod = Listed {
                name: (*uid).to_owned(),
                addresses: Vec::new(),
                is_terminating,
            };
            (PodUid((*uid).to_owned()), pod)
        };
        let by_uid = uids.iter().map(pod).collect();
        self.0.send_replace(Arc::new(Pods { by_uid, sight }));
    }

    fn lists(&self, uids: &[&str]) {
        self.says(uids, false, Sight::Live);
    }

    fn terminates(&self, uid: &str) {
        self.says(&[uid], true, Sight::Live);
    }

    /// A pod with this UID.
    fn pod(&self, uid: &str) -> Spec {
        let mut spec = Spec {
            place: Some(Place {
                own: PodUid(uid.to_owned()),
                pods: self.0.subscribe(),
            }),
            ..Spec::default()
        };
        spec.bounds.lifecycle.pause = Duration::from_millis(10);
        spec.bounds.lifecycle.next_peer = Duration::from_millis(10);
        spec
    }
}

/// Has a pod push nothing to a peer for a while, as if that had failed.
fn push_nothing(node: &Node, peer: &Address) {
    for _ in 0..8 {
        node.book().failed(peer, "remote", node.uptime(), 0);
    }
}

/// Whether a pod, which may have ended by now, handed over once, with this result.
fn handovers(node: &Node, result: &str) -> bool {
    let text = node.metrics.render().unwrap();
    text.contains(&format!("udht_handovers_total{{result=\"{result}\"}} 1\n"))
}

#[tokio::test]
async fn a_pod_that_ends_leaves_its_last_write_to_a_peer_though_it_was_not_pushed() {
    let kubernetes = Kubernetes::with(&["a"]);
    let [a, b] = start([kubernetes.pod("a"), Spec::default()]).await;
    let node = Arc::clone(&a.sync.node);
    push_nothing(&node, &b.sync.address);
    a.manager.put("key", "value");
    kubernetes.terminates("a");
    a.sync.end().await;
    assert_eq!(b.manager.get("key").as_deref(), Some("value"));
    assert!(handovers(&node, "complete"));
    assert_eq!(a.manager.leaves(), [true]);
}

#[tokio::test]
async fn where_peers_are_dead_or_silent_another_gets_everything() {
    let kubernetes = Kubernetes::with(&["a"]);
    let mut spec = kubernetes.pod("a");
    spec.bounds.lifecycle.handover = NEVER;
    let [a, b] = start([spec, Spec::default()]).await;
    let listener = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = [listener().await, listener().await];
    let dead = listener().await;
    let peers = silent.iter().chain([&dead]);
    let peers = peers.map(|peer| peer.local_addr().unwrap().to_string().parse().unwrap());
    let peers = peers.collect::<Vec<_>>();
    drop(dead);
    let node = Arc::clone(&a.sync.node);
    node.book()
        .replace(peers.into_iter().chain([b.sync.address.clone()]));
    push_nothing(&node, &b.sync.address);
    a.manager.put("key", "value");
    kubernetes.terminates("a");
    a.sync.end().await;
    assert_eq!(b.manager.get("key").as_deref(), Some("value"));
    assert!(handovers(&node, "complete"));
}

#[tokio::test]
async fn a_pod_that_is_alone_waits_for_nobody() {
    let kubernetes = Kubernetes::with(&["a"]);
    let mut spec = kubernetes.pod("a");
    spec.bounds.lifecycle.handover = NEVER;
    let [a] = start([spec]).await;
    a.sync.node.book().replace([]);
    kubernetes.terminates("a");
    let node = Arc::clone(&a.sync.node);
    a.sync.end().await;
    assert!(handovers(&node, "alone"));
    assert_eq!(a.manager.leaves(), [true]);
}

#[tokio::test]
async fn a_pod_that_reaches_nobody_gives_up_in_time() {
    let kubernetes = Kubernetes::with(&["a"]);
    let mut spec = kubernetes.pod("a");
    spec.bounds.lifecycle.handover = Duration::from_millis(100);
    let [a, b] = start([spec, Spec::default()]).await;
    a.sync.node.book().replace([b.sync.address.clone()]);
    b.sync.end().await;
    kubernetes.terminates("a");
    let node = Arc::clone(&a.sync.node);
    a.sync.end().await;
    assert!(handovers(&node, "incomplete"));
}

#[tokio::test]
async fn kubernetes_may_say_a_little_late_that_a_pod_is_being_deleted() {
    let kubernetes = Kubernetes::with(&["a"]);
    let mut spec = kubernetes.pod("a");
    spec.bounds.lifecycle.terminating = NEVER;
    spec.bounds.lifecycle.handover = NEVER;
    let [a] = start([spec]).await;
    let Pod { manager, sync } = a;
    let end = tokio::spawn(sync.end());
    tokio::task::yield_now().await;
    assert_eq!(manager.leaves(), [false; 0]);
    kubernetes.terminates("a");
    end.await.unwrap();
    assert_eq!(manager.leaves(), [true]);
}

#[tokio::test]
async fn a_container_that_is_started_again_is_no_pod_that_leaves() {
    for sight in [Sight::Live, Sight::Lost, Sight::None] {
        let kubernetes = Kubernetes::with(&[]);
        kubernetes.says(&["a"], false, sight);
        let mut spec = kubernetes.pod("a");
        spec.bounds.lifecycle.terminating = match sight {
            Sight::Live => Duration::from_millis(50),
            // Nothing is heard, so there is nothing to wait for.
            _ => NEVER,
        };
        let [a, b] = start([spec, Spec::default()]).await;
        push_nothing(&a.sync.node, &b.sync.address);
        a.manager.put("key", "value");
        a.sync.end().await;
        assert_eq!(a.manager.leaves(), [false; 0], "{sight:?}");
        assert_eq!(b.manager.get("key").as_deref(), Some("value"));
    }
}

#[tokio::test]
async fn a_pod_of_a_fixed_list_leaves_where_its_end_is_said_to_be_for_good() {
    let for_good = Spec {
        flags: vec!["--leave-for-good".to_owned()],
        ..Spec::default()
    };
    let [a, b] = start([for_good, Spec::default()]).await;
    let node = Arc::clone(&a.sync.node);
    push_nothing(&node, &b.sync.address);
    a.manager.put("key", "value");
    a.sync.end().await;
    assert_eq!(a.manager.leaves(), [true]);
    assert_eq!(b.manager.get("key").as_deref(), Some("value"));
    assert!(handovers(&node, "complete"));
    // The other was told nothing, and may come back.
    b.sync.end().await;
    assert_eq!(b.manager.leaves(), [false; 0]);
}

#[tokio::test]
async fn a_hook_hands_over_while_the_application_goes_on() {
    let [a, b] = start_default().await;
    push_nothing(&a.sync.node, &b.sync.address);
    a.manager.put("key", "value");
    let ops = a.sync.ops.to_string();
    let output = udht_sync(&["handover", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let expected = format!("complete: {} has everything", b.sync.address);
    assert!(said(&output.stdout).starts_with(&expected));
    assert_eq!(b.manager.get("key").as_deref(), Some("value"));
    assert_eq!(a.manager.leaves(), [false; 0]);

    let mut hurried = Spec::default();
    hurried.bounds.lifecycle.handover = Duration::from_millis(100);
    let [c] = start([hurried]).await;
    let Pod { manager, sync } = b;
    c.sync.node.book().replace([sync.address.clone()]);
    sync.end().await;
    let ops = c.sync.ops.to_string();
    let output = udht_sync(&["handover", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("no peer was found"));
    drop(manager);
}

#[tokio::test]
async fn a_page_in_a_browser_commands_nothing() {
    let [a] = start_default().await;
    for path in ["/v1/handover", "/v1/gone"] {
        let mut request = a
            .sync
            .ops
            .request(hyper::Method::POST, path, Vec::new())
            .unwrap();
        let page = HeaderValue::from_static("http://example.org");
        request.headers_mut().insert(ORIGIN, page);
        let http = HttpClient::new(Bounds::default().peer);
        let (status, _) = http.send(request, 1 << 20).await.unwrap();
        assert_eq!(status.as_u16(), 403, "{path}");
    }
    assert_eq!(a.sync.ask("/v1/handover").await.0, 405);
    assert_eq!(a.sync.ask("/v1/gone").await.0, 409, "the list is fixed");
}

const LISTED: [&str; 3] = ["a", "b", "c"];

/// Three pods that are listed, and the record of a fourth that is not.
async fn with_one_gone(gone_after: Duration) -> (Kubernetes, [Pod; 3]) {
    let kubernetes = Kubernetes::with(&LISTED);
    let pods = start(LISTED.map(|uid| Spec {
        gone_after,
        ..kubernetes.pod(uid)
    }))
    .await;
    for (uid, pod) in LISTED.iter().zip(&pods) {
        pod.manager.put_pod(uid, uid);
    }
    pods[0].manager.put_pod("gone", "d");
    for pod in &pods {
        pod.manager.says("gone", "pod:d").await;
    }
    (kubernetes, pods)
}

#[tokio::test]
async fn the_record_of_a_pod_that_is_gone_is_removed_by_the_first_in_rank() {
    let (_kubernetes, pods) = with_one_gone(Duration::from_millis(500)).await;
    for pod in &pods {
        pod.manager.lacks("gone").await;
    }
    for (uid, pod) in LISTED.iter().zip(&pods) {
        if is_first(uid) {
            pod.sync.counts("udht_gone_removed_total", 1).await;
        }
        for other in LISTED {
            pod.manager.says(other, &format!("pod:{other}")).await;
        }
        assert_eq!(pod.sync.metric("udht_brake").await, 0);
    }
    assert_eq!(LISTED.iter().filter(|uid| is_first(uid)).count(), 1);
}

/// Where a store was copied, two pods write one record: that of the two which goes does not take the
/// other's store with it.
#[tokio::test]
async fn the_store_of_a_pod_that_is_talked_to_is_not_gone_with_another_that_wrote_its_record() {
    let kubernetes = Kubernetes::with(&["a", "b", "c"]);
    let spec = |uid: &str| Spec {
        gone_after: Duration::from_millis(50),
        ..kubernetes.pod(uid)
    };
    let [a, b] = start([spec("a"), spec("b")]).await;
    for (uid, pod) in [("a", &a), ("b", &b)] {
        pod.manager.put_pod(uid, uid);
    }
    let of_both = b.manager.peer_id().to_string();
    a.manager.contacted(&of_both).await;
    for record in [&of_both, "gone"] {
        a.manager.put_pod(record, "c");
        b.manager.says(record, "pod:c").await;
    }
    kubernetes.lists(&["a", "b"]);
    for record in [&of_both, "gone"] {
        a.manager.lacks(record).await;
    }
    let told: BTreeSet<_> = [&a, &b].iter().flat_map(|pod| pod.manager.gone()).collect();
    assert_eq!(told, BTreeSet::from(["gone".parse().unwrap()]));
}

/// Whether it is this pod's turn at first to remove the record.
fn is_first(uid: &str) -> bool {
    let (start, after) = (Uptime::default(), Duration::from_secs(1));
    let pod = |uid: &str| PodUid(uid.to_owned());
    let mut gone = Gone::new(pod(uid), after);
    gone.sees(true, LISTED.map(|uid| (pod(uid), false)), start);
    let key = "gone".parse().unwrap();
    gone.scanned([Held { key, pod: pod("d") }], None, start);
    !gone.due(start.plus(after)).is_empty()
}

#[tokio::test]
async fn while_the_brake_is_on_records_stay_until_somebody_says_that_their_pods_are_gone() {
    let kubernetes = Kubernetes::with(&["a"]);
    let spec = Spec {
        gone_after: Duration::from_millis(50),
        ..kubernetes.pod("a")
    };
    let [a] = start([spec]).await;
    let Pod { manager, sync } = a;
    manager.put_pod("own", "a");
    for other in ["b", "c", "d"] {
        manager.put_pod(other, other);
    }
    sync.counts("udht_brake", 1).await;
    assert_eq!(sync.metric("udht_gone_pods").await, 3);
    assert_eq!(sync.metric("udht_gone_removed_total").await, 0);
    let (_, view) = sync.ask("/v1/gone").await;
    let view: GoneView = serde_json::from_str(&view).unwrap();
    assert_eq!(view.brake.as_deref(), Some("many"));
    assert_eq!(view.waiting.len(), 3);
    let ops = sync.ops.to_string();
    let output = udht_sync(&["gone", "--ops", &ops]).await;
    assert!(said(&output.stdout).contains("`udht-sync gone --remove`"));
    let output = udht_sync(&["gone", "--remove", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(2));
    let asked = said(&output.stderr);
    assert!(
        asked.contains("Of the 3 records") && asked.contains("--yes"),
        "{asked}"
    );
    assert_eq!(manager.digest().records, 4);

    let output = udht_sync(&["gone", "--remove", "--yes", "--ops", &ops]).await;
    assert_eq!(
        said(&output.stdout),
        "b\nc\nd\n3 records removed, 0 wait for their time\n"
    );
    for other in ["b", "c", "d"] {
        assert_eq!(manager.get(other), None);
    }
    assert_eq!(manager.get("own").as_deref(), Some("pod:a"));
    assert_eq!(sync.metric("udht_brake").await, 0);
}

#[tokio::test]
async fn a_list_that_is_not_followed_removes_nothing_also_by_hand() {
    let kubernetes = Kubernetes::with(&["a", "b"]);
    let spec = Spec {
        gone_after: Duration::from_millis(20),
        ..kubernetes.pod("a")
    };
    kubernetes.says(&["a", "b"], false, Sight::Lost);
    let [a] = start([spec]).await;
    a.manager.put_pod("gone", "c");
    a.sync.counts("udht_brake", 1).await;
    let ops = a.sync.ops.to_string();
    let output = udht_sync(&["gone", "--remove", "--yes", "--ops", &ops]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("not followed"));
    assert_eq!(a.manager.get("gone").as_deref(), Some("pod:c"));
    kubernetes.lists(&["a", "b"]);
    a.manager.lacks("gone").await;
    soon("the brake is off", async {
        while a.sync.metric("udht_brake").await != 0 {}
    })
    .await;
}
