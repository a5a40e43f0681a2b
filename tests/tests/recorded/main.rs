//! What each released version said and stored, as it was recorded then: this build reads all of it.
//!
//! See `tests/recorded/README.md` for what is there and how a release adds to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod case;
mod messages;
mod store;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use peer_exchange::Refusal;
use peer_exchange::handshake::{HandshakeRefused, cluster_check};
use peer_exchange::message::Refused;
use peer_exchange::push::Position;
use peer_table::contract::{merged_from_code, merged_word};
use peer_table::peers::Peer;
use peer_table::{Entry, FingerprintKey, Opening, OriginId, StoreId, opening::Draw};

use case::Case;

/// The folder of what is recorded of a release.
fn folder(release: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recorded")
        .join(release)
}

/// Each release of which something is recorded.
fn releases() -> Vec<String> {
    let folders = std::fs::read_dir(folder("")).unwrap().map(Result::unwrap);
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn recorded(release: &str, file: &str) -> Vec<u8> {
    let path = folder(release).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The opening of a store, of which nothing matters here but its origin.
fn opening() -> Opening {
    Opening::first(Draw {
        store: StoreId::from_bytes([0xb1; 16]),
        origin: OriginId::from_bytes([0xa1; 16]),
        peer_id: "files-0".parse().unwrap(),
        cluster: None,
        binding: None,
    })
}

fn file_of(case: &Case) -> String {
    format!("{}.bin", case.name)
}

#[test]
fn each_message_of_each_release_reads_as_what_it_was() {
    for release in releases() {
        for case in messages::all() {
            let bytes = recorded(&release, &file_of(&case));
            let read = case.read(&bytes);
            assert_eq!(read, Ok(()), "{} of {release}", case.name);
        }
    }
}

/// What a release understood is what this one says, as long as there is nothing new in it.
#[test]
fn this_build_writes_the_same_bytes_as_each_release() {
    for release in releases() {
        for case in messages::all() {
            let bytes = recorded(&release, &file_of(&case));
            assert!(
                case.written == bytes,
                "{} differs from {release}",
                case.name
            );
        }
    }
}

#[test]
fn a_field_of_a_later_release_is_skipped_in_every_message() {
    let mut messages = 0;
    for case in messages::all() {
        if let Some(later) = case.as_later_reads(&case.written) {
            assert_eq!(case.read(&later), Ok(()), "{}", case.name);
            messages += 1;
        }
    }
    assert!(messages > 20, "{messages}");
}

/// What is left over would be a record that nobody reads.
#[test]
fn nothing_is_recorded_that_is_not_read() {
    let cases = messages::all();
    let mut read: BTreeSet<_> = cases.iter().map(file_of).collect();
    assert_eq!(read.len(), cases.len(), "two of one name");
    read.extend(store::FILES.map(str::to_owned));
    for release in releases() {
        let there = std::fs::read_dir(folder(&release)).unwrap();
        let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(there.collect::<BTreeSet<_>>(), read, "{release}");
    }
}

#[test]
fn the_stored_record_of_each_release_says_what_it_said() {
    for release in releases() {
        let entry = Entry::from_stored(&recorded(&release, "stored-live.bin")).unwrap();
        let peer = Peer::from_entry(&"files-0".parse().unwrap(), &entry).unwrap();
        assert_eq!(
            serde_json::to_string(&peer).unwrap(),
            messages::LIVE,
            "{release}"
        );
    }
}

/// Numbers on the wire, and the words that people and metrics know them by.
#[test]
fn every_number_means_what_it_meant_in_the_first_release() {
    let outcomes = [
        (1, "applied"),
        (2, "contact"),
        (3, "equal"),
        (4, "stale"),
        (5, "ghost"),
        (6, "collected"),
        (7, "fenced"),
        (8, "deferred"),
        (16, "refused_version_ahead"),
        (17, "refused_contact_ahead"),
        (18, "refused_content"),
        (19, "refused_too_large"),
        (20, "refused_full"),
        (21, "refused_unreadable"),
        (22, "refused_origins"),
    ];
    for (code, word) in outcomes {
        assert_eq!(merged_from_code(code).map(merged_word), Some(word));
    }
    let refusals = [
        (0, HandshakeRefused::Other),
        (1, HandshakeRefused::Protocol),
        (2, HandshakeRefused::Cluster),
        (3, HandshakeRefused::Key),
        (4, HandshakeRefused::Myself),
        (5, HandshakeRefused::Copied),
        (6, HandshakeRefused::Malformed),
        (7, HandshakeRefused::Table),
        (8, HandshakeRefused::Ask),
        (9, HandshakeRefused::Busy),
        (10, HandshakeRefused::Unavailable),
    ];
    for (number, reason) in refusals {
        let refused = Refused {
            reason: number,
            ..Refused::default()
        };
        assert_eq!(Refusal::from_wire(&refused).reason, reason);
    }
}

/// Hashes that two builds must agree on.
#[test]
fn every_hash_is_what_it_was_in_the_first_release() {
    let cluster = "default/udht".parse().unwrap();
    assert_eq!(
        FingerprintKey::of_cluster(&cluster).check(),
        7_375_301_562_705_362_079
    );
    let check = u128::from_le_bytes(cluster_check(&cluster));
    assert_eq!(check, 148_765_641_569_753_797_764_302_745_554_455_089_950);
    assert_eq!(Position::of("10.0.0.7:3003").0, RING_PLACE);
}

const RING_PLACE: u64 = 5_530_646_955_062_522_510;

/// Records what this build says: once, as it becomes a release.
#[test]
#[ignore = "writes into the sources"]
fn record_this_release() {
    let release = env!("CARGO_PKG_VERSION");
    std::fs::create_dir_all(folder(release)).unwrap();
    for case in messages::all() {
        std::fs::write(folder(release).join(file_of(&case)), &case.written).unwrap();
    }
    store::record(&folder(release));
}
