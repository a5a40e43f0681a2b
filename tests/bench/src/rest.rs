//! What a pair costs while nothing happens: memory, CPU and bytes sent.
//!
//! All pods are filled by way of the network, from one of them, and then looked at over a window in
//! which nobody writes, no probe runs and nobody scrapes; rounds of exchanges and what replicas
//! tell of themselves go on, at the intervals that the programs have unless they are told otherwise,
//! and under mutual TLS, as the chart has it. Contacts move in steps of five minutes, so that a window
//! may have such a step in it or not.
//!
//! - Memory is `VmRSS` of `/proc/PID/status` of manager and sync together, after the window, of the
//!   pod that has most: it has held what went through it while it was filled, and the pages of the
//!   programs, which all pods on this machine share, are counted for each. What is left without the
//!   pages of files (`RssAnon`) is a row of its own.
//! - CPU is user and system time of `/proc/PID/stat` of both, in the median of the pods.
//! - Bytes sent are those of the messages between syncs, requests and answers, as these count
//!   them. As HTTP and TLS add to it, most of all by handshakes, which two that have not talked for
//!   half a minute need anew, the row that is held to the goal has all that the kernel sent on the
//!   connections between syncs (`ss`), where that can be had.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::measure::Times;
use crate::pairs::{BYTES_SENT, Pairs, Secured, cpu_of_pair, memory_of_pair};
use crate::report::{Figure, Goal, Report, Row, Unit};

/// Pods and records of the clusters: the one with most pods, the one with fewest, and others.
const SIZES: [(usize, usize); 5] = [HELD, (3, 1_000), (10, 1_000), (3, 100_000), (2, 1_000_000)];
/// The one that has goals.
const HELD: (usize, usize) = (50, 1_000);
/// How long all of them are looked at.
const WINDOW: Duration = Duration::from_mins(1);
/// Between two looks at the connections: less than an idle one is kept.
const LOOK: Duration = Duration::from_secs(10);
/// Until pods that started together are done with it: each has tried every other, and has published
/// itself anew, which it does once a minute at the most.
const START: Duration = Duration::from_secs(90);
/// Until what the filling left behind is done.
const CALM: Duration = Duration::from_secs(5);
/// The pair at rest, 1,000 records, 50 pods.
const MEMORY: Goal = Goal::AtMost(20.0 * 1_048_576.0);
const CPU: Goal = Goal::AtMost(0.002);
const SENT: Goal = Goal::AtMost(1_000.0);

/// What a pair used.
struct Used {
    resident: Figure,
    /// What of the memory is of no file.
    own: Figure,
    cpu: Figure,
    sent: Figure,
    /// All that was sent between syncs.
    on_the_wire: Option<Figure>,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    if report.is_quick() {
        return Ok(());
    }
    let mut pairs = Vec::new();
    let begun = Instant::now();
    for (pods, records) in SIZES {
        pairs.push(filled(pods, records)?);
    }
    thread::sleep(START.saturating_sub(begun.elapsed()).max(CALM));
    // At rest none is in the way of another, so that one window is enough for all.
    let used = watch(&pairs)?;
    drop(pairs);
    for ((pods, records), used) in SIZES.iter().zip(&used) {
        add(report, *pods, *records, used, (*pods, *records) == HELD);
    }
    let [most, least, ..] = &used[..] else {
        return Ok(());
    };
    for (name, of) in [
        (
            "memory",
            (|used: &Used| used.resident) as fn(&Used) -> Figure,
        ),
        ("CPU", |used| used.cpu),
        ("bytes sent", |used| used.on_the_wire.unwrap_or(used.sent)),
    ] {
        report.add(
            Row::new(
                format!("rest/growth/{}", name.replace(' ', "-").to_lowercase()),
                format!("a pair at rest, 1,000 records: {name} with 50 pods"),
                of(most),
            )
            .beside("with 3", of(least))
            .goal(Goal::AtMost(50.0 / 3.0)),
        );
    }
    Ok(())
}

/// So many pods that all have so many records.
fn filled(pods: usize, records: usize) -> Result<Pairs> {
    let pairs = Pairs::start(pods, Secured::Tls, None)?;
    // The own records of the pods are a part of them.
    pairs.import(0, records, records - pods)?;
    pairs.wait_until_equal(records as u64)?;
    Ok(pairs)
}

/// Looks at some clusters for as long as the window is.
fn watch(clusters: &[Pairs]) -> Result<Vec<Used>> {
    let mut wires: Vec<_> = clusters.iter().map(Wire::of).collect();
    let counted = clusters.iter().map(Pairs::counted);
    let before = counted.collect::<Result<Vec<_>>>()?;
    // The scrapes themselves are over by then.
    thread::sleep(CALM / 5);
    let cpu_before = clusters.iter().map(cpu);
    let cpu_before = cpu_before.collect::<Result<Vec<_>>>()?;
    wires.iter_mut().for_each(Wire::begin);
    let begun = Instant::now();
    while begun.elapsed() < WINDOW {
        thread::sleep(LOOK);
        wires.iter_mut().for_each(Wire::look);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let places = clusters.iter().zip(before).zip(cpu_before).zip(wires);
    let used = places.map(|(((pairs, before), cpu_before), wire)| {
        let mut shares = Times::default();
        for (after, before) in cpu(pairs)?.into_iter().zip(cpu_before) {
            shares.add(after.saturating_sub(before).div_f64(seconds));
        }
        let shares = shares.figure();
        let most = |field| {
            let sizes = pairs
                .cluster
                .pods
                .iter()
                .map(|pod| memory_of_pair(pod, field));
            let sizes = sizes.collect::<Result<Vec<_>>>()?;
            anyhow::Ok(Figure::bytes(sizes.into_iter().max().context("no pod")?))
        };
        let after = pairs.counted()?;
        let each = |bytes: f64| {
            let pods = f64::from(u32::try_from(pairs.cluster.pods.len())?);
            anyhow::Ok(Figure::new(bytes / seconds / pods, Unit::Bytes))
        };
        Ok(Used {
            resident: most("VmRSS:")?,
            own: most("RssAnon:")?,
            cpu: Figure {
                unit: Unit::Share,
                ..shares
            },
            sent: each(after.since(&before, BYTES_SENT))?,
            on_the_wire: wire.sent().map(each).transpose()?,
        })
    });
    used.collect()
}

/// What each pair has used so far.
fn cpu(pairs: &Pairs) -> Result<Vec<Duration>> {
    pairs.cluster.pods.iter().map(cpu_of_pair).collect()
}

fn add(report: &mut Report, pods: usize, records: usize, used: &Used, is_held: bool) {
    let held = |row: Row, goal| if is_held { row.goal(goal) } else { row };
    let row = |name: &str, words: &str, figure| {
        Row::new(
            format!("rest/{pods}/{records}/{name}"),
            format!("a pair at rest, {records} records, {pods} pods: {words}"),
            figure,
        )
    };
    report.add(held(row("memory", "memory", used.resident), MEMORY));
    report.add(row(
        "memory/own",
        "memory without the pages of files",
        used.own,
    ));
    report.add(held(row("cpu", "CPU, of a core", used.cpu), CPU));
    let sent = row("sent", "bytes of messages sent in a second", used.sent);
    let Some(on_the_wire) = used.on_the_wire else {
        return report.add(held(sent, SENT));
    };
    report.add(sent);
    let words = "bytes sent in a second, with HTTP and TLS";
    report.add(held(row("wire", words, on_the_wire), SENT));
}

/// What the kernel sent on the connections between the syncs of a cluster, both ways.
struct Wire {
    /// Where the syncs listen.
    listeners: Vec<String>,
    /// The ends of connections, and what each had sent when it was seen last; none where that
    /// cannot be had.
    ends: Option<BTreeMap<String, u64>>,
    sent: u64,
}

impl Wire {
    fn of(pairs: &Pairs) -> Self {
        let pods = pairs.cluster.pods.iter();
        Self {
            listeners: pods.map(udht_tests::pod::Pod::exchange_address).collect(),
            ends: Some(BTreeMap::new()),
            sent: 0,
        }
    }

    /// What was sent so far does not count.
    fn begin(&mut self) {
        self.look();
        self.sent = 0;
    }

    /// Counts what was sent since the last look.
    fn look(&mut self) {
        let Some(ends) = &mut self.ends else { return };
        let Some(said) = sockets() else {
            self.ends = None;
            return;
        };
        for line in said.lines() {
            let mut words = line.split_whitespace().skip(3);
            let (Some(here), Some(there)) = (words.next(), words.next()) else {
                continue;
            };
            let is_ours = |end: &str| self.listeners.iter().any(|listener| listener == end);
            if !is_ours(here) && !is_ours(there) {
                continue;
            }
            let sent = words.find_map(|word| word.strip_prefix("bytes_sent:"));
            let sent = sent.and_then(|sent| sent.parse().ok()).unwrap_or(0);
            let before = ends.insert(format!("{here} {there}"), sent).unwrap_or(0);
            // Less than before is another connection at the same port.
            self.sent += sent.checked_sub(before).unwrap_or(sent);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "no window has that many bytes")]
    fn sent(&self) -> Option<f64> {
        self.ends.as_ref().map(|_| self.sent as f64)
    }
}

/// All TCP connections, a line each; none where `ss` is not installed.
fn sockets() -> Option<String> {
    let mut ss = Command::new("ss");
    ss.args(["--tcp", "--info", "--numeric", "--no-header", "--oneline"]);
    let output = ss.stdin(Stdio::null()).output().ok()?;
    output.status.success().then_some(())?;
    String::from_utf8(output.stdout).ok()
}
