//! What floors make of the records of a table, and what a table tells of its tombstones.

use super::*;
use crate::floors::{Fence, Known, Vector};
use crate::table::Horizon;

/// Who wrote what [`remote`] gives.
const OTHER: OriginId = OriginId::from_bytes([99; 16]);

fn reading(ms: u64) -> Reading {
    Reading::from_u64(ms << 16)
}

fn snapshot(ms: u64, vector: Vector) -> Snapshot {
    Snapshot {
        origin: OTHER,
        reading: reading(ms),
        vector,
    }
}

impl Replica {
    fn floors(&mut self, change: impl FnOnce(&mut Floors)) {
        let mut floors = self.table.floors().clone();
        change(&mut floors);
        self.table.set_floors(floors);
    }

    /// All that [`OTHER`] had at this reading is here.
    fn cover(&mut self, ms: u64) {
        self.floors(|floors| floors.advance(&snapshot(ms, Vector::default())));
    }

    /// Its store goes on under another id, and knows of nothing any more that it is covered.
    pub(super) fn goes_on_without_coverage(&mut self) {
        let own = OriginId::from_bytes([201; 16]);
        let last = self.clock.last();
        self.floors(|floors| {
            floors.reopen(own, last, NOW);
            floors.forget_coverage();
        });
        self.clock = Clock::new(own, last, self.clock.drift_max());
    }

    /// What becomes of a record, and what its sender is told.
    fn receive(&mut self, key: &str, entry: &Entry, via: Via) -> (Merged, Vec<(Key, Entry)>) {
        self.group(|plan| {
            let merged = plan.merge(&id(key), entry.clone(), via, None);
            (merged, plan.take_answers())
        })
    }
}

fn buried(entry: &Entry) -> Entry {
    Entry {
        body: Body::Tombstone,
        ..entry.clone()
    }
}

#[test]
fn a_ghost_becomes_the_tombstone_of_its_version_over_something_older_and_its_sender_is_told() {
    let mut replica = Replica::new(1);
    replica.merge("older", remote(1, Some(b"1"), 9));
    replica.cover(5);
    let ghost = remote(3, Some(b"2"), 7);
    for via in [Via::Push, Via::Exchange] {
        let answer = (id("absent"), buried(&ghost));
        assert_eq!(
            replica.receive("absent", &ghost, via),
            (Merged::Ghost, vec![answer])
        );
        assert_eq!(replica.table.row(&id("absent")), None, "nothing is kept");
    }
    let tombstone = Entry {
        contact: Contact::from_steps(9),
        ..buried(&ghost)
    };
    assert_eq!(
        replica.receive("older", &ghost, Via::Exchange),
        (Merged::Ghost, vec![(id("older"), tombstone.clone())])
    );
    assert_eq!(replica.store[&id("older")], tombstone);
    let above = remote(6, Some(b"3"), 0);
    assert_eq!(
        replica.receive("absent", &above, Via::Push),
        (Merged::Applied, Vec::new())
    );
    replica.assert_consistent();
}

#[test]
fn a_tombstone_that_is_covered_buries_what_is_older_and_is_nothing_where_nothing_is_held() {
    let mut replica = Replica::new(1);
    replica.merge("older", remote(1, Some(b"1"), 0));
    replica.cover(5);
    let tombstone = remote(3, None, 0);
    assert_eq!(
        replica.receive("absent", &tombstone, Via::Exchange),
        (Merged::Collected, Vec::new())
    );
    assert_eq!(replica.table.tombstones(), 0);
    assert_eq!(replica.merge("older", tombstone), Merged::Applied);
    assert_eq!((replica.table.live(), replica.table.tombstones()), (0, 1));
    replica.assert_consistent();
}

#[test]
fn whoever_sends_what_a_held_tombstone_beats_is_told_so() {
    let mut replica = Replica::new(1);
    let tombstone = remote(3, None, 4);
    replica.merge("k", tombstone.clone());
    let stale = remote(2, Some(b"1"), 0);
    let answer = (id("k"), tombstone.clone());
    assert_eq!(
        replica.receive("k", &stale, Via::Push),
        (Merged::Stale, vec![answer])
    );
    assert_eq!(
        replica.receive("k", &tombstone, Via::Exchange),
        (Merged::Equal, Vec::new())
    );
}

#[test]
fn a_push_of_an_id_that_writes_no_more_is_not_even_heard_unless_it_buries_what_is_held() {
    let mut replica = Replica::new(1);
    let held = remote(1, Some(b"1"), 0);
    replica.merge("held", held.clone());
    replica.floors(|floors| floors.fence(OTHER, Fence::Ended, NOW));
    let later = remote(3, Some(b"2"), 0);
    for key in ["held", "absent"] {
        let fenced = (Merged::Fenced, Vec::new());
        assert_eq!(replica.receive(key, &later, Via::Push), fenced);
    }
    let seen = replica.table.floors().vector().of(OTHER).seen;
    assert_eq!(seen, reading(1));
    assert_eq!(
        replica.receive("held", &buried(&held), Via::Push).0,
        Merged::Applied
    );
    assert_eq!(replica.merge("held", later), Merged::Applied);
}

#[test]
fn who_belongs_nowhere_yet_takes_what_exchanges_bring_and_no_push() {
    let mut replica = Replica::new(1);
    replica.floors(|floors| *floors = Floors::new(floors.own()));
    let record = remote(1, Some(b"1"), 0);
    assert_eq!(
        replica.receive("k", &record, Via::Push),
        (Merged::Deferred, Vec::new())
    );
    assert!(!replica.table.floors().ids().knows(OTHER));
    assert_eq!(replica.merge("k", record.clone()), Merged::Applied);
    replica.floors(Floors::meet);
    assert_eq!(
        replica.receive("k", &record, Via::Push),
        (Merged::Equal, Vec::new())
    );
}

#[test]
fn what_a_store_lost_is_no_ghost_there_nor_where_its_vector_came() {
    let record = remote(3, Some(b"1"), 0);
    let mut lacks = Replica::new(1);
    lacks.merge("lost", record.clone());
    lacks.cover(5);
    let own = lacks.put("own", b"2").unwrap();
    assert!(lacks.table.forget(&id("lost")) && lacks.table.forget(&id("own")));
    lacks.goes_on_without_coverage();
    // Somebody takes over all that it has.
    let mut joined = Replica::new(2);
    let session = joined.table.begin_session();
    let snapshot = lacks.table.snapshot(&mut lacks.clock, NOW);
    let advanced = joined.table.advanced(session, &snapshot).unwrap();
    joined.table.set_floors(advanced);
    for replica in [&mut joined, &mut lacks] {
        for (key, entry) in [("lost", &record), ("own", &own)] {
            assert_eq!(replica.merge(key, entry.clone()), Merged::Applied);
        }
    }
}

#[test]
fn a_record_that_is_older_again_gives_way_to_what_it_was() {
    let mut replica = Replica::new(1);
    let (older, newer) = (remote(2, Some(b"0"), 0), remote(3, Some(b"1"), 0));
    replica.merge("k", newer.clone());
    replica.cover(5);
    replica.table.load(&id("k"), &older, NOW).unwrap();
    replica.store.insert(id("k"), older);
    replica.goes_on_without_coverage();
    assert_eq!(replica.merge("k", newer), Merged::Applied);
    replica.assert_consistent();
}

#[test]
fn what_is_lost_as_a_table_is_read_is_covered_no_more() {
    let bad = remote(3, Some(b"bad"), 0);
    let losses: [fn(&mut Loading, &Entry); 2] = [
        |loading, _| loading.lose(),
        |loading, bad| drop(loading.record(&id("k"), bad, NOW)),
    ];
    for is_lost in losses {
        let mut floors = Floors::new(OriginId::from_bytes([1; 16]));
        floors.advance(&snapshot(5, Vector::default()));
        let mut spec = spec_under(FingerprintKey::from_bytes([7; 16]), Limits::default());
        spec.floors = floors;
        let mut loading = Loading::new(spec, 0);
        is_lost(&mut loading, &bad);
        let table = loading.finish();
        assert_eq!(
            table.floors().vector().of(OTHER).covered,
            Reading::default()
        );
    }
}

#[test]
fn the_vector_stays_where_something_came_from_elsewhere_that_the_partner_has_dealt_with() {
    let third = OriginId::from_bytes([98; 16]);
    let of_third = Entry {
        version: Version {
            reading: reading(4),
            origin: third,
        },
        ..remote(4, Some(b"1"), 0)
    };
    let knows = |ms| {
        let covered = reading(ms);
        let seen = covered;
        snapshot(9, Vector::from_iter([(third, Known { covered, seen })]))
    };
    // Whether it came by that exchange, up to where the partner covers it, and whether it advances.
    for (by_it, covered, advances) in [
        (false, 4, false),
        (false, 3, true),
        (true, 4, true),
        (true, 3, true),
    ] {
        let mut replica = Replica::new(1);
        let session = replica.table.begin_session();
        replica.group(|plan| {
            let by = by_it.then_some(session);
            plan.merge(&id("k"), of_third.clone(), Via::Exchange, by)
        });
        let partner = knows(covered);
        let advanced = replica.table.advanced(session, &partner);
        assert_eq!(advanced.is_some(), advances, "{by_it} {covered}");
        if let Some(floors) = advanced {
            assert_eq!(floors.vector().of(OTHER).covered, reading(9));
            assert_eq!(floors.vector().of(third).covered, reading(covered));
        }
        assert_eq!(replica.table.advanced(session, &partner), None, "it ended");
    }
}

#[test]
fn what_is_covered_already_and_comes_from_elsewhere_holds_no_vector_back() {
    let mut replica = Replica::new(1);
    let record = remote(3, Some(b"1"), 0);
    replica.merge("k", record.clone());
    replica.cover(5);
    let session = replica.table.begin_session();
    replica.receive("k", &buried(&record), Via::Push);
    let partner = snapshot(9, Vector::default());
    assert!(replica.table.advanced(session, &partner).is_some());
}

#[test]
fn an_exchange_that_an_earlier_opening_of_the_store_began_is_none_of_this_one() {
    let opened = |epoch| {
        Table::new(TableSpec {
            name: "peers".parse().unwrap(),
            fingerprint_key: FingerprintKey::from_bytes([7; 16]),
            check_content: any_content,
            limits: Limits::default(),
            sketch_symbols: 256,
            epoch,
            feed: FeedLimits::default(),
            floors: Floors::new(OriginId::from_bytes([200; 16])),
        })
    };
    let earlier = opened(1 << 40).begin_session();
    let mut table = opened(2 << 40);
    table.begin_session();
    let partner = snapshot(9, Vector::default());
    assert_eq!(table.advanced(earlier, &partner), None);
}

#[test]
fn of_too_many_exchanges_at_once_the_oldest_does_not_count() {
    let mut replica = Replica::new(1);
    let first = replica.table.begin_session();
    let others: Vec<_> = (0..16).map(|_| replica.table.begin_session()).collect();
    let partner = snapshot(9, Vector::default());
    assert_eq!(replica.table.advanced(first, &partner), None);
    for session in others {
        assert!(replica.table.advanced(session, &partner).is_some());
    }
}

/// Records of three ids: key, reading, id, and whether it is live.
type Drawn = (u8, u64, u8, bool);

fn records() -> impl Strategy<Value = BTreeMap<u8, Drawn>> {
    let drawn = (0_u8..24, 1_u64..8, 1_u8..4, prop::bool::ANY);
    prop::collection::vec(drawn, 0..24)
        .prop_map(|all| all.into_iter().map(|drawn| (drawn.0, drawn)).collect())
}

fn vectors() -> impl Strategy<Value = Vector> {
    let known = (1_u8..4, 0_u64..8).prop_map(|(origin, ms)| {
        let covered = reading(ms);
        let seen = covered;
        (OriginId::from_bytes([origin; 16]), Known { covered, seen })
    });
    prop::collection::vec(known, 0..4).prop_map(Vector::from_iter)
}

fn loaded<'a>(drawn: impl IntoIterator<Item = &'a Drawn>, floors: &Floors) -> Table {
    let mut table = table_with(Limits::default());
    table.set_floors(floors.clone());
    for (key, ms, origin, is_live) in drawn {
        let content = is_live.then_some(&b"1"[..]);
        let entry = Entry {
            version: Version {
                reading: reading(*ms),
                origin: OriginId::from_bytes([*origin; 16]),
            },
            ..remote(*ms, content, 0)
        };
        table.load(&id(&format!("k{key}")), &entry, NOW).unwrap();
    }
    table
}

proptest! {
    #[test]
    fn a_partner_is_shown_the_table_without_the_tombstones_that_it_may_have_let_go(
        records in records(), ours in vectors(), theirs in vectors(),
        origin in 1_u8..4, ms in 0_u64..8, symbols in 0_usize..40,
    ) {
        let mut floors = Floors::new(OriginId::from_bytes([200; 16]));
        floors.advance(&Snapshot { vector: ours.clone(), ..snapshot(0, Vector::default()) });
        let partner = Horizon {
            origin: OriginId::from_bytes([origin; 16]),
            vector: theirs.clone(),
            reading: reading(ms),
        };
        let is_left = |(_, at, by, is_live): &&Drawn| {
            let version = Version {
                reading: reading(*at),
                origin: OriginId::from_bytes([*by; 16]),
            };
            let of_both = ours.covers(version) && (*by == origin || theirs.covers(version));
            *is_live || *at > ms || !of_both
        };
        let table = loaded(records.values(), &floors);
        let rest = loaded(records.values().filter(is_left), &floors);
        prop_assert_eq!(
            table.standing(symbols, Some(&partner)),
            rest.standing(symbols, None)
        );
    }

    #[test]
    fn tombstones_may_leave_that_are_covered_up_to_the_reading(
        records in records(), ours in vectors(), ms in 0_u64..8, limit in 0_usize..24,
    ) {
        let mut floors = Floors::new(OriginId::from_bytes([200; 16]));
        floors.advance(&Snapshot { vector: ours.clone(), ..snapshot(0, Vector::default()) });
        let mut due: Vec<_> = records
            .values()
            .filter(|(_, at, by, is_live)| {
                let reading = reading(*at);
                let origin = OriginId::from_bytes([*by; 16]);
                !is_live && *at <= ms && ours.covers(Version { reading, origin })
            })
            .map(|(key, at, by, _)| (*at, *by, id(&format!("k{key}"))))
            .collect();
        due.sort();
        let due: Vec<_> = due.into_iter().map(|(_, _, key)| key).take(limit).collect();
        let mut table = loaded(records.values(), &floors);
        prop_assert_eq!(table.collectable(reading(ms), limit), due.clone());
        let tombstones = table.tombstones();
        table.apply(Changes::removal(due.clone()));
        prop_assert_eq!(table.tombstones(), tombstones - due.len());
        let left = records.values().filter(|(key, ..)| !due.contains(&id(&format!("k{key}"))));
        prop_assert_eq!(table.standing(40, None), loaded(left, &floors).standing(40, None));
    }
}
