//! A watch on each of many managers, and who writes into them: all in one thread, which sleeps
//! until something comes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};
use udht_tests::pod::Pod;

/// What precedes the number of a change in the key of its record.
const KEY: &str = "change-";

/// The watches, and all changes that were made so far.
pub(crate) struct Watchers {
    client: Client<HttpConnector, Full<Bytes>>,
    seen: Rc<Seen>,
    /// One for each pod that is watched, in the order of the pods.
    watches: Vec<Option<JoinHandle<()>>>,
    urls: Vec<String>,
}

/// A change and who saw it when.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The place of the pod it was written in.
    pub(crate) writer: usize,
    /// When the write was sent.
    pub(crate) sent: Instant,
    /// When the watch of each pod told of it.
    pub(crate) seen: Vec<Option<Instant>>,
}

impl Change {
    /// How long it took until the others of these pods had it; none for those that do not have it.
    pub(crate) fn delays(&self, pods: &[usize]) -> impl Iterator<Item = Duration> {
        let others = pods.iter().filter(|pod| **pod != self.writer);
        others.filter_map(|pod| Some(self.seen[*pod]? - self.sent))
    }

    /// How long it took until all of these pods had it.
    pub(crate) fn everywhere(&self, pods: &[usize]) -> Option<Duration> {
        let seen = pods.iter().map(|pod| self.seen[*pod]);
        let last = seen.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some(last - self.sent)
    }
}

#[derive(Default)]
struct Seen {
    changes: RefCell<Vec<Change>>,
    news: Notify,
}

/// What of an event matters here.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    peer: Option<Watched<'a>>,
}

#[derive(Deserialize)]
struct Watched<'a> {
    peer_id: &'a str,
}

impl Watchers {
    /// Watches all of these; within the runtime of [`block_on`].
    pub(crate) async fn new(pods: &[Pod]) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut watchers = Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            seen: Rc::default(),
            watches: pods.iter().map(|_| None).collect(),
            urls: pods.iter().map(Pod::manager_url).collect(),
        };
        for pod in 0..pods.len() {
            watchers.watch(pod).await?;
        }
        Ok(watchers)
    }

    /// Watches this one anew. When this returns, the watch has begun: no later change is missed.
    pub(crate) async fn watch(&mut self, pod: usize) -> Result<()> {
        let url = format!("{}/v1/peers?watch=true", self.urls[pod]);
        let request = Request::get(&url)
            .header("accept", "application/x-ndjson")
            .body(Full::default())?;
        let response = self.client.request(request).await;
        let response = response.with_context(|| format!("GET {url}"))?;
        ensure!(response.status() == 200, "GET {url}: {}", response.status());
        let mut lines = Lines {
            body: response.into_body(),
            buffer: BytesMut::new(),
        };
        let first = lines.next().await?.context("the watch ended at once")?;
        ensure!(
            serde_json::from_slice::<Event<'_>>(&first)?.kind == "start",
            "the watch began with {}",
            String::from_utf8_lossy(&first)
        );
        let seen = Rc::clone(&self.seen);
        self.watches[pod] = Some(tokio::task::spawn_local(async move {
            // Killed managers end in the middle of a line.
            while let Ok(Some(line)) = lines.next().await {
                seen.take(pod, &line, Instant::now());
            }
        }));
        Ok(())
    }

    /// Ends the watch of a pod that is to be killed.
    pub(crate) fn unwatch(&mut self, pod: usize) {
        if let Some(watch) = self.watches[pod].take() {
            watch.abort();
        }
    }

    /// How many changes were made so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.changes.borrow().len()
    }

    /// The changes from this one on.
    pub(crate) fn changes(&self, from: usize) -> Vec<Change> {
        self.seen.changes.borrow()[from..].to_vec()
    }

    /// Begins to write a change into a pod; the answer is awaited by the task.
    pub(crate) fn write(&self, pod: usize) -> Result<JoinHandle<Result<()>>> {
        let number = self.count();
        let url = format!("{}/v1/peers/{KEY}{number}", self.urls[pod]);
        let body = json!({
            "name": format!("files-{number}"),
            "ip": "10.0.0.7",
            "ports": {"userSync": 5001, "fileSync": 5002, "networkLayer": 5003, "consensusPort": 5004},
            "labels": {"zone": "zone-1", "udht/pod": format!("files-{number}")},
        });
        let request = Request::builder()
            .method(Method::PUT)
            .uri(&url)
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))?;
        let client = self.client.clone();
        self.seen.changes.borrow_mut().push(Change {
            writer: pod,
            sent: Instant::now(),
            seen: vec![None; self.urls.len()],
        });
        Ok(tokio::task::spawn_local(async move {
            let response = client.request(request).await;
            let response = response.with_context(|| format!("PUT {url}"))?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                bail!("PUT {url}: {status}: {}", String::from_utf8_lossy(&body));
            }
            Ok(())
        }))
    }

    /// Waits until all of these pods have all changes from this one on, or for so long; whether
    /// they have.
    pub(crate) async fn all_have(&self, from: usize, pods: &[usize], patience: Duration) -> bool {
        let mut first_missing = from;
        let all = async {
            loop {
                let news = self.seen.news.notified();
                let is_missing =
                    |change: &Change| pods.iter().any(|pod| change.seen[*pod].is_none());
                let missing = self.seen.changes.borrow()[first_missing..]
                    .iter()
                    .position(is_missing);
                match missing {
                    Some(place) => first_missing += place,
                    None => return,
                }
                news.await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

impl Seen {
    fn take(&self, pod: usize, line: &[u8], at: Instant) {
        let Ok(Event {
            kind: "put",
            peer: Some(peer),
        }) = serde_json::from_slice(line)
        else {
            return;
        };
        let number = peer.peer_id.strip_prefix(KEY);
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            return;
        };
        if let Some(change) = self.changes.borrow_mut().get_mut(number) {
            change.seen[pod].get_or_insert(at);
        }
        self.news.notify_one();
    }
}

/// A body that comes line by line.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<BytesMut>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// Runs it to its end, with all watches and writes that it begins, in this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}
