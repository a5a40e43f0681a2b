//! Differences that are found by comparing fingerprints range by range.

use peer_exchange::exchange::{ExchangeError, Fallback, Kind, Options, Report, exchange};

use udht_replica::{Replica, Setup, Wire, now_or_never, peers, records};

/// Small pages, so that a few thousand records are many of them.
const SMALL: Options = Options {
    symbols_first: 128,
    symbols_max: 512,
    page: 100,
    round_trips_max: 1_000,
    protocols: peer_exchange::handshake::PROTOCOLS,
    partner: None,
};

fn reconcile(ours: &Replica, theirs: &Replica, options: &Options) -> (Report, Vec<&'static str>) {
    let wire = Wire::to(theirs);
    let report = now_or_never(exchange(ours, &wire, &peers(), options)).unwrap();
    assert_eq!(ours.entries(), theirs.entries());
    assert!(report.is_equal());
    let asks = wire.asks();
    (report, asks)
}

#[test]
fn an_empty_table_takes_all_of_ten_thousand_records() {
    let all = records(0..10_000);
    let (ours, theirs) = (Replica::new(1), Replica::with(2, &all));
    let (report, asks) = reconcile(&ours, &theirs, &Options::default());
    assert_eq!(report.kind, Kind::Snapshot(Fallback::Cheaper));
    assert_eq!(asks, ["open", "fingerprints", "swap", "swap", "swap"]);
    assert_eq!((report.moved.ours, report.moved.theirs), (0, 10_000));
    assert_eq!(report.moved.received, 10_000);
    assert!(report.find.bytes() < 80_000 + 2_500, "{:?}", report.find);
}

#[test]
fn an_empty_table_is_given_all_of_ten_thousand_records() {
    let all = records(0..10_000);
    let (ours, theirs) = (Replica::with(1, &all), Replica::new(2));
    let (report, asks) = reconcile(&ours, &theirs, &Options::default());
    // Its listing is empty, and comes with the first answer.
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!(asks, ["open", "swap", "swap", "swap"]);
    assert_eq!(report.moved.sent, 10_000);
}

#[test]
fn a_difference_beyond_the_sketch_is_compared_range_by_range() {
    let all = records(0..6_000);
    let (ours, theirs) = (
        Replica::with(1, &all[..5_000]),
        Replica::with(2, &all[1_000..]),
    );
    let (report, asks) = reconcile(&ours, &theirs, &SMALL);
    assert_eq!(report.kind, Kind::Snapshot(Fallback::TooLarge));
    assert_eq!((report.moved.ours, report.moved.theirs), (1_000, 1_000));
    assert_eq!((report.moved.sent, report.moved.received), (1_000, 1_000));
    assert_eq!(
        asks.iter().filter(|ask| **ask == "fingerprints").count(),
        50
    );
    assert_eq!(report.symbols, 128);
}

#[test]
fn a_difference_that_the_sketch_can_decode_is_not_listed_for_an_estimate_that_is_too_high() {
    // As much as is decodable: an estimate is above that as often as it is below.
    let each = SMALL.symbols_max * 7 / 10 / 2 - 9;
    let all = records(0..23_000);
    let (both, fresh) = all.split_at(5_000);
    let (ours, theirs) = (Replica::with(1, both), Replica::with(2, both));
    let mut fresh = fresh.chunks(each);
    for _ in 0..50 {
        ours.load(fresh.next().unwrap());
        theirs.load(fresh.next().unwrap());
        let (report, _) = reconcile(&ours, &theirs, &SMALL);
        assert_eq!(report.kind, Kind::Reconciled);
    }
}

#[test]
fn ranges_of_which_one_side_has_many_pages_are_compared_whole() {
    let all = records(0..6_000);
    for (ours, theirs) in [(0..6_000, 5_500..6_000), (5_500..6_000, 0..6_000)] {
        let (ours, theirs) = (Replica::with(1, &all[ours]), Replica::with(2, &all[theirs]));
        let (report, _) = reconcile(&ours, &theirs, &SMALL);
        assert!(matches!(report.kind, Kind::Snapshot(_)));
        assert_eq!(report.moved.ours + report.moved.theirs, 5_500);
    }
}

#[test]
fn sketches_of_different_lengths_are_used_as_far_as_both_go() {
    let all = records(0..4_000);
    for (ours_len, theirs_len) in [(32_768, 200), (200, 32_768)] {
        let ours = Setup {
            sketch_symbols: ours_len,
            ..Setup::of(1)
        }
        .replica();
        let theirs = Setup {
            sketch_symbols: theirs_len,
            ..Setup::of(2)
        }
        .replica();
        ours.load(&all[..3_800]);
        theirs.load(&all[200..]);
        let (report, _) = reconcile(&ours, &theirs, &Options::default());
        assert_eq!(report.kind, Kind::Snapshot(Fallback::Undecoded));
        assert_eq!(report.symbols, 200);
        ours.put("one", "more");
        let (report, _) = reconcile(&ours, &theirs, &Options::default());
        assert_eq!(report.kind, Kind::Reconciled);
    }
}

#[test]
fn round_trips_are_bounded_and_what_was_shipped_until_then_stays() {
    let all = records(0..4_000);
    let (ours, theirs) = (Replica::new(1), Replica::with(2, &all));
    let options = Options {
        round_trips_max: 7,
        ..SMALL
    };
    let mut exchanges = 0;
    while ours.entries() != theirs.entries() {
        let held = ours.entries().len();
        let wire = Wire::to(&theirs);
        match now_or_never(exchange(&ours, &wire, &peers(), &options)) {
            Err(ExchangeError::TooManyRounds { round_trips: 7 }) => {
                assert_eq!(wire.asks().len(), 7);
            }
            done => drop(done.unwrap()),
        }
        exchanges += 1;
        if exchanges == 1 {
            assert!(ours.entries().len() > held);
        } else {
            return;
        }
    }
}
