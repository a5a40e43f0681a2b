//! Merging what comes from a peer, beside writing the same values without comparing any.
//!
//! Ours is a manager with its store, driven as its sync does it: batches of 4,096 records in protobuf
//! to the call under `/v1/sync`, one after the other, each of which is answered when it is stored. So
//! HTTP, decoding, the comparison of versions, index, sketch and feed are all in its figure, and
//! encoding is not, as the other pod has that.
//!
//! Beside the Redis store, by one connection of the `redis` crate to that same server (`appendonly`
//! for all), batches of the same size and closed as well: one HSET with all fields of a batch, which
//! is the least that one can ask of Redis; a pipeline of HSETs of one field; and a script in Lua that
//! compares the version that is held and sets what is newer. Beside the embedded store: a transaction
//! of the redb crate for each batch, in a file of its own. The values are those that ours stores, and
//! are made before. All take turns, each time with records that none has had.

use std::time::Instant;

use anyhow::{Result, ensure};
use peer_table::contract::BATCH_RECORDS_MAX;
use peer_table::{Entry, Key};
use redb::{Database, TableDefinition};
use redis::Connection;
use udht_tests::pod::StoreKind;

use crate::alone::{Alone, batches, dated};
use crate::measure::Samples;
use crate::records::Records;
use crate::report::{Figure, Goal, Report, Row, Unit};

/// How many records are merged at a time.
const RECORDS: usize = 100_000;
/// How often each side has its turn.
const TIMES: usize = 3;
/// Keys of what the manager has no part in.
const FIELDS: &str = "other:fields";
const PIPELINED: &str = "other:pipelined";
const COMPARED: &str = "other:compared";
const OTHER_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("other");
/// Where the version stands in a stored value.
const VERSION_AT: std::ops::Range<usize> = 2..26;
/// Sets each field whose version is above that which is held.
const COMPARE_AND_SET: &str = "
    for at = 1, #ARGV, 2 do
        local held = redis.call('HGET', KEYS[1], ARGV[at])
        if not held or string.sub(held, 3, 26) < string.sub(ARGV[at + 1], 3, 26) then
            redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
        end
    end";

/// Records, as each side takes them.
struct News {
    batches: Vec<Vec<u8>>,
    values: Vec<(String, Vec<u8>)>,
}

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    commands(report)?;
    if report.is_quick() {
        return Ok(());
    }
    into_redis(report)?;
    into_file(report)
}

impl News {
    fn new(seed: usize) -> Self {
        let records: Vec<_> = Records::new(seed).take(RECORDS).map(dated).collect();
        Self {
            batches: batches(&records, BATCH_RECORDS_MAX),
            values: records.iter().map(value).collect(),
        }
    }

    fn merge(&self, alone: &Alone) -> Result<()> {
        self.batches.iter().try_for_each(|it| alone.merge(it))
    }

    /// Does `write` with the values of each batch; gives how many records that is a second.
    fn timed(&self, write: impl FnMut(&[(String, Vec<u8>)]) -> Result<()>) -> Result<f64> {
        let parts = self.values.chunks(BATCH_RECORDS_MAX);
        per_second(|| { parts }.try_for_each(write))
    }
}

/// Key and stored value, the reading of which is turned around, so that a script can compare it.
fn value((key, entry): &(Key, Entry)) -> (String, Vec<u8>) {
    let mut value = entry.to_stored();
    value[VERSION_AT][..8].reverse();
    (key.to_string(), value)
}

/// What is the same on every machine: the writes that Redis is asked for, and that it is not asked for
/// what it holds.
fn commands(report: &mut Report) -> Result<()> {
    let alone = Alone::start(StoreKind::Redis)?;
    let mut redis = alone.redis()?;
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut redis)?;
    News::new(1).merge(&alone)?;
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut redis)?;
    let calls = |command: &str| {
        let head = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&head));
        let calls = line.and_then(|line| line.split(',').next());
        calls.map_or(Ok(0.0), str::parse::<f64>)
    };
    ensure!(calls("hget")? == 0.0, "the manager compares at the store");
    let what = format!("{RECORDS} records merged in batches of {BATCH_RECORDS_MAX}: HSETs");
    let calls = Figure::new(calls("hset")?, Unit::Number);
    report.add(Row::new("merging/redis/hsets", what, calls).count());
    Ok(())
}

fn into_redis(report: &mut Report) -> Result<()> {
    let alone = Alone::start(StoreKind::Redis)?;
    let mut redis = alone.redis()?;
    let script: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(COMPARE_AND_SET)
        .query(&mut redis)?;
    let [mut ours, mut fields, mut pipelined, mut compared] = [const { Samples::new() }; 4];
    for time in 0..TIMES {
        let news = News::new(100 + time);
        fields.add(news.timed(|part| set_fields(&mut redis, part))?);
        ours.add(per_second(|| news.merge(&alone))?);
        pipelined.add(news.timed(|part| set_each(&mut redis, part))?);
        compared.add(news.timed(|part| compare_and_set(&mut redis, &script, part))?);
    }
    let ours = ours.figure(Unit::PerSecond);
    for (name, by, other, goal) in [
        ("fields", "HSET of many fields", fields, Some(1.0)),
        ("pipelined", "pipelined HSETs", pipelined, None),
        ("lua", "compare-and-set in Lua", compared, Some(2.0)),
    ] {
        let what = "records merged into Redis";
        let row = Row::new(format!("merging/redis/{name}"), what, ours);
        let row = row.beside(by, other.figure(Unit::PerSecond));
        report.add(match goal {
            Some(least) => row.goal(Goal::AtLeast(least)),
            None => row,
        });
    }
    Ok(())
}

fn into_file(report: &mut Report) -> Result<()> {
    let alone = Alone::start(StoreKind::Embedded)?;
    let folder = tempfile::tempdir()?;
    let database = Database::create(folder.path().join("other.redb"))?;
    let (mut ours, mut other) = (Samples::new(), Samples::new());
    for time in 0..TIMES {
        let news = News::new(200 + time);
        other.add(news.timed(|part| insert(&database, part))?);
        ours.add(per_second(|| news.merge(&alone))?);
    }
    let what = "records merged into the embedded store";
    let row = Row::new("merging/embedded", what, ours.figure(Unit::PerSecond));
    report.add(row.beside("batches of redb", other.figure(Unit::PerSecond)));
    Ok(())
}

fn set_fields(redis: &mut Connection, part: &[(String, Vec<u8>)]) -> Result<()> {
    let mut command = redis::cmd("HSET");
    command.arg(FIELDS);
    for (key, value) in part {
        command.arg(key).arg(value);
    }
    Ok(command.exec(redis)?)
}

fn set_each(redis: &mut Connection, part: &[(String, Vec<u8>)]) -> Result<()> {
    let mut commands = redis::pipe();
    for (key, value) in part {
        commands.cmd("HSET").arg(PIPELINED).arg(key).arg(value);
    }
    Ok(commands.exec(redis)?)
}

fn compare_and_set(redis: &mut Connection, script: &str, part: &[(String, Vec<u8>)]) -> Result<()> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script).arg(1).arg(COMPARED);
    for (key, value) in part {
        command.arg(key).arg(value);
    }
    Ok(command.exec(redis)?)
}

fn insert(database: &Database, part: &[(String, Vec<u8>)]) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(OTHER_TABLE)?;
        for (key, value) in part {
            table.insert(key.as_str(), value.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

/// How many records a second that is, if it does [`RECORDS`].
#[expect(clippy::cast_precision_loss, reason = "far less than 2^52")]
fn per_second(done: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    done()?;
    Ok(RECORDS as f64 / begin.elapsed().as_secs_f64())
}
