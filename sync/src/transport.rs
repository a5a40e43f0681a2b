//! The way to other pods' syncs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use peer_exchange::{Address, ExchangeError, Remote};
use peer_table::contract::{MEDIA_TYPE, MESSAGE_BYTES_MAX};
use prometheus::IntCounter;

use crate::http::{ClientBounds, HttpClient, HttpError, detail};
use crate::tls::{Credentials, Reason, Tls};
use crate::wall::Stopwatch;

/// Where a sync takes messages.
pub const EXCHANGE_PATH: &str = "/v1/exchange";
/// A message and the length in front of it.
pub const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4;

/// The connections to all peers.
#[derive(Clone, Debug)]
pub struct Transport {
    lines: Arc<Lines>,
    answer: Duration,
    sent: IntCounter,
    received: IntCounter,
}

impl Transport {
    /// No connection yet; none is used for longer than `age`. The two counters are of the bytes of
    /// messages.
    pub fn new(
        bounds: ClientBounds,
        age: Duration,
        tls: Option<Arc<Tls>>,
        sent: IntCounter,
        received: IntCounter,
    ) -> Self {
        Self {
            lines: Arc::new(Lines {
                kept: Mutex::new(Kept::new(bounds, tls.as_deref())),
                bounds,
                age,
                tls,
            }),
            answer: bounds.answer,
            sent,
            received,
        }
    }

    /// The same connections, with another time to wait for answers.
    #[must_use]
    pub fn answering_within(&self, answer: Duration) -> Self {
        Self {
            answer,
            ..self.clone()
        }
    }

    /// The way to the peer at this address. A name in it is looked up at each new connection. That
    /// it is an `http` URL under TLS too is nobody's business: the connection is secured below it.
    pub fn to(&self, address: &Address) -> Line {
        Line {
            transport: self.clone(),
            url: format!("http://{address}{EXCHANGE_PATH}"),
        }
    }
}

/// The connections that are kept.
#[derive(Debug)]
struct Lines {
    kept: Mutex<Kept>,
    bounds: ClientBounds,
    age: Duration,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
struct Kept {
    /// None while connections have to be secured and nothing is there to do so.
    http: Option<HttpClient>,
    credentials: Option<Arc<Credentials>>,
    since: Stopwatch,
}

impl Kept {
    fn new(bounds: ClientBounds, tls: Option<&Tls>) -> Self {
        let credentials = tls.and_then(Tls::current);
        let http = match (tls, &credentials) {
            (None, _) => Some(HttpClient::new(bounds)),
            (Some(tls), Some(current)) => {
                Some(HttpClient::secure(bounds, tls, Arc::clone(current)))
            }
            (Some(_), None) => None,
        };
        Self {
            http,
            credentials,
            since: Stopwatch::start(),
        }
    }
}

impl Lines {
    /// A client whose connections were made with the credentials that are in use, and not long
    /// ago. Those of before end with what is under way on them.
    fn http(&self) -> Result<HttpClient, TransportError> {
        let current = self.tls.as_deref().and_then(Tls::current);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match (&kept.credentials, &current) {
            (Some(kept), Some(current)) => Arc::ptr_eq(kept, current),
            (kept, current) => kept.is_none() && current.is_none(),
        };
        if !same || kept.since.elapsed() > self.age {
            *kept = Kept::new(self.bounds, self.tls.as_deref());
        }
        kept.http.clone().ok_or(TransportError::NoCredentials)
    }
}

/// The way to one peer.
#[derive(Debug)]
pub struct Line {
    transport: Transport,
    url: String,
}

/// A message did not get through, or its answer did not.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What answered is no sync, or has no time even to say so in its own way.
    #[error(
        "answered with status {status}; is it the exchange port of a sync? It says: `{detail}`"
    )]
    Status {
        /// The status of its answer.
        status: StatusCode,
        /// What it says.
        detail: String,
    },
    /// There is nothing to secure a connection with.
    #[error("this sync has no certificate yet: its log says what keeps it from one")]
    NoCredentials,
    /// It is no address.
    #[error("not an address to connect to")]
    Address(#[from] hyper::http::Error),
    /// All of it together took too long.
    #[error("not done within {}", humantime::format_duration(*.after))]
    TooLong {
        /// How long it was waited for.
        after: Duration,
    },
}

impl Remote for Line {
    type Error = TransportError;

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let Transport {
            lines,
            answer,
            sent,
            received,
        } = &self.transport;
        let bytes = request.len();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .body(Full::new(request.into()))?;
        let http = lines.http()?.answering_within(*answer);
        sent.inc_by(bytes as u64);
        let (status, body) = http.send(request, BODY_BYTES_MAX).await?;
        received.inc_by(body.len() as u64);
        if status == StatusCode::OK {
            Ok(body.into())
        } else {
            let detail = detail(&body);
            Err(TransportError::Status { status, detail })
        }
    }
}

/// The words of [`failure`], so that each has its metric from the start.
pub const FAILURES: [&str; 11] = [
    "unreachable",
    "tls",
    "no_credentials",
    "timed_out",
    "broken",
    "too_large",
    "status",
    "remote",
    "invalid",
    "manager",
    "too_many_rounds",
];

/// The word in metrics and logs for what failed; `None` if it was refused.
pub fn failure(error: &ExchangeError) -> Option<&'static str> {
    match error {
        ExchangeError::Refused(_) => None,
        ExchangeError::Own(_) => Some("manager"),
        ExchangeError::Remote(source) => Some(match source.downcast_ref::<TransportError>() {
            Some(TransportError::Http(HttpError::Unreachable { .. })) => "unreachable",
            Some(TransportError::Http(HttpError::Refused { source, .. }))
                if source.reason == Reason::TooSlow =>
            {
                "timed_out"
            }
            Some(TransportError::Http(HttpError::Refused { .. })) => "tls",
            Some(
                TransportError::Http(HttpError::TimedOut { .. }) | TransportError::TooLong { .. },
            ) => "timed_out",
            Some(TransportError::Http(HttpError::Broken { .. })) => "broken",
            Some(TransportError::Http(HttpError::TooLarge { .. })) => "too_large",
            Some(TransportError::Status { .. }) => "status",
            Some(TransportError::NoCredentials) => "no_credentials",
            Some(TransportError::Address(_)) | None => "remote",
        }),
        ExchangeError::Invalid(_) => Some("invalid"),
        ExchangeError::TooManyRounds { .. } => Some("too_many_rounds"),
    }
}
