//! Shipping the records that differ, a batch each way in every round trip.

use std::collections::BTreeSet;

use bytes::Bytes;
use peer_table::Fingerprint;
use peer_table::contract::{Batch, InvalidMessage, WireRecord, fingerprints_to_bytes};
use peer_table::feed::Via;
use peer_table::sketch::Decoded;

use super::{Conversation, ExchangeError, Moved};
use crate::ends::{Own, Remote};
use crate::message::{self, Answer, Ask, Swapped, WANTED_MAX};

/// Gives the partner what only we have and takes what only it has.
///
/// Both sides take the records to give from their tables before they merge what they are given, so
/// that of two versions of one record the later contact is not lost with the earlier version. What
/// is merged on the way may replace what was still to be given: that counts as missing.
pub(super) async fn swap<O: Own, R: Remote>(
    conversation: &mut Conversation<'_, O, R>,
    difference: Decoded,
    moved: &mut Moved,
) -> Result<(), ExchangeError> {
    moved.ours += difference.ours.len() as u64;
    moved.theirs += difference.theirs.len() as u64;
    let (mut ours, mut theirs) = (&difference.ours[..], &difference.theirs[..]);
    // Tombstones that beat what we were given, and are given in turn, unless they were anyway.
    let mut owed = None;
    let mut given = BTreeSet::new();
    while !ours.is_empty() || !theirs.is_empty() || owed.is_some() {
        let batch = if let Some(answers) = owed.take() {
            answers
        } else {
            let (batch, left) = take_own(conversation, ours, moved).await?;
            ours = left;
            batch
        };
        let want = &theirs[..theirs.len().min(WANTED_MAX)];
        if batch.records.is_empty() && want.is_empty() {
            continue;
        }
        given.extend(batch.records.iter().filter_map(buried));
        let ask = message::Swap {
            batch: message::batch_to_bytes(&batch),
            want: fingerprints_to_bytes(want.iter().copied()),
        };
        let Answer::Swapped(swapped) = conversation.ask(Ask::Swap(ask)).await? else {
            return Err(ExchangeError::unexpected("a swap"));
        };
        conversation.partner_digest = swapped.digest.into();
        if swapped.outcomes.len() != batch.records.len() {
            return Err(ExchangeError::invalid(
                "outcomes",
                "are not one for each record given",
            ));
        }
        moved.merged_there.add(&swapped.outcomes);
        if let Some(answers) = message::batch_from_bytes(&swapped.answers, conversation.table)? {
            // What they come to is not answered once more: a tombstone that loses to ours is one
            // that the partner has by now.
            merge(conversation, answers, moved).await?;
        }
        let (dealt_with, answers) = take_theirs(conversation, &swapped, want.len(), moved).await?;
        theirs = &theirs[dealt_with..];
        owed = answers.map(|mut answers| {
            let is_new = |record: &WireRecord| buried(record).is_none_or(|it| !given.contains(&it));
            answers.records.retain(is_new);
            answers
        });
        owed = owed.filter(|answers| !answers.records.is_empty());
    }
    Ok(())
}

/// Which tombstone a record is, if it is one.
pub(crate) fn buried(record: &WireRecord) -> Option<(Bytes, u64)> {
    let is_tombstone = record.content.is_none();
    is_tombstone.then(|| (record.key.clone(), record.reading))
}

/// The first of our records to give, and the fingerprints of those that the batch has no room for.
async fn take_own<'f, O: Own, R: Remote>(
    conversation: &Conversation<'_, O, R>,
    ours: &'f [Fingerprint],
    moved: &mut Moved,
) -> Result<(Batch, &'f [Fingerprint]), ExchangeError> {
    let give = &ours[..ours.len().min(WANTED_MAX)];
    if give.is_empty() {
        return Ok((Batch::default(), ours));
    }
    let records = conversation
        .own
        .records(conversation.table, give)
        .await
        .map_err(ExchangeError::own)?;
    let dealt_with = dealt_with(records.dealt_with, give.len(), records.batch.records.len())
        .map_err(ExchangeError::own)?;
    let sent = records.batch.records.len();
    moved.sent += sent as u64;
    moved.missing += (dealt_with - sent) as u64;
    Ok((records.batch, &ours[dealt_with..]))
}

/// Merges the records that were wanted. The answer is how many fingerprints were dealt with, and the
/// tombstones that beat what came.
async fn take_theirs<O: Own, R: Remote>(
    conversation: &Conversation<'_, O, R>,
    swapped: &Swapped,
    wanted: usize,
    moved: &mut Moved,
) -> Result<(usize, Option<Batch>), ExchangeError> {
    let batch = message::batch_from_bytes(&swapped.batch, conversation.table)?;
    let received = batch.as_ref().map_or(0, |batch| batch.records.len());
    let dealt_with = dealt_with(swapped.dealt_with, wanted, received)?;
    moved.received += received as u64;
    moved.missing += (dealt_with - received) as u64;
    moved.missing_theirs += (dealt_with - received) as u64;
    let answers = match batch {
        Some(batch) => merge(conversation, batch, moved).await?,
        None => None,
    };
    Ok((dealt_with, answers))
}

/// Merges what the partner sent; the answer is what beat some of it.
async fn merge<O: Own, R: Remote>(
    conversation: &Conversation<'_, O, R>,
    batch: Batch,
    moved: &mut Moved,
) -> Result<Option<Batch>, ExchangeError> {
    let from = conversation.met()?.0.store;
    let session = conversation.session;
    let merged = conversation.own.merge(batch, Via::Exchange, from, session);
    let merged = merged.await.map_err(ExchangeError::own)?;
    moved.merged_here.add(&merged.outcomes);
    Ok(merged.answers)
}

/// Refuses an answer that makes no progress, or deals with more than was asked for.
fn dealt_with(said: u32, wanted: usize, records: usize) -> Result<usize, InvalidMessage> {
    let dealt_with = usize::try_from(said).unwrap_or(usize::MAX);
    let least = records.max(usize::from(wanted > 0));
    if (least..=wanted).contains(&dealt_with) {
        return Ok(dealt_with);
    }
    let problem = format!("is {said} of {wanted} fingerprints, with {records} records");
    Err(InvalidMessage::field("dealt_with", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_deals_with_something_and_with_no_more_than_was_wanted() {
        assert_eq!(dealt_with(3, 5, 2), Ok(3));
        assert_eq!(dealt_with(5, 5, 5), Ok(5));
        assert_eq!(dealt_with(0, 0, 0), Ok(0));
        for (said, wanted, records) in [(0, 5, 0), (6, 5, 5), (1, 5, 2), (1, 0, 0), (0, 0, 1)] {
            assert!(
                dealt_with(said, wanted, records).is_err(),
                "{said} {wanted} {records}"
            );
        }
    }
}
