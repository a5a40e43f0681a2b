//! What users of other directories complained about, replayed step by step: each test names the
//! project and the number under which it was told, and shows what happens here in its place.

use udht_simulator::{Directed, Event, Setting, StoreFault};

const MINUTE_MS: u64 = 60 * 1_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// All pods of a cluster of three.
const ALL: [usize; 3] = [0, 1, 2];

/// Three pods that know each other, and one record that all of them have.
fn three_with_a_record() -> Directed {
    let mut cluster = Directed::new(Setting::quiet(3));
    cluster.settle(&ALL);
    assert!(cluster.put(0, "k1"));
    cluster.meet(&ALL);
    assert!(ALL.iter().all(|pod| cluster.is_live(*pod, "k1")));
    cluster
}

/// grafana/mimir 11275: hours after a deletion an entry was back, from a replica that had been cut
/// off. Here the tombstone waits for as long as the cut lasts, and goes once that replica has it.
#[test]
fn a_deleted_record_does_not_return_hours_later_through_a_replica_that_was_cut_off() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Part(0b100));
    assert!(cluster.delete(0, "k1"));
    cluster.goes_on(&[0, 1], 8 * HOUR_MS);
    assert!(cluster.is_live(2, "k1"), "it was told all the same");
    assert_eq!([0, 1].map(|pod| cluster.tombstones(pod)), [1, 1]);

    cluster.happens(&Event::Heal);
    assert!(cluster.exchange(2, 1));
    assert!(!cluster.is_live(2, "k1"));
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);
    cluster.ends();
}

/// The same after weeks (grafana/mimir 11275): the replica was given up and the tombstone has left.
/// Here it is told so before it can say anything, and starts over.
#[test]
fn a_replica_that_returns_after_its_tombstones_left_starts_over() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Part(0b100));
    assert!(cluster.delete(0, "k1"));
    cluster.goes_on(&[0, 1], 9 * DAY_MS);
    assert_eq!([0, 1].map(|pod| cluster.given_up(pod)), [1, 1]);
    assert_eq!([0, 1].map(|pod| cluster.tombstones(pod)), [0, 0]);
    assert!(cluster.is_live(2, "k1"));

    cluster.happens(&Event::Heal);
    cluster.exchange(2, 0);
    assert!(cluster.has_said("pod 2: starts over"));
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    cluster.ends();
}

/// quickwit-oss/chitchat 155: replicas forgot a dead entry at different times, and whoever had
/// forgotten it took it for new from one who had not. Here who has let go of a tombstone takes
/// neither that nor what it buried again.
#[test]
fn a_dead_record_does_not_survive_replicas_that_collect_it_at_different_times() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Backup(2));
    assert!(cluster.delete(0, "k1"));
    // As long as any of them may lack it, none lets go.
    for _ in 0..4 {
        cluster.meet(&ALL);
        cluster.tend(1);
        cluster.tend(2);
    }
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [1; 3]);
    cluster.tend(0);
    cluster.meet(&ALL);
    cluster.tend(1);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0, 0, 1]);

    // The third comes with what the others have let go of already, in both directions.
    for (from, to) in [(2, 0), (0, 2), (2, 1), (1, 2)] {
        assert!(cluster.exchange(from, to));
        assert_eq!([0, 1].map(|pod| cluster.tombstones(pod)), [0; 2]);
    }
    // And then it is what it was before the record was deleted.
    cluster.happens(&Event::Store(2, StoreFault::Restored));
    cluster.restart(2);
    assert!(cluster.is_live(2, "k1"));
    assert!(cluster.exchange(2, 1));
    assert_eq!([1, 2].map(|pod| cluster.is_live(pod, "k1")), [false; 2]);
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);
    cluster.ends();
}

/// quickwit-oss/chitchat 110: after a partition one replica was emptied by the second and filled by a
/// third that had not heard of a deletion. Here the deletion wins, whoever comes first.
#[test]
fn a_deleted_record_does_not_live_on_in_an_emptied_replica_that_a_third_one_filled() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Part(0b100));
    assert!(cluster.delete(1, "k1"));
    cluster.happens(&Event::Store(0, StoreFault::Wiped));
    // From now on the second is cut off, and the third fills the first.
    cluster.happens(&Event::Part(0b010));
    cluster.restart(0);
    assert!(cluster.exchange(0, 2));
    assert!(cluster.is_live(0, "k1"));

    cluster.happens(&Event::Heal);
    assert!(cluster.exchange(0, 1));
    assert!(!cluster.is_live(0, "k1"));
    cluster.meet(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    cluster.ends();
}

/// The same, when the tombstone has left (quickwit-oss/chitchat 110): what was filled in is a ghost.
#[test]
fn what_a_third_replica_filled_in_is_a_ghost_where_the_tombstone_has_left() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Part(0b100));
    assert!(cluster.delete(1, "k1"));
    cluster.goes_on(&[0, 1], 9 * DAY_MS);
    assert_eq!([0, 1].map(|pod| cluster.tombstones(pod)), [0, 0]);
    cluster.happens(&Event::Store(0, StoreFault::Wiped));
    cluster.happens(&Event::Part(0b010));
    cluster.restart(0);
    assert!(cluster.exchange(0, 2));
    assert!(cluster.is_live(0, "k1"));

    cluster.happens(&Event::Heal);
    cluster.exchange(0, 1);
    assert!(!cluster.is_live(1, "k1"));
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    cluster.ends();
}

/// quickwit-oss/chitchat 94: a node that was restarted stayed in the state a second time, as its
/// earlier generation. Here the earlier openings of a store write no more from the next one on, and
/// the pod has one record whatever becomes of it.
#[test]
fn no_earlier_generation_of_a_restarted_pod_stays() {
    let mut cluster = Directed::new(Setting::quiet(3));
    cluster.settle(&ALL);
    for _ in 0..5 {
        cluster.restart(2);
        cluster.meet(&ALL);
    }
    assert!(cluster.put(2, "k1"));
    assert!(cluster.delete(0, "k1"));
    cluster.settle(&ALL);
    for pod in ALL {
        let records = ["pod-0-0", "pod-0-1", "pod-0-2"];
        assert_eq!(cluster.records(pod), records, "pod {pod}");
        assert_eq!(cluster.replicas(pod), 3, "pod {pod}");
        assert_eq!(cluster.tombstones(pod), 0, "pod {pod}");
    }
    cluster.ends();
}

/// grafana/loki 13262: an instance that was deleted just after it had joined stayed in the ring for
/// ever. Here the others remove its record once its pod was missing for long enough, and its store
/// holds back no tombstone: at once where it went with the pod, after a week where it is on a volume.
#[test]
fn a_pod_that_lived_for_a_moment_does_not_stay() {
    let mut cluster = Directed::new(Setting::quiet(3));
    cluster.settle(&ALL);
    let short_lived = [(3, "pod-0-3"), (4, "pod-0-4")];
    for (pod, record) in short_lived {
        cluster.happens(&Event::Join);
        assert!(cluster.exchange(pod, 0));
        cluster.meet(&ALL);
        cluster.tend(pod);
        cluster.happens(&Event::Leave(pod));
        assert!(ALL.iter().all(|pod| cluster.is_live(*pod, record)));
    }
    // The one whose turn it is removes it after five minutes, the next one after five more.
    for _ in 0..16 {
        for pod in ALL {
            cluster.looks_for_the_gone(pod);
        }
        cluster.passes(MINUTE_MS);
    }
    cluster.meet(&ALL);
    for (_, record) in short_lived {
        assert_eq!(ALL.map(|pod| cluster.is_live(pod, record)), [false; 3]);
    }
    // The volume may come back, and until then nobody forgets what it may have missed.
    assert_eq!(ALL.map(|pod| cluster.replicas(pod)), [4; 3]);
    cluster.goes_on(&ALL, 9 * DAY_MS);
    assert_eq!(ALL.map(|pod| cluster.replicas(pod)), [3; 3]);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);
    cluster.ends();
}

/// grafana/mimir 13810: an entry with a timestamp of zero could be neither forgotten nor replaced.
/// Here whatever is written now is later than that.
#[test]
fn a_record_that_was_stamped_at_zero_can_be_replaced_and_removed() {
    for replaces in [false, true] {
        let mut cluster = Directed::with_record(Setting::quiet(3), &ALL, "k1", 0);
        cluster.meet(&ALL);
        assert!(cluster.is_live(1, "k1"));
        if replaces {
            assert!(cluster.put(2, "k1"));
        }
        assert!(cluster.delete(1, "k1"));
        cluster.meet(&ALL);
        assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
        cluster.ends();
    }
}

/// The same at the other end (grafana/mimir 13810): a stamp of centuries ahead. Here no other pod
/// takes it, and it goes with the store of the one that has it.
#[test]
fn a_record_that_was_stamped_centuries_ahead_stays_where_it_is_and_goes_with_its_store() {
    let century_3000_ms = 32_503_680_000_000;
    let mut cluster = Directed::with_record(Setting::quiet(3), &[1], "k1", century_3000_ms);
    cluster.meet(&ALL);
    assert!(cluster.has_said("refused_version_ahead"));
    assert_eq!(
        ALL.map(|pod| cluster.is_live(pod, "k1")),
        [false, true, false]
    );
    assert!(!cluster.put(1, "k2"), "its clock would have to run ahead");
    assert!(cluster.put(0, "k2"));

    cluster.happens(&Event::Store(1, StoreFault::Wiped));
    cluster.restart(1);
    cluster.meet(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    assert!(cluster.put(1, "k2"));
    cluster.meet(&ALL);
    cluster.ends();
}

/// redis/redis 6174: the address of a deleted pod was given to one of another cluster, and the two
/// became one. Here each refuses the other before it reads a record.
#[test]
fn two_clusters_do_not_become_one_because_an_address_was_used_again() {
    let setting = Setting {
        strangers: 1,
        ..Setting::quiet(3)
    };
    let mut cluster = Directed::new(setting);
    assert!(cluster.put(0, "ours"));
    assert!(cluster.put(3, "theirs"));
    cluster.happens(&Event::Leave(1));
    cluster.happens(&Event::Reuse(1));
    for (from, to) in [(0, 3), (3, 0), (2, 3), (3, 2)] {
        assert!(!cluster.exchange(from, to), "{from} and {to}");
    }
    assert!(cluster.has_said("refused (cluster)"));
    // What is written now is pushed to that address too.
    assert!(cluster.put(0, "later"));
    assert_eq!(cluster.records(3), ["pod-1-3", "theirs"]);
    assert!(!cluster.is_live(0, "theirs") && !cluster.is_live(2, "theirs"));
    cluster.ends();
}

/// All leases expired at once by one long pause. Here who was away itself says of nobody that he was
/// silent: after weeks in which nothing ran, nobody is given up and nothing is lost.
#[test]
fn a_pause_of_weeks_is_nobody_s_silence() {
    let all = [0, 1, 2, 3, 4];
    let mut cluster = Directed::new(Setting::quiet(5));
    cluster.settle(&all);
    for pod in all {
        assert!(cluster.put(pod, &format!("k{pod}")));
    }
    cluster.goes_on(&all, HOUR_MS);
    cluster.passes(4 * 7 * DAY_MS);
    // It has heard of two of the four when it looks after its floors again.
    for pod in [1, 2] {
        assert!(cluster.exchange(0, pod));
    }
    cluster.tend(0);
    assert_eq!(cluster.given_up(0), 0);
    cluster.settle(&all);
    for pod in all {
        assert_eq!(cluster.records(pod).len(), 10, "pod {pod}");
        assert_eq!(cluster.given_up(pod), 0, "pod {pod}");
    }
    assert!(!cluster.has_said("starts over"));
    cluster.ends();
}

/// A record poisoned by one fast clock: nobody could write it any more until that time had come. Here
/// the stamp is refused at every other door, and the record stays everybody's.
#[test]
fn one_fast_clock_poisons_no_record() {
    let mut cluster = three_with_a_record();
    let ahead = i64::try_from(365 * DAY_MS).unwrap_or(i64::MAX);
    cluster.happens(&Event::Clock(1, ahead));
    assert!(cluster.put(1, "k1"));
    cluster.meet(&ALL);
    assert!(cluster.has_said("refused_version_ahead"));
    assert!(cluster.put(0, "k1"));
    assert!(cluster.delete(2, "k1"));
    cluster.exchange(0, 2);
    assert_eq!([0, 2].map(|pod| cluster.is_live(pod, "k1")), [false; 2]);

    // Its clock is right again: it would have to stamp a year ahead, and says so until it begins
    // anew.
    cluster.happens(&Event::Clock(1, 0));
    assert!(!cluster.put(1, "k1"));
    cluster.restart(1);
    assert!(!cluster.put(1, "k1"), "a restart makes it no shorter");
    cluster.happens(&Event::Store(1, StoreFault::Wiped));
    cluster.restart(1);
    cluster.meet(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [false; 3]);
    assert!(cluster.put(1, "k1"));
    cluster.meet(&ALL);
    assert_eq!(ALL.map(|pod| cluster.is_live(pod, "k1")), [true; 3]);
    cluster.ends();
}

/// A node that rejoins under its old name with older data, after all else was forgotten. Here what it
/// brings is known to be dead, and what it lost comes back to it.
#[test]
fn a_store_restored_to_older_data_brings_nothing_back_and_gets_what_it_lost() {
    let mut cluster = three_with_a_record();
    cluster.happens(&Event::Backup(2));
    assert!(cluster.delete(0, "k1"));
    assert!(cluster.put(2, "k2"));
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);

    cluster.happens(&Event::Store(2, StoreFault::Restored));
    cluster.restart(2);
    assert!(cluster.is_live(2, "k1") && !cluster.is_live(2, "k2"));
    assert!(cluster.exchange(2, 0));
    assert_eq!([0, 2].map(|pod| cluster.is_live(pod, "k1")), [false; 2]);
    assert!(cluster.is_live(2, "k2"));
    cluster.settle(&ALL);
    assert_eq!(ALL.map(|pod| cluster.tombstones(pod)), [0; 3]);
    cluster.ends();
}
