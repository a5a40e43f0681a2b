//! Whose tables stay different from ours though the two of us talk.
//!
//! That two digests differ says nothing: while there are writes they nearly always do. What says
//! something is an exchange with that peer. One that ended equal, or in which all that differed was
//! taken, is well; one in which records were refused leaves a difference, and so does one that does
//! not come to its end, or that finds the same two tables as the one before, and leaves them so.

use std::time::Duration;

use peer_table::StoreId;
use peer_table::table::Digest;

use crate::book::{Address, Peer, PeerBook, Uptime};
use crate::exchange::Report;
use crate::outcomes::Outcomes;

/// Records that were refused are refused again: that it lasts is known by the next exchange, or,
/// where that is late, after this time without one that was well.
const REFUSED_FOR: Duration = Duration::from_secs(8);
/// What else differs may be a moment's.
const DIFFERS_FOR: Duration = Duration::from_secs(18);

/// A difference that exchanges leave.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Since when no exchange with this peer was well.
    pub since: Uptime,
    /// Exchanges since then.
    pub times: u32,
    /// Records that are different, as the last of them told; none where it did not.
    pub records: Option<u64>,
    /// Why.
    pub why: Why,
}

/// Why a difference stays.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Records are refused here, by their word in `udht_merges_total`.
    RefusedHere(&'static str),
    /// Records are refused there.
    RefusedThere(&'static str),
    /// Exchanges end, nothing is refused, and the two tables stay what they were.
    Unchanged {
        /// Ours.
        own: Digest,
        /// The peer's.
        theirs: Digest,
    },
    /// Exchanges fail after they have begun, by their word.
    Failing(&'static str),
}

impl Why {
    /// In a word or two.
    pub fn word(self) -> String {
        match self {
            Self::RefusedHere(word) => format!("{word} here"),
            Self::RefusedThere(word) => format!("{word} there"),
            Self::Unchanged { .. } => "unchanged".to_owned(),
            Self::Failing(word) => format!("failed_{word}"),
        }
    }

    const fn is_refused(self) -> bool {
        matches!(self, Self::RefusedHere(_) | Self::RefusedThere(_))
    }

    /// Whether this is the same trouble as before.
    fn goes_on_from(self, before: Self) -> bool {
        match (self, before) {
            (Self::Unchanged { .. }, Self::Unchanged { .. }) => self == before,
            (Self::Unchanged { .. }, _) => false,
            // Who refused, and now does not come to its end, is no better for it.
            _ => !matches!(before, Self::Unchanged { .. }),
        }
    }
}

/// The word for most of the refusals.
fn refused_word(outcomes: &Outcomes) -> Option<&'static str> {
    let refused = outcomes
        .iter()
        .filter(|(word, _)| word.starts_with("refused"));
    refused
        .max_by_key(|(_, count)| *count)
        .map(|(word, _)| word)
}

impl Peer {
    /// The difference to this peer, if it has lasted for longer than it ever does while all is well.
    pub fn diverged(&self, now: Uptime) -> Option<Difference> {
        let difference = self.difference?;
        let Difference { since, times, .. } = difference;
        let lasts = |time| since.plus(time) <= now;
        let is_so = match difference.why {
            why if why.is_refused() => times > 1 || lasts(REFUSED_FOR),
            // It is not just away: it was talked to meanwhile.
            Why::Failing(_) => times > 1 && lasts(DIFFERS_FOR) && self.talked() > Some(since),
            _ => times > 1 && lasts(DIFFERS_FOR),
        };
        (is_so && self.is_reachable()).then_some(difference)
    }

    fn talked(&self) -> Option<Uptime> {
        self.succeeded.max(self.heard)
    }

    fn differs(&mut self, why: Why, records: Option<u64>, now: Uptime) {
        let before = self.difference.filter(|it| why.goes_on_from(it.why));
        self.difference = Some(Difference {
            since: before.map_or(now, |it| it.since),
            times: before.map_or(1, |it| it.times.saturating_add(1)),
            records: records.or(before.and_then(|it| it.records)),
            why,
        });
    }
}

impl PeerBook {
    /// Notes what an exchange of ours with a peer left of the difference.
    pub fn exchanged(&mut self, address: &Address, report: &Report, now: Uptime) {
        let Some(peer) = self.get_mut(address) else {
            return;
        };
        let moved = &report.moved;
        let refused = moved.merged_here.refused() + moved.merged_there.refused();
        let here = refused_word(&moved.merged_here).map(Why::RefusedHere);
        let why = here.or_else(|| refused_word(&moved.merged_there).map(Why::RefusedThere));
        if let Some(why) = why {
            peer.differs(why, Some(refused), now);
        } else if report.is_equal() {
            peer.difference = None;
        } else {
            let why = Why::Unchanged {
                own: report.digest,
                theirs: report.partner_digest,
            };
            peer.differs(why, Some(moved.ours + moved.theirs), now);
        }
    }

    /// Notes that an exchange of ours with a peer failed, by its word, after it had begun.
    pub fn exchange_broke(&mut self, address: &Address, word: &'static str, now: Uptime) {
        if let Some(peer) = self.get_mut(address) {
            peer.differs(Why::Failing(word), None, now);
        }
    }

    /// Notes that records were refused here that a peer gave in an exchange that it began.
    pub fn refused_of(&mut self, store: StoreId, merged: &Outcomes, now: Uptime) {
        let Some(word) = refused_word(merged) else {
            return;
        };
        for peer in self.of_store(store) {
            peer.differs(Why::RefusedHere(word), Some(merged.refused()), now);
        }
    }

    /// Notes that a peer was found to have an equal table as it began an exchange.
    pub fn found_equal(&mut self, store: StoreId) {
        for peer in self.of_store(store) {
            peer.difference = None;
        }
    }
}

#[cfg(test)]
mod tests;
