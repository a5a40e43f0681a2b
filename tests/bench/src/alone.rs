//! A manager and its store without the sync beside it, so that nothing else uses the processors.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use peer_table::contract::{Batch, MEDIA_TYPE, MergeAnswer, merged_code};
use peer_table::table::Merged;
use peer_table::{Entry, Key, Reading, Version};
use prost::Message;
use redis::Connection;
use tempfile::TempDir;
use udht_replica::{NOW, peers};
use udht_sync::wall;
use udht_tests::http;
use udht_tests::pod::{Cluster, ClusterOptions, Part, Pod, REDIS_PORT, StoreKind};
use ureq::Agent;

use crate::pairs::cpu_of_manager;

/// The records that a manager of these benchmarks takes at the most.
const RECORDS_MAX: usize = 4_000_000;

/// A running manager, with a store that is set up as the chart does it.
pub(crate) struct Alone {
    cluster: Cluster,
    agent: Agent,
    _folder: TempDir,
}

impl Alone {
    pub(crate) fn start(store: StoreKind) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = ClusterOptions {
            store,
            manager_arguments: vec![format!("--max-records={RECORDS_MAX}")],
            ..ClusterOptions::default()
        };
        let mut alone = Self {
            cluster: Cluster::set_up(folder.path(), 1, &options)?,
            agent: http::agent(),
            _folder: folder,
        };
        if store == StoreKind::Redis {
            alone.pod().begin(Part::Redis)?;
            alone.pod().ready(Part::Redis)?;
        }
        alone.pod().start_manager()?;
        Ok(alone)
    }

    pub(crate) fn pod(&mut self) -> &mut Pod {
        self.cluster.pod(1)
    }

    /// What its manager has used of a processor so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of_manager(&self.cluster.pods[0])
    }

    /// The address of both; their ports are [`MANAGER_PORT`](udht_tests::pod::MANAGER_PORT) and
    /// [`REDIS_PORT`].
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.cluster.pods[0].address
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.pods[0].manager_url()
    }

    pub(crate) const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// A connection to its Redis.
    pub(crate) fn redis(&self) -> Result<Connection> {
        let url = format!("redis://{}:{REDIS_PORT}", self.address());
        let client = redis::Client::open(url)?;
        client.get_connection().context("connect to Redis")
    }

    /// The key of the hash in which its Redis has the table.
    pub(crate) fn hash(&self) -> Result<String> {
        let mut redis = self.redis()?;
        let store: String = redis::cmd("HGET")
            .arg("pod:meta")
            .arg("store")
            .query(&mut redis)?;
        Ok(format!("pod:{store}:{}", peers()))
    }

    /// Has the manager merge a batch, as its sync does it; all of it has to be news.
    pub(crate) fn merge(&self, batch: &[u8]) -> Result<()> {
        let from = "00000000-0000-4000-8000-000000000000";
        let url = format!(
            "{}/v1/sync/tables/{}/merge?via=exchange&from={from}",
            self.url(),
            peers()
        );
        let request = self.agent.post(&url).header("content-type", MEDIA_TYPE);
        let mut response = request.send(batch)?;
        ensure!(response.status() == 200, "status {}", response.status());
        let body = response.body_mut();
        let answer = MergeAnswer::decode(&body.with_config().limit(1 << 20).read_to_vec()?[..])?;
        let applied = merged_code(Merged::Applied);
        ensure!(
            answer.outcomes.iter().all(|outcome| *outcome == applied),
            "some records were no news"
        );
        Ok(())
    }
}

/// Batches of the records, as they are sent.
pub(crate) fn batches(records: &[(Key, Entry)], of: usize) -> Vec<Vec<u8>> {
    let parts = records.chunks(of);
    let encoded = parts.map(|part| Batch::new(&peers(), part.iter().cloned()).encode_to_vec());
    encoded.collect()
}

/// The record as if it were written within the last day, as a manager goes by its machine's clock.
pub(crate) fn dated((key, entry): (Key, Entry)) -> (Key, Entry) {
    let now = wall::now().as_millis();
    // What is above the counter is the time in milliseconds.
    let reading = entry.version.reading.as_u64();
    let reading = reading.wrapping_add(now.wrapping_sub(NOW.as_millis()) << 16);
    let version = Version {
        reading: Reading::from_u64(reading),
        ..entry.version
    };
    (key, Entry { version, ..entry })
}
