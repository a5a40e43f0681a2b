//! What each reason means and what to do about it, in words.

use std::time::Duration;

use peer_table::history::{Loss, Refusal};
use peer_table::{Version, WallTime};

/// Why a version lost.
pub(super) const fn of_loss(loss: Loss) -> &'static str {
    match loss {
        Loss::Overwritten => {
            "It was held here until a newer version came, and the later write wins. To have it back, \
             write it again."
        }
        Loss::Deleted => "It was held here until it was deleted. To have it back, write it again.",
        Loss::SameVersion => {
            "Another content has this very version, so two managers ran on copies of one store; all \
             replicas keep the same one of the two. Give each pod a store of its own, and write again \
             what is missing."
        }
        Loss::Older => {
            "A newer version was here already when it came, and the later write wins. If it was the \
             later one by the hour, the clock of who wrote it is behind: set that clock, and write it \
             again."
        }
        Loss::Ghost => {
            "It had been here, was deleted everywhere, and came once more from a copy that had missed \
             that; its sender was told to delete it. To have it back, write it again."
        }
        Loss::Collected => {
            "It is a deletion that everybody had heard of and that was forgotten here since. There is \
             nothing to do."
        }
    }
}

/// Why something of `version` was refused at `at`.
pub(super) fn of_refusal(refusal: Refusal, version: Option<Version>, at: WallTime) -> String {
    let text = match refusal {
        Refusal::VersionAhead => {
            let stamped = version.map_or(at, |it| it.reading.wall());
            let ahead = stamped.as_millis().saturating_sub(at.as_millis());
            let ahead = humantime::format_duration(Duration::from_secs(ahead / 1_000));
            return format!(
                "It is stamped {ahead} ahead of this machine's clock, more than --max-clock-drift. Set \
                 the clock of who wrote it, or this one, whichever is wrong; then run `udht-manager \
                 heal-clock` in the pod that wrote it."
            );
        }
        Refusal::ContactAhead => {
            "Its lastConnectionOn is further ahead of this machine's clock than --max-clock-drift. Set \
             the clock of who noted it, or this one, whichever is wrong; what a peer noted so is put \
             right by `udht-manager heal-clock` there."
        }
        Refusal::Invalid => {
            "It breaks a rule of the record. Who wrote it here was answered with the field and the \
             rule; from a peer it means that another release runs there: look at the releases of both."
        }
        Refusal::TooLarge => {
            "It is larger than --max-record-bytes. Shorten its labels, or give all pods the same, higher \
             bound."
        }
        Refusal::Full => {
            "The table is full and this key is new. Raise --max-records in all pods, or see with \
             `udht-manager replicas` why deleted records do not leave."
        }
        Refusal::Unreadable => {
            "What is stored of it here is damaged, so nothing could be decided. Write it anew, or wait \
             for a peer's copy."
        }
        Refusal::Origins => {
            "It was written by a replica that is not known here, and no more replicas are taken in. See \
             with `udht-manager replicas` why so many openings of stores are remembered."
        }
        Refusal::Fenced => {
            "It was pushed by or for a replica that is taken to write no more, as its store was opened \
             anew, went with its pod, or was given up. If anybody still has it, the next exchange brings \
             it; if not, write it again."
        }
        Refusal::Deferred => {
            "It was pushed before this replica had exchanged with one that belongs to the cluster. The \
             first exchange brings it: wait, or see with `udht-sync peers` why there is none."
        }
        Refusal::Precondition => {
            "If-Match or If-None-Match did not hold, or it was to be created and existed: somebody was \
             faster. Read it, and write again with the ETag that you get."
        }
        Refusal::Absent => {
            "It was to be changed, deleted or seen, and was not there. PUT makes it."
        }
        Refusal::Clock => {
            "The clock that stamps writes stands too far ahead of this machine's. Set the clock if it is \
             wrong; if it was ahead and is right now, run `udht-manager heal-clock`. Then write it again."
        }
        Refusal::ClockOff => {
            "This machine's clock is not that of most other replicas, so nothing written here would be \
             believed. Set it, and write it again."
        }
        Refusal::Leaving => {
            "This pod is going and takes no further write. Write it to another pod."
        }
        Refusal::Store => {
            "The store could not do it, and nothing was changed. See that the store runs and has room \
             (`udht_store_errors_total`, the log of manager); what a peer sent comes again by itself, \
             and a write of yours is to be written again."
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_a_sentence_of_its_own_that_says_what_to_do() {
        let refused = |refusal| of_refusal(refusal, None, WallTime::default());
        let mut texts: Vec<String> = Refusal::ALL.into_iter().map(refused).collect();
        texts.extend(Loss::ALL.map(of_loss).map(ToOwned::to_owned));
        for text in &texts {
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
            assert!(
                text.matches(". ").count() + text.matches(": ").count() >= 1,
                "{text}"
            );
        }
        let count = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), count);
    }

    #[test]
    fn every_reason_is_in_the_table_of_the_docs() {
        let docs = include_str!("../../../../docs/explain.md");
        let words = Loss::ALL.map(Loss::word).into_iter();
        for word in words.chain(Refusal::ALL.map(Refusal::word)) {
            assert!(docs.contains(&format!("| `{word}` |")), "{word}");
        }
    }
}
