//! The records of pods that are gone, and their removal: what [`peer_exchange::gone`] decides is
//! done here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_exchange::gone::{Brake, Gone, Held};
use peer_exchange::{Own, PodUid};
use peer_table::Key;
use peer_table::contract::StateRequest;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use super::{Place, Tending};
use crate::kubernetes::pods::Sight;
use crate::manager::{ManagerError, PodRecord};
use crate::node::Node;

/// Follows which pods are listed, and removes the records of those that are gone for good.
#[derive(Debug)]
pub struct Removal {
    node: Arc<Node>,
    place: Place,
    after: Duration,
    tending: Arc<Tending>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gone: Gone,
    /// What each record was when it was last read.
    etags: BTreeMap<Key, String>,
    /// Whether the list of pods was followed at all yet.
    has_seen: bool,
    /// The brake as it was last talked about.
    said: Option<&'static str>,
}

/// Nothing was removed by hand.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The list of pods is not followed.
    #[error(
        "the list of pods is not followed, so nobody knows which are gone: is the Kubernetes API \
         reachable from here?"
    )]
    Blind,
    /// The manager failed.
    #[error("not all records were removed")]
    Manager(#[from] ManagerError),
}

/// Which pods are gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GoneView {
    /// Why nothing is removed: `blind` or `many`; none where it is.
    pub brake: Option<String>,
    /// After how long a pod counts as gone.
    pub after_ms: u64,
    /// The records of pods that are not listed.
    pub waiting: Vec<WaitingView>,
}

/// The record of a pod that is not listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingView {
    /// Its key.
    pub peer_id: String,
    /// The pod.
    pub pod_uid: String,
    /// For how long this sync has seen that the pod is not listed.
    pub missing_ms: Option<u64>,
}

/// What was removed by hand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovedView {
    /// The keys of the records.
    pub removed: Vec<String>,
    /// Records of pods that are not listed either, and not yet for long enough.
    pub waiting: usize,
}

impl Removal {
    /// Nothing is known yet of the pods; one is gone when it was not listed for `after`.
    pub fn new(node: Arc<Node>, place: Place, after: Duration, tending: Arc<Tending>) -> Self {
        let gone = Gone::new(place.own.clone(), after);
        Self {
            node,
            place,
            after,
            tending,
            state: Mutex::new(State {
                gone,
                etags: BTreeMap::new(),
                has_seen: false,
                said: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut pods = self.place.pods.clone();
        loop {
            pods.mark_unchanged();
            let step = self.step().await;
            if let Err(error) = &step {
                tracing::warn!(
                    error = chain(error),
                    "the records of pods that are gone wait for the manager"
                );
            }
            let pause = match step {
                Ok(()) => self.until_next_scan(),
                Err(_) => Some(self.node.bounds.lifecycle.pause),
            };
            tokio::select! {
                changed = pods.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(pause) => {}
            }
        }
    }

    /// Why nothing is removed now, if so.
    pub fn brake(&self) -> Option<Brake> {
        self.state().gone.brake(self.node.uptime())
    }

    /// Whether nothing is removed now.
    pub fn is_braked(&self) -> bool {
        self.brake().is_some()
    }

    fn until_next_scan(&self) -> Option<Duration> {
        let now = self.node.uptime();
        let next = self.state().gone.next_scan(now)?;
        Some(next.0.saturating_sub(now.0))
    }

    /// Takes in what there is to see, and removes what is due.
    async fn step(&self) -> Result<(), ManagerError> {
        self.see();
        if self.until_next_scan() == Some(Duration::ZERO) {
            self.scan().await?;
        }
        self.tell();
        let due = self.state().gone.due(self.node.uptime());
        for held in due {
            // While one was removed, the list may have changed.
            self.see();
            if self.state().gone.due(self.node.uptime()).contains(&held) {
                self.remove(&held).await?;
            }
        }
        self.tell();
        Ok(())
    }

    fn see(&self) {
        let pods = Arc::clone(&self.place.pods.borrow());
        let is_followed = pods.sight == Sight::Live;
        let listed = pods.by_uid.iter();
        let listed = listed.map(|(uid, pod)| (uid.clone(), pod.is_terminating));
        let now = self.node.uptime();
        self.state().gone.sees(is_followed, listed, now);
    }

    /// Reads the records of all pods.
    async fn scan(&self) -> Result<(), ManagerError> {
        let own = self
            .node
            .manager
            .state(&StateRequest::default())
            .await?
            .peer_id
            .parse()
            .ok();
        let records = self.node.manager.pod_records().await?;
        let now = self.node.uptime();
        let mut state = self.state();
        let held = records.iter().map(|record| Held {
            key: record.key.clone(),
            pod: PodUid(record.pod_uid.clone()),
        });
        state.gone.scanned(held, own, now);
        let etag = |PodRecord { key, etag, .. }| (key, etag);
        state.etags = records.into_iter().map(etag).collect();
        Ok(())
    }

    /// Removes a record, unless it is not what it was. A store that went with the pod is fenced
    /// before: nobody would look for it once the record is gone. Where a store was copied, another pod
    /// may write the same record, and while that one is talked to its store is there.
    async fn remove(&self, held: &Held) -> Result<bool, ManagerError> {
        let is_there = self.node.book().reaches(&held.key);
        let gone = (!is_there).then(|| held.key.clone());
        self.tending.tend(Vec::from_iter(gone), false).await?;
        let etag = self.state().etags.get(&held.key).cloned();
        let is_removed = match etag {
            Some(etag) => self.node.manager.delete_record(&held.key, &etag).await?,
            None => false,
        };
        if is_removed {
            self.node.metrics.lifecycle.removed.inc();
            tracing::info!(
                peer_id = %held.key,
                pod_uid = held.pod.0,
                "removed the record of a pod that is gone"
            );
        }
        self.state().gone.removed(&held.key);
        Ok(is_removed)
    }

    /// Brings metrics up to date, and says when the brake changed.
    fn tell(&self) {
        let now = self.node.uptime();
        let mut state = self.state();
        let brake = state.gone.brake(now);
        let gone: BTreeSet<_> = state.gone.waiting().map(|(held, _)| &held.pod).collect();
        let metrics = &self.node.metrics.lifecycle;
        metrics
            .gone
            .set(i64::try_from(gone.len()).unwrap_or(i64::MAX));
        metrics.brake.set(i64::from(brake.is_some()));
        state.has_seen |= brake != Some(Brake::Blind);
        let word = brake.map(Brake::word);
        if !state.has_seen || state.said == word {
            return;
        }
        state.said = word;
        match brake {
            None => tracing::info!("the brake is off: records of pods that are gone are removed"),
            Some(Brake::Blind) => tracing::warn!(
                "the brake is on: the list of pods is not followed, or does not name this pod; no \
                 record is removed"
            ),
            Some(Brake::Many { gone, known }) => tracing::warn!(
                gone,
                pods = known,
                "the brake is on: more than half of the pods are gone at once, so their records \
                 stay; if they are gone for good, say so with `udht-sync gone --remove`"
            ),
        }
    }

    /// Which pods are gone, as of the last look.
    pub fn view(&self) -> GoneView {
        self.see();
        let now = self.node.uptime();
        let state = self.state();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let waiting = state.gone.waiting().map(|(held, since)| WaitingView {
            peer_id: held.key.to_string(),
            pod_uid: held.pod.0.clone(),
            missing_ms: since.map(|since| millis(now.0.saturating_sub(since.0))),
        });
        GoneView {
            brake: state.gone.brake(now).map(|brake| brake.word().to_owned()),
            after_ms: millis(self.after),
            waiting: waiting.collect(),
        }
    }

    /// Removes all records whose pods have been gone for long enough, also if they are many, and
    /// whoever's turn it is: somebody has said that they are gone for good.
    pub async fn remove_by_hand(&self) -> Result<RemovedView, RemovalError> {
        self.see();
        self.scan().await?;
        let now = self.node.uptime();
        if self.state().gone.brake(now) == Some(Brake::Blind) {
            return Err(RemovalError::Blind);
        }
        let due = self.state().gone.due_by_hand(now);
        let mut removed = Vec::new();
        for held in due {
            self.see();
            if !self.state().gone.due_by_hand(now).contains(&held) {
                continue;
            }
            if self.remove(&held).await? {
                removed.push(held.key.to_string());
            }
        }
        self.tell();
        let waiting = self.state().gone.waiting().count();
        Ok(RemovedView { removed, waiting })
    }
}

/// Waits for that time, or for ever.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
