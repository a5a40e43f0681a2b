//! Real pods tell why a record is as it is: which store and pod it came from, what lost to it, and what
//! was refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use anyhow::ensure;
use serde_json::{Value, json};
use udht_tests::cluster::wait::until;
use udht_tests::http::{self, agent};
use udht_tests::pod::{Cluster, ClusterOptions};
use udht_tests::process::{PATIENCE, program};

/// Waits until a pod's explanation of a peer is as it should be, and gives it.
fn explained(cluster: &Cluster, pod: usize, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let url = format!(
        "{}/v1/peers/{id}/explain",
        cluster.pods[pod - 1].manager_url()
    );
    let (agent, mut found) = (agent(), Value::Null);
    until("the explanation", PATIENCE, || {
        found = http::get(&agent, &url)?.ok()?;
        ensure!(is_so(&found), "{found:#}");
        Ok(())
    })
    .unwrap();
    found
}

fn put(cluster: &Cluster, pod: usize, id: &str) -> Value {
    let url = format!("{}/v1/peers/{id}", cluster.pods[pod - 1].manager_url());
    let peer = json!({"name": id, "ip": "10.0.0.1"});
    http::put(&agent(), &url, &peer).unwrap().ok().unwrap()
}

#[test]
fn a_push_is_explained_by_store_and_pod_and_a_loser_and_a_refusal_show_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        // After the first exchange only pushes.
        sync_interval: Some("1h".to_owned()),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::set_up(folder.path(), 2, &options).unwrap();
    // The own records of both pods, and one more.
    cluster.pod(2).give_manager(&["--max-records=3"]);
    for number in [1, 2] {
        cluster.pod(number).start().unwrap();
    }
    let agent = agent();
    cluster.wait_until_joined(&agent).unwrap();
    let pods = [1, 2].map(|number: usize| {
        let url = cluster.pods[number - 1].manager_url();
        let own = http::get(&agent, &format!("{url}/v1/identity")).unwrap();
        let known = http::get(&agent, &format!("{url}/v1/replicas")).unwrap();
        let name = format!("pod-{number}");
        let store = &known.ok().unwrap()["store"];
        json!({"store": store, "peer_id": own.ok().unwrap()["peer_id"], "name": name})
    });

    // So that no exchange is faster than a push.
    until("both have all", PATIENCE, || {
        let [one, other] = [0, 1].map(|place: usize| cluster.pods[place].digest(&agent));
        let (one, other) = (one?, other?);
        ensure!(one == other && one.1 == 2, "{one:?} {other:?}");
        Ok(())
    })
    .unwrap();

    let first = put(&cluster, 1, "a");
    let told = explained(&cluster, 2, "a", |it| {
        it["origin"]["peer_id"] == pods[0]["peer_id"] && it["origin"]["name"] == "pod-1"
    });
    assert_eq!(told["version"], first["version"], "{told:#}");
    assert_eq!(told["writtenAt"], first["updatedAt"], "{told:#}");
    assert_eq!(told["origin"]["store"], pods[0]["store"], "{told:#}");
    assert_eq!(told["arrival"]["via"], "push", "{told:#}");
    assert_eq!(told["arrival"]["from"], pods[0], "{told:#}");

    let second = put(&cluster, 2, "a");
    let told = explained(&cluster, 1, "a", |it| {
        it["version"] == second["version"] && it["arrival"]["from"] == pods[1]
    });
    let lost = &told["lost"][0];
    assert_eq!(lost["version"], first["version"], "{told:#}");
    assert_eq!(lost["reason"], "overwritten", "{told:#}");
    assert_eq!(
        (&lost["via"], &lost["origin"]["own"]),
        (&json!("write"), &json!(true))
    );

    put(&cluster, 1, "b");
    let url = format!("{}/v1/peers/b/explain", cluster.pods[1].manager_url());
    until("the refusal", PATIENCE, || {
        ensure!(http::get(&agent, &url)?.status == 200);
        Ok(())
    })
    .unwrap();
    let told = explained(&cluster, 2, "b", |it| it["state"] == "unknown");
    assert_eq!(told["refused"][0]["reason"], "full", "{told:#}");
    assert_eq!(told["refused"][0]["from"], pods[0], "{told:#}");

    // The same at a terminal.
    let said = Command::new(program("udht-manager").unwrap())
        .args(["--manager", &cluster.pods[1].manager_url(), "explain", "b"])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    for part in [
        "unknown: nothing of it is held here",
        "full: ",
        " pod-1 (",
        "--max-records",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
