//! The Kubernetes API: which pods there are, and the Secret of the release's authority.

pub mod client;
pub mod pods;
pub mod slices;
pub mod watch;
