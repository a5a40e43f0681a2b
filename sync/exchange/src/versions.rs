//! What one version of the protocol says otherwise than another.
//!
//! All other code knows the messages as version 1 has them. Here alone an answer is put into the
//! version that is spoken, just before it is sent, and taken out of it, just after it was read: so
//! that what a version changed is seen at one place, and goes from there once no release speaks the
//! version before it any more.
//!
//! | version | since | what it changed |
//! |---|---|---|
//! | 1 | 0.1.0 | the first |
//! | 2 | spoken only with `--protocols` | outcomes travel as runs: [`Swapped::runs`] and [`Pushed::runs`] |

use peer_table::contract::{BATCH_RECORDS_MAX, InvalidMessage};
use peer_table::mutants;

use crate::message::Answer;
#[cfg(doc)]
use crate::message::{Pushed, Swapped};

/// From this version on, outcomes travel as runs.
const RUNS: u32 = 2;

/// Puts an answer into the version `protocol`.
pub(crate) fn put(mut answer: Answer, protocol: u32) -> Answer {
    if (protocol >= RUNS || mutants::is("newest-version-only"))
        && let Some((outcomes, runs)) = outcomes_of(&mut answer)
    {
        *runs = runs_of(&std::mem::take(outcomes));
    }
    answer
}

/// Takes an answer out of the version `protocol`. What that version does not have counts as not
/// said: a build of that version would have skipped it.
pub(crate) fn take(mut answer: Answer, protocol: u32) -> Result<Answer, InvalidMessage> {
    if let Some((outcomes, runs)) = outcomes_of(&mut answer) {
        let runs = std::mem::take(runs);
        if protocol >= RUNS {
            *outcomes = outcomes_in(&runs)?;
        }
    }
    Ok(answer)
}

/// The outcomes in an answer that has any, one by one and as runs.
fn outcomes_of(answer: &mut Answer) -> Option<(&mut Vec<u8>, &mut Vec<u8>)> {
    match answer {
        Answer::Swapped(swapped) => Some((&mut swapped.outcomes, &mut swapped.runs)),
        Answer::Pushed(pushed) => Some((&mut pushed.outcomes, &mut pushed.runs)),
        _ => None,
    }
}

/// Each outcome once for all that follow one another, and behind it, as a varint, how many more they
/// are.
fn runs_of(outcomes: &[u8]) -> Vec<u8> {
    let mut runs = Vec::new();
    for run in outcomes.chunk_by(u8::eq) {
        runs.push(run[0]);
        // It fails only where there is no room, and a vector makes room.
        let _ = prost::encode_length_delimiter(run.len() - 1, &mut runs);
    }
    runs
}

/// The outcomes that these runs are.
fn outcomes_in(mut runs: &[u8]) -> Result<Vec<u8>, InvalidMessage> {
    let mut outcomes = Vec::new();
    while let Some((code, rest)) = runs.split_first() {
        runs = rest;
        let more = prost::decode_length_delimiter(&mut runs)
            .map_err(|_| InvalidMessage::field("runs", "are cut off"))?;
        let room = BATCH_RECORDS_MAX - outcomes.len();
        if more >= room {
            let problem = format!("are of more than {BATCH_RECORDS_MAX} records");
            return Err(InvalidMessage::field("runs", problem));
        }
        outcomes.resize(outcomes.len() + more + 1, *code);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Pushed, Swapped};

    fn answers(outcomes: &[u8]) -> [Answer; 2] {
        let outcomes = outcomes.to_vec();
        let swapped = Swapped {
            outcomes: outcomes.clone(),
            dealt_with: 3,
            ..Swapped::default()
        };
        let pushed = Pushed {
            outcomes,
            ..Pushed::default()
        };
        [Answer::Swapped(swapped), Answer::Pushed(pushed)]
    }

    #[test]
    fn outcomes_are_runs_from_version_2_on_and_never_both() {
        for answer in answers(&[1, 1, 1, 4]) {
            assert_eq!(put(answer.clone(), 1), answer, "as it was");
            let mut put = put(answer, 2);
            let (outcomes, runs) = outcomes_of(&mut put).unwrap();
            assert_eq!((&outcomes[..], &runs[..]), (&[][..], &[1, 2, 4, 0][..]));
        }
    }

    #[test]
    fn an_answer_that_is_read_in_another_version_than_it_is_of_says_nothing_of_outcomes() {
        for answer in answers(&[1, 1]) {
            let mut newer_read_as_older = take(put(answer.clone(), 2), 1).unwrap();
            let mut older_read_as_newer = take(put(answer, 1), 2).unwrap();
            for read in [&mut newer_read_as_older, &mut older_read_as_newer] {
                assert_eq!(*outcomes_of(read).unwrap().0, [0_u8; 0]);
            }
        }
    }

    #[test]
    fn runs_of_more_records_than_a_batch_has_are_refused_before_they_take_memory() {
        let mut runs = vec![1];
        prost::encode_length_delimiter(BATCH_RECORDS_MAX - 1, &mut runs).unwrap();
        assert_eq!(outcomes_in(&runs).unwrap().len(), BATCH_RECORDS_MAX);
        runs.extend([1, 0]);
        assert!(outcomes_in(&runs).is_err());
        let mut endless = vec![1];
        prost::encode_length_delimiter(usize::MAX, &mut endless).unwrap();
        assert!(outcomes_in(&endless).is_err());
        assert!(outcomes_in(&[1]).is_err(), "cut off");
    }

    proptest! {
        #[test]
        fn every_answer_reads_back_in_the_version_that_it_is_put_into(
            outcomes in prop::collection::vec(0_u8..4, 0..200), protocol in 1_u32..4,
        ) {
            for answer in answers(&outcomes) {
                prop_assert_eq!(take(put(answer.clone(), protocol), protocol), Ok(answer));
            }
        }

        #[test]
        fn any_bytes_are_runs_or_a_refusal(runs in prop::collection::vec(any::<u8>(), 0..100)) {
            let outcomes = outcomes_in(&runs);
            prop_assert!(outcomes.is_ok_and(|it| it.len() <= BATCH_RECORDS_MAX) || !runs.is_empty());
        }
    }
}
