//! The Kubernetes API, as it answers and as it fails.

mod api;
mod client;
mod watch;
