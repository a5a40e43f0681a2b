//! Why records are as they are: of the keys that something came for last, how what is held came, what
//! lost to it, and what was refused. It is for people to look at; nothing is decided by it.
//!
//! Bounded: [`History::KEYS_MAX`] keys, of which the one goes for which nothing came for longest, and
//! [`History::OF_KEY_MAX`] losers and as many refusals of each. What says the same again is counted
//! and not kept twice.

mod reason;

use indexmap::IndexMap;

pub use self::reason::{Loss, Refusal};
use crate::clock::{Version, WallTime};
use crate::feed::Via;
use crate::fingerprint::FingerprintKey;
use crate::ids::StoreId;
use crate::key::{KEY_BYTES_MAX, Key, KeyHash};
use crate::table::Merged;

/// How something came here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// By whom or by what.
    pub via: Via,
    /// The store of the replica that sent it; `None` for what was written here.
    pub from: Option<StoreId>,
}

impl Way {
    /// Of what is written here.
    pub const LOCAL: Self = Self {
        via: Via::Local,
        from: None,
    };
}

/// A version, and whether it is live or a tombstone.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Stamped {
    /// The version.
    pub version: Version,
    /// Whether it is not a tombstone.
    pub is_live: bool,
}

/// What became of something that came for a key.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It is held now, in place of what was held before.
    Taken {
        /// It.
        taken: Stamped,
        /// What it replaced.
        over: Option<Stamped>,
    },
    /// It lost.
    Lost {
        /// It.
        lost: Stamped,
        /// Why.
        loss: Loss,
    },
    /// It was refused.
    Refused {
        /// Its version; a local write has none.
        version: Option<Version>,
        /// Why.
        refusal: Refusal,
    },
}

/// Something that came for a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// For which.
    pub key: Key,
    /// How it came.
    pub way: Way,
    /// What became of it.
    pub noted: Noted,
}

impl Note {
    /// A local write that was refused.
    pub const fn write_refused(key: Key, refusal: Refusal) -> Self {
        Self {
            key,
            way: Way::LOCAL,
            noted: Noted::Refused {
                version: None,
                refusal,
            },
        }
    }
}

impl Noted {
    /// What is to be remembered of a record from a peer of which `merged` became; `held` is what was
    /// held before. `None` if it is no news.
    pub(crate) fn of(came: Stamped, held: Option<Stamped>, merged: Merged) -> Option<Self> {
        let lost = |loss| Self::Lost { lost: came, loss };
        let refused = |refusal| Self::Refused {
            version: Some(came.version),
            refusal,
        };
        Some(match merged {
            Merged::Applied => Self::Taken {
                taken: came,
                over: held,
            },
            Merged::Contact | Merged::Equal => {
                let is_older = held.is_some_and(|held| came.version < held.version);
                return is_older.then(|| lost(Loss::Older));
            }
            Merged::Stale if held.is_some_and(|held| held.version == came.version) => {
                lost(Loss::SameVersion)
            }
            Merged::Stale => lost(Loss::Older),
            Merged::Ghost => lost(Loss::Ghost),
            Merged::Collected => lost(Loss::Collected),
            Merged::Fenced => refused(Refusal::Fenced),
            Merged::Deferred => refused(Refusal::Deferred),
            Merged::Refused(why) => refused(why.into()),
        })
    }
}

/// How what is held came.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// What came.
    pub version: Version,
    /// When, by this machine's clock.
    pub at: WallTime,
    /// How.
    pub way: Way,
}

/// A version that lost.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// It.
    pub lost: Stamped,
    /// When it lost, by this machine's clock; the last time if it came more often.
    pub at: WallTime,
    /// How it had come; `None` if that is not remembered, or was before anything is.
    pub way: Option<Way>,
    /// Why.
    pub loss: Loss,
    /// How often it lost so.
    pub times: u32,
}

/// What was refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its version; a local write has none.
    pub version: Option<Version>,
    /// When, by this machine's clock; the last time if it came more often.
    pub at: WallTime,
    /// How it came.
    pub way: Way,
    /// Why.
    pub refusal: Refusal,
    /// How often.
    pub times: u32,
}

/// What is remembered of one key, the newest last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Remembered {
    /// How what is held came, or what was held last.
    pub arrived: Option<Arrived>,
    /// What lost: [`History::OF_KEY_MAX`] at the most.
    pub lost: Vec<Lost>,
    /// What was refused: as many at the most.
    pub refused: Vec<Refused>,
}

/// No place in the order of use.
const NONE: u32 = u32::MAX;

/// A key's entry, within the order in which something last came for the keys.
#[derive(Debug)]
struct Known {
    arrived: Option<Arrived>,
    /// Most keys have nothing in here.
    rest: Option<Box<Rest>>,
    newer: u32,
    older: u32,
}

#[derive(Debug, Default)]
struct Rest {
    lost: Vec<Lost>,
    refused: Vec<Refused>,
}

/// What came for the latest keys.
#[derive(Debug)]
pub struct History {
    /// A key stays where it is in the map as long as it is remembered.
    known: IndexMap<Key, Known, KeyHash>,
    newest: u32,
    oldest: u32,
    keys_max: usize,
    has_forgotten: bool,
}

impl History {
    /// Keys of which something is remembered at the most.
    pub const KEYS_MAX: usize = 4_096;
    /// Losers of one key at the most, and refusals.
    pub const OF_KEY_MAX: usize = 8;
    /// Bytes that it holds at the most, where each key is as long as one may be and has as many losers
    /// and refusals as are kept. A key for which something came once takes some 120, and its text.
    pub const BYTES_MAX: usize = {
        let key = size_of::<(u64, Key, Known)>() + 2 * size_of::<usize>() + KEY_BYTES_MAX;
        // Twice that for the table by which keys are found, which is a half empty.
        let found = 2 * (size_of::<usize>() + 1);
        let of_key = size_of::<Lost>() + size_of::<Refused>();
        Self::KEYS_MAX * (key + found + size_of::<Rest>() + Self::OF_KEY_MAX * of_key)
    };

    /// Nothing yet; keys are found by a hash that `key` makes.
    pub fn new(key: &FingerprintKey) -> Self {
        Self::with_room(key, Self::KEYS_MAX)
    }

    fn with_room(key: &FingerprintKey, keys_max: usize) -> Self {
        Self {
            known: IndexMap::with_capacity_and_hasher(keys_max, key.into()),
            newest: NONE,
            oldest: NONE,
            keys_max,
            has_forgotten: false,
        }
    }

    /// Whether a key was forgotten for another.
    pub const fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// Notes what came at `at`, in its order.
    pub fn note(&mut self, notes: impl IntoIterator<Item = Note>, at: WallTime) {
        for Note { key, way, noted } in notes {
            let place = self.place(key);
            if let Some((_, known)) = self.known.get_index_mut(place as usize) {
                known.note(way, noted, at);
            }
        }
    }

    /// What is remembered of `key`.
    pub fn of(&self, key: &Key) -> Remembered {
        let Some(known) = self.known.get(key) else {
            return Remembered::default();
        };
        let (lost, refused) = match &known.rest {
            Some(rest) => (rest.lost.clone(), rest.refused.clone()),
            None => (Vec::new(), Vec::new()),
        };
        Remembered {
            arrived: known.arrived,
            lost,
            refused,
        }
    }

    /// The place of `key`, which is the newest from now on. If it is new and there is no room, it gets
    /// the place of the oldest, without a search and without memory being given back and taken.
    fn place(&mut self, key: Key) -> u32 {
        if let Some(place) = self.known.get_index_of(&key) {
            let place = u32::try_from(place).unwrap_or(NONE);
            if place != self.newest {
                self.unlink(place);
                self.link(place);
            }
            return place;
        }
        let place = if self.known.len() < self.keys_max {
            let place = u32::try_from(self.known.len()).unwrap_or(NONE);
            self.known.insert(
                key,
                Known {
                    arrived: None,
                    rest: None,
                    newer: NONE,
                    older: NONE,
                },
            );
            place
        } else {
            let place = self.oldest;
            self.has_forgotten = true;
            self.unlink(place);
            // It is not in the map, as it was looked for.
            drop(self.known.replace_index(place as usize, key));
            if let Some((_, known)) = self.known.get_index_mut(place as usize) {
                (known.arrived, known.rest) = (None, None);
            }
            place
        };
        self.link(place);
        place
    }

    fn known_at(&mut self, place: u32) -> Option<&mut Known> {
        let (_, known) = self.known.get_index_mut(place as usize)?;
        Some(known)
    }

    /// Takes a place out of the order.
    fn unlink(&mut self, place: u32) {
        let Some(known) = self.known_at(place) else {
            return;
        };
        let (newer, older) = (known.newer, known.older);
        match self.known_at(newer) {
            Some(known) => known.older = older,
            None => self.newest = older,
        }
        match self.known_at(older) {
            Some(known) => known.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts a place that is not in the order at its newest end.
    fn link(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.newest, place);
        if let Some(known) = self.known_at(place) {
            (known.newer, known.older) = (NONE, before);
        }
        match self.known_at(before) {
            Some(known) => known.newer = place,
            None => self.oldest = place,
        }
    }
}

impl Known {
    fn note(&mut self, way: Way, noted: Noted, at: WallTime) {
        match noted {
            Noted::Taken { taken, over } => {
                if let Some(over) = over {
                    self.beaten(over, taken, at);
                }
                self.arrived = Some(Arrived {
                    version: taken.version,
                    at,
                    way,
                });
            }
            Noted::Lost { lost, loss } => self.lost(Lost {
                lost,
                at,
                way: Some(way),
                loss,
                times: 1,
            }),
            Noted::Refused { version, refusal } => {
                let refused = &mut self.rest.get_or_insert_default().refused;
                let same = |it: &Refused| it.version == version && it.refusal == refusal;
                let times = remove(refused, same).map_or(1, |it| it.times.saturating_add(1));
                refused.push(Refused {
                    version,
                    at,
                    way,
                    refusal,
                    times,
                });
            }
        }
    }

    /// What was held was beaten by what came.
    fn beaten(&mut self, lost: Stamped, by: Stamped, at: WallTime) {
        let why = match (lost.is_live, by.is_live) {
            (true, false) => Loss::Deleted,
            _ if lost.version == by.version => Loss::SameVersion,
            _ => Loss::Overwritten,
        };
        let arrived = self.arrived.filter(|it| it.version == lost.version);
        self.lost(Lost {
            lost,
            at,
            way: arrived.map(|it| it.way),
            loss: why,
            times: 1,
        });
    }

    fn lost(&mut self, new: Lost) {
        let lost = &mut self.rest.get_or_insert_default().lost;
        let same = |it: &Lost| it.lost == new.lost && it.loss == new.loss;
        let times = remove(lost, same).map_or(1, |it| it.times.saturating_add(1));
        lost.push(Lost { times, ..new });
    }
}

/// Makes room for one more: takes out what is the same, or else the oldest if there is no room.
fn remove<T>(kept: &mut Vec<T>, same: impl Fn(&T) -> bool) -> Option<T> {
    if let Some(at) = kept.iter().position(same) {
        return Some(kept.remove(at));
    }
    if kept.len() >= History::OF_KEY_MAX {
        kept.remove(0);
    } else if kept.len() == kept.capacity() {
        // Not twice as many each time: that would go beyond what is kept.
        let more = kept.len().max(1).min(History::OF_KEY_MAX - kept.len());
        kept.reserve_exact(more);
    }
    None
}

#[cfg(test)]
mod tests;
