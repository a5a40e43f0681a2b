//! How two tables of UDHT become equal, as functions from message to answer.
//!
//! The crate is pure. It draws no time and no randomness (both are handed in), opens no socket and
//! needs no runtime: [`exchange`](exchange::exchange) and [`respond`](respond::respond) are futures
//! over two traits, [`Own`] (this pod's manager) and [`Remote`] (the way to another pod's sync), and
//! whoever polls them decides what lies behind: HTTP in `sync`, plain calls in tests and simulator.
//! Nothing here holds a table, and the responding side remembers nothing from message to message.
//!
//! A reader's way in: [`message`] is what is said; [`handshake`] is who may talk to whom;
//! [`exchange`] is one reconciliation, seen from who begins it; [`respond`] is the other side;
//! [`push`] plans how a fresh change spreads; [`book`] knows the peers and chooses among them;
//! [`differs`] knows whose tables stay different; [`gone`] says whose records are to go, and who
//! removes them; [`alarms`] says what of all that a person should look at; `versions` is what one
//! version of the protocol says otherwise than another.

pub mod alarms;
pub mod book;
pub mod differs;
pub mod ends;
pub mod exchange;
pub mod gone;
pub mod handshake;
pub mod message;
pub mod outcomes;
pub mod push;
pub mod respond;
#[cfg(test)]
mod testing;
mod versions;

pub use book::{Address, PeerBook, Uptime};
pub use ends::{BoxError, Own, Remote};
pub use exchange::{ExchangeError, Report};
pub use gone::PodUid;
pub use handshake::{HandshakeRefused, Partner, Protocols, Refusal};
pub use outcomes::Outcomes;
