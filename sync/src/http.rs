//! HTTP/1.1 as this program asks for things: kept-alive connections, a bound on the time until the
//! whole answer is there, and a bound on its size.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use peer_table::contract::MEDIA_TYPE;
use udht_tell::trace;

use crate::tls::{Connector, Credentials, Refused, Tls};

/// How long things may take, and how long a connection is kept.
#[derive(Copy, Clone, Debug)]
pub struct ClientBounds {
    /// Until a connection stands, for each address of a name; and then once more until both ends
    /// trust each other.
    pub connect: Duration,
    /// Until the whole answer is there.
    pub answer: Duration,
    /// For how long an idle connection is kept: less than a server waits for the next request.
    pub idle: Duration,
    /// How many idle connections to one server are kept.
    pub idle_max: usize,
}

/// No answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection.
    #[error("no connection to {authority}")]
    Unreachable {
        /// To whom.
        authority: String,
        /// What the system says.
        source: hyper_util::client::legacy::Error,
    },
    /// There is a connection, and the two ends do not trust each other.
    #[error("no secure connection to {authority}")]
    Refused {
        /// To whom.
        authority: String,
        /// Who refused whom, and why.
        source: Refused,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {authority} broke before the answer was complete")]
    Broken {
        /// To whom.
        authority: String,
        /// How.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{authority} did not answer within {}", humantime::format_duration(*.after))]
    TimedOut {
        /// Who.
        authority: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is larger than it may be.
    #[error("the answer of {authority} is larger than {bytes_max} bytes")]
    TooLarge {
        /// Whose.
        authority: String,
        /// How large it may be.
        bytes_max: usize,
    },
}

/// A client with its connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    bounds: ClientBounds,
}

impl HttpClient {
    /// A client without connections yet, which secures none of them.
    pub fn new(bounds: ClientBounds) -> Self {
        Self::with(Connector::plain(tcp(bounds)), bounds)
    }

    /// A client without connections yet, which secures them with these credentials of `tls`.
    pub fn secure(bounds: ClientBounds, tls: &Tls, credentials: Arc<Credentials>) -> Self {
        let connector = Connector::secure(tcp(bounds), tls, credentials, bounds.connect);
        Self::with(connector, bounds)
    }

    fn with(connector: Connector, bounds: ClientBounds) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(bounds.idle)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(bounds.idle_max)
            .http1_max_buf_size(BUFFER_BYTES_MAX)
            .build(connector);
        Self { client, bounds }
    }

    /// The same client, with the same connections, that waits another time for answers.
    #[must_use]
    pub fn answering_within(&self, answer: Duration) -> Self {
        let mut other = self.clone();
        other.bounds.answer = answer;
        other
    }

    /// Sends a request and reads the whole answer, of at most `bytes_max` bytes.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let authority = authority(&request);
        let answer = async {
            let response = self.begin(request, &authority).await?;
            let status = response.status();
            let body = response.into_body();
            if body.size_hint().lower() > bytes_max as u64 {
                let authority = authority.clone();
                return Err(HttpError::TooLarge {
                    authority,
                    bytes_max,
                });
            }
            let body = Limited::new(body, bytes_max).collect().await;
            let body = body.map_err(|error| broken_body(error, &authority, bytes_max))?;
            Ok((status, body.to_bytes()))
        };
        within(self.bounds.answer, &authority, answer).await
    }

    /// Sends a request and gives the answer with its body still to come, for as long as it comes.
    pub async fn open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let authority = authority(&request);
        within(
            self.bounds.answer,
            &authority,
            self.begin(request, &authority),
        )
        .await
    }

    async fn begin(
        &self,
        mut request: Request<Full<Bytes>>,
        authority: &str,
    ) -> Result<Response<Incoming>, HttpError> {
        let place = trace::current().and_then(|place| place.to_string().try_into().ok());
        if let Some(place) = place {
            request.headers_mut().insert(trace::HEADER, place);
        }
        let authority = || authority.to_owned();
        self.client.request(request).await.map_err(|error| {
            if let Some(refused) = Refused::behind(&error) {
                HttpError::Refused {
                    authority: authority(),
                    source: refused.clone(),
                }
            } else if error.is_connect() {
                HttpError::Unreachable {
                    authority: authority(),
                    source: error,
                }
            } else {
                HttpError::Broken {
                    authority: authority(),
                    source: error.into(),
                }
            }
        })
    }
}

/// The most that is read ahead or waits to be written on one connection.
pub(crate) const BUFFER_BYTES_MAX: usize = 64 << 10;

fn tcp(bounds: ClientBounds) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(bounds.connect));
    tcp.set_nodelay(true);
    tcp
}

fn authority(request: &Request<Full<Bytes>>) -> String {
    let authority = request.uri().authority();
    authority.map_or_else(String::new, ToString::to_string)
}

async fn within<T>(
    bound: Duration,
    authority: &str,
    answer: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let timed_out = |_| HttpError::TimedOut {
        authority: authority.to_owned(),
        after: bound,
    };
    tokio::time::timeout(bound, answer)
        .await
        .map_err(timed_out)?
}

fn broken_body(
    error: Box<dyn Error + Send + Sync>,
    authority: &str,
    bytes_max: usize,
) -> HttpError {
    let authority = authority.to_owned();
    if error.is::<LengthLimitError>() {
        HttpError::TooLarge {
            authority,
            bytes_max,
        }
    } else {
        HttpError::Broken {
            authority,
            source: error,
        }
    }
}

/// Where a service is: `http://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseUrl {
    text: String,
    loopback: bool,
}

/// A text that is no such URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be http://HOST:PORT and nothing behind it")]
pub struct InvalidBaseUrl;

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| InvalidBaseUrl)?;
        let authority = uri.authority().ok_or(InvalidBaseUrl)?;
        let bare = uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '#', '?']);
        if uri.scheme_str() != Some("http") || !bare {
            return Err(InvalidBaseUrl);
        }
        let host = authority.host();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        Ok(Self {
            text: format!("http://{authority}"),
            loopback: address.map_or(host == "localhost", |address| address.is_loopback()),
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl BaseUrl {
    /// Whether it is on this machine, in this pod's own network.
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// A request for a path on it, which begins with `/`.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{self}{path}"));
        let request = if body.is_empty() {
            request
        } else {
            request.header(CONTENT_TYPE, MEDIA_TYPE)
        };
        request.body(Full::new(body.into()))
    }
}

/// What an error's body says: the detail of a problem document, or else the beginning of its text.
pub fn detail(body: &[u8]) -> String {
    const CHARS_MAX: usize = 300;
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = problem
        .as_ref()
        .and_then(|problem| problem.get("detail")?.as_str());
    let text = String::from_utf8_lossy(body);
    said.unwrap_or(text.trim())
        .chars()
        .take(CHARS_MAX)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_a_host_and_a_port_and_says_whether_it_is_in_this_pod() {
        let loopback = |text: &str| text.parse::<BaseUrl>().unwrap().is_loopback();
        for text in [
            "http://127.0.0.1:3002",
            "http://127.3.2.1:3002/",
            "http://localhost:1",
            "http://[::1]:3002",
        ] {
            assert!(loopback(text), "{text}");
        }
        for text in [
            "http://10.0.0.1:3002",
            "http://manager:3002",
            "http://[fd00::1]:1",
        ] {
            assert!(!loopback(text), "{text}");
        }
        for bad in [
            "",
            "127.0.0.1:3002",
            "https://127.0.0.1:3002",
            "http://127.0.0.1:3002/v1",
            "http://127.0.0.1:3002/?a",
            "http://me@127.0.0.1:3002",
        ] {
            assert_eq!(bad.parse::<BaseUrl>(), Err(InvalidBaseUrl), "{bad}");
        }
    }

    #[test]
    fn the_detail_of_an_error_is_one_bounded_line() {
        let problem = br#"{"title":"no","detail":"the table\nis full"}"#;
        assert_eq!(detail(problem), "the table is full");
        assert_eq!(detail(b" gone \n"), "gone");
        assert_eq!(detail(&[b'x'; 10_000]).len(), 300);
        assert_eq!(detail(&[0xff; 2]), "\u{fffd}\u{fffd}");
    }
}
