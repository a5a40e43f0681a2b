//! One reconciliation of two tables, seen from who begins it.
//!
//! 1. The digests are compared. Equal tables are done after one small round trip.
//! 2. The first coded symbols of both tables are subtracted and decoded; if they are too few, as
//!    many more are asked for as the difference seems to need. Where a plain listing takes
//!    fewer bytes, or the sketch is too short, the fingerprints themselves are compared, one range
//!    of them after the other.
//! 3. The records that differ go both ways, a batch each in one round trip.
//!
//! Whatever the partner says, the number of round trips is bounded, memory is bounded by a few
//! messages, and nothing reaches the own table but by the manager's merge.

mod conversation;
mod find;
mod listing;
mod swap;

use peer_table::contract::{Advance, InvalidMessage, StateRequest};
use peer_table::sketch::{Difference, Sketch};
use peer_table::table::Digest;
use peer_table::{OriginId, TableName, mutants};

pub(crate) use self::conversation::Conversation;
use self::find::{Found, Prefix, wire};
pub(crate) use self::swap::buried;
use crate::ends::{BoxError, Own, Remote};
use crate::handshake::{PROTOCOLS, Partner, Protocols, Refusal};
use crate::message::Unreadable;
use crate::outcomes::Outcomes;

/// Bounds of an exchange, and how it begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Coded symbols asked for at first.
    pub symbols_first: usize,
    /// Coded symbols asked for altogether at the most.
    pub symbols_max: usize,
    /// Fingerprints in one page of a listing.
    pub page: usize,
    /// Round trips at the most.
    pub round_trips_max: u64,
    /// The versions of the protocol to speak.
    pub protocols: Protocols,
    /// Those that the partner understood when it was last met, if it was: the first message is then
    /// in one that it should understand.
    pub partner: Option<Protocols>,
}

impl Default for Options {
    /// 4,096 round trips ship 16 million small records; a table with more, or with large ones, takes
    /// several exchanges.
    fn default() -> Self {
        Self {
            symbols_first: Difference::FIRST,
            symbols_max: Sketch::LEN,
            page: 16_384,
            round_trips_max: 4_096,
            protocols: PROTOCOLS,
            partner: None,
        }
    }
}

/// What an exchange found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it went.
    pub kind: Kind,
    /// The opening of our store that took part.
    pub origin: OriginId,
    /// With whom.
    pub partner: Partner,
    /// The version of the protocol that was spoken.
    pub protocol: u32,
    /// How far its clock is ahead of ours, in milliseconds.
    pub skew_ms: i64,
    /// The digest of our table afterwards.
    pub digest: Digest,
    /// The digest of the partner's table afterwards.
    pub partner_digest: Digest,
    /// What differed and was shipped.
    pub moved: Moved,
    /// Coded symbols of the partner that were taken in.
    pub symbols: usize,
    /// What finding the difference cost: all but the swaps.
    pub find: Traffic,
    /// What shipping the records cost.
    pub swap: Traffic,
    /// Whether our vector advanced by it: all is here that the partner had at its beginning.
    pub advanced: bool,
}

impl Report {
    /// Whether both tables had the same records when they were last looked at.
    pub fn is_equal(&self) -> bool {
        self.digest == self.partner_digest
    }

    /// What it cost altogether.
    pub const fn traffic(&self) -> Traffic {
        self.find.plus(self.swap)
    }
}

/// How an exchange went.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The tables were equal.
    Equal,
    /// The difference was found by coded symbols, or by a listing that took no more bytes.
    Reconciled,
    /// The fingerprints had to be compared range by range.
    Snapshot(Fallback),
}

impl Kind {
    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Reconciled => "reconciled",
            Self::Snapshot(_) => "snapshot",
        }
    }
}

/// Why the fingerprints had to be compared range by range.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// The difference is larger than the sketch can decode.
    TooLarge,
    /// The symbols still needed take more bytes than all fingerprints of the partner.
    Cheaper,
    /// The symbols were too few in the end: the sketch is short, or the tables kept changing.
    Undecoded,
    /// The symbols contradict each other.
    Inconsistent,
}

impl Fallback {
    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Cheaper => "cheaper",
            Self::Undecoded => "undecoded",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// What differed, and what was shipped because of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Fingerprints that only we had.
    pub ours: u64,
    /// Fingerprints that only the partner had.
    pub theirs: u64,
    /// Records sent.
    pub sent: u64,
    /// Records received.
    pub received: u64,
    /// Records that changed or left between being found and being shipped, on either side. The next
    /// exchange finds what is left of them.
    pub missing: u64,
    /// Of these, the partner's.
    pub missing_theirs: u64,
    /// What became of the records here.
    pub merged_here: Outcomes,
    /// What became of the records there.
    pub merged_there: Outcomes,
}

/// Messages and their bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Requests with their responses.
    pub round_trips: u64,
    /// Bytes of the requests: encoded messages, without what carries them.
    pub sent: u64,
    /// Bytes of the responses.
    pub received: u64,
}

impl Traffic {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            round_trips: self.round_trips + other.round_trips,
            sent: self.sent + other.sent,
            received: self.received + other.received,
        }
    }

    /// Bytes both ways.
    pub const fn bytes(self) -> u64 {
        self.sent + self.received
    }
}

/// Why an exchange or a push ended early. What was merged until then stays merged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// One of the two sides does not want to talk.
    #[error("not talked to")]
    Refused(#[source] Refusal),
    /// The other side said what makes no sense.
    #[error("the other side's answer makes no sense")]
    Invalid(#[source] BoxError),
    /// The other side could not be reached, or did not answer in time.
    #[error("the other side did not answer")]
    Remote(#[source] BoxError),
    /// Our own manager failed.
    #[error("our own manager failed")]
    Own(#[source] BoxError),
    /// The exchange did not come to an end.
    #[error("not done after {round_trips} round trips")]
    TooManyRounds {
        /// How many were allowed.
        round_trips: u64,
    },
}

impl ExchangeError {
    /// The word for it in metrics and logs: the reason's own if it is a refusal.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason.word(),
            Self::Invalid(_) => "invalid",
            Self::Remote(_) => "remote",
            Self::Own(_) => "own",
            Self::TooManyRounds { .. } => "too_many_rounds",
        }
    }

    /// An answer with a field that makes no sense.
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        InvalidMessage::field(field, problem).into()
    }

    /// An answer that is none to what was asked.
    pub(crate) fn unexpected(asked: &'static str) -> Self {
        Self::invalid("answer", format!("is none to {asked}"))
    }

    pub(crate) fn own(error: impl Into<BoxError>) -> Self {
        Self::Own(error.into())
    }
}

/// What is read of the other side's messages.
impl From<InvalidMessage> for ExchangeError {
    fn from(error: InvalidMessage) -> Self {
        Self::Invalid(error.into())
    }
}

impl From<Unreadable> for ExchangeError {
    fn from(error: Unreadable) -> Self {
        Self::Invalid(error.into())
    }
}

/// Makes the own table and the partner's equal, as far as nothing changes meanwhile.
///
/// Both sides' managers merge what they lack; nothing is deleted but by a tombstone that wins.
///
/// Where either side holds a tombstone, our vector advances by an exchange in which everything came:
/// then we have all that the partner had at its beginning. The partner learns as much of us by the
/// exchanges that it begins itself.
pub async fn exchange<O: Own, R: Remote>(
    own: &O,
    remote: &R,
    table: &TableName,
    options: &Options,
) -> Result<Report, ExchangeError> {
    let first = StateRequest {
        symbols: wire(options.symbols_first),
        begin_session: true,
        ..StateRequest::default()
    };
    let mut state = own.state(&first).await.map_err(ExchangeError::own)?;
    let mut conversation = Conversation::new(own, remote, table, &state, options)?;
    let mut opened = conversation.open(&state).await?;
    if conversation.knows_other_replicas()? && !mutants::is("set-not-first") {
        // Before any record moves, and anew, so that nothing is taken at a reading given away before.
        conversation.swap_replicas().await?;
        state = own.state(&first).await.map_err(ExchangeError::own)?;
        conversation.introduce(&state)?;
        opened = conversation.open(&state).await?;
    }
    conversation.begin(&state, &opened);
    let snapshot = opened.snapshot.take();
    let ours = Prefix::of_own(&state, table)?;
    let mut moved = Moved::default();
    if mutants::is("half-exchange-advances")
        && let (Some(session), Some(snapshot)) = (state.session, snapshot.clone())
    {
        let advance = Advance { session, snapshot };
        own.advance(&advance).await.map_err(ExchangeError::own)?;
    }

    let (found, symbols, before) = find::find(&mut conversation, ours, opened).await?;
    let mut is_whole = true;
    let kind = match found {
        Found::Equal => Kind::Equal,
        Found::Decoded(difference) => {
            swap::swap(&mut conversation, difference, &mut moved).await?;
            Kind::Reconciled
        }
        Found::Listed(page) => {
            listing::compare(&mut conversation, Some(page), &mut moved).await?;
            Kind::Reconciled
        }
        Found::Beyond(fallback) => {
            is_whole = listing::compare(&mut conversation, None, &mut moved).await?;
            Kind::Snapshot(fallback)
        }
    };

    let digest = if kind == Kind::Equal {
        before
    } else {
        let state = own.state(&StateRequest::default()).await;
        Prefix::of_own(&state.map_err(ExchangeError::own)?, table)?.digest
    };
    let all_came = is_whole && moved.missing_theirs == 0;
    let none_refused = moved.merged_here.refused() == 0 || mutants::is("refused-record-advances");
    // A store that was opened anew meanwhile may lack what it had at the beginning.
    let now = conversation.met()?.0.origin;
    let is_as_before = snapshot
        .as_ref()
        .is_some_and(|it| it.origin == now.as_bytes());
    let advanced = match (state.session, snapshot) {
        (Some(session), Some(snapshot)) if all_came && none_refused && is_as_before => {
            let advance = Advance { session, snapshot };
            own.advance(&advance).await.map_err(ExchangeError::own)?
        }
        _ => false,
    };
    if mutants::is("set-not-first") && conversation.knows_other_replicas()? {
        conversation.swap_replicas().await?;
    }
    conversation.report(kind, digest, symbols, moved, advanced)
}
