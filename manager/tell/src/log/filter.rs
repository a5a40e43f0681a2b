//! What is logged, as a text that people write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 1_000;
/// The most parts of a filter.
const PARTS_MAX: usize = 32;
/// What is said of the log itself: whoever looks at it wants that too, and it is never held back.
pub(crate) const OWN_TARGET: &str = "udht_log";

/// Which events are logged: a level for all, and levels for modules.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// A text that is no filter, and what would be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{problem}; a filter is a level (off, error, warn, info, debug or trace), or levels by module, \
     such as info,udht_sync::push=debug, of at most {FILTER_BYTES_MAX} bytes and {PARTS_MAX} parts"
)]
pub struct InvalidFilter {
    problem: String,
}

impl FromStr for LogFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem: String| Err(InvalidFilter { problem });
        if text.len() > FILTER_BYTES_MAX {
            return invalid(format!("the filter has {} bytes", text.len()));
        }
        if text.split(',').count() > PARTS_MAX {
            return invalid("the filter has too many parts".to_owned());
        }
        for part in text.split(',') {
            let (module, level) = split(part);
            if word(level).is_none() {
                return invalid(format!("{level:?} is no level"));
            }
            if module.is_some_and(|module| !is_module(module)) {
                return invalid(format!("{part:?} names no module"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LogFilter {
    type Error = InvalidFilter;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

fn split(part: &str) -> (Option<&str>, &str) {
    match part.split_once('=') {
        Some((module, level)) => (Some(module.trim()), level.trim()),
        None => (None, part.trim()),
    }
}

fn is_module(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// A level by its word alone: figures are none.
fn word(text: &str) -> Option<LevelFilter> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic()) && !text.is_empty();
    is_word.then(|| text.parse().ok()).flatten()
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LogFilter {
    /// As it is asked for each kind of event. What no part names is logged from `info` on, so that
    /// whoever looks closer at one module does not lose sight of the rest.
    pub(crate) fn targets(&self) -> Targets {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        for part in self.0.split(',') {
            let (module, level) = split(part);
            let level = word(level).unwrap_or(LevelFilter::INFO);
            targets = match module {
                Some(module) => targets.with_target(module, level),
                None => targets.with_default(level),
            };
        }
        targets.with_target(OWN_TARGET, LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn enabled(filter: &str, target: &str, level: Level) -> bool {
        let filter: LogFilter = filter.parse().unwrap_or_else(|error| panic!("{error}"));
        filter.targets().would_enable(target, &level)
    }

    #[test]
    fn a_filter_is_a_level_for_all_and_levels_for_modules() {
        assert!(enabled("debug", "udht_sync::push", Level::DEBUG));
        assert!(!enabled("WARN", "udht_sync::push", Level::INFO));
        assert!(!enabled("off", "udht_sync", Level::ERROR));
        let both = "warn, udht_sync::push=debug";
        assert!(enabled(both, "udht_sync::push", Level::DEBUG));
        assert!(!enabled(both, "udht_sync::feed", Level::INFO));
        // The rest stays in sight.
        let one = "udht_sync::push=debug";
        assert!(enabled(one, "udht_manager", Level::INFO));
        assert!(!enabled(one, "udht_manager", Level::DEBUG));
    }

    #[test]
    fn what_is_no_filter_is_answered_with_what_would_be() {
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        let many = vec!["info"; PARTS_MAX + 1].join(",");
        for bad in [
            "",
            "loud",
            "3",
            "info,",
            "udht_sync=",
            "udht_sync=loud",
            "=info",
            "a b=info",
            "[span{field=.*}]=info",
            &long,
            &many,
        ] {
            let refused = bad.parse::<LogFilter>().expect_err(bad).to_string();
            assert!(refused.contains("off, error, warn, info"), "{refused}");
            assert!(refused.len() < 2 * FILTER_BYTES_MAX, "{refused}");
        }
    }
}
