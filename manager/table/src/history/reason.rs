//! Why something lost, or was refused.

use crate::table::{MergeRefused, WriteRefused};

/// Why a version of a record is not the one that is held.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It was held, and a newer version replaced it.
    Overwritten,
    /// It was held, and was deleted.
    Deleted,
    /// Two contents have this one version, and the other is kept.
    SameVersion,
    /// A newer version was held already when it came.
    Older,
    /// It came although it had been here, was deleted, and its tombstone has left.
    Ghost,
    /// It is a tombstone of what is not held, and was dealt with before.
    Collected,
}

impl Loss {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Overwritten,
        Self::Deleted,
        Self::SameVersion,
        Self::Older,
        Self::Ghost,
        Self::Collected,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Overwritten => "overwritten",
            Self::Deleted => "deleted",
            Self::SameVersion => "same_version",
            Self::Older => "older",
            Self::Ghost => "ghost",
            Self::Collected => "collected",
        }
    }
}

/// Why something that came was not let in, or a local write not done.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its version is stamped too far ahead of this machine's clock.
    VersionAhead,
    /// Its last contact is.
    ContactAhead,
    /// It breaks a rule of this table.
    Invalid,
    /// It is larger than a record may be.
    TooLarge,
    /// The table is full and its key is new.
    Full,
    /// What is held could not be read from the store.
    Unreadable,
    /// Too many replicas are known, and it was written by one more.
    Origins,
    /// It was pushed, and comes from an opening of a store that writes no more.
    Fenced,
    /// It was pushed before this replica had met one that belongs.
    Deferred,
    /// A local write whose precondition did not hold.
    Precondition,
    /// A local write that needs a record that is not there.
    Absent,
    /// A local write that the clock could not stamp.
    Clock,
    /// A local write while this machine's clock was not that of most others.
    ClockOff,
    /// A local write after the pod had begun to go.
    Leaving,
    /// The store could not do it.
    Store,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::VersionAhead,
        Self::ContactAhead,
        Self::Invalid,
        Self::TooLarge,
        Self::Full,
        Self::Unreadable,
        Self::Origins,
        Self::Fenced,
        Self::Deferred,
        Self::Precondition,
        Self::Absent,
        Self::Clock,
        Self::ClockOff,
        Self::Leaving,
        Self::Store,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::VersionAhead => "version_ahead",
            Self::ContactAhead => "contact_ahead",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Full => "full",
            Self::Unreadable => "unreadable",
            Self::Origins => "origins",
            Self::Fenced => "fenced",
            Self::Deferred => "deferred",
            Self::Precondition => "precondition",
            Self::Absent => "absent",
            Self::Clock => "clock",
            Self::ClockOff => "clock_off",
            Self::Leaving => "leaving",
            Self::Store => "store",
        }
    }
}

impl From<MergeRefused> for Refusal {
    fn from(refused: MergeRefused) -> Self {
        match refused {
            MergeRefused::VersionAhead => Self::VersionAhead,
            MergeRefused::ContactAhead => Self::ContactAhead,
            MergeRefused::Content => Self::Invalid,
            MergeRefused::TooLarge => Self::TooLarge,
            MergeRefused::Full => Self::Full,
            MergeRefused::Unreadable => Self::Unreadable,
            MergeRefused::Origins => Self::Origins,
        }
    }
}

impl From<&WriteRefused> for Refusal {
    fn from(refused: &WriteRefused) -> Self {
        match refused {
            WriteRefused::Precondition { .. } => Self::Precondition,
            WriteRefused::Absent => Self::Absent,
            WriteRefused::Full { .. } => Self::Full,
            WriteRefused::TooLarge { .. } => Self::TooLarge,
            WriteRefused::ContactAhead { .. } => Self::ContactAhead,
            WriteRefused::Clock(_) => Self::Clock,
            WriteRefused::Unreadable => Self::Unreadable,
        }
    }
}
