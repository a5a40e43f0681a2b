//! The log, on standard error.

use std::io::{IsTerminal, stderr};

use crate::config::{LogArgs, LogFormat};

/// From here on, what is logged is written.
pub fn begin(args: &LogArgs) {
    let LogArgs {
        log_format,
        log_filter,
    } = args;
    let log = tracing_subscriber::fmt()
        .with_env_filter(log_filter.get())
        .with_writer(stderr);
    let on_terminal = stderr().is_terminal();
    let begun = match log_format {
        LogFormat::Auto if !on_terminal => log.json().flatten_event(true).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Human | LogFormat::Auto => log.with_ansi(on_terminal).try_init(),
    };
    // There is one already: the program that this library is part of has its own.
    drop(begun);
}
