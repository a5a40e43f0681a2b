//! The port for health and metrics; and for what this pod's own container is told to do.

mod telling;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HOST, ORIGIN};
use hyper::{Method, StatusCode};
use peer_exchange::alarms::result_word;
use peer_exchange::{Own, Uptime};
use peer_table::contract::{Alarm, StateRequest};
use peer_table::table::Digest;
use serde::{Deserialize, Serialize};
use udht_tell::chain;
use udht_tell::loopback::is_loopback;

pub use self::telling::{ABOUT_PATH, LOG_FILTER_PATH, LOGS_PATH};
use crate::lifecycle::{Lifecycle, RemovalError};
use crate::listen::{Answered, Asked, Asker, answer, problem};
use crate::manager::ManagerError;
use crate::node::Node;
use crate::report::names;

/// Where the peer book is read.
pub const PEERS_PATH: &str = "/v1/peers";
/// Where this pod is told to hand over.
pub const HANDOVER_PATH: &str = "/v1/handover";
/// Where it is read which pods are gone, and said that they are.
pub const GONE_PATH: &str = "/v1/gone";
/// Whether the program runs.
pub const LIVE_PATH: &str = "/livez";
/// Whether the pod can do its work.
pub const READY_PATH: &str = "/readyz";

const METRICS_PATH: &str = "/metrics";
const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const PATHS: [&str; 9] = [
    LIVE_PATH,
    READY_PATH,
    METRICS_PATH,
    PEERS_PATH,
    GONE_PATH,
    HANDOVER_PATH,
    LOG_FILTER_PATH,
    LOGS_PATH,
    ABOUT_PATH,
];

/// Answers one request.
pub async fn answer_ops(node: Arc<Node>, lifecycle: Arc<Lifecycle>, request: Asked) -> Answered {
    let path = request.uri().path();
    if !PATHS.contains(&path) {
        let detail = format!("there are {}", PATHS.join(", "));
        return problem(StatusCode::NOT_FOUND, &detail);
    }
    if [LOG_FILTER_PATH, LOGS_PATH, ABOUT_PATH].contains(&path) {
        return telling::answer_telling(request).await;
    }
    let is_command = request.method() == Method::POST && [GONE_PATH, HANDOVER_PATH].contains(&path);
    if is_command {
        if let Err(refusal) = from_this_pod(&request) {
            return *refusal;
        }
    } else if request.method() != Method::GET || path == HANDOVER_PATH {
        return problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "this is not answered here: GET tells, and POST to hand over or to remove does",
        );
    }
    match path {
        READY_PATH => ready(&node).await,
        METRICS_PATH => metrics(&node).await,
        PEERS_PATH => peers(&node).await,
        GONE_PATH => gone(&lifecycle, is_command).await,
        HANDOVER_PATH => json(&lifecycle.handover.hand_over().await),
        _ => answer(StatusCode::OK, TEXT, "ok\n"),
    }
}

/// Whoever may look may not command: that is for a program in this pod. A page in a browser is none,
/// though what it says may come in through a forwarded port: it names its origin, or, where a foreign name
/// was made to lead here, that name.
fn from_this_pod(request: &Asked) -> Result<(), Box<Answered>> {
    let asker = request.extensions().get::<Asker>();
    let is_near = asker.is_some_and(|asker| asker.0.ip().to_canonical().is_loopback());
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let is_meant_for_us = hosts.all(|host| is_loopback(host.as_bytes()));
    if is_near && is_meant_for_us && !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let detail = "this is done only for programs in this pod: run udht-sync there";
    Err(Box::new(problem(StatusCode::FORBIDDEN, detail)))
}

/// Which pods are gone, and the removal of their records by hand.
async fn gone(lifecycle: &Lifecycle, is_command: bool) -> Answered {
    let Some(removal) = &lifecycle.removal else {
        let detail = "with a fixed list of peers nobody knows which pods are gone";
        return problem(StatusCode::CONFLICT, detail);
    };
    if !is_command {
        return json(&removal.view());
    }
    match removal.remove_by_hand().await {
        Ok(removed) => json(&removed),
        Err(error) => {
            let status = match &error {
                RemovalError::Blind => StatusCode::CONFLICT,
                RemovalError::Manager(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, &chain(&error))
        }
    }
}

fn json(value: &impl Serialize) -> Answered {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The readiness of a sidecar is the whole pod's: store open, table loaded.
async fn ready(node: &Node) -> Answered {
    match in_time(node, node.manager.ready()).await {
        Ok(()) => answer(StatusCode::OK, TEXT, "ready\n"),
        Err(problem) => *problem,
    }
}

/// What the manager answers, or why not.
async fn in_time<T>(
    node: &Node,
    asked: impl Future<Output = Result<T, ManagerError>>,
) -> Result<T, Box<Answered>> {
    let answered = answered(node, asked).await;
    answered.map_err(|detail| Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, &detail)))
}

/// What the manager answers, or in words why not.
async fn answered<T>(
    node: &Node,
    asked: impl Future<Output = Result<T, ManagerError>>,
) -> Result<T, String> {
    match tokio::time::timeout(node.bounds.scrape, asked).await {
        Ok(answered) => answered.map_err(|error| chain(&error)),
        Err(_) => Err("the manager does not answer in time".to_owned()),
    }
}

/// What sync tells of itself, and behind it what the manager does: nobody outside the pod reaches
/// that.
async fn metrics(node: &Node) -> Answered {
    let manager = node.manager.metrics().await;
    node.metrics.manager_up.set(i64::from(manager.is_ok()));
    observe_peers(node);
    node.metrics.observe_process();
    let mut text = match node.metrics.render() {
        Ok(text) => text,
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    match manager {
        Ok(manager) => text.push_str(&manager),
        Err(error) => tracing::debug!(error = chain(&error), "no metrics of the manager"),
    }
    answer(StatusCode::OK, METRICS, text)
}

fn observe_peers(node: &Node) {
    let now = node.uptime();
    let book = node.book();
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let gauges = &node.metrics.peers;
    gauges.known.set(gauge(book.known()));
    gauges.reachable.set(gauge(book.reachable()));
    // Without a certificate nobody can be reached, and no peer is blamed for it.
    let shut_out = node.is_without_credentials() && book.known() > 0;
    let isolated = shut_out || book.isolated(now, node.interval);
    gauges.isolated.set(i64::from(isolated));
    gauges.distinct_digests.set(gauge(book.distinct_digests()));
    let skews: Vec<_> = book.peers().filter_map(|(_, peer)| peer.skew_ms).collect();
    let skew = Skew::of(skews);
    gauges.clock_skew.set(skew.largest.as_secs_f64());
    gauges.clock_offset.set(skew.offset_seconds);
}

/// What the peers' clocks say of this machine's.
#[derive(Copy, Clone, PartialEq, Debug)]
struct Skew {
    /// The largest difference to one of them.
    largest: Duration,
    /// How far this clock is ahead of the middle one of theirs. Of two in the middle, the nearer
    /// one counts: with one clock wrong of three, the two others are to be right.
    offset_seconds: f64,
}

impl Skew {
    /// Of how far each peer's clock is ahead, in milliseconds.
    fn of(mut ahead_ms: Vec<i64>) -> Self {
        let largest_ms = ahead_ms.iter().map(|ahead| ahead.unsigned_abs()).max();
        ahead_ms.sort_unstable();
        let count = ahead_ms.len();
        let middle = ahead_ms.get(count.saturating_sub(1) / 2..=count / 2);
        let nearer = middle.and_then(|two| two.iter().min_by_key(|ahead| ahead.unsigned_abs()));
        let nearer_ms = nearer.copied().unwrap_or(0);
        let offset = Duration::from_millis(nearer_ms.unsigned_abs()).as_secs_f64();
        Self {
            largest: Duration::from_millis(largest_ms.unwrap_or(0)),
            offset_seconds: if nearer_ms > 0 { -offset } else { offset },
        }
    }
}

/// What is known of the peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerReport {
    /// Whether the manager answers.
    pub manager: bool,
    /// Why it does not, or cannot be worked with.
    #[serde(default)]
    pub manager_problem: Option<String>,
    /// What this sync and its manager are alarmed about, the worst first.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// The records of its table, tombstones included.
    pub records: Option<u64>,
    /// Each peer.
    pub peers: Vec<PeerView>,
}

/// What is known of one peer. Times are milliseconds before now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerView {
    /// Where it was found.
    pub address: String,
    /// Whether the address is this pod's own.
    pub is_self: bool,
    /// Whether the last news of it is good.
    pub reachable: bool,
    /// The `peer_id` of its pod's own record.
    pub peer_id: Option<String>,
    /// The name of its pod, where Kubernetes told of it.
    pub pod: Option<String>,
    /// Its store's id.
    pub store: Option<String>,
    /// When it was last talked to with success.
    pub last_ok_ms: Option<u64>,
    /// When it last talked to this pod.
    pub last_heard_ms: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure, by its word in `udht_exchanges_total`.
    pub last_error: Option<String>,
    /// Whether its table, when it last told, was the one that this pod holds now.
    pub equal: Option<bool>,
    /// How far its clock is ahead of this machine's, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The versions of the protocol that it understood when it was last met, as `MIN-MAX`.
    #[serde(default)]
    pub protocols: Option<String>,
}

async fn peers(node: &Node) -> Answered {
    let request = StateRequest::default();
    let state = answered(node, node.manager.state(&request)).await;
    let manager_problem = state.as_ref().err().cloned();
    let state = state.ok();
    let digest = state
        .as_ref()
        .and_then(|state| state.table(&node.table))
        .map(|table| Digest::from(table.digest));
    let now = node.uptime();
    let ago = |at: Option<Uptime>| {
        at.map(|at| u64::try_from(now.0.saturating_sub(at.0).as_millis()).unwrap_or(u64::MAX))
    };
    let pods = node.pods().borrow().clone();
    let pods = names(&pods);
    let view = |(address, peer): (&peer_exchange::Address, &peer_exchange::book::Peer)| PeerView {
        address: address.to_string(),
        is_self: peer.is_self,
        reachable: peer.is_reachable(),
        peer_id: peer.peer_id.as_ref().map(ToString::to_string),
        pod: pods.get(address).map(ToString::to_string),
        store: peer.store.as_ref().map(ToString::to_string),
        last_ok_ms: ago(peer.succeeded),
        last_heard_ms: ago(peer.heard),
        failures: peer.failures,
        last_error: peer.problem.map(result_word),
        equal: digest.and_then(|own| peer.digest.map(|(theirs, _)| own == theirs)),
        skew_ms: peer.skew_ms,
        protocols: peer.protocols.map(|versions| versions.to_string()),
    };
    let report = PeerReport {
        manager: state.is_some(),
        manager_problem,
        alarms: node.telling.alarms(),
        records: digest.map(|digest| digest.records),
        peers: node.book().peers().map(view).collect(),
    };
    json(&report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(ahead_ms: &[i64]) -> f64 {
        Skew::of(ahead_ms.to_vec()).offset_seconds
    }

    #[test]
    fn the_clock_that_is_wrong_is_told_from_those_that_are_right() {
        let wrong = Skew::of(vec![-10_000, -10_010]);
        assert_eq!(wrong.largest, Duration::from_millis(10_010));
        assert!((wrong.offset_seconds - 10.0).abs() < 1e-9);
        let right = Skew::of(vec![10_000, -10]);
        assert_eq!(right.largest, Duration::from_secs(10));
        assert!((right.offset_seconds - 0.01).abs() < 1e-9);
        assert!((offset(&[20, 10_000, 10]) + 0.02).abs() < 1e-9);
        assert!((offset(&[-40, 9_000, 9_000, -30]) - 0.03).abs() < 1e-9);
    }

    #[test]
    fn who_knows_no_clock_is_not_wrong() {
        let alone = Skew::of(Vec::new());
        assert_eq!(alone.largest, Duration::ZERO);
        assert!(alone.offset_seconds.abs() < 1e-9);
    }

    #[test]
    fn of_two_nobody_can_say_which_one_is_wrong() {
        assert!((offset(&[7_000]) + 7.0).abs() < 1e-9);
        assert!((offset(&[-7_000]) - 7.0).abs() < 1e-9);
    }
}
