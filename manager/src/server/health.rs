//! Health and figures.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::{Fails, Kind, Problem};

/// Whether the process answers.
#[utoipa::path(
    get, path = "/livez", tag = "operations", operation_id = "livez",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain")),
)]
pub(super) async fn live() -> &'static str {
    "ok"
}

/// Whether the store is open and the table loaded.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "readyz",
    responses(
        (status = 200, description = "They are.", body = String, content_type = "text/plain"),
        Fails<503>,
    ),
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    app.owner.probe().await?;
    Ok("ok")
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics",
    responses(
        (status = 200, description = "In the text format.", body = String,
            content_type = "text/plain"),
        Fails<503>,
    ),
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.look().await;
    app.metrics.observe_process();
    let text = app.metrics.render().map_err(|error| {
        let detail = format!("the figures cannot be written: {error}");
        Problem::new(Kind::UNAVAILABLE, detail)
    })?;
    let headers = HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    )]);
    Ok((headers, text).into_response())
}
