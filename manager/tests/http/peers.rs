//! One record: create, read, replace, patch, delete, contact.

use axum::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Manager, peer};

#[tokio::test]
async fn what_was_put_is_read_back_with_its_tag() {
    let manager = Manager::new().await;
    let created = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    assert_eq!(created.header("location"), "/v1/peers/p1");
    let read = manager.get("/v1/peers/p1").expect(200).await;
    assert_eq!(read.json(), created.json());
    assert_eq!(read.header("etag"), created.header("etag"));
    let json = read.json();
    assert_eq!(
        read.header("etag"),
        format!("\"{}\"", json["version"].as_str().unwrap())
    );
    for (field, value) in peer().as_object().unwrap() {
        assert_eq!(&json[field], value, "{field}");
    }
    assert_eq!(json["peer_id"], "p1");
    assert_eq!(json["lastConnectionOn"], Value::Null);
    assert_eq!(json["createdAt"], json["updatedAt"]);
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let read = manager.get("/v1/peers/p1").expect(200).await;
    let head = manager.call(Method::HEAD, "/v1/peers/p1").expect(200).await;
    assert!(head.body.is_empty());
    assert_eq!(head.header("etag"), read.header("etag"));
    assert_eq!(head.header("content-length"), read.body.len().to_string());
    manager.call(Method::HEAD, "/v1/peers/p2").expect(404).await;
}

#[tokio::test]
async fn a_replaced_record_keeps_when_it_was_created_and_gets_a_new_tag() {
    let manager = Manager::new().await;
    let first = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let mut changed = first.json();
    changed["name"] = "files-1".into();
    let second = manager.put("/v1/peers/p1", &changed).expect(200).await;
    assert_ne!(first.header("etag"), second.header("etag"));
    assert_eq!(second.json()["name"], "files-1");
    assert_eq!(second.json()["createdAt"], first.json()["createdAt"]);
    assert!(!second.headers.contains_key("location"));
}

#[tokio::test]
async fn a_post_creates_once_and_makes_an_id_if_none_is_given() {
    let manager = Manager::new().await;
    let made = manager.post("/v1/peers").json(&peer()).expect(201).await;
    let id = made.json()["peer_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36);
    let read = manager.get(made.header("location")).expect(200).await;
    assert_eq!(read.json()["peer_id"], id.as_str());

    let mut named = peer();
    named["peer_id"] = "p1".into();
    manager.post("/v1/peers").json(&named).expect(201).await;
    let again = manager.post("/v1/peers").json(&named).expect(409).await;
    assert_eq!(again.problem(), "exists");
    manager.delete("/v1/peers/p1").expect(204).await;
    manager.post("/v1/peers").json(&named).expect(201).await;
}

#[tokio::test]
async fn a_deleted_peer_is_gone() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let deleted = manager.delete("/v1/peers/p1").expect(204).await;
    assert!(deleted.body.is_empty());
    assert_eq!(
        manager.get("/v1/peers/p1").expect(404).await.problem(),
        "no-such-peer"
    );
    manager.delete("/v1/peers/p1").expect(404).await;
    manager.patch("/v1/peers/p1", &json!({})).expect(404).await;
    manager.post("/v1/peers/p1/contact").expect(404).await;
    assert_eq!(
        manager.get("/v1/peers").expect(200).await.ids(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let patch = json!({"ip": "::1", "ports": {"userSync": null, "x": 1}, "labels": null});
    let patched = manager
        .patch("/v1/peers/p1", &patch)
        .expect(200)
        .await
        .json();
    assert_eq!(patched["name"], "files-0");
    assert_eq!(patched["ip"], "::1");
    assert_eq!(patched["ports"], json!({"x": 1}));
    assert_eq!(patched["labels"], json!({}));
    let as_json = manager
        .call(Method::PATCH, "/v1/peers/p1")
        .json(&json!({"name": "b"}));
    assert_eq!(as_json.expect(200).await.json()["name"], "b");
    let other_id = manager.patch("/v1/peers/p1", &json!({"peer_id": "p2"}));
    assert_eq!(other_id.expect(422).await.json()["field"], "peer_id");
    let no_name = manager.patch("/v1/peers/p1", &json!({"name": null}));
    assert_eq!(no_name.expect(422).await.json()["field"], "name");
}

#[tokio::test]
async fn if_match_writes_over_the_version_it_names_and_over_no_other() {
    let manager = Manager::new().await;
    let none = manager.put("/v1/peers/p1", &peer()).header("if-match", "*");
    assert_eq!(none.expect(412).await.problem(), "precondition-failed");
    let first = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let stale = first.header("etag").to_owned();
    let list = format!("\"other\", {stale}");
    let put = manager
        .put("/v1/peers/p1", &peer())
        .header("if-match", &list);
    let second = put.expect(200).await;
    let current = second.header("etag").to_owned();
    for (name, value) in [
        ("if-match", stale.clone()),
        ("if-match", format!("W/{current}")),
        ("if-match", "\"another\"".to_owned()),
        ("if-none-match", current.clone()),
        ("if-none-match", "*".to_owned()),
    ] {
        let path = "/v1/peers/p1";
        for call in [
            manager.put(path, &peer()),
            manager.patch(path, &json!({})),
            manager.delete(path),
        ] {
            let refused = call.header(name, &value).expect(412).await;
            assert_eq!(refused.problem(), "precondition-failed");
            assert_eq!(refused.header("etag"), current, "{name}: {value}");
        }
    }
    assert_eq!(
        manager.get("/v1/peers/p1").expect(200).await.json(),
        second.json()
    );
    let patch = manager.patch("/v1/peers/p1", &json!({"name": "x"}));
    let third = patch.header("if-match", &current).expect(200).await;
    let delete = manager.delete("/v1/peers/p1");
    delete
        .header("if-match", third.header("etag"))
        .expect(204)
        .await;
}

#[tokio::test]
async fn if_none_match_any_creates_and_never_replaces() {
    let manager = Manager::new().await;
    for status in [201, 412] {
        let put = manager.put("/v1/peers/p1", &peer());
        put.header("if-none-match", "*").expect(status).await;
    }
}

#[tokio::test]
async fn a_read_of_a_version_that_is_known_has_no_body() {
    let manager = Manager::new().await;
    let put = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let tag = put.header("etag");
    for known in [tag.to_owned(), format!("W/{tag}"), "*".to_owned()] {
        let read = manager.get("/v1/peers/p1").header("if-none-match", &known);
        let read = read.expect(304).await;
        assert!(read.body.is_empty());
        assert_eq!(read.header("etag"), tag);
    }
    manager
        .get("/v1/peers/p1")
        .header("if-none-match", "\"x\"")
        .expect(200)
        .await;
    manager
        .get("/v1/peers/p1")
        .header("if-match", tag)
        .expect(200)
        .await;
    manager
        .get("/v1/peers/p1")
        .header("if-match", "\"x\"")
        .expect(412)
        .await;
}

#[tokio::test]
async fn of_two_compare_and_sets_at_once_one_wins() {
    let manager = Manager::new().await;
    let tag = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let calls = (0..20).map(|n| {
        let put = manager.put(
            "/v1/peers/p1",
            &json!({"name": format!("n{n}"), "ip": "::1"}),
        );
        put.header("if-match", tag.header("etag")).send()
    });
    let statuses: Vec<_> = join_all(calls).await;
    let won = statuses.iter().filter(|answer| answer.status == 200);
    let lost = statuses.iter().filter(|answer| answer.status == 412);
    assert_eq!((won.count(), lost.count()), (1, 19));
}

#[tokio::test]
async fn a_contact_moves_the_last_connection_and_leaves_the_version() {
    let manager = Manager::new().await;
    let put = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let seen = manager.post("/v1/peers/p1/contact").expect(200).await;
    assert_eq!(seen.header("etag"), put.header("etag"));
    let at = seen.json()["lastConnectionOn"].as_str().unwrap().to_owned();
    assert!(at.ends_with('Z'), "{at}");
    let read = manager.get("/v1/peers/p1").expect(200).await;
    assert_eq!(read.json()["lastConnectionOn"], at.as_str());
    let mut earlier = peer();
    earlier["lastConnectionOn"] = "2020-01-01T00:00:00Z".into();
    let kept = manager.put("/v1/peers/p1", &earlier).expect(200).await;
    assert_eq!(kept.json()["lastConnectionOn"], at.as_str());
}

#[tokio::test]
async fn many_are_deleted_by_a_filter_and_never_without_one() {
    let manager = Manager::new().await;
    manager.fill((0..700).map(|n| format!("p{n:03}"))).await;
    let mut marked = peer();
    marked["labels"] = json!({"n": "5", "b": "c=d"});
    manager.put("/v1/peers/marked", &marked).expect(201).await;
    marked["labels"] = json!({"m": ""});
    manager.put("/v1/peers/other", &marked).expect(201).await;
    let refused = manager.delete("/v1/peers").expect(400).await;
    assert_eq!(refused.problem(), "filter-missing");
    let both = manager
        .delete("/v1/peers?label=n=5&label=b=c%3Dd")
        .expect(200)
        .await;
    assert_eq!(both.json(), json!({"deleted": 1}));
    let none = manager
        .delete("/v1/peers?label=n=nothing")
        .expect(200)
        .await;
    assert_eq!(none.json(), json!({"deleted": 0}));
    let labelled = manager.delete("/v1/peers?label=m").expect(200).await;
    assert_eq!(labelled.json(), json!({"deleted": 1}));
    let all = manager
        .delete("/v1/peers?name=files-0&ip=10.0.0.7")
        .expect(200)
        .await;
    assert_eq!(all.json(), json!({"deleted": 700}));
    assert_eq!(manager.owner.counts(), (0, 702));
}

#[tokio::test]
async fn an_answered_write_is_there_after_everything_is_dropped_and_opened_anew() {
    let manager = Manager::new().await;
    let put = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    manager.put("/v1/peers/p2", &peer()).expect(201).await;
    manager.delete("/v1/peers/p2").expect(204).await;
    let manager = manager.reopened().await;
    let read = manager.get("/v1/peers/p1").expect(200).await;
    assert_eq!(read.json(), put.json());
    assert_eq!(read.header("etag"), put.header("etag"));
    manager.get("/v1/peers/p2").expect(404).await;
}

#[tokio::test]
async fn writes_at_once_share_transactions() {
    let manager = Manager::new().await;
    let calls = (0..500).map(|n| manager.put(&format!("/v1/peers/p{n}"), &peer()).send());
    for answer in join_all(calls).await {
        assert_eq!(answer.status, 201);
    }
    let figures = manager.get("/metrics").expect(200).await;
    let figure = |name: &str| {
        let line = figures
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<u32>().unwrap()
    };
    assert_eq!(figure("udht_commit_records_sum"), 500);
    let transactions = figure("udht_commit_records_count");
    assert!(transactions <= 20, "{transactions} transactions");
}

#[tokio::test]
async fn a_full_table_takes_changes_and_no_new_peer() {
    let limits = peer_table::table::Limits {
        records_max: 2,
        ..Default::default()
    };
    let manager = Manager::with_limits(limits).await;
    manager.fill(["a".to_owned(), "b".to_owned()]).await;
    let full = manager.put("/v1/peers/c", &peer()).expect(507).await;
    assert_eq!(full.problem(), "full");
    assert_eq!(full.json()["limit"], 2);
    manager.post("/v1/peers").json(&peer()).expect(507).await;
    manager.put("/v1/peers/b", &peer()).expect(200).await;
    manager.delete("/v1/peers/a").expect(204).await;
    manager.put("/v1/peers/a", &peer()).expect(201).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_to_and_nothing_changes() {
    let manager = Manager::new().await;
    let put = manager.put("/v1/peers/p1", &peer()).expect(201).await;
    // Anew, as what was written or read before is at hand.
    let manager = manager.reopened().await;
    manager.get("/readyz").expect(200).await;
    manager.fail_store(true);
    for call in [
        manager.put("/v1/peers/p1", &json!({"name": "b", "ip": "::1"})),
        manager.get("/v1/peers/p1"),
        manager.get("/v1/peers"),
        manager.get("/v1/table"),
        manager.get("/readyz"),
        manager.delete("/v1/peers?name=files-0"),
    ] {
        let refused = call.expect(503).await;
        assert_eq!(refused.problem(), "unavailable");
        assert_eq!(refused.header("retry-after"), "1");
    }
    manager.get("/livez").expect(200).await;
    manager.fail_store(false);
    let read = manager.get("/v1/peers/p1").expect(200).await;
    assert_eq!(read.json(), put.json());
    manager.fail_store(true);
    let read = manager.get("/v1/peers/p1").expect(200).await;
    assert_eq!(read.json(), put.json());
}

#[tokio::test]
async fn a_damaged_record_is_passed_over_and_can_be_written_anew() {
    let manager = Manager::new().await;
    manager.fill(["a".to_owned(), "b".to_owned()]).await;
    let manager = manager.reopened().await;
    manager.store.damage("a");
    let patch = manager
        .patch("/v1/peers/a", &json!({"name": "x"}))
        .expect(503)
        .await;
    assert_eq!(patch.problem(), "unreadable");
    // Now it is known, and to be brought by a peer or written anew.
    manager.get("/v1/peers/a").expect(404).await;
    assert_eq!(manager.get("/v1/peers").expect(200).await.ids(), ["b"]);
    manager.put("/v1/peers/a", &peer()).expect(201).await;
    manager.get("/v1/peers/a").expect(200).await;
}
