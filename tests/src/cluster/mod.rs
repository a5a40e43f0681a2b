//! A real Kubernetes cluster, made by kind, as a person at a terminal reaches it: by kubectl, helm
//! and docker. Everything that is awaited has a limit.

pub mod command;
pub mod forward;
pub mod helm;
pub mod interrupt;
pub mod kubectl;
pub mod nodes;
pub mod reach;
pub mod release;
pub mod trickle;
pub mod wait;
