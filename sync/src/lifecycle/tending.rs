//! Having the manager look after its floors: it is told what discovery says of the other replicas,
//! and what it publishes is pushed to all.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_exchange::book::next_delay;
use peer_exchange::push::{PassOn, Scope};
use peer_table::clock::stamp_ahead_max;
use peer_table::contract::{Batch, Tend};
use peer_table::floors::{Evidence, Replicas};
use peer_table::{Key, OriginId};
use tokio_util::sync::CancellationToken;
use udht_tell::chain;

use crate::kubernetes::pods::Sight;
use crate::manager::ManagerError;
use crate::node::Node;
use crate::push::Pusher;
use crate::wall;

/// Until a replica belongs to a cluster, it is looked after this often.
const NEWCOMER_PAUSE: Duration = Duration::from_secs(1);

/// Who tells the manager of other replicas.
#[derive(Debug)]
pub struct Tending {
    node: Arc<Node>,
    pusher: Arc<Pusher>,
    /// Whether pods are listed by Kubernetes.
    is_listed: bool,
    pause: Duration,
    drift_max: Duration,
}

/// Whom this sync has met, for the manager to be told.
#[derive(Debug, Default)]
pub struct Met {
    /// The ids under which replicas were talked to and of which it was not told yet.
    ids: Mutex<BTreeSet<OriginId>>,
    /// The own id under which an exchange with a replica that belongs was completed.
    joined: Mutex<Option<OriginId>>,
    /// Whether this replica may be the first of its cluster.
    may_begin: AtomicBool,
}

impl Met {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<OriginId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a replica was talked to.
    pub fn note(&self, id: OriginId) {
        self.ids().insert(id);
    }

    /// Notes that an exchange with one that belongs was completed under this id of our own.
    pub fn join_as(&self, own: OriginId) {
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
    }

    /// Whether an exchange with one that belongs is still to come.
    pub fn is_newcomer(&self) -> bool {
        self.joined().is_none() && !self.may_begin.load(Ordering::Relaxed)
    }

    fn joined(&self) -> Option<OriginId> {
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tending {
    /// Of this node; `is_listed` is whether its peers are listed by Kubernetes.
    pub fn new(node: Arc<Node>, pusher: Arc<Pusher>, is_listed: bool, drift_max: Duration) -> Self {
        // What rounds bring is of use at once, where they are quick.
        let pause = node.bounds.lifecycle.tend.min(node.interval * 2);
        Self {
            node,
            pusher,
            is_listed,
            pause,
            drift_max,
        }
    }

    /// Goes on until `stop`; `is_braked` says whether nobody is to be taken for gone.
    pub async fn run(&self, is_braked: impl Fn() -> bool, stop: CancellationToken) {
        let work = async {
            loop {
                let belongs = self.tend(Vec::new(), is_braked()).await;
                let pause = match belongs {
                    Ok(true) => self.pause,
                    Ok(false) => NEWCOMER_PAUSE.min(self.pause),
                    Err(error) => {
                        tracing::warn!(
                            error = chain(&error),
                            "the manager does not look after its floors"
                        );
                        self.pause
                    }
                };
                tokio::time::sleep(next_delay(pause, wall::random())).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Has the manager look after its floors, where the pods of the records `gone` are gone for good.
    /// The answer is whether this replica belongs to a cluster.
    pub async fn tend(&self, gone: Vec<Key>, is_braked: bool) -> Result<bool, ManagerError> {
        let is_blind = self.is_listed && self.node.pods().borrow().sight != Sight::Live;
        let met = std::mem::take(&mut *self.node.met_ids.ids());
        let (evidence, clock_off_ms, clock_agrees) = {
            let now = self.node.uptime();
            let book = self.node.book();
            let may_begin = !is_blind && book.is_new_cluster();
            let evidence = Evidence {
                has_strangers: book.has_strangers(),
                is_braked: is_blind || is_braked,
                may_begin,
                joined: self.node.met_ids.joined(),
                met: met.iter().copied().collect(),
                gone,
            };
            let limit = stamp_ahead_max(self.drift_max);
            let off_ms = book.own_clock_off(limit, now);
            (evidence, off_ms, book.own_clock_agrees(limit, now))
        };
        let met_ids = &self.node.met_ids;
        met_ids
            .may_begin
            .fetch_or(evidence.may_begin, Ordering::Relaxed);
        let clock_off_ms = clock_off_ms.unwrap_or(0);
        let clock_off = Duration::from_millis(clock_off_ms.unsigned_abs()).as_secs_f64();
        let clock_off = if clock_off_ms < 0 {
            -clock_off
        } else {
            clock_off
        };
        self.node.metrics.lifecycle.clock_off.set(clock_off);
        let tend = Tend {
            clock_off_ms,
            clock_agrees,
            ..Tend::from(&evidence)
        };
        match self.node.manager.tend(&tend).await {
            Ok(publication) => {
                if let Some(publication) = publication {
                    self.publish(Replicas {
                        publications: vec![publication],
                        ..Replicas::default()
                    })
                    .await;
                }
                Ok(!self.node.met_ids.is_newcomer())
            }
            Err(error) => {
                self.node.met_ids.ids().extend(met);
                Err(error)
            }
        }
    }

    async fn publish(&self, replicas: Replicas) {
        let table = self.node.table.clone();
        let own = self.node.book().own_position();
        let news = PassOn {
            batch: Batch::new(&table, []),
            table,
            replicas: Some(replicas),
            scope: Scope::shared(wall::now(), own),
        };
        self.pusher.send_own(news).await;
    }
}
