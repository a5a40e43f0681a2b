//! What the sync beside a manager asks and tells.

use axum::http::StatusCode;
use bytes::BytesMut;
use peer_table::contract::{
    Batch, FeedPart, FingerprintPage, MEDIA_TYPE, MergeAnswer, Records, RecordsRequest, State,
    fingerprints_from_bytes, fingerprints_to_bytes,
};
use peer_table::{Fingerprint, Key};
use prost::Message;

use crate::support::{Answer, Call, Manager, Open, peer};

pub const MERGE: &str =
    "/v1/sync/tables/peers/merge?via=push&from=07070707-0707-0707-0707-070707070707";

pub fn send(manager: &Manager, path: &str, message: &impl Message) -> Call {
    let call = manager.post(path).header("content-type", MEDIA_TYPE);
    call.body(message.encode_to_vec())
}

pub fn read<M: Message + Default>(answer: &Answer) -> M {
    assert_eq!(answer.header("content-type"), MEDIA_TYPE);
    M::decode(&answer.body[..]).unwrap()
}

pub async fn state(manager: &Manager) -> State {
    read(&manager.get("/v1/sync/state").expect(200).await)
}

async fn part(feed: &mut Open, buffer: &mut BytesMut) -> FeedPart {
    loop {
        let mut rest = &buffer[..];
        if let Ok(length) = prost::decode_length_delimiter(&mut rest)
            && rest.len() >= length
        {
            let part = FeedPart::decode(&rest[..length]).unwrap();
            let taken = buffer.len() - rest.len() + length;
            let _ = buffer.split_to(taken);
            return part;
        }
        buffer.extend_from_slice(&feed.part().await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_state_says_who_and_how_much() {
    let manager = Manager::new().await;
    manager.fill((0..5).map(|n| format!("p{n}"))).await;
    manager.delete("/v1/peers/p0").expect(204).await;
    let state = state(&manager).await;
    assert_eq!(state.cluster, "test");
    assert_eq!(state.peer_id, "own");
    let table = state.table(manager.owner.table_name()).unwrap();
    assert_eq!(table.digest.records, 5);
    assert!(table.symbols.is_empty());
    let some = manager.get("/v1/sync/state?symbols=128").expect(200).await;
    let some: State = read(&some);
    assert_eq!(some.tables[0].digest, table.digest);
    assert!(some.tables[0].symbols.len() >= 128);
    manager
        .get("/v1/sync/state?symbols=32768")
        .expect(200)
        .await;
    manager
        .get("/v1/sync/state?symbols=32769")
        .expect(400)
        .await;
}

#[tokio::test]
async fn a_table_is_carried_over_by_fingerprints_and_records() {
    let (from, to) = (Manager::new().await, Manager::new().await);
    from.fill((0..300).map(|n| format!("p{n}"))).await;
    from.delete("/v1/peers/p7").expect(204).await;
    let mut wanted: Vec<Fingerprint> = Vec::new();
    loop {
        let at = wanted.last().map_or(0, |last| last.0 + 1);
        let path = format!("/v1/sync/tables/peers/fingerprints?from={at}&limit=100");
        let page: FingerprintPage = read(&from.get(&path).expect(200).await);
        wanted.extend(fingerprints_from_bytes(&page.fingerprints).unwrap());
        if page.complete {
            break;
        }
    }
    assert_eq!(wanted.len(), 300);
    let mut asked = &wanted[..];
    while !asked.is_empty() {
        let request = RecordsRequest {
            fingerprints: fingerprints_to_bytes(asked.iter().copied()),
        };
        let answer = send(&from, "/v1/sync/tables/peers/records", &request)
            .expect(200)
            .await;
        let records: Records = read(&answer);
        let count = records.batch.records.len();
        let merged = send(&to, MERGE, &records.batch).expect(200).await;
        let merged: MergeAnswer = read(&merged);
        assert_eq!(merged.outcomes, vec![1; count]);
        let again: MergeAnswer = read(&send(&to, MERGE, &records.batch).expect(200).await);
        assert_eq!(again.outcomes, vec![3; count]);
        asked = &asked[records.dealt_with as usize..];
    }
    let (mine, theirs) = (state(&from).await, state(&to).await);
    assert_eq!(mine.tables, theirs.tables);
    assert_ne!(mine.origin.len() * mine.store.len(), 0);
    let list = |list: &Answer| list.json()["peers"].clone();
    assert_eq!(
        list(&from.get("/v1/peers").expect(200).await),
        list(&to.get("/v1/peers").expect(200).await)
    );
}

#[tokio::test]
async fn a_request_for_nothing_has_an_empty_body_without_a_type() {
    let manager = Manager::new().await;
    let answer = manager
        .post("/v1/sync/tables/peers/records")
        .expect(200)
        .await;
    let records: Records = read(&answer);
    assert_eq!((records.batch.records.len(), records.dealt_with), (0, 0));
}

#[tokio::test]
async fn the_feed_has_what_is_written_here_and_only_that() {
    let (here, there) = (Manager::new().await, Manager::new().await);
    let mut feed = here.get("/v1/sync/feed").open().await;
    assert_eq!(feed.status, StatusCode::OK);
    let mut buffer = BytesMut::new();
    let start = part(&mut feed, &mut buffer).await;
    assert_eq!(start.batch, None);

    there.put("/v1/peers/there", &peer()).expect(201).await;
    let key: Key = "there".parse().unwrap();
    let entry = there.owner.get(&key).await.unwrap().unwrap();
    let batch = Batch::new(there.owner.table_name(), [(key, entry)]);
    send(&here, MERGE, &batch).expect(200).await;
    here.post("/v1/peers/there/contact").expect(200).await;
    for _ in 0..3 {
        here.put("/v1/peers/here", &peer()).send().await;
    }
    let news = part(&mut feed, &mut buffer).await;
    let batch = news.batch.unwrap();
    assert_eq!(batch.table, "peers");
    let records = batch.into_records().unwrap();
    assert_eq!(records.len(), 1, "of several changes the last is enough");
    let held = here.owner.get(&records[0].0).await.unwrap().unwrap();
    assert_eq!(records[0].1, held);
    here.delete("/v1/peers/here").expect(204).await;
    let news = part(&mut feed, &mut buffer).await;
    let records = news.batch.unwrap().into_records().unwrap();
    assert!(!records[0].1.is_live());

    let path = format!("/v1/sync/feed?since={}", start.revision);
    let mut again = here.get(&path).open().await;
    let mut buffer = BytesMut::new();
    assert_eq!(part(&mut again, &mut buffer).await, start);
    let rest = part(&mut again, &mut buffer).await.batch.unwrap();
    assert_eq!(rest.into_records().unwrap(), records);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_feed_says_where_it_is() {
    let manager = Manager::new().await;
    let mut feed = manager.get("/v1/sync/feed").open().await;
    let mut buffer = BytesMut::new();
    let start = part(&mut feed, &mut buffer).await;
    assert_eq!(part(&mut feed, &mut buffer).await, start);
}

#[tokio::test]
async fn what_is_no_message_or_breaks_a_rule_is_refused_whole() {
    let manager = Manager::new().await;
    manager.put("/v1/peers/p1", &peer()).expect(201).await;
    let key: Key = "p1".parse().unwrap();
    let entry = manager.owner.get(&key).await.unwrap().unwrap();
    let good = Batch::new(manager.owner.table_name(), [(key, entry)]);
    let mut other_table = good.clone();
    other_table.table = "files".to_owned();
    let mut bad_key = good.clone();
    bad_key.records[0].key = "a/b".into();
    for (batch, field) in [(other_table, "table"), (bad_key, "key")] {
        let refused = send(&manager, MERGE, &batch).expect(422).await;
        assert_eq!(refused.problem(), "invalid-message");
        assert_eq!(refused.json()["field"], field);
    }
    let garbage = manager.post(MERGE).header("content-type", MEDIA_TYPE);
    assert_eq!(
        garbage.body(vec![255; 9]).expect(400).await.problem(),
        "bad-body"
    );
    let large = manager.post(MERGE).header("content-type", MEDIA_TYPE);
    let large = large.body(vec![0; (8 << 20) + 1]).expect(413).await;
    assert_eq!(large.json()["limit"], 8 << 20);
    let odd = RecordsRequest {
        fingerprints: vec![0; 7],
    };
    send(&manager, "/v1/sync/tables/peers/records", &odd)
        .expect(422)
        .await;
    let untyped = manager.post(MERGE).body(good.encode_to_vec());
    untyped.expect(415).await;
    for query in [
        "?via=push",
        "?via=local&from=07070707-0707-0707-0707-070707070707",
        "",
    ] {
        let path = format!("/v1/sync/tables/peers/merge{query}");
        send(&manager, &path, &good).expect(400).await;
    }
    for path in [
        "/v1/sync/tables/files/fingerprints",
        "/v1/sync/tables/%FF/fingerprints",
    ] {
        let refused = manager.get(path).expect(404).await;
        assert_eq!(refused.problem(), "no-such-table");
    }
}
