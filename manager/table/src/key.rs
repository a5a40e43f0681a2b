//! The names of things: a table's, and a record's within it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::fingerprint::FingerprintKey;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// The longest name of a table, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 32;

/// What a record is found by: in the table `peers`, the `peer_id`.
///
/// 1 to 128 of `A-Z a-z 0-9 . _ : -`, and neither `.` nor `..`, so that it is one segment of a
/// path, one field of a hash and one word in a log without any quoting.
#[derive(Clone)]
pub struct Key {
    /// The first eight characters as one number, those of a shorter key with zeros behind. Nearly all
    /// comparisons in an index are decided by it, without a look at the characters, which lie anywhere
    /// in memory: in an index of a million UUIDs a key is found in half the time.
    start: u64,
    text: Arc<str>,
}

/// A text that is no key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("1 to {KEY_BYTES_MAX} characters of A-Z a-z 0-9 . _ : - and neither \".\" nor \"..\"")]
pub struct InvalidKey;

impl Key {
    /// The key with these characters.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let fits = (1..=KEY_BYTES_MAX).contains(&bytes.len());
        // All of them, as nearly every key is one: it takes half the time of stopping at the first.
        let are_allowed = bytes
            .iter()
            .fold(true, |are, byte| are & ALLOWED[usize::from(*byte)]);
        if !fits || !are_allowed || bytes == b"." || bytes == b".." {
            return Err(InvalidKey);
        }
        let text = str::from_utf8(bytes).map_err(|_| InvalidKey)?;
        let mut start = [0; 8];
        let len = bytes.len().min(start.len());
        start[..len].copy_from_slice(&bytes[..len]);
        Ok(Self {
            start: u64::from_be_bytes(start),
            text: text.into(),
        })
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && self.text == other.text
    }
}

impl Eq for Key {}

/// As the texts are: no character is a zero, so a key comes after its beginning.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_start = self.start.cmp(&other.start);
        by_start.then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.text.hash(hasher);
    }
}

/// The hash by which keys are found in a map: one that the cluster's key makes, so that who does not have
/// that cannot choose keys that share it. Without an authority it is made of the cluster's id, which
/// anybody may know; but who can write keys then can write all else.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KeyHash([u8; 16]);

impl From<&FingerprintKey> for KeyHash {
    fn from(key: &FingerprintKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl BuildHasher for KeyHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Which bytes are in a key.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0_u8;
    // Up to the last one of ASCII: above it there is none.
    while byte.is_ascii() {
        let is_sign = matches!(byte, b'.' | b'_' | b':' | b'-');
        allowed[byte as usize] = byte.is_ascii_alphanumeric() || is_sign;
        byte += 1;
    }
    allowed
};

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(text.as_bytes())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The name by which core, storage and wire know a table: 1 to 32 of `a-z 0-9 -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableName(Arc<str>);

/// A text that is no table's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a table's name is 1 to {TABLE_NAME_BYTES_MAX} characters of a-z 0-9 -")]
pub struct InvalidTableName;

impl TableName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=TABLE_NAME_BYTES_MAX).contains(&text.len());
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTableName)
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_takes_its_alphabet_and_nothing_else() {
        for good in ["a", "A.b_c:d-9", &"k".repeat(128), "...", "10.0.0.1:80"] {
            assert!(good.parse::<Key>().is_ok(), "{good} is a key");
        }
        for bad in [
            "",
            ".",
            "..",
            &"k".repeat(129),
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a%2e",
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad} is no key");
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_texts() {
        let texts = [
            "-",
            "a",
            "a-",
            "aaaaaaaa",
            "aaaaaaaa-",
            "aaaaaaaaa",
            "aaaaaaab",
            "b",
        ];
        for a in texts {
            for b in texts {
                let (key, other): (Key, Key) = (a.parse().unwrap(), b.parse().unwrap());
                assert_eq!(key.cmp(&other), a.cmp(b), "{a} and {b}");
                assert_eq!(key == other, a == b, "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_table_name_is_lower_case() {
        assert!("peers".parse::<TableName>().is_ok());
        assert!("Peers".parse::<TableName>().is_err());
        assert!("".parse::<TableName>().is_err());
    }
}
