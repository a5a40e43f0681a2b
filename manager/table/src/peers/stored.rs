//! A peer's content as it is stored and sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost::Message;

use super::draft::{Draft, check_bounds};
use crate::clock::WallTime;
use crate::entry::Content;
use crate::table::InvalidContent;

/// The content as it is stored and sent: a protobuf message, so that a later release can add
/// fields that this one skips. The four well-known purposes have fields of their own, as they
/// would otherwise be the larger part of most records. Written by this, and read by [`Said`].
#[derive(Clone, PartialEq, Message)]
struct StoredPeer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    ip: Vec<u8>,
    #[prost(uint32, tag = "3")]
    user_sync: u32,
    #[prost(uint32, tag = "4")]
    file_sync: u32,
    #[prost(uint32, tag = "5")]
    network_layer: u32,
    #[prost(uint32, tag = "6")]
    consensus_port: u32,
    #[prost(btree_map = "string, uint32", tag = "7")]
    ports: BTreeMap<String, u32>,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "9")]
    created_at_ms: u64,
}

/// The purposes that have fields of their own, in order.
const WELL_KNOWN: [&str; 4] = ["consensusPort", "fileSync", "networkLayer", "userSync"];

/// Of all that, only when the record was created.
#[derive(Clone, PartialEq, Message)]
struct Creation {
    #[prost(uint64, tag = "9")]
    created_at_ms: u64,
}

/// When the record of a content was created; nothing else of it is read.
pub(super) fn created_at(content: &[u8]) -> Option<WallTime> {
    let creation = Creation::decode(content).ok()?;
    Some(WallTime::from_millis(creation.created_at_ms))
}

/// A content that was read and keeps the bounds.
///
/// Its texts are those of the content, as most are read only to be checked: each record that comes from
/// a peer or from the store. With a copy of each in a [`StoredPeer`] that takes twice as long.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) name: &'a str,
    pub(super) ip: IpAddr,
    /// Each purpose once, in order.
    pub(super) ports: Vec<(&'a str, u16)>,
    /// Each key once, in order.
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) created_at: WallTime,
}

impl<'a> Said<'a> {
    pub(super) fn from_content(content: &'a [u8]) -> Result<Self, InvalidContent> {
        let (mut name, mut ip, mut created_at_ms) = ("", &[][..], 0);
        let (mut user_sync, mut file_sync, mut network_layer, mut consensus_port) = (0, 0, 0, 0);
        let (mut ports, mut labels) = (Vec::with_capacity(8), Vec::with_capacity(4));
        for field in Fields(content) {
            let (tag, value) = field?;
            match tag {
                1 => name = value.text()?,
                2 => ip = value.bytes()?,
                3 => user_sync = value.number()?,
                4 => file_sync = value.number()?,
                5 => network_layer = value.number()?,
                6 => consensus_port = value.number()?,
                7 => ports.push(value.entry(Value::number)?),
                8 => labels.push(value.entry(Value::text)?),
                9 => created_at_ms = value.number()?,
                // Of a later release.
                _ => {}
            }
        }
        let well_known = [consensus_port, file_sync, network_layer, user_sync];
        let well_known = WELL_KNOWN.into_iter().zip(well_known);
        ports.extend(well_known.filter(|(_, port)| *port != 0));
        let ports = last_of_each(ports).into_iter().map(|(purpose, port)| {
            let port = u16::try_from(port).map_err(|_| invalid(format!("port {port}")))?;
            Ok((purpose, port))
        });
        let said = Self {
            name,
            ip: address(ip)?,
            ports: ports.collect::<Result<_, InvalidContent>>()?,
            labels: last_of_each(labels),
            created_at: WallTime::from_millis(created_at_ms),
        };
        let ports = said.ports.iter().copied();
        check_bounds(said.name, ports, said.labels.iter().copied())
            .map_err(|error| invalid(error.to_string()))?;
        Ok(said)
    }
}

fn invalid(detail: impl Into<String>) -> InvalidContent {
    InvalidContent(detail.into())
}

fn address(bytes: &[u8]) -> Result<IpAddr, InvalidContent> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| invalid(format!("an address of {} bytes", bytes.len())))
}

/// What a map on the wire says: of each key the last value. In the order of the keys.
fn last_of_each<T: Copy>(mut pairs: Vec<(&str, T)>) -> Vec<(&str, T)> {
    // Nearly always they are.
    if pairs.is_sorted_by(|one, next| one.0 < next.0) {
        return pairs;
    }
    pairs.sort_by_key(|(key, _)| *key);
    pairs.dedup_by(|later, earlier| {
        let is_again = later.0 == earlier.0;
        if is_again {
            *earlier = *later;
        }
        is_again
    });
    pairs
}

/// The fields of a protobuf message, in the order in which they lie there.
///
/// Source: <https://protobuf.dev/programming-guides/encoding>. Groups, which were given up before
/// protobuf 3, are no fields here.
struct Fields<'a>(&'a [u8]);

/// What a field says.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of 4 or 8 bytes; no field that is known here is one.
    Fixed,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, InvalidContent> {
        const BYTES_MAX: usize = 10;
        if let [small @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok((*small).into());
        }
        let mut number = 0;
        for (place, byte) in self.0.iter().take(BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * place);
            if shifted >> (7 * place) != bits {
                break;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(number);
            }
        }
        Err(invalid("a number that has no end"))
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], InvalidContent> {
        let taken = usize::try_from(bytes).ok();
        let taken = taken.and_then(|bytes| self.0.split_at_checked(bytes));
        let (taken, rest) = taken.ok_or_else(|| invalid("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), InvalidContent> {
        let head = self.varint()?;
        let tag = u32::try_from(head >> 3).ok().filter(|tag| *tag > 0);
        let tag = tag.ok_or_else(|| invalid(format!("field {}", head >> 3)))?;
        let value = match head & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let bytes = self.varint()?;
                Value::Bytes(self.take(bytes)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            kind => return Err(invalid(format!("a field of the kind {kind}"))),
        };
        Ok((tag, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), InvalidContent>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

impl<'a> Value<'a> {
    fn number(self) -> Result<u64, InvalidContent> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(invalid("a field that is no number")),
        }
    }

    fn bytes(self) -> Result<&'a [u8], InvalidContent> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(invalid("a field without bytes")),
        }
    }

    /// An entry of a map, the value of which `read` reads.
    fn entry<T: Default>(
        self,
        read: fn(Self) -> Result<T, InvalidContent>,
    ) -> Result<(&'a str, T), InvalidContent> {
        let (mut key, mut of_key) = ("", T::default());
        for field in Fields(self.bytes()?) {
            match field? {
                (1, value) => key = value.text()?,
                (2, value) => of_key = read(value)?,
                _ => {}
            }
        }
        Ok((key, of_key))
    }

    fn text(self) -> Result<&'a str, InvalidContent> {
        str::from_utf8(self.bytes()?).map_err(|_| invalid("a text that is not UTF-8"))
    }
}

impl Draft {
    /// The content that says this of a peer whose record was created at `created_at`.
    pub fn content(self, created_at: WallTime) -> Content {
        let mut ports = self.ports;
        let [consensus_port, file_sync, network_layer, user_sync] =
            WELL_KNOWN.map(|purpose| ports.remove(purpose).unwrap_or(0).into());
        let stored = StoredPeer {
            name: self.name,
            ip: match self.ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            user_sync,
            file_sync,
            network_layer,
            consensus_port,
            ports: ports
                .into_iter()
                .map(|(purpose, port)| (purpose, port.into()))
                .collect(),
            labels: self.labels,
            created_at_ms: created_at.as_millis(),
        };
        Content::from(stored.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages in which little is wrong: keys and values from few, any number and kind of field.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::sample::select(vec!["", "a", "userSync", "ä", "\n", "="]);
        let pair = (text.clone(), any::<u16>()).prop_map(|(key, value)| {
            let mut pair = vec![0x0a, u8::try_from(key.len()).expect("short")];
            pair.extend_from_slice(key.as_bytes());
            pair.extend([0x10, u8::try_from(value & 0x7f).expect("seven bits")]);
            pair
        });
        let label = (text.clone(), text.clone()).prop_map(|(key, value)| {
            let mut label = Vec::new();
            for (tag, text) in [(0x0a, key), (0x12, value)] {
                label.extend([tag, u8::try_from(text.len()).expect("short")]);
                label.extend_from_slice(text.as_bytes());
            }
            label
        });
        let bytes = |tag: u8, bytes: Vec<u8>| {
            let mut field = vec![tag << 3 | 2, u8::try_from(bytes.len()).expect("short")];
            field.extend(bytes);
            field
        };
        let field = prop_oneof![
            text.prop_map(move |name| bytes(1, name.as_bytes().to_vec())),
            prop::sample::select(vec![4, 4, 16, 5]).prop_map(move |len| bytes(2, vec![1; len])),
            (3_u8..7, any::<u8>()).prop_map(|(tag, port)| vec![tag << 3, port & 0x7f]),
            pair.prop_map(move |pair| bytes(7, pair)),
            label.prop_map(move |label| bytes(8, label)),
            any::<u8>().prop_map(|ms| vec![9 << 3, ms & 0x7f]),
            (10_u8..12, any::<[u8; 8]>()).prop_map(|(tag, bytes)| {
                let mut field = vec![tag << 3 | 1];
                field.extend(bytes);
                field
            }),
            any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(field, 0..12).prop_map(|fields| fields.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_content_is_read_as_the_message_that_it_is(
            start in prop::sample::select(vec![&b"\x0a\x01n\x12\x04\x0a\x00\x00\x01"[..], b""]),
            rest in messages(),
        ) {
            let content = [start, &rest].concat();
            // The other reads texts before it reads what follows, and groups.
            if let Ok(said) = Said::from_content(&content) {
                let stored = StoredPeer::decode(&content[..]).expect("a message");
                prop_assert_eq!(said.name, stored.name);
                prop_assert_eq!(address(&stored.ip), Ok(said.ip));
                prop_assert_eq!(said.created_at.as_millis(), stored.created_at_ms);
                let labels = stored.labels.iter().map(|(key, value)| (&key[..], &value[..]));
                prop_assert!(labels.eq(said.labels));
                let mut ports = stored.ports;
                let known = [
                    ("userSync", stored.user_sync),
                    ("fileSync", stored.file_sync),
                    ("networkLayer", stored.network_layer),
                    ("consensusPort", stored.consensus_port),
                ];
                for (purpose, port) in known {
                    if port != 0 {
                        ports.insert(purpose.to_owned(), port);
                    }
                }
                let ports = ports.iter().map(|(purpose, port)| (&purpose[..], *port));
                prop_assert!(ports.eq(said.ports.iter().map(|(of, port)| (*of, (*port).into()))));
            } else if let Ok(stored) = StoredPeer::decode(&content[..]) {
                // What is refused is out of bounds, has a group, or a port of more than 16 bits.
                let draft = Draft {
                    name: stored.name,
                    ip: match address(&stored.ip) {
                        Ok(ip) => ip,
                        Err(_) => return Ok(()),
                    },
                    ports: stored
                        .ports
                        .into_iter()
                        .map(|(purpose, port)| (purpose, u16::try_from(port).unwrap_or(0)))
                        .collect(),
                    labels: stored.labels,
                    contact: crate::clock::Contact::NEVER,
                };
                let has_group = Fields(&content).any(|field| field.is_err());
                prop_assert!(draft.check().is_err() || has_group);
            }
        }
    }

    #[test]
    fn a_number_is_read_to_its_last_bit_and_no_further() {
        let number = |bytes: &[u8]| Fields(bytes).varint();
        assert_eq!(number(&[0]), Ok(0));
        assert_eq!(number(&[0xac, 0x02]), Ok(300));
        let ends_in = |last: u8| [&[0xff; 9][..], &[last]].concat();
        assert_eq!(number(&ends_in(1)), Ok(u64::MAX));
        for wrong in [&ends_in(2)[..], &[0xff; 11], &[0x80], &[]] {
            assert!(number(wrong).is_err(), "{wrong:?}");
        }
    }
}
