//! The client of the Kubernetes API: each request has its limits of time and size, and is counted.
//!
//! It is kube's, on a stack of our own: kube's retries by itself for longer than anybody waits, logs
//! each failure as an error, gives a list no limit of time at all and reads a renewed token only
//! once a minute, by the wall clock.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use tokio::time::Sleep;
use tower::{BoxError, ServiceBuilder};
use tower_service::Service;

use crate::config::KubernetesArgs;
use crate::metrics::{KubernetesMetrics, Request as Kind};

/// How long the Kubernetes API may take, and how much it may say.
#[derive(Copy, Clone, Debug)]
pub struct ApiBounds {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until an answer begins, the connection and its TLS included.
    pub answer: Duration,
    /// Until an answer is complete, where it is no watch.
    pub whole: Duration,
    /// Until an answer that has begun goes on. The API server says where it is to each watch once
    /// a minute, so one that is silent for longer may be cut off, or talk to a server that hangs.
    pub silence: Duration,
    /// How long a watch is asked for, at the most.
    pub watch: Duration,
    /// How long to wait before the first further attempt.
    pub pause: Duration,
    /// How long to wait before further attempts, at the most.
    pub pause_max: Duration,
    /// Bytes of an answer, and of an event of a watch, at the most.
    pub bytes_max: usize,
}

impl Default for ApiBounds {
    /// A server that does not answer is known after `silence` and `answer`, so within two minutes.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            whole: Duration::from_secs(30),
            silence: Duration::from_secs(80),
            watch: Duration::from_secs(290),
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(20),
            bytes_max: 32 << 20,
        }
    }
}

/// There can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// This is no pod, or one without a service account.
    #[error(
        "this is no pod that may ask the Kubernetes API: there it finds KUBERNETES_SERVICE_HOST in \
         its environment and a token, ca.crt and namespace, as a projected volume has them, in \
         /var/run/secrets/kubernetes.io/serviceaccount. Outside of a cluster say --kubeconfig FILE"
    )]
    NotInCluster(#[from] InClusterError),
    /// The kubeconfig cannot be used.
    #[error("{} cannot be used as a kubeconfig", path.display())]
    Kubeconfig {
        /// Which file it is.
        path: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// There would be a proxy in between.
    #[error("a proxy between this program and the Kubernetes API is not supported")]
    Proxy,
    /// What is said there of credentials cannot be used.
    #[error("no secure connection to the Kubernetes API can be made")]
    Credentials(#[source] Box<kube::Error>),
}

/// A client of the API of the cluster that this pod is in, or that the kubeconfig names.
///
/// No request that is made with it hangs: its answer begins, and goes on, within the bounds. What is
/// to be complete within a time is asked [`within`] it.
pub async fn client(
    args: &KubernetesArgs,
    bounds: &ApiBounds,
    metrics: &KubernetesMetrics,
) -> Result<Client, ClientError> {
    let mut config = match &args.kubeconfig {
        None => Config::incluster()?,
        Some(path) => from_kubeconfig(path).await?,
    };
    if config.proxy_url.is_some() {
        return Err(ClientError::Proxy);
    }
    // A token that stands in a kubeconfig itself goes before a file of it.
    let token = match &config.auth_info.token {
        Some(_) => None,
        None => config.auth_info.token_file.take(),
    };
    let credentials = |error| ClientError::Credentials(Box::new(error));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(bounds.connect));
    let connector = config
        .rustls_https_connector_with_connector(tcp)
        .map_err(credentials)?;
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(bounds.silence)
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(2)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(credentials)?)
        .layer(config.extra_headers_layer().map_err(credentials)?)
        .map_err(BoxError::from)
        .service(Requests {
            http,
            token: token.map(|path| Arc::new(Token::new(path.into()))),
            bounds: *bounds,
            metrics: metrics.clone(),
        });
    Ok(Client::new(service, args.namespace.clone()))
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ClientError> {
    let wrong = |source| ClientError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(wrong)
}

/// The API did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It says no, and why.
    #[error("the Kubernetes API answers {}: {}", .0.code, said(.0))]
    Refused(Box<Status>),
    /// The whole answer was not there in time.
    #[error("the Kubernetes API did not answer within {}", humantime::format_duration(*.after))]
    TooLong {
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no answer, or none that can be read.
    #[error("no answer of the Kubernetes API")]
    Failed(#[source] Box<kube::Error>),
}

/// What a refusal says, in one bounded line.
fn said(status: &Status) -> String {
    let text = crate::http::detail(status.message.as_bytes());
    match status.code {
        401 => format!("{text}: it does not take this pod's token for a valid one"),
        _ => text,
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            error => Self::Failed(Box::new(error)),
        }
    }
}

impl ApiError {
    /// Whether the API answered, with this status.
    pub fn is_status(&self, status: StatusCode) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == status.as_u16())
    }

    /// The word for it in metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(status) => word_of_status(status.code),
            Self::TooLong { .. } => TIMED_OUT,
            Self::Failed(error) => NoAnswer::behind(error).map_or("invalid", NoAnswer::word),
        }
    }
}

/// Waits for an answer that is to be complete within this time.
pub async fn within<T>(
    time: Duration,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::TooLong { after: time }),
    }
}

const TIMED_OUT: &str = "timed_out";

/// The words in `udht_kubernetes_requests_total` for what became of a request.
pub const RESULTS: [&str; 13] = [
    "ok",
    "unreachable",
    TIMED_OUT,
    "broken",
    "no_token",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
    "gone",
    "busy",
    "refused",
    "failed",
];

fn word_of_status(code: u16) -> &'static str {
    match code {
        200..300 => "ok",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        410 => "gone",
        429 => "busy",
        400..500 => "refused",
        _ => "failed",
    }
}

/// Why there was no answer, or not the whole of it.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no token can be read from {}; is one mounted there?", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("no connection to {authority}")]
    Unreachable {
        authority: String,
        source: legacy::Error,
    },
    #[error("the connection broke")]
    Broken(#[source] BoxError),
    #[error("nothing came for {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("more than {0} bytes came in one piece")]
    TooLarge(usize),
}

impl NoAnswer {
    const fn word(&self) -> &'static str {
        match self {
            Self::Token { .. } => "no_token",
            Self::Unreachable { .. } => "unreachable",
            Self::Broken(_) | Self::TooLarge(_) => "broken",
            Self::TimedOut(_) => TIMED_OUT,
        }
    }

    /// The one that led to `error`.
    fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // What an error of input and output was made of is not its source.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

/// Where the token is. It is renewed there, long before it expires, and so read for each request.
#[derive(Debug)]
struct Token {
    path: PathBuf,
    last: Mutex<Option<HeaderValue>>,
}

impl Token {
    const fn new(path: PathBuf) -> Self {
        let last = Mutex::new(None);
        Self { path, last }
    }

    /// The header that carries it. While the file cannot be read, that is the last one.
    fn header(&self, metrics: &KubernetesMetrics) -> Result<HeaderValue, NoAnswer> {
        let read = std::fs::read_to_string(&self.path).and_then(|token| {
            let bearer = format!("Bearer {}", token.trim());
            let mut header = HeaderValue::try_from(bearer).map_err(io::Error::other)?;
            header.set_sensitive(true);
            Ok(header)
        });
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, last.as_ref()) {
            (Ok(header), last_header) => {
                if last_header.is_some_and(|last| *last != header) {
                    metrics.token_changes.inc();
                }
                *last = Some(header.clone());
                Ok(header)
            }
            (Err(_), Some(header)) => Ok(header.clone()),
            (Err(source), None) => Err(NoAnswer::Token {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

/// Sends requests, in time, and counts what becomes of them.
#[derive(Clone, Debug)]
struct Requests<C> {
    http: legacy::Client<C, Body>,
    token: Option<Arc<Token>>,
    bounds: ApiBounds,
    metrics: KubernetesMetrics,
}

impl<C: Connect + Clone + Send + Sync + 'static> Requests<C> {
    async fn send(self, mut request: Request<Body>) -> Result<Response<Piecewise>, NoAnswer> {
        if let Some(token) = &self.token {
            let header = token.header(&self.metrics)?;
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let authority = request.uri().authority().map(ToString::to_string);
        let after = self.bounds.answer;
        let answer = tokio::time::timeout(after, self.http.request(request)).await;
        let answer = answer.map_err(|_| NoAnswer::TimedOut(after))?;
        let answer = answer.map_err(|source| {
            if source.is_connect() {
                NoAnswer::Unreachable {
                    authority: authority.unwrap_or_default(),
                    source,
                }
            } else {
                NoAnswer::Broken(source.into())
            }
        })?;
        Ok(answer.map(|body| Piecewise::new(body, &self.bounds)))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Piecewise>, NoAnswer>> + Send>>;

impl<C: Connect + Clone + Send + Sync + 'static> Service<Request<Body>> for Requests<C> {
    type Response = Response<Piecewise>;
    type Error = NoAnswer;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoAnswer>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        // So kube says what it was asked for.
        let verb = match request.extensions().get::<&str>() {
            Some(&"replace") => "update",
            verb => verb.copied().unwrap_or_default(),
        };
        let kind = Kind::known(resource(request.uri().path()), verb);
        let requests = self.clone();
        Box::pin(async move {
            let metrics = requests.metrics.clone();
            let result = requests.send(request).await;
            metrics.requested(
                kind,
                match &result {
                    Ok(answer) => word_of_status(answer.status().as_u16()),
                    Err(error) => error.word(),
                },
            );
            result
        })
    }
}

/// The resource that a path in a namespace is about.
fn resource(path: &str) -> &str {
    let within = path.split_once("/namespaces/");
    let resource = within.and_then(|(_, within)| within.split('/').nth(1));
    resource.unwrap_or_default()
}

/// The body of an answer, of which each piece comes in time, and none is too large.
#[derive(Debug)]
struct Piecewise {
    body: Incoming,
    silence: Duration,
    until: Pin<Box<Sleep>>,
    /// Bytes since the last end of a line: in a watch, each line is an event.
    bytes: usize,
    bytes_max: usize,
}

impl Piecewise {
    fn new(body: Incoming, bounds: &ApiBounds) -> Self {
        let ApiBounds {
            silence, bytes_max, ..
        } = *bounds;
        Self {
            body,
            silence,
            until: Box::pin(tokio::time::sleep(silence)),
            bytes: 0,
            bytes_max,
        }
    }

    fn take_in(&mut self, frame: &Frame<Bytes>) -> Result<(), NoAnswer> {
        self.until.set(tokio::time::sleep(self.silence));
        let data = frame.data_ref().map_or(&[][..], |data| data);
        self.bytes = match data.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => data.len() - end - 1,
            None => self.bytes + data.len(),
        };
        if self.bytes > self.bytes_max {
            return Err(NoAnswer::TooLarge(self.bytes_max));
        }
        Ok(())
    }
}

impl hyper::body::Body for Piecewise {
    type Data = Bytes;
    type Error = NoAnswer;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NoAnswer>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| {
                let frame = frame.map_err(|error| NoAnswer::Broken(error.into()))?;
                this.take_in(&frame)?;
                Ok(frame)
            }));
        }
        ready!(this.until.as_mut().poll(context));
        Poll::Ready(Some(Err(NoAnswer::TimedOut(this.silence))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_hangs_is_known_within_two_minutes() {
        let bounds = ApiBounds::default();
        let known = bounds.silence + bounds.pause + bounds.answer;
        assert!(known < Duration::from_mins(2));
        assert!(
            bounds.silence > Duration::from_mins(1),
            "it may be silent for a minute"
        );
    }

    #[test]
    fn a_path_says_which_resource_it_is_about() {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/files/endpointslices";
        assert_eq!(resource(slices), "endpointslices");
        let behind_a_gateway = "/k8s/one/api/v1/namespaces/files/secrets/udht-authority";
        assert_eq!(resource(behind_a_gateway), "secrets");
        assert_eq!(resource("/version"), "");
        assert_eq!(resource("/api/v1/namespaces/files"), "");
    }

    #[test]
    fn what_led_to_an_error_is_found_through_all_that_wraps_it() {
        let silent = NoAnswer::TimedOut(Duration::from_secs(1));
        let service = kube::Error::Service(silent.into());
        let read = kube::Error::ReadEvents(io::Error::other(service));
        assert_eq!(ApiError::from(read).word(), "timed_out");
        let other = kube::Error::ReadEvents(io::Error::other("else"));
        assert_eq!(ApiError::from(other).word(), "invalid");
    }

    #[test]
    fn each_result_has_a_word_that_is_known() {
        for code in [200, 201, 400, 401, 403, 404, 409, 410, 429, 500, 503] {
            assert!(RESULTS.contains(&word_of_status(code)), "{code}");
        }
    }
}
