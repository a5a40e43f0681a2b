//! What this sync tells of itself to whoever has to find out what is wrong: its log, what of it is
//! written, and how it was started. All but the filter is for programs in this pod alone.

use std::time::Duration;

use hyper::{Method, StatusCode};
use udht_tell::about;
use udht_tell::log::{self, ChangeFilter};

use super::{from_this_pod, json};
use crate::listen::{Answered, Asked, answer, problem, read_body};

/// Where it is read and said what is logged.
pub const LOG_FILTER_PATH: &str = "/v1/log-filter";
/// Where the last lines of the log are read.
pub const LOGS_PATH: &str = "/v1/logs";
/// Where it is read which build this is, and how it was started.
pub const ABOUT_PATH: &str = "/v1/about";

/// The most bytes of a body with a filter: one of the longest, with all that JSON may do to it.
const BODY_BYTES_MAX: usize = 8 << 10;
const BODY_WITHIN: Duration = Duration::from_secs(5);
const NDJSON: &str = "application/x-ndjson";

/// Answers one request for one of these paths.
pub(super) async fn answer_telling(request: Asked) -> Answered {
    let path = request.uri().path();
    let is_change = request.method() == Method::POST && path == LOG_FILTER_PATH;
    if !is_change && request.method() != Method::GET {
        let detail = format!("GET tells, and POST to {LOG_FILTER_PATH} says what is logged");
        return problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    }
    if !is_change && path == LOG_FILTER_PATH {
        return json(&log::log().filter());
    }
    if let Err(refusal) = from_this_pod(&request) {
        return *refusal;
    }
    match path {
        LOGS_PATH => answer(StatusCode::OK, NDJSON, log::log().last_lines()),
        ABOUT_PATH => json(&about::about()),
        _ => match change(request).await {
            Ok(change) => json(&log::log().set_filter(&change)),
            Err(refusal) => *refusal,
        },
    }
}

async fn change(request: Asked) -> Result<ChangeFilter, Box<Answered>> {
    let body = read_body(request, BODY_BYTES_MAX, BODY_WITHIN).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body says no filter: {error}");
        Box::new(problem(StatusCode::UNPROCESSABLE_ENTITY, &detail))
    })
}
