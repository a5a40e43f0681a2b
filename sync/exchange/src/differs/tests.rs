use peer_table::OriginId;
use peer_table::contract::merged_code;
use peer_table::table::{MergeRefused, Merged};

use super::*;
use crate::exchange::{Kind, Moved, Traffic};
use crate::testing::{self, address, at, partner};

fn digest(sum: u64) -> Digest {
    Digest {
        records: 3,
        sum,
        ..Digest::default()
    }
}

/// An exchange after which our table has the digest `own` and the partner's `theirs`, and in which
/// so many records were refused here and there.
fn report(own: u64, theirs: u64, refused: [usize; 2]) -> Report {
    let outcomes = refused.map(|count| {
        let mut outcomes = Outcomes::default();
        let full = merged_code(Merged::Refused(MergeRefused::Full));
        outcomes.add(&vec![full; count]);
        outcomes
    });
    let [here, there] = outcomes;
    Report {
        kind: Kind::Reconciled,
        origin: OriginId::from_bytes([9; 16]),
        partner: partner(1),
        protocol: 1,
        skew_ms: 0,
        digest: digest(own),
        partner_digest: digest(theirs),
        moved: Moved {
            ours: 2,
            theirs: 3,
            merged_here: here,
            merged_there: there,
            ..Moved::default()
        },
        symbols: 0,
        find: Traffic::default(),
        swap: Traffic::default(),
        advanced: false,
    }
}

/// A book of two peers, both met.
fn book() -> PeerBook {
    let mut book = testing::book(2);
    for n in [1, 2] {
        book.succeeded(&address(n.into()), &partner(n), 0, None, at(0));
    }
    book
}

/// Those that have diverged.
fn diverged(book: &PeerBook, now: u64) -> Vec<(&str, Difference)> {
    let peers = book.peers();
    let diverged =
        peers.filter_map(|(address, peer)| Some((address.as_str(), peer.diverged(at(now))?)));
    diverged.collect()
}

#[test]
fn records_that_are_refused_twice_or_for_a_while_are_a_difference_that_stays() {
    for refused in [[2, 0], [0, 2]] {
        let mut book = book();
        book.exchanged(&address(1), &report(1, 2, refused), at(10));
        assert_eq!(diverged(&book, 11), []);
        assert_eq!(diverged(&book, 18).len(), 1);
        book.exchanged(&address(1), &report(1, 2, refused), at(12));
        let [("10.0.0.1:3003", difference)] = diverged(&book, 12)[..] else {
            panic!("{book:?}")
        };
        assert_eq!((difference.since, difference.records), (at(10), Some(2)));
        assert!(
            difference.why.word().starts_with("refused_full"),
            "{difference:?}"
        );
        book.exchanged(&address(1), &report(2, 2, [0, 0]), at(20));
        assert_eq!(diverged(&book, 100), []);
    }
}

#[test]
fn tables_that_differ_as_they_change_are_none_however_long_that_goes_on() {
    let mut book = book();
    for second in (0..200).step_by(5) {
        book.exchanged(&address(1), &report(second, second + 1, [0, 0]), at(second));
        assert_eq!(diverged(&book, second + 4), []);
    }
}

#[test]
fn tables_that_differ_and_do_not_change_are_one() {
    let mut book = book();
    for second in [10, 20, 27] {
        book.exchanged(&address(1), &report(1, 2, [0, 0]), at(second));
        assert_eq!(diverged(&book, second), []);
    }
    let [(_, difference)] = diverged(&book, 28)[..] else {
        panic!("{book:?}")
    };
    assert_eq!((difference.since, difference.records), (at(10), Some(5)));
    book.found_equal(partner(1).store);
    assert_eq!(diverged(&book, 28), []);
}

#[test]
fn exchanges_that_break_off_are_one_only_with_who_is_talked_to_meanwhile() {
    let mut book = book();
    for second in [10, 20] {
        for n in [1, 2] {
            book.exchange_broke(&address(n), "timed_out", at(second));
            book.failed(&address(n), "timed_out", at(second), 0);
        }
        // It is pushed to all the same.
        book.succeeded(&address(2), &partner(2), 0, None, at(second + 1));
    }
    assert_eq!(diverged(&book, 27), []);
    let [("10.0.0.2:3003", difference)] = diverged(&book, 28)[..] else {
        panic!("{book:?}")
    };
    assert_eq!(difference.why.word(), "failed_timed_out");
    assert_eq!(difference.records, None);
}

#[test]
fn what_is_refused_of_a_peer_that_begins_exchanges_counts_too() {
    let mut book = book();
    let refused = report(1, 2, [4, 0]).moved.merged_here;
    let store = partner(2).store;
    book.refused_of(store, &Outcomes::default(), at(10));
    assert_eq!(diverged(&book, 100), []);
    book.refused_of(store, &refused, at(10));
    book.refused_of(store, &refused, at(15));
    let [("10.0.0.2:3003", difference)] = diverged(&book, 15)[..] else {
        panic!("{book:?}")
    };
    assert_eq!(difference.records, Some(4));
}

#[test]
fn who_cannot_be_reached_is_that_and_not_different() {
    let mut book = book();
    for second in [10, 20] {
        book.exchanged(&address(1), &report(1, 2, [1, 0]), at(second));
    }
    assert_eq!(diverged(&book, 21).len(), 1);
    book.failed(&address(1), "unreachable", at(22), 0);
    assert_eq!(diverged(&book, 23), []);
}
