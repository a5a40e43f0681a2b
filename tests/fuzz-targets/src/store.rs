//! What a store says of itself when it is opened.

use peer_table::floors::FloorsState;
use peer_table::opening::{Draw, Opening, RETIRED_MAX};
use peer_table::{OriginId, StoreId};
use prost::Message;
use redb::backends::InMemoryBackend;
use redb::{Database, TableDefinition};
use udht_manager::store::{StoreError, embedded, redis};

use crate::choices::Choices;
use crate::message::is_named;

const STORE: StoreId = StoreId::from_bytes([7; 16]);

fn draw() -> Draw {
    Draw {
        store: STORE,
        origin: OriginId::from_bytes([9; 16]),
        peer_id: "pod".parse().expect("a key"),
        cluster: None,
        binding: None,
    }
}

/// A file of redb in which what is said of the store may be anything.
pub(crate) fn embedded_opening(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let database = Database::builder()
        .create_with_backend(InMemoryBackend::new())
        .expect("a database in memory");
    let first = embedded::next_opening(&database, draw()).expect("a first opening");
    assert_eq!(first, Opening::first(draw()));
    let state = format!("{STORE}:_state");
    for (table, field, good) in [
        ("meta", "format", &1_u32.to_le_bytes()[..]),
        ("meta", "store", STORE.as_bytes()),
        ("meta", "peer_id", b"pod"),
        (&state, "origin", &[1; 16]),
        (&state, "retired", &[2; 32]),
        (&state, "last_reading", &[3; 8]),
        (&state, "authority", &[4; 32]),
        (&state, "floors", b""),
    ] {
        let mut value = good.to_vec();
        match choices.up_to(7) {
            1 => value = choices.bytes(80),
            2 => choices.spoil(&mut value),
            3 => {
                set(&database, table, field, None);
                continue;
            }
            4 => value = vec![5; choices.up_to(RETIRED_MAX + 1) * 16],
            _ => {}
        }
        set(&database, table, field, Some(&value));
    }
    let opened = embedded::next_opening(
        &database,
        Draw {
            origin: OriginId::from_bytes([8; 16]),
            ..draw()
        },
    );
    follows(opened, OriginId::from_bytes([8; 16]));
}

fn set(database: &Database, table: &str, field: &str, value: Option<&[u8]>) {
    let transaction = database.begin_write().expect("a transaction in memory");
    {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
        let mut table = transaction.open_table(definition).expect("a table");
        let field = field.as_bytes();
        match value {
            Some(value) => drop(table.insert(field, value).expect("memory")),
            None => drop(table.remove(field).expect("memory")),
        }
    }
    transaction.commit().expect("a commit in memory");
}

fn follows(opened: Result<Opening, StoreError>, origin: OriginId) {
    match opened {
        Ok(opening) => {
            assert_eq!(opening.origin, origin);
            assert!(opening.retired.len() <= RETIRED_MAX);
            assert!(!opening.retired.contains(&origin), "an id comes again");
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() <= 1_024, "{said}");
        }
    }
}

/// What a store keeps of floors.
pub(crate) fn floors(bytes: &[u8]) {
    let Ok(state) = FloorsState::decode(bytes) else {
        return;
    };
    match state.read() {
        Ok(floors) => {
            let again = FloorsState::from(&floors);
            let read = again.read().expect("what is written is read");
            assert_eq!(FloorsState::from(&read), again);
            assert!(again.encoded_len() <= 2 * bytes.len() + 64);
        }
        Err(invalid) => is_named(&invalid),
    }
}

/// What a Redis server has under the keys of a store, as it answers.
pub(crate) fn redis_opening(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let id = STORE.to_string();
    let origin = "01010101-0101-0101-0101-010101010101";
    let authority = format!("{origin} 000102030405060708090a0b0c0d0e0f");
    let good = [
        "1",
        &id,
        "pod",
        origin,
        &id,
        "00000000000000ff",
        "17",
        &authority,
        "",
        "5 token process 3 on pod-0",
    ];
    let told = good.map(|good| {
        let mut value = good.as_bytes().to_vec();
        match choices.up_to(6) {
            1 => return None,
            2 => value = choices.bytes(80),
            3 => choices.spoil(&mut value),
            4 => value.extend(choices.bytes(40)),
            _ => {}
        }
        Some(value)
    });
    let last = redis::last_opening(told);
    match last {
        Ok(None) => {}
        Ok(Some(last)) => {
            let origin = OriginId::from_bytes([8; 16]);
            if let Some(next) = last.next(origin) {
                follows(Ok(next), origin);
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() <= 1_024, "{said}");
        }
    }
}
