//! HTTP/1.1 as this program is asked for things: every connection, every wait and every body has a
//! bound, whoever is at the other end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::BUFFER_BYTES_MAX;
use crate::tls::{Door, Entered, Guest};

/// A request as it comes in.
pub type Asked = Request<Incoming>;
/// An answer as it goes out.
pub type Answered = Response<Full<Bytes>>;

/// Who asks: an extension of each request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Asker(pub SocketAddr);

/// What a listener puts up with.
#[derive(Copy, Clone, Debug)]
pub struct ServerBounds {
    /// Connections at once. For one more, the oldest is closed that was not let in yet, so that
    /// strangers who stand at the door keep no peer out; if all were let in, the new one is.
    pub connections_max: usize,
    /// From the beginning of a connection until both ends trust each other, where they have to.
    pub handshake: Duration,
    /// From the beginning of a connection, or from an answer, until the head of a request is there.
    pub head: Duration,
    /// From the head of a request until its body is there.
    pub body: Duration,
    /// The age at which a connection is closed after the answer it is at.
    pub age: Duration,
    /// How long that answer may then still take, and how long a stop waits for all of them.
    pub drain: Duration,
}

/// After a failure to accept: there are no file handles left, and soon there may be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers what comes in until `stop`; ends when the last answer is given, or `bounds.drain` later.
///
/// `turned_away` counts the connections beyond `bounds.connections_max`.
pub async fn serve<F, A>(
    listener: TcpListener,
    bounds: ServerBounds,
    door: Door,
    turned_away: IntCounter,
    stop: CancellationToken,
    answer: F,
) where
    F: Fn(Asked) -> A + Clone + Send + 'static,
    A: Future<Output = Answered> + Send + 'static,
{
    let connections = TaskTracker::new();
    let free = Arc::new(Semaphore::new(bounds.connections_max));
    let callers = Callers::default();
    let mut numbers = 0..;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, Asker(from)),
            Err(error) => {
                tracing::warn!(
                    error = udht_tell::chain(&error),
                    "a connection cannot be accepted"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = if let Ok(place) = Arc::clone(&free).try_acquire_owned() {
            place
        } else {
            turned_away.inc();
            if !callers.turn_away_oldest() {
                continue;
            }
            // Its place is free as soon as it has heard of it.
            let freed = Arc::clone(&free).acquire_owned();
            let Some(Ok(place)) = stop.run_until_cancelled(freed).await else {
                break;
            };
            place
        };
        // Answers are small and waited for. Where it cannot be set they are only slower.
        let _ = stream.set_nodelay(true);
        let door = door.clone();
        let (stop, answer) = (stop.clone(), answer.clone());
        let answer = move |mut request: Asked| {
            request.extensions_mut().insert(from);
            answer(request)
        };
        let caller = callers.called(numbers.next().unwrap_or(u64::MAX));
        connections.spawn(async move {
            // A handshake is much to carry about.
            let enter = Box::pin(stop.run_until_cancelled(door.enter(stream, &bounds)));
            let entered = caller.unless_turned_away(enter).await;
            if let Some(Some(Some((stream, guest)))) = entered {
                converse(stream, guest, bounds, &stop, answer).await;
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(bounds.drain, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("gave up on answers that are still under way");
    }
}

/// Those who have called and are not let in yet, in the order in which they called.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<BTreeMap<u64, CancellationToken>>>);

/// One of them.
struct Caller {
    callers: Callers,
    number: u64,
    turned_away: CancellationToken,
}

impl Callers {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, number: u64) -> Caller {
        let turned_away = CancellationToken::new();
        self.waiting().insert(number, turned_away.clone());
        Caller {
            callers: self.clone(),
            number,
            turned_away,
        }
    }

    /// Turns away who has waited the longest; `false` if nobody waits.
    fn turn_away_oldest(&self) -> bool {
        let oldest = self.waiting().pop_first();
        oldest
            .inspect(|(_, turned_away)| turned_away.cancel())
            .is_some()
    }
}

impl Caller {
    /// What comes of letting it in, unless it is turned away before: then its place is another's.
    async fn unless_turned_away<T>(self, enter: impl Future<Output = T>) -> Option<T> {
        let entered = self.turned_away.run_until_cancelled(enter).await;
        let is_in_time = self.callers.waiting().remove(&self.number).is_some();
        entered.filter(|_| is_in_time)
    }
}

impl Drop for Caller {
    /// Nobody waits for who broke off.
    fn drop(&mut self) {
        self.callers.waiting().remove(&self.number);
    }
}

/// One connection, from its first request to its last.
async fn converse<F, A>(
    stream: Entered,
    mut guest: Guest,
    bounds: ServerBounds,
    stop: &CancellationToken,
    answer: F,
) where
    F: Fn(Asked) -> A,
    A: Future<Output = Answered>,
{
    let last = &AtomicBool::new(false);
    let service = service_fn(move |request| {
        // Answering is much to carry about, too, for a connection that mostly waits.
        let answer = Box::pin(answer(request));
        async move {
            let mut answer = answer.await;
            if last.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(BUFFER_BYTES_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut age = std::pin::pin!(tokio::time::sleep(bounds.age));
    let mut ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break Some(ended),
            () = stop.cancelled() => break None,
            () = age.as_mut() => break None,
            // The next answer says that it is the last one, so that no question is lost: one could
            // be on its way to a connection that is closed while nothing happens on it.
            still_welcome = guest.outlived() => if still_welcome {
                last.store(true, Ordering::Relaxed);
            } else {
                break None;
            },
        }
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = tokio::time::timeout(bounds.drain, connection).await.ok();
    }
    if let Some(Err(error)) = ended {
        // Whoever is at the other end broke off, was silent, or spoke no HTTP: none of it is ours.
        tracing::debug!(error = udht_tell::chain(&error), "a connection ended early");
    }
}

/// Reads the whole body of a request; the error is the answer to give.
pub async fn read_body(
    request: Asked,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes, Box<Answered>> {
    let said = request.headers().get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        let detail = format!("a body has {bytes_max} bytes at the most");
        Box::new(problem(StatusCode::PAYLOAD_TOO_LARGE, &detail))
    };
    if said.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match tokio::time::timeout(within, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => {
            let detail = "the body ended before it was complete";
            Err(Box::new(problem(StatusCode::BAD_REQUEST, detail)))
        }
        Err(_) => {
            let within = humantime::format_duration(within);
            let detail = format!("the body was not complete within {within}");
            Err(Box::new(problem(StatusCode::REQUEST_TIMEOUT, &detail)))
        }
    }
}

/// An answer with a body.
pub fn answer(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answered {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A problem document (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> Answered {
    let body = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": detail,
    });
    answer(status, "application/problem+json", body.to_string())
}
