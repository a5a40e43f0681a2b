//! What a manager tells of itself.

use serde_json::json;

use crate::support::Manager;

#[tokio::test]
async fn what_is_logged_is_told_and_changed() {
    let manager = Manager::new().await;
    let filter = manager.get("/v1/log-filter").expect(200).await.json();
    assert_eq!(filter["filter"], filter["begun"]);
    assert!(filter["until"].is_null());
    let change = json!({"filter": "warn,udht_manager=debug", "for": "10m"});
    let changed = manager
        .put("/v1/log-filter", &change)
        .expect(200)
        .await
        .json();
    assert_eq!(changed["filter"], "warn,udht_manager=debug");
    assert!(changed["until"].is_string());
    assert_eq!(
        manager.get("/v1/log-filter").expect(200).await.json(),
        changed
    );
    let begun = json!({"filter": changed["begun"]});
    let back = manager
        .put("/v1/log-filter", &begun)
        .expect(200)
        .await
        .json();
    assert!(back["until"].is_null());
}

#[tokio::test]
async fn what_is_no_filter_is_refused_with_what_would_be() {
    let manager = Manager::new().await;
    let long = "info,".repeat(300) + "info";
    for (body, part) in [
        (
            json!({"filter": "loud", "for": "1m"}),
            "off, error, warn, info, debug or trace",
        ),
        (json!({"filter": "a b=info"}), "names no module"),
        (json!({"filter": ""}), "is no level"),
        (json!({"filter": long}), "at most 1000 bytes"),
        (json!({"filter": "info", "for": "2days"}), "1s to 24h"),
        (json!({}), "missing field"),
        (json!([1]), "no filter"),
    ] {
        let answer = manager.put("/v1/log-filter", &body).expect(422).await;
        assert_eq!(answer.problem(), "invalid-filter");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(part), "{body}: {detail}");
        let is_time = part == "1s to 24h";
        let field = if is_time { "for" } else { "filter" };
        assert_eq!(answer.json()["field"], field, "{body}");
    }
    let unknown = json!({"filter": "info", "until": "soon"});
    let unknown = manager.put("/v1/log-filter", &unknown).expect(422).await;
    assert!(
        unknown.json()["detail"]
            .as_str()
            .unwrap()
            .contains("unknown field")
    );
    let large = json!({"filter": "i".repeat(9 << 10)});
    manager.put("/v1/log-filter", &large).expect(413).await;
    let foreign = manager.put("/v1/log-filter", &json!({"filter": "info"}));
    foreign
        .header("origin", "http://example.com")
        .expect(403)
        .await;
    manager.get("/v1/log-filter?x=1").expect(400).await;
}

#[tokio::test]
async fn the_last_lines_and_what_the_manager_is_are_told() {
    let manager = Manager::new().await;
    let lines = manager.get("/v1/logs").expect(200).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let about = manager.get("/v1/about").expect(200).await.json();
    assert_eq!(about["cluster"], "test");
    assert_eq!(about["table"]["records"], 0);
    assert_eq!(about["table"]["sum"], "0000000000000000");
    let replicas = manager.get("/v1/replicas").expect(200).await.json();
    assert_eq!(about["store"], replicas["store"]);
    assert!(about["flags"].is_array());
}
