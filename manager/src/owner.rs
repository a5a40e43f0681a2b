//! The owner of the table: one task through which every write goes, and a handle to read and write.
//!
//! The task takes what waits in its queue as one group, has the table decide it, writes it to the
//! store as one transaction, and only then brings the table up to date, answers, and wakes those
//! who watch. While a transaction is under way the next group gathers. Readers take the table's
//! lock for moments and never across a call of the store.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_table::contract::{
    BatchBuilder, FINGERPRINTS_MAX, FingerprintPage, Records, State, TableState,
    fingerprints_to_bytes,
};
use peer_table::feed::{Change, Feed, FeedLimits, Gone, Revision, Via};
use peer_table::peers::{self, Draft, InvalidField, Patch};
use peer_table::sketch::Sketch;
use peer_table::table::{
    Changes, Limits, Merged, NewContent, Plan, Precondition, TableSpec, WriteRefused,
};
use peer_table::{
    Clock, ClusterId, Contact, Entry, Fingerprint, FingerprintKey, Key, Reading, Table, TableName,
    WallTime,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::metrics::Metrics;
use crate::store::{Commit, Opening, Store, StoreError, Stored};

/// Commands that may wait for the owner; more wait at their senders.
const QUEUE_COMMANDS_MAX: usize = 1_024;
/// Records after which a transaction takes no further command.
const GROUP_RECORDS_FULL: usize = 2_048;
/// Records that [`Owner::page`] reads at once.
pub const PAGE_RECORDS: usize = 1_000;

/// What an owner is told at its start.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// The cluster its table belongs to.
    pub cluster: ClusterId,
    /// Bounds of the table.
    pub limits: Limits,
    /// How far ahead of the wall clock a record may be stamped.
    pub drift_max: Duration,
}

/// A local write of one record.
#[derive(Clone, Debug)]
pub struct Write {
    /// Of which record.
    pub key: Key,
    /// What must hold.
    pub precondition: Precondition,
    /// What to do.
    pub operation: Operation,
}

/// What a local write does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Create the record, or replace what it says.
    Put(Draft),
    /// Change a part of what it says.
    Patch(Patch),
    /// Delete it.
    Delete,
    /// Note that the peer was seen.
    Contact(Contact),
}

/// A local write that was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The record as it is now.
    pub entry: Entry,
    /// Whether there was no live record before.
    pub created: bool,
}

/// A local write that changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The table refused it.
    #[error(transparent)]
    Refused(#[from] WriteRefused),
    /// What it would make of the record is no record.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
}

impl WriteError {
    /// The result in [`Metrics::writes`].
    const fn word(&self) -> &'static str {
        match self {
            Self::Refused(WriteRefused::Precondition { .. }) => "precondition",
            Self::Refused(WriteRefused::Absent) => "absent",
            Self::Refused(WriteRefused::Full { .. }) => "full",
            Self::Refused(WriteRefused::TooLarge { .. }) => "too_large",
            Self::Refused(WriteRefused::Clock(_)) => "clock",
            Self::Refused(WriteRefused::Unreadable) => "unavailable",
            Self::Refused(WriteRefused::ContactAhead { .. }) | Self::Invalid(_) => "invalid",
        }
    }
}

/// The owner cannot do anything now.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// It has ended.
    #[error("the manager is stopping")]
    Stopped,
}

impl From<StoreError> for OwnerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

enum Command {
    Write {
        writes: Vec<Write>,
        answer: Answer<Vec<Result<Written, WriteError>>>,
    },
    Merge {
        records: Vec<(Key, Entry)>,
        via: Via,
        answer: Answer<Vec<Merged>>,
    },
}

type Answer<T> = oneshot::Sender<Result<T, OwnerError>>;

impl Command {
    fn records(&self) -> usize {
        match self {
            Self::Write { writes, .. } => writes.len(),
            Self::Merge { records, .. } => records.len(),
        }
    }

    fn into_answer(self) -> AnyAnswer {
        match self {
            Self::Write { answer, .. } => AnyAnswer::Write(answer),
            Self::Merge { answer, .. } => AnyAnswer::Merge(answer),
        }
    }
}

/// What the owner's task and its handles share.
struct Shared {
    cluster: ClusterId,
    fingerprint_key: FingerprintKey,
    drift_max: Duration,
    table_name: TableName,
    table: RwLock<Table>,
    store: Arc<dyn Store>,
    revision: watch::Sender<Revision>,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the table: cheap to clone, reads what is committed, writes through the owner's task.
#[derive(Clone)]
pub struct Owner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// The task that owns the table; it ends when the last [`Owner`] is gone.
pub struct OwnerTask {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    clock: Clock,
}

/// This machine's wall clock.
pub fn wall_now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Loads the table from its store and makes its owner. The task is the caller's to run.
pub async fn open(
    store: Arc<dyn Store>,
    config: OwnerConfig,
    metrics: Arc<Metrics>,
) -> Result<(Owner, OwnerTask), StoreError> {
    let opening = store.opening().clone();
    let fingerprint_key = FingerprintKey::of_cluster(&config.cluster);
    let table_name = peers::table_name();
    let (epoch, _) = opening.origin.as_bytes().split_at(8);
    let mut table = Table::new(TableSpec {
        name: table_name.clone(),
        fingerprint_key: fingerprint_key.clone(),
        check_content: peers::check_content,
        limits: config.limits,
        sketch_symbols: Sketch::LEN,
        epoch: u64::from_be_bytes(epoch.try_into().unwrap_or_default()),
        feed: FeedLimits::default(),
    });
    let highest = load(&mut table, &*store, &metrics)
        .await?
        .max(opening.last_reading);
    let clock = Clock::new(opening.origin, highest, config.drift_max);
    let (revision, _) = watch::channel(table.feed().revision());
    let shared = Arc::new(Shared {
        cluster: config.cluster,
        fingerprint_key,
        drift_max: config.drift_max,
        table_name,
        table: RwLock::new(table),
        store,
        revision,
        metrics,
    });
    let (sender, receiver) = mpsc::channel(QUEUE_COMMANDS_MAX);
    let task = OwnerTask {
        shared: Arc::clone(&shared),
        commands: receiver,
        clock,
    };
    task.publish_figures();
    Ok((
        Owner {
            shared,
            commands: sender,
        },
        task,
    ))
}

/// Reads all of the table; the answer is the highest reading in it.
async fn load(
    table: &mut Table,
    store: &dyn Store,
    metrics: &Metrics,
) -> Result<Reading, StoreError> {
    let mut highest = Reading::default();
    let mut cursor = None;
    let name = table.name().clone();
    loop {
        let (part, next) = metrics.store("scan", store.scan(&name, cursor)).await?;
        for scanned in part {
            let problem = match (scanned.key.parse::<Key>(), scanned.stored) {
                (Ok(key), Stored::Entry(entry)) => match table.load(key, &entry) {
                    Ok(()) => {
                        highest = highest.max(entry.version.reading);
                        continue;
                    }
                    Err(invalid) => invalid.to_string(),
                },
                (_, Stored::Corrupt(corrupt)) => corrupt.to_string(),
                (Err(invalid), _) => format!("its key must be {invalid}"),
            };
            metrics.corrupt.inc();
            tracing::warn!(
                table = %name,
                key = scanned.key,
                problem,
                "a stored record cannot be read; it is skipped until a peer sends it"
            );
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(highest),
        }
    }
}

impl Owner {
    /// What the opening of the store found and made.
    pub fn opening(&self) -> &Opening {
        self.shared.store.opening()
    }

    /// The `peer_id` of this pod's own record.
    pub fn own_key(&self) -> &Key {
        &self.opening().peer_id
    }

    /// The cluster of the table.
    pub fn cluster(&self) -> &ClusterId {
        &self.shared.cluster
    }

    /// The table's name.
    pub fn table_name(&self) -> &TableName {
        &self.shared.table_name
    }

    /// How many live records and tombstones there are.
    pub fn counts(&self) -> (usize, usize) {
        let table = self.shared.table();
        (table.live(), table.tombstones())
    }

    /// The most records that the table takes.
    pub fn records_max(&self) -> usize {
        self.shared.table().limits().records_max
    }

    /// Does one local write.
    pub async fn write(&self, write: Write) -> Result<Result<Written, WriteError>, OwnerError> {
        let mut results = self.write_many(vec![write]).await?;
        results.pop().ok_or(OwnerError::Stopped)
    }

    /// Does local writes in one transaction; each is decided after those before it.
    pub async fn write_many(
        &self,
        writes: Vec<Write>,
    ) -> Result<Vec<Result<Written, WriteError>>, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Write { writes, answer }).await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    /// Merges records from a peer in one transaction; the answer has their order.
    pub async fn merge(
        &self,
        records: Vec<(Key, Entry)>,
        via: Via,
    ) -> Result<Vec<Merged>, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Merge {
            records,
            via,
            answer,
        })
        .await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    async fn send(&self, command: Command) -> Result<(), OwnerError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| OwnerError::Stopped)
    }

    /// The live record of `key`.
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, OwnerError> {
        let is_live = self
            .shared
            .table()
            .row(key)
            .is_some_and(peer_table::table::Row::is_live);
        if !is_live {
            return Ok(None);
        }
        let mut found = self.read(std::slice::from_ref(key)).await?;
        Ok(found.pop().map(|(_, entry)| entry).filter(Entry::is_live))
    }

    /// The next live records in the order of their keys, at most [`PAGE_RECORDS`] and `limit`, and
    /// the key to go on after if there may be more.
    pub async fn page(
        &self,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<(Vec<(Key, Entry)>, Option<Key>), OwnerError> {
        let (keys, last) = self.live_keys(after, limit);
        let mut records = self.read(&keys).await?;
        records.retain(|(_, entry)| entry.is_live());
        Ok((records, last))
    }

    /// The keys of the next live records, at most [`PAGE_RECORDS`] and `limit`, and the key to go on
    /// after if there may be more.
    pub fn live_keys(&self, after: Option<&Key>, limit: usize) -> (Vec<Key>, Option<Key>) {
        let scanned_max = limit.clamp(1, PAGE_RECORDS);
        let table = self.shared.table();
        let rows: Vec<_> = table.rows_after(after, scanned_max).collect();
        let last = (rows.len() == scanned_max)
            .then(|| rows.last().map(|(key, _)| (*key).clone()))
            .flatten();
        let live = rows.into_iter().filter(|(_, row)| row.is_live());
        (live.map(|(key, _)| key.clone()).collect(), last)
    }

    /// Whether the store answers.
    pub async fn probe(&self) -> Result<(), OwnerError> {
        self.read(std::slice::from_ref(self.own_key()))
            .await
            .map(drop)
    }

    /// Whether a put would be taken now, for all that can be told without the store; if so, whether
    /// the key would be new to the table.
    pub fn rehearse_put(&self, key: &Key, draft: &Draft) -> Result<bool, WriteRefused> {
        let now = wall_now();
        let table = self.shared.table();
        let (origin, drift_max) = (self.opening().origin, self.shared.drift_max);
        let mut clock = Clock::new(origin, Reading::default(), drift_max);
        let held = BTreeMap::new();
        let mut plan = table.plan(&mut clock, now, &held);
        put(&mut plan, key, &Precondition::default(), draft, now)?;
        Ok(table.row(key).is_none())
    }

    /// The records of those of `keys` that the store has and that read back.
    async fn read(&self, keys: &[Key]) -> Result<Vec<(Key, Entry)>, OwnerError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let shared = &self.shared;
        let call = shared.store.get_many(&shared.table_name, keys);
        let stored = shared.metrics.store("read", call).await?;
        Ok(shared.readable(keys, stored))
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.shared.table().feed().revision()
    }

    /// Up to `limit` changes after `since`.
    pub fn changes_since(
        &self,
        since: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Arc<Change>)>, Gone> {
        Feed::since(self.shared.table().feed(), since, limit)
    }

    /// Wakes at each change.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// Who this replica is and how its table stands, with the first `symbols` coded symbols.
    pub fn state(&self, symbols: usize) -> State {
        let shared = &self.shared;
        let opening = self.opening();
        let table = shared.table();
        let mut encoded = Vec::new();
        peer_table::sketch::encode(table.sketch().symbols(0..symbols), &mut encoded);
        State {
            cluster: shared.cluster.to_string(),
            key_check: shared.fingerprint_key.check(),
            store: opening.store.as_bytes().to_vec(),
            origin: opening.origin.as_bytes().to_vec(),
            set_digest: 0,
            peer_id: opening.peer_id.to_string(),
            tables: vec![TableState {
                name: shared.table_name.to_string(),
                digest: table.digest().into(),
                symbols: encoded,
            }],
        }
    }

    /// Up to `limit` fingerprints in ascending order, from the first at or above `from`.
    pub fn fingerprints(&self, from: Fingerprint, limit: usize) -> FingerprintPage {
        let limit = limit.clamp(1, FINGERPRINTS_MAX);
        let table = self.shared.table();
        let mut page: Vec<_> = table.fingerprints_from(from, limit + 1).collect();
        let complete = page.len() <= limit;
        page.truncate(limit);
        FingerprintPage {
            fingerprints: fingerprints_to_bytes(page),
            complete,
        }
    }

    /// The records that have these fingerprints, tombstones too, as far as one batch goes.
    pub async fn records(&self, wanted: &[Fingerprint]) -> Result<Records, OwnerError> {
        const READ_AT_ONCE: usize = 256;
        let mut batch = BatchBuilder::new(&self.shared.table_name);
        let mut dealt_with = 0;
        for part in wanted.chunks(READ_AT_ONCE) {
            let keys: Vec<_> = {
                let table = self.shared.table();
                part.iter()
                    .filter_map(|wanted| table.key_of(*wanted).cloned())
                    .collect()
            };
            for (key, entry) in self.read(&keys).await? {
                batch.add(&key, &entry);
            }
            dealt_with += part.len();
            if batch.has_no_room_for(READ_AT_ONCE) {
                break;
            }
        }
        Ok(Records {
            batch: batch.finish(),
            dealt_with: u32::try_from(dealt_with).unwrap_or(u32::MAX),
        })
    }
}

impl Shared {
    fn readable(&self, keys: &[Key], stored: Vec<Option<Stored>>) -> Vec<(Key, Entry)> {
        let mut records = Vec::with_capacity(keys.len());
        for (key, stored) in keys.iter().zip(stored) {
            match stored {
                Some(Stored::Entry(entry)) => records.push((key.clone(), entry)),
                Some(Stored::Corrupt(problem)) => {
                    self.metrics.corrupt.inc();
                    tracing::warn!(%key, %problem, "a stored record cannot be read");
                }
                None => {}
            }
        }
        records
    }
}

impl OwnerTask {
    /// Serves commands until every handle is gone.
    pub async fn run(mut self) {
        while let Some(first) = self.commands.recv().await {
            let mut records = first.records();
            let mut group = vec![first];
            while records < GROUP_RECORDS_FULL {
                let Ok(next) = self.commands.try_recv() else {
                    break;
                };
                records += next.records();
                group.push(next);
            }
            self.serve(group).await;
        }
    }

    async fn serve(&mut self, group: Vec<Command>) {
        let now = wall_now();
        let held = match self.held(&group).await {
            Ok(held) => held,
            Err(error) => return fail(group.into_iter().map(Command::into_answer), error),
        };
        let (changes, decided) = {
            let shared = Arc::clone(&self.shared);
            let table = shared.table();
            let mut plan = table.plan(&mut self.clock, now, &held);
            let decided = group
                .into_iter()
                .map(|command| decide(&mut plan, command, now));
            let decided: Vec<_> = decided.collect();
            (plan.finish(), decided)
        };
        if let Err(error) = self.commit(changes).await {
            return fail(decided.into_iter().map(Decided::into_answer), error);
        }
        self.publish_figures();
        for decided in decided {
            self.answer(decided);
        }
    }

    /// The held records that deciding `group` needs.
    async fn held(&self, group: &[Command]) -> Result<BTreeMap<Key, Entry>, StoreError> {
        let mut keys: Vec<Key> = {
            let table = self.shared.table();
            let is_live = |key: &Key| table.row(key).is_some_and(peer_table::table::Row::is_live);
            let written = group.iter().flat_map(|command| match command {
                Command::Write { writes, .. } => writes.as_slice(),
                Command::Merge { .. } => &[],
            });
            let written = written
                .filter(|write| !matches!(write.operation, Operation::Delete))
                .map(|write| &write.key)
                .filter(|key| is_live(key));
            let merged = group.iter().flat_map(|command| match command {
                Command::Merge { records, .. } => records.as_slice(),
                Command::Write { .. } => &[],
            });
            let merged = merged
                .filter(|(key, entry)| table.needs_content(key, entry))
                .map(|(key, _)| key);
            written.chain(merged).cloned().collect()
        };
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        keys.sort_unstable();
        keys.dedup();
        let shared = &self.shared;
        let call = shared.store.get_many(&shared.table_name, &keys);
        let stored = shared.metrics.store("read", call).await?;
        Ok(shared.readable(&keys, stored).into_iter().collect())
    }

    async fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        #[expect(clippy::cast_precision_loss, reason = "a histogram of a bounded count")]
        shared.metrics.group.observe(changes.entries.len() as f64);
        let commit = Commit {
            records: vec![(shared.table_name.clone(), changes.entries.clone())],
            stamped: changes.stamped,
        };
        shared
            .metrics
            .store("commit", shared.store.commit(commit))
            .await?;
        let revision = {
            let mut table = shared.table.write().unwrap_or_else(PoisonError::into_inner);
            table.apply(changes);
            table.feed().revision()
        };
        shared.revision.send_replace(revision);
        Ok(())
    }

    /// Answers what is stored now. Who no longer waits for the answer has no use for it.
    fn answer(&self, decided: Decided) {
        let metrics = &self.shared.metrics;
        match decided {
            Decided::Write { results, answer } => {
                for result in &results {
                    let word = result.as_ref().map_or_else(WriteError::word, |_| "written");
                    metrics.writes.with_label_values(&[word]).inc();
                }
                let _ = answer.send(Ok(results));
            }
            Decided::Merge {
                results,
                stamped,
                via,
                answer,
            } => {
                let now = wall_now().as_millis();
                for (merged, stamped) in results.iter().zip(stamped) {
                    metrics.merged(via, *merged);
                    if *merged == Merged::Applied {
                        let delay = now.saturating_sub(stamped.as_millis());
                        let delay = Duration::from_millis(delay);
                        metrics.replication_delay.observe(delay.as_secs_f64());
                    }
                }
                let _ = answer.send(Ok(results));
            }
        }
    }

    fn publish_figures(&self) {
        let shared = &self.shared;
        let (live, tombstones) = {
            let table = shared.table();
            (table.live(), table.tombstones())
        };
        let name = shared.table_name.as_str();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        shared
            .metrics
            .records
            .with_label_values(&[name])
            .set(gauge(live));
        shared
            .metrics
            .tombstones
            .with_label_values(&[name])
            .set(gauge(tombstones));
        let clock = self.clock.last().wall().as_millis();
        let ahead = clock.saturating_sub(wall_now().as_millis());
        shared
            .metrics
            .clock_ahead_ms
            .set(i64::try_from(ahead).unwrap_or(i64::MAX));
    }
}

/// A command that was decided, and waits for the store.
enum Decided {
    Write {
        results: Vec<Result<Written, WriteError>>,
        answer: Answer<Vec<Result<Written, WriteError>>>,
    },
    Merge {
        results: Vec<Merged>,
        stamped: Vec<WallTime>,
        via: Via,
        answer: Answer<Vec<Merged>>,
    },
}

impl Decided {
    fn into_answer(self) -> AnyAnswer {
        match self {
            Self::Write { answer, .. } => AnyAnswer::Write(answer),
            Self::Merge { answer, .. } => AnyAnswer::Merge(answer),
        }
    }
}

/// Where the answer to a command goes, whichever it was.
enum AnyAnswer {
    Write(Answer<Vec<Result<Written, WriteError>>>),
    Merge(Answer<Vec<Merged>>),
}

/// Says to each that nothing was changed.
fn fail(answers: impl ExactSizeIterator<Item = AnyAnswer>, error: StoreError) {
    tracing::error!(%error, commands = answers.len(), "the store refused; nothing was changed");
    let error = Arc::new(error);
    for answer in answers {
        let error = OwnerError::Store(Arc::clone(&error));
        match answer {
            AnyAnswer::Write(answer) => drop(answer.send(Err(error))),
            AnyAnswer::Merge(answer) => drop(answer.send(Err(error))),
        }
    }
}

fn decide(plan: &mut Plan<'_>, command: Command, now: WallTime) -> Decided {
    match command {
        Command::Write { writes, answer } => {
            let results = writes
                .iter()
                .map(|write| decide_write(plan, write, now))
                .collect();
            Decided::Write { results, answer }
        }
        Command::Merge {
            records,
            via,
            answer,
        } => {
            let stamped = records
                .iter()
                .map(|(_, entry)| entry.version.reading.wall())
                .collect();
            let merge = |(key, entry)| plan.merge(&key, entry, via);
            let results = records.into_iter().map(merge).collect();
            Decided::Merge {
                results,
                stamped,
                via,
                answer,
            }
        }
    }
}

fn decide_write(plan: &mut Plan<'_>, write: &Write, now: WallTime) -> Result<Written, WriteError> {
    let Write {
        key,
        precondition,
        operation,
    } = write;
    let created = plan.live_version(key).is_none();
    let entry = match operation {
        Operation::Put(draft) => put(plan, key, precondition, draft, now)?,
        Operation::Patch(patch) => {
            plan.demand(key, precondition)?;
            if created {
                return Err(WriteRefused::Absent.into());
            }
            let held = plan.live_entry(key).ok_or(WriteRefused::Unreadable)?;
            let body = patch.apply(key, held)?;
            if body.peer_id.is_none_or(|id| id != *key) {
                return Err(InvalidField::fixed_id(key).into());
            }
            put(plan, key, precondition, &body.draft, now)?
        }
        Operation::Delete => plan.delete(key, precondition)?,
        Operation::Contact(contact) => plan.contact(key, *contact)?,
    };
    Ok(Written { entry, created })
}

fn put(
    plan: &mut Plan<'_>,
    key: &Key,
    precondition: &Precondition,
    draft: &Draft,
    now: WallTime,
) -> Result<Entry, WriteRefused> {
    let held = plan.live_entry(key).and_then(Entry::content);
    let created_at = held.and_then(peers::created_at).unwrap_or(now);
    let new = NewContent {
        content: draft.content(created_at),
        contact: draft.contact,
    };
    plan.put(key, precondition, new)
}
