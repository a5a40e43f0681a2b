//! The latest changes of a table, in order, for those who watch.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::entry::{Content, Entry, STORED_HEAD_BYTES};
use crate::key::Key;

/// A place in the order of changes: which opening of the store, and how many changes since.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Revision {
    epoch: u64,
    counter: u64,
}

impl Revision {
    /// Whether both are of one opening of the store: else nothing that came between is known.
    pub const fn is_of_opening_of(self, other: Self) -> bool {
        self.epoch == other.epoch
    }
}

/// A text that is no revision.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a revision as this service gives them out")]
pub struct InvalidRevision;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.counter)
    }
}

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, counter) = text.split_once('-').ok_or(InvalidRevision)?;
        let hex = epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit());
        let decimal = !counter.is_empty() && counter.bytes().all(|byte| byte.is_ascii_digit());
        if !hex || !decimal {
            return Err(InvalidRevision);
        }
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| InvalidRevision)?,
            counter: counter.parse().map_err(|_| InvalidRevision)?,
        })
    }
}

/// How a change came here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Via {
    /// Written by the application beside this manager.
    Local,
    /// Sent by a peer at once.
    Push,
    /// Found by an exchange.
    Exchange,
}

/// What a change changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// The body: what the record says, or that it is deleted.
    Body,
    /// Only when the peer was last seen.
    Contact,
}

/// One change, with the record as it was right after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Of which record.
    pub key: Key,
    /// The record after the change.
    pub entry: Entry,
    /// What of it changed.
    pub what: Changed,
    /// How the change came here.
    pub via: Via,
}

impl Change {
    fn bytes(&self) -> usize {
        let content = self
            .entry
            .content()
            .map_or(0, |content: &Content| content.as_bytes().len());
        self.key.as_str().len() + STORED_HEAD_BYTES + content
    }
}

/// How much of the past a [`Feed`] keeps.
#[derive(Copy, Clone, Debug)]
pub struct FeedLimits {
    /// Changes at the most.
    pub changes_max: usize,
    /// Bytes of keys and contents at the most.
    pub bytes_max: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            changes_max: 16_384,
            bytes_max: 8 << 20,
        }
    }
}

/// The latest changes, bounded: who reads too slowly is told so and lists again.
#[derive(Debug)]
pub struct Feed {
    epoch: u64,
    /// The counter of the first change kept; one more than the last if none is.
    first: u64,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    limits: FeedLimits,
}

/// A revision from which the changes are no longer (or not yet) known here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the changes since that revision are no longer kept")]
pub struct Gone;

impl Feed {
    /// An empty feed of the opening `epoch`.
    pub const fn new(epoch: u64, limits: FeedLimits) -> Self {
        Self {
            epoch,
            first: 1,
            changes: VecDeque::new(),
            bytes: 0,
            limits,
        }
    }

    /// How much of the past it keeps.
    pub const fn limits(&self) -> FeedLimits {
        self.limits
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        Revision {
            epoch: self.epoch,
            counter: self.first + self.changes.len() as u64 - 1,
        }
    }

    /// Adds a change, and forgets the oldest ones beyond the limits.
    pub fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back(Arc::new(change));
        while self.changes.len() > self.limits.changes_max || self.bytes > self.limits.bytes_max {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
    }

    /// Up to `limit` changes after `since`, oldest first, each with its revision; none if `since`
    /// is the last one.
    pub fn since(
        &self,
        since: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Arc<Change>)>, Gone> {
        let last = self.revision();
        if since.epoch != self.epoch || since > last || since.counter + 1 < self.first {
            return Err(Gone);
        }
        let skipped = usize::try_from(since.counter + 1 - self.first).map_err(|_| Gone)?;
        let changes = self.changes.iter().skip(skipped).take(limit);
        let revisions = (since.counter + 1..).map(|counter| Revision {
            epoch: self.epoch,
            counter,
        });
        Ok(revisions.zip(changes.cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Contact, Reading, Version};
    use crate::entry::Body;
    use crate::ids::OriginId;

    fn change(key: &str) -> Change {
        Change {
            key: key.parse().unwrap(),
            entry: Entry {
                version: Version {
                    reading: Reading::from_u64(1),
                    origin: OriginId::from_bytes([1; 16]),
                },
                contact: Contact::NEVER,
                body: Body::Tombstone,
            },
            what: Changed::Body,
            via: Via::Local,
        }
    }

    fn feed_of(limits: FeedLimits, keys: &[&str]) -> (Revision, Feed) {
        let mut feed = Feed::new(0xabc, limits);
        let start = feed.revision();
        for key in keys {
            feed.push(change(key));
        }
        (start, feed)
    }

    #[test]
    fn a_reader_resumes_after_what_it_has_seen() {
        let (start, feed) = feed_of(FeedLimits::default(), &["a", "b", "c"]);
        let first = feed.since(start, 2).unwrap();
        let keys: Vec<_> = first
            .iter()
            .map(|(_, change)| change.key.as_str())
            .collect();
        assert_eq!(keys, ["a", "b"]);
        let rest = feed.since(first[1].0, 10).unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].0, feed.revision());
        assert_eq!(feed.since(feed.revision(), 10), Ok(vec![]));
    }

    #[test]
    fn a_reader_that_is_too_slow_or_from_another_opening_is_told_so() {
        let (start, feed) = feed_of(
            FeedLimits {
                changes_max: 2,
                bytes_max: 1_000,
            },
            &["a", "b", "c"],
        );
        assert_eq!(feed.since(start, 10), Err(Gone));
        let other = Feed::new(0xdef, FeedLimits::default());
        assert_eq!(other.since(start, 10), Err(Gone));
        let ahead = Revision {
            epoch: 0xabc,
            counter: 4,
        };
        assert_eq!(feed.since(ahead, 10), Err(Gone));
        let last = Revision {
            epoch: 0xabc,
            counter: u64::MAX,
        };
        assert_eq!(feed.since(last, 10), Err(Gone));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (start, feed) = feed_of(
            FeedLimits {
                changes_max: 100,
                bytes_max: 40,
            },
            &["a", "b", "c"],
        );
        assert_eq!(feed.since(start, 10), Err(Gone));
        assert!(feed.bytes <= 40);
    }

    #[test]
    fn a_revision_reads_back_from_its_text_and_only_from_that() {
        let revision = Revision {
            epoch: 0xabc,
            counter: 12,
        };
        assert_eq!(revision.to_string(), "0000000000000abc-12");
        assert_eq!(revision.to_string().parse(), Ok(revision));
        for bad in [
            "",
            "12",
            "0000000000000abc-",
            "0000000000000abc-+1",
            "zz-1",
            "0abc-1",
        ] {
            assert_eq!(bad.parse::<Revision>(), Err(InvalidRevision), "{bad}");
        }
    }
}
