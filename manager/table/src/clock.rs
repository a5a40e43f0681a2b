//! The hybrid logical clock that stamps versions, and the coarse register of contacts.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014): a reading is close to the wall clock,
//! always above every reading seen, and so orders a write after all that its writer knew.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::ids::OriginId;
use crate::mutants;

/// A wall clock's time in milliseconds since 1970, handed in by whoever may read a clock.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// The time `ms` milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time and `duration` more.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One reading of a hybrid logical clock: 48 bits of milliseconds above 16 bits of counter.
///
/// A counter that runs over carries into the milliseconds, so that readings only ever grow.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Reading(u64);

const COUNTER_BITS: u32 = 16;
const WALL_MS_MAX: u64 = (1 << (64 - COUNTER_BITS)) - 1;

impl Reading {
    /// The reading with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number that is stored, sent and compared.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The wall time in it, to the millisecond.
    pub const fn wall(self) -> WallTime {
        WallTime(self.0 >> COUNTER_BITS)
    }

    /// The first reading of a millisecond.
    fn first_of(wall: WallTime) -> Self {
        Self(wall.0.min(WALL_MS_MAX) << COUNTER_BITS)
    }
}

/// The total order in which records win: the clock's reading, then who stamped it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// When it was stamped.
    pub reading: Reading,
    /// By which opening of which store.
    pub origin: OriginId,
}

/// A text that is no version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a version as this service gives them out")]
pub struct InvalidVersion;

impl Version {
    /// Its text, without memory of its own: it is part of every answer, and twice.
    pub fn text(&self) -> VersionText {
        let mut text = [b'-'; VersionText::BYTES];
        let (reading, origin) = text.split_at_mut(READING_DIGITS);
        hex(&self.reading.0.to_be_bytes(), reading);
        hex(self.origin.as_bytes(), &mut origin[1..]);
        VersionText(text)
    }
}

/// How many hexadecimal digits a reading has in a version's text.
const READING_DIGITS: usize = 16;

/// The text of a [`Version`]: its reading and its origin in hexadecimal digits, with a dash between.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct VersionText([u8; Self::BYTES]);

impl VersionText {
    /// Its length.
    pub const BYTES: usize = READING_DIGITS + 1 + 32;

    /// The text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits and a dash")
    }
}

/// Writes two digits for each of `bytes`.
fn hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(digits.as_chunks_mut::<2>().0) {
        *digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let (reading, origin) = text.split_once('-').ok_or(InvalidVersion)?;
        if reading.len() != 16 || origin.len() != 32 {
            return Err(InvalidVersion);
        }
        if !reading.bytes().chain(origin.bytes()).all(lower_hex) {
            return Err(InvalidVersion);
        }
        let reading = u64::from_str_radix(reading, 16).map_err(|_| InvalidVersion)?;
        let origin = u128::from_str_radix(origin, 16).map_err(|_| InvalidVersion)?;
        Ok(Self {
            reading: Reading(reading),
            origin: OriginId::from_bytes(origin.to_be_bytes()),
        })
    }
}

/// The clock of one opening of a store: the only thing that makes versions.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: OriginId,
    last: Reading,
    drift_max: Duration,
}

/// How far ahead of this machine's wall clock an own write may be stamped, where records may be up to
/// `drift_max` ahead that are taken from elsewhere: half as far, so that a peer whose wall clock is behind
/// ours by the other half still takes it, and so that drift never adds up from replica to replica.
///
/// Whose own clock is further off than this writes nothing either: what it stamped would take the clocks of
/// all others beyond it, and these would have to refuse the writes that are asked of them.
pub fn stamp_ahead_max(drift_max: Duration) -> Duration {
    drift_max / 2
}

/// The clock would have to stamp further ahead of this machine's wall clock than [`stamp_ahead_max`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the clock stands {ahead_ms} ms ahead of this machine's wall clock, more than {limit_ms} ms"
)]
pub struct ClockAhead {
    /// How far a stamp would be ahead of the wall clock, in milliseconds.
    pub ahead_ms: u64,
    /// How far it may be, in milliseconds.
    pub limit_ms: u64,
}

/// A time from elsewhere that is further ahead of this machine's wall clock than is allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{ahead_ms} ms ahead of this machine's wall clock, more than {limit_ms} ms")]
pub struct TooFarAhead {
    /// How far it is ahead, in milliseconds.
    pub ahead_ms: u64,
    /// How far it may be, in milliseconds.
    pub limit_ms: u64,
}

impl Clock {
    /// The clock of the opening `origin`, above `last`: the highest reading that the store knows.
    pub const fn new(origin: OriginId, last: Reading, drift_max: Duration) -> Self {
        Self {
            origin,
            last,
            drift_max,
        }
    }

    /// Whose clock it is.
    pub const fn origin(&self) -> OriginId {
        self.origin
    }

    /// The highest reading that was given out or observed.
    pub const fn last(&self) -> Reading {
        self.last
    }

    /// How far ahead of the wall clock a record may be stamped that is taken from elsewhere.
    pub const fn drift_max(&self) -> Duration {
        self.drift_max
    }

    /// Stamps a write that happens at wall time `now`.
    ///
    /// A wall clock that jumps back does no harm: the reading still grows, and once that would take
    /// it more than half of the drift ahead of the wall clock, the answer is [`ClockAhead`].
    pub fn stamp(&mut self, now: WallTime) -> Result<Version, ClockAhead> {
        let mut next = Reading(self.last.0.saturating_add(1)).max(Reading::first_of(now));
        if mutants::is("stamp-of-the-wall-clock") {
            next = Reading::first_of(now);
        }
        let mut limit_ms = millis(stamp_ahead_max(self.drift_max));
        if mutants::is("stamp-ahead-by-all-of-the-drift") {
            limit_ms *= 2;
        }
        let ahead_ms = next.wall().0.saturating_sub(now.0);
        if ahead_ms > limit_ms || next == self.last {
            return Err(ClockAhead { ahead_ms, limit_ms });
        }
        self.last = next;
        Ok(Version {
            reading: next,
            origin: self.origin,
        })
    }

    /// A reading that is given away without a write: nothing is stamped or taken at it any more.
    ///
    /// It has no limit as [`Clock::stamp`] has, for all that it adds is one count.
    pub fn tick(&mut self, now: WallTime) -> Reading {
        self.last = Reading(self.last.0.saturating_add(1)).max(Reading::first_of(now));
        self.last
    }

    /// Lets the clock know a reading from elsewhere, so that later stamps are above it; refuses one
    /// that is further than the drift ahead of `now`, and then changes nothing.
    pub fn observe(&mut self, reading: Reading, now: WallTime) -> Result<(), TooFarAhead> {
        self.check(reading.wall(), now)?;
        self.last = self.last.max(reading);
        Ok(())
    }

    /// Whether a time stamped elsewhere may be taken at wall time `now`.
    pub fn check(&self, stamped: WallTime, now: WallTime) -> Result<(), TooFarAhead> {
        let limit_ms = millis(self.drift_max);
        let ahead_ms = stamped.0.saturating_sub(now.0);
        if ahead_ms > limit_ms && !mutants::is("drift-not-checked") {
            Err(TooFarAhead { ahead_ms, limit_ms })
        } else {
            Ok(())
        }
    }
}

/// The length of one step of [`Contact`].
pub const CONTACT_STEP: Duration = Duration::from_mins(5);

/// When a peer was last seen, in whole steps of five minutes since 1970; the default is "never".
///
/// A register of its own beside the content: it merges by maximum and has no version, so that
/// seeing a peer never overwrites what the peer said.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Contact(u32);

impl Contact {
    /// Never seen.
    pub const NEVER: Self = Self(0);

    /// The step that `time` falls into, at or before it.
    pub fn at(time: WallTime) -> Self {
        Self(u32::try_from(time.0 / millis(CONTACT_STEP)).unwrap_or(u32::MAX))
    }

    /// The contact with this number of steps.
    pub const fn from_steps(steps: u32) -> Self {
        Self(steps)
    }

    /// Steps of five minutes since 1970.
    pub const fn steps(self) -> u32 {
        self.0
    }

    /// The beginning of the step, or `None` if the peer was never seen.
    pub fn time(self) -> Option<WallTime> {
        (self != Self::NEVER).then(|| WallTime(u64::from(self.0) * millis(CONTACT_STEP)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DRIFT: Duration = Duration::from_secs(10);
    const ORIGIN: OriginId = OriginId::from_bytes([1; 16]);

    fn clock() -> Clock {
        Clock::new(ORIGIN, Reading::default(), DRIFT)
    }

    #[test]
    fn a_version_reads_back_from_its_text_and_only_from_that() {
        let version = Version {
            reading: Reading(0x1234),
            origin: ORIGIN,
        };
        let text = version.to_string();
        assert_eq!(text, "0000000000001234-01010101010101010101010101010101");
        assert_eq!(text.parse(), Ok(version));
        for bad in [
            "",
            "-",
            "1-2",
            &text.to_uppercase().replace('1', "A"),
            &text[1..],
        ] {
            assert_eq!(bad.parse::<Version>(), Err(InvalidVersion), "{bad}");
        }
        let signed = text.replacen("0000", "+000", 1);
        assert_eq!(signed.parse::<Version>(), Err(InvalidVersion));
    }

    #[test]
    fn a_burst_within_one_millisecond_carries_into_the_next() {
        let mut clock = clock();
        let now = WallTime(1_000);
        let first = clock.stamp(now).unwrap();
        let mut last = first;
        for _ in 0..70_000 {
            let next = clock.stamp(now).unwrap();
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.reading.wall(), WallTime(1_001));
    }

    #[test]
    fn a_reading_within_the_drift_is_observed_and_one_beyond_it_changes_nothing() {
        let mut clock = clock();
        let now = WallTime(1_000_000);
        let near = Reading::first_of(now.plus(DRIFT));
        let far = Reading::first_of(now.plus(DRIFT + Duration::from_millis(1)));
        assert_eq!(
            clock.observe(far, now),
            Err(TooFarAhead {
                ahead_ms: 10_001,
                limit_ms: 10_000
            })
        );
        assert_eq!(clock.last(), Reading::default());
        clock.observe(near, now).unwrap();
        assert_eq!(clock.last(), near);
    }

    #[test]
    fn own_stamps_stop_at_half_of_the_drift_ahead_and_go_on_when_the_wall_clock_catches_up() {
        let mut clock = clock();
        let now = WallTime(1_000_000);
        clock
            .observe(Reading::first_of(now.plus(DRIFT)), now)
            .unwrap();
        let refused = clock.stamp(now).unwrap_err();
        assert_eq!(
            refused,
            ClockAhead {
                ahead_ms: 10_000,
                limit_ms: 5_000
            }
        );
        assert!(clock.stamp(now.plus(DRIFT / 2)).is_ok());
    }

    #[test]
    fn a_clock_at_the_end_of_time_refuses_instead_of_repeating() {
        let mut clock = Clock::new(ORIGIN, Reading(u64::MAX), DRIFT);
        assert!(clock.stamp(WallTime(u64::MAX)).is_err());
    }

    #[test]
    fn a_contact_is_the_step_at_or_before_a_time() {
        assert_eq!(Contact::at(WallTime(299_999)), Contact::NEVER);
        assert_eq!(Contact::at(WallTime(300_000)), Contact(1));
        assert_eq!(Contact(1).time(), Some(WallTime(300_000)));
        assert_eq!(Contact::NEVER.time(), None);
    }

    proptest! {
        #[test]
        fn stamps_only_grow_whatever_the_wall_clock_does(
            walls in prop::collection::vec(0_u64..20_000, 1..60),
            seen in prop::collection::vec(0_u64..30_000, 60),
        ) {
            let mut clock = clock();
            let mut last = Reading::default();
            for (&wall, &seen) in walls.iter().zip(&seen) {
                let now = WallTime(wall);
                let seen = Reading::first_of(WallTime(seen));
                if clock.observe(seen, now).is_ok() {
                    last = last.max(seen);
                }
                if let Ok(version) = clock.stamp(now) {
                    prop_assert!(version.reading > last);
                    prop_assert!(version.reading.wall().0 <= wall + 5_000);
                    last = version.reading;
                }
            }
        }
    }
}
