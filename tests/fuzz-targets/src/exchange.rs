//! Both sides of an exchange, each against whoever may be at the other end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use peer_exchange::exchange::{Options, exchange};
use peer_exchange::handshake::{HandshakeRefused, Identity, PROTOCOLS};
use peer_exchange::message::{
    Answer, Ask, AskFingerprints, AskSymbols, Hello, Open, Push, Request, Response, Swap,
};
use peer_exchange::push::{PassOn, Position, plan};
use peer_exchange::respond::{Responded, respond};
use peer_exchange::{Own, Remote};
use peer_table::contract::{
    Batch, FingerprintPage, MESSAGE_BYTES_MAX, StateRequest, WireDigest, WireHorizon, WireRecord,
    fingerprints_to_bytes,
};
use peer_table::floors::{Replicas, WireIds, WirePublication, WireVector};
use peer_table::{Entry, Fingerprint, Key, peers};
use prost::Message;

use crate::choices::Choices;
use crate::manager::{DRIFT_MAX, Manager, RECORDS_MAX, run};

/// What an answer may have beyond what was asked: two hellos' worth, a refusal, lengths.
const ANSWER_BYTES_SPARE: usize = 64 << 10;
/// Messages of one conversation at the most.
const MESSAGES_MAX: usize = 6;

/// Requests of any kind to one pod, one after the other.
pub(crate) fn responder(bytes: &[u8]) {
    run(async {
        let mut choices = Choices::new(bytes);
        let [own, peer] = [Manager::new(1).await, Manager::new(2).await];
        own.fill(0..8).await;
        peer.fill(4..12).await;
        for _ in 0..MESSAGES_MAX {
            let request = request(&mut choices, &own, &peer).await;
            let before = own.entries();
            let responded = respond(&own, &request, PROTOCOLS).await;
            if own.has_started_over() {
                return;
            }
            check(&before, &own.entries(), &request, &responded);
            pass_on(&mut choices, responded.report.pass_on);
            if choices.is_over() {
                return;
            }
        }
    });
}

/// Whatever a partner says: nothing that is held is lost, and nothing is taken that should not be.
fn keeps_the_rules(before: &BTreeMap<Key, Entry>, after: &BTreeMap<Key, Entry>) {
    for (key, held) in before {
        let now = after.get(key).expect("what is held stays");
        assert!(now.rank() >= held.rank(), "{key} went back");
        assert!(
            now.contact >= held.contact,
            "the contact of {key} went back"
        );
    }
    assert!(after.len() <= RECORDS_MAX);
    // A second more than a pod's clock, for the time that this takes.
    let latest = udht_manager::owner::wall_now()
        .plus(DRIFT_MAX)
        .plus(DRIFT_MAX / 10);
    for (key, entry) in after {
        assert!(
            entry.version.reading.wall() <= latest,
            "{key} is of the future"
        );
        assert!(entry.contact.time().is_none_or(|time| time <= latest));
        if let Some(content) = entry.content() {
            assert_eq!(peers::check_content(key, content.as_bytes()), Ok(()));
        }
    }
}

fn check(
    before: &BTreeMap<Key, Entry>,
    after: &BTreeMap<Key, Entry>,
    request: &[u8],
    responded: &Responded,
) {
    keeps_the_rules(before, after);
    let Responded { response, report } = responded;
    let held: usize = after
        .values()
        .map(|entry| entry.to_stored().len() + 256)
        .sum();
    assert!(response.len() <= ANSWER_BYTES_SPARE.max(13 * 32_768) + request.len() + held);
    assert!(response.len() <= MESSAGE_BYTES_MAX + ANSWER_BYTES_SPARE);
    let said = Response::from_bytes(response).expect("a response is one");
    let is_refused = matches!(said.answer, Some(Answer::Refused(_)));
    assert_eq!(is_refused, report.refused.is_some());
    if let Some(refusal) = &report.refused {
        assert!(!refusal.detail.is_empty(), "a refusal without a word");
        // The manager is there, and what a peer says wrongly is not its failure.
        let others = [HandshakeRefused::Unavailable, HandshakeRefused::Other];
        assert!(!others.contains(&refusal.reason), "{refusal}");
        assert_eq!(before, after, "what is refused changes nothing");
    }
    let given = Request::from_bytes(request)
        .ok()
        .and_then(|request| request.ask);
    match (given, &said.answer) {
        (Some(Ask::Swap(Swap { batch, want })), Some(Answer::Swapped(swapped))) => {
            assert_eq!(swapped.outcomes.len(), records(&batch));
            assert!(
                records(&swapped.batch) * 8 <= want.len(),
                "more than was wanted"
            );
            assert_eq!(report.received, swapped.outcomes.len() as u64);
        }
        (Some(Ask::Push(Push { batch, .. })), Some(Answer::Pushed(pushed))) => {
            assert_eq!(pushed.outcomes.len(), records(&batch));
        }
        (_, Some(Answer::Opened(_) | Answer::Symbols(_) | Answer::Fingerprints(_))) => {
            assert_eq!(before, after, "a question changes nothing");
        }
        (Some(Ask::Replicas(_)), Some(Answer::Replicas(told))) => {
            assert_eq!(told.check(), Ok(()));
            assert_eq!(before, after, "what is told of replicas changes no record");
        }
        (_, Some(Answer::Refused(_))) => {}
        other => panic!("no answer to that: {other:?}"),
    }
}

fn records(batch: &[u8]) -> usize {
    Batch::decode(batch).map_or(0, |batch| batch.records.len())
}

/// Passes on what was pushed, among any peers: to each once at the most, within the scope.
fn pass_on(choices: &mut Choices<'_>, pass_on: Option<PassOn>) {
    let Some(PassOn {
        batch,
        replicas,
        scope,
        ..
    }) = pass_on
    else {
        return;
    };
    assert!(!batch.records.is_empty() || replicas.is_some());
    let positions: Vec<_> = (0..choices.up_to(12))
        .map(|_| Position(choices.number()))
        .collect();
    let fanout = choices.up_to(5);
    let groups = plan(
        positions.iter().map(|position| (*position, *position)),
        scope,
        fanout,
    );
    // Twice, where it passes on in place of who began.
    assert!(groups.len() <= 2 * fanout.max(1));
    let heads: usize = groups.iter().map(peer_exchange::push::Group::len).sum();
    assert!(heads <= positions.len());
    for group in &groups {
        for (_, part) in group.heads() {
            assert!(
                part.places() <= scope.places(),
                "a part larger than the whole"
            );
        }
    }
}

/// A request that is as it should be, or in most cases almost.
async fn request(choices: &mut Choices<'_>, own: &Manager, peer: &Manager) -> Vec<u8> {
    if choices.once_in(8) {
        return choices.bytes(600);
    }
    let (ours, theirs) = (state(own).await, state(peer).await);
    let identity = Identity::from_state(&theirs).expect("a manager knows who it is");
    let mut hello = identity.hello(1, PROTOCOLS, peer.now());
    if choices.once_in(6) {
        spoil_hello(choices, &mut hello);
    }
    let table = if choices.once_in(12) {
        choices.text(40)
    } else {
        "peers".to_owned()
    };
    let digest = ours.tables[0].digest;
    let digest = if choices.once_in(2) {
        digest
    } else {
        WireDigest {
            records: choices.number(),
            sum: choices.number(),
            ..digest
        }
    };
    let ask = match choices.up_to(6) {
        0 => Some(Ask::Open(Open {
            digest,
            symbols: count(choices),
            without: without(choices),
        })),
        1 => Some(Ask::Symbols(AskSymbols {
            digest,
            from: count(choices),
            to: count(choices),
            without: without(choices),
        })),
        2 => Some(Ask::Fingerprints(AskFingerprints {
            from: choices.number(),
            limit: count(choices),
        })),
        3 => Some(Ask::Swap(Swap {
            batch: batch(choices, own, peer),
            want: want(choices, own).await,
        })),
        4 => Some(Ask::Push(Push {
            batch: batch(choices, own, peer),
            after: choices.number(),
            up_to: choices.number(),
            origin: choices.number(),
            replicas: choices.once_in(3).then(|| replicas(choices)),
        })),
        5 => Some(Ask::Replicas(replicas(choices))),
        _ => None,
    };
    let request = Request { hello, table, ask };
    let mut bytes = request.to_bytes();
    if choices.once_in(6) {
        choices.spoil(&mut bytes);
    }
    bytes
}

async fn state(manager: &Manager) -> peer_table::contract::State {
    let request = StateRequest::default();
    let state = manager.state(&request).await;
    state.expect("a manager in memory answers")
}

fn spoil_hello(choices: &mut Choices<'_>, hello: &mut Hello) {
    let number = choices.number();
    let [small, ..] = number.to_le_bytes();
    match choices.up_to(11) {
        0 => hello.protocol = small.into(),
        1 => hello.protocol_min = small.into(),
        2 => hello.protocol_max = small.into(),
        3 => hello.cluster = choices.bytes(20),
        4 => hello.key_check = number,
        // Ours, a part of one, or another.
        5 => hello.store = vec![1; choices.up_to(17)],
        6 => hello.origin = choices.bytes(17),
        7 => hello.wall_ms = number,
        8 => hello.replicas_digest = number,
        9 => hello.has_met = !hello.has_met,
        10 => hello.peer_uuid = choices.bytes(17),
        _ => hello.peer_id = choices.text(200),
    }
}

/// How many of something: few, none, or more than there can be.
fn count(choices: &mut Choices<'_>) -> u32 {
    match choices.up_to(3) {
        0 => 0,
        1 => u32::MAX,
        _ => u32::try_from(choices.up_to(300)).unwrap_or(u32::MAX),
    }
}

/// An id: of one of the two pods, of nobody, or none.
fn id(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.up_to(4) {
        0 => vec![101; 16],
        1 => vec![102; 16],
        2 => vec![3; 16],
        3 => vec![choices.number().to_le_bytes()[0]; 16],
        _ => choices.bytes(17),
    }
}

/// Numbers for each of as many ids, or for one more.
fn column<T>(choices: &mut Choices<'_>, len: usize, cell: impl Fn(u64) -> T) -> Vec<T> {
    let len = len + usize::from(choices.once_in(10));
    (0..len).map(|_| cell(choices.number())).collect()
}

fn without(choices: &mut Choices<'_>) -> Option<WireHorizon> {
    choices.once_in(3).then(|| {
        let ids = choices.up_to(3);
        WireHorizon {
            origin: id(choices),
            vector: WireVector {
                ids: (0..ids).flat_map(|_| id(choices)).collect(),
                covered: column(choices, ids, |number| number),
                seen: column(choices, ids, |number| number),
            },
            reading: choices.number(),
        }
    })
}

/// What a peer may tell of all replicas; of this one too, also that it was given up.
fn replicas(choices: &mut Choices<'_>) -> Replicas {
    let ids = choices.up_to(3);
    let now = udht_manager::owner::wall_now().as_millis();
    let publication = |choices: &mut Choices<'_>| WirePublication {
        store: id(choices),
        origin: id(choices),
        at: choices.number(),
        floor: choices.number(),
        set_digest: choices.number(),
        since: choices.number(),
        storage: u32::try_from(choices.up_to(3)).unwrap_or(0),
        peer_id: choices.text(20),
    };
    Replicas {
        ids: (!choices.once_in(4)).then(|| WireIds {
            ids: (0..ids).flat_map(|_| id(choices)).collect(),
            fences: column(choices, ids, |number| number.to_le_bytes()[0] % 6),
            times: column(
                choices,
                ids,
                |number| {
                    if number % 2 == 0 { now } else { number }
                },
            ),
        }),
        publications: (0..choices.up_to(3))
            .map(|_| publication(choices))
            .collect(),
        origin: id(choices),
    }
}

async fn want(choices: &mut Choices<'_>, own: &Manager) -> Vec<u8> {
    let page = own
        .fingerprints(&peers::table_name(), Fingerprint(0), 64)
        .await;
    let mut want = page.expect("a manager in memory answers").fingerprints;
    match choices.up_to(3) {
        0 => want.clear(),
        1 => want.truncate(8 * choices.up_to(8)),
        2 => choices.spoil(&mut want),
        _ => want.extend(fingerprints_to_bytes([Fingerprint(choices.number())])),
    }
    want
}

/// Records that both know, that one knows, and that cannot be.
fn batch(choices: &mut Choices<'_>, own: &Manager, peer: &Manager) -> Bytes {
    let table = peers::table_name();
    let known = peer.entries().into_iter().chain(own.entries());
    let mut batch = Batch::new(&table, known.skip(choices.up_to(16)).take(choices.up_to(6)));
    for _ in 0..choices.up_to(3) {
        let origin = match choices.up_to(3) {
            0 => choices.bytes(17),
            number => vec![u8::try_from(number + 100).unwrap_or(0); 16],
        };
        batch.origins.push(origin);
    }
    for _ in 0..choices.up_to(4) {
        let content = batch
            .records
            .first()
            .and_then(|record| record.content.clone());
        let record = WireRecord {
            key: if choices.once_in(4) {
                choices.text(140).into()
            } else {
                format!("p{}", choices.up_to(40)).into()
            },
            reading: match choices.up_to(2) {
                0 => choices.number(),
                1 => own.now().as_millis() << 16,
                _ => (own.now().as_millis() + 60_000) << 16,
            },
            origin: u32::try_from(choices.up_to(5)).unwrap_or(0),
            contact: match choices.up_to(2) {
                0 => 0,
                1 => u32::MAX,
                _ => u32::try_from(choices.number() >> 32).unwrap_or(0),
            },
            content: match choices.up_to(3) {
                0 => None,
                1 => Some(choices.bytes(100).into()),
                2 => content.map(|content| {
                    let mut content = Vec::from(content);
                    choices.spoil(&mut content);
                    content.into()
                }),
                _ => content,
            },
        };
        batch.records.push(record);
    }
    for record in &mut batch.records {
        if choices.once_in(16) {
            record.origin = 99;
        }
    }
    let mut bytes = batch.encode_to_vec();
    if choices.once_in(8) {
        choices.spoil(&mut bytes);
    }
    bytes.into()
}

/// An exchange with whoever answers as the bytes say.
pub(crate) fn initiator(bytes: &[u8]) {
    run(async {
        let [own, peer] = [Manager::new(1).await, Manager::new(2).await];
        own.fill(0..8).await;
        peer.fill(4..12).await;
        let before = own.entries();
        let remote = Stranger {
            peer: &peer,
            choices: Mutex::new(Choices::new(bytes)),
        };
        let options = Options {
            symbols_first: 16,
            symbols_max: 256,
            page: 5,
            round_trips_max: 20,
            ..Options::default()
        };
        let table = peers::table_name();
        let ended = exchange(&own, &remote, &table, &options).await;
        if own.has_started_over() {
            return;
        }
        keeps_the_rules(&before, &own.entries());
        match ended {
            Ok(report) => {
                assert!(report.traffic().round_trips <= options.round_trips_max);
                if bytes.is_empty() {
                    assert!(report.is_equal(), "{report:?}");
                    assert_eq!(own.entries(), peer.entries());
                }
            }
            Err(error) => {
                assert!(!bytes.is_empty(), "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
    });
}

/// A pod that answers as it should while no byte says otherwise.
struct Stranger<'a> {
    peer: &'a Manager,
    choices: Mutex<Choices<'a>>,
}

impl Remote for Stranger<'_> {
    type Error = Infallible;

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, Infallible> {
        let honest = respond(self.peer, &request, PROTOCOLS).await.response;
        let mut choices = self.choices.lock().expect("nothing panics under it");
        Ok(match choices.up_to(9) {
            1 => choices.bytes(400),
            2 => {
                let mut bytes = honest;
                choices.spoil(&mut bytes);
                bytes
            }
            3..=7 => {
                let mut said = Response::from_bytes(&honest).expect("a response is one");
                spoil_response(&mut choices, &mut said);
                said.to_bytes()
            }
            _ => honest,
        })
    }
}

fn spoil_response(choices: &mut Choices<'_>, said: &mut Response) {
    if choices.once_in(6)
        && let Some(hello) = &mut said.hello
    {
        spoil_hello(choices, hello);
    }
    if choices.once_in(20) {
        said.table = choices.text(20);
    }
    let number = choices.number();
    let [small, other, ..] = number.to_le_bytes();
    match &mut said.answer {
        Some(Answer::Opened(opened)) => match choices.up_to(4) {
            0 => opened.digest.records = number,
            1 => opened.digest.sum ^= number,
            2 => choices.spoil(&mut opened.symbols),
            3 => opened.symbols.extend([small; 13]),
            _ => {
                opened.listing = Some(FingerprintPage {
                    fingerprints: choices.bytes(100),
                    complete: choices.once_in(2),
                    digest: None,
                });
            }
        },
        Some(Answer::Symbols(symbols)) => match choices.up_to(3) {
            0 => symbols.digest.sum ^= number,
            1 => symbols.from = small.into(),
            2 => choices.spoil(&mut symbols.symbols),
            _ => symbols.symbols.clear(),
        },
        Some(Answer::Fingerprints(page)) => match choices.up_to(2) {
            0 => page.complete = !page.complete,
            1 => choices.spoil(&mut page.fingerprints),
            _ => page.fingerprints.extend(number.to_le_bytes()),
        },
        Some(Answer::Swapped(swapped)) => match choices.up_to(6) {
            6 => swapped.answers.clone_from(&swapped.batch),
            0 => swapped.dealt_with = small.into(),
            1 => swapped.outcomes.push(small),
            2 => swapped.outcomes.fill(other),
            3 => {
                let mut batch = Vec::from(std::mem::take(&mut swapped.batch));
                choices.spoil(&mut batch);
                swapped.batch = batch.into();
            }
            4 => swapped.digest.sum ^= number,
            _ => swapped.batch.clear(),
        },
        Some(Answer::Replicas(told)) => *told = replicas(choices),
        Some(Answer::Refused(refused)) => {
            refused.reason = small.into();
            refused.detail = choices.text(100);
        }
        _ => said.answer = None,
    }
}
