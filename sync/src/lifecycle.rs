//! What becomes of records and tables when pods go: the records of pods that are gone for good are
//! removed, a pod that is about to end hands over what it has, and the manager is told of other
//! replicas, so that tombstones leave.

mod handover;
mod removal;
mod tending;

use std::sync::Arc;
use std::time::Duration;

use peer_exchange::PodUid;
use peer_exchange::gone::Brake;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::pods::Pods;
use crate::node::Node;

pub use self::handover::{Handover, HandoverView};
pub use self::removal::{GoneView, Removal, RemovalError, RemovedView, WaitingView};
pub use self::tending::{Met, Tending};

/// This pod among those that Kubernetes lists.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its UID.
    pub own: PodUid,
    /// All pods, as they are listed.
    pub pods: watch::Receiver<Arc<Pods>>,
}

/// What a sync does about pods that go.
#[derive(Debug)]
pub struct Lifecycle {
    /// Of others: none with a fixed list of peers.
    pub removal: Option<Removal>,
    /// Of this one.
    pub handover: Handover,
    tending: Arc<Tending>,
}

impl Lifecycle {
    /// Of this pod, whose `place` is known if Kubernetes lists the pods; others are gone when they
    /// were not listed for `gone_after`.
    pub fn new(
        node: Arc<Node>,
        place: Option<Place>,
        gone_after: Duration,
        handover: Handover,
        tending: Tending,
    ) -> Self {
        let tending = Arc::new(tending);
        let removal = place.map(|place| {
            let tending = Arc::clone(&tending);
            Removal::new(node, place, gone_after, tending)
        });
        Self {
            removal,
            handover,
            tending,
        }
    }

    /// Why nobody is taken for gone, if so.
    pub fn brake(&self) -> Option<Brake> {
        self.removal.as_ref().and_then(Removal::brake)
    }

    /// Removes the records of pods that are gone, and tells the manager of other replicas, until
    /// `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let is_braked = || self.removal.as_ref().is_some_and(Removal::is_braked);
        let remove = async {
            if let Some(removal) = &self.removal {
                removal.run(stop.clone()).await;
            }
        };
        tokio::join!(remove, self.tending.run(is_braked, stop.clone()));
    }
}

/// How long things may take when pods go.
#[derive(Copy, Clone, Debug)]
pub struct LifecycleBounds {
    /// How long to wait for Kubernetes to say that this pod is being deleted: it says so to the pod
    /// and to those that watch the endpoints at the same time, by ways of different length.
    pub terminating: Duration,
    /// Of a handover, all in all.
    pub handover: Duration,
    /// Of one that follows another: there is little left to do, and both together with the stop
    /// after them must end before the pod is killed.
    pub handover_again: Duration,
    /// How long a peer is waited for before the next is tried beside it.
    pub next_peer: Duration,
    /// How often the manager is told of other replicas, on average, at the least.
    pub tend: Duration,
    /// After all peers were tried in vain, and after a record could not be read or removed.
    pub pause: Duration,
}

impl Default for LifecycleBounds {
    fn default() -> Self {
        Self {
            terminating: Duration::from_secs(3),
            handover: Duration::from_secs(10),
            handover_again: Duration::from_secs(5),
            next_peer: Duration::from_secs(1),
            tend: Duration::from_secs(10),
            pause: Duration::from_millis(500),
        }
    }
}
