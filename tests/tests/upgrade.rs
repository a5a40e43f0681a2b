//! Real pods of neighbouring protocol versions side by side, under a trickle of writes, whichever goes
//! first; and a pod that has no version in common with the others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use udht_tests::cluster::trickle::{Trickle, Way};
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Direct, Pod};
use udht_tests::process::{PATIENCE, program};
use udht_tests::recipe::output;

/// This release speaks this.
const OLD: &str = "1-1";
/// The next one is to speak this.
const NEW: &str = "1-2";
/// The one after that.
const LAST: &str = "2-2";
/// Writes that are answered between one change of a pod and the next.
const MEANWHILE: u64 = 40;

/// Three pods of which the first two speak some versions of the protocol, and the third others.
fn start(folder: &std::path::Path, versions: [&str; 3]) -> Cluster {
    let options = ClusterOptions {
        sync_interval: Some("200ms".to_owned()),
        manager_arguments: vec!["--floor-interval=1s".to_owned()],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::set_up(folder, 3, &options).unwrap();
    for (pod, versions) in cluster.pods.iter_mut().zip(versions) {
        pod.speak_protocols(versions);
        pod.start().unwrap();
    }
    cluster
}

/// Kills a pod, which comes back as a build that speaks other versions.
fn change(cluster: &mut Cluster, number: usize, versions: &str) {
    let pod = cluster.pod(number);
    pod.kill().unwrap();
    pod.speak_protocols(versions);
    pod.start().unwrap();
}

fn ways(cluster: &Cluster) -> Vec<Direct> {
    cluster.pods.iter().map(Pod::way).collect()
}

/// What `udht-sync` says to a verb about a pod.
fn sync(arguments: &[&str]) -> Value {
    let mut command = Command::new(program("udht-sync").unwrap());
    let said = output(command.args(arguments).arg("--output=json"), "").unwrap();
    serde_json::from_str(&said).unwrap()
}

/// The version in which one pod, as a build that speaks `versions`, exchanges with another.
fn spoken(cluster: &Cluster, from: usize, versions: &str, to: usize) -> Value {
    let [from, to] = [from, to].map(|number| &cluster.pods[number - 1]);
    let (manager, address) = (from.manager_url(), to.exchange_address());
    let ends = ["--cluster=demo", "--tls=off"];
    let manager = format!("--manager={manager}");
    let versions = format!("--protocols={versions}");
    let said = sync(&[&["exchange", &address, &manager, &versions], &ends[..]].concat());
    said["protocol"].clone()
}

/// What the sync of one pod knows of another.
fn known(of: &Pod, peer: &Pod) -> Value {
    let known = sync(&["peers", &format!("--ops={}", of.ops_url())]);
    let peers = known["peers"].as_array().unwrap();
    let address = peer.exchange_address();
    let known = peers
        .iter()
        .find(|peer| peer["address"] == address.as_str());
    known.unwrap().clone()
}

/// A rolling upgrade in this order, under a trickle of writes into all pods, and the rollback in the
/// same order.
#[track_caller]
fn rolls_without_a_lost_write(order: [usize; 3], versions: [&str; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = versions;
    let mut cluster = start(folder.path(), [old; 3]);
    let agent = agent();
    cluster.wait_until_joined(&agent).unwrap();
    let trickle = Trickle::through(ways(&cluster), "roll");
    trickle.wait_for_more(MEANWHILE).unwrap();
    for (from, to) in [(old, new), (new, old)] {
        for number in order {
            change(&mut cluster, number, to);
            // Pods of both are there, but for the last.
            trickle.wait_for_more(MEANWHILE).unwrap();
        }
        let newest = |versions: &str| versions.rsplit('-').next().unwrap().parse::<u32>().unwrap();
        assert_eq!(spoken(&cluster, 1, to, 2), newest(to), "all speak {to}");
        assert_eq!(
            spoken(&cluster, 2, from, 3),
            newest(old),
            "{from} with {to}"
        );
    }
    let written = trickle.end().unwrap();
    written.wait_until_in_all(&mut ways(&cluster)).unwrap();
    cluster.wait_until_equal(&agent).unwrap();
}

#[test]
fn a_rolling_upgrade_and_its_rollback_lose_no_write() {
    rolls_without_a_lost_write([1, 2, 3], [OLD, NEW]);
}

/// And the step after that, to a release that no longer speaks the first version.
#[test]
fn an_upgrade_in_the_opposite_order_to_where_the_oldest_version_is_dropped_loses_no_write() {
    rolls_without_a_lost_write([3, 2, 1], [NEW, LAST]);
}

#[test]
fn a_mix_stays_equal_whichever_was_there_first_and_each_knows_what_the_other_speaks() {
    for versions in [[OLD, NEW, NEW], [NEW, OLD, OLD]] {
        let folder = tempfile::tempdir().unwrap();
        let cluster = start(folder.path(), versions);
        let agent = agent();
        cluster.wait_until_joined(&agent).unwrap();
        let trickle = Trickle::through(ways(&cluster), "mix");
        trickle.wait_for_more(3 * MEANWHILE).unwrap();
        let written = trickle.end().unwrap();
        written.wait_until_in_all(&mut ways(&cluster)).unwrap();
        cluster.wait_until_equal(&agent).unwrap();
        until("each knows the other", PATIENCE, || {
            let [first, second] =
                [(0, 1), (1, 0)].map(|(of, peer)| known(&cluster.pods[of], &cluster.pods[peer]));
            ensure!(first["protocols"] == versions[1], "{first}");
            ensure!(second["protocols"] == versions[0], "{second}");
            Ok(())
        })
        .unwrap();
        // Tombstones leave as they do among equals: all know of all that all have it.
        let mut way = cluster.pods[0].way();
        written.delete(&mut way).unwrap();
        until("no tombstone is left", PATIENCE, || {
            for pod in &cluster.pods {
                let url = format!("{}/v1/replicas", pod.manager_url());
                let replicas = http::get(&agent, &url)?.ok()?;
                ensure!(
                    replicas["tombstones"] == 0,
                    "pod {}: {replicas}",
                    pod.number
                );
            }
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_pod_without_a_version_in_common_is_refused_by_word_until_one_between_carries_all_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path(), [OLD, OLD, LAST]);
    let agent = agent();
    let mut ways = ways(&cluster);
    let body = serde_json::json!({"name": "early", "ip": "10.0.0.1"});
    for (way, key) in ways.iter_mut().zip(["old-1", "old-2", "new-3"]) {
        way.put(&format!("/v1/peers/{key}"), &body)
            .unwrap()
            .ok()
            .unwrap();
    }
    for (of, peer) in [(0, 2), (2, 0)] {
        until("it is refused by word", PATIENCE, || {
            let known = known(&cluster.pods[of], &cluster.pods[peer]);
            ensure!(known["last_error"] == "refused_protocol", "{known}");
            ensure!(known["reachable"] == false, "{known}");
            Ok(())
        })
        .unwrap();
    }
    let figure = "udht_exchanges_total{result=\"refused_protocol\",role=\"initiator\"}";
    let url = format!("{}/metrics", cluster.pods[2].ops_url());
    // A push may have been refused first: those have figures of their own.
    until("an exchange is refused too", PATIENCE, || {
        let figures = http::text(&agent, &url)?;
        let line = figures.lines().find_map(|line| line.strip_prefix(figure));
        let count: f64 = line.context("no such figure")?.trim().parse()?;
        ensure!(count >= 1.0, "{count}");
        Ok(())
    })
    .unwrap();
    let has = |way: &Direct, key: &str| way.get(&format!("/v1/peers/{key}")).unwrap().status == 200;
    assert!(
        !has(&ways[2], "old-1") && !has(&ways[0], "new-3"),
        "nothing moved"
    );

    change(&mut cluster, 2, NEW);
    until("all have all by way of the one between", PATIENCE, || {
        for way in &ways {
            for key in ["old-1", "old-2", "new-3"] {
                ensure!(has(way, key), "{} lacks {key}", way.pod());
            }
        }
        Ok(())
    })
    .unwrap();
    change(&mut cluster, 1, NEW);
    cluster.wait_until_equal(&agent).unwrap();
}
