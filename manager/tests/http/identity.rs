//! This pod's own record.

use peer_table::Fingerprint;
use peer_table::contract::fingerprints_from_bytes;
use peer_table::feed::Via;
use serde_json::json;
use udht_manager::config::IdentityArgs;
use udht_manager::config::PodArgs;
use udht_manager::identity::{IdentityError, Settled, keep, settle};

use crate::support::{Manager, peer};
use crate::sync::{MERGE, send};

fn args(name: Option<&str>, ip: Option<&str>, ports: &[&str], labels: &[&str]) -> IdentityArgs {
    IdentityArgs {
        peer_name: name.map(str::to_owned),
        peer_ip: ip.map(|ip| ip.parse().unwrap()),
        peer_port: ports.iter().map(|port| port.parse().unwrap()).collect(),
        peer_label: labels.iter().map(|label| label.parse().unwrap()).collect(),
    }
}

#[tokio::test]
async fn the_own_record_is_written_and_read_like_any_other() {
    let manager = Manager::new().await;
    let missing = manager.get("/v1/identity").expect(404).await;
    assert_eq!(missing.problem(), "no-identity");
    assert!(
        missing.json()["detail"]
            .as_str()
            .unwrap()
            .contains("--peer-ip")
    );
    let created = manager.put("/v1/identity", &peer()).expect(201).await;
    assert_eq!(created.header("location"), "/v1/peers/own");
    let read = manager.get("/v1/identity").expect(200).await;
    assert_eq!(
        read.json(),
        manager.get("/v1/peers/own").expect(200).await.json()
    );
    let known = manager
        .get("/v1/identity")
        .header("if-none-match", read.header("etag"));
    known.expect(304).await;
    let stale = manager
        .put("/v1/identity", &peer())
        .header("if-match", "\"x\"");
    stale.expect(412).await;
    let mut other = peer();
    other["peer_id"] = "other".into();
    let refused = manager.put("/v1/identity", &other).expect(422).await;
    assert_eq!(refused.json()["field"], "peer_id");
    manager.put("/v1/identity", &read.json()).expect(200).await;
}

#[tokio::test]
async fn without_an_address_no_record_is_made() {
    let manager = Manager::new().await;
    let settled = settle(&manager.owner, &args(Some("a"), None, &[], &[]), None).await;
    assert_eq!(settled.unwrap(), Settled::Missing);
    manager.get("/v1/identity").expect(404).await;
}

#[tokio::test]
async fn a_start_makes_the_record_and_a_second_start_leaves_it() {
    let manager = Manager::new().await;
    let flags = args(None, Some("10.0.0.1"), &["userSync=1"], &["zone=a"]);
    assert_eq!(
        settle(&manager.owner, &flags, None).await.unwrap(),
        Settled::Written
    );
    let made = manager.get("/v1/identity").expect(200).await;
    assert_eq!(made.json()["ports"], json!({"userSync": 1}));
    assert_eq!(made.json()["labels"], json!({"zone": "a"}));
    assert!(!made.json()["name"].as_str().unwrap().is_empty());
    manager.post("/v1/peers/own/contact").expect(200).await;

    let manager = manager.reopened().await;
    assert_eq!(
        settle(&manager.owner, &flags, None).await.unwrap(),
        Settled::Kept
    );
    let kept = manager.get("/v1/identity").expect(200).await;
    assert_eq!(kept.header("etag"), made.header("etag"));
}

#[tokio::test]
async fn flags_win_for_what_they_name_and_the_rest_stays() {
    let manager = Manager::new().await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    let flags = args(
        None,
        Some("10.9.9.9"),
        &["userSync=7", "fileSync=8"],
        &["rack=r"],
    );
    assert_eq!(
        settle(&manager.owner, &flags, None).await.unwrap(),
        Settled::Written
    );
    let read = manager.get("/v1/identity").expect(200).await.json();
    assert_eq!(read["name"], "files-0");
    assert_eq!(read["ip"], "10.9.9.9");
    assert_eq!(read["ports"], json!({"userSync": 7, "fileSync": 8}));
    assert_eq!(read["labels"], json!({"zone": "a", "rack": "r"}));
    let renamed = args(Some("new"), None, &[], &[]);
    assert_eq!(
        settle(&manager.owner, &renamed, None).await.unwrap(),
        Settled::Written
    );
    let read = manager.get("/v1/identity").expect(200).await.json();
    assert_eq!(
        (&read["name"], &read["ip"]),
        (&json!("new"), &json!("10.9.9.9"))
    );
}

#[tokio::test]
async fn a_deleted_own_record_is_made_anew_at_the_next_start() {
    let manager = Manager::new().await;
    let flags = args(Some("a"), Some("::1"), &[], &[]);
    settle(&manager.owner, &flags, None).await.unwrap();
    manager.delete("/v1/peers/own").expect(204).await;
    assert_eq!(
        settle(&manager.owner, &flags, None).await.unwrap(),
        Settled::Written
    );
    manager.get("/v1/identity").expect(200).await;
}

#[tokio::test]
async fn flags_that_make_no_record_are_refused() {
    let manager = Manager::new().await;
    let ports: Vec<_> = (1..=65).map(|n| format!("p{n}={n}")).collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let refused = settle(&manager.owner, &args(None, Some("::1"), &ports, &[]), None).await;
    assert!(
        matches!(refused, Err(IdentityError::Invalid(_))),
        "{refused:?}"
    );
    for twice in [
        args(None, Some("::1"), &["x=1", "x=2"], &[]),
        args(None, Some("::1"), &[], &["a=1", "a=1"]),
    ] {
        let refused = settle(&manager.owner, &twice, None).await.unwrap_err();
        let text = udht_tell::chain(&refused);
        assert!(text.ends_with("is given twice"), "{text}");
    }
    manager.fail_store(true);
    let unavailable = settle(&manager.owner, &args(None, Some("::1"), &[], &[]), None).await;
    assert!(
        matches!(unavailable, Err(IdentityError::Owner(_))),
        "{unavailable:?}"
    );
}

/// Gives `to` what `from` holds, tombstones too, as an exchange does.
async fn tell(from: &Manager, to: &Manager) {
    let page = from.owner.fingerprints(Fingerprint(0), 10).unwrap();
    let all = fingerprints_from_bytes(&page.fingerprints).unwrap();
    let held = from.owner.records(&all).await.unwrap();
    send(to, MERGE, &held.batch).expect(200).await;
}

#[tokio::test]
async fn a_record_that_peers_took_away_or_changed_is_written_again_as_it_was() {
    let (manager, peers) = (Manager::new().await, Manager::new().await);
    let flags = args(Some("files-0"), Some("10.0.0.1"), &[], &[]);
    settle(&manager.owner, &flags, None).await.unwrap();
    let keeping = tokio::spawn(keep(manager.owner.clone(), flags, true));
    let mut said = manager.get("/v1/identity").expect(200).await.json();
    said["labels"] = json!({"zone": "a"});
    manager.put("/v1/identity", &said).expect(200).await;
    tell(&manager, &peers).await;

    let mut watch = manager.get("/v1/peers?watch=true").open().await;
    watch.line().await.unwrap();
    peers.delete("/v1/peers/own").expect(204).await;
    tell(&peers, &manager).await;
    assert_eq!(watch.line().await.unwrap()["type"], "delete");
    let back = watch.line().await.unwrap();
    assert_eq!(back["peer"]["labels"], json!({"zone": "a"}));

    tell(&manager, &peers).await;
    let stolen = json!({"name": "thief", "ip": "10.6.6.6", "ports": {"x": 1}, "labels": {}});
    peers.put("/v1/peers/own", &stolen).expect(200).await;
    tell(&peers, &manager).await;
    assert_eq!(watch.line().await.unwrap()["peer"]["name"], "thief");
    let back = watch.line().await.unwrap();
    for field in ["name", "ip", "ports", "labels"] {
        assert_eq!(back["peer"][field], said[field], "{field}");
    }
    keeping.abort();
}

#[tokio::test]
async fn a_pod_with_another_uid_says_so_at_its_start() {
    let pod = |uid: &str| PodArgs {
        pod_uid: Some(uid.to_owned()),
        ..PodArgs::default()
    };
    let flags = args(Some("files-0"), Some("10.0.0.1"), &[], &[]);
    let manager = Manager::of_pod(pod("u-1")).await;
    settle(&manager.owner, &flags, None).await.unwrap();
    let (records, _) = manager.owner.page(None, 10).await.unwrap();
    let next = Manager::of_pod(pod("u-2")).await;
    next.owner
        .merge(None, records, Via::Exchange, None)
        .await
        .unwrap();
    settle(&next.owner, &flags, None).await.unwrap();
    let read = next.get("/v1/identity").expect(200).await.json();
    assert_eq!(read["labels"]["udht/pod-uid"], "u-2");
}
