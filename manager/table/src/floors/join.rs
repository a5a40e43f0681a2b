//! Taking in what another replica tells of all replicas.

use super::{Ages, Fence, Floors, Replicas};
use crate::clock::{Clock, WallTime};
use crate::contract::InvalidMessage;
use crate::ids::OriginId;

/// What became of what another replica told.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// It was known.
    Known,
    /// There was news in it.
    News,
    /// This store was given up: it has to start over before it may speak. Nothing was taken.
    GivenUp,
    /// Each of the two gave the other up, and somebody has to say which of them starts over. Nothing
    /// was taken.
    Mutual,
}

impl Floors {
    /// Takes in what another replica tells of all replicas. `earlier` are the ids of the earlier
    /// openings of this store.
    pub fn take(
        &mut self,
        theirs: &Replicas,
        earlier: &[OriginId],
        ages: Ages,
        clock: &mut Clock,
        now: WallTime,
    ) -> Result<Joined, InvalidMessage> {
        let ids = theirs.ids.as_ref().map(super::WireIds::read).transpose()?;
        let ids = ids.unwrap_or_default();
        let (teller, publications) = (theirs.teller()?, theirs.publications()?);
        if self.is_given_up_by(&ids, earlier) {
            let given_up = teller.and_then(|teller| self.ids.fence(teller));
            return Ok(match given_up {
                Some(Fence::GivenUp) => Joined::Mutual,
                Some(Fence::Ended) | None => Joined::GivenUp,
            });
        }
        let before = self.digest();
        self.join_ids(&ids, ages, now);
        if let Some(teller) = teller {
            self.met(teller, now);
        }
        for publication in publications {
            let readings = [publication.at, publication.floor, publication.since];
            let is_within = |reading: &crate::Reading| clock.check(reading.wall(), now).is_ok();
            // What a wrong clock published says nothing, and would outlast what is right.
            if readings.iter().all(is_within) {
                self.hear(publication, now);
            }
        }
        self.stamp_set(clock, now);
        Ok(if self.digest() == before {
            Joined::Known
        } else {
            Joined::News
        })
    }
}
