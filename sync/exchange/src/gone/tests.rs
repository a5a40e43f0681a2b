use proptest::prelude::*;

use super::*;

const AFTER_S: u64 = 300;
const AFTER: Duration = Duration::from_secs(AFTER_S);

fn at(seconds: u64) -> Uptime {
    Uptime(Duration::from_secs(seconds))
}

fn pod(number: u8) -> PodUid {
    PodUid(format!("pod-{number}"))
}

fn key(number: u8) -> Key {
    format!("peer-{number}").parse().unwrap()
}

/// Pods that are listed and stay.
fn staying(pods: impl IntoIterator<Item = u8>) -> Vec<(PodUid, bool)> {
    pods.into_iter()
        .map(|number| (pod(number), false))
        .collect()
}

/// A record of each of these pods.
fn records(pods: impl IntoIterator<Item = u8>) -> Vec<Held> {
    let record = |number| Held {
        key: key(number),
        pod: pod(number),
    };
    pods.into_iter().map(record).collect()
}

fn keys(records: &[Held]) -> Vec<&str> {
    records.iter().map(|held| held.key.as_str()).collect()
}

/// The view of pod `own` at second 0, where all these pods are listed and have records.
fn begun(own: u8, pods: std::ops::Range<u8>) -> Gone {
    let mut gone = Gone::new(pod(own), AFTER);
    gone.sees(true, staying(pods.clone()), at(0));
    gone.scanned(records(pods), Some(key(own)), at(0));
    gone
}

/// The views of all of these pods, of which those of `left` are seen to leave at second 10.
fn after_leave(pods: std::ops::Range<u8>, left: std::ops::Range<u8>) -> Vec<Gone> {
    let stay: Vec<u8> = pods.clone().filter(|pod| !left.contains(pod)).collect();
    let view = |own: &u8| {
        let mut gone = begun(*own, pods.clone());
        gone.sees(true, staying(stay.clone()), at(10));
        gone
    };
    stay.iter().map(view).collect()
}

#[test]
fn a_pod_that_left_is_gone_after_the_time_and_not_a_moment_earlier() {
    let views = after_leave(0..5, 4..5);
    let due = |now| -> usize { views.iter().map(|view| view.due(now).len()).sum() };
    assert_eq!(due(at(9 + AFTER_S)), 0);
    assert_eq!(due(at(10 + AFTER_S)), 1, "one of the four removes it");
    for view in &views {
        assert_eq!(view.next_scan(at(11)), Some(at(10 + AFTER_S)));
        assert_eq!(view.brake(at(10 + AFTER_S)), None);
    }
}

#[test]
fn where_one_does_not_remove_a_record_the_next_in_rank_does_after_the_same_time() {
    let views = after_leave(0..5, 4..5);
    for turn in 1..=4 {
        let due = |now| {
            views
                .iter()
                .filter(|view| !view.due(now).is_empty())
                .count()
        };
        assert_eq!(due(at(9 + turn * AFTER_S)) as u64, turn - 1);
        assert_eq!(due(at(10 + turn * AFTER_S)) as u64, turn);
    }
    // Each looks again when it is its turn, and not before.
    let mut looks: Vec<_> = views
        .into_iter()
        .map(|mut view| {
            let now = at(10 + AFTER_S);
            view.scanned(records(0..5), None, now);
            view.next_scan(now).unwrap().0.as_secs() - 10
        })
        .collect();
    looks.sort_unstable();
    let turns = [1, 2, 3, 4].map(|turn| turn * AFTER_S);
    assert_eq!(looks[..3], turns[1..], "the first in rank has had its turn");
    assert_eq!(looks[3], SCAN_EVERY.as_secs() + AFTER_S);
}

#[test]
fn a_pod_that_comes_back_is_waited_for_no_longer() {
    let mut gone = begun(0, 0..3);
    gone.sees(true, staying(0..2), at(10));
    gone.sees(true, staying(0..3), at(200));
    gone.sees(true, staying(0..2), at(250));
    assert_eq!(gone.due_by_hand(at(249 + AFTER_S)), []);
    assert_eq!(keys(&gone.due_by_hand(at(250 + AFTER_S))), ["peer-2"]);
}

#[test]
fn what_a_lost_list_says_proves_nothing_and_the_waiting_begins_anew() {
    let mut gone = begun(0, 0..3);
    gone.sees(true, staying(0..2), at(10));
    gone.sees(false, staying(0..2), at(200));
    assert_eq!(gone.brake(at(200)), Some(Brake::Blind));
    assert_eq!(gone.next_scan(at(1000)), None);
    assert_eq!(gone.due_by_hand(at(1000)), []);
    gone.sees(true, staying(0..2), at(1000));
    assert_eq!(gone.brake(at(1000)), None);
    assert_eq!(gone.next_scan(at(1000)), Some(at(1000)));
    gone.scanned(records(0..3), None, at(1000));
    assert_eq!(gone.next_scan(at(1000)), Some(at(1000 + AFTER_S)));
    assert_eq!(gone.due_by_hand(at(999 + AFTER_S)), []);
    assert_eq!(gone.due_by_hand(at(1000 + AFTER_S)).len(), 1);
}

#[test]
fn a_list_that_does_not_name_this_pod_is_not_believed() {
    let mut gone = begun(0, 0..3);
    gone.sees(true, staying(1..2), at(10));
    assert_eq!(gone.brake(at(10)), Some(Brake::Blind));
    gone.scanned(records(0..3), None, at(20));
    assert_eq!(gone.due_by_hand(at(20 + AFTER_S)), []);
    gone.sees(true, [], at(20 + AFTER_S));
    assert_eq!(gone.brake(at(20 + AFTER_S)), Some(Brake::Blind));
}

#[test]
fn the_record_of_a_pod_that_was_never_listed_is_waited_for_from_when_it_was_found() {
    let mut gone = begun(0, 0..3);
    let found = 10 * AFTER_S;
    gone.scanned(records(0..4), None, at(found));
    assert_eq!(gone.due_by_hand(at(found)), []);
    assert_eq!(gone.next_scan(at(found)), Some(at(found + AFTER_S)));
    assert_eq!(gone.due_by_hand(at(found + AFTER_S)).len(), 1);
    gone.sees(true, staying(0..4), at(found + 1));
    assert_eq!(gone.due_by_hand(at(found + AFTER_S)), []);
}

#[test]
fn of_two_pods_one_may_be_gone() {
    let views = after_leave(0..2, 1..2);
    assert_eq!(views[0].brake(at(10 + AFTER_S)), None);
    assert_eq!(keys(&views[0].due(at(10 + AFTER_S))), ["peer-1"]);
}

#[test]
fn when_more_than_half_are_gone_nothing_is_removed_however_long_it_takes() {
    let views = after_leave(0..6, 2..6);
    let many = Some(Brake::Many { gone: 4, known: 6 });
    for view in &views {
        assert_eq!(
            view.brake(at(9 + AFTER_S)),
            None,
            "they may have left cleanly"
        );
        for times in [1, 2, 50, 10_000] {
            let now = at(10 + times * AFTER_S);
            assert_eq!((view.brake(now), view.due(now)), (many, vec![]));
        }
        assert_eq!(view.due_by_hand(at(10 + AFTER_S)).len(), 4);
        let mut view = view.clone();
        let now = at(10 + AFTER_S);
        view.scanned(records(0..6), None, now);
        assert_eq!(
            view.next_scan(now),
            Some(at(10 + 2 * AFTER_S)),
            "it looks again"
        );
    }
}

#[test]
fn those_that_left_in_waves_count_together() {
    let mut gone = begun(0, 0..6);
    gone.sees(true, staying(0..4), at(10));
    gone.sees(true, staying(0..2), at(200));
    let now = at(10 + AFTER_S);
    assert_eq!(gone.brake(now), Some(Brake::Many { gone: 4, known: 6 }));
}

#[test]
fn pods_that_come_back_or_new_ones_release_the_brake() {
    let mut gone = after_leave(0..6, 2..6).remove(0);
    let now = at(10 + AFTER_S);
    gone.sees(true, staying(0..3), now);
    assert_eq!(gone.brake(now), None, "three of six");
    let mut gone = after_leave(0..6, 2..6).remove(0);
    gone.sees(true, staying((0..2).chain(10..12)), now);
    assert_eq!(gone.brake(now), None, "four of eight");
}

#[test]
fn pods_that_took_their_records_with_them_do_not_count() {
    let mut gone = after_leave(0..6, 1..6).remove(0);
    let now = at(10 + AFTER_S);
    gone.scanned(records(0..2), None, now);
    assert_eq!(gone.brake(now), None);
    assert_eq!(keys(&gone.due(now)), ["peer-1"]);
}

#[test]
fn a_record_that_is_another_pod_s_by_now_stays() {
    // The same key, with the UID that the pod had before its restart, and then with its new one.
    let mut gone = begun(0, 0..3);
    gone.sees(true, staying([0, 1, 7]), at(10));
    let now = at(10 + AFTER_S);
    assert_eq!(gone.due_by_hand(now).len(), 1);
    let mut after = records(0..2);
    after.push(Held {
        key: key(2),
        pod: pod(7),
    });
    gone.scanned(after, None, now);
    assert_eq!(gone.due_by_hand(now), []);
    assert_eq!(gone.waiting().count(), 0);
}

#[test]
fn a_record_is_found_anew_by_few_scans() {
    let mut gone = begun(0, 0..50);
    let mut scans = 0;
    // One pod after the other is restarted, each with a new UID, ten seconds apart.
    for turn in 0_u8..49 {
        let now = at(u64::from(turn + 1) * 10);
        let new = (1..50).map(|pod| if pod <= turn + 1 { pod + 100 } else { pod });
        let listed: Vec<_> = [0].into_iter().chain(new).collect();
        gone.sees(true, staying(listed.iter().copied()), now);
        if gone.next_scan(now).unwrap() <= now {
            gone.scanned(records(listed), None, now);
            scans += 1;
        }
    }
    assert!(scans <= 5, "{scans} scans");
}

#[test]
fn a_list_that_comes_and_goes_costs_few_scans() {
    let mut gone = begun(0, 0..3);
    for second in 0..600 {
        gone.sees(second % 2 == 0, staying(0..3), at(second));
        if gone
            .next_scan(at(second))
            .is_some_and(|next| next <= at(second))
        {
            assert!(second >= AFTER_S / 5, "at {second}");
            gone.scanned(records(0..3), None, at(second));
            assert!(gone.next_scan(at(second)).unwrap() >= at(second + AFTER_S / 5));
        }
    }
}

#[test]
fn a_pod_has_the_same_weight_in_every_build() {
    assert_eq!(weight(&pod(1), &key(1)).0, GOLDEN_WEIGHT);
}

/// Of `pod-1` and `peer-1`, as another program computed it.
const GOLDEN_WEIGHT: u64 = 7_338_574_223_228_648_814;

#[derive(Clone, Debug)]
enum Step {
    /// The list as it is followed: which pods it names, and which of them are about to end.
    List(u8, u8),
    /// The list is lost.
    Lost,
    Wait(u64),
    /// Records of these pods are found.
    Scan(u8),
    /// What is due is removed.
    Remove,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(pods, ending)| Step::List(pods | 1, ending)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(pods, ending)| Step::List(pods, ending)),
        1 => Just(Step::Lost),
        5 => (1..2 * AFTER_S).prop_map(Step::Wait),
        4 => any::<u8>().prop_map(Step::Scan),
        2 => Just(Step::Remove),
    ]
}

fn in_mask(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |pod| mask & (1 << pod) != 0)
}

proptest! {
    #[test]
    fn whatever_happens_only_what_is_surely_gone_is_due(steps in prop::collection::vec(step(), 1..60)) {
        // Pod 0 is this one, and its record has the label of another pod.
        let mut gone = Gone::new(pod(0), AFTER);
        let own_key = key(7);
        let (mut now, mut listed, mut held, mut seen) = (1_000, 0_u8, 0_u8, false);
        // Since when each pod was not listed while everything could be seen.
        let mut unlisted_since = [None; 8];
        for step in steps {
            match step {
                Step::List(pods, ending) => {
                    listed = pods;
                    seen = pods & 1 == 1;
                    let pods = in_mask(pods).map(|n| (pod(n), ending & (1 << n) != 0));
                    gone.sees(true, pods, at(now));
                }
                Step::Lost => {
                    seen = false;
                    gone.sees(false, in_mask(listed).map(|n| (pod(n), false)), at(now));
                }
                Step::Wait(seconds) => now += seconds,
                Step::Scan(pods) => {
                    held = pods;
                    gone.scanned(records(in_mask(pods)), Some(own_key.clone()), at(now));
                }
                Step::Remove => for due in gone.due(at(now)) {
                    gone.removed(&due.key);
                    held &= !in_mask(255).filter(|n| key(*n) == due.key).fold(0, |m, n| m | 1 << n);
                },
            }
            for n in 0..8_u8 {
                let unlisted = seen && listed & (1 << n) == 0;
                let since = &mut unlisted_since[usize::from(n)];
                *since = if unlisted { since.or(Some(now)) } else { None };
            }
            let of_others = held & !(1 << 7);
            let missing = (of_others & !listed).count_ones();
            let due = gone.due(at(now));
            let by_hand = gone.due_by_hand(at(now));
            for held_by_pod in due.iter().chain(&by_hand) {
                let n = in_mask(255).find(|n| pod(*n) == held_by_pod.pod).unwrap();
                prop_assert_ne!(&held_by_pod.key, &own_key);
                prop_assert!(of_others & (1 << n) != 0);
                let since = unlisted_since[usize::from(n)];
                prop_assert!(since.is_some_and(|since| now - since >= AFTER_S), "{} {:?}", n, since);
            }
            if !due.is_empty() {
                prop_assert!(2 * missing <= missing + listed.count_ones());
                prop_assert_eq!(gone.brake(at(now)), None);
            }
            prop_assert!(due.iter().all(|due| by_hand.contains(due)));
            prop_assert_eq!(gone.brake(at(now)) == Some(Brake::Blind), !seen);
        }
    }

    #[test]
    fn of_all_that_see_the_same_exactly_one_removes_each_record(
        pods in 3_u8..40, left in 1_u8..19, ending in 0_u8..10, names in any::<u32>(),
    ) {
        let left = left.min(pods / 2);
        let uid = |n: u8| PodUid(format!("{names}-{n}"));
        let ending = ending.min(pods - left - 1);
        let mut times = BTreeMap::<Key, usize>::new();
        for own in 0..pods - left {
            let mut gone = Gone::new(uid(own), AFTER);
            let all = (0..pods).map(|n| (uid(n), false));
            gone.sees(true, all, at(0));
            gone.sees(true, (0..pods - left).map(|n| (uid(n), n < ending)), at(1));
            let records = (0..pods).map(|n| Held { key: key(n), pod: uid(n) });
            gone.scanned(records, None, at(1 + AFTER_S));
            for due in gone.due(at(1 + AFTER_S)) {
                prop_assert!(own >= ending, "who ends leaves it to others");
                *times.entry(due.key).or_default() += 1;
            }
        }
        let expected: BTreeMap<_, _> = (pods - left..pods).map(|n| (key(n), 1)).collect();
        prop_assert_eq!(times, expected);
    }
}
