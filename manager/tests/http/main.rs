//! The HTTP contract, call by call, without a socket where none is needed.

#![expect(unreachable_pub, reason = "a program of tests has nobody outside")]
#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod contract;
mod explain;
mod figures;
mod guard;
mod identity;
mod list;
mod log;
mod peers;
mod pod;
mod problems;
mod process;
mod replicas;
mod status;
mod store;
mod support;
mod sync;
mod table;
mod watch;
