//! The log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFilter, LogFormat};

/// From here on, what is logged is written.
pub fn begin(filter: &LogFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter.as_str()))
        .with_writer(std::io::stderr);
    let on_terminal = std::io::stderr().is_terminal();
    match format {
        LogFormat::Auto if !on_terminal => log.json().flatten_event(true).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Human | LogFormat::Auto => log.with_ansi(on_terminal).init(),
    }
}
