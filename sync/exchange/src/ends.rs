//! The two ends of the protocol: the table's owner in this pod, and the way to a partner.

use std::error::Error;
use std::future::Future;

use peer_table::contract::{
    Advance, Batch, FingerprintPage, MergeAnswer, Records, State, StateRequest,
};
use peer_table::feed::Via;
use peer_table::floors::Replicas;
use peer_table::{Fingerprint, StoreId, TableName, WallTime};

/// An error of whatever lies behind [`Own`] or [`Remote`].
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The manager of this pod: one method for each of its calls under `/v1/sync`, and the clock.
///
/// Each answer is one snapshot; between two calls anything may change.
pub trait Own: Sync {
    /// Why a call failed.
    type Error: Error + Send + Sync + 'static;

    /// Who this replica is and how its tables stand, with as many coded symbols of each as are asked
    /// for: fewer only where its sketch has no more.
    fn state(
        &self,
        request: &StateRequest,
    ) -> impl Future<Output = Result<State, Self::Error>> + Send;

    /// Takes in what another replica knows of all replicas, and tells what is known here. It fails
    /// where this replica was given up and has to start over.
    fn replicas(
        &self,
        theirs: &Replicas,
    ) -> impl Future<Output = Result<Replicas, Self::Error>> + Send;

    /// Notes that an exchange of ours brought all that its partner had; answers whether anything
    /// became of it.
    fn advance(&self, advance: &Advance) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Up to `limit` fingerprints of a table in ascending order, from the first at or above `from`.
    fn fingerprints(
        &self,
        table: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> impl Future<Output = Result<FingerprintPage, Self::Error>> + Send;

    /// The records with these fingerprints, as far as one batch goes, in the order asked for.
    fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> impl Future<Output = Result<Records, Self::Error>> + Send;

    /// Merges a batch that came `via` a push or an exchange from the replica `from`, and by the
    /// exchange `session` if that is ours.
    fn merge(
        &self,
        batch: Batch,
        via: Via,
        from: StoreId,
        session: Option<u64>,
    ) -> impl Future<Output = Result<MergeAnswer, Self::Error>> + Send;

    /// This machine's wall clock.
    fn now(&self) -> WallTime;
}

/// The way to another pod's sync.
pub trait Remote: Sync {
    /// Why a message or its answer did not get through.
    type Error: Error + Send + Sync + 'static;

    /// Carries the bytes of a [`Request`](crate::message::Request) there, and those of the
    /// [`Response`](crate::message::Response) back.
    ///
    /// What is behind it gives up after a time of its own, and does not read more than
    /// [`MESSAGE_BYTES_MAX`](peer_table::contract::MESSAGE_BYTES_MAX) bytes of an answer.
    fn ask(&self, request: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;
}
