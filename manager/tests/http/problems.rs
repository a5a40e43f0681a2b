//! Every kind of bad input, and the problem document that it gets. None of it changes anything.

use std::fmt::Write as _;

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Call, Manager, peer};

fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut peer = peer();
    peer[field] = value.into();
    peer
}

fn many(count: usize, value: impl Fn(usize) -> Value) -> Value {
    let pairs = (1..=count).map(|n| (format!("k{n}"), value(n)));
    pairs.collect::<serde_json::Map<_, _>>().into()
}

fn put(manager: &Manager, body: impl Into<axum::body::Body>) -> Call {
    let call = manager.call(Method::PUT, "/v1/peers/p1");
    call.header("content-type", "application/json").body(body)
}

fn shown(name: &str, answer: &Answer, version: &str) -> String {
    let mut text = format!("# {name}\n{}\n", answer.status);
    for header in ["allow", "retry-after", "etag"] {
        if let Some(value) = answer.headers.get(header) {
            let _ = writeln!(text, "{header}: {}", value.to_str().unwrap());
        }
    }
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{name}"
    );
    let json = serde_json::to_string_pretty(&answer.json()).unwrap();
    let _ = writeln!(text, "{json}\n");
    // How far ahead of now a fixed time is changes from run to run.
    let text = match text.split_once(" is 3") {
        Some((head, rest)) if rest.contains(" ms ahead") => {
            format!("{head} is N{}", &rest[rest.find(" ms ahead").unwrap()..])
        }
        _ => text,
    };
    text.replace(version, "VERSION")
}

type Cases = Vec<(&'static str, Call)>;

/// Records that break a rule.
fn records(manager: &Manager) -> Cases {
    let json = |value: Value| put(manager, value.to_string());
    vec![
        ("port 0", json(with("ports", json!({"userSync": 0})))),
        (
            "port 65536",
            json(with("ports", json!({"userSync": 65536}))),
        ),
        ("65 ports", json(with("ports", many(65, Value::from)))),
        ("65 labels", json(with("labels", many(65, |_| "x".into())))),
        (
            "a purpose that is too long",
            json(with("ports", json!({"x".repeat(64): 1}))),
        ),
        ("a bad address", json(with("ip", "10.0.0.256"))),
        ("a wrong type", json(with("name", 7))),
        ("a missing field", json(json!({"name": "a"}))),
        ("an unknown field", json(with("colour", "red"))),
        ("an empty name", json(with("name", ""))),
        ("an empty id in the body", json(with("peer_id", ""))),
        ("another id in the body", json(with("peer_id", "p2"))),
        (
            "a time that is none",
            json(with("lastConnectionOn", "yesterday")),
        ),
        (
            "a time in the future",
            json(with("lastConnectionOn", "2999-01-01T00:00:00Z")),
        ),
        ("no object", json(json!([]))),
        (
            "a record that is too large",
            json(with("labels", many(20, |_| "x".repeat(1_000).into()))),
        ),
    ]
}

/// Bodies that are no records at all.
fn bodies(manager: &Manager) -> Cases {
    let large = json!({"name": "a", "ip": "::1", "labels": {"x": "y".repeat(70_000)}});
    let deep = "[".repeat(200) + &"]".repeat(200);
    let json = |value: Value| put(manager, value.to_string());
    vec![
        ("no JSON", put(manager, "{\"name\":")),
        ("an empty body", put(manager, "")),
        ("invalid UTF-8", put(manager, &b"{\"name\":\"\xff\"}"[..])),
        ("JSON that is too deep", put(manager, deep)),
        ("a body that is too large", json(large.clone())),
        (
            "a body that is too large and says so",
            json(large).header("content-length", "70000"),
        ),
        (
            "no content type",
            manager.call(Method::PUT, "/v1/peers/p1").body("{}"),
        ),
        (
            "a form",
            manager
                .call(Method::POST, "/v1/peers")
                .header("content-type", "application/x-www-form-urlencoded")
                .body("name=a"),
        ),
        (
            "a compressed record",
            json(peer()).header("content-encoding", "zstd"),
        ),
        ("a table as JSON", manager.post("/v1/table").json(&peer())),
        (
            "a table in gzip",
            manager
                .post("/v1/table")
                .header("content-type", "application/x-ndjson")
                .header("content-encoding", "gzip"),
        ),
    ]
}

/// Paths and queries.
fn paths(manager: &Manager) -> Cases {
    let path = |path: &str| manager.put(path, &peer());
    let long = format!("/v1/peers/{}", "x".repeat(129));
    vec![
        ("an over-long id", path(&long)),
        ("an id with a space", path("/v1/peers/a%20b")),
        ("an id of dots", path("/v1/peers/%2e%2e")),
        ("an id that is not UTF-8", path("/v1/peers/%FF")),
        ("no id", path("/v1/peers/")),
        ("an unknown filter", manager.get("/v1/peers?colour=red")),
        (
            "a filter given twice",
            manager.get("/v1/peers?name=a&name=b"),
        ),
        ("a label without a key", manager.get("/v1/peers?label==a")),
        (
            "a query where there is none",
            manager.get("/v1/peers/held?verbose=1"),
        ),
        (
            "a query that is not UTF-8",
            manager.get("/v1/peers?name=%FF"),
        ),
        ("a limit of 0", manager.get("/v1/peers?limit=0")),
        (
            "a limit that is too high",
            manager.get("/v1/peers?limit=10001"),
        ),
        (
            "a malformed resume token",
            manager.get("/v1/peers?watch=true&since=yesterday"),
        ),
        (
            "a malformed event id",
            manager
                .get("/v1/peers?watch=true")
                .header("last-event-id", "7"),
        ),
        (
            "a resume token of another opening",
            manager.get("/v1/peers?watch=true&since=0000000000000000-1"),
        ),
        (
            "a resume token for a list",
            manager.get("/v1/peers?since=0000000000000000-1"),
        ),
        (
            "a limit of a watch",
            manager.get("/v1/peers?watch=true&limit=1"),
        ),
        (
            "a watch that is neither",
            manager.get("/v1/peers?watch=yes"),
        ),
        (
            "a mode that is none",
            manager
                .post("/v1/table?mode=overwrite")
                .header("content-type", "application/x-ndjson"),
        ),
    ]
}

/// What does not fit what is there.
fn states(manager: &Manager) -> Cases {
    let json = |value: Value| put(manager, value.to_string());
    vec![
        (
            "a stale If-Match",
            manager
                .put("/v1/peers/held", &peer())
                .header("if-match", "\"old\""),
        ),
        (
            "an If-Match of nothing",
            json(peer()).header("if-match", "*"),
        ),
        (
            "a malformed If-Match",
            json(peer()).header("if-match", "old"),
        ),
        (
            "a peer that exists",
            manager.post("/v1/peers").json(&with("peer_id", "held")),
        ),
        ("a peer that does not exist", manager.get("/v1/peers/none")),
        ("no own record", manager.get("/v1/identity")),
        ("a delete without a filter", manager.delete("/v1/peers")),
    ]
}

/// What does not get as far as a call.
fn doors(manager: &Manager) -> Cases {
    vec![
        ("an unknown path", manager.get("/v2/peers")),
        (
            "a path with a slash too many",
            manager.get("/v1/peers/held/"),
        ),
        (
            "a method that is not taken",
            manager.call(Method::PATCH, "/v1/peers"),
        ),
        (
            "a method that nobody knows",
            manager.call("BREW".parse().unwrap(), "/v1/table"),
        ),
        (
            "two hosts",
            manager.get("/livez").header("host", "localhost"),
        ),
        (
            "a foreign origin",
            manager.get("/livez").header("origin", "http://example.com"),
        ),
    ]
}

#[tokio::test]
async fn each_bad_request_gets_a_problem_that_says_what_to_do() {
    let manager = Manager::new().await;
    let held = manager.put("/v1/peers/held", &peer()).expect(201).await;
    let version = held.header("etag").trim_matches('"').to_owned();
    let before = manager.get("/v1/table").expect(200).await;
    let mut all = String::new();
    for cases in [records, bodies, paths, states, doors] {
        for (name, call) in cases(&manager) {
            let answer = call.send().await;
            assert!(answer.status.is_client_error(), "{name}: {answer:?}");
            all += &shown(name, &answer, &version);
        }
    }
    insta::assert_snapshot!(all);
    let after = manager.get("/v1/table").expect(200).await;
    assert_eq!(after.body, before.body, "something changed");
}
