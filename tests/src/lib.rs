//! Real processes for the tests and the demo: pods of a manager and a sync each, on loopback.

pub mod http;
pub mod pod;
pub mod process;
pub mod recipe;
pub mod watch;
