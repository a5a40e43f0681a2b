//! `/v1/identity`: this pod's own record.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use peer_table::peers::Peer;

use super::App;
use super::body::Record;
use super::etag::{ConditionParams, Conditions};
use super::openapi::PeerDraft;
use super::peers::{answer_read, put, remembered};
use super::problem::{Fails, Kind, Problem};
use super::query::Query;

/// Read this pod's own record.
#[utoipa::path(
    get, path = "/v1/identity", tag = "identity", operation_id = "getIdentity",
    params(ConditionParams),
    responses(
        (status = 200, description = "The record.", body = Peer, headers(("ETag" = String))),
        (status = 304, description = "It is still the version that If-None-Match names."),
        Fails<400>, Fails<404>, Fails<412>, Fails<503>,
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
) -> Result<Response, Problem> {
    let key = &app.owner.own_key();
    let entry = app.owner.get(key).await?.ok_or_else(|| {
        let detail = "this pod has no record of its own yet: start the manager with --peer-ip, or \
                      PUT it here";
        Problem::new(Kind::NO_IDENTITY, detail)
    })?;
    answer_read(key, &entry, &conditions)
}

/// Write this pod's own record.
#[utoipa::path(
    put, path = "/v1/identity", tag = "identity", operation_id = "putIdentity", request_body = PeerDraft,
    params(ConditionParams),
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
    Query(()): Query<()>,
    Conditions(conditions): Conditions,
    body: Result<Record, Problem>,
) -> Result<Response, Problem> {
    let key = app.owner.own_key();
    let Record(body) = remembered(&app, &key, body)?;
    put(&app, &key, conditions, body).await
}
