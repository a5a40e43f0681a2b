//! A round: something of a pod is killed at some moment, comes back, and all pods are compared with
//! what was answered.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use udht_tests::http;
use udht_tests::pod::{Cluster, Part, Pod, StoreKind};
use udht_tests::process::PATIENCE;
use ureq::Agent;

use super::writers::{Writers, held};

/// Between two looks whether all tables are equal.
const PAUSE: Duration = Duration::from_millis(5);

/// What is killed.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Victim {
    Manager,
    Sync,
    Redis,
    /// All of a pod at once.
    Pod,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manager => "manager",
            Self::Sync => "sync",
            Self::Redis => "redis",
            Self::Pod => "pod",
        })
    }
}

/// The choices of a round.
pub(crate) struct Plan {
    pub(crate) victim: Victim,
    /// The number of the pod.
    pod: usize,
    /// So many writes to the pod are answered first,
    writes_before: u64,
    /// and then so much time passes, so that each moment of a write is met.
    moment: Duration,
    /// It stays away until so many writes to the other pods are answered.
    writes_meanwhile: u64,
    /// It is killed once more so long after it was begun.
    again: Option<Duration>,
    /// A pod is looked at before its sync runs: nobody can have brought back what it lost.
    alone: bool,
}

impl Plan {
    pub(crate) fn draw(random: &mut Rng, pods: usize, store: StoreKind) -> Self {
        let victims = [Victim::Manager, Victim::Sync, Victim::Pod, Victim::Redis];
        let kinds = match store {
            StoreKind::Embedded => &victims[..3],
            StoreKind::Redis => &victims,
        };
        let victim = kinds[random.usize(..kinds.len())];
        Self {
            victim,
            pod: random.usize(1..=pods),
            writes_before: random.u64(1..=60),
            moment: Duration::from_micros(random.u64(..2_000)),
            // Rarely so many that the others' managers lose patience with it.
            writes_meanwhile: match random.u64(..10) {
                0 => random.u64(500..=1_500),
                _ => random.u64(..80),
            },
            again: (random.u64(..10) < 3).then(|| Duration::from_micros(random.u64(..80_000))),
            alone: victim == Victim::Pod && random.bool(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.victim {
            Victim::Pod => write!(f, "pod {}", self.pod)?,
            part => write!(f, "{part} of pod {}", self.pod)?,
        }
        write!(
            f,
            " after {} writes and {} us, away for {} writes",
            self.writes_before,
            self.moment.as_micros(),
            self.writes_meanwhile
        )?;
        if let Some(again) = self.again {
            write!(f, ", again {} us after its start", again.as_micros())?;
        }
        if self.alone {
            write!(f, ", looked at alone")?;
        }
        Ok(())
    }
}

/// Where a round takes place.
pub(crate) struct Arena<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) writers: &'a Writers,
}

impl Arena<'_> {
    /// How long after the last start all tables were equal.
    pub(crate) fn play(&mut self, plan: &Plan) -> Result<Duration> {
        let writers = self.writers;
        let all = self.cluster.pods.iter().map(|pod| pod.number);
        let others: Vec<_> = all.filter(|number| *number != plan.pod).collect();
        writers.wait_for_more(plan.writes_before, &[plan.pod])?;
        sleep(plan.moment);
        let pod = self.cluster.pod(plan.pod);
        let parts: &[Part] = match plan.victim {
            Victim::Manager => &[Part::Manager],
            Victim::Sync => &[Part::Sync],
            Victim::Redis => &[Part::Redis],
            Victim::Pod => pod.parts(),
        };
        kill(pod, parts)?;
        writers.wait_for_more(plan.writes_meanwhile, &others)?;
        if let Some(again) = plan.again {
            parts.iter().try_for_each(|part| pod.begin(*part))?;
            sleep(again);
            kill(pod, parts)?;
        }
        if plan.alone {
            writers.pause()?;
        }
        for part in parts {
            if plan.alone && *part == Part::Sync {
                let held = held(&http::agent(), &pod.manager_url())?;
                writers.compare(&held, pod.number, Some(pod.number))?;
            }
            pod.begin(*part)?;
            pod.ready(*part)?;
        }
        let started = Instant::now();
        writers.resume();
        writers.wait_for_more(1, &[plan.pod])?;
        writers.pause()?;
        // Its own agent: connections of earlier rounds lead to what was killed.
        let agent = http::agent();
        self.wait_until_equal(&agent, started)?;
        let equal_after = started.elapsed();
        let mut found = BTreeMap::new();
        for pod in &self.cluster.pods {
            found = held(&agent, &pod.manager_url())?;
            writers.compare(&found, pod.number, None)?;
            never_opened_anew(&agent, pod)?;
        }
        writers.found(&found);
        writers.resume();
        Ok(equal_after)
    }

    fn wait_until_equal(&self, agent: &Agent, since: Instant) -> Result<()> {
        loop {
            let pods = self.cluster.pods.iter();
            // One that waits for its store does not answer yet.
            let digests: Vec<_> = pods.map(|pod| pod.digest(agent).ok()).collect();
            if digests[0].is_some() && digests.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "the tables differ: {digests:x?}"
            );
            sleep(PAUSE);
        }
    }
}

/// As nearly at once as one process can do it to others.
fn kill(pod: &mut Pod, parts: &[Part]) -> Result<()> {
    parts.iter().try_for_each(|part| pod.kill_part(*part))
}

/// Nothing that was killed here loses or changes a store, so no manager may think so.
fn never_opened_anew(agent: &Agent, pod: &Pod) -> Result<()> {
    let metrics = http::text(agent, &format!("{}/metrics", pod.manager_url()))?;
    let mut lines = metrics.lines();
    let anew =
        lines.find(|line| line.starts_with("udht_store_reopened_total{") && !line.ends_with(" 0"));
    ensure!(anew.is_none(), "pod {}: {anew:?}", pod.number);
    Ok(())
}
