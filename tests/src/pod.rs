//! A pod of the demo and the tests: a manager and a sync on a loopback address of their own, and a
//! Redis beside them if that keeps their table.
//!
//! Every address of 127.0.0.0/8 is this machine, so each pod has one, as it would in a cluster, and
//! the ports are always the same.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use ureq::Agent;

use crate::clock::Clock;
use crate::cluster::trickle::Way;
use crate::cluster::wait::until;
use crate::http::{self, Answer};
use crate::process::{PATIENCE, Process, program};

/// The port of a manager.
pub const MANAGER_PORT: u16 = 3002;
/// The port on which a sync exchanges.
pub const EXCHANGE_PORT: u16 = 3003;
/// The port of a sync's health and metrics.
pub const OPS_PORT: u16 = 3004;
/// The port of a pod's Redis.
pub const REDIS_PORT: u16 = 6379;

/// What keeps the tables of pods.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum StoreKind {
    /// A file of each manager.
    #[default]
    Embedded,
    /// A server in each pod, set up as the chart does it.
    Redis,
}

/// A process of a pod.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// The server that keeps the table, where one does.
    Redis,
    /// The table's owner.
    Manager,
    /// The table's traveller.
    Sync,
}

/// How a cluster of pods is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The cluster id of all of them.
    pub cluster: String,
    /// How often each of them exchanges without a reason; `None` for the program's default.
    pub sync_interval: Option<String>,
    /// How the syncs secure what they say to one another: `--tls`.
    pub tls: String,
    /// Further arguments of each sync.
    pub sync_arguments: Vec<String>,
    /// Further arguments of each manager.
    pub manager_arguments: Vec<String>,
    /// What keeps the tables.
    pub store: StoreKind,
    /// Further arguments of each Redis.
    pub redis_arguments: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            cluster: "demo".to_owned(),
            sync_interval: None,
            tls: "off".to_owned(),
            sync_arguments: Vec::new(),
            manager_arguments: Vec::new(),
            store: StoreKind::default(),
            redis_arguments: Vec::new(),
        }
    }
}

/// Pods that know each other by a fixed list.
#[derive(Debug)]
pub struct Cluster {
    /// The pods, from number 1.
    pub pods: Vec<Pod>,
}

/// How long it takes at the most until pods that start together belong to one cluster.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Makes `count` pods with their stores in `folder`, and starts them.
    pub fn start(folder: &Path, count: usize, options: &ClusterOptions) -> Result<Self> {
        let mut cluster = Self::set_up(folder, count, options)?;
        cluster.pods.iter_mut().try_for_each(Pod::start)?;
        Ok(cluster)
    }

    /// Makes `count` pods with their stores in `folder`, and starts nothing yet.
    pub fn set_up(folder: &Path, count: usize, options: &ClusterOptions) -> Result<Self> {
        let addresses = free_addresses(count)?;
        let others: Vec<_> = addresses
            .iter()
            .map(|address| format!("{address}:{EXCHANGE_PORT}"))
            .collect();
        let discovery = format!("fixed:{}", others.join(","));
        let pods = addresses
            .into_iter()
            .enumerate()
            .map(|(place, address)| Pod {
                number: place + 1,
                address,
                store: folder.join(match options.store {
                    StoreKind::Embedded => format!("pod-{}.redb", place + 1),
                    StoreKind::Redis => format!("pod-{}", place + 1),
                }),
                discovery: discovery.clone(),
                options: options.clone(),
                clock: None,
                redis: None,
                manager: None,
                sync: None,
            })
            .collect();
        Ok(Self { pods })
    }

    /// Waits until all pods belong to their cluster: from then on they take pushes.
    pub fn wait_until_joined(&self, agent: &Agent) -> Result<()> {
        for pod in &self.pods {
            let url = format!("{}/v1/replicas", pod.manager_url());
            until("the pod belongs", JOINED_WITHIN, || {
                let replicas = http::get(agent, &url)?.ok()?;
                ensure!(replicas["belongs"] == true, "{replicas}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Waits until the tables of all pods are the same.
    pub fn wait_until_equal(&self, agent: &Agent) -> Result<()> {
        until("all tables are equal", PATIENCE, || {
            let digests = self.pods.iter().map(|pod| pod.digest(agent));
            let digests = digests.collect::<Result<Vec<_>>>()?;
            let is_equal = digests.iter().all(|digest| *digest == digests[0]);
            ensure!(is_equal, "{digests:?}");
            Ok(())
        })
    }

    /// The pod of this number.
    pub fn pod(&mut self, number: usize) -> &mut Pod {
        &mut self.pods[number - 1]
    }
}

/// A manager and a sync, and perhaps a Redis.
#[derive(Debug)]
pub struct Pod {
    /// From 1.
    pub number: usize,
    /// Where all of them listen.
    pub address: Ipv4Addr,
    store: PathBuf,
    discovery: String,
    options: ClusterOptions,
    clock: Option<Clock>,
    /// The server that keeps the table, while it runs.
    pub redis: Option<Process>,
    /// The manager, while it runs.
    pub manager: Option<Process>,
    /// The sync, while it runs.
    pub sync: Option<Process>,
}

impl Pod {
    /// Where its manager answers.
    pub fn manager_url(&self) -> String {
        format!("http://{}:{MANAGER_PORT}", self.address)
    }

    /// The way to its manager, wherever it is in its life.
    pub fn way(&self) -> Direct {
        Direct {
            pod: format!("pod-{}", self.number),
            url: self.manager_url(),
            agent: http::agent(),
        }
    }

    /// Where its sync exchanges.
    pub fn exchange_address(&self) -> String {
        format!("{}:{EXCHANGE_PORT}", self.address)
    }

    /// Where its sync tells of itself.
    pub fn ops_url(&self) -> String {
        format!("http://{}:{OPS_PORT}", self.address)
    }

    /// From its next start on, its manager is given these arguments too, in place of those with the
    /// same flags.
    pub fn give_manager(&mut self, arguments: &[&str]) {
        let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let flags: Vec<_> = arguments.iter().map(|argument| flag(argument)).collect();
        let held = &mut self.options.manager_arguments;
        held.retain(|argument| !flags.contains(&flag(argument)));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        self.options.manager_arguments.extend(arguments);
    }

    /// From its next start on, its sync speaks these versions of the protocol, as MIN-MAX.
    pub fn speak_protocols(&mut self, versions: &str) {
        let held = &mut self.options.sync_arguments;
        held.retain(|argument| !argument.starts_with("--protocols="));
        held.push(format!("--protocols={versions}"));
    }

    /// From its next start on, its sync finds the others so: `--discovery`.
    pub fn find_others(&mut self, discovery: String) {
        self.discovery = discovery;
    }

    /// From its next start on, its sync secures so what it says to the others: `--tls`.
    pub fn speak_tls(&mut self, tls: String) {
        self.options.tls = tls;
    }

    /// From its next start on, it belongs to another cluster and has another store.
    pub fn become_of_cluster(&mut self, cluster: &str, store: PathBuf) {
        cluster.clone_into(&mut self.options.cluster);
        self.store = store;
    }

    /// From its next start on, manager and sync read the time of day from this clock.
    pub fn go_by(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// The file of its store, or the directory of its Redis.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// What it consists of, in the order in which that is started.
    pub const fn parts(&self) -> &'static [Part] {
        match self.options.store {
            StoreKind::Embedded => &[Part::Manager, Part::Sync],
            StoreKind::Redis => &[Part::Redis, Part::Manager, Part::Sync],
        }
    }

    /// Starts all of it, and returns when all listens.
    pub fn start(&mut self) -> Result<()> {
        self.parts().iter().try_for_each(|part| {
            self.begin(*part)?;
            self.ready(*part)
        })
    }

    /// Starts the manager, and returns when it listens.
    pub fn start_manager(&mut self) -> Result<()> {
        self.begin(Part::Manager)?;
        self.ready(Part::Manager)
    }

    /// Starts the sync, and returns when it listens.
    pub fn start_sync(&mut self) -> Result<()> {
        self.begin(Part::Sync)?;
        self.ready(Part::Sync)
    }

    /// Starts a part of it, and waits for nothing.
    pub fn begin(&mut self, part: Part) -> Result<()> {
        let (name, program, arguments) = match part {
            Part::Redis => {
                std::fs::create_dir_all(&self.store).context("a directory for Redis")?;
                (
                    "redis",
                    PathBuf::from("redis-server"),
                    self.redis_arguments(),
                )
            }
            Part::Manager => (
                "manager",
                program("udht-manager")?,
                self.manager_arguments(),
            ),
            Part::Sync => ("sync", program("udht-sync")?, self.sync_arguments()),
        };
        let (program, arguments) = match &self.clock {
            Some(clock) if part != Part::Redis => clock.under(&program, arguments),
            _ => (program, arguments),
        };
        let name = format!("{name} {}", self.number);
        *self.place(part) = Some(Process::start(&name, &program, &arguments)?);
        Ok(())
    }

    /// Waits until a part that was begun listens.
    pub fn ready(&mut self, part: Part) -> Result<()> {
        let said = match part {
            Part::Redis => "Ready to accept connections",
            Part::Manager | Part::Sync => "listening on",
        };
        let process = self.place(part).as_mut();
        process.context("it was not begun")?.wait_for_log(said)?;
        Ok(())
    }

    /// Ends a part as kill -9 does.
    pub fn kill_part(&mut self, part: Part) -> Result<()> {
        self.place(part)
            .take()
            .map_or(Ok(()), |mut process| process.kill())
    }

    /// Ends all of it as kill -9 does.
    pub fn kill(&mut self) -> Result<()> {
        let mut parts = self.parts().iter().rev();
        parts.try_for_each(|part| self.kill_part(*part))
    }

    const fn place(&mut self, part: Part) -> &mut Option<Process> {
        match part {
            Part::Redis => &mut self.redis,
            Part::Manager => &mut self.manager,
            Part::Sync => &mut self.sync,
        }
    }

    /// As the chart has them.
    fn redis_arguments(&self) -> Vec<String> {
        let port = REDIS_PORT.to_string();
        let (address, folder) = (self.address.to_string(), self.store.display().to_string());
        let arguments = [
            ["--bind", &address],
            ["--port", &port],
            ["--dir", &folder],
            ["--appendonly", "yes"],
            ["--appendfsync", "no"],
            ["--save", ""],
            ["--maxmemory-policy", "noeviction"],
            ["--databases", "1"],
        ];
        let arguments = arguments.concat().into_iter().map(str::to_owned);
        arguments
            .chain(self.options.redis_arguments.iter().cloned())
            .collect()
    }

    fn manager_arguments(&self) -> Vec<String> {
        let store = match self.options.store {
            StoreKind::Embedded => format!("embedded:{}", self.store.display()),
            StoreKind::Redis => format!("redis://{}:{REDIS_PORT}?prefix=pod:", self.address),
        };
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--listen={}:{MANAGER_PORT}", self.address),
            format!("--store={store}"),
            format!("--cluster={}", self.options.cluster),
            format!("--peer-name=pod-{}", self.number),
            format!("--peer-ip={}", self.address),
            format!("--peer-port=userSync={EXCHANGE_PORT}"),
            "--log-format=human".to_owned(),
        ];
        arguments.extend(self.options.manager_arguments.iter().cloned());
        arguments
    }

    fn sync_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--listen={}", self.exchange_address()),
            format!("--ops-listen={}:{OPS_PORT}", self.address),
            format!("--manager={}", self.manager_url()),
            format!("--cluster={}", self.options.cluster),
            format!("--discovery={}", self.discovery),
            format!("--tls={}", self.options.tls),
            "--log-format=human".to_owned(),
        ];
        let interval = self.options.sync_interval.as_ref();
        arguments.extend(interval.map(|interval| format!("--sync-interval={interval}")));
        arguments.extend(self.options.sync_arguments.iter().cloned());
        arguments
    }

    /// The digest of its table `peers`, and how many records it has.
    pub fn digest(&self, agent: &Agent) -> Result<(u64, u64)> {
        let state = http::state(agent, &self.manager_url())?;
        let table = state.tables.first().context("a manager without a table")?;
        Ok((table.digest.sum, table.digest.records))
    }
}

/// The way to the manager of a pod on this machine.
#[derive(Debug)]
pub struct Direct {
    pod: String,
    url: String,
    agent: Agent,
}

impl Direct {
    /// GET of a path of the manager.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::get(&self.agent, &format!("{}{path}", self.url))
    }
}

impl Way for Direct {
    fn pod(&self) -> &str {
        &self.pod
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<Answer> {
        http::put(&self.agent, &format!("{}{path}", self.url), body)
    }

    fn delete(&mut self, path: &str) -> Result<Answer> {
        http::delete(&self.agent, &format!("{}{path}", self.url))
    }

    fn records(&mut self, filter: &str) -> Result<Vec<Value>> {
        http::pages(|path| self.get(path), filter)
    }

    fn forget(&mut self) {
        self.agent = http::agent();
    }
}

/// Loopback addresses on which nobody listens: the first that are free, from a place of this
/// process's own.
fn free_addresses(count: usize) -> Result<Vec<Ipv4Addr>> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let process = std::process::id().to_be_bytes();
    let mut free = Vec::with_capacity(count);
    while free.len() < count {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let last = u8::try_from(next).context("too many pods in one process")?;
        let address = Ipv4Addr::new(127, process[2].max(1), process[3], last);
        let ports = [MANAGER_PORT, EXCHANGE_PORT, OPS_PORT, REDIS_PORT];
        if ports
            .iter()
            .all(|port| TcpListener::bind((address, *port)).is_ok())
        {
            free.push(address);
        }
    }
    Ok(free)
}
