//! `GET /v1/peers`: lists of peers, streamed as one JSON text, as lines, or as a dump of the whole
//! table.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use peer_table::Key;
use peer_table::feed::Revision;
use peer_table::peers::{Filter, Peer};
use serde::Serialize;
use udht_tell::chain;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::media::{self, JSON, NDJSON};
use super::problem::{Fails, Kind, Problem};
use super::query::{Count, FilterQuery, Flag, FromQuery, Params, Query, refused};
use super::schema;
use super::walk::Walk;
use super::watch::{self, Event, LAST_EVENT_ID};
use crate::owner::OwnerError;

/// The response header with the revision from which a watch goes on.
pub(super) const REVISION: HeaderName = HeaderName::from_static("udht-revision");
/// The most records of one answer with a limit.
pub(super) const LIMIT_MAX: usize = 10_000;

/// How much of a list, or a watch instead of one.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The most peers to answer with: 1 to 10000.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 10_000)]
    limit: Option<Count<LIMIT_MAX>>,
    /// Only peers whose id comes after this one.
    #[param(value_type = Option<schema::Id>, inline)]
    after: Option<Key>,
    /// Whether to answer with changes as they happen, instead of a list.
    #[param(value_type = Option<bool>)]
    watch: Option<Flag>,
    /// The revision after which a watch begins; without it, now.
    #[param(value_type = Option<String>)]
    since: Option<Revision>,
}

impl FromQuery for ListQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        let query = Self {
            limit: params.one("limit")?,
            after: params.one("after")?,
            watch: params.one("watch")?,
            since: params.one("since")?,
        };
        let watches = query.watch.as_ref().is_some_and(|Flag(watches)| *watches);
        if watches && query.limit.is_some() {
            return Err(refused("limit", "is for lists, and this is a watch"));
        }
        if watches && query.after.is_some() {
            return Err(refused("after", "is for lists, and this is a watch"));
        }
        if !watches && query.since.is_some() {
            return Err(refused("since", "is for a watch; add watch=true"));
        }
        Ok(query)
    }
}

/// List peers, or watch them.
///
/// The list is streamed in the order of the ids: as one JSON object, or with `Accept:
/// application/x-ndjson` as a line for each peer, after which a limit that cut the list adds a last
/// line with `next`. The header `Udht-Revision` says from where a watch goes on.
///
/// With `watch=true` the answer does not end: each change is an event, as server-sent events with
/// `Accept: text/event-stream` (each with its revision as `id`, so that `Last-Event-ID` resumes),
/// and as a line otherwise. Without `since` it begins now, with `start`. With a filter, a change
/// that leaves a peer outside of it is `unmatched`. A heartbeat comes every 15 seconds. After `gone`
/// (the reader was too slow, or the store was opened anew) and after status 410, list again.
#[utoipa::path(
    get, path = "/v1/peers", tag = "peers", operation_id = "listPeers", params(FilterQuery, ListQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Taken as `since` of a watch."),
    ),
    responses(
        (status = 200, description = "The peers, or the changes of a watch.",
            content((Peers = "application/json"), (Peer = "application/x-ndjson"),
                (Event = "text/event-stream")),
            headers(("Udht-Revision" = String, description = "The revision before the answer."))),
        Fails<400>, Fails<410>, Fails<503>,
    ),
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Query((filter, query)): Query<(FilterQuery, ListQuery)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = Filter::from(filter);
    let ListQuery {
        limit,
        after,
        watch,
        since,
    } = query;
    if watch.is_some_and(|Flag(watches)| watches) {
        let since = since.map_or_else(|| last_event_id(&headers), |since| Ok(Some(since)))?;
        return watch::answer(&app, filter, since, &headers);
    }
    let limit = limit.map(|Count(limit)| limit);
    // One more than the limit, as whether there is more is said too.
    let wanted = limit.map_or(usize::MAX, |limit| limit + 1);
    let revision = app.owner.revision();
    let (form, content_type) = match media::accepted(&headers, &[JSON, NDJSON]) {
        Some(NDJSON) => (Form::Lines, NDJSON),
        _ => (Form::Json, JSON),
    };
    let walk = Walk::new(app.owner.clone(), filter, after, wanted);
    let body = Listing::new(walk, form, revision, limit)
        .into_body()
        .await?;
    let revision = revision.to_string();
    let headers = [(CONTENT_TYPE, content_type), (REVISION, &revision)];
    Ok((headers, body).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(id) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let revision = id.to_str().ok().and_then(|id| id.parse().ok());
    revision.map(Some).ok_or_else(|| {
        let detail = "Last-Event-ID must be the id of an event of this service";
        Problem::new(Kind::BAD_HEADER, detail).about("last-event-id")
    })
}

/// How a list is written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// One JSON object, [`Peers`].
    Json,
    /// A peer in each line, and a [`Next`] in the last if the limit cut it.
    Lines,
    /// A peer in each line, and an [`End`] in the last.
    Dump,
}

/// A list of peers.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    clippy::struct_field_names,
    reason = "says in the contract what a Listing writes"
)]
pub(super) struct Peers {
    /// The peers, in the order of their ids.
    peers: Vec<Peer>,
    /// Where to go on (`after`), if there are more.
    next: Option<String>,
    /// The revision before the list was read: a watch goes on from here (`since`).
    revision: String,
}

/// The last line of a list that a limit cut short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Next {
    /// Where to go on (`after`).
    next: String,
    /// The revision before the list was read.
    revision: String,
}

/// The last line of a dump, without which it was cut off.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct End {
    /// What came before.
    #[schema(inline)]
    end: EndCount,
}

/// What is said at the end of a dump.
#[derive(Debug, Serialize, ToSchema)]
struct EndCount {
    /// How many peers came before.
    records: usize,
    /// The revision before the first of them was read.
    revision: String,
}

/// A list that is being written.
pub(super) struct Listing {
    walk: Walk,
    form: Form,
    revision: Revision,
    /// Peers at the most, and so far.
    limit: usize,
    records: usize,
    /// The last of them.
    last: Option<Key>,
    stage: Stage,
    /// The length of the last part's text: the next is about as long.
    part_bytes: usize,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Start,
    Middle,
    End,
}

impl Listing {
    /// The list of what `walk` finds, up to `limit`; `revision` was taken before.
    pub(super) fn new(walk: Walk, form: Form, revision: Revision, limit: Option<usize>) -> Self {
        Self {
            walk,
            form,
            revision,
            limit: limit.unwrap_or(usize::MAX),
            records: 0,
            last: None,
            stage: Stage::Start,
            part_bytes: 0,
        }
    }

    /// The next part of the text; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OwnerError> {
        if self.stage == Stage::End {
            return Ok(None);
        }
        let mut text = Vec::with_capacity(self.part_bytes);
        if self.stage == Stage::Start && self.form == Form::Json {
            text.extend_from_slice(b"{\"peers\":[");
        }
        self.stage = Stage::Middle;
        loop {
            self.write_part(&mut text).await?;
            // Of a part may be none that is asked for.
            if !text.is_empty() || self.stage == Stage::End {
                break;
            }
        }
        self.part_bytes = text.len();
        Ok(Some(text.into()))
    }

    async fn write_part(&mut self, text: &mut Vec<u8>) -> Result<(), OwnerError> {
        let part = self.walk.next().await?;
        let (before, bytes_before) = (self.records, text.len());
        let mut last = None;
        let mut is_cut = false;
        for peer in self.walk.matching(&part) {
            is_cut = self.records == self.limit;
            if is_cut {
                break;
            }
            if self.form == Form::Json && self.records > 0 {
                text.push(b',');
            }
            write(text, &peer);
            if self.form != Form::Json {
                text.push(b'\n');
            }
            self.records += 1;
            last = Some(peer.key());
        }
        self.last = last.cloned().or(self.last.take());
        let records = self.records - before;
        self.walk.became(text.len() - bytes_before, records);
        if is_cut {
            self.finish(text, self.last.clone());
        } else if self.walk.has_ended() {
            self.finish(text, None);
        }
        Ok(())
    }

    fn finish(&mut self, text: &mut Vec<u8>, cut_after: Option<Key>) {
        self.stage = Stage::End;
        let revision = self.revision.to_string();
        let next = cut_after.map(|key| key.to_string());
        match self.form {
            Form::Json => {
                text.extend_from_slice(b"],\"next\":");
                write(text, &next);
                text.extend_from_slice(b",\"revision\":");
                write(text, &revision);
                text.push(b'}');
            }
            Form::Lines => {
                if let Some(next) = next {
                    write(text, &Next { next, revision });
                    text.push(b'\n');
                }
            }
            Form::Dump => {
                let records = self.records;
                let end = EndCount { records, revision };
                write(text, &End { end });
                text.push(b'\n');
            }
        }
    }

    /// The parts as they are asked for. If the store fails, the stream does too, so that the
    /// connection is cut and the reader sees it.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, OwnerError>> + Send {
        stream::try_unfold(self, |mut listing| async move {
            let part = listing.next().await.inspect_err(|error| {
                tracing::warn!(error = chain(&error), "a list broke off");
            })?;
            Ok(part.map(|part| (part, listing)))
        })
    }

    /// The body of an answer. Its first part is read at once, so that a store that does not answer
    /// is a problem and no broken list.
    pub(super) async fn into_body(mut self) -> Result<Body, OwnerError> {
        let first = self.next().await?.unwrap_or_default();
        if self.stage == Stage::End {
            return Ok(Body::from(first));
        }
        let first = stream::iter([Ok(first)]);
        Ok(Body::from_stream(first.chain(self.into_stream())))
    }
}

fn write(text: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(text, value).expect("strings and numbers are JSON");
}
