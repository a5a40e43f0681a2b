//! Partners that answer what they should not: an error, in a bounded number of messages, and
//! nothing lost.

use bytes::Bytes;
use peer_exchange::exchange::{ExchangeError, Options, exchange};
use peer_exchange::handshake::PROTOCOLS;
use peer_exchange::message::{
    Answer, Ask, AskFingerprints, AskSymbols, Open, Opened, Push, Pushed, Request, Response, Swap,
    Swapped, Symbols, batch_to_bytes,
};
use peer_exchange::respond::respond;
use peer_table::Fingerprint;
use peer_table::contract::{
    BATCH_RECORDS_MAX, Batch, FingerprintPage, MESSAGE_BYTES_MAX, WireHorizon,
    fingerprints_to_bytes,
};
use peer_table::floors::Replicas;
use proptest::prelude::*;

use udht_replica::{Replica, Wire, now_or_never, peers, record, records};

/// Three hundred records on either side, ten of them different.
fn pair() -> (Replica, Replica) {
    let all = records(0..310);
    (Replica::with(1, &all[..300]), Replica::with(2, &all[10..]))
}

/// An exchange with a partner whose answers are changed. Whatever they are, we keep what we hold.
fn meet(
    change: impl Fn(usize, Request, Response) -> Vec<u8> + Send + Sync,
) -> (Result<(), ExchangeError>, usize) {
    let (ours, theirs) = pair();
    let before = ours.entries();
    let wire = Wire::to(&theirs).tamper(change);
    let options = Options {
        round_trips_max: 50,
        ..Options::default()
    };
    let result = now_or_never(exchange(&ours, &wire, &peers(), &options));
    let after = ours.entries();
    assert!(
        before
            .iter()
            .all(|(key, entry)| after.get(key) == Some(entry))
    );
    let trips = wire.asks().len();
    (result.map(drop), trips)
}

/// As [`meet`], where only the answers are changed.
fn meet_answers(
    change: impl Fn(usize, Ask, Answer) -> Answer + Send + Sync,
) -> (Result<(), ExchangeError>, usize) {
    meet(|nth, request, response| {
        let answer = Some(change(nth, request.ask.unwrap(), response.answer.unwrap()));
        Response { answer, ..response }.to_bytes()
    })
}

/// The error, with all its causes.
fn told(result: Result<(), ExchangeError>) -> String {
    let error: Box<dyn std::error::Error> = result.unwrap_err().into();
    std::iter::successors(Some(&*error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn invalid(met: (Result<(), ExchangeError>, usize), text: &str) {
    let (result, trips) = met;
    assert!(
        matches!(result, Err(ExchangeError::Invalid(_))),
        "{result:?}"
    );
    let told = told(result);
    assert!(told.contains(text), "{told}");
    assert!(trips <= 2, "{trips} round trips");
}

#[test]
fn garbage_is_an_error() {
    invalid(
        meet(|_, _, _| vec![0xff; 100]),
        "do not begin with the length",
    );
    invalid(meet(|_, _, _| Vec::new()), "do not begin with the length");
    invalid(meet(|_, _, _| vec![3, 0xff, 0xff, 0xff]), "cannot be read");
}

#[test]
fn a_truncated_answer_is_an_error() {
    invalid(
        meet(|_, _, response| {
            let mut bytes = response.to_bytes();
            bytes.pop();
            bytes
        }),
        "was cut off",
    );
}

#[test]
fn an_oversized_answer_is_an_error() {
    invalid(
        meet(|_, _, _| vec![1; MESSAGE_BYTES_MAX + 1]),
        &format!("more than {MESSAGE_BYTES_MAX}"),
    );
}

#[test]
fn an_answer_without_hello_table_or_content_is_an_error() {
    invalid(
        meet(|_, _, r| Response { hello: None, ..r }.to_bytes()),
        "hello is missing",
    );
    invalid(
        meet(|_, _, r| Response { answer: None, ..r }.to_bytes()),
        "none that is known",
    );
    invalid(
        meet(|_, _, r| {
            Response {
                table: "files".into(),
                ..r
            }
            .to_bytes()
        }),
        "table is not the one asked about",
    );
}

#[test]
fn an_answer_of_another_kind_is_an_error() {
    let other = || Answer::Pushed(Pushed::default());
    invalid(meet_answers(|_, _, _| other()), "none to the opening");
    invalid(
        meet_answers(|nth, _, answer| if nth == 1 { other() } else { answer }),
        "none to a swap",
    );
}

#[test]
fn a_partner_that_becomes_another_is_an_error() {
    invalid(
        meet(|nth, _, mut response| {
            if nth == 1 {
                response.hello.as_mut().unwrap().store = vec![77; 16];
            }
            response.to_bytes()
        }),
        "another store than before",
    );
}

#[test]
fn symbols_of_a_wrong_length_are_an_error() {
    let symbols = |bytes: usize| {
        meet_answers(move |_, _, answer| match answer {
            Answer::Opened(opened) => Answer::Opened(Opened {
                symbols: vec![0; bytes],
                listing: None,
                ..opened
            }),
            other => other,
        })
    };
    invalid(symbols(100), "13 each");
    invalid(symbols(13 * 116), "more than were asked for");
    invalid(symbols(13 * 32_769), "32768 at the most");
}

#[test]
fn symbols_of_the_wrong_place_are_an_error() {
    let met = meet_answers(|nth, ask, answer| match (ask, answer) {
        (Ask::Open(_), Answer::Opened(opened)) => {
            // Too few to decode.
            let symbols = opened.symbols[..26].to_vec();
            Answer::Opened(Opened { symbols, ..opened })
        }
        (Ask::Symbols(_), Answer::Symbols(symbols)) => {
            assert_eq!(nth, 1);
            Answer::Symbols(Symbols { from: 7, ..symbols })
        }
        (_, answer) => answer,
    });
    invalid(met, "not the symbol asked for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_symbols_end_in_a_listing_or_an_error(seed in any::<u64>(), records in any::<u64>()) {
        // SplitMix64.
        let noise = |len: usize, at: u64| -> Vec<u8> {
            (0..len as u64).map(|n| {
                let mut z = (seed ^ at).wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z >> 56) as u8
            }).collect()
        };
        // The number of records is right, wrong or absurd.
        let records = [300, 303, 20_000, records][(seed % 4) as usize];
        let (_, trips) = meet_answers(move |nth, ask, answer| match (ask, answer) {
            (Ask::Open(open), Answer::Opened(mut opened)) => {
                opened.digest.records = records;
                opened.symbols = noise(13 * open.symbols as usize, 0);
                Answer::Opened(opened)
            }
            (Ask::Symbols(ask), Answer::Symbols(mut symbols)) => {
                symbols.digest.records = records;
                symbols.from = ask.from;
                symbols.symbols = noise(13 * (ask.to - ask.from) as usize, nth as u64);
                Answer::Symbols(symbols)
            }
            (_, answer) => answer,
        });
        prop_assert!(trips < 50);
    }
}

#[test]
fn a_hostile_listing_is_an_error() {
    let listing = |fingerprints: Vec<u64>, complete: bool| {
        meet_answers(move |_, _, answer| match answer {
            Answer::Opened(opened) => {
                let all = fingerprints.iter().copied().map(Fingerprint);
                let fingerprints = fingerprints_to_bytes(all);
                let listing = Some(FingerprintPage {
                    fingerprints,
                    complete,
                    digest: None,
                });
                Answer::Opened(Opened {
                    symbols: Vec::new(),
                    listing,
                    ..opened
                })
            }
            other => other,
        })
    };
    invalid(listing(vec![5, 4], true), "ascending");
    invalid(
        listing((0..187).collect(), true),
        "more than were asked for",
    );
    invalid(listing(vec![], false), "not the last ones");
}

/// A partner that has no symbols, and lists what it is told to.
fn meet_pages(
    page: impl Fn(AskFingerprints) -> FingerprintPage + Send + Sync,
) -> (Result<(), ExchangeError>, usize) {
    meet_answers(move |_, ask, answer| match (ask, answer) {
        (Ask::Open(_), Answer::Opened(opened)) => Answer::Opened(Opened {
            symbols: Vec::new(),
            listing: None,
            ..opened
        }),
        (Ask::Fingerprints(ask), _) => Answer::Fingerprints(page(ask)),
        (_, answer) => answer,
    })
}

#[test]
fn a_page_that_does_not_go_on_is_an_error() {
    let page = |fingerprints: &[u64]| FingerprintPage {
        fingerprints: fingerprints_to_bytes(fingerprints.iter().copied().map(Fingerprint)),
        complete: false,
        digest: None,
    };
    invalid(meet_pages(|_| page(&[9, 8])), "ascending");
    invalid(meet_pages(|_| page(&[])), "not the last ones");
    let same = meet_pages(|_| page(&[9]));
    assert!(told(same.0).contains("begin below the one asked for"));
}

#[test]
fn endless_pages_come_to_an_end() {
    let (result, trips) = meet_pages(|ask| FingerprintPage {
        fingerprints: fingerprints_to_bytes([Fingerprint(ask.from)]),
        complete: false,
        digest: None,
    });
    assert!(
        matches!(
            result,
            Err(ExchangeError::TooManyRounds { round_trips: 50 })
        ),
        "{result:?}"
    );
    assert_eq!(trips, 50);
}

fn meet_swapped(
    change: impl Fn(Swap, Swapped) -> Swapped + Send + Sync,
) -> (Result<(), ExchangeError>, usize) {
    meet_answers(move |_, ask, answer| match (ask, answer) {
        (Ask::Swap(swap), Answer::Swapped(swapped)) => Answer::Swapped(change(swap, swapped)),
        (_, answer) => answer,
    })
}

#[test]
fn a_swap_that_deals_with_nothing_is_an_error() {
    let nothing = |_, swapped| Swapped {
        batch: Bytes::new(),
        dealt_with: 0,
        ..swapped
    };
    invalid(meet_swapped(nothing), "dealt_with is 0 of 10 fingerprints");
}

#[test]
fn a_swap_that_deals_with_more_than_was_wanted_is_an_error() {
    let more = |_, swapped| Swapped {
        dealt_with: 11,
        ..swapped
    };
    invalid(meet_swapped(more), "dealt_with is 11 of 10 fingerprints");
    let unasked = |_, swapped| Swapped {
        dealt_with: 9,
        ..swapped
    };
    invalid(
        meet_swapped(unasked),
        "dealt_with is 9 of 10 fingerprints, with 10 records",
    );
}

#[test]
fn a_swap_whose_outcomes_do_not_fit_the_records_is_an_error() {
    let none = |_, swapped| Swapped {
        outcomes: Vec::new(),
        ..swapped
    };
    invalid(meet_swapped(none), "outcomes are not one for each record");
}

#[test]
fn a_batch_of_another_table_is_an_error() {
    let foreign = |_, swapped: Swapped| {
        let table = "files".parse().unwrap();
        let batch = batch_to_bytes(&Batch::new(&table, [record("a", 1, 1)]));
        Swapped {
            batch,
            dealt_with: 10,
            ..swapped
        }
    };
    invalid(meet_swapped(foreign), "batch is not of the table peers");
}

#[test]
fn a_batch_of_too_many_records_is_an_error() {
    let many = |_, swapped: Swapped| {
        let all = records(0..BATCH_RECORDS_MAX as u64 + 1);
        Swapped {
            batch: batch_to_bytes(&Batch::new(&peers(), all)),
            dealt_with: 10,
            ..swapped
        }
    };
    invalid(meet_swapped(many), "batch has 4097 entries");
}

/// A batch whose second record is none, and what is wrong with it.
fn batches_with_what_is_no_record() -> [(Bytes, &'static str); 3] {
    let batch = |change: fn(&mut Batch)| {
        let mut batch = Batch::new(&peers(), records(0..3));
        change(&mut batch);
        batch_to_bytes(&batch)
    };
    [
        (
            batch(|batch| batch.records[1].key = "a b".into()),
            "key is none",
        ),
        (
            batch(|batch| batch.records[1].origin = 9),
            "names none of the origins",
        ),
        (batch(|batch| batch.origins[0].truncate(15)), "not 16 bytes"),
    ]
}

#[test]
fn a_batch_with_what_is_no_record_is_an_error() {
    for (batch, part) in batches_with_what_is_no_record() {
        let answer = move |_, swapped: Swapped| Swapped {
            batch: batch.clone(),
            dealt_with: 10,
            ..swapped
        };
        invalid(meet_swapped(answer), part);
    }
}

/// What a replica answers to one ask.
fn answer(theirs: &Replica, ask: Ask) -> Answer {
    let ours = Replica::new(1);
    let hello = std::sync::Mutex::new(None);
    let wire = Wire::to(&ours).tamper(|_, request, _| {
        *hello.lock().unwrap() = Some(request.hello);
        Vec::new()
    });
    let _ = now_or_never(exchange(
        &Replica::new(3),
        &wire,
        &peers(),
        &Options::default(),
    ));
    drop(wire);
    let hello = hello.into_inner().unwrap().unwrap();
    let request = Request {
        hello,
        table: "peers".into(),
        ask: Some(ask),
    };
    let responded = now_or_never(respond(theirs, &request.to_bytes(), PROTOCOLS));
    Response::from_bytes(&responded.response)
        .unwrap()
        .answer
        .unwrap()
}

fn refused(theirs: &Replica, ask: Ask, text: &str) {
    let before = theirs.entries();
    match answer(theirs, ask) {
        Answer::Refused(refused) => assert!(refused.detail.contains(text), "{}", refused.detail),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(theirs.entries(), before);
}

#[test]
fn a_responder_vouches_for_no_listing_of_another_table_than_its_hello_tells_of() {
    let theirs = Replica::with(2, &records(0..10));
    let open = Ask::Open(Open {
        symbols: 128,
        ..Open::default()
    });
    theirs.put_before_listing("meanwhile");
    match answer(&theirs, open) {
        Answer::Opened(opened) => {
            assert_eq!((opened.listing, opened.digest.records), (None, 10));
            assert!(!opened.symbols.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let listed = || {
        let ask = AskFingerprints { from: 0, limit: 64 };
        match answer(&theirs, Ask::Fingerprints(ask)) {
            Answer::Fingerprints(page) => page.digest.map(|digest| digest.records),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(listed(), Some(11));
    theirs.put_before_listing("once-more");
    assert_eq!(listed(), None);
    assert_eq!(listed(), Some(12));
}

#[test]
fn a_responder_bounds_what_it_is_asked_for() {
    let theirs = Replica::with(2, &records(0..300));
    let open = Ask::Open(Open {
        symbols: u32::MAX,
        ..Open::default()
    });
    match answer(&theirs, open) {
        // As many fingerprints as the symbols of a whole sketch would have taken bytes.
        Answer::Opened(opened) => assert!(opened.listing.unwrap().complete),
        other => panic!("{other:?}"),
    }
    let ask = AskSymbols {
        from: 0,
        to: u32::MAX,
        ..AskSymbols::default()
    };
    match answer(&theirs, Ask::Symbols(ask)) {
        Answer::Symbols(symbols) => assert_eq!(symbols.symbols.len(), 13 * 32_768),
        other => panic!("{other:?}"),
    }
    let digest = theirs.digest().into();
    for (from, to) in [(5, 2), (u32::MAX, u32::MAX), (40_000, 50_000)] {
        match answer(
            &theirs,
            Ask::Symbols(AskSymbols {
                digest,
                from,
                to,
                without: None,
            }),
        ) {
            Answer::Symbols(symbols) => assert!(symbols.symbols.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    for (limit, expected) in [(0, 1), (u32::MAX, 300)] {
        match answer(
            &theirs,
            Ask::Fingerprints(AskFingerprints { from: 0, limit }),
        ) {
            Answer::Fingerprints(page) => assert_eq!(page.fingerprints.len(), 8 * expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_responder_refuses_what_makes_no_sense() {
    let theirs = Replica::with(2, &records(0..300));
    let swap = |batch: Bytes, want: Vec<u8>| Ask::Swap(Swap { batch, want });
    refused(&theirs, swap(Bytes::new(), vec![0; 9]), "8 each");
    refused(
        &theirs,
        swap(Bytes::new(), vec![0; 8 * 4_097]),
        "more than 4096",
    );
    refused(&theirs, swap(vec![0xff].into(), vec![]), "cut off");
    let table = "files".parse().unwrap();
    let foreign = batch_to_bytes(&Batch::new(&table, [record("a", 1, 1)]));
    refused(
        &theirs,
        swap(foreign.clone(), vec![]),
        "not of the table peers",
    );
    let push = Push {
        replicas: None,
        batch: foreign,
        after: 0,
        up_to: 9,
        origin: 0,
    };
    refused(&theirs, Ask::Push(push), "not of the table peers");
    let many = batch_to_bytes(&Batch::new(&peers(), records(0..4_097)));
    refused(&theirs, swap(many, vec![]), "more than 4096");
    // It is the peer that is wrong, and not the manager that fails.
    for (batch, part) in batches_with_what_is_no_record() {
        refused(&theirs, swap(batch.clone(), vec![]), part);
        let push = Push {
            batch,
            ..Push::default()
        };
        refused(&theirs, Ask::Push(push), part);
    }
    let replicas = Replicas {
        origin: vec![1; 15],
        ..Replicas::default()
    };
    refused(&theirs, Ask::Replicas(replicas.clone()), "not 16 bytes");
    let push = Push {
        replicas: Some(replicas),
        ..Push::default()
    };
    refused(&theirs, Ask::Push(push), "not 16 bytes");
    let open = Open {
        without: Some(WireHorizon::default()),
        ..Open::default()
    };
    refused(&theirs, Ask::Open(open), "not 16 bytes");
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let theirs = Replica::new(2);
        let responded = now_or_never(respond(&theirs, &bytes, PROTOCOLS));
        let response = Response::from_bytes(&responded.response).unwrap();
        prop_assert!(matches!(response.answer, Some(Answer::Refused(_))));
        prop_assert!(responded.report.refused.is_some());
    }
}
