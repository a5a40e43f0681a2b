//! Comparing the fingerprints themselves, one range of them after the other.
//!
//! Both sides list in ascending order. What differs within the range that both pages cover is
//! shipped before the next is looked at, so that memory is bounded by a page of each, and what is
//! done stays done whatever happens later.

use peer_table::Fingerprint;
use peer_table::contract::{FingerprintPage, InvalidMessage, WireDigest, fingerprints_from_bytes};
use peer_table::sketch::Decoded;

use super::find::wire;
use super::swap::swap;
use super::{Conversation, ExchangeError, Moved};
use crate::ends::{Own, Remote};
use crate::message::{Answer, Ask, AskFingerprints};

/// All fingerprints of one side from one to another.
pub(super) struct Page {
    /// In ascending order.
    fingerprints: Vec<Fingerprint>,
    /// Up to and with this one they are all here.
    end: Fingerprint,
    /// The digest of the table that they are of, if it was said.
    digest: Option<WireDigest>,
}

const LAST: Fingerprint = Fingerprint(u64::MAX);

impl Page {
    /// Reads an answer to having been asked for up to `limit` fingerprints from `from` on.
    pub(super) fn read(
        page: &FingerprintPage,
        from: Fingerprint,
        limit: usize,
    ) -> Result<Self, InvalidMessage> {
        let invalid = |problem: &str| Err(InvalidMessage::field("fingerprints", problem));
        let fingerprints = fingerprints_from_bytes(&page.fingerprints)?;
        if fingerprints.len() > limit {
            return invalid("are more than were asked for");
        }
        if !fingerprints.is_sorted_by(|a, b| a < b) {
            return invalid("are not in ascending order");
        }
        if fingerprints.first().is_some_and(|first| *first < from) {
            return invalid("begin below the one asked for");
        }
        match fingerprints.last() {
            _ if page.complete => Ok(Self {
                fingerprints,
                end: LAST,
                digest: page.digest,
            }),
            Some(&end) => Ok(Self {
                fingerprints,
                end,
                digest: page.digest,
            }),
            None => invalid("are none, and not the last ones"),
        }
    }

    /// Those from `from` up to and with `end`.
    fn range(&self, from: Fingerprint, end: Fingerprint) -> &[Fingerprint] {
        let start = self
            .fingerprints
            .partition_point(|fingerprint| *fingerprint < from);
        let stop = self
            .fingerprints
            .partition_point(|fingerprint| *fingerprint <= end);
        &self.fingerprints[start..stop]
    }
}

/// Compares all fingerprints and ships what differs. `first` is the partner's first page, if it is
/// here already. Answers whether the partner's table stayed as it was all the time, so that nothing
/// of it can have moved from a range that was still to come into one that was done.
pub(super) async fn compare<O: Own, R: Remote>(
    conversation: &mut Conversation<'_, O, R>,
    first: Option<Page>,
    moved: &mut Moved,
) -> Result<bool, ExchangeError> {
    let limit = conversation.options.page;
    let mut from = Fingerprint(0);
    let mut page = first;
    let (mut seen, mut is_one) = (None, true);
    loop {
        let theirs = match page.take() {
            Some(page) => page,
            None => ask_page(conversation, from).await?,
        };
        is_one &= theirs.digest.is_some() && seen.is_none_or(|seen| seen == theirs.digest);
        seen = Some(theirs.digest);
        let ours = conversation
            .own
            .fingerprints(conversation.table, from, limit)
            .await;
        let ours = Page::read(&ours.map_err(ExchangeError::own)?, from, limit)
            .map_err(ExchangeError::own)?;
        let end = ours.end.min(theirs.end);
        let difference = difference(ours.range(from, end), theirs.range(from, end));
        swap(conversation, difference, moved).await?;
        if end == LAST {
            return Ok(is_one);
        }
        from = Fingerprint(end.0 + 1);
        page = (end < theirs.end).then_some(theirs);
    }
}

async fn ask_page<O: Own, R: Remote>(
    conversation: &mut Conversation<'_, O, R>,
    from: Fingerprint,
) -> Result<Page, ExchangeError> {
    let limit = conversation.options.page;
    let ask = AskFingerprints {
        from: from.0,
        limit: wire(limit),
    };
    let Answer::Fingerprints(page) = conversation.ask(Ask::Fingerprints(ask)).await? else {
        return Err(ExchangeError::unexpected("a request for fingerprints"));
    };
    Ok(Page::read(&page, from, limit)?)
}

/// What only one of two ascending lists has.
fn difference(mut ours: &[Fingerprint], mut theirs: &[Fingerprint]) -> Decoded {
    let mut difference = Decoded::default();
    while let (Some((our, our_rest)), Some((their, their_rest))) =
        (ours.split_first(), theirs.split_first())
    {
        if our <= their {
            ours = our_rest;
        }
        if their <= our {
            theirs = their_rest;
        }
        if our < their {
            difference.ours.push(*our);
        }
        if their < our {
            difference.theirs.push(*their);
        }
    }
    difference.ours.extend(ours);
    difference.theirs.extend(theirs);
    difference
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use peer_table::contract::fingerprints_to_bytes;
    use proptest::prelude::*;

    use super::*;

    fn read(fingerprints: &[u64], complete: bool) -> Result<Page, String> {
        let fingerprints = fingerprints_to_bytes(fingerprints.iter().copied().map(Fingerprint));
        let page = FingerprintPage {
            fingerprints,
            complete,
            digest: None,
        };
        Page::read(&page, Fingerprint(10), 3).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_reaches_to_its_last_fingerprint_or_to_the_end() {
        assert_eq!(read(&[10, 12], false).unwrap().end, Fingerprint(12));
        assert_eq!(read(&[10, 12], true).unwrap().end, LAST);
        assert_eq!(read(&[], true).unwrap().end, LAST);
    }

    #[test]
    fn a_page_that_would_lead_astray_is_refused() {
        let refused = |fingerprints: &[u64]| read(fingerprints, false).err().unwrap();
        assert!(refused(&[9]).contains("below the one asked for"));
        assert!(refused(&[12, 11]).contains("ascending"));
        assert!(refused(&[11, 11]).contains("ascending"));
        assert!(refused(&[11, 12, 13, 14]).contains("more than were asked for"));
        assert!(refused(&[]).contains("not the last ones"));
    }

    proptest! {
        #[test]
        fn the_difference_of_two_lists_is_that_of_their_sets(
            ours in prop::collection::btree_set(0_u64..50, 0..40),
            theirs in prop::collection::btree_set(0_u64..50, 0..40),
        ) {
            let list = |set: &BTreeSet<u64>| set.iter().copied().map(Fingerprint).collect::<Vec<_>>();
            let found = difference(&list(&ours), &list(&theirs));
            prop_assert_eq!(found.ours, list(&(&ours - &theirs)));
            prop_assert_eq!(found.theirs, list(&(&theirs - &ours)));
        }
    }
}
