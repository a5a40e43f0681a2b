//! The simulator itself: that a seed says it all, and rivals' bugs as histories of their own.

use udht_simulator::{Event, History, Program, Setting, Step, StoreFault, run};

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

/// grafana/mimir 11275.
#[test]
fn a_deleted_record_does_not_return_through_a_replica_that_was_cut_off() {
    holds(&history(
        Setting::quiet(3),
        [
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Part(0b100)),
            (1_000, Event::Delete(0, 1)),
            (8 * HALF_HOUR_MS, Event::Heal),
            (1_000, Event::Exchange(2, 0)),
            (1_000, Event::Exchange(1, 2)),
        ],
    ));
}

/// quickwit-oss/chitchat 110.
#[test]
fn a_replica_that_was_emptied_is_not_filled_with_what_was_deleted() {
    holds(&history(
        Setting::quiet(3),
        [
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Part(0b100)),
            (1_000, Event::Delete(0, 1)),
            (1_000, Event::Store(1, StoreFault::Wiped)),
            (1_000, Event::Crash(1, Program::Both, 0, 10)),
            (1_000, Event::Part(0b001)),
            (1_000, Event::Exchange(2, 1)),
            (HALF_HOUR_MS, Event::Heal),
        ],
    ));
}

/// redis/redis 6174.
#[test]
fn an_address_that_another_cluster_was_given_joins_nothing() {
    let setting = Setting {
        strangers: 1,
        ..Setting::quiet(3)
    };
    let story = holds(&history(
        setting,
        [
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Put(3, 2)),
            (1_000, Event::Away(1, HALF_HOUR_MS)),
            (1_000, Event::Reuse(1)),
            (1_000, Event::Exchange(0, 3)),
            (1_000, Event::Exchange(3, 0)),
        ],
    ));
    assert!(story.contains("refused (cluster)"), "{story}");
}

/// A record poisoned by one fast clock.
#[test]
fn what_a_fast_clock_stamped_is_refused_until_its_time_has_come() {
    let story = holds(&history(
        Setting::quiet(3),
        [
            (1_000, Event::Clock(1, 3_600_000)),
            (1_000, Event::Put(1, 1)),
            (1_000, Event::Exchange(1, 0)),
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Clock(1, 0)),
            (1_000, Event::Put(1, 1)),
        ],
    ));
    assert!(story.contains("refused_version_ahead"), "{story}");
}

/// A node that rejoins under its old name with older data.
#[test]
fn a_store_that_is_restored_takes_what_it_lost_from_its_peers() {
    let story = holds(&history(
        Setting::quiet(3),
        [
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Backup(0)),
            (1_000, Event::Put(0, 1)),
            (1_000, Event::Delete(0, 1)),
            (1_000, Event::Store(0, StoreFault::Restored)),
            (1_000, Event::Put(0, 2)),
            (1_000, Event::Exchange(0, 1)),
        ],
    ));
    assert!(story.contains("the store changed"), "{story}");
}

/// Its partner would count as dealt with what it never got, and take it for ghosts.
#[test]
fn a_store_that_is_restored_while_a_peer_asks_loses_nothing_that_others_have() {
    let story = holds(&History::draw(0x66dd_c1e2_cfa1_1d1a));
    assert!(story.contains("the store changed"), "{story}");
}

/// All leases expired at once by one long pause.
#[test]
fn a_pause_of_weeks_loses_nobody() {
    let weeks_ms = 4 * 7 * 24 * 2 * HALF_HOUR_MS;
    let away = |pod| (0, Event::Away(pod, weeks_ms));
    let puts = (0..3).map(|pod| (1_000, Event::Put(pod, pod as u64)));
    let steps = puts
        .chain((0..3).map(away))
        .chain([(weeks_ms + 1_000, Event::Rounds)]);
    holds(&history(Setting::quiet(3), steps));
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
