//! A whole manager without a socket and without a disk, made anew for each list of bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use peer_exchange::Own;
use peer_table::contract::{
    Advance, Advanced, Batch, FingerprintPage, MEDIA_TYPE, MergeAnswer, Records, RecordsRequest,
    State, StateRequest, fingerprints_to_bytes, via_word,
};
use peer_table::feed::Via;
use peer_table::floors::{Ages, Replicas};
use peer_table::table::Limits;
use peer_table::{Entry, Fingerprint, Key, OriginId, Reading, StoreId, TableName, WallTime};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use udht_manager::config::PodArgs;
use udht_manager::metrics::Metrics;
use udht_manager::owner::{self, Owner, OwnerConfig};
use udht_manager::server::{self, App};
use udht_manager::store::{Commit, Cursor, Draw, Opening, Scanned, Store, StoreError, Stored};

/// The cluster of all these managers.
const CLUSTER: &str = "fuzz/udht";
/// Records of one table at the most: few, so that a full table is common.
pub(crate) const RECORDS_MAX: usize = 32;
/// How far ahead of the wall clock a record may be stamped.
pub(crate) const DRIFT_MAX: Duration = Duration::from_secs(10);

/// A manager.
pub(crate) struct Manager {
    pub(crate) router: Router,
    pub(crate) owner: Owner,
    store: Arc<Memory>,
}

/// Runs what needs a runtime: each list of bytes has one of its own, with a manager or several.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(future)
}

impl Manager {
    /// One with an empty table, whose store has the id `number`.
    pub(crate) async fn new(number: u8) -> Self {
        let store = Arc::new(Memory::new(number));
        let config = OwnerConfig {
            cluster: CLUSTER.parse().expect("a cluster id"),
            limits: Limits {
                records_max: RECORDS_MAX,
                ..Limits::default()
            },
            drift_max: DRIFT_MAX,
            pod: PodArgs::default(),
            ages: Ages::default(),
        };
        let metrics = Arc::new(Metrics::new().expect("metrics of a process of their own"));
        let (owner, task) = owner::open(Arc::clone(&store) as _, config, Arc::clone(&metrics))
            .await
            .expect("a store in memory opens");
        tokio::spawn(task.run());
        let app = App::new(owner.clone(), metrics, CancellationToken::new());
        Self {
            router: server::app(app),
            owner,
            store,
        }
    }

    /// Writes peers with these numbers.
    pub(crate) async fn fill(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let body =
                format!(r#"{{"name":"n{number}","ip":"10.0.0.7","labels":{{"n":"{number}"}}}}"#);
            let path = format!("/v1/peers/p{number}");
            let (status, _) = self.ask(Method::PUT, &path, "application/json", body).await;
            assert!(status.is_success(), "{status}");
        }
    }

    /// All that is stored.
    pub(crate) fn entries(&self) -> BTreeMap<Key, Entry> {
        self.store.records().clone()
    }

    /// Whether it was told that it had been given up, and so began anew with nothing.
    pub(crate) fn has_started_over(&self) -> bool {
        self.store.has_started_over.load(Ordering::Relaxed)
    }

    /// Calls it.
    pub(crate) async fn call(&self, request: Request<Body>) -> Response<Body> {
        let answer = self.router.clone().oneshot(request).await;
        answer.unwrap_or_else(|never| match never {})
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", media_type)
            .body(body.into())
            .expect("a request");
        let (head, body) = self.call(request).await.into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        (head.status, body)
    }

    async fn message<M: Message + Default>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<M, NotDone> {
        let (status, answer) = self.ask(method, path, MEDIA_TYPE, body).await;
        if status.is_success() {
            return Ok(M::decode(answer).expect("a manager answers with messages"));
        }
        assert!(
            status.is_client_error() || status == 503 || status == 507,
            "{status}"
        );
        Err(NotDone(status))
    }
}

/// The manager refused.
#[derive(Debug, thiserror::Error)]
#[error("the manager answered {0}")]
pub(crate) struct NotDone(StatusCode);

/// As sync's own client asks, without its socket.
impl Own for Manager {
    type Error = NotDone;

    async fn state(&self, request: &StateRequest) -> Result<State, NotDone> {
        let path = "/v1/sync/state";
        self.message(Method::POST, path, request.encode_to_vec())
            .await
    }

    async fn replicas(&self, theirs: &Replicas) -> Result<Replicas, NotDone> {
        let path = "/v1/sync/replicas";
        self.message(Method::POST, path, theirs.encode_to_vec())
            .await
    }

    async fn advance(&self, advance: &Advance) -> Result<bool, NotDone> {
        let path = "/v1/sync/advance";
        let answer = self.message(Method::POST, path, advance.encode_to_vec());
        answer.await.map(|Advanced { advanced }| advanced)
    }

    async fn fingerprints(
        &self,
        table: &TableName,
        from: Fingerprint,
        limit: usize,
    ) -> Result<FingerprintPage, NotDone> {
        let from = from.0;
        let path = format!("/v1/sync/tables/{table}/fingerprints?from={from}&limit={limit}");
        self.message(Method::GET, &path, Vec::new()).await
    }

    async fn records(
        &self,
        table: &TableName,
        fingerprints: &[Fingerprint],
    ) -> Result<Records, NotDone> {
        let path = format!("/v1/sync/tables/{table}/records");
        let request = RecordsRequest {
            fingerprints: fingerprints_to_bytes(fingerprints.iter().copied()),
        };
        self.message(Method::POST, &path, request.encode_to_vec())
            .await
    }

    async fn merge(
        &self,
        batch: Batch,
        via: Via,
        from: StoreId,
        session: Option<u64>,
    ) -> Result<MergeAnswer, NotDone> {
        let (table, word) = (&batch.table, via_word(via));
        let session = session.map(|session| format!("&session={session}"));
        let session = session.unwrap_or_default();
        let path = format!("/v1/sync/tables/{table}/merge?via={word}&from={from}{session}");
        self.message(Method::POST, &path, batch.encode_to_vec())
            .await
    }

    fn now(&self) -> WallTime {
        owner::wall_now()
    }
}

/// A store that is gone with its manager.
struct Memory {
    opening: Opening,
    records: Mutex<BTreeMap<Key, Entry>>,
    /// Whether it began anew, as it was told that it had been given up.
    has_started_over: AtomicBool,
}

impl Memory {
    fn new(number: u8) -> Self {
        let opening = Opening::first(Draw {
            store: StoreId::from_bytes([number; 16]),
            origin: OriginId::from_bytes([number.wrapping_add(100); 16]),
            peer_id: format!("pod-{number}").parse().expect("a key"),
            cluster: None,
            binding: None,
        });
        Self {
            opening,
            records: Mutex::default(),
            has_started_over: AtomicBool::new(false),
        }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    fn opening(&self) -> &Opening {
        &self.opening
    }

    async fn scan(
        &self,
        _: &TableName,
        _: Option<Cursor>,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        Ok((Vec::new(), None))
    }

    async fn get_many(
        &self,
        _: &TableName,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        let records = self.records();
        let held = keys.iter().map(|key| records.get(key).cloned());
        Ok(held.map(|entry| entry.map(Stored::Entry)).collect())
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        for (_, records) in commit.records {
            // Through its stored form, as in any other store.
            let read = records.iter().map(|(key, entry)| {
                let read = Stored::from_value(&entry.to_stored()).entry();
                (key.clone(), read.expect("what was written is read"))
            });
            self.records().extend(read);
        }
        for (_, keys) in commit.removed {
            self.records().retain(|key, _| !keys.contains(key));
        }
        Ok(())
    }

    async fn start_over(&self, draw: Draw, floors: Vec<u8>) -> Result<Opening, StoreError> {
        self.records().clear();
        self.has_started_over.store(true, Ordering::Relaxed);
        let next = self.opening.clone().started_over(draw, floors);
        Ok(next.expect("ids that were just drawn"))
    }

    async fn renew(&self, origin: OriginId, last: Reading) -> Result<Opening, StoreError> {
        let next = self.opening.clone().renewed(origin, last);
        Ok(next.expect("an id that was just drawn"))
    }
}
