//! What is logged, changed while the program runs.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload::Handle;

use super::filter::LogFilter;

/// The longest time after which a filter goes back by itself.
pub const MOMENT_MAX: Duration = Duration::from_hours(24);

/// A time of a second to a day, written as `10m`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub(crate) Duration);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if (Duration::from_secs(1)..=MOMENT_MAX).contains(&time) {
            Ok(Self(time))
        } else {
            Err("must be from 1s to 24h".to_owned())
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
            .map_err(|error| format!("for: {error}; it is a time of 1s to 24h, such as 10m"))
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

/// What is to be logged.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LogFilterDraft))]
pub struct ChangeFilter {
    /// A level (off, error, warn, info, debug, trace), or levels by module, with commas.
    #[cfg_attr(feature = "openapi", schema(value_type = String, max_length = 1000,
        example = "info,udht_manager::owner=debug"))]
    pub filter: LogFilter,
    /// For how long, from 1s to 24h; then it is again what the program was started with. Without it,
    /// until the next change.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10m"))]
    pub moment: Option<Moment>,
}

/// What is logged.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = LogFilter))]
pub struct FilterInUse {
    /// Now.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub filter: LogFilter,
    /// What the program was started with.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub begun: LogFilter,
    /// When it will be that again by itself (RFC 3339); null if it will not.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub until: Option<String>,
}

impl fmt::Display for FilterInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.filter)?;
        if self.filter != self.begun {
            match &self.until {
                Some(until) => write!(f, " (until {until}; then {})", self.begun)?,
                None => write!(f, " (begun with {})", self.begun)?,
            }
        }
        Ok(())
    }
}

/// The filter that is in use, and what takes another.
#[derive(Clone, Default)]
pub(crate) struct Level(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    handle: Option<Handle<Targets, Registry>>,
    begun: LogFilter,
    now: LogFilter,
    until: Option<SystemTime>,
    /// Counts changes, so that one that is over does not undo a later one.
    change: u64,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Level").field(&self.state().now).finish()
    }
}

impl Level {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on changes are made through this handle.
    pub(crate) fn follow(&self, handle: Handle<Targets, Registry>, begun: LogFilter) {
        let mut state = self.state();
        state.handle = Some(handle);
        state.now = begun.clone();
        state.begun = begun;
    }

    pub(crate) fn in_use(&self) -> FilterInUse {
        let state = self.state();
        let until = state.until.map(humantime::format_rfc3339_seconds);
        FilterInUse {
            filter: state.now.clone(),
            begun: state.begun.clone(),
            until: until.map(|until| until.to_string()),
        }
    }

    pub(crate) fn set(
        &self,
        change: &ChangeFilter,
        tell: impl Fn(&Targets) + Send + 'static,
    ) -> FilterInUse {
        let number = {
            let mut state = self.state();
            state.change += 1;
            state.until = change.moment.map(|moment| SystemTime::now() + moment.0);
            state.change
        };
        self.take(&change.filter, &tell);
        if let Some(moment) = change.moment {
            let level = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(moment.0).await;
                let begun = {
                    let mut state = level.state();
                    if state.change != number {
                        return;
                    }
                    state.until = None;
                    state.begun.clone()
                };
                level.take(&begun, &tell);
            });
        }
        self.in_use()
    }

    fn take(&self, filter: &LogFilter, tell: &impl Fn(&Targets)) {
        let targets = filter.targets();
        tell(&targets);
        let handle = {
            let mut state = self.state();
            state.now = filter.clone();
            state.handle.clone()
        };
        // It fails only if there is no subscriber any more, and then nothing is logged.
        if let Some(handle) = handle {
            let _ = handle.reload(targets);
        }
        tracing::info!(target: "udht_log", %filter, "another filter of the log is in use");
    }
}
