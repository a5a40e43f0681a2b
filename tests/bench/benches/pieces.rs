//! The small pieces of which the larger figures are made: what each costs for one record.
//!
//! `cargo bench -p udht-bench` runs all of them, with the name of one behind it that one alone. Each
//! works on records as they are in the field; those that need a table have one of 100,000 records
//! and one of a million, as its index no longer fits into a processor's cache then.

#[path = "../src/records.rs"]
mod records;

use std::collections::BTreeMap;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use peer_table::contract::{BATCH_RECORDS_MAX, Batch};
use peer_table::feed::{FeedLimits, Via};
use peer_table::floors::Floors;
use peer_table::opening::Draw;
use peer_table::peers::{Peer, Shown, check_content, table_name};
use peer_table::sketch::Sketch;
use peer_table::table::{Limits, TableSpec};
use peer_table::{
    Clock, ClusterId, Entry, FingerprintKey, Key, Opening, OriginId, Reading, StoreId, Table,
};
use prost::Message;
use records::Records;
use udht_replica::NOW;

fn main() {
    divan::main();
}

/// How many records a table has that something is done to.
const SIZES: [usize; 2] = [100_000, 1_000_000];

fn fingerprint_key() -> FingerprintKey {
    let cluster: ClusterId = "default/udht".parse().expect("a cluster's id");
    FingerprintKey::of_cluster(&cluster)
}

fn empty() -> Table {
    let opening = Opening::first(Draw {
        store: StoreId::from_bytes([1; 16]),
        origin: OriginId::from_bytes([0xff; 16]),
        peer_id: "own".parse().expect("a key"),
        cluster: None,
        binding: None,
    });
    Table::new(TableSpec {
        name: table_name(),
        fingerprint_key: fingerprint_key(),
        check_content,
        limits: Limits {
            records_max: 4_000_000,
            ..Limits::default()
        },
        sketch_symbols: Sketch::LEN,
        epoch: 1,
        feed: FeedLimits::default(),
        floors: Floors::opened(&[], &opening, NOW).expect("the floors of a new store"),
    })
}

fn of_size(records: usize) -> Table {
    let mut table = empty();
    for (key, entry) in Records::new(1).take(records) {
        table.load(&key, &entry, NOW).expect("a record");
    }
    table
}

fn batch(seed: usize) -> Vec<(Key, Entry)> {
    Records::new(seed).take(BATCH_RECORDS_MAX).collect()
}

/// A batch from a peer, decided and done, without any store.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn merge(bencher: Bencher, size: usize) {
    let mut table = of_size(size);
    let mut clock = Clock::new(
        OriginId::from_bytes([0xff; 16]),
        Reading::default(),
        Duration::from_secs(10),
    );
    let mut seed = 1;
    bencher
        .counter(ItemsCount::new(BATCH_RECORDS_MAX))
        .with_inputs(|| {
            seed += 1;
            batch(seed)
        })
        .bench_local_values(|records| {
            let held = BTreeMap::new();
            let changes = {
                let wanting = records.iter();
                let wanting = wanting.filter(|(key, entry)| table.needs_content(key, entry));
                assert_eq!(wanting.count(), 0, "all are new");
                let mut plan = table.plan(&mut clock, NOW, &held);
                for (key, entry) in records {
                    black_box(plan.merge(&key, entry, Via::Exchange, None));
                }
                plan.finish()
            };
            table.apply(changes);
        });
}

/// A table read from its store.
#[divan::bench(args = SIZES, sample_count = 3, sample_size = 1)]
fn load(bencher: Bencher, size: usize) {
    bencher
        .counter(ItemsCount::new(size))
        .with_inputs(|| (empty(), Records::new(1).take(size).collect::<Vec<_>>()))
        .bench_local_values(|(mut table, records)| {
            for (key, entry) in records {
                table.load(&key, &entry, NOW).expect("a record");
            }
            table
        });
}

/// A row of the index, by its key.
#[divan::bench(args = SIZES)]
fn look_up(bencher: Bencher, size: usize) {
    let table = of_size(size);
    let keys: Vec<_> = Records::new(1).take(size).map(|(key, _)| key).collect();
    let mut random = fastrand::Rng::with_seed(1);
    bencher
        .with_inputs(|| &keys[random.usize(..keys.len())])
        .bench_local_values(|key| table.row(key).is_some());
}

#[divan::bench]
fn batch_decode(bencher: Bencher) {
    let encoded = Batch::new(&table_name(), batch(1)).encode_to_vec();
    let encoded = bytes::Bytes::from(encoded);
    bencher
        .counter(ItemsCount::new(BATCH_RECORDS_MAX))
        .bench_local(|| {
            let batch = Batch::decode(encoded.clone()).expect("a batch");
            batch.into_records().expect("records")
        });
}

#[divan::bench]
fn content_check(bencher: Bencher) {
    let (key, entry) = Records::new(1).next().expect("a record");
    let content = entry.content().expect("it is live").clone();
    bencher.bench_local(|| check_content(black_box(&key), black_box(content.as_bytes())));
}

#[divan::bench]
fn as_json(bencher: Bencher) {
    let (key, entry) = Records::new(1).next().expect("a record");
    bencher.bench_local(|| {
        let peer = Peer::from_entry(black_box(&key), black_box(&entry)).expect("a peer");
        serde_json::to_vec(&peer).expect("as JSON")
    });
}

#[divan::bench]
fn shown_as_json(bencher: Bencher) {
    let (key, entry) = Records::new(1).next().expect("a record");
    bencher.bench_local(|| {
        let shown = Shown::from_entry(black_box(&key), black_box(&entry)).expect("a peer");
        serde_json::to_vec(&shown).expect("as JSON")
    });
}

#[divan::bench]
fn as_stored(bencher: Bencher) {
    let (_, entry) = Records::new(1).next().expect("a record");
    bencher.bench_local(|| black_box(&entry).to_stored());
}

#[divan::bench]
fn from_stored(bencher: Bencher) {
    let (_, entry) = Records::new(1).next().expect("a record");
    let stored = entry.to_stored();
    bencher.bench_local(|| Entry::from_stored(black_box(&stored)));
}

#[divan::bench]
fn fingerprint(bencher: Bencher) {
    let (key, entry) = Records::new(1).next().expect("a record");
    let (secret, table) = (fingerprint_key(), table_name());
    bencher.bench_local(|| {
        let (key, entry) = (black_box(&key), black_box(&entry));
        secret.fingerprint(&table, key, entry.version, true, entry.contact)
    });
}
