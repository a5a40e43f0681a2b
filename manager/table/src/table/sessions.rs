//! The exchanges of ours that are under way, and what else came in since each began.

use std::collections::{BTreeMap, VecDeque};

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
///
/// What comes in is noted once, with the youngest of them: for each it counts what was noted with it and
/// with those that are younger.
#[derive(Debug)]
pub(super) struct Sessions {
    /// The oldest first.
    begun: VecDeque<Begun>,
    last: u64,
}

/// One that was begun, and what came in from then on until the next was.
#[derive(Debug)]
struct Begun {
    session: SessionId,
    has_ended: bool,
    /// By which exchange, if by any, and of which id: the lowest reading.
    came: BTreeMap<(Option<SessionId>, OriginId), Reading>,
}

impl Sessions {
    /// Numbered so that none is taken for one of another opening of the store.
    pub(super) const fn new(epoch: u64) -> Self {
        Self {
            begun: VecDeque::new(),
            last: epoch,
        }
    }

    pub(super) fn begin(&mut self) -> SessionId {
        if self.begun.len() == SESSIONS_MAX {
            self.begun.pop_front();
        }
        self.last = self.last.wrapping_add(1);
        let session = SessionId(self.last);
        self.begun.push_back(Begun {
            session,
            has_ended: false,
            came: BTreeMap::new(),
        });
        session
    }

    /// What came in; `None` if it is not watched any more.
    pub(super) fn end(&mut self, session: SessionId) -> Option<Session> {
        let at = self.begun.iter().position(|it| it.session == session)?;
        if std::mem::replace(&mut self.begun[at].has_ended, true) {
            return None;
        }
        let mut all = Session::default();
        let came = self.begun.range(at..).flat_map(|it| &it.came);
        for ((_, origin), reading) in came.filter(|((by, _), _)| *by != Some(session)) {
            let lowest = all.0.entry(*origin).or_insert(*reading);
            *lowest = (*lowest).min(*reading);
        }
        while self.begun.front().is_some_and(|it| it.has_ended) {
            self.begun.pop_front();
        }
        Some(all)
    }

    /// Watches none of them any more.
    pub(super) fn end_all(&mut self) {
        self.begun.clear();
    }

    /// Notes a version that was news here and came by `session`, or by none.
    pub(super) fn note(&mut self, version: Version, session: Option<SessionId>) {
        if let Some(youngest) = self.begun.back_mut() {
            let came = youngest.came.entry((session, version.origin));
            let lowest = came.or_insert(version.reading);
            *lowest = (*lowest).min(version.reading);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Copy, Clone, Debug)]
    enum Step {
        Begin,
        /// One of those that were begun ends, whether it has before or not.
        End(usize),
        /// A version with this reading and of this id, by one of these sessions if by any.
        Note(u64, u8, Option<usize>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let session = || 0_usize..24;
        let note = (1_u64..9, 1_u8..4, prop::option::of(session()));
        let step = prop_oneof![
            Just(Step::Begin),
            session().prop_map(Step::End),
            note.prop_map(|(reading, id, by)| Step::Note(reading, id, by)),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// The model notes what comes with each session that is under way.
        #[test]
        fn each_hears_of_what_came_since_it_began_but_by_itself(steps in steps()) {
            let mut sessions = Sessions::new(7);
            let mut model: Vec<Option<Session>> = Vec::new();
            let id = |number: usize| SessionId(8 + number as u64);
            for step in steps {
                match step {
                    Step::Begin => {
                        prop_assert_eq!(sessions.begin(), id(model.len()));
                        model.push(Some(Session::default()));
                    }
                    Step::End(number) => {
                        let ended = sessions.end(id(number));
                        let expected = model.get_mut(number).and_then(Option::take);
                        // Of too many the oldest are not watched any more.
                        let is_too_many = ended.is_none() && number + SESSIONS_MAX <= model.len();
                        prop_assert!(is_too_many || ended == expected, "{ended:?} {expected:?}");
                    }
                    Step::Note(reading, origin, by) => {
                        let origin = OriginId::from_bytes([origin; 16]);
                        let reading = Reading::from_u64(reading);
                        sessions.note(Version { reading, origin }, by.map(id));
                        for (number, session) in model.iter_mut().enumerate() {
                            if let Some(Session(came)) = session && by != Some(number) {
                                let lowest = came.entry(origin).or_insert(reading);
                                *lowest = reading.min(*lowest);
                            }
                        }
                    }
                }
            }
        }
    }
}
