//! Whole stores and a dump, as a manager of each release left them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Part, Pod, REDIS_PORT, StoreKind};
use ureq::Agent;

use super::{recorded, releases};

/// The files: a store of the embedded kind, the commands that make the same of a Redis, and the dumps
/// of both.
pub(crate) const FILES: [&str; 4] = [
    "store.redb.zst",
    "store-redb.ndjson",
    "store.resp.zst",
    "store-redis.ndjson",
];
/// Records that are written, one of which is deleted then.
const RECORDS: u64 = 20;

fn options(store: StoreKind) -> ClusterOptions {
    ClusterOptions {
        cluster: "recorded".to_owned(),
        store,
        ..ClusterOptions::default()
    }
}

fn url(pod: &Pod, path: &str) -> String {
    format!("{}{path}", pod.manager_url())
}

/// What a manager's table says, without the record of its own pod, which follows the pod's address.
fn table(agent: &Agent, pod: &Pod) -> BTreeMap<String, Value> {
    let own = http::get(agent, &url(pod, "/v1/identity")).unwrap().ok();
    let own = own.unwrap()["peer_id"].as_str().unwrap().to_owned();
    let mut table = of_dump(&http::text(agent, &url(pod, "/v1/table")).unwrap());
    assert!(table.remove(&own).is_some(), "its own record");
    table
}

/// The records of a dump, by key; it must be whole.
fn of_dump(dump: &str) -> BTreeMap<String, Value> {
    let lines = dump
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut lines: Vec<_> = lines.collect();
    let end = lines.pop().unwrap();
    assert_eq!(end["end"]["records"], lines.len(), "{end}");
    let keyed = |record: Value| (record["peer_id"].as_str().unwrap().to_owned(), record);
    lines.into_iter().map(keyed).collect()
}

/// The table of a recorded dump, without the record of the pod it is of.
fn of_recorded(release: &str, file: &str) -> BTreeMap<String, Value> {
    let mut table = of_dump(&String::from_utf8(recorded(release, file)).unwrap());
    table.retain(|key, _| key.starts_with("files-"));
    assert_eq!(table.len() as u64, RECORDS - 1);
    table
}

fn tombstones(agent: &Agent, pod: &Pod) -> Value {
    let replicas = http::get(agent, &url(pod, "/v1/replicas")).unwrap().ok();
    replicas.unwrap()["tombstones"].clone()
}

#[test]
fn this_build_opens_the_file_of_each_release_and_finds_all_in_it() {
    for release in releases() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::set_up(folder.path(), 1, &options(StoreKind::Embedded)).unwrap();
        let (agent, pod) = (agent(), cluster.pod(1));
        let file = zstd::decode_all(&recorded(&release, "store.redb.zst")[..]).unwrap();
        std::fs::write(pod.store(), file).unwrap();
        pod.start_manager().unwrap();
        assert_eq!(
            table(&agent, pod),
            of_recorded(&release, "store-redb.ndjson"),
            "{release}"
        );
        assert_eq!(tombstones(&agent, pod), 1, "{release}");
        still_takes_writes(&agent, pod);
    }
}

#[test]
fn this_build_opens_the_redis_of_each_release_and_finds_all_in_it() {
    for release in releases() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::set_up(folder.path(), 1, &options(StoreKind::Redis)).unwrap();
        let (agent, pod) = (agent(), cluster.pod(1));
        pod.begin(Part::Redis).unwrap();
        pod.ready(Part::Redis).unwrap();
        let commands = zstd::decode_all(&recorded(&release, "store.resp.zst")[..]).unwrap();
        replay(pod, &commands).unwrap();
        pod.start_manager().unwrap();
        assert_eq!(
            table(&agent, pod),
            of_recorded(&release, "store-redis.ndjson"),
            "{release}"
        );
        assert_eq!(tombstones(&agent, pod), 1, "{release}");
        still_takes_writes(&agent, pod);
    }
}

#[test]
fn this_build_takes_the_dump_of_each_release() {
    for release in releases() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::set_up(folder.path(), 1, &options(StoreKind::Embedded)).unwrap();
        let (agent, pod) = (agent(), cluster.pod(1));
        pod.start_manager().unwrap();
        let dump = recorded(&release, "store-redb.ndjson");
        let sent = agent
            .post(&url(pod, "/v1/table"))
            .content_type("application/x-ndjson");
        assert_eq!(sent.send(&dump[..]).unwrap().status(), 200, "{release}");
        let mut wanted = of_recorded(&release, "store-redb.ndjson");
        let mut held = table(&agent, pod);
        held.retain(|key, _| key.starts_with("files-"));
        // Each is a new write: only who wrote it, and when, is new.
        for record in wanted.values_mut().chain(held.values_mut()) {
            for field in ["version", "createdAt", "updatedAt"] {
                record[field].take();
            }
        }
        assert_eq!(held, wanted, "{release}");
    }
}

fn still_takes_writes(agent: &Agent, pod: &Pod) {
    let body = json!({"name": "new", "ip": "10.0.0.9"});
    let written = http::put(agent, &url(pod, "/v1/peers/new"), &body).unwrap();
    assert_eq!(written.status, 201, "{}", written.body);
}

/// Records the stores of this build.
pub(crate) fn record(into: &Path) {
    let agent = agent();
    for store in [StoreKind::Embedded, StoreKind::Redis] {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(folder.path(), 1, &options(store)).unwrap();
        cluster.wait_until_joined(&agent).unwrap();
        let pod = cluster.pod(1);
        // Without a sync nobody looks after the floors, and the tombstone stays.
        pod.kill_part(Part::Sync).unwrap();
        for number in 0..RECORDS {
            let body = json!({
                "name": format!("files-{number}"),
                "ip": if number % 2 == 0 { format!("10.0.0.{number}") } else { format!("fd00::{number:x}") },
                "ports": {"userSync": 5001, "metrics": 9100 + number},
                "labels": {"zone": if number % 3 == 0 { "a" } else { "b" }},
            });
            let path = format!("/v1/peers/files-{number:02}");
            http::put(&agent, &url(pod, &path), &body)
                .unwrap()
                .ok()
                .unwrap();
        }
        http::delete(&agent, &url(pod, "/v1/peers/files-07"))
            .unwrap()
            .ok()
            .unwrap();
        let contact = url(pod, "/v1/peers/files-03/contact");
        assert_eq!(agent.post(&contact).send_empty().unwrap().status(), 200);
        let dump = http::text(&agent, &url(pod, "/v1/table")).unwrap();
        pod.manager.take().unwrap().stop().unwrap();
        let (name, file, bytes) = match store {
            StoreKind::Embedded => (
                "redb",
                "store.redb.zst",
                std::fs::read(pod.store()).unwrap(),
            ),
            StoreKind::Redis => ("redis", "store.resp.zst", commands_of(pod).unwrap()),
        };
        let bytes = zstd::encode_all(&bytes[..], 19).unwrap();
        std::fs::write(into.join(file), bytes).unwrap();
        std::fs::write(into.join(format!("store-{name}.ndjson")), dump).unwrap();
    }
}

/// The commands that make a Redis hold what the one of this pod does: hashes.
fn commands_of(pod: &Pod) -> Result<Vec<u8>> {
    let mut line = Line::to(pod)?;
    let mut keys = line.ask(&[b"KEYS", b"*"])?;
    // The lock says which connection has the store, and is of nobody by now.
    keys.retain(|key| !key.ends_with(b"lock"));
    keys.sort();
    let mut commands = Vec::new();
    for key in keys {
        let fields = line.ask(&[b"HGETALL", &key])?;
        let mut command: Vec<&[u8]> = vec![b"HSET", &key];
        command.extend(fields.iter().map(Vec::as_slice));
        commands.extend(command_bytes(&command));
    }
    Ok(commands)
}

/// Has the Redis of this pod carry out these commands.
fn replay(pod: &Pod, commands: &[u8]) -> Result<()> {
    let mut line = Line::to(pod)?;
    line.0.get_mut().write_all(commands)?;
    // Each is answered before this is.
    line.0
        .get_mut()
        .write_all(&command_bytes(&[b"ECHO", b"done"]))?;
    while line.answer()? != [b"done"] {}
    Ok(())
}

/// A connection to a Redis, in its protocol RESP2.
struct Line(BufReader<TcpStream>);

impl Line {
    fn to(pod: &Pod) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect((
            pod.address,
            REDIS_PORT,
        ))?)))
    }

    fn ask(&mut self, command: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        self.0.get_mut().write_all(&command_bytes(command))?;
        self.answer()
    }

    /// An answer: the texts of a list, or the one that it is.
    fn answer(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut head = String::new();
        self.0.read_line(&mut head)?;
        let (kind, rest) = head.trim_end().split_at_checked(1).context("no answer")?;
        match kind {
            "*" => {
                let mut texts = Vec::new();
                for _ in 0..rest.parse()? {
                    texts.append(&mut self.answer()?);
                }
                Ok(texts)
            }
            "$" => {
                let mut text = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(vec![text])
            }
            ":" | "+" => Ok(vec![rest.as_bytes().to_vec()]),
            _ => bail!("Redis said {head:?}"),
        }
    }
}

fn command_bytes(command: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        bytes.extend(format!("${}\r\n", part.len()).into_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
