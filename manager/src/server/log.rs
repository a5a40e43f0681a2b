//! What this manager tells of itself: its log, what of it is written, and how it was started.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use peer_table::table::Digest;
use serde::{Deserialize, Serialize};
use udht_tell::about::{self, About};
use udht_tell::log::{self, ChangeFilter, FilterInUse, LogFilter};
use utoipa::ToSchema;

use super::App;
use super::body;
use super::media::{self, JSON};
use super::problem::{Fails, Kind, Problem};
use super::query::Query;

/// The most bytes of a body with a filter: one of the longest, with all that JSON may do to it.
const BODY_BYTES_MAX: usize = 8 << 10;
/// One JSON object a line.
const NDJSON: &str = "application/x-ndjson";

/// A body with what is to be logged.
#[derive(Debug)]
pub(super) struct Change(ChangeFilter);

impl<S: Send + Sync> FromRequest<S> for Change {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media::demand(request.headers(), &[JSON])?;
        let body = body::read(request, BODY_BYTES_MAX).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let detail = format!("the body says no filter: {error}");
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let is_filter = LogFilter::deserialize(&said["filter"]).is_ok();
            let field = if is_filter { "for" } else { "filter" };
            Problem::new(Kind::INVALID_FILTER, detail).about(field)
        })
    }
}

/// Say what is logged.
#[utoipa::path(
    get, path = "/v1/log-filter", tag = "operations", operation_id = "getLogFilter",
    responses((status = 200, description = "The filter of the log.", body = FilterInUse), Fails<400>),
)]
pub(super) async fn filter(Query(()): Query<()>) -> Json<FilterInUse> {
    Json(log::log().filter())
}

/// Change what is logged, at once, for a while or until the next change.
///
/// A start of the manager takes it back to what `--log` says.
#[utoipa::path(
    put, path = "/v1/log-filter", tag = "operations", operation_id = "putLogFilter",
    request_body = ChangeFilter,
    responses(
        (status = 200, description = "It is in use.", body = FilterInUse),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<422>,
    ),
)]
pub(super) async fn set_filter(Query(()): Query<()>, Change(change): Change) -> Json<FilterInUse> {
    Json(log::log().set_filter(&change))
}

/// A line of the log, with the fields of its event beside these.
#[derive(Debug, ToSchema)]
#[schema(as = LogLine)]
#[expect(dead_code, reason = "says in the contract what a line has")]
struct Line {
    /// When.
    #[schema(format = DateTime)]
    timestamp: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    level: String,
    /// What happened.
    message: String,
    /// The module that says it.
    target: String,
}

/// Read the last lines of the log.
///
/// There are up to 1,000 of them, and 512 KiB, the oldest first, each a JSON object; `docs/logs.md`
/// says what they mean.
#[utoipa::path(
    get, path = "/v1/logs", tag = "operations", operation_id = "getLogs",
    responses(
        (status = 200, description = "The lines.", body = Line,
            content_type = "application/x-ndjson"),
        Fails<400>,
    ),
)]
pub(super) async fn lines(Query(()): Query<()>) -> Response {
    ([(CONTENT_TYPE, NDJSON)], log::log().last_lines()).into_response()
}

/// A build of the manager, how it was started, and what it has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AboutManager {
    #[serde(flatten)]
    about: About,
    /// The store's id.
    store: String,
    /// The id of its current opening.
    origin: String,
    /// The id of this pod's own record.
    peer_id: String,
    /// The cluster's id.
    cluster: String,
    /// A digest of the whole table: equal ones are of equal tables. Null while it is made anew.
    table: Option<TableDigest>,
}

/// A digest of a table.
#[derive(Debug, Serialize, ToSchema)]
struct TableDigest {
    /// Records, deleted ones that are still remembered among them.
    records: u64,
    /// The exclusive or of their fingerprints, in hexadecimal.
    sum: String,
}

impl From<Digest> for TableDigest {
    fn from(digest: Digest) -> Self {
        Self {
            records: digest.records,
            sum: format!("{:016x}", digest.sum),
        }
    }
}

/// Say which build this manager is, how it was started, and what it has.
#[utoipa::path(
    get, path = "/v1/about", tag = "operations", operation_id = "getAbout",
    responses((status = 200, description = "All that.", body = AboutManager), Fails<400>),
)]
pub(super) async fn about(State(app): State<Arc<App>>, Query(()): Query<()>) -> Json<AboutManager> {
    let owner = &app.owner;
    let opening = owner.opening();
    let state = owner.state(0).ok();
    let table = state
        .as_ref()
        .and_then(|state| state.table(owner.table_name()))
        .map(|table| Digest::from(table.digest).into());
    Json(AboutManager {
        about: about::about(),
        store: opening.store.to_string(),
        origin: opening.origin.to_string(),
        peer_id: opening.peer_id.to_string(),
        cluster: owner.cluster().to_string(),
        table,
    })
}
