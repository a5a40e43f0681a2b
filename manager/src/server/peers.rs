//! `/v1/peers`: create, read, replace, patch and delete records, one or many at once.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use peer_table::history::Refusal;
use peer_table::peers::{Filter, InvalidField, Peer, Shown};
use peer_table::table::{Match, Precondition, WriteRefused};
use peer_table::{Contact, Entry, Key};
use serde::Serialize;
use udht_tell::chain;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::App;
use super::body::{Patch, Record};
use super::etag::{self, ConditionParams, Conditions};
use super::media;
use super::openapi::{PeerDraft, PeerPatch};
use super::problem::{Fails, Kind, Problem};
use super::query::{FilterQuery, Query};
use super::schema;
use super::walk::Walk;
use crate::owner::{Operation, Owner, Write, WriteError, Written, wall_now};

/// The id in a path.
#[derive(Clone, Debug)]
pub(super) struct Id(pub(super) Key);

/// The id in a path, as the contract says it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "an Id is read instead")]
pub(super) struct IdParams {
    /// Which peer.
    #[param(value_type = schema::Id, inline)]
    peer_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let bad_path = |why: String| {
            let detail = format!("the peer_id in the path must be {why}");
            Problem::new(Kind::BAD_PATH, detail).about("peer_id")
        };
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|_| bad_path("UTF-8".to_owned()))?;
        text.parse()
            .map(Self)
            .map_err(|error: peer_table::key::InvalidKey| bad_path(error.to_string()))
    }
}

/// Create a peer.
///
/// A `peer_id` is made if none is given.
#[utoipa::path(
    post, path = "/v1/peers", tag = "peers", operation_id = "createPeer", request_body = PeerDraft,
    responses(
        (status = 201, description = "It was created.", body = Peer,
            headers(("Location" = String), ("ETag" = String))),
        Fails<400>, Fails<408>, Fails<409>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
        Fails<507>,
    ),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Record(body): Record,
) -> Result<Response, Problem> {
    let key = match body.peer_id {
        Some(key) => key,
        None => drawn_id(),
    };
    let operation = Operation::Put(body.draft);
    match write(&app, &key, Precondition::absent(), operation).await? {
        Ok(written) => answer(StatusCode::CREATED, &key, &written.entry),
        Err(WriteError::Refused(WriteRefused::Precondition { .. })) => {
            let detail = format!("there is a peer {key} already; PUT replaces it");
            Err(Problem::new(Kind::EXISTS, detail).about("peer_id"))
        }
        Err(error) => Err(Problem::refused(&key, error)),
    }
}

/// A new random `peer_id`.
pub fn drawn_id() -> Key {
    let text = Uuid::new_v4().to_string();
    text.parse().expect("a UUID has digits and dashes only")
}

/// Delete all peers that match a filter.
///
/// A peer that changes in the meantime stays.
#[utoipa::path(
    delete, path = "/v1/peers", tag = "peers", operation_id = "deletePeers", params(FilterQuery),
    responses(
        (status = 200, description = "They were deleted.", body = Deleted),
        Fails<400>, Fails<503>,
    ),
)]
pub(super) async fn delete_many(
    State(app): State<Arc<App>>,
    Query(filter): Query<FilterQuery>,
) -> Result<Response, Problem> {
    let filter = Filter::from(filter);
    if filter.is_empty() {
        let detail = "say which peers to delete: label=key=value, label=key, name= or ip=";
        return Err(Problem::new(Kind::FILTER_MISSING, detail));
    }
    let owner = app.owner.clone();
    // A task of its own, as what was begun is finished even if the client goes away.
    let deleted = tokio::spawn(async move { delete_matching(owner, filter).await });
    let deleted = deleted.await.map_err(|error| {
        tracing::error!(error = chain(&error), "a deletion of many peers broke off");
        Problem::stopped()
    })??;
    Ok(media::json(StatusCode::OK, &Deleted { deleted }))
}

async fn delete_matching(owner: Owner, filter: Filter) -> Result<usize, Problem> {
    let mut walk = Walk::new(owner.clone(), filter, None, usize::MAX);
    let mut deleted = 0;
    while !walk.has_ended() {
        let done = delete_part(&owner, &mut walk, &mut deleted).await;
        done.map_err(|problem| problem.after(deleted))?;
    }
    Ok(deleted)
}

/// Deletes what matches in the next part of a walk, in one transaction, and counts it.
async fn delete_part(owner: &Owner, walk: &mut Walk, deleted: &mut usize) -> Result<(), Problem> {
    let part = walk.next().await?;
    let found = walk.matching(&part);
    let writes = found.map(|peer| Write {
        key: peer.key().clone(),
        precondition: Precondition {
            if_match: Some(Match::Versions(vec![peer.version()])),
            if_none_match: None,
        },
        operation: Operation::Delete,
    });
    transact(owner, writes.collect(), deleted).await
}

/// Does writes in one transaction, and counts those that are done.
pub(super) async fn transact(
    owner: &Owner,
    writes: Vec<Write>,
    done: &mut usize,
) -> Result<(), Problem> {
    if writes.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = writes.iter().map(|write| write.key.clone()).collect();
    let results = owner.write_many(writes).await?;
    let mut refused = None;
    for (key, result) in keys.iter().zip(results) {
        match result {
            Ok(_) => *done += 1,
            // Somebody else was first.
            Err(WriteError::Refused(WriteRefused::Absent | WriteRefused::Precondition { .. })) => {}
            Err(error) => refused = refused.or(Some(Problem::refused(key, error))),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// How many peers were deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// How many.
    deleted: usize,
}

/// Read a peer.
#[utoipa::path(
    get, path = "/v1/peers/{peer_id}", tag = "peers", operation_id = "getPeer",
    params(IdParams, ConditionParams),
    responses(
        (status = 200, description = "The peer.", body = Peer, headers(("ETag" = String))),
        (status = 304, description = "It is still the version that If-None-Match names."),
        Fails<400>, Fails<404>, Fails<412>, Fails<503>,
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
) -> Result<Response, Problem> {
    let entry = app.owner.get(&key).await?;
    let entry = entry.ok_or_else(|| Problem::no_such_peer(&key))?;
    answer_read(&key, &entry, &conditions)
}

/// Answers a read of a record, if its conditions hold.
pub(super) fn answer_read(
    key: &Key,
    entry: &Entry,
    conditions: &Precondition,
) -> Result<Response, Problem> {
    if conditions.holds(Some(entry.version)) {
        return answer(StatusCode::OK, key, entry);
    }
    let if_match = Precondition {
        if_match: conditions.if_match.clone(),
        if_none_match: None,
    };
    if !if_match.holds(Some(entry.version)) {
        let refused = WriteRefused::Precondition {
            live: Some(entry.version),
        };
        return Err(Problem::refused(key, refused.into()));
    }
    let headers = [(ETAG, etag::of(entry.version))];
    Ok((StatusCode::NOT_MODIFIED, headers).into_response())
}

/// Create or replace a peer.
///
/// `If-Match` and `If-None-Match` make it a compare-and-set.
#[utoipa::path(
    put, path = "/v1/peers/{peer_id}", tag = "peers", operation_id = "putPeer", request_body = PeerDraft,
    params(IdParams, ConditionParams),
    responses(
        (status = 200, description = "It was replaced.", body = Peer, headers(("ETag" = String))),
        (status = 201, description = "It was created.", body = Peer,
            headers(("Location" = String), ("ETag" = String))),
        Fails<400>, Fails<408>, Fails<412>, Fails<413>, Fails<415>, Fails<422>, Fails<503>,
        Fails<507>,
    ),
)]
pub(super) async fn replace(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
    body: Result<Record, Problem>,
) -> Result<Response, Problem> {
    let Record(body) = remembered(&app, &key, body)?;
    put(&app, &key, conditions, body).await
}

/// What was read of a body; one that is refused as a record of `key` is remembered.
pub(super) fn remembered<T>(app: &App, key: &Key, body: Result<T, Problem>) -> Result<T, Problem> {
    body.inspect_err(|problem| {
        let refusal = match problem.kind() {
            Kind::INVALID_RECORD | Kind::BAD_BODY => Refusal::Invalid,
            Kind::TOO_LARGE => Refusal::TooLarge,
            _ => return,
        };
        app.owner.refused_at_the_door(key, refusal);
    })
}

/// Creates or replaces the record of `key`.
pub(super) async fn put(
    app: &App,
    key: &Key,
    conditions: Precondition,
    body: peer_table::peers::Body,
) -> Result<Response, Problem> {
    if body.peer_id.is_some_and(|given| given != *key) {
        app.owner.refused_at_the_door(key, Refusal::Invalid);
        return Err(Problem::invalid(InvalidField::fixed_id(key)));
    }
    let written = write(app, key, conditions, Operation::Put(body.draft)).await?;
    let written = written.map_err(|error| Problem::refused(key, error))?;
    let status = if written.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    answer(status, key, &written.entry)
}

/// Change a part of a peer: a JSON merge patch (RFC 7396).
#[utoipa::path(
    patch, path = "/v1/peers/{peer_id}", tag = "peers", operation_id = "patchPeer",
    request_body(content = PeerPatch, content_type = "application/merge-patch+json"),
    params(IdParams, ConditionParams),
    responses(
        (status = 200, description = "It was changed.", body = Peer, headers(("ETag" = String))),
        Fails<400>, Fails<404>, Fails<408>, Fails<412>, Fails<413>, Fails<415>, Fails<422>,
        Fails<503>,
    ),
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
    patch: Result<Patch, Problem>,
) -> Result<Response, Problem> {
    let Patch(patch) = remembered(&app, &key, patch)?;
    let written = write(&app, &key, conditions, Operation::Patch(patch)).await?;
    let written = written.map_err(|error| Problem::refused(&key, error))?;
    answer(StatusCode::OK, &key, &written.entry)
}

/// Delete a peer.
#[utoipa::path(
    delete, path = "/v1/peers/{peer_id}", tag = "peers", operation_id = "deletePeer",
    params(IdParams, ConditionParams),
    responses(
        (status = 204, description = "It was deleted."),
        Fails<400>, Fails<404>, Fails<412>, Fails<503>,
    ),
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
) -> Result<StatusCode, Problem> {
    let written = write(&app, &key, conditions, Operation::Delete).await?;
    match written {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(Problem::refused(&key, error)),
    }
}

/// Note that a peer was seen now.
///
/// Moves `lastConnectionOn`, in steps of five minutes, and leaves the version as it is.
#[utoipa::path(
    post, path = "/v1/peers/{peer_id}/contact", tag = "peers", operation_id = "contactPeer",
    params(IdParams),
    responses(
        (status = 200, description = "It was noted.", body = Peer, headers(("ETag" = String))),
        Fails<400>, Fails<404>, Fails<503>,
    ),
)]
pub(super) async fn contact(
    State(app): State<Arc<App>>,
    Id(key): Id,
    Query(()): Query<()>,
) -> Result<Response, Problem> {
    let operation = Operation::Contact(Contact::at(wall_now()));
    let written = write(&app, &key, Precondition::default(), operation).await?;
    let written = written.map_err(|error| Problem::refused(&key, error))?;
    answer(StatusCode::OK, &key, &written.entry)
}

async fn write(
    app: &App,
    key: &Key,
    precondition: Precondition,
    operation: Operation,
) -> Result<Result<Written, WriteError>, Problem> {
    let write = Write {
        key: key.clone(),
        precondition,
        operation,
    };
    Ok(app.owner.write(write).await?)
}

fn answer(status: StatusCode, key: &Key, entry: &Entry) -> Result<Response, Problem> {
    let peer = Shown::from_entry(key, entry).ok().flatten();
    let peer = peer.ok_or_else(|| Problem::unreadable(key))?;
    let mut response = media::json(status, &peer);
    let headers = response.headers_mut();
    headers.insert(ETAG, etag::of(entry.version));
    if status == StatusCode::CREATED {
        let location = HeaderValue::try_from(format!("/v1/peers/{key}"));
        headers.insert(LOCATION, location.expect("a key has ASCII characters only"));
    }
    Ok(response)
}
