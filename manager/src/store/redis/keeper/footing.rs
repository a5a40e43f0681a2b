//! The footing: how it is lost and won again.

use std::time::Duration;

use peer_table::StoreId;
use tokio::time::{Instant, sleep_until};
use udht_tell::chain;

use super::super::super::{Change, StoreError};
use super::super::connection::{Connection, PATIENCE, pipeline};
use super::super::fault::Fault;
use super::super::layout::{Look, Standing};
use super::super::opening::{PAUSE_MAX, PAUSE_MIN, TRIES, disturbed};
use super::super::replies::Executed;
use super::{Doubt, Keeper};

/// The way to the store, as readers need it.
#[derive(Clone)]
pub(in crate::store::redis) enum Link {
    /// It can be read.
    Up {
        connection: Connection,
        store: StoreId,
        /// Whether the last transaction of unknown outcome turned out to be stored.
        stored: Option<bool>,
    },
    /// It cannot be reached or used.
    Down { since: Instant, error: StoreError },
    /// It is not what it was, and is to be opened anew.
    Changed { error: StoreError },
}

/// How the keeper stands.
pub(super) enum Footing {
    Up {
        connection: Connection,
        /// Whether the lock was written by this connection.
        locked: bool,
        /// Whether the last look was good and nothing was done since.
        looked: bool,
    },
    Down {
        since: Instant,
        fault: Fault,
        next_try: Instant,
        pause: Duration,
    },
    Changed {
        change: Change,
        connection: Option<Connection>,
    },
}

impl Keeper {
    pub(super) fn error(&self, fault: Fault) -> StoreError {
        fault.in_use(&self.opener.name())
    }

    pub(super) fn forget_look(&mut self) {
        if let Footing::Up { looked, .. } = &mut self.footing {
            *looked = false;
        }
    }

    /// Looks at the store.
    pub(super) async fn look(&mut self, connection: &Connection) -> Result<(), Fault> {
        let mut commands = pipeline();
        self.standing.ask(&self.opener.keys, &mut commands);
        let mut replies = connection.ask(&commands, PATIENCE).await?;
        let look = self.standing.read(&mut replies)?;
        self.note(&look, connection)
    }

    /// Compares a look with what should be seen, and notes it.
    pub(super) fn note(&mut self, look: &Look, connection: &Connection) -> Result<(), Fault> {
        let is_locked = look.lock.as_ref() == Some(&self.opener.lock(connection));
        if let Some(doubt) = self.doubt.take() {
            if !is_locked {
                // What is in doubt may still be done.
                self.doubt = Some(doubt);
                return Err(Fault::Refused("does not let the lock be taken".to_owned()));
            }
            let is_stored = match &doubt {
                Doubt::Commit(_) => look.commits == self.standing.commits + 1,
                // What was looked at is the store that it was.
                Doubt::Switch(_) => false,
            };
            if is_stored && let Doubt::Commit(commit) = &doubt {
                self.standing.written(commit, None);
            }
            self.stored = Some(is_stored);
            tracing::warn!(is_stored, "found out about a write of unknown outcome");
        }
        self.standing.check(look)?;
        if let Footing::Up {
            connection: held,
            locked,
            looked,
        } = &mut self.footing
            && held.is(connection)
        {
            *locked = is_locked;
            *looked = true;
        }
        Ok(())
    }

    /// Takes the lock for `connection`, unless another living manager has it.
    pub(super) async fn take_lock(&mut self, connection: &Connection) -> Result<(), Fault> {
        for _ in 0..TRIES {
            let mut commands = pipeline();
            self.standing.ask(&self.opener.keys, &mut commands);
            let mut replies = connection.ask(&commands, PATIENCE).await?;
            let look = match self.standing.read(&mut replies) {
                Err(Fault::Changed(Change::Swapped | Change::TakenOver))
                    if self.has_switched(connection).await? =>
                {
                    continue;
                }
                look => look?,
            };
            self.opener
                .check_free(look.lock.as_ref(), connection)
                .await?;
            let mut commands = pipeline();
            commands.cmd("MULTI");
            let own = self.opener.lock(connection).to_string();
            commands.cmd("SET").arg(self.opener.keys.lock()).arg(own);
            commands.cmd("EXEC");
            self.standing.ask(&self.opener.keys, &mut commands);
            let mut replies = connection.ask(&commands, PATIENCE).await?;
            if matches!(replies.executed(1)?, Executed::Done(_)) {
                let look = self.standing.read(&mut replies)?;
                return self.note(&look, connection);
            }
        }
        Err(disturbed())
    }

    /// Whether the transaction in doubt was a switch to another opening, and it is done: then that one
    /// is to be looked after.
    async fn has_switched(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let Some(Doubt::Switch(next)) = &self.doubt else {
            return Ok(false);
        };
        let mut commands = pipeline();
        next.ask(&self.opener.keys, &mut commands);
        let mut replies = connection.ask(&commands, PATIENCE).await?;
        match next.read(&mut replies) {
            Ok(_) => {}
            Err(Fault::Changed(_)) => return Ok(false),
            Err(fault) => return Err(fault),
        }
        self.standing = Standing::clone(next);
        self.doubt = None;
        self.stored = Some(true);
        tracing::warn!("found out that the store is at its next opening");
        Ok(true)
    }

    /// Gives the footing up.
    pub(super) fn trip(&mut self, fault: Fault) {
        let now = Instant::now();
        self.footing = match (&self.footing, fault) {
            (Footing::Up { connection, .. }, Fault::Changed(change)) => Footing::Changed {
                change,
                connection: Some(connection.clone()),
            },
            (_, Fault::Changed(change)) => Footing::Changed {
                change,
                connection: None,
            },
            (Footing::Changed { change, .. }, _) => Footing::Changed {
                change: *change,
                connection: None,
            },
            (Footing::Up { .. }, fault) => {
                tracing::warn!(error = chain(&self.error(fault.clone())), "lost the store");
                // Silence has lasted for a while already, so nobody waits any longer.
                let silence = if matches!(fault, Fault::Silent(_)) {
                    PATIENCE
                } else {
                    Duration::ZERO
                };
                Footing::Down {
                    since: now.checked_sub(silence).unwrap_or(now),
                    fault,
                    next_try: now,
                    pause: PAUSE_MIN,
                }
            }
            (Footing::Down { since, pause, .. }, fault) => Footing::Down {
                since: *since,
                fault,
                next_try: now + *pause,
                pause: (*pause * 2).min(PAUSE_MAX),
            },
        };
        self.publish();
    }

    /// Tries to win it again.
    pub(super) async fn resume(&mut self) {
        match self.try_resume().await {
            Ok((connection, locked)) => {
                tracing::info!(url = %self.opener.url, "the store is there again");
                self.footing = Footing::Up {
                    connection,
                    locked,
                    looked: locked,
                };
                self.publish();
            }
            Err(fault) => self.trip(fault),
        }
    }

    async fn try_resume(&mut self) -> Result<(Connection, bool), Fault> {
        let connection = self.opener.connect().await?;
        match self.take_lock(&connection).await {
            Ok(()) => Ok((connection, true)),
            // No writes are taken. If nothing is in doubt it can be read all the same.
            Err(Fault::Refused(_)) if self.doubt.is_none() => {
                self.look(&connection).await?;
                Ok((connection, false))
            }
            Err(fault) => Err(fault),
        }
    }

    /// A connection to read by, which is waited for only while it has just been lost.
    pub(super) async fn reachable(&mut self) -> Result<Connection, StoreError> {
        loop {
            match &self.footing {
                Footing::Up { connection, .. } => return Ok(connection.clone()),
                Footing::Changed { change, .. } => {
                    return Err(self.error(Fault::Changed(*change)));
                }
                Footing::Down { since, fault, .. } if since.elapsed() >= PATIENCE => {
                    return Err(self.error(fault.clone()));
                }
                Footing::Down { next_try, .. } => {
                    sleep_until(*next_try).await;
                    self.resume().await;
                }
            }
        }
    }

    /// A connection to write by, with the lock, right after a good look.
    pub(super) async fn writable(&mut self) -> Result<Connection, StoreError> {
        loop {
            let connection = self.reachable().await?;
            let Footing::Up { locked, looked, .. } = self.footing else {
                continue;
            };
            let done = match (locked, looked) {
                (true, true) => return Ok(connection),
                (true, false) => self.look(&connection).await,
                (false, _) => self.take_lock(&connection).await,
            };
            match done {
                Ok(()) => {}
                Err(fault @ Fault::Refused(_)) => return Err(self.error(fault)),
                Err(fault) => self.trip(fault),
            }
        }
    }

    pub(super) fn publish(&self) {
        self.link.send_replace(match &self.footing {
            Footing::Up { connection, .. } => Link::Up {
                connection: connection.clone(),
                store: self.standing.opening.store,
                stored: self.stored,
            },
            Footing::Down { since, fault, .. } => Link::Down {
                since: *since,
                error: self.error(fault.clone()),
            },
            Footing::Changed { change, .. } => Link::Changed {
                error: self.error(Fault::Changed(*change)),
            },
        });
    }
}
