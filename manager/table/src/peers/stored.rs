//! A peer's content as it is stored and sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost::Message;

use super::draft::Draft;
use crate::clock::{Contact, WallTime};
use crate::entry::Content;
use crate::table::InvalidContent;

/// The content as it is stored and sent: a protobuf message, so that a later release can add
/// fields that this one skips. The four well-known purposes have fields of their own, as they
/// would otherwise be the larger part of most records.
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
pub(super) struct Said {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) created_at: WallTime,
}

impl Said {
    pub(super) fn from_content(content: &[u8]) -> Result<Self, InvalidContent> {
        let invalid = |detail: String| InvalidContent(detail);
        let stored = StoredPeer::decode(content).map_err(|error| invalid(error.to_string()))?;
        let ip = <[u8; 4]>::try_from(&stored.ip[..])
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(&stored.ip[..]).map(IpAddr::from))
            .map_err(|_| invalid(format!("an address of {} bytes", stored.ip.len())))?;
        let well_known = [
            ("userSync", stored.user_sync),
            ("fileSync", stored.file_sync),
            ("networkLayer", stored.network_layer),
            ("consensusPort", stored.consensus_port),
        ]
        .into_iter()
        .filter(|(_, port)| *port != 0)
        .map(|(purpose, port)| (purpose.to_owned(), port));
        let ports = stored
            .ports
            .into_iter()
            .chain(well_known)
            .map(|(purpose, port)| {
                let port = u16::try_from(port).map_err(|_| invalid(format!("port {port}")))?;
                Ok((purpose, port))
            })
            .collect::<Result<_, InvalidContent>>()?;
        let draft = Draft {
            name: stored.name,
            ip,
            ports,
            labels: stored.labels,
            contact: Contact::NEVER,
        };
        draft.check().map_err(|error| invalid(error.to_string()))?;
        let Draft {
            name,
            ip,
            ports,
            labels,
            contact: _,
        } = draft;
        Ok(Self {
            name,
            ip,
            ports,
            labels,
            created_at: WallTime::from_millis(stored.created_at_ms),
        })
    }
}

impl Draft {
    /// The content that says this of a peer whose record was created at `created_at`.
    pub fn content(&self, created_at: WallTime) -> Content {
        let mut ports = self.ports.clone();
        let mut take = |purpose: &str| u32::from(ports.remove(purpose).unwrap_or(0));
        let mut stored = StoredPeer {
            name: self.name.clone(),
            ip: match self.ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            user_sync: take("userSync"),
            file_sync: take("fileSync"),
            network_layer: take("networkLayer"),
            consensus_port: take("consensusPort"),
            ports: BTreeMap::new(),
            labels: self.labels.clone(),
            created_at_ms: created_at.as_millis(),
        };
        stored.ports = ports
            .into_iter()
            .map(|(purpose, port)| (purpose, port.into()))
            .collect();
        Content::from(stored.encode_to_vec())
    }
}
