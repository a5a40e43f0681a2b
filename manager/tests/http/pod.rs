//! What sync tells of the pod: the authority of its cluster, and that the pod is going.

use peer_table::contract::{Bind, Leave, LeaveAnswer, State};
use peer_table::{AuthorityId, Binding, Fingerprint, FingerprintKey};
use serde_json::json;
use udht_manager::config::{PodArgs, Storage};

use crate::replicas::clock_off;
use crate::support::{Manager, peer};
use crate::sync::{read, send, state};

const AUTHORITY: &str = "/v1/sync/authority";
const LEAVE: &str = "/v1/sync/leave";

fn id(number: u8) -> AuthorityId {
    AuthorityId::from_bytes([number; 16])
}

fn binding(number: u8) -> Binding {
    Binding {
        authority: id(number),
        fingerprint_key: FingerprintKey::from_bytes([number ^ 0xf0; 16]),
    }
}

fn to(number: u8) -> Bind {
    Bind::new(&binding(number), [])
}

/// All fingerprints, in order.
fn fingerprints(manager: &Manager) -> Vec<u8> {
    let page = manager.owner.fingerprints(Fingerprint(0), 10_000).unwrap();
    assert!(page.complete);
    page.fingerprints
}

async fn leave(manager: &Manager, for_good: bool) -> bool {
    let answer = send(manager, LEAVE, &Leave { for_good }).expect(200).await;
    read::<LeaveAnswer>(&answer).record_deleted
}

#[tokio::test]
async fn a_bound_store_has_the_cluster_and_the_fingerprints_of_its_authority() {
    let (bound, fresh) = (Manager::new().await, Manager::new().await);
    bound.fill((0..1_500).map(|n| format!("p{n}"))).await;
    bound.delete("/v1/peers/p7").expect(204).await;
    let before = state(&bound).await;
    assert_eq!(
        (before.cluster.as_str(), before.authority.len()),
        ("test", 0)
    );
    let unbound = fingerprints(&bound);

    let answer: State = read(&send(&bound, AUTHORITY, &to(1)).expect(200).await);
    assert_eq!(answer, state(&bound).await);
    let uuid = "01010101-0101-0101-0101-010101010101";
    assert_eq!(answer.cluster, format!("test#{uuid}"));
    assert_eq!(answer.authority, [1; 16]);
    assert_eq!(answer.key_check, binding(1).fingerprint_key.check());
    assert_eq!(answer.tables[0].digest.records, 1_500);
    assert_ne!(answer.tables[0].digest, before.tables[0].digest);
    assert_eq!((answer.store, answer.origin), (before.store, before.origin));
    let rekeyed = fingerprints(&bound);
    assert!(rekeyed.len() == unbound.len() && rekeyed != unbound);

    // What is read under it at a start is what was made anew.
    let bound = bound.reopened().await;
    assert_eq!(state(&bound).await.cluster, format!("test#{uuid}"));
    assert!(fingerprints(&bound) == rekeyed);
    // And a write goes on under it, in all pods alike.
    bound.put("/v1/peers/new", &peer()).expect(201).await;
    send(&fresh, AUTHORITY, &to(1)).expect(200).await;
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = bound.owner.page(after.as_ref(), 1_000).await.unwrap();
        records.extend(page);
        after = next;
        if after.is_none() {
            break;
        }
    }
    let via = peer_table::feed::Via::Exchange;
    fresh.owner.merge(None, records, via, None).await.unwrap();
    let live = fingerprints(&fresh);
    let all = fingerprints(&bound);
    let all: Vec<_> = all.chunks(8).collect();
    assert_eq!(all.len(), 1_501);
    assert!(live.chunks(8).all(|print| all.contains(&print)));
}

#[tokio::test]
async fn binding_again_changes_nothing_and_another_authority_is_refused_with_what_to_do() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    send(&manager, AUTHORITY, &to(1)).expect(200).await;
    let (bound, revision) = (state(&manager).await, manager.owner.revision());
    let again: State = read(&send(&manager, AUTHORITY, &to(1)).expect(200).await);
    assert_eq!((&again, manager.owner.revision()), (&bound, revision));

    let refused = send(&manager, AUTHORITY, &to(2)).expect(409).await;
    assert_eq!(refused.problem(), "other-authority");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    for part in [
        id(1).to_string(),
        id(2).to_string(),
        format!("udht-sync authority adopt {}", id(1)),
    ] {
        assert!(detail.contains(&part), "{detail}");
    }
    assert!(detail.len() <= 300, "sync would cut it");
    assert_eq!(
        (state(&manager).await, manager.owner.revision()),
        (bound, revision)
    );

    let adopting = Bind::new(&binding(2), [id(9), id(1)]);
    let adopted: State = read(&send(&manager, AUTHORITY, &adopting).expect(200).await);
    assert_eq!(adopted.authority, [2; 16]);
    let manager = manager.reopened().await;
    assert_eq!(state(&manager).await.authority, [2; 16]);
    send(&manager, AUTHORITY, &to(1)).expect(409).await;
}

#[tokio::test]
async fn who_watches_lists_again_after_a_binding() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let since = manager.owner.revision();
    let mut watch = manager.get("/v1/peers?watch=true").open().await;
    assert_eq!(watch.line().await.unwrap()["type"], "start");
    let mut feed = manager.get("/v1/sync/feed").open().await;
    feed.part().await.unwrap().unwrap();
    send(&manager, AUTHORITY, &to(1)).expect(200).await;
    let gone = json!({"type": "gone", "reason": "reopened"});
    assert_eq!(watch.line().await.unwrap(), gone);
    assert!(watch.line().await.is_none() && feed.part().await.is_none());
    let path = format!("/v1/peers?watch=true&since={since}");
    manager.get(&path).expect(410).await;
    let list = manager.get("/v1/peers").expect(200).await;
    assert_eq!(list.ids(), ["p1"]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_bound() {
    let manager = Manager::new().await;
    manager.fail_store(true);
    send(&manager, AUTHORITY, &to(1)).expect(503).await;
    manager.fail_store(false);
    assert!(state(&manager).await.authority.is_empty());
    send(&manager, AUTHORITY, &to(1)).expect(200).await;
}

#[tokio::test]
async fn a_binding_with_a_part_of_another_length_is_refused() {
    let manager = Manager::new().await;
    for (bind, field) in [
        (
            Bind {
                uuid: vec![1; 15],
                ..to(1)
            },
            "uuid",
        ),
        (Bind::default(), "fingerprint_key"),
        (
            Bind {
                adopts: vec![vec![]],
                ..to(1)
            },
            "adopts",
        ),
    ] {
        let refused = send(&manager, AUTHORITY, &bind).expect(422).await;
        assert_eq!(refused.json()["field"], field);
    }
    assert!(state(&manager).await.authority.is_empty());
}

#[tokio::test]
async fn a_pod_that_goes_takes_no_write_and_still_tells_and_hears() {
    let (going, other) = (Manager::new().await, Manager::new().await);
    going.put("/v1/identity", &peer()).expect(201).await;
    assert!(!leave(&going, true).await, "its store outlives it");
    let refused = going.put("/v1/peers/p1", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "leaving");
    assert!(!refused.header("retry-after").is_empty());
    going.delete("/v1/peers/own").expect(503).await;
    going.post("/v1/peers/own/contact").expect(503).await;
    going.get("/v1/peers/own").expect(200).await;
    send(&going, AUTHORITY, &to(1)).expect(200).await;
    other.put("/v1/peers/p1", &peer()).expect(201).await;
    let (records, _) = other.owner.page(None, 10).await.unwrap();
    let via = peer_table::feed::Via::Push;
    going.owner.merge(None, records, via, None).await.unwrap();
    going.get("/v1/peers/p1").expect(200).await;
    // It ends with the process.
    let back = going.reopened().await;
    back.put("/v1/peers/p2", &peer()).expect(201).await;
}

#[tokio::test]
async fn a_pod_that_takes_its_store_along_takes_its_record_along() {
    let pod = PodArgs {
        storage: Storage::Pod,
        ..PodArgs::default()
    };
    let manager = Manager::of_pod(pod.clone()).await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    assert!(!leave(&manager, false).await, "it comes back");
    manager.get("/v1/identity").expect(200).await;
    for _ in 0..2 {
        assert!(leave(&manager, true).await);
        manager.get("/v1/identity").expect(404).await;
    }
    assert_eq!(manager.owner.counts(), (0, 1));

    // What a wrong clock stamps its peers refuse; they see to the record once the pod is gone.
    let manager = Manager::of_pod(pod.clone()).await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    clock_off(&manager, 3_600_000).await;
    assert!(!leave(&manager, true).await);
    assert_eq!(manager.owner.counts(), (1, 0));

    let manager = Manager::of_pod(pod).await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    manager.fail_store(true);
    send(&manager, LEAVE, &Leave { for_good: true })
        .expect(503)
        .await;
    manager.fail_store(false);
    assert!(leave(&manager, true).await, "it is asked again");
    manager.get("/v1/identity").expect(404).await;
}

#[tokio::test]
async fn the_own_record_says_which_pod_it_is_of_whoever_writes_it() {
    let pod = PodArgs {
        pod_name: Some("files-0".to_owned()),
        pod_uid: Some("u-1".to_owned()),
        ..PodArgs::default()
    };
    let manager = Manager::of_pod(pod).await;
    let labels = json!({"zone": "a", "udht/pod": "files-0", "udht/pod-uid": "u-1"});
    let made = manager.put("/v1/identity", &peer()).expect(201).await;
    assert_eq!(made.json()["labels"], labels);
    let mut other = peer();
    other["labels"] = json!({"zone": "a", "udht/pod-uid": "u-2"});
    let put = manager.put("/v1/peers/own", &other).expect(200).await;
    assert_eq!(put.json()["labels"], labels);
    let patch = json!({"labels": {"udht/pod": null}});
    let patched = manager.patch("/v1/peers/own", &patch).expect(200).await;
    assert_eq!(patched.json()["labels"], labels);
    manager.put("/v1/peers/p1", &other).expect(201).await;
    let list = manager
        .get("/v1/peers?label=udht/pod-uid")
        .expect(200)
        .await;
    assert_eq!(list.ids(), ["own", "p1"]);
    let full: serde_json::Map<_, _> = (0..63).map(|n| (format!("k{n}"), "".into())).collect();
    other["labels"] = full.into();
    let refused = manager.put("/v1/identity", &other).expect(422).await;
    assert_eq!(refused.json()["field"], "labels");
}
