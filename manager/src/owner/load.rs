//! Reading a table from its store: at the start, and when the store is opened anew.
//!
//! Two threads share the work, which is about the same for both: one reads a part from the store
//! while the other puts the last one into the index and the sketch.

use std::time::{Duration, Instant};

use peer_table::floors::Floors;
use peer_table::table::{Loading, TableSpec};
use peer_table::{Key, Opening, Reading, Table, TableName, WallTime};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use udht_tell::chain;

use super::pod::known_as;
use super::{Current, Shared, spec, wall_now};
use crate::metrics::Metrics;
use crate::store::{Change, Draw, Scanned, Store, StoreError, Stored, draw};

/// After so many records, or so much time, the log says how far the reading is.
const SAID_RECORDS: usize = 100_000;
const SAID_PAUSE: Duration = Duration::from_secs(1);
/// Parts that were read and wait to be taken in.
const PARTS_AHEAD: usize = 2;
/// How often the reading is begun that a store does not let come to an end.
const TRIES: usize = 60;
/// Between two of these: the first pause and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The floors of an opening of a store, taken from it.
pub(super) fn floors(opening: &mut Opening) -> Result<Floors, StoreError> {
    let stored = std::mem::take(&mut opening.floors);
    Floors::opened(&stored, opening, wall_now()).map_err(|error| StoreError::Damaged {
        store: format!("the store {}", opening.store),
        problem: format!("what it keeps as \"floors\" cannot be read: {error}"),
    })
}

/// The table in `store`, and the highest reading in it. A store that is away for a while is waited
/// for, and read from the beginning.
pub(super) async fn load(
    store: &dyn Store,
    spec: &TableSpec,
    metrics: &Metrics,
) -> Result<(Table, Reading), StoreError> {
    let mut pause = PAUSE_MIN;
    for _ in 1..TRIES {
        match try_load(store, spec, metrics).await {
            Err(StoreError::Unavailable(problem)) => {
                tracing::warn!(
                    error = problem,
                    "the table is read again from the beginning"
                );
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            done => return done,
        }
    }
    try_load(store, spec, metrics).await
}

async fn try_load(
    store: &dyn Store,
    spec: &TableSpec,
    metrics: &Metrics,
) -> Result<(Table, Reading), StoreError> {
    let total = store.count(&spec.name).await?;
    let mut progress = Progress::new(total);
    let expected = total.map_or(0, |total| usize::try_from(total).unwrap_or(usize::MAX));
    let loading = Loading::new(spec.clone(), expected);
    let (parts, waiting) = mpsc::channel(PARTS_AHEAD);
    let name = spec.name.clone();
    let taking_in = spawn_blocking(move || take_in(loading, &name, waiting));
    let mut cursor = None;
    loop {
        let (part, next) = metrics
            .store("scan", store.scan(&spec.name, cursor))
            .await?;
        progress.add(part.len());
        if parts.send(part).await.is_err() {
            break;
        }
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    drop(parts);
    let taken_in = taking_in
        .await
        .map_err(|error| StoreError::Unavailable(format!("reading it ended early: {error}")))?;
    metrics.corrupt.inc_by(taken_in.corrupt);
    Ok((taken_in.table, taken_in.highest))
}

/// A table as it was read from its store.
struct TakenIn {
    table: Table,
    /// The highest reading in it.
    highest: Reading,
    /// How many stored records could not be read.
    corrupt: u64,
}

/// Takes in all parts, until there are no more.
fn take_in(
    mut loading: Loading,
    name: &TableName,
    mut parts: mpsc::Receiver<Vec<Scanned>>,
) -> TakenIn {
    let now = wall_now();
    let (mut highest, mut corrupt) = (Reading::default(), 0);
    while let Some(part) = parts.blocking_recv() {
        for Scanned { key, value } in part {
            match record(&mut loading, &key, &value, now) {
                Ok(reading) => highest = highest.max(reading),
                Err(problem) => {
                    corrupt += 1;
                    tracing::warn!(
                        table = %name,
                        peer_id = %String::from_utf8_lossy(&key),
                        error = problem,
                        "a stored record cannot be read; it is skipped until a peer sends it"
                    );
                }
            }
        }
    }
    TakenIn {
        table: loading.finish(),
        highest,
        corrupt,
    }
}

/// Takes in what is stored under `key`; gives its reading, or why it is no record.
fn record(
    loading: &mut Loading,
    key: &[u8],
    value: &[u8],
    now: WallTime,
) -> Result<Reading, String> {
    match (Key::from_bytes(key), Stored::from_value(value)) {
        (Ok(key), Stored::Entry(entry)) => {
            let taken = loading.record(&key, &entry, now);
            taken.map_err(|invalid| invalid.to_string())?;
            Ok(entry.version.reading)
        }
        (Ok(_), Stored::Corrupt(corrupt)) => {
            loading.lose();
            Err(corrupt.to_string())
        }
        (Err(invalid), _) => {
            loading.lose();
            Err(format!("its key must be {invalid}"))
        }
    }
}

/// How far a reading is.
struct Progress {
    total: Option<u64>,
    records: usize,
    said_records: usize,
    said_at: Instant,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        Self {
            total,
            records: 0,
            said_records: 0,
            said_at: Instant::now(),
        }
    }

    fn add(&mut self, records: usize) {
        if self.is_due(records, self.said_at.elapsed()) {
            self.said_records = self.records;
            self.said_at = Instant::now();
            tracing::info!(
                records = self.records,
                total = self.total,
                "reading the table"
            );
        }
    }

    /// Whether it is time to say something after `records` more, so long after the last time.
    fn is_due(&mut self, records: usize, silence: Duration) -> bool {
        self.records += records;
        silence >= SAID_PAUSE || self.records - self.said_records >= SAID_RECORDS
    }
}

/// Opens the store anew, as often as it takes, and reads the table from it.
///
/// Of what something else has written to it nobody knows what is missing.
pub(super) async fn open_anew(shared: &Shared, change: Option<Change>) -> (Current, Reading) {
    let mut pause = PAUSE_MIN;
    loop {
        let opened = async {
            // The pod stays who it is, also in a store that knows nothing of it.
            let draw = {
                let opening = &shared.current().opening;
                Draw {
                    binding: opening.binding.clone(),
                    ..draw(opening.peer_id.clone(), &shared.cluster)
                }
            };
            let mut opening = shared.store.reopen(draw).await?;
            let (cluster, key) = known_as(&shared.cluster, &opening)?;
            let mut floors = floors(&mut opening)?;
            if change == Some(Change::Meddled) {
                floors.forget_coverage();
            }
            let spec = spec(&shared.table_name, &key, shared.limits, &opening, floors);
            let (table, highest) = load(&*shared.store, &spec, &shared.metrics).await?;
            let current = Current {
                opening,
                cluster,
                table,
                read_at: wall_now(),
                is_rekeying: false,
                over: None,
            };
            Ok::<_, StoreError>((current, highest))
        };
        match opened.await {
            Ok(opened) => return opened,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the store cannot be opened anew yet");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reading_says_how_far_it_is_by_number_and_by_time() {
        let mut progress = Progress::new(Some(1_000_000));
        assert!(!progress.is_due(SAID_RECORDS - 1, Duration::ZERO));
        assert!(progress.is_due(1, Duration::ZERO));
        let mut slow = Progress::new(None);
        assert!(!slow.is_due(1, SAID_PAUSE / 2));
        assert!(slow.is_due(1, SAID_PAUSE));
    }
}
