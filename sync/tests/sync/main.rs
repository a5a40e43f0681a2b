//! Whole syncs in this process, each with a stand-in for its manager, talking over loopback.
//!
//! Nothing here waits for a time to pass: what is waited for is an event, and a bound on time only
//! says that something hangs.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here is the test, also where a helper of it unwraps"
)]

mod alarms;
mod api;
mod authority;
mod auto;
mod cli;
mod exchange;
mod hostile_clients;
mod hostile_peers;
mod kubernetes;
mod lifecycle;
mod managers;
mod ops;
mod pod;
mod push;
mod stand_in;
mod tls;
mod tls_files;
