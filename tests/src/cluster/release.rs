//! A release of the chart, and its pods.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::helm::{Helm, ROLLOUT};
use super::kubectl::Kubectl;
use super::reach::Reach;
use super::wait::until;

/// How long tables may take until they are equal: exchanges are rare once they failed for a while.
const EQUAL: Duration = Duration::from_secs(100);

/// A release that is installed, or about to be.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// The Helm that handles it.
    pub helm: Helm,
    /// Its namespace.
    pub kubectl: Kubectl,
}

/// A pod, as the API server tells of it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name, which the next of its place in the set has too.
    pub name: String,
    /// Its own for ever.
    pub uid: String,
    /// Its address; empty before it has one.
    pub ip: String,
    /// Where it runs; empty before that is known.
    pub node: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Its containers by name.
    pub containers: BTreeMap<String, Container>,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its id on its node.
    pub id: String,
    /// How often it was started anew.
    pub restarts: u64,
    /// Whether it is ready.
    pub ready: bool,
}

impl Pod {
    fn parse(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &pod["status"];
        let statuses = ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .filter_map(|list| status[list].as_array())
            .flatten();
        let containers = statuses.map(|container| {
            let id = text(&container["containerID"]);
            let id = id
                .rsplit_once("//")
                .map_or(id.clone(), |(_, id)| id.to_owned());
            let seen = Container {
                id,
                restarts: container["restartCount"].as_u64().unwrap_or(0),
                ready: container["ready"] == true,
            };
            (text(&container["name"]), seen)
        });
        let conditions = status["conditions"].as_array();
        Self {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            ip: text(&status["podIP"]),
            node: text(&pod["spec"]["nodeName"]),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|it| it["type"] == "Ready" && it["status"] == "True"),
            terminating: !pod["metadata"]["deletionTimestamp"].is_null(),
            containers: containers.collect(),
        }
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Result<&Container> {
        let found = self.containers.get(name);
        found.with_context(|| format!("pod {} has no container {name}", self.name))
    }
}

impl Release {
    /// The name of what belongs to it, as the chart makes it.
    pub fn fullname(&self) -> String {
        if self.name.contains("udht") {
            self.name.clone()
        } else {
            format!("{}-udht", self.name)
        }
    }

    /// What selects its pods.
    pub fn selector(&self) -> String {
        format!(
            "app.kubernetes.io/instance={},app.kubernetes.io/component=peer",
            self.name
        )
    }

    /// The name of its pod of this number, from 0.
    pub fn pod_name(&self, number: usize) -> String {
        format!("{}-{number}", self.fullname())
    }

    /// Its pods, by name.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        let list = self
            .kubectl
            .get(&format!("pods --selector={}", self.selector()))?;
        let items = list["items"].as_array().context("no list of pods")?;
        let mut pods: Vec<_> = items.iter().map(Pod::parse).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// Its pod of this number.
    pub fn pod(&self, number: usize) -> Result<Pod> {
        let name = self.pod_name(number);
        let pod = self.kubectl.get(&format!("pod {name}"))?;
        Ok(Pod::parse(&pod))
    }

    /// Waits until it has just these many pods and all are ready.
    pub fn wait_until_ready(&self, replicas: usize) -> Result<Vec<Pod>> {
        until(&format!("{replicas} pods are ready"), ROLLOUT, || {
            let pods = self.pods()?;
            let ready = pods.iter().filter(|pod| pod.ready && !pod.terminating);
            ensure!(
                ready.count() == replicas && pods.len() == replicas,
                "{}",
                pods.iter()
                    .map(|pod| format!(
                        "{} is {}ready{}",
                        pod.name,
                        if pod.ready { "" } else { "not " },
                        if pod.terminating { ", terminating" } else { "" }
                    ))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            Ok(pods)
        })
    }

    /// Sets how many pods it has, and waits until it has just these.
    pub fn scale(&self, replicas: usize) -> Result<Vec<Pod>> {
        let fullname = self.fullname();
        self.kubectl.say(&format!(
            "scale statefulset/{fullname} --replicas={replicas}"
        ))?;
        self.wait_until_ready(replicas)
    }

    /// The ways to these pods.
    pub fn reaches(&self, pods: &[Pod]) -> Vec<Reach> {
        pods.iter()
            .map(|pod| Reach::to(&self.kubectl, &pod.name))
            .collect()
    }

    /// Waits until the tables of these pods are equal; how many records they hold.
    pub fn wait_until_equal(&self, reaches: &mut [Reach]) -> Result<u64> {
        until("all tables are equal", EQUAL, || {
            let mut digests = Vec::new();
            for reach in &mut *reaches {
                digests.push(reach.digest()?);
            }
            let first = digests.first().context("no pod")?;
            if digests.iter().any(|digest| digest != first) {
                bail!("the tables differ (digest, records): {digests:x?}");
            }
            Ok(first.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_with_its_sidecars() {
        let pod = Pod::parse(&json!({
            "metadata": {"name": "udht-0", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "worker"},
            "status": {
                "podIP": "10.244.1.2",
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": [
                    {"name": "manager", "containerID": "containerd://abc", "restartCount": 2, "ready": true},
                ],
                "containerStatuses": [{"name": "sync", "restartCount": 0, "ready": false}],
            },
        }));
        assert!(pod.ready && pod.terminating);
        assert_eq!(pod.container("manager").unwrap().id, "abc");
        assert_eq!(pod.container("manager").unwrap().restarts, 2);
        assert!(!pod.container("sync").unwrap().ready);
        assert!(pod.container("redis").is_err());
    }
}
