//! Servers of Redis that run out of memory, come back older than they were, are followed by a
//! replica, or take their time.

use std::path::Path;
use std::process::Command;

use udht_tests::pod::{Cluster, ClusterOptions, Part, REDIS_PORT, StoreKind};
use udht_tests::process::{Process, program};
use udht_tests::recipe::output;

use super::*;

/// Where a replica is, beside its primary.
const REPLICA_PORT: u16 = REDIS_PORT + 1;

fn two_pods(folder: &Path) -> Cluster {
    let options = ClusterOptions {
        store: StoreKind::Redis,
        ..ClusterOptions::default()
    };
    Cluster::start(folder, 2, &options).unwrap()
}

/// What the server at this port of a pod answers.
fn tell(pod: &Pod, port: u16, words: &str) -> String {
    let mut client = Command::new("redis-cli");
    client.args([
        "-e",
        "-h",
        &pod.address.to_string(),
        "-p",
        &port.to_string(),
    ]);
    output(client.args(words.split(' ')), "").unwrap()
}

#[test]
fn a_redis_out_of_memory_is_read_and_takes_writes_once_it_may_have_more() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = two_pods(folder.path());
    let [first, second] = &cluster.pods[..] else {
        panic!("two pods");
    };
    let agent = agent();
    written(put(&agent, first, "held", &peer("held")));
    tell(first, REDIS_PORT, "CONFIG SET maxmemory 1");
    let part = "is out of memory and takes no writes: raise its maxmemory, or make room";
    for _ in 0..3 {
        refuses_and_reads(&agent, first, &peer("refused"), "held", part);
        is_refused(&http::delete(&agent, &url(first, "held")).unwrap(), part);
    }
    written(put(&agent, second, "missed", &peer("missed")));
    tell(first, REDIS_PORT, "CONFIG SET maxmemory 0");
    takes_writes_again(&agent, first, "after");
    become_equal(&agent, &cluster.pods);
    for key in ["held", "missed", "after"] {
        assert_eq!(status(&agent, first, key), 200, "{key}");
    }
}

/// The first pod's Redis comes back with an append-only file of earlier, under its manager or with
/// all of the pod. What it lacks comes from the other, and no version is stamped again.
fn comes_back_older(parts: &[Part], noticed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = two_pods(folder.path());
    let agent = agent();
    for key in ["changed", "deleted"] {
        written(put(&agent, &cluster.pods[0], key, &peer("first")));
    }
    let log = cluster.pods[0].store().join("appendonlydir");
    let copy = folder.path().join("copy");
    let mut cp = Command::new("cp");
    output(cp.arg("-a").args([&log, &copy]), "").unwrap();
    let mut last = written(put(&agent, &cluster.pods[0], "changed", &peer("second")));
    written(put(&agent, &cluster.pods[0], "new", &peer("second")));
    let deleted = http::delete(&agent, &url(&cluster.pods[0], "deleted"));
    assert_eq!(deleted.unwrap().status, 204);
    become_equal(&agent, &cluster.pods);

    let pod = cluster.pod(1);
    for part in parts {
        pod.kill_part(*part).unwrap();
    }
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&copy, &log).unwrap();
    for part in parts {
        pod.begin(*part).unwrap();
        pod.ready(*part).unwrap();
    }
    until("it is noticed", PATIENCE, || {
        let count = reopened(&agent, &cluster.pods[0], "rolled_back");
        ensure!(count == noticed, "{count} times");
        Ok(())
    })
    .unwrap();
    become_equal(&agent, &cluster.pods);
    for pod in &cluster.pods {
        let changed = http::get(&agent, &url(pod, "changed")).unwrap();
        assert_eq!(changed.body["version"], *last);
        assert_eq!(status(&agent, pod, "new"), 200);
        assert_eq!(status(&agent, pod, "deleted"), 404);
    }
    for pod in [0, 1, 0] {
        let next = written(put(&agent, &cluster.pods[pod], "changed", &peer("third")));
        assert!(next > last, "{next} after {last}");
        last = next;
        become_equal(&agent, &cluster.pods);
    }
}

#[test]
fn an_older_append_only_file_is_noticed_and_what_it_lacks_comes_from_the_others() {
    comes_back_older(&[Part::Redis], 1);
}

#[test]
fn a_pod_that_starts_on_an_older_append_only_file_gets_what_it_lacks_from_the_others() {
    comes_back_older(&[Part::Redis, Part::Manager, Part::Sync], 0);
}

/// Starts a replica of the pod's Redis in `folder`, and waits until it has all.
fn replica(pod: &Pod, folder: &Path) -> Process {
    std::fs::create_dir(folder).unwrap();
    let (address, folder) = (pod.address.to_string(), folder.display().to_string());
    let (port, primary) = (REPLICA_PORT.to_string(), REDIS_PORT.to_string());
    let arguments = [
        &["--bind", &address, "--port", &port, "--dir", &folder][..],
        &["--appendonly", "yes", "--appendfsync", "no", "--save", ""],
        &["--replicaof", &address, &primary],
    ];
    let arguments = arguments.concat().into_iter().map(str::to_owned);
    let arguments: Vec<_> = arguments.collect();
    let mut server = Process::start("replica", Path::new("redis-server"), &arguments).unwrap();
    server.wait_for_log("Ready to accept connections").unwrap();
    until("the replica has all", PATIENCE, || {
        let offset = |port, name: &str| {
            let info = tell(pod, port, "INFO replication");
            let offset = info.lines().find_map(|line| line.strip_prefix(name));
            offset.map(str::to_owned)
        };
        let (sent, taken) = (
            offset(REDIS_PORT, "master_repl_offset:"),
            offset(REPLICA_PORT, "slave_repl_offset:"),
        );
        let link = offset(REPLICA_PORT, "master_link_status:");
        ensure!(link.as_deref() == Some("up") && sent == taken, "{link:?}");
        Ok(())
    })
    .unwrap();
    server
}

#[test]
fn after_a_failover_a_pod_goes_on_with_the_replica_and_gets_what_that_lacks_from_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = two_pods(folder.path());
    let agent = agent();
    written(put(&agent, &cluster.pods[0], "held", &peer("held")));
    // A replica that has all: the store is what it was.
    let server = replica(&cluster.pods[0], &folder.path().join("replica-1"));
    cluster.pod(1).kill_part(Part::Redis).unwrap();
    cluster.pod(1).redis = Some(server);
    let first = &cluster.pods[0];
    tell(first, REPLICA_PORT, "REPLICAOF NO ONE");
    tell(
        first,
        REPLICA_PORT,
        &format!("CONFIG SET port {REDIS_PORT}"),
    );
    takes_writes_again(&agent, first, "after");
    assert_eq!(status(&agent, first, "held"), 200);
    assert_eq!(reopened(&agent, first, "rolled_back"), 0);

    // A replica that was parted before the last writes: it is older than the store.
    let server = replica(first, &folder.path().join("replica-2"));
    tell(first, REPLICA_PORT, "REPLICAOF NO ONE");
    let last = written(put(&agent, first, "held", &peer("changed")));
    written(put(&agent, first, "late", &peer("late")));
    become_equal(&agent, &cluster.pods);
    cluster.pod(1).kill_part(Part::Redis).unwrap();
    cluster.pod(1).redis = Some(server);
    let first = &cluster.pods[0];
    tell(
        first,
        REPLICA_PORT,
        &format!("CONFIG SET port {REDIS_PORT}"),
    );
    let next = takes_writes_again(&agent, first, "after");
    assert!(next > last, "{next} after {last}");
    assert_eq!(reopened(&agent, first, "rolled_back"), 1);
    become_equal(&agent, &cluster.pods);
    for pod in &cluster.pods {
        let held = http::get(&agent, &url(pod, "held")).unwrap();
        assert_eq!(held.body["version"], *last);
        assert_eq!(status(&agent, pod, "late"), 200);
    }
}

#[test]
fn slow_answers_are_waited_for_and_too_slow_ones_are_said_to_be_of_unknown_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = two_pods(folder.path());
    let first = &cluster.pods[0];
    let agent = agent();
    written(put(&agent, first, "held", &peer("held")));
    tell(first, REDIS_PORT, "CLIENT PAUSE 250 ALL");
    written(put(&agent, first, "slow", &peer("slow")));
    tell(first, REDIS_PORT, "CLIENT PAUSE 3000 ALL");
    let unknown = put(&agent, first, "unknown", &peer("unknown"));
    assert_eq!(unknown.status, 503);
    assert_eq!(unknown.body["type"], "urn:udht:problem:outcome-unknown");
    let refused = put(&agent, first, "refused", &peer("refused"));
    is_refused(&refused, "found out");
    takes_writes_again(&agent, first, "after");
    become_equal(&agent, &cluster.pods);
    let found = cluster
        .pods
        .iter()
        .map(|pod| status(&agent, pod, "unknown"));
    let found: Vec<_> = found.collect();
    assert!(found == [200, 200] || found == [404, 404], "{found:?}");
    for pod in &cluster.pods {
        for key in ["held", "slow", "after"] {
            assert_eq!(status(&agent, pod, key), 200, "{key}");
        }
        assert_eq!(status(&agent, pod, "refused"), 404);
        assert_eq!(reopened(&agent, pod, "rolled_back"), 0);
    }
}

#[test]
fn a_redis_of_a_newer_format_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = two_pods(folder.path());
    cluster.pod(1).kill_part(Part::Manager).unwrap();
    let first = &cluster.pods[0];
    tell(first, REDIS_PORT, "HSET pod:meta format 2");
    let store = format!("--store=redis://{}:{REDIS_PORT}?prefix=pod:", first.address);
    let arguments = ["serve", "--listen=127.0.0.1:0", &store].map(str::to_owned);
    let program = program("udht-manager").unwrap();
    let mut manager = Process::start("manager", &program, &arguments).unwrap();
    let said = "is of format 2, and this build knows up to 1: run the release that wrote it";
    manager.wait_for_log(said).unwrap();
    assert_eq!(manager.wait().unwrap().code(), Some(1));
    assert_eq!(tell(first, REDIS_PORT, "HGET pod:meta format").trim(), "2");
}
