//! What repeats is said once, and then counted: trouble from outside must not fill the log.
//!
//! Each place in the code that logs from `info` on has a minute of its own. What it says in that
//! minute is said in full once for each kind, and for a few kinds; all else is counted, and told as
//! one line at the end of each minute. Two events are of one kind if they differ in figures alone:
//! so a peer that fails again is of the kind that it was, and another peer is of another.
//!
//! What a filter asks for at `debug` is held back in no way: somebody looks for just that.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};

use super::filter::OWN_TARGET;

/// For so long what repeats is counted before it is told.
pub const WINDOW: Duration = Duration::from_mins(1);
/// So many kinds of trouble from one place in the code are said in full within that time.
pub const KINDS_MAX: usize = 5;
/// The same of what is no trouble: there each one counts.
const GOOD_KINDS_MAX: usize = 100;
/// The most of a message that is repeated when it is told how often it was left out.
const TEXT_CHARS_MAX: usize = 600;

/// What was said of late, by the place in the code that said it.
#[derive(Debug, Default)]
pub(crate) struct Storms {
    windows: Mutex<HashMap<Identifier, Window>>,
    verbose: RwLock<Targets>,
    /// Something was left out: there will be something to tell.
    left_out: Notify,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    metadata: &'static Metadata<'static>,
    kinds: Vec<u64>,
    left_out: u64,
    message: String,
    error: Option<String>,
}

impl Storms {
    /// As a part of what takes in events.
    pub(crate) fn layer(self: Arc<Self>) -> Calm {
        Calm(self)
    }

    /// From here on what these ask for at `debug` is held back no more.
    pub(crate) fn follow(&self, targets: &Targets) {
        let mut verbose = self.verbose.write().unwrap_or_else(PoisonError::into_inner);
        *verbose = targets.clone();
    }

    fn is_verbose(&self, target: &str) -> bool {
        let verbose = self.verbose.read().unwrap_or_else(PoisonError::into_inner);
        verbose.would_enable(target, &Level::DEBUG)
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is to be said; if not, it is counted.
    fn is_news(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO
            || metadata.target() == OWN_TARGET
            || self.is_verbose(metadata.target())
        {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let kind = said.kind.finish();
        let now = Instant::now();
        let mut windows = self.windows();
        let window = windows
            .entry(metadata.callsite())
            .or_insert_with(|| Window {
                begun: now,
                metadata,
                kinds: Vec::new(),
                left_out: 0,
                message: String::new(),
                error: None,
            });
        let age = now.duration_since(window.begun);
        // Twice that: nobody tells what is left out, so it must not be held back.
        if age >= 2 * WINDOW || (age >= WINDOW && window.left_out == 0) {
            window.begun = now;
            window.kinds.clear();
            window.left_out = 0;
        }
        let kinds_max = if *metadata.level() == Level::INFO {
            GOOD_KINDS_MAX
        } else {
            KINDS_MAX
        };
        if window.kinds.len() < kinds_max && !window.kinds.contains(&kind) {
            window.kinds.push(kind);
            return true;
        }
        window.left_out += 1;
        window.message = said.message;
        window.error = said.error;
        drop(windows);
        self.left_out.notify_one();
        false
    }

    /// Tells now and then what was left out, without end.
    pub(crate) async fn keep(&self) {
        loop {
            self.left_out.notified().await;
            tokio::time::sleep(WINDOW).await;
            while self.tell() {
                tokio::time::sleep(WINDOW).await;
            }
        }
    }

    /// Tells what was left out; whether that was anything. What goes on stays known as it was said.
    pub(crate) fn tell(&self) -> bool {
        let now = Instant::now();
        let mut told = Vec::new();
        self.windows().retain(|_, window| {
            if window.left_out == 0 {
                return now.duration_since(window.begun) < WINDOW;
            }
            let message = std::mem::take(&mut window.message);
            told.push((
                window.metadata,
                window.left_out,
                message,
                window.error.take(),
            ));
            window.left_out = 0;
            window.begun = now;
            true
        });
        for (metadata, times, message, error) in &told {
            let of = metadata.target();
            match *metadata.level() {
                Level::ERROR => {
                    tracing::error!(target: "udht_log", times, of, error, "said {times} more times in the last minute: {message}");
                }
                Level::WARN => {
                    tracing::warn!(target: "udht_log", times, of, error, "said {times} more times in the last minute: {message}");
                }
                _ => {
                    tracing::info!(target: "udht_log", times, of, error, "said {times} more times in the last minute: {message}");
                }
            }
        }
        !told.is_empty()
    }
}

/// Holds back what was said a moment ago.
#[derive(Debug)]
pub(crate) struct Calm(Arc<Storms>);

impl<S: Subscriber> Layer<S> for Calm {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.is_news(event)
    }
}

/// What an event says, as far as it makes it one of a kind.
#[derive(Default)]
struct Said {
    kind: DefaultHasher,
    message: String,
    error: Option<String>,
}

impl Said {
    fn text(&mut self, field: &Field, text: impl fmt::Display) {
        let mut taken = Taken::default();
        let _ = write!(taken, "{text}");
        let text = taken.0;
        // A figure in an error or a sentence, such as a port or a time, makes no other kind.
        if ["error", "message"].contains(&field.name()) {
            let letters = text.chars().filter(|char| !char.is_ascii_digit());
            letters.for_each(|char| char.hash(&mut self.kind));
        } else {
            (field.index(), &text).hash(&mut self.kind);
        }
        match field.name() {
            "message" => self.message = text,
            "error" => self.error = Some(text),
            _ => {}
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        (field.index(), value).hash(&mut self.kind);
    }

    // Figures.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
}

/// The beginning of a text.
#[derive(Default)]
struct Taken(String);

impl fmt::Write for Taken {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = TEXT_CHARS_MAX.saturating_sub(self.0.chars().count());
        self.0.extend(text.chars().take(free));
        Ok(())
    }
}
