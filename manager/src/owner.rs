//! The owner of the table: one task through which every write goes, and a handle to read and write.
//!
//! The task takes what waits in its queue as one group, has the table decide it, writes it to the
//! store as one transaction, and only then brings the table up to date, answers, and wakes those
//! who watch. While a transaction is under way the next group gathers. Readers take the table's
//! lock for moments and never across a call of the store.
//!
//! When the store turns out not to be what it was, the task opens it anew and reads the table from
//! what is there. Until then everything that needs the store is refused.

mod clock;
mod explain;
mod floors;
mod load;
mod mutual;
mod pod;
mod read;
mod recent;
mod signs;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peer_table::contract::{FingerprintPage, InvalidMessage, State};
use peer_table::feed::{Change, Feed, FeedLimits, Gone, Revision, Via};
use peer_table::floors::{Ages, Floors};
use peer_table::history::{History, Refusal};
use peer_table::peers::{self, Draft, InvalidField, Patch};
use peer_table::sketch::Sketch;
use peer_table::table::{
    Limits, Merged, NewContent, Plan, Precondition, SessionId, TableSpec, WriteRefused,
};
use peer_table::{
    AuthorityId, Binding, Clock, ClusterId, Contact, Entry, Fingerprint, FingerprintKey, Key,
    OriginId, Reading, StoreId, Table, TableName, WallTime,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::clock::OwnClock;
use self::clock::{Contradicted, MindsClock};
pub use self::explain::{Explanation, OriginSeen, Since};
use self::floors::FloorsCommand;
pub use self::floors::{ReplicasView, Tending};
use self::mutual::Mutual;
pub use self::pod::BindRefused;
use self::pod::{Kept, known_as};
use self::read::{QUEUE_READS_MAX, Read};
use self::recent::Recent;
use self::task::Doubt;
use crate::config::{PodArgs, Storage};
use crate::metrics::Metrics;
use crate::store::{Opening, Store, StoreError};

/// Commands that may wait for the owner; more wait at their senders.
const QUEUE_COMMANDS_MAX: usize = 1_024;
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
    /// What is known of the pod.
    pub pod: PodArgs,
    /// How long silence, fences and publications last.
    pub ages: Ages,
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
    /// What is stored under this key is not what was written.
    #[error("what is stored of {0} is damaged; PUT it anew, or wait for a peer's copy")]
    Unreadable(Key),
    /// The store was opened anew since something was begun that needs all of one opening.
    #[error("the store was opened anew meanwhile: begin again")]
    Reopened,
    /// The fingerprints are being made anew.
    #[error("the table is being bound to the authority of its cluster: try again in a moment")]
    Binding,
    /// This machine's clock is not that of most others.
    #[error(
        "this machine's clock is {} s off those of most other replicas: set it, and writes are \
         taken again by themselves", .0.as_secs_f64()
    )]
    ClockOff(Duration),
    /// The store was begun anew, as its peers have given it up.
    #[error("this replica was given up by its peers and has started over: begin again")]
    StartedOver,
    /// This replica and another have given each other up.
    #[error(
        "this replica and its partner have given each other up: on the one whose records may be \
         dropped, run: udht-manager replicas start-over"
    )]
    Mutual,
    /// What a sync said makes no sense.
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    /// The pod is going.
    #[error("this pod is going, and its manager takes no further write: write to another pod")]
    Leaving,
    /// It has ended.
    #[error("the manager is stopping")]
    Stopped,
}

/// Why no local write is taken, whatever it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Closed {
    /// The pod is going.
    Leaving,
    /// This machine's clock is so far off.
    ClockOff(Duration),
}

impl Closed {
    const fn refusal(self) -> Refusal {
        match self {
            Self::Leaving => Refusal::Leaving,
            Self::ClockOff(_) => Refusal::ClockOff,
        }
    }
}

impl From<Closed> for OwnerError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Leaving => Self::Leaving,
            Closed::ClockOff(off) => Self::ClockOff(off),
        }
    }
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
        session: Option<SessionId>,
        from: Option<StoreId>,
        answer: Answer<MergedRecords>,
    },
    Floors(FloorsCommand),
    Bind {
        binding: Binding,
        adopts: Vec<AuthorityId>,
        answer: Answer<Result<(), BindRefused>>,
    },
    Leave {
        for_good: bool,
        answer: Answer<bool>,
    },
    /// What is stored under these keys is not what the index says: look, and correct the index.
    Correct(Vec<Key>),
}

/// What became of records from a peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MergedRecords {
    /// Of each, in their order.
    pub outcomes: Vec<Merged>,
    /// The tombstones that beat some of them, for who sent them.
    pub answers: Vec<(Key, Entry)>,
}

type Answer<T> = oneshot::Sender<Result<T, OwnerError>>;

/// What the owner's task and its handles share.
struct Shared {
    /// The cluster's id, without the authority that it may be under.
    cluster: ClusterId,
    limits: Limits,
    drift_max: Duration,
    storage: Storage,
    /// Labels that are always on the pod's own record.
    labels: BTreeMap<String, String>,
    /// Whether the pod is going.
    leaving: AtomicBool,
    ages: Ages,
    tending: Mutex<Tending>,
    mutual: Mutual,
    /// Since when the program runs, by a clock that is never set.
    began: Instant,
    /// That others contradict this machine's clock, while they do.
    contradicted: Mutex<Option<Contradicted>>,
    table_name: TableName,
    /// Taken before `current` where both are.
    history: Mutex<History>,
    /// Since when there is a history.
    since: WallTime,
    current: RwLock<Current>,
    recent: Recent,
    store: Arc<dyn Store>,
    revision: watch::Sender<Revision>,
    metrics: Arc<Metrics>,
}

/// What goes with one opening of the store.
struct Current {
    opening: Opening,
    /// The cluster's whole id.
    cluster: ClusterId,
    table: Table,
    /// When the table was read from the store.
    read_at: WallTime,
    /// Whether its fingerprints are being made anew.
    is_rekeying: bool,
    /// Why it is over: while the store is being opened anew.
    over: Option<Arc<StoreError>>,
}

impl Shared {
    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless it is over.
    fn valid(&self) -> Result<RwLockReadGuard<'_, Current>, OwnerError> {
        let current = self.current();
        match &current.over {
            Some(error) => Err(OwnerError::Store(Arc::clone(error))),
            None => Ok(current),
        }
    }

    /// The same, unless its fingerprints are being made anew.
    fn keyed(&self) -> Result<RwLockReadGuard<'_, Current>, OwnerError> {
        let current = self.current();
        if current.is_rekeying {
            return Err(OwnerError::Binding);
        }
        Ok(current)
    }

    /// Why no local write is taken now, if so.
    fn closed(&self) -> Option<Closed> {
        if self.is_leaving() {
            Some(Closed::Leaving)
        } else {
            self.clock_off().map(Closed::ClockOff)
        }
    }

    fn change(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the table: cheap to clone, reads what is committed, writes through the owner's task.
#[derive(Clone)]
pub struct Owner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    reads: mpsc::Sender<Read>,
}

/// The task that owns the table; it ends when the last [`Owner`] is gone.
pub struct OwnerTask {
    work: Work,
    reading: read::Reading,
}

/// What is done to the table.
struct Work {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    clock: Clock,
    /// What was being written when the store no longer said whether it is.
    doubt: Option<Doubt>,
    minds_clock: MindsClock,
    /// When the floors were stored last.
    floors_stored: Option<Instant>,
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
    let OwnerConfig {
        cluster,
        limits,
        drift_max,
        pod,
        ages,
    } = config;
    let mut opening = store.opening().clone();
    let (whole, fingerprint_key) = known_as(&cluster, &opening)?;
    let table_name = peers::table_name();
    let floors = load::floors(&mut opening)?;
    let spec = spec(&table_name, &fingerprint_key, limits, &opening, floors);
    let (table, highest) = load::load(&*store, &spec, &metrics).await?;
    let clock = opening.clock(highest, drift_max);
    let (revision, _) = watch::channel(table.feed().revision());
    let now = wall_now();
    let shared = Arc::new(Shared {
        cluster,
        limits,
        drift_max,
        storage: pod.storage,
        labels: pod.labels(),
        leaving: AtomicBool::new(false),
        ages,
        tending: Mutex::default(),
        mutual: Mutual::default(),
        began: Instant::now(),
        contradicted: Mutex::default(),
        table_name,
        history: Mutex::new(History::new(&fingerprint_key)),
        recent: Recent::new(&fingerprint_key),
        since: now,
        current: RwLock::new(Current {
            opening,
            cluster: whole,
            table,
            read_at: now,
            is_rekeying: false,
            over: None,
        }),
        store,
        revision,
        metrics,
    });
    let (sender, receiver) = mpsc::channel(QUEUE_COMMANDS_MAX);
    let (reads, waiting) = mpsc::channel(QUEUE_READS_MAX);
    let work = Work {
        shared: Arc::clone(&shared),
        commands: receiver,
        clock,
        doubt: None,
        minds_clock: MindsClock::AfterStart,
        floors_stored: None,
    };
    work.publish_figures();
    let reading = read::Reading::new(&shared, waiting, &sender);
    let owner = Owner {
        shared,
        commands: sender,
        reads,
    };
    Ok((owner, OwnerTask { work, reading }))
}

/// What the table of one opening is made of.
fn spec(
    name: &TableName,
    fingerprint_key: &FingerprintKey,
    limits: Limits,
    opening: &Opening,
    floors: Floors,
) -> TableSpec {
    let (epoch, _) = opening.origin.as_bytes().split_at(8);
    TableSpec {
        name: name.clone(),
        fingerprint_key: fingerprint_key.clone(),
        check_content: peers::check_content,
        limits,
        sketch_symbols: Sketch::LEN,
        epoch: u64::from_be_bytes(epoch.try_into().unwrap_or_default()),
        feed: FeedLimits::default(),
        floors,
    }
}

impl Owner {
    /// What the last opening of the store found and made.
    pub fn opening(&self) -> Opening {
        self.shared.current().opening.clone()
    }

    /// The id of the last opening of the store.
    pub fn origin(&self) -> OriginId {
        self.shared.current().opening.origin
    }

    /// The `peer_id` of this pod's own record.
    pub fn own_key(&self) -> Key {
        self.shared.current().opening.peer_id.clone()
    }

    /// The whole id of the table's cluster.
    pub fn cluster(&self) -> ClusterId {
        self.shared.current().cluster.clone()
    }

    /// The table's name.
    pub fn table_name(&self) -> &TableName {
        &self.shared.table_name
    }

    /// How many live records and tombstones there are.
    pub fn counts(&self) -> (usize, usize) {
        let current = self.shared.current();
        (current.table.live(), current.table.tombstones())
    }

    /// The most records that the table takes.
    pub fn records_max(&self) -> usize {
        self.shared.limits.records_max
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
        if let Some(closed) = self.shared.closed() {
            self.shared.refused(&writes, closed.refusal());
            return Err(closed.into());
        }
        let (answer, answered) = oneshot::channel();
        self.send(Command::Write { writes, answer }).await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    /// Merges records in one transaction. The replica of the store `from` sent them, where that is
    /// known, and they came by the exchange `session` if that is ours.
    pub async fn merge(
        &self,
        from: Option<StoreId>,
        records: Vec<(Key, Entry)>,
        via: Via,
        session: Option<SessionId>,
    ) -> Result<MergedRecords, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Merge {
            records,
            via,
            session,
            from,
            answer,
        })
        .await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    async fn send(&self, command: Command) -> Result<(), OwnerError> {
        if self.commands.capacity() == 0 {
            self.note_crowd();
        }
        self.commands
            .send(command)
            .await
            .map_err(|_| OwnerError::Stopped)
    }

    /// Whether a put would be taken now, for all that can be told without the store; if so, whether
    /// the key would be new to the table.
    pub fn rehearse_put(&self, key: &Key, draft: Draft) -> Result<bool, WriteError> {
        let now = wall_now();
        let current = self.shared.current();
        let Current { opening, table, .. } = &*current;
        let mut clock = Clock::new(opening.origin, Reading::default(), self.shared.drift_max);
        let held = BTreeMap::new();
        let mut plan = table.plan(&mut clock, now, &held);
        let kept = self.shared.kept(opening);
        put(&mut plan, key, &Precondition::default(), draft, &kept, now)?;
        Ok(table.row(key).is_none())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.shared.current().table.feed().revision()
    }

    /// Up to `limit` changes after `since`.
    pub fn changes_since(
        &self,
        since: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Arc<Change>)>, Gone> {
        Feed::since(self.shared.current().table.feed(), since, limit)
    }

    /// Wakes at each change.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// Who this replica is and how its table stands, with the first `symbols` coded symbols.
    pub fn state(&self, symbols: usize) -> Result<State, OwnerError> {
        let current = self.shared.keyed()?;
        let Current {
            opening,
            cluster,
            table,
            ..
        } = &*current;
        Ok(State::of(cluster, opening, table, symbols, None))
    }

    /// Up to `limit` fingerprints in ascending order, from the first at or above `from`.
    pub fn fingerprints(
        &self,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, OwnerError> {
        let current = self.shared.keyed()?;
        Ok(FingerprintPage::of(&current.table, from, limit))
    }
}

fn put(
    plan: &mut Plan<'_>,
    key: &Key,
    precondition: &Precondition,
    draft: Draft,
    kept: &Kept<'_>,
    now: WallTime,
) -> Result<Entry, WriteError> {
    let draft = kept.on(key, draft)?;
    let held = plan.live_entry(key).and_then(Entry::content);
    let created_at = held.and_then(peers::created_at).unwrap_or(now);
    let new = NewContent {
        contact: draft.contact,
        content: draft.content(created_at),
    };
    Ok(plan.put(key, precondition, new)?)
}
