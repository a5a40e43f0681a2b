//! The store of a deployment: hashes of a Redis server, which may serve many pods.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{prefix}meta` | hash | `format`: of all this; `store`: the current store id, so that starting over is one switch of it; `peer_id`: of this pod's own record |
//! | `{prefix}{store id}:{table}` | hash | by key of a record, [`Entry::to_stored`](peer_table::Entry::to_stored): format byte, kind, version, contact, content |
//! | `{prefix}{store id}:_state` | hash | `origin`: the id of the last opening; `retired`: those before it, oldest first; `last_reading`: the highest reading stamped for an own write, in hexadecimal; `commits`: transactions so far; `cluster`: whose records these are, missing until that is first said; `authority`: the UUID of the authority that the store is bound to and, in hexadecimal, the key that came with it, missing while it is unbound; `floors`: what its owner keeps of floors, missing until that is first written |
//! | `{prefix}lock` | string | which manager has the store: id of its connection, token, words |
//!
//! The prefix is `udht:{cluster}:{pod}:` unless the URL says otherwise (`?prefix=`). Ids are spelled
//! as hyphenated UUIDs. The state of a store that an earlier build made has `vector`, `known` and
//! `fenced` too, which are empty and of no use.
//!
//! Redis 6.2 or later; of its commands a user needs HELLO, SELECT, WATCH, MULTI, EXEC, GET, SET, HSET,
//! HMGET, HDEL, HLEN, HSCAN, UNLINK and CLIENT LIST, on the keys with the prefix.
//!
//! What mends itself, or is mended at the server, is waited for at the start and answered as
//! [`StoreError::Unavailable`] later: a server that is away, loads its data, is a replica, or takes
//! no writes as its memory or disk is full. What somebody has to mend here ends the start: a wrong
//! password, another protocol, too old a server, another manager on the store, a newer format.
//!
//! One task, the keeper, writes and looks after the store; all others read by its connection.

mod advice;
mod connection;
mod fault;
mod keeper;
mod layout;
mod lock;
mod opening;
mod replies;
mod scan;
mod tls;
mod url;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use peer_table::{ClusterId, Key, OriginId, Reading, StoreId, TableName};
use redis::{Pipeline, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::{Commit, Cursor, Draw, Opening, Scanned, Store, StoreError, Stored};
use connection::{Connection, PATIENCE, patience, pipeline};
use fault::{Fault, odd};
use keeper::{Job, Keeper, Link, Switch};
use layout::Keys;
use opening::Opener;
use replies::Replies;
use scan::{Ahead, Part, Place};

pub use self::url::{InvalidRedisUrl, RedisUrl};

/// Commits that wait for the keeper; there is one at a time.
const QUEUE_JOBS_MAX: usize = 16;

/// The last opening of a store of which a server tells this: format, store and `peer_id`; origin,
/// retired, last reading, commits, authority and floors; the lock. For the fuzz targets, which have no server.
#[doc(hidden)]
pub fn last_opening(told: [Option<Vec<u8>>; 10]) -> Result<Option<Opening>, StoreError> {
    let mut told = told
        .into_iter()
        .map(|value| value.map_or(Value::Nil, Value::BulkString));
    let mut values = |count| Value::Array(told.by_ref().take(count).collect());
    let mut replies = Replies::new(vec![values(3), values(6), values(1)]);
    let mut read = || {
        let Some(meta) = layout::Meta::read(&mut replies)? else {
            return Ok(None);
        };
        let last = layout::read_opening(&meta, &mut replies)?;
        let [lock] = replies.values()?;
        lock.map(|lock| lock::Lock::parse(&lock)).transpose()?;
        Ok(last.map(|(opening, _)| opening))
    };
    read().map_err(|fault: Fault| fault.at_opening("the store"))
}

/// A store at a Redis server.
pub struct RedisStore {
    name: String,
    keys: Keys,
    opening: Opening,
    link: watch::Receiver<Link>,
    jobs: mpsc::Sender<Job>,
    keeper: AbortHandle,
    ahead: Mutex<Option<Ahead>>,
}

impl RedisStore {
    /// Opens the store at `url`, or makes it there. Waits for a server that is away or loading; the
    /// log says so meanwhile. Without a prefix in the URL, cluster and pod make one.
    pub async fn open(
        url: RedisUrl,
        cluster: &ClusterId,
        pod: &str,
        draw: Draw,
    ) -> Result<Self, StoreError> {
        let opener = Arc::new(Opener::new(url, cluster, pod));
        let (connection, standing) = opener.open(&draw).await?;
        advice::give(&connection, &opener.name()).await;
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let opening = standing.opening.clone();
        let (keeper, link) = Keeper::new(Arc::clone(&opener), connection, standing, queue);
        Ok(Self {
            name: opener.name(),
            keys: opener.keys.clone(),
            opening,
            link,
            jobs,
            keeper: tokio::spawn(keeper.run()).abort_handle(),
            ahead: Mutex::new(None),
        })
    }

    /// The connection, and the store id to read under; waits for it only while it has just been lost.
    async fn connection(&self) -> Result<(Connection, StoreId), StoreError> {
        let now = Instant::now();
        let mut link = self.link.clone();
        loop {
            let deadline = match &*link.borrow_and_update() {
                Link::Up {
                    connection, store, ..
                } if !connection.is_closed() => {
                    return Ok((connection.clone(), *store));
                }
                Link::Up { .. } => now + PATIENCE,
                Link::Down { since, error } if since.elapsed() >= PATIENCE => {
                    return Err(error.clone());
                }
                Link::Down { since, .. } => *since + PATIENCE,
                Link::Changed { error } => return Err(error.clone()),
            };
            match timeout_at(deadline, link.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(stopped()),
                Err(_) => {
                    return Err(match &*link.borrow() {
                        Link::Down { error, .. } | Link::Changed { error } => error.clone(),
                        Link::Up { .. } => {
                            StoreError::Unavailable(format!("{} cannot be reached", self.name))
                        }
                    });
                }
            }
        }
    }

    /// Asks; once more if the connection broke and another is there soon.
    async fn ask(
        &self,
        commands: impl Fn(StoreId) -> Pipeline,
        records: usize,
    ) -> Result<Replies, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (connection, store) = self.connection().await?;
            match connection.ask(&commands(store), patience(records)).await {
                Ok(replies) => return Ok(replies),
                Err(Fault::Lost(_)) if Instant::now() < deadline => {}
                Err(fault) => return Err(fault.in_use(&self.name)),
            }
        }
    }

    fn take_ahead(&self) -> Option<Ahead> {
        self.ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn job<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("its keeper has ended".to_owned())
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[async_trait]
impl Store for RedisStore {
    fn opening(&self) -> &Opening {
        &self.opening
    }

    async fn scan(
        &self,
        table: &TableName,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        let place = cursor.map(|Cursor(cursor)| Place::parse(&cursor).ok_or_else(|| odd("HSCAN")));
        let place = place
            .transpose()
            .map_err(|fault| fault.in_use(&self.name))?;
        if place.is_none() {
            // So that from now on it shows if records go missing.
            let table = Some(table.clone());
            self.job(|answer| Job::Check { table, answer }).await?;
        }
        let (connection, store) = self.connection().await?;
        let key = self.keys.table(store, table);
        let place = place.unwrap_or_else(|| Place::first(&connection));
        let ahead = self.take_ahead().filter(|ahead| ahead.is_of(&key, place));
        let part = match ahead {
            Some(ahead) => ahead.part().await,
            None => scan::part(connection.clone(), key.clone(), place).await,
        };
        let Part { scanned, next } = part.map_err(|fault| fault.in_use(&self.name))?;
        if let Some(next) = next {
            let ahead = Ahead::start(connection, key, next);
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok((scanned, next.map(|next| Cursor(next.to_bytes()))))
    }

    async fn get_many(
        &self,
        table: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let commands = |store| {
            let mut commands = pipeline();
            commands.cmd("HMGET").arg(self.keys.table(store, table));
            for key in keys {
                commands.arg(key.as_str());
            }
            commands
        };
        let mut replies = self.ask(commands, keys.len()).await?;
        let stored = match replies.next() {
            Ok(Value::Array(values)) if values.len() == keys.len() => values,
            Ok(_) => return Err(odd("HMGET").in_use(&self.name)),
            Err(fault) => return Err(fault.in_use(&self.name)),
        };
        let read = |value| match value {
            Value::BulkString(value) => Some(Stored::from_value(&value)),
            _ => None,
        };
        Ok(stored.into_iter().map(read).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.job(|answer| Job::Commit { commit, answer }).await
    }

    async fn settle(&self) -> Result<bool, StoreError> {
        let mut link = self.link.clone();
        let settled = link
            .wait_for(|link| !matches!(link, Link::Down { .. }))
            .await;
        match settled.as_deref() {
            Ok(Link::Up { stored, .. }) => Ok(stored.unwrap_or(false)),
            Ok(Link::Changed { error } | Link::Down { error, .. }) => Err(error.clone()),
            Err(_) => Err(stopped()),
        }
    }

    async fn changed(&self) -> StoreError {
        let mut link = self.link.clone();
        let change = {
            let changed = link
                .wait_for(|link| matches!(link, Link::Changed { .. }))
                .await;
            match changed.as_deref() {
                Ok(Link::Changed { error }) => Some(error.clone()),
                _ => None,
            }
        };
        match change {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.job(|answer| Job::Check {
            table: None,
            answer,
        })
        .await
    }

    async fn reopen(&self, draw: Draw) -> Result<Opening, StoreError> {
        drop(self.take_ahead());
        self.job(|answer| Job::Reopen { draw, answer }).await
    }

    async fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError> {
        drop(self.take_ahead());
        let to = Switch::StartOver(draw, floors);
        self.job(|answer| Job::Switch { to, answer }).await
    }

    async fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError> {
        drop(self.take_ahead());
        let to = Switch::Renew(origin, last);
        self.job(|answer| Job::Switch { to, answer }).await
    }

    async fn count(&self, table: &TableName) -> Result<Option<u64>, StoreError> {
        let commands = |store| {
            let mut commands = pipeline();
            commands.cmd("HLEN").arg(self.keys.table(store, table));
            commands
        };
        let counted = self.ask(commands, 1).await?.number();
        let counted = counted.map_err(|fault| fault.in_use(&self.name))?;
        Ok(Some(counted))
    }
}
