mod floors;
mod history;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Reading;
use crate::entry::{Body, merge};
use crate::feed::{Changed, Revision, Via};
use crate::ids::OriginId;

const NOW: WallTime = WallTime::from_millis(1_700_000_000_000);
const DRIFT: Duration = Duration::from_secs(10);

fn any_content(_: &Key, content: &[u8]) -> Result<(), InvalidContent> {
    if content == b"bad" {
        Err(InvalidContent("bad".into()))
    } else {
        Ok(())
    }
}

fn table_with(limits: Limits) -> Table {
    table_under(FingerprintKey::from_bytes([7; 16]), limits)
}

fn table_under(fingerprint_key: FingerprintKey, limits: Limits) -> Table {
    Table::new(spec_under(fingerprint_key, limits))
}

fn spec_under(fingerprint_key: FingerprintKey, limits: Limits) -> TableSpec {
    let mut floors = Floors::new(OriginId::from_bytes([200; 16]));
    floors.meet();
    TableSpec {
        name: "peers".parse().unwrap(),
        fingerprint_key,
        check_content: any_content,
        limits,
        sketch_symbols: 256,
        epoch: 1,
        feed: FeedLimits::default(),
        floors,
    }
}

/// A replica: a table with its clock, and what its store would hold.
struct Replica {
    table: Table,
    clock: Clock,
    store: BTreeMap<Key, Entry>,
}

impl Replica {
    fn new(origin: u8) -> Self {
        Self::with_limits(origin, Limits::default())
    }

    fn with_limits(origin: u8, limits: Limits) -> Self {
        Self {
            table: table_with(limits),
            clock: Clock::new(
                OriginId::from_bytes([origin; 16]),
                Reading::default(),
                DRIFT,
            ),
            store: BTreeMap::new(),
        }
    }

    /// Decides `group` as one, stores and applies it.
    fn group<T>(&mut self, group: impl FnOnce(&mut Plan<'_>) -> T) -> T {
        let mut plan = self.table.plan(&mut self.clock, NOW, &self.store);
        let answer = group(&mut plan);
        let changes = plan.finish();
        self.store.extend((*changes.entries).clone());
        self.table.apply(changes);
        answer
    }

    fn put(&mut self, key: &str, content: &[u8]) -> Result<Entry, WriteRefused> {
        self.group(|plan| plan.put(&id(key), &Precondition::default(), new(content)))
    }

    fn delete(&mut self, key: &str) -> Result<Entry, WriteRefused> {
        self.group(|plan| plan.delete(&id(key), &Precondition::default()))
    }

    fn merge(&mut self, key: &str, entry: Entry) -> Merged {
        self.group(|plan| plan.merge(&id(key), entry, Via::Exchange, None))
    }

    /// Index, sketch and counts are those of a table that was loaded from the store.
    fn assert_consistent(&self) {
        let key = self.table.fingerprint_key.clone();
        let mut loading = Loading::new(spec_under(key, self.table.limits()), self.store.len());
        for (key, entry) in &self.store {
            loading.record(key, entry, NOW).unwrap();
        }
        assert_same(&self.table, &loading.finish());
        let live = self.store.values().filter(|entry| entry.is_live()).count();
        assert_eq!(
            (self.table.live(), self.table.tombstones()),
            (live, self.store.len() - live)
        );
    }
}

fn id(key: &str) -> Key {
    key.parse().unwrap()
}

fn new(content: &[u8]) -> NewContent {
    NewContent {
        content: Content::from(content),
        contact: Contact::NEVER,
    }
}

fn remote(reading_ms: u64, content: Option<&[u8]>, contact: u32) -> Entry {
    Entry {
        version: Version {
            reading: Reading::from_u64(reading_ms << 16),
            origin: OriginId::from_bytes([99; 16]),
        },
        contact: Contact::from_steps(contact),
        body: content.map_or(Body::Tombstone, |content| {
            Body::Live(Content::from(content))
        }),
    }
}

#[test]
fn what_the_store_lost_is_forgotten_and_taken_again() {
    let mut replica = Replica::new(1);
    let kept = replica.put("kept", b"1").unwrap();
    let lost = replica.put("lost", b"2").unwrap();
    replica.put("dead", b"3").unwrap();
    replica.delete("dead").unwrap();
    for key in ["lost", "dead"] {
        replica.store.remove(&id(key));
        assert!(replica.table.forget(&id(key)));
        assert!(!replica.table.forget(&id(key)), "it is gone already");
    }
    replica.assert_consistent();
    replica.goes_on_without_coverage();
    assert_eq!(replica.merge("kept", kept), Merged::Equal);
    assert_eq!(replica.merge("lost", lost), Merged::Applied);
    replica.assert_consistent();
}

#[test]
fn a_group_is_decided_write_by_write_and_nothing_shows_before_it_is_applied() {
    let mut replica = Replica::new(1);
    let first = replica.put("a", b"1").unwrap();
    let if_first = Precondition {
        if_match: Some(Match::Versions(vec![first.version])),
        if_none_match: None,
    };
    let before = replica.table.digest();
    let mut plan = replica.table.plan(&mut replica.clock, NOW, &replica.store);
    let won = plan.put(&id("a"), &if_first, new(b"2")).unwrap();
    let lost = plan.put(&id("a"), &if_first, new(b"3"));
    assert_eq!(
        lost,
        Err(WriteRefused::Precondition {
            live: Some(won.version)
        })
    );
    let changes = plan.finish();
    assert_eq!(changes.stamped, Some(won.version.reading));
    assert_eq!(replica.table.digest(), before);
    replica.table.apply(changes);
    assert_eq!(replica.table.row(&id("a")).unwrap().version, won.version);
}

#[test]
fn preconditions_hold_as_http_says() {
    let held = remote(1, None, 0).version;
    let other = vec![remote(2, None, 0).version];
    let if_match = |wanted| Precondition {
        if_match: Some(wanted),
        if_none_match: None,
    };
    let if_none = |wanted| Precondition {
        if_match: None,
        if_none_match: Some(wanted),
    };
    let same = vec![held];
    for (precondition, on_live, on_absent) in [
        (Precondition::default(), true, true),
        (Precondition::absent(), false, true),
        (if_match(Match::Any), true, false),
        (if_match(Match::Versions(same.clone())), true, false),
        (if_match(Match::Versions(other.clone())), false, false),
        (if_none(Match::Versions(same)), false, true),
        (if_none(Match::Versions(other)), true, true),
    ] {
        assert_eq!(
            precondition.holds(Some(held)),
            on_live,
            "{precondition:?} on a live record"
        );
        assert_eq!(
            precondition.holds(None),
            on_absent,
            "{precondition:?} without one"
        );
    }
}

#[test]
fn a_delete_leaves_a_tombstone_that_beats_the_old_record_and_yields_to_a_new_one() {
    let mut replica = Replica::new(1);
    let old = replica.put("a", b"1").unwrap();
    let tombstone = replica.delete("a").unwrap();
    assert!(tombstone.version > old.version && !tombstone.is_live());
    assert_eq!(replica.merge("a", old), Merged::Stale);
    assert_eq!((replica.table.live(), replica.table.tombstones()), (0, 1));
    assert_eq!(replica.delete("a"), Err(WriteRefused::Absent));
    replica.put("a", b"2").unwrap();
    assert_eq!((replica.table.live(), replica.table.tombstones()), (1, 0));
    replica.assert_consistent();
}

#[test]
fn a_contact_moves_forward_only_and_changes_no_version() {
    let mut replica = Replica::new(1);
    let written = replica.put("a", b"1").unwrap();
    let step = |steps| Contact::from_steps(steps);
    let seen = replica
        .group(|plan| plan.contact(&id("a"), step(5)))
        .unwrap();
    assert_eq!(
        seen,
        Entry {
            contact: step(5),
            ..written.clone()
        }
    );
    let earlier = replica
        .group(|plan| plan.contact(&id("a"), step(4)))
        .unwrap();
    assert_eq!(earlier.contact, step(5));
    assert_eq!(replica.put("a", b"2").unwrap().contact, step(5));
    assert_eq!(replica.delete("a").unwrap().contact, step(5));
    let absent = replica.group(|plan| plan.contact(&id("a"), step(9)));
    assert_eq!(absent, Err(WriteRefused::Absent));
    let ahead = Contact::at(NOW.plus(Duration::from_hours(1)));
    let refused = replica
        .put("b", b"1")
        .and_then(|_| replica.group(|plan| plan.contact(&id("b"), ahead)));
    assert!(matches!(refused, Err(WriteRefused::ContactAhead { .. })));
    replica.assert_consistent();
}

#[test]
fn a_stale_record_with_a_later_contact_moves_the_contact_alone() {
    let mut replica = Replica::new(1);
    let held = replica.put("a", b"1").unwrap();
    let stale = remote(1, Some(b"0"), 7);
    assert!(replica.table.needs_content(&id("a"), &stale));
    assert_eq!(replica.merge("a", stale.clone()), Merged::Contact);
    assert_eq!(replica.store[&id("a")], merge(held, stale.clone()));
    assert_eq!(replica.merge("a", stale), Merged::Stale);
    replica.assert_consistent();
}

#[test]
fn a_record_from_too_far_ahead_is_refused_and_moves_no_clock() {
    let mut replica = Replica::new(1);
    let ahead = NOW.as_millis() + 10_001;
    let refused = Merged::Refused(MergeRefused::VersionAhead);
    assert_eq!(replica.merge("a", remote(ahead, Some(b"1"), 0)), refused);
    assert_eq!(replica.merge("a", remote(ahead, None, 0)), refused);
    let contact = Contact::at(NOW).steps() + 2;
    assert_eq!(
        replica.merge("a", remote(1, Some(b"1"), contact)),
        Merged::Refused(MergeRefused::ContactAhead)
    );
    assert_eq!(replica.clock.last(), Reading::default());
    assert_eq!(
        replica.merge("a", remote(ahead - 1, Some(b"1"), 0)),
        Merged::Applied
    );
    assert!(matches!(
        replica.put("b", b"1"),
        Err(WriteRefused::Clock(_))
    ));
}

#[test]
fn a_record_that_is_too_large_or_no_content_is_refused_from_either_side() {
    let limits = Limits {
        record_bytes_max: 4,
        ..Limits::default()
    };
    let mut replica = Replica::with_limits(1, limits);
    assert_eq!(
        replica.put("a", b"1234"),
        Err(WriteRefused::TooLarge {
            bytes: 5,
            bytes_max: 4
        })
    );
    let too_large = remote(1, Some(b"1234"), 0);
    assert_eq!(
        replica.merge("a", too_large),
        Merged::Refused(MergeRefused::TooLarge)
    );
    assert_eq!(
        replica.merge("a", remote(1, Some(b"bad"), 0)),
        Merged::Refused(MergeRefused::Content)
    );
    assert!(
        replica
            .table
            .load(&id("a"), &remote(1, Some(b"bad"), 0), NOW)
            .is_err()
    );
    assert_eq!(replica.table.digest(), table_with(limits).digest());
}

#[test]
fn a_full_table_refuses_new_keys_and_takes_changes_and_deletes() {
    let mut replica = Replica::with_limits(
        1,
        Limits {
            records_max: 2,
            ..Limits::default()
        },
    );
    let full = Err(WriteRefused::Full { records_max: 2 });
    let in_one_group = replica.group(|plan| {
        ["a", "b", "c"].map(|key| plan.put(&id(key), &Precondition::default(), new(b"1")))
    });
    assert!(in_one_group[0].is_ok() && in_one_group[1].is_ok());
    assert_eq!(in_one_group[2], full);
    assert_eq!(
        replica.merge("c", remote(1, Some(b"1"), 0)),
        Merged::Refused(MergeRefused::Full)
    );
    assert!(replica.put("a", b"2").is_ok());
    assert!(replica.delete("b").is_ok());
    assert_eq!(replica.put("c", b"1"), full, "a tombstone counts");
    assert!(replica.put("b", b"3").is_ok());
    replica.assert_consistent();
}

#[test]
fn the_feed_tells_each_change_in_order_with_its_way() {
    let mut replica = Replica::new(1);
    let start = replica.table.feed().revision();
    replica.group(|plan| {
        plan.put(&id("a"), &Precondition::default(), new(b"1"))
            .unwrap();
        plan.delete(&id("a"), &Precondition::default()).unwrap();
        plan.merge(&id("b"), remote(1, Some(b"1"), 0), Via::Push, None);
        plan.merge(&id("b"), remote(1, Some(b"1"), 3), Via::Exchange, None);
        plan.merge(&id("b"), remote(1, Some(b"1"), 3), Via::Exchange, None);
    });
    let told: Vec<_> = replica
        .table
        .feed()
        .since(start, 100)
        .unwrap()
        .into_iter()
        .map(|(_, change)| {
            (
                change.key.to_string(),
                change.entry.is_live(),
                change.what,
                change.via,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a".into(), true, Changed::Body, Via::Local),
            ("a".into(), false, Changed::Body, Via::Local),
            ("b".into(), true, Changed::Body, Via::Push),
            ("b".into(), true, Changed::Contact, Via::Exchange),
        ]
    );
    let _: Revision = replica.table.feed().revision();
}

#[test]
fn rows_come_in_the_order_of_keys_and_go_on_after_any_of_them() {
    let mut replica = Replica::new(1);
    for key in ["c", "a", "b"] {
        replica.put(key, b"1").unwrap();
    }
    let keys = |after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(id);
        replica
            .table
            .rows_after(after.as_ref(), limit)
            .map(|(key, _)| key.to_string())
            .collect()
    };
    assert_eq!(keys(None, 2), ["a", "b"]);
    assert_eq!(keys(Some("b"), 2), ["c"]);
    assert_eq!(keys(Some("aa"), 9), ["b", "c"]);
    assert_eq!(keys(Some("z"), 9), [""; 0]);
}

#[test]
fn fingerprints_come_ascending_and_name_their_keys() {
    let mut replica = Replica::new(1);
    for n in 0..50 {
        replica.put(&format!("k{n}"), b"1").unwrap();
    }
    let all: Vec<_> = replica
        .table
        .fingerprints_from(Fingerprint(0), 100)
        .collect();
    assert!(all.is_sorted() && all.len() == 50);
    let rest: Vec<_> = replica.table.fingerprints_from(all[20], 100).collect();
    assert_eq!(rest, all[20..]);
    for fingerprint in all {
        let key = replica.table.key_of(fingerprint).unwrap();
        assert_eq!(replica.table.row(key).unwrap().fingerprint, fingerprint);
    }
}

/// What may happen to a replica.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Contact(u8, u32),
    Merge(u8, Entry),
}

fn steps() -> impl Strategy<Value = Step> {
    let entry = (0_u64..4, 0_u8..2, 0_u32..4, prop::option::of(0_u8..3)).prop_map(
        |(ms, origin, contact, content)| Entry {
            version: Version {
                reading: Reading::from_u64((NOW.as_millis() + ms) << 16),
                origin: OriginId::from_bytes([origin; 16]),
            },
            ..remote(
                0,
                content.map(|byte| [byte]).as_ref().map(|bytes| &bytes[..]),
                contact,
            )
        },
    );
    prop_oneof![
        (0_u8..4, any::<u8>()).prop_map(|(key, content)| Step::Put(key, content)),
        (0_u8..4).prop_map(Step::Delete),
        (0_u8..4, 0_u32..4).prop_map(|(key, contact)| Step::Contact(key, contact)),
        (0_u8..4, entry).prop_map(|(key, entry)| Step::Merge(key, entry)),
    ]
}

/// All rows, in the order of their keys.
fn rows(table: &Table) -> Vec<(&Key, &Row)> {
    table.rows_after(None, usize::MAX).collect()
}

/// All fingerprints, in their order, each with the key that it leads to.
fn by_fingerprint(table: &Table) -> Vec<(Fingerprint, Option<&Key>)> {
    let all = table.fingerprints_from(Fingerprint(0), usize::MAX);
    all.map(|it| (it, table.key_of(it))).collect()
}

/// Index and all that is counted of it are the same.
fn assert_same(table: &Table, other: &Table) {
    assert_eq!(rows(table), rows(other));
    assert_eq!(by_fingerprint(table), by_fingerprint(other));
    assert_eq!(table.origins, other.origins);
    assert_eq!(table.tombstones, other.tombstones);
    assert_eq!(table.sketch, other.sketch);
    assert_eq!(table.digest(), other.digest());
}

#[test]
fn a_table_is_read_in_any_order_and_what_comes_again_counts_once() {
    let records = [
        ("c", remote(1, Some(b"old"), 0)),
        ("a", remote(1, None, 3)),
        ("b", remote(2, Some(b"same"), 1)),
        ("c", remote(4, Some(b"new"), 0)),
        ("a", remote(1, None, 3)),
        ("b", remote(2, Some(b"same"), 1)),
        ("c", remote(5, None, 0)),
        ("d", remote(1, Some(b"live"), 0)),
    ];
    let key = FingerprintKey::from_bytes([7; 16]);
    let mut loading = Loading::new(spec_under(key, Limits::default()), 3);
    let mut one_by_one = table_with(Limits::default());
    for (key, entry) in records {
        loading.record(&id(key), &entry, NOW).unwrap();
        one_by_one.load(&id(key), &entry, NOW).unwrap();
    }
    let bad = remote(1, Some(b"bad"), 0);
    assert!(loading.record(&id("bad"), &bad, NOW).is_err());
    assert!(one_by_one.load(&id("bad"), &bad, NOW).is_err());
    let table = loading.finish();
    assert_same(&table, &one_by_one);
    assert_eq!((table.live(), table.tombstones()), (2, 2));
    assert_eq!(table.floors(), one_by_one.floors());
}

proptest! {
    /// The model is a map in which every record that was written or arrived is merged.
    #[test]
    fn a_table_holds_what_merging_all_of_it_gives(
        groups in prop::collection::vec(prop::collection::vec(steps(), 1..6), 1..12),
    ) {
        let mut replica = Replica::new(5);
        let mut model: BTreeMap<Key, Entry> = BTreeMap::new();
        for group in groups {
            let happened = replica.group(|plan| {
                let mut happened = Vec::new();
                for step in group {
                    let (key, entry) = match step {
                        Step::Put(key, byte) => {
                            let key = id(&format!("k{key}"));
                            let put = plan.put(&key, &Precondition::default(), new(&[byte]));
                            (key, put.ok())
                        }
                        Step::Delete(key) => {
                            let key = id(&format!("k{key}"));
                            let deleted = plan.delete(&key, &Precondition::default());
                            (key, deleted.ok())
                        }
                        Step::Contact(key, steps) => {
                            let key = id(&format!("k{key}"));
                            let contact = plan.contact(&key, Contact::from_steps(steps));
                            (key, contact.ok())
                        }
                        Step::Merge(key, entry) => {
                            let key = id(&format!("k{key}"));
                            let merged = plan.merge(&key, entry.clone(), Via::Push, None);
                            (key, (!matches!(merged, Merged::Refused(_))).then_some(entry))
                        }
                    };
                    happened.extend(entry.map(|entry| (key, entry)));
                }
                happened
            });
            for (key, entry) in happened {
                let merged = match model.remove(&key) {
                    Some(held) => merge(held, entry),
                    None => entry,
                };
                model.insert(key, merged);
            }
            prop_assert_eq!(&replica.store, &model);
            replica.assert_consistent();
        }
    }

    #[test]
    fn two_tables_that_took_the_same_records_in_any_order_are_equal(
        entries in prop::collection::vec(steps(), 1..20),
        swaps in prop::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let merges: Vec<_> = entries
            .into_iter()
            .filter_map(|step| match step {
                Step::Merge(key, entry) => Some((format!("k{key}"), entry)),
                _ => None,
            })
            .collect();
        let mut shuffled = merges.clone();
        for (place, swap) in swaps.iter().enumerate().take(merges.len()) {
            let other = swap.index(merges.len());
            shuffled.swap(place, other);
        }
        let (mut one, mut other) = (Replica::new(1), Replica::new(2));
        for (key, entry) in merges {
            one.merge(&key, entry);
        }
        for (key, entry) in shuffled {
            other.merge(&key, entry);
        }
        prop_assert_eq!(&one.store, &other.store);
        prop_assert_eq!(one.table.digest(), other.table.digest());
    }
}

proptest! {
    #[test]
    fn a_table_under_another_key_is_one_that_was_loaded_under_it(
        puts in prop::collection::vec((0_u8..40, prop::option::of(any::<u8>())), 0..60),
        step in 0_usize..9,
        later in 0_u8..40,
    ) {
        let mut replica = Replica::new(5);
        for (key, content) in puts {
            let key = format!("k{key}");
            match content {
                Some(byte) => drop(replica.put(&key, &[byte])),
                None => drop(replica.delete(&key)),
            }
        }
        let before = replica.table.digest();
        let mut rekeying = replica.table.begin_rekeying(FingerprintKey::from_bytes([8; 16]));
        let mut steps = 1;
        while !replica.table.rekey(&mut rekeying, step) {
            steps += 1;
        }
        let rows = replica.store.len();
        prop_assert_eq!(steps, rows.div_ceil(step.max(1)).max(1));
        replica.assert_consistent();
        prop_assert_eq!(replica.table.digest() == before, rows == 0);
        // And it goes on under that key.
        replica.put(&format!("k{later}"), b"later").unwrap();
        replica.assert_consistent();
    }
}

#[test]
fn a_renewed_feed_sends_its_readers_to_list_again() {
    let mut replica = Replica::new(1);
    replica.put("a", b"1").unwrap();
    let since = replica.table.feed().revision();
    replica.table.renew_feed(9);
    assert!(replica.table.feed().since(since, 1).is_err());
    let anew = replica.table.feed().revision();
    replica.put("a", b"2").unwrap();
    assert_eq!(replica.table.feed().since(anew, 9).unwrap().len(), 1);
}
