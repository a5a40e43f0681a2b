//! Looking after the floors.

use super::*;

const PAUSE: Duration = Duration::from_mins(1);
const SILENCE: Duration = Duration::from_hours(1);
const AGES: Ages = Ages::new(SILENCE, PAUSE);
/// So often a replica looks after its floors while it runs.
const LOOK: u64 = 20;

impl Replica {
    fn tend(&mut self, evidence: &Evidence, now: WallTime) -> Tended {
        self.tend_with(evidence, now, false, false)
    }

    /// With a table in which tombstones wait for the floor, or which holds something of each id.
    fn tend_with(
        &mut self,
        evidence: &Evidence,
        now: WallTime,
        waits: bool,
        holds: bool,
    ) -> Tended {
        let table_says = (|_, _| waits, |_| holds);
        let me = me(self.store);
        self.floors
            .tend(evidence, &me, AGES, table_says, &mut self.clock, now)
    }

    /// Looks after the floors from one second to another, at the usual pace.
    fn tend_through(&mut self, seconds: std::ops::RangeInclusive<u64>) -> Vec<(u64, Tended)> {
        let looks = seconds.step_by(usize::try_from(LOOK).unwrap());
        looks
            .map(|second| (second, self.tend(&Evidence::default(), at(second))))
            .collect()
    }
}

fn published(tended: &[(u64, Tended)]) -> Vec<u64> {
    let told = tended.iter().filter(|(_, it)| it.publication.is_some());
    told.map(|(second, _)| *second).collect()
}

/// Three replicas that know each other as of `second`.
fn three(second: u64) -> [Replica; 3] {
    let mut all = [1, 2, 3].map(Replica::new);
    for replica in &mut all {
        for id in [1, 2, 3] {
            replica.floors.met(origin(id), at(second));
        }
        replica.tend(&Evidence::default(), at(second));
    }
    all
}

#[test]
fn a_replica_publishes_at_most_once_in_a_pause_and_at_rest_only_as_a_sign_of_life() {
    let mut alone = Replica::new(1);
    alone.floors.fence(origin(9), Fence::Ended, at(1_000));
    let rest = published(&alone.tend_through(1_000..=1_440));
    assert_eq!(rest.first(), Some(&1_000));
    assert!(
        rest.windows(2).all(|pair| pair[1] - pair[0] >= 60),
        "{rest:?}"
    );
    alone.floors.fence(origin(8), Fence::Ended, at(1_450));
    let news = published(&alone.tend_through(1_460..=1_700));
    assert_eq!(news.len(), 1, "{news:?}");
    let quiet = published(&alone.tend_through(1_720..=1_720 + 3_600));
    assert_eq!(
        quiet.len(),
        8,
        "once in an eighth of what silence may last: {quiet:?}"
    );
}

#[test]
fn a_tombstone_that_waits_for_the_floor_is_a_reason_to_publish() {
    let mut alone = Replica::new(1);
    alone.tend_through(1_000..=1_060);
    let mut tend = |second, waits: bool| {
        let tended = alone.tend_with(&Evidence::default(), at(second), waits, false);
        tended.publication.is_some()
    };
    assert!(!tend(1_130, false));
    assert!(tend(1_140, true));
    assert!(!tend(1_150, true), "not within the pause");
    assert!(tend(1_200, true));
}

#[test]
fn a_tombstone_leaves_a_replica_only_once_it_has_told_that_it_is_there() {
    let mut all = [1, 2].map(Replica::new);
    settle(&mut all, 10);
    let [a, b] = &mut all;
    b.publish(at(1_000));
    let deleted = a.write(7, true, at(1_001));
    exchange(a, b, at(1_002));
    exchange(b, a, at(1_002));
    let told = a.publish(at(1_003));
    b.floors.hear(told, at(1_003));
    let soon = b.tend_with(&Evidence::default(), at(1_010), true, false);
    assert_eq!(soon.publication, None, "not within the pause");
    assert!(soon.collectable < deleted.version.reading);
    let later = b.tend_with(&Evidence::default(), at(1_061), true, false);
    assert!(later.publication.is_some());
    assert!(later.collectable >= deleted.version.reading);
}

#[test]
fn a_store_is_fenced_with_its_pod_only_if_it_went_with_it() {
    let [mut a, mut b, mut c] = three(1_000);
    let of_b = b.publish(at(1_001));
    let of_c = Publication {
        storage: Storage::Volume,
        ..c.publish(at(1_001))
    };
    let gone = [&of_b, &of_c].map(|it| it.peer_id.clone().unwrap());
    a.floors.hear(of_b, at(1_002));
    a.floors.hear(of_c, at(1_002));
    let evidence = Evidence {
        gone: gone.to_vec(),
        ..Evidence::default()
    };
    let braked = Evidence {
        is_braked: true,
        ..evidence.clone()
    };
    assert_eq!(a.tend(&braked, at(1_003)).fenced, []);
    let fenced = [(origin(2), Fence::Ended)];
    assert_eq!(a.tend(&evidence, at(1_003)).fenced, fenced);
    assert_eq!(a.floors.ids().fence(origin(3)), None);
    assert_eq!(a.tend(&evidence, at(1_004)).fenced, [], "it is already");
}

#[test]
fn one_that_is_silent_for_too_long_is_given_up_and_most_at_once_are_not() {
    let [mut a, ..] = three(1_000);
    a.floors.learn(origin(4), at(1_000));
    let end = 1_000 + SILENCE.as_secs();
    a.tend_through(1_000..=end);
    a.floors.met(origin(2), at(end));
    let tended = a.tend(&Evidence::default(), at(end + LOOK));
    assert!(tended.is_braked, "two of three are silent");
    assert_eq!(tended.fenced, []);
    a.floors.met(origin(3), at(end + LOOK));
    let tended = a.tend(&Evidence::default(), at(end + 2 * LOOK));
    assert!(!tended.is_braked);
    assert_eq!(tended.fenced, [(origin(4), Fence::GivenUp)]);
}

#[test]
fn those_who_went_before_they_said_anything_of_themselves_are_given_up_however_many_they_are() {
    let [mut a, mut b, _] = three(1_000);
    let never_spoke: Vec<_> = (4..9).map(origin).collect();
    for id in &never_spoke {
        a.floors.learn(*id, at(1_000));
    }
    let end = 1_000 + SILENCE.as_secs();
    a.tend_through(1_000..=end);
    a.floors.met(origin(3), at(end));
    a.floors.hear(b.publish(at(end)), at(end));
    let tended = a.tend(&Evidence::default(), at(end + LOOK));
    assert!(!tended.is_braked, "whoever spoke was heard");
    let fenced = tended.fenced.into_iter();
    let fenced: Vec<_> = fenced.map(|(id, fence)| (fence, id)).collect();
    let given_up = never_spoke.into_iter().map(|id| (Fence::GivenUp, id));
    assert_eq!(fenced, given_up.collect::<Vec<_>>());
}

#[test]
fn the_time_in_which_a_replica_was_away_is_nobodys_silence() {
    let [mut a, ..] = three(1_000);
    a.floors.met(origin(2), at(1_000));
    // Off for ten times as long as silence may last, and then back.
    let back = 1_000 + 10 * SILENCE.as_secs();
    let tended = a.tend(&Evidence::default(), at(back));
    assert!(!tended.is_braked);
    assert_eq!(tended.fenced, []);
    a.floors.met(origin(2), at(back));
    let end = back + SILENCE.as_secs() + LOOK;
    a.tend_through(back + LOOK..=end - LOOK);
    a.floors.met(origin(2), at(end));
    let tended = a.tend(&Evidence::default(), at(end + LOOK));
    let given_up = a.floors.ids().fence(origin(3));
    assert_eq!(given_up, Some(Fence::GivenUp), "{tended:?}");
}

#[test]
fn a_fence_comes_to_rest_and_is_then_forgotten_unless_something_of_its_id_is_held() {
    let mut alone = Replica::new(1);
    let digest = alone.floors.ids().digest();
    alone.floors.fence(origin(2), Fence::Ended, at(1_000));
    let mut tend = |second, holds: bool| {
        let tended = alone.tend_with(&Evidence::default(), at(second), false, holds);
        let ids = alone.floors.ids();
        (
            ids.digest() == digest,
            ids.knows(origin(2)),
            tended.forgotten,
        )
    };
    let rests = 1_000 + 3 * SILENCE.as_secs();
    let is_forgotten = 1_000 + 6 * SILENCE.as_secs();
    assert_eq!(tend(rests, false), (false, true, 0));
    assert_eq!(tend(rests + 1, false), (true, true, 0));
    assert_eq!(tend(is_forgotten, false), (true, true, 0));
    assert_eq!(tend(is_forgotten + 1, true), (true, true, 0));
    assert_eq!(tend(is_forgotten + 2, false), (true, false, 1));
}
