//! What stands before every call.

use axum::http::Method;
use tower::ServiceExt;
use udht_manager::metrics::Metrics;
use udht_manager::server;

use crate::support::{Manager, peer};

#[tokio::test]
async fn every_answer_forbids_browsers_to_guess_its_type() {
    let manager = Manager::new().await;
    for (method, path, status) in [
        (Method::GET, "/v1/peers", 200),
        (Method::GET, "/", 200),
        (Method::GET, "/nowhere", 404),
        (Method::PUT, "/livez", 405),
    ] {
        let answer = manager.call(method, path).expect(status).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn another_host_or_origin_is_refused_everywhere() {
    let manager = Manager::new().await;
    for (method, path) in [
        (Method::GET, "/v1/peers"),
        (Method::GET, "/livez"),
        (Method::GET, "/nowhere"),
        (Method::POST, "/livez"),
    ] {
        let request = axum::http::Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "example.com");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = manager.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 421, "{method} {path}");
        let foreign = manager
            .call(method.clone(), path)
            .header("origin", "https://example.com");
        assert_eq!(foreign.expect(403).await.problem(), "foreign-origin");
    }
    let own = manager
        .put("/v1/peers/p1", &peer())
        .header("origin", "http://localhost:3002");
    own.expect(201).await;
}

#[tokio::test]
async fn while_the_table_loads_the_manager_is_alive_and_not_ready() {
    let metrics = std::sync::Arc::new(Metrics::new().unwrap());
    let router = server::loading(metrics);
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/v1/peers", 503)] {
        let request = axum::http::Request::builder()
            .uri(path)
            .header("host", "localhost");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    }
}

#[tokio::test]
async fn the_first_page_says_who_this_is_and_lets_nothing_in() {
    let manager = Manager::new().await;
    let empty = manager.get("/").expect(200).await;
    assert!(empty.text().contains("no record of its own yet"));
    let mut named = peer();
    named["name"] = "<script>alert(1)</script>".into();
    manager.put("/v1/identity", &named).expect(201).await;
    let page = manager.get("/").expect(200).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.text()
            .contains("&lt;script&gt;alert(1)&lt;/script&gt;")
    );
    assert!(!page.text().contains("<script>"));
    assert!(page.text().contains("10.0.0.7"));
    let policy = page.header("content-security-policy");
    for allowed in policy.split("; ") {
        assert!(
            allowed.ends_with(" 'none'")
                || allowed.ends_with("-src 'self'")
                || allowed.ends_with("'script'"),
            "{allowed}"
        );
    }
    let links = page.text().split("href=\"").skip(1);
    for link in links.chain(page.text().split("src=\"").skip(1)) {
        let path = link.split('"').next().unwrap();
        if path.starts_with('#') {
            continue;
        }
        let answer = manager.get(path).send().await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let missing = manager.get("/page/of-something-else").expect(404).await;
    assert_eq!(missing.problem(), "not-found");
}
