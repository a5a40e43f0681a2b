use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;

use super::super::testing::{Canned, Ran, json, problem, run};
use super::*;

/// The files of a bundle that is not compressed any more, read by the rules of tar.
fn files(mut tar: &[u8]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    while tar.len() > 1_024 {
        let (header, rest) = tar.split_at(512);
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.trim_end_matches('\0').to_owned()
        };
        let name = text(&header[..100]);
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        let name = name.strip_prefix("udht-bundle/").unwrap().to_owned();
        files.insert(name, text(&rest[..size]));
        tar = &rest[size.next_multiple_of(512)..];
    }
    assert!(tar.iter().all(|byte| *byte == 0) && tar.len() == 1_024);
    files
}

fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Bundles what a manager says, beside a sync that is not there.
fn bundle(canned: &Canned, flags: &[&str]) -> (Ran, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar.zst");
    let sync = nobody();
    let line = [
        "bundle",
        "--sync-ops",
        &sync,
        "--out",
        path.to_str().unwrap(),
    ];
    let ran = canned.run(&[&line, flags].concat());
    let bytes = fs::read(path).unwrap();
    (ran, files(&zstd::decode_all(&bytes[..]).unwrap()))
}

#[test]
fn what_is_had_is_put_in_and_what_is_not_is_said_with_the_reason() {
    let canned = Canned::new([
        json("{\"message\":\"a line\"}\n"),
        json("{\"release\":\"1\"}"),
        problem(404, "there is nothing at this path", ""),
        problem(503, "loading", ""),
        json("{}"),
        problem(404, "no record", ""),
        json("udht_records 3\n"),
        json("{\"filter\":\"info\"}"),
    ]);
    let (ran, files) = bundle(&canned, &[]);
    assert!(
        ran.out.contains("6 files; 9 more were not to be had"),
        "{ran:?}"
    );
    assert_eq!(files["manager/logs.ndjson"], "{\"message\":\"a line\"}\n");
    assert_eq!(files["manager/metrics.txt"], "udht_records 3\n");
    // That it is not ready is what is wanted to be known.
    assert!(files["manager/ready.txt"].contains("loading"));
    let readme = &files["README.txt"];
    for part in PARTS.iter().filter(|part| !part.is_of_records) {
        assert!(readme.contains(part.file), "{}: {readme}", part.file);
    }
    for said in ["(status 503)", "status 404", "refused", "without"] {
        assert!(readme.contains(said), "{said}: {readme}");
    }
    assert_eq!(files.len(), 7);
    let requests = canned.requests();
    assert!(
        requests.iter().all(|it| it.starts_with("GET ")),
        "{requests:?}"
    );
}

#[test]
fn records_are_in_it_only_where_they_are_asked_for() {
    let answers: Vec<_> = (0..9).map(|number| json(&number.to_string())).collect();
    let canned = Canned::new(answers);
    let (ran, files) = bundle(&canned, &["--records", "-o", "json"]);
    assert_eq!(files["manager/records.ndjson"], "8");
    assert!(ran.out.contains("\"files\":9,\"missing\":7"), "{ran:?}");
    let requests = canned.requests();
    assert!(requests[8].starts_with("GET /v1/peers?limit=1000 "));
    assert!(requests[8].contains("application/x-ndjson"));
}

#[test]
fn a_bundle_of_nobody_says_so_by_its_exit_code() {
    let (manager, sync) = (nobody(), nobody());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar.zst");
    let line = ["--manager", &manager, "bundle", "--sync-ops", &sync];
    let ran = run(
        &[&line[..], &["--out", path.to_str().unwrap()]].concat(),
        "",
        false,
    );
    assert_eq!(ran.code(), 1);
    assert!(ran.failure().contains("--sync-ops"), "{ran:?}");
    // What was tried and why it failed is in it all the same.
    let bytes = fs::read(path).unwrap();
    let files = files(&zstd::decode_all(&bytes[..]).unwrap());
    assert!(files["README.txt"].contains("refused"));
}

#[test]
fn an_answer_that_does_not_end_is_cut_off() {
    let body = "x".repeat(5 << 20);
    let mut answers = vec![json(&body)];
    answers.resize_with(8, || json("{}"));
    let canned = Canned::new(answers);
    let (_, files) = bundle(&canned, &[]);
    assert_eq!(files["manager/logs.ndjson"].len(), 4 << 20);
    assert!(files["README.txt"].contains("its first 4194304 bytes"));
}

#[test]
fn where_the_sync_is_may_be_said_without_a_scheme() {
    let ops = |text: &str| text.parse().map(|SyncOps(ops)| ops.to_string());
    assert_eq!(ops("127.0.0.1:3004").unwrap(), "http://127.0.0.1:3004");
    assert_eq!(ops("http://[::1]:3004").unwrap(), "http://[::1]:3004");
    ops("127.0.0.1:3004/v1").unwrap_err();
}

#[test]
fn a_bundle_without_a_name_is_named_by_host_and_time() {
    let name = name(super::super::testing::now());
    assert!(name.starts_with("udht-bundle-"), "{name}");
    assert!(name.ends_with("-2026-01-31T103000Z.tar.zst"), "{name}");
}
