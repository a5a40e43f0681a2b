//! What a store keeps under which keys of the server, and how it is read back.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use peer_table::table::Entries;
use peer_table::{Binding, FingerprintKey, Key, OriginId, Reading, StoreId, TableName};
use redis::{Pipeline, Value};

use super::super::{Change, Commit, Draw, FORMAT, Opening};
use super::fault::Fault;
use super::lock::Lock;
use super::replies::Replies;

/// The names of the keys of one store: all begin with its prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) prefix: String,
}

impl Keys {
    pub(super) fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    pub(super) fn lock(&self) -> String {
        format!("{}lock", self.prefix)
    }

    /// No table of records has an underscore in its name.
    pub(super) fn state(&self, store: StoreId) -> String {
        format!("{}{store}:_state", self.prefix)
    }

    pub(super) fn table(&self, store: StoreId, table: &TableName) -> String {
        format!("{}{store}:{table}", self.prefix)
    }
}

/// How a store stands, as its manager left it: what each look at it is compared with.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) opening: Opening,
    /// Transactions so far, counted in the store too, so that one that is missing shows.
    pub(super) commits: u64,
    pub(super) last_reading: Reading,
    /// How many records each table has that was used so far; `None` until that is looked at.
    pub(super) records: BTreeMap<TableName, Option<u64>>,
}

/// A look at a store, under a watch: until the next transaction or the next look, any change of what
/// was seen makes that transaction fail.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) lock: Option<Lock>,
    /// Transactions so far.
    pub(super) commits: u64,
    /// Of each table in [`Standing::records`], in that order.
    pub(super) records: Vec<u64>,
}

impl Standing {
    /// Adds a look at the store.
    pub(super) fn ask(&self, keys: &Keys, commands: &mut Pipeline) {
        let (meta, lock) = (keys.meta(), keys.lock());
        let state = keys.state(self.opening.store);
        let tables = self.records.keys();
        let tables: Vec<_> = tables
            .map(|name| keys.table(self.opening.store, name))
            .collect();
        commands
            .cmd("WATCH")
            .arg(&lock)
            .arg(&meta)
            .arg(&state)
            .arg(&tables);
        commands.cmd("GET").arg(&lock);
        commands.cmd("HMGET").arg(&meta).arg("format").arg("store");
        commands
            .cmd("HMGET")
            .arg(&state)
            .arg("origin")
            .arg("commits");
        for table in &tables {
            commands.cmd("HLEN").arg(table);
        }
    }

    /// The look that was asked for, if it is at the opening that is expected.
    pub(super) fn read(&self, replies: &mut Replies) -> Result<Look, Fault> {
        replies.next()?;
        let lock = replies.value()?;
        let [format, store] = replies.values()?;
        let [origin, commits] = replies.values()?;
        let mut records = Vec::with_capacity(self.records.len());
        for _ in &self.records {
            records.push(replies.number()?);
        }
        if format.is_none() && store.is_none() {
            return Err(Fault::Changed(Change::Wiped));
        }
        check_format(format)?;
        if required("store", store)?.parse::<StoreId>().ok() != Some(self.opening.store) {
            return Err(Fault::Changed(Change::Swapped));
        }
        if origin.is_none() && commits.is_none() {
            return Err(Fault::Changed(Change::Wiped));
        }
        let origin: OriginId = parsed("origin", origin)?;
        if origin != self.opening.origin {
            let change = if self.opening.retired.contains(&origin) {
                Change::RolledBack
            } else {
                Change::TakenOver
            };
            return Err(Fault::Changed(change));
        }
        Ok(Look {
            lock: lock.map(|lock| Lock::parse(&lock)).transpose()?,
            commits: parsed("commits", commits)?,
            records,
        })
    }

    /// Makes sure that all is as it was left, and notes what was not known.
    pub(super) fn check(&mut self, look: &Look) -> Result<(), Fault> {
        if look.commits < self.commits {
            return Err(Fault::Changed(Change::RolledBack));
        }
        if look.commits > self.commits {
            return Err(Fault::Changed(Change::Meddled));
        }
        for (known, found) in self.records.values_mut().zip(&look.records) {
            if *known.get_or_insert(*found) != *found {
                return Err(Fault::Changed(Change::Meddled));
            }
        }
        Ok(())
    }

    /// Notes that `commit` was written; `results` are the answers to its commands, if they are known.
    pub(super) fn written(&mut self, commit: &Commit, results: Option<&[Value]>) {
        if let Some(binding) = &commit.binding {
            self.opening.binding = Some(binding.clone());
        }
        self.last_reading = self.raised(commit).unwrap_or(self.last_reading);
        self.commits += 1;
        for (place, (table, part)) in parts(commit).enumerate() {
            let result = results.and_then(|results| results.get(place));
            if let Some(known) = self.records.get_mut(table) {
                *known = match (*known, result, part) {
                    (Some(known), Some(Value::Int(added)), Part::Written(_)) => {
                        known.checked_add_signed(*added)
                    }
                    (Some(known), Some(Value::Int(gone)), Part::Removed(_)) => {
                        known.checked_sub(gone.unsigned_abs())
                    }
                    _ => None,
                };
            }
        }
    }

    /// Adds the commands that write `commit`; the answer is how many these are.
    pub(super) fn write(&self, keys: &Keys, commit: &Commit, commands: &mut Pipeline) -> usize {
        let mut added = 1;
        for (table, part) in parts(commit) {
            let table = keys.table(self.opening.store, table);
            match part {
                Part::Written(records) => {
                    commands.cmd("HSET").arg(table);
                    for (key, entry) in records {
                        commands.arg(key.as_str()).arg(entry.to_stored());
                    }
                }
                Part::Removed(keys) => {
                    commands.cmd("HDEL").arg(table);
                    for key in keys {
                        commands.arg(key.as_str());
                    }
                }
            }
            added += 1;
        }
        commands.cmd("HSET").arg(keys.state(self.opening.store));
        commands.arg("commits").arg(self.commits + 1);
        if let Some(stamped) = self.raised(commit) {
            commands.arg("last_reading").arg(reading_text(stamped));
        }
        if let Some(binding) = &commit.binding {
            commands.arg(AUTHORITY).arg(binding_text(binding));
        }
        if let Some(floors) = &commit.floors {
            commands.arg(FLOORS).arg(floors.as_slice());
        }
        added
    }

    /// How it stands once the store has begun anew under the ids of `draw`; `None` if they were used
    /// before.
    pub(super) fn started_over(&self, draw: Draw, floors: Vec<u8>) -> Option<Self> {
        let opening = Opening {
            last_reading: self.last_reading,
            ..self.opening.clone()
        };
        let tables = self.records.keys();
        Some(Self {
            opening: opening.started_over(draw, floors)?,
            commits: 0,
            last_reading: self.last_reading,
            records: tables.map(|table| (table.clone(), Some(0))).collect(),
        })
    }

    /// Adds the commands that have the store begin anew as `next`; the answer is how many these are.
    pub(super) fn start_over(&self, keys: &Keys, next: &Self, commands: &mut Pipeline) -> usize {
        commands.cmd("UNLINK");
        // What cannot be there under the new id would be a part of the store.
        for store in [self.opening.store, next.opening.store] {
            commands.arg(keys.state(store));
            for table in self.records.keys() {
                commands.arg(keys.table(store, table));
            }
        }
        1 + write_opening(keys, &next.opening, true, commands)
    }

    /// How it stands once the next opening has begun under `origin`, with this last reading; `None` if
    /// the id was used before.
    pub(super) fn renewed(&self, origin: OriginId, last: Reading) -> Option<Self> {
        Some(Self {
            opening: self.opening.clone().renewed(origin, last)?,
            last_reading: last,
            ..self.clone()
        })
    }

    /// Adds the commands that begin that opening; the answer is how many these are.
    pub(super) fn renew(keys: &Keys, next: &Self, commands: &mut Pipeline) -> usize {
        let written = write_opening(keys, &next.opening, false, commands);
        commands.cmd("HSET").arg(keys.state(next.opening.store));
        commands
            .arg("last_reading")
            .arg(reading_text(next.last_reading));
        written + 1
    }

    /// What the last reading becomes by `commit`, unless it stays.
    fn raised(&self, commit: &Commit) -> Option<Reading> {
        commit
            .stamped
            .filter(|stamped| *stamped > self.last_reading)
    }
}

/// What one command of a transaction does to a table.
pub(super) enum Part<'a> {
    Written(&'a Entries),
    Removed(&'a BTreeSet<Key>),
}

/// What `commit` does to which tables, in the order of its commands.
pub(super) fn parts(commit: &Commit) -> impl Iterator<Item = (&TableName, Part<'_>)> {
    let written = commit.records.iter();
    let written = written.filter(|(_, records)| !records.is_empty());
    let removed = commit.removed.iter();
    let removed = removed.filter(|(_, keys)| !keys.is_empty());
    written
        .map(|(table, records)| (table, Part::Written(records)))
        .chain(removed.map(|(table, keys)| (table, Part::Removed(keys))))
}

/// The field that is there once it was said.
const CLUSTER: &str = "cluster";
/// The field that is there just if the store is bound.
const AUTHORITY: &str = "authority";
/// The field that is there once it was written.
const FLOORS: &str = "floors";

fn binding_text(binding: &Binding) -> String {
    let key = u128::from_be_bytes(*binding.fingerprint_key.as_bytes());
    format!("{} {key:032x}", binding.authority)
}

fn read_binding(text: &str) -> Option<Binding> {
    let (authority, key) = text.split_once(' ')?;
    let key = u128::from_str_radix(key, 16).ok()?;
    Some(Binding {
        authority: authority.parse().ok()?,
        fingerprint_key: FingerprintKey::from_bytes(key.to_be_bytes()),
    })
}

fn reading_text(reading: Reading) -> String {
    format!("{:016x}", reading.as_u64())
}

/// Adds the question for what a store says of itself; [`Meta::read`] takes the reply.
pub(super) fn ask_meta(keys: &Keys, commands: &mut Pipeline) {
    commands
        .cmd("HMGET")
        .arg(keys.meta())
        .arg("format")
        .arg("store")
        .arg("peer_id");
}

/// What a store says of itself.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) store: StoreId,
    pub(super) peer_id: Key,
}

impl Meta {
    /// Reads it; `None` if there is no store yet.
    pub(super) fn read(replies: &mut Replies) -> Result<Option<Self>, Fault> {
        let [format, store, peer_id] = replies.values()?;
        if format.is_none() && store.is_none() && peer_id.is_none() {
            return Ok(None);
        }
        check_format(format)?;
        Ok(Some(Self {
            store: parsed("store", store)?,
            peer_id: parsed("peer_id", peer_id)?,
        }))
    }
}

/// Adds the question for the last opening; [`read_opening`] takes the reply.
pub(super) fn ask_opening(keys: &Keys, store: StoreId, commands: &mut Pipeline) {
    commands.cmd("HMGET").arg(keys.state(store));
    commands
        .arg("origin")
        .arg("retired")
        .arg("last_reading")
        .arg("commits")
        .arg(CLUSTER)
        .arg(AUTHORITY)
        .arg(FLOORS);
}

/// The last opening of the store, with its number of transactions; `None` if that is lost.
pub(super) fn read_opening(
    meta: &Meta,
    replies: &mut Replies,
) -> Result<Option<(Opening, u64)>, Fault> {
    let [
        origin,
        retired,
        last_reading,
        commits,
        cluster,
        authority,
        floors,
    ] = replies.values()?;
    if origin.is_none() && retired.is_none() && last_reading.is_none() && commits.is_none() {
        return Ok(None);
    }
    let retired = required("retired", retired)?;
    let retired = retired.split_ascii_whitespace().map(str::parse);
    let last_reading = required("last_reading", last_reading)?;
    let binding = authority.map(|authority| {
        let text = required(AUTHORITY, Some(authority))?;
        read_binding(&text).ok_or_else(|| damaged(AUTHORITY, "it is no id and key"))
    });
    let opening = Opening {
        store: meta.store,
        origin: parsed("origin", origin)?,
        retired: retired
            .collect::<Result<_, _>>()
            .map_err(|error| damaged("retired", error))?,
        last_reading: u64::from_str_radix(&last_reading, 16)
            .map(Reading::from_u64)
            .map_err(|error| damaged("last_reading", error))?,
        peer_id: meta.peer_id.clone(),
        cluster: cluster
            .map(|cluster| parsed(CLUSTER, Some(cluster)))
            .transpose()?,
        binding: binding.transpose()?,
        floors: floors.unwrap_or_default(),
    };
    Ok(Some((opening, parsed("commits", commits)?)))
}

/// Adds the commands that store an opening, and all about the store if it is a new one; the answer
/// is how many these are.
pub(super) fn write_opening(
    keys: &Keys,
    opening: &Opening,
    is_new: bool,
    commands: &mut Pipeline,
) -> usize {
    let retired: Vec<_> = opening.retired.iter().map(OriginId::to_string).collect();
    commands.cmd("HSET").arg(keys.state(opening.store));
    commands.arg("origin").arg(opening.origin.to_string());
    commands.arg("retired").arg(retired.join(" "));
    if let Some(cluster) = &opening.cluster {
        commands.arg(CLUSTER).arg(cluster.as_str());
    }
    if let Some(binding) = &opening.binding {
        commands.arg(AUTHORITY).arg(binding_text(binding));
    }
    if !is_new {
        return 1;
    }
    commands
        .arg("last_reading")
        .arg(reading_text(opening.last_reading));
    commands.arg("commits").arg(0);
    if !opening.floors.is_empty() {
        commands.arg(FLOORS).arg(opening.floors.as_slice());
    }
    commands.cmd("HSET").arg(keys.meta());
    commands.arg("format").arg(FORMAT);
    commands.arg("store").arg(opening.store.to_string());
    commands.arg("peer_id").arg(opening.peer_id.as_str());
    2
}

/// The first opening of a store where there was none, or where what was there is lost.
pub(super) fn first_opening(draw: Draw, meta: Option<&Meta>) -> Opening {
    let opening = Opening::first(draw);
    match meta {
        Some(meta) => Opening {
            peer_id: meta.peer_id.clone(),
            ..opening
        },
        None => opening,
    }
}

fn check_format(format: Option<Vec<u8>>) -> Result<(), Fault> {
    let format: u32 = parsed("format", format)?;
    match format.cmp(&FORMAT) {
        Ordering::Greater => Err(Fault::NewerFormat(format)),
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(damaged("format", format_args!("{format} never was one"))),
    }
}

fn required(field: &str, value: Option<Vec<u8>>) -> Result<String, Fault> {
    let value = value.ok_or_else(|| damaged(field, "it is missing"))?;
    String::from_utf8(value).map_err(|error| damaged(field, error))
}

fn parsed<T: std::str::FromStr<Err: Display>>(
    field: &str,
    value: Option<Vec<u8>>,
) -> Result<T, Fault> {
    required(field, value)?
        .parse()
        .map_err(|error| damaged(field, error))
}

fn damaged(field: &str, problem: impl Display) -> Fault {
    Fault::Damaged(format!(
        "what it keeps as {field:?} cannot be read: {problem}"
    ))
}
