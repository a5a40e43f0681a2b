//! How a pod is: what sync reports, what its manager is alarmed about, and what one reads of both.

use peer_table::contract::{
    About, Alarm, AlarmKind, Event, EventKind, PeerStanding, REPORT_BYTES_MAX, REPORT_EVENTS_MAX,
    REPORT_PEERS_MAX, Report, ReportAnswer, Tend,
};
use peer_table::floors::Evidence;
use peer_table::table::Limits;
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};
use udht_manager::config::PodArgs;
use udht_manager::metrics::FAILS_FOR;

use crate::support::{Answer, Manager, peer};
use crate::sync::send;

const STATUS: &str = "/v1/status";
const REPORT: &str = "/v1/sync/report";

async fn status(manager: &Manager) -> Value {
    manager.get(STATUS).expect(200).await.json()
}

/// What manager is alarmed about, as its sync is told.
async fn report(manager: &Manager, report: &Report) -> Vec<Alarm> {
    let call = manager.post(REPORT).json(&json!(report));
    let answer: ReportAnswer = serde_json::from_slice(&call.expect(200).await.body).unwrap();
    answer.alarms
}

async fn refused(manager: &Manager, body: Value, status: u16) -> Answer {
    manager.post(REPORT).json(&body).expect(status).await
}

fn words(alarms: &Value) -> Vec<&str> {
    let alarms = alarms.as_array().unwrap().iter();
    alarms.map(|it| it["alarm"].as_str().unwrap()).collect()
}

async fn figure(manager: &Manager, alarm: AlarmKind) -> String {
    let figures = manager.get("/metrics").expect(200).await;
    let name = format!("udht_manager_alarm{{alarm=\"{}\"}} ", alarm.word());
    let mut lines = figures.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(&name));
    value.unwrap().to_owned()
}

fn event(number: usize) -> Event {
    Event {
        at: "2026-01-01T00:00:00.000Z".to_owned(),
        kind: EventKind::Push,
        peer: format!("10.0.0.2:{number}"),
        result: "ok".to_owned(),
        sent: 1,
        received: 0,
        ms: 2,
    }
}

fn isolated() -> Report {
    Report {
        release: "0.1.0".to_owned(),
        known: 1,
        alarms: vec![Alarm {
            alarm: AlarmKind::Isolated,
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            text: "nobody answers".to_owned(),
            advice: "look at the network".to_owned(),
            about: vec![About {
                who: "10.0.0.2:3003".to_owned(),
                reason: "failed_unreachable".to_owned(),
            }],
        }],
        peers: vec![PeerStanding {
            address: "10.0.0.2:3003".to_owned(),
            failures: 3,
            last_error: Some("failed_unreachable".to_owned()),
            ..PeerStanding::default()
        }],
        ..Report::default()
    }
}

#[tokio::test]
async fn a_pod_says_who_it_is_though_its_sync_never_said_a_word() {
    let manager = Manager::new().await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    manager.put("/v1/peers/gone", &peer()).expect(201).await;
    manager.delete("/v1/peers/gone").expect(204).await;
    let status = status(&manager).await;
    assert_eq!(status["cluster"], "test");
    assert_eq!(status["peer_id"], "own");
    assert_eq!(status["store"], "07070707-0707-0707-0707-070707070707");
    assert_eq!(status["origin"], manager.owner.origin().to_string());
    assert_eq!(status["ready"], true);
    assert_eq!(status["name"], "files-0");
    assert_eq!(status["ip"], "10.0.0.7");
    assert_eq!(status["records"]["live"], 1);
    assert_eq!(status["records"]["tombstones"], 1);
    assert_eq!(status["alarms"], json!([]));
    assert_eq!(status["sync"], Value::Null);
    assert_eq!(status["events"], json!([]));
    assert!(status["startedAt"].is_string());
}

#[tokio::test]
async fn what_sync_reports_is_read_back_until_it_reports_otherwise() {
    let manager = Manager::new().await;
    assert_eq!(report(&manager, &isolated()).await, []);
    let read = status(&manager).await;
    assert_eq!(read["name"], Value::Null, "there is no own record");
    assert_eq!(read["alarms"], json!(isolated().alarms));
    assert_eq!(read["sync"]["release"], "0.1.0");
    assert_eq!(read["sync"]["known"], 1);
    assert_eq!(read["sync"]["reachable"], 0);
    assert_eq!(read["sync"]["peers"], json!(isolated().peers));
    assert!(read["sync"]["reportedAt"].is_string());
    report(&manager, &Report::default()).await;
    let read = status(&manager).await;
    assert_eq!(read["alarms"], json!([]));
    assert_eq!(read["sync"]["peers"], json!([]));
}

#[tokio::test]
async fn the_latest_events_are_kept_the_newest_first() {
    let manager = Manager::new().await;
    for first in (0..320).step_by(REPORT_EVENTS_MAX) {
        let events = (first..first + REPORT_EVENTS_MAX).map(event).collect();
        let some = Report {
            events,
            ..Report::default()
        };
        report(&manager, &some).await;
    }
    let read = status(&manager).await;
    let expected: Vec<_> = (120..320).rev().map(event).collect();
    assert_eq!(read["events"], json!(expected));
}

#[tokio::test]
async fn a_report_beyond_its_bounds_or_of_another_kind_is_refused_and_changes_nothing() {
    let manager = Manager::new().await;
    report(&manager, &isolated()).await;
    let bare = manager.post(REPORT).body("{}").expect(415).await;
    assert_eq!(bare.problem(), "unsupported-media-type");
    let typed = || {
        manager
            .post(REPORT)
            .header("content-type", "application/json")
    };
    let cut = typed().body("{\"release\":").expect(400).await;
    assert_eq!(cut.problem(), "bad-body");
    let large = typed().body(vec![b' '; REPORT_BYTES_MAX + 1]);
    assert_eq!(large.expect(413).await.problem(), "too-large");
    let mut unknown = json!(isolated());
    unknown["alarms"][0]["alarm"] = json!("bored");
    let unknown = refused(&manager, unknown, 422).await;
    assert_eq!(unknown.problem(), "invalid-message");
    let peers = vec![PeerStanding::default(); REPORT_PEERS_MAX + 1];
    let many = Report {
        peers,
        ..Report::default()
    };
    let many = refused(&manager, json!(many), 422).await;
    assert_eq!(many.json()["field"], "peers");
    assert_eq!(words(&status(&manager).await["alarms"]), ["isolated"]);
}

#[tokio::test]
async fn a_report_of_a_newer_release_may_say_more() {
    let manager = Manager::new().await;
    let mut newer = json!(isolated());
    newer["mood"] = json!("fine");
    manager.post(REPORT).json(&newer).expect(200).await;
}

#[tokio::test]
async fn a_store_that_fails_is_an_alarm_to_all_who_look_and_ends_with_it() {
    let manager = Manager::new().await;
    assert_eq!(figure(&manager, AlarmKind::StoreFailing).await, "0");
    manager.fail_store(true);
    let told = report(&manager, &Report::default()).await;
    assert_eq!(told[0].alarm, AlarmKind::StoreFailing);
    assert!(told[0].text.contains("the test said so"), "{told:?}");
    let read = status(&manager).await;
    assert_eq!(words(&read["alarms"]), ["store_failing"]);
    assert_eq!(read["ready"], false);
    assert_eq!(figure(&manager, AlarmKind::StoreFailing).await, "1");
    manager.fail_store(false);
    assert_eq!(status(&manager).await["alarms"], json!([]));
    assert_eq!(figure(&manager, AlarmKind::StoreFailing).await, "0");
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_an_alarm_until_it_does_though_nobody_writes() {
    let manager = Manager::new().await;
    manager.fill_store(true);
    assert_eq!(status(&manager).await["alarms"], json!([]));
    manager.put("/v1/peers/p", &peer()).expect(503).await;
    for _ in 0..2 {
        let read = status(&manager).await;
        assert_eq!(words(&read["alarms"]), ["store_failing"]);
        let text = read["alarms"][0]["text"].as_str().unwrap();
        assert!(text.ends_with("the test left no room"), "{text}");
        assert_eq!(read["ready"], true, "it is read from");
    }
    // Small writes still pass where large ones do not.
    manager.fill_store(false);
    manager.put("/v1/peers/p", &peer()).expect(201).await;
    let read = status(&manager).await;
    assert_eq!(words(&read["alarms"]), ["store_failing"]);
    pause();
    advance(FAILS_FOR).await;
    resume();
    assert_eq!(status(&manager).await["alarms"], json!([]));
}

#[tokio::test]
async fn a_table_that_is_full_is_an_alarm_and_so_is_a_clock_that_is_wrong_the_worse_one_first() {
    let limits = Limits {
        records_max: 1,
        ..Limits::default()
    };
    let manager = Manager::with_limits(limits).await;
    manager.put("/v1/peers/p", &peer()).expect(201).await;
    let off = Tend {
        clock_off_ms: -12_000,
        ..Tend::from(&Evidence::default())
    };
    send(&manager, "/v1/sync/tend", &off).expect(200).await;
    let read = status(&manager).await;
    assert_eq!(words(&read["alarms"]), ["clock_outlier", "table_full"]);
    let mut said = isolated();
    said.alarms[0].alarm = AlarmKind::ClockOutlier;
    report(&manager, &said).await;
    let read = status(&manager).await;
    assert_eq!(words(&read["alarms"]), ["clock_outlier", "table_full"]);
    assert_eq!(
        read["alarms"][0]["text"], "nobody answers",
        "sync's own words"
    );
}

#[tokio::test]
async fn what_was_turned_away_is_an_alarm() {
    let manager = Manager::of_pod(PodArgs::default()).await;
    let feeds = ["/v1/sync/feed"; 9];
    let mut open = Vec::new();
    for path in feeds {
        open.push(manager.get(path).open().await);
    }
    assert_eq!(open[8].status, 503);
    assert_eq!(words(&status(&manager).await["alarms"]), ["queue_full"]);
}
