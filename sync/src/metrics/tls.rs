//! Figures of mutual TLS.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::register::Register;
use crate::tls::{Reason, Side};

/// What is counted of mutual TLS. Without it all is zero.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    refused: IntCounterVec,
    handshakes: IntCounterVec,
    /// Changed files, or certificates of the own authority, that followed others.
    pub reloaded: IntCounter,
    /// Changed files that could not be used.
    pub reload_failed: IntCounter,
    /// When the own certificate ends.
    pub expiry: IntGauge,
}

impl TlsMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let reloads = register.counters(
            "udht_tls_reloads_total",
            "Changes of the TLS files, or certificates of the own authority that followed others; \
                 where one failed, those of before stay in use.",
            &["result"],
        )?;
        let metrics = Self {
            refused: register.counters(
                "udht_tls_refused_total",
                "Connections that were not made, whichever end refused the other, by this sync's \
                 part in them.",
                &["side", "reason"],
            )?,
            handshakes: register.counters(
                "udht_tls_handshakes_total",
                "TLS handshakes done; as client, before the peer has judged the own certificate.",
                &["side"],
            )?,
            reloaded: reloads.with_label_values(&["ok"]),
            reload_failed: reloads.with_label_values(&["failed"]),
            expiry: register.gauge(
                "udht_tls_certificate_expiry_timestamp_seconds",
                "When this sync's certificate expires, in seconds of the Unix epoch; 0 without TLS.",
            )?,
        };
        for side in Side::ALL {
            metrics.handshakes.with_label_values(&[side.word()]);
            for reason in Reason::ALL {
                let labels = [side.word(), reason.word()];
                metrics.refused.with_label_values(&labels);
            }
        }
        Ok(metrics)
    }

    /// Counts a connection that was not made.
    pub fn refused(&self, side: Side, reason: Reason) {
        let labels = [side.word(), reason.word()];
        self.refused.with_label_values(&labels).inc();
    }

    /// Counts a handshake.
    pub fn handshaken(&self, side: Side) {
        self.handshakes.with_label_values(&[side.word()]).inc();
    }
}
