//! Figures of pushes, and of the manager's feed that they come from.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::SECONDS;
use super::register::Register;

/// The result of a push to one peer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It took it.
    Ok,
    /// It did not want it.
    Refused,
    /// It did not get it.
    Failed,
    /// There was no room to wait for its turn.
    Dropped,
}

impl Pushed {
    const ALL: [Self; 4] = [Self::Ok, Self::Refused, Self::Failed, Self::Dropped];

    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// What is counted of pushes.
#[derive(Debug)]
pub struct PushMetrics {
    results: IntCounterVec,
    /// How long a push to one peer took.
    pub seconds: Histogram,
    /// Records in pushes that were taken by a peer.
    pub records: IntCounter,
    /// Records that were not passed on because too many waited already.
    pub dropped: IntCounter,
    /// Times the manager's feed was begun anew from now on, as what came before was gone.
    pub feed_gaps: IntCounter,
    /// 1 while the manager's feed is followed.
    pub feed_connected: IntGauge,
}

impl PushMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            results: register.counters(
                "udht_pushes_total",
                "Pushes of fresh changes to one peer each, by result.",
                &["result"],
            )?,
            seconds: register.histogram(
                "udht_push_seconds",
                "How long a push to one peer took.",
                &SECONDS,
            )?,
            records: register.counter(
                "udht_push_records_total",
                "Records in pushes that a peer took.",
            )?,
            dropped: register.counter(
                "udht_push_dropped_records_total",
                "Records not passed on as too many waited; exchanges carry them.",
            )?,
            feed_gaps: register.counter(
                "udht_feed_gaps_total",
                "Times changes of this pod were missed in the manager's feed; exchanges carry them.",
            )?,
            feed_connected: register.gauge(
                "udht_feed_connected",
                "1 while the manager's feed of changes is followed.",
            )?,
        };
        for pushed in Pushed::ALL {
            metrics.results.with_label_values(&[pushed.word()]);
        }
        Ok(metrics)
    }

    /// Counts a push to one peer.
    pub fn ended(&self, pushed: Pushed) {
        self.results.with_label_values(&[pushed.word()]).inc();
    }
}
