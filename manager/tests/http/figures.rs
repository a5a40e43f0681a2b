//! What Prometheus is told, by name, help and labels.

use crate::support::{Manager, peer};

#[tokio::test]
async fn the_figures_have_these_names_and_labels() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    manager.get("/nowhere").expect(404).await;
    let figures = manager.get("/metrics").expect(200).await;
    assert_eq!(
        figures.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let normal = figures
        .text()
        .lines()
        .map(|line| match line.rsplit_once(' ') {
            Some((name, _)) if !line.starts_with('#') => format!("{name} N"),
            _ => line.to_owned(),
        });
    let normal: Vec<_> = normal.collect();
    let normal = normal
        .join("\n")
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(normal);
}

#[tokio::test]
async fn answers_are_counted_by_method_route_and_status() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    manager.put("/v1/peers/p2", &peer()).expect(201).await;
    manager.get("/v1/peers/p3").expect(404).await;
    manager.get("/v1/peers/.").expect(400).await;
    manager.get("/nowhere/at/all").expect(404).await;
    manager
        .call("BREW".parse().unwrap(), "/v1/peers")
        .expect(405)
        .await;
    manager
        .get("/v1/peers")
        .header("host", "example.com")
        .send()
        .await;
    let figures = manager.get("/metrics").expect(200).await;
    let count = |method: &str, route: &str, status: u16| {
        let name = format!(
            "udht_manager_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} "
        );
        let line = figures
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    };
    assert_eq!(count("PUT", "/v1/peers/{peer_id}", 201), 2);
    assert_eq!(count("GET", "/v1/peers/{peer_id}", 404), 1);
    assert_eq!(count("GET", "/v1/peers/{peer_id}", 400), 1);
    assert_eq!(count("GET", "none", 404), 1);
    assert_eq!(count("other", "/v1/peers", 405), 1);
    assert_eq!(count("GET", "/v1/peers", 400), 1, "two hosts");
}

#[tokio::test]
async fn a_store_that_fails_is_told_at_the_next_scrape_and_so_is_its_being_back() {
    let manager = Manager::new().await;
    let up = async || {
        let figures = manager.get("/metrics").expect(200).await;
        let lines = figures.text().lines().map(str::to_owned);
        let mut values = lines.filter(|line| line.starts_with("udht_store_up "));
        values.next().unwrap()
    };
    assert_eq!(up().await, "udht_store_up 1");
    manager.fail_store(true);
    assert_eq!(up().await, "udht_store_up 0");
    manager.fail_store(false);
    assert_eq!(up().await, "udht_store_up 1");
}
