//! What a sync tells its manager about the pod: the authority that its cluster is under, and that
//! the pod is going.

use prost::Message;

use super::InvalidMessage;
use crate::authority::Binding;
use crate::fingerprint::FingerprintKey;
use crate::ids::AuthorityId;

/// Authorities that one may take over from at the most.
pub const ADOPTS_MAX: usize = 64;

/// Binds a store to the authority of its cluster. From then on its records are exchanged under the
/// cluster id and the fingerprint key that come with that authority, also after a restart.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Bind {
    /// The authority's UUID: 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub uuid: Vec<u8>,
    /// The key of its fingerprints: 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub fingerprint_key: Vec<u8>,
    /// The UUIDs of the authorities that it takes over from, 16 bytes each: a store that is bound
    /// to one of these is bound anew.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub adopts: Vec<Vec<u8>>,
}

impl Bind {
    /// Binds to what `binding` says, also from one of `adopts`.
    pub fn new(binding: &Binding, adopts: impl IntoIterator<Item = AuthorityId>) -> Self {
        Self {
            uuid: binding.authority.as_bytes().to_vec(),
            fingerprint_key: binding.fingerprint_key.as_bytes().to_vec(),
            adopts: adopts
                .into_iter()
                .map(|id| id.as_bytes().to_vec())
                .collect(),
        }
    }

    /// What to bind to, and from which authorities that may be taken over.
    pub fn into_parts(self) -> Result<(Binding, Vec<AuthorityId>), InvalidMessage> {
        let uuid = |field, bytes: &[u8]| {
            AuthorityId::from_slice(bytes)
                .ok_or_else(|| InvalidMessage::field(field, "is not 16 bytes"))
        };
        let key: [u8; 16] = self
            .fingerprint_key
            .try_into()
            .map_err(|_| InvalidMessage::field("fingerprint_key", "is not 16 bytes"))?;
        let binding = Binding {
            authority: uuid("uuid", &self.uuid)?,
            fingerprint_key: FingerprintKey::from_bytes(key),
        };
        if self.adopts.len() > ADOPTS_MAX {
            let count = self.adopts.len();
            let problem = format!("has {count} entries, more than {ADOPTS_MAX}");
            return Err(InvalidMessage::field("adopts", problem));
        }
        let adopts = self.adopts.iter().map(|id| uuid("adopts", id));
        Ok((binding, adopts.collect::<Result<_, _>>()?))
    }
}

/// Says that the pod is going: from now on the manager takes no write of the application.
#[derive(Copy, Clone, PartialEq, Eq, Message)]
pub struct Leave {
    /// Whether it does not come back: the pod itself is being deleted.
    #[prost(bool, tag = "1")]
    pub for_good: bool,
}

/// What leaving came to.
#[derive(Copy, Clone, PartialEq, Eq, Message)]
pub struct LeaveAnswer {
    /// Whether the pod's own record is deleted now: it goes with a pod that does not come back and
    /// whose store goes with it.
    #[prost(bool, tag = "1")]
    pub record_deleted: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> AuthorityId {
        AuthorityId::from_bytes([number; 16])
    }

    #[test]
    fn a_binding_reads_back_with_what_it_adopts() {
        let binding = Binding {
            authority: id(1),
            fingerprint_key: FingerprintKey::from_bytes([2; 16]),
        };
        let bytes = Bind::new(&binding, [id(3), id(4)]).encode_to_vec();
        let read = Bind::decode(&bytes[..]).unwrap().into_parts();
        assert_eq!(read, Ok((binding, vec![id(3), id(4)])));
    }

    #[test]
    fn a_part_of_another_length_is_refused_by_name() {
        let good = Bind {
            uuid: vec![1; 16],
            fingerprint_key: vec![2; 16],
            adopts: vec![vec![3; 16]],
        };
        let bad = |change: fn(&mut Bind)| {
            let mut bind = good.clone();
            change(&mut bind);
            bind
        };
        for (bind, field) in [
            (bad(|bind| bind.uuid.clear()), "uuid"),
            (bad(|bind| bind.uuid.push(0)), "uuid"),
            (
                bad(|bind| bind.fingerprint_key.truncate(15)),
                "fingerprint_key",
            ),
            (bad(|bind| bind.adopts.push(vec![])), "adopts"),
            (bad(|bind| bind.adopts = vec![vec![3; 16]; 65]), "adopts"),
        ] {
            match bind.into_parts() {
                Err(InvalidMessage::Field { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(good.into_parts().is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_binding_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(bind) = Bind::decode(&bytes[..]) {
                let _ = bind.into_parts();
            }
        }
    }
}
