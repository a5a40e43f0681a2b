//! Why a record is as it is, and where a write went.

use std::time::Duration;

use peer_table::contract::Batch;
use peer_table::history::History;
use peer_table::table::Limits;
use peer_table::{Body, Clock, Contact, Entry, Key, OriginId, Reading};
use serde_json::{Value, json};
use udht_manager::owner::wall_now;

use crate::replicas::{known, two};
use crate::support::{Manager, peer};
use crate::sync::{MERGE, send, state};

const SENDER: &str = "07070707-0707-0707-0707-070707070707";

async fn explain(manager: &Manager, id: &str) -> Value {
    let path = format!("/v1/peers/{id}/explain");
    manager.get(&path).expect(200).await.json()
}

/// A record as another replica wrote it, `ahead` of this machine's clock.
fn written(ahead: Duration, origin: u8, like: &Entry) -> Entry {
    let origin = OriginId::from_bytes([origin; 16]);
    let mut clock = Clock::new(origin, Reading::default(), Duration::from_secs(10));
    Entry {
        version: clock.stamp(wall_now().plus(ahead)).unwrap(),
        ..like.clone()
    }
}

/// An entry that some manager made.
async fn sample() -> Entry {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p", &peer()).expect(201).await;
    let key: Key = "p".parse().unwrap();
    manager.owner.get(&key).await.unwrap().unwrap()
}

/// Has a peer push these records.
async fn push(manager: &Manager, records: impl IntoIterator<Item = (&str, Entry)>) {
    let records = records.into_iter();
    let records = records.map(|(id, entry)| (id.parse::<Key>().unwrap(), entry));
    let batch = Batch::new(manager.owner.table_name(), records);
    send(manager, MERGE, &batch).expect(200).await;
}

fn reasons(explained: &Value, list: &str) -> Vec<String> {
    let all = explained[list].as_array().unwrap().iter();
    all.map(|it| it["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_write_of_this_pod_is_explained_to_the_last_field() {
    let manager = Manager::new().await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    let first = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let second = manager.put("/v1/peers/p1", &peer()).expect(200).await;
    manager.post("/v1/peers/p1/contact").expect(200).await;
    let held = manager.get("/v1/peers/p1").expect(200).await.json();
    let explained = explain(&manager, "p1").await;
    let origin = json!({
        "id": manager.owner.origin().to_string(), "store": SENDER, "peer_id": "own",
        "name": "files-0", "own": true, "fenced": null,
    });
    let (at, lost_at) = (&explained["arrival"]["at"], &explained["lost"][0]["at"]);
    let since = &explained["remembers"]["since"];
    let first = first.json();
    let expected = json!({
        "peer_id": "p1",
        "state": "live",
        "version": second.json()["version"],
        "writtenAt": held["updatedAt"],
        "lastConnectionOn": held["lastConnectionOn"],
        "origin": origin,
        "arrival": {"at": at, "via": "write", "from": null},
        "lost": [{
            "version": first["version"], "writtenAt": first["updatedAt"], "origin": origin,
            "deletion": false, "at": lost_at, "via": "write", "from": null,
            "reason": "overwritten", "text": explained["lost"][0]["text"], "times": 1,
        }],
        "refused": [],
        "remembers": {"since": since, "keys": 4096},
    });
    assert_eq!(explained, expected, "{explained:#}");
    assert_ne!(explained["lastConnectionOn"], Value::Null);
    // All times are of one form, which is sorted as text.
    let [at, lost_at, since] = [at, lost_at, since].map(|it| it.as_str().unwrap());
    assert!(since <= lost_at && lost_at <= at, "{since} {lost_at} {at}");
    let text = explained["lost"][0]["text"].as_str().unwrap();
    assert!(text.contains("a newer version came"), "{text}");
}

#[tokio::test]
async fn what_a_peer_wrote_names_its_store_and_its_pod_and_who_sent_it() {
    let (here, there) = two().await;
    there.put("/v1/identity", &peer()).expect(201).await;
    there.put("/v1/peers/p1", &peer()).expect(201).await;
    let key = |id: &str| id.parse::<Key>().unwrap();
    let entry = there.owner.get(&key("p1")).await.unwrap().unwrap();
    let theirs = there.owner.get(&key("own")).await.unwrap().unwrap();
    push(&here, [("p1", entry), ("own", theirs)]).await;
    let store = known(&there).await["store"].clone();
    let explained = explain(&here, "p1").await;
    let origin = json!({
        "id": state_origin(&there), "store": store, "peer_id": "own", "name": "files-0",
        "own": false, "fenced": null,
    });
    assert_eq!(explained["origin"], origin, "{explained:#}");
    let at = &explained["arrival"]["at"];
    let from = json!({"store": SENDER, "peer_id": "own", "name": "files-0"});
    let arrival = json!({"at": at, "via": "push", "from": from});
    assert_eq!(explained["arrival"], arrival, "{explained:#}");

    // Once that opening has ended it is still known whose it was, after a start too.
    there.post("/v1/replicas/start-over").expect(200).await;
    let path = format!("/v1/replicas/{}/give-up", store.as_str().unwrap());
    here.post(&path).expect(200).await;
    let explained = explain(&here, "p1").await;
    let mut origin = origin;
    origin["fenced"] = "given_up".into();
    assert_eq!(explained["origin"], origin, "{explained:#}");
    let here = here.reopened().await;
    let explained = explain(&here, "p1").await;
    assert_eq!(explained["origin"], origin, "{explained:#}");
    assert_eq!(explained["arrival"]["via"], "store", "{explained:#}");
}

fn state_origin(manager: &Manager) -> String {
    manager.owner.origin().to_string()
}

#[tokio::test]
async fn losers_say_how_they_had_come_and_why_they_lost() {
    let (manager, sample) = (Manager::new().await, sample().await);
    let before = Duration::ZERO;
    let older = written(before, 1, &sample);
    let pushed = written(before, 2, &sample);
    // The clock is above what it merged.
    push(&manager, [("p1", pushed.clone())]).await;
    push(&manager, [("p1", older.clone())]).await;
    push(&manager, [("p1", older.clone())]).await;
    manager.delete("/v1/peers/p1").expect(204).await;
    let explained = explain(&manager, "p1").await;
    assert_eq!(explained["state"], "deleted", "{explained:#}");
    assert_eq!(explained["arrival"]["via"], "write");
    assert_eq!(reasons(&explained, "lost"), ["deleted", "older"]);
    let [deleted, lost] = [0, 1].map(|place| &explained["lost"][place]);
    assert_eq!(deleted["version"], pushed.version.to_string());
    assert_eq!(deleted["via"], "push");
    assert_eq!(deleted["from"]["store"], SENDER);
    assert_eq!(lost["version"], older.version.to_string());
    assert_eq!(lost["times"], 2, "it came twice");
    assert_eq!(
        lost["origin"]["id"],
        OriginId::from_bytes([1; 16]).to_string()
    );
    assert_eq!(lost["origin"]["store"], Value::Null);
    // A deletion can lose as well.
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let explained = explain(&manager, "p1").await;
    assert_eq!(explained["state"], "live");
    assert_eq!(explained["lost"][0]["deletion"], true, "{explained:#}");
    assert_eq!(explained["lost"][0]["reason"], "overwritten");
}

#[tokio::test]
async fn a_refused_record_of_which_nothing_is_held_says_why() {
    let (manager, sample) = (Manager::new().await, sample().await);
    let never = manager.get("/v1/peers/p1/explain").expect(404).await;
    assert_eq!(never.problem(), "no-such-peer");
    let ahead = written(Duration::from_hours(24), 1, &sample);
    let seen_ahead = Entry {
        contact: Contact::at(wall_now().plus(Duration::from_hours(24))),
        ..written(Duration::ZERO, 1, &sample)
    };
    push(&manager, [("p1", ahead.clone()), ("p2", seen_ahead)]).await;
    let explained = explain(&manager, "p1").await;
    assert_eq!(explained["state"], "unknown", "{explained:#}");
    for null in [
        "version",
        "writtenAt",
        "lastConnectionOn",
        "origin",
        "arrival",
    ] {
        assert_eq!(explained[null], Value::Null, "{null}");
    }
    let refused = &explained["refused"][0];
    assert_eq!(refused["reason"], "version_ahead");
    assert_eq!(refused["version"], ahead.version.to_string());
    assert_eq!(
        (&refused["via"], &refused["times"]),
        (&json!("push"), &json!(1))
    );
    assert_eq!(refused["from"]["store"], SENDER);
    let text = refused["text"].as_str().unwrap();
    assert!(
        text.starts_with("It is stamped 23h 59m") || text.contains(" 1day "),
        "{text}"
    );
    assert!(text.contains("heal-clock"), "{text}");
    let other = explain(&manager, "p2").await;
    assert_eq!(reasons(&other, "refused"), ["contact_ahead"]);
    manager.get("/v1/peers/p1").expect(404).await;
}

#[tokio::test]
async fn a_write_that_was_refused_is_found_by_whoever_looks_for_it() {
    let manager = Manager::with_limits(Limits {
        records_max: 2,
        ..Limits::default()
    })
    .await;
    let path = "/v1/peers/p1";
    manager.patch(path, &json!({"name": "x"})).expect(404).await;
    manager.put(path, &peer()).expect(201).await;
    let if_none = manager.put(path, &peer()).header("if-none-match", "*");
    if_none.expect(412).await;
    let mut bad = peer();
    bad["ports"] = json!({"userSync": 0});
    manager.put(path, &bad).expect(422).await;
    manager.put(path, &json!([])).expect(422).await;
    let explained = explain(&manager, "p1").await;
    let expected = ["invalid", "precondition", "absent"];
    assert_eq!(reasons(&explained, "refused"), expected, "{explained:#}");
    let refused = &explained["refused"][0];
    assert_eq!(
        (&refused["times"], &refused["via"]),
        (&json!(2), &json!("write"))
    );
    assert_eq!(
        (&refused["version"], &refused["origin"]),
        (&Value::Null, &Value::Null)
    );

    manager.put("/v1/peers/p2", &peer()).expect(201).await;
    manager.put("/v1/peers/p3", &peer()).expect(507).await;
    let sample = sample().await;
    push(&manager, [("p3", written(Duration::ZERO, 1, &sample))]).await;
    let explained = explain(&manager, "p3").await;
    assert_eq!(reasons(&explained, "refused"), ["full", "full"]);
    assert_eq!(explained["refused"][0]["via"], "push", "{explained:#}");
    assert_eq!(explained["refused"][1]["via"], "write", "{explained:#}");
}

#[tokio::test]
async fn what_the_store_or_the_clock_or_the_end_of_the_pod_refused_is_told() {
    let (manager, sample) = (Manager::new().await, sample().await);
    manager.fail_store(true);
    manager.put("/v1/peers/p1", &peer()).expect(503).await;
    let record = written(Duration::ZERO, 1, &sample);
    let batch = Batch::new(
        manager.owner.table_name(),
        [("p2".parse::<Key>().unwrap(), record.clone())],
    );
    send(&manager, MERGE, &batch).expect(503).await;
    manager.fail_store(false);
    for (id, via) in [("p1", "write"), ("p2", "push")] {
        let explained = explain(&manager, id).await;
        assert_eq!(reasons(&explained, "refused"), ["store"], "{explained:#}");
        assert_eq!(explained["refused"][0]["via"], via);
        assert_eq!(explained["state"], "unknown");
    }
    // What came again is there, and what happened before is still told.
    send(&manager, MERGE, &batch).expect(200).await;
    let explained = explain(&manager, "p2").await;
    assert_eq!(explained["version"], record.version.to_string());
    assert_eq!(reasons(&explained, "refused"), ["store"]);
    // It needs no store for what it tells.
    manager.fail_store(true);
    assert_eq!(explain(&manager, "p2").await["state"], "live");
    manager.fail_store(false);

    manager.owner.leave(false).await.unwrap();
    manager.put("/v1/peers/p2", &peer()).expect(503).await;
    let explained = explain(&manager, "p2").await;
    assert_eq!(reasons(&explained, "refused"), ["leaving", "store"]);
}

#[tokio::test]
async fn what_was_there_before_the_start_is_told_as_far_as_its_version_tells_it() {
    let (manager, sample) = (Manager::new().await, sample().await);
    manager.put("/v1/peers/mine", &peer()).expect(201).await;
    manager.delete("/v1/peers/mine").expect(204).await;
    let theirs = written(Duration::ZERO, 1, &sample);
    push(&manager, [("theirs", theirs.clone())]).await;
    let before = explain(&manager, "mine").await;
    let manager = manager.reopened().await;
    let mine = explain(&manager, "mine").await;
    assert_eq!(mine["state"], "deleted");
    for same in ["version", "writtenAt"] {
        assert_eq!(mine[same], before[same], "{same}");
    }
    assert_eq!(
        (&mine["origin"]["own"], &mine["origin"]["store"]),
        (&json!(true), &json!(SENDER))
    );
    assert_eq!(mine["origin"]["fenced"], "ended", "{mine:#}");
    let since = mine["remembers"]["since"].clone();
    let stored = json!({"at": mine["arrival"]["at"], "via": "store", "from": null});
    assert_eq!(mine["arrival"], stored);
    assert!(mine["arrival"]["at"].as_str() <= since.as_str());
    assert_eq!(
        mine["lost"],
        json!([]),
        "that is not remembered over a start"
    );
    let told = explain(&manager, "theirs").await;
    assert_eq!(told["version"], theirs.version.to_string());
    assert_eq!(told["arrival"]["via"], "store");
    // A loser that was there before had come by the store.
    manager.put("/v1/peers/theirs", &peer()).expect(200).await;
    let told = explain(&manager, "theirs").await;
    assert_eq!(told["lost"][0]["via"], "store", "{told:#}");
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_what_was_forgotten_is_not_made_up() {
    let (manager, sample) = (Manager::new().await, sample().await);
    push(&manager, [("theirs", written(Duration::ZERO, 1, &sample))]).await;
    for _ in 0..12 {
        manager.put("/v1/peers/mine", &peer()).send().await;
    }
    let explained = explain(&manager, "mine").await;
    assert_eq!(explained["lost"].as_array().unwrap().len(), 8);
    assert_eq!(explain(&manager, "theirs").await["arrival"]["via"], "push");

    let mut others = Vec::new();
    for number in 0..History::KEYS_MAX {
        let entry = Entry {
            body: Body::Tombstone,
            ..written(Duration::ZERO, 2, &sample)
        };
        others.push((format!("other-{number}").parse::<Key>().unwrap(), entry));
    }
    let batch = Batch::new(manager.owner.table_name(), others);
    send(&manager, MERGE, &batch).expect(200).await;
    let explained = explain(&manager, "theirs").await;
    assert_eq!(explained["state"], "live");
    assert_eq!(explained["arrival"], Value::Null, "{explained:#}");
    // Only this opening can have written it, whatever is forgotten.
    let explained = explain(&manager, "mine").await;
    assert_eq!(explained["arrival"]["via"], "write", "{explained:#}");
    assert_eq!(explained["arrival"]["at"], explained["writtenAt"]);
    assert_eq!(explained["lost"], json!([]));
    assert_eq!(explain(&manager, "other-7").await["state"], "deleted");
    assert_eq!(state(&manager).await.peer_id, "own");
}

#[tokio::test]
async fn a_ghost_and_a_push_of_one_that_writes_no_more_say_what_they_are() {
    let (here, there) = two().await;
    there.put("/v1/peers/p1", &peer()).expect(201).await;
    let key: Key = "p1".parse().unwrap();
    let entry = there.owner.get(&key).await.unwrap().unwrap();
    let store = known(&there).await["store"].as_str().unwrap().to_owned();
    here.post(&format!("/v1/replicas/{store}/give-up"))
        .expect(200)
        .await;
    push(&here, [("p1", entry)]).await;
    let explained = explain(&here, "p1").await;
    assert_eq!(explained["state"], "unknown");
    assert_eq!(reasons(&explained, "refused"), ["fenced"], "{explained:#}");
    let origin = &explained["refused"][0]["origin"];
    assert_eq!(
        (&origin["store"], &origin["fenced"]),
        (&json!(store), &json!("given_up"))
    );

    // A write of this opening that the store lost sight of: what comes of it was here.
    here.put("/v1/peers/p2", &peer()).expect(201).await;
    let key: Key = "p2".parse().unwrap();
    let mut ghost = here.owner.get(&key).await.unwrap().unwrap();
    here.put("/v1/peers/p3", &peer()).expect(201).await;
    ghost.version.origin = here.owner.origin();
    push(&here, [("p4", ghost)]).await;
    let explained = explain(&here, "p4").await;
    assert_eq!(explained["state"], "unknown", "{explained:#}");
    assert_eq!(reasons(&explained, "lost"), ["ghost"], "{explained:#}");
}
