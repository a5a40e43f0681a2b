//! Real processes for the tests and the demo: pods of a manager and a sync each, on loopback; and a
//! real cluster for the tests that need one.

pub mod browser;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod http;
pub mod ledger;
pub mod pod;
pub mod process;
pub mod recipe;
pub mod watch;
