//! Lists: filters, pages, forms, and how little of the table is held at once.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Manager, peer};

#[tokio::test]
async fn a_list_has_every_peer_in_the_order_of_ids() {
    let manager = Manager::new().await;
    let empty = manager.get("/v1/peers").expect(200).await;
    assert_eq!(empty.json()["peers"], json!([]));
    assert_eq!(empty.json()["next"], Value::Null);
    manager
        .fill(["c", "a", "B", "b.1"].map(str::to_owned))
        .await;
    let list = manager.get("/v1/peers").expect(200).await;
    assert_eq!(list.ids(), ["B", "a", "b.1", "c"]);
    assert_eq!(list.header("content-type"), "application/json");
    assert_eq!(list.json()["revision"], list.header("udht-revision"));
    let read = manager.get("/v1/peers/a").expect(200).await.json();
    assert_eq!(list.json()["peers"][1], read);
}

#[tokio::test]
async fn a_filter_leaves_what_matches_all_of_it() {
    let manager = Manager::new().await;
    for (id, name, ip, zone) in [
        ("p1", "x", "10.0.0.1", "a"),
        ("p2", "x", "2001:db8::1", "b"),
        ("p3", "y", "10.0.0.1", "b"),
    ] {
        let mut peer = json!({"name": name, "ip": ip, "labels": {"zone": zone, "app": "f"}});
        if id == "p2" {
            peer["labels"]["odd"] = "".into();
        }
        manager
            .put(&format!("/v1/peers/{id}"), &peer)
            .expect(201)
            .await;
    }
    for (query, expected) in [
        ("name=x", &["p1", "p2"][..]),
        ("ip=10.0.0.1", &["p1", "p3"]),
        ("ip=::ffff:10.0.0.1", &["p1", "p3"]),
        ("ip=2001:DB8:0::1", &["p2"]),
        ("label=zone=b", &["p2", "p3"]),
        ("label=zone=b&label=app=f&name=y", &["p3"]),
        ("label=zone=c", &[]),
        ("label=none=", &[]),
        ("label=odd", &["p2"]),
        ("label=odd&label=zone=a", &[]),
        ("label=none", &[]),
    ] {
        let list = manager.get(&format!("/v1/peers?{query}")).expect(200).await;
        assert_eq!(list.ids(), expected, "{query}");
        assert_eq!(list.json()["next"], Value::Null, "{query}");
    }
}

#[tokio::test]
async fn pages_lead_to_the_end_whatever_their_size() {
    let manager = Manager::new().await;
    let ids: Vec<_> = (0..30).map(|n| format!("p{n:02}")).collect();
    manager.fill(ids.clone()).await;
    for gone in ["p00", "p07", "p08", "p29"] {
        manager
            .delete(&format!("/v1/peers/{gone}"))
            .expect(204)
            .await;
    }
    for limit in [1, 2, 13, 26, 27, 10_000] {
        for filter in ["", "&name=files-0"] {
            let mut found = Vec::new();
            let mut path = format!("/v1/peers?limit={limit}{filter}");
            loop {
                let page = manager.get(&path).expect(200).await;
                assert!(page.ids().len() <= limit);
                found.extend(page.ids());
                let json = page.json();
                let Some(next) = json["next"].as_str() else {
                    break;
                };
                assert_eq!(found.last().unwrap(), next);
                path = format!("/v1/peers?limit={limit}&after={next}{filter}");
            }
            let left = ids
                .iter()
                .filter(|id| !["p00", "p07", "p08", "p29"].contains(&id.as_str()));
            assert!(found.iter().eq(left), "{limit}{filter}: {found:?}");
        }
    }
}

#[tokio::test]
async fn lines_are_the_same_peers_and_say_if_there_are_more() {
    let manager = Manager::new().await;
    manager.fill(["a", "b", "c"].map(str::to_owned)).await;
    let whole = manager.get("/v1/peers").expect(200).await.json();
    let ndjson = |path: &str| manager.get(path).header("accept", "application/x-ndjson");
    let lines = ndjson("/v1/peers").expect(200).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    assert_eq!(json!(lines.lines()), whole["peers"]);
    assert_eq!(whole["revision"], lines.header("udht-revision"));
    let cut = ndjson("/v1/peers?limit=2").expect(200).await.lines();
    assert_eq!(cut.len(), 3);
    assert_eq!(cut[2], json!({"next": "b", "revision": whole["revision"]}));
    let rest = ndjson("/v1/peers?limit=2&after=b")
        .expect(200)
        .await
        .lines();
    assert_eq!(json!(rest), json!([whole["peers"][2]]));
    assert_eq!(ndjson("/v1/peers?name=none").expect(200).await.text(), "");
}

#[tokio::test]
async fn a_list_reads_the_store_as_it_is_read_itself() {
    const PEERS: usize = 2_000;
    let manager = Manager::new().await;
    let mut lines = String::new();
    for n in 0..PEERS {
        let mut peer = peer();
        peer["peer_id"] = format!("p{n:05}").into();
        let _ = writeln!(lines, "{peer}");
    }
    let import = manager
        .post("/v1/table?end=optional")
        .header("content-type", "application/x-ndjson");
    import.body(lines).expect(200).await;
    for path in ["/v1/peers", "/v1/table", "/v1/peers?limit=1500"] {
        let reads = || manager.store.reads.load(Ordering::SeqCst);
        let before = reads();
        let mut list = manager.get(path).open().await;
        let mut parts = 0;
        while let Some(part) = list.part().await {
            let part = part.unwrap();
            parts += 1;
            assert_eq!(reads() - before, parts, "{path}: nothing is read ahead");
            assert!(
                part.len() < 256 * 400,
                "{path}: a part has {} bytes",
                part.len()
            );
        }
        assert!(parts >= 6, "{path}: {parts}");
    }
}

#[tokio::test]
async fn a_filter_that_lets_little_through_reads_no_more_often_for_a_small_limit() {
    let manager = Manager::new().await;
    manager.fill((0..600).map(|n| format!("p{n}"))).await;
    let before = manager.store.reads.load(Ordering::SeqCst);
    let list = manager.get("/v1/peers?limit=1&name=absent").expect(200);
    assert!(list.await.ids().is_empty());
    assert_eq!(manager.store.reads.load(Ordering::SeqCst) - before, 4);
}

#[tokio::test]
async fn what_is_held_for_a_slow_reader_is_bounded_in_bytes_and_not_in_records() {
    let manager = Manager::new().await;
    let mut large = peer();
    // As JSON six times as long.
    large["labels"] = (0..10)
        .map(|n| (format!("l{n}"), "\u{1}".repeat(1_000)))
        .collect();
    for n in 0..40 {
        manager
            .put(&format!("/v1/peers/p{n:02}"), &large)
            .expect(201)
            .await;
    }
    let mut list = manager.get("/v1/peers").open().await;
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    while let Some(part) = list.part().await {
        let part = part.unwrap();
        parts.push(part.len());
        whole.extend_from_slice(&part);
    }
    assert!(parts[1..].iter().all(|bytes| *bytes < 200_000), "{parts:?}");
    let list: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(list["peers"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn others_get_their_turn_while_a_list_finds_nothing_to_wait_for() {
    const DELETED: usize = 3_000;
    let manager = Manager::new().await;
    manager.fill((0..DELETED).map(|n| format!("p{n}"))).await;
    manager.delete("/v1/peers?name=files-0").expect(200).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    let before = turns.load(Ordering::SeqCst);
    let list = manager.get("/v1/peers").expect(200).await;
    assert!(list.ids().is_empty());
    assert!(turns.load(Ordering::SeqCst) - before >= DELETED / 256);
    other.abort();
}

#[tokio::test]
async fn a_list_that_breaks_off_does_not_look_whole() {
    let manager = Manager::new().await;
    manager.fill((0..600).map(|n| format!("p{n}"))).await;
    let mut list = manager.get("/v1/peers").open().await;
    list.part().await.unwrap().unwrap();
    manager.fail_store(true);
    assert!(list.part().await.unwrap().is_err());
}

#[tokio::test]
async fn a_small_page_reads_no_more_than_it_needs() {
    let manager = Manager::new().await;
    manager.fill((0..50).map(|n| format!("p{n:02}"))).await;
    let before = manager.store.keys_read.load(Ordering::SeqCst);
    let page = manager.get("/v1/peers?limit=10").expect(200).await;
    assert_eq!(page.json()["next"], "p09");
    assert_eq!(page.header("content-length"), page.body.len().to_string());
    assert_eq!(manager.store.keys_read.load(Ordering::SeqCst) - before, 11);
}
