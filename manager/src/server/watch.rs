//! Watches: changes of the table as they happen, as server-sent events or lines of JSON.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use peer_table::feed::{Change, Changed, Revision};
use peer_table::peers::{Filter, Peer, Shown};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::list::REVISION;
use super::media::{self, EVENTS, NDJSON};
use super::problem::{Kind, Problem};
use super::slots::Slot;
use super::walk::{PART_BYTES, readable};
use super::{App, HEARTBEAT};
use crate::owner::Owner;

/// The header with which a browser resumes a stream of events.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Changes that are written at once, at the most.
const PART_CHANGES: usize = 256;

/// What a watch says.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    /// The watch begins here.
    Start {
        /// Where a later watch would go on.
        revision: String,
    },
    /// A peer was written.
    Put {
        /// Where a later watch would go on.
        revision: String,
        /// The peer as it is after the change.
        #[schema(value_type = Peer)]
        peer: Shown<'a>,
    },
    /// A peer was deleted.
    Delete {
        /// Where a later watch would go on.
        revision: String,
        /// Which.
        peer_id: String,
        /// The version of the deletion.
        version: String,
    },
    /// Only `lastConnectionOn` moved.
    Contact {
        /// Where a later watch would go on.
        revision: String,
        /// The peer as it is after the change.
        #[schema(value_type = Peer)]
        peer: Shown<'a>,
    },
    /// A peer was written and does not match the filter.
    Unmatched {
        /// Where a later watch would go on.
        revision: String,
        /// Which.
        peer_id: String,
    },
    /// Nothing happened for a while.
    Heartbeat {
        /// Where a later watch would go on.
        revision: String,
    },
    /// The manager is stopping: list again from the one that comes after it.
    End {
        /// The last revision; the next manager begins its own.
        revision: String,
    },
    /// Changes were left out: list again.
    Gone {
        /// Why.
        reason: GoneReason,
    },
}

/// Why a watch cannot go on.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GoneReason {
    /// The reader was too slow to take them.
    TooSlow,
    /// The store was opened anew, or this replica started over: what changed by that is not known.
    Reopened,
}

/// Answers with a watch of the peers that match `filter`, from `since` or from now.
pub(super) fn answer(
    app: &App,
    filter: Filter,
    since: Option<Revision>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let slot = app.watches.take()?;
    // Before the revision is read, so that no change falls between the two.
    let changed = app.owner.subscribe();
    let now = app.owner.revision();
    if let Some(since) = since {
        app.owner.changes_since(since, 1).map_err(|_| gone())?;
    }
    let (form, content_type) = match media::accepted(headers, &[EVENTS, NDJSON]) {
        Some(EVENTS) => (Form::Events, EVENTS),
        _ => (Form::Lines, NDJSON),
    };
    let watch = Watch {
        owner: app.owner.clone(),
        changed,
        filter,
        form,
        at: since.unwrap_or(now),
        stage: if since.is_none() {
            Stage::Start
        } else {
            Stage::Live
        },
        heartbeat: heartbeat(),
        stopping: app.stopping.clone(),
        _slot: slot,
    };
    let parts = stream::unfold(watch, |mut watch| async move {
        let part = watch.next().await?;
        Some((Ok::<_, Infallible>(part), watch))
    });
    let revision = since.unwrap_or(now).to_string();
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (REVISION, &revision),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// The changes since a revision are not all known here.
pub(super) fn gone() -> Problem {
    let detail = "the changes since that revision are no longer kept, or it is of an earlier opening \
                  of the store: list again, and go on from the revision of that list";
    Problem::new(Kind::REVISION_GONE, detail).about("since")
}

/// Ticks while nothing else happens.
pub(super) fn heartbeat() -> Interval {
    let mut interval = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Form {
    Events,
    Lines,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Start,
    Live,
    End,
}

struct Watch {
    owner: Owner,
    changed: watch::Receiver<Revision>,
    filter: Filter,
    form: Form,
    /// The revision up to which everything was said.
    at: Revision,
    stage: Stage,
    heartbeat: Interval,
    stopping: CancellationToken,
    _slot: Slot,
}

impl Watch {
    /// The next events; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = Vec::new();
        match self.stage {
            Stage::End => return None,
            Stage::Start => {
                self.stage = Stage::Live;
                self.write(&mut text, |revision| Event::Start { revision });
                return Some(text.into());
            }
            Stage::Live => {}
        }
        while text.is_empty() {
            if self.write_changes(&mut text) {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {
                    self.stage = Stage::End;
                    self.write(&mut text, |revision| Event::End { revision });
                }
                _ = self.changed.changed() => {}
                _ = self.heartbeat.tick() => {
                    self.write(&mut text, |revision| Event::Heartbeat { revision });
                }
            }
        }
        self.heartbeat.reset();
        Some(text.into())
    }

    /// Writes the next changes that are already there; whether there were any.
    fn write_changes(&mut self, text: &mut Vec<u8>) -> bool {
        let Ok(changes) = self.owner.changes_since(self.at, PART_CHANGES) else {
            self.stage = Stage::End;
            let is_slow = self.owner.revision().is_of_opening_of(self.at);
            let reason = if is_slow {
                GoneReason::TooSlow
            } else {
                GoneReason::Reopened
            };
            self.write(text, |_| Event::Gone { reason });
            return true;
        };
        let any = !changes.is_empty();
        for (revision, change) in changes {
            self.at = revision;
            if let Some(event) = self.event(revision.to_string(), &change) {
                self.write(text, |_| event);
            }
            if text.len() > PART_BYTES {
                break;
            }
        }
        any
    }

    fn event<'a>(&self, revision: String, change: &'a Change) -> Option<Event<'a>> {
        let Change {
            key, entry, what, ..
        } = change;
        if !entry.is_live() {
            return (*what == Changed::Body).then(|| Event::Delete {
                revision,
                peer_id: key.to_string(),
                version: entry.version.to_string(),
            });
        }
        let peer = readable(key, entry)?;
        match (self.filter.matches(&peer), what) {
            (true, Changed::Body) => Some(Event::Put { revision, peer }),
            (true, Changed::Contact) => Some(Event::Contact { revision, peer }),
            (false, Changed::Body) => Some(Event::Unmatched {
                revision,
                peer_id: key.to_string(),
            }),
            // A contact does not make a difference to a filter: it was outside before.
            (false, Changed::Contact) => None,
        }
    }

    fn write<'a>(&self, text: &mut Vec<u8>, event: impl FnOnce(String) -> Event<'a>) {
        let revision = self.at.to_string();
        let event = event(revision.clone());
        if self.form == Form::Events {
            let name = event.name();
            text.extend_from_slice(format!("event: {name}\nid: {revision}\ndata: ").as_bytes());
        }
        serde_json::to_writer(&mut *text, &event).expect("an event has strings for keys");
        let end: &[u8] = match self.form {
            Form::Events => b"\n\n",
            Form::Lines => b"\n",
        };
        text.extend_from_slice(end);
    }
}

impl Event<'_> {
    /// Its `type`.
    const fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Put { .. } => "put",
            Self::Delete { .. } => "delete",
            Self::Contact { .. } => "contact",
            Self::Unmatched { .. } => "unmatched",
            Self::Heartbeat { .. } => "heartbeat",
            Self::End { .. } => "end",
            Self::Gone { .. } => "gone",
        }
    }
}
