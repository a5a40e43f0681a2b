//! A walk over the live peers, a part at a time: it holds no lock and no more than one part.

use peer_table::peers::{Filter, Peer};
use peer_table::{Entry, Key, OriginId};

use crate::owner::{Owner, OwnerError};

/// Records that are read at once.
pub(super) const PART_RECORDS: usize = 256;

/// A walk over the peers that match a filter, in the order of their keys.
pub(super) struct Walk {
    owner: Owner,
    /// The opening of the store that all parts are of.
    origin: OriginId,
    filter: Filter,
    after: Option<Key>,
    part: usize,
    ended: bool,
}

impl Walk {
    /// A walk from the first peer after `after`, that reads `part` records at once, and no more
    /// than [`PART_RECORDS`].
    pub(super) fn new(owner: Owner, filter: Filter, after: Option<Key>, part: usize) -> Self {
        Self {
            origin: owner.origin(),
            owner,
            filter,
            after,
            part: part.min(PART_RECORDS),
            ended: false,
        }
    }

    /// The matching peers of the next part that has any; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<(Key, Peer)>, OwnerError> {
        while !self.ended {
            if self.owner.origin() != self.origin {
                return Err(OwnerError::Reopened);
            }
            let (records, last) = self.owner.page(self.after.as_ref(), self.part).await?;
            self.ended = last.is_none();
            self.after = last;
            let mut found = Vec::with_capacity(records.len());
            for (key, entry) in records {
                if let Some(peer) = readable(&key, &entry)
                    && self.filter.matches(&peer)
                {
                    found.push((key, peer));
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Whether the table's end was reached.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }
}

/// The peer of a live record; one that cannot be read is reported and passed over.
pub(super) fn readable(key: &Key, entry: &Entry) -> Option<Peer> {
    match Peer::from_entry(key, entry) {
        Ok(peer) => peer,
        Err(problem) => {
            tracing::warn!(peer_id = %key, error = %problem, "a stored record cannot be read; it is passed over");
            None
        }
    }
}
