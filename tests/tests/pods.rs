//! Real managers and syncs: what only whole processes can show.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::process::{PATIENCE, Process, program};
use udht_tests::watch::{Event, follow};
use ureq::Agent;

fn peer(name: &str) -> Value {
    json!({"name": name, "ip": "10.0.0.1", "ports": {"userSync": 5001}})
}

/// Watches on all pods of a cluster.
fn watch_all(agent: &Agent, cluster: &Cluster) -> Receiver<Event> {
    let (sender, events) = channel();
    for pod in &cluster.pods {
        follow(agent, &pod.manager_url(), pod.number, sender.clone()).unwrap();
    }
    events
}

/// Waits until each of `pods` told of an event that `is_it`.
fn wait_for(events: &Receiver<Event>, pods: &[usize], is_it: impl Fn(&Event) -> bool) {
    let mut missing: BTreeSet<_> = pods.iter().copied().collect();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left);
        let event = event.unwrap_or_else(|_| panic!("it did not come in pods {missing:?}"));
        if is_it(&event) {
            missing.remove(&event.pod);
        }
    }
}

fn told_of(key: &'static str, kind: &'static str) -> impl Fn(&Event) -> bool {
    move |event| event.kind() == kind && event.peer_id() == Some(key)
}

/// The value of a metric's first line that begins with `name`.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_write_and_a_delete_in_one_pod_are_in_every_other() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), 3, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let events = watch_all(&agent, &cluster);
    let url = |pod: usize| format!("{}/v1/peers/a", cluster.pods[pod - 1].manager_url());

    let written = http::put(&agent, &url(1), &peer("first"))
        .unwrap()
        .ok()
        .unwrap();
    wait_for(&events, &[1, 2, 3], told_of("a", "put"));
    for pod in 1..=3 {
        assert_eq!(
            http::get(&agent, &url(pod)).unwrap().body,
            written,
            "pod {pod}"
        );
    }

    http::delete(&agent, &url(2)).unwrap().ok().unwrap();
    wait_for(&events, &[1, 2, 3], told_of("a", "delete"));
    for pod in 1..=3 {
        assert_eq!(
            http::get(&agent, &url(pod)).unwrap().status,
            404,
            "pod {pod}"
        );
    }
}

#[test]
fn a_push_brings_a_change_without_waiting_for_a_round() {
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        sync_interval: Some("1h".to_owned()),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(folder.path(), 4, &options).unwrap();
    let agent = agent();
    cluster.wait_until_joined(&agent).unwrap();
    let events = watch_all(&agent, &cluster);
    let url = format!("{}/v1/peers/a", cluster.pods[0].manager_url());
    http::put(&agent, &url, &peer("pushed"))
        .unwrap()
        .ok()
        .unwrap();
    wait_for(&events, &[1, 2, 3, 4], told_of("a", "put"));
    for pod in &cluster.pods[1..] {
        let metrics = http::text(&agent, &format!("{}/metrics", pod.ops_url())).unwrap();
        let applied = metric(
            &metrics,
            "udht_merges_total{result=\"applied\",via=\"push\"}",
        );
        assert!(applied >= 1.0, "pod {}: {applied} by push", pod.number);
    }
}

#[test]
fn a_tombstone_leaves_every_pod_once_all_have_it_and_what_was_deleted_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        sync_interval: Some("200ms".to_owned()),
        manager_arguments: vec!["--floor-interval=1s".to_owned()],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(folder.path(), 3, &options).unwrap();
    let agent = agent();
    cluster.wait_until_joined(&agent).unwrap();
    let url =
        |cluster: &Cluster, pod: usize| format!("{}/v1/peers/a", cluster.pods[pod].manager_url());
    http::put(&agent, &url(&cluster, 0), &peer("short-lived"))
        .unwrap()
        .ok()
        .unwrap();
    let status = |cluster: &Cluster, pod| http::get(&agent, &url(cluster, pod)).unwrap().status;
    let is_everywhere =
        |cluster: &Cluster, wanted| (0..3).all(|pod| status(cluster, pod) == wanted);
    until("it is everywhere", PATIENCE, || {
        ensure!(is_everywhere(&cluster, 200));
        Ok(())
    })
    .unwrap();
    // One is killed, so that it has a fenced opening, and misses the deletion.
    cluster.pod(3).kill().unwrap();
    http::delete(&agent, &url(&cluster, 1)).unwrap();
    cluster.pod(3).start().unwrap();
    until("no tombstone is left", PATIENCE, || {
        for pod in &cluster.pods {
            let replicas =
                http::get(&agent, &format!("{}/v1/replicas", pod.manager_url()))?.ok()?;
            let is_quiet = replicas["tombstones"] == 0 && replicas["floor"].is_string();
            ensure!(is_quiet, "pod {}: {replicas}", pod.number);
        }
        Ok(())
    })
    .unwrap();
    assert!(is_everywhere(&cluster, 404));
    let collected = |pod: &udht_tests::pod::Pod| {
        let metrics = http::text(&agent, &format!("{}/metrics", pod.ops_url())).unwrap();
        metric(&metrics, "udht_tombstones_collected_total")
    };
    assert!(cluster.pods.iter().map(collected).sum::<f64>() >= 1.0);
}

#[test]
fn each_pod_s_own_record_reaches_all_and_tells_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), 3, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let events = watch_all(&agent, &cluster);
    let first = cluster.pods[0].manager_url();
    loop {
        let list = http::get(&agent, &format!("{first}/v1/peers"))
            .unwrap()
            .ok()
            .unwrap();
        let names: BTreeSet<_> = list["peers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|peer| peer["name"].to_string())
            .collect();
        if names == BTreeSet::from(["\"pod-1\"", "\"pod-2\"", "\"pod-3\""].map(String::from)) {
            break;
        }
        events.recv_timeout(PATIENCE).unwrap();
    }
    let identity = http::get(&agent, &format!("{first}/v1/identity"))
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(identity["ip"], cluster.pods[0].address.to_string());
    assert_eq!(identity["ports"]["userSync"], 3003);
}

#[test]
fn a_pod_that_was_killed_keeps_what_it_had_answered_and_gets_what_it_missed() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let urls: Vec<_> = cluster
        .pods
        .iter()
        .map(udht_tests::pod::Pod::manager_url)
        .collect();
    let at = |pod: usize, key: &str| format!("{}/v1/peers/{key}", urls[pod - 1]);
    let events = watch_all(&agent, &cluster);

    http::put(&agent, &at(1, "both"), &peer("both"))
        .unwrap()
        .ok()
        .unwrap();
    wait_for(&events, &[1, 2], told_of("both", "put"));
    http::put(&agent, &at(2, "own"), &peer("own"))
        .unwrap()
        .ok()
        .unwrap();
    cluster.pod(2).kill().unwrap();
    http::put(&agent, &at(1, "missed"), &peer("missed"))
        .unwrap()
        .ok()
        .unwrap();
    http::delete(&agent, &at(1, "both")).unwrap().ok().unwrap();

    cluster.pod(2).start_manager().unwrap();
    assert_eq!(http::get(&agent, &at(2, "own")).unwrap().status, 200);
    // The two changes may come in either order.
    let (puts, deletes) = (watch_all(&agent, &cluster), watch_all(&agent, &cluster));
    cluster.pod(2).start_sync().unwrap();
    wait_for(&puts, &[2], told_of("missed", "put"));
    wait_for(&deletes, &[2], told_of("both", "delete"));
    assert_eq!(http::get(&agent, &at(2, "both")).unwrap().status, 404);
}

#[test]
fn no_write_that_a_manager_answered_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let url = cluster.pod(1).manager_url();
    let (sender, answered) = channel();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (url, sender) = (url.clone(), sender.clone());
            std::thread::spawn(move || {
                let agent = agent();
                for number in 0.. {
                    let key = format!("w{writer}-{number}");
                    let answer = http::put(&agent, &format!("{url}/v1/peers/{key}"), &peer(&key));
                    match answer {
                        Ok(answer) if answer.status == 201 => sender.send(key).unwrap(),
                        _ => return,
                    }
                }
            })
        })
        .collect();
    let mut kept: Vec<String> = answered.iter().take(200).collect();
    cluster.pod(1).kill().unwrap();
    for writer in writers {
        writer.join().unwrap();
    }
    kept.extend(answered.try_iter());
    cluster.pod(1).start_manager().unwrap();
    let agent = agent();
    for key in kept {
        let status = http::get(&agent, &format!("{url}/v1/peers/{key}"))
            .unwrap()
            .status;
        assert_eq!(status, 200, "{key} was answered and is lost");
    }
}

#[test]
fn pods_of_another_cluster_are_refused_and_counted_and_take_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &ClusterOptions::default()).unwrap();
    let agent = agent();
    // Pod 2 comes back at its address as a pod of another cluster.
    cluster.pod(2).kill().unwrap();
    cluster
        .pod(2)
        .become_of_cluster("another", folder.path().join("another.redb"));
    cluster.pod(2).start().unwrap();
    let url = format!("{}/v1/peers/secret", cluster.pod(2).manager_url());
    http::put(&agent, &url, &peer("secret"))
        .unwrap()
        .ok()
        .unwrap();

    let exchange = Command::new(program("udht-sync").unwrap())
        .args([
            "exchange",
            &cluster.pod(2).exchange_address(),
            "--tls",
            "off",
        ])
        .args([
            "--manager",
            &cluster.pod(1).manager_url(),
            "--cluster",
            "demo",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(exchange.status.code(), Some(3), "{exchange:?}");
    assert!(
        String::from_utf8_lossy(&exchange.stderr).contains("cluster"),
        "{exchange:?}"
    );
    let metrics = http::text(&agent, &format!("{}/metrics", cluster.pod(2).ops_url())).unwrap();
    let refused = "udht_exchanges_total{result=\"refused_cluster\",role=\"responder\"}";
    assert!(metric(&metrics, refused) >= 1.0);
    let url = format!("{}/v1/peers/secret", cluster.pod(1).manager_url());
    assert_eq!(http::get(&agent, &url).unwrap().status, 404);
}

#[test]
fn a_pod_with_a_smaller_limit_keeps_what_fits_and_says_that_it_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &ClusterOptions::default()).unwrap();
    let agent = agent();
    cluster.pod(1).kill().unwrap();
    for number in 0..40 {
        let url = format!("{}/v1/peers/p{number}", cluster.pod(2).manager_url());
        http::put(&agent, &url, &peer("one of many"))
            .unwrap()
            .ok()
            .unwrap();
    }
    cluster.pod(1).give_manager(&["--max-records=10"]);
    cluster.pod(1).start().unwrap();
    let sync = cluster.pod(1).sync.as_mut().unwrap();
    let said = sync.wait_for_log("records are refused").unwrap();
    assert!(said.contains("refused_full"), "{said}");

    let first = cluster.pod(1).manager_url();
    let list = http::get(&agent, &format!("{first}/v1/peers")).unwrap();
    let held = list.ok().unwrap()["peers"].as_array().unwrap().clone();
    assert_eq!(held.len(), 10);
    let new = http::put(&agent, &format!("{first}/v1/peers/new"), &peer("new")).unwrap();
    assert_eq!(new.status, 507);
    let url = format!("{first}/v1/peers/{}", held[0]["peer_id"].as_str().unwrap());
    let changed = http::put(&agent, &url, &peer("changed")).unwrap();
    assert_eq!(changed.status, 200);
    http::delete(&agent, &url).unwrap().ok().unwrap();
}

#[test]
fn a_second_manager_on_one_file_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let store = format!(
        "--store=embedded:{}",
        folder.path().join("pod-1.redb").display()
    );
    let arguments = ["serve".to_owned(), "--listen=127.0.0.1:0".to_owned(), store];
    let program = program("udht-manager").unwrap();
    let mut second = Process::start("second manager", &program, &arguments).unwrap();
    second.wait_for_log("open in another process").unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let agent = agent();
    let url = format!("{}/readyz", cluster.pods[0].manager_url());
    assert_eq!(http::text(&agent, &url).unwrap().trim(), "ok");
}

#[test]
fn a_manager_of_another_cluster_does_not_open_the_store_and_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    cluster.pod(1).kill().unwrap();
    let store = format!("--store=embedded:{}", cluster.pod(1).store().display());
    let arguments = [
        "serve",
        "--listen=127.0.0.1:0",
        "--cluster=elsewhere",
        &store,
    ];
    let arguments = arguments.map(str::to_owned);
    let program = program("udht-manager").unwrap();
    let mut other = Process::start("manager of another cluster", &program, &arguments).unwrap();
    let said = other
        .wait_for_log("holds the records of the cluster")
        .unwrap();
    assert!(said.contains("is of elsewhere"), "{said}");
    assert_eq!(other.wait().unwrap().code(), Some(1));
}

#[test]
fn a_scrape_of_sync_has_the_manager_s_figures_and_says_when_it_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let url = format!("{}/metrics", cluster.pod(1).ops_url());
    let metrics = http::text(&agent, &url).unwrap();
    assert!((metric(&metrics, "udht_manager_up") - 1.0).abs() < f64::EPSILON);
    assert!(metric(&metrics, "udht_records{table=\"peers\"}") >= 1.0);
    let mut families = BTreeSet::new();
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(families.insert(line.to_owned()), "twice: {line}");
    }
    cluster.pod(1).manager.take().unwrap().kill().unwrap();
    let metrics = http::text(&agent, &url).unwrap();
    assert!(metric(&metrics, "udht_manager_up").abs() < f64::EPSILON);
    let ready = http::get(&agent, &format!("{}/readyz", cluster.pod(1).ops_url())).unwrap();
    assert_eq!(ready.status, 503);
}

#[test]
fn a_pod_whose_store_is_gone_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 1, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let ready = format!("{}/readyz", cluster.pod(1).ops_url());
    assert_eq!(http::text(&agent, &ready).unwrap().trim(), "ready");
    fs::remove_file(folder.path().join("pod-1.redb")).unwrap();
    let away = http::get(&agent, &ready).unwrap();
    assert_eq!(away.status, 503);
}

#[test]
fn both_programs_end_cleanly_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(folder.path(), 2, &ClusterOptions::default()).unwrap();
    let agent = agent();
    let events = watch_all(&agent, &cluster);
    let asked = Instant::now();
    let mut manager = cluster.pod(1).manager.take().unwrap();
    let mut sync = cluster.pod(1).sync.take().unwrap();
    assert!(sync.stop().unwrap().success(), "sync:\n{}", sync.log());
    assert!(
        manager.stop().unwrap().success(),
        "manager:\n{}",
        manager.log()
    );
    wait_for(&events, &[1], |event| {
        event.kind() == "end" && event.at >= asked
    });
}
