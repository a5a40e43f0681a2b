//! What an embedded store keeps where in its file: the tables of redb, their keys and values.

use std::fmt::Display;
use std::ops::Bound::{Excluded, Unbounded};

use peer_table::{Binding, ClusterId, Key, OriginId, Reading, StoreId, TableName};
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableError, TableHandle, WriteTransaction,
};

use super::file::Fault;
use super::{Commit, Cursor, Draw, FORMAT, Opening, Scanned, Stored};

/// Records in one part of a scan, at the most.
const PART_RECORDS_MAX: usize = 1_000;
/// A part of a scan ends with the record that makes it larger than this.
const PART_BYTES_FULL: usize = 1 << 20;

type Bytes = &'static [u8];
type Definition<'a> = TableDefinition<'a, Bytes, Bytes>;

const META: Definition<'static> = TableDefinition::new("meta");

/// Keys of the table `meta`.
mod meta {
    pub(super) const FORMAT: &[u8] = b"format";
    pub(super) const STORE: &[u8] = b"store";
    pub(super) const PEER_ID: &[u8] = b"peer_id";
}

/// Keys of the table `{store id}:_state`.
mod state {
    pub(super) const ORIGIN: &[u8] = b"origin";
    pub(super) const RETIRED: &[u8] = b"retired";
    pub(super) const LAST_READING: &[u8] = b"last_reading";
    /// There once it was said.
    pub(super) const CLUSTER: &[u8] = b"cluster";
    /// There just if the store is bound.
    pub(super) const AUTHORITY: &[u8] = b"authority";
    /// There once it was written.
    pub(super) const FLOORS: &[u8] = b"floors";
}

/// The names of the tables of one opening.
pub(super) struct Layout {
    store: StoreId,
    origin: OriginId,
    state: String,
}

impl Layout {
    pub(super) fn new(opening: &Opening) -> Self {
        Self {
            store: opening.store,
            origin: opening.origin,
            state: state_name(opening.store),
        }
    }

    /// Whether it is of the opening with this id.
    pub(super) fn is_of(&self, origin: OriginId) -> bool {
        self.origin == origin
    }

    pub(super) fn records(&self, table: &TableName) -> String {
        format!("{}:{table}", self.store)
    }

    /// Writes a transaction up to, and not including, its commit.
    pub(super) fn write(
        &self,
        transaction: &WriteTransaction,
        commit: &Commit,
    ) -> Result<(), Fault> {
        for (table, records) in &commit.records {
            let name = self.records(table);
            let mut table = transaction.open_table(Definition::new(&name))?;
            // Neighbours in the tree one after the other.
            let mut records: Vec<_> = records.iter().collect();
            records.sort_unstable_by_key(|(key, _)| *key);
            for (key, entry) in records {
                table.insert(key.as_str().as_bytes(), entry.to_stored().as_slice())?;
            }
        }
        for (table, keys) in &commit.removed {
            let name = self.records(table);
            let mut table = transaction.open_table(Definition::new(&name))?;
            for key in keys {
                table.remove(key.as_str().as_bytes())?;
            }
        }
        if let Some(floors) = &commit.floors {
            let mut state = transaction.open_table(Definition::new(&self.state))?;
            state.insert(state::FLOORS, floors.as_slice())?;
        }
        if let Some(binding) = &commit.binding {
            let mut state = transaction.open_table(Definition::new(&self.state))?;
            put_binding(&mut state, binding)?;
        }
        if let Some(stamped) = commit.stamped {
            let mut state = transaction.open_table(Definition::new(&self.state))?;
            if stamped > last_reading(&state)? {
                put_last_reading(&mut state, stamped)?;
            }
        }
        Ok(())
    }

    /// Whether all of `commit` is stored; as nothing else is written, otherwise none of it is.
    pub(super) fn holds(&self, database: &Database, commit: &Commit) -> Result<bool, Fault> {
        let transaction = database.begin_read()?;
        let open = |table| existing(transaction.open_table(Definition::new(&self.records(table))));
        for (table, records) in &commit.records {
            let table = open(table)?;
            for (key, entry) in &**records {
                let value = match &table {
                    Some(table) => table.get(key.as_str().as_bytes())?,
                    None => None,
                };
                if value.is_none_or(|value| value.value() != entry.to_stored()) {
                    return Ok(false);
                }
            }
        }
        for (table, keys) in &commit.removed {
            let Some(table) = open(table)? else { continue };
            for key in keys {
                if table.get(key.as_str().as_bytes())?.is_some() {
                    return Ok(false);
                }
            }
        }
        let state = transaction.open_table(Definition::new(&self.state))?;
        if commit.binding.is_some() && binding(&state)? != commit.binding {
            return Ok(false);
        }
        if let Some(wanted) = &commit.floors
            && floors(&state)? != *wanted
        {
            return Ok(false);
        }
        Ok(commit.stamped.unwrap_or_default() <= last_reading(&state)?)
    }

    /// Whether the last opening of the store in `database` is this one.
    pub(super) fn is_current(&self, database: &Database) -> Result<bool, Fault> {
        let transaction = database.begin_read()?;
        let Some(meta) = existing(transaction.open_table(META))? else {
            return Ok(false);
        };
        let store = meta.get(meta::STORE)?;
        if store.is_none_or(|store| store.value() != self.store.as_bytes()) {
            return Ok(false);
        }
        let state = transaction.open_table(Definition::new(&self.state))?;
        let origin = state.get(state::ORIGIN)?;
        Ok(origin.is_some_and(|origin| origin.value() == self.origin.as_bytes()))
    }

    /// Begins the store anew, up to and not including the commit: the opening that it then is at, and
    /// nothing is left of what there was under the earlier id.
    pub(super) fn start_over(
        &self,
        transaction: &WriteTransaction,
        draw: Draw,
        floors: Vec<u8>,
    ) -> Result<Opening, Fault> {
        let id = draw.store;
        let opening = last_opening(transaction)?
            .started_over(draw, floors)
            .ok_or_else(|| {
                Fault::Unusable(format!(
                    "it cannot begin anew as {id}: it had the ids drawn for that before; draw others"
                ))
            })?;
        let under = format!("{}:", self.store);
        let tables: Vec<_> = transaction.list_tables()?.collect();
        for table in tables {
            if table.name().starts_with(&under) {
                transaction.delete_table(table)?;
            }
        }
        put_opening(transaction, &opening, true)?;
        Ok(opening)
    }

    /// Begins the next opening with a last reading that may be lower, up to and not including the
    /// commit.
    pub(super) fn renew(
        &self,
        transaction: &WriteTransaction,
        origin: OriginId,
        last: Reading,
    ) -> Result<Opening, Fault> {
        let opening = last_opening(transaction)?
            .renewed(origin, last)
            .ok_or_else(|| {
                Fault::Unusable(format!(
                    "the id {origin} was drawn for it before; draw another"
                ))
            })?;
        put_opening(transaction, &opening, false)?;
        let mut state = transaction.open_table(Definition::new(&self.state))?;
        put_last_reading(&mut state, last)?;
        Ok(opening)
    }
}

/// No table of records has an underscore in its name.
fn state_name(store: StoreId) -> String {
    format!("{store}:_state")
}

/// Opens the store in `database` anew: its next opening, or the first one. It is stored.
pub(super) fn next_opening(database: &Database, draw: Draw) -> Result<Opening, Fault> {
    let transaction = database.begin_write()?;
    let (mut any, mut ours) = (false, false);
    for table in transaction.list_tables()? {
        any = true;
        ours |= table.name() == META.name();
    }
    let opening = if ours {
        let origin = draw.origin;
        let next = last_opening(&transaction)?.next(origin).ok_or_else(|| {
            Fault::Unusable(format!(
                "the id {origin} was drawn for it before; start again"
            ))
        })?;
        next.taken_by(&draw)
            .map_err(|other| Fault::Unusable(other.to_string()))?
    } else if any {
        let problem = "the file is the database of something else; name another path".to_owned();
        return Err(Fault::Unusable(problem));
    } else {
        Opening::first(draw)
    };
    put_opening(&transaction, &opening, !ours)?;
    transaction.commit()?;
    Ok(opening)
}

fn last_opening(transaction: &WriteTransaction) -> Result<Opening, Fault> {
    let meta = transaction.open_table(META)?;
    let format = fixed(&meta, meta::FORMAT).map(u32::from_le_bytes)?;
    if format > FORMAT {
        return Err(Fault::NewerFormat(format));
    } else if format != FORMAT {
        return Err(damaged(
            meta::FORMAT,
            format_args!("is {format}, which never was one"),
        ));
    }
    let store = fixed(&meta, meta::STORE).map(StoreId::from_bytes)?;
    let peer_id = required(&meta, meta::PEER_ID)?;
    let peer_id = String::from_utf8_lossy(&peer_id).parse::<Key>();
    let state = state_name(store);
    let state = transaction.open_table(Definition::new(&state))?;
    let retired = required(&state, state::RETIRED)?;
    let (retired, rest) = retired.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(damaged(state::RETIRED, "is cut off"));
    }
    Ok(Opening {
        store,
        origin: fixed(&state, state::ORIGIN).map(OriginId::from_bytes)?,
        retired: retired.iter().copied().map(OriginId::from_bytes).collect(),
        last_reading: last_reading(&state)?,
        peer_id: peer_id.map_err(|error| damaged(meta::PEER_ID, error))?,
        cluster: cluster(&state)?,
        binding: binding(&state)?,
        floors: floors(&state)?,
    })
}

fn put_opening(
    transaction: &WriteTransaction,
    opening: &Opening,
    is_first: bool,
) -> Result<(), Fault> {
    let state = state_name(opening.store);
    let mut state = transaction.open_table(Definition::new(&state))?;
    state.insert(state::ORIGIN, opening.origin.as_bytes().as_slice())?;
    let retired: Vec<u8> = opening
        .retired
        .iter()
        .flat_map(OriginId::as_bytes)
        .copied()
        .collect();
    state.insert(state::RETIRED, retired.as_slice())?;
    if let Some(cluster) = &opening.cluster {
        state.insert(state::CLUSTER, cluster.as_str().as_bytes())?;
    }
    if let Some(binding) = &opening.binding {
        put_binding(&mut state, binding)?;
    }
    if is_first {
        put_last_reading(&mut state, opening.last_reading)?;
        if !opening.floors.is_empty() {
            state.insert(state::FLOORS, opening.floors.as_slice())?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(meta::FORMAT, FORMAT.to_le_bytes().as_slice())?;
        meta.insert(meta::STORE, opening.store.as_bytes().as_slice())?;
        meta.insert(meta::PEER_ID, opening.peer_id.as_str().as_bytes())?;
    }
    Ok(())
}

fn last_reading(state: &impl ReadableTable<Bytes, Bytes>) -> Result<Reading, Fault> {
    fixed(state, state::LAST_READING).map(|bytes| Reading::from_u64(u64::from_le_bytes(bytes)))
}

fn put_last_reading(
    state: &mut redb::Table<'_, Bytes, Bytes>,
    reading: Reading,
) -> Result<(), Fault> {
    state.insert(
        state::LAST_READING,
        reading.as_u64().to_le_bytes().as_slice(),
    )?;
    Ok(())
}

fn cluster(state: &impl ReadableTable<Bytes, Bytes>) -> Result<Option<ClusterId>, Fault> {
    let Some(cluster) = state.get(state::CLUSTER)? else {
        return Ok(None);
    };
    let cluster = String::from_utf8_lossy(cluster.value()).parse();
    cluster
        .map(Some)
        .map_err(|error| damaged(state::CLUSTER, error))
}

fn binding(state: &impl ReadableTable<Bytes, Bytes>) -> Result<Option<Binding>, Fault> {
    if state.get(state::AUTHORITY)?.is_none() {
        return Ok(None);
    }
    fixed(state, state::AUTHORITY).map(|bytes| Some(Binding::from_bytes(bytes)))
}

fn put_binding(state: &mut redb::Table<'_, Bytes, Bytes>, binding: &Binding) -> Result<(), Fault> {
    state.insert(state::AUTHORITY, binding.to_bytes().as_slice())?;
    Ok(())
}

fn floors(state: &impl ReadableTable<Bytes, Bytes>) -> Result<Vec<u8>, Fault> {
    let floors = state.get(state::FLOORS)?;
    Ok(floors.map_or_else(Vec::new, |floors| floors.value().to_vec()))
}

fn required(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8]) -> Result<Vec<u8>, Fault> {
    let value = table.get(key)?.ok_or_else(|| damaged(key, "is missing"))?;
    Ok(value.value().to_vec())
}

fn fixed<const N: usize>(
    table: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<[u8; N], Fault> {
    let value = required(table, key)?;
    let bytes = value.len();
    value
        .try_into()
        .map_err(|_| damaged(key, format_args!("is of {bytes} bytes instead of {N}")))
}

fn damaged(key: &[u8], problem: impl Display) -> Fault {
    Fault::Damaged(format!(
        "what it keeps under {:?} {problem}",
        String::from_utf8_lossy(key)
    ))
}

/// What is stored under each of `keys`, in the table with this name.
pub(super) fn get_many(
    database: &Database,
    name: &str,
    keys: &[Key],
) -> Result<Vec<Option<Stored>>, Fault> {
    let transaction = database.begin_read()?;
    let Some(table) = existing(transaction.open_table(Definition::new(name)))? else {
        return Ok(vec![None; keys.len()]);
    };
    let get = |key: &Key| {
        let value = table.get(key.as_str().as_bytes())?;
        Ok(value.map(|value| Stored::from_value(value.value())))
    };
    keys.iter().map(get).collect()
}

/// How many records the table with this name has.
pub(super) fn count(database: &Database, name: &str) -> Result<u64, Fault> {
    let transaction = database.begin_read()?;
    match existing(transaction.open_table(Definition::new(name)))? {
        Some(table) => Ok(table.len()?),
        None => Ok(0),
    }
}

/// The records after `cursor`, in the order of their keys, from the table with this name. No read
/// transaction outlives a part: it would keep the pages of what is overwritten.
pub(super) fn part(
    database: &Database,
    name: &str,
    cursor: Option<&Cursor>,
) -> Result<(Vec<Scanned>, Option<Cursor>), Fault> {
    let transaction = database.begin_read()?;
    let Some(table) = existing(transaction.open_table(Definition::new(name)))? else {
        return Ok((Vec::new(), None));
    };
    let after = cursor.map_or(Unbounded, |Cursor(key)| Excluded(key.as_slice()));
    let (mut part, mut bytes, mut last) = (Vec::new(), 0, Vec::new());
    for item in table.range::<&[u8]>((after, Unbounded))? {
        if part.len() == PART_RECORDS_MAX || bytes > PART_BYTES_FULL {
            return Ok((part, Some(Cursor(last))));
        }
        let (key, value) = item?;
        let (key, value) = (key.value(), value.value());
        bytes += key.len() + value.len();
        part.push(Scanned {
            key: key.to_vec(),
            value: value.to_vec(),
        });
        last.clear();
        last.extend_from_slice(key);
    }
    Ok((part, None))
}

/// A table, or `None` if nothing was ever written to it.
fn existing(
    table: Result<ReadOnlyTable<Bytes, Bytes>, TableError>,
) -> Result<Option<ReadOnlyTable<Bytes, Bytes>>, Fault> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
