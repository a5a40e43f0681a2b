//! Each rule by hand, and all of them over random histories of a few replicas.

mod tend;
mod wire;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::ids::StoreId;

/// A record as the rule sees it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Record {
    version: Version,
    is_tombstone: bool,
}

/// A replica with one record at the most under each of a few keys.
#[derive(Clone, Debug)]
struct Replica {
    store: StoreId,
    clock: Clock,
    floors: Floors,
    table: BTreeMap<u8, Record>,
    /// The ids of its openings.
    ids: Vec<OriginId>,
    /// The current ids of all replicas, as discovery has them.
    listed: Vec<OriginId>,
}

const DRIFT: Duration = Duration::from_secs(10);

fn origin(number: u8) -> OriginId {
    OriginId::from_bytes([number; 16])
}

fn at(seconds: u64) -> WallTime {
    WallTime::from_millis(seconds * 1_000)
}

fn me(store: StoreId) -> Me {
    Me {
        store,
        peer_id: format!("peer-{store}").parse().unwrap(),
        storage: Storage::Pod,
    }
}

/// All ids as they travel.
fn ids(floors: &Floors) -> Vec<(OriginId, Option<Fence>, WallTime)> {
    let told = Replicas::of(floors, true).ids.unwrap();
    told.read().unwrap()
}

impl Replica {
    fn new(number: u8) -> Self {
        let mut floors = Floors::new(origin(number));
        floors.meet();
        Self {
            store: StoreId::from_bytes([number; 16]),
            clock: Clock::new(origin(number), Reading::default(), DRIFT),
            floors,
            table: BTreeMap::new(),
            ids: vec![origin(number)],
            listed: Vec::new(),
        }
    }

    fn write(&mut self, key: u8, is_tombstone: bool, now: WallTime) -> Record {
        let version = self.clock.stamp(now).unwrap();
        let record = Record {
            version,
            is_tombstone,
        };
        self.table.insert(key, record);
        record
    }

    /// Receives a record; the answer is what the sender is to be sent.
    fn receive(&mut self, key: u8, record: Record, via: Via, now: WallTime) -> Option<Record> {
        self.clock.observe(record.version.reading, now).unwrap();
        let held = self.table.get(&key).copied();
        let arrival = self.floors.arrival(
            record.version,
            !record.is_tombstone,
            held.map(|held| held.version),
            via,
            &self.clock,
        );
        if arrival == Arrival::Fenced {
            return None;
        }
        self.floors.heard(record.version, now);
        self.floors.stamp_set(&mut self.clock, now);
        if let Some(held) = held.filter(|held| *held >= record) {
            return (held > record).then_some(held);
        }
        let tombstone = Record {
            is_tombstone: true,
            ..record
        };
        match arrival {
            Arrival::Taken => {
                self.table.insert(key, record);
                None
            }
            Arrival::Ghost => {
                if held.is_some() {
                    self.table.insert(key, tombstone);
                }
                Some(tombstone)
            }
            Arrival::Collected | Arrival::Fenced => None,
        }
    }

    fn publish(&mut self, now: WallTime) -> Publication {
        let has_strangers = self.has_strangers();
        let me = me(self.store);
        self.floors
            .publish(&me, has_strangers, &mut self.clock, now)
    }

    /// Whether discovery lists somebody of whom this replica has not heard.
    fn has_strangers(&self) -> bool {
        self.listed.iter().any(|id| !self.floors.ids().knows(*id))
    }

    fn collect(&mut self, now: WallTime) {
        let has_strangers = self.has_strangers();
        let limit = self.floors.collectable(has_strangers, &mut self.clock, now);
        let (floors, clock) = (&self.floors, &self.clock);
        self.table.retain(|_, record| {
            let version = record.version;
            !(record.is_tombstone && version.reading <= limit && floors.covers(version, clock))
        });
    }

    fn is_live(&self, key: u8) -> bool {
        self.table.get(&key).is_some_and(|held| !held.is_tombstone)
    }

    /// The next opening of the store.
    fn reopen(&mut self, id: u8, now: WallTime) {
        self.ids.push(origin(id));
        self.floors.reopen(origin(id), self.clock.last(), now);
        self.clock = Clock::new(origin(id), self.clock.last(), DRIFT);
        self.floors.stamp_set(&mut self.clock, now);
    }
}

/// A complete exchange that `a` began: it is the one who knows afterwards what the other had.
fn exchange(a: &mut Replica, b: &mut Replica, now: WallTime) {
    let (ours, theirs) = (ids(&a.floors), ids(&b.floors));
    a.floors.join_ids(&theirs, Ages::default(), now);
    b.floors.join_ids(&ours, Ages::default(), now);
    for publication in b.floors.publications().cloned().collect::<Vec<_>>() {
        a.floors.hear(publication, now);
    }
    for publication in a.floors.publications().cloned().collect::<Vec<_>>() {
        b.floors.hear(publication, now);
    }
    let x = a.floors.snapshot(&mut a.clock, now);
    let y = b.floors.snapshot(&mut b.clock, now);
    let (of_a, of_b) = (a.table.clone(), b.table.clone());
    let is_left_out = |record: &Record| {
        record.is_tombstone && x.covers(record.version) && y.covers(record.version)
    };
    let differ = |key: &u8| of_a.get(key) != of_b.get(key);
    for (key, record) in of_a.iter().filter(|(key, _)| differ(key)) {
        if !is_left_out(record)
            && let Some(answer) = b.receive(*key, *record, Via::Exchange, now)
        {
            a.receive(*key, answer, Via::Exchange, now);
        }
    }
    for (key, record) in of_b.iter().filter(|(key, _)| differ(key)) {
        if !is_left_out(record)
            && let Some(answer) = a.receive(*key, *record, Via::Exchange, now)
        {
            b.receive(*key, answer, Via::Exchange, now);
        }
    }
    a.clock.observe(y.reading, now).unwrap();
    a.floors.advance(&y);
}

fn pair(replicas: &mut [Replica], a: usize, b: usize) -> Option<(&mut Replica, &mut Replica)> {
    let [a, b] = [a.min(b), a.max(b)];
    let (left, right) = replicas.split_at_mut_checked(b)?;
    Some((left.get_mut(a)?, right.first_mut()?))
}

/// Everybody exchanges with everybody, publishes and collects, until that changes nothing more.
fn settle(replicas: &mut [Replica], from: u64) {
    for round in 0..6 {
        let now = at(from + 60 * round);
        for a in 0..replicas.len() {
            for b in a + 1..replicas.len() {
                let (a, b) = pair(replicas, a, b).unwrap();
                exchange(a, b, now);
                exchange(b, a, now);
            }
        }
        for replica in replicas.iter_mut() {
            replica.publish(now);
            replica.collect(now);
        }
    }
}

#[test]
fn a_tombstone_leaves_once_all_have_it_and_not_before() {
    let mut all = [1, 2, 3].map(Replica::new);
    all[0].write(7, false, at(1));
    settle(&mut all, 10);
    all[0].write(7, true, at(1_000));
    let [a, b, _] = &mut all;
    exchange(a, b, at(1_001));
    for replica in [a, b] {
        replica.publish(at(1_002));
        replica.collect(at(1_002));
        assert!(
            replica.table.contains_key(&7),
            "the third replica still lacks it"
        );
    }
    settle(&mut all, 1_010);
    assert!(all.iter().all(|replica| replica.table.is_empty()));
}

#[test]
fn a_record_that_was_deleted_and_forgotten_is_a_ghost_and_its_sender_told() {
    let mut all = [1, 2].map(Replica::new);
    let old = all[0].write(7, false, at(1));
    settle(&mut all, 10);
    all[1].write(7, true, at(1_000));
    settle(&mut all, 1_010);
    assert!(all[0].table.is_empty());
    let answer = all[0].receive(7, old, Via::Push, at(2_000)).unwrap();
    assert_eq!((answer.version, answer.is_tombstone), (old.version, true));
    assert!(all[0].table.is_empty(), "nothing is kept of it");
}

#[test]
fn a_ghost_over_something_older_leaves_its_tombstone() {
    let mut all = [1, 2].map(Replica::new);
    let older = all[0].write(7, false, at(1));
    let newer = all[0].write(7, false, at(2));
    settle(&mut all, 10);
    all[1].write(7, true, at(1_000));
    settle(&mut all, 1_010);
    // Not by the rule, but as if the older one had come back.
    all[0].table.insert(7, older);
    all[0].receive(7, newer, Via::Exchange, at(2_000));
    assert_eq!(all[0].table[&7].version, newer.version);
    assert!(all[0].table[&7].is_tombstone);
}

#[test]
fn a_push_of_an_id_that_writes_no_more_is_dropped_unless_it_buries_what_is_held() {
    let mut all = [1, 2].map(Replica::new);
    let held = all[1].write(7, false, at(1));
    settle(&mut all, 10);
    all[0].floors.fence(origin(2), Fence::Ended, at(100));
    let later = Version {
        reading: Reading::from_u64(u64::MAX >> 8),
        origin: origin(2),
    };
    let arrival = |version, is_live, held| {
        let Replica { floors, clock, .. } = &all[0];
        [Via::Push, Via::Exchange].map(|via| floors.arrival(version, is_live, held, via, clock))
    };
    assert_eq!(
        arrival(later, true, Some(held.version)),
        [Arrival::Fenced, Arrival::Taken]
    );
    assert_eq!(
        arrival(held.version, false, Some(held.version)),
        [Arrival::Taken; 2]
    );
}

#[test]
fn who_holds_the_floor_back_is_named() {
    let [a, b, c] = &mut [1, 2, 3].map(Replica::new);
    assert_eq!(a.floors.settled(true), Err(Unsettled::Stranger));
    a.floors.heard(b.write(1, false, at(1)).version, at(1));
    assert_eq!(
        a.floors.settled(false),
        Err(Unsettled::Silent(b.floors.own()))
    );
    a.floors.hear(b.publish(at(2)), at(2));
    assert_eq!(a.floors.settled(false), Err(Unsettled::Set(b.floors.own())));
    exchange(a, b, at(3));
    a.floors.hear(b.publish(at(4)), at(4));
    assert_eq!(a.floors.settled(false), Ok(()));
    exchange(b, c, at(5));
    a.floors.join_ids(&ids(&b.floors), Ages::default(), at(6));
    a.floors.hear(b.publish(at(6)), at(6));
    a.floors.hear(c.publish(at(6)), at(6));
    assert_eq!(
        a.floors.settled(false),
        Err(Unsettled::Since(b.floors.own()))
    );
    // A tombstone is kept by each of them, the one named first among them.
    let version = a.write(1, true, at(7)).version;
    let holders = a.floors.holders(version, false);
    let by: Vec<_> = holders.iter().filter_map(|it| it.by()).collect();
    assert_eq!(by, [b.floors.own(), c.floors.own()]);
    let first = a.floors.held_back(version, false);
    assert!(first.is_some_and(|first| holders.contains(&first)));
    let stranger = HeldBack::Unsettled(Unsettled::Stranger);
    assert_eq!(a.floors.holders(version, true)[0], stranger);
}

#[test]
fn a_floor_is_nothing_until_it_is_settled() {
    let mut all = [1, 2].map(Replica::new);
    all[0]
        .floors
        .heard(all[1].clone().write(1, false, at(1)).version, at(1));
    assert_eq!(all[0].publish(at(2)).floor, Reading::default());
    settle(&mut all, 10);
    assert!(all[0].publish(at(1_000)).floor.wall() >= at(10));
}

#[test]
fn an_id_that_ended_holds_nothing_back_once_all_know_it() {
    let mut all = [1, 2, 3].map(Replica::new).to_vec();
    all[0].write(7, false, at(1));
    settle(&mut all, 10);
    let gone = all.pop().unwrap();
    all[0].write(7, true, at(1_000));
    settle(&mut all, 1_010);
    assert!(
        all[0].table.contains_key(&7),
        "it may come back, as far as anybody knows"
    );
    all[1]
        .floors
        .fence(gone.floors.own(), Fence::Ended, at(2_000));
    settle(&mut all, 2_000);
    assert!(all.iter().all(|replica| replica.table.is_empty()));
}

#[test]
fn a_store_that_was_given_up_is_told_so_by_its_earlier_ids_too() {
    let mut returned = Replica::new(1);
    let earlier = origin(1);
    returned.reopen(2, at(1));
    let told = |id, fence| [(id, Some(fence), at(2))];
    let is_given_up = |theirs: &[_], earlier: &[_]| returned.floors.is_given_up_by(theirs, earlier);
    assert!(!is_given_up(&told(earlier, Fence::Ended), &[earlier]));
    assert!(is_given_up(&told(earlier, Fence::GivenUp), &[earlier]));
    assert!(is_given_up(&told(origin(2), Fence::Ended), &[]));
}

#[test]
fn nobody_waits_for_the_openings_of_a_store_that_started_over() {
    let mut all = [1, 2].map(Replica::new);
    settle(&mut all, 10);
    all[0].floors.fence(origin(2), Fence::GivenUp, at(1_000));
    // It comes back, and is heard of under its new id before it is told.
    all[1].reopen(3, at(2_000));
    all[0].floors.learn(origin(3), at(2_000));
    let earlier = [origin(2)];
    assert!(all[1].floors.is_given_up_by(&ids(&all[0].floors), &earlier));

    let floors = all[1].floors.started_over(origin(4), &earlier, at(2_001));
    assert_eq!(floors.ids().fence(origin(2)), Some(Fence::Ended));
    assert_eq!(floors.vector().of(origin(1)), Known::default());
    all[1] = Replica {
        floors,
        store: StoreId::from_bytes([4; 16]),
        ids: vec![origin(4)],
        ..Replica::new(4)
    };
    let record = all[0].write(7, true, at(2_002));
    assert_eq!(all[0].table.get(&7), Some(&record));
    settle(&mut all, 3_000);
    let unfenced: Vec<_> = all[0].floors.ids().unfenced().collect();
    assert_eq!(unfenced, [origin(1), origin(4)]);
    assert!(all.iter().all(|replica| replica.table.is_empty()));
    // What is known of the end of an id is the stronger of two words, and the older time.
    assert_eq!(all[1].floors.ids().fence(origin(2)), Some(Fence::GivenUp));
}

#[test]
fn what_rests_is_not_told_again_by_a_store_that_starts_over() {
    let mut replica = Replica::new(1);
    replica.reopen(2, at(1));
    let old = at(1).plus(Ages::default().fences + Duration::from_secs(2));
    let told = ids(&replica.floors);
    replica.floors.join_ids(&told, Ages::default(), old);
    let floors = replica.floors.started_over(origin(3), &[origin(1)], old);
    let known: Vec<_> = floors.ids().iter().map(|(id, _)| id).collect();
    assert_eq!(known, [origin(2), origin(3)]);
}

#[test]
fn a_store_that_was_rolled_back_takes_its_own_later_writes_again() {
    let mut all = [1, 2].map(Replica::new);
    settle(&mut all, 10);
    let snapshot = all[0].clone();
    all[0].write(7, false, at(1_000));
    let [a, b] = &mut all;
    exchange(a, b, at(1_001));
    all[0] = snapshot;
    all[0].reopen(9, at(1_100));
    settle(&mut all, 1_110);
    assert!(all.iter().all(|replica| replica.is_live(7)));
}

#[test]
fn what_is_older_than_known_of_an_id_is_not_heard_again() {
    let mut all = [1, 2].map(Replica::new);
    let old = all[1].publish(at(1));
    let new = all[1].publish(at(100));
    assert!(all[0].floors.hear(new.clone(), at(100)));
    assert!(!all[0].floors.hear(old, at(100)));
    assert_eq!(all[0].floors.publications().next(), Some(&new));
}

#[test]
fn whose_an_id_was_is_remembered_when_it_writes_no_more() {
    let mut all = [1, 2].map(Replica::new);
    let published = all[1].publish(at(1));
    let floors = &mut all[0].floors;
    floors.hear(published.clone(), at(1));
    let whose = Some(published.whose());
    assert_eq!(floors.whose(published.origin), whose);
    floors.fence(published.origin, Fence::Ended, at(2));
    assert_eq!(floors.publication(published.origin), None);
    assert_eq!(floors.whose(published.origin), whose);
    let stored = FloorsState::decode(&floors.to_stored()[..]).unwrap();
    let read = stored.read().unwrap();
    assert_eq!(read.whose(published.origin), whose);
    assert_eq!(read.pod_of(published.store), published.peer_id.as_ref());
    assert_eq!(read.whose(origin(9)), None);
}

#[test]
fn of_many_ids_that_ended_the_latest_are_remembered() {
    let mut all = [1, 2].map(Replica::new);
    let published = all[1].publish(at(1));
    let floors = &mut all[0].floors;
    let ended = |number: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        OriginId::from_bytes(id)
    };
    for number in 0..=FORMER_MAX {
        let origin = ended(number);
        let publication = Publication {
            origin,
            ..published.clone()
        };
        floors.hear(publication, at(number as u64));
        floors.fence(origin, Fence::Ended, at(number as u64));
    }
    assert_eq!(floors.former.len(), FORMER_MAX);
    assert_eq!(floors.whose(ended(0)), None);
    assert!(floors.whose(ended(FORMER_MAX)).is_some());
}

/// One step of a history.
#[derive(Copy, Clone, Debug)]
enum Step {
    Write(usize, u8),
    Delete(usize, u8),
    /// A record is sent now and comes later.
    Send(usize, usize, u8),
    Deliver(usize),
    Exchange(usize, usize),
    Publish(usize, usize),
    Collect(usize),
    Reopen(usize),
    Join(usize),
    /// The pod is gone with its storage; another knows.
    Die(usize, usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let (replica, key) = (0_usize..5, 0_u8..3);
    prop_oneof![
        3 => (replica.clone(), key.clone()).prop_map(|(a, key)| Step::Write(a, key)),
        3 => (replica.clone(), key.clone()).prop_map(|(a, key)| Step::Delete(a, key)),
        3 => (replica.clone(), replica.clone(), key).prop_map(|(a, b, key)| Step::Send(a, b, key)),
        3 => (0_usize..8).prop_map(Step::Deliver),
        6 => (replica.clone(), replica.clone()).prop_map(|(a, b)| Step::Exchange(a, b)),
        4 => (replica.clone(), replica.clone()).prop_map(|(a, b)| Step::Publish(a, b)),
        4 => replica.clone().prop_map(Step::Collect),
        1 => replica.clone().prop_map(Step::Reopen),
        1 => replica.clone().prop_map(Step::Join),
        1 => (replica.clone(), replica).prop_map(|(a, b)| Step::Die(a, b)),
    ]
}

/// Replicas, what is on its way between them, and what each store ever knew of the newest version of
/// each key, as if tombstones were kept.
struct World {
    replicas: Vec<Replica>,
    newest: Vec<BTreeMap<u8, Record>>,
    sent: Vec<(usize, u8, Record, BTreeMap<u8, Record>)>,
    /// Ids whose store is gone.
    dead: Vec<OriginId>,
    ids: u8,
    seconds: u64,
}

impl World {
    fn new() -> Self {
        let replicas: Vec<_> = [1, 2, 3].map(Replica::new).into();
        Self {
            newest: vec![BTreeMap::new(); replicas.len()],
            replicas,
            sent: Vec::new(),
            dead: Vec::new(),
            ids: 3,
            seconds: 10,
        }
    }

    /// Discovery tells everybody who there is.
    fn list(&mut self) {
        let listed: Vec<_> = self.replicas.iter().map(|it| it.floors.own()).collect();
        for replica in &mut self.replicas {
            replica.listed.clone_from(&listed);
        }
    }

    fn id(&mut self) -> u8 {
        self.ids += 1;
        self.ids
    }

    /// Replica `a` knows of what `known` tells from now on.
    fn learn(&mut self, a: usize, known: &BTreeMap<u8, Record>) {
        for (key, record) in known {
            let newest = self.newest[a].entry(*key).or_insert(*record);
            *newest = (*newest).max(*record);
        }
    }

    fn take(&mut self, step: Step) {
        self.seconds += 1;
        self.list();
        let (now, count) = (at(self.seconds), self.replicas.len());
        match step {
            Step::Write(a, key) | Step::Delete(a, key) => {
                let (a, is_delete) = (a % count, matches!(step, Step::Delete(..)));
                if !is_delete || self.replicas[a].is_live(key) {
                    let record = self.replicas[a].write(key, is_delete, now);
                    self.learn(a, &[(key, record)].into());
                }
            }
            Step::Send(a, b, key) => {
                let (a, b) = (a % count, b % count);
                if let Some(record) = self.replicas[a].table.get(&key) {
                    let known = [(key, self.newest[a][&key])].into();
                    self.sent.push((b, key, *record, known));
                }
            }
            Step::Deliver(which) => {
                if which < self.sent.len() {
                    let (to, key, record, _) = self.sent.swap_remove(which);
                    if to < count {
                        let before = self.replicas[to].table.get(&key).copied();
                        self.replicas[to].receive(key, record, Via::Push, now);
                        let after = self.replicas[to].table.get(&key).copied();
                        if after != before && after == Some(record) {
                            self.learn(to, &[(key, record)].into());
                        }
                    }
                }
            }
            Step::Exchange(a, b) if a % count != b % count => {
                let (a, b) = (a % count, b % count);
                let (x, y) = pair(&mut self.replicas, a, b).unwrap();
                exchange(x, y, now);
                x.floors.meet();
                y.floors.meet();
                let (of_a, of_b) = (self.newest[a].clone(), self.newest[b].clone());
                self.learn(a, &of_b);
                self.learn(b, &of_a);
            }
            Step::Publish(a, b) => {
                let publication = self.replicas[a % count].publish(now);
                self.replicas[b % count].floors.hear(publication, now);
            }
            Step::Collect(a) => self.replicas[a % count].collect(now),
            Step::Reopen(a) => {
                let id = self.id();
                self.replicas[a % count].reopen(id, now);
            }
            // As the handshake with its first partner does, before it is sent anything.
            Step::Join(a) if count < 5 => {
                let mut joined = Replica::new(self.id());
                let known = &mut self.replicas[a % count];
                known
                    .floors
                    .join_ids(&ids(&joined.floors), Ages::default(), now);
                exchange(known, &mut joined, now);
                self.replicas.push(joined);
                let known = self.newest[a % count].clone();
                self.newest.push(known);
            }
            Step::Die(a, b) if count > 2 && a % count != b % count => {
                let (a, b) = (a % count, b % count);
                let own = self.replicas[a].floors.own();
                let witness = &mut self.replicas[b];
                if witness.floors.ids().knows(own) {
                    witness.floors.fence(own, Fence::Ended, now);
                    witness.floors.stamp_set(&mut witness.clock, now);
                    self.dead.append(&mut self.replicas.remove(a).ids);
                    self.newest.remove(a);
                    self.sent.retain(|(to, ..)| *to < a);
                }
            }
            Step::Exchange(..) | Step::Join(_) | Step::Die(..) => {}
        }
    }
}

proptest! {
    // Always the same histories: fresh ones are the simulator's to draw.
    #![proptest_config(ProptestConfig {
        cases: 256,
        rng_seed: RngSeed::Fixed(6),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_deleted_returns_nothing_written_is_lost_and_tombstones_leave(
        steps in prop::collection::vec(steps(), 0..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.list();
        // Who saw a pod go may be gone too; Kubernetes tells the others, as soon as they know of it.
        for round in 0..3 {
            for replica in &mut world.replicas {
                for id in &world.dead {
                    if replica.floors.ids().knows(*id) {
                        replica.floors.fence(*id, Fence::Ended, at(world.seconds));
                    }
                }
            }
            settle(&mut world.replicas, world.seconds + 1_000 * (round + 1));
        }
        let first = world.replicas[0].table.clone();
        for replica in &world.replicas {
            prop_assert_eq!(&replica.table, &first, "all tables are equal");
        }
        prop_assert!(first.values().all(|record| !record.is_tombstone), "no tombstone is left");
        for key in 0..3 {
            let newest = world.newest.iter().filter_map(|newest| newest.get(&key)).max();
            let live = newest.filter(|record| !record.is_tombstone);
            prop_assert_eq!(first.get(&key), live, "key {}: {:?}", key, newest);
        }
    }
}

#[test]
fn after_a_wrong_clock_nothing_that_comes_above_the_right_one_is_a_ghost() {
    let now = at(1_000);
    let reading = |seconds| Clock::new(origin(1), Reading::default(), DRIFT).tick(at(seconds));
    let version = |of, seconds| Version {
        reading: reading(seconds),
        origin: origin(of),
    };
    let mut clock = Clock::new(origin(1), reading(90_000), DRIFT);
    let mut floors = Floors::new(origin(1));
    floors.meet();
    floors.heard(version(2, 80_000), now);
    floors.advance(&Snapshot {
        origin: origin(2),
        reading: reading(85_000),
        vector: Vector::default(),
    });
    let arrival = |floors: &Floors, clock: &Clock, version| {
        floors.arrival(version, true, None, Via::Exchange, clock)
    };
    assert_eq!(arrival(&floors, &clock, version(2, 80_000)), Arrival::Ghost);
    let last = reading(1_000);
    floors.renew(origin(3), last, now);
    clock = Clock::new(origin(3), last, DRIFT);
    for of in [1, 2] {
        let ahead = arrival(&floors, &clock, version(of, 80_000));
        assert_eq!(ahead, Arrival::Taken, "of {of}");
        let right = arrival(&floors, &clock, version(of, 900));
        assert_eq!(right, Arrival::Ghost, "of {of}");
    }
    assert_eq!(floors.ids().fence(origin(1)), Some(Fence::Ended));
}

#[test]
fn the_last_reading_of_an_opening_that_kept_no_floors_says_nothing_of_the_one_before() {
    let opening = |number, retired: &[u8], last| Opening {
        origin: origin(number),
        retired: retired.iter().copied().map(origin).collect(),
        last_reading: Reading::from_u64(last),
        ..Opening::first(crate::opening::Draw {
            store: StoreId::from_bytes([9; 16]),
            origin: origin(0),
            peer_id: "pod".parse().unwrap(),
            cluster: None,
            binding: None,
        })
    };
    let stored = Floors::new(origin(1)).to_stored();
    let covered = |opening: &Opening| {
        let floors = Floors::opened(&stored, opening, at(1)).unwrap();
        assert_eq!(floors.own(), opening.origin);
        assert!(floors.ids().fence(origin(1)).is_some());
        floors.vector().of(origin(1)).covered
    };
    assert_eq!(covered(&opening(2, &[1], 7)), Reading::from_u64(7));
    assert_eq!(covered(&opening(3, &[1, 2], 9)), Reading::default());
}
