//! Figures of the authority of `--tls auto`.

use prometheus::{IntCounterVec, IntGauge};

use super::register::Register;
use crate::authority::trouble::Trouble;

/// What is counted of the authority. Without `--tls auto` all is zero.
#[derive(Clone, Debug)]
pub struct AuthorityMetrics {
    /// When the certificate that signs ends.
    pub expiry: IntGauge,
    /// How far a rotation is.
    pub stage: IntGauge,
    failures: IntCounterVec,
}

impl AuthorityMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            expiry: register.gauge(
                "udht_authority_expiry_timestamp_seconds",
                "When the authority that signs this sync's certificate expires, in seconds of the \
                 Unix epoch; 0 without one.",
            )?,
            stage: register.gauge(
                "udht_authority_rotation_stage",
                "How far a rotation of the authority is: 0 none, 1 both are believed, 2 the new \
                 one signs.",
            )?,
            failures: register.counters(
                "udht_authority_failures_total",
                "Attempts to take or make the authority, to bind the manager to it, or to issue a \
                 certificate, that failed.",
                &["reason"],
            )?,
        };
        for reason in Trouble::WORDS {
            metrics.failures.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Counts trouble of this kind.
    pub fn failed(&self, reason: &'static str) {
        self.failures.with_label_values(&[reason]).inc();
    }
}
