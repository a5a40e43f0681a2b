//! What all steps share: the cluster, the release they work on, and the way they tell what they saw.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use udht_tests::cluster::helm::Helm;
use udht_tests::cluster::kubectl::Kubectl;
use udht_tests::cluster::nodes::Nodes;
use udht_tests::cluster::reach::Reach;
use udht_tests::cluster::release::{Pod, Release};
use udht_tests::cluster::wait::until;

use crate::Arguments;

/// The pods of the release between steps.
pub(crate) const REPLICAS: usize = 3;

/// How long a pod must be gone, so that the others remove its record.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(15);

/// How long old and new authority are both trusted.
pub(crate) const ROTATION_OVERLAP: Duration = Duration::from_secs(20);

/// How long a change may take to be seen.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The cluster, and what is installed there.
pub(crate) struct World {
    pub(crate) arguments: Arguments,
    pub(crate) nodes: Nodes,
    /// The release that the steps work on.
    pub(crate) release: Release,
    installed: bool,
    started: Instant,
    /// What is told beside others, until it is all told at once.
    told: Option<RefCell<String>>,
}

impl World {
    /// The cluster as it is found, without what an earlier run may have left, and with the namespace.
    pub(crate) fn prepare(arguments: &Arguments) -> Result<Self> {
        let nodes = Nodes::of_cluster(&arguments.cluster)?;
        nodes.mend()?;
        let context = format!("kind-{}", arguments.cluster);
        let kubectl = Kubectl::new(&context, &arguments.namespace);
        until("the API server is ready", Duration::from_mins(2), || {
            kubectl.say("get --raw /readyz")
        })?;
        ensure!(
            arguments.chart.join("Chart.yaml").is_file(),
            "no chart at {}: run it at the top of the repository",
            arguments.chart.display()
        );
        let helm = Helm::new(
            &arguments.helm,
            &context,
            &arguments.namespace,
            &arguments.chart,
        )
        .with_values(&arguments.values);
        let world = Self {
            arguments: arguments.clone(),
            nodes,
            release: Release {
                name: "udht".to_owned(),
                helm,
                kubectl,
            },
            installed: false,
            started: Instant::now(),
            told: None,
        };
        world.remove_namespace()?;
        world.make_namespace()?;
        Ok(world)
    }

    /// The same cluster and release, for steps that run while others do: it tells all at the end.
    pub(crate) fn beside_this(&self) -> Self {
        Self {
            arguments: self.arguments.clone(),
            nodes: self.nodes.clone(),
            release: self.release.clone(),
            installed: true,
            started: self.started,
            told: Some(RefCell::default()),
        }
    }

    /// What was told beside others.
    pub(crate) fn told(&self) -> String {
        let told = self.told.as_ref();
        told.map_or_else(String::new, |told| told.borrow().clone())
    }

    fn make_namespace(&self) -> Result<()> {
        let name = self.release.kubectl.namespace();
        self.release.kubectl.apply(&format!(
            r"
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
"
        ))?;
        self.deny_all()
    }

    /// Denies all traffic of the namespace that no other policy allows.
    fn deny_all(&self) -> Result<()> {
        self.release.kubectl.apply(
            r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
",
        )
    }

    /// Takes all policies away for as long as `look` looks: of the namespace and of its releases.
    pub(crate) fn without_policies<T>(&self, look: impl FnOnce() -> Result<T>) -> Result<T> {
        let kubectl = &self.release.kubectl;
        let policies = kubectl.run(["get", "networkpolicies", "--output=json"]);
        let mut policies: serde_json::Value = serde_json::from_str(&policies.output()?)?;
        for policy in policies["items"].as_array_mut().into_iter().flatten() {
            for field in [
                "resourceVersion",
                "uid",
                "creationTimestamp",
                "managedFields",
            ] {
                policy["metadata"][field] = serde_json::Value::Null;
            }
        }
        kubectl.say("delete networkpolicies --all")?;
        let seen = look();
        kubectl
            .run(["create", "--filename=-"])
            .input(policies.to_string())
            .output()?;
        seen
    }

    fn remove_namespace(&self) -> Result<()> {
        let namespace = self.release.kubectl.namespace();
        self.release
            .kubectl
            .run([
                "delete",
                "namespace",
                namespace,
                "--ignore-not-found",
                "--timeout=90s",
            ])
            .within(Duration::from_secs(100))
            .output()?;
        Ok(())
    }

    /// The values of the release, and more of the same form under other keys.
    pub(crate) fn values(&self, more: &str) -> String {
        let tag = &self.arguments.image_tag;
        let redis = &self.arguments.redis_image;
        let (repository, redis_tag) = redis.rsplit_once(':').unwrap_or((redis, "latest"));
        let gone_after = GONE_AFTER.as_secs();
        let overlap = ROTATION_OVERLAP.as_secs();
        format!(
            r#"
image: {{tag: "{tag}"}}
redis: {{image: {{repository: "{repository}", tag: "{redis_tag}"}}}}
peer: {{ports: {{userSync: 5001, fileSync: 5002}}, labels: {{zone: a}}}}
sync: {{goneAfter: {gone_after}s}}
tls: {{rotationOverlap: {overlap}s}}
networkPolicy:
  opsFrom:
    - podSelector: {{matchLabels: {{role: scraper}}}}
{more}
"#
        )
    }

    /// Installs the release; how long it took until all was ready.
    pub(crate) fn install(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let values = self.values("");
        self.release.helm.install(&self.release.name, &values)?;
        self.installed = true;
        Ok(begun.elapsed())
    }

    /// The pods of the release, at rest: installed where it is not yet, this many, all ready.
    pub(crate) fn pods(&mut self, replicas: usize) -> Result<Vec<Pod>> {
        if !self.installed {
            self.install()?;
        }
        self.release.scale(replicas)
    }

    /// The pods of the release at rest, as many as there are between steps, with the ways to them.
    pub(crate) fn at_rest(&mut self) -> Result<(Vec<Pod>, Vec<Reach>)> {
        let pods = self.pods(REPLICAS)?;
        let mut reaches = self.release.reaches(&pods);
        self.release.wait_until_equal(&mut reaches)?;
        Ok((pods, reaches))
    }

    /// Another release of the chart in the same namespace, by the second Helm.
    pub(crate) fn beside(&self, name: &str) -> Release {
        let context = format!("kind-{}", self.arguments.cluster);
        Release {
            name: name.to_owned(),
            helm: Helm::new(
                &self.arguments.helm_second,
                &context,
                self.release.kubectl.namespace(),
                &self.arguments.chart,
            )
            .with_values(&self.arguments.values),
            kubectl: self.release.kubectl.clone(),
        }
    }

    /// Begins to tell of a step.
    pub(crate) fn headline(&self, name: &str, sentence: &str) {
        self.line(&format!("\n== {name}: {sentence}"));
    }

    /// Tells what was seen, and when.
    pub(crate) fn saw(&self, what: &str) {
        let at = self.started.elapsed().as_secs_f64();
        self.line(&format!("  {at:6.1} s  {what}"));
    }

    /// Tells this.
    pub(crate) fn line(&self, text: &str) {
        match &self.told {
            Some(told) => {
                let mut told = told.borrow_mut();
                told.push_str(text);
                told.push('\n');
            }
            // Nobody may be listening any more.
            None => drop(writeln!(io::stdout(), "{text}")),
        }
    }

    /// Shows pods, events and logs, for who has to find out what went wrong.
    pub(crate) fn tell_how_it_stands(&self) {
        let kubectl = &self.release.kubectl;
        let limit = Duration::from_secs(20);
        let show = |words: &str| {
            let said = kubectl
                .run(words.split_whitespace())
                .within(limit)
                .outcome();
            let said = said.map_or_else(|error| format!("{error:#}"), |outcome| outcome.said());
            self.line(&format!("\n$ kubectl {words}\n{}", said.trim_end()));
        };
        self.line("\n== how it stands");
        show("get nodes,pods,endpointslices,persistentvolumeclaims,secrets --output=wide");
        show("get events --sort-by=.lastTimestamp");
        for pod in self.release.pods().unwrap_or_default() {
            for container in pod.containers.keys() {
                show(&format!("logs {} -c {container} --tail=20", pod.name));
                if pod.containers[container].restarts > 0 {
                    show(&format!(
                        "logs {} -c {container} --tail=20 --previous",
                        pod.name
                    ));
                }
            }
        }
    }

    /// Undoes all that was done to the cluster.
    pub(crate) fn clean_up(&mut self, keep: bool) -> Result<()> {
        self.nodes.mend().context("mend the nodes")?;
        if keep {
            self.line(&format!(
                "\nkept: kubectl --context kind-{} -n {} get pods",
                self.arguments.cluster,
                self.release.kubectl.namespace()
            ));
            return Ok(());
        }
        until("the API server answers", Duration::from_mins(1), || {
            self.release.kubectl.say("get --raw /readyz")
        })?;
        self.remove_namespace()
    }
}

/// The nodes of these pods.
pub(crate) fn nodes_of(pods: &[Pod]) -> BTreeSet<&str> {
    pods.iter().map(|pod| pod.node.as_str()).collect()
}

/// A record as an application writes it.
pub(crate) fn record(name: &str) -> serde_json::Value {
    serde_json::json!({"name": name, "ip": "10.0.0.1", "ports": {"userSync": 5001}})
}

/// Waits until this record's status is `status` in each of these pods.
pub(crate) fn wait_for_status(reaches: &mut [Reach], key: &str, status: u16) -> Result<()> {
    until(
        &format!("{key} is answered with {status} in each pod"),
        SOON,
        || {
            for reach in &mut *reaches {
                let seen = reach.get(&format!("/v1/peers/{key}"))?.status;
                ensure!(seen == status, "{}: {seen}", reach.pod());
            }
            Ok(())
        },
    )
}
