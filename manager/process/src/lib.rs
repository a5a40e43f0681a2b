//! The process itself, the same for both programs: what it costs ([`ProcessMetrics`]), and the memory
//! that it has freed and gives back to the system ([`memory`]).

pub mod memory;
mod usage;

pub use self::usage::ProcessMetrics;
