//! Floors as they are stored and sent.

use proptest::prelude::*;

use super::*;

fn known() -> impl Strategy<Value = (OriginId, Known)> {
    // What is seen is never said to be less than what is covered.
    (0_u8..6, 0_u64..9, 0_u64..9).prop_map(|(id, covered, above)| {
        let known = Known {
            covered: Reading::from_u64(covered),
            seen: Reading::from_u64(covered + above),
        };
        (origin(id), known)
    })
}

fn published() -> impl Strategy<Value = Publication> {
    let readings = prop::array::uniform3(any::<u64>());
    let peer_id = prop::option::of("[a-z0-9-]{1,20}");
    (0_u8..6, readings, any::<u64>(), 0_u32..2, peer_id).prop_map(
        |(id, [at, floor, since], set_digest, storage, peer_id)| Publication {
            store: StoreId::from_bytes([id; 16]),
            origin: origin(id),
            at: Reading::from_u64(at),
            floor: Reading::from_u64(floor),
            set_digest,
            since: Reading::from_u64(since),
            storage: Storage::from_code(storage),
            peer_id: peer_id.map(|text| text.parse().unwrap()),
        },
    )
}

fn all_floors() -> impl Strategy<Value = Floors> {
    let ids = prop::collection::vec((0_u8..6, 0_u32..3, 0_u64..9), 0..8);
    let vector = prop::collection::vec(known(), 0..6);
    let publications = prop::collection::vec(published(), 0..6);
    (
        ids,
        vector,
        publications,
        any::<bool>(),
        prop::array::uniform3(any::<u64>()),
    )
        .prop_map(
            |(ids, vector, publications, has_met, [since, horizon, ms])| {
                let mut floors = Floors::new(origin(7));
                for (id, code, seconds) in ids {
                    match Fence::from_code(code) {
                        None => floors.learn(origin(id), at(seconds)),
                        Some(fence) => floors.fence(origin(id), fence, at(seconds)),
                    }
                }
                for publication in publications {
                    floors.hear(publication, at(20));
                }
                if has_met {
                    // One that ended after it had published, if it had.
                    floors.fence(origin(0), Fence::Ended, at(30));
                }
                // As it is written, each id has a time.
                let ids: Vec<_> = floors.ids.iter().map(|(id, _)| id).collect();
                for id in ids {
                    floors.times.entry(id).or_default();
                }
                Floors {
                    vector: vector.into_iter().collect(),
                    has_met,
                    since: Reading::from_u64(since),
                    since_digest: since,
                    horizon: Reading::from_u64(horizon),
                    tended: WallTime::from_millis(ms),
                    ..floors
                }
            },
        )
}

proptest! {
    #[test]
    fn floors_are_read_as_they_were_stored(floors in all_floors()) {
        let stored = floors.to_stored();
        let read = FloorsState::decode(&stored[..]).unwrap().read().unwrap();
        prop_assert_eq!(&read, &floors);
        prop_assert_eq!(read.to_stored(), stored);
    }

    #[test]
    fn a_replica_is_told_all_that_another_knows_of_others(
        floors in all_floors(), with_ids in any::<bool>(),
    ) {
        let told = Replicas::of(&floors, with_ids);
        let told = Replicas::decode(&told.encode_to_vec()[..]).unwrap();
        prop_assert_eq!(told.teller(), Ok(Some(floors.own)));
        let publications: Vec<_> = floors.publications().cloned().collect();
        prop_assert_eq!(told.publications(), Ok(publications));
        let ids = floors.ids.iter().map(|(id, fence)| (id, fence, floors.times[&id]));
        let ids: Vec<_> = ids.collect();
        prop_assert_eq!(
            told.ids.map(|ids| ids.read().unwrap()),
            with_ids.then_some(ids)
        );
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_sent(
        id in any::<[u8; 16]>(), reading in any::<u64>(),
        vector in prop::collection::vec(known(), 0..6),
    ) {
        let snapshot = Snapshot {
            origin: OriginId::from_bytes(id),
            reading: Reading::from_u64(reading),
            vector: vector.into_iter().collect(),
        };
        let sent = WireSnapshot::from(&snapshot).encode_to_vec();
        prop_assert_eq!(WireSnapshot::decode(&sent[..]).unwrap().read(), Ok(snapshot));
    }

    #[test]
    fn of_any_bytes_floors_come_that_can_be_stored_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(floors) = FloorsState::decode(&bytes[..]).map(|state| state.read())
            && let Ok(floors) = floors
        {
            let stored = floors.to_stored();
            prop_assert!(FloorsState::decode(&stored[..]).unwrap().read().is_ok());
        }
    }

    #[test]
    fn columns_of_any_lengths_are_as_long_as_each_other_or_refused(
        ids in 0_usize..70, fences in 0_usize..5, times in 0_usize..5,
    ) {
        let wire = WireIds {
            ids: vec![1; ids],
            fences: vec![0; fences],
            times: vec![0; times],
        };
        let is_whole = ids == fences * 16 && fences == times;
        prop_assert_eq!(wire.read().is_ok(), is_whole);
        let wire = WireVector {
            ids: vec![1; ids],
            covered: vec![0; fences],
            seen: vec![0; times],
        };
        prop_assert_eq!(wire.read().is_ok(), is_whole);
    }

    #[test]
    fn whatever_a_peer_tells_of_replicas_is_taken_or_refused_and_changes_nothing_then(
        origin in prop::collection::vec(any::<u8>(), 0..18),
        store in prop::collection::vec(any::<u8>(), 0..18),
        peer_id in ".{0,4}",
    ) {
        let told = Replicas {
            ids: None,
            publications: vec![WirePublication { store, origin: origin.clone(), peer_id, ..WirePublication::default() }],
            origin,
        };
        let Replica { mut floors, mut clock, .. } = Replica::new(1);
        let before = floors.clone();
        if floors.take(&told, &[], Ages::default(), &mut clock, at(9)).is_err() {
            prop_assert_eq!(floors, before);
        }
    }
}

#[test]
fn what_is_no_publication_is_refused_by_the_name_of_the_field() {
    let good = WirePublication::from(&Replica::new(1).publish(at(1)));
    assert!(good.read().is_ok());
    let bad: [fn(&mut WirePublication); 3] = [
        |publication| publication.store.truncate(15),
        |publication| publication.origin.push(0),
        |publication| publication.peer_id = "not an id".to_owned(),
    ];
    for (spoil, field) in bad.into_iter().zip(["store", "origin", "peer_id"]) {
        let mut spoiled = good.clone();
        spoil(&mut spoiled);
        let problem = spoiled.read().unwrap_err().to_string();
        assert!(problem.contains(field), "{problem}");
    }
}

#[test]
fn what_a_wrong_clock_published_is_not_taken() {
    let mut ahead = Replica::new(2);
    let publication = ahead.publish(at(1_000));
    let Replica {
        mut floors,
        mut clock,
        ..
    } = Replica::new(1);
    let told = Replicas::of_one(&publication);
    let mut take = |now| floors.take(&told, &[], Ages::default(), &mut clock, now);
    assert_eq!(take(at(989)), Ok(Joined::Known));
    assert_eq!(take(at(990)), Ok(Joined::News));
}
