//! A walk over the live peers, a part at a time: it holds no lock, and its caller no more than one part.

use peer_table::peers::{Filter, Shown};
use peer_table::{Entry, Key, OriginId};

use crate::owner::{Owner, OwnerError};

/// Records that are read at once, at the most.
const PART_RECORDS: usize = 256;
/// Records that are read first: how large they are is not known yet.
const FIRST_RECORDS: usize = 16;
/// What a part of an answer may become as text, about: it is held until its reader has taken it, and readers
/// may be many and slow.
pub(super) const PART_BYTES: usize = 128 << 10;

/// A walk over the peers that match a filter, in the order of their keys.
pub(super) struct Walk {
    owner: Owner,
    /// The opening of the store that all parts are of.
    origin: OriginId,
    filter: Filter,
    after: Option<Key>,
    /// Records of the next part, at the most.
    part: usize,
    /// Records that are still asked for.
    left: usize,
    ended: bool,
}

impl Walk {
    /// A walk from the first peer after `after`, of which `wanted` are asked for: it reads no more of
    /// them at once where all are, and no more than [`PART_RECORDS`].
    pub(super) fn new(owner: Owner, filter: Filter, after: Option<Key>, wanted: usize) -> Self {
        let left = if filter.is_empty() {
            wanted
        } else {
            usize::MAX
        };
        Self {
            origin: owner.origin(),
            owner,
            filter,
            after,
            part: FIRST_RECORDS,
            left,
            ended: false,
        }
    }

    /// The next part, of which [`Walk::matching`] tells the peers that are asked for.
    pub(super) async fn next(&mut self) -> Result<Vec<(Key, Entry)>, OwnerError> {
        if self.ended {
            return Ok(Vec::new());
        }
        if self.after.is_some() {
            // A long walk may never have to wait, as where all is deleted: others get their turn.
            tokio::task::yield_now().await;
        }
        // What is asked for may have been read, and not all of it be readable.
        let part = self.part.min(self.left.max(1));
        let (records, last) = self.owner.page(self.after.as_ref(), part).await?;
        // What an opening lacks that came meanwhile is no end of the table.
        if self.owner.origin() != self.origin {
            return Err(OwnerError::Reopened);
        }
        self.ended = last.is_none();
        self.after = last;
        self.left = self.left.saturating_sub(records.len());
        let contents = records.iter().filter_map(|(_, entry)| entry.content());
        let bytes = contents.map(|content| content.as_bytes().len()).sum();
        self.part = PART_RECORDS;
        self.became(bytes, records.len());
        Ok(records)
    }

    /// So many records of the last part have so many bytes as text: the next part is not to have more than
    /// about [`PART_BYTES`].
    pub(super) fn became(&mut self, bytes: usize, records: usize) {
        let mean = bytes.div_ceil(records.max(1));
        self.part = self.part.min(PART_BYTES / mean.max(1)).max(1);
    }

    /// The peers of a part that match.
    pub(super) fn matching<'a>(&self, part: &'a [(Key, Entry)]) -> impl Iterator<Item = Shown<'a>> {
        let peers = part.iter().filter_map(|(key, entry)| readable(key, entry));
        peers.filter(|peer| self.filter.matches(peer))
    }

    /// Whether the table's end was reached.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }
}

/// The peer of a live record; one that cannot be read is reported and passed over.
pub(super) fn readable<'a>(key: &'a Key, entry: &'a Entry) -> Option<Shown<'a>> {
    match Shown::from_entry(key, entry) {
        Ok(peer) => peer,
        Err(problem) => {
            tracing::warn!(peer_id = %key, error = %problem, "a stored record cannot be read; it is passed over");
            None
        }
    }
}
