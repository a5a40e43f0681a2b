//! `/v1/clock`: what a wrong clock left behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::{Fails, Problem};
use super::query::Query;

/// What was healed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Healed {
    /// So many records were stamped anew.
    healed: usize,
}

/// Heal what this machine's clock stamped while it was ahead.
///
/// Records that are stamped further ahead of the clock than half of `--max-clock-drift` are stamped
/// anew, with what they say, and deleted ones stay deleted. Then writes are taken again. It is refused
/// while the clock is still not that of most other replicas.
#[utoipa::path(
    post, path = "/v1/clock/heal", tag = "replicas", operation_id = "healClock",
    responses(
        (status = 200, description = "It is healed.", body = Healed),
        Fails<400>, Fails<503>,
    ),
)]
pub(super) async fn heal(
    State(app): State<Arc<App>>,
    Query(()): Query<()>,
) -> Result<Json<Healed>, Problem> {
    let healed = app.owner.heal_clock().await?;
    Ok(Json(Healed { healed }))
}
