//! How soon a manager is ready, and what a neighbour on the same Redis feels of it.
//!
//! A manager is started on a Redis that holds its table, until its log says that it listens and
//! `/readyz` agrees: a new process, its connection, the lock, every record read, checked, indexed and
//! in the sketch. Beside it, in turns, the `redis` crate reads the same hash by one HGETALL, from the
//! request to the last value. Meanwhile a neighbour says PING to that Redis a millisecond after each
//! answer; what its worst round trip took longer than the worst on an idle server is the stall. The
//! neighbour shares the processors too, so some of what it feels is no stall of Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use peer_table::contract::BATCH_RECORDS_MAX;
use redis::{Connection, Value};
use udht_tests::http;
use udht_tests::pod::{Part, StoreKind};

use crate::alone::{Alone, batches, dated};
use crate::measure::Samples;
use crate::records::Records;
use crate::report::{Figure, Goal, Report, Row, Unit};

/// How many records there are, and how often each side has its turn.
const SIZES: [(usize, usize); 3] = [(1_000, 5), (100_000, 5), (1_000_000, 3)];
/// The size that is held to the goals.
const LARGE: usize = 1_000_000;
/// Between an answer to the neighbour and its next PING.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the neighbour looks at an idle server.
const IDLE: Duration = Duration::from_secs(3);

/// Measures all of it.
pub(crate) fn run(report: &mut Report) -> Result<()> {
    if report.is_quick() {
        return Ok(());
    }
    let mut alone = Alone::start(StoreKind::Redis)?;
    let mut held = 0;
    for (size, times) in SIZES {
        let mut records = Records::new(size).take(size - held).map(dated);
        loop {
            let part: Vec<_> = records.by_ref().take(BATCH_RECORDS_MAX).collect();
            if part.is_empty() {
                break;
            }
            for batch in batches(&part, BATCH_RECORDS_MAX) {
                alone.merge(&batch)?;
            }
        }
        held = size;
        of_size(report, &mut alone, size, times)?;
    }
    Ok(())
}

fn of_size(report: &mut Report, alone: &mut Alone, size: usize, times: usize) -> Result<()> {
    alone.pod().kill_part(Part::Manager)?;
    let hash = alone.hash()?;
    let mut redis = alone.redis()?;
    let (mut ours, mut other) = (Samples::new(), Samples::new());
    let (mut stall, mut other_stall) = (Duration::ZERO, Duration::ZERO);
    let ((), idle) = beside_neighbour(alone.redis()?, || {
        thread::sleep(IDLE);
        Ok(())
    })?;
    for _ in 0..times {
        let (took, worst) = beside_neighbour(alone.redis()?, || get_all(&mut redis, &hash, size))?;
        other.add(took.as_secs_f64());
        other_stall = other_stall.max(worst.saturating_sub(idle));
        let neighbour = alone.redis()?;
        let (took, worst) = beside_neighbour(neighbour, || until_ready(alone))?;
        ours.add(took.as_secs_f64());
        stall = stall.max(worst.saturating_sub(idle));
        if size != LARGE || ours.len() < times {
            alone.pod().kill_part(Part::Manager)?;
        }
    }
    let row = Row::new(
        format!("start/{size}"),
        format!("ready after a start with {size} records"),
        ours.figure(Unit::Seconds),
    );
    let row = row.beside("HGETALL", other.figure(Unit::Seconds));
    let stalled = |stall: Duration| Figure::new(stall.as_secs_f64(), Unit::Seconds);
    let worst = Row::new(
        format!("start/stall/{size}"),
        format!(
            "worst stall of a neighbour in that ({} idle)",
            stalled(idle)
        ),
        stalled(stall),
    );
    if size == LARGE {
        report.add(row.goal(Goal::AtMost(1.4)));
        report.add(worst.goal(Goal::AtMost(0.010)));
        let what = format!("worst stall of a neighbour in HGETALL of {size} records");
        report.add(Row::new("start/stall/hgetall", what, stalled(other_stall)));
    } else {
        report.add(row);
        report.add(worst);
        alone.pod().start_manager()?;
    }
    Ok(())
}

/// How long it takes to read all of the hash at once.
fn get_all(redis: &mut Connection, hash: &str, size: usize) -> Result<Duration> {
    let begin = Instant::now();
    let all: Value = redis::cmd("HGETALL").arg(hash).query(redis)?;
    let took = begin.elapsed();
    let fields = match all {
        Value::Array(fields) => fields.len(),
        _ => 0,
    };
    // One record is the pod's own.
    ensure!(fields == 2 * (size + 1), "the hash has {fields} fields");
    Ok(took)
}

/// How long a manager takes to be ready.
fn until_ready(alone: &mut Alone) -> Result<Duration> {
    let begin = Instant::now();
    alone.pod().start_manager()?;
    let took = begin.elapsed();
    http::text(alone.agent(), &format!("{}/readyz", alone.url()))?;
    Ok(took)
}

/// Does `measured` beside a neighbour; gives the worst round trip that it saw too.
fn beside_neighbour<T>(
    mut neighbour: Connection,
    measured: impl FnOnce() -> Result<T>,
) -> Result<(T, Duration)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let worst = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                redis::cmd("PING").exec(&mut neighbour)?;
                worst = worst.max(begin.elapsed());
                thread::sleep(PAUSE);
            }
            Ok::<_, anyhow::Error>(worst)
        });
        let measured = measured();
        is_over.store(true, Ordering::Relaxed);
        let worst = worst
            .join()
            .map_err(|_| anyhow!("the neighbour panicked"))??;
        Ok((measured?, worst))
    })
}
