//! One of each message, with a value in each of its fields.

use peer_exchange::Refusal;
use peer_exchange::handshake::HandshakeRefused;
use peer_exchange::message::{
    Answer, Ask, AskFingerprints, AskSymbols, Hello, Open, Opened, Push, Pushed, Refused, Request,
    Response, Swap, Swapped, Symbols,
};
use peer_table::contract::{
    Advance, Advanced, Batch, Bind, FeedPart, FingerprintPage, Leave, LeaveAnswer, MergeAnswer,
    Records, RecordsRequest, State, StateRequest, TableState, Tend, TendAnswer, WireDigest,
    WireHorizon, fingerprints_to_bytes,
};
use peer_table::floors::{Replicas, WireIds, WirePublication, WireSnapshot, WireVector};
use peer_table::peers::{self, Body as PeerBody};
use peer_table::sketch::{Sketch, encode};
use peer_table::{
    Body, ClusterId, Contact, Entry, Fingerprint, FingerprintKey, Key, OriginId, Reading, Version,
    WallTime,
};
use prost::Message;
use prost::bytes::Bytes;

use super::case::Case;

/// Half past seven in the morning of 15 January 2027, in milliseconds since 1970.
const WALL_MS: u64 = 1_799_998_200_000;

/// All that is said between pods and within one, and all that is stored.
pub(crate) fn all() -> Vec<Case> {
    let requests = [
        ("open", Ask::Open(open())),
        ("symbols", Ask::Symbols(ask_symbols())),
        (
            "fingerprints",
            Ask::Fingerprints(AskFingerprints {
                from: 7 << 60,
                limit: 16_384,
            }),
        ),
        ("swap", Ask::Swap(swap())),
        ("push", Ask::Push(push())),
        ("replicas", Ask::Replicas(replicas())),
    ];
    let refused = Refusal::new(
        HandshakeRefused::Cluster,
        "this is the cluster default/other",
    );
    let responses = [
        (
            "refused",
            Answer::Refused(Refused {
                ..refused.to_wire()
            }),
        ),
        ("opened", Answer::Opened(opened())),
        (
            "symbols",
            Answer::Symbols(Symbols {
                digest: digest(),
                from: 115,
                symbols: symbols(5),
            }),
        ),
        ("fingerprints", Answer::Fingerprints(page())),
        ("swapped", Answer::Swapped(swapped())),
        (
            "pushed",
            Answer::Pushed(Pushed {
                outcomes: outcomes(),
                answers: bytes(&answers()),
                ..Pushed::default()
            }),
        ),
        ("replicas", Answer::Replicas(replicas())),
    ];
    let requests = requests.map(|(name, ask)| {
        let table = "peers".to_owned();
        Case::request(
            name,
            Request {
                hello: hello(),
                table,
                ask: Some(ask),
            },
        )
    });
    let responses = responses.map(|(name, answer)| {
        let table = "peers".to_owned();
        Case::response(
            name,
            Response {
                hello: Some(named_hello()),
                table,
                answer: Some(answer),
            },
        )
    });
    requests
        .into_iter()
        .chain(responses)
        .chain(within_a_pod())
        .chain(stored())
        .collect()
}

/// What manager and sync of one pod say to each other.
fn within_a_pod() -> Vec<Case> {
    vec![
        Case::message(
            "pod-state-request",
            &StateRequest {
                symbols: 115,
                give_snapshot: true,
                begin_session: true,
                without: Some(horizon()),
            },
        ),
        Case::message("pod-state", &state()),
        Case::message("pod-batch", &batch()),
        Case::message(
            "pod-merge-answer",
            &MergeAnswer {
                outcomes: outcomes(),
                answers: Some(answers()),
            },
        ),
        Case::message(
            "pod-records-request",
            &RecordsRequest {
                fingerprints: fingerprints(),
            },
        ),
        Case::message(
            "pod-records",
            &Records {
                batch: batch(),
                dealt_with: 5,
            },
        ),
        Case::message(
            "pod-feed-part",
            &FeedPart {
                revision: "19-7".to_owned(),
                batch: Some(batch()),
                trace: String::new(),
            },
        ),
        Case::message(
            "pod-advance",
            &Advance {
                session: 77,
                snapshot: snapshot(),
            },
        ),
        Case::message("pod-advanced", &Advanced { advanced: true }),
        Case::message(
            "pod-tend",
            &Tend {
                has_strangers: true,
                is_braked: true,
                may_begin: true,
                met: ids(),
                gone: vec!["files-7".to_owned(), "files-8".to_owned()],
                clock_off_ms: -12_345,
                joined: vec![0xa1; 16],
                clock_agrees: false,
            },
        ),
        Case::message(
            "pod-tend-answer",
            &TendAnswer {
                publication: Some(publication()),
            },
        ),
        Case::message(
            "pod-bind",
            &Bind {
                uuid: vec![0xd1; 16],
                fingerprint_key: vec![0xd2; 16],
                adopts: vec![vec![0xd3; 16], vec![0xd4; 16]],
            },
        ),
        Case::message("pod-leave", &Leave { for_good: true }),
        Case::message(
            "pod-leave-answer",
            &LeaveAnswer {
                record_deleted: true,
            },
        ),
    ]
}

/// What a store keeps, and what follows from records in every build alike.
fn stored() -> Vec<Case> {
    let mut sketch = Sketch::new(64);
    let prints = (1..=1_000).map(fingerprint).collect::<Vec<_>>();
    for print in &prints {
        sketch.insert(*print);
    }
    let mut coded = Vec::new();
    encode(sketch.symbols(0..64), &mut coded);
    vec![
        Case::entry("stored-live", &live()),
        Case::entry("stored-least", &least()),
        Case::entry("stored-tombstone", &tombstone()),
        Case::floors("stored-floors", floors()),
        Case::derived("fingerprints", fingerprints_to_bytes(prints)),
        Case::derived("coded-symbols", coded),
    ]
}

fn key(name: &str) -> Key {
    name.parse().unwrap()
}

fn version(reading: u64, origin: u8) -> Version {
    Version {
        reading: Reading::from_u64((WALL_MS << 16) + reading),
        origin: OriginId::from_bytes([origin; 16]),
    }
}

/// What a live record says, as JSON.
pub(crate) const LIVE: &str = r#"{"peer_id":"files-0","name":"files-0","ip":"10.0.0.7","ports":{"consensusPort":5004,"fileSync":5002,"metrics":9100,"networkLayer":5003,"userSync":5001},"labels":{"empty":"","zone":"a"},"createdAt":"2027-01-15T07:29:59.000Z","updatedAt":"2027-01-15T07:30:00.000Z","lastConnectionOn":"2027-01-15T07:25:00.000Z","version":"01a31840d8c00001-a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"}"#;

/// A record with all that a record can say.
fn live() -> Entry {
    let draft = PeerBody::from_json(LIVE.as_bytes()).unwrap().draft;
    Entry {
        version: version(1, 0xa1),
        contact: draft.contact,
        body: Body::Live(draft.content(WallTime::from_millis(WALL_MS - 1_000))),
    }
}

/// A record that says as little as one can.
fn least() -> Entry {
    let draft = PeerBody::from_json(br#"{"name":"n","ip":"fd00::8"}"#)
        .unwrap()
        .draft;
    Entry {
        version: version(2, 0xa2),
        contact: Contact::NEVER,
        body: Body::Live(draft.content(WallTime::from_millis(WALL_MS))),
    }
}

fn tombstone() -> Entry {
    Entry {
        version: version(3, 0xa1),
        contact: Contact::from_steps(6_000_000),
        body: Body::Tombstone,
    }
}

/// The fingerprint of the record of this number.
fn fingerprint(number: u64) -> Fingerprint {
    let cluster: ClusterId = "default/udht".parse().unwrap();
    let contact = Contact::from_steps(u32::try_from(number % 7).unwrap());
    let version = version(number, 0xa1);
    let key = key(&format!("peer-{number}"));
    let is_live = !number.is_multiple_of(5);
    FingerprintKey::of_cluster(&cluster).fingerprint(
        &peers::table_name(),
        &key,
        version,
        is_live,
        contact,
    )
}

fn batch() -> Batch {
    let records = [
        ("files-0", live()),
        ("files-1", least()),
        ("files-2", tombstone()),
    ];
    Batch::new(
        &peers::table_name(),
        records.map(|(name, entry)| (key(name), entry)),
    )
}

/// What beat a record that was sent.
fn answers() -> Batch {
    Batch::new(&peers::table_name(), [(key("files-9"), tombstone())])
}

fn bytes(batch: &Batch) -> Bytes {
    batch.encode_to_vec().into()
}

/// Each outcome that there was.
fn outcomes() -> Vec<u8> {
    (1..=8).chain(16..=22).collect()
}

fn fingerprints() -> Vec<u8> {
    fingerprints_to_bytes((1..=5).map(fingerprint))
}

fn symbols(count: usize) -> Vec<u8> {
    let mut sketch = Sketch::new(count);
    (1..=20).for_each(|number| sketch.insert(fingerprint(number)));
    let mut coded = Vec::new();
    encode(sketch.symbols(0..count), &mut coded);
    coded
}

fn digest() -> WireDigest {
    WireDigest {
        records: 300,
        sum: 0xfeed_beef_dead_cafe,
        check: 0x0102_0304,
    }
}

fn hello() -> Hello {
    Hello {
        protocol: 1,
        protocol_min: 1,
        protocol_max: 2,
        cluster: vec![0xc1; 16],
        key_check: 0x1122_3344_5566_7788,
        store: vec![0xb1; 16],
        origin: vec![0xa1; 16],
        wall_ms: WALL_MS,
        replicas_digest: 0x99aa_bbcc_ddee_ff00,
        peer_id: String::new(),
        peer_uuid: vec![0xe1; 16],
        has_met: true,
    }
}

/// Of a pod whose `peer_id` is no UUID.
fn named_hello() -> Hello {
    Hello {
        peer_id: "files-1".to_owned(),
        peer_uuid: Vec::new(),
        ..hello()
    }
}

/// Three ids.
fn ids() -> Vec<u8> {
    [[0xa1; 16], [0xa2; 16], [0xa3; 16]].concat()
}

fn vector() -> WireVector {
    WireVector {
        ids: ids(),
        covered: vec![WALL_MS << 16, 7, u64::MAX],
        seen: vec![0, 9, 0],
    }
}

fn horizon() -> WireHorizon {
    WireHorizon {
        origin: vec![0xa1; 16],
        vector: vector(),
        reading: (WALL_MS << 16) - 1,
    }
}

fn snapshot() -> WireSnapshot {
    WireSnapshot {
        origin: vec![0xa2; 16],
        reading: (WALL_MS << 16) + 9,
        vector: vector(),
    }
}

fn publication() -> WirePublication {
    WirePublication {
        store: vec![0xb1; 16],
        origin: vec![0xa1; 16],
        at: (WALL_MS << 16) + 3,
        floor: (WALL_MS << 16) - 5,
        set_digest: 0x0f0e_0d0c_0b0a_0908,
        since: (WALL_MS << 16) - 7,
        storage: 1,
        peer_id: "files-0".to_owned(),
    }
}

/// An id that may write, one that ended, and one that was given up.
fn wire_ids() -> WireIds {
    WireIds {
        ids: ids(),
        fences: vec![0, 1, 2],
        times: vec![WALL_MS, WALL_MS - 1, WALL_MS - 2],
    }
}

fn replicas() -> Replicas {
    Replicas {
        ids: Some(wire_ids()),
        publications: vec![publication()],
        origin: vec![0xa1; 16],
    }
}

fn floors() -> peer_table::floors::FloorsState {
    peer_table::floors::FloorsState {
        own: vec![0xa1; 16],
        ids: wire_ids(),
        vector: vector(),
        publications: vec![publication()],
        since: (WALL_MS << 16) - 7,
        since_digest: 0x0f0e_0d0c_0b0a_0908,
        has_met: true,
        horizon: (WALL_MS << 16) - 9,
        tended_ms: WALL_MS - 100,
        former: Vec::new(),
    }
}

fn open() -> Open {
    Open {
        digest: digest(),
        symbols: 115,
        without: Some(horizon()),
    }
}

fn ask_symbols() -> AskSymbols {
    AskSymbols {
        digest: digest(),
        from: 115,
        to: 900,
        without: Some(horizon()),
    }
}

fn swap() -> Swap {
    Swap {
        batch: bytes(&batch()),
        want: fingerprints(),
    }
}

fn push() -> Push {
    Push {
        batch: bytes(&batch()),
        after: 1 << 63,
        up_to: (1 << 63) - 1,
        origin: 0x1234_5678_9abc_def0,
        replicas: Some(Replicas {
            ids: None,
            publications: vec![publication()],
            origin: Vec::new(),
        }),
    }
}

fn opened() -> Opened {
    Opened {
        digest: digest(),
        symbols: symbols(10),
        listing: Some(page()),
        snapshot: Some(snapshot()),
        horizon: (WALL_MS << 16) - 11,
    }
}

fn page() -> FingerprintPage {
    FingerprintPage {
        fingerprints: fingerprints(),
        complete: true,
        digest: Some(digest()),
    }
}

fn swapped() -> Swapped {
    Swapped {
        batch: bytes(&batch()),
        dealt_with: 5,
        outcomes: outcomes(),
        digest: digest(),
        answers: bytes(&answers()),
        ..Swapped::default()
    }
}

fn state() -> State {
    State {
        cluster: "default/udht".to_owned(),
        key_check: 0x1122_3344_5566_7788,
        store: vec![0xb1; 16],
        origin: vec![0xa1; 16],
        replicas_digest: 0x99aa_bbcc_ddee_ff00,
        peer_id: "files-0".to_owned(),
        tables: vec![TableState {
            name: "peers".to_owned(),
            digest: digest(),
            symbols: symbols(10),
        }],
        authority: vec![0xd1; 16],
        has_met: true,
        has_tombstones: true,
        horizon: (WALL_MS << 16) - 11,
        snapshot: Some(snapshot()),
        session: Some(77),
        vector: Some(vector()),
    }
}
