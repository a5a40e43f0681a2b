//! Pods of neighbouring releases side by side: whichever goes first, and back again.

use udht_simulator::{Directed, Event, Family, Release, Setting, run};

/// All pods of a cluster of three.
const ALL: [usize; 3] = [0, 1, 2];
/// How long a pod is away for another release, in milliseconds.
const AWAY_MS: u64 = 10;

/// Each pod becomes one of `release` in this order; before and after each, every pod writes a record
/// and deletes the one that it wrote before, and what is so is seen by all.
fn roll(cluster: &mut Directed, order: [usize; 3], release: Release, name: &str) {
    for (step, pod) in order.into_iter().enumerate() {
        cluster.happens(&Event::Release(pod, release, AWAY_MS));
        for writer in ALL {
            assert!(cluster.put(writer, &format!("{name}-{step}-{writer}")));
            if step > 0 {
                assert!(cluster.delete(writer, &format!("{name}-{}-{writer}", step - 1)));
            }
        }
        cluster.meet(&ALL);
        for seer in ALL {
            for writer in ALL {
                let is_live = |step| cluster.is_live(seer, &format!("{name}-{step}-{writer}"));
                assert!(is_live(step), "{name} {step}: {writer} as {seer} sees it");
                assert!(
                    step == 0 || !is_live(step - 1),
                    "{name} {step}: a deleted one is there"
                );
            }
        }
    }
}

#[test]
fn pods_are_upgraded_and_rolled_back_one_by_one_in_both_orders_and_lose_nothing() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut cluster = Directed::new(Setting::quiet(3));
        cluster.settle(&ALL);
        roll(&mut cluster, order, Release::Next, "up");
        assert!(cluster.has_said("in version 1"), "while they were mixed");
        assert!(cluster.has_said("in version 2"), "once all were upgraded");
        roll(&mut cluster, order, Release::AfterNext, "on");
        roll(&mut cluster, order, Release::Next, "down");
        roll(&mut cluster, order, Release::This, "back");
        // What was deleted under any of them is gone for good, and its tombstones leave.
        cluster.settle(&ALL);
        assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);
        cluster.ends();
    }
}

/// Nothing moves between releases that are not neighbours, and nothing is lost by it: the pod in between
/// talks to both.
#[test]
fn a_release_that_was_skipped_is_refused_by_word_and_one_between_carries_all_over() {
    let mut cluster = Directed::new(Setting::quiet(3));
    cluster.settle(&ALL);
    cluster.happens(&Event::Release(2, Release::AfterNext, AWAY_MS));
    assert!(cluster.put(0, "old"));
    assert!(cluster.put(2, "new"));
    assert!(!cluster.exchange(0, 2) && !cluster.exchange(2, 1));
    assert!(cluster.has_said("refused (protocol)"));
    assert!(!cluster.is_live(2, "old") && !cluster.is_live(0, "new"));

    cluster.happens(&Event::Release(1, Release::Next, AWAY_MS));
    cluster.meet(&[0, 1]);
    cluster.meet(&[1, 2]);
    cluster.meet(&[0, 1]);
    assert!(
        ALL.iter()
            .all(|pod| cluster.is_live(*pod, "old") && cluster.is_live(*pod, "new"))
    );
    cluster.happens(&Event::Release(0, Release::Next, AWAY_MS));
    cluster.ends();
}

#[test]
fn no_rule_is_broken_by_upgrades_and_rollbacks_among_all_other_trouble() {
    for seed in 0..16 {
        let outcome = run(&(Family::UPGRADES.draw)(seed), true);
        let story = outcome.story.join("\n");
        assert_eq!(outcome.violation, None, "seed {seed}\n{story}");
    }
}
