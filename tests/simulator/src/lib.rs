//! Whole clusters in one thread, with faults by seed.
//!
//! A [`History`] is drawn from a seed: how a cluster is set up, and what happens to it.
//! [`run`](run::run) lets it happen to pods that are made of the shipped code of `peer-table` and
//! `peer-exchange`, in virtual time, over a network and over stores that fail; the oracle holds
//! every step against the rules. What breaks one is made smaller and told, with its seed.
//!
//! A [`Directed`] cluster has no seed: a test says what happens, step by step, and asks in between
//! what the pods see.

mod directed;
mod history;
mod liar;
pub mod mutants;
mod oracle;
mod owner;
mod pod;
mod random;
mod run;
mod shrink;
mod store;
mod sync;
mod world;

pub use directed::Directed;
pub use history::{Event, Family, History, Network, Program, Release, Setting, Step, StoreFault};
pub use random::Random;
pub use run::{Outcome, run};
pub use shrink::shrink;
pub use world::Violation;
