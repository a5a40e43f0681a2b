//! The manager of this pod, as it is asked over loopback.

mod pod;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

pub use self::pod::{POD_RECORDS_MAX, PodRecord};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use peer_exchange::Own;
use peer_table::contract::{
    Advance, Advanced, Batch, FeedPart, FingerprintPage, InvalidMessage, MESSAGE_BYTES_MAX,
    MergeAnswer, REPORT_BYTES_MAX, Records, RecordsRequest, ReportAnswer, State, StateRequest,
    Tend, TendAnswer, fingerprints_to_bytes, via_word,
};
use peer_table::feed::Via;
use peer_table::floors::{Replicas, WirePublication};
use peer_table::{ClusterId, Fingerprint, Key, StoreId, TableName, WallTime};
use prost::Message;
use tokio::sync::Notify;

use crate::http::{BaseUrl, ClientBounds, HttpClient, HttpError, detail};
use crate::missed::Missed;
use crate::wall;

/// The most of the manager's metrics that is passed on, in bytes.
const METRICS_BYTES_MAX: usize = 4 << 20;

/// The manager did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// It is away, or too slow.
    #[error("the manager does not answer")]
    Away(#[from] HttpError),
    /// It refused.
    #[error("the manager answered {status}: {detail}")]
    Refused {
        /// With what.
        status: StatusCode,
        /// And why, in its own words.
        detail: String,
    },
    /// Its answer makes no sense here.
    #[error("the manager's answer cannot be used")]
    Answer(#[from] InvalidMessage),
    /// It keeps the table of another cluster.
    #[error(
        "the manager is of the cluster {theirs} and this sync of {ours}: start both with the \
         same --cluster"
    )]
    Cluster {
        /// The cluster of this sync.
        ours: ClusterId,
        /// The cluster of the manager, as it says.
        theirs: String,
    },
    /// No request could be made of what was asked.
    #[error("the manager cannot be asked this")]
    Request(#[from] hyper::http::Error),
}

impl ManagerError {
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        let detail = detail(body);
        Self::Refused { status, detail }
    }

    /// Whether it answered with this status.
    pub fn is_status(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }
}

/// Which cluster's table a manager should keep.
#[derive(Clone, Debug)]
enum Expected {
    /// Of this one.
    Exactly(ClusterId),
    /// Of this one under an authority: the one that makes it the `whole` id, or whichever while none
    /// is known.
    UnderAuthority {
        name: ClusterId,
        whole: Option<ClusterId>,
    },
}

impl Expected {
    fn is(&self, theirs: &str) -> bool {
        match self {
            Self::UnderAuthority { whole: None, .. } => self.is_by_name(theirs),
            Self::Exactly(ours)
            | Self::UnderAuthority {
                whole: Some(ours), ..
            } => theirs == ours.as_str(),
        }
    }

    /// Whether it is what it should be but for the authority.
    fn is_by_name(&self, theirs: &str) -> bool {
        match self {
            Self::Exactly(ours) => theirs == ours.as_str(),
            Self::UnderAuthority { name, .. } => theirs
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('#')),
        }
    }

    fn into_id(self) -> ClusterId {
        match self {
            Self::Exactly(ours) => ours,
            Self::UnderAuthority { name, whole } => whole.unwrap_or(name),
        }
    }
}

/// A client of the manager.
#[derive(Clone, Debug)]
pub struct Manager {
    url: BaseUrl,
    /// Which cluster's table it should keep; the same for all clones.
    cluster: Arc<RwLock<Expected>>,
    /// Told whenever it is of another one.
    stranger: Arc<Notify>,
    /// [`Manager::of_other_cluster`].
    other: Arc<Mutex<Option<String>>>,
    http: HttpClient,
    scrape: HttpClient,
    missed: Arc<Missed>,
}

impl Manager {
    /// The manager at `url`, which is to be of `cluster`. Nothing is sent yet. Its metrics are
    /// waited for no longer than `scrape`, whatever else it may take its time for.
    ///
    /// `missed` is told of all that exchanges merge into it.
    pub fn new(
        url: BaseUrl,
        cluster: ClusterId,
        bounds: ClientBounds,
        scrape: Duration,
        missed: Arc<Missed>,
    ) -> Self {
        let http = HttpClient::new(bounds);
        let scrape = http.answering_within(scrape);
        Self {
            url,
            cluster: Arc::new(RwLock::new(Expected::Exactly(cluster))),
            stranger: Arc::default(),
            other: Arc::default(),
            http,
            scrape,
            missed,
        }
    }

    /// From now on it is to be of the cluster `name` under an authority: the one that makes `whole`
    /// its id, or whichever while none is known.
    pub fn expect(&self, name: ClusterId, whole: Option<ClusterId>) {
        let expected = Expected::UnderAuthority { name, whole };
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = expected;
    }

    fn expected(&self) -> Expected {
        let expected = self.cluster.read();
        expected.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is of the right cluster, has its table loaded and a store that answers. Which authority
    /// the table belongs to, and whether any is known, is between the pods: the application beside it
    /// reads and writes all the same.
    pub async fn ready(&self) -> Result<(), ManagerError> {
        match self.state(&StateRequest::default()).await {
            Err(ManagerError::Cluster { theirs, .. }) if self.expected().is_by_name(&theirs) => {}
            other => drop(other?),
        }
        // All that is said of the table is said from memory.
        let ready = self.call(Method::GET, "/readyz", Vec::new()).await;
        ready.map(drop)
    }

    /// What is wrong with it where it is of another cluster altogether, as it said last.
    pub fn of_other_cluster(&self) -> Option<String> {
        self.other().clone()
    }

    fn other(&self) -> MutexGuard<'_, Option<String>> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it was found to be of another cluster than it should.
    pub async fn stranger(&self) {
        self.stranger.notified().await;
    }

    /// Where it is.
    pub const fn url(&self) -> &BaseUrl {
        &self.url
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ManagerError> {
        let request = self.url.request(method, path, body)?;
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ManagerError> {
        let (status, body) = self.http.send(request, MESSAGE_BYTES_MAX).await?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(ManagerError::refused(status, &body))
        }
    }

    async fn ask<M: Message + Default>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<M, ManagerError> {
        let answer = self.call(method, path, body).await?;
        Ok(M::decode(answer).map_err(InvalidMessage::from)?)
    }

    /// Notes that a peer was seen just now; `false` if the table has no such peer (yet).
    pub async fn contact(&self, peer: &Key) -> Result<bool, ManagerError> {
        let path = format!("/v1/peers/{peer}/contact");
        match self.call(Method::POST, &path, Vec::new()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_status(StatusCode::NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has it look after its floors; the answer is what all others are to be told.
    pub async fn tend(&self, tend: &Tend) -> Result<Option<WirePublication>, ManagerError> {
        let answer = self.ask(Method::POST, "/v1/sync/tend", tend.encode_to_vec());
        answer.await.map(|TendAnswer { publication }| publication)
    }

    /// Tells it how this pod is: a [`Report`](peer_table::contract::Report) as JSON. The answer is what
    /// it is alarmed about.
    pub async fn report(&self, report: Vec<u8>) -> Result<ReportAnswer, ManagerError> {
        let path = "/v1/sync/report";
        let mut request = self.url.request(Method::POST, path, report)?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let (status, body) = self.scrape.send(request, REPORT_BYTES_MAX).await?;
        if !status.is_success() {
            return Err(ManagerError::refused(status, &body));
        }
        let answer = serde_json::from_slice(&body);
        Ok(answer.map_err(|error| InvalidMessage::Encoding(error.to_string()))?)
    }

    /// What it tells Prometheus.
    pub async fn metrics(&self) -> Result<String, ManagerError> {
        let request = self.url.request(Method::GET, "/metrics", Vec::new())?;
        let (status, body) = self.scrape.send(request, METRICS_BYTES_MAX).await?;
        if !status.is_success() {
            return Err(ManagerError::refused(status, &body));
        }
        String::from_utf8(body.into())
            .map_err(|_| ManagerError::Answer(InvalidMessage::field("metrics", "are not UTF-8")))
    }

    /// The changes that are written here, from the revision `since` on, or from now.
    pub async fn feed(&self, since: Option<&str>) -> Result<FeedStream, ManagerError> {
        let path = match since {
            Some(since) => format!("/v1/sync/feed?since={since}"),
            None => "/v1/sync/feed".to_owned(),
        };
        let request = self.url.request(Method::GET, &path, Vec::new())?;
        let response = self.http.open(request).await?;
        let status = response.status();
        if !status.is_success() {
            let body = http_body_util::Limited::new(response.into_body(), MESSAGE_BYTES_MAX);
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            return Err(ManagerError::refused(status, &body.unwrap_or_default()));
        }
        Ok(FeedStream {
            body: response.into_body(),
            buffer: BytesMut::new(),
        })
    }
}

impl Own for Manager {
    type Error = ManagerError;

    async fn state(&self, request: &StateRequest) -> Result<State, ManagerError> {
        let path = "/v1/sync/state";
        let state: State = self
            .ask(Method::POST, path, request.encode_to_vec())
            .await?;
        // Whatever is exchanged or pushed begins with this call.
        let expected = self.expected();
        if expected.is(&state.cluster) {
            *self.other() = None;
            return Ok(state);
        }
        self.stranger.notify_one();
        let is_by_name = expected.is_by_name(&state.cluster);
        let (ours, theirs) = (expected.into_id(), state.cluster);
        let error = ManagerError::Cluster { ours, theirs };
        *self.other() = (!is_by_name).then(|| error.to_string());
        Err(error)
    }

    async fn replicas(&self, theirs: &Replicas) -> Result<Replicas, ManagerError> {
        let path = "/v1/sync/replicas";
        self.ask(Method::POST, path, theirs.encode_to_vec()).await
    }

    async fn advance(&self, advance: &Advance) -> Result<bool, ManagerError> {
        let path = "/v1/sync/advance";
        let answer = self.ask(Method::POST, path, advance.encode_to_vec());
        answer.await.map(|Advanced { advanced }| advanced)
    }

    async fn fingerprints(
        &self,
        table: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, ManagerError> {
        let from = from.0;
        let path = format!("/v1/sync/tables/{table}/fingerprints?from={from}&limit={limit}");
        self.ask(Method::GET, &path, Vec::new()).await
    }

    async fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> Result<Records, ManagerError> {
        let path = format!("/v1/sync/tables/{table}/records");
        let request = RecordsRequest {
            fingerprints: fingerprints_to_bytes(fingerprints.iter().copied()),
        };
        self.ask(Method::POST, &path, request.encode_to_vec()).await
    }

    async fn merge(
        &self,
        batch: Batch,
        via: Via,
        from: StoreId,
        session: Option<u64>,
    ) -> Result<MergeAnswer, ManagerError> {
        let (table, word) = (&batch.table, via_word(via));
        let session = session.map(|session| format!("&session={session}"));
        let session = session.unwrap_or_default();
        let path = format!("/v1/sync/tables/{table}/merge?via={word}&from={from}{session}");
        let answer = self.ask(Method::POST, &path, batch.encode_to_vec()).await?;
        if via == Via::Exchange {
            self.missed.look(batch, &answer, wall::now());
        }
        Ok(answer)
    }

    fn now(&self) -> WallTime {
        wall::now()
    }
}

/// Changes as they are written.
#[derive(Debug)]
pub struct FeedStream {
    body: Incoming,
    buffer: BytesMut,
}

impl FeedStream {
    /// The next part; `None` when the manager ended the stream. Nothing is lost if the call is
    /// dropped before it answers.
    pub async fn next(&mut self) -> Result<Option<FeedPart>, FeedBroken> {
        loop {
            if let Some(part) = take_part(&mut self.buffer)? {
                return Ok(Some(part));
            }
            let Some(frame) = self.body.frame().await else {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FeedBroken::CutOff)
                };
            };
            if let Ok(data) = frame.map_err(FeedBroken::Connection)?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// The stream of changes ended where it should not.
#[derive(Debug, thiserror::Error)]
pub enum FeedBroken {
    /// The connection broke.
    #[error("the connection to the manager's feed broke")]
    Connection(#[source] hyper::Error),
    /// The stream ended within a part.
    #[error("the manager's feed ended within a part")]
    CutOff,
    /// Nothing came for too long.
    #[error("the manager's feed fell silent")]
    Silent,
    /// What came is no part.
    #[error("the manager's feed cannot be read")]
    Part(#[source] InvalidMessage),
}

/// Takes the first part from the buffer, once it is there as a whole.
fn take_part(buffer: &mut BytesMut) -> Result<Option<FeedPart>, FeedBroken> {
    const LENGTH_BYTES_MAX: usize = 10;
    let invalid = |problem: &str| FeedBroken::Part(InvalidMessage::field("length", problem));
    let mut rest = &buffer[..];
    let Ok(length) = prost::decode_length_delimiter(&mut rest) else {
        return if buffer.len() < LENGTH_BYTES_MAX {
            Ok(None)
        } else {
            Err(invalid("is none"))
        };
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid("is larger than any message"));
    }
    let head = buffer.len() - rest.len();
    if rest.len() < length {
        return Ok(None);
    }
    let part = buffer.split_to(head + length).split_off(head);
    FeedPart::decode(part.freeze())
        .map(Some)
        .map_err(|error| FeedBroken::Part(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(revision: &str) -> FeedPart {
        FeedPart {
            revision: revision.to_owned(),
            batch: None,
            trace: String::new(),
        }
    }

    #[test]
    fn parts_are_taken_from_the_stream_wherever_it_is_cut_into_pieces() {
        let parts = [part("a-1"), part(&"b".repeat(300)), part("")];
        let stream: Vec<u8> = parts
            .iter()
            .flat_map(Message::encode_length_delimited_to_vec)
            .collect();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in stream {
            buffer.extend_from_slice(&[byte]);
            while let Some(part) = take_part(&mut buffer).unwrap() {
                taken.push(part);
            }
        }
        assert_eq!(taken, parts);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_part_that_says_it_is_too_large_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::new();
        prost::encode_length_delimiter(MESSAGE_BYTES_MAX + 1, &mut buffer).unwrap();
        assert!(take_part(&mut buffer).is_err());
        let mut garbage = BytesMut::from(&[0xff; 11][..]);
        assert!(take_part(&mut garbage).is_err());
    }
}
