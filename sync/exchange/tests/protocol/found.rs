//! What an exchange finds, moves and costs.

use std::collections::BTreeMap;

use peer_exchange::exchange::{ExchangeError, Kind, Moved, Options, Report, exchange};
use peer_table::entry::{Body, Content, Entry, merge};
use peer_table::sketch::Difference;
use peer_table::{Contact, Key, OriginId, Reading, Version, WallTime};
use proptest::prelude::*;

use udht_replica::{NOW, Replica, Setup, Wire, key, now_or_never, peers, record, records};

fn reconcile(ours: &Replica, wire: &Wire<'_>) -> Result<Report, ExchangeError> {
    now_or_never(exchange(ours, wire, &peers(), &Options::default()))
}

/// One exchange, after which both must hold the same.
fn equalise(ours: &Replica, theirs: &Replica) -> Report {
    let report = reconcile(ours, &Wire::to(theirs)).unwrap();
    assert!(report.is_equal(), "{report:?}");
    assert_eq!(ours.entries(), theirs.entries());
    assert_eq!(ours.digest(), report.digest);
    assert_eq!(theirs.digest(), report.partner_digest);
    report
}

#[test]
fn equal_tables_cost_one_round_trip_of_300_bytes_however_large_they_are() {
    for n in [0, 10, 10_000] {
        let all = records(0..n);
        let (ours, theirs) = (Replica::with(1, &all), Replica::with(2, &all));
        let wire = Wire::to(&theirs);
        let report = reconcile(&ours, &wire).unwrap();
        assert_eq!(report.kind, Kind::Equal);
        assert_eq!(wire.asks(), ["open"]);
        assert!(
            report.traffic().bytes() <= 300,
            "{n} records: {:?}",
            report.traffic()
        );
        assert_eq!(report.traffic().round_trips, 1);
        let trip = &wire.trips()[0];
        assert_eq!(report.traffic().sent, trip.request_bytes as u64);
        assert_eq!(report.traffic().received, trip.response_bytes as u64);
        assert_eq!(report.moved, Moved::default());
    }
}

#[test]
fn ten_differences_in_ten_thousand_are_found_in_one_round_trip_of_1800_bytes() {
    let all = records(0..10_005);
    let (ours, theirs) = (
        Replica::with(1, &all[..10_000]),
        Replica::with(2, &all[5..]),
    );
    let report = equalise(&ours, &theirs);
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!((report.moved.ours, report.moved.theirs), (5, 5));
    assert_eq!((report.moved.sent, report.moved.received), (5, 5));
    assert_eq!(report.moved.missing, 0);
    assert_eq!(report.moved.merged_here.of("applied"), 5);
    assert_eq!(report.moved.merged_there.of("applied"), 5);
    assert_eq!(report.symbols, Difference::FIRST);
    assert_eq!((report.find.round_trips, report.swap.round_trips), (1, 1));
    assert!(report.find.bytes() <= 1_800, "{:?}", report.find);
}

#[test]
fn two_thousand_differences_are_found_in_a_few_round_trips() {
    let all = records(0..12_000);
    let (ours, theirs) = (
        Replica::with(1, &all[..11_000]),
        Replica::with(2, &all[1_000..]),
    );
    let report = equalise(&ours, &theirs);
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!((report.moved.ours, report.moved.theirs), (1_000, 1_000));
    assert!(report.find.round_trips <= 4, "{:?}", report.find);
    assert!(report.find.bytes() <= 3 * 8 * 2_000, "{:?}", report.find);
    assert_eq!(report.swap.round_trips, 1);
}

/// One difference in many thousands has two fingerprints of which even a long run of symbols looks
/// alike. These fifty records, found by trying, take more than 400 symbols instead of 80.
#[test]
fn a_difference_that_decodes_late_takes_a_few_longer_runs_and_no_listing() {
    let all = records(0..10_000);
    let (ours, theirs) = (Replica::with(1, &all), Replica::with(2, &all));
    ours.load(&records(1_959_150..1_959_200));
    let report = equalise(&ours, &theirs);
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!(report.moved.ours, 50);
    assert!((400..1_200).contains(&report.symbols), "{}", report.symbols);
    assert!(report.find.round_trips <= 6, "{:?}", report.find);
}

#[test]
fn updates_deletes_and_contacts_go_both_ways_in_one_exchange() {
    let all = records(0..300);
    let (ours, theirs) = (Replica::with(1, &all), Replica::with(2, &all));
    ours.put("peer-0", "updated here");
    theirs.put("peer-1", "updated there");
    ours.delete("peer-2");
    theirs.delete("peer-3");
    ours.contact("peer-4", 7);
    theirs.contact("peer-5", 8);
    ours.put("new", "made here");
    theirs.put("newer", "made there");
    // Both wrote, and the later one wins; but whoever saw the peer last is right about that.
    ours.put("peer-6", "first");
    ours.contact("peer-6", 9);
    theirs.set_now(WallTime::from_millis(NOW.as_millis() + 1));
    theirs.put("peer-6", "second");
    let report = equalise(&ours, &theirs);
    assert_eq!(report.traffic().round_trips, 2);
    assert_eq!(ours.content("peer-0").unwrap(), "updated here");
    assert_eq!(ours.content("peer-1").unwrap(), "updated there");
    assert_eq!(ours.content("peer-2"), None);
    assert_eq!(ours.content("peer-3"), None);
    assert_eq!(
        theirs.entries()[&key("peer-4")].contact,
        Contact::from_steps(7)
    );
    assert_eq!(
        ours.entries()[&key("peer-5")].contact,
        Contact::from_steps(8)
    );
    assert_eq!(ours.content("peer-6").unwrap(), "second");
    assert_eq!(
        ours.entries()[&key("peer-6")].contact,
        Contact::from_steps(9)
    );
    assert_eq!(theirs.content("new").unwrap(), "made here");
    assert_eq!(ours.content("newer").unwrap(), "made there");
}

#[test]
fn a_second_exchange_finds_nothing() {
    let all = records(0..400);
    let (ours, theirs) = (Replica::with(1, &all[..300]), Replica::with(2, &all[100..]));
    equalise(&ours, &theirs);
    assert_eq!(equalise(&theirs, &ours).kind, Kind::Equal);
}

#[test]
fn a_table_that_takes_fewer_bytes_to_list_than_its_symbols_is_listed_at_once() {
    let all = records(0..310);
    let ours = Replica::with(1, &all);
    for (store, n) in [(2, 0), (3, 50), (4, 185)] {
        let theirs = Replica::with(store, &all[310 - n..]);
        theirs.put(&format!("new-{n}"), "there");
        let wire = Wire::to(&theirs);
        let report = reconcile(&ours, &wire).unwrap();
        assert_eq!(ours.entries(), theirs.entries());
        assert_eq!(report.kind, Kind::Reconciled);
        assert_eq!(report.symbols, 0);
        assert_eq!(wire.asks(), ["open", "swap"]);
        assert!(
            report.find.bytes() <= 300 + 8 * (n as u64 + 1),
            "{:?}",
            report.find
        );
    }
}

#[test]
fn what_a_full_table_refuses_is_counted_and_the_rest_arrives() {
    let all = records(0..300);
    let ours = Replica::with(1, &all);
    let theirs = Setup {
        records_max: 298,
        ..Setup::of(2)
    }
    .replica();
    theirs.load(&all[..290]);
    let report = reconcile(&ours, &Wire::to(&theirs)).unwrap();
    assert!(!report.is_equal());
    assert_eq!(report.moved.merged_there.of("applied"), 8);
    assert_eq!(report.moved.merged_there.of("refused_full"), 2);
    assert_eq!(report.moved.merged_there.refused(), 2);
}

#[test]
fn more_records_than_one_batch_holds_go_in_several() {
    let all = records(0..30_000);
    let (ours, theirs) = (
        Replica::with(1, &all[..25_000]),
        Replica::with(2, &all[5_000..]),
    );
    let report = equalise(&ours, &theirs);
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!((report.moved.sent, report.moved.received), (5_000, 5_000));
    assert_eq!(report.swap.round_trips, 2);
    assert_eq!(report.moved.missing, 0);
}

#[test]
fn large_records_go_in_more_messages_and_none_is_too_large() {
    let large = |range: std::ops::Range<u64>| -> Vec<(Key, Entry)> {
        range
            .map(|n| {
                let (key, entry) = record(&n.to_string(), 1 + n, 1);
                let body = Body::Live(Content::from(vec![7; 16_000]));
                (key, Entry { body, ..entry })
            })
            .collect()
    };
    let (ours, theirs) = (
        Replica::with(1, &large(0..150)),
        Replica::with(2, &large(150..300)),
    );
    let wire = Wire::to(&theirs);
    reconcile(&ours, &wire).unwrap();
    assert_eq!(ours.entries(), theirs.entries());
    assert_eq!(wire.asks(), ["open", "swap", "swap", "swap"]);
    assert!(wire.trips().iter().all(|trip| trip.request_bytes < 2 << 20));
}

#[test]
fn the_partner_s_clock_is_measured() {
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    theirs.set_now(WallTime::from_millis(NOW.as_millis() - 1_500));
    let wire = Wire::to(&theirs);
    // A hundred milliseconds pass on the way there, and none on the way back.
    let wire = wire.before(|_| ours.set_now(WallTime::from_millis(NOW.as_millis() + 100)));
    let report = reconcile(&ours, &wire).unwrap();
    assert_eq!(report.skew_ms, -1_500);
    assert_eq!(wire.trips()[0].report.skew_ms, 1_500);
    assert_eq!(report.partner.store, theirs.store());
    let peer_id = key(&theirs.store().to_string());
    assert_eq!(report.partner.peer_id, Some(peer_id));
}

#[test]
fn an_exchange_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (ours, theirs) = (Replica::new(1), Replica::new(2));
    let (wire, peers, options) = (Wire::to(&theirs), peers(), Options::default());
    let running = exchange(&ours, &wire, &peers, &options);
    is_send(&running);
    now_or_never(running).unwrap();
}

/// A few keys, written a few times by two replicas: the content of a version is always the same.
fn histories() -> impl Strategy<Value = BTreeMap<Key, Entry>> {
    let entry = (1_u64..5, 0_u8..2, 0_u32..4).prop_map(|(reading, origin, contact)| {
        let body = if reading.is_multiple_of(3) {
            Body::Tombstone
        } else {
            Body::Live(Content::from(vec![u8::try_from(reading).unwrap(), origin]))
        };
        Entry {
            version: Version {
                reading: Reading::from_u64(reading),
                origin: OriginId::from_bytes([origin; 16]),
            },
            contact: Contact::from_steps(contact),
            body,
        }
    });
    prop::collection::btree_map(
        (0_u32..300).prop_map(|n| key(&n.to_string())),
        entry,
        0..290,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn after_one_exchange_both_hold_the_join_of_both(ours in histories(), theirs in histories()) {
        let mut joined = ours.clone();
        for (key, entry) in theirs.clone() {
            let entry = match joined.remove(&key) {
                Some(held) => merge(held, entry),
                None => entry,
            };
            joined.insert(key, entry);
        }
        let loaded = |store: u8, records: BTreeMap<Key, Entry>| {
            // A short sketch, so that all the ways to find a difference are taken.
            let replica = Setup { sketch_symbols: 300, ..Setup::of(store) }.replica();
            replica.load(&records.into_iter().collect::<Vec<_>>());
            replica
        };
        let (ours, theirs) = (loaded(1, ours), loaded(2, theirs));
        let report = reconcile(&ours, &Wire::to(&theirs)).unwrap();
        prop_assert_eq!(ours.entries(), joined.clone());
        prop_assert_eq!(theirs.entries(), joined);
        prop_assert!(report.is_equal());
    }
}
