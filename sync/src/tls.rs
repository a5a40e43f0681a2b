//! Mutual TLS between syncs: who each side is, and that both are of one cluster.
//!
//! TLS 1.3 only, and a certificate on both sides. Each side checks that the other's is signed by an
//! authority that it knows, and that it bears the cluster's [`name`](ClusterName); which address or
//! pod it belongs to does not matter. The handshake of each message then checks the exact cluster
//! id. No session is ever resumed: who was let in under an authority that is gone is not let in
//! again.

mod credentials;
mod dial;
mod door;
mod expiry;
mod files;
mod name;
mod refusal;

use std::path::PathBuf;
use std::sync::Arc;

use peer_table::ClusterId;
use tokio::sync::watch;

pub use self::credentials::{Credentials, InvalidCredentials, Pem};
pub use self::dial::{Connector, Stream};
pub use self::door::{Door, Entered, Guest};
pub use self::files::{FILES, FilesError};
pub use self::name::ClusterName;
pub use self::refusal::{By, Reason, Refusals, Refused, Side};
use crate::metrics::TlsMetrics;

/// The credentials of this sync, anew whenever their files change.
#[derive(Debug)]
pub struct Tls {
    folder: PathBuf,
    name: ClusterName,
    current: watch::Sender<Arc<Credentials>>,
    metrics: TlsMetrics,
    refusals: Refusals,
}

impl Tls {
    /// Reads the files in `folder`, whose certificate must bear the name of `cluster`.
    pub fn from_files(
        folder: PathBuf,
        cluster: &ClusterId,
        metrics: TlsMetrics,
    ) -> Result<Self, FilesError> {
        let name = ClusterName::of(cluster);
        let credentials = files::read(&folder)
            .and_then(|pem| files::credentials(&folder, pem, &name))
            .map(Arc::new)?;
        metrics.expiry.set(credentials.expires());
        Ok(Self {
            folder,
            name,
            refusals: Refusals::new(metrics.clone()),
            metrics,
            current: watch::Sender::new(credentials),
        })
    }

    /// The name that the certificates of the cluster bear.
    pub const fn name(&self) -> &ClusterName {
        &self.name
    }

    /// The credentials that new connections are made with.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }
}
