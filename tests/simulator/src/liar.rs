//! A pod that holds a valid certificate and lies.
//!
//! Whoever belongs to a cluster can rewrite its table, so no lie here is a record that the others
//! would have to take, and a record that is buried by its lies is none that was lost: it changes
//! versions into those of the future, contents into none, and all else that is said into whatever the
//! seed says.

use bytes::Bytes;
use peer_exchange::message::{
    Answer, Ask, AskFingerprints, AskSymbols, Push, Request, Response, Swap, batch_from_bytes,
    batch_to_bytes,
};
use peer_table::contract::{FINGERPRINTS_MAX, FingerprintPage, WireDigest};
use peer_table::peers;
use peer_table::sketch::WIRE_LEN;

use crate::random::Random;

/// What a liar asks in place of what it would.
pub(crate) fn request(request: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let Ok(mut lie) = Request::from_bytes(&request) else {
        return request;
    };
    match random.below(12) {
        0 => return garbage(random),
        1 => lie.hello.cluster = garbage(random),
        2 => lie.hello.wall_ms = random.next(),
        3 => lie.hello.store = garbage(random),
        4 => {
            lie.ask = Some(Ask::Symbols(AskSymbols {
                without: None,
                digest: digest(random),
                from: small(random),
                to: u32::MAX,
            }));
        }
        5 => {
            lie.ask = Some(Ask::Fingerprints(AskFingerprints {
                from: random.next(),
                limit: u32::MAX,
            }));
        }
        6 => {
            lie.ask = Some(Ask::Swap(Swap {
                batch: Bytes::new(),
                want: many(random, 8),
            }));
        }
        7 => lie.hello.protocol = small(random),
        _ => match &mut lie.ask {
            Some(Ask::Swap(swap)) => swap.batch = spoilt(&swap.batch, random),
            Some(Ask::Push(push)) => {
                *push = Push {
                    replicas: None,
                    batch: spoilt(&push.batch, random),
                    after: random.next(),
                    up_to: random.next(),
                    origin: random.next(),
                };
            }
            Some(Ask::Open(open)) => open.digest = digest(random),
            _ => {}
        },
    }
    lie.to_bytes()
}

/// What a liar answers in place of what it would.
pub(crate) fn response(request: &[u8], response: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let Ok(mut lie) = Response::from_bytes(&response) else {
        return response;
    };
    match random.below(12) {
        0 => return garbage(random),
        1 => lie.hello = None,
        2 => {
            if let Some(hello) = &mut lie.hello {
                hello.store = random.id().to_vec();
            }
        }
        3 => lie.answer = None,
        _ => {}
    }
    match &mut lie.answer {
        Some(Answer::Opened(opened)) => match random.below(5) {
            0 => {
                // As if there were nothing to do.
                if let Ok(Request {
                    ask: Some(Ask::Open(open)),
                    ..
                }) = Request::from_bytes(request)
                {
                    opened.digest = open.digest;
                }
            }
            1 => opened.digest = digest(random),
            2 => opened.symbols = many(random, WIRE_LEN),
            3 => opened.listing = Some(listing(random)),
            _ => {}
        },
        Some(Answer::Symbols(symbols)) => match random.below(4) {
            0 => symbols.digest = digest(random),
            1 => symbols.from = small(random),
            _ => {
                // As many as were asked for, and never the right ones.
                for byte in &mut symbols.symbols {
                    *byte ^= random.next().to_le_bytes()[0];
                }
            }
        },
        Some(Answer::Fingerprints(page)) => *page = listing(random),
        Some(Answer::Swapped(swapped)) => match random.below(4) {
            0 => swapped.dealt_with = small(random),
            1 => (swapped.outcomes, swapped.runs) = lies(&swapped.runs, random),
            2 => swapped.digest = digest(random),
            _ => swapped.batch = spoilt(&swapped.batch, random),
        },
        Some(Answer::Pushed(pushed)) => {
            (pushed.outcomes, pushed.runs) = lies(&pushed.runs, random);
        }
        _ => {}
    }
    lie.to_bytes()
}

/// Outcomes that never were, in the form that is spoken.
fn lies(runs: &[u8], random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let lies = garbage(random);
    if runs.is_empty() {
        (lies, Vec::new())
    } else {
        (Vec::new(), lies)
    }
}

/// The records of a batch, none of which is to be taken any more.
fn spoilt(batch: &Bytes, random: &mut Random) -> Bytes {
    let Ok(Some(mut batch)) = batch_from_bytes(batch, &peers::table_name()) else {
        return batch.clone();
    };
    match random.below(4) {
        0 => batch.records.clear(),
        1 => {
            for record in &mut batch.records {
                record.reading = record.reading.saturating_add(1 << 50);
            }
        }
        2 => {
            for record in &mut batch.records {
                record.content = Some(vec![0xff; 3].into());
            }
        }
        _ => {
            for record in &mut batch.records {
                record.contact = u32::MAX;
            }
        }
    }
    batch_to_bytes(&batch)
}

fn garbage(random: &mut Random) -> Vec<u8> {
    let len = random.index(64);
    (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
}

fn small(random: &mut Random) -> u32 {
    u32::try_from(random.below(200)).unwrap_or(0)
}

fn digest(random: &mut Random) -> WireDigest {
    WireDigest {
        records: random.pick(&[0, 1, 7, u64::MAX]),
        sum: random.next(),
        check: small(random),
    }
}

/// Many things of so many bytes each.
fn many(random: &mut Random, bytes: usize) -> Vec<u8> {
    let things = random.pick(&[0, 1, 20, 5_000, FINGERPRINTS_MAX + 1]);
    let seed = random.next().to_le_bytes();
    seed.iter().copied().cycle().take(things * bytes).collect()
}

fn listing(random: &mut Random) -> FingerprintPage {
    let mut fingerprints: Vec<u64> = (0..random.below(8)).map(|_| random.next()).collect();
    if random.chance(500) {
        fingerprints.sort_unstable();
    }
    FingerprintPage {
        fingerprints: fingerprints
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect(),
        complete: random.chance(500),
        digest: None,
    }
}
