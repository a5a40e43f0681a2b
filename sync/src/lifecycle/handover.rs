//! The end of a pod: before it is gone, somebody else has everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peer_exchange::Address;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use udht_tell::chain;

use super::Place;
use crate::kubernetes::pods::Sight;
use crate::metrics::HandedOver;
use crate::node::Node;
use crate::wall::{self, Stopwatch};

/// Peers that are handed over to at once.
const AT_ONCE: usize = 3;
/// Exchanges in a row with one peer: the first may meet changes that came while it went on, and
/// only one that finds nothing left to send shows that the peer has everything.
const EXCHANGES_MAX: usize = 5;

/// Hands over what this pod has.
#[derive(Debug)]
pub struct Handover {
    node: Arc<Node>,
    place: Option<Place>,
    for_good: bool,
    /// One at a time: whoever comes second finds that little is left to do.
    turn: Mutex<()>,
    is_second: AtomicBool,
}

/// What came of a handover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandoverView {
    /// `complete`, `alone` or `incomplete`.
    pub result: String,
    /// The peer that has everything.
    pub peer: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}

impl HandoverView {
    /// Whether nothing is lost by the end of this pod, as far as peers can see to that.
    pub fn is_done(&self) -> bool {
        self.result != HandedOver::Incomplete.word()
    }
}

impl Handover {
    /// Of this pod, whose `place` among those of Kubernetes is known if Kubernetes lists the pods.
    /// Without one, its end is `for_good` or nobody knows.
    pub fn new(node: Arc<Node>, place: Option<Place>, for_good: bool) -> Self {
        Self {
            node,
            place,
            for_good,
            turn: Mutex::default(),
            is_second: AtomicBool::default(),
        }
    }

    /// The end of this sync. Where Kubernetes says that the pod is being deleted, and not only that
    /// a container of it is started again, the manager is told to take no more writes, and to delete
    /// the pod's record if its storage goes too. Then, either way, a peer gets everything.
    ///
    /// With a fixed list of peers nobody knows more than before, and nothing is done here unless this
    /// sync was told that its end is for good.
    pub async fn leave(&self) {
        if self.place.is_none() && !self.for_good {
            return;
        }
        let _turn = self.turn.lock().await;
        let deadline = self.deadline();
        let is_deleted = match &self.place {
            Some(place) => self.is_deleted(place).await,
            None => true,
        };
        if is_deleted {
            match self.node.manager.leave(true).await {
                Ok(true) => tracing::info!("this pod is being deleted, and its record with it"),
                Ok(false) => tracing::info!("this pod is being deleted; its record stays"),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "the manager was not told that this pod is deleted");
                }
            }
        } else {
            tracing::info!(
                "this pod is not being deleted, as far as Kubernetes says: its record stays"
            );
        }
        self.pass(deadline).await;
    }

    /// Gives a peer everything while the application goes on: what a pod does as soon as it is told
    /// that it will end, so that little is left for its last moments.
    pub async fn hand_over(&self) -> HandoverView {
        let _turn = self.turn.lock().await;
        self.pass(self.deadline()).await
    }

    fn deadline(&self) -> Instant {
        let bounds = &self.node.bounds.lifecycle;
        let again = self.is_second.swap(true, Ordering::Relaxed);
        let bound = if again {
            bounds.handover_again
        } else {
            bounds.handover
        };
        Instant::now() + bound
    }

    /// Whether Kubernetes lists this pod as one that ends, or soon does.
    ///
    /// A signal to stop alone does not say so: it also comes when a probe failed, and then the pod
    /// stays.
    async fn is_deleted(&self, place: &Place) -> bool {
        let mut pods = place.pods.clone();
        let is_ending = |pods: &crate::kubernetes::pods::Pods| {
            let own = pods.by_uid.get(&place.own);
            own.is_some_and(|own| own.is_terminating)
        };
        // Whoever is not told anything need not wait for it.
        let known = pods.wait_for(|pods| is_ending(pods) || pods.sight != Sight::Live);
        let known = tokio::time::timeout(self.node.bounds.lifecycle.terminating, known).await;
        matches!(known, Ok(Ok(pods)) if is_ending(&pods))
    }

    async fn pass(&self, deadline: Instant) -> HandoverView {
        let watch = Stopwatch::start();
        let found = tokio::time::timeout_at(deadline, self.find()).await;
        let (result, peer) = match found {
            Ok(Some(peer)) => (HandedOver::Complete, Some(peer)),
            Ok(None) => (HandedOver::Alone, None),
            Err(_) => (HandedOver::Incomplete, None),
        };
        self.node.metrics.lifecycle.handed_over(result);
        let ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &peer {
            Some(peer) => tracing::info!(%peer, ms, "handed over: a peer has everything"),
            None if result == HandedOver::Alone => {
                tracing::info!("there is no peer to hand over to");
            }
            None => tracing::warn!(
                ms,
                "not handed over: no peer was found to have everything, and what only this pod has \
                 is lost with its storage"
            ),
        }
        HandoverView {
            result: result.word().to_owned(),
            peer: peer.map(|peer| peer.to_string()),
            took_ms: ms,
        }
    }

    /// A peer that has everything; `None` once there are no peers.
    async fn find(&self) -> Option<Address> {
        loop {
            let mut peers = self.peers().into_iter().peekable();
            peers.peek()?;
            let mut tried = FuturesUnordered::new();
            loop {
                if tried.len() < AT_ONCE {
                    tried.extend(peers.next().map(|peer| self.give(peer)));
                }
                let has_more = peers.peek().is_some() && tried.len() < AT_ONCE;
                tokio::select! {
                    given = tried.next() => match given {
                        Some(Some(peer)) => return Some(peer),
                        Some(None) => {}
                        None => break,
                    },
                    () = self.next_peer(), if has_more => {}
                }
            }
            tokio::time::sleep(self.node.bounds.lifecycle.pause).await;
        }
    }

    async fn next_peer(&self) {
        tokio::time::sleep(self.node.bounds.lifecycle.next_peer).await;
    }

    /// All peers, each group in an order that is drawn: first those of whom the last news is good.
    fn peers(&self) -> Vec<Address> {
        let book = self.node.book();
        let others = book.peers().filter(|(_, peer)| !peer.is_self);
        let mut peers: Vec<_> = others
            .map(|(address, peer)| (!peer.is_reachable(), wall::random(), address.clone()))
            .collect();
        peers.sort_unstable();
        peers.into_iter().map(|(_, _, address)| address).collect()
    }

    /// Exchanges with a peer until it has everything; `None` if it does not come to that.
    async fn give(&self, peer: Address) -> Option<Address> {
        for _ in 0..EXCHANGES_MAX {
            let (report, _) = self.node.exchange(&peer).await.ok()?;
            if report.is_equal() || report.moved.ours == 0 {
                return Some(peer);
            }
            if report.moved.merged_there.refused() > 0 {
                return None;
            }
        }
        None
    }
}
