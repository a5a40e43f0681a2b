//! Figures of what is asked of the Kubernetes API.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::register::Register;
use crate::kubernetes::client::RESULTS;
use crate::wall;

/// The requests that are made, as a Role names them.
const REQUESTS: [Request; 5] = [
    Request::new("endpointslices", "list"),
    Request::new("endpointslices", "watch"),
    Request::new("secrets", "get"),
    Request::new("secrets", "update"),
    Request::new("secrets", "watch"),
];

/// What a request is about.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Request {
    resource: &'static str,
    verb: &'static str,
}

impl Request {
    const fn new(resource: &'static str, verb: &'static str) -> Self {
        Self { resource, verb }
    }

    /// What is asked of a resource; all that is never asked is one: no path makes a series.
    pub fn known(resource: &str, verb: &str) -> Self {
        let is_known = |known: &&Self| known.resource == resource && known.verb == verb;
        let known = REQUESTS.iter().find(is_known).copied();
        known.unwrap_or(Self::new("other", "other"))
    }
}

/// How a watch of the pods ended, where the next one may go on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WatchEnd {
    /// At its end, as every watch does after some minutes.
    Ended,
    /// Nothing came any more.
    Silent,
    /// The connection broke.
    Broken,
    /// The API server has forgotten where it was: a list begins anew.
    Gone,
}

impl WatchEnd {
    const ALL: [Self; 4] = [Self::Ended, Self::Silent, Self::Broken, Self::Gone];

    /// The word for it in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Broken => "broken",
            Self::Gone => "gone",
        }
    }
}

/// How many pods there are, by what they are to this one.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct PodCounts {
    /// Listed, and not told to end.
    pub listed: usize,
    /// Told to end, and listed for the last time.
    pub terminating: usize,
    /// More than there is room for.
    pub left_out: usize,
}

/// What is counted of the Kubernetes API. All is zero where it is not asked.
#[derive(Clone, Debug)]
pub struct KubernetesMetrics {
    requests: IntCounterVec,
    /// Tokens that were found renewed.
    pub token_changes: IntCounter,
    /// Of no label, so that there is none until the pods are followed: where they come from a fixed
    /// list, no alarm is to find a 0.
    up: IntGaugeVec,
    last_answer: IntGauge,
    pods: IntGaugeVec,
    slices: IntGauge,
    watches_ended: IntCounterVec,
    /// Pods that are no longer listed and kept in use all the same.
    pub held: IntGauge,
}

impl KubernetesMetrics {
    pub(super) fn new(register: &Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            requests: register.counters(
                "udht_kubernetes_requests_total",
                "Requests to the Kubernetes API, by how the answer began; a watch is one request.",
                &["resource", "verb", "result"],
            )?,
            token_changes: register.counter(
                "udht_kubernetes_token_changes_total",
                "How often this pod's token for the Kubernetes API was found renewed.",
            )?,
            up: register.gauges(
                "udht_kubernetes_up",
                "1 while the pods of the service are followed; absent where nobody follows them.",
                &[],
            )?,
            last_answer: register.gauge(
                "udht_kubernetes_last_answer_timestamp_seconds",
                "When the Kubernetes API last told of the pods, in seconds of the Unix epoch.",
            )?,
            pods: register.gauges(
                "udht_kubernetes_pods",
                "Pods that the service's endpoints name, by state.",
                &["state"],
            )?,
            slices: register.gauge(
                "udht_kubernetes_slices",
                "EndpointSlices of the service, of both families of addresses.",
            )?,
            watches_ended: register.counters(
                "udht_kubernetes_watches_ended_total",
                "Watches of the pods that ended, by how; the next one tells whether all is well.",
                &["reason"],
            )?,
            held: register.gauge(
                "udht_kubernetes_held_pods",
                "Pods that vanished from the endpoints, more than half at once, and stay in use.",
            )?,
        };
        metrics.counted(PodCounts::default(), 0);
        for end in WatchEnd::ALL {
            metrics.watches_ended.with_label_values(&[end.word()]);
        }
        for Request { resource, verb } in REQUESTS {
            for result in RESULTS {
                metrics
                    .requests
                    .with_label_values(&[resource, verb, result]);
            }
        }
        Ok(metrics)
    }

    /// Counts a request.
    pub fn requested(&self, request: Request, result: &'static str) {
        let labels = [request.resource, request.verb, result];
        self.requests.with_label_values(&labels).inc();
    }

    /// Notes whether the pods are followed.
    pub fn up(&self, is_up: bool) {
        self.up.with_label_values::<&str>(&[]).set(i64::from(is_up));
    }

    /// Notes that the API told of the pods just now.
    pub fn heard(&self) {
        let now = wall::now().as_millis() / 1_000;
        self.last_answer.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Counts the end of a watch.
    pub fn watch_ended(&self, end: WatchEnd) {
        self.watches_ended.with_label_values(&[end.word()]).inc();
    }

    /// Notes how many pods there are, and how many slices they stand in.
    pub fn counted(&self, pods: PodCounts, slices: usize) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let PodCounts {
            listed,
            terminating,
            left_out,
        } = pods;
        for (state, count) in [
            ("listed", listed),
            ("terminating", terminating),
            ("left_out", left_out),
        ] {
            self.pods.with_label_values(&[state]).set(gauge(count));
        }
        self.slices.set(gauge(slices));
    }
}
