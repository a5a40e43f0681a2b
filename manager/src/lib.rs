//! The table's owner: a peer directory on loopback, persistent, and open to its sync alone.

pub mod alarms;
pub mod cli;
pub mod config;
pub mod identity;
pub mod metrics;
pub mod owner;
pub mod serve;
pub mod server;
pub mod store;
