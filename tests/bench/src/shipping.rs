//! The records that differ, as they are sent: a batch encoded as an exchange does it, beside JSON.

use anyhow::{Result, ensure};
use bytes::Bytes;
use peer_table::contract::{BATCH_RECORDS_MAX, Batch};
use peer_table::peers::Peer;
use peer_table::{Entry, Key};
use prost::Message;
use udht_replica::peers;

use crate::measure::Times;
use crate::records::Records;
use crate::report::{Figure, Goal, Report, Row};

/// How many times each is encoded and decoded.
const TIMES: usize = 41;

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let records: Vec<_> = Records::new(1).take(BATCH_RECORDS_MAX).collect();
    let peers_of = as_peers(&records)?;
    let (mut ours, mut json) = (Times::default(), Times::default());
    let (mut our_bytes, mut json_bytes) = (0, 0);
    for _ in 0..TIMES {
        our_bytes = ours.cpu_of(|| through_batch(&records))?;
        json_bytes = json.cpu_of(|| through_json(&peers_of))?;
    }
    let what = format!("{BATCH_RECORDS_MAX} records");
    report.add(
        Row::new(
            "shipping/bytes",
            format!("{what} shipped: bytes"),
            Figure::bytes(our_bytes),
        )
        .beside("JSON", Figure::bytes(json_bytes))
        .goal(Goal::AtMost(0.4))
        .count(),
    );
    report.add(
        Row::new(
            "shipping/cpu",
            format!("{what} encoded and decoded: CPU"),
            ours.figure(),
        )
        .beside("serde_json", json.figure())
        .goal(Goal::AtMost(0.25)),
    );
    Ok(())
}

/// The records as a reader of JSON has them.
fn as_peers(records: &[(Key, Entry)]) -> Result<Vec<Peer>> {
    let peers = records.iter().filter_map(|(key, entry)| {
        let peer = Peer::from_entry(key, entry);
        peer.transpose()
    });
    Ok(peers.collect::<Result<_, _>>()?)
}

/// Encodes and decodes them as a swap does; gives the bytes on the wire.
fn through_batch(records: &[(Key, Entry)]) -> Result<u64> {
    let batch = Batch::new(&peers(), records.iter().cloned());
    let bytes = Bytes::from(batch.encode_to_vec());
    let decoded = Batch::decode(bytes.clone())?.into_records()?;
    ensure!(decoded.len() == records.len(), "records were lost");
    Ok(bytes.len() as u64)
}

/// The same as JSON.
fn through_json(peers: &[Peer]) -> Result<u64> {
    let bytes = serde_json::to_vec(peers)?;
    let decoded: Vec<Peer> = serde_json::from_slice(&bytes)?;
    ensure!(decoded.len() == peers.len(), "records were lost");
    Ok(bytes.len() as u64)
}
