//! Tables that change, and managers that fail, while an exchange runs.

use std::sync::atomic::{AtomicU64, Ordering};

use peer_exchange::exchange::{Fallback, Kind, Options, Report, exchange};

use udht_replica::{Replica, Wire, now_or_never, peers, records};

fn pair(n: usize, shift: usize) -> (Replica, Replica) {
    let all = records(0..(n + shift) as u64);
    (Replica::with(1, &all[..n]), Replica::with(2, &all[shift..]))
}

fn reconcile(ours: &Replica, wire: &Wire<'_>) -> Report {
    now_or_never(exchange(ours, wire, &peers(), &Options::default())).unwrap()
}

/// Whatever happened, an exchange at rest makes them equal.
fn settle(ours: &Replica, theirs: &Replica) {
    assert!(reconcile(ours, &Wire::to(theirs)).is_equal());
    assert_eq!(ours.entries(), theirs.entries());
}

#[test]
fn a_partner_that_changes_between_two_runs_of_symbols_answers_with_a_whole_new_run() {
    let (ours, theirs) = pair(5_000, 300);
    let wire = Wire::to(&theirs).before(|nth| {
        if nth == 1 {
            theirs.put("meanwhile", "there");
        }
    });
    let report = reconcile(&ours, &wire);
    assert_eq!(wire.asks()[..2], ["open", "symbols"]);
    assert_eq!(report.kind, Kind::Reconciled);
    assert!(report.symbols > 115 + 600, "{}", report.symbols);
    assert_eq!(ours.content("meanwhile").unwrap(), "there");
    assert_eq!(ours.entries(), theirs.entries());
}

#[test]
fn our_own_change_between_two_runs_of_symbols_is_taken_in() {
    let (ours, theirs) = pair(5_000, 300);
    let wire = Wire::to(&theirs).before(|nth| {
        if nth == 0 {
            ours.put("meanwhile", "here");
        }
    });
    let report = reconcile(&ours, &wire);
    assert_eq!(report.kind, Kind::Reconciled);
    assert_eq!(theirs.content("meanwhile").unwrap(), "here");
    assert_eq!(ours.entries(), theirs.entries());
}

#[test]
fn tables_that_never_stop_changing_are_compared_by_listing() {
    let (ours, theirs) = pair(5_000, 300);
    let count = AtomicU64::new(0);
    let wire = Wire::to(&theirs).before(|_| {
        // A hundred changes for each message: more than the margin of what is asked for.
        for _ in 0..100 {
            let n = count.fetch_add(1, Ordering::Relaxed);
            theirs.put(&format!("meanwhile-{n}"), "there");
        }
    });
    let report = reconcile(&ours, &wire);
    assert!(report.traffic().round_trips < 20, "{:?}", report.traffic());
    assert!(matches!(
        report.kind,
        Kind::Reconciled | Kind::Snapshot(Fallback::Undecoded)
    ));
    settle(&ours, &theirs);
}

#[test]
fn records_that_change_before_they_are_shipped_are_found_by_the_next_exchange() {
    let (ours, theirs) = pair(5_000, 10);
    let wire = Wire::to(&theirs).before(|nth| {
        if nth == 1 {
            theirs.put("peer-5005", "changed before it left");
        }
    });
    let report = reconcile(&ours, &wire);
    assert_eq!(report.moved.missing, 1);
    assert_eq!(report.moved.received, 9);
    assert!(!report.is_equal());
    settle(&ours, &theirs);
    assert_eq!(ours.content("peer-5005").unwrap(), "changed before it left");
}

#[test]
fn changes_during_a_listing_do_no_harm() {
    let (ours, theirs) = pair(3_000, 1_000);
    let options = Options {
        symbols_max: 256,
        page: 64,
        ..Options::default()
    };
    let count = AtomicU64::new(0);
    let wire = Wire::to(&theirs).before(|_| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        ours.put(&format!("peer-{}", 7 * n), "changed here");
        theirs.put(&format!("peer-{}", 1_000 + 11 * n), "changed there");
        theirs.delete(&format!("peer-{}", 1_001 + 11 * n));
    });
    let report = now_or_never(exchange(&ours, &wire, &peers(), &options)).unwrap();
    assert!(matches!(report.kind, Kind::Snapshot(_)));
    settle(&ours, &theirs);
}

#[test]
fn a_partner_whose_manager_fails_in_the_middle_leaves_what_arrived() {
    let (ours, theirs) = pair(3_000, 10);
    let wire = Wire::to(&theirs).before(|nth| theirs.set_down(nth == 1));
    let result = now_or_never(exchange(&ours, &wire, &peers(), &Options::default()));
    assert_eq!(result.unwrap_err().word(), "unavailable");
    theirs.set_down(false);
    settle(&ours, &theirs);
}

#[test]
fn two_exchanges_in_opposite_directions_do_no_harm() {
    let (ours, theirs) = pair(3_000, 20);
    let wire = Wire::to(&theirs).before(|nth| {
        if nth == 1 {
            reconcile(&theirs, &Wire::to(&ours));
        }
    });
    let report = reconcile(&ours, &wire);
    assert!(report.is_equal());
    assert_eq!(report.moved.merged_there.of("equal"), 20);
    assert_eq!(ours.entries(), theirs.entries());
}
