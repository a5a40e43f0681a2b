//! What the verbs show: tables for people, and the same as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use peer_exchange::exchange::Kind;
use peer_exchange::{Address, Outcomes, Report};
use peer_table::contract::{About, Alarm};
use serde::Serialize;

use crate::lifecycle::{GoneView, HandoverView, RemovedView};
use crate::ops::{PeerReport, PeerView};

/// What one exchange found and cost.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ExchangeView {
    /// Where the peer was found.
    pub address: String,
    /// The `peer_id` of its pod's own record.
    pub peer_id: Option<String>,
    /// Its store's id.
    pub store: String,
    /// The version of the protocol that was spoken.
    pub protocol: u32,
    /// `equal`, `reconciled` or `snapshot`.
    pub result: &'static str,
    /// Why the fingerprints had to be compared range by range, if so.
    pub fallback: Option<&'static str>,
    /// Whether both tables had the same records at the end.
    pub equal: bool,
    /// The records of this pod's table at the end, tombstones included.
    pub records: u64,
    /// Records that only this pod had, or had in another version.
    pub differed_here: u64,
    /// Records that only the peer had, or had in another version.
    pub differed_there: u64,
    /// Records sent.
    pub records_sent: u64,
    /// Records received.
    pub records_received: u64,
    /// What became of those received, here.
    pub merged_here: BTreeMap<&'static str, u64>,
    /// What became of those sent, there.
    pub merged_there: BTreeMap<&'static str, u64>,
    /// Requests with their answers.
    pub round_trips: u64,
    /// Bytes of messages sent.
    pub bytes_sent: u64,
    /// Bytes of messages received.
    pub bytes_received: u64,
    /// Of both, those that it took to find what differs.
    pub bytes_to_find: u64,
    /// Coded symbols taken in.
    pub symbols: usize,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// How far the peer's clock is ahead of this machine's, in milliseconds.
    pub skew_ms: i64,
}

impl ExchangeView {
    /// What is shown of an exchange with the peer at `address` that took `time`.
    pub fn new(address: &Address, report: &Report, time: Duration) -> Self {
        let Report {
            kind,
            partner,
            protocol,
            skew_ms,
            digest,
            partner_digest: _,
            moved,
            symbols,
            find,
            swap: _,
            advanced: _,
            origin: _,
        } = report;
        let traffic = report.traffic();
        let counts = |outcomes: &Outcomes| outcomes.iter().collect();
        Self {
            address: address.to_string(),
            peer_id: partner.peer_id.as_ref().map(ToString::to_string),
            store: partner.store.to_string(),
            protocol: *protocol,
            result: kind.word(),
            fallback: match kind {
                Kind::Snapshot(fallback) => Some(fallback.word()),
                Kind::Equal | Kind::Reconciled => None,
            },
            equal: report.is_equal(),
            records: digest.records,
            differed_here: moved.ours,
            differed_there: moved.theirs,
            records_sent: moved.sent,
            records_received: moved.received,
            merged_here: counts(&moved.merged_here),
            merged_there: counts(&moved.merged_there),
            round_trips: traffic.round_trips,
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
            bytes_to_find: find.bytes(),
            symbols: *symbols,
            ms: time.as_secs_f64() * 1_000.0,
            skew_ms: *skew_ms,
        }
    }
}

/// Shows an exchange to people.
pub fn exchange(out: &mut impl Write, view: &ExchangeView) -> io::Result<()> {
    let peer_id = view.peer_id.as_deref().unwrap_or("unnamed");
    writeln!(out, "peer      {}  {peer_id}", view.address)?;
    writeln!(out, "store     {}", view.store)?;
    writeln!(out, "protocol  {}", view.protocol)?;
    let fallback = view.fallback.map(|fallback| format!(" ({fallback})"));
    let now = if view.equal {
        "both tables are equal"
    } else {
        "the tables still differ: more changed meanwhile, or was refused"
    };
    writeln!(
        out,
        "result    {}{}: {now}, {}",
        view.result,
        fallback.unwrap_or_default(),
        records_here(view.records)
    )?;
    writeln!(
        out,
        "differed  {} here, {} there",
        view.differed_here, view.differed_there
    )?;
    writeln!(
        out,
        "sent      {} records; there: {}",
        view.records_sent,
        outcomes(&view.merged_there)
    )?;
    writeln!(
        out,
        "received  {} records; here: {}",
        view.records_received,
        outcomes(&view.merged_here)
    )?;
    writeln!(
        out,
        "cost      {} round trips, {} bytes sent, {} received ({} of both to find what differs), \
         {} symbols, {:.1} ms",
        view.round_trips,
        view.bytes_sent,
        view.bytes_received,
        view.bytes_to_find,
        view.symbols,
        view.ms
    )?;
    writeln!(
        out,
        "clock     the peer's is {}",
        match view.skew_ms {
            0 => "the same".to_owned(),
            ms @ 1.. => format!("{ms} ms ahead"),
            ms => format!("{} ms behind", ms.unsigned_abs()),
        }
    )
}

fn outcomes(outcomes: &BTreeMap<&'static str, u64>) -> String {
    if outcomes.is_empty() {
        return "nothing merged".to_owned();
    }
    let texts: Vec<_> = outcomes
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    texts.join(", ")
}

/// How many records a table has; the table does not count those that are remembered as deleted apart.
fn records_here(records: u64) -> String {
    let word = if records == 1 { "record" } else { "records" };
    format!("{records} {word} here, deleted ones included")
}

/// Shows what is known of the peers to people.
pub fn peers(out: &mut impl Write, report: &PeerReport) -> io::Result<()> {
    alarms(out, &report.alarms)?;
    let heads = [
        "ADDRESS", "POD", "PEER", "LAST OK", "HEARD", "TABLE", "CLOCK", "SPEAKS", "FAILED", "ERROR",
    ];
    table(out, heads, report.peers.iter().map(row))?;
    if let Some(records) = report.records {
        return writeln!(out, "\n{}", records_here(records));
    }
    let why = report.manager_problem.as_deref();
    let why = why.unwrap_or("the manager of this pod does not answer");
    writeln!(out, "\n{why}")
}

/// What is the matter, and what to do, before all else.
fn alarms(out: &mut impl Write, alarms: &[Alarm]) -> io::Result<()> {
    for alarm in alarms {
        let Alarm {
            alarm,
            since,
            text,
            advice,
            about,
        } = alarm;
        writeln!(out, "ALARM {} since {since}: {text}", alarm.word())?;
        for About { who, reason } in about {
            writeln!(out, "  {who}: {reason}")?;
        }
        writeln!(out, "  -> {advice}\n")?;
    }
    Ok(())
}

/// Rows with as much room as they need, under their heads.
fn table<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let rows: Vec<_> = [heads.map(str::to_owned)].into_iter().chain(rows).collect();
    let widths: Vec<_> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1_000)).to_string()
}

/// Shows which pods are gone, for people.
pub fn gone(out: &mut impl Write, gone: &GoneView) -> io::Result<()> {
    if !gone.waiting.is_empty() {
        let rows = gone.waiting.iter().map(|waiting| {
            let missing = waiting.missing_ms.map(seconds);
            let missing = missing.unwrap_or_else(|| "-".to_owned());
            [waiting.peer_id.clone(), waiting.pod_uid.clone(), missing]
        });
        table(out, ["PEER", "POD UID", "MISSING FOR"], rows)?;
        writeln!(out)?;
    }
    let after = seconds(gone.after_ms);
    let records = gone.waiting.len();
    match gone.brake.as_deref() {
        None if records == 1 => writeln!(
            out,
            "1 record of a pod that is not listed; it is removed after {after}"
        ),
        None => writeln!(
            out,
            "{records} records of pods that are not listed; each is removed after {after}"
        ),
        Some("blind") => writeln!(
            out,
            "the brake is on: the list of pods is not followed, or does not name this pod; no \
             record is removed"
        ),
        Some(_) => writeln!(
            out,
            "the brake is on: more than half of the pods are gone at once; if those above are \
             gone for good, say so with `udht-sync gone --remove`"
        ),
    }
}

/// Shows what was removed by hand, for people.
pub fn removed(out: &mut impl Write, removed: &RemovedView) -> io::Result<()> {
    for key in &removed.removed {
        writeln!(out, "{key}")?;
    }
    let (count, waiting) = (removed.removed.len(), removed.waiting);
    writeln!(
        out,
        "{count} records removed, {waiting} wait for their time"
    )
}

/// Shows what came of a handover, for people.
pub fn handover(out: &mut impl Write, handover: &HandoverView) -> io::Result<()> {
    let HandoverView {
        result,
        peer,
        took_ms,
    } = handover;
    match peer {
        Some(peer) => writeln!(out, "{result}: {peer} has everything ({took_ms} ms)"),
        None => writeln!(out, "{result} ({took_ms} ms)"),
    }
}

fn row(peer: &PeerView) -> [String; 10] {
    let none = || "-".to_owned();
    let ago = |ms: Option<u64>| ms.map_or_else(none, |ms| format!("{} ago", seconds(ms)));
    let who = if peer.is_self {
        Some("this pod".to_owned())
    } else {
        peer.peer_id.clone()
    };
    let table = peer
        .equal
        .map(|equal| if equal { "equal" } else { "differs" });
    [
        peer.address.clone(),
        peer.pod.clone().unwrap_or_else(none),
        who.unwrap_or_else(none),
        ago(peer.last_ok_ms),
        ago(peer.last_heard_ms),
        table.map_or_else(none, str::to_owned),
        peer.skew_ms.map_or_else(none, |ms| format!("{ms:+} ms")),
        peer.protocols.clone().unwrap_or_else(none),
        peer.failures.to_string(),
        peer.last_error.clone().unwrap_or_else(none),
    ]
}

#[cfg(test)]
mod tests {
    use peer_table::contract::AlarmKind;

    use super::*;

    fn shown(show: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn peer() -> PeerView {
        PeerView {
            address: "10.0.0.2:3003".to_owned(),
            is_self: false,
            reachable: true,
            peer_id: Some("peer-2".to_owned()),
            pod: Some("udht-2".to_owned()),
            store: Some("01010101-0101-0101-0101-010101010101".to_owned()),
            last_ok_ms: Some(63_999),
            last_heard_ms: Some(12),
            failures: 0,
            last_error: None,
            equal: Some(true),
            skew_ms: Some(-3),
            protocols: Some("1-2".to_owned()),
        }
    }

    #[test]
    fn peers_are_a_table_with_a_line_each() {
        let own = PeerView {
            is_self: true,
            peer_id: None,
            last_ok_ms: None,
            last_heard_ms: None,
            equal: None,
            skew_ms: None,
            protocols: None,
            address: "10.0.0.1:3003".to_owned(),
            ..peer()
        };
        let lost = PeerView {
            failures: 7,
            last_error: Some("failed_timed_out".to_owned()),
            equal: Some(false),
            address: "pod-3.udht:3003".to_owned(),
            pod: None,
            ..peer()
        };
        let mut report = PeerReport {
            manager: true,
            manager_problem: None,
            alarms: Vec::new(),
            records: Some(50),
            peers: vec![own, peer(), lost],
        };
        insta::assert_snapshot!(shown(|out| peers(out, &report)));
        report.alarms = vec![Alarm {
            alarm: AlarmKind::Isolated,
            since: "2026-01-01T00:00:00.000Z".to_owned(),
            text: "None of the 1 other pods can be reached.".to_owned(),
            advice: "Do the other pods run?".to_owned(),
            about: vec![About {
                who: "10.0.0.2:3003 (udht-2)".to_owned(),
                reason: "failed_unreachable".to_owned(),
            }],
        }];
        report.records = None;
        report.peers.clear();
        insta::assert_snapshot!(shown(|out| peers(out, &report)));
    }

    #[test]
    fn an_exchange_says_what_it_found_and_cost() {
        let view = ExchangeView {
            address: "10.0.0.2:3003".to_owned(),
            peer_id: Some("peer-2".to_owned()),
            store: "01010101-0101-0101-0101-010101010101".to_owned(),
            protocol: 1,
            result: "snapshot",
            fallback: Some("cheaper"),
            equal: true,
            records: 1_234,
            differed_here: 2,
            differed_there: 3,
            records_sent: 2,
            records_received: 3,
            merged_here: [("applied", 2), ("stale", 1)].into(),
            merged_there: [("applied", 2)].into(),
            round_trips: 2,
            bytes_sent: 300,
            bytes_received: 2_000,
            bytes_to_find: 1_800,
            symbols: 128,
            ms: 3.456,
            skew_ms: -12,
        };
        insta::assert_snapshot!(shown(|out| exchange(out, &view)));
    }
}
