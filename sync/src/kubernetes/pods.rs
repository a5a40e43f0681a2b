//! The pods of the release, as Kubernetes lists them.

use std::collections::BTreeMap;

use peer_exchange::Address;
pub use peer_exchange::PodUid;

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

impl Pod {
    /// Where to talk to it: all pods choose alike, so that each has one place among its peers.
    fn address(&self, prefers_ipv6: bool) -> Option<&Address> {
        let is_ipv6 = |address: &Address| address.as_str().starts_with('[');
        let mut addresses = self.addresses.iter();
        let preferred = addresses.find(|address| is_ipv6(address) == prefers_ipv6);
        preferred.or(self.addresses.first())
    }
}

/// The pods that are talked to: one address of each.
///
/// Who was told to end is left, and so is who vanished. But where more than half vanish and were not
/// told to end, it may be the list that vanished (a service that was deleted, a label that was
/// changed), and all of them stay in use until that is no longer so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InUse {
    pods: BTreeMap<PodUid, Address>,
    prefers_ipv6: bool,
}

impl InUse {
    /// Nobody. Where a pod has addresses of both families, that of the one preferred is used.
    pub const fn new(prefers_ipv6: bool) -> Self {
        Self {
            pods: BTreeMap::new(),
            prefers_ipv6,
        }
    }

    /// Takes in what is listed now; the answer is how many are in use though they are not.
    pub fn take(&mut self, now: &Pods) -> i64 {
        let mut vanished = std::mem::take(&mut self.pods);
        vanished.retain(|uid, _| !now.by_uid.contains_key(uid));
        let staying = now.by_uid.iter().filter(|(_, pod)| !pod.is_terminating);
        self.pods = staying
            .filter_map(|(uid, pod)| Some((uid.clone(), pod.address(self.prefers_ipv6)?.clone())))
            .collect();
        if vanished.len() <= self.pods.len() {
            return 0;
        }
        let held = i64::try_from(vanished.len()).unwrap_or(i64::MAX);
        self.pods.append(&mut vanished);
        held
    }

    /// Where this pod is talked to.
    pub fn address(&self, uid: &PodUid) -> Option<&Address> {
        self.pods.get(uid)
    }

    /// Where to talk to each.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.pods.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(listed: &[(&str, &[&str], bool)]) -> Pods {
        let pod = |(uid, addresses, is_terminating): &(&str, &[&str], bool)| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            let pod = Pod {
                name: format!("pod-{uid}"),
                addresses: addresses.collect(),
                is_terminating: *is_terminating,
            };
            (PodUid((*uid).to_owned()), pod)
        };
        Pods {
            by_uid: listed.iter().map(pod).collect(),
            sight: Sight::Live,
        }
    }

    fn many(uids: std::ops::Range<u8>) -> Pods {
        let mut many = Pods::default();
        for n in uids {
            let (uid, address) = (n.to_string(), format!("10.0.0.{n}:3003"));
            many.by_uid
                .append(&mut pods(&[(uid.as_str(), &[address.as_str()], false)]).by_uid);
        }
        many
    }

    fn used(in_use: &InUse) -> Vec<&str> {
        in_use.addresses().map(Address::as_str).collect()
    }

    #[test]
    fn a_pod_of_both_families_is_one_peer_at_the_preferred_address() {
        let listed = pods(&[
            ("a", &["10.0.0.1:1", "[fd00::1]:1"], false),
            ("b", &["[fd00::2]:1"], false),
            ("c", &["10.0.0.3:1"], false),
            ("d", &[], false),
        ]);
        let mut four = InUse::new(false);
        assert_eq!(four.take(&listed), 0);
        assert_eq!(used(&four), ["10.0.0.1:1", "[fd00::2]:1", "10.0.0.3:1"]);
        let mut six = InUse::new(true);
        six.take(&listed);
        assert_eq!(used(&six), ["[fd00::1]:1", "[fd00::2]:1", "10.0.0.3:1"]);
    }

    #[test]
    fn who_ends_is_left_however_many_they_are() {
        let mut in_use = InUse::new(false);
        in_use.take(&pods(&[
            ("a", &["h:1"], false),
            ("b", &["h:2"], false),
            ("c", &["h:3"], false),
        ]));
        let ending = [
            ("a", &["h:1"][..], true),
            ("b", &["h:2"], true),
            ("c", &["h:3"], false),
        ];
        assert_eq!(in_use.take(&pods(&ending)), 0);
        assert_eq!(used(&in_use), ["h:3"]);
        assert_eq!(in_use.take(&pods(&ending[2..])), 0);
        assert_eq!(used(&in_use), ["h:3"]);
    }

    #[test]
    fn a_list_that_lost_more_than_half_is_not_believed_until_it_has_as_many_again() {
        let mut in_use = InUse::new(false);
        in_use.take(&many(0..10));
        assert_eq!(in_use.take(&many(0..5)), 0, "half of them may go");
        assert_eq!(used(&in_use).len(), 5);
        assert_eq!(in_use.take(&Pods::default()), 5);
        assert_eq!(used(&in_use).len(), 5, "it is the service that is gone");
        assert_eq!(in_use.take(&many(20..24)), 5, "others come");
        assert_eq!(used(&in_use).len(), 9);
        assert_eq!(in_use.take(&many(20..28)), 0);
        assert_eq!(used(&in_use).len(), 8);
    }
}
