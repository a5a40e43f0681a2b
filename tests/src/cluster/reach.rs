//! A pod's manager and sync, as they answer on its loopback: through `kubectl port-forward`.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::Agent;

use super::forward::Forward;
use super::kubectl::Kubectl;
use super::trickle::Way;
use crate::http::{self, Answer};
use crate::pod::{MANAGER_PORT, OPS_PORT};

/// How long a request through the API server may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The way to one pod. It breaks when the pod goes, and is made anew by the next request.
#[derive(Debug)]
pub struct Reach {
    kubectl: Kubectl,
    pod: String,
    agent: Agent,
    forward: Option<Forward>,
}

impl Reach {
    /// The way to the pod of this name.
    pub fn to(kubectl: &Kubectl, pod: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER))
            .build();
        Self {
            kubectl: kubectl.clone(),
            pod: pod.to_owned(),
            agent: agent.into(),
            forward: None,
        }
    }

    /// The name of the pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// GET of a path of the manager.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.through(|agent, forward| http::get(agent, &manager(forward, path)))
    }

    /// PUT to a path of the manager.
    pub fn put(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.through(|agent, forward| http::put(agent, &manager(forward, path), body))
    }

    /// DELETE of a path of the manager.
    pub fn delete(&mut self, path: &str) -> Result<Answer> {
        self.through(|agent, forward| http::delete(agent, &manager(forward, path)))
    }

    /// All records of the manager that pass this filter (`label=K=V`, or nothing).
    pub fn records(&mut self, filter: &str) -> Result<Vec<Value>> {
        http::pages(|path| self.get(path), filter)
    }

    /// The digest of the manager's table of peers, and how many records that has.
    pub fn digest(&mut self) -> Result<(u64, u64)> {
        self.through(|agent, forward| {
            let state = http::state(agent, &manager(forward, ""))?;
            let table = state.tables.first().context("a manager without a table")?;
            Ok((table.digest.sum, table.digest.records))
        })
    }

    /// The figures of both programs.
    pub fn metrics(&mut self) -> Result<Metrics> {
        self.through(|agent, forward| {
            let url = forward.url(OPS_PORT, "/metrics");
            Ok(Metrics::new(http::text(agent, &url)?))
        })
    }

    /// What the sync knows of its peers.
    pub fn peers(&mut self) -> Result<Value> {
        self.through(|agent, forward| {
            let url = forward.url(OPS_PORT, "/v1/peers");
            http::get(agent, &url)?.ok()
        })
    }

    /// Lets the next request make the way anew: the pod of this name may be another by now.
    pub fn forget(&mut self) {
        self.forward = None;
    }

    fn through<T>(&mut self, call: impl FnOnce(&Agent, &Forward) -> Result<T>) -> Result<T> {
        let forward = if let Some(forward) = self.forward.take() {
            forward
        } else {
            let pod = format!("pod/{}", self.pod);
            self.kubectl.forward(&pod, &[MANAGER_PORT, OPS_PORT])?
        };
        let said = call(&self.agent, &forward).with_context(|| format!("pod {}", self.pod));
        if said.is_ok() {
            self.forward = Some(forward);
        }
        said
    }
}

impl Way for Reach {
    fn pod(&self) -> &str {
        Self::pod(self)
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<Answer> {
        Self::put(self, path, body)
    }

    fn delete(&mut self, path: &str) -> Result<Answer> {
        Self::delete(self, path)
    }

    fn records(&mut self, filter: &str) -> Result<Vec<Value>> {
        Self::records(self, filter)
    }

    fn forget(&mut self) {
        Self::forget(self);
    }
}

fn manager(forward: &Forward, path: &str) -> String {
    forward.url(MANAGER_PORT, path)
}

/// Figures in Prometheus' text format.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// These figures.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of this name that have each of these labels (`reason="cluster"`);
    /// `None` where there is no such series.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (set, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has_all = labels.iter().all(|label| set.contains(label));
            has_all.then(|| value.trim().parse::<f64>().ok()).flatten()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_figure_is_of_its_own_series_alone() {
        let metrics = Metrics(
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\nab 9\nplain 5\n".to_owned(),
        );
        assert_eq!(metrics.sum("a", &[]), Some(7.0));
        assert_eq!(metrics.sum("a", &["x=\"1\""]), Some(3.0));
        assert_eq!(metrics.sum("a", &["x=\"3\""]), None);
        assert_eq!(metrics.sum("plain", &[]), Some(5.0));
    }
}
