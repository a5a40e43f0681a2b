//! The task that keeps connection and lock, looks after the store, and does all that is written.
//!
//! Everything happens one after the other here, so that what the store should be like is always
//! known: how many transactions it has had, and how many records each table has. Each transaction is
//! sent together with the next look, and each second without one there is a look alone. A look puts
//! what it sees under a watch, so between a good look and the next transaction nothing can change
//! unnoticed: that transaction is then not done.
//!
//! When the connection breaks while a transaction is under way, nobody knows whether it was done, or
//! still will be: its commands may lie in a buffer. By the new connection the lock is written first,
//! which the old one watches; from then on its transaction can only be done already or never. The
//! number of transactions then tells which.

mod footing;

use std::sync::Arc;
use std::time::Duration;

use peer_table::{OriginId, Reading, TableName};
use redis::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::super::{Change, Commit, Draw, Opening, StoreError};
use super::connection::{Connection, PATIENCE, patience, pipeline};
use super::fault::Fault;
use super::layout::{Standing, parts};
use super::opening::{Opener, TRIES, disturbed};
use super::replies::Executed;
use footing::Footing;
pub(super) use footing::Link;

/// How often the store is looked at while nothing is written.
const BEAT: Duration = Duration::from_secs(1);

/// What the keeper is asked to do.
pub(super) enum Job {
    Commit {
        commit: Commit,
        answer: Answer<()>,
    },
    /// Look whether the store is as it was left, with this table from now on.
    Check {
        table: Option<TableName>,
        answer: Answer<()>,
    },
    Reopen {
        draw: Draw,
        answer: Answer<Opening>,
    },
    Switch {
        to: Switch,
        answer: Answer<Opening>,
    },
}

/// To which opening a store is switched in place of a commit.
#[derive(Clone, Debug)]
pub(super) enum Switch {
    /// The first of the store that begins anew so.
    StartOver(Draw, Vec<u8>),
    /// The next under this id, with this last reading.
    Renew(OriginId, Reading),
}

/// A transaction of which nobody knows whether it was done.
enum Doubt {
    Commit(Commit),
    /// How the store stands if it was.
    Switch(Box<Standing>),
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) struct Keeper {
    opener: Arc<Opener>,
    standing: Standing,
    doubt: Option<Doubt>,
    /// Whether the last transaction that was in doubt turned out to be done.
    stored: Option<bool>,
    footing: Footing,
    link: watch::Sender<Link>,
    jobs: mpsc::Receiver<Job>,
}

impl Keeper {
    /// A keeper of the store that was just opened by `connection`.
    pub(super) fn new(
        opener: Arc<Opener>,
        connection: Connection,
        standing: Standing,
        jobs: mpsc::Receiver<Job>,
    ) -> (Self, watch::Receiver<Link>) {
        let up = Link::Up {
            connection: connection.clone(),
            store: standing.opening.store,
            stored: None,
        };
        let (link, links) = watch::channel(up);
        let keeper = Self {
            opener,
            standing,
            doubt: None,
            stored: None,
            footing: Footing::Up {
                connection,
                locked: true,
                looked: false,
            },
            link,
            jobs,
        };
        (keeper, links)
    }

    /// Works until nobody is left to ask for anything.
    pub(super) async fn run(mut self) {
        loop {
            let beat = Instant::now() + BEAT;
            match &self.footing {
                Footing::Up { connection, .. } => {
                    let connection = connection.clone();
                    tokio::select! {
                        biased;
                        job = self.jobs.recv() => match job {
                            Some(job) => self.work(job).await,
                            None => return,
                        },
                        () = connection.closed() => {
                            self.trip(Fault::Lost("closed the connection; see that it runs".to_owned()));
                        }
                        () = sleep_until(beat) => self.beat().await,
                    }
                }
                Footing::Down { next_try, .. } => {
                    let next_try = *next_try;
                    tokio::select! {
                        () = sleep_until(next_try) => self.resume().await,
                        job = self.jobs.recv() => match job {
                            Some(job) => self.work(job).await,
                            None => return,
                        },
                    }
                }
                Footing::Changed { .. } => match self.jobs.recv().await {
                    Some(job) => self.work(job).await,
                    None => return,
                },
            }
        }
    }

    async fn work(&mut self, job: Job) {
        // Who stopped waiting does not need the answer.
        match job {
            Job::Commit { commit, answer } => drop(answer.send(self.commit(commit).await)),
            Job::Check { table, answer } => drop(answer.send(self.check(table).await)),
            Job::Reopen { draw, answer } => drop(answer.send(self.reopen(draw).await)),
            Job::Switch { to, answer } => drop(answer.send(self.switch(to).await)),
        }
    }

    /// Looks at the store, as nobody wants anything of it.
    async fn beat(&mut self) {
        let Footing::Up {
            connection, locked, ..
        } = &self.footing
        else {
            return;
        };
        let (connection, locked) = (connection.clone(), *locked);
        let done = if locked {
            self.look(&connection).await
        } else {
            self.take_lock(&connection).await
        };
        match done {
            // It can still be read.
            Ok(()) | Err(Fault::Refused(_)) => {}
            Err(fault) => self.trip(fault),
        }
    }

    async fn check(&mut self, table: Option<TableName>) -> Result<(), StoreError> {
        if let Some(table) = table {
            self.standing.records.entry(table).or_insert(None);
        }
        let connection = self.reachable().await?;
        if let Err(fault) = self.look(&connection).await {
            self.trip(fault.clone());
            return Err(self.error(fault));
        }
        Ok(())
    }

    async fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let started = Instant::now();
        if commit.is_empty() {
            return Ok(());
        }
        let written = commit.records.iter().map(|(_, records)| records.len());
        let removed = commit.removed.iter().map(|(_, keys)| keys.len());
        let records = written.chain(removed).sum();
        for (table, _) in parts(&commit) {
            if !self.standing.records.contains_key(table) {
                self.standing.records.insert(table.clone(), None);
                self.forget_look();
            }
        }
        for _ in 0..TRIES {
            let connection = self.writable().await?;
            let mut commands = pipeline();
            commands.cmd("MULTI");
            let written = self
                .standing
                .write(&self.opener.keys, &commit, &mut commands);
            commands.cmd("EXEC");
            self.standing.ask(&self.opener.keys, &mut commands);
            self.forget_look();
            let mut replies = match connection.ask(&commands, patience(records)).await {
                Ok(replies) => replies,
                Err(fault) => {
                    let doubt = Doubt::Commit(commit.clone());
                    if self.doubtful(doubt, fault, started).await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            match replies.executed(written) {
                Ok(Executed::Done(results)) => {
                    self.standing.written(&commit, Some(&results));
                    let is_whole = !results.iter().any(|it| matches!(it, Value::ServerError(_)));
                    let look = self.standing.read(&mut replies);
                    match look.and_then(|look| self.note(&look, &connection)) {
                        Ok(()) if is_whole => return Ok(()),
                        // Only what is of another type than it was under the watch does that.
                        Ok(()) => self.trip(Fault::Changed(Change::Meddled)),
                        Err(fault) => self.trip(fault),
                    }
                    // What comes now is about the next one.
                    return if is_whole {
                        Ok(())
                    } else {
                        Err(self.error(Fault::Changed(Change::Meddled)))
                    };
                }
                Ok(Executed::Disturbed) => {
                    let look = self.standing.read(&mut replies);
                    if let Err(fault) = look.and_then(|look| self.note(&look, &connection)) {
                        self.trip(fault.clone());
                        return Err(self.error(fault));
                    }
                }
                Err(fault) => {
                    if fault.ends_connection() {
                        self.trip(fault.clone());
                    }
                    return Err(self.error(fault));
                }
            }
        }
        Err(self.error(disturbed()))
    }

    async fn switch(&mut self, to: Switch) -> Result<Opening, StoreError> {
        let started = Instant::now();
        for _ in 0..TRIES {
            let connection = self.writable().await?;
            let next = match &to {
                Switch::StartOver(draw, floors) => {
                    self.standing.started_over(draw.clone(), floors.clone())
                }
                Switch::Renew(origin, last) => self.standing.renewed(*origin, *last),
            };
            let Some(next) = next else {
                return Err(self.error(Fault::Unusable(
                    "had the ids drawn for its next opening before; draw others".to_owned(),
                )));
            };
            let mut commands = pipeline();
            commands.cmd("MULTI");
            let keys = &self.opener.keys;
            let written = match &to {
                Switch::StartOver(..) => self.standing.start_over(keys, &next, &mut commands),
                Switch::Renew(..) => Standing::renew(keys, &next, &mut commands),
            };
            commands.cmd("EXEC");
            self.forget_look();
            let mut replies = match connection.ask(&commands, PATIENCE).await {
                Ok(replies) => replies,
                Err(fault) => {
                    let doubt = Doubt::Switch(Box::new(next));
                    if self.doubtful(doubt, fault, started).await? {
                        return Ok(self.standing.opening.clone());
                    }
                    continue;
                }
            };
            match replies.executed(written) {
                Ok(Executed::Done(_)) => {
                    let opening = next.opening.clone();
                    self.standing = next;
                    self.publish();
                    return Ok(opening);
                }
                // The next look says whether the store is what it was.
                Ok(Executed::Disturbed) => {}
                Err(fault) => {
                    if fault.ends_connection() {
                        self.trip(fault.clone());
                    }
                    return Err(self.error(fault));
                }
            }
        }
        Err(self.error(disturbed()))
    }

    /// Finds out what became of a transaction, as far as that goes at once: whether it is stored.
    async fn doubtful(
        &mut self,
        doubt: Doubt,
        fault: Fault,
        started: Instant,
    ) -> Result<bool, StoreError> {
        let is_silent = matches!(fault, Fault::Silent(_));
        self.doubt = Some(doubt);
        self.stored = None;
        self.trip(fault.clone());
        // After silence, a new connection is not better at once, and enough time has passed.
        while !is_silent && self.doubt.is_some() && started.elapsed() < PATIENCE {
            match &self.footing {
                Footing::Down { next_try, .. } => {
                    sleep_until(*next_try).await;
                    self.resume().await;
                }
                Footing::Changed { change, .. } => {
                    return Err(self.error(Fault::Changed(*change)));
                }
                Footing::Up { .. } => break,
            }
        }
        self.stored.ok_or_else(|| StoreError::OutcomeUnknown {
            store: self.opener.name(),
            problem: self.error(fault).to_string(),
        })
    }

    async fn reopen(&mut self, draw: Draw) -> Result<Opening, StoreError> {
        let open = match &self.footing {
            Footing::Up { connection, .. } => Some(connection),
            Footing::Changed { connection, .. } => connection.as_ref(),
            Footing::Down { .. } => None,
        };
        let open = open.filter(|connection| !connection.is_closed()).cloned();
        let opened = async {
            let connection = match open {
                Some(connection) => connection,
                None => self.opener.connect().await?,
            };
            let known = Some(&self.standing.opening);
            let standing = self
                .opener
                .open_on(&connection, &draw, known, &mut false)
                .await;
            Ok::<_, Fault>((connection, standing?))
        };
        match opened.await {
            Ok((connection, standing)) => {
                let opening = standing.opening.clone();
                self.standing = standing;
                self.doubt = None;
                self.stored = None;
                self.footing = Footing::Up {
                    connection,
                    locked: true,
                    looked: false,
                };
                self.publish();
                Ok(opening)
            }
            Err(fault) => {
                if let Footing::Changed { connection, .. } = &mut self.footing
                    && fault.ends_connection()
                {
                    *connection = None;
                }
                Err(self.error(fault))
            }
        }
    }
}
