//! Families of histories, each drawn towards the one order of events that a clause of the rule of
//! floors is there for: chance alone meets most of them once in thousands or millions of histories.
//!
//! Pods are named by number. All but each third one, from the first on, have a store that goes with its
//! pod, so 1 and 2 are fenced once they are gone.

use super::{Event, HOUR_MS, History, MINUTE_MS, Program, SECOND_MS, Setting, Step, StoreFault};
use crate::random::Random;

/// A kind of histories.
#[derive(Copy, Clone, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its history of a seed.
    pub draw: fn(u64) -> History,
}

impl Family {
    const fn new(name: &'static str, draw: fn(u64) -> History) -> Self {
        Self { name, draw }
    }

    /// All that can happen.
    pub const ANY: Self = Self::new("any", History::draw);
    /// Those in which floors matter.
    pub const FLOORS: Self = Self::new("floors", History::draw_for_floors);
    /// Pods become those of another release, one by one.
    pub const UPGRADES: Self = Self::new("upgrades", History::draw_for_upgrades);
    /// An exchange is cut off halfway.
    pub const CUT: Self = Self::new("cut", cut);
    /// A store is restored.
    pub const RESTORE: Self = Self::new("restore", restore);
    /// A record of a store is damaged, and who joins asks that one first.
    pub const DAMAGED: Self = Self::new("damaged", damaged);
    /// A push outlives its pod, and its fence.
    pub const LATE_PUSH: Self = Self::new("late-push", late_push);
    /// One push is all that tells of an id.
    pub const ONE_PUSH: Self = Self::new("one-push", one_push);
    /// An exchange is all that tells of an id, and is cut off.
    pub const CUT_INTRODUCTION: Self = Self::new("cut-introduction", cut_introduction);
    /// A store is restored and has forgotten who joined.
    pub const FORGOTTEN_JOINER: Self = Self::new("forgotten-joiner", forgotten_joiner);
    /// A replica is given up, and who joined hears of what it wrote.
    pub const GIVEN_UP: Self = Self::new("given-up", given_up);
    /// A fence is known to one only.
    pub const FENCE_OF_ONE: Self = Self::new("fence-of-one", fence_of_one);
    /// A late push comes to a store that was restored.
    pub const RESTORED_AND_PUSHED: Self = Self::new("restored-and-pushed", restored_and_pushed);
    /// One clock is ahead of that of who joins.
    pub const CLOCK_AHEAD: Self = Self::new("clock-ahead", clock_ahead);
    /// Who joins has a clock that is behind all floors.
    pub const CLOCK_BEHIND: Self = Self::new("clock-behind", clock_behind);
    /// A record is refused for its contact.
    pub const REFUSAL: Self = Self::new("refusal", refusal);
    /// One floor lags behind all others.
    pub const LAST_FLOOR: Self = Self::new("last-floor", last_floor);
    /// One of two has let a tombstone go.
    pub const LET_GO: Self = Self::new("let-go", let_go);
    /// The same, and a copy comes of somebody of whom nobody had heard.
    pub const LET_GO_AND_PUSHED: Self = Self::new("let-go-and-pushed", let_go_and_pushed);
    /// A manager is killed as tombstones leave.
    pub const CRASH: Self = Self::new("crash", crash);

    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ANY,
        Self::FLOORS,
        Self::UPGRADES,
        Self::CUT,
        Self::RESTORE,
        Self::DAMAGED,
        Self::LATE_PUSH,
        Self::ONE_PUSH,
        Self::CUT_INTRODUCTION,
        Self::FORGOTTEN_JOINER,
        Self::GIVEN_UP,
        Self::FENCE_OF_ONE,
        Self::RESTORED_AND_PUSHED,
        Self::CLOCK_AHEAD,
        Self::CLOCK_BEHIND,
        Self::REFUSAL,
        Self::LAST_FLOOR,
        Self::LET_GO,
        Self::LET_GO_AND_PUSHED,
        Self::CRASH,
    ];
}

/// After so long a settling is over.
pub(super) const SETTLED_MS: u64 = 4 * MINUTE_MS;
/// After so long nobody is left alone any more for having failed, nor does a sync that started look
/// after its floors by itself.
const FORGIVEN_MS: u64 = 3 * MINUTE_MS;
/// Longer than all that happens in a family.
const LONG_MS: u64 = 2 * HOUR_MS;

/// A history of these events, each so long after the one before.
fn told<const N: usize>(
    mut setting: Setting,
    mut random: Random,
    events: [(u64, Event); N],
) -> History {
    setting.salt = random.next();
    let mut at_ms = 0;
    let steps = events.into_iter().map(|(after_ms, event)| {
        at_ms += after_ms;
        let salt = random.next();
        Step { at_ms, salt, event }
    });
    let steps = steps.collect();
    History { setting, steps }
}

/// A quiet cluster of so many pods, in which a message takes up to so many milliseconds.
fn slow(pods: usize, delay_ms: u64) -> Setting {
    let mut setting = Setting::quiet(pods);
    setting.network.delay_ms = delay_ms;
    setting
}

/// What the partner of the exchange had comes later, when it is taken for dealt with.
fn cut(seed: u64) -> History {
    let mut random = Random::new(seed);
    let cut_ms = random.below(3 * SECOND_MS);
    let setting = Setting {
        symbols_first: 1,
        ..slow(2, 200)
    };
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b1)),
        (SECOND_MS, Event::Put(1, 0)),
        (SECOND_MS, Event::Put(1, 1)),
        (SECOND_MS, Event::Delete(1, 1)),
        (MINUTE_MS, Event::Heal),
        (SECOND_MS, Event::Exchange(0, 1)),
        (cut_ms, Event::Part(0b1)),
        (MINUTE_MS, Event::Heal),
    ];
    told(setting, random, events)
}

/// Its peers have what it wrote since.
fn restore(seed: u64) -> History {
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Backup(0)),
        (SECOND_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Put(0, 1)),
        (SECOND_MS, Event::Store(0, StoreFault::Restored)),
        (SECOND_MS, Event::Put(0, 2)),
        (SECOND_MS, Event::Exchange(0, 1)),
    ];
    told(Setting::quiet(3), Random::new(seed), events)
}

/// The others have what it lacks; who joins hears first that it has everything.
fn damaged(seed: u64) -> History {
    let mut random = Random::new(seed);
    let record = random.index(64);
    let events = [
        (SECOND_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Put(1, 1)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Put(0, 2)),
        (SECOND_MS, Event::Delete(0, 2)),
        (SECOND_MS, Event::Store(1, StoreFault::Damaged(record))),
        (random.below(SECOND_MS), Event::Join),
        (random.below(SECOND_MS), Event::Exchange(3, 1)),
        (SECOND_MS, Event::Exchange(3, 0)),
        (MINUTE_MS, Event::Settle),
    ];
    told(Setting::quiet(3), random, events)
}

/// The last write of a pod is on its way while the pod goes, is fenced, and the record is deleted, and
/// the tombstone leaves. One copy of it comes to who has seen all that, one to a newcomer that has the
/// address of somebody who went, and passes it on.
fn late_push(seed: u64) -> History {
    let mut random = Random::new(seed);
    let joins_ms = 8 * MINUTE_MS;
    let to_member_ms = joins_ms + random.below(2 * MINUTE_MS) - MINUTE_MS;
    let to_newcomer_ms = joins_ms + random.between(200, 3_000);
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Slow(2, 0, to_member_ms)),
        (0, Event::Slow(2, 1, to_newcomer_ms)),
        (0, Event::Put(2, 0)),
        (SECOND_MS, Event::Leave(2)),
        (SECOND_MS, Event::Leave(1)),
        (MINUTE_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Delete(0, 0)),
        (MINUTE_MS, Event::Tend(0)),
        (2 * MINUTE_MS, Event::Tend(0)),
        (joins_ms - 4 * MINUTE_MS - 3 * SECOND_MS, Event::Join),
        (4 * SECOND_MS, Event::Exchange(3, 0)),
    ];
    told(Setting::quiet(3), random, events)
}

/// A pod is opened anew while it is cut off, and all that anybody hears of its new id before it goes is
/// one record or one tombstone; another copy of that comes when all have let go.
fn one_push(seed: u64) -> History {
    let mut random = Random::new(seed);
    let late_ms = 10 * MINUTE_MS + random.below(5 * MINUTE_MS);
    let told_first = if random.chance(500) {
        Event::Put(2, 0)
    } else {
        Event::Delete(2, 0)
    };
    let events = [
        (SECOND_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b100)),
        (
            SECOND_MS,
            Event::Crash(2, Program::Both, random.below(2), 500),
        ),
        (SECOND_MS, Event::Contact(2, 1)),
        (FORGIVEN_MS, Event::Heal),
        (0, Event::Slow(2, 1, late_ms)),
        (SECOND_MS, told_first),
        (SECOND_MS, Event::Leave(2)),
        (MINUTE_MS, Event::Delete(0, 0)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Settle),
    ];
    told(Setting::quiet(3), random, events)
}

/// A pod is opened anew while it is cut off, and its first exchange afterwards is cut off as well. What
/// it writes then comes when it is gone and all have let go.
fn cut_introduction(seed: u64) -> History {
    let mut random = Random::new(seed);
    let cut_ms = random.between(200, 700);
    let late_ms = 12 * MINUTE_MS + random.below(5 * MINUTE_MS);
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b100)),
        (
            SECOND_MS,
            Event::Crash(2, Program::Both, random.below(2), 500),
        ),
        (SECOND_MS, Event::Contact(2, 1)),
        (SECOND_MS, Event::Put(0, 1)),
        (FORGIVEN_MS, Event::Heal),
        (SECOND_MS, Event::Exchange(2, 0)),
        (cut_ms, Event::Part(0b100)),
        (FORGIVEN_MS, Event::Slow(2, 0, late_ms)),
        (0, Event::Slow(2, 1, late_ms)),
        (0, Event::Put(2, 0)),
        (SECOND_MS, Event::Leave(2)),
        (SECOND_MS, Event::Heal),
        (MINUTE_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Delete(0, 0)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Settle),
    ];
    told(slow(3, 200), random, events)
}

/// What it wrote since is with the joiner only, of whom it no longer knows as it looks after its floors.
fn forgotten_joiner(seed: u64) -> History {
    let mut random = Random::new(seed);
    let events = [
        (MINUTE_MS, Event::Tend(0)),
        (SECOND_MS, Event::Backup(0)),
        (SECOND_MS, Event::Join),
        (10 * SECOND_MS, Event::Exchange(1, 0)),
        (SECOND_MS, Event::Tend(1)),
        (SECOND_MS, Event::Put(0, random.below(2))),
        (MINUTE_MS, Event::Tend(0)),
        (SECOND_MS, Event::Tend(0)),
        (SECOND_MS, Event::Store(0, StoreFault::Restored)),
        (SECOND_MS, Event::Put(0, 3)),
        (SECOND_MS, Event::Tend(0)),
        (random.below(2 * SECOND_MS), Event::Tend(0)),
        (MINUTE_MS, Event::Exchange(random.index(2), 1)),
    ];
    told(Setting::quiet(1), random, events)
}

/// It comes back with a write that nobody has, and meets one who has just joined and does not know that
/// it was given up. That one brings the write to those who have deleted its record and let go.
fn given_up(seed: u64) -> History {
    let mut random = Random::new(seed);
    let away_ms = 2 * SETTLED_MS + 2 * MINUTE_MS;
    let (from, to) = random.pick(&[(3, 0), (0, 3), (3, 1), (1, 3)]);
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b100)),
        (SECOND_MS, Event::Put(2, 0)),
        (SECOND_MS, Event::Away(2, away_ms)),
        (SECOND_MS, Event::Heal),
        (SECOND_MS, Event::GiveUp(0, 2)),
        (SECOND_MS, Event::Put(1, 0)),
        (SECOND_MS, Event::Delete(random.index(2), 0)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b1100)),
        (SECOND_MS, Event::Join),
        (FORGIVEN_MS, Event::Exchange(3, 2)),
        (MINUTE_MS, Event::Heal),
        (SECOND_MS, Event::Exchange(from, to)),
    ];
    told(Setting::quiet(3), random, events)
}

/// A pod joins as one of two others is cut off, which never hears of it before it is gone; of its last
/// writes the earlier one comes to that one late, the later one to the other at once.
fn fence_of_one(seed: u64) -> History {
    let mut random = Random::new(seed);
    let late_ms = 6 * MINUTE_MS + random.below(MINUTE_MS);
    let events = [
        (SECOND_MS, Event::Put(0, 2)),
        (SECOND_MS, Event::Delete(0, 2)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b10)),
        (SECOND_MS, Event::Join),
        (SECOND_MS, Event::Exchange(2, 0)),
        (SECOND_MS, Event::Tend(2)),
        (FORGIVEN_MS, Event::Slow(2, 1, late_ms)),
        (0, Event::Slow(2, 0, LONG_MS)),
        (0, Event::Heal),
        (0, Event::Put(2, 0)),
        (SECOND_MS, Event::Slow(2, 0, 0)),
        (0, Event::Put(2, 1)),
        (SECOND_MS, Event::Leave(2)),
        (MINUTE_MS, Event::Tend(0)),
        (MINUTE_MS, Event::Tend(0)),
        (late_ms, Event::Exchange(random.index(2), 1)),
    ];
    told(Setting::quiet(2), random, events)
}

/// The push is of an update after the backup, of a record that is deleted by now and whose tombstone has
/// left. It comes while the store exchanges, or when it has just learned that the record is deleted.
fn restored_and_pushed(seed: u64) -> History {
    let mut random = Random::new(seed);
    let exchanges_ms = 2 * SETTLED_MS + 5 * SECOND_MS;
    let late_ms = exchanges_ms
        + if random.chance(600) {
            random.between(1_500, 5_500)
        } else {
            random.between(16_000, 24_000)
        };
    let events = [
        (SECOND_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Backup(2)),
        (SECOND_MS, Event::Slow(1, 2, late_ms)),
        (0, Event::Put(1, 0)),
        (SECOND_MS, Event::Slow(1, 2, 0)),
        (0, Event::Delete(1, 0)),
        (0, Event::Settle),
        (SETTLED_MS, Event::Settle),
        (SETTLED_MS, Event::Store(2, StoreFault::Restored)),
        (SECOND_MS, Event::Put(1, 1)),
        (SECOND_MS, Event::Delete(1, 1)),
        (2 * SECOND_MS, Event::Exchange(2, 0)),
        (8 * SECOND_MS, Event::Exchange(2, 0)),
        (late_ms, Event::Contact(2, 1)),
    ];
    told(slow(3, 1_000), random, events)
}

/// Who joins learns that all was deleted and has left, and writes before its clock has come to where
/// the deletion was stamped.
fn clock_ahead(seed: u64) -> History {
    let mut random = Random::new(seed);
    let ahead_ms = i64::try_from(random.between(4_000, 9_000)).unwrap_or(0);
    let pause_ms = random.between(100, 400);
    let events = [
        (MINUTE_MS, Event::Clock(0, ahead_ms)),
        (pause_ms, Event::Put(0, 0)),
        (pause_ms, Event::Delete(0, 0)),
        (pause_ms, Event::Tend(0)),
        (pause_ms, Event::Join),
        (pause_ms, Event::Put(1, 1)),
        (pause_ms, Event::Delete(1, 1)),
        (pause_ms, Event::Exchange(1, 0)),
        (pause_ms, Event::Put(1, 0)),
    ];
    told(Setting::quiet(1), random, events)
}

/// What the joiner deletes is below what the other has let go of, which yet has not heard of it.
fn clock_behind(seed: u64) -> History {
    let mut random = Random::new(seed);
    let behind_ms = i64::try_from(random.between(1, 9) * MINUTE_MS).unwrap_or(0);
    let events = [
        (10 * MINUTE_MS, Event::Tend(0)),
        (SECOND_MS, Event::Part(0b10)),
        (SECOND_MS, Event::Join),
        (0, Event::Clock(1, -behind_ms)),
        (FORGIVEN_MS, Event::Put(1, 0)),
        (SECOND_MS, Event::Delete(1, 0)),
        (random.below(MINUTE_MS), Event::Heal),
        (SECOND_MS, Event::Exchange(0, 1)),
    ];
    told(Setting::quiet(1), random, events)
}

/// Contacts come in steps of five minutes: one pod whose clock is ahead notes the next step, and another
/// whose clock is behind refuses it with the record, which is news to it. A third one, in between, is
/// believed by both.
fn refusal(seed: u64) -> History {
    let mut random = Random::new(seed);
    let step_ms = 30 * MINUTE_MS;
    let [ahead_ms, behind_ms] =
        [0; 2].map(|_| i64::try_from(random.between(8_500, 9_900)).unwrap_or(0));
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b1)),
        (
            step_ms - SETTLED_MS - 61 * SECOND_MS,
            Event::Clock(0, -behind_ms),
        ),
        (0, Event::Clock(2, ahead_ms)),
        (0, Event::Put(1, 0)),
        (SECOND_MS, Event::Put(1, 1)),
        (SECOND_MS, Event::Delete(1, 1)),
        (50 * SECOND_MS, Event::Contact(2, 0)),
        (SECOND_MS / 2, Event::Contact(2, 0)),
        (SECOND_MS / 2, Event::Exchange(2, 1)),
        (SECOND_MS, Event::Heal),
        (random.below(SECOND_MS), Event::Exchange(0, 1)),
        (MINUTE_MS, Event::Exchange(random.index(2), 1)),
    ];
    told(Setting::quiet(3), random, events)
}

/// A tombstone is below all floors but the last one: that pod still lacks an older write of another,
/// which is on its way.
fn last_floor(seed: u64) -> History {
    let mut random = Random::new(seed);
    let late_ms = random.between(2, 4) * MINUTE_MS;
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Settle),
        (SETTLED_MS, Event::Slow(2, 0, late_ms)),
        (0, Event::Put(2, 0)),
        (SECOND_MS, Event::Slow(2, 0, 0)),
        (0, Event::Delete(1, 0)),
        (SECOND_MS, Event::Exchange(0, 1)),
        (SECOND_MS, Event::Exchange(1, 2)),
        (SECOND_MS, Event::Exchange(1, 0)),
        (SECOND_MS, Event::Exchange(2, 1)),
        (SECOND_MS, Event::Exchange(2, 0)),
        (SECOND_MS, Event::Tend(1)),
        (SECOND_MS, Event::Tend(2)),
        (random.below(MINUTE_MS), Event::Tend(0)),
    ];
    told(Setting::quiet(3), random, events)
}

/// The other keeps it for now, and the two meet.
fn let_go(seed: u64) -> History {
    let mut random = Random::new(seed);
    let (writer, first) = (random.index(2), random.index(2));
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Delete(writer, 0)),
        (SECOND_MS, Event::Exchange(0, 1)),
        (SECOND_MS, Event::Exchange(1, 0)),
        (MINUTE_MS, Event::Tend(1 - first)),
        (random.below(MINUTE_MS), Event::Tend(first)),
    ];
    told(Setting::quiet(2), random, events)
}

/// It is older than what was deleted, and comes to who has let go. So few symbols are asked for that no
/// table is listed in their place: a listing leaves nothing out.
fn let_go_and_pushed(seed: u64) -> History {
    let mut random = Random::new(seed);
    let setting = Setting {
        symbols_first: 1,
        ..Setting::quiet(2)
    };
    let late_ms = 5 * MINUTE_MS + random.below(MINUTE_MS);
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Part(0b100)),
        (SECOND_MS, Event::Join),
        (FORGIVEN_MS, Event::Slow(2, 0, late_ms)),
        (0, Event::Put(2, 0)),
        (SECOND_MS, Event::Leave(2)),
        (SECOND_MS, Event::Heal),
        (MINUTE_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Delete(random.index(2), 0)),
        (SECOND_MS, Event::Exchange(0, 1)),
        (SECOND_MS, Event::Exchange(1, 0)),
        (MINUTE_MS, Event::Tend(1)),
        (SECOND_MS, Event::Tend(0)),
    ];
    told(setting, random, events)
}

/// It has just fenced one that is gone, whose last write is still on its way.
fn crash(seed: u64) -> History {
    let mut random = Random::new(seed);
    let late_ms = 3 * MINUTE_MS + random.below(MINUTE_MS);
    let crash = Event::Crash(0, Program::Manager, random.between(2, 8), SECOND_MS);
    let events = [
        (SECOND_MS, Event::Settle),
        (SETTLED_MS, Event::Slow(1, 0, late_ms)),
        (0, Event::Put(1, 0)),
        (SECOND_MS, Event::Leave(1)),
        (SECOND_MS, Event::Put(0, 0)),
        (SECOND_MS, Event::Delete(0, 0)),
        (MINUTE_MS, crash),
        (SECOND_MS, Event::Tend(0)),
        (late_ms, Event::Contact(0, 1)),
    ];
    told(Setting::quiet(2), random, events)
}
