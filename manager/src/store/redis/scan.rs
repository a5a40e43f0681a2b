//! The scan of a hash, a part at a time, and the next part while the last is being looked at.

use redis::Value;
use tokio::task::JoinHandle;

use super::super::Scanned;
use super::connection::{Connection, patience, pipeline};
use super::fault::{Fault, odd};

/// Records that a part has, about: few enough that the server stalls for nobody.
const PART_RECORDS: usize = 1_000;

/// Where a scan goes on: the server's cursor, and the connection by which that was given, as a
/// server that was started again counts otherwise.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    connection: u64,
    cursor: u64,
}

impl Place {
    /// The beginning.
    pub(super) const fn first(connection: &Connection) -> Self {
        Self {
            connection: connection.number,
            cursor: 0,
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.connection.to_le_bytes(), self.cursor.to_le_bytes()].concat()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (connection, cursor) = bytes.split_first_chunk()?;
        Some(Self {
            connection: u64::from_le_bytes(*connection),
            cursor: u64::from_le_bytes(cursor.try_into().ok()?),
        })
    }
}

/// A part of a scan, and where it goes on.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) scanned: Vec<Scanned>,
    pub(super) next: Option<Place>,
}

/// Reads the part at `place` of the hash `key`.
pub(super) async fn part(connection: Connection, key: String, place: Place) -> Result<Part, Fault> {
    if place.connection != connection.number {
        return Err(Fault::Refused(
            "was connected to anew within a scan: begin it again".to_owned(),
        ));
    }
    let mut commands = pipeline();
    commands.cmd("HSCAN").arg(&key).arg(place.cursor);
    commands.arg("COUNT").arg(PART_RECORDS);
    let reply = connection
        .ask(&commands, patience(PART_RECORDS))
        .await?
        .next()?;
    let Value::Array(reply) = reply else {
        return Err(odd("HSCAN"));
    };
    let Ok([Value::BulkString(cursor), Value::Array(fields)]) = <[Value; 2]>::try_from(reply)
    else {
        return Err(odd("HSCAN"));
    };
    let cursor = str::from_utf8(&cursor)
        .ok()
        .and_then(|cursor| cursor.parse().ok());
    let cursor: u64 = cursor.ok_or_else(|| odd("HSCAN"))?;
    let mut scanned = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        let (Value::BulkString(key), Value::BulkString(value)) = (key, value) else {
            return Err(odd("HSCAN"));
        };
        scanned.push(Scanned { key, value });
    }
    let next = (cursor != 0).then_some(Place { cursor, ..place });
    Ok(Part { scanned, next })
}

/// A part that is being read before it is asked for.
pub(super) struct Ahead {
    key: String,
    place: Place,
    reading: JoinHandle<Result<Part, Fault>>,
}

impl Ahead {
    pub(super) fn start(connection: Connection, key: String, place: Place) -> Self {
        Self {
            reading: tokio::spawn(part(connection, key.clone(), place)),
            key,
            place,
        }
    }

    /// Whether it is this part.
    pub(super) fn is_of(&self, key: &str, place: Place) -> bool {
        self.key == key && self.place == place
    }

    /// The part.
    pub(super) async fn part(mut self) -> Result<Part, Fault> {
        let read = (&mut self.reading).await;
        read.unwrap_or_else(|error| Err(Fault::Lost(format!("was not read on: {error}"))))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
