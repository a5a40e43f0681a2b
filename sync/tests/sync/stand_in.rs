//! A stand-in for a manager: the calls that sync makes of one, over a real table whose records are
//! in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use futures_util::stream;
use peer_table::contract::{
    Batch, BatchBuilder, Bind, FeedPart, FingerprintPage, Leave, LeaveAnswer, MergeAnswer, Records,
    RecordsRequest, State, StateRequest, TableState, Tend, TendAnswer, fingerprints_from_bytes,
    fingerprints_to_bytes, merged_code,
};
use peer_table::feed::{Changed, FeedLimits, Revision, Via};
use peer_table::floors::Floors;
use peer_table::sketch::{self, Sketch};
use peer_table::table::{Digest, Limits, NewContent, Plan, Precondition, TableSpec};
use peer_table::{
    Binding, Clock, ClusterId, Contact, Content, Entry, Fingerprint, FingerprintKey, Key, OriginId,
    Reading, StoreId, Table, WallTime, peers,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use udht_sync::wall;

use crate::pod::soon;

/// What it tells Prometheus.
pub(crate) const METRICS: &str = "\
# HELP udht_records Live records held.
# TYPE udht_records gauge
udht_records{table=\"peers\"} 0
";

/// A stand-in for a manager.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    cluster: ClusterId,
    binding: Mutex<Option<Binding>>,
    store: StoreId,
    origin: OriginId,
    peer_id: Key,
    inner: Mutex<Inner>,
    revision: watch::Sender<Revision>,
    feeds: watch::Sender<usize>,
    contacts: watch::Sender<Vec<String>>,
    leaves: watch::Sender<Vec<bool>>,
    gone: watch::Sender<Vec<Key>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    clock: Clock,
    entries: BTreeMap<Key, Entry>,
}

fn empty_table(fingerprint_key: FingerprintKey) -> Table {
    Table::new(TableSpec {
        name: peers::table_name(),
        fingerprint_key,
        check_content: |_, _| Ok(()),
        limits: Limits::default(),
        sketch_symbols: Sketch::LEN,
        epoch: wall::random(),
        feed: FeedLimits::default(),
        // Of nobody, so that nothing counts as covered.
        floors: {
            let mut floors = Floors::new(OriginId::from_bytes(random_id()));
            floors.meet();
            floors
        },
    })
}

fn random_id() -> [u8; 16] {
    let halves = [wall::random().to_le_bytes(), wall::random().to_le_bytes()];
    halves.concat().try_into().unwrap()
}

impl StandIn {
    /// One with an empty table, on a free port.
    pub(crate) async fn start(cluster: &str) -> Self {
        Self::start_at(cluster, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(cluster: &str, address: SocketAddr) -> Self {
        let cluster: ClusterId = cluster.parse().unwrap();
        let fingerprint_key = FingerprintKey::of_cluster(&cluster);
        let origin = OriginId::from_bytes(random_id());
        let store = StoreId::from_bytes(random_id());
        let table = empty_table(fingerprint_key);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            cluster,
            binding: Mutex::default(),
            store,
            origin,
            peer_id: format!("peer-of-{store}").parse().unwrap(),
            revision: watch::Sender::new(table.feed().revision()),
            feeds: watch::Sender::new(0),
            contacts: watch::Sender::default(),
            leaves: watch::Sender::default(),
            gone: watch::Sender::default(),
            inner: Mutex::new(Inner {
                table,
                clock: Clock::new(origin, Reading::default(), Duration::from_secs(10)),
                entries: BTreeMap::new(),
            }),
            stop: stop.clone(),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/v1/sync/state", post(state))
            .route("/v1/sync/tend", post(tend))
            .route("/v1/sync/tables/peers/fingerprints", get(fingerprints))
            .route("/v1/sync/tables/peers/records", post(records))
            .route("/v1/sync/tables/peers/merge", post(merge))
            .route("/v1/sync/feed", get(feed))
            .route("/v1/peers/{id}/contact", post(contact))
            .route("/v1/sync/authority", post(bind))
            .route("/v1/peers", get(pod_records))
            .route("/v1/peers/{id}", delete(delete_record))
            .route("/v1/sync/leave", post(leave))
            .route("/readyz", get(async || ()))
            .route("/metrics", get(async || METRICS))
            .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
            .with_state(Arc::clone(&shared));
        let stopped = stop.clone().cancelled_owned();
        let server = axum::serve(listener, routes).with_graceful_shutdown(stopped);
        let task = tokio::spawn(async { server.await.unwrap() });
        Self {
            address,
            shared,
            stop,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn peer_id(&self) -> &Key {
        &self.shared.peer_id
    }

    /// Writes a record, as an application would.
    pub(crate) fn put(&self, key: &str, content: &str) {
        self.put_at(wall::now(), key, content);
    }

    /// Writes a record as if a minute ago.
    pub(crate) fn put_long_ago(&self, key: &str, content: &str) {
        let now = wall::now().as_millis();
        self.put_at(WallTime::from_millis(now - 60_000), key, content);
    }

    fn put_at(&self, now: WallTime, key: &str, content: &str) {
        let new = NewContent {
            content: Content::from(content.as_bytes()),
            contact: Contact::NEVER,
        };
        let write = |plan: &mut Plan<'_>| {
            let key = key.parse().unwrap();
            plan.put(&key, &Precondition::default(), new).unwrap();
        };
        self.shared.change(now, write);
    }

    pub(crate) fn delete(&self, key: &str) {
        self.shared.change(wall::now(), |plan| {
            let key = key.parse().unwrap();
            plan.delete(&key, &Precondition::default()).unwrap();
        });
    }

    /// What the live record of `key` says.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let inner = self.shared.inner.lock().unwrap();
        let content = inner.entries.get(key)?.content()?;
        Some(String::from_utf8(content.as_bytes().to_vec()).unwrap())
    }

    pub(crate) fn digest(&self) -> Digest {
        self.shared.inner.lock().unwrap().table.digest()
    }

    /// Waits until the record of `key` says `content`.
    pub(crate) async fn says(&self, key: &str, content: &str) {
        let mut revision = self.shared.revision.subscribe();
        let said = revision.wait_for(|_| self.get(key).as_deref() == Some(content));
        soon("the record arrives", said).await.unwrap();
    }

    /// Waits until its table has this digest.
    pub(crate) async fn becomes(&self, digest: Digest) {
        let mut revision = self.shared.revision.subscribe();
        let equal = revision.wait_for(|_| self.digest() == digest);
        soon("the tables become equal", equal).await.unwrap();
    }

    /// Waits until its feed is followed.
    pub(crate) async fn followed(&self) {
        let mut feeds = self.shared.feeds.subscribe();
        let open = feeds.wait_for(|open| *open > 0);
        soon("the feed is followed", open).await.unwrap();
    }

    /// Waits until the contact of `peer` was moved.
    pub(crate) async fn contacted(&self, peer: &str) {
        let mut contacts = self.shared.contacts.subscribe();
        let moved = contacts.wait_for(|moved| moved.iter().any(|moved| moved == peer));
        soon("a contact is moved", moved).await.unwrap();
    }

    pub(crate) fn contacts(&self) -> Vec<String> {
        self.shared.contacts.borrow().clone()
    }

    /// The cluster that it is of, and the authority that it is bound to.
    pub(crate) fn cluster(&self) -> String {
        self.shared.state(0).cluster
    }

    /// As if its store had been bound to nothing: emptied, or another one.
    pub(crate) fn unbind(&self) {
        *self.shared.binding.lock().unwrap() = None;
    }

    /// Binds it, as a sync of another release did.
    pub(crate) fn bind_to(&self, binding: Binding) {
        self.shared.rebuild(binding.fingerprint_key.clone());
        *self.shared.binding.lock().unwrap() = Some(binding);
    }

    /// Waits until the record of `key` is deleted, or was never there.
    pub(crate) async fn lacks(&self, key: &str) {
        let mut revision = self.shared.revision.subscribe();
        let deleted = revision.wait_for(|_| self.get(key).is_none());
        soon("the record is deleted", deleted).await.unwrap();
    }

    /// Writes the record of a pod.
    pub(crate) fn put_pod(&self, key: &str, uid: &str) {
        self.put(key, &format!("{OF_POD}{uid}"));
    }

    /// The records of pods whose stores it was told to be gone with them.
    pub(crate) fn gone(&self) -> Vec<Key> {
        self.shared.gone.borrow().clone()
    }

    /// The leaves it was told of, each with whether it is for good.
    pub(crate) fn leaves(&self) -> Vec<bool> {
        self.shared.leaves.borrow().clone()
    }

    /// Ends it; its port is free then.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        soon("the stand-in ends", self.task).await.unwrap();
    }
}

impl Shared {
    fn change<T>(&self, now: WallTime, change: impl FnOnce(&mut Plan<'_>) -> T) -> T {
        let mut inner = self.inner.lock().unwrap();
        let Inner {
            table,
            clock,
            entries,
        } = &mut *inner;
        let mut plan = table.plan(clock, now, entries);
        let result = change(&mut plan);
        let changes = plan.finish();
        entries.extend((*changes.entries).clone());
        table.apply(changes);
        let revision = table.feed().revision();
        drop(inner);
        self.revision.send_replace(revision);
        result
    }

    /// Makes the table anew under this key of fingerprints.
    fn rebuild(&self, key: FingerprintKey) {
        let entries = {
            let mut inner = self.inner.lock().unwrap();
            inner.table = empty_table(key);
            std::mem::take(&mut inner.entries)
        };
        self.change(wall::now(), |plan| {
            for (key, entry) in entries {
                plan.merge(&key, entry, Via::Exchange, None);
            }
        });
    }

    fn state(&self, symbols: usize) -> State {
        let binding = self.binding.lock().unwrap().clone();
        let (cluster, key, authority) = if let Some(binding) = binding {
            let authority = binding.authority.as_bytes().to_vec();
            let cluster = binding.cluster(&self.cluster).unwrap();
            (cluster, binding.fingerprint_key.check(), authority)
        } else {
            let key = FingerprintKey::of_cluster(&self.cluster);
            (self.cluster.clone(), key.check(), Vec::new())
        };
        let inner = self.inner.lock().unwrap();
        let mut encoded = Vec::new();
        sketch::encode(inner.table.sketch().symbols(0..symbols), &mut encoded);
        State {
            cluster: cluster.to_string(),
            key_check: key,
            store: self.store.as_bytes().to_vec(),
            origin: self.origin.as_bytes().to_vec(),
            peer_id: self.peer_id.to_string(),
            authority,
            tables: vec![TableState {
                name: inner.table.name().to_string(),
                digest: inner.table.digest().into(),
                symbols: encoded,
            }],
            // It belongs, and knows of no other replica than its partner does.
            has_met: true,
            ..State::default()
        }
    }
}

type Asked = Query<BTreeMap<String, String>>;

fn number<T: std::str::FromStr>(asked: &Asked, name: &str) -> Option<T> {
    asked.get(name)?.parse().ok()
}

async fn state(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Vec<u8> {
    let request = StateRequest::decode(body).unwrap();
    let symbols = usize::try_from(request.symbols).unwrap();
    shared.state(symbols).encode_to_vec()
}

async fn tend(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Vec<u8> {
    let evidence = Tend::decode(body).unwrap().read().unwrap();
    shared.gone.send_modify(|gone| gone.extend(evidence.gone));
    TendAnswer::default().encode_to_vec()
}

async fn bind(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Response {
    let (wanted, adopts) = Bind::decode(body).unwrap().into_parts().unwrap();
    let held = shared.binding.lock().unwrap().clone();
    match held {
        Some(held) if held == wanted => {}
        Some(held) if !adopts.contains(&held.authority) => {
            return (StatusCode::CONFLICT, format!("bound to {}", held.authority)).into_response();
        }
        _ => {
            shared.rebuild(wanted.fingerprint_key.clone());
            *shared.binding.lock().unwrap() = Some(wanted);
        }
    }
    shared.state(0).encode_to_vec().into_response()
}

async fn fingerprints(Extract(shared): Extract<Arc<Shared>>, asked: Asked) -> Vec<u8> {
    let from = Fingerprint(number(&asked, "from").unwrap());
    let limit: usize = number(&asked, "limit").unwrap();
    let inner = shared.inner.lock().unwrap();
    let mut page: Vec<_> = inner.table.fingerprints_from(from, limit + 1).collect();
    let complete = page.len() <= limit;
    page.truncate(limit);
    let fingerprints = fingerprints_to_bytes(page);
    FingerprintPage {
        fingerprints,
        complete,
        digest: Some(inner.table.digest().into()),
    }
    .encode_to_vec()
}

async fn records(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Vec<u8> {
    let request = RecordsRequest::decode(body).unwrap();
    let wanted = fingerprints_from_bytes(&request.fingerprints).unwrap();
    let inner = shared.inner.lock().unwrap();
    let mut batch = BatchBuilder::new(inner.table.name());
    let mut dealt_with = 0;
    for fingerprint in wanted {
        if batch.has_no_room_for(1) {
            break;
        }
        dealt_with += 1;
        if let Some(key) = inner.table.key_of(fingerprint) {
            batch.add(key, &inner.entries[key]);
        }
    }
    let batch = batch.finish();
    Records { batch, dealt_with }.encode_to_vec()
}

async fn merge(Extract(shared): Extract<Arc<Shared>>, asked: Asked, body: Bytes) -> Vec<u8> {
    let via = match asked["via"].as_str() {
        "push" => Via::Push,
        "exchange" => Via::Exchange,
        other => panic!("via {other}"),
    };
    asked["from"].parse::<StoreId>().unwrap();
    let records = Batch::decode(body).unwrap().into_records().unwrap();
    let merged: Vec<_> = shared.change(wall::now(), |plan| {
        let merge = |(key, entry)| plan.merge(&key, entry, via, None);
        records.into_iter().map(merge).collect()
    });
    let outcomes = merged.into_iter().map(merged_code).collect();
    let answers = None;
    MergeAnswer { outcomes, answers }.encode_to_vec()
}

async fn contact(Extract(shared): Extract<Arc<Shared>>, Path(id): Path<String>) -> StatusCode {
    let known = shared
        .inner
        .lock()
        .unwrap()
        .entries
        .contains_key(id.as_str());
    shared.contacts.send_modify(|contacts| contacts.push(id));
    if known {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

/// How the content of a pod's own record begins; behind it is the UID.
const OF_POD: &str = "pod:";

fn etag(entry: &Entry) -> String {
    format!("\"{:?}\"", entry.version)
}

async fn pod_records(Extract(shared): Extract<Arc<Shared>>, asked: Asked) -> String {
    assert_eq!(asked["label"], peers::LABEL_POD_UID);
    let inner = shared.inner.lock().unwrap();
    let records = inner.entries.iter().filter_map(|(key, entry)| {
        let content = std::str::from_utf8(entry.content()?.as_bytes()).ok()?;
        let labels = [(peers::LABEL_POD_UID, content.strip_prefix(OF_POD)?)];
        Some(serde_json::json!({
            "peer_id": key.to_string(),
            "labels": BTreeMap::from(labels),
            "version": etag(entry).trim_matches('"'),
        }))
    });
    serde_json::json!({ "peers": records.collect::<Vec<_>>() }).to_string()
}

async fn delete_record(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    let look = |entry: &Entry| {
        let is_live = entry.content().is_some();
        (is_live, headers["if-match"] == etag(entry))
    };
    let held = shared
        .inner
        .lock()
        .unwrap()
        .entries
        .get(id.as_str())
        .map(look);
    match held {
        Some((true, true)) => {
            shared.change(wall::now(), |plan| {
                let key = id.parse().unwrap();
                plan.delete(&key, &Precondition::default()).unwrap();
            });
            StatusCode::NO_CONTENT
        }
        Some((true, false)) => StatusCode::PRECONDITION_FAILED,
        _ => StatusCode::NOT_FOUND,
    }
}

async fn leave(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> Vec<u8> {
    let leave = Leave::decode(body).unwrap();
    shared
        .leaves
        .send_modify(|leaves| leaves.push(leave.for_good));
    let record_deleted = false;
    LeaveAnswer { record_deleted }.encode_to_vec()
}

async fn feed(Extract(shared): Extract<Arc<Shared>>, asked: Asked) -> Response {
    let revisions = shared.revision.subscribe();
    let at = match asked.get("since") {
        Some(since) => since.parse().unwrap(),
        None => *revisions.borrow(),
    };
    let known = shared.inner.lock().unwrap().table.feed().since(at, 1);
    if known.is_err() {
        return StatusCode::GONE.into_response();
    }
    shared.feeds.send_modify(|open| *open += 1);
    let feed = Feed {
        at,
        begun: false,
        revisions,
        open: Open(shared),
    };
    Body::from_stream(stream::unfold(feed, |mut feed| async {
        let part = feed.next().await?;
        let bytes = part.encode_length_delimited_to_vec();
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), feed))
    }))
    .into_response()
}

struct Feed {
    at: Revision,
    begun: bool,
    revisions: watch::Receiver<Revision>,
    open: Open,
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.feeds.send_modify(|open| *open -= 1);
    }
}

impl Feed {
    async fn next(&mut self) -> Option<FeedPart> {
        loop {
            let begun = std::mem::replace(&mut self.begun, true);
            // A table that was made anew has a feed of its own.
            let fresh = self.changes()?;
            if !begun || !fresh.is_empty() {
                let name = peers::table_name();
                let batch = (!fresh.is_empty()).then(|| Batch::new(&name, fresh));
                let revision = self.at.to_string();
                let trace = String::new();
                return Some(FeedPart {
                    revision,
                    batch,
                    trace,
                });
            }
            tokio::select! {
                () = self.open.0.stop.cancelled() => return None,
                changed = self.revisions.changed() => changed.ok()?,
            }
        }
    }

    /// What was not told yet; `None` if that cannot be told any more.
    fn changes(&mut self) -> Option<Vec<(Key, Entry)>> {
        let inner = self.open.0.inner.lock().unwrap();
        let changes = inner.table.feed().since(self.at, 256).ok()?;
        self.at = changes.last().map_or(self.at, |(revision, _)| *revision);
        let fresh = changes
            .into_iter()
            .filter(|(_, change)| change.via == Via::Local && change.what == Changed::Body)
            .map(|(_, change)| (change.key.clone(), change.entry.clone()));
        Some(fresh.collect())
    }
}
