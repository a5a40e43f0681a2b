//! The pods of the release, as Kubernetes lists them.

use std::collections::BTreeMap;

use peer_exchange::Address;

/// The UID that Kubernetes gave a pod: its successor under the same name has another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodUid(pub String);

/// One pod that the endpoints name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where its sync listens: one address, or one of each family.
    pub addresses: Vec<Address>,
    /// Whether it was told to end and is listed for the last time.
    pub is_terminating: bool,
}

/// How good the list is.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Sight {
    /// There was none yet.
    #[default]
    None,
    /// It is followed.
    Live,
    /// It is the last that was had, and the API server does not answer.
    Lost,
}

/// The pods of the release as they were last listed, terminating ones among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pods {
    /// Each of them.
    pub by_uid: BTreeMap<PodUid, Pod>,
    /// How good the list is.
    pub sight: Sight,
}
