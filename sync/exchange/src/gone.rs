//! Whose records are to go, as their pods are gone for good; which pod removes each; and the brake.
//!
//! A record says by its label `udht/pod-uid` of which pod it is. Kubernetes lists the pods of the
//! release. A pod that has a record and is not listed is *gone*, once this sync itself has seen that
//! for a while without a break: what Kubernetes says is evidence and not proof, so
//!
//! - the time runs only while the list is followed and names this very pod. When it is not, all that
//!   was waited for is forgotten, and begins anew;
//! - a pod that was never listed to us is waited for from when its record was first found, as a new
//!   pod's record may come before its name;
//! - the *brake* is on, and nothing is removed, while the list is not followed or does not name this
//!   pod, and while more than half of all known pods are gone at once. Known are all that are listed
//!   and all that have a record; so pods that left cleanly, which took their records with them, do
//!   not count. Time does not release it: only pods that come back, new ones that outnumber the gone,
//!   or somebody who says so by hand.
//!
//! Of the pods that are listed and not about to end, the one that a hash of its UID and the
//! record's key ranks highest removes the record: all that see the same list agree on it. Where it
//! does not, the next in rank does after the same time once more, and so on ("rendezvous hashing",
//! Thaler and Ravishankar 1998).
//!
//! The records of pods are found by a pass over a whole table, so [`Gone::next_scan`] asks for few.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use peer_table::Key;
use siphasher::sip::SipHasher24;

use crate::book::Uptime;

/// A scan is made this often at the least, for what no event told of.
pub const SCAN_EVERY: Duration = Duration::from_hours(1);
/// Scans are this part of the waiting time apart, at the least: pods that leave one after the other
/// are looked for together.
pub const SCANS_APART: u32 = 5;

/// The UID that Kubernetes gave a pod: its successor under the same name has another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodUid(pub String);

/// A record that says of which pod it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its key.
    pub key: Key,
    /// The pod.
    pub pod: PodUid,
}

/// Why no record is removed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Brake {
    /// The list of pods is not followed, or does not name this pod.
    Blind,
    /// More than half of the pods are gone at once.
    Many {
        /// How many are gone.
        gone: usize,
        /// How many are known, those that are gone among them.
        known: usize,
    },
}

impl Brake {
    /// The word for it in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blind => "blind",
            Self::Many { .. } => "many",
        }
    }
}

/// What this sync knows of pods that are gone.
#[derive(Clone, Debug)]
pub struct Gone {
    own: PodUid,
    /// The `peer_id` of this pod's own record, once it is known.
    own_key: Option<Key>,
    after: Duration,
    /// Since when the list is followed and names this pod.
    clear_since: Option<Uptime>,
    /// The pods of the list, and whether each is about to end.
    listed: BTreeMap<PodUid, bool>,
    /// Pods that are not listed, and since when this has been seen.
    absent: BTreeMap<PodUid, Uptime>,
    /// What the last scan found.
    held: Vec<Held>,
    scanned: Option<Uptime>,
}

impl Gone {
    /// Nothing is known yet to the pod `own`, which takes another for gone `after` that time.
    pub const fn new(own: PodUid, after: Duration) -> Self {
        Self {
            own,
            own_key: None,
            after,
            clear_since: None,
            listed: BTreeMap::new(),
            absent: BTreeMap::new(),
            held: Vec::new(),
            scanned: None,
        }
    }

    /// Takes in the list of pods, each with whether it is about to end, as it stands at `now`.
    /// `is_followed` says whether it is being followed, or only the last one that was had.
    pub fn sees(
        &mut self,
        is_followed: bool,
        pods: impl IntoIterator<Item = (PodUid, bool)>,
        now: Uptime,
    ) {
        let listed: BTreeMap<_, _> = pods.into_iter().collect();
        if !is_followed || !listed.contains_key(&self.own) {
            self.clear_since = None;
            self.absent.clear();
            return;
        }
        if self.clear_since.is_none() {
            self.clear_since = Some(now);
        } else {
            let left = self.listed.keys().filter(|pod| !listed.contains_key(pod));
            for pod in left {
                self.absent.entry(pod.clone()).or_insert(now);
            }
        }
        self.absent.retain(|pod, _| !listed.contains_key(pod));
        self.listed = listed;
    }

    /// Takes in all records of pods, as they were read at `now`, and the key of this pod's own.
    pub fn scanned(
        &mut self,
        records: impl IntoIterator<Item = Held>,
        own_key: Option<Key>,
        now: Uptime,
    ) {
        self.held = records.into_iter().collect();
        self.own_key = own_key;
        self.scanned = Some(now);
        if self.clear_since.is_none() {
            return;
        }
        let waited_for = self.held.iter().map(|held| &held.pod);
        let mut waited_for: BTreeSet<_> = waited_for
            .filter(|pod| !self.listed.contains_key(pod))
            .cloned()
            .collect();
        self.absent.retain(|pod, _| waited_for.remove(pod));
        // What is left was found just now.
        self.absent
            .extend(waited_for.into_iter().map(|pod| (pod, now)));
    }

    /// Notes that a record is not there any more, or is another one.
    pub fn removed(&mut self, key: &Key) {
        self.held.retain(|held| held.key != *key);
    }

    /// Why nothing is removed at `now`, if so.
    ///
    /// That many are gone counts only when one of them is waited for no longer: else each large
    /// step down would look like trouble until the next scan shows that all left cleanly.
    pub fn brake(&self, now: Uptime) -> Option<Brake> {
        if self.clear_since.is_none() {
            return Some(Brake::Blind);
        }
        let gone: BTreeSet<_> = self.absentees().map(|held| &held.pod).collect();
        let is_late = gone.iter().any(|pod| self.is_over(pod, 1, now));
        let (gone, known) = (gone.len(), gone.len() + self.listed.len());
        (is_late && 2 * gone > known).then_some(Brake::Many { gone, known })
    }

    /// The records whose pod is not listed, each with since when this has been seen; with none while
    /// the list is not followed.
    pub fn waiting(&self) -> impl Iterator<Item = (&Held, Option<Uptime>)> {
        self.absentees()
            .map(|held| (held, self.absent.get(&held.pod).copied()))
    }

    /// The records that this pod is to remove at `now`: none while the brake is on.
    pub fn due(&self, now: Uptime) -> Vec<Held> {
        if self.brake(now).is_some() {
            return Vec::new();
        }
        let is_due = |held: &&Held| {
            let is_own_turn = |rank| self.is_over(&held.pod, rank + 1, now);
            self.is_over(&held.pod, 1, now) && self.rank(&held.key).is_some_and(is_own_turn)
        };
        self.absentees().filter(is_due).cloned().collect()
    }

    /// The records that somebody may have removed by hand at `now`, though many are gone at once;
    /// not while the list is not followed, as then nobody knows.
    pub fn due_by_hand(&self, now: Uptime) -> Vec<Held> {
        let is_due = |held: &&Held| self.is_over(&held.pod, 1, now);
        self.absentees().filter(is_due).cloned().collect()
    }

    /// When the records of pods are to be read next; none while the brake is on because nothing is
    /// seen.
    pub fn next_scan(&self, now: Uptime) -> Option<Uptime> {
        let clear_since = self.clear_since?;
        let Some(scanned) = self.scanned else {
            return Some(clear_since);
        };
        let next = scanned.plus(SCAN_EVERY);
        // In a new stretch of sight nothing is waited for yet: look whose records there are.
        let first = (scanned < clear_since).then_some(clear_since);
        let braked = matches!(self.brake(now), Some(Brake::Many { .. }));
        let braked = braked.then(|| scanned.plus(self.after));
        let over = self.absent.values().map(|since| since.plus(self.after));
        let in_turn = self.absentees().filter_map(|held| {
            let since = self.absent.get(&held.pod)?;
            Some(since.plus(self.after.saturating_mul(self.rank(&held.key)? + 1)))
        });
        let wanted = over.chain(in_turn).filter(|at| *at > scanned);
        let next = wanted.chain(first).chain(braked).fold(next, Uptime::min);
        Some(next.max(scanned.plus(self.after / SCANS_APART)))
    }

    /// Records whose pod is not listed, but never our own.
    fn absentees(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| {
            !self.listed.contains_key(&held.pod) && self.own_key.as_ref() != Some(&held.key)
        })
    }

    /// Whether a pod has been waited for this many times.
    fn is_over(&self, pod: &PodUid, times: u32, now: Uptime) -> bool {
        let since = self.absent.get(pod);
        since.is_some_and(|since| now >= since.plus(self.after.saturating_mul(times)))
    }

    /// How many pods come before this one in removing the record of `key`; none if this one is
    /// about to end.
    fn rank(&self, key: &Key) -> Option<u32> {
        let staying = self.listed.iter().filter(|(_, is_ending)| !**is_ending);
        let staying: Vec<_> = staying.map(|(pod, _)| weight(pod, key)).collect();
        let own = weight(&self.own, key);
        if !staying.contains(&own) {
            return None;
        }
        let before = staying.iter().filter(|weight| **weight > own).count();
        u32::try_from(before).ok()
    }
}

/// How much a pod has to do with the record of `key`. Part of the protocol: all pods must see the
/// same. Where two hashes are the same, the UID decides.
fn weight<'a>(pod: &'a PodUid, key: &Key) -> (u64, &'a PodUid) {
    let mut hasher = SipHasher24::new_with_key(b"udht who removes");
    hasher.write(pod.0.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(key.as_str().as_bytes());
    (hasher.finish(), pod)
}

#[cfg(test)]
mod tests;
