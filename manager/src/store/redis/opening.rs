//! Opening a store at a server: for the first time, after a restart of the manager, or anew because
//! it is no longer what it was.

use std::collections::BTreeMap;
use std::process;
use std::time::Duration;

use peer_table::ClusterId;
use tokio::time::{Instant, sleep};
use udht_tell::chain;
use uuid::Uuid;

use super::super::{Draw, Opening, StoreError};
use super::connection::{Connection, PATIENCE, pipeline};
use super::fault::Fault;
use super::layout::{self, Keys, Meta, Standing};
use super::lock::{Lock, client_name};
use super::replies::Executed;
use super::url::RedisUrl;

/// How long an opening waits for a manager that is just going.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Between two tries to reach a server: the first pause and the longest.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a transaction is tried that something else disturbs.
pub(super) const TRIES: usize = 8;

/// A manager as a server sees it.
pub(super) struct Opener {
    pub(super) url: RedisUrl,
    pub(super) keys: Keys,
    /// Drawn for this process and this store.
    pub(super) token: String,
    /// This process in words.
    holder: String,
}

impl Opener {
    pub(super) fn new(url: RedisUrl, cluster: &ClusterId, pod: &str) -> Self {
        let default = || format!("udht:{cluster}:{pod}:");
        let prefix = url.prefix.clone().unwrap_or_else(default);
        Self {
            url,
            keys: Keys { prefix },
            token: Uuid::new_v4().simple().to_string(),
            holder: format!("process {} on {pod}", process::id()),
        }
    }

    /// How the store is called in an error.
    pub(super) fn name(&self) -> String {
        self.url.to_string()
    }

    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        Connection::open(&self.url, &client_name(&self.token)).await
    }

    /// The lock as it is when this manager has it by `connection`.
    pub(super) fn lock(&self, connection: &Connection) -> Lock {
        Lock {
            client: connection.client,
            token: self.token.clone(),
            holder: self.holder.clone(),
        }
    }

    /// Makes sure that no other living manager has the lock.
    pub(super) async fn check_free(
        &self,
        lock: Option<&Lock>,
        connection: &Connection,
    ) -> Result<(), Fault> {
        let foreign = lock.filter(|lock| lock.token != self.token);
        if let Some(lock) = foreign
            && let Some(by) = lock.living_holder(connection).await?
        {
            return Err(Fault::Locked(by));
        }
        Ok(())
    }

    /// Opens the store, and waits for what mends itself: a server that is not there yet, is loading,
    /// or takes no writes now.
    pub(super) async fn open(&self, draw: &Draw) -> Result<(Connection, Standing), StoreError> {
        let started = Instant::now();
        let (mut pause, mut sent) = (PAUSE_MIN, false);
        loop {
            let opened = async {
                let connection = self.connect().await?;
                let standing = self.open_on(&connection, draw, None, &mut sent).await?;
                Ok((connection, standing))
            };
            let fault: Fault = match opened.await {
                Ok(opened) => return Ok(opened),
                Err(fault) => fault,
            };
            if matches!(fault, Fault::Locked(_)) && started.elapsed() < LOCK_PATIENCE {
                sleep(LOCK_PAUSE).await;
            } else if fault.mends_itself() {
                let error = fault.in_use(&self.name());
                tracing::warn!(error = chain(&error), "waiting for the store");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            } else {
                return Err(fault.at_opening(&self.name()));
            }
        }
    }

    /// Opens the store by `connection`: takes the lock and stores the new opening, both or none.
    /// `known` is an opening by this process, which ends with this one. `sent` says whether this
    /// opening was sent before, with nothing heard of what became of it.
    pub(super) async fn open_on(
        &self,
        connection: &Connection,
        draw: &Draw,
        known: Option<&Opening>,
        sent: &mut bool,
    ) -> Result<Standing, Fault> {
        for _ in 0..TRIES {
            let (last, meta) = self.last(connection).await?;
            let (mut opening, commits, is_new) = match last {
                Some((last, commits)) if *sent && last.origin == draw.origin => {
                    (last, commits, false)
                }
                Some((last, commits)) => match last.next(draw.origin) {
                    Some(next) => {
                        let taken = next.taken_by(draw);
                        let next = taken.map_err(|other| Fault::Unusable(other.to_string()))?;
                        (next, commits, false)
                    }
                    None => {
                        return Err(Fault::Unusable(format!(
                            "has had an opening with the id {} before; start again",
                            draw.origin
                        )));
                    }
                },
                None => (layout::first_opening(draw.clone(), meta.as_ref()), 0, true),
            };
            if let Some(known) = known {
                opening.remember(known);
            }
            let mut commands = pipeline();
            commands.cmd("MULTI");
            commands
                .cmd("SET")
                .arg(self.keys.lock())
                .arg(self.lock(connection).to_string());
            let written = layout::write_opening(&self.keys, &opening, is_new, &mut commands);
            commands.cmd("EXEC");
            *sent = true;
            let mut replies = connection.ask(&commands, PATIENCE).await?;
            match replies.executed(1 + written)? {
                Executed::Done(_) => {
                    return Ok(Standing {
                        commits,
                        last_reading: opening.last_reading,
                        records: BTreeMap::new(),
                        opening,
                    });
                }
                Executed::Disturbed => {}
            }
        }
        Err(disturbed())
    }

    /// The last opening and what the store says of itself, under a watch and with the lock free.
    async fn last(
        &self,
        connection: &Connection,
    ) -> Result<(Option<(Opening, u64)>, Option<Meta>), Fault> {
        let mut commands = pipeline();
        commands
            .cmd("WATCH")
            .arg(self.keys.lock())
            .arg(self.keys.meta());
        commands.cmd("GET").arg(self.keys.lock());
        layout::ask_meta(&self.keys, &mut commands);
        let mut replies = connection.ask(&commands, PATIENCE).await?;
        replies.next()?;
        let lock = replies.value()?;
        let lock = lock.map(|lock| Lock::parse(&lock)).transpose()?;
        let meta = Meta::read(&mut replies)?;
        self.check_free(lock.as_ref(), connection).await?;
        let Some(meta) = meta else {
            return Ok((None, None));
        };
        let mut commands = pipeline();
        commands.cmd("WATCH").arg(self.keys.state(meta.store));
        layout::ask_opening(&self.keys, meta.store, &mut commands);
        let mut replies = connection.ask(&commands, PATIENCE).await?;
        replies.next()?;
        let last = layout::read_opening(&meta, &mut replies)?;
        Ok((last, Some(meta)))
    }
}

/// What is said when transactions are disturbed without an end.
pub(super) fn disturbed() -> Fault {
    Fault::Refused("has something else that keeps writing under this prefix".to_owned())
}
