//! What a plan notes of the writes and records that it decides.

use super::*;
use crate::floors::Vector;
use crate::history::{Loss, Noted, Refusal, Stamped};
use crate::ids::StoreId;

fn notes(replica: &mut Replica, group: impl FnOnce(&mut Plan<'_>)) -> Vec<(String, Noted)> {
    let mut plan = replica.table.plan(&mut replica.clock, NOW, &replica.store);
    group(&mut plan);
    let changes = plan.finish();
    let notes = changes.notes.iter();
    let notes = notes
        .map(|note| (note.key.to_string(), note.noted))
        .collect();
    replica.store.extend((*changes.entries).clone());
    replica.table.apply(changes);
    notes
}

fn stamped(entry: &Entry) -> Stamped {
    Stamped {
        version: entry.version,
        is_live: entry.is_live(),
    }
}

#[test]
fn each_write_of_a_group_notes_what_it_replaces() {
    let mut replica = Replica::new(1);
    let mut written = Vec::new();
    let noted = notes(&mut replica, |plan| {
        let any = Precondition::default();
        written.push(plan.put(&id("a"), &any, new(b"1")).unwrap());
        written.push(plan.put(&id("a"), &any, new(b"2")).unwrap());
        written.push(plan.delete(&id("a"), &any).unwrap());
    });
    let taken: Vec<_> = written.iter().map(stamped).collect();
    let over = [None, Some(taken[0]), Some(taken[1])];
    let expected = taken.into_iter().zip(over);
    let expected = expected.map(|(taken, over)| ("a".to_owned(), Noted::Taken { taken, over }));
    assert_eq!(noted, expected.collect::<Vec<_>>());
}

#[test]
fn records_of_a_peer_note_who_sent_them_and_what_became_of_them() {
    let mut replica = Replica::new(1);
    replica.merge("held", remote(5, Some(b"5"), 0));
    let from = StoreId::from_bytes([3; 16]);
    let older = remote(4, Some(b"4"), 0);
    let newer = remote(6, None, 0);
    let ahead = remote(NOW.plus(DRIFT * 2).as_millis(), Some(b"1"), 0);
    let group = |plan: &mut Plan<'_>| {
        plan.sent_by(Some(from), 4);
        let held = || id("held");
        plan.merge(&held(), remote(5, Some(b"5"), 0), Via::Push, None);
        plan.merge(&held(), older.clone(), Via::Push, None);
        plan.merge(&held(), newer.clone(), Via::Push, None);
        plan.merge(&id("ahead"), ahead.clone(), Via::Push, None);
    };
    let mut plan = replica.table.plan(&mut replica.clock, NOW, &replica.store);
    group(&mut plan);
    let changes = plan.finish();
    for note in &changes.notes {
        assert_eq!((note.way.via, note.way.from), (Via::Push, Some(from)));
    }
    let noted: Vec<_> = changes.notes.iter().map(|note| note.noted).collect();
    let held = stamped(&remote(5, Some(b"5"), 0));
    let expected = [
        Noted::Lost {
            lost: stamped(&older),
            loss: Loss::Older,
        },
        Noted::Taken {
            taken: stamped(&newer),
            over: Some(held),
        },
        Noted::Refused {
            version: Some(ahead.version),
            refusal: Refusal::VersionAhead,
        },
    ];
    assert_eq!(noted, expected);
}

#[test]
fn a_ghost_is_noted_and_what_it_buried() {
    let mut replica = Replica::new(1);
    replica.merge("k", remote(1, Some(b"old"), 0));
    let mut floors = replica.table.floors().clone();
    floors.advance(&Snapshot {
        origin: OriginId::from_bytes([99; 16]),
        reading: Reading::from_u64(3 << 16),
        vector: Vector::default(),
    });
    replica.table.set_floors(floors);
    let ghost = remote(2, Some(b"ghost"), 0);
    let old = stamped(&remote(1, Some(b"old"), 0));
    let noted = notes(&mut replica, |plan| {
        let merged = plan.merge(&id("k"), ghost.clone(), Via::Exchange, None);
        assert_eq!(merged, Merged::Ghost);
    });
    let buried = Noted::Taken {
        taken: Stamped {
            is_live: false,
            ..stamped(&ghost)
        },
        over: Some(old),
    };
    let lost = Noted::Lost {
        lost: stamped(&ghost),
        loss: Loss::Ghost,
    };
    let key = || "k".to_owned();
    assert_eq!(noted, [(key(), buried), (key(), lost)]);
}
