//! What each replica tells all others of itself.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::Whose;
use crate::clock::Reading;
use crate::ids::{OriginId, StoreId};
use crate::key::Key;

/// Whether a store outlives its pod.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Storage {
    /// It does not: what is in it goes with the pod.
    Pod,
    /// It does, or nobody knows.
    #[default]
    Volume,
}

impl Storage {
    /// The number that is stored and sent.
    pub const fn code(self) -> u32 {
        match self {
            Self::Volume => 0,
            Self::Pod => 1,
        }
    }

    /// The storage of this number; one that only a newer release knows is taken to last.
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Pod,
            _ => Self::Volume,
        }
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Volume => "volume",
        }
    }
}

/// Who publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Me {
    /// Its store.
    pub store: StoreId,
    /// The `peer_id` of its pod's own record.
    pub peer_id: Key,
    /// Whether its store outlives the pod.
    pub storage: Storage,
}

/// What a replica tells all others: its row of the internal table `replicas`. It travels beside the
/// records and not as they do: of two of one id the later one holds, and it is gone with the fence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Whose it is.
    pub store: StoreId,
    /// Its current id.
    pub origin: OriginId,
    /// When it was made, by its own clock.
    pub at: Reading,
    /// Its floor: it has every write of every id up to there. 0 while that is not known.
    pub floor: Reading,
    /// The digest of its ids and fences.
    pub set_digest: u64,
    /// Its clock when that set last changed: whoever covers this has all that it held before.
    pub since: Reading,
    /// Whether its store outlives its pod.
    pub storage: Storage,
    /// The `peer_id` of its pod's own record.
    pub peer_id: Option<Key>,
}

impl Publication {
    /// Whose it is.
    pub fn whose(&self) -> Whose {
        Whose {
            store: self.store,
            peer_id: self.peer_id.clone(),
        }
    }

    /// Of which publication this is: whose and when. SipHash-2-4 (Aumasson and Bernstein, 2012)
    /// under a fixed key; part of the wire's contract.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(b"udht publication");
        hasher.write(self.origin.as_bytes());
        hasher.write(&self.at.as_u64().to_le_bytes());
        hasher.finish()
    }
}

impl From<Publication> for Whose {
    fn from(publication: Publication) -> Self {
        let Publication { store, peer_id, .. } = publication;
        Self { store, peer_id }
    }
}
