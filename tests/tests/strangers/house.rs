//! Two pods that speak TLS with each other, and whoever comes to their doors.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Pod};
use udht_tests::process::{PATIENCE, Process, program};
use udht_tests::recipe::output;
use ureq::Agent;

use crate::credentials::{Authority, NAME};

/// By how much the memory of a program may grow at its peak, whatever strangers do: a bound for all
/// of them together, and far from what a pod is given.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A stranger's connection once both ends trust each other, or seem to.
pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Two pods of one authority. The first is the one that strangers come to.
pub(crate) struct House {
    pub(crate) authority: Authority,
    pub(crate) agent: Agent,
    cluster: Cluster,
    folder: TempDir,
    written: AtomicUsize,
    peaks: [u64; 2],
}

impl House {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("one");
        authority.write(folder.path());
        let options = ClusterOptions {
            sync_interval: Some("200ms".to_owned()),
            tls: format!("files:{}", folder.path().display()),
            ..ClusterOptions::default()
        };
        let mut house = Self {
            authority,
            agent: agent(),
            cluster: Cluster::start(folder.path(), 2, &options).unwrap(),
            folder,
            written: AtomicUsize::new(0),
            peaks: [0; 2],
        };
        house.cluster.wait_until_joined(&house.agent).unwrap();
        // What a program needs once, it needs before anybody looks.
        house.peers_go_on();
        house.peaks = house
            .programs()
            .map(|program| program.peak_bytes().unwrap());
        house
    }

    /// The pod that strangers come to.
    pub(crate) fn pod(&self) -> &Pod {
        &self.cluster.pods[0]
    }

    fn programs(&self) -> [&Process; 2] {
        let pod = self.pod();
        [&pod.sync, &pod.manager].map(|program| program.as_ref().unwrap())
    }

    /// The value of a metric of the first pod, its labels as they are written.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let url = format!("{}/metrics", self.pod().ops_url());
        let text = http::text(&self.agent, &url).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.trim().parse().unwrap()
    }

    /// How many connections were not made for this reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.metric(&refused(reason))
    }

    /// Waits until a metric has at least this value.
    pub(crate) fn counts(&self, name: &str, value: u64) {
        wait_for(name, || self.metric(name) >= value);
    }

    /// A peer that calls now is let in and exchanges, and what is written at either pod comes to the
    /// other.
    pub(crate) fn peers_go_on(&self) {
        let [first, second] = [&self.cluster.pods[0], &self.cluster.pods[1]];
        output(&mut self.exchange_by_hand(&first.exchange_address()), "").unwrap();
        for (from, to) in [(first, second), (second, first)] {
            let number = self.written.fetch_add(1, Ordering::Relaxed);
            let url = |pod: &Pod| format!("{}/v1/peers/k{number}", pod.manager_url());
            let peer = json!({"name": "k", "ip": "10.0.0.7"});
            let put = http::put(&self.agent, &url(from), &peer).unwrap();
            put.ok().unwrap();
            wait_for("a record reaches the other pod", || {
                http::get(&self.agent, &url(to)).unwrap().status == 200
            });
        }
    }

    /// An exchange of the second pod with who is at `address`.
    pub(crate) fn exchange_by_hand(&self, address: &str) -> Command {
        let mut exchange = Command::new(program("udht-sync").unwrap());
        exchange.args(["exchange", address, "--cluster=demo"]);
        exchange.arg(format!("--manager={}", self.cluster.pods[1].manager_url()));
        exchange.arg(format!("--tls=files:{}", self.folder.path().display()));
        exchange
    }

    /// What the first pod holds: how many records, and the versions of those that are live. When
    /// peers were seen is left out, as good ones are meanwhile.
    pub(crate) fn held(&self) -> (u64, BTreeMap<String, Value>) {
        let (_, records) = self.pod().digest(&self.agent).unwrap();
        let url = format!("{}/v1/peers", self.pod().manager_url());
        let mut listed = http::get(&self.agent, &url).unwrap().ok().unwrap();
        let peers = listed["peers"].as_array_mut().unwrap().iter_mut();
        let versions = peers.map(|peer| {
            let id = peer["peer_id"].as_str().unwrap().to_owned();
            (id, peer["version"].take())
        });
        (records, versions.collect())
    }

    /// Neither program of the first pod has grown by more than the bound since the beginning.
    pub(crate) fn is_within_memory(&self, after: &str) {
        for ((program, before), name) in self
            .programs()
            .into_iter()
            .zip(self.peaks)
            .zip(["sync", "manager"])
        {
            let peak = program.peak_bytes().unwrap();
            let grown = peak.saturating_sub(before);
            println!(
                "{after}: the peak of {name} grew by {} KiB to {} KiB",
                grown >> 10,
                peak >> 10
            );
            assert!(grown <= GROWTH_BYTES_MAX, "{name} grew by {grown} bytes");
        }
    }

    /// Calls the exchange port.
    pub(crate) fn call(&self) -> TcpStream {
        connect(&self.pod().exchange_address())
    }

    /// Calls the exchange port, and speaks TLS as `config` says.
    pub(crate) fn call_secure(&self, config: Arc<ClientConfig>) -> Secure {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        StreamOwned::new(connection, self.call())
    }

    /// Calls as one who has a certificate of the cluster.
    pub(crate) fn call_as_peer(&self) -> Secure {
        let leaf = self.authority.leaf(NAME, |_| ());
        self.call_secure(self.authority.client(Some(&leaf), &TLS13))
    }
}

fn wait_for(what: &str, happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < PATIENCE, "it hangs: {what}");
    }
}

/// The metric of connections that were not made for this reason.
pub(crate) fn refused(reason: &str) -> String {
    format!("udht_tls_refused_total{{reason=\"{reason}\",side=\"server\"}}")
}

/// A connection that is waited at no longer than for a hang.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the other side closes; a reset is an end too, and a hang is none.
pub(crate) fn heard(stream: &mut impl Read) -> Vec<u8> {
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "it was not closed");
    }
    heard
}

/// Says this, and gives what is heard until the other side closes.
pub(crate) fn say(mut stream: impl Read + Write, bytes: &[u8]) -> Vec<u8> {
    // Who is refused before all of it is read may hear so while it still speaks.
    let _ = stream.write_all(bytes);
    heard(&mut stream)
}

/// A request that is the last of its connection.
pub(crate) fn post(path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Says a byte whenever nothing was heard for a moment, until the other side closes.
pub(crate) fn drip(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let moment = std::time::Duration::from_millis(100);
    stream.set_read_timeout(Some(moment))?;
    let started = Instant::now();
    let mut bytes = bytes.iter();
    loop {
        assert!(started.elapsed() < PATIENCE, "it was not closed");
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if let Some(byte) = bytes.next() {
                    stream.write_all(&[*byte])?;
                }
            }
            Err(error) => return Err(error),
        }
    }
}
