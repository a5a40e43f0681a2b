//! What concerns the pod itself: the authority that its store is bound to, what its own record
//! always says, and its leaving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peer_table::peers::{Draft, InvalidField};
use peer_table::table::{Precondition, WriteRefused};
use peer_table::{AuthorityId, Binding, ClusterId, FingerprintKey, Key, Version};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use udht_tell::chain;
use uuid::Uuid;

use super::task::{AnyAnswer, Doubt, fail};
use super::{Answer, Command, Operation, Owner, OwnerError, Shared, Work, Write, WriteError};
use crate::config::Storage;
use crate::store::{Commit, Opening, StoreError};

/// Records of which the fingerprints are made anew in one go: others wait a millisecond for it.
const REKEYED_AT_ONCE: usize = 512;
/// How long writes wait for this; after that they are refused until it is done.
const WRITES_PATIENCE: Duration = Duration::from_secs(5);

/// Why a store was not bound to an authority; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BindRefused {
    /// It is bound to another one.
    #[error(
        "this store belongs to the authority {held}, and this release is now under {wanted}: they \
         are kept apart; to have the release take the store over, run: udht-sync authority adopt \
         {held}"
    )]
    OtherAuthority {
        /// To which.
        held: AuthorityId,
        /// To which it was to be bound.
        wanted: AuthorityId,
    },
    /// Cluster and authority together are too long a name.
    #[error(
        "the id {0} is too long to be under an authority; give the manager a shorter --cluster"
    )]
    Cluster(ClusterId),
}

/// What the table of an opening is known as: the cluster's whole id, and the key of its
/// fingerprints.
pub(super) fn known_as(
    cluster: &ClusterId,
    opening: &Opening,
) -> Result<(ClusterId, FingerprintKey), StoreError> {
    let Some(binding) = &opening.binding else {
        return Ok((cluster.clone(), FingerprintKey::of_cluster(cluster)));
    };
    let whole = binding.cluster(cluster).map_err(|_| StoreError::Open {
        store: format!("the store of {cluster}"),
        problem: BindRefused::Cluster(cluster.clone()).to_string(),
    })?;
    Ok((whole, binding.fingerprint_key.clone()))
}

/// What the pod's own record always says, whoever writes it.
pub(super) struct Kept<'a> {
    pub(super) own: &'a Key,
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl Kept<'_> {
    /// What is to be written where `draft` was to be written under `key`.
    pub(super) fn on(&self, key: &Key, mut draft: Draft) -> Result<Draft, InvalidField> {
        let says = |(key, value): (&String, &String)| draft.labels.get(key) == Some(value);
        if key != self.own || self.labels.iter().all(says) {
            return Ok(draft);
        }
        let labels = self.labels.iter();
        let labels = labels.map(|(key, value)| (key.clone(), value.clone()));
        draft.labels.extend(labels);
        draft.check()?;
        Ok(draft)
    }
}

impl Shared {
    /// What is always on the own record of this opening.
    pub(super) const fn kept<'a>(&'a self, opening: &'a Opening) -> Kept<'a> {
        Kept {
            own: &opening.peer_id,
            labels: &self.labels,
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }
}

impl Owner {
    /// Binds the store to an authority, unless it is bound to another one that is not among
    /// `adopts`. The fingerprints are made anew if that changes their key, and the feed begins anew.
    pub async fn bind(
        &self,
        binding: Binding,
        adopts: Vec<AuthorityId>,
    ) -> Result<Result<(), BindRefused>, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Bind {
            binding,
            adopts,
            answer,
        })
        .await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    /// Takes no further local write: the pod is going, `for_good` if it does not come back. The own
    /// record is deleted if the store goes with the pod; the answer is whether it is deleted.
    pub async fn leave(&self, for_good: bool) -> Result<bool, OwnerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Leave { for_good, answer }).await?;
        answered.await.map_err(|_| OwnerError::Stopped)?
    }

    /// Whether the pod is going.
    pub fn is_leaving(&self) -> bool {
        self.shared.is_leaving()
    }

    /// The labels that are always on the pod's own record.
    pub fn own_labels(&self) -> &BTreeMap<String, String> {
        &self.shared.labels
    }

    /// The version of the pod's own record, whether it is live, and whether this opening of the
    /// store wrote it; `None` if there never was one.
    pub fn own_version(&self) -> Option<(Version, bool, bool)> {
        let current = self.shared.current();
        let row = current.table.row(&current.opening.peer_id)?;
        let is_ours = row.version.origin == current.opening.origin;
        Some((row.version, row.is_live(), is_ours))
    }
}

impl Work {
    pub(super) async fn bind(
        &mut self,
        binding: Binding,
        adopts: &[AuthorityId],
        answer: Answer<Result<(), BindRefused>>,
    ) {
        // Who no longer waits for the answer asks again.
        match self.decide_binding(&binding, adopts) {
            Err(refused) => drop(answer.send(Ok(Err(refused)))),
            Ok(None) => drop(answer.send(Ok(Ok(())))),
            Ok(Some(cluster)) => {
                let shared = Arc::clone(&self.shared);
                let commit = Commit {
                    binding: Some(binding.clone()),
                    ..Commit::default()
                };
                let call = shared.store.commit(commit);
                match shared.metrics.store("commit", call).await {
                    Ok(()) => {
                        self.bound(binding, cluster).await;
                        drop(answer.send(Ok(Ok(()))));
                    }
                    Err(error) => {
                        if matches!(error, StoreError::OutcomeUnknown { .. }) {
                            self.doubt = Some(Doubt::Binding(binding, cluster));
                        }
                        fail(std::iter::once(AnyAnswer::Bind(answer)), error);
                    }
                }
            }
        }
    }

    /// The cluster's whole id once the store is bound so; `None` if it is already.
    fn decide_binding(
        &self,
        binding: &Binding,
        adopts: &[AuthorityId],
    ) -> Result<Option<ClusterId>, BindRefused> {
        let current = self.shared.current();
        match &current.opening.binding {
            Some(held) if held == binding => return Ok(None),
            Some(held)
                if held.authority != binding.authority && !adopts.contains(&held.authority) =>
            {
                return Err(BindRefused::OtherAuthority {
                    held: held.authority,
                    wanted: binding.authority,
                });
            }
            Some(_) | None => {}
        }
        let cluster = &self.shared.cluster;
        let whole = binding.cluster(cluster);
        let whole = whole.map_err(|_| BindRefused::Cluster(cluster.clone()))?;
        Ok(Some(whole))
    }

    /// Has the table be what the store is bound to. Records can be read meanwhile, and writes wait.
    pub(super) async fn bound(&mut self, binding: Binding, cluster: ClusterId) {
        let started = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut rekeying = {
            let mut current = shared.change();
            current.is_rekeying = true;
            let key = binding.fingerprint_key.clone();
            current.table.begin_rekeying(key)
        };
        while !shared.change().table.rekey(&mut rekeying, REKEYED_AT_ONCE) {
            yield_now().await;
            if started.elapsed() >= WRITES_PATIENCE {
                while let Ok(command) = self.commands.try_recv() {
                    shared.not_done(std::slice::from_ref(&command));
                    let problem = "the table is being bound to the authority of its cluster";
                    let error = StoreError::Unavailable(problem.to_owned());
                    fail(std::iter::once(command.into_answer()), error);
                }
            }
        }
        drop(rekeying);
        let (epoch, _) = Uuid::new_v4().as_u64_pair();
        let (revision, records) = {
            let mut current = shared.change();
            tracing::info!(authority = %binding.authority, %cluster, "bound to an authority");
            current.opening.binding = Some(binding);
            current.cluster = cluster;
            current.table.renew_feed(epoch);
            current.is_rekeying = false;
            let table = &current.table;
            (table.feed().revision(), table.live() + table.tombstones())
        };
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(records, ms, "the fingerprints are those of its cluster");
        self.publish_figures();
        shared.revision.send_replace(revision);
    }

    pub(super) async fn leave(&mut self, for_good: bool, answer: Answer<bool>) {
        let shared = Arc::clone(&self.shared);
        if !shared.leaving.swap(true, Ordering::Relaxed) {
            tracing::info!(for_good, "the pod is going: no further write is taken");
            shared.metrics.leaving.set(1);
        }
        let result = if for_good && shared.storage == Storage::Pod {
            match self.delete_own().await {
                Ok(is_deleted) => self.fence_own().await.map(|()| is_deleted),
                Err(error) => Err(error),
            }
        } else {
            Ok(false)
        };
        // Who no longer waits for the answer asks again.
        drop(answer.send(result));
    }

    async fn delete_own(&mut self) -> Result<bool, OwnerError> {
        if let Some(off) = self.shared.clock_off() {
            // Its peers would refuse it; they remove the record once the pod is gone.
            let error = OwnerError::ClockOff(off);
            tracing::warn!(
                error = chain(&error),
                "this pod's own record was not deleted"
            );
            return Ok(false);
        }
        let (answer, answered) = oneshot::channel();
        let write = Write {
            key: self.shared.current().opening.peer_id.clone(),
            precondition: Precondition::default(),
            operation: Operation::Delete,
        };
        let command = Command::Write {
            writes: vec![write],
            answer,
        };
        self.group(vec![command]).await;
        let mut results = answered.await.map_err(|_| OwnerError::Stopped)??;
        Ok(match results.pop() {
            Some(Ok(_) | Err(WriteError::Refused(WriteRefused::Absent))) => true,
            Some(Err(error)) => {
                tracing::warn!(
                    error = chain(&error),
                    "this pod's own record was not deleted"
                );
                false
            }
            None => false,
        })
    }
}
