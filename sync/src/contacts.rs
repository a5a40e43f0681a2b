//! Which contacts this sync has moved already: one call of the manager for each peer and step of
//! five minutes is enough.

use std::collections::BTreeSet;

use peer_exchange::book::PEERS_MAX;
use peer_table::{Contact, Key, WallTime};

/// The peers whose contact was moved in the current step.
#[derive(Debug, Default)]
pub struct Contacts {
    step: Contact,
    moved: BTreeSet<Key>,
}

impl Contacts {
    /// Whether the contact of `peer` is still to be moved at wall time `now`. The caller moves it
    /// then, or calls [`Contacts::forget`].
    pub fn take(&mut self, peer: &Key, now: WallTime) -> bool {
        let step = Contact::at(now);
        if step != self.step {
            self.step = step;
            self.moved.clear();
        }
        // A peer may have any `peer_id`, and say another each time.
        self.moved.len() < PEERS_MAX && self.moved.insert(peer.clone())
    }

    /// The contact could not be moved: the next meeting tries again.
    pub fn forget(&mut self, peer: &Key) {
        self.moved.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use peer_table::clock::CONTACT_STEP;

    use super::*;

    #[test]
    fn a_contact_is_moved_once_in_each_step() {
        let mut contacts = Contacts::default();
        let now = WallTime::from_millis(1_000_000_000_000);
        let [a, b] = ["a", "b"].map(|key| key.parse::<Key>().unwrap());
        assert!(contacts.take(&a, now));
        assert!(!contacts.take(&a, now));
        assert!(contacts.take(&b, now));
        assert!(contacts.take(&a, now.plus(CONTACT_STEP)));
    }

    #[test]
    fn a_contact_that_could_not_be_moved_is_tried_again() {
        let mut contacts = Contacts::default();
        let now = WallTime::from_millis(1_000_000_000_000);
        let peer: Key = "a".parse().unwrap();
        assert!(contacts.take(&peer, now));
        contacts.forget(&peer);
        assert!(contacts.take(&peer, now));
    }
}
