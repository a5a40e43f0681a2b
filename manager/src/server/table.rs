//! `/v1/table`: the whole table, out and in.

use std::io::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use axum::BoxError;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use peer_table::peers::{Filter, Peer};
use peer_table::table::Precondition;
use serde::Serialize;
use udht_tell::chain;
use utoipa::{IntoParams, ToSchema};
use zstd::stream::write::Encoder;

use super::App;
use super::body::next_part;
use super::dump::{Checked, Decoder, Dump, Lines};
use super::list::{End, Form, Listing, REVISION};
use super::media::{self, NDJSON};
use super::openapi::PeerDraft;
use super::peers::transact;
use super::problem::{Fails, Problem};
use super::query::{FromQuery, Params, Query};
use super::walk::Walk;
use crate::owner::{Operation, Owner, Write};

/// Writes in one transaction of an import.
const TRANSACTION_RECORDS: usize = 1_000;
const ZSTD_LEVEL: i32 = 3;

/// A line of a dump.
#[derive(Debug, ToSchema)]
#[schema(as = TableLine)]
#[serde(untagged)]
#[expect(dead_code, reason = "says in the contract what a Listing writes")]
pub(super) enum Line {
    /// Before the last.
    Peer(Peer),
    /// The last.
    End(End),
}

/// Read the whole table.
///
/// A peer in each line, and in the last line the number of peers: without it, the dump was cut off.
#[utoipa::path(
    get, path = "/v1/table", tag = "table", operation_id = "exportTable",
    params(("Accept-Encoding" = Option<String>, Header, description = "`zstd` compresses it.")),
    responses(
        (status = 200, description = "A line for each peer (`Peer`), and an `End`.",
            content((Line = "application/x-ndjson")),
            headers(("Udht-Revision" = String, description = "The revision before the dump."))),
        Fails<400>, Fails<503>,
    ),
)]
pub(super) async fn export(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let slot = app.exports.take()?;
    let revision = app.owner.revision();
    let walk = Walk::new(app.owner.clone(), Filter::default(), None, usize::MAX);
    let body = Listing::new(walk, Form::Dump, revision, None)
        .into_body()
        .await?;
    let parts = body.into_data_stream().map(move |part| {
        let _held_to_the_end = &slot;
        part
    });
    let body = Body::from_stream(parts);
    let revision = revision.to_string();
    let head = [
        (CONTENT_TYPE, NDJSON),
        (VARY, ACCEPT_ENCODING.as_str()),
        (REVISION, &revision),
    ];
    if !media::accepts_zstd(&headers) {
        return Ok((head, body).into_response());
    }
    let body = compressed(body).map_err(|error| super::dump::no_memory(&error))?;
    let mut response = (head, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    Ok(response)
}

fn compressed(body: Body) -> io::Result<Body> {
    let mut encoder = Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    let state = (body.into_data_stream(), Some(encoder));
    let parts = stream::try_unfold(state, |(mut parts, encoder)| async move {
        let Some(mut encoder) = encoder else {
            return Ok::<_, BoxError>(None);
        };
        while let Some(part) = parts.next().await {
            encoder.write_all(&part?)?;
            let made = std::mem::take(encoder.get_mut());
            if !made.is_empty() {
                return Ok(Some((made, (parts, Some(encoder)))));
            }
        }
        Ok(Some((encoder.finish()?, (parts, None))))
    });
    Ok(Body::from_stream(parts))
}

/// What becomes of what a dump does not name, and whether its end line may be missing.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// `merge` (what is not named stays, and so it is without this) or `replace` (it is deleted,
    /// but for this pod's own record).
    #[param(inline)]
    mode: Option<Mode>,
    /// `required` (and so it is without this) or `optional`: the line with the count.
    #[param(inline)]
    end: Option<EndMode>,
}

impl FromQuery for ImportQuery {
    fn take(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self {
            mode: params.one("mode")?,
            end: params.one("end")?,
        })
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
enum Mode {
    Merge,
    Replace,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "merge" => Ok(Self::Merge),
            "replace" => Ok(Self::Replace),
            _ => Err("must be merge or replace"),
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
enum EndMode {
    Required,
    Optional,
}

impl FromStr for EndMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err("must be required or optional"),
        }
    }
}

/// How a dump is compressed, as the contract says it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the headers are read instead")]
struct EncodingParams {
    /// Whether the body is compressed.
    #[param(rename = "Content-Encoding", value_type = media::Encoding, required = false, inline)]
    content_encoding: Option<media::Encoding>,
}

/// What an import changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub(super) struct Imported {
    /// Peers that were written.
    written: usize,
    /// Peers that were deleted, as the dump does not name them.
    deleted: usize,
}

/// Write the whole table, from a dump.
///
/// Each line is a new write of this pod; versions and times in a dump are information only. Every
/// line is checked before anything changes; then they are written in transactions of up to 1,000.
#[utoipa::path(
    post, path = "/v1/table", tag = "table", operation_id = "importTable", 
    params(ImportQuery, EncodingParams),
    request_body(content = PeerDraft, content_type = "application/x-ndjson",
        description = "A line for each peer with its `peer_id`, and an `End`."),
    responses(
        (status = 200, description = "It was written.", body = Imported),
        Fails<400>, Fails<408>, Fails<413>, Fails<415>, Fails<503>, Fails<507>,
    ),
)]
pub(super) async fn import(
    State(app): State<Arc<App>>,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Response, Problem> {
    let ImportQuery { mode, end } = query;
    media::demand_type(&headers, &[NDJSON])?;
    let mut decoder = Decoder::new(media::encoding(&headers)?)?;
    let slot = app.imports.take()?;
    let mut dump = Dump::new(app.owner.clone());
    let mut lines = Lines::default();
    while let Some(part) = next_part(&mut body).await? {
        let mut rest = &part[..];
        while let Some(text) = decoder.decode(&mut rest)? {
            lines.push(text, |number, line| dump.take(number, line))?;
            // A small part may hold much text: others get their turn.
            tokio::task::yield_now().await;
        }
    }
    decoder.finish()?;
    lines.finish(|number, line| dump.take(number, line))?;
    let checked = dump.finish(end == Some(EndMode::Optional))?;
    let owner = app.owner.clone();
    // A task of its own, as what was begun is finished even if the client goes away.
    let imported = tokio::spawn(async move {
        let _held_to_the_end = slot;
        write(&owner, checked, mode.unwrap_or(Mode::Merge)).await
    });
    let imported = imported.await.map_err(|error| {
        tracing::error!(error = chain(&error), "an import broke off");
        Problem::stopped()
    })??;
    Ok(media::json(StatusCode::OK, &imported))
}

async fn write(owner: &Owner, checked: Checked, mode: Mode) -> Result<Imported, Problem> {
    let mut imported = Imported::default();
    for part in checked.parts() {
        let records = part.map_err(|problem| problem.after(imported.written))?;
        let mut writes = records.into_iter().map(|(key, draft)| Write {
            key,
            precondition: Precondition::default(),
            operation: Operation::Put(draft),
        });
        while writes.len() > 0 {
            let transaction = writes.by_ref().take(TRANSACTION_RECORDS).collect();
            transact(owner, transaction, &mut imported.written)
                .await
                .map_err(|problem| problem.after(imported.written))?;
        }
    }
    if mode == Mode::Replace {
        let mut after = None;
        loop {
            let (keys, last) = owner.live_keys(after.as_ref(), TRANSACTION_RECORDS);
            let unnamed = keys
                .into_iter()
                .filter(|key| !checked.keys.contains(key) && *key != owner.own_key());
            let writes = unnamed.map(|key| Write {
                key,
                precondition: Precondition::default(),
                operation: Operation::Delete,
            });
            transact(owner, writes.collect(), &mut imported.deleted)
                .await
                .map_err(|problem| problem.after(imported.written + imported.deleted))?;
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(imported)
}
