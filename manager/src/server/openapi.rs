//! `/openapi.json`: the contract, made of the routes themselves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, PathItem};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::list::{End, Next};
use super::media::JSON;
use super::{problem, routes, schema};

/// The statuses with which the guard at the door and the router answer any call.
const OF_ANY_CALL: [u16; 3] = [400, 403, 421];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut described = OpenApiRouter::with_openapi(base());
    for route in routes::all() {
        described = described.routes((route.contract)());
    }
    let text = complete(described.into_openapi()).to_pretty_json();
    text.expect("a document of strings and numbers").into()
});

/// This contract.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "openapi",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value)),
)]
pub(super) async fn get() -> impl IntoResponse {
    ([(CONTENT_TYPE, JSON)], DOCUMENT.clone())
}

/// What is there before the routes are added.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("UDHT manager")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The directory of peers of one pod, on loopback. Every error is a problem document \
             (RFC 9457). The calls under /v1/sync are for the sync beside this manager; their \
             messages are protobuf, but for its report.",
        ));
    OpenApiBuilder::new().info(info).build()
}

/// Adds what the routes do not say themselves.
fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for status in OF_ANY_CALL {
                let of_status = operation.responses.responses.entry(status.to_string());
                of_status.or_insert_with(|| problem::documented(status).into());
            }
        }
    }
    let components = document.components.get_or_insert_default();
    // Schemas that the routes refer to by name only, or that stand in the lines of an answer.
    let (name, schema) = problem::schema();
    components.schemas.insert(name, schema);
    let lines = BTreeMap::from([(Next::name(), Next::schema()), (End::name(), End::schema())]);
    let lines = lines
        .into_iter()
        .map(|(name, schema)| (name.into(), schema));
    components.schemas.extend(lines);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// A peer as it is written.
///
/// `version`, `createdAt` and `updatedAt` may stand in it and are ignored, so that what was read can
/// be written back. Any other field is refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "peer_table::peers::Body reads it; this says so in the document"
)]
pub(super) struct PeerDraft {
    /// Who it is. Must be the one in the path, if there is one; left out, it is that or made.
    #[schema(value_type = schema::Id, required = false)]
    peer_id: Option<String>,
    /// A name for people.
    #[schema(value_type = schema::Name)]
    name: String,
    /// Its IPv4 or IPv6 address.
    #[schema(value_type = schema::Address, example = "10.0.0.7")]
    ip: String,
    /// The port of each purpose, 1 to 65535; 64 at the most.
    #[schema(value_type = schema::Ports, required = false, example = json!({"userSync": 5001}))]
    ports: Option<BTreeMap<String, u16>>,
    /// Free text by key; 64 at the most.
    #[schema(value_type = schema::Labels, required = false, example = json!({"zone": "a"}))]
    labels: Option<BTreeMap<String, String>>,
    /// When the peer was last seen (RFC 3339); an earlier time than is held changes nothing.
    #[schema(rename = "lastConnectionOn", format = DateTime)]
    last_connection_on: Option<String>,
    /// Ignored.
    version: Option<serde_json::Value>,
    /// Ignored.
    #[schema(rename = "createdAt")]
    created_at: Option<serde_json::Value>,
    /// Ignored.
    #[schema(rename = "updatedAt")]
    updated_at: Option<serde_json::Value>,
}

/// What to change of a peer: what is named is set, what is null is removed (RFC 7396).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "peer_table::peers::Patch reads it; this says so in the document"
)]
pub(super) struct PeerPatch {
    /// A name for people.
    #[schema(value_type = schema::Name, required = false)]
    name: Option<String>,
    /// Its IPv4 or IPv6 address.
    #[schema(value_type = schema::Address, required = false)]
    ip: Option<String>,
    /// Ports to set, or to remove with null.
    #[schema(value_type = Option<schema::PortsPatch>)]
    ports: Option<BTreeMap<String, Option<u16>>>,
    /// Labels to set, or to remove with null.
    #[schema(value_type = Option<schema::LabelsPatch>)]
    labels: Option<BTreeMap<String, Option<String>>>,
    /// When the peer was last seen (RFC 3339); an earlier time than is held changes nothing.
    #[schema(rename = "lastConnectionOn", format = DateTime)]
    last_connection_on: Option<String>,
    /// Ignored.
    version: Option<serde_json::Value>,
    /// Ignored.
    #[schema(rename = "createdAt")]
    created_at: Option<serde_json::Value>,
    /// Ignored.
    #[schema(rename = "updatedAt")]
    updated_at: Option<serde_json::Value>,
}
