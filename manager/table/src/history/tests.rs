//! What is remembered, and what goes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::clock::Reading;
use crate::ids::OriginId;

const FROM: StoreId = StoreId::from_bytes([9; 16]);
const PUSHED: Way = Way {
    via: Via::Push,
    from: Some(FROM),
};

fn version(reading: u64) -> Version {
    Version {
        reading: Reading::from_u64(reading),
        origin: OriginId::from_bytes([1; 16]),
    }
}

fn live(reading: u64) -> Stamped {
    Stamped {
        version: version(reading),
        is_live: true,
    }
}

fn dead(reading: u64) -> Stamped {
    Stamped {
        is_live: false,
        ..live(reading)
    }
}

fn id(number: usize) -> Key {
    format!("k{number}").parse().unwrap()
}

fn note(number: usize, way: Way, noted: Noted) -> Note {
    let key = id(number);
    Note { key, way, noted }
}

fn taken(taken: Stamped, over: Option<Stamped>) -> Noted {
    Noted::Taken { taken, over }
}

fn history(keys_max: usize) -> History {
    History::with_room(&FingerprintKey::from_bytes([7; 16]), keys_max)
}

/// What is remembered of one key for which this came, each a millisecond later than the one before.
fn of_one(notes: impl IntoIterator<Item = (Way, Noted)>) -> Remembered {
    let mut history = history(2);
    for (ms, (way, noted)) in (1..).zip(notes) {
        history.note([note(0, way, noted)], WallTime::from_millis(ms));
    }
    history.of(&id(0))
}

#[test]
fn what_is_replaced_has_lost_and_it_is_told_how_it_had_come() {
    let known = of_one([
        (PUSHED, taken(live(2), Some(live(1)))),
        (Way::LOCAL, taken(live(3), Some(live(2)))),
        (Way::LOCAL, taken(dead(4), Some(live(3)))),
        (PUSHED, taken(live(5), Some(dead(4)))),
    ]);
    let arrived = known.arrived.unwrap();
    assert_eq!((arrived.version, arrived.way), (version(5), PUSHED));
    assert_eq!(arrived.at, WallTime::from_millis(4));
    let lost = known.lost.iter().map(|it| (it.lost, it.loss, it.way));
    let expected = [
        (live(1), Loss::Overwritten, None),
        (live(2), Loss::Overwritten, Some(PUSHED)),
        (live(3), Loss::Deleted, Some(Way::LOCAL)),
        (dead(4), Loss::Overwritten, Some(Way::LOCAL)),
    ];
    assert_eq!(lost.collect::<Vec<_>>(), expected);
}

#[test]
fn two_contents_of_one_version_are_told_as_such() {
    let known = of_one([(PUSHED, taken(live(1), Some(live(1))))]);
    assert_eq!(known.lost[0].loss, Loss::SameVersion);
    let noted = Noted::of(live(1), Some(live(1)), Merged::Stale);
    let expected = Noted::Lost {
        lost: live(1),
        loss: Loss::SameVersion,
    };
    assert_eq!(noted, Some(expected));
    // But a tombstone of the very version deletes it.
    let known = of_one([(PUSHED, taken(dead(1), Some(live(1))))]);
    assert_eq!(known.lost[0].loss, Loss::Deleted);
}

#[test]
fn what_is_no_news_is_not_remembered_and_every_other_outcome_is() {
    for merged in crate::contract::merged_all() {
        let noted = Noted::of(live(2), Some(live(2)), merged);
        let is_news = !matches!(merged, Merged::Equal | Merged::Contact);
        assert_eq!(noted.is_some(), is_news, "{merged:?}");
    }
    // Of an older record the contact may be news, and its content has lost all the same.
    let noted = Noted::of(live(1), Some(live(2)), Merged::Contact);
    let expected = Noted::Lost {
        lost: live(1),
        loss: Loss::Older,
    };
    assert_eq!(noted, Some(expected));
}

#[test]
fn what_comes_again_is_counted_and_the_newest_stay() {
    let refused = |version: Option<Version>| Noted::Refused {
        version,
        refusal: Refusal::Full,
    };
    let known = of_one((0..100).map(|_| (PUSHED, refused(Some(version(1))))));
    assert_eq!(known.refused.len(), 1);
    assert_eq!(known.refused[0].times, 100);
    assert_eq!(known.refused[0].at, WallTime::from_millis(100));

    let known = of_one((1..=20).flat_map(|n| {
        let overwritten = taken(live(n + 1), Some(live(n)));
        [(PUSHED, refused(Some(version(n)))), (PUSHED, overwritten)]
    }));
    assert_eq!(known.lost.len(), History::OF_KEY_MAX);
    assert_eq!(known.refused.len(), History::OF_KEY_MAX);
    assert_eq!(known.lost.last().unwrap().lost, live(20));
    assert_eq!(known.refused[0].version, Some(version(13)));
}

#[test]
fn the_key_goes_for_which_nothing_came_for_longest() {
    let mut history = history(3);
    let at = WallTime::from_millis(1);
    for number in [0, 1, 2, 0, 3] {
        history.note([note(number, PUSHED, taken(live(1), None))], at);
        assert_eq!(history.has_forgotten(), number == 3);
    }
    let is_known = |number| history.of(&id(number)) != Remembered::default();
    assert_eq!([0, 1, 2, 3].map(is_known), [true, false, true, true]);
}

#[test]
fn what_it_holds_is_bounded_by_what_is_said() {
    const { assert!(History::BYTES_MAX < 6 << 20) };
    let mut history = History::new(&FingerprintKey::from_bytes([7; 16]));
    let at = WallTime::from_millis(1);
    for number in 0..3 * History::KEYS_MAX {
        let lost = (0..20).map(|n| note(number, PUSHED, taken(live(n + 1), Some(live(n)))));
        history.note(lost, at);
    }
    assert_eq!(history.known.len(), History::KEYS_MAX);
    // No room was taken beyond what is counted.
    assert_eq!(history.known.capacity(), History::KEYS_MAX);
    for known in history.known.values() {
        let Rest { lost, refused } = known.rest.as_deref().unwrap();
        assert!(
            lost.capacity() <= History::OF_KEY_MAX,
            "{}",
            lost.capacity()
        );
        assert_eq!(refused.capacity(), 0);
    }
}

proptest! {
    #[test]
    fn it_forgets_as_a_list_would_of_which_the_latest_come_first(
        keys in prop::collection::vec(0_usize..9, 0..200),
    ) {
        let mut history = history(4);
        let mut model = VecDeque::new();
        for (time, number) in (1_u64..).zip(keys) {
            history.note(
                [note(number, PUSHED, taken(live(time), None))],
                WallTime::from_millis(time),
            );
            model.retain(|(known, _)| *known != number);
            model.push_front((number, time));
            model.truncate(4);
            for number in 0..9 {
                let remembered = history.of(&id(number)).arrived.map(|it| it.version);
                let expected = model.iter().find(|(known, _)| *known == number);
                prop_assert_eq!(remembered, expected.map(|(_, time)| version(*time)));
            }
        }
    }
}
