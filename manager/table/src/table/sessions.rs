//! The exchanges of ours that are under way, and what else came in since each began.

use std::collections::BTreeMap;

use crate::clock::{Reading, Version};
use crate::floors::Snapshot;
use crate::ids::OriginId;
use crate::mutants;

/// Exchanges that are watched at once. Of more, the oldest is taken for one that something came into.
const SESSIONS_MAX: usize = 16;

/// An exchange of ours.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Of each id, the lowest reading among the versions that came in from elsewhere and were not covered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Session(BTreeMap<OriginId, Reading>);

impl Session {
    /// Whether nothing came in that the partner's vector covers. What it covers and does not hold it
    /// has seen deleted; with its vector, this replica would take that for done here too.
    pub(super) fn agrees_with(&self, partner: &Snapshot) -> bool {
        let mut came = self.0.iter();
        mutants::is("race-not-checked")
            || came.all(|(origin, reading)| {
                !partner.covers(Version {
                    reading: *reading,
                    origin: *origin,
                })
            })
    }
}

/// All exchanges of ours that are under way.
#[derive(Debug)]
pub(super) struct Sessions {
    under_way: BTreeMap<SessionId, Session>,
    last: u64,
}

impl Sessions {
    /// Numbered so that none is taken for one of another opening of the store.
    pub(super) const fn new(epoch: u64) -> Self {
        Self {
            under_way: BTreeMap::new(),
            last: epoch,
        }
    }

    pub(super) fn begin(&mut self) -> SessionId {
        if self.under_way.len() == SESSIONS_MAX {
            self.under_way.pop_first();
        }
        self.last = self.last.wrapping_add(1);
        let session = SessionId(self.last);
        self.under_way.insert(session, Session::default());
        session
    }

    /// What came in; `None` if it is not watched any more.
    pub(super) fn end(&mut self, session: SessionId) -> Option<Session> {
        self.under_way.remove(&session)
    }

    /// Watches none of them any more.
    pub(super) fn end_all(&mut self) {
        self.under_way.clear();
    }

    /// Notes a version that was news here and came by `session`, or by none.
    pub(super) fn note(&mut self, version: Version, session: Option<SessionId>) {
        for (other, came) in &mut self.under_way {
            if Some(*other) != session {
                let lowest = came.0.entry(version.origin).or_insert(version.reading);
                *lowest = (*lowest).min(version.reading);
            }
        }
    }
}
