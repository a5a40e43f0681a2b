//! What exchanges find that all pushes had missed: news again for everybody, and a reason to look
//! for more.
//!
//! After Demers et al., "Epidemic Algorithms for Replicated Database Maintenance" (1987), section
//! 1.5: without it, what a push missed would take a number of rounds to be everywhere.

use std::time::Duration;

use peer_table::contract::{Batch, MergeAnswer, merged_code};
use peer_table::table::Merged;
use peer_table::{Reading, WallTime};
use tokio::sync::{Notify, mpsc};

/// How old a record is that its pushes would have brought by now. A younger one that an exchange
/// meets is most often still on its way, and whoever sent it on once more would double every push.
const PUSHES_TAKE: Duration = Duration::from_secs(1);
/// The most records of one batch that everybody is told. More is what a pod missed while it was
/// away, and the others have it.
pub const TOLD_RECORDS_MAX: usize = 64;
/// Batches that may wait to be told; exchanges carry the rest.
const WAITING_MAX: usize = 64;

/// Where the merges of exchanges say what they found.
#[derive(Debug)]
pub struct Missed {
    told: mpsc::Sender<Batch>,
    /// Tells the rounds that there is something to find.
    pub hurry: Notify,
}

impl Missed {
    /// One that has found nothing yet; what it finds comes out of the second part.
    pub fn new() -> (Self, mpsc::Receiver<Batch>) {
        let (told, found) = mpsc::channel(WAITING_MAX);
        let hurry = Notify::new();
        (Self { told, hurry }, found)
    }

    /// Looks at a batch that an exchange brought, and at what became of it here at wall time `now`.
    pub fn look(&self, mut batch: Batch, answer: &MergeAnswer, now: WallTime) {
        let applied = merged_code(Merged::Applied);
        let mut outcomes = answer.outcomes.iter();
        batch.records.retain(|record| {
            let stamped = Reading::from_u64(record.reading).wall();
            outcomes.next() == Some(&applied) && stamped.plus(PUSHES_TAKE) < now
        });
        if batch.records.is_empty() {
            return;
        }
        self.hurry.notify_one();
        if batch.records.len() <= TOLD_RECORDS_MAX {
            // Where too much waits, or nobody pushes, exchanges carry it.
            let _ = self.told.try_send(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_table::contract::WireRecord;

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    /// What is told of records with these ages in milliseconds and these outcomes.
    fn told(records: &[(u64, Merged)]) -> Option<usize> {
        let (missed, mut found) = Missed::new();
        let record = |(age_ms, _): &(u64, Merged)| WireRecord {
            reading: (NOW_MS - age_ms) << 16,
            ..WireRecord::default()
        };
        let batch = Batch {
            records: records.iter().map(record).collect(),
            ..Batch::default()
        };
        let outcomes = records.iter().map(|(_, merged)| merged_code(*merged));
        let answer = MergeAnswer {
            outcomes: outcomes.collect(),
            answers: None,
        };
        missed.look(batch, &answer, WallTime::from_millis(NOW_MS));
        found.try_recv().ok().map(|batch| batch.records.len())
    }

    #[test]
    fn only_what_was_taken_and_is_no_longer_on_its_way_is_told() {
        let old = 10_000;
        assert_eq!(
            told(&[(old, Merged::Applied), (old, Merged::Equal)]),
            Some(1)
        );
        assert_eq!(told(&[(100, Merged::Applied)]), None);
        assert_eq!(told(&[(old, Merged::Contact), (old, Merged::Stale)]), None);
    }

    #[test]
    fn what_a_pod_missed_while_it_was_away_is_told_to_nobody() {
        let away = [(10_000, Merged::Applied); TOLD_RECORDS_MAX + 1];
        assert_eq!(told(&away), None);
        assert_eq!(told(&away[1..]), Some(TOLD_RECORDS_MAX));
    }
}
