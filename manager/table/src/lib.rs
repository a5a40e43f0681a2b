//! The table of UDHT: what a record is, which of two records wins, and what a change does to the
//! index, the sketch and the feed.
//!
//! The crate is pure. It draws no time and no randomness (both are handed in), opens no file and no
//! socket, and has the same answer for the same input on every machine. Everything that does
//! something lives in the `manager` and `sync` programs.
//!
//! A reader's way in: [`entry`] is the record and its [`entry::merge`]; [`clock`] stamps its
//! version; [`table`] holds many of them and plans what a write or a batch from a peer changes;
//! [`sketch`] finds where two tables differ; [`peers`] is the one place that knows what the content
//! of the `peers` table looks like; [`contract`] is how manager and sync speak of all this.

pub mod authority;
pub mod clock;
pub mod contract;
pub mod entry;
pub mod feed;
pub mod fingerprint;
pub mod floors;
pub mod history;
pub mod ids;
pub mod key;
#[doc(hidden)]
pub mod mutants;
pub mod opening;
pub mod peers;
pub mod sketch;
pub mod table;

pub use authority::Binding;
pub use clock::{Clock, Contact, Reading, Version, WallTime};
pub use entry::{Body, Content, Entry};
pub use fingerprint::{Fingerprint, FingerprintKey};
pub use ids::{AuthorityId, ClusterId, OriginId, StoreId};
pub use key::{Key, TableName};
pub use opening::Opening;
pub use table::Table;
