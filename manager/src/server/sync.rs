//! `/v1/sync`: what the sync beside this manager asks and tells, in protobuf messages
//! ([`peer_table::contract`]).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use peer_table::contract::{
    self, Advance, Advanced, Batch, Bind, FINGERPRINTS_MAX, FeedPart, InvalidMessage, Leave,
    LeaveAnswer, MergeAnswer, RecordsRequest, StateRequest, Tend, TendAnswer,
    fingerprints_from_bytes, merged_code, via_word,
};
use peer_table::feed::{Changed, Revision, Via};
use peer_table::floors::Replicas;
use peer_table::sketch::Sketch;
use peer_table::table::SessionId;
use peer_table::{Entry, Fingerprint, Key, StoreId};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;
use udht_tell::trace::Place;
use utoipa::IntoParams;

use super::App;
use super::body::Protobuf;
use super::problem::{Fails, Kind, Problem};
use super::query::{Count, FromQuery, Params, Query};
use super::slots::Slot;
use super::watch::{gone, heartbeat};
use crate::owner::{MergedRecords, OwnClock, Owner};

/// Changes that are told at once. With the largest records, a batch of them is 4 MiB.
const PART_CHANGES: usize = 256;

/// The table in a path; there is one.
#[derive(Clone, Debug)]
pub(super) struct KnownTable;

/// The table in a path, as the contract says it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "a KnownTable is read instead")]
struct TableParams {
    /// Which table; there is one.
    #[param(pattern = "^peers$", example = "peers")]
    table: String,
}

impl FromRequestParts<Arc<App>> for KnownTable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let known = app.owner.table_name().as_str();
        match Path::<String>::from_request_parts(parts, app).await {
            Ok(Path(name)) if name == known => Ok(Self),
            _ => {
                let detail = format!("there is one table here, and it is called {known}");
                Err(Problem::new(Kind::NO_SUCH_TABLE, detail).about("table"))
            }
        }
    }
}

/// How much of the sketch is asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StateQuery {
    /// So many of the first coded symbols come along: 0 to 32768, and 0 if left out.
    #[param(value_type = Option<usize>, minimum = 0, maximum = 32_768)]
    symbols: usize,
}

impl FromQuery for StateQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        let symbols = params.one::<Symbols>("symbols")?;
        let symbols = symbols.map_or(0, |Symbols(symbols)| symbols);
        Ok(Self { symbols })
    }
}

struct Symbols(usize);

impl FromStr for Symbols {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(0));
        }
        let Ok(Count(symbols)) = text.parse::<Count<{ Sketch::LEN }>>() else {
            return Err(format!("must be a whole number from 0 to {}", Sketch::LEN));
        };
        Ok(Self(symbols))
    }
}

/// Who this replica is, and how its tables stand.
#[utoipa::path(
    get, path = "/v1/sync/state", tag = "sync", operation_id = "syncState", params(StateQuery),
    responses(
        (status = 200, description = "A `State` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<503>,
    ),
)]
pub(super) async fn state(
    State(app): State<Arc<App>>,
    Query(query): Query<StateQuery>,
) -> Result<Response, Problem> {
    Ok(protobuf(&app.owner.state(query.symbols)?))
}

/// The same, as an exchange needs it: with a snapshot for a partner, or as the beginning of one of
/// ours.
#[utoipa::path(
    post, path = "/v1/sync/state", tag = "sync", operation_id = "syncStateFor",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `StateRequest` message."),
    responses(
        (status = 200, description = "A `State` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn state_for(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(request): Protobuf<StateRequest>,
) -> Result<Response, Problem> {
    Ok(protobuf(&app.owner.state_for(request).await?))
}

/// Take in what another replica knows of all replicas, and tell what is known here.
///
/// A store that was given up starts over; its answer is a problem then, and a later one is of the new
/// store.
#[utoipa::path(
    post, path = "/v1/sync/replicas", tag = "sync", operation_id = "syncReplicas",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `Replicas` message."),
    responses(
        (status = 200, description = "A `Replicas` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn replicas(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(theirs): Protobuf<Replicas>,
) -> Result<Response, Problem> {
    Ok(protobuf(&app.owner.join(theirs).await?))
}

/// Note that an exchange of ours brought all that its partner had at its beginning.
#[utoipa::path(
    post, path = "/v1/sync/advance", tag = "sync", operation_id = "syncAdvance",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "An `Advance` message."),
    responses(
        (status = 200, description = "An `Advanced` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn advance(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(Advance { session, snapshot }): Protobuf<Advance>,
) -> Result<Response, Problem> {
    let snapshot = snapshot.read().map_err(|error| Problem::message(&error))?;
    let advanced = app.owner.advance(SessionId(session), snapshot).await?;
    Ok(protobuf(&Advanced { advanced }))
}

/// Look after the floors: fence who is gone, publish, and have tombstones leave that may.
#[utoipa::path(
    post, path = "/v1/sync/tend", tag = "sync", operation_id = "syncTend",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `Tend` message."),
    responses(
        (status = 200, description = "A `TendAnswer` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn tend(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(tend): Protobuf<Tend>,
) -> Result<Response, Problem> {
    let evidence = tend.read().map_err(|error| Problem::message(&error))?;
    let clock = match tend.clock_off_ms {
        0 if tend.clock_agrees => OwnClock::Agrees,
        0 => OwnClock::Unknown,
        ahead_ms => OwnClock::Off(ahead_ms),
    };
    let publication = app.owner.tend(evidence, clock).await?;
    Ok(protobuf(&TendAnswer {
        publication: publication.as_ref().map(Into::into),
    }))
}

/// Which part of the fingerprints is asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FingerprintsQuery {
    /// From this fingerprint on, as an unsigned number of 64 bits; 0 if left out.
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    from: Option<u64>,
    /// So many at the most: 1 to 65536, and 65536 if left out.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 65_536)]
    limit: Option<Count<FINGERPRINTS_MAX>>,
}

impl FromQuery for FingerprintsQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self {
            from: params.one("from")?,
            limit: params.one("limit")?,
        })
    }
}

/// A part of a table's fingerprints, in ascending order.
#[utoipa::path(
    get, path = "/v1/sync/tables/{table}/fingerprints", tag = "sync", operation_id = "syncFingerprints",
    params(TableParams, FingerprintsQuery),
    responses(
        (status = 200, description = "A `FingerprintPage` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<404>, Fails<503>,
    ),
)]
pub(super) async fn fingerprints(
    State(app): State<Arc<App>>,
    KnownTable: KnownTable,
    Query(query): Query<FingerprintsQuery>,
) -> Result<Response, Problem> {
    let FingerprintsQuery { from, limit } = query;
    let limit = limit.map_or(FINGERPRINTS_MAX, |Count(limit)| limit);
    let from = Fingerprint(from.unwrap_or(0));
    Ok(protobuf(&app.owner.fingerprints(from, limit)?))
}

/// The records with certain fingerprints.
#[utoipa::path(
    post, path = "/v1/sync/tables/{table}/records", tag = "sync", operation_id = "syncRecords",
    params(TableParams),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `RecordsRequest` message."),
    responses(
        (status = 200, description = "A `Records` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<404>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn records(
    State(app): State<Arc<App>>,
    KnownTable: KnownTable,
    Query(()): Query<()>,
    Protobuf(request): Protobuf<RecordsRequest>,
) -> Result<Response, Problem> {
    let wanted =
        fingerprints_from_bytes(&request.fingerprints).map_err(|error| Problem::message(&error))?;
    Ok(protobuf(&app.owner.records(&wanted).await?))
}

/// How a batch came here.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct MergeQuery {
    /// `push` or `exchange`.
    #[param(value_type = String, example = "push")]
    via: Way,
    /// The store id of the replica that sent it.
    #[param(value_type = String)]
    from: StoreId,
    /// The exchange of ours that it came by, if it did.
    #[param(value_type = Option<u64>)]
    session: Option<u64>,
}

impl FromQuery for MergeQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self {
            via: params.needed("via")?,
            from: params.needed("from")?,
            session: params.one("session")?,
        })
    }
}

#[derive(Debug)]
struct Way(Via);

impl FromStr for Way {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Via::Push, Via::Exchange]
            .into_iter()
            .find(|via| via_word(*via) == text)
            .map(Self)
            .ok_or("must be push or exchange")
    }
}

/// Merge records of a peer into the table.
#[utoipa::path(
    post, path = "/v1/sync/tables/{table}/merge", tag = "sync", operation_id = "syncMerge",
    params(TableParams, MergeQuery),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `Batch` message."),
    responses(
        (status = 200, description = "A `MergeAnswer` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<404>, Fails<408>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn merge(
    State(app): State<Arc<App>>,
    KnownTable: KnownTable,
    Query(query): Query<MergeQuery>,
    Protobuf(batch): Protobuf<Batch>,
) -> Result<Response, Problem> {
    let MergeQuery {
        via: Way(via),
        from,
        session,
    } = query;
    if batch.table != app.owner.table_name().as_str() {
        let problem = "is another than the table in the path";
        return Err(Problem::message(&InvalidMessage::field("table", problem)));
    }
    let records = batch
        .into_records()
        .map_err(|error| Problem::message(&error))?;
    tracing::debug!(peer_id = %from, via = via_word(via), records = records.len(), "merging");
    let session = session.map(SessionId);
    let merged = app.owner.merge(Some(from), records, via, session);
    let MergedRecords { outcomes, answers } = merged.await?;
    let answers = Batch::new(app.owner.table_name(), answers);
    Ok(protobuf(&MergeAnswer {
        outcomes: outcomes.into_iter().map(merged_code).collect(),
        answers: (!answers.records.is_empty()).then_some(answers),
    }))
}

/// Bind the store to the authority of the cluster.
///
/// A store that is not bound yet takes any; one that is bound to another takes it only if that is
/// among those it adopts. When the key changes, the fingerprints are made anew, and every watch and
/// feed ends and begins anew; records can be read meanwhile. The binding is kept in the store.
#[utoipa::path(
    post, path = "/v1/sync/authority", tag = "sync", operation_id = "syncAuthority",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `Bind` message."),
    responses(
        (status = 200, description = "A `State` message, without symbols.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<409>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
    ),
)]
pub(super) async fn bind(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(bind): Protobuf<Bind>,
) -> Result<Response, Problem> {
    let (binding, adopts) = bind
        .into_parts()
        .map_err(|error| Problem::message(&error))?;
    app.owner.bind(binding, adopts).await??;
    Ok(protobuf(&app.owner.state(0)?))
}

/// Take no further write of the application, as the pod is going.
///
/// Reads and the calls of sync go on. The pod's own record is deleted if the pod does not come back
/// and the manager was started with `--storage pod`. This ends with the process.
#[utoipa::path(
    post, path = "/v1/sync/leave", tag = "sync", operation_id = "syncLeave",
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "A `Leave` message."),
    responses(
        (status = 200, description = "A `LeaveAnswer` message.", body = Vec<u8>,
            content_type = "application/x-protobuf"),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<503>,
    ),
)]
pub(super) async fn leave(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Protobuf(Leave { for_good }): Protobuf<Leave>,
) -> Result<Response, Problem> {
    let record_deleted = app.owner.leave(for_good).await?;
    Ok(protobuf(&LeaveAnswer { record_deleted }))
}

/// From where a feed goes on.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedQuery {
    /// The revision after which it begins; without it, now.
    #[param(value_type = Option<String>)]
    since: Option<Revision>,
}

impl FromQuery for FeedQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self {
            since: params.one("since")?,
        })
    }
}

/// What is written here, as it happens.
///
/// The first part has no records and says where the feed begins; the same comes every 15 seconds
/// while nothing happens. The stream ends when the manager stops, and when the reader was too slow.
#[utoipa::path(
    get, path = "/v1/sync/feed", tag = "sync", operation_id = "syncFeed", params(FeedQuery),
    responses(
        (status = 200, description = "A stream of length-delimited `FeedPart` messages.",
            body = Vec<u8>, content_type = "application/x-protobuf"),
        Fails<400>, Fails<410>, Fails<503>,
    ),
)]
pub(super) async fn feed(
    State(app): State<Arc<App>>,
    Query(query): Query<FeedQuery>,
) -> Result<Response, Problem> {
    let slot = app.feeds.take()?;
    // Before the revision is read, so that no change falls between the two.
    let changed = app.owner.subscribe();
    let at = query.since.unwrap_or_else(|| app.owner.revision());
    app.owner.changes_since(at, 1).map_err(|_| gone())?;
    let feed = Feed {
        owner: app.owner.clone(),
        changed,
        at,
        started: false,
        heartbeat: heartbeat(),
        stopping: app.stopping.clone(),
        _slot: slot,
    };
    let parts = stream::unfold(feed, |mut feed| async move {
        let part = feed.next().await?;
        Some((Ok::<_, Infallible>(part), feed))
    });
    let headers = [
        (CONTENT_TYPE, contract::MEDIA_TYPE),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

struct Feed {
    owner: Owner,
    changed: watch::Receiver<Revision>,
    at: Revision,
    started: bool,
    heartbeat: Interval,
    stopping: CancellationToken,
    _slot: Slot,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            self.started = true;
            return Some(self.part(None));
        }
        loop {
            let changes = self.owner.changes_since(self.at, PART_CHANGES).ok()?;
            let at_end = changes.is_empty();
            if let Some((last, _)) = changes.last() {
                self.at = *last;
            }
            // Of several changes of one record only the last is news.
            let fresh: BTreeMap<Key, Entry> = changes
                .into_iter()
                .filter(|(_, change)| change.via == Via::Local && change.what == Changed::Body)
                .map(|(_, change)| (change.key.clone(), change.entry.clone()))
                .collect();
            if !fresh.is_empty() {
                self.heartbeat.reset();
                let trace = super::traced::trace_of(fresh.keys());
                let batch = Batch::new(self.owner.table_name(), fresh);
                return Some(self.part_of(Some(batch), trace));
            }
            if !at_end {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                _ = self.changed.changed() => {}
                _ = self.heartbeat.tick() => return Some(self.part(None)),
            }
        }
    }

    fn part(&self, batch: Option<Batch>) -> Bytes {
        self.part_of(batch, None)
    }

    fn part_of(&self, batch: Option<Batch>, trace: Option<Place>) -> Bytes {
        let part = FeedPart {
            revision: self.at.to_string(),
            batch,
            trace: trace.map(|trace| trace.to_string()).unwrap_or_default(),
        };
        part.encode_length_delimited_to_vec().into()
    }
}

fn protobuf(message: &impl Message) -> Response {
    let headers = [(CONTENT_TYPE, contract::MEDIA_TYPE)];
    (headers, message.encode_to_vec()).into_response()
}
