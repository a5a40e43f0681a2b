//! Floors as the owner keeps them: what is swapped with other replicas before any record, what an
//! exchange of ours brought, and which tombstones leave.
//!
//! What becomes of the floors is stored before anybody is told of it, and before a tombstone leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_table::contract::{State, StateRequest, WireHorizon};
use peer_table::floors::{
    Evidence, Fence, Floors, HeldBack, Joined, Me, Publication, Replicas, Snapshot,
};
use peer_table::opening::Opening;
use peer_table::table::{Changes, SessionId};
use peer_table::{OriginId, Reading, StoreId, Table, WallTime};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::clock::OwnClock;
use super::load;
use super::pod::known_as;
use super::task::{AnyAnswer, Doubt, fail};
use super::{Answer, Command, Current, Owner, OwnerError, Shared, Work, spec, wall_now};
use crate::metrics::FloorsFigures;
use crate::store::{Commit, StoreError, draw};

/// Tombstones that leave in one transaction at the most.
const COLLECTED_AT_ONCE: usize = 2_048;

/// What concerns floors: each stands alone.
pub(super) enum FloorsCommand {
    /// What this replica has, for a partner that begins an exchange.
    Snapshot(Answer<Snapshot>),
    /// What another replica knows of all replicas.
    Join(Replicas, Answer<Replicas>),
    /// All that the partner of an exchange of ours had is here.
    Advance(SessionId, Snapshot, Answer<bool>),
    /// The floors are to be looked after.
    Tend(Evidence, OwnClock, Answer<Option<Publication>>),
    /// Somebody says that a replica will not come back.
    GiveUp(StoreId, Answer<Option<OriginId>>),
    /// This replica is to start over.
    StartOver(Answer<StoreId>),
    /// What a wrong clock stamped is to be stamped anew.
    HealClock(Answer<usize>),
    /// The floors are to be stored as they are: a write that changes nothing.
    StoreAgain(Answer<()>),
}

impl FloorsCommand {
    pub(super) fn into_answer(self) -> AnyAnswer {
        match self {
            Self::Snapshot(answer) => AnyAnswer::Snapshot(answer),
            Self::Join(_, answer) => AnyAnswer::Join(answer),
            Self::Advance(_, _, answer) => AnyAnswer::Advance(answer),
            Self::Tend(_, _, answer) => AnyAnswer::Tend(answer),
            Self::GiveUp(_, answer) => AnyAnswer::GiveUp(answer),
            Self::StartOver(answer) => AnyAnswer::StartOver(answer),
            Self::HealClock(answer) => AnyAnswer::HealClock(answer),
            Self::StoreAgain(answer) => AnyAnswer::StoreAgain(answer),
        }
    }
}

/// What was last said of the other replicas, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Tending {
    /// See [`Evidence::has_strangers`].
    pub has_strangers: bool,
    /// Nobody is fenced, and no tombstone leaves: discovery cannot be relied on.
    pub is_braked: bool,
    /// Nobody is given up, as more than half of the others are silent.
    pub is_mass_silence: bool,
    /// When that was; `None` while nobody has looked after the floors.
    pub at: Option<WallTime>,
}

/// What is known of all replicas, for those who look.
#[derive(Clone, Debug)]
pub struct ReplicasView {
    /// What is known.
    pub floors: Floors,
    /// What was last said of them.
    pub tending: Tending,
    /// With whom this replica has given each other up.
    pub mutual: Vec<OriginId>,
    /// Tombstones that are held.
    pub tombstones: usize,
    /// What keeps the first of these, if anything does.
    pub held_back: Option<HeldBack>,
    /// The last opening of the store.
    pub opening: Opening,
}

impl Owner {
    /// Who this replica is and how its table stands, as an exchange asks for it.
    pub async fn state_for(&self, request: StateRequest) -> Result<State, OwnerError> {
        let without = request
            .without
            .as_ref()
            .map(WireHorizon::read)
            .transpose()?;
        let gives = request.give_snapshot && {
            let current = self.shared.keyed()?;
            current.table.tombstones() > 0 || without.is_some()
        };
        let snapshot = if gives {
            Some(self.floors(FloorsCommand::Snapshot).await?)
        } else {
            None
        };
        let symbols = usize::try_from(request.symbols).unwrap_or(usize::MAX);
        let session = if request.begin_session {
            drop(self.shared.keyed()?);
            Some(self.shared.change().table.begin_session())
        } else {
            None
        };
        let current = self.shared.keyed()?;
        let Current {
            opening,
            cluster,
            table,
            ..
        } = &*current;
        let state = State::of(cluster, opening, table, symbols, without.as_ref());
        let state = State {
            snapshot: snapshot.as_ref().map(Into::into),
            ..state
        };
        Ok(match session {
            Some(session) => state.begun(session, table.floors()),
            None => state,
        })
    }

    /// Takes in what another replica knows of all replicas, and tells what is known here.
    pub async fn join(&self, theirs: Replicas) -> Result<Replicas, OwnerError> {
        if theirs == Replicas::default() {
            let current = self.shared.keyed()?;
            return Ok(Replicas::of(current.table.floors(), true));
        }
        self.floors(|answer| FloorsCommand::Join(theirs, answer))
            .await
    }

    /// Notes that an exchange of ours brought all that its partner had; whether that came to anything.
    pub async fn advance(&self, session: SessionId, partner: Snapshot) -> Result<bool, OwnerError> {
        self.floors(|answer| FloorsCommand::Advance(session, partner, answer))
            .await
    }

    /// Looks after the floors; the answer is what all others are to be told. `clock` is what is known
    /// of this machine's clock.
    pub async fn tend(
        &self,
        evidence: Evidence,
        clock: OwnClock,
    ) -> Result<Option<Publication>, OwnerError> {
        let clock = self.shared.note_clock(clock);
        self.floors(|answer| FloorsCommand::Tend(evidence, clock, answer))
            .await
    }

    /// Gives up a replica that will not come back, on somebody's word. `None` if none of that store
    /// is known that may still write.
    pub async fn give_up(&self, store: StoreId) -> Result<Option<OriginId>, OwnerError> {
        self.floors(|answer| FloorsCommand::GiveUp(store, answer))
            .await
    }

    /// Starts over with an empty table that the peers fill, on somebody's word; the answer is the new
    /// id of the store.
    pub async fn start_over(&self) -> Result<StoreId, OwnerError> {
        self.floors(FloorsCommand::StartOver).await
    }

    /// Writes what changes nothing, where the last write failed: whether it would fail again, the
    /// figures then say.
    pub async fn retry_commit(&self) {
        if self.shared.metrics.commit_failed().is_some() {
            drop(self.floors(FloorsCommand::StoreAgain).await);
        }
    }

    /// What is known of all replicas.
    pub fn replicas(&self) -> ReplicasView {
        let current = self.shared.current();
        let (table, tending) = (&current.table, self.shared.tending());
        ReplicasView {
            floors: table.floors().clone(),
            held_back: table.held_back(tending.has_strangers),
            tombstones: table.tombstones(),
            mutual: self.shared.mutual.list(table.floors(), wall_now()),
            opening: current.opening.clone(),
            tending,
        }
    }

    pub(super) async fn floors<T>(
        &self,
        command: impl FnOnce(Answer<T>) -> FloorsCommand,
    ) -> Result<T, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Floors(command(answer))).await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }
}

impl Shared {
    pub(super) fn tending(&self) -> Tending {
        let tending = self.tending.lock();
        tending
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set_tending(&self, tending: Tending) {
        *self
            .tending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = tending;
    }

    fn show_mutual(&self) {
        let parties = self.mutual.list(self.current().table.floors(), wall_now());
        let is_mutual = !parties.is_empty();
        self.metrics.floors.mutual.set(i64::from(is_mutual));
    }

    /// Shows the floors in the figures.
    pub(super) fn publish_floors(&self) {
        let tending = self.tending();
        let figures = {
            let current = self.current();
            let (table, floors) = (&current.table, current.table.floors());
            let held_back = table.held_back(tending.has_strangers);
            let own = floors.publication(floors.own());
            let age = table.first_tombstone().map(|first| {
                // While the floor is not known, nobody waits for longer than the first of them does.
                let since = own.map_or(first, |own| own.floor.wall().max(first));
                wall_now().as_millis().saturating_sub(since.as_millis())
            });
            let store_of = |id| floors.publication(id).map(|it| it.store.to_string());
            FloorsFigures {
                live: floors.ids().unfenced().count(),
                fenced: floors.ids().fenced().count(),
                age: age.map(Duration::from_millis),
                held_back: held_back.map(|held_back| {
                    let replica = held_back
                        .by()
                        .map(|id| store_of(id).unwrap_or(id.to_string()));
                    (held_back, replica.unwrap_or_default())
                }),
                is_braked: tending.is_braked,
                is_mass_silence: tending.is_mass_silence,
            }
        };
        self.metrics.floors.show(&figures);
        self.show_mutual();
    }
}

impl Work {
    pub(super) async fn floors(&mut self, command: FloorsCommand) {
        match command {
            FloorsCommand::Snapshot(answer) => {
                let snapshot = self
                    .shared
                    .change()
                    .table
                    .snapshot(&mut self.clock, wall_now());
                // Who no longer waits for the answer has no use for it.
                drop(answer.send(Ok(snapshot)));
            }
            FloorsCommand::Join(theirs, answer) => {
                let joined = self.join(&theirs).await;
                reply(answer, joined, AnyAnswer::Join);
            }
            FloorsCommand::Advance(session, partner, answer) => {
                let advanced = self.advance(session, &partner).await;
                reply(answer, advanced, AnyAnswer::Advance);
            }
            FloorsCommand::Tend(evidence, clock, answer) => {
                let tended = self.tend(&evidence).await;
                let is_done = tended.is_ok();
                reply(answer, tended, AnyAnswer::Tend);
                if is_done {
                    self.mind_clock(clock).await;
                }
            }
            FloorsCommand::GiveUp(store, answer) => {
                let given_up = self.give_up(store).await;
                reply(answer, given_up, AnyAnswer::GiveUp);
            }
            FloorsCommand::StartOver(answer) => {
                let started = self.start_over("somebody asked for it").await;
                reply(answer, started, AnyAnswer::StartOver);
            }
            FloorsCommand::HealClock(answer) => {
                let healed = self.heal_clock().await;
                reply(answer, healed, AnyAnswer::HealClock);
            }
            FloorsCommand::StoreAgain(answer) => {
                let floors = self.shared.current().table.floors().clone();
                // That it fails still is no news for the log.
                drop(answer.send(self.store_floors(floors).await));
            }
        }
    }

    async fn join(&mut self, theirs: &Replicas) -> Result<Replicas, OwnerError> {
        let (mut floors, earlier) = {
            let current = self.shared.current();
            let earlier = current.opening.retired.clone();
            (current.table.floors().clone(), earlier)
        };
        let ages = self.shared.ages;
        let joined = floors.take(theirs, &earlier, ages, &mut self.clock, wall_now())?;
        match joined {
            Joined::Known => {}
            Joined::News => self.store_floors(floors).await?,
            // It goes anyway, and hands over what it has.
            Joined::GivenUp if self.shared.is_leaving() => {}
            Joined::GivenUp => {
                self.start_over("its peers have given it up").await?;
                return Err(OwnerError::StartedOver);
            }
            Joined::Mutual => {
                if let Some(teller) = theirs.teller()? {
                    self.shared.mutual.refused(teller, wall_now());
                    self.shared.show_mutual();
                }
                return Err(OwnerError::Mutual);
            }
        }
        Ok(Replicas::of(self.shared.current().table.floors(), true))
    }

    async fn advance(
        &mut self,
        session: SessionId,
        partner: &Snapshot,
    ) -> Result<bool, OwnerError> {
        if self.clock.observe(partner.reading, wall_now()).is_err() {
            return Ok(false);
        }
        let advanced = self.shared.change().table.advanced(session, partner);
        let Some(floors) = advanced else {
            return Ok(false);
        };
        self.store_floors(floors).await?;
        Ok(true)
    }

    async fn tend(&mut self, evidence: &Evidence) -> Result<Option<Publication>, OwnerError> {
        let shared = Arc::clone(&self.shared);
        let now = wall_now();
        let (floors, tended) = {
            let current = shared.current();
            let Current { opening, table, .. } = &*current;
            let mut floors = table.floors().clone();
            let me = Me {
                store: opening.store,
                peer_id: opening.peer_id.clone(),
                storage: shared.storage.into(),
            };
            let table_says = (
                |above, up_to| table.has_tombstone_within(above, up_to),
                // Of its own earlier ids nobody else may ever have heard that they ended.
                |id| table.holds_of(id) || opening.retired.contains(&id),
            );
            let clock = &mut self.clock;
            let tended = floors.tend(evidence, &me, shared.ages, table_says, clock, now);
            (floors, tended)
        };
        shared.set_tending(Tending {
            has_strangers: evidence.has_strangers,
            is_braked: evidence.is_braked,
            is_mass_silence: tended.is_braked,
            at: Some(now),
        });
        let is_same = shared
            .current()
            .table
            .floors()
            .is_same_but_for_times(&floors);
        let stored = self.floors_stored.map(|at| at.elapsed());
        if is_same && stored.is_some_and(|before| before < shared.ages.times_pause()) {
            shared.change().table.set_floors(floors);
        } else {
            self.store_floors(floors).await?;
        }
        for (id, fence) in &tended.fenced {
            let word = fence.word();
            shared
                .metrics
                .floors
                .fences
                .with_label_values(&[word])
                .inc();
            tracing::warn!(origin = %id, reason = word, "a replica will write no more");
        }
        self.collect(tended.collectable).await?;
        self.publish_figures();
        shared.publish_floors();
        Ok(tended.publication)
    }

    /// Has the tombstones leave that may, up to this reading. The floors are stored.
    async fn collect(&mut self, up_to: Reading) -> Result<(), OwnerError> {
        loop {
            let shared = Arc::clone(&self.shared);
            let due = shared.current().table.collectable(up_to, COLLECTED_AT_ONCE);
            if due.is_empty() {
                return Ok(());
            }
            let count = due.len();
            self.commit(Changes::removal(due)).await?;
            shared.metrics.floors.collected.inc_by(count as u64);
            tracing::debug!(tombstones = count, "tombstones have left");
        }
    }

    async fn give_up(&mut self, store: StoreId) -> Result<Option<OriginId>, OwnerError> {
        let mut floors = self.shared.current().table.floors().clone();
        let of_store = |publication: &&Publication| publication.store == store;
        // Of a store that was put back as it was, the opening that it lost is meant, and not the one
        // that it has now.
        let published = floors.publications().filter(of_store);
        let oldest = published.min_by_key(|publication| publication.at);
        let id = match oldest {
            Some(publication) => publication.origin,
            // Of one that went before it said anything of itself nobody knows the store.
            None => OriginId::from_bytes(*store.as_bytes()),
        };
        let may_write = floors.ids().knows(id) && floors.ids().fence(id).is_none();
        if id == floors.own() || !may_write {
            return Ok(None);
        }
        floors.fence(id, Fence::GivenUp, wall_now());
        floors.stamp_set(&mut self.clock, wall_now());
        self.store_floors(floors).await?;
        let word = Fence::GivenUp.word();
        self.shared
            .metrics
            .floors
            .fences
            .with_label_values(&[word])
            .inc();
        tracing::warn!(%store, origin = %id, "a replica was given up on somebody's word");
        Ok(Some(id))
    }

    /// Says that this opening writes no more: its store goes with the pod, and tombstones need not
    /// wait for it.
    pub(super) async fn fence_own(&mut self) -> Result<(), OwnerError> {
        let mut floors = self.shared.current().table.floors().clone();
        floors.fence(floors.own(), Fence::Ended, wall_now());
        floors.stamp_set(&mut self.clock, wall_now());
        self.store_floors(floors).await
    }

    /// Stores floors, and takes them over.
    pub(super) async fn store_floors(&mut self, floors: Floors) -> Result<(), OwnerError> {
        let shared = Arc::clone(&self.shared);
        let commit = Commit {
            floors: Some(floors.to_stored()),
            ..Commit::default()
        };
        let call = shared.store.commit(commit);
        match shared.metrics.store("commit", call).await {
            Ok(()) => {
                shared.change().table.set_floors(floors);
                self.floors_stored = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                if matches!(error, StoreError::OutcomeUnknown { .. }) {
                    self.doubt = Some(Doubt::Floors(Box::new(floors)));
                }
                Err(error.into())
            }
        }
    }

    /// Goes on as a replica that covers nothing, as its store lost records: what the others have of them
    /// is no ghost then, and who hears from here what is covered hears nothing that is not so. What was
    /// stamped under the current id is covered whatever it is, so it goes on under the next.
    pub(super) async fn cover_nothing(&mut self) -> Result<(), OwnerError> {
        let shared = Arc::clone(&self.shared);
        let mut floors = shared.current().table.floors().clone();
        floors.forget_coverage();
        self.store_floors(floors).await?;
        let origin = OriginId::from_bytes(*Uuid::new_v4().as_bytes());
        self.renew(origin, self.clock.last()).await?;
        let mut current = shared.change();
        let mut floors = current.table.floors().clone();
        floors.forget_coverage();
        current.table.set_floors(floors);
        Ok(())
    }

    /// Begins the store anew, with an empty table that the peers fill.
    async fn start_over(&mut self, why: &str) -> Result<StoreId, OwnerError> {
        let shared = Arc::clone(&self.shared);
        tracing::error!(
            reason = why,
            "this replica starts over: its peers fill it anew"
        );
        let (drawn, floors) = {
            let current = shared.current();
            let Current { opening, table, .. } = &*current;
            let drawn = draw(opening.peer_id.clone(), &shared.cluster);
            let before = table.floors();
            let floors = before.started_over(drawn.origin, &opening.retired, wall_now());
            (drawn, floors.to_stored())
        };
        let call = shared.store.start_over(drawn.clone(), floors.clone());
        match shared.metrics.store("commit", call).await {
            Ok(opening) => self.started_over(opening),
            Err(error) => {
                if matches!(error, StoreError::OutcomeUnknown { .. }) {
                    self.doubt = Some(Doubt::StartOver(Box::new(drawn), floors));
                }
                Err(error.into())
            }
        }
    }

    /// Goes on with the store that was begun anew.
    pub(super) fn started_over(&mut self, mut opening: Opening) -> Result<StoreId, OwnerError> {
        let shared = Arc::clone(&self.shared);
        let (cluster, key) = known_as(&shared.cluster, &opening)?;
        let floors = load::floors(&mut opening)?;
        let spec = spec(&shared.table_name, &key, shared.limits, &opening, floors);
        let table = Table::new(spec);
        self.clock = opening.clock(self.clock.last(), shared.drift_max);
        let (store, revision) = (opening.store, table.feed().revision());
        *shared.change() = Current {
            opening,
            cluster,
            table,
            read_at: wall_now(),
            is_rekeying: false,
            over: None,
        };
        shared.metrics.floors.started_over.inc();
        shared.mutual.clear();
        shared.show_mutual();
        self.publish_figures();
        shared.publish_floors();
        shared.revision.send_replace(revision);
        Ok(store)
    }
}

/// Answers with how it ended; where the store did not do it, as everywhere.
fn reply<T>(
    answer: Answer<T>,
    result: Result<T, OwnerError>,
    any: impl FnOnce(Answer<T>) -> AnyAnswer,
) {
    match result {
        Err(OwnerError::Store(error)) => {
            fail(std::iter::once(any(answer)), StoreError::clone(&error));
        }
        result => drop(answer.send(result)),
    }
}
