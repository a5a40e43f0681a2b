//! Figures of what is asked of the Kubernetes API.

use prometheus::{IntCounter, IntCounterVec};

use super::register::Register;
use crate::kubernetes::client::RESULTS;

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

/// What is counted of the Kubernetes API. All is zero where it is not asked.
#[derive(Clone, Debug)]
pub struct KubernetesMetrics {
    requests: IntCounterVec,
    /// Tokens that were found renewed.
    pub token_changes: IntCounter,
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
        };
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
}
