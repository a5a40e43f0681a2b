//! Media types: what a body is said to be, and what the client takes.

use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{Kind, Problem};

/// One JSON text.
pub(super) const JSON: &str = "application/json";
/// A JSON merge patch (RFC 7396).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
/// A JSON text in each line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Most answers are one peer, and fit.
    let mut text = Vec::with_capacity(512);
    serde_json::to_writer(&mut text, value).expect("what is answered has strings for keys");
    (status, [(CONTENT_TYPE, JSON)], text).into_response()
}

/// The first of `offered` that the client names in `Accept`, in the client's order.
pub(super) fn accepted(headers: &HeaderMap, offered: &[&'static str]) -> Option<&'static str> {
    items(headers, &ACCEPT)
        .filter(|item| !is_refused(item))
        .map(essence)
        .find_map(|accepted| {
            let named = |offer: &&&str| accepted.eq_ignore_ascii_case(offer);
            offered.iter().find(named).copied()
        })
}

/// Whether the client takes an answer that is compressed with zstd.
pub(super) fn accepts_zstd(headers: &HeaderMap) -> bool {
    items(headers, &ACCEPT_ENCODING)
        .any(|item| essence(item).eq_ignore_ascii_case("zstd") && !is_refused(item))
}

/// How a body is encoded.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// Compressed with zstd.
    Zstd,
}

/// How the body of this request is encoded.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut given = items(headers, &CONTENT_ENCODING).filter(|item| !item.is_empty());
    match (given.next(), given.next()) {
        (None, _) => Ok(Encoding::Identity),
        (Some(one), None) if one.eq_ignore_ascii_case("identity") => Ok(Encoding::Identity),
        (Some(one), None) if one.eq_ignore_ascii_case("zstd") => Ok(Encoding::Zstd),
        _ => {
            let detail = "the body may be sent as it is or with Content-Encoding: zstd";
            Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE, detail).about("content-encoding"))
        }
    }
}

/// Refuses a body that is not said to be of one of the types `taken`, or that is encoded.
pub(super) fn demand(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    demand_type(headers, taken)?;
    if encoding(headers)? == Encoding::Identity {
        return Ok(());
    }
    let detail = "the body of this call must be sent without Content-Encoding";
    Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE, detail).about("content-encoding"))
}

/// Refuses a body that is not said to be of one of the types `taken`.
pub(super) fn demand_type(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|given| given.to_str().ok());
    let given = given.map(essence).unwrap_or_default();
    if taken.iter().any(|taken| given.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    let detail = format!("the header Content-Type must be {}", taken.join(" or "));
    Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE, detail).about("content-type"))
}

fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// The item without its parameters.
fn essence(item: &str) -> &str {
    item.split(';').next().unwrap_or_default().trim()
}

/// Whether the item says `q=0`.
fn is_refused(item: &str) -> bool {
    item.split(';').skip(1).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>() == Ok(0.0)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_first_type_that_client_and_service_know_is_taken() {
        for (accept, expected) in [
            ("*/*", None),
            ("text/html, application/x-ndjson;q=0.5", Some(NDJSON)),
            ("Application/JSON", Some(JSON)),
            ("application/x-ndjson;q=0, application/json", Some(JSON)),
            ("application/x-ndjson ; q=0.000", None),
        ] {
            let found = accepted(&headers(ACCEPT, accept), &[JSON, NDJSON]);
            assert_eq!(found, expected, "{accept}");
        }
    }

    #[test]
    fn zstd_is_used_where_it_is_taken() {
        assert!(accepts_zstd(&headers(ACCEPT_ENCODING, "gzip, zstd;q=0.9")));
        assert!(!accepts_zstd(&headers(ACCEPT_ENCODING, "gzip, zstd;q=0")));
        assert!(!accepts_zstd(&HeaderMap::new()));
    }

    #[test]
    fn a_body_of_another_type_or_encoding_is_refused() {
        let json = headers(CONTENT_TYPE, "application/json; charset=utf-8");
        assert!(demand(&json, &[JSON]).is_ok());
        for wrong in ["text/json", "application/jsonx", ""] {
            assert!(
                demand(&headers(CONTENT_TYPE, wrong), &[JSON]).is_err(),
                "{wrong}"
            );
        }
        let mut encoded = json;
        encoded.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(demand(&encoded, &[JSON]).is_err());
        encoded.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        assert!(demand(&encoded, &[JSON]).is_err());
        assert_eq!(encoding(&encoded).unwrap(), Encoding::Zstd);
    }
}
