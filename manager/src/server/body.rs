//! The small bodies of requests: read whole, within a bound of bytes and of time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use peer_table::contract::{self, Report};
use peer_table::peers;
use prost::Message;

use super::media::{self, JSON, MERGE_PATCH};
use super::problem::{Kind, Problem};

/// The most bytes of a body with one record.
pub(super) const RECORD_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to send a small body, or the next part of a large one.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A body with a record in JSON.
#[derive(Debug)]
pub(super) struct Record(pub(super) peers::Body);

impl<S: Send + Sync> FromRequest<S> for Record {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media::demand(request.headers(), &[JSON])?;
        let body = read(request, RECORD_BODY_BYTES_MAX).await?;
        peers::Body::from_json(&body)
            .map(Self)
            .map_err(|invalid| Problem::record(&body, invalid))
    }
}

/// A body with a JSON merge patch.
#[derive(Debug)]
pub(super) struct Patch(pub(super) peers::Patch);

impl<S: Send + Sync> FromRequest<S> for Patch {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media::demand(request.headers(), &[MERGE_PATCH, JSON])?;
        let body = read(request, RECORD_BODY_BYTES_MAX).await?;
        peers::Patch::from_json(&body)
            .map(Self)
            .map_err(|invalid| Problem::record(&body, invalid))
    }
}

/// A body with a report of sync, in JSON.
#[derive(Debug)]
pub(super) struct Told(pub(super) Report);

impl<S: Send + Sync> FromRequest<S> for Told {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media::demand(request.headers(), &[JSON])?;
        let body = read(request, contract::REPORT_BYTES_MAX).await?;
        let report: Report = serde_json::from_slice(&body).map_err(|error| {
            let kind = if error.is_data() {
                Kind::INVALID_MESSAGE
            } else {
                Kind::BAD_BODY
            };
            Problem::new(kind, format!("the body is no report: {error}"))
        })?;
        report.check().map_err(|error| Problem::message(&error))?;
        Ok(Self(report))
    }
}

/// A body with a protobuf message.
#[derive(Debug)]
pub(super) struct Protobuf<T>(pub(super) T);

impl<S: Send + Sync, T: Message + Default> FromRequest<S> for Protobuf<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // An empty message has an empty body, which needs no type.
        let headers = request.headers();
        if headers.contains_key(CONTENT_TYPE) || !request.body().is_end_stream() {
            media::demand(headers, &[contract::MEDIA_TYPE])?;
        }
        let body = read(request, contract::MESSAGE_BYTES_MAX).await?;
        T::decode(body).map(Self).map_err(|error| {
            Problem::new(
                Kind::BAD_BODY,
                format!("the body is no message of its kind: {error}"),
            )
        })
    }
}

pub(super) async fn read(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let declared = request.headers().get(CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| usize::try_from(length).map_or(true, |it| it > bytes_max)) {
        return Err(Problem::too_large(bytes_max));
    }
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(bytes_max)),
        Ok(Err(error)) => Err(Problem::new(
            Kind::BAD_BODY,
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(too_slow()),
    }
}

/// The next part of a large body; `None` at its end.
pub(super) async fn next_part(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        let Ok(frame) = tokio::time::timeout(PATIENCE, body.frame()).await else {
            return Err(too_slow());
        };
        let frame = frame.transpose().map_err(|error| {
            Problem::new(Kind::BAD_BODY, format!("the body broke off: {error}"))
        })?;
        match frame.map(hyper::body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(part)) => return Ok(Some(part)),
            // Trailers, of which none says anything here.
            Some(Err(_)) => {}
        }
    }
}

fn too_slow() -> Problem {
    let seconds = PATIENCE.as_secs();
    let detail = format!("nothing of the body came for {seconds} seconds; send it again");
    Problem::new(Kind::TOO_SLOW, detail)
}
