//! The table's owner: a peer directory on loopback, persistent, and open to its sync alone.

pub mod metrics;
pub mod owner;
pub mod store;
