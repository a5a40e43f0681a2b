//! How many messages and bytes a cluster of many pods needs: counted, as no machine holds them all.
//!
//! What decides it is the shipped code: [`plan`] says whom each pod sends a change to, and every
//! message is the encoded one. What is left out is the tables (ten thousand pods would hold a hundred
//! million records) and the time that machines take: for that there is a model of three constants,
//! below, and the group `spread` measures real ones up to 50 pods.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use peer_exchange::Own;
use peer_exchange::exchange::{Options, exchange};
use peer_exchange::push::{PassOn, Position, Scope, plan, push};
use peer_table::contract::{Batch, StateRequest};
use peer_table::floors::{Floors, Publication, Replicas, Storage};
use peer_table::{Clock, OriginId, Reading, StoreId};
use prost::Message;
use udht_replica::{NOW, Replica, Wire, now_or_never, peers};

use crate::records::Records;
use crate::report::{Figure, Report, Row, Unit, as_float};

/// To how many peers a pod sends a change: the default of `--push-fanout`.
const FANOUT: usize = 4;
/// How many exchanges a pod begins in a minute: by the default of `--sync-interval`.
const EXCHANGES_A_MINUTE: u64 = 12;
/// How often a replica publishes its floor in a minute, at the most, while a tombstone waits: by the
/// default of `--floor-interval`.
const PUBLICATIONS_A_MINUTE: u64 = 1;
/// Endpoints in one `EndpointSlice` of Kubernetes.
const SLICE: u64 = 100;

/// The model of time, in microseconds: sending one message after another, and one on its way.
const SEND_US: u64 = 100;
const WAY_US: u64 = 1_000;
/// What a pod takes to store a change before it passes it on.
const STORE_US: u64 = 1_000;

/// A figure that grows, or does not, with the number of pods.
struct Curve {
    id: &'static str,
    what: &'static str,
    unit: Unit,
    /// What follows from it, for a reader of the page.
    so: &'static str,
}

const fn curve(id: &'static str, what: &'static str, unit: Unit, so: &'static str) -> Curve {
    Curve { id, what, unit, so }
}

/// All of them, in the order of the page.
const CURVES: &[Curve] = &[
    curve(
        "hops",
        "messages in a row until all have a change",
        Unit::Number,
        "A tree of fan-out 4: it grows with the logarithm of the pods.",
    ),
    curve(
        "messages",
        "messages for one change, in all pods together",
        Unit::Number,
        "Each other pod is sent it once, so a pod sends one message for a change on average, and four at the most.",
    ),
    curve(
        "bytes",
        "bytes for one change, sent and answered, by pod",
        Unit::Bytes,
        "The same in a large cluster as in a small one.",
    ),
    curve(
        "p50",
        "until a change is in a pod, by the model: median",
        Unit::Seconds,
        "The model: 0.1 ms to send a message, one after the other, 1 ms on its way, 1 ms to store before passing on.",
    ),
    curve(
        "p99",
        "until a change is in a pod, by the model: 99 of 100",
        Unit::Seconds,
        "The last hop.",
    ),
    curve(
        "missed",
        "pods in a thousand that a push misses while one pod in ten is dead",
        Unit::Number,
        "A group whose first three are dead is left to exchanges, of which each pod begins one every five seconds.",
    ),
    curve(
        "rest",
        "bytes for exchanges that find nothing, in a minute, by pod",
        Unit::Bytes,
        "Twelve begun and, on average, twelve answered, whatever the number of pods and of records.",
    ),
    curve(
        "publications",
        "bytes of floors told to others, in a minute while tombstones wait, by pod",
        Unit::Bytes,
        "Each pod tells all others once a minute: this one grows with the number of pods. With no tombstone nothing is sent.",
    ),
    curve(
        "stored",
        "bytes that each store keeps of all replicas",
        Unit::Bytes,
        "One entry for each.",
    ),
    curve(
        "vector",
        "bytes of a vector, in an exchange while tombstones wait",
        Unit::Bytes,
        "One entry for each.",
    ),
    curve(
        "slices",
        "EndpointSlices that a pod follows with one watch of the Kubernetes API",
        Unit::Number,
        "A pod that comes or goes changes one slice, of a hundred endpoints, and each pod is sent that slice.",
    ),
];

/// What became of one change in a cluster.
struct Spread {
    /// How many messages followed one another until the last pod had it.
    hops: u32,
    messages: u64,
    /// When each pod had it, by the model.
    times_us: Vec<u64>,
    /// Pods that live and did not get it.
    missed: u64,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let a_change = bytes_of_a_change()?;
    let a_round = bytes_of_equal_tables()?;
    let sizes: &[u64] = if report.is_quick() {
        &[10, 100, 1_000]
    } else {
        &[10, 100, 1_000, 10_000]
    };
    for &pods in sizes {
        let times = if pods > 1_000 { 5 } else { 20 };
        let mut random = Rng::with_seed(pods);
        let positions: Vec<_> = (0..pods)
            .map(|pod| {
                Position::of(&format!(
                    "10.{}.{}.{}:3003",
                    pod >> 16,
                    pod >> 8 & 255,
                    pod & 255
                ))
            })
            .collect();
        let (mut hops, mut messages, mut times_us) = (0, 0, Vec::new());
        let mut missed = 0;
        for _ in 0..times {
            let spread = spread(&positions, &mut random, 0);
            ensure!(spread.missed == 0, "a pod was left out where nothing fails");
            hops = spread.hops.max(hops);
            messages += spread.messages;
            times_us.extend(spread.times_us);
            missed += self::spread(&positions, &mut random, 10).missed;
        }
        times_us.sort_unstable();
        let at = |share: usize| times_us[(times_us.len() - 1) * share / 100];
        let mut row = |id: &str, value: u64| {
            let (what, unit) = CURVES
                .iter()
                .find(|curve| curve.id == id)
                .map(|curve| (curve.what, curve.unit))
                .context("a row of no curve")?;
            let value = if unit == Unit::Seconds {
                as_float(value) / 1e6
            } else {
                as_float(value)
            };
            let row = Row::new(
                format!("scale/{id}/{pods}"),
                format!("{pods} pods: {what}"),
                Figure::new(value, unit),
            );
            report.add(row.count());
            anyhow::Ok(())
        };
        row("hops", hops.into())?;
        row("messages", messages / times)?;
        row("bytes", messages / times * a_change / pods)?;
        row("p50", at(50))?;
        row("p99", at(99))?;
        row("missed", missed * 1_000 / times / pods)?;
        row("rest", a_round * EXCHANGES_A_MINUTE)?;
        let replicas = replicas_of(pods);
        row(
            "publications",
            replicas.publication * (pods - 1) * PUBLICATIONS_A_MINUTE,
        )?;
        row("stored", replicas.stored)?;
        row("vector", replicas.vector)?;
        row("slices", pods.div_ceil(SLICE))?;
    }
    Ok(())
}

/// Has one pod send a change, in a cluster where one of so many is dead; 0 for none.
fn spread(positions: &[Position], random: &mut Rng, dead_one_in: usize) -> Spread {
    let is_dead = |pod: usize| dead_one_in > 0 && pod % dead_one_in == 1;
    let everyone: Vec<_> = positions.iter().copied().zip(0..).collect();
    let mut had = vec![None; positions.len()];
    let mut spread = Spread {
        hops: 0,
        messages: 0,
        times_us: Vec::new(),
        missed: 0,
    };
    let mut due = BinaryHeap::new();
    let scope = Scope::whole(random.u64(..), Some(positions[0]));
    due.push(Reverse((0, 0_u32, 0_usize, scope.after, scope.up_to)));
    while let Some(Reverse((time, hops, pod, after, up_to))) = due.pop() {
        if had[pod].replace(time).is_some() {
            continue;
        }
        spread.hops = spread.hops.max(hops);
        let others = everyone.iter().copied().filter(|(_, other)| *other != pod);
        let scope = Scope {
            after,
            up_to,
            ..scope
        };
        let mut sent = time + if pod == 0 { 0 } else { STORE_US };
        for group in plan(others, scope, FANOUT) {
            for (head, scope) in group.heads() {
                sent += SEND_US;
                spread.messages += 1;
                if !is_dead(*head) {
                    due.push(Reverse((
                        sent + WAY_US,
                        hops + 1,
                        *head,
                        scope.after,
                        scope.up_to,
                    )));
                    break;
                }
            }
        }
    }
    let alive = had.iter().enumerate().filter(|(pod, _)| !is_dead(*pod));
    spread.missed = alive.filter(|(_, time)| time.is_none()).count() as u64;
    // Who wrote it had it from the beginning.
    spread.times_us = had
        .into_iter()
        .skip(1)
        .flatten()
        .map(|time| time + STORE_US)
        .collect();
    spread
}

/// What is sent, both ways, to push one record to one peer.
fn bytes_of_a_change() -> Result<u64> {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let records: Vec<_> = Records::new(1).take(1).collect();
    ours.load(&records);
    let wire = Wire::to(&theirs);
    let state = now_or_never(ours.state(&StateRequest::default()))?;
    let scope = Scope::whole(1, Some(Position(9)));
    let news = PassOn {
        table: peers(),
        batch: Batch::new(&peers(), records),
        replicas: None,
        scope,
    };
    let options = Options::default();
    let pushed = now_or_never(push(&ours, &state, &wire, &news, scope, &options))
        .context("a push between two honest replicas")?;
    Ok(pushed.traffic.bytes())
}

/// What is sent, both ways, in an exchange that finds nothing.
fn bytes_of_equal_tables() -> Result<u64> {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let wire = Wire::to(&theirs);
    let (table, options) = (peers(), Options::default());
    let exchanged = now_or_never(exchange(&ours, &wire, &table, &options));
    Ok(exchanged
        .context("an exchange of two honest replicas")?
        .traffic()
        .bytes())
}

/// What all replicas take, in bytes.
struct ReplicasBytes {
    stored: u64,
    vector: u64,
    publication: u64,
}

/// What is known of so many replicas, in each of them.
fn replicas_of(pods: u64) -> ReplicasBytes {
    let id = |pod: u64| {
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&pod.to_le_bytes());
        bytes
    };
    let own = OriginId::from_bytes(id(0));
    let mut clock = Clock::new(own, Reading::default(), std::time::Duration::from_secs(10));
    let mut floors = Floors::new(own);
    let mut one = 0;
    for pod in 1..pods {
        let reading = clock.tick(NOW);
        let publication = Publication {
            store: StoreId::from_bytes(id(pod)),
            origin: OriginId::from_bytes(id(pod)),
            at: reading,
            floor: reading,
            set_digest: pod,
            since: reading,
            storage: Storage::Pod,
            peer_id: StoreId::from_bytes(id(pod)).to_string().parse().ok(),
        };
        one = Replicas::of_one(&publication).encoded_len();
        floors.learn(publication.origin, NOW);
        floors.hear(publication, NOW);
    }
    let mut partner = floors.snapshot(&mut clock, NOW);
    for pod in 1..pods {
        partner
            .vector
            .cover(OriginId::from_bytes(id(pod)), clock.tick(NOW));
    }
    floors.advance(&partner);
    let snapshot = peer_table::floors::WireSnapshot::from(&floors.snapshot(&mut clock, NOW));
    ReplicasBytes {
        stored: floors.to_stored().len() as u64,
        vector: snapshot.encoded_len() as u64,
        publication: one as u64,
    }
}

/// What was counted, for a reader, with a curve for each figure.
pub(crate) fn page(report: &Report) -> String {
    let mut page = String::from(HEAD);
    for Curve { id, what, unit, so } in CURVES {
        let prefix = format!("scale/{id}/");
        let points = report.values(&prefix);
        if points.is_empty() {
            continue;
        }
        let pods: Vec<_> = points.iter().map(|(pods, _)| *pods).collect();
        let told: Vec<_> = points
            .iter()
            .map(|(_, value)| Figure::new(*value, *unit).to_string())
            .collect();
        let values: Vec<_> = points.iter().map(|(_, value)| value.to_string()).collect();
        let title = what.split_at(1);
        let title = title.0.to_uppercase() + title.1;
        // A String takes what is written to it.
        let _ = write!(
            page,
            "\n## {title}\n\n{so}\n\n| pods | {} |\n|---|{}\n| | {} |\n\n```mermaid\nxychart-beta\n    \
             x-axis \"pods\" [{}]\n    line [{}]\n```\n",
            pods.join(" | "),
            "---|".repeat(pods.len()),
            told.join(" | "),
            pods.join(", "),
            values.join(", "),
        );
    }
    page
}

/// How the page begins.
const HEAD: &str = "\
# Many pods

What a cluster of up to ten thousand pods needs, counted by `make bench ONLY=scale` with the shipped plan of pushes and the
encoded messages; this page is drawn from that run (`BENCH_ARGS=\"--page docs/scale.md\"`). Payloads only: HTTP adds some 200
bytes to a message. Times are those of a model; `make bench ONLY=spread` measures real ones, with up to 50 pods.
";
