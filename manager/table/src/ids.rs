//! Who a replica is: the id of its store, the id of one opening of it, the cluster it belongs to, and
//! the authority that this is under.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these 16 bytes, drawn by the caller.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id in `bytes`, or `None` unless there are exactly 16 of them.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The 16 bytes that are stored and sent.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(|uuid| Self(uuid.into_bytes()))
            }
        }
    };
}

uuid_id! {
    /// The identity of a replica: made when a store is first opened and kept in the store.
    StoreId
}

uuid_id! {
    /// Who stamped a version: drawn anew at each opening of a store.
    OriginId
}

uuid_id! {
    /// The identity of a cluster's authority: made together with it.
    AuthorityId
}

/// The longest cluster id, in bytes.
pub const CLUSTER_ID_BYTES_MAX: usize = 253;

/// Which cluster a table belongs to. Tables of different cluster ids never merge.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(Box<str>);

/// A text that is no cluster id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cluster id is 1 to {CLUSTER_ID_BYTES_MAX} printable ASCII characters without spaces")]
pub struct InvalidClusterId;

impl ClusterId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=CLUSTER_ID_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidClusterId)
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_its_bytes() {
        let id = StoreId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<StoreId>().unwrap(), id);
        assert_eq!(StoreId::from_slice(id.as_bytes()), Some(id));
        assert_eq!(StoreId::from_slice(&[7; 15]), None);
    }

    #[test]
    fn a_cluster_id_is_bounded_and_printable() {
        assert!("default/udht".parse::<ClusterId>().is_ok());
        assert!("".parse::<ClusterId>().is_err());
        assert!("two words".parse::<ClusterId>().is_err());
        assert!("x".repeat(254).parse::<ClusterId>().is_err());
    }
}
