//! Each alarm, provoked in real processes: it is seen in the status of the pod, in its figures and by
//! `udht-sync peers`, and it ends by itself once what it is about is over.
//!
//! What real processes cannot be brought to here is tested beside the code: queues and the brake in
//! `peer-exchange::alarms` and in the contract tests of manager, the Kubernetes API in those of sync.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "strangers/credentials.rs"]
#[expect(dead_code, reason = "the tests of strangers need more of it")]
mod credentials;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use udht_tests::clock::Clock;
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions, Part, Pod, StoreKind};
use udht_tests::process::{PATIENCE, program};
use udht_tests::recipe::{is_installed, output};

use crate::credentials::{Authority, NAME};

fn options() -> ClusterOptions {
    ClusterOptions {
        sync_interval: Some("200ms".to_owned()),
        ..ClusterOptions::default()
    }
}

/// What manager tells of this pod.
fn status(pod: &Pod) -> Result<Value> {
    http::get(&agent(), &format!("{}/v1/status", pod.manager_url()))?.ok()
}

fn find(alarms: &Value, word: &str) -> Option<Value> {
    let mut alarms = alarms.as_array().into_iter().flatten();
    alarms.find(|it| it["alarm"] == word).cloned()
}

/// Waits until the status of this pod has the alarm.
#[track_caller]
fn begins(pod: &Pod, word: &str) -> Value {
    let what = format!("pod {} has the alarm {word}", pod.number);
    let mut alarm = Value::Null;
    let found = until(&what, PATIENCE, || {
        let status = status(pod)?;
        let found = find(&status["alarms"], word);
        ensure!(found.is_some(), "{status:#}");
        alarm = found.unwrap_or_default();
        Ok(())
    });
    found.unwrap();
    assert!(alarm["text"].as_str().unwrap().len() > 10, "{alarm}");
    assert!(alarm["advice"].as_str().unwrap().len() > 10, "{alarm}");
    alarm
}

/// Waits until the status of this pod has no alarm at all.
#[track_caller]
fn ends(pod: &Pod) {
    let what = format!("pod {} has no alarm", pod.number);
    let ended = until(&what, PATIENCE, || {
        let status = status(pod)?;
        ensure!(status["alarms"] == json!([]), "{:#}", status["alarms"]);
        ensure!(status["sync"].is_object(), "sync has not reported yet");
        Ok(())
    });
    ended.unwrap();
}

/// Waits until this pod has talked to so many peers, so that it knows their stores.
#[track_caller]
fn meets(pod: &Pod, peers: u64) {
    let what = format!("pod {} has met {peers} peers", pod.number);
    let met = until(&what, PATIENCE, || {
        let sync = &status(pod)?["sync"];
        ensure!(sync["reachable"] == peers, "{sync:#}");
        Ok(())
    });
    met.unwrap();
}

/// Waits until what `udht-sync peers` shows to people contains this.
#[track_caller]
fn shows(pod: &Pod, part: &str) {
    let what = format!("udht-sync peers of pod {} says {part}", pod.number);
    let said = until(&what, PATIENCE, || {
        let mut peers = Command::new(program("udht-sync")?);
        peers.args(["peers", &format!("--ops={}", pod.ops_url())]);
        let said = output(&mut peers, "")?;
        ensure!(said.contains(part), "{said}");
        Ok(())
    });
    said.unwrap();
}

/// Waits until the figure of an alarm of `sync` or `manager` has this value.
#[track_caller]
fn counts(pod: &Pod, program: &str, word: &str, value: &str) {
    let line = format!("udht_{program}_alarm{{alarm=\"{word}\"}} {value}");
    let read = until(&line, PATIENCE, || {
        let text = http::text(&agent(), &format!("{}/metrics", pod.ops_url()))?;
        ensure!(text.lines().any(|it| it == line), "it is not so");
        Ok(())
    });
    read.unwrap();
}

/// Waits until the alarm says so of whom it is about: an address or a store.
#[track_caller]
fn says(pod: &Pod, word: &str, who: &str, wanted: &str) -> Value {
    begins(pod, word);
    let what = format!("pod {} says {wanted} of {who}", pod.number);
    let said = until(&what, PATIENCE, || {
        let status = status(pod)?;
        let alarm = find(&status["alarms"], word).unwrap_or_default();
        let mut about = alarm["about"].as_array().into_iter().flatten();
        let is_it = |it: &&Value| it["who"].as_str().is_some_and(|it| it.contains(who));
        let reason = about.find(is_it).map(|it| it["reason"].clone());
        let reason = reason.unwrap_or_default();
        let is_so = reason.as_str().is_some_and(|it| it.contains(wanted));
        ensure!(is_so, "{alarm:#}");
        Ok(alarm)
    });
    said.unwrap()
}

fn put(pod: &Pod, key: &str) {
    let url = format!("{}/v1/peers/{key}", pod.manager_url());
    let peer = json!({"name": key, "ip": "10.0.0.7"});
    http::put(&agent(), &url, &peer).unwrap().ok().unwrap();
}

#[test]
fn a_pod_whose_peers_are_gone_is_isolated_until_one_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &options()).unwrap();
    // Somebody listens there and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap().to_string();
    let other = cluster.pod(2).exchange_address();
    let first = cluster.pod(1);
    first.kill_part(Part::Sync).unwrap();
    first.find_others(format!("fixed:{},{other},{mute}", first.exchange_address()));
    first.start_sync().unwrap();
    ends(first);
    counts(first, "sync", "isolated", "0");

    cluster.pod(2).kill().unwrap();
    let first = &cluster.pods[0];
    says(first, "isolated", &other, "failed_unreachable");
    shows(first, "ALARM isolated");
    counts(first, "sync", "isolated", "1");
    says(first, "isolated", &mute, "failed_timed_out");

    cluster.pod(2).start().unwrap();
    ends(&cluster.pods[0]);
    counts(&cluster.pods[0], "sync", "isolated", "0");
}

#[test]
fn a_pod_of_another_cluster_is_isolated_by_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::set_up(folder.path(), 2, &options()).unwrap();
    let store = cluster.pod(2).store().to_owned();
    cluster
        .pod(2)
        .become_of_cluster("other", folder.path().join("other.redb"));
    cluster.pods.iter_mut().try_for_each(Pod::start).unwrap();
    for (pod, other) in [(0, 1), (1, 0)] {
        let other = cluster.pods[other].exchange_address();
        let alarm = says(&cluster.pods[pod], "isolated", &other, "refused_cluster");
        assert!(alarm["advice"].as_str().unwrap().contains("--cluster"));
    }
    let second = cluster.pod(2);
    second.kill().unwrap();
    second.become_of_cluster("demo", store);
    second.start().unwrap();
    cluster.pods.iter().for_each(ends);
}

/// Writes what `--tls files:` needs for a certificate that is good for so long.
fn write(authority: &Authority, folder: &Path, lasts: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let leaf = authority.leaf(NAME, |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + lasts;
    });
    authority.write_with(folder, &leaf);
}

#[test]
fn a_certificate_of_a_strange_authority_isolates_and_one_near_its_end_is_told_of() {
    const LONG: Duration = Duration::from_hours(10 * 24);
    let folder = tempfile::tempdir().unwrap();
    let [own, strange] = ["own", "strange"].map(Authority::new);
    let folders = [1, 2].map(|number| folder.path().join(number.to_string()));
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
    }
    write(&own, &folders[0], Duration::from_hours(1));
    write(&strange, &folders[1], LONG);
    let mut cluster = Cluster::set_up(folder.path(), 2, &options()).unwrap();
    for (pod, folder) in cluster.pods.iter_mut().zip(&folders) {
        pod.speak_tls(format!("files:{}", folder.display()));
        pod.start().unwrap();
    }
    let [first, second] = &cluster.pods[..] else {
        unreachable!("two pods")
    };
    for (pod, other) in [(first, second), (second, first)] {
        let alarm = says(pod, "isolated", &other.exchange_address(), "failed_tls");
        assert!(alarm["advice"].as_str().unwrap().contains("ertificate"));
    }
    begins(first, "certificate");
    shows(first, "ALARM certificate");
    counts(first, "sync", "certificate", "1");
    assert_eq!(
        find(&status(second).unwrap()["alarms"], "certificate"),
        None
    );

    for folder in &folders {
        write(&own, folder, LONG);
    }
    cluster.pods.iter().for_each(ends);
}

#[test]
fn a_table_that_is_full_is_told_of_and_so_is_by_whom_that_it_stays_different() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::set_up(folder.path(), 3, &options()).unwrap();
    cluster.pod(3).give_manager(&["--max-records=6"]);
    cluster.pods.iter_mut().try_for_each(Pod::start).unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    for number in 0..9 {
        put(&cluster.pods[0], &format!("k{number}"));
    }
    let addresses: Vec<_> = cluster.pods.iter().map(Pod::exchange_address).collect();
    let third = &cluster.pods[2];
    begins(third, "table_full");
    counts(third, "manager", "table_full", "1");
    says(third, "diverged", &addresses[0], "refused_full here, ");
    for pod in &cluster.pods[..2] {
        let alarm = says(pod, "diverged", &addresses[2], "refused_full ");
        assert_eq!(alarm["about"].as_array().unwrap().len(), 1, "{alarm}");
        assert_eq!(find(&status(pod).unwrap()["alarms"], "table_full"), None);
    }
    shows(third, "ALARM diverged");
    counts(third, "sync", "diverged", "1");

    let third = cluster.pod(3);
    third.kill().unwrap();
    third.give_manager(&["--max-records=1000"]);
    third.start().unwrap();
    cluster.pods.iter().for_each(ends);
}

#[test]
fn a_redis_that_is_killed_is_a_store_that_fails_until_it_is_back() {
    if !is_installed("redis-server").unwrap() {
        println!("skipped: redis-server is needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        store: StoreKind::Redis,
        ..options()
    };
    let mut cluster = Cluster::start(folder.path(), 1, &options).unwrap();
    let pod = cluster.pod(1);
    ends(pod);
    pod.kill_part(Part::Redis).unwrap();
    begins(pod, "store_failing");
    shows(pod, "ALARM store_failing");
    counts(pod, "manager", "store_failing", "1");
    assert_eq!(status(pod).unwrap()["ready"], false);
    pod.begin(Part::Redis).unwrap();
    pod.ready(Part::Redis).unwrap();
    ends(pod);
    assert_eq!(status(pod).unwrap()["ready"], true);
}

#[test]
fn a_clock_that_is_wrong_is_told_of_and_poisons_nothing_until_it_is_right() {
    if !is_installed("faketime").unwrap() {
        println!("skipped: faketime is needed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new(folder.path().join("clock")).unwrap();
    let mut cluster = Cluster::set_up(folder.path(), 3, &options()).unwrap();
    cluster.pod(1).go_by(clock.clone());
    for pod in &mut cluster.pods {
        pod.start().unwrap();
    }
    cluster.wait_until_joined(&agent()).unwrap();
    cluster.pods.iter().for_each(ends);
    let [first, second, third] = &cluster.pods[..] else {
        unreachable!("three pods")
    };
    let peer = json!({"name": "p", "ip": "10.0.0.7"});
    for ahead in [3_600, -3_600] {
        clock.set(ahead).unwrap();
        begins(first, "clock_outlier");
        shows(first, "ALARM clock_outlier");
        counts(first, "sync", "clock_outlier", "1");
        counts(first, "manager", "clock_outlier", "1");
        let url = format!("{}/v1/peers/wrong", first.manager_url());
        let refused = http::put(&agent(), &url, &peer).unwrap();
        assert_eq!(refused.status, 503, "{refused:?}");
        put(second, "meanwhile");
        until("the others are equal", PATIENCE, || {
            let [second, third] = [second, third].map(|pod| pod.digest(&agent()));
            ensure!(second? == third?);
            Ok(())
        })
        .unwrap();
        for other in [second, third] {
            let alarms = &status(other).unwrap()["alarms"];
            assert_eq!(find(alarms, "clock_outlier"), None, "{alarms:#}");
        }

        // It heals by itself what it noted while it was wrong.
        clock.set(0).unwrap();
        cluster.pods.iter().for_each(ends);
        until("the first takes writes again", PATIENCE, || {
            let after = format!("{}/v1/peers/after", first.manager_url());
            http::put(&agent(), &after, &peer)?.ok().map(drop)
        })
        .unwrap();
        cluster.pods.iter().for_each(ends);
        cluster.wait_until_equal(&agent()).unwrap();
    }
}

#[test]
fn releases_that_are_too_far_apart_isolate_each_other_by_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::set_up(folder.path(), 2, &options()).unwrap();
    cluster.pod(1).speak_protocols("1-1");
    cluster.pod(2).speak_protocols("2-2");
    for pod in &mut cluster.pods {
        pod.start().unwrap();
    }
    for (of, peer) in [(0, 1), (1, 0)] {
        let peer = cluster.pods[peer].exchange_address();
        let alarm = says(&cluster.pods[of], "isolated", &peer, "refused_protocol");
        let advice = alarm["advice"].as_str().unwrap();
        assert!(advice.contains("neighbouring"), "{alarm}");
    }
    let pod = cluster.pod(1);
    pod.kill().unwrap();
    pod.speak_protocols("1-2");
    pod.start().unwrap();
    cluster.pods.iter().for_each(ends);
}

#[test]
fn a_deleted_record_that_waits_for_a_pod_that_is_gone_is_told_of_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 3, &options()).unwrap();
    let agent = agent();
    cluster.wait_until_joined(&agent).unwrap();
    let first = &cluster.pods[0];
    put(first, "goes");
    cluster.pods.iter().for_each(ends);
    // Who is killed before the first has talked to it has no name there.
    meets(first, 2);
    let gone = status(&cluster.pods[2]).unwrap();
    cluster.pod(3).kill().unwrap();
    let first = &cluster.pods[0];
    let url = format!("{}/v1/peers/goes", first.manager_url());
    assert_eq!(http::delete(&agent, &url).unwrap().status, 204);
    let store = gone["store"].as_str().unwrap();
    says(first, "floor_held", store, ": failed_unreachable");
    shows(first, "ALARM floor_held");
    counts(first, "manager", "floor_held", "1");

    cluster.pod(3).start().unwrap();
    cluster.pods.iter().for_each(ends);
}

#[test]
fn two_that_gave_each_other_up_name_one_another_until_one_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &options()).unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    cluster.pods.iter().for_each(ends);
    cluster.pods.iter().for_each(|pod| meets(pod, 1));
    let store = |pod: &Pod| status(pod).unwrap()["store"].as_str().unwrap().to_owned();
    let stores: Vec<_> = cluster.pods.iter().map(store).collect();
    // What one of them says must not reach the other before that one has said it too.
    cluster.pod(1).kill_part(Part::Sync).unwrap();
    cluster.pod(2).kill_part(Part::Sync).unwrap();
    for (pod, other) in cluster.pods.iter().zip(stores.iter().rev()) {
        let url = format!("{}/v1/replicas/{other}/give-up", pod.manager_url());
        http::post(&agent(), &url, &Value::Null)
            .unwrap()
            .ok()
            .unwrap();
    }
    cluster.pod(1).start_sync().unwrap();
    cluster.pod(2).start_sync().unwrap();
    for (pod, other) in cluster.pods.iter().zip(stores.iter().rev()) {
        says(pod, "mutual", other, "given_up");
        shows(pod, "ALARM mutual");
        counts(pod, "manager", "mutual", "1");
    }

    let url = format!("{}/v1/replicas/start-over", cluster.pods[1].manager_url());
    http::post(&agent(), &url, &Value::Null)
        .unwrap()
        .ok()
        .unwrap();
    cluster.pods.iter().for_each(ends);
    cluster.wait_until_equal(&agent()).unwrap();
}

#[test]
fn a_manager_that_is_gone_is_told_of_by_sync_and_a_sync_by_manager() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &options()).unwrap();
    cluster.pods.iter().for_each(ends);
    cluster.pod(1).kill_part(Part::Manager).unwrap();
    cluster.pod(2).kill_part(Part::Sync).unwrap();
    let [first, second] = &cluster.pods[..] else {
        unreachable!("two pods")
    };
    shows(first, "ALARM manager_down");
    counts(first, "sync", "manager_down", "1");
    begins(second, "sync_silent");
    cluster.pod(1).start_manager().unwrap();
    cluster.pod(2).start_sync().unwrap();
    cluster.pods.iter().for_each(ends);
}

#[test]
fn what_happens_between_pods_is_in_the_status_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), 2, &options()).unwrap();
    cluster.wait_until_joined(&agent()).unwrap();
    let [first, second] = &cluster.pods[..] else {
        unreachable!("two pods")
    };
    put(first, "news");
    for (pod, kind, moved) in [(first, "push", "sent"), (second, "pushed", "received")] {
        let what = format!("pod {} tells of {kind}", pod.number);
        let told = until(&what, PATIENCE, || {
            let status = status(pod)?;
            let mut events = status["events"].as_array().into_iter().flatten();
            let is_it = |it: &&Value| it["kind"] == kind && it[moved] == 1;
            ensure!(events.any(|it| is_it(&it)), "{status:#}");
            ensure!(status["sync"]["known"] == 1, "{status:#}");
            ensure!(status["sync"]["reachable"] == 1, "{status:#}");
            Ok(())
        });
        told.unwrap();
    }
}
