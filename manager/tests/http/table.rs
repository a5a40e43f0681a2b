//! The whole table, out and in.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use crate::support::{Answer, Call, Manager, peer};

fn import(manager: &Manager, query: &str, body: impl Into<Body>) -> Call {
    let call = manager.post(&format!("/v1/table{query}"));
    call.header("content-type", "application/x-ndjson")
        .body(body)
}

async fn export(manager: &Manager) -> Answer {
    manager.get("/v1/table").expect(200).await
}

/// The peers of a dump, without what another table stamps anew.
fn said(dump: &Answer) -> Vec<Value> {
    let mut lines = dump.lines();
    lines.pop();
    for line in &mut lines {
        for stamped in ["version", "createdAt", "updatedAt"] {
            line.as_object_mut().unwrap().remove(stamped);
        }
    }
    lines
}

fn line(id: &str) -> String {
    let mut peer = peer();
    peer["peer_id"] = id.into();
    format!("{peer}\n")
}

fn end(records: usize) -> String {
    format!("{{\"end\":{{\"records\":{records}}}}}\n")
}

#[tokio::test]
async fn a_dump_of_one_table_makes_another_say_the_same() {
    let (from, to) = (Manager::new().await, Manager::new().await);
    from.fill((0..700).map(|n| format!("p{n:03}"))).await;
    from.post("/v1/peers/p007/contact").expect(200).await;
    let dump = export(&from).await;
    assert_eq!(dump.header("content-type"), "application/x-ndjson");
    let last = dump.lines().pop().unwrap();
    let revision = dump.header("udht-revision");
    assert_eq!(last, json!({"end": {"records": 700, "revision": revision}}));
    to.put("/v1/peers/other", &peer()).expect(201).await;
    let answer = import(&to, "", dump.body.clone()).expect(200).await;
    assert_eq!(answer.json(), json!({"written": 700, "deleted": 0}));
    to.get("/v1/peers/other").expect(200).await;
    to.delete("/v1/peers/other").expect(204).await;
    assert_eq!(said(&export(&to).await), said(&dump));
}

#[tokio::test]
async fn a_dump_is_compressed_both_ways_where_that_is_asked_for() {
    let (from, to) = (Manager::new().await, Manager::new().await);
    from.fill((0..600).map(|n| format!("p{n}"))).await;
    let plain = export(&from).await;
    let packed = from
        .get("/v1/table")
        .header("accept-encoding", "gzip, zstd");
    let packed = packed.expect(200).await;
    assert_eq!(packed.header("content-encoding"), "zstd");
    assert_eq!(packed.header("vary"), "accept-encoding");
    assert!(packed.body.len() < plain.body.len() / 5);
    assert_eq!(zstd::decode_all(&packed.body[..]).unwrap(), plain.body);

    let bytes = packed.body.clone();
    // In pieces, as they come from a socket; and in two frames, as `cat` makes of two files.
    let pieces: Vec<_> = bytes
        .chunks(100)
        .map(|part| Ok::<_, std::io::Error>(Bytes::copy_from_slice(part)))
        .collect();
    let in_pieces = import(&to, "", Body::from_stream(stream::iter(pieces)));
    let answer = in_pieces
        .header("content-encoding", "zstd")
        .expect(200)
        .await;
    assert_eq!(answer.json()["written"], 600);
    assert_eq!(said(&export(&to).await), said(&plain));
    let frames = [line("x"), end(1)].map(|text| zstd::encode_all(text.as_bytes(), 3).unwrap());
    let in_frames = import(&to, "", frames.concat()).header("content-encoding", "zstd");
    assert_eq!(in_frames.expect(200).await.json()["written"], 1);
}

#[tokio::test]
async fn a_replacing_import_deletes_what_it_does_not_name_but_for_the_own_record() {
    let manager = Manager::new().await;
    manager.fill((0..300).map(|n| format!("p{n:03}"))).await;
    manager.put("/v1/identity", &peer()).expect(201).await;
    let dump = [line("p001"), line("new"), end(2)].concat();
    let answer = import(&manager, "?mode=replace", dump).expect(200).await;
    assert_eq!(answer.json(), json!({"written": 2, "deleted": 299}));
    let list = manager.get("/v1/peers").expect(200).await;
    assert_eq!(list.ids(), ["new", "own", "p001"]);
}

#[tokio::test]
async fn an_empty_dump_is_one_line() {
    let manager = Manager::new().await;
    assert_eq!(export(&manager).await.lines().len(), 1);
    let answer = import(&manager, "?mode=merge", end(0)).expect(200).await;
    assert_eq!(answer.json(), json!({"written": 0, "deleted": 0}));
}

#[tokio::test]
async fn what_is_cut_off_or_counted_wrong_changes_nothing() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/kept", &peer()).expect(201).await;
    let before = export(&manager).await;
    let whole = [line("a"), line("b"), end(2)].concat();
    let packed = zstd::encode_all(whole.as_bytes(), 3).unwrap();
    for (body, encoding) in [
        ([line("a"), line("b")].concat().into_bytes(), None),
        ([line("a"), end(2)].concat().into_bytes(), None),
        ([line("a"), line("b"), end(1)].concat().into_bytes(), None),
        (Vec::new(), None),
        (packed[..packed.len() - 1].to_vec(), Some("zstd")),
        (Vec::new(), Some("zstd")),
    ] {
        for mode in ["", "?mode=replace"] {
            let call = import(&manager, mode, body.clone());
            let call = encoding.into_iter().fold(call, |call, encoding| {
                call.header("content-encoding", encoding)
            });
            assert_eq!(call.expect(400).await.problem(), "cut-off");
        }
    }
    assert_eq!(export(&manager).await.body, before.body);
    // All the text is there, and what proves it is not.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(whole.as_bytes()).unwrap();
    let mut unproved = encoder.finish().unwrap();
    unproved.pop();
    for query in ["", "?end=optional"] {
        let call = import(&manager, query, unproved.clone()).header("content-encoding", "zstd");
        assert_eq!(call.expect(400).await.problem(), "cut-off");
    }
    assert_eq!(export(&manager).await.body, before.body);
    let optional = import(&manager, "?end=optional", [line("a"), line("b")].concat());
    assert_eq!(optional.expect(200).await.json()["written"], 2);
}

#[tokio::test]
async fn a_bad_line_is_named_and_changes_nothing() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/kept", &peer()).expect(201).await;
    let before = export(&manager).await;
    let with = |field: &str, value: Value| {
        let mut peer = peer();
        peer["peer_id"] = "b".into();
        peer[field] = value;
        format!("{peer}\n")
    };
    let labels: Value = (0..20)
        .map(|n| (n.to_string(), Value::from("x".repeat(1_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (bad, field) in [
        (
            with("ports", json!({"userSync": 0})),
            json!("ports.userSync"),
        ),
        (with("peer_id", "".into()), json!("peer_id")),
        (with("ip", "10.0.0".into()), json!("ip")),
        (
            with("lastConnectionOn", "2999-01-01T00:00:00Z".into()),
            json!("lastConnectionOn"),
        ),
        (with("labels", labels), Value::Null),
        (with("colour", "red".into()), json!("colour")),
        (format!("{}\n", peer()), json!("peer_id")),
        (line("a"), json!("peer_id")),
        ("{\n".to_owned(), Value::Null),
        ("{\"end\":3}\n".to_owned(), json!("end")),
        (format!("{}{}", end(1), line("c")), Value::Null),
        (with("name", "x".repeat(70_000).into()), Value::Null),
    ] {
        let place = if bad.starts_with("{\"end\":{") { 4 } else { 3 };
        let body = [&line("a"), "\n", &bad, &line("z"), &end(3)].concat();
        let refused = import(&manager, "?mode=replace", body).expect(400).await;
        assert_eq!(refused.problem(), "bad-line", "{bad}");
        assert_eq!(refused.json()["line"], place, "{bad}");
        assert_eq!(refused.json()["field"], field, "{bad}");
    }
    assert_eq!(export(&manager).await.body, before.body);
}

#[tokio::test]
async fn a_dump_with_more_than_the_table_takes_changes_nothing() {
    let limits = peer_table::table::Limits {
        records_max: 3,
        ..Default::default()
    };
    let manager = Manager::with_limits(limits).await;
    manager.fill(["a".to_owned(), "b".to_owned()]).await;
    let before = export(&manager).await;
    for ids in [&["c", "d"][..], &["a", "b", "c", "d"]] {
        let lines: String = ids.iter().map(|id| line(id)).collect();
        let refused = import(&manager, "?end=optional", lines).expect(507).await;
        assert_eq!(refused.problem(), "full");
    }
    assert_eq!(export(&manager).await.body, before.body);
    let fits = [line("a"), line("b"), line("c"), end(3)].concat();
    assert_eq!(
        import(&manager, "", fits).expect(200).await.json()["written"],
        3
    );
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_goes_off() {
    let manager = Manager::new().await;
    let bomb = zstd::encode_all(&vec![b' '; 100 << 20][..], 3).unwrap();
    assert!(bomb.len() < 20_000);
    let call = import(&manager, "?end=optional", bomb).header("content-encoding", "zstd");
    assert_eq!(call.expect(400).await.problem(), "bad-line");
    let garbage = import(&manager, "", "no zstd").header("content-encoding", "zstd");
    assert_eq!(garbage.expect(400).await.problem(), "bad-body");
}

#[tokio::test]
async fn one_import_is_read_at_a_time() {
    let manager = Manager::new().await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let mut first = Box::pin(import(&manager, "", never).send());
    assert!(futures_util::poll!(&mut first).is_pending());
    let second = import(&manager, "", end(0)).expect(503).await;
    assert_eq!(second.problem(), "busy");
    drop(first);
    import(&manager, "", end(0)).expect(200).await;
}
