//! The table's traveller: finds the peers, exchanges tables with theirs and says what it did.
//!
//! It never makes a version, never touches a store and keeps no copy of a table. What is said
//! between pods, and what is concluded from it, is in `peer_exchange`; here are the two ends that
//! it is said between, and what sets it going.
//!
//! A reader's way in: [`serve`] puts everything together; [`rounds`], [`feed`] with [`push`], and
//! [`server`] are what goes on all the time, and [`node`] is what they share: the way to the own
//! [`manager`], the [`transport`] to all others, the book of peers and the [`metrics`].

pub mod authority;
pub mod cli;
pub mod config;
pub mod contacts;
pub mod discovery;
pub mod feed;
pub mod http;
pub mod kubernetes;
pub mod lifecycle;
pub mod listen;
pub mod manager;
mod manual;
pub mod metrics;
pub mod missed;
pub mod node;
pub mod ops;
pub mod push;
pub mod report;
pub mod rounds;
pub mod serve;
pub mod server;
pub mod show;
pub mod tls;
pub mod transport;
pub mod wall;
