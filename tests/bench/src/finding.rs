//! Finding the difference of two tables: the exchange up to the first record that moves.
//!
//! Ours is the shipped exchange between two replicas without a process, every message encoded and
//! decoded. Beside it, over the same two sets: the `negentropy` crate (range-based set
//! reconciliation), with ids of 32 bytes, which it does not let one choose; the 8 bytes of each
//! fingerprint that differs, which is the least for fingerprints of that length; and the whole table.

use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use peer_exchange::Remote;
use peer_exchange::exchange::{Options, Report as Exchanged, exchange};
use peer_table::peers::Peer;
use peer_table::{Entry, Key};
use udht_replica::{Replica, Setup, Wire, now_or_never, peers};

use crate::measure::{Times, thread_cpu};
use crate::records::Records;
use crate::report::{Figure, Goal, Report, Row, Unit, as_float};

/// How many fingerprints differ, and how many times such a difference is looked for.
const DIFFERENCES: [(usize, u32); 5] = [(0, 10), (15, 30), (150, 20), (1_500, 5), (15_000, 3)];
/// How many times at the most `negentropy` looks: its bytes hardly vary.
const OTHER_TIMES: u32 = 3;

/// Two tables that are equal but for what was given to one of them.
struct Pair {
    ours: Replica,
    theirs: Replica,
    /// What both have, as `negentropy` knows it.
    common: Vec<(u64, Id)>,
    /// Records that neither has.
    fresh: Records,
}

/// New records, of which one side has the first ones, the other the rest.
struct Given {
    records: Vec<(Key, Entry)>,
    ours: usize,
}

/// What `negentropy` needed to find a difference.
#[derive(Copy, Clone)]
struct Found {
    round_trips: u64,
    bytes: u64,
    cpu: Duration,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    let sizes: &[usize] = if report.is_quick() {
        &[10_000]
    } else {
        &[10_000, 100_000, 1_000_000]
    };
    let mut cpu_of_15 = Vec::new();
    for &records in sizes {
        cpu_of_15.push(of_size(report, records)?);
        one_side_empty(report, records)?;
    }
    if let [small, .., large] = cpu_of_15[..] {
        let row = Row::new(
            "finding/cpu/growth",
            "CPU of finding 15 in 1,000,000",
            large,
        );
        report.add(row.beside("in 10,000", small).goal(Goal::AtMost(1.3)));
    }
    up_to_50(report)?;
    from_1_000(report)
}

/// All differences in tables of one size; gives the CPU of finding 15.
fn of_size(report: &mut Report, records: usize) -> Result<Figure> {
    let mut pair = Pair::equal(records);
    let mut cpu_of_15 = Figure::new(f64::NAN, Unit::Seconds);
    for (by, times) in DIFFERENCES {
        let (mut cpu, mut other_cpu) = (Times::default(), Times::default());
        let (mut ours, mut other) = (Vec::new(), Vec::new());
        for time in 0..times {
            let given = pair.give(by);
            if time < OTHER_TIMES {
                let found = pair.negentropy(&given)?;
                other_cpu.add(found.cpu);
                other.push(found);
            }
            let (exchanged, found) = pair.exchange(&given)?;
            cpu.add(found);
            ours.push(exchanged);
        }
        let id = |what| format!("finding/{what}/{records}/{by}");
        let what = |what| format!("{by} differences in {records}: {what}");

        let bytes = Row::new(
            id("bytes"),
            what("bytes"),
            mean(
                ours.iter().map(|exchanged| exchanged.find.bytes()),
                Unit::Bytes,
            ),
        );
        let other_bytes = mean(other.iter().map(|found| found.bytes), Unit::Bytes);
        // Without differences there is little to compare, but a goal of its own.
        report.add(if by == 0 {
            bytes.goal(Goal::AtMost(300.0)).count()
        } else {
            bytes.beside("negentropy", other_bytes).count()
        });
        let trips = mean(
            ours.iter().map(|exchanged| exchanged.find.round_trips),
            Unit::RoundTrips,
        );
        let other_trips = mean(
            other.iter().map(|found| found.round_trips),
            Unit::RoundTrips,
        );
        let trips = Row::new(id("round-trips"), what("round trips"), trips);
        report.add(trips.beside("negentropy", other_trips).count());
        if by == 15 {
            cpu_of_15 = cpu.figure();
            against_dumps(report, records, &ours)?;
        }
        let cpu = Row::new(id("cpu"), what("CPU of both sides"), cpu.figure())
            .beside("negentropy", other_cpu.figure());
        report.add(if (records, by) == (1_000_000, 15) {
            cpu.goal(Goal::AtMost(1.0 / 500.0))
        } else {
            cpu
        });
    }
    Ok(cpu_of_15)
}

/// An exchange of 15 differences with all that it ships, beside the whole table.
fn against_dumps(report: &mut Report, records: usize, ours: &[Exchanged]) -> Result<()> {
    let mut json = 0;
    let mut zstd = zstd::Encoder::new(Counter::default(), 3)?;
    for (key, entry) in Records::new(records).take(records) {
        let mut line = serde_json::to_vec(&Peer::from_entry(&key, &entry)?)?;
        line.push(b'\n');
        json += line.len() as u64;
        zstd.write_all(&line)?;
    }
    let traffic = ours.iter().map(|exchanged| exchanged.traffic().bytes());
    let whole = mean(traffic, Unit::Bytes);
    let dumps = [
        ("json", "dump as JSON", json),
        ("zstd", "dump as JSON with zstd", zstd.finish()?.0),
    ];
    for (name, other, bytes) in dumps {
        let row = Row::new(
            format!("finding/whole/{records}/{name}"),
            format!("15 differences in {records}: bytes with the records"),
            whole,
        );
        report.add(row.beside(other, Figure::bytes(bytes)).count());
    }
    Ok(())
}

/// One side has all, the other nothing.
fn one_side_empty(report: &mut Report, records: usize) -> Result<()> {
    let full = Pair::equal(records);
    let empty = Pair::equal(0);
    let pair = Pair {
        theirs: empty.theirs,
        ..full
    };
    let (exchanged, cpu) = pair.settle()?;
    let set = set_of(pair.common.iter().copied())?;
    let found = negentropy(&set, &set_of([])?, records)?;
    let id = |what| format!("finding/{what}/{records}/empty");
    let what = |what| format!("all of {records}: {what}");
    let mut seconds = (Times::default(), Times::default());
    seconds.0.add(cpu);
    seconds.1.add(found.cpu);
    report.add(
        Row::new(
            id("bytes"),
            what("bytes"),
            Figure::bytes(exchanged.find.bytes()),
        )
        .beside("negentropy", Figure::bytes(found.bytes))
        .count(),
    );
    let trips = |trips| mean([trips], Unit::RoundTrips);
    report.add(
        Row::new(
            id("round-trips"),
            what("round trips"),
            trips(exchanged.find.round_trips),
        )
        .beside("negentropy", trips(found.round_trips))
        .count(),
    );
    report.add(
        Row::new(id("cpu"), what("CPU of both sides"), seconds.0.figure())
            .beside("negentropy", seconds.1.figure()),
    );
    Ok(())
}

/// Up to 50 differences are found in one round trip, for little.
fn up_to_50(report: &mut Report) -> Result<()> {
    const TIMES: usize = 300;
    let mut pair = Pair::equal(1_000);
    let (mut more, mut bytes) = (Vec::new(), Vec::new());
    for time in 0..TIMES {
        let given = pair.give(1 + time % 50);
        let (exchanged, _) = pair.exchange(&given)?;
        let is_at_once = exchanged.find.round_trips == 1;
        more.push(u64::from(!is_at_once));
        if is_at_once {
            bytes.push(exchanged.find.bytes());
        }
    }
    let row = Row::new(
        "finding/small/more",
        format!("1 to 50 differences, {TIMES} exchanges: not found in one round trip"),
        mean(more, Unit::Share),
    );
    report.add(row.goal(Goal::AtMost(0.01)).count());
    let most = bytes.into_iter().max().unwrap_or(0);
    let row = Row::new(
        "finding/small/bytes",
        "1 to 50 differences: bytes at the most, where one round trip did",
        Figure::bytes(most),
    );
    report.add(row.goal(Goal::AtMost(1_800.0)).count());
    Ok(())
}

/// From 1,000 differences on, the bytes are in proportion to them.
fn from_1_000(report: &mut Report) -> Result<()> {
    for (by, times) in [(1_000, 40), (5_000, 20), (20_000, 10)] {
        let mut pair = Pair::equal(100_000);
        let (mut bytes, mut trips) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let given = pair.give(by);
            let (exchanged, _) = pair.exchange(&given)?;
            bytes.push(exchanged.find.bytes());
            trips.push(exchanged.find.round_trips);
        }
        let least = u64::try_from(by)? * 8;
        let row = Row::new(
            format!("finding/large/bytes/{by}"),
            format!("{by} differences in 100,000: bytes"),
            mean(bytes, Unit::Bytes),
        );
        let row = row.beside("8 bytes each", Figure::bytes(least));
        report.add(row.goal(Goal::AtMost(2.3)).count());
        let row = Row::new(
            format!("finding/large/round-trips/{by}"),
            format!("{by} differences in 100,000: round trips, on average"),
            mean(trips, Unit::RoundTrips),
        );
        report.add(row.goal(Goal::AtMost(2.2)).count());
    }
    Ok(())
}

impl Pair {
    /// Two equal tables of `records` records.
    fn equal(records: usize) -> Self {
        const PART: usize = 10_000;
        let mut pair = Self {
            ours: replica(1),
            theirs: replica(2),
            common: Vec::with_capacity(records),
            fresh: Records::new(records),
        };
        // By parts, as the tables stand in memory already.
        for start in (0..records).step_by(PART) {
            let part = pair.fresh.by_ref().take(PART.min(records - start));
            let part: Vec<_> = part.collect();
            pair.ours.load(&part);
            pair.theirs.load(&part);
            pair.common.extend(items(&part));
        }
        pair
    }

    /// Gives each side a half of so many new records.
    fn give(&mut self, by: usize) -> Given {
        let records: Vec<_> = self.fresh.by_ref().take(by).collect();
        let given = Given {
            records,
            ours: by / 2,
        };
        self.ours.load(given.ours());
        self.theirs.load(given.theirs());
        given
    }

    /// Makes them equal; with what both sides used of the processor until the difference was found.
    fn exchange(&mut self, given: &Given) -> Result<(Exchanged, Duration)> {
        let settled = self.settle()?;
        self.common.extend(items(&given.records));
        Ok(settled)
    }

    fn settle(&self) -> Result<(Exchanged, Duration)> {
        let remote = Noted {
            wire: Wire::to(&self.theirs),
            asked: Mutex::default(),
        };
        let before = thread_cpu();
        let (table, options) = (peers(), Options::default());
        let exchanged = now_or_never(exchange(&self.ours, &remote, &table, &options))
            .context("an exchange of two honest replicas")?;
        let after = thread_cpu();
        ensure!(exchanged.is_equal(), "not equal after an exchange");
        let asked = remote.asked.into_inner().unwrap_or_default();
        // The first request after those by which the difference was found ships records.
        let find = usize::try_from(exchanged.find.round_trips)?;
        let found = asked.get(find).copied().unwrap_or(after);
        Ok((exchanged, found.saturating_sub(before)))
    }

    /// Has `negentropy` find the same difference.
    fn negentropy(&self, given: &Given) -> Result<Found> {
        let common = || self.common.iter().copied();
        let ours = set_of(common().chain(items(given.ours())))?;
        let theirs = set_of(common().chain(items(given.theirs())))?;
        negentropy(&ours, &theirs, given.records.len())
    }
}

impl Given {
    fn ours(&self) -> &[(Key, Entry)] {
        &self.records[..self.ours]
    }

    fn theirs(&self) -> &[(Key, Entry)] {
        &self.records[self.ours..]
    }
}

/// An empty replica with room for all that is given to it.
fn replica(store: u8) -> Replica {
    let setup = Setup {
        records_max: 2_000_000,
        ..Setup::of(store)
    };
    setup.replica()
}

/// The way to the other, which notes when each request was sent.
struct Noted<'a> {
    wire: Wire<'a>,
    asked: Mutex<Vec<Duration>>,
}

impl<'a> Remote for Noted<'a> {
    type Error = <Wire<'a> as Remote>::Error;

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, Self::Error> {
        if let Ok(mut asked) = self.asked.lock() {
            asked.push(thread_cpu());
        }
        self.wire.ask(request).await
    }
}

/// Records as `negentropy` knows them: a time, and an id of 32 bytes.
fn items(records: &[(Key, Entry)]) -> impl Iterator<Item = (u64, Id)> {
    records.iter().map(|(key, entry)| {
        // The digits of a UUID, which are as even as those of a hash.
        let mut id = [0; 32];
        let digits = key.as_str().bytes().filter(|byte| *byte != b'-');
        id.iter_mut().zip(digits).for_each(|(to, from)| *to = from);
        let written = entry.version.reading.wall().as_millis();
        (written, Id::from_byte_array(id))
    })
}

fn set_of(items: impl IntoIterator<Item = (u64, Id)>) -> Result<NegentropyStorageVector> {
    let mut set = NegentropyStorageVector::new();
    for (time, id) in items {
        set.insert(time, id)?;
    }
    set.seal()?;
    Ok(set)
}

/// One reconciliation by `negentropy`, both sides in this thread.
fn negentropy(
    ours: &NegentropyStorageVector,
    theirs: &NegentropyStorageVector,
    differences: usize,
) -> Result<Found> {
    let before = thread_cpu();
    let mut client = Negentropy::borrowed(ours, 0)?;
    let mut server = Negentropy::borrowed(theirs, 0)?;
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let (mut round_trips, mut bytes) = (0, 0);
    let mut next = Some(client.initiate()?);
    while let Some(query) = next {
        let answer = server.reconcile(&query)?;
        round_trips += 1;
        bytes += u64::try_from(query.len() + answer.len())?;
        next = client.reconcile_with_ids(&answer, &mut have, &mut need)?;
    }
    let cpu = thread_cpu().saturating_sub(before);
    let found = have.len() + need.len();
    ensure!(
        found == differences,
        "negentropy found {found} of {differences}"
    );
    Ok(Found {
        round_trips,
        bytes,
        cpu,
    })
}

/// The mean of some counts.
fn mean(counts: impl IntoIterator<Item = u64>, unit: Unit) -> Figure {
    let (mut sum, mut number) = (0, 0_u64);
    for count in counts {
        sum += count;
        number += 1;
    }
    Figure::new(as_float(sum) / as_float(number), unit)
}

/// Counts the bytes that are written, and keeps none.
#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
