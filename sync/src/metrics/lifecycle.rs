//! Figures of pods that go: those that are gone, and this one when it does.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::register::Register;

/// What came of handing over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HandedOver {
    /// A peer has everything.
    Complete,
    /// There is no peer.
    Alone,
    /// Nobody was found to have everything, in the time there was.
    Incomplete,
}

impl HandedOver {
    const ALL: [Self; 3] = [Self::Complete, Self::Alone, Self::Incomplete];

    /// The word for it in metrics, logs and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Alone => "alone",
            Self::Incomplete => "incomplete",
        }
    }
}

/// What is counted of pods that go.
#[derive(Debug)]
pub struct LifecycleMetrics {
    /// 1 while no record of a pod that is gone is removed.
    pub brake: IntGauge,
    /// How far this machine's clock is ahead of most others, in seconds, where that is too far.
    pub clock_off: Gauge,
    /// Pods that have a record and are not listed.
    pub gone: IntGauge,
    /// Records that this sync removed, as their pods were gone.
    pub removed: IntCounter,
    handovers: IntCounterVec,
}

impl LifecycleMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            brake: register.gauge(
                "udht_brake",
                "1 while what Kubernetes says of pods that are gone is not acted on: the list of \
                 pods is not followed, or more than half are gone at once.",
            )?,
            clock_off: register.fractional_gauge(
                "udht_own_clock_off_seconds",
                "How far this machine's clock is ahead of those of most peers, where it is too far \
                 off; 0 where it is not.",
            )?,
            gone: register.gauge(
                "udht_gone_pods",
                "Pods that have a record and are not listed by Kubernetes, as of the last look.",
            )?,
            removed: register.counter(
                "udht_gone_removed_total",
                "Records that this sync removed, as their pods were gone for long enough.",
            )?,
            handovers: register.counters(
                "udht_handovers_total",
                "Times this pod handed over what it has, as it was about to end, by result.",
                &["result"],
            )?,
        };
        for result in HandedOver::ALL {
            metrics.handovers.with_label_values(&[result.word()]);
        }
        Ok(metrics)
    }

    /// Counts a handover.
    pub fn handed_over(&self, result: HandedOver) {
        self.handovers.with_label_values(&[result.word()]).inc();
    }
}
