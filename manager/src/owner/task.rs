//! The task: groups commands, writes them as one transaction, and keeps up with the store.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use peer_table::feed::Via;
use peer_table::floors::{Floors, Publication, Replicas, Snapshot};
use peer_table::history::Note;
use peer_table::opening::Draw;
use peer_table::peers::InvalidField;
use peer_table::table::{Changes, Entries, Merged, Plan, Row, WriteRefused};
use peer_table::{Binding, ClusterId, Entry, Key, OriginId, Reading, StoreId, Version, WallTime};
use udht_tell::chain;

use super::load::open_anew;
use super::pod::{BindRefused, Kept};
use super::{
    Answer, Command, MergedRecords, Operation, OwnerError, OwnerTask, Work, Write, WriteError,
    Written, put, wall_now,
};
use crate::store::{Change, Commit, StoreError, Stored};

/// Records after which a transaction takes no further command.
const GROUP_RECORDS_FULL: usize = 2_048;

impl Command {
    fn records(&self) -> usize {
        match self {
            Self::Write { writes, .. } => writes.len(),
            Self::Merge { records, .. } => records.len(),
            Self::Correct(keys) => keys.len(),
            Self::Bind { .. } | Self::Leave { .. } | Self::Floors(_) => 0,
        }
    }

    /// Whether it goes with no other in one group.
    const fn stands_alone(&self) -> bool {
        matches!(
            self,
            Self::Bind { .. } | Self::Leave { .. } | Self::Floors(_)
        )
    }

    pub(super) fn into_answer(self) -> AnyAnswer {
        match self {
            Self::Bind { answer, .. } => AnyAnswer::Bind(answer),
            Self::Leave { answer, .. } => AnyAnswer::Leave(answer),
            Self::Write { answer, .. } => AnyAnswer::Write(answer),
            Self::Merge { answer, .. } => AnyAnswer::Merge(answer),
            Self::Floors(command) => command.into_answer(),
            Self::Correct(_) => AnyAnswer::None,
        }
    }
}

impl OwnerTask {
    /// Serves commands until every handle is gone, or the store says that only a new start helps.
    pub async fn run(self) {
        let Self { work, reading } = self;
        let reading = async {
            reading.run().await;
            // What is written goes on.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = work.run() => {}
            () = reading => {}
        }
    }
}

impl Work {
    async fn run(mut self) {
        let store = Arc::clone(&self.shared.store);
        let mut changed = store.changed();
        loop {
            let first = tokio::select! {
                biased;
                error = &mut changed => {
                    if !self.reopen(error).await || !self.settle_doubt().await {
                        return;
                    }
                    changed = store.changed();
                    continue;
                }
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
            };
            let mut next = Some(first);
            while let Some(first) = next.take() {
                next = self.serve(first).await;
                if !self.settle_doubt().await {
                    return;
                }
            }
        }
    }

    /// Serves a command, with what waits behind it if that can be one group. The answer is the first
    /// one behind that cannot.
    async fn serve(&mut self, first: Command) -> Option<Command> {
        let first = match first {
            Command::Bind {
                binding,
                adopts,
                answer,
            } => {
                self.bind(binding, &adopts, answer).await;
                return None;
            }
            Command::Leave { for_good, answer } => {
                self.leave(for_good, answer).await;
                return None;
            }
            Command::Floors(command) => {
                self.floors(command).await;
                return None;
            }
            first => first,
        };
        let mut records = first.records();
        let mut group = vec![first];
        let mut behind = None;
        while records < GROUP_RECORDS_FULL {
            let Ok(next) = self.commands.try_recv() else {
                break;
            };
            if next.stands_alone() {
                behind = Some(next);
                break;
            }
            records += next.records();
            group.push(next);
        }
        // What was asked for before that was known.
        if let Some(closed) = self.shared.closed() {
            let writes = group.extract_if(.., |command| matches!(command, Command::Write { .. }));
            for write in writes {
                if let Command::Write { writes, .. } = &write {
                    self.shared.refused(writes, closed.refusal());
                }
                write.into_answer().refuse(closed.into());
            }
        }
        self.group(group).await;
        behind
    }

    /// Does a group of commands as one transaction.
    pub(super) async fn group(&mut self, group: Vec<Command>) {
        let now = wall_now();
        let (held, wrong) = match self.held(&group).await {
            Ok(held) => held,
            Err(error) => {
                self.shared.not_done(&group);
                return fail(group.into_iter().map(Command::into_answer), error);
            }
        };
        let (changes, decided) = {
            let shared = Arc::clone(&self.shared);
            let current = shared.current();
            let mut plan = current.table.plan(&mut self.clock, now, &held);
            let kept = shared.kept(&current.opening);
            let decided = group
                .into_iter()
                .map(|command| decide(&mut plan, command, &kept, now));
            let decided: Vec<_> = decided.collect();
            (plan.finish(), decided)
        };
        if let Err(error) = self.commit(changes).await {
            return fail(decided.into_iter().map(Decided::into_answer), error);
        }
        if let Err(error) = self.correct(wrong).await {
            tracing::warn!(
                error = chain(&error),
                "the index could not be brought in line with the store"
            );
        }
        self.publish_figures();
        for decided in decided {
            self.answer(decided);
        }
    }

    /// The held records that deciding `group` needs, and the keys of which the index may be wrong.
    async fn held(
        &self,
        group: &[Command],
    ) -> Result<(BTreeMap<Key, Entry>, Vec<Key>), StoreError> {
        let mut wrong: Vec<Key> = Vec::new();
        let mut held = BTreeMap::new();
        let mut rows: Vec<(Key, Version)> = {
            let current = self.shared.current();
            let table = &current.table;
            let is_live = |key: &Key| table.row(key).is_some_and(Row::is_live);
            let written = group.iter().flat_map(|command| match command {
                Command::Write { writes, .. } => writes.as_slice(),
                _ => &[],
            });
            let written = written
                .filter(|write| !matches!(write.operation, Operation::Delete))
                .map(|write| &write.key)
                .filter(|key| is_live(key));
            let merged = group.iter().flat_map(|command| match command {
                Command::Merge { records, .. } => records.as_slice(),
                _ => &[],
            });
            let merged = merged
                .filter(|(key, entry)| table.needs_content(key, entry))
                .map(|(key, _)| key);
            for command in group {
                if let Command::Correct(keys) = command {
                    wrong.extend_from_slice(keys);
                }
            }
            let rows = written.chain(merged).filter_map(|key| {
                let row = table.row(key)?;
                if let Some(entry) = self.shared.recent.get(key, row) {
                    held.insert(key.clone(), entry);
                    return None;
                }
                Some((key.clone(), row.version))
            });
            rows.collect()
        };
        rows.sort_unstable();
        rows.dedup();
        let found = self.shared.read(rows).await?;
        wrong.extend(found.wrong);
        held.extend(found.records.into_iter().flatten());
        Ok((held, wrong))
    }

    /// Looks whether what is stored under `keys` is what the index says, as it is while no transaction
    /// is under way. If not, it was damaged, or something else has written there: the index follows it,
    /// and as nobody knows what else is lost, this replica goes on as one that covers nothing. What it
    /// lacks, the next exchanges bring.
    async fn correct(&mut self, mut keys: Vec<Key>) -> Result<(), OwnerError> {
        if keys.is_empty() {
            return Ok(());
        }
        keys.sort_unstable();
        keys.dedup();
        let shared = Arc::clone(&self.shared);
        let call = shared.store.get_many(&shared.table_name, &keys);
        let stored = shared.metrics.store("read", call).await?;
        let wrong: Vec<_> = {
            let current = shared.current();
            let stored = keys.into_iter().zip(stored);
            let stored = stored.map(|(key, stored)| (key, stored.and_then(Stored::entry)));
            let is_wrong =
                |(key, stored): &(Key, Option<Entry>)| match (current.table.row(key), stored) {
                    (Some(row), Some(entry)) => !row.is_of(entry),
                    (row, stored) => row.is_some() || stored.is_some(),
                };
            stored.filter(is_wrong).collect()
        };
        if wrong.is_empty() {
            return Ok(());
        }
        self.cover_nothing().await?;
        let now = wall_now();
        let mut current = shared.change();
        for (key, stored) in wrong {
            let is_there = match stored {
                Some(entry) => current.table.load(&key, &entry, now).is_ok(),
                None => false,
            };
            if !is_there {
                current.table.forget(&key);
            }
            tracing::error!(
                peer_id = %key,
                "what is stored of it is not what was written; what it was comes from the peers"
            );
        }
        Ok(())
    }

    pub(super) async fn commit(&mut self, changes: Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            // What was heard of other replicas is known from now on all the same.
            self.apply(changes);
            return Ok(());
        }
        let shared = &self.shared;
        #[expect(clippy::cast_precision_loss, reason = "a histogram of a bounded count")]
        shared.metrics.group.observe(changes.entries.len() as f64);
        let commit = Commit {
            records: vec![(shared.table_name.clone(), Arc::clone(&changes.entries))],
            removed: vec![(shared.table_name.clone(), changes.removed.clone())],
            stamped: changes.stamped,
            ..Commit::default()
        };
        let call = shared.store.commit(commit);
        let committed = shared.metrics.store("commit", call).await;
        match committed {
            Ok(()) => self.apply(changes),
            Err(StoreError::OutcomeUnknown { .. }) => self.doubt = Some(Doubt::Changes(changes)),
            Err(_) => shared.not_stored(changes),
        }
        committed
    }

    /// Has the table do what the store has done, and wakes those who watch.
    fn apply(&self, mut changes: Changes) {
        let (notes, at) = (std::mem::take(&mut changes.notes), changes.at());
        let entries = Arc::clone(&changes.entries);
        let (own, revision) = {
            // Whoever looks at both sees them agree.
            let mut history = self.shared.history();
            history.note(notes, at);
            let mut current = self.shared.change();
            current.table.apply(changes);
            (current.opening.origin, current.table.feed().revision())
        };
        let written_here = entries.iter().filter(|(_, it)| it.version.origin == own);
        for (key, entry) in written_here.filter(|(_, it)| it.is_live()) {
            self.shared.recent.put(key.clone(), entry.clone());
        }
        self.shared.revision.send_replace(revision);
    }

    /// Settles what is in doubt, if anything is. Answers whether to go on.
    async fn settle_doubt(&mut self) -> bool {
        match self.doubt.take() {
            Some(doubt) => self.settle(doubt).await,
            None => true,
        }
    }

    /// Waits until it is known whether what is in doubt is stored, and then does the same. Answers
    /// whether to go on.
    async fn settle(&mut self, doubt: Doubt) -> bool {
        let store = Arc::clone(&self.shared.store);
        let mut settling = store.settle();
        let settled = loop {
            tokio::select! {
                settled = &mut settling => break settled,
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.shared.not_done(std::slice::from_ref(&command));
                        let problem = "whether the last write is stored is being found out: see \
                                       that the store runs";
                        let error = StoreError::Unavailable(problem.to_owned());
                        fail(std::iter::once(command.into_answer()), error);
                    }
                    None => return false,
                },
            }
        };
        match settled {
            Ok(true) => match doubt {
                Doubt::Changes(changes) => self.apply(changes),
                Doubt::Binding(binding, cluster) => self.bound(binding, cluster).await,
                Doubt::Floors(floors) => self.shared.change().table.set_floors(*floors),
                Doubt::Renewal(origin, last) => {
                    let opening = self.shared.current().opening.clone().renewed(origin, last);
                    if let Some(opening) = opening {
                        self.renewed(opening);
                    }
                }
                Doubt::Restamped(records) => self.restamped(&records),
                Doubt::StartOver(draw, floors) => {
                    let opening = self.shared.current().opening.clone();
                    if let Some(opening) = opening.started_over(*draw, floors)
                        && let Err(error) = self.started_over(opening)
                    {
                        tracing::error!(
                            error = chain(&error),
                            "the store cannot be used any more; stopping"
                        );
                        return false;
                    }
                }
            },
            // What it is now is read from it when it is opened anew.
            Ok(false) | Err(StoreError::Changed { .. }) => {
                if let Doubt::Changes(changes) = doubt {
                    self.shared.not_stored(changes);
                }
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "the store cannot be used any more; stopping"
                );
                return false;
            }
        }
        self.publish_figures();
        true
    }

    /// Opens the store anew, as it is not what it was, and reads the table from it. Answers whether
    /// to go on.
    async fn reopen(&mut self, error: StoreError) -> bool {
        tracing::error!(
            error = chain(&error),
            "the store changed under this manager"
        );
        let error = Arc::new(error);
        self.shared.change().over = Some(Arc::clone(&error));
        let shared = Arc::clone(&self.shared);
        let change = match &*error {
            StoreError::Changed { change, .. } => Some(*change),
            _ => None,
        };
        let mut opening = pin!(open_anew(&shared, change));
        let (current, highest) = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                command = self.commands.recv() => match command {
                    Some(command) => {
                        shared.not_done(std::slice::from_ref(&command));
                        let error = StoreError::clone(&error);
                        fail(std::iter::once(command.into_answer()), error);
                    }
                    None => return false,
                },
            }
        };
        let opening = &current.opening;
        let highest = self.clock.last().max(highest);
        self.clock = opening.clock(highest, shared.drift_max);
        tracing::warn!(
            store = %opening.store,
            records = current.table.live() + current.table.tombstones(),
            "the store is open anew; what it lacks comes from the peers"
        );
        let revision = current.table.feed().revision();
        *shared.change() = current;
        if let Some(change) = change {
            shared.metrics.reopened(change);
        }
        if change == Some(Change::Meddled) {
            // A start must not find the floors of before.
            let floors = shared.current().table.floors().clone();
            if let Err(error) = self.store_floors(floors).await {
                tracing::warn!(
                    error = chain(&error),
                    "what became of the floors is not stored yet"
                );
            }
        }
        self.publish_figures();
        shared.revision.send_replace(revision);
        true
    }

    /// Answers what is stored now. Who no longer waits for the answer has no use for it.
    fn answer(&self, decided: Decided) {
        let metrics = &self.shared.metrics;
        match decided {
            Decided::Write { results, answer } => {
                for result in &results {
                    let word = result.as_ref().map_or_else(WriteError::word, |_| "written");
                    metrics.writes.with_label_values(&[word]).inc();
                }
                let _ = answer.send(Ok(results));
            }
            Decided::Merge {
                results,
                stamped,
                via,
                answer,
            } => {
                let now = wall_now().as_millis();
                for (merged, stamped) in results.outcomes.iter().zip(stamped) {
                    metrics.merged(via, *merged);
                    if *merged == Merged::Applied {
                        let delay = now.saturating_sub(stamped.as_millis());
                        let delay = Duration::from_millis(delay);
                        metrics.replication_delay.observe(delay.as_secs_f64());
                    }
                }
                let _ = answer.send(Ok(results));
            }
            Decided::Nothing => {}
        }
    }

    pub(super) fn publish_figures(&self) {
        let shared = &self.shared;
        let (live, tombstones, is_bound) = {
            let current = shared.current();
            let is_bound = current.opening.binding.is_some();
            (current.table.live(), current.table.tombstones(), is_bound)
        };
        shared.metrics.bound.set(i64::from(is_bound));
        let name = shared.table_name.as_str();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        shared
            .metrics
            .records
            .with_label_values(&[name])
            .set(gauge(live));
        shared
            .metrics
            .tombstones
            .with_label_values(&[name])
            .set(gauge(tombstones));
        let clock = self.clock.last().wall().as_millis();
        let ahead = clock.saturating_sub(wall_now().as_millis());
        shared
            .metrics
            .clock_ahead
            .set(Duration::from_millis(ahead).as_secs_f64());
    }
}

/// What may be stored or not.
pub(super) enum Doubt {
    Changes(Changes),
    /// That the store is bound so, with the cluster's whole id.
    Binding(Binding, ClusterId),
    /// These floors.
    Floors(Box<Floors>),
    /// That the store was begun anew so.
    StartOver(Box<Draw>, Vec<u8>),
    /// That it is at its next opening, under this id and with this last reading.
    Renewal(OriginId, Reading),
    /// These records, stamped anew.
    Restamped(Arc<Entries>),
}

/// A command that was decided, and waits for the store.
enum Decided {
    Write {
        results: Vec<Result<Written, WriteError>>,
        answer: Answer<Vec<Result<Written, WriteError>>>,
    },
    Merge {
        results: MergedRecords,
        stamped: Vec<WallTime>,
        via: Via,
        answer: Answer<MergedRecords>,
    },
    Nothing,
}

impl Decided {
    fn into_answer(self) -> AnyAnswer {
        match self {
            Self::Write { answer, .. } => AnyAnswer::Write(answer),
            Self::Merge { answer, .. } => AnyAnswer::Merge(answer),
            Self::Nothing => AnyAnswer::None,
        }
    }
}

/// Where the answer to a command goes, whichever it was.
pub(super) enum AnyAnswer {
    Write(Answer<Vec<Result<Written, WriteError>>>),
    Merge(Answer<MergedRecords>),
    Snapshot(Answer<Snapshot>),
    Join(Answer<Replicas>),
    Advance(Answer<bool>),
    Tend(Answer<Option<Publication>>),
    GiveUp(Answer<Option<OriginId>>),
    StartOver(Answer<StoreId>),
    HealClock(Answer<usize>),
    StoreAgain(Answer<()>),
    Bind(Answer<Result<(), BindRefused>>),
    Leave(Answer<bool>),
    None,
}

impl AnyAnswer {
    /// Says that it was not done, to whoever still waits.
    fn refuse(self, error: OwnerError) {
        match self {
            Self::Write(answer) => drop(answer.send(Err(error))),
            Self::Merge(answer) => drop(answer.send(Err(error))),
            Self::Snapshot(answer) => drop(answer.send(Err(error))),
            Self::Join(answer) => drop(answer.send(Err(error))),
            Self::Advance(answer) | Self::Leave(answer) => drop(answer.send(Err(error))),
            Self::Tend(answer) => drop(answer.send(Err(error))),
            Self::GiveUp(answer) => drop(answer.send(Err(error))),
            Self::StartOver(answer) => drop(answer.send(Err(error))),
            Self::HealClock(answer) => drop(answer.send(Err(error))),
            Self::StoreAgain(answer) => drop(answer.send(Err(error))),
            Self::Bind(answer) => drop(answer.send(Err(error))),
            Self::None => {}
        }
    }
}

/// Says to each that it was not done, or that nobody knows.
pub(super) fn fail(answers: impl ExactSizeIterator<Item = AnyAnswer>, error: StoreError) {
    let commands = answers.len();
    tracing::error!(
        error = chain(&error),
        commands,
        "the store does not do what it is asked"
    );
    let error = Arc::new(error);
    for answer in answers {
        answer.refuse(OwnerError::Store(Arc::clone(&error)));
    }
}

fn decide(plan: &mut Plan<'_>, command: Command, kept: &Kept<'_>, now: WallTime) -> Decided {
    match command {
        Command::Write { writes, answer } => {
            let results = writes.into_iter().map(|write| {
                let key = write.key.clone();
                let result = decide_write(plan, write, kept, now);
                if let Err(error) = &result {
                    plan.note(Note::write_refused(key, error.into()));
                }
                result
            });
            let results = results.collect();
            Decided::Write { results, answer }
        }
        Command::Merge {
            records,
            via,
            session,
            from,
            answer,
        } => {
            plan.sent_by(from, records.len());
            let stamped = records
                .iter()
                .map(|(_, entry)| entry.version.reading.wall())
                .collect();
            let merge = |(key, entry)| plan.merge(&key, entry, via, session);
            let outcomes = records.into_iter().map(merge).collect();
            let results = MergedRecords {
                outcomes,
                answers: plan.take_answers(),
            };
            Decided::Merge {
                results,
                stamped,
                via,
                answer,
            }
        }
        // The others stand alone, and never come here.
        Command::Correct(_) | Command::Bind { .. } | Command::Leave { .. } | Command::Floors(_) => {
            Decided::Nothing
        }
    }
}

fn decide_write(
    plan: &mut Plan<'_>,
    write: Write,
    kept: &Kept<'_>,
    now: WallTime,
) -> Result<Written, WriteError> {
    let Write {
        key,
        precondition,
        operation,
    } = write;
    let (key, precondition) = (&key, &precondition);
    let created = plan.live_version(key).is_none();
    let entry = match operation {
        Operation::Put(draft) => put(plan, key, precondition, draft, kept, now)?,
        Operation::Patch(patch) => {
            plan.demand(key, precondition)?;
            if created {
                return Err(WriteRefused::Absent.into());
            }
            let held = plan.live_entry(key).ok_or(WriteRefused::Unreadable)?;
            let body = patch.apply(key, held)?;
            if body.peer_id.is_none_or(|id| id != *key) {
                return Err(InvalidField::fixed_id(key).into());
            }
            put(plan, key, precondition, body.draft, kept, now)?
        }
        Operation::Delete => plan.delete(key, precondition)?,
        Operation::Contact(contact) => plan.contact(key, contact)?,
    };
    Ok(Written { entry, created })
}
