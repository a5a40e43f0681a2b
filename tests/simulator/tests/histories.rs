//! The simulator itself: that a seed says it all, and what its histories must be able to show.

use udht_simulator::{Event, Family, History, Setting, Step, run};

/// Half an hour, in milliseconds.
const HALF_HOUR_MS: u64 = 30 * 60 * 1_000;

/// A cluster that is quiet but for these steps, each a second after the one before.
fn history(setting: Setting, events: impl IntoIterator<Item = (u64, Event)>) -> History {
    let mut at_ms = 0;
    let steps = events
        .into_iter()
        .enumerate()
        .map(|(salt, (after_ms, event))| {
            at_ms += after_ms;
            Step {
                at_ms,
                salt: salt as u64,
                event,
            }
        });
    let steps = steps.collect();
    History { setting, steps }
}

/// Runs a history in which no rule may be broken, and answers its story.
fn holds(history: &History) -> String {
    let outcome = run(history, true);
    let story = outcome.story.join("\n");
    assert_eq!(outcome.violation, None, "{story}");
    story
}

#[test]
fn a_seed_says_all_that_happens() {
    for seed in 0..40 {
        let [first, second] = [false, true].map(|told| run(&History::draw(seed), told));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_says_all_that_happens_in_each_family() {
    for family in Family::ALL {
        for seed in 0..4 {
            let [first, second] = [false, true].map(|told| run(&(family.draw)(seed), told));
            assert_eq!(first.trace, second.trace, "{} {seed}", family.name);
            assert_eq!(first.violation, None, "{} {seed}", family.name);
        }
    }
}

/// Its partner would count as dealt with what it never got, and take it for ghosts.
#[test]
fn a_store_that_is_restored_while_a_peer_asks_loses_nothing_that_others_have() {
    let story = holds(&History::draw(0x66dd_c1e2_cfa1_1d1a));
    assert!(story.contains("the store changed"), "{story}");
}

/// Its writes of before count as held up to the last reading of the opening in between, otherwise.
#[test]
fn a_store_that_lost_a_write_and_is_opened_twice_takes_it_back_from_its_peers() {
    let story = holds(&History::draw(0x483e_8b63_277a_5bb2));
    assert!(story.contains("the store changed"), "{story}");
}

/// A record that was in no other store comes back with it, and nobody takes it for a deleted one.
#[test]
fn a_backup_that_is_put_back_in_place_of_a_wiped_store_brings_no_ghosts_back() {
    let story = holds(&History::draw(0xf2cc_93c9_51d2_1cde));
    let happened = ["Wiped)", "Restored)"].map(|event| story.contains(event));
    assert_eq!(happened, [true; 2], "{story}");
}

/// Two halves that meet late, after each was scaled down and up.
#[test]
fn two_halves_that_meet_late_become_one() {
    holds(&history(
        Setting::quiet(6),
        [
            (1_000, Event::Part(0b111)),
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Delete(3, 1)),
            (1_000, Event::Put(4, 2)),
            (1_000, Event::ScaleDown(0b10_0010)),
            (1_000, Event::Join),
            (96 * HALF_HOUR_MS, Event::Heal),
        ],
    ));
}

#[test]
fn a_peer_of_a_newer_release_speaks_as_the_others_do() {
    let setting = Setting {
        newer: 0b01,
        ..Setting::quiet(2)
    };
    let story = holds(&history(
        setting,
        [(1_000, Event::Put(0, 1)), (1_000, Event::Exchange(0, 1))],
    ));
    assert!(story.contains("refused (protocol)"), "{story}");
}
