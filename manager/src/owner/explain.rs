//! Why a record is as it is, and what was refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use peer_table::feed::Via;
use peer_table::floors::{Fence, Whose};
use peer_table::history::{Arrived, History, Note, Noted, Refusal, Remembered, Stamped, Way};
use peer_table::peers::Peer;
use peer_table::table::Changes;
use peer_table::{Contact, Key, OriginId, StoreId, Version, WallTime};

use super::{Command, Current, Owner, Shared, Write, WriteError, wall_now};

/// What is known of one key, and of those that had a part in it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What is held, and the last contact; `None` if nothing is.
    pub held: Option<(Stamped, Contact)>,
    /// How what is held came here.
    pub since: Option<Since>,
    /// What lost and what was refused.
    pub remembered: Remembered,
    /// Who wrote the versions that are told of.
    pub origins: BTreeMap<OriginId, OriginSeen>,
    /// Of the stores that sent something, the `peer_id` of their pods.
    pub pods: BTreeMap<StoreId, Key>,
    /// What the records of these pods are called.
    pub names: BTreeMap<Key, String>,
    /// Since when anything is remembered.
    pub remembers_since: WallTime,
}

impl Explanation {
    /// Whether nothing at all is known of the key.
    pub const fn is_empty(&self) -> bool {
        let Remembered { lost, refused, .. } = &self.remembered;
        self.held.is_none() && lost.is_empty() && refused.is_empty()
    }
}

/// How what is held came here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Since {
    /// It came so, and then.
    Came(Way, WallTime),
    /// It was in the store when the table was read from it, then.
    Store(WallTime),
}

/// Who stamped a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginSeen {
    /// Whose opening it is, where that is known.
    pub whose: Option<Whose>,
    /// Whether it is one of this replica's.
    pub is_own: bool,
    /// Why it writes no more, if it does not.
    pub fence: Option<Fence>,
}

impl OriginSeen {
    fn of(origin: OriginId, current: &Current) -> Self {
        let (floors, opening) = (current.table.floors(), &current.opening);
        let is_own = origin == opening.origin || opening.retired.contains(&origin);
        let own = || Whose {
            store: opening.store,
            peer_id: Some(opening.peer_id.clone()),
        };
        let whose = floors.whose(origin).or_else(|| is_own.then(own));
        Self {
            // A store that started over has the ids of the one before it.
            is_own: is_own || whose.as_ref().is_some_and(|it| it.store == opening.store),
            fence: floors.ids().fence(origin),
            whose,
        }
    }
}

impl From<&WriteError> for Refusal {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Invalid(_) => Self::Invalid,
        }
    }
}

impl Shared {
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that these writes were refused.
    pub(super) fn refused(&self, writes: &[Write], refusal: Refusal) {
        let notes = writes.iter().map(|write| write.key.clone());
        let notes = notes.map(|key| Note::write_refused(key, refusal));
        self.history().note(notes, wall_now());
    }

    /// Remembers that none of this was stored.
    pub(super) fn not_stored(&self, changes: Changes) {
        let (at, notes) = (changes.at(), changes.notes);
        let notes = notes.into_iter().map(|note| match note.noted {
            Noted::Taken { taken, .. } => Note {
                noted: Noted::Refused {
                    version: (note.way.via != Via::Local).then_some(taken.version),
                    refusal: Refusal::Store,
                },
                ..note
            },
            Noted::Lost { .. } | Noted::Refused { .. } => note,
        });
        self.history().note(notes, at);
    }

    /// Remembers that nothing of these was done, as the store could not.
    pub(super) fn not_done(&self, group: &[Command]) {
        let notes = group.iter().flat_map(|command| {
            let (writes, records, way) = match command {
                Command::Write { writes, .. } => (writes.as_slice(), &[][..], Way::LOCAL),
                Command::Merge {
                    records, via, from, ..
                } => {
                    let (via, from) = (*via, *from);
                    (&[][..], records.as_slice(), Way { via, from })
                }
                _ => (&[][..], &[][..], Way::LOCAL),
            };
            let writes = writes.iter().map(|write| (&write.key, None));
            let records = records.iter().map(|(key, it)| (key, Some(it.version)));
            writes.chain(records).map(move |(key, version)| Note {
                key: key.clone(),
                way,
                noted: Noted::Refused {
                    version,
                    refusal: Refusal::Store,
                },
            })
        });
        self.history().note(notes, wall_now());
    }
}

impl Owner {
    /// Remembers that a write of `key` was refused before it came here, as it breaks a rule.
    pub fn refused_at_the_door(&self, key: &Key, refusal: Refusal) {
        let note = Note::write_refused(key.clone(), refusal);
        self.shared.history().note([note], wall_now());
    }

    /// Why the record of `key` is as it is. Needs the store for the names of pods alone, and does
    /// without where that fails.
    pub async fn explain(&self, key: &Key) -> Explanation {
        let mut explanation = self.shared.explain(key);
        let origins = explanation.origins.values();
        let origins = origins.filter_map(|it| it.whose.as_ref()?.peer_id.as_ref());
        let pods: BTreeSet<_> = origins.chain(explanation.pods.values()).cloned().collect();
        explanation.names = self.names(pods).await;
        explanation
    }

    /// What these records are called, those that are there and can be read.
    pub async fn names(&self, keys: impl IntoIterator<Item = Key>) -> BTreeMap<Key, String> {
        let mut names = BTreeMap::new();
        for key in keys {
            let Ok(Some(entry)) = self.get(&key).await else {
                continue;
            };
            if let Ok(Some(peer)) = Peer::from_entry(&key, &entry) {
                names.insert(key, peer.name);
            }
        }
        names
    }
}

impl Shared {
    fn explain(&self, key: &Key) -> Explanation {
        let history = self.history();
        let current = self.current();
        let remembered = history.of(key);
        let has_forgotten = history.has_forgotten();
        drop(history);
        let row = current.table.row(key);
        let held = row.map(|row| {
            let (version, is_live) = (row.version, row.is_live());
            (Stamped { version, is_live }, row.contact)
        });
        let since = held.and_then(|(held, _)| match remembered.arrived {
            Some(Arrived { version, at, way }) if version == held.version => {
                Some(Since::Came(way, at))
            }
            // Nobody else can have stamped it, though it is no longer remembered.
            _ if held.version.origin == current.opening.origin => {
                Some(Since::Came(Way::LOCAL, held.version.reading.wall()))
            }
            None if has_forgotten => None,
            _ => Some(Since::Store(current.read_at)),
        });
        let versions = held.iter().map(|(held, _)| held.version);
        let versions = versions.chain(remembered.lost.iter().map(|it| it.lost.version));
        let versions = versions.chain(remembered.refused.iter().filter_map(|it| it.version));
        let origins = versions.map(|Version { origin, .. }| origin);
        let origins = origins.map(|origin| (origin, OriginSeen::of(origin, &current)));
        let origins = origins.collect();
        let ways = match since {
            Some(Since::Came(way, _)) => Some(way),
            _ => None,
        };
        let ways = ways.into_iter();
        let ways = ways.chain(remembered.lost.iter().filter_map(|it| it.way));
        let ways = ways.chain(remembered.refused.iter().map(|it| it.way));
        let stores: BTreeSet<_> = ways.filter_map(|way| way.from).collect();
        let floors = current.table.floors();
        let pods = stores.into_iter();
        let pods = pods.filter_map(|store| Some((store, floors.pod_of(store)?.clone())));
        Explanation {
            held,
            since,
            origins,
            pods: pods.collect(),
            names: BTreeMap::new(),
            remembers_since: self.since,
            remembered,
        }
    }
}
