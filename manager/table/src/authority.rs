//! What binds a store to the authority of its cluster.

use crate::fingerprint::FingerprintKey;
use crate::ids::{AuthorityId, ClusterId, InvalidClusterId};

/// The authority that a store is bound to, and the key that came with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Which authority.
    pub authority: AuthorityId,
    /// The key of the cluster's fingerprints.
    pub fingerprint_key: FingerprintKey,
}

impl Binding {
    /// How many bytes [`Self::to_bytes`] has.
    pub const BYTES: usize = 32;

    /// The form in which it is kept: the id and the key.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(self.authority.as_bytes());
        bytes[16..].copy_from_slice(self.fingerprint_key.as_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (authority, key) = bytes.split_at(16);
        Self {
            authority: AuthorityId::from_bytes(authority.try_into().expect("half of 32")),
            fingerprint_key: FingerprintKey::from_bytes(key.try_into().expect("half of 32")),
        }
    }

    /// The id of `cluster` under this authority: another authority makes it another cluster, also
    /// where the name is the same.
    pub fn cluster(&self, cluster: &ClusterId) -> Result<ClusterId, InvalidClusterId> {
        format!("{cluster}#{}", self.authority).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding {
            authority: AuthorityId::from_bytes([7; 16]),
            fingerprint_key: FingerprintKey::from_bytes([8; 16]),
        }
    }

    #[test]
    fn what_is_kept_reads_back() {
        assert_eq!(Binding::from_bytes(binding().to_bytes()), binding());
    }

    #[test]
    fn a_cluster_is_named_with_its_authority() {
        let cluster = binding().cluster(&"default/udht".parse().unwrap()).unwrap();
        assert_eq!(
            cluster.as_str(),
            "default/udht#07070707-0707-0707-0707-070707070707"
        );
        let long = "x".repeat(217).parse().unwrap();
        assert_eq!(binding().cluster(&long), Err(InvalidClusterId));
    }
}
