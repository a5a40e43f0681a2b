//! The log, on standard error.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFilter, LogFormat};
use crate::wall::Stopwatch;

/// How often the same kind of trouble is worth a line in the log.
const TROUBLE_EVERY: Duration = Duration::from_mins(1);

/// Remembers what was said of late: what comes from outside must not fill the log.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<BTreeMap<&'static str, Stopwatch>>);

impl Rarely {
    /// Whether trouble of this kind was not talked about for a while; from now on it was.
    pub fn is_news(&self, kind: &'static str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = said
            .get(kind)
            .is_none_or(|last| last.elapsed() >= TROUBLE_EVERY);
        if news {
            said.insert(kind, Stopwatch::start());
        }
        news
    }
}

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
