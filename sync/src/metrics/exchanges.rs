//! Figures of exchanges, seen from both sides.

use std::time::Duration;

use peer_exchange::handshake::HandshakeRefused;
use peer_exchange::respond::{ASK_WORDS, RespondReport};
use peer_exchange::{ExchangeError, Report};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::SECONDS;
use super::register::Register;
use crate::transport::{FAILURES, failure};

/// Which side of an exchange this is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Role {
    /// It began here.
    Initiator,
    /// A peer began it.
    Responder,
}

impl Role {
    const ALL: [Self; 2] = [Self::Initiator, Self::Responder];

    const fn word(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

/// Which way something went.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From here.
    Sent,
    /// To here.
    Received,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Sent, Self::Received];

    const fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// As responder: the two tables were equal when the exchange began.
const EQUAL: &str = "equal";
/// As responder: they were not. How the exchange went is known to who began it.
const DIFFERED: &str = "differed";
const OK: &str = "ok";
const REFUSED: &str = "refused";

const SYMBOLS: [f64; 9] = [
    0.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0, 32_768.0,
];
const ROUND_TRIPS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 100.0, 1_000.0];

/// What is counted of exchanges.
#[derive(Debug)]
pub struct ExchangeMetrics {
    exchanges: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    symbols: Histogram,
    round_trips: Histogram,
    records: IntCounterVec,
    messages: IntCounterVec,
    /// Bodies of messages that did not come as a whole.
    pub cut_off: IntCounter,
}

impl ExchangeMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            exchanges: register.counters(
                "udht_exchanges_total",
                "Exchanges with peers, by who began them and how they went.",
                &["role", "result"],
            )?,
            seconds: register.histograms(
                "udht_exchange_seconds",
                "How long exchanges begun here took; as responder, how long each answer did.",
                &SECONDS,
                &["role"],
            )?,
            bytes: register.counters(
                "udht_exchange_bytes_total",
                "Bytes of messages between this sync and others, of pushes too; HTTP heads are not \
                 counted.",
                &["direction"],
            )?,
            symbols: register.histogram(
                "udht_exchange_symbols",
                "Coded symbols that an exchange begun here took in.",
                &SYMBOLS,
            )?,
            round_trips: register.histogram(
                "udht_exchange_round_trips",
                "Round trips of an exchange begun here.",
                &ROUND_TRIPS,
            )?,
            records: register.counters(
                "udht_exchange_records_total",
                "Records that moved in exchanges.",
                &["direction"],
            )?,
            messages: register.counters(
                "udht_messages_total",
                "Messages of peers that were answered, by what they asked.",
                &["ask", "result"],
            )?,
            cut_off: register.counter(
                "udht_messages_cut_off_total",
                "Messages of peers that were too large, too slow, or ended early.",
            )?,
        };
        metrics.name_all();
        Ok(metrics)
    }

    /// Makes each known value of each label show from the start.
    fn name_all(&self) {
        let refused = HandshakeRefused::ALL.map(|reason| format!("refused_{}", reason.word()));
        let failed = FAILURES.map(|failure| format!("failed_{failure}"));
        let went = ["equal", "reconciled", "snapshot"].map(str::to_owned);
        for result in went.iter().chain(&refused).chain(&failed) {
            self.exchanges_of(Role::Initiator, result);
        }
        let opened = [EQUAL, DIFFERED].map(str::to_owned);
        for result in opened.iter().chain(&refused) {
            self.exchanges_of(Role::Responder, result);
        }
        for role in Role::ALL {
            self.seconds.with_label_values(&[role.word()]);
        }
        for direction in Direction::ALL {
            self.bytes.with_label_values(&[direction.word()]);
            self.records.with_label_values(&[direction.word()]);
        }
        for ask in ASK_WORDS {
            for result in [OK, REFUSED] {
                self.messages.with_label_values(&[ask, result]);
            }
        }
    }

    fn exchanges_of(&self, role: Role, result: &str) -> IntCounter {
        self.exchanges.with_label_values(&[role.word(), result])
    }

    fn took(&self, role: Role, time: Duration) {
        let seconds = self.seconds.with_label_values(&[role.word()]);
        seconds.observe(time.as_secs_f64());
    }

    /// Counts an exchange that was begun here and took `time`.
    pub fn began(&self, result: &Result<Report, ExchangeError>, time: Duration) {
        let word = match result {
            Ok(report) => report.kind.word().to_owned(),
            Err(error) => match failure(error) {
                Some(failure) => format!("failed_{failure}"),
                None => format!("refused_{}", error.word()),
            },
        };
        self.exchanges_of(Role::Initiator, &word).inc();
        self.took(Role::Initiator, time);
        if let Ok(report) = result {
            #[expect(clippy::cast_precision_loss, reason = "histograms of bounded counts")]
            {
                self.symbols.observe(report.symbols as f64);
                let round_trips = report.traffic().round_trips;
                self.round_trips.observe(round_trips as f64);
            }
            self.moved(report.moved.sent, report.moved.received);
        }
    }

    /// Counts a message of a peer that was answered. Whether the two tables `differed` is only
    /// asked where the message began an exchange.
    pub fn answered(&self, report: &RespondReport, differed: impl FnOnce() -> bool) {
        let result = if report.refused.is_some() {
            REFUSED
        } else {
            OK
        };
        self.messages.with_label_values(&[report.ask, result]).inc();
        match (&report.refused, report.ask) {
            // Pushes are no exchanges, refused or not.
            (_, "push") => {}
            (Some(refusal), _) => {
                let word = format!("refused_{}", refusal.reason.word());
                self.exchanges_of(Role::Responder, &word).inc();
            }
            (None, "open") => {
                let word = if differed() { DIFFERED } else { EQUAL };
                self.exchanges_of(Role::Responder, word).inc();
            }
            (None, "swap") => self.moved(report.sent, report.received),
            (None, _) => {}
        }
    }

    /// Notes how long answering one message of a peer took.
    pub fn answering_took(&self, time: Duration) {
        self.took(Role::Responder, time);
    }

    fn moved(&self, sent: u64, received: u64) {
        for (direction, records) in [(Direction::Sent, sent), (Direction::Received, received)] {
            let moved = self.records.with_label_values(&[direction.word()]);
            moved.inc_by(records);
        }
    }

    /// The counter of the bytes of messages.
    pub fn bytes(&self, direction: Direction) -> IntCounter {
        self.bytes.with_label_values(&[direction.word()])
    }
}
