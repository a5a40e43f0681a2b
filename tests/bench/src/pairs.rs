//! Pairs of a manager and a sync as real processes, each pod on a loopback address of its own, with
//! its store in a file; and what they say and use.
//!
//! All of them share the processors, and the disk that their stores are synced to, with one another
//! and with who measures: what fifty nodes would do at once is done here one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peer_table::peers::Peer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use udht_tests::http;
use udht_tests::pod::{Cluster, ClusterOptions, Pod};
use ureq::Agent;

use crate::records::Records;

/// The cluster id of all.
pub(crate) const CLUSTER: &str = "bench";
/// What a certificate of it bears.
const NAME: &str = "bench.udht.internal";
/// How long tables may take to become equal: a million records on a machine with much else to do.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks at what takes a while.
const PAUSE: Duration = Duration::from_millis(100);

/// Pods that are running, and where their stores are.
pub(crate) struct Pairs {
    // Before its folder goes.
    pub(crate) cluster: Cluster,
    pub(crate) agent: Agent,
    /// The flag `--tls` of their syncs.
    pub(crate) tls: String,
    _folder: TempDir,
}

/// How they talk to one another.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Secured {
    /// Neither encrypted nor asked who is at the other end.
    Plain,
    /// Mutual TLS 1.3, as the chart has it.
    Tls,
}

impl Pairs {
    /// Starts so many, that exchange as often as the program does unless it is told otherwise or as
    /// `interval` says; gives them when all know all and belong to one cluster.
    pub(crate) fn start(count: usize, secured: Secured, interval: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the stores")?;
        let tls = tls_of(secured, folder.path())?;
        let options = ClusterOptions {
            cluster: CLUSTER.to_owned(),
            tls: tls.clone(),
            sync_interval: interval.map(str::to_owned),
            ..ClusterOptions::default()
        };
        let pairs = Self {
            cluster: Cluster::start(folder.path(), count, &options)?,
            agent: http::agent(),
            tls,
            _folder: folder,
        };
        pairs.cluster.wait_until_joined(&pairs.agent)?;
        pairs.wait_until_equal(count as u64)?;
        Ok(pairs)
    }

    /// Waits until the tables of all pods that run are equal and hold at least so many records; how
    /// long it took.
    pub(crate) fn wait_until_equal(&self, records: u64) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let running = self.cluster.pods.iter().filter(|pod| pod.manager.is_some());
            let digests = running.map(|pod| pod.digest(&self.agent));
            let digests = digests.collect::<Result<Vec<_>>>()?;
            let are_equal = digests.iter().all(|digest| *digest == digests[0]);
            if are_equal && digests[0].1 >= records {
                return Ok(begun.elapsed());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the tables do not become equal: {digests:x?}"
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes records into a pod, always the same ones for the same seed.
    pub(crate) fn import(&self, pod: usize, seed: usize, records: usize) -> Result<()> {
        import(&self.agent, &self.cluster.pods[pod], seed, records)
    }

    /// What the syncs of all pods that run, and their managers, have counted so far.
    pub(crate) fn counted(&self) -> Result<Counted> {
        let mut all = Counted::default();
        for pod in self.cluster.pods.iter().filter(|pod| pod.sync.is_some()) {
            all.add(&http::text(
                &self.agent,
                &format!("{}/metrics", pod.ops_url()),
            )?);
        }
        Ok(all)
    }
}

/// Writes records into a pod, always the same ones for the same seed.
pub(crate) fn import(agent: &Agent, pod: &Pod, seed: usize, records: usize) -> Result<()> {
    let mut dump = String::new();
    for (key, entry) in Records::new(seed).take(records) {
        let peer = Peer::from_entry(&key, &entry)?.context("a record that is deleted")?;
        dump.push_str(&serde_json::to_string(&peer)?);
        dump.push('\n');
    }
    dump.push_str(&json!({"end": {"records": records}}).to_string());
    dump.push('\n');
    let url = format!("{}/v1/table", pod.manager_url());
    let request = agent
        .post(&url)
        .header("content-type", "application/x-ndjson");
    let mut response = request.send(dump).with_context(|| format!("POST {url}"))?;
    let said = response.body_mut().read_to_string()?;
    ensure!(response.status() == 200, "POST {url}: {said}");
    Ok(())
}

/// The flag `--tls` for pods whose certificate is written to `folder`, where they need one. All
/// have the same: what is checked of it costs as much.
fn tls_of(secured: Secured, folder: &Path) -> Result<String> {
    if secured == Secured::Plain {
        return Ok("off".to_owned());
    }
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::new([NAME.to_owned()])?;
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let chain = leaf.signed_by(&key, &authority)?;
    let folder = folder.join("tls");
    fs::create_dir(&folder)?;
    fs::write(folder.join("ca.crt"), authority.pem())?;
    fs::write(folder.join("tls.crt"), chain.pem())?;
    fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(format!("files:{}", folder.display()))
}

/// Metrics, summed over the pods.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counted(BTreeMap<String, f64>);

impl Counted {
    fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse::<f64>()
            {
                *self.0.entry(name.to_owned()).or_default() += value;
            }
        }
    }

    /// All whose name with its labels begins so, in sum.
    fn sum(&self, name: &str) -> f64 {
        let from_it = self.0.range(name.to_owned()..);
        let of_it = from_it.take_while(|(key, _)| key.starts_with(name));
        of_it.map(|(_, value)| value).sum()
    }

    /// How much that has grown since.
    pub(crate) fn since(&self, before: &Self, name: &str) -> f64 {
        self.sum(name) - before.sum(name)
    }
}

/// Bytes of the messages that syncs sent to one another, requests and answers.
pub(crate) const BYTES_SENT: &str = "udht_exchange_bytes_total{direction=\"sent\"}";
/// Messages between syncs that were answered.
pub(crate) const MESSAGES: &str = "udht_messages_total";

/// What a process has used of a processor so far.
pub(crate) fn cpu_of(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name, in parentheses, may contain anything; behind it fields 14 and 15 count from 3.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| path.clone())?;
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks = ticks
        .map(str::parse::<u32>)
        .sum::<Result<u32, _>>()
        .with_context(|| path.clone())?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(Duration::from_secs(1) * ticks / per_second)
}

/// What the manager of a pod has used of a processor so far.
pub(crate) fn cpu_of_manager(pod: &Pod) -> Result<Duration> {
    cpu_of(pod.manager.as_ref().context("it runs no manager")?.id())
}

/// What the processes of a pod have used of a processor so far.
pub(crate) fn cpu_of_pair(pod: &Pod) -> Result<Duration> {
    let processes = [&pod.manager, &pod.sync].into_iter().flatten();
    processes.map(|process| cpu_of(process.id())).sum()
}

/// What `/proc/PID/status` says of the memory of both processes of a pod in this field, in bytes.
/// Pages that they share with those of other pods, such as the program's, are counted for each.
pub(crate) fn memory_of_pair(pod: &Pod, field: &str) -> Result<u64> {
    let processes = [&pod.manager, &pod.sync].into_iter().flatten();
    let sizes = processes.map(|process| {
        let path = format!("/proc/{}/status", process.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib
            .with_context(|| format!("no {field} in {path}"))?
            .parse()?;
        Ok(kib * 1024)
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_summed_over_pods_and_labels() {
        let mut before = Counted::default();
        before.add("# HELP udht_a of a\nudht_a{b=\"c\"} 1\nudht_a{b=\"d\"} 2\nudht_b 5\n");
        let mut after = before.clone();
        after.add("udht_a{b=\"c\"} 10\nudht_a{b=\"d\"} 20\n");
        assert!((after.since(&before, "udht_a") - 30.0).abs() < f64::EPSILON);
        assert!((after.since(&before, "udht_a{b=\"c\"") - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_process_has_used_no_more_than_the_time_there_was() {
        assert!(cpu_of(std::process::id()).unwrap() < Duration::from_hours(1));
    }
}
