//! Traces, if somebody wants them: what a write or an exchange goes through, in all pods that it
//! goes through, as spans that are sent to a collector by OTLP.
//!
//! A [`Span`] is begun and ends when it is dropped. Which one is under way is known to the task
//! ([`within`], [`current`]), so that whatever asks somebody else can say so in the header
//! `traceparent` (W3C Trace Context), and what is done there belongs to the same trace. Without
//! [`begin`] all of it does nothing. A collector that is slow or away costs spans, never time.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

/// The header in which a trace is carried.
pub const HEADER: &str = "traceparent";

/// Spans that wait to be sent, at the most; more are left out.
const WAITING_MAX: usize = 4_096;
/// Spans that are sent at once, at the most.
const BATCH_MAX: usize = 512;
/// How long spans are gathered before they are sent.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// How long a collector may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where spans are sent.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Send traces of writes and exchanges by OTLP to the collector at this address, as
    /// `http://127.0.0.1:4318`; without it there are none
    #[arg(long, env = "UDHT_OTLP", value_name = "URL")]
    pub otlp: Option<Collector>,
}

/// The address of a collector: `http://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector(String);

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "must be http://HOST:PORT and nothing behind it, as http://127.0.0.1:4318";
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let authority = uri.authority().ok_or(FORM)?;
        let is_bare = uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '#', '?']);
        if uri.scheme_str() != Some("http") || !is_bare || authority.port_u16().is_none() {
            return Err(FORM);
        }
        Ok(Self(authority.to_string()))
    }
}

/// A place in a trace: which trace, and which span of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Place {
    trace: u128,
    span: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-');
        let mut next = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(())?;
            let is_hex = part
                .bytes()
                .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then_some(part).ok_or(())
        };
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // A later version may have more behind it.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(());
        }
        let is_sampled = u8::from_str_radix(flags, 16).map_err(drop)? & 1 == 1;
        let trace = u128::from_str_radix(trace, 16).map_err(drop)?;
        let span = u64::from_str_radix(span, 16).map_err(drop)?;
        (is_sampled && trace != 0 && span != 0)
            .then_some(Self { trace, span })
            .ok_or(())
    }
}

tokio::task_local! {
    static CURRENT: Place;
}

/// The place of what this task does now, as the value of [`HEADER`]; none where it is in no trace.
pub fn current() -> Option<Place> {
    TRACER.get()?;
    CURRENT.try_with(|place| *place).ok()
}

/// Does `work` as a part of this trace; none is none.
pub async fn within<T>(place: Option<Place>, work: impl Future<Output = T>) -> T {
    match place {
        Some(place) => CURRENT.scope(place, work).await,
        None => work.await,
    }
}

static TRACER: OnceLock<mpsc::Sender<Ended>> = OnceLock::new();

/// From here on spans are sent, as those of `service`. It must be called in a runtime of Tokio.
pub fn begin(args: &TraceArgs, service: &'static str, instance: String) {
    if let Some(collector) = &args.otlp {
        let (sender, ended) = mpsc::channel(WAITING_MAX);
        if TRACER.set(sender).is_ok() {
            tokio::spawn(export(collector.clone(), service, instance, ended));
        }
    }
}

/// Whether spans are sent.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Which part of a conversation a span is, with the numbers of OTLP.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Work within the program.
    Internal = 1,
    /// It was asked.
    Server = 2,
    /// It asks.
    Client = 3,
}

/// Work that takes its time, as long as it is held.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    place: Place,
    parent: Option<u64>,
    name: &'static str,
    kind: Kind,
    begun: SystemTime,
    fields: Vec<(&'static str, String)>,
    error: Option<String>,
}

struct Ended(Open, SystemTime);

impl Span {
    /// Begins one, as a part of what the task does, or as a trace of its own.
    pub fn new(name: &'static str, kind: Kind) -> Self {
        Self::under(current(), name, kind)
    }

    /// Begins one, as a part of what somebody else does; with no parent, as a trace of its own.
    pub fn under(parent: Option<Place>, name: &'static str, kind: Kind) -> Self {
        if !is_on() {
            return Self(None);
        }
        let trace = parent.map_or_else(|| Uuid::new_v4().as_u128(), |parent| parent.trace);
        // The half with the variant, so that it is not zero.
        let (_, span) = Uuid::new_v4().as_u64_pair();
        let place = Place { trace, span };
        Self(Some(Box::new(Open {
            place,
            parent: parent.map(|parent| parent.span),
            name,
            kind,
            begun: SystemTime::now(),
            fields: Vec::new(),
            error: None,
        })))
    }

    /// Its place, for whoever goes on with it.
    pub fn place(&self) -> Option<Place> {
        self.0.as_ref().map(|open| open.place)
    }

    /// Says more of it.
    pub fn set(&mut self, field: &'static str, value: impl fmt::Display) {
        if let Some(open) = &mut self.0 {
            open.fields.push((field, value.to_string()));
        }
    }

    /// Says that it failed.
    pub fn fail(&mut self, error: impl fmt::Display) {
        if let Some(open) = &mut self.0 {
            open.error = Some(error.to_string());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(open), Some(tracer)) = (self.0.take(), TRACER.get()) {
            // More than can be sent are left out.
            let _ = tracer.try_send(Ended(*open, SystemTime::now()));
        }
    }
}

/// Sends what has ended, as long as there may be more.
async fn export(
    collector: Collector,
    service: &'static str,
    instance: String,
    mut ended: mpsc::Receiver<Ended>,
) {
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let full = async {
            while batch.len() < BATCH_MAX {
                let left = BATCH_MAX - batch.len();
                if ended.recv_many(&mut batch, left).await == 0 {
                    return;
                }
            }
        };
        let _ = timeout(GATHERED_FOR, full).await;
        let spans: Vec<_> = batch.drain(..).map(|ended| span(&ended)).collect();
        let count = spans.len();
        let body = request(service, &instance, &spans).to_string();
        let sent = timeout(ANSWER_MAX, send(&collector, body)).await;
        let error = match sent {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => crate::chain(&*error),
            Err(_) => "it did not answer in time".to_owned(),
        };
        tracing::warn!(target: "udht_log", url = collector.0, spans = count, error, "traces could not be sent");
    }
}

/// An `ExportTraceServiceRequest`, as JSON.
fn request(service: &str, instance: &str, spans: &[Value]) -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            attribute("service.name", service),
            attribute("service.instance.id", instance),
        ] },
        "scopeSpans": [{ "scope": { "name": "udht" }, "spans": spans }],
    }] })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn span(Ended(open, at): &Ended) -> Value {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    };
    let fields = open.fields.iter();
    let mut span = json!({
        "traceId": format!("{:032x}", open.place.trace),
        "spanId": format!("{:016x}", open.place.span),
        "name": open.name,
        "kind": open.kind as u8,
        "startTimeUnixNano": nanos(open.begun),
        "endTimeUnixNano": nanos(*at),
        "attributes": fields.map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
    });
    if let Some(parent) = open.parent {
        span["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(error) = &open.error {
        span["status"] = json!({ "code": 2, "message": error });
    }
    span
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn send(Collector(authority): &Collector, body: String) -> Result<(), Failed> {
    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/traces")
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await?.to_bytes();
        if status.is_success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        Err(Failed::from(format!("status {status}: {said}")))
    };
    tokio::select! {
        biased;
        answered = answer => answered,
        ended = connection => match ended {
            Ok(()) => Err("the connection ended without an answer".into()),
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_the_recommendation_has_it_and_read_strictly() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let place: Place = text.parse().unwrap_or_else(|()| panic!("{text}"));
        assert_eq!(place.to_string(), text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            // Whoever asks does not trace it.
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            assert_eq!(bad.parse::<Place>(), Err(()), "{bad}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(later.parse(), Ok(place));
    }

    #[test]
    fn a_collector_is_a_host_and_a_port() {
        let host = "http://collector.traces:4318".parse();
        assert_eq!(host, Ok(Collector("collector.traces:4318".to_owned())));
        assert!("http://[::1]:4318/".parse::<Collector>().is_ok());
        for bad in [
            "collector:4318",
            "https://collector:4318",
            "http://collector",
            "http://collector:4318/v1/traces",
            "http://me:secret@collector:4318",
        ] {
            assert!(bad.parse::<Collector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        let mut span = Span::new("write", Kind::Server);
        span.set("peer", "a");
        assert_eq!(span.place(), None);
        assert_eq!(current(), None);
    }
}
