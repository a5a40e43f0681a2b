//! The manager's HTTP API, from the request line to the body.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::choices::Choices;
use crate::manager::{Manager, RECORDS_MAX, run};

/// Requests of one list of bytes at the most.
const REQUESTS_MAX: usize = 6;
/// The largest answer that a table of a few records can give.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The largest problem document.
const PROBLEM_BYTES_MAX: usize = 2 << 10;

const NDJSON: &str = "application/x-ndjson";

/// Requests of any kind to one manager, one after the other.
pub(crate) fn api(bytes: &[u8]) {
    run(async {
        let mut choices = Choices::new(bytes);
        let manager = Manager::new(1).await;
        manager.fill(0..4).await;
        let filled = manager.entries();
        let mut etag = String::new();
        for _ in 0..REQUESTS_MAX {
            if let Some(request) = request(&mut choices, &manager, &etag) {
                let before = manager.entries();
                let (status, tag) = answered(&manager, request).await;
                if status.is_client_error() {
                    assert_eq!(before, manager.entries(), "{status} changes nothing");
                }
                etag = tag.unwrap_or(etag);
            }
            if choices.is_over() {
                break;
            }
        }
        if manager.entries() != filled {
            comes_back(&manager).await;
        }
    });
}

/// A dump, as it comes, compressed or not.
pub(crate) fn import(bytes: &[u8]) {
    run(async {
        let manager = Manager::new(1).await;
        manager.fill(0..2).await;
        let (head, body) = bytes.split_at(bytes.len().min(1));
        let mode = head.first().copied().unwrap_or(0);
        let query = [
            "",
            "?mode=replace",
            "?end=optional",
            "?end=optional&mode=replace",
        ];
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("/v1/table{}", query[usize::from(mode % 4)]))
            .header("host", "localhost")
            .header("content-type", NDJSON);
        let mut body = body.to_vec();
        if mode & 8 != 0 {
            request = request.header("content-encoding", "zstd");
            if mode & 16 != 0 {
                body = zstd::encode_all(&body[..], 1).expect("memory for zstd");
            }
        }
        let before = manager.entries();
        let request = request.body(in_parts(&body, mode)).expect("a request");
        let (status, _) = answered(&manager, request).await;
        if status.is_success() {
            comes_back(&manager).await;
        } else {
            assert_eq!(before, manager.entries(), "{status} changes nothing");
        }
    });
}

/// A body that comes in pieces, so that no line and no frame is in one of them as a whole.
fn in_parts(body: &[u8], size: u8) -> Body {
    let size = usize::from(size).max(1);
    let parts: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).collect();
    let parts = parts.into_iter().map(Ok::<_, Infallible>);
    Body::from_stream(stream::iter(parts))
}

/// What the table says makes another say the same.
async fn comes_back(manager: &Manager) {
    let (live, tombstones) = manager.owner.counts();
    assert!(live + tombstones <= RECORDS_MAX);
    let entries = manager.entries();
    assert_eq!(entries.len(), live + tombstones);
    assert_eq!(
        entries.values().filter(|entry| entry.is_live()).count(),
        live
    );
    let dump = dump(manager).await;
    let other = Manager::new(2).await;
    let request = Request::builder()
        .method("POST")
        .uri("/v1/table?mode=replace")
        .header("host", "localhost")
        .header("content-type", NDJSON)
        .body(Body::from(dump.clone()));
    let (status, _) = answered(&other, request.expect("a request")).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&dump));
    assert_eq!(said(&self::dump(&other).await), said(&dump));
}

async fn dump(manager: &Manager) -> Vec<u8> {
    let request = Request::builder()
        .uri("/v1/table")
        .header("host", "localhost")
        .body(Body::empty());
    let answer = manager.call(request.expect("a request")).await;
    let body = answer.into_body().collect().await.expect("a whole dump");
    body.to_bytes().to_vec()
}

/// The peers of a dump, without what a table stamps itself.
fn said(dump: &[u8]) -> Vec<Value> {
    let lines = dump
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let mut lines: Vec<Value> = lines
        .map(|line| serde_json::from_slice(line).expect("a line is JSON"))
        .collect();
    let end = lines.pop().expect("a dump has an end");
    assert_eq!(end["end"]["records"], json!(lines.len()));
    for line in &mut lines {
        let line = line.as_object_mut().expect("a peer is an object");
        for stamped in ["version", "createdAt", "updatedAt"] {
            line.remove(stamped).expect("a peer has it");
        }
    }
    lines
}

/// Asks, and looks at the answer: what it is, and its entity tag.
async fn answered(manager: &Manager, request: Request<Body>) -> (StatusCode, Option<String>) {
    let asked = format!("{} {}", request.method(), request.uri());
    let (head, body) = manager.call(request).await.into_parts();
    let status = head.status;
    let tag = head.headers.get("etag");
    let tag = tag.map(|tag| tag.to_str().expect("a tag is ASCII").to_owned());
    let media_type = head.headers.get("content-type");
    let media_type = media_type.map_or(&b""[..], |media_type| media_type.as_bytes());
    if !status.is_client_error() && !status.is_server_error() {
        // A watch or a feed has no end.
        let is_endless = asked.contains("watch") || asked.contains("/feed");
        if !is_endless {
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            assert!(body.is_ok(), "{asked}: an answer without an end");
        }
        return (status, tag);
    }
    assert_eq!(media_type, b"application/problem+json", "{asked}: {status}");
    if asked.starts_with("HEAD ") {
        return (status, tag);
    }
    let body = Limited::new(body, PROBLEM_BYTES_MAX).collect().await;
    let body = body.expect("a problem is small").to_bytes();
    let problem: Value = serde_json::from_slice(&body).expect("a problem is JSON");
    assert_eq!(problem["status"], json!(status.as_u16()));
    let kind = problem["type"]
        .as_str()
        .and_then(|kind| kind.strip_prefix("urn:udht:problem:"));
    let kind = kind.expect("a problem has a kind");
    let is_said = |field: &str| problem[field].as_str().is_some_and(|said| !said.is_empty());
    assert!(is_said("title") && is_said("detail"), "{asked}: {problem}");
    if status.is_server_error() {
        // The store never fails here. What is left is what a client can bring about by itself.
        assert!(
            ["full", "clock-ahead", "leaving", "busy"].contains(&kind),
            "{asked}: {problem}"
        );
    }
    if kind == "bad-header" {
        assert!(is_said("field"), "{asked}: {problem}");
    }
    if kind == "bad-line" {
        assert!(problem["line"].is_u64(), "{asked}: {problem}");
    }
    (status, tag)
}

const METHODS: [&str; 7] = ["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"];
const PATHS: [&str; 22] = [
    "/v1/replicas",
    "/v1/sync/replicas",
    "/v1/sync/advance",
    "/v1/sync/tend",
    "/v1/peers/",
    "/v1/peers",
    "/v1/peers/p1/contact",
    "/v1/identity",
    "/v1/table",
    "/v1/sync/state",
    "/v1/sync/tables/peers/fingerprints",
    "/v1/sync/tables/peers/records",
    "/v1/sync/tables/peers/merge",
    "/v1/sync/feed",
    "/v1/sync/authority",
    "/v1/sync/leave",
    "/v1/sync/report",
    "/v1/status",
    "/",
    "/metrics",
    "/readyz",
    "/v1/peers/p1/",
];
const PARAMETERS: [&str; 15] = [
    "name", "ip", "label", "limit", "after", "watch", "since", "mode", "end", "symbols", "from",
    "via", "x", "", "label",
];
const VALUES: [&str; 14] = [
    "n1",
    "10.0.0.7",
    "n=1",
    "n",
    "1",
    "p1",
    "true",
    "replace",
    "optional",
    "push",
    "0",
    "32768",
    "01010101-0101-0101-0101-010101010101",
    "18446744073709551615",
];
const HEADERS: [&str; 9] = [
    "if-match",
    "if-none-match",
    "content-type",
    "accept",
    "content-encoding",
    "accept-encoding",
    "origin",
    "content-length",
    "host",
];
const MEDIA_TYPES: [&str; 6] = [
    "application/json",
    "application/merge-patch+json",
    NDJSON,
    "application/x-protobuf",
    "text/event-stream",
    "*/*;q=0.5, application/json",
];

/// A request, unless the bytes make one that no connection could bring.
fn request(choices: &mut Choices<'_>, manager: &Manager, etag: &str) -> Option<Request<Body>> {
    let method = *choices.of(&METHODS);
    let mut target = (*choices.of(&PATHS)).to_owned();
    if target.ends_with('/') {
        let key = match choices.up_to(4) {
            0 => choices.text(140),
            number => format!("p{number}"),
        };
        target.push_str(&escaped(choices, &key));
    }
    for place in 0..choices.up_to(3) {
        target.push(if place == 0 { '?' } else { '&' });
        let name = if choices.once_in(8) {
            choices.text(80)
        } else {
            (*choices.of(&PARAMETERS)).to_owned()
        };
        let value = if choices.once_in(3) {
            choices.text(80)
        } else {
            (*choices.of(&VALUES)).to_owned()
        };
        target.push_str(&escaped(choices, &name));
        target.push('=');
        target.push_str(&escaped(choices, &value));
    }
    let mut request = Request::builder().method(method).uri(target);
    let mut has_type = false;
    if !choices.once_in(30) {
        request = request.header("host", "localhost:3002");
    }
    for _ in 0..choices.up_to(3) {
        let name = *choices.of(&HEADERS);
        has_type |= name == "content-type";
        let value = match choices.up_to(5) {
            0 => choices.bytes(100),
            1 => etag.as_bytes().to_vec(),
            2 => format!("W/{etag}, \"x\"").into_bytes(),
            3 => b"zstd".to_vec(),
            _ => choices.of(&MEDIA_TYPES).as_bytes().to_vec(),
        };
        request = request.header(name, value);
    }
    let (media_type, body) = body(choices, manager);
    if !has_type && !body.is_empty() {
        request = request.header("content-type", media_type);
    }
    let is_whole = !choices.once_in(4);
    let body = if is_whole {
        Body::from(body)
    } else {
        in_parts(&body, 7)
    };
    request.body(body).ok()
}

/// As a client escapes it, or as it is.
fn escaped(choices: &mut Choices<'_>, text: &str) -> String {
    if choices.once_in(6) {
        text.to_owned()
    } else {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }
}

fn body(choices: &mut Choices<'_>, manager: &Manager) -> (&'static str, Vec<u8>) {
    let (media_type, mut body) = match choices.up_to(5) {
        0 => (*choices.of(&MEDIA_TYPES), choices.bytes(400)),
        1 => (MEDIA_TYPES[0], peer(choices).to_string().into_bytes()),
        2 => {
            let mut peer = peer(choices);
            let field = *choices.of(&["name", "ip", "ports", "labels", "x"]);
            peer[field] = value(choices, 2);
            (MEDIA_TYPES[1], peer.to_string().into_bytes())
        }
        3 => {
            let lines = choices.up_to(4);
            let peers = (0..lines).map(|_| peer(choices).to_string());
            let end = serde_json::json!({"end": {"records": lines}});
            let mut dump: Vec<_> = peers.chain([end.to_string()]).collect();
            // So that the last line ends too.
            dump.push(String::new());
            let dump = dump.join("\n").into_bytes();
            let is_compressed = choices.once_in(2);
            let compressed = || zstd::encode_all(&dump[..], 1).expect("memory for zstd");
            (NDJSON, if is_compressed { compressed() } else { dump })
        }
        4 => (MEDIA_TYPES[3], batch(manager)),
        _ => (MEDIA_TYPES[0], Vec::new()),
    };
    if choices.once_in(6) {
        choices.spoil(&mut body);
    }
    (media_type, body)
}

fn batch(manager: &Manager) -> Vec<u8> {
    use prost::Message;
    let table = peer_table::peers::table_name();
    peer_table::contract::Batch::new(&table, manager.entries()).encode_to_vec()
}

/// A peer with some fields that may be anything.
fn peer(choices: &mut Choices<'_>) -> Value {
    let mut peer = json!({
        "peer_id": format!("p{}", choices.up_to(40)),
        "name": "files-0",
        "ip": "10.0.0.7",
    });
    for _ in 0..choices.up_to(2) {
        let field = *choices.of(&[
            "ports",
            "labels",
            "lastConnectionOn",
            "name",
            "ip",
            "peer_id",
        ]);
        peer[field] = value(choices, 2);
    }
    peer
}

fn value(choices: &mut Choices<'_>, depth: usize) -> Value {
    match choices.up_to(if depth == 0 { 5 } else { 7 }) {
        0 => Value::Null,
        1 => choices.number().into(),
        2 => choices.up_to(70_000).into(),
        3 => choices.text(1_100).into(),
        4 => "2026-01-31T08:04:00+01:00".into(),
        5 => f64::from_bits(choices.number()).into(),
        6 => (0..choices.up_to(3))
            .map(|_| value(choices, depth - 1))
            .collect(),
        _ => {
            let fields = 0..choices.up_to(70);
            let fields = fields.map(|_| (choices.text(66), value(choices, depth - 1)));
            Value::Object(fields.collect())
        }
    }
}
