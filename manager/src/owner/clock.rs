//! Healing what a wrong clock left behind: records that are stamped so far ahead that no peer takes
//! them, and a clock that stands so far ahead that it stamps no write.
//!
//! The store gets its next opening, whose clock begins at what is right, and under that the records
//! are written anew. A store that ends in between still has the rest as it was: it is healed again.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use peer_table::clock::stamp_ahead_max;
use peer_table::opening::Opening;
use peer_table::table::Entries;
use peer_table::{Clock, Contact, Key, OriginId, Reading, Table, WallTime};
use udht_tell::chain;
use uuid::Uuid;

use super::floors::FloorsCommand;
use super::task::Doubt;
use super::{Owner, OwnerError, Shared, Work, wall_now};
use crate::store::{Commit, StoreError, Stored};

/// Records that are written anew in one transaction at the most.
const HEALED_AT_ONCE: usize = 2_048;

/// What is known of this machine's clock.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum OwnClock {
    /// Nothing: too few others were talked to of late.
    Unknown,
    /// It is near those of most others.
    Agrees,
    /// It is so many milliseconds ahead of those of most others, or behind if that is negative, which is
    /// too far.
    Off(i64),
}

/// That most others contradicted this machine's clock, and when.
///
/// It holds until they agree, or until the clock was set by about as much: who hears of nobody any more
/// has heard of nobody that it is right. How far it was set shows beside a clock that is never set.
#[derive(Copy, Clone, Debug)]
pub(super) struct Contradicted {
    ahead_ms: i64,
    wall: WallTime,
    ran: Duration,
}

impl Contradicted {
    /// By so many milliseconds, when the clock read `wall` and this program had run for `ran`.
    const fn new(ahead_ms: i64, wall: WallTime, ran: Duration) -> Self {
        Self {
            ahead_ms,
            wall,
            ran,
        }
    }

    /// How far it is off when it reads `wall` and this program has run for `ran`.
    fn off(&self, wall: WallTime, ran: Duration) -> Duration {
        let passed = i128::from(wall.as_millis()) - i128::from(self.wall.as_millis());
        let ran = ran.saturating_sub(self.ran).as_millis();
        let set = passed - i128::try_from(ran).unwrap_or(i128::MAX);
        let off = (i128::from(self.ahead_ms) + set).unsigned_abs();
        Duration::from_millis(u64::try_from(off).unwrap_or(u64::MAX))
    }
}

impl Shared {
    /// Takes in what is known of this machine's clock; the answer is what is known now.
    pub(super) fn note_clock(&self, clock: OwnClock) -> OwnClock {
        let before = self.clock_off();
        let contradicted = match clock {
            OwnClock::Off(ahead_ms) => {
                let ran = self.began.elapsed();
                Some(Contradicted::new(ahead_ms, wall_now(), ran))
            }
            OwnClock::Agrees => None,
            OwnClock::Unknown => {
                let known = *self.contradicted();
                return known.map_or(clock, |it| OwnClock::Off(it.ahead_ms));
            }
        };
        *self.contradicted() = contradicted;
        match (before, self.clock_off()) {
            (None, Some(off)) => {
                self.metrics.floors.clock_outlier.set(1);
                tracing::error!(
                    skew_ms = u64::try_from(off.as_millis()).unwrap_or(u64::MAX),
                    "this machine's clock is not that of most others: set it; until then writes are refused"
                );
            }
            (Some(_), None) => self.clock_is_right(),
            _ => {}
        }
        clock
    }

    /// How far this machine's clock is off, where writes are refused for it.
    pub(super) fn clock_off(&self) -> Option<Duration> {
        let mut contradicted = self.contradicted();
        let off = (*contradicted)?.off(wall_now(), self.began.elapsed());
        if off > stamp_ahead_max(self.drift_max) {
            return Some(off);
        }
        *contradicted = None;
        drop(contradicted);
        self.clock_is_right();
        None
    }

    fn contradicted(&self) -> MutexGuard<'_, Option<Contradicted>> {
        self.contradicted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn clock_is_right(&self) {
        self.metrics.floors.clock_outlier.set(0);
        tracing::info!("this machine's clock agrees with those of the others again");
    }
}

/// Why there may be something that a wrong clock left behind.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum MindsClock {
    /// There is nothing.
    No,
    /// Nobody knows what the clock was before.
    AfterStart,
    /// The clock was wrong.
    WasOff,
}

/// What is ahead of a wall clock.
struct Ahead {
    /// Versions and contacts up to there are right.
    versions: WallTime,
    contacts: Contact,
    /// Versions from there on nobody takes whose clock is right.
    refused: WallTime,
    now: Contact,
}

impl Ahead {
    /// Of `now`, where a version may be ahead by half of the drift, as when it is stamped, and a
    /// contact by all of it.
    fn of(clock: &Clock, now: WallTime) -> Self {
        let refused = now.plus(clock.drift_max());
        Self {
            versions: now.plus(stamp_ahead_max(clock.drift_max())),
            contacts: Contact::at(refused),
            refused,
            now: Contact::at(now),
        }
    }

    fn is(&self, reading: Reading) -> bool {
        reading.wall() > self.versions
    }

    fn in_table(&self, table: &Table) -> Found {
        let mut found = Found::default();
        for (key, row) in table.rows_after(None, usize::MAX) {
            let is_ahead = self.is(row.version.reading);
            if !is_ahead {
                found.highest = found.highest.max(row.version.reading);
            }
            found.refused += usize::from(row.version.reading.wall() > self.refused);
            if is_ahead || row.contact > self.contacts {
                found.keys.push(key.clone());
            }
        }
        found
    }
}

/// What is ahead in a table.
#[derive(Default)]
struct Found {
    /// The keys of what is to be healed.
    keys: Vec<Key>,
    /// Of how many the version is so far ahead that nobody takes it.
    refused: usize,
    /// The highest reading that is right.
    highest: Reading,
}

impl Owner {
    /// Has what is stamped too far ahead stamped anew, and the clock go on from what is right; how
    /// many records that were. Refused while this machine's clock is still wrong.
    pub async fn heal_clock(&self) -> Result<usize, OwnerError> {
        if let Some(off) = self.shared.clock_off() {
            return Err(OwnerError::ClockOff(off));
        }
        self.floors(FloorsCommand::HealClock).await
    }
}

impl Work {
    /// Has what a wrong clock left behind healed by itself once the clock is right again: contacts, and
    /// how far the own clock has come. A record that was stamped ahead waits for somebody's word, as a
    /// later write of another pod would give way to it.
    pub(super) async fn mind_clock(&mut self, clock: OwnClock) {
        let is_sure = match (clock, self.minds_clock) {
            (OwnClock::Off(_), _) => {
                self.minds_clock = MindsClock::WasOff;
                return;
            }
            (OwnClock::Agrees, MindsClock::AfterStart | MindsClock::WasOff) => true,
            // Peers refuse contacts that are ahead. Exchanges become rare for it, and it is these that
            // the clocks are compared in.
            (OwnClock::Unknown, MindsClock::WasOff) => false,
            (OwnClock::Agrees, MindsClock::No)
            | (OwnClock::Unknown, MindsClock::No | MindsClock::AfterStart) => return,
        };
        let now = wall_now();
        let ahead = Ahead::of(&self.clock, now);
        let Found { keys, refused, .. } = ahead.in_table(&self.shared.current().table);
        let is_far = self.clock.last().wall() > ahead.refused;
        if refused > 0 {
            if is_sure {
                tracing::warn!(
                    records = refused,
                    "the clock is right, and these are stamped too far ahead: udht-manager \
                     heal-clock stamps them anew"
                );
            }
        } else if (!keys.is_empty() || is_sure && is_far)
            && let Err(error) = self.heal_clock().await
        {
            tracing::warn!(
                error = chain(&error),
                "what a wrong clock left behind is not healed yet"
            );
            return;
        }
        if is_sure {
            self.minds_clock = MindsClock::No;
        }
    }

    pub(super) async fn heal_clock(&mut self) -> Result<usize, OwnerError> {
        let shared = Arc::clone(&self.shared);
        let now = wall_now();
        let ahead = Ahead::of(&self.clock, now);
        let Found { keys, highest, .. } = ahead.in_table(&shared.current().table);
        if keys.is_empty() && !ahead.is(self.clock.last()) {
            return Ok(0);
        }
        tracing::warn!(records = keys.len(), "what a wrong clock stamped is healed");
        let origin = OriginId::from_bytes(*Uuid::new_v4().as_bytes());
        let last = Clock::new(origin, highest, shared.drift_max).tick(now);
        self.renew(origin, last).await?;
        // Meanwhile the index and the store do not say the same.
        let problem = "its records are being stamped anew".to_owned();
        shared.change().over = Some(Arc::new(StoreError::Unavailable(problem)));
        let healed = self.stamp_anew(&keys, &ahead).await;
        shared.change().over = None;
        self.publish_figures();
        shared.publish_floors();
        healed?;
        Ok(keys.len())
    }

    /// Has the store be at its next opening, under the id `origin` and with this last reading.
    pub(super) async fn renew(
        &mut self,
        origin: OriginId,
        last: Reading,
    ) -> Result<(), OwnerError> {
        let shared = Arc::clone(&self.shared);
        let call = shared.store.renew(origin, last);
        match shared.metrics.store("commit", call).await {
            Ok(opening) => {
                self.renewed(opening);
                Ok(())
            }
            Err(error) => {
                if matches!(error, StoreError::OutcomeUnknown { .. }) {
                    self.doubt = Some(Doubt::Renewal(origin, last));
                }
                Err(error.into())
            }
        }
    }

    /// Goes on with the next opening of the store.
    pub(super) fn renewed(&mut self, opening: Opening) {
        let shared = Arc::clone(&self.shared);
        let (origin, last) = (opening.origin, opening.last_reading);
        self.clock = Clock::new(origin, last, shared.drift_max);
        let (epoch, _) = Uuid::new_v4().as_u64_pair();
        let revision = {
            let mut current = shared.change();
            let mut floors = current.table.floors().clone();
            floors.renew(origin, last, wall_now());
            current.table.renew(floors, epoch);
            current.opening = Opening {
                floors: Vec::new(),
                ..opening
            };
            current.table.feed().revision()
        };
        shared.revision.send_replace(revision);
    }

    async fn stamp_anew(&mut self, keys: &[Key], ahead: &Ahead) -> Result<(), OwnerError> {
        let shared = Arc::clone(&self.shared);
        let floors = shared.current().table.floors().clone();
        self.store_floors(floors).await?;
        for keys in keys.chunks(HEALED_AT_ONCE) {
            let call = shared.store.get_many(&shared.table_name, keys);
            let stored = shared.metrics.store("read", call).await?;
            let now = wall_now();
            let mut records = Entries::default();
            // What cannot be read is left for a peer's copy.
            for (key, entry) in keys.iter().zip(stored) {
                let Some(mut entry) = entry.and_then(Stored::entry) else {
                    continue;
                };
                if ahead.is(entry.version.reading) {
                    let stamped = self.clock.stamp(now);
                    entry.version = stamped.map_err(|ahead| {
                        StoreError::Unavailable(format!("{ahead}; heal it again in a moment"))
                    })?;
                }
                if entry.contact > ahead.contacts {
                    entry.contact = ahead.now;
                }
                records.insert(key.clone(), entry);
            }
            let records = Arc::new(records);
            let commit = Commit {
                records: vec![(shared.table_name.clone(), Arc::clone(&records))],
                stamped: Some(self.clock.last()),
                ..Commit::default()
            };
            let call = shared.store.commit(commit);
            match shared.metrics.store("commit", call).await {
                Ok(()) => self.restamped(&records),
                Err(error) => {
                    if matches!(error, StoreError::OutcomeUnknown { .. }) {
                        self.doubt = Some(Doubt::Restamped(records));
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Has the index follow what is stored.
    pub(super) fn restamped(&self, records: &Entries) {
        let now = wall_now();
        let mut current = self.shared.change();
        for (key, entry) in records {
            if let Err(error) = current.table.load(key, entry, now) {
                tracing::warn!(peer_id = %key, %error, "a stored record is none of this table");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_until_it_is_set_by_as_much() {
        let seconds = Duration::from_secs;
        let at = |wall_s: u64| WallTime::from_millis(1_700_000_000_000 + wall_s * 1_000);
        let ahead = Contradicted::new(60_000, at(100), seconds(10));
        assert_eq!(ahead.off(at(100), seconds(10)), seconds(60));
        assert_eq!(ahead.off(at(4_000), seconds(3_910)), seconds(60));
        assert_eq!(ahead.off(at(4_000 - 60), seconds(3_910)), seconds(0));
        assert_eq!(ahead.off(at(4_000 - 57), seconds(3_910)), seconds(3));
        assert_eq!(ahead.off(at(4_000 + 5), seconds(3_910)), seconds(65));
        let behind = Contradicted::new(-60_000, at(100), seconds(10));
        assert_eq!(behind.off(at(200), seconds(110)), seconds(60));
        assert_eq!(behind.off(at(260), seconds(110)), seconds(0));
        let never = WallTime::from_millis(u64::MAX);
        assert!(behind.off(never, Duration::MAX) > seconds(60));
    }
}
