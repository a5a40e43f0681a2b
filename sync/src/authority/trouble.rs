//! What can stand between a sync and its certificate: words for metrics, and sentences that say what
//! to do.

use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use peer_table::{AuthorityId, ClusterId};
use udht_tell::chain;

use super::issue::IssueError;
use super::state::InvalidAuthority;
use crate::kubernetes::client::ApiError;
use crate::manager::ManagerError;
use crate::metrics::AuthorityMetrics;

/// Something keeps this sync from its certificate, or from a fresh one.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The Kubernetes API does not do what it is asked.
    #[error("the Secret of the authority cannot be had from the Kubernetes API")]
    Api(#[from] ApiError),
    /// The Kubernetes API does not let this pod have the Secret.
    #[error(
        "this pod may not have the Secret {secret}: its role must allow get, watch and update of \
         this Secret by name"
    )]
    Forbidden {
        /// Which.
        secret: String,
        /// What the API says.
        source: ApiError,
    },
    /// There is no Secret.
    #[error(
        "there is no Secret {secret}: the chart makes it, empty, and no sync may make one; \
         `kubectl create secret generic` does too"
    )]
    Missing {
        /// Which.
        secret: String,
    },
    /// Nobody has made the authority yet.
    #[error("the Secret {secret} is empty: the first running sync makes the authority")]
    Empty {
        /// Which.
        secret: String,
    },
    /// There is something else in the Secret.
    #[error(
        "the Secret has the keys {keys} and no authority: it is left as it is. Name an empty one \
         with --authority-secret; certificates of your own are used with --tls files:DIR"
    )]
    Foreign {
        /// What is in it.
        keys: String,
    },
    /// What is in the Secret is no authority.
    #[error(
        "the authority in the Secret cannot be used, and is left as it is: bring back what was \
         there before"
    )]
    Invalid(#[from] InvalidAuthority),
    /// Another authority is in the Secret than the one in use.
    #[error(
        "the Secret has the authority {found} now, and this sync keeps the authority {held} that \
         it has: bring back the Secret as it was, or have the new one adopt the old one with \
         `udht-sync authority adopt {held}`"
    )]
    Replaced {
        /// What is in it.
        found: AuthorityId,
        /// What this sync has.
        held: AuthorityId,
    },
    /// The manager's table belongs to another authority.
    #[error("the manager's table belongs to another authority, and nothing is exchanged")]
    Bound(#[source] ManagerError),
    /// The manager does not do what it is asked.
    #[error("the manager cannot be bound to the authority")]
    Manager(#[source] ManagerError),
    /// The manager is of another cluster.
    #[error(
        "the manager is of the cluster {theirs} and this sync of {ours}: start both with the \
         same --cluster"
    )]
    Cluster {
        /// The cluster of this sync.
        ours: ClusterId,
        /// The cluster of the manager, as it says.
        theirs: String,
    },
    /// The name of the cluster leaves no room for the UUID of the authority.
    #[error("--cluster is too long: under --tls auto it may have 216 characters")]
    LongName,
    /// No certificate can be issued.
    #[error("no certificate can be issued")]
    Issue(#[from] IssueError),
}

impl Trouble {
    /// Every word for it in metrics and logs.
    pub const WORDS: [&str; 12] = [
        "api",
        "forbidden",
        "missing",
        "empty",
        "foreign",
        "invalid",
        "replaced",
        "bound",
        "manager",
        "cluster",
        "issue",
        "expired",
    ];

    /// The word for it in metrics and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Api(_) => "api",
            Self::Forbidden { .. } => "forbidden",
            Self::Missing { .. } => "missing",
            Self::Empty { .. } => "empty",
            Self::Foreign { .. } => "foreign",
            Self::Invalid(_) => "invalid",
            Self::Replaced { .. } => "replaced",
            Self::Bound(_) => "bound",
            Self::Manager(_) => "manager",
            Self::Cluster { .. } | Self::LongName => "cluster",
            Self::Issue(IssueError::Expired) => "expired",
            Self::Issue(_) => "issue",
        }
    }

    /// What a failure to bind means.
    pub(super) fn of_binding(error: ManagerError) -> Self {
        if error.is_status(StatusCode::CONFLICT) {
            Self::Bound(error)
        } else {
            Self::Manager(error)
        }
    }
}

/// Counts trouble, and says each kind of it when it begins and when it is over.
#[derive(Debug)]
pub struct Troubles {
    metrics: AuthorityMetrics,
    said: Mutex<Option<&'static str>>,
}

impl Troubles {
    /// None yet.
    pub const fn new(metrics: AuthorityMetrics) -> Self {
        let said = Mutex::new(None);
        Self { metrics, said }
    }

    /// Notes trouble.
    pub fn note(&self, trouble: &Trouble) {
        let reason = trouble.word();
        self.metrics.failed(reason);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        *said = Some(reason);
        tracing::warn!(
            reason,
            error = chain(trouble),
            "something keeps this sync from its authority; it is tried again"
        );
    }

    /// Notes that there is none.
    pub fn over(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = said.take() {
            tracing::info!(reason, "what kept this sync from its authority is over");
        }
    }
}
