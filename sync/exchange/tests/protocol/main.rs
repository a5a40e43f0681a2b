//! Initiator and responder against each other, over real tables, with every message encoded.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod found;
mod hostile;
mod listed;
mod meddled;
mod pushed;
mod refused;
