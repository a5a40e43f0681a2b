//! What users of other directories complained about, where only real processes can show what happens
//! here in its place. The simulator replays the others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "strangers/credentials.rs"]
#[expect(dead_code, reason = "the tests of strangers need more of it")]
mod credentials;

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use peer_table::contract::{Batch, MEDIA_TYPE, MergeAnswer, merged_code};
use peer_table::peers::{Draft, table_name};
use peer_table::table::{MergeRefused, Merged};
use peer_table::{Body, Contact, Entry, Key, OriginId, Reading, Version, WallTime};
use prost::Message;
use serde_json::{Value, json};
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Part, Pod};
use udht_tests::process::{PATIENCE, program};
use udht_tests::recipe::output;
use ureq::Agent;

use crate::credentials::Authority;

fn options() -> ClusterOptions {
    ClusterOptions {
        sync_interval: Some("200ms".to_owned()),
        ..ClusterOptions::default()
    }
}

/// Waits until something is so.
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it hangs: {what}");
    }
}

/// The value of a metric of a pod, its labels as they are written.
fn metric(agent: &Agent, pod: &Pod, name: &str) -> f64 {
    let text = http::text(agent, &format!("{}/metrics", pod.ops_url())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.trim().parse().unwrap()
}

/// Waits until a metric of a pod has this value.
fn reads(agent: &Agent, pod: &Pod, name: &str, value: f64) {
    let what = format!("{name} of pod {} is {value}", pod.number);
    let is_so = || (metric(agent, pod, name) - value).abs() < f64::EPSILON;
    soon(&what, is_so);
}

fn url(pod: &Pod, key: &str) -> String {
    format!("{}/v1/peers/{key}", pod.manager_url())
}

fn put(agent: &Agent, pod: &Pod, key: &str) {
    let peer = json!({"name": key, "ip": "10.0.0.7"});
    http::put(agent, &url(pod, key), &peer)
        .unwrap()
        .ok()
        .unwrap();
}

fn is_live(agent: &Agent, pod: &Pod, key: &str) -> bool {
    http::get(agent, &url(pod, key)).unwrap().status == 200
}

/// What `udht-sync peers` says of the peer that a pod finds at an address.
fn told_of(pod: &Pod, address: &str) -> Value {
    let mut peers = Command::new(program("udht-sync").unwrap());
    peers.args(["peers", "--output=json"]);
    peers.arg(format!("--ops={}", pod.ops_url()));
    let told: Value = serde_json::from_str(&output(&mut peers, "").unwrap()).unwrap();
    let mut peers = told["peers"].as_array().unwrap().iter();
    let peer = peers.find(|peer| peer["address"] == address);
    peer.unwrap_or_else(|| panic!("no {address} in {told}"))
        .clone()
}

/// A way to a pod, which can be cut.
struct Way {
    address: String,
    is_open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Self {
            address: listener.local_addr().unwrap().to_string(),
            is_open: Arc::new(AtomicBool::new(true)),
            streams: Arc::default(),
        };
        let (is_open, streams) = (Arc::clone(&way.is_open), Arc::clone(&way.streams));
        thread::spawn(move || {
            for from in listener.incoming() {
                let mut streams = streams.lock().unwrap();
                if is_open.load(Ordering::Relaxed) {
                    // Who does not come through is as good as cut off.
                    let _ = join(&from.unwrap(), &address, &mut streams);
                }
            }
        });
        way
    }

    fn cut(&self) {
        let mut streams = self.streams.lock().unwrap();
        self.is_open.store(false, Ordering::Relaxed);
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn heal(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

/// Hands on what two sides say to each other.
fn join(from: &TcpStream, address: &str, streams: &mut Vec<TcpStream>) -> io::Result<()> {
    let to = TcpStream::connect(address)?;
    for (one, other) in [(from, &to), (&to, from)] {
        let (mut from, mut to) = (one.try_clone()?, other.try_clone()?);
        streams.push(from.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

/// A replica that was cut off for hours, and nobody noticed. Here both sides say so within seconds, by
/// figures and by `udht-sync peers`, and stop when it is over.
#[test]
fn a_replica_that_is_cut_off_is_noticed_by_both_sides_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 3, &options()).unwrap();
    let agent = agent();
    let addresses: Vec<_> = cluster.pods.iter().map(Pod::exchange_address).collect();
    // The third is reached by ways of its own, and so are the others by it.
    let ways = [0, 1, 2].map(|pod| Way::to(addresses[pod].clone()));
    let to_third = [&addresses[0], &addresses[1], &ways[2].address];
    let from_third = [&ways[0].address, &ways[1].address, &addresses[2]];
    for (number, list) in [(1, to_third), (2, to_third), (3, from_third)] {
        let pod = cluster.pod(number);
        pod.kill_part(Part::Sync).unwrap();
        pod.find_others(format!("fixed:{},{},{}", list[0], list[1], list[2]));
        pod.start_sync().unwrap();
    }
    let [first, second, third] = &cluster.pods[..] else {
        unreachable!("three pods")
    };
    let sees_all = || {
        for pod in &cluster.pods {
            reads(&agent, pod, "udht_isolated", 0.0);
            reads(&agent, pod, "udht_peers_reachable", 2.0);
            reads(&agent, pod, "udht_distinct_digests", 1.0);
        }
    };
    sees_all();

    ways.iter().for_each(Way::cut);
    reads(&agent, third, "udht_isolated", 1.0);
    reads(&agent, third, "udht_peers_reachable", 0.0);
    for pod in [first, second] {
        reads(&agent, pod, "udht_peers_reachable", 1.0);
        reads(&agent, pod, "udht_isolated", 0.0);
    }
    for (pod, way) in [(first, 2), (second, 2), (third, 0), (third, 1)] {
        let peer = told_of(pod, &ways[way].address);
        assert_eq!(peer["reachable"], false, "{peer}");
        let error = peer["last_error"].as_str().unwrap_or_default();
        assert!(error.starts_with("failed_"), "{peer}");
    }
    put(&agent, first, "missed");
    soon("the second has it", || is_live(&agent, second, "missed"));
    assert!(!is_live(&agent, third, "missed"));

    ways.iter().for_each(Way::heal);
    soon("the third has it", || is_live(&agent, third, "missed"));
    sees_all();
    for (pod, way) in [(first, 2), (third, 0)] {
        let is_so = || {
            let peer = told_of(pod, &ways[way].address);
            peer["reachable"] == true && peer["equal"] == true
        };
        soon("they tell of each other as equal", is_so);
    }
}

/// A replica that answers and does not follow, for hours, and nobody notices. Here both sides count
/// two different tables and say whose it is, until it follows.
#[test]
fn a_replica_that_stays_different_is_noticed_by_both_sides_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &options()).unwrap();
    let agent = agent();
    cluster.pod(2).kill_part(Part::Manager).unwrap();
    cluster.pod(2).give_manager(&["--max-records=3"]);
    cluster.pod(2).start_manager().unwrap();
    for number in 0..9 {
        put(&agent, cluster.pod(1), &format!("k{number}"));
    }
    let [first, second] = &cluster.pods[..] else {
        unreachable!("two pods")
    };
    for (pod, other) in [(first, second), (second, first)] {
        reads(&agent, pod, "udht_distinct_digests", 2.0);
        let peer = told_of(pod, &other.exchange_address());
        assert_eq!(peer["equal"], false, "{peer}");
    }

    cluster.pod(2).kill_part(Part::Manager).unwrap();
    cluster.pod(2).give_manager(&["--max-records=1000"]);
    cluster.pod(2).start_manager().unwrap();
    for pod in &cluster.pods {
        reads(&agent, pod, "udht_distinct_digests", 1.0);
    }
}

/// antrea-io/antrea 7540 and 976: an authority was replaced under running replicas, by another of
/// them or by hand, and the others had to be killed to take it. Here who has the other authority is
/// refused and seen, and what the files say is taken by running processes.
#[test]
fn an_authority_that_is_replaced_under_running_replicas_is_noticed_and_then_taken() {
    let folder = tempfile::tempdir().unwrap();
    let own = [1, 2].map(|number| folder.path().join(number.to_string()));
    let [old, new] = ["old", "new"].map(Authority::new);
    for folder in &own {
        std::fs::create_dir(folder).unwrap();
        old.write(folder);
    }
    let tls = |number: usize| format!("files:{}", own[number - 1].display());
    let options = ClusterOptions {
        tls: tls(1),
        ..options()
    };
    let mut cluster = Cluster::start(folder.path(), 2, &options).unwrap();
    cluster.pod(2).kill_part(Part::Sync).unwrap();
    cluster.pod(2).speak_tls(tls(2));
    cluster.pod(2).start_sync().unwrap();
    let agent = agent();
    let [first, second] = &cluster.pods[..] else {
        unreachable!("two pods")
    };
    let each = [(first, second), (second, first)];
    let goes_on = |key: &str| {
        for (from, to) in each {
            let key = format!("{key}-{}", from.number);
            put(&agent, from, &key);
            soon("what is written comes over", || is_live(&agent, to, &key));
        }
    };
    goes_on("before");

    new.write(&own[1]);
    for (pod, other) in each {
        reads(&agent, pod, "udht_isolated", 1.0);
        let unknown = ["server", "client"].map(|side| {
            let labels = format!("{{reason=\"unknown_authority\",side=\"{side}\"}}");
            metric(&agent, pod, &format!("udht_tls_refused_total{labels}"))
        });
        assert!(unknown.iter().any(|count| *count > 0.0), "{unknown:?}");
        let peer = told_of(pod, &other.exchange_address());
        assert_eq!(peer["reachable"], false, "{peer}");
    }
    // Both go on by themselves meanwhile.
    put(&agent, first, "meanwhile");
    assert!(!is_live(&agent, second, "meanwhile"));

    new.write(&own[0]);
    for (pod, _) in each {
        reads(&agent, pod, "udht_isolated", 0.0);
    }
    soon("what was missed comes over", || {
        is_live(&agent, second, "meanwhile")
    });
    goes_on("after");
}

/// A record poisoned by one fast clock: here the manager's door refuses what is stamped ahead and
/// counts it, whoever brings it, and the record stays as it was.
#[test]
fn a_record_that_is_stamped_ahead_is_refused_at_the_door_and_poisons_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), 1, &options()).unwrap();
    let (agent, pod) = (agent(), &cluster.pods[0]);
    put(&agent, pod, "k1");
    let before = http::get(&agent, &url(pod, "k1")).unwrap().body;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = u64::try_from(now.unwrap().as_millis()).unwrap();
    let merge = |ahead: Duration| {
        let wall_ms = now_ms + u64::try_from(ahead.as_millis()).unwrap();
        let draft = Draft {
            name: "poison".to_owned(),
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            ports: [].into(),
            labels: [].into(),
            contact: Contact::NEVER,
        };
        let entry = Entry {
            version: Version {
                reading: Reading::from_u64(wall_ms << 16),
                origin: OriginId::from_bytes([7; 16]),
            },
            contact: Contact::NEVER,
            body: Body::Live(draft.content(WallTime::from_millis(now_ms))),
        };
        let key: Key = "k1".parse().unwrap();
        let batch = Batch::new(&table_name(), [(key, entry)]).encode_to_vec();
        let query = "via=exchange&from=07070707-0707-0707-0707-070707070707";
        let url = format!("{}/v1/sync/tables/peers/merge?{query}", pod.manager_url());
        let request = agent.post(&url).content_type(MEDIA_TYPE);
        let answer = request.send(&batch[..]).unwrap().body_mut().read_to_vec();
        MergeAnswer::decode(&answer.unwrap()[..]).unwrap().outcomes
    };
    let refused = merged_code(Merged::Refused(MergeRefused::VersionAhead));
    let counted = "udht_merges_total{result=\"refused_version_ahead\",via=\"exchange\"}";
    let day = Duration::from_hours(24);
    for (ahead, count) in [(day, 1.0), (day * 36_500, 2.0)] {
        assert_eq!(merge(ahead), [refused]);
        reads(&agent, pod, counted, count);
    }
    assert_eq!(http::get(&agent, &url(pod, "k1")).unwrap().body, before);
    // One from a clock that is right is taken, and so is what is written here after all that.
    assert_eq!(
        merge(Duration::from_secs(1)),
        [merged_code(Merged::Applied)]
    );
    http::delete(&agent, &url(pod, "k1")).unwrap().ok().unwrap();
    assert!(!is_live(&agent, pod, "k1"));
}
