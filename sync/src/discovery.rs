//! How the other pods are found.

use std::fmt;
use std::str::FromStr;

use peer_exchange::Address;
use peer_exchange::book::{InvalidAddress, PEERS_MAX};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::pods::InUse;
use crate::kubernetes::watch::Follower;
use crate::node::Node;

/// Where the addresses of the other pods come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// From this list, for good. It may name this pod too.
    Fixed(Vec<Address>),
    /// From the `EndpointSlice`s of the headless service, as long as the program runs.
    Kubernetes,
}

/// A text that names no way of discovery.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidDiscovery {
    /// It is none of the two.
    #[error("must be `kubernetes` or `fixed:HOST:PORT,...`")]
    Unknown,
    /// One of the addresses is none.
    #[error("{text:?} in the list: {problem}")]
    Address {
        /// What stands there.
        text: String,
        /// What would be one.
        problem: InvalidAddress,
    },
    /// There are too many addresses.
    #[error("the list has {count} addresses, more than {PEERS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl FromStr for Discovery {
    type Err = InvalidDiscovery;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "kubernetes" {
            return Ok(Self::Kubernetes);
        }
        let list = text
            .strip_prefix("fixed:")
            .ok_or(InvalidDiscovery::Unknown)?;
        let texts = list.split(',').map(str::trim);
        // A pod that is alone for now has an empty list; a trailing comma is nobody.
        let addresses = texts.filter(|text| !text.is_empty()).map(|text| {
            text.parse().map_err(|problem| InvalidDiscovery::Address {
                text: text.to_owned(),
                problem,
            })
        });
        let addresses = addresses.collect::<Result<Vec<Address>, _>>()?;
        if addresses.len() > PEERS_MAX {
            let count = addresses.len();
            return Err(InvalidDiscovery::TooMany { count });
        }
        Ok(Self::Fixed(addresses))
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes => f.write_str("kubernetes"),
            Self::Fixed(addresses) => {
                let texts: Vec<_> = addresses.iter().map(Address::as_str).collect();
                write!(f, "fixed:{}", texts.join(","))
            }
        }
    }
}

/// Follows the pods, and keeps the book of peers to what is found, until `stop`.
pub async fn follow(
    node: &Node,
    follower: Option<Follower>,
    prefers_ipv6: bool,
    stop: CancellationToken,
) {
    let Some(follower) = follower else {
        return;
    };
    let mut pods = node.pods();
    let keep = async {
        let mut in_use = InUse::new(prefers_ipv6);
        loop {
            let held = in_use.take(&pods.borrow_and_update());
            node.metrics.kubernetes.held.set(held);
            node.take_pods(&in_use);
            if pods.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = Box::pin(follower.run(stop)) => {}
        () = keep => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_may_be_empty() {
        for text in [
            "kubernetes",
            "fixed:",
            "fixed:pod-0.udht:3003",
            "fixed:10.0.0.1:3003,[fd00::1]:3003",
        ] {
            assert_eq!(text.parse::<Discovery>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let wrong = |text: &str| text.parse::<Discovery>().unwrap_err().to_string();
        assert!(wrong("fixed:10.0.0.1:3003,10.0.0.2").starts_with("\"10.0.0.2\" in the list: "));
        assert_eq!(
            wrong("dns"),
            "must be `kubernetes` or `fixed:HOST:PORT,...`"
        );
        let many = format!("fixed:{}", "a:1,".repeat(PEERS_MAX + 1));
        assert!(wrong(&many).ends_with("addresses, more than 10000"));
    }
}
