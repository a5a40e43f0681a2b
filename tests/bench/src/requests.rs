//! Reads and writes through manager, beside the same of the Redis that it stores in.
//!
//! A manager on a Redis, both as the chart sets them up (`appendonly yes`, `appendfsync no`), and no
//! sync beside them; the other side is asked at that same Redis, for values of the size of a stored
//! record under keys of the length of a `peer_id`. Both sides are driven by a program in C with one
//! thread: `wrk` for the manager, `redis-benchmark` for Redis; they take turns, and of each the median
//! is taken. What the manager does beyond what Redis does (HTTP, JSON, the rules of a record, a
//! transaction that survives it, index, sketch and feed) is all in its figure, and its program shares
//! the processors with one process more.
//!
//! The manager has the records at hand that were read or written one by one last, up to 8 MiB of them, and
//! so all of these. What a read takes that has to ask the store is a row of its own, of ten times as many
//! records.
//!
//! How much of that HTTP alone takes is shown by a server that does nothing else ([`crate::bare`]), in
//! turns with the same of Redis.
//!
//! What keeping the sketch up to date takes is measured alone, over a million changes, each of which
//! takes one fingerprint out and puts another in, and is beside the processor time of the manager for
//! a PUT of that loop.
//!
//! Lists are beside HGETALL of the same hash. A change is with all who watch beside HSET and PUBLISH
//! to as many subscribers. Latencies are of an open loop ([`crate::open_loop`] says why that hides no
//! stall), beside the same loop on Redis.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use hdrhistogram::Histogram;
use peer_table::contract::BATCH_RECORDS_MAX;
use peer_table::peers::Peer;
use peer_table::sketch::Sketch;
use peer_table::{Entry, Fingerprint, Key};
use serde_json::Value;
use udht_tests::pod::{MANAGER_PORT, REDIS_PORT, StoreKind};

use crate::alone::{Alone, batches, dated};
use crate::bare;
use crate::fan_out::FanOut;
use crate::load::{
    DRAWN, FIRST_LARGE_REQUESTS, FIRST_REQUESTS, demand, redis_benchmark, write_requests, wrk,
    wrk_answered,
};
use crate::measure::{Samples, thread_cpu};
use crate::open_loop::{Load, Protocol};
use crate::records::Records;
use crate::report::{Figure, Goal, Report, Row, Unit};

/// How many records there are.
const RECORDS: usize = 10_000;
/// Connections, and how often each side has its turn.
const CONNECTIONS: [(u32, u32); 3] = [(1, 3), (10, 3), (50, 5)];
/// How many of the peers the filter of a list lets through.
const NODES: usize = 100;
/// How many watch.
const WATCHERS: [usize; 3] = [1, 10, 100];
/// The open loop: how many requests are due in a second, by how many connections, how long.
const DUE_PER_SECOND: u32 = 2_000;
const OPEN_CONNECTIONS: u32 = 50;
const OPEN_FOR: Duration = Duration::from_secs(8);
/// Where Redis keeps what the manager has no part in.
const OTHER_HASH: &str = "other";

/// A manager with records.
struct Ground {
    alone: Alone,
    asked: Asked,
}

/// What both sides are asked for.
struct Asked {
    /// The paths of all peers.
    paths: Vec<String>,
    /// What a client writes of each: as it reads it, without what a manager adds.
    bodies: Vec<String>,
    /// As large as a stored record.
    value: String,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    if report.is_quick() {
        return Ok(());
    }
    demand("wrk", "wrk")?;
    demand("redis-benchmark", "redis-tools")?;
    let ground = Ground::new()?;
    let folder = tempfile::tempdir()?;
    ground.closed_loops(report, &folder.path().join("requests"))?;
    ground.bare(report, &folder.path().join("requests"))?;
    ground.sketch(report, &folder.path().join("requests"))?;
    ground.lists(report, &folder.path().join("lists"))?;
    ground.watches(report)?;
    ground.latencies(report)?;
    ground.not_at_hand(report, &folder.path().join("others"))
}

impl Ground {
    fn new() -> Result<Self> {
        let alone = Alone::start(StoreKind::Redis)?;
        let records: Vec<_> = Records::new(RECORDS)
            .take(RECORDS)
            .enumerate()
            .map(|(number, record)| {
                let (_, entry) = dated(record);
                Ok((field(number).parse()?, entry))
            })
            .collect::<Result<_>>()?;
        for batch in batches(&records, 2_000) {
            alone.merge(&batch)?;
        }
        let bodies = records.iter().map(|(key, entry)| body(key, entry));
        let stored: usize = records.iter().map(|(_, it)| it.to_stored().len()).sum();
        let asked = Asked {
            paths: records.iter().map(|(key, _)| path(key)).collect(),
            bodies: bodies.collect::<Result<_>>()?,
            value: "x".repeat(stored / records.len()),
        };
        Ok(Self { alone, asked })
    }

    fn closed_loops(&self, report: &mut Report, file: &Path) -> Result<()> {
        let Asked {
            paths,
            bodies,
            value,
        } = &self.asked;
        let requests = paths.iter().cloned().zip(bodies.iter().cloned());
        write_requests(file, requests)?;
        let field = id(DRAWN);
        let set = ["HSET", OTHER_HASH, &field, value];
        let get = ["HGET", OTHER_HASH, &field];
        let sides = [
            ("PUT", "put", "replace a peer", &set[..], 0.75),
            ("GET", "get", "read a peer by id", &get[..], 0.8),
        ];
        for (connections, times) in CONNECTIONS {
            for (method, name, what, command, least) in sides {
                let id = format!("requests/{name}/{connections}");
                let what = format!("{what}, {connections} at once");
                let ours = || wrk(&self.alone.url(), connections, method, file);
                let row = self.beside_redis(id, what, connections, times, command, ours)?;
                report.add(if connections == 50 {
                    row.goal(Goal::AtLeast(least))
                } else {
                    row
                });
            }
        }
        Ok(())
    }

    /// What HTTP alone reaches, where the manager is held to a goal.
    fn bare(&self, report: &mut Report, file: &Path) -> Result<()> {
        const CONNECTIONS: u32 = 50;
        const TIMES: u32 = 5;
        let url = bare::start(&self.asked.bodies[0])?;
        let field = id(DRAWN);
        let set = ["HSET", OTHER_HASH, &field, &self.asked.value];
        let get = ["HGET", OTHER_HASH, &field];
        for (method, name, command) in [("PUT", "put", &set[..]), ("GET", "get", &get[..])] {
            let id = format!("requests/{name}/bare");
            let what =
                format!("{method} of an HTTP server that does nothing, {CONNECTIONS} at once");
            let bare = || wrk(&url, CONNECTIONS, method, file);
            report.add(self.beside_redis(id, what, CONNECTIONS, TIMES, command, bare)?);
        }
        Ok(())
    }

    /// What is answered in a second, beside this command to Redis; both take so many turns.
    fn beside_redis(
        &self,
        id: String,
        what: String,
        connections: u32,
        times: u32,
        command: &[&str],
        ours: impl Fn() -> Result<f64>,
    ) -> Result<Row> {
        let (mut answered, mut other) = (Samples::new(), Samples::new());
        for _ in 0..times {
            let (alone, first) = (&self.alone, FIRST_REQUESTS);
            other.add(redis_benchmark(
                alone,
                connections,
                RECORDS,
                first,
                command,
            )?);
            answered.add(ours()?);
        }
        let row = Row::new(id, what, answered.figure(Unit::PerSecond));
        let by = format!("redis-benchmark {}", command[0]);
        Ok(row.beside(by, other.figure(Unit::PerSecond)))
    }

    /// Reads of so many records that few of them are at hand.
    fn not_at_hand(&self, report: &mut Report, file: &Path) -> Result<()> {
        const OTHERS: usize = 10 * RECORDS;
        const CONNECTIONS: u32 = 50;
        const TIMES: u32 = 5;
        let others: Vec<_> = Records::new(RECORDS + 1).take(OTHERS).map(dated).collect();
        for batch in batches(&others, BATCH_RECORDS_MAX) {
            self.alone.merge(&batch)?;
        }
        let paths = others.iter().map(|(key, _)| path(key));
        write_requests(file, paths.map(|path| (path, String::new())))?;
        let field = id(DRAWN);
        let get = ["HGET", OTHER_HASH, &field];
        let what = format!("read a peer of {OTHERS} by id, {CONNECTIONS} at once");
        let ours = || wrk(&self.alone.url(), CONNECTIONS, "GET", file);
        let id = "requests/get/not-at-hand".to_owned();
        report.add(self.beside_redis(id, what, CONNECTIONS, TIMES, &get, ours)?);
        Ok(())
    }

    fn sketch(&self, report: &mut Report, file: &Path) -> Result<()> {
        const TIMES: usize = 3;
        let (mut ours, mut put) = (Samples::new(), Samples::new());
        for _ in 0..TIMES {
            let before = self.alone.cpu()?;
            let answered = wrk_answered(&self.alone.url(), 50, "PUT", file)?;
            let used = self.alone.cpu()?.saturating_sub(before);
            put.add(used.as_secs_f64() / answered.requests);
            ours.add(sketch_change().as_secs_f64());
        }
        let what = "CPU of keeping the sketch up to date at a change";
        let row = Row::new("requests/put/sketch", what, ours.figure(Unit::Seconds));
        let row = row.beside("of a whole PUT", put.figure(Unit::Seconds));
        report.add(row.goal(Goal::AtMost(0.03)));
        Ok(())
    }

    fn lists(&self, report: &mut Report, file: &Path) -> Result<()> {
        let hash = self.alone.hash()?;
        let node = serde_json::from_str::<Value>(&self.asked.bodies[0])?;
        let (label, node) = node["labels"]
            .as_object()
            .and_then(|labels| labels.iter().find(|(_, it)| is_node(it)))
            .context("a node among the labels")?;
        let filtered = format!(
            "/v1/peers?label={label}={}",
            node.as_str().unwrap_or_default()
        );
        let (mut whole, mut part) = (Samples::new(), Samples::new());
        let mut other = Samples::new();
        for _ in 0..3 {
            let all = ["HGETALL", &hash];
            let rate = redis_benchmark(&self.alone, 1, RECORDS, FIRST_LARGE_REQUESTS, &all)?;
            other.add(1.0 / rate);
            for (path, samples) in [("/v1/peers", &mut whole), (&filtered, &mut part)] {
                write_requests(file, std::iter::once((path.to_owned(), String::new())))?;
                samples.add(1.0 / wrk(&self.alone.url(), 1, "GET", file)?);
            }
        }
        let whole = whole.figure(Unit::Seconds);
        let row = Row::new("requests/list", format!("list {RECORDS} peers"), whole);
        report.add(row.beside("redis-benchmark HGETALL", other.figure(Unit::Seconds)));
        let what = format!("list those of {RECORDS} with a label that 1 in {NODES} has");
        let row = Row::new("requests/list/filtered", what, part.figure(Unit::Seconds));
        report.add(row.beside("list of all", whole));
        Ok(())
    }

    fn watches(&self, report: &mut Report) -> Result<()> {
        let asked = &self.asked;
        let put = |number| asked.put(number);
        let ours = FanOut {
            address: (self.alone.address(), MANAGER_PORT),
            watch: (
                b"GET /v1/peers?watch=true HTTP/1.1\r\nHost: localhost\r\n\
                  Accept: application/x-ndjson\r\n\r\n",
                b"\"type\":\"start\"",
            ),
            told: b"\"type\":\"put\"",
            change: &put,
            protocol: Protocol::Http,
            answers: 1,
        };
        let publish = |number| {
            let publish = command(&["PUBLISH", "news", &asked.value]);
            [asked.hset(number), publish].concat()
        };
        let other = FanOut {
            address: (self.alone.address(), REDIS_PORT),
            watch: (b"SUBSCRIBE news\r\n", b"subscribe"),
            told: b"\r\nmessage\r\n",
            change: &publish,
            protocol: Protocol::Redis,
            answers: 2,
        };
        for watchers in WATCHERS {
            let figure = other.measure(watchers)?.figure(Unit::Seconds);
            let row = Row::new(
                format!("requests/watch/{watchers}"),
                format!("a change is with {watchers} watching"),
                ours.measure(watchers)?.figure(Unit::Seconds),
            );
            report.add(row.beside("HSET and PUBLISH", figure));
        }
        Ok(())
    }

    fn latencies(&self, report: &mut Report) -> Result<()> {
        let load = |port, protocol, request: &(dyn Fn(usize) -> Vec<u8> + Sync)| {
            let load = Load {
                address: (self.alone.address(), port),
                protocol,
                connections: OPEN_CONNECTIONS,
                every: Duration::from_secs(1) / DUE_PER_SECOND,
                last: OPEN_FOR,
                request,
            };
            load.run()
        };
        let asked = &self.asked;
        let ours = load(MANAGER_PORT, Protocol::Http, &|number| asked.get(number))?;
        let other = load(REDIS_PORT, Protocol::Redis, &hget)?;
        add_latencies(report, "get", "read a peer", &ours, ("HGET", &other));
        let ours = load(MANAGER_PORT, Protocol::Http, &|number| asked.put(number))?;
        let other = load(REDIS_PORT, Protocol::Redis, &|number| asked.hset(number))?;
        add_latencies(report, "put", "replace a peer", &ours, ("HSET", &other));
        Ok(())
    }
}

impl Asked {
    fn get(&self, number: usize) -> Vec<u8> {
        http("GET", &self.paths[number % RECORDS], "")
    }

    fn put(&self, number: usize) -> Vec<u8> {
        let number = number % RECORDS;
        http("PUT", &self.paths[number], &self.bodies[number])
    }

    fn hset(&self, number: usize) -> Vec<u8> {
        command(&["HSET", OTHER_HASH, &field(number), &self.value])
    }
}

fn add_latencies(
    report: &mut Report,
    name: &str,
    what: &str,
    ours: &Histogram<u64>,
    (by, other): (&str, &Histogram<u64>),
) {
    for quantile in [0.5, 0.99, 0.999] {
        let figure = |histogram: &Histogram<u64>| {
            let nanos = Duration::from_nanos(histogram.value_at_quantile(quantile));
            Figure::new(nanos.as_secs_f64(), Unit::Seconds)
        };
        let percent = quantile * 100.0;
        let row = Row::new(
            format!("requests/open/{name}/p{percent}"),
            format!("{what}, {DUE_PER_SECOND} due in a second: p{percent}"),
            figure(ours),
        );
        report.add(row.beside(by, figure(other)));
    }
}

/// An id that has these twelve digits at its end, as long as a UUID.
fn id(digits: &str) -> String {
    format!("00000000-0000-4000-8000-{digits}")
}

fn hget(number: usize) -> Vec<u8> {
    command(&["HGET", OTHER_HASH, &field(number)])
}

/// The field of the record of this number.
fn field(number: usize) -> String {
    id(&format!("{:012}", number % RECORDS))
}

fn path(key: &Key) -> String {
    format!("/v1/peers/{key}")
}

/// What a change of a sketch takes of a processor.
fn sketch_change() -> Duration {
    const CHANGES: u32 = 1_000_000;
    let mut random = Rng::with_seed(1);
    let mut draw = || Fingerprint(random.u64(..));
    let mut sketch = Sketch::new(Sketch::LEN);
    let mut held = draw();
    sketch.insert(held);
    let before = thread_cpu();
    for _ in 0..CHANGES {
        sketch.remove(held);
        held = draw();
        sketch.insert(held);
    }
    std::hint::black_box(&sketch);
    thread_cpu().saturating_sub(before) / CHANGES
}

/// What a client writes to have this record.
fn body(key: &Key, entry: &Entry) -> Result<String> {
    let peer = Peer::from_entry(key, entry)?.context("a record that is live")?;
    let mut peer = serde_json::to_value(peer)?;
    let fields = peer.as_object_mut().context("an object")?;
    fields.retain(|name, _| ["name", "ip", "ports", "labels"].contains(&name.as_str()));
    Ok(peer.to_string())
}

fn is_node(label: &Value) -> bool {
    label
        .as_str()
        .is_some_and(|label| label.starts_with("node-"))
}

fn http(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    let request = if body.is_empty() {
        format!("{head}\r\n")
    } else {
        format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    request.into_bytes()
}

fn command(words: &[&str]) -> Vec<u8> {
    redis::Cmd::new().arg(words).get_packed_command()
}
