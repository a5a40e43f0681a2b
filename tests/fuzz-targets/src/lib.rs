//! What reads foreign bytes, as functions of such bytes: each feeds them to one reader, and panics
//! where the reader does, or where what came out breaks a rule.
//!
//! `make fuzz` has cargo-fuzz look for bytes that break one; `tests/smoke.rs` feeds the same
//! functions with the seeds in `tests/fuzz/seeds` and with bounded changes of these. Where bytes as
//! they come are refused at the first of them, a target takes them for a list of choices, out of
//! which it builds what is almost right.

mod choices;
mod exchange;
mod http;
mod import;
mod manager;
mod message;
mod record;
mod sketch;
mod store;

/// A target: its name, and the function that takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a file of its name in `tests/fuzz/fuzz_targets`, and a folder of its name
/// in `tests/fuzz/seeds`.
pub const TARGETS: [Target; 17] = [
    ("batch", message::batch),
    ("request", message::request),
    ("response", message::response),
    ("symbols", sketch::symbols),
    ("difference", sketch::difference),
    ("responder", exchange::responder),
    ("initiator", exchange::initiator),
    ("stored_entry", record::stored_entry),
    ("record_json", record::json),
    ("merge_patch", record::patch),
    ("texts", record::texts),
    ("embedded_opening", store::embedded_opening),
    ("redis_opening", store::redis_opening),
    ("floors", store::floors),
    ("http_api", http::api),
    ("http_import", http::import),
    ("cli_import", import::cli),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    target(bytes);
}
