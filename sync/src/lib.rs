//! The table's traveller: finds the peers, exchanges tables with theirs and says what it did.
//!
//! It never makes a version, never touches a store and keeps no copy of a table. What is said
//! between pods, and what is concluded from it, is in `peer_exchange`; here are the two ends that
//! it is said between, and what sets it going.

pub mod config;
pub mod contacts;
pub mod discovery;
pub mod http;
pub mod listen;
pub mod manager;
pub mod metrics;
pub mod transport;
pub mod wall;
