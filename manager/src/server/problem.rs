//! What an error looks like: a problem document (RFC 9457) that says what to do about it.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use peer_table::contract::InvalidMessage;
use peer_table::peers::InvalidField;
use peer_table::table::WriteRefused;
use peer_table::{Key, Version};
use serde::Serialize;
use utoipa::openapi::{Content, Ref, RefOr, Response as Documented};
use utoipa::{IntoResponses, ToSchema};

use super::etag;
use crate::owner::{BindRefused, OwnerError, WriteError};
use crate::store::StoreError;

/// The media type of a problem document.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What sort of problem it is: its `type`, `status` and `title`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:ident, $slug:literal, $title:literal;)*) => {
        impl Kind {
            $(
                #[doc = $title]
                pub(super) const $name: Self = Self {
                    slug: $slug,
                    status: StatusCode::$status,
                    title: $title,
                };
            )*

            /// Every kind there is.
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    BAD_PATH = BAD_REQUEST, "bad-path", "The path cannot be read";
    BAD_QUERY = BAD_REQUEST, "bad-query", "A query parameter cannot be taken";
    BAD_HEADER = BAD_REQUEST, "bad-header", "A header cannot be read";
    BAD_BODY = BAD_REQUEST, "bad-body", "The body cannot be read";
    BAD_LINE = BAD_REQUEST, "bad-line", "A line of the body cannot be taken";
    CUT_OFF = BAD_REQUEST, "cut-off", "The body is not whole";
    FILTER_MISSING = BAD_REQUEST, "filter-missing", "A filter is needed";
    FOREIGN_ORIGIN = FORBIDDEN, "foreign-origin", "The request comes from a foreign page";
    NOT_FOUND = NOT_FOUND, "not-found", "There is nothing at this path";
    NO_SUCH_PEER = NOT_FOUND, "no-such-peer", "There is no such peer";
    NO_IDENTITY = NOT_FOUND, "no-identity", "This pod has no record yet";
    NO_SUCH_TABLE = NOT_FOUND, "no-such-table", "There is no such table";
    NO_SUCH_REPLICA = NOT_FOUND, "no-such-replica", "There is no such replica";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED, "method-not-allowed",
        "The method is not allowed here";
    TOO_SLOW = REQUEST_TIMEOUT, "too-slow", "The body did not come in time";
    EXISTS = CONFLICT, "exists", "The peer exists already";
    OTHER_AUTHORITY = CONFLICT, "other-authority", "The store belongs to another authority";
    REVISION_GONE = GONE, "revision-gone", "The changes since then are no longer kept";
    PRECONDITION_FAILED = PRECONDITION_FAILED, "precondition-failed",
        "The precondition does not hold";
    TOO_LARGE = PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    UNSUPPORTED_MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type",
        "The body is of a type that is not taken here";
    MISDIRECTED = MISDIRECTED_REQUEST, "misdirected", "The host is not a loopback name";
    INVALID_RECORD = UNPROCESSABLE_ENTITY, "invalid-record", "The record breaks a rule";
    RECORD_TOO_LARGE = UNPROCESSABLE_ENTITY, "record-too-large", "The record is too large";
    INVALID_FILTER = UNPROCESSABLE_ENTITY, "invalid-filter", "It is no filter of the log";
    INVALID_MESSAGE = UNPROCESSABLE_ENTITY, "invalid-message", "The message breaks a rule";
    UNAVAILABLE = SERVICE_UNAVAILABLE, "unavailable", "The store cannot be reached now";
    OUTCOME_UNKNOWN = SERVICE_UNAVAILABLE, "outcome-unknown",
        "The write may be stored or not";
    UNREADABLE = SERVICE_UNAVAILABLE, "unreadable", "The stored record cannot be read";
    CLOCK_OFF = SERVICE_UNAVAILABLE, "clock-off",
        "The clock is not that of most other replicas";
    GIVEN_UP = SERVICE_UNAVAILABLE, "given-up", "The replica was given up";
    CLOCK_AHEAD = SERVICE_UNAVAILABLE, "clock-ahead",
        "The clock is too far ahead to stamp a write";
    BUSY = SERVICE_UNAVAILABLE, "busy", "There are too many of these requests now";
    LOADING = SERVICE_UNAVAILABLE, "loading", "The table is being loaded";
    LEAVING = SERVICE_UNAVAILABLE, "leaving", "The pod is going";
    STOPPING = SERVICE_UNAVAILABLE, "stopping", "The manager is stopping";
    FULL = INSUFFICIENT_STORAGE, "full", "The table is full";
}

/// An error as it is answered.
#[derive(Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    document: Document,
    headers: HeaderMap,
}

/// An error (RFC 9457): what is wrong, and what to do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
struct Document {
    /// What sort of error it is; see `title`.
    #[serde(rename = "type")]
    #[schema(example = "urn:udht:problem:invalid-record")]
    kind: String,
    /// The same for each error of this type.
    #[schema(value_type = String, example = "The record breaks a rule")]
    title: &'static str,
    /// The status of the answer.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong with this request, and what to do.
    #[schema(example = "ports.userSync must be a whole number from 1 to 65535")]
    detail: String,
    /// Which field, parameter or header it is about, with dots between the levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "ports.userSync")]
    field: Option<String>,
    /// The bound that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<u64>,
    /// In which line of the body, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line: Option<u64>,
}

impl Problem {
    /// A problem of this kind; `detail` says what is wrong and what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            document: Document {
                kind: format!("urn:udht:problem:{}", kind.slug),
                title: kind.title,
                status: kind.status.as_u16(),
                detail: detail.into(),
                field: None,
                limit: None,
                line: None,
            },
            headers: HeaderMap::new(),
        }))
    }

    /// The same, about this field.
    #[must_use]
    pub(super) fn about(mut self, field: impl Into<String>) -> Self {
        self.0.document.field = Some(field.into());
        self
    }

    /// The same, with the bound that was reached.
    #[must_use]
    pub(super) fn limit(mut self, limit: usize) -> Self {
        self.0.document.limit = u64::try_from(limit).ok();
        self
    }

    /// The same, about this line of the body, counted from 1.
    #[must_use]
    pub(super) fn in_line(mut self, line: usize) -> Self {
        let detail = &mut self.0.document.detail;
        *detail = format!("line {line}: {detail}");
        self.0.document.line = u64::try_from(line).ok();
        self
    }

    /// The same, as what is wrong with this line of the body, counted from 1.
    #[must_use]
    pub(super) fn into_bad_line(self, line: usize) -> Self {
        let mut problem = Self::new(Kind::BAD_LINE, self.detail()).in_line(line);
        let document = &mut problem.0.document;
        document.field = self.0.document.field;
        document.limit = self.0.document.limit;
        problem
    }

    /// The same, after a part of what was asked for was done.
    #[must_use]
    pub(super) fn after(mut self, done: usize) -> Self {
        if done == 0 {
            return self;
        }
        let detail = &mut self.0.document.detail;
        *detail = format!("{detail}; {done} changes were made before, and all may be sent again");
        self
    }

    /// The same, to be tried again after so many seconds.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.headers.insert(RETRY_AFTER, seconds.into());
        self
    }

    /// The kind of it.
    pub(super) const fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What is wrong and what to do.
    pub(super) fn detail(&self) -> &str {
        &self.0.document.detail
    }

    /// `field` of a well-formed body breaks a rule.
    pub(super) fn invalid(invalid: InvalidField) -> Self {
        let InvalidField { field, detail } = invalid;
        if field.is_empty() {
            return Self::new(Kind::INVALID_RECORD, format!("the body {detail}"));
        }
        Self::new(Kind::INVALID_RECORD, format!("{field}: {detail}")).about(field)
    }

    /// A body that cannot be taken as a record: no JSON at all, or one that breaks a rule.
    pub(super) fn record(body: &[u8], invalid: InvalidField) -> Self {
        let is_json = || serde_json::from_slice::<serde_json::Value>(body).is_ok();
        if invalid.field.is_empty() && !is_json() {
            return Self::new(Kind::BAD_BODY, format!("the body {}", invalid.detail));
        }
        Self::invalid(invalid)
    }

    /// There is no live record of `key`.
    pub(super) fn no_such_peer(key: &Key) -> Self {
        Self::new(
            Kind::NO_SUCH_PEER,
            format!("there is no peer {key} here; a PUT of a whole record makes one"),
        )
    }

    /// Nothing of `key` was ever seen here, for all that is remembered.
    pub(super) fn never_seen(key: &Key) -> Self {
        let detail = format!(
            "nothing of a peer {key} is held or remembered here: if it was written in another pod, ask \
             that one, and see with `udht-sync peers` whether the two reach each other"
        );
        Self::new(Kind::NO_SUCH_PEER, detail)
    }

    /// A write of `key` that was refused.
    pub(super) fn refused(key: &Key, error: WriteError) -> Self {
        let refused = match error {
            WriteError::Invalid(invalid) => return Self::invalid(invalid),
            WriteError::Refused(refused) => refused,
        };
        let text = refused.to_string();
        match refused {
            WriteRefused::Precondition { live } => Self::precondition(key, live),
            WriteRefused::Absent => Self::no_such_peer(key),
            WriteRefused::Full { records_max } => Self::full(records_max),
            WriteRefused::TooLarge { bytes_max, .. } => {
                let detail = format!("{text}; shorten its labels");
                Self::new(Kind::RECORD_TOO_LARGE, detail).limit(bytes_max)
            }
            WriteRefused::ContactAhead { .. } => Self::new(
                Kind::INVALID_RECORD,
                format!("lastConnectionOn: {text}; leave it out, or set this machine's clock"),
            )
            .about("lastConnectionOn"),
            WriteRefused::Clock(ahead) => {
                let ms = ahead.ahead_ms.saturating_sub(ahead.limit_ms);
                let detail = format!("{text}; try again later, and look at the machines' clocks");
                Self::new(Kind::CLOCK_AHEAD, detail).retry_after((ms / 1_000 + 1).min(60))
            }
            WriteRefused::Unreadable => Self::unreadable(key),
        }
    }

    /// The precondition of a write does not hold.
    fn precondition(key: &Key, live: Option<Version>) -> Self {
        let detail = match live {
            Some(version) => format!(
                "{key} is at version {version} now; read it, and write again with the ETag that \
                 you get"
            ),
            None => format!(
                "there is no peer {key}, whatever If-Match says; a PUT without it makes one"
            ),
        };
        let mut problem = Self::new(Kind::PRECONDITION_FAILED, detail);
        if let Some(version) = live {
            problem.0.headers.insert(ETAG, etag::of(version));
        }
        problem
    }

    /// The table takes no new key.
    pub(super) fn full(records_max: usize) -> Self {
        let detail = format!(
            "the table holds {records_max} records, deleted ones that are still remembered among \
             them, and takes no new one; raise --max-records"
        );
        Self::new(Kind::FULL, detail).limit(records_max)
    }

    /// The record of `key` is in the index, and what is stored of it is no record.
    pub(super) fn unreadable(key: &Key) -> Self {
        let detail = OwnerError::Unreadable(key.clone()).to_string();
        Self::new(Kind::UNREADABLE, detail).retry_after(5)
    }

    /// A message of a sync that makes no sense.
    pub(super) fn message(error: &InvalidMessage) -> Self {
        let detail = error.to_string();
        match error {
            InvalidMessage::Encoding(_) => Self::new(Kind::BAD_BODY, detail),
            InvalidMessage::Field { field, .. } => {
                Self::new(Kind::INVALID_MESSAGE, detail).about(*field)
            }
        }
    }

    /// The manager does nothing any more.
    pub(super) fn stopped() -> Self {
        Self::new(Kind::STOPPING, OwnerError::Stopped.to_string()).retry_after(1)
    }

    /// A body beyond its bound.
    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the body has more than {limit} bytes");
        Self::new(Kind::TOO_LARGE, detail).limit(limit)
    }
}

impl From<OwnerError> for Problem {
    fn from(error: OwnerError) -> Self {
        match error {
            OwnerError::Store(error) => match &*error {
                StoreError::OutcomeUnknown { .. } => {
                    let detail = format!("{error}; read again to see which");
                    Self::new(Kind::OUTCOME_UNKNOWN, detail).retry_after(1)
                }
                StoreError::Changed { .. } => {
                    let detail = format!("{error}; read again later to see what is there");
                    Self::new(Kind::UNAVAILABLE, detail).retry_after(1)
                }
                _ => {
                    let detail = format!("{error}; nothing was changed by this");
                    Self::new(Kind::UNAVAILABLE, detail).retry_after(1)
                }
            },
            OwnerError::Unreadable(key) => Self::unreadable(&key),
            OwnerError::Reopened | OwnerError::Binding => {
                Self::new(Kind::UNAVAILABLE, error.to_string()).retry_after(1)
            }
            OwnerError::ClockOff(_) => Self::new(Kind::CLOCK_OFF, error.to_string()).retry_after(5),
            OwnerError::StartedOver | OwnerError::Mutual => {
                Self::new(Kind::GIVEN_UP, error.to_string()).retry_after(5)
            }
            OwnerError::Message(error) => Self::message(&error),
            OwnerError::Leaving => Self::new(Kind::LEAVING, error.to_string()).retry_after(5),
            OwnerError::Stopped => Self::stopped(),
        }
    }
}

impl From<BindRefused> for Problem {
    fn from(refused: BindRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            BindRefused::OtherAuthority { .. } => {
                Self::new(Kind::OTHER_AUTHORITY, detail).about("uuid")
            }
            BindRefused::Cluster(_) => Self::new(Kind::INVALID_MESSAGE, detail).about("uuid"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts {
            kind,
            document,
            mut headers,
        } = *self.0;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let body = serde_json::to_vec(&document).unwrap_or_default();
        (kind.status, headers, body).into_response()
    }
}

/// Answers each path that nothing stands at.
pub(super) async fn not_found(request: Request) -> Problem {
    let detail = format!(
        "there is nothing at {}; /openapi.json lists what there is",
        request.uri().path()
    );
    Problem::new(Kind::NOT_FOUND, detail)
}

/// Answers each method that a path does not take; the router adds `Allow`.
pub(super) async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!(
        "{} is not taken here; the header Allow lists what is",
        request.method()
    );
    Problem::new(Kind::METHOD_NOT_ALLOWED, detail)
}

/// The problems with the status `STATUS`, as an answer in the OpenAPI document.
#[derive(Debug)]
pub(super) struct Fails<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Fails<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        BTreeMap::from([(STATUS.to_string(), documented(STATUS).into())])
    }
}

/// What is said of a status of which all answers are problems.
pub(super) fn documented(status: u16) -> Documented {
    let kinds = Kind::ALL
        .iter()
        .filter(|kind| kind.status.as_u16() == status)
        .map(|kind| format!("{} (`urn:udht:problem:{}`)", kind.title, kind.slug));
    let mut response = Documented::new(kinds.collect::<Vec<_>>().join("; "));
    response.content.insert(
        MEDIA_TYPE.to_owned(),
        Content::new(Some(Ref::from_schema_name("Problem"))).into(),
    );
    response
}

/// The schema of a problem document, for the OpenAPI document.
pub(super) fn schema() -> (String, RefOr<utoipa::openapi::Schema>) {
    (
        "Problem".to_owned(),
        <Document as utoipa::PartialSchema>::schema(),
    )
}
