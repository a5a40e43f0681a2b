//! A pod: its store, its clock, and what of its two programs is in memory.

use std::collections::{BTreeSet, VecDeque};

use peer_exchange::book::Uptime;
use peer_exchange::handshake::{PROTOCOLS, Protocols};
use peer_exchange::{Address, PeerBook};
use peer_table::contract::MergeAnswer;
use peer_table::feed::{Revision, Via};
use peer_table::floors::{Evidence, Publication, Replicas, Snapshot, Storage};
use peer_table::table::{Precondition, SessionId};
use peer_table::{
    Clock, ClusterId, Contact, Entry, FingerprintKey, Key, Opening, OriginId, Reading, Table,
    WallTime,
};

use crate::history::Program;
use crate::store::SimStore;
use crate::world::{Answer, Life, START_MS};

/// A pod.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault of its own, and any of them may meet any other"
)]
pub(crate) struct Pod {
    /// Its number.
    pub(crate) number: usize,
    /// Its cluster: 0, or that of the strangers.
    pub(crate) cluster: usize,
    /// Where its sync listens.
    pub(crate) address: Address,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) off_ms: i64,
    /// Whether it lies.
    pub(crate) is_liar: bool,
    /// The versions of the protocol that it understands.
    pub(crate) protocols: Protocols,
    /// Its store.
    pub(crate) store: SimStore,
    /// Whether its store outlives it.
    pub(crate) storage: Storage,
    /// Whether it went for good.
    pub(crate) is_gone: bool,
    /// Whether it is away for a while.
    pub(crate) is_away: bool,
    /// What its manager has in memory.
    pub(crate) manager: Option<Manager>,
    /// What its sync has in memory.
    pub(crate) sync: Option<Sync>,
    /// The programs that run, by how often they were started.
    pub(crate) managers: u64,
    /// The same of the sync.
    pub(crate) syncs: u64,
    /// Whether each runs.
    pub(crate) manager_runs: bool,
    /// The same of the sync.
    pub(crate) sync_runs: bool,
    /// Which program is killed after so many steps of the store, and for how long.
    pub(crate) doom: Option<(Program, u64, u64)>,
    /// Commands that wait for the manager.
    pub(crate) commands: VecDeque<Command>,
    /// Where the manager waits for commands.
    pub(crate) bell: Answer<()>,
}

/// What a manager has in memory.
pub(crate) struct Manager {
    /// What opening the store found and made.
    pub(crate) opening: Opening,
    /// The table.
    pub(crate) table: Table,
    /// The clock.
    pub(crate) clock: Clock,
    /// The highest reading of what exchanges have told it of.
    pub(crate) told: Reading,
    /// Whether the store is being opened anew.
    pub(crate) is_over: bool,
}

/// What a sync has in memory.
pub(crate) struct Sync {
    /// The peers.
    pub(crate) book: PeerBook,
    /// When it was started, in milliseconds.
    pub(crate) started_ms: u64,
    /// Up to where it has read the feed.
    pub(crate) since: Option<Revision>,
    /// What the manager published and is not pushed yet.
    pub(crate) published: Option<Publication>,
    /// The ids under which replicas were talked to and of which the manager was not told yet.
    pub(crate) met: BTreeSet<OriginId>,
    /// The own id under which an exchange with a replica that belongs was completed.
    pub(crate) joined: Option<OriginId>,
}

/// What a manager is asked to write.
pub(crate) enum Command {
    /// Local writes of one transaction.
    Write(Vec<Write>, Answer<Vec<Option<Entry>>>),
    /// Records from a peer, by an exchange of ours or not.
    Merge(
        Vec<(Key, Entry)>,
        Via,
        Option<SessionId>,
        Answer<MergeAnswer>,
    ),
    /// What this replica has, for a partner.
    Snapshot(Answer<Snapshot>),
    /// What another replica knows of all replicas.
    Join(Replicas, Answer<Replicas>),
    /// All that the partner of an exchange of ours had is here.
    Advance(SessionId, Snapshot, Answer<bool>),
    /// The floors are to be looked after.
    Tend(Evidence),
    /// Somebody says that these ids will not come back.
    GiveUp(Vec<OriginId>),
}

/// A local write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Of which record.
    pub(crate) key: Key,
    /// What must hold.
    pub(crate) precondition: Precondition,
    /// What is written.
    pub(crate) operation: Operation,
}

/// What a local write does.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Says something, told apart by this number.
    Put(u64),
    /// Deletes.
    Delete,
    /// Notes a contact.
    Contact(Contact),
}

/// The name of a pod's cluster.
pub(crate) fn cluster_id(cluster: usize) -> ClusterId {
    let text = format!("default/udht-{cluster}");
    text.parse()
        .unwrap_or_else(|_| unreachable!("a cluster id"))
}

/// The key of the fingerprints of a pod's cluster.
pub(crate) fn fingerprint_key(cluster: usize) -> FingerprintKey {
    FingerprintKey::of_cluster(&cluster_id(cluster))
}

impl Pod {
    /// A pod that was never started.
    pub(crate) fn new(number: usize, cluster: usize, address: Address) -> Self {
        Self {
            number,
            cluster,
            address,
            off_ms: 0,
            is_liar: false,
            protocols: PROTOCOLS,
            store: SimStore::default(),
            // Some of each, as on a cluster where some have volumes.
            storage: if number.is_multiple_of(3) {
                Storage::Volume
            } else {
                Storage::Pod
            },
            is_gone: false,
            is_away: false,
            manager: None,
            sync: None,
            managers: 0,
            syncs: 0,
            manager_runs: false,
            sync_runs: false,
            doom: None,
            commands: VecDeque::new(),
            bell: Answer::new(),
        }
    }

    /// The life of a program, if it runs.
    pub(crate) fn life(&self, program: Program) -> Option<Life> {
        let (runs, number) = match program {
            Program::Manager => (self.manager_runs, self.managers),
            Program::Sync | Program::Both => (self.sync_runs, self.syncs),
        };
        runs.then_some(Life {
            pod: self.number,
            program,
            number,
        })
    }

    /// Its wall clock.
    pub(crate) fn wall(&self, now_ms: u64) -> WallTime {
        WallTime::from_millis((START_MS + now_ms).saturating_add_signed(self.off_ms))
    }

    /// How long its sync has run.
    pub(crate) fn uptime(&self, now_ms: u64) -> Uptime {
        let started_ms = self.sync.as_ref().map_or(now_ms, |sync| sync.started_ms);
        Uptime(std::time::Duration::from_millis(now_ms - started_ms))
    }

    /// The `peer_id` of its own record.
    pub(crate) fn own_key(&self) -> Key {
        key(&format!("pod-{}-{}", self.cluster, self.number))
    }

    /// Its manager, unless it is down or its store is being opened anew.
    pub(crate) fn ready(&self) -> Option<&Manager> {
        self.manager.as_ref().filter(|manager| !manager.is_over)
    }

    /// Kills a program.
    pub(crate) fn kill(&mut self, program: Program) {
        if matches!(program, Program::Manager | Program::Both) {
            self.manager = None;
            self.manager_runs = false;
            self.commands.clear();
            self.bell = Answer::new();
        }
        if matches!(program, Program::Sync | Program::Both) {
            self.sync = None;
            self.sync_runs = false;
        }
    }
}

/// The key with this text.
pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap_or_else(|_| unreachable!("a key"))
}
