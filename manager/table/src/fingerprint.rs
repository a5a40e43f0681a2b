//! The keyed 64-bit hash that reconciliation works on.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::{SipHasher13, SipHasher24};

use crate::clock::{Contact, Version};
use crate::ids::ClusterId;
use crate::key::{Key, TableName};

/// The fingerprint of one record: equal where table, key, version, kind (live or tombstone) and
/// contact are.
///
/// 64 bits are enough for ten million records: two of them share a fingerprint in about one of
/// 400,000 such tables, and then differ again at the next write.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fingerprint(pub u64);

/// The key of a cluster's fingerprints, so that who is outside cannot craft collisions.
#[derive(Clone, PartialEq, Eq)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// The key with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be kept and handed on within a pod.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key of a cluster that has no secret of its own: derived from its id, and so no secret.
    pub fn of_cluster(cluster: &ClusterId) -> Self {
        let half = |label: &[u8; 16]| {
            let mut hasher = SipHasher24::new_with_key(label);
            hasher.write(cluster.as_str().as_bytes());
            hasher.finish().to_le_bytes()
        };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&half(b"udht cluster k 0"));
        key[8..].copy_from_slice(&half(b"udht cluster k 1"));
        Self(key)
    }

    /// A value that two replicas compare to see whether they hold the same key, and that does not
    /// give the key away.
    pub fn check(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(b"udht fingerprint key check");
        hasher.finish()
    }

    /// The fingerprint of a record. Part of the wire's contract: two builds must agree.
    pub fn fingerprint(
        &self,
        table: &TableName,
        key: &Key,
        version: Version,
        live: bool,
        contact: Contact,
    ) -> Fingerprint {
        // One write of one buffer: the hasher's own framing of integers differs between platforms.
        let (table, key) = (table.as_str().as_bytes(), key.as_str().as_bytes());
        let mut buffer = [0; 2 + 32 + 128 + 29];
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            buffer[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        put(&[u8::try_from(table.len()).expect("a table's name has at most 32 bytes")]);
        put(table);
        put(&[u8::try_from(key.len()).expect("a key has at most 128 bytes")]);
        put(key);
        put(&version.reading.as_u64().to_le_bytes());
        put(version.origin.as_bytes());
        put(&contact.steps().to_le_bytes());
        put(&[u8::from(live)]);
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(&buffer[..end]);
        Fingerprint(hasher.finish())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Reading;
    use crate::ids::OriginId;

    #[test]
    fn a_fingerprint_is_the_same_in_every_build() {
        let key = FingerprintKey::of_cluster(&"default/udht".parse().unwrap());
        let version = Version {
            reading: Reading::from_u64(42),
            origin: OriginId::from_bytes([9; 16]),
        };
        let print = key.fingerprint(
            &"peers".parse().unwrap(),
            &"a".parse().unwrap(),
            version,
            true,
            Contact::NEVER,
        );
        assert_eq!((key.check(), print.0), (GOLDEN_CHECK, GOLDEN_PRINT));
    }

    #[test]
    fn each_part_of_a_record_changes_its_fingerprint() {
        let key = FingerprintKey::from_bytes([3; 16]);
        let print = |table: &str, name: &str, reading, origin, live, contact| {
            key.fingerprint(
                &table.parse().unwrap(),
                &name.parse().unwrap(),
                Version {
                    reading: Reading::from_u64(reading),
                    origin: OriginId::from_bytes([origin; 16]),
                },
                live,
                Contact::from_steps(contact),
            )
        };
        let all = [
            print("peers", "ab", 1, 1, true, 0),
            print("peersa", "b", 1, 1, true, 0),
            print("peers", "b", 1, 1, true, 0),
            print("peers", "ab", 2, 1, true, 0),
            print("peers", "ab", 1, 2, true, 0),
            print("peers", "ab", 1, 1, false, 0),
            print("peers", "ab", 1, 1, true, 1),
        ];
        let distinct = all.iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn clusters_have_keys_of_their_own() {
        let check = |id: &str| FingerprintKey::of_cluster(&id.parse().unwrap()).check();
        assert_ne!(check("default/a"), check("default/b"));
    }

    const GOLDEN_CHECK: u64 = 7_375_301_562_705_362_079;
    const GOLDEN_PRINT: u64 = 18_243_681_595_506_598_263;
}
