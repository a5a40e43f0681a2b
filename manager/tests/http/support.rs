//! A manager without a socket, and calls to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use peer_table::floors::{Ages, Evidence};
use peer_table::table::Limits;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use udht_manager::config::PodArgs;
use udht_manager::metrics::Metrics;
use udht_manager::owner::{self, OwnClock, Owner, OwnerConfig};
use udht_manager::server::{self, App};

use crate::contract;
use crate::store::Watched;

/// How long anything that is awaited may take: only a hang is that slow.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A manager.
pub struct Manager {
    pub router: Router,
    pub owner: Owner,
    pub store: Arc<Watched>,
    pub stopping: CancellationToken,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl Manager {
    /// One with an empty table.
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// One whose table is so bounded.
    pub async fn with_limits(limits: Limits) -> Self {
        Self::open(tempfile::tempdir().unwrap(), limits).await
    }

    /// One of a pod of which this is known.
    pub async fn of_pod(pod: PodArgs) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open_with(folder, Limits::default(), pod, Ages::default()).await
    }

    /// One that publishes its floor whenever it is looked after.
    pub async fn of_no_pause() -> Self {
        let (folder, limits) = (tempfile::tempdir().unwrap(), Limits::default());
        let ages = Ages::new(Duration::from_hours(7 * 24), Duration::ZERO);
        Self::open_with(folder, limits, PodArgs::default(), ages).await
    }

    async fn open(folder: TempDir, limits: Limits) -> Self {
        Self::open_with(folder, limits, PodArgs::default(), Ages::default()).await
    }

    async fn open_with(folder: TempDir, limits: Limits, pod: PodArgs, ages: Ages) -> Self {
        let store = Watched::open(&folder.path().join("udht.redb")).await;
        let config = OwnerConfig {
            ages,
            cluster: "test".parse().unwrap(),
            limits,
            drift_max: Duration::from_secs(10),
            pod,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let (owner, task) = owner::open(Arc::clone(&store) as _, config, Arc::clone(&metrics))
            .await
            .unwrap();
        let task = tokio::spawn(task.run());
        // It is the first of its cluster, and takes pushes; no tombstone leaves.
        let first = Evidence {
            may_begin: true,
            is_braked: true,
            ..Evidence::default()
        };
        owner.tend(first, OwnClock::Unknown).await.unwrap();
        let stopping = CancellationToken::new();
        let app = App::new(owner.clone(), metrics, stopping.clone());
        let manager = Self {
            router: server::app(app),
            owner,
            store,
            stopping,
            folder,
            task,
        };
        contract::load(&manager).await;
        manager
    }

    /// Drops all of it, and opens its store anew.
    pub async fn reopened(self) -> Self {
        let Self {
            router,
            owner,
            store,
            stopping: _,
            folder,
            task,
        } = self;
        drop((router, owner, store));
        timeout(PATIENCE, task).await.unwrap().unwrap();
        Self::open(folder, Limits::default()).await
    }

    /// Lets the store fail, or work again.
    pub fn fail_store(&self, failing: bool) {
        self.store.failing.store(failing, Ordering::SeqCst);
    }

    /// Lets the store take nothing that is written, or all again.
    pub fn fill_store(&self, full: bool) {
        self.store.full.store(full, Ordering::SeqCst);
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        Call {
            router: self.router.clone(),
            request: Request::builder()
                .method(method)
                .uri(path)
                .header("host", "localhost:3002"),
            body: Body::empty(),
        }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn put(&self, path: &str, json: &Value) -> Call {
        self.call(Method::PUT, path).json(json)
    }

    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    pub fn patch(&self, path: &str, json: &Value) -> Call {
        let call = self.call(Method::PATCH, path);
        call.header("content-type", "application/merge-patch+json")
            .body(json.to_string())
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Writes peers with these ids and the label `n=NUMBER`, in this order.
    pub async fn fill(&self, ids: impl IntoIterator<Item = String>) {
        let calls = ids.into_iter().enumerate().map(|(number, id)| {
            let mut peer = peer();
            peer["labels"] = serde_json::json!({"n": number.to_string()});
            self.put(&format!("/v1/peers/{id}"), &peer).send()
        });
        for answer in join_all(calls).await {
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        }
    }
}

/// A peer to write.
pub fn peer() -> Value {
    serde_json::json!({
        "name": "files-0",
        "ip": "10.0.0.7",
        "ports": {"userSync": 5001},
        "labels": {"zone": "a"},
    })
}

/// A request that is being put together.
pub struct Call {
    router: Router,
    request: axum::http::request::Builder,
    body: Body,
}

impl Call {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.request = self.request.header(name, value.as_ref());
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, json: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(json.to_string())
    }

    /// Sends it, and reads the whole answer.
    pub async fn send(self) -> Answer {
        let open = self.open().await;
        let body = timeout(PATIENCE, open.body.collect()).await.unwrap();
        Answer {
            status: open.status,
            headers: open.headers,
            body: body.unwrap().to_bytes(),
        }
    }

    /// Sends it, and reads the answer's head.
    pub async fn open(self) -> Open {
        let request = self.request.body(self.body).unwrap();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = timeout(PATIENCE, self.router.oneshot(request)).await;
        let (head, body) = response.unwrap().unwrap().into_parts();
        crate::contract::check(&method, &path, head.status, &head.headers);
        Open {
            status: head.status,
            headers: head.headers,
            body,
            text: BytesMut::new(),
        }
    }

    /// Sends it, reads the whole answer, and demands this status.
    pub async fn expect(self, status: u16) -> Answer {
        let answer = self.send().await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        answer
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .to_str()
            .unwrap()
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Each line as JSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The last part of the `type` of a problem.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        let kind = json["type"].as_str().unwrap();
        kind.strip_prefix("urn:udht:problem:").unwrap().to_owned()
    }

    /// The ids of a list.
    pub fn ids(&self) -> Vec<String> {
        let json = self.json();
        let peers = json["peers"].as_array().unwrap();
        let id = |peer: &Value| peer["peer_id"].as_str().unwrap().to_owned();
        peers.iter().map(id).collect()
    }
}

/// An answer whose body is being read.
#[derive(Debug)]
pub struct Open {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    text: BytesMut,
}

impl Open {
    /// The next part of the body; `None` at its end.
    pub async fn part(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let frame = timeout(PATIENCE, self.body.frame()).await.unwrap()?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    /// The next text up to `end`; `None` at the end of the body.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let text = str::from_utf8(&self.text).unwrap();
            if let Some(at) = text.find(end) {
                let bytes = self.text.split_to(at + end.len());
                return Some(str::from_utf8(&bytes).unwrap().to_owned());
            }
            let part = self.part().await?.unwrap();
            self.text.extend_from_slice(&part);
        }
    }

    /// The next line as JSON; `None` at the end of the body.
    pub async fn line(&mut self) -> Option<Value> {
        let line = self.until("\n").await?;
        Some(serde_json::from_str(&line).unwrap())
    }
}
