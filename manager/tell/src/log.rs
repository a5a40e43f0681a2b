//! The log: its form, its level, which can be changed while the program runs, what repeats in it,
//! and its last lines for whoever asks. `docs/logs.md` has the words that it uses.
//!
//! A program calls [`begin`] once and keeps [`Log::keep`] going. What is logged is then written to
//! standard error. The same [`Log`] is had by [`log`] anywhere in the program.

mod filter;
mod level;
mod lines;
mod storms;

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, LazyLock};

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

pub use self::filter::{FILTER_BYTES_MAX, InvalidFilter, LogFilter};
use self::level::Level;
pub use self::level::{ChangeFilter, FilterInUse, MOMENT_MAX, Moment};
pub use self::lines::{LINES_BYTES_MAX, LINES_MAX};
use self::lines::{Lines, Written};
use self::storms::Storms;
pub use self::storms::{KINDS_MAX, WINDOW};

/// How the log is written, to standard error.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// The form of the log; auto is human on a terminal and json elsewhere
    #[arg(
        long,
        env = "UDHT_LOG_FORMAT",
        default_value = "auto",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// What is logged: a level (off, error, warn, info, debug, trace), or levels by module, such as
    /// `info,udht_sync::push=debug`; `log-filter` changes it while the program runs
    #[arg(
        long = "log",
        env = "UDHT_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_filter: LogFilter,
}

/// The form of the log.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// A JSON object in each line.
    Json,
    /// For people on a terminal, JSON elsewhere.
    Auto,
}

/// The log of this program.
#[derive(Clone, Debug, Default)]
pub struct Log {
    level: Level,
    lines: Arc<Lines>,
    storms: Arc<Storms>,
}

static LOG: LazyLock<Log> = LazyLock::new(Log::default);

/// The log of this program. Before [`begin`] it is there already, and nothing is in it.
pub fn log() -> &'static Log {
    &LOG
}

/// From here on, what is logged is written.
pub fn begin(args: &LogArgs) -> &'static Log {
    let on_terminal = stderr().is_terminal();
    let human = match args.log_format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => on_terminal,
    };
    let echo = if human { Echo::Human } else { Echo::Json };
    let subscriber = LOG.subscriber(&args.log_filter, echo, on_terminal);
    // There is one already: the program that this library is part of has its own.
    drop(subscriber.try_init());
    &LOG
}

/// What is written to standard error.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Echo {
    /// Lines for people.
    Human,
    /// The lines that are kept, as they are.
    Json,
    /// Nothing: for tests, which read the lines that are kept.
    Nothing,
}

impl Log {
    /// What takes in the events of a program, or of a test.
    pub fn subscriber(
        &self,
        filter: &LogFilter,
        echo: Echo,
        ansi: bool,
    ) -> impl Subscriber + Send + Sync + use<> {
        let (reloaded, handle) = tracing_subscriber::reload::Layer::new(filter.targets());
        self.level.follow(handle, filter.clone());
        self.storms.follow(&filter.targets());
        let kept = Written::new(&self.lines, echo == Echo::Json);
        let kept = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(kept);
        let human =
            (echo == Echo::Human).then(|| fmt::layer().with_ansi(ansi).with_writer(stderr).boxed());
        Registry::default()
            .with(reloaded)
            .with(Arc::clone(&self.storms).layer())
            .with(kept)
            .with(human)
    }

    /// What is logged now, and for how long.
    pub fn filter(&self) -> FilterInUse {
        self.level.in_use()
    }

    /// From here on this is logged: for a moment, or until it is changed again. It must be called
    /// in a runtime of Tokio.
    pub fn set_filter(&self, change: &ChangeFilter) -> FilterInUse {
        let storms = Arc::clone(&self.storms);
        self.level
            .set(change, move |targets| storms.follow(targets))
    }

    /// The last lines, as JSON, the oldest first; each ends with a line break.
    pub fn last_lines(&self) -> String {
        self.lines.text()
    }

    /// Tells now and then what was left out of the log as it had just been said. It never ends.
    pub async fn keep(&self) {
        self.storms.keep().await;
    }

    /// Tells at once what was left out: before the program ends.
    pub fn tell_left_out(&self) {
        self.storms.tell();
    }
}

#[cfg(test)]
mod tests;
