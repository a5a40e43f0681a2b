//! Mutual TLS between syncs: who each side is, and that both are of one cluster.
//!
//! TLS 1.3 only, and a certificate on both sides. Each side checks that the other's is signed by an
//! authority that it knows, and that it bears the cluster's [`name`](ClusterName); which address or
//! pod it belongs to does not matter. The handshake of each message then checks the exact cluster
//! id. No session is ever resumed: who was let in under an authority that is gone is not let in
//! again.
//!
//! The [`Credentials`] come from [`Files`], or from the release's own
//! [`authority`](crate::authority); until that is known there are none, and nobody is let in.

mod credentials;
mod dial;
mod door;
mod expiry;
mod files;
mod name;
mod refusal;

use std::sync::Arc;

use tokio::sync::watch;

pub use self::credentials::{Credentials, InvalidCredentials, Pem};
pub use self::dial::{Connector, Stream};
pub use self::door::{Door, Entered, Guest};
pub use self::expiry::not_after;
pub use self::files::{FILES, Files, FilesError};
pub use self::name::ClusterName;
pub use self::refusal::{By, Reason, Refusals, Refused, Side};
use crate::metrics::TlsMetrics;

/// The credentials of this sync, and of who was refused by them.
#[derive(Debug)]
pub struct Tls {
    current: watch::Sender<Option<Arc<Credentials>>>,
    metrics: TlsMetrics,
    refusals: Refusals,
}

impl Tls {
    /// Without credentials yet.
    pub fn new(metrics: TlsMetrics) -> Self {
        Self {
            refusals: Refusals::new(metrics.clone()),
            metrics,
            current: watch::Sender::new(None),
        }
    }

    /// From here on new connections are made with these credentials.
    pub fn take(&self, new: Credentials) {
        self.metrics.expiry.set(new.expires());
        if self.current.send_replace(Some(Arc::new(new))).is_some() {
            self.metrics.reloaded.inc();
        }
    }

    /// The credentials that new connections are made with; none while nothing secures them yet, and
    /// so none may be made.
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.current.borrow().clone()
    }
}
