//! The replicas that are known, tombstones that leave, and what a person does about replicas and
//! clocks.

use std::time::Duration;

use peer_table::contract::{
    Advance, Advanced, StateRequest, Tend, TendAnswer, WireHorizon, fingerprints_from_bytes,
};
use peer_table::floors::{Evidence, Replicas};
use peer_table::{Clock, Entry, Fingerprint, Key, OriginId, Reading};
use serde_json::{Value, json};
use udht_manager::owner::wall_now;

use crate::support::{Manager, peer};
use crate::sync::{read, send, state};

const REPLICAS: &str = "/v1/replicas";
const SWAP: &str = "/v1/sync/replicas";

pub async fn known(manager: &Manager) -> Value {
    manager.get(REPLICAS).expect(200).await.json()
}

async fn tell(manager: &Manager, replicas: &Replicas) -> Replicas {
    read(&send(manager, SWAP, replicas).expect(200).await)
}

/// What it knows of all replicas.
async fn told_by(manager: &Manager) -> Replicas {
    tell(manager, &Replicas::default()).await
}

/// Why the ids write no more that do not, sorted.
fn fences(known: &Value) -> Vec<&str> {
    let fenced = known["fenced"].as_array().unwrap();
    let reasons = fenced.iter().map(|it| it["reason"].as_str().unwrap());
    let mut reasons: Vec<_> = reasons.collect();
    reasons.sort_unstable();
    reasons
}

/// Has it look after its floors: what it has to tell.
async fn tend(manager: &Manager) -> Replicas {
    let tend = Tend::from(&Evidence::default());
    let answer: TendAnswer = read(&send(manager, "/v1/sync/tend", &tend).expect(200).await);
    Replicas {
        publications: answer.publication.into_iter().collect(),
        ..Replicas::default()
    }
}

pub async fn clock_off(manager: &Manager, off_ms: i64) {
    let tend = Tend {
        clock_off_ms: off_ms,
        ..Tend::from(&Evidence::default())
    };
    send(manager, "/v1/sync/tend", &tend).expect(200).await;
}

async fn clock_agrees(manager: &Manager) {
    let tend = Tend {
        clock_agrees: true,
        ..Tend::from(&Evidence::default())
    };
    send(manager, "/v1/sync/tend", &tend).expect(200).await;
}

/// Has its store say that of these records, and that the own clock was as far, and opens it anew.
async fn reopened_with(
    manager: Manager,
    records: peer_table::table::Entries,
    last: Reading,
) -> Manager {
    let commit = udht_manager::store::Commit {
        records: vec![(
            manager.owner.table_name().clone(),
            std::sync::Arc::new(records),
        )],
        stamped: Some(last),
        ..Default::default()
    };
    udht_manager::store::Store::commit(&*manager.store, commit)
        .await
        .unwrap();
    manager.reopened().await
}

/// Two replicas that know each other. Those of the tests are all of one store until they start over.
pub async fn two() -> (Manager, Manager) {
    let (one, other) = (Manager::of_no_pause().await, Manager::of_no_pause().await);
    other.post("/v1/replicas/start-over").expect(200).await;
    for _ in 0..2 {
        tell(&one, &tend(&other).await).await;
        tell(&other, &told_by(&one).await).await;
        tell(&one, &told_by(&other).await).await;
        tell(&other, &tend(&one).await).await;
    }
    (one, other)
}

/// An exchange that `one` begins, so that it has all that `other` has; whether it knows that it does.
async fn learn(one: &Manager, other: &Manager) -> bool {
    let (path, own) = ("/v1/sync/state", state(one).await.origin);
    let begin = StateRequest {
        begin_session: true,
        ..StateRequest::default()
    };
    let answer = send(one, path, &begin).expect(200).await;
    let session = read::<peer_table::contract::State>(&answer)
        .session
        .unwrap();
    let give = StateRequest {
        give_snapshot: true,
        without: Some(WireHorizon {
            origin: own,
            ..WireHorizon::default()
        }),
        ..StateRequest::default()
    };
    let theirs = send(other, path, &give).expect(200).await;
    let theirs: peer_table::contract::State = read(&theirs);
    let page = other.owner.fingerprints(Fingerprint(0), 10_000).unwrap();
    let wanted = fingerprints_from_bytes(&page.fingerprints).unwrap();
    let records = other.owner.records(&wanted).await.unwrap();
    let merge = format!(
        "/v1/sync/tables/peers/merge?via=exchange&session={session}\
         &from=07070707-0707-0707-0707-070707070707"
    );
    send(one, &merge, &records.batch).expect(200).await;
    let advance = Advance {
        session,
        snapshot: theirs.snapshot.unwrap(),
    };
    let answer = send(one, "/v1/sync/advance", &advance).expect(200).await;
    read::<Advanced>(&answer).advanced
}

async fn figure(manager: &Manager, line: &str) -> bool {
    let figures = manager.get("/metrics").expect(200).await;
    figures.text().lines().any(|found| found == line)
}

async fn figure_of(manager: &Manager, name: &str) -> f64 {
    let figures = manager.get("/metrics").expect(200).await;
    let mut lines = figures.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap()
}

async fn store(manager: &Manager) -> String {
    known(manager).await["store"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_tombstone_leaves_once_the_other_replica_has_published_that_it_is_there() {
    let (one, other) = two().await;
    one.put("/v1/peers/p1", &peer()).expect(201).await;
    one.delete("/v1/peers/p1").expect(204).await;
    tend(&one).await;
    let waits = known(&one).await;
    assert_eq!(waits["tombstones"], 1, "{waits:#}");
    assert_eq!(
        waits["heldBack"]["replica"],
        store(&other).await,
        "{waits:#}"
    );
    assert_eq!(waits["replicas"].as_array().unwrap().len(), 2, "{waits:#}");
    // The floor is not known yet, and nothing waits since 1970.
    let age = figure_of(&one, "udht_floor_age_seconds").await;
    assert!((0.0..3_600.0).contains(&age), "{age} s");

    assert!(learn(&other, &one).await && learn(&one, &other).await);
    assert_eq!(known(&other).await["tombstones"], 1);
    let published = tend(&one).await;
    let waits = known(&one).await;
    assert_eq!(
        (&waits["tombstones"], &waits["heldBack"]["reason"]),
        (&json!(1), &json!("published")),
        "{waits:#}"
    );
    tell(&one, &tend(&other).await).await;
    tell(&other, &published).await;
    tend(&one).await;
    tend(&other).await;
    for manager in [&one, &other] {
        let left = known(manager).await;
        assert_eq!(left["tombstones"], 0, "{left:#}");
        assert_eq!(left["heldBack"], Value::Null, "{left:#}");
        assert!(figure(manager, "udht_tombstones_collected_total 1").await);
    }
}

#[tokio::test]
async fn a_replica_that_is_given_up_starts_over_and_its_watchers_list_again() {
    let (one, other) = two().await;
    other.put("/v1/peers/p1", &peer()).expect(201).await;
    let (before, list) = (
        state(&other).await,
        other.get("/v1/peers").expect(200).await,
    );
    let own = other.owner.own_key();
    let gone = store(&other).await;

    let path = format!("{REPLICAS}/{gone}/give-up");
    let answer = one.post(&path).expect(200).await;
    assert_eq!(answer.json()["store"], gone.as_str());
    let known = known(&one).await;
    assert_eq!(known["replicas"].as_array().unwrap().len(), 1, "{known:#}");
    assert_eq!(fences(&known), ["ended", "given_up"], "{known:#}");
    let again = one.post(&path).expect(404).await;
    assert_eq!(again.problem(), "no-such-replica");

    let refused = send(&other, SWAP, &told_by(&one).await).expect(503).await;
    assert_eq!(refused.problem(), "given-up");
    assert_eq!(refused.header("retry-after"), "5");
    let after = state(&other).await;
    assert_ne!(after.store, before.store);
    assert_eq!(after.cluster, before.cluster);
    assert_eq!(other.owner.own_key(), own);
    assert_eq!(other.owner.counts(), (0, 0));
    assert!(figure(&other, "udht_started_over_total 2").await);
    let since = list.header("udht-revision");
    let watch = format!("/v1/peers?watch=true&since={since}");
    assert_eq!(
        other.get(&watch).expect(410).await.problem(),
        "revision-gone"
    );
    // It is one of them again.
    tell(&other, &told_by(&one).await).await;
}

#[tokio::test]
async fn what_a_store_had_before_it_started_over_is_waited_for_by_nobody() {
    let (one, other) = two().await;
    other.post("/v1/replicas/start-over").expect(200).await;
    assert_eq!(fences(&known(&one).await), ["ended"]);
    tell(&one, &told_by(&other).await).await;
    tell(&one, &tend(&other).await).await;
    let known = known(&one).await;
    let listed = known["replicas"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{known:#}");
    let other = store(&other).await;
    assert!(listed.iter().any(|it| it["store"] == other), "{known:#}");
    assert_eq!(fences(&known), ["ended", "ended"], "{known:#}");
}

#[tokio::test]
async fn of_two_that_gave_each_other_up_one_starts_over_by_hand() {
    let (one, other) = two().await;
    for (manager, gone) in [(&one, &other), (&other, &one)] {
        let gone = store(gone).await;
        let path = format!("{REPLICAS}/{gone}/give-up");
        manager.post(&path).expect(200).await;
    }
    one.put("/v1/peers/p1", &peer()).expect(201).await;
    let (stays, told) = (store(&one).await, told_by(&other).await);
    let refused = send(&one, SWAP, &told).expect(503).await;
    assert_eq!(refused.problem(), "given-up");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("udht-manager replicas start-over"),
        "{detail}"
    );
    let held = known(&one).await;
    assert_eq!(held["mutual"], true);
    assert_eq!(held["mutualWith"], json!([store(&other).await]));
    let told = one.get("/v1/status").expect(200).await.json();
    let about = &told["alarms"][0]["about"][0];
    assert_eq!(told["alarms"][0]["alarm"], "mutual", "{told:#}");
    assert!(
        about["who"]
            .as_str()
            .unwrap()
            .contains(&store(&other).await)
    );
    assert!(figure(&one, "udht_given_up_mutually 1").await);
    assert_eq!((store(&one).await, one.owner.counts()), (stays, (1, 0)));

    other.post("/v1/replicas/start-over").expect(200).await;
    // By what it publishes it is known whose pod comes back under another id.
    tell(&one, &tend(&other).await).await;
    tell(&one, &told_by(&other).await).await;
    tell(&other, &told_by(&one).await).await;
    assert_eq!(known(&one).await["mutual"], false);
    assert!(learn(&other, &one).await);
    assert_eq!(other.owner.counts(), (1, 0));
}

#[tokio::test]
async fn only_another_replica_that_may_write_can_be_given_up() {
    let manager = Manager::new().await;
    let own = store(&manager).await;
    for id in [own.as_str(), "0d7a4e9e-5f4f-4a70-9d3c-0c2f5e2c9f11", "none"] {
        let path = format!("{REPLICAS}/{id}/give-up");
        let refused = manager.post(&path).expect(404).await;
        assert_eq!(refused.problem(), "no-such-replica");
        assert_eq!(refused.json()["field"], "store");
    }
    for path in [
        "/v1/replicas/start-over?yes=1",
        "/v1/replicas/none/give-up?yes=1",
        "/v1/clock/heal?yes=1",
    ] {
        assert_eq!(manager.post(path).expect(400).await.problem(), "bad-query");
    }
    manager.get("/v1/replicas?all=1").expect(400).await;
    assert_eq!(store(&manager).await, own);
}

#[tokio::test]
async fn one_that_went_before_it_said_what_its_store_is_is_given_up_by_its_own_id() {
    let manager = Manager::new().await;
    let met = Replicas {
        origin: vec![90; 16],
        ..Replicas::default()
    };
    tell(&manager, &met).await;
    let id = uuid::Uuid::from_bytes([90; 16]);
    let listed = known(&manager).await["replicas"].clone();
    let listed = listed.as_array().unwrap().iter();
    assert!(
        listed
            .clone()
            .any(|it| it["origin"] == id.to_string() && it["store"].is_null())
    );
    let give_up = format!("{REPLICAS}/{id}/give-up");
    manager.post(&give_up).expect(200).await;
    assert_eq!(fences(&known(&manager).await), ["given_up"]);
    let again = manager.post(&give_up).expect(404).await;
    assert_eq!(again.problem(), "no-such-replica");
}

#[tokio::test]
async fn what_a_store_that_fails_is_asked_for_is_not_done() {
    let (one, other) = two().await;
    let gone = store(&other).await;
    let give_up = format!("{REPLICAS}/{gone}/give-up");
    one.fail_store(true);
    for path in [give_up.as_str(), "/v1/replicas/start-over"] {
        assert_eq!(one.post(path).expect(503).await.problem(), "unavailable");
    }
    one.fail_store(false);
    assert_eq!(known(&one).await["replicas"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn at_rest_nothing_is_written_for_the_sake_of_times() {
    let manager = Manager::new().await;
    tend(&manager).await;
    assert_eq!(tend(&manager).await.publications, []);
    manager.fill_store(true);
    let told = Tend::from(&Evidence {
        met: vec![manager.owner.origin()],
        ..Evidence::default()
    });
    send(&manager, "/v1/sync/tend", &told).expect(200).await;
    let news = Tend::from(&Evidence {
        met: vec![OriginId::from_bytes([9; 16])],
        ..Evidence::default()
    });
    send(&manager, "/v1/sync/tend", &news).expect(503).await;
}

#[tokio::test]
async fn while_the_clock_is_off_writes_are_refused_and_reads_are_not() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    clock_off(&manager, -60_000).await;
    assert!(figure(&manager, "udht_clock_outlier 1").await);
    for call in [
        manager.put("/v1/peers/p1", &peer()),
        manager.delete("/v1/peers/p1"),
        manager.post("/v1/peers/p1/contact"),
        manager.post("/v1/clock/heal"),
    ] {
        let refused = call.expect(503).await;
        assert_eq!(refused.problem(), "clock-off");
        assert_eq!(refused.header("retry-after"), "5");
    }
    manager.get("/v1/peers/p1").expect(200).await;
    // Who hears of nobody any more has not heard that it is right.
    clock_off(&manager, 0).await;
    let refused = manager.put("/v1/peers/p1", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "clock-off");
    clock_agrees(&manager).await;
    assert!(figure(&manager, "udht_clock_outlier 0").await);
    manager.put("/v1/peers/p1", &peer()).expect(200).await;
}

/// As [`Entry`], but stamped a day ahead by `origin`, as a wrong clock does.
fn a_day_ahead(entry: &Entry, origin: OriginId) -> Entry {
    let tomorrow = wall_now().plus(Duration::from_hours(24));
    let mut clock = Clock::new(origin, Reading::default(), Duration::from_secs(10));
    Entry {
        version: clock.stamp(tomorrow).unwrap(),
        contact: peer_table::Contact::at(tomorrow),
        ..entry.clone()
    }
}

#[tokio::test]
async fn what_a_wrong_clock_stamped_is_healed_and_writes_are_taken_again() {
    let manager = Manager::new().await;
    manager.fill((0..5).map(|n| format!("p{n}"))).await;
    manager.delete("/v1/peers/p4").expect(204).await;
    let untouched = manager.get("/v1/peers/p0").expect(200).await;
    let mut ahead = peer_table::table::Entries::default();
    for key in ["p1", "p2"].map(|key| key.parse::<Key>().unwrap()) {
        let entry = manager.owner.get(&key).await.unwrap().unwrap();
        ahead.insert(key, a_day_ahead(&entry, manager.owner.origin()));
    }
    let tombstone = Entry {
        body: peer_table::Body::Tombstone,
        ..a_day_ahead(
            ahead.values().next().unwrap(),
            OriginId::from_bytes([9; 16]),
        )
    };
    ahead.insert("p3".parse().unwrap(), tombstone);
    let stamped = ahead.values().map(|entry| entry.version.reading).max();
    let manager = reopened_with(manager, ahead, stamped.unwrap()).await;
    // Another pod may have written them meanwhile, so it is not done by itself.
    let as_it_was = manager.owner.origin();
    clock_agrees(&manager).await;
    assert_eq!(manager.owner.origin(), as_it_was);
    let refused = manager.put("/v1/peers/p9", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "clock-ahead");
    let (before, list) = (
        state(&manager).await,
        manager.get("/v1/peers").expect(200).await,
    );

    let healed = manager.post("/v1/clock/heal").expect(200).await;
    assert_eq!(healed.json(), json!({"healed": 3}));
    let after = state(&manager).await;
    assert_eq!(after.store, before.store);
    assert_ne!(after.origin, before.origin);
    assert_eq!(manager.owner.counts(), (3, 2));
    let gone = format!(
        "/v1/peers?watch=true&since={}",
        list.header("udht-revision")
    );
    manager.get(&gone).expect(410).await;
    assert_eq!(
        manager.get("/v1/peers/p0").expect(200).await.json(),
        untouched.json()
    );
    manager.put("/v1/peers/p9", &peer()).expect(201).await;
    manager.put("/v1/peers/p1", &peer()).expect(200).await;
    manager.get("/v1/peers/p3").expect(404).await;
    let again = manager.post("/v1/clock/heal").expect(200).await;
    assert_eq!(again.json(), json!({"healed": 0}));

    // A peer whose clock is right takes all of it.
    let other = Manager::new().await;
    assert!(learn(&other, &manager).await);
    assert_eq!(other.owner.counts(), manager.owner.counts());
    assert_eq!(state(&other).await.tables, state(&manager).await.tables);

    let manager = manager.reopened().await;
    manager.put("/v1/peers/p9", &peer()).expect(200).await;
    assert_eq!(manager.owner.counts(), (4, 2));
}

#[tokio::test]
async fn contacts_are_healed_by_themselves_once_the_clock_is_no_longer_wrong() {
    let manager = Manager::new().await;
    let key: Key = "p1".parse().unwrap();
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let right = manager.owner.get(&key).await.unwrap().unwrap();
    let ahead = a_day_ahead(&right, manager.owner.origin());
    let seen = Entry {
        version: right.version,
        ..ahead.clone()
    };
    let records = [(key.clone(), seen)].into_iter().collect();
    let manager = reopened_with(manager, records, ahead.version.reading).await;
    let refused = manager.put("/v1/peers/p9", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "clock-ahead");

    let before = manager.owner.origin();
    // Nobody knows, and then it is wrong.
    for off_ms in [0, 86_400_000] {
        clock_off(&manager, off_ms).await;
        assert_eq!(manager.owner.origin(), before);
    }
    clock_agrees(&manager).await;
    // The answer comes before what follows from it.
    manager.put("/v1/peers/p9", &peer()).expect(201).await;
    let after = manager.owner.origin();
    assert_ne!(after, before);
    let healed = manager.owner.get(&key).await.unwrap().unwrap();
    assert_eq!(healed.version, right.version);
    assert!(healed.contact <= peer_table::Contact::at(wall_now()));
    let other = Manager::new().await;
    assert!(learn(&other, &manager).await);
    assert_eq!(other.owner.counts(), manager.owner.counts());

    // It is looked for no more once it is known to be right.
    for _ in 0..2 {
        clock_agrees(&manager).await;
        manager.put("/v1/peers/p9", &peer()).expect(200).await;
        assert_eq!(manager.owner.origin(), after);
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_before_a_start_goes_on_from_what_is_right_once_it_agrees() {
    let manager = Manager::new().await;
    let tomorrow = Reading::from_u64((wall_now().as_millis() + 86_400_000) << 16);
    let manager = reopened_with(manager, peer_table::table::Entries::default(), tomorrow).await;
    let refused = manager.put("/v1/peers/p1", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "clock-ahead");
    clock_off(&manager, 0).await;
    manager.put("/v1/peers/p1", &peer()).expect(503).await;
    clock_agrees(&manager).await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
}

#[tokio::test]
async fn a_clock_that_is_not_healed_whole_is_healed_again() {
    let manager = Manager::new().await;
    let key: Key = "p1".parse().unwrap();
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let entry = manager.owner.get(&key).await.unwrap().unwrap();
    let entry = a_day_ahead(&entry, manager.owner.origin());
    let last = entry.version.reading;
    let manager = reopened_with(manager, [(key, entry)].into_iter().collect(), last).await;
    manager.fail_store(true);
    let refused = manager.post("/v1/clock/heal").expect(503).await;
    assert_eq!(refused.problem(), "unavailable");
    manager.fail_store(false);
    // The record is still ahead, and so is the clock after the next start.
    let manager = manager.reopened().await;
    let refused = manager.put("/v1/peers/p2", &peer()).expect(503).await;
    assert_eq!(refused.problem(), "clock-ahead");
    let healed = manager.post("/v1/clock/heal").expect(200).await;
    assert_eq!(healed.json(), json!({"healed": 1}));
    manager.put("/v1/peers/p2", &peer()).expect(201).await;
}
