//! Watches: what they say, how they resume, and how they end.

use std::collections::BTreeSet;

use axum::body::Body as HttpBody;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::{poll, stream};
use peer_table::Contact;
use peer_table::peers::Body;
use peer_table::table::Precondition;
use serde_json::{Value, json};

use udht_manager::owner::{Operation, Write, wall_now};

use crate::support::{Manager, Open, peer};

async fn watch(manager: &Manager, query: &str) -> Open {
    let path = format!("/v1/peers?watch=true{query}");
    let open = manager.get(&path).open().await;
    assert_eq!(open.status, StatusCode::OK);
    open
}

/// The `type` and `peer_id` of the next event.
async fn next(watch: &mut Open) -> (String, String) {
    let event = watch.line().await.unwrap();
    let id = event["peer"]["peer_id"]
        .as_str()
        .or(event["peer_id"].as_str());
    let kind = event["type"].as_str().unwrap();
    (kind.to_owned(), id.unwrap_or_default().to_owned())
}

fn event(kind: &str, id: &str) -> (String, String) {
    (kind.to_owned(), id.to_owned())
}

#[tokio::test]
async fn each_change_is_an_event_in_order() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/old", &peer()).expect(201).await;
    let mut watch = watch(&manager, "").await;
    assert_eq!(watch.headers["content-type"], "application/x-ndjson");
    let start = watch.line().await.unwrap();
    let revision = watch.headers["udht-revision"].to_str().unwrap();
    assert_eq!(start, json!({"type": "start", "revision": revision}));

    let put = manager
        .put("/v1/peers/p1", &peer())
        .expect(201)
        .await
        .json();
    let said = watch.line().await.unwrap();
    assert_eq!((&said["type"], &said["peer"]), (&json!("put"), &put));
    let seen = manager
        .post("/v1/peers/p1/contact")
        .expect(200)
        .await
        .json();
    let said = watch.line().await.unwrap();
    assert_eq!((&said["type"], &said["peer"]), (&json!("contact"), &seen));
    manager
        .patch("/v1/peers/p1", &json!({"name": "b"}))
        .expect(200)
        .await;
    assert_eq!(next(&mut watch).await, event("put", "p1"));
    manager.delete("/v1/peers/p1").expect(204).await;
    let said = watch.line().await.unwrap();
    assert_eq!(
        (&said["type"], &said["peer_id"]),
        (&json!("delete"), &json!("p1"))
    );
    assert!(said["version"].as_str().unwrap() > put["version"].as_str().unwrap());
}

#[tokio::test]
async fn a_watch_resumes_after_any_event_and_after_a_list() {
    let manager = Manager::new().await;
    let list = manager.get("/v1/peers").expect(200).await;
    manager.fill((0..600).map(|n| format!("p{n:03}"))).await;
    let since = format!("&since={}", list.header("udht-revision"));
    let mut whole = watch(&manager, &since).await;
    let mut events = Vec::new();
    for _ in 0..600 {
        events.push(whole.line().await.unwrap());
    }
    let ids = events
        .iter()
        .map(|event| event["peer"]["peer_id"].as_str().unwrap());
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), 600);
    for seen in [0, 299, 598] {
        let since = format!("&since={}", events[seen]["revision"].as_str().unwrap());
        let mut rest = watch(&manager, &since).await;
        for event in &events[seen + 1..] {
            assert_eq!(rest.line().await.unwrap(), *event);
        }
    }
}

#[tokio::test]
async fn with_a_filter_what_falls_out_of_it_is_said_once_more() {
    let manager = Manager::new().await;
    let mut watch = watch(&manager, "&label=zone=a").await;
    assert_eq!(next(&mut watch).await, event("start", ""));
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    assert_eq!(next(&mut watch).await, event("put", "p1"));
    manager
        .patch("/v1/peers/p1", &json!({"labels": {"zone": "b"}}))
        .expect(200)
        .await;
    assert_eq!(next(&mut watch).await, event("unmatched", "p1"));
    manager.post("/v1/peers/p1/contact").expect(200).await;
    manager.delete("/v1/peers/p1").expect(204).await;
    assert_eq!(next(&mut watch).await, event("delete", "p1"));
}

#[tokio::test]
async fn a_filter_by_a_key_alone_follows_the_label_whatever_it_says() {
    let manager = Manager::new().await;
    let mut watch = watch(&manager, "&label=zone").await;
    assert_eq!(next(&mut watch).await, event("start", ""));
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    assert_eq!(next(&mut watch).await, event("put", "p1"));
    for (zone, told) in [(json!("b"), "put"), (json!(null), "unmatched")] {
        let patch = json!({"labels": {"zone": zone}});
        manager.patch("/v1/peers/p1", &patch).expect(200).await;
        assert_eq!(next(&mut watch).await, event(told, "p1"));
    }
}

#[tokio::test]
async fn news_behind_much_that_is_none_is_told_at_once() {
    let manager = Manager::new().await;
    manager.fill((0..400).map(|n| format!("p{n}"))).await;
    let mut watch = watch(&manager, "&label=zone=a").await;
    assert_eq!(next(&mut watch).await, event("start", ""));
    let mut feed = manager.get("/v1/sync/feed").open().await;
    feed.part().await.unwrap().unwrap();
    // Both wait for a change now.
    let (mut told, mut told_sync) = (Box::pin(next(&mut watch)), Box::pin(feed.part()));
    assert!(poll!(&mut told).is_pending() && poll!(&mut told_sync).is_pending());

    // One transaction: more contacts than are looked at in one go, and a peer.
    let write = |id: &str, operation: Operation| Write {
        key: id.parse().unwrap(),
        precondition: Precondition::default(),
        operation,
    };
    let seen = Contact::at(wall_now());
    let contacts = (0..400).map(|n| write(&format!("p{n}"), Operation::Contact(seen)));
    let body = Body::from_json(peer().to_string().as_bytes()).unwrap();
    let put = write("new", Operation::Put(body.draft));
    let writes = contacts.chain([put]).collect();
    manager.owner.write_many(writes).await.unwrap();
    assert_eq!(told.await, event("put", "new"));
    told_sync.await.unwrap().unwrap();
}

#[tokio::test]
async fn events_for_browsers_say_the_same_and_resume_by_their_id() {
    let manager = Manager::new().await;
    let events = |manager: &Manager| {
        let call = manager.get("/v1/peers?watch=true");
        call.header("accept", "text/event-stream")
    };
    let mut watch = events(&manager).open().await;
    assert_eq!(watch.headers["content-type"], "text/event-stream");
    assert_eq!(watch.headers["cache-control"], "no-store");
    let start = watch.until("\n\n").await.unwrap();
    manager.fill(["a".to_owned(), "b".to_owned()]).await;
    let put = watch.until("\n\n").await.unwrap();
    let lines: Vec<_> = put.lines().collect();
    assert_eq!(lines[0], "event: put");
    let id = lines[1].strip_prefix("id: ").unwrap();
    let data: Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (&data["type"], &data["revision"]),
        (&json!("put"), &json!(id))
    );
    assert!(start.starts_with("event: start\nid: "), "{start}");

    let mut resumed = events(&manager).header("last-event-id", id).open().await;
    let next = resumed.until("\n\n").await.unwrap();
    assert_eq!(next, watch.until("\n\n").await.unwrap());
}

#[tokio::test]
async fn a_token_of_another_opening_or_of_too_long_ago_is_gone() {
    let manager = Manager::new().await;
    let list = manager.get("/v1/peers").expect(200).await;
    let first = list.header("udht-revision").to_owned();
    let path = format!("/v1/peers?watch=true&since={first}");
    manager.get(&path).open().await;
    // One more change than a feed keeps.
    let line = |n: usize| format!("{{\"peer_id\":\"p{n}\",\"name\":\"a\",\"ip\":\"::1\"}}\n");
    let lines: String = (0..16_385).map(line).collect();
    let import = manager
        .post("/v1/table?end=optional")
        .header("content-type", "application/x-ndjson");
    import.body(lines).expect(200).await;
    let gone = manager.get(&path).expect(410).await;
    assert_eq!(gone.problem(), "revision-gone");

    let list = manager.get("/v1/peers?limit=1").expect(200).await;
    let manager = manager.reopened().await;
    let path = format!(
        "/v1/peers?watch=true&since={}",
        list.header("udht-revision")
    );
    manager.get(&path).expect(410).await;
    let feed = format!("/v1/sync/feed?since={}", list.header("udht-revision"));
    manager.get(&feed).expect(410).await;
}

#[tokio::test]
async fn a_reader_who_is_too_slow_is_told_to_list_again() {
    let manager = Manager::new().await;
    let mut watch = watch(&manager, "").await;
    assert_eq!(next(&mut watch).await, event("start", ""));
    let line = |n: usize| format!("{{\"peer_id\":\"p{n}\",\"name\":\"a\",\"ip\":\"::1\"}}\n");
    let lines: String = (0..16_385).map(line).collect();
    let import = manager
        .post("/v1/table?end=optional")
        .header("content-type", "application/x-ndjson");
    import.body(lines).expect(200).await;
    assert_eq!(
        watch.line().await.unwrap(),
        json!({"type": "gone", "reason": "too_slow"})
    );
    assert!(watch.line().await.is_none());
}

#[tokio::test]
async fn a_watch_says_so_when_the_manager_stops() {
    let manager = Manager::new().await;
    let mut lines = watch(&manager, "").await;
    let mut feed = manager.get("/v1/sync/feed").open().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    manager.stopping.cancel();
    assert_eq!(next(&mut lines).await, event("start", ""));
    let put = lines.line().await.unwrap();
    let end = json!({"type": "end", "revision": put["revision"]});
    assert_eq!(lines.line().await.unwrap(), end);
    assert!(lines.line().await.is_none());
    while let Some(part) = feed.part().await {
        part.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_there_is_a_heartbeat() {
    let manager = Manager::new().await;
    let mut watch = watch(&manager, "").await;
    let start = watch.line().await.unwrap();
    let began = tokio::time::Instant::now();
    for beats in 1..4 {
        let beat = json!({"type": "heartbeat", "revision": start["revision"]});
        assert_eq!(watch.line().await.unwrap(), beat);
        assert_eq!(began.elapsed().as_secs(), beats * 15);
    }
}

#[tokio::test]
async fn there_is_a_bound_on_watches_and_a_place_is_free_again_at_once() {
    let manager = Manager::new().await;
    let figure = async |manager: &Manager| {
        let figures = manager.get("/metrics").expect(200).await;
        let line = figures
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("udht_watchers "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..udht_manager::server::WATCHES_MAX {
        open.push(watch(&manager, "").await);
    }
    assert_eq!(figure(&manager).await, open.len());
    let refused = manager.get("/v1/peers?watch=true").expect(503).await;
    assert_eq!(refused.problem(), "busy");
    assert_eq!(refused.json()["limit"], open.len());
    // The feed of the sync has places of its own.
    manager.get("/v1/sync/feed").open().await;
    open.pop();
    open.push(watch(&manager, "").await);
    open.clear();
    assert_eq!(figure(&manager).await, 0);
}

#[tokio::test]
async fn a_head_of_a_watch_takes_no_place() {
    let manager = Manager::new().await;
    for _ in 0..=udht_manager::server::WATCHES_MAX {
        let head = manager.call(Method::HEAD, "/v1/peers?watch=true");
        head.expect(200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let manager = Manager::new().await;
    let never = stream::pending::<Result<Bytes, std::io::Error>>();
    let put = manager
        .call(Method::PUT, "/v1/peers/p1")
        .header("content-type", "application/json");
    let slow = put.body(HttpBody::from_stream(never)).expect(408).await;
    assert_eq!(slow.problem(), "too-slow");
}
